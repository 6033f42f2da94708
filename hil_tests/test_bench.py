"""The bench as its owner sees it: a process with a station file, a socket, faults and a truth file."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import minimalmodbus
import pytest
from pyModbusTCP.client import ModbusClient

from hil_tests.bench import Bench, main
from hil_tests.sim.schedule import FaultSchedule

START_S = 30.0


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hil_tests.bench", "--dir", str(folder), *arguments]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen[str]) -> int:
    try:
        return process.wait(START_S)
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        process.kill()


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any], Path]]:
    folder = tmp_path_factory.mktemp("bench")
    fault = folder / "faults.toml"
    fault.write_text('[[fault]]\ntarget = "io"\nkind = "permit"\ngiven = false\nat_pulses = 2\n')
    truth = folder / "truth.json"
    process = start(folder, "--speed", "20", "--seed", "5", "--fault", str(fault), "--truth", str(truth))
    assert process.stdout is not None
    path = Path(process.stdout.readline().strip())
    assert path == folder / "station.toml"
    yield process, tomllib.loads(path.read_text()), folder
    ended(process)


def ask(station: dict[str, Any], **request: Any) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10.0)
        client.connect(station["bench"]["socket"])
        client.sendall(json.dumps({"nonce": station["bench"]["nonce"], **request}).encode() + b"\n")
        with client.makefile() as lines:
            reply: dict[str, Any] = json.loads(lines.readline())
            return reply


def test_station_file_has_every_table(running: Any) -> None:
    _, station, _ = running
    assert set(station) == {
        *("station", "bench", "line", "device", "roles", "beam", "limits", "interlock", "broker", "remote"),
    }
    assert set(station["line"]) == set(station["device"]) == {"heater", "cell", "io", "pixe", "pige"}
    assert station["line"]["heater"]["port"].startswith("/dev/pts/")
    assert station["bench"]["speed"] == 20.0
    assert station["beam"]["lithium_line"] == {"centroid": "481 keV", "fwhm": "6 keV"}
    assert station["device"]["pige"]["channels"] == 8192


def test_only_the_nonce_opens_the_socket(running: Any) -> None:
    _, station, _ = running
    hello = ask(station)
    assert hello["ok"] is True
    assert (hello["speed"], hello["epoch"]) == (20.0, station["bench"]["epoch"])
    assert hello["lab_s"] == pytest.approx((time.monotonic() - hello["epoch"]) * 20.0, abs=20.0)
    refused = ask({"bench": {**station["bench"], "nonce": "guessed"}})
    assert (refused["ok"], refused["code"]) == (False, "nonce")
    assert ask(station, do="dance")["ok"] is False


def test_foreign_clients_reach_the_twins(running: Any) -> None:
    _, station, _ = running
    client = ModbusClient(host="127.0.0.1", port=station["line"]["io"]["port"], timeout=5.0, auto_open=True)
    assert client.read_holding_registers(55100, 2) == [0x0011, 0x2233]
    client.close()
    heater = minimalmodbus.Instrument(station["line"]["heater"]["port"], 1)
    heater.serial.baudrate = 9600
    heater.serial.timeout = 2.0
    assert heater.read_register(1, 1) == pytest.approx(25.0, abs=1.0)  # process value, degC
    heater.serial.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as detector:
        detector.settimeout(5.0)
        detector.sendto(
            bytes.fromhex("f5 fa 01 01 00 00 fe 0f"), ("127.0.0.1", station["line"]["pige"]["port"])
        )
        status = detector.recv(2048)
    assert status[:4] == b"\xf5\xfa\x80\x01"
    assert status[6 + 39] == 1  # a PX5


def test_values_can_be_set_and_faults_injected(running: Any) -> None:
    _, station, _ = running
    assert ask(station, do="set", what="holder.ambient_k", value=310.0) == {"ok": True}
    assert "known" in ask(station, do="set", what="holder.colour", value=1)["error"]
    assert ask(station, do="fault", target="io", kind="beam_loss", lost=True) == {"ok": True}
    assert ask(station, do="fault", target="io", kind="beam_loss", lost=False) == {"ok": True}
    assert ask(station, do="fault", target="moon", kind="x")["ok"] is False


def test_faults_of_the_file_come_when_they_are_due(running: Any) -> None:
    _, station, _ = running
    assert ask(station, do="truth")["truth"]["faults_waiting"] == 1
    client = ModbusClient(host="127.0.0.1", port=station["line"]["io"]["port"], timeout=5.0, auto_open=True)
    for level in (0, 1, 0, 1):
        assert client.write_single_register(2000, level)
    client.close()
    deadline = time.monotonic() + 5.0
    while (truth := ask(station, do="truth")["truth"])["faults_waiting"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert truth["faults_waiting"] == 0
    assert truth["faults"][0]["kind"] == "permit"
    assert truth["twins"]["io"]["pulses"] >= 2


def test_the_bench_ends_with_its_owner_and_leaves_the_truth(running: Any) -> None:
    process, station, folder = running
    process.stdin.close()
    process.stdin = None
    assert process.wait(START_S) == 0
    truth = json.loads((folder / "truth.json").read_text())
    assert truth["schema"] == "operando/bench-truth/1"
    assert truth["seed"] == 5
    assert set(truth["twins"]) == {"heater", "cell", "io", "pixe", "pige"}
    assert truth["sample"]["layers"]["cathode"]["now"]["Co"] > 0
    assert not Path(station["bench"]["socket"]).exists()


def test_sigterm_ends_it_too(tmp_path: Path) -> None:
    process = start(tmp_path, "--speed", "5")
    assert process.stdout is not None
    assert process.stdout.readline().strip().endswith("station.toml")
    process.send_signal(signal.SIGTERM)
    assert ended(process) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--scenario", "atlantis"], "no scenario"),
        (["--speed", "0.5"], "at least 1"),
        (["--replay", "pige=/nowhere.spe"], "nowhere"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--dir", str(tmp_path), *arguments]) == 2
    assert says in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for word in ("--speed", "--fault", "[[fault]]", "quickstart", "moeller2021", "truth", "examples"):
        assert word in text


def test_nothing_of_the_host_is_imported() -> None:
    code = "import sys, hil_tests.bench; print([m for m in sys.modules if m.split('.')[0] in " + (
        "('drivers', 'controller', 'edge', 'pymodbus')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# --- fault files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[fault]]\ntarget = "moon"\nkind = "x"\nat_s = 1', "target"),
        ('[[fault]]\ntarget = "io"\nkind = "x"', "needs one of"),
        ('[[fault]]\ntarget = "io"\nkind = "x"\nat_s = 1\nat_pulses = 2', "needs one of"),
        ('[[fault]]\ntarget = "io"\nat_s = 1', "no kind"),
        ("[[failure]]\nat_s = 1", "unknown"),
    ],
)
def test_a_wrong_fault_file_is_refused(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=says):
        FaultSchedule(lambda _t, _f: None, {}).load(path, {"io": None})


def test_faults_wait_for_their_trigger(tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    path.write_text(
        '[[fault]]\ntarget = "io"\nkind = "a"\nat_s = 5.0\n'
        '[[fault]]\ntarget = "io"\nkind = "b"\nat_pulses = 10\nafter_s = 2.0\n'
    )
    now, pulses, seen = 0.0, 0.0, []
    schedule = FaultSchedule(
        lambda target, fault: seen.append((target, fault["kind"])),
        {"at_s": lambda: now, "at_pulses": lambda: pulses},
    )
    schedule.load(path, {"io": None})
    for now, pulses in ((1.0, 0.0), (5.0, 11.0), (6.9, 12.0)):  # noqa: B007  # read by the measures
        schedule.check(now)
    assert seen == [("io", "a")]
    schedule.check(7.0)
    assert seen == [("io", "a"), ("io", "b")]
    assert schedule.waiting == 0


# --- in one process, without waiting ----------------------------------------------------------------------


async def test_steps_bring_everything_to_one_time() -> None:
    bench = Bench("quickstart", speed=10.0)
    bench.world.cell.galvanostat(20e-6)
    began_s = bench.twins["cell"]._time_s  # a busy machine takes its time to build a bench, and lab time runs
    for second in range(1, 121):
        bench.step(float(second))
    truth = bench.truth()
    assert truth["charge_coulomb"]["terminals"] == pytest.approx(20e-6 * (120.0 - began_s), rel=0.001)
    assert truth["sample"]["lithium_atoms_moved"] == pytest.approx(
        truth["charge_coulomb"]["lithium"] / 1.602176634e-19, rel=1e-6
    )
    assert truth["twins"]["pige"]["slow"] == 0  # not enabled
    assert truth["photons"]["pige"]["slow"] == pytest.approx(120 * 3.5, rel=0.25)  # but the room is there
    assert truth["beam"]["charge_coulomb"] == 0.0  # blanked
