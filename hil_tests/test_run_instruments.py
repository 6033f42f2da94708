"""The wrong instrument, none, or one that says nothing: exit code 3, a message that helps, nothing on.

One station with everything right, and one thing wrong at a time. Ten lab seconds a second, the shared bench:
no physics is waited for, only time-outs, which at this speed are as in a real station.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import threading
import tomllib
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest
from pyModbusTCP.server import ModbusServer

from controller.schemas import schema
from hil_tests.harness import Run, World, edited_station, ending, one_scan, operando
from tests.controller.mosquitto import free_port

KEITHLEY = b"KEITHLEY INSTRUMENTS INC.,MODEL 2400,1234567,C32   Mar  4 2011 09:32:39/A02  /J/H\n"
NOTHING = b""


def keithley_2400(line: bytes) -> bytes:
    """A source meter: it knows SCPI, keeps silent on everything else and puts an error into its queue."""
    return KEITHLEY if line.strip().upper() == b"*IDN?" else NOTHING


def terminal_server(line: bytes) -> bytes:
    """Something that answers everything, and not with what was asked for."""
    return b"login: " + line + b"\nPassword:\n"


def silent(line: bytes) -> bytes:
    return NOTHING


@contextlib.contextmanager
def serial(answer: Callable[[bytes], bytes]) -> Iterator[str]:
    """Run an instrument at the other end of a pseudo-terminal; yield its port."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    reading, writing = os.pipe()  # to end the thread

    def work() -> None:
        pending = b""
        while reading not in (ready := select.select([master, reading], [], [])[0]):
            if master in ready:
                *lines, pending = re.split(rb"[\r\n]+", pending + os.read(master, 4096))
                for line in lines:
                    os.write(master, answer(line))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield os.ttyname(slave)
    finally:
        os.write(writing, b"!")
        thread.join()
        for end in (master, slave, reading, writing):
            os.close(end)


@contextlib.contextmanager
def modbus_tcp() -> Iterator[int]:
    """Run some Modbus/TCP device, by other people's software: 65 536 registers, all zero; yield its port."""
    server = ModbusServer("127.0.0.1", free_port(), no_block=True)
    server.start()
    try:
        yield server.port
    finally:
        server.stop()


@dataclass(frozen=True)
class Wrong:
    """What is wrong, and what must be said of it."""

    device: str
    says: tuple[str, ...]  # what was asked (two words from register 75, say), what came


@contextlib.contextmanager
def wrong(world: World, name: str, path: Path) -> Iterator[Path]:
    """Write the station of ``world`` with one thing wrong."""
    lines = tomllib.loads(world.station.read_text())["line"]

    def put(line: str, key: str, value: str | int) -> Path:
        old = re.search(rf'(?m)^{key} = "?{re.escape(str(lines[line][key]))}"?$', world.station.read_text())
        assert old is not None
        new = f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}"
        return edited_station(world, path, lambda text: text.replace(old[0], new))

    with contextlib.ExitStack() as stack:
        if name == "no such port":
            yield put("heater", "port", "/dev/pts/40404")
        elif name == "wrong unit":
            yield edited_station(world, path, lambda text: text.replace("unit_id = 1", "unit_id = 7"))
        elif name == "silent":
            yield put("heater", "port", stack.enter_context(serial(silent)))
        elif name == "Keithley 2400":
            yield put("cell", "port", stack.enter_context(serial(keithley_2400)))
        elif name == "terminal server":
            yield put("cell", "port", stack.enter_context(serial(terminal_server)))
        elif name == "not a T7":
            yield put("io", "port", stack.enter_context(modbus_tcp()))
        else:
            raise ValueError(name)


WRONG = {
    "no such port": Wrong("heater", ("/dev/pts/40404", "No such file")),
    "wrong unit": Wrong("heater", ("no reply", "asked 07 03 00 4b 00 02")),
    "silent": Wrong("heater", ("no reply", "asked 01 03 00 4b 00 02")),
    "Keithley 2400": Wrong("cell", ("no line", "within 1 s", "asked 't'")),
    "terminal server": Wrong("cell", ("not the answer asked for", "asked 't'", "got 'login: t'")),
    "not a T7": Wrong("io", ("product 0 is not a T7", "asked 'PRODUCT_ID at 60000'", "got '0'")),
}


@pytest.mark.parametrize("name", WRONG)
def test_check_names_it(world: World, tmp_path: Path, name: str) -> None:
    with wrong(world, name, tmp_path / "station.toml") as station:
        found = operando("check", str(station))
    assert found.returncode == 3, found
    (message,) = found.stderr.splitlines()
    assert message.startswith(f"{WRONG[name].device}: ")
    for part in WRONG[name].says:
        assert part in message
    assert found.stdout.count("nobody") == 1  # in the table; the others have answered
    assert world.outputs().off


@pytest.mark.parametrize("name", ["no such port", "wrong unit", "Keithley 2400", "not a T7"])
def test_run_ends_with_a_record_that_says_so_and_nothing_was_on(
    world: World, tmp_path: Path, name: str
) -> None:
    before, begun = world.outputs(), world.truth()
    path = one_scan(tmp_path / "scan.toml")
    with wrong(world, name, tmp_path / "station.toml") as station:  # noqa: SIM117
        with ending(Run.start(tmp_path / "run", path, "--station", str(station))) as run:
            assert run.ended() == 3
    assert run.err == ""
    record = run.record
    assert record["exit_code"] == 3
    assert record["outcome"].startswith(f"{WRONG[name].device}: ")
    for part in WRONG[name].says:
        assert part in record["outcome"]
    summary = json.loads(run.out)
    jsonschema.validate(summary, schema("summary"))
    assert summary["outcome"] == record["outcome"]
    nothing_was_begun(run)
    after = world.outputs()
    assert after.off
    assert (after.heater_joule, after.pulses) == (before.heater_joule, before.pulses)
    ended = world.truth()
    assert ended["beam"]["on_sample_s"] == begun["beam"]["on_sample_s"]
    assert ended["charge_coulomb"]["terminals"] == begun["charge_coulomb"]["terminals"]
    assert ended["twins"]["io"]["relay_switched"] == begun["twins"]["io"]["relay_switched"]


def nothing_was_begun(run: Run) -> None:
    """No step, no pass, no sample; nothing that could be resumed; what is written says why."""
    assert run.record["steps"] == []
    for kind in ("step", "pass", "sample", "run_started"):
        assert run.events(kind) == []
    assert run.rows("SELECT count(*) FROM runs")[0][0] == 0
    (last,) = run.events("run")
    assert last["body"]["outcome"] == run.record["outcome"]
    assert not list(run.run_dir.rglob("*.part"))
    assert not list(run.run_dir.rglob("*.tmp"))


def test_check_tells_of_every_instrument_at_once(world: World, tmp_path: Path) -> None:
    with wrong(world, "Keithley 2400", tmp_path / "a.toml") as a:
        text = a.read_text().replace("unit_id = 1", "unit_id = 7")
        with modbus_tcp() as port:
            io = tomllib.loads(text)["line"]["io"]["port"]
            (tmp_path / "b.toml").write_text(text.replace(f"port = {io}\n", f"port = {port}\n"))
            found = operando("check", str(tmp_path / "b.toml"), "--json")
    assert found.returncode == 3
    told = json.loads(found.stdout)["devices"]
    assert {row["name"]: row["ok"] for row in told} == {
        "heater": False, "cell": False, "io": False, "pixe": True, "pige": True,
    }  # fmt: skip
    wrong_ones = {row["name"]: row for row in told if not row["ok"]}
    assert all(row["error"].startswith(f"{name}: ") for name, row in wrong_ones.items())
    assert set(wrong_ones) == {"heater", "cell", "io"}
    assert "unit_id = 7" in " ".join(wrong_ones["heater"]["advice"])  # and what to do about it
    assert "another instrument" in " ".join(wrong_ones["io"]["advice"])
    assert wrong_ones["heater"]["lines"]["heater"]["timeouts"] > 0
    assert world.outputs().off


def test_wrong_files_are_refused_with_all_their_errors_before_anything_is_written(
    world: World, tmp_path: Path
) -> None:
    station = edited_station(
        world, tmp_path / "station.toml",
        lambda text: text.replace('current = "40 uA"', "current = 40").replace("unit_id = 1", "unit = 1"),
    )  # fmt: skip
    experiment = one_scan(tmp_path / "scan.toml")
    experiment.write_text(
        experiment.read_text()
        .replace('capacity = "20 uAh"', 'capacity = "20 uA"')
        .replace('"10 ms"', '"10 s"')
    )
    state = ("--state", str(tmp_path / "state"))
    commands = (
        ("check", str(station), str(experiment)),
        ("run", str(experiment), "--station", str(station), "--out", str(tmp_path / "runs"), *state),
    )
    for command in commands:
        found = operando(*command)
        assert found.returncode == 2
        assert "Traceback" not in found.stderr
        for part in ("limits.current", "unit_id", "device.heater.unit", "sample.capacity"):
            assert part in found.stderr, found.stderr
    assert not (tmp_path / "runs").exists()
    assert world.outputs().off
