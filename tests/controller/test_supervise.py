"""The supervisor and the command line when something is frozen, silent or too slow."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from controller import following, offpath, supervise, talk
from controller.config import load_station
from controller.following import ended
from controller.local import LocalServer
from controller.paths import StateDir, StationBusy, StationLock
from controller.safety import Outputs, drive_all_off
from controller.supervise import Child, Supervisor
from drivers.errors import BadReply
from drivers.line import Interrupted, Line
from drivers.port_serial import SerialPort
from drivers.roles import IoReading, Role


def supervisor(tmp_path: Path) -> Supervisor:
    run_dir = tmp_path / "run"
    (run_dir / "logs").mkdir(parents=True)
    return Supervisor(
        argparse.Namespace(state=tmp_path / "state", run_dir=run_dir, station=None, name="bench")
    )


async def test_the_off_path_never_runs_twice_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`safe` kills control, and the end of control makes safe as well: two masters on one wire."""
    at_once, most = 0, 0

    async def drive_off(_: Any) -> list[dict[str, Any]]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1
        return [{"output": "io", "confirmed": True, "seconds": 0.01, "error": ""}]

    monkeypatch.setattr(offpath, "drive_off", drive_off)
    host = supervisor(tmp_path)
    await asyncio.gather(host._make_safe("safe"), host._make_safe("control ended"), host._safe("a person"))
    assert most == 1
    said = [json.loads(line)["what"] for line in host.state.supervisor_log.read_text().splitlines()]
    assert said[:2] == ["safe", "control ended"]


async def test_an_export_that_hangs_is_ended_and_what_is_missing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host = supervisor(tmp_path)
    monkeypatch.setattr(supervise, "FINISH_S", 0.3)
    (host.run_dir / "summary.json").write_text(json.dumps({"problems": ["of before"]}))

    async def start(name: str, _: Any) -> Child:
        hangs = [sys.executable, "-c", "import time; time.sleep(60)"]
        process = await asyncio.create_subprocess_exec(*hangs, start_new_session=True)
        return Child(name, hangs, process, [])

    monkeypatch.setattr(host, "_start", start)
    began = time.monotonic()
    await host._finish()
    assert time.monotonic() - began < 20.0
    problems = json.loads((host.run_dir / "summary.json").read_text())["problems"]
    assert problems[0] == "of before"
    assert problems[1].startswith("run.nxs, report.html not made")
    assert "operando export" in problems[1]
    assert problems[1] in capsys.readouterr().err


def test_a_frozen_supervisor_does_not_keep_the_command_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(following, "SILENT_S", 0.5)
    monkeypatch.setattr(following, "ANSWER_S", 0.1)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        os.kill(process.pid, signal.SIGSTOP)
        assert ended(process, StateDir(tmp_path)) == -signal.SIGKILL
    assert "has not answered for 0.5 s: it is frozen" in capsys.readouterr().err


def test_a_supervisor_that_answers_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last exports may take longer than any silence is tolerated."""
    monkeypatch.setattr(following, "SILENT_S", 0.3)
    monkeypatch.setattr(following, "ANSWER_S", 0.1)
    state = StateDir(tmp_path)
    serving = _Answers(state.socket("supervisor"), {"ok": True})
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1.5)"]) as process:
        assert ended(process, state) == 0
    serving.stop()


class _Answers:
    """Somebody behind a local socket, in a thread: one answer for everything, or none at all."""

    def __init__(self, path: Path, reply: dict[str, Any] | None) -> None:
        self.asked: list[dict[str, Any]] = []
        self._reply = reply
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._kept: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self._kept.append(client)
            if self._reply is None:
                continue
            with client.makefile() as lines:
                self.asked.append(json.loads(lines.readline()))
            client.sendall(json.dumps(self._reply).encode() + b"\n")

    def stop(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for client in self._kept:
            client.close()


def _say_safe(state: StateDir) -> int:
    return talk.talk(argparse.Namespace(verb="safe", state=state.path, station_name="x", json=False))


def test_safe_with_a_frozen_supervisor_is_done_by_control(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(talk, "SUPERVISOR_TIMEOUT_S", 0.2)
    state = StateDir(tmp_path)
    frozen = _Answers(state.socket("supervisor"), None)
    results = [{"output": "io", "confirmed": True, "seconds": 0.01, "error": ""}]
    control = _Answers(state.socket("control"), {"ok": True, "results": results})
    assert _say_safe(state) == 0
    assert [asked["do"] for asked in control.asked] == ["safe", "safe_results"]
    told = capsys.readouterr().out
    assert "done by control; the supervisor did not answer" in told
    assert "io       off, confirmed" in told
    frozen.stop()
    control.stop()


def test_safe_with_nobody_there_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _say_safe(StateDir(tmp_path)) == 3
    assert "no host is running here" in capsys.readouterr().err


def test_a_station_in_use_says_by_whom_in_a_sentence(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    first, second = StationLock(state), StationLock(state)
    first.acquire({"pid": 4711, "since": 0.0, "experiment": "night.toml"})
    with pytest.raises(StationBusy) as caught:
        second.acquire({"pid": 1})
    text = str(caught.value)
    assert "in use: a run of night.toml (process 4711), since 1970-01-01" in text or "1969" in text
    assert "{" not in text
    first.release()
    for written in (b"", b"\xff", b"[1]", b'{"since": 1e99}', b'{"since": "x"}'):
        (tmp_path / "lock").write_bytes(written)
        holder = StationLock(state)
        fd = os.open(tmp_path / "lock", os.O_RDWR)
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(StationBusy, match="did not say what it is"):
            holder.acquire({})
        os.close(fd)


class _Device:
    """One instrument that notes when it was told to go off."""

    roles = frozenset({Role.SHUTTER})

    def __init__(self, shutter: list[bool | None] | None = None) -> None:
        self.off_s: float | None = None
        self._shutter = shutter or [False]

    async def off(self) -> None:
        self.off_s = time.monotonic()

    async def read(self) -> IoReading:
        state = self._shutter.pop(0) if len(self._shutter) > 1 else self._shutter[0]
        if isinstance(state, str):
            raise Interrupted("by another off", device="io")
        return IoReading(time.monotonic(), None, True, False, state, True)


async def test_a_line_that_does_not_open_holds_up_no_other_output() -> None:
    io, cell, heater = _Device(), _Device(), _Device()
    outputs: Any = Outputs(heater, cell, io, io)  # type: ignore[arg-type]
    began = time.monotonic()
    wires = {"heater": [asyncio.create_task(asyncio.sleep(0.5))]}
    results = await drive_all_off(outputs, wires)  # type: ignore[arg-type]
    assert all(result.confirmed for result in results)
    assert io.off_s is not None
    assert cell.off_s is not None
    assert max(io.off_s, cell.off_s) - began < 0.4


@pytest.mark.parametrize(
    ("shutter", "confirmed"),
    [([None, None, False], True), ([None], False), ([True], False), (["interrupted", False], True)],
)
async def test_off_is_confirmed_by_the_read_back(
    monkeypatch: pytest.MonkeyPatch, shutter: list[Any], confirmed: bool
) -> None:
    monkeypatch.setattr("controller.safety.READ_BACK_S", 0.2)
    io = _Device(shutter)
    outputs: Any = Outputs(_Device(), _Device(), io, io)  # type: ignore[arg-type]
    result = (await drive_all_off(outputs))[0]
    assert (result.output, result.confirmed) == ("io", confirmed)
    if not confirmed:
        assert BadReply.__name__ in result.error
        assert "the shutter is not closed" in result.error


async def test_control_that_confirms_is_not_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = supervisor(tmp_path)
    asked: list[str] = []

    async def handle(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request["do"])
        return {"ok": True, "results": []}

    server = LocalServer(host.state.socket("control"), handle)
    await server.start()
    reply = await host._safe("a person")
    assert (reply["by"], asked, host._acted) == ("control", ["safe", "safe_results"], False)
    await server.stop()


async def test_control_that_takes_it_and_then_hangs_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It confirmed that it heard, and never said what became of it."""
    monkeypatch.setattr(supervise, "SAFE_REPLY_S", 0.2)
    host = supervisor(tmp_path)

    async def handle(request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "safe_results":
            await asyncio.sleep(0.5)
        return {"ok": True}

    async def drive_off(_: Any) -> list[dict[str, Any]]:
        return [{"output": "io", "confirmed": True, "seconds": 0.0, "error": ""}]

    monkeypatch.setattr(offpath, "drive_off", drive_off)
    server = LocalServer(host.state.socket("control"), handle)
    await server.start()
    assert (await host._safe("a person"))["by"] == "supervisor"
    await asyncio.sleep(0.6)  # its handler comes to its end
    await server.stop()


STATION = Path(__file__).parent / "config" / "station.toml"
NOTHING_LOADED = """
import asyncio, json, sys
from pathlib import Path
from controller import offpath, safety, supervise
from controller.config import load_station

EVENTS = ("import", "open")
offpath.OPEN_TIMEOUT_S = safety.OFF_TIMEOUT_S = 0.1  # nobody is there
ready = offpath.prepare(load_station(Path(sys.argv[1])))
seen = []
sys.addaudithook(lambda event, words: seen.append((event, str(words[0]))) if event in EVENTS else None)
results = asyncio.run(offpath.drive_off(ready))
loaded = [what for event, what in seen if event == "import" or not what.startswith("/dev/")]
print(json.dumps([sorted(result["output"] for result in results), loaded]))
"""


def test_the_off_path_loads_nothing_when_it_counts() -> None:
    """From a slow card, or beside busy processes, drivers that are imported then take seconds."""
    words = [sys.executable, "-c", NOTHING_LOADED, str(STATION)]
    told = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    outputs, loaded = json.loads(told.stdout)
    assert {"cell", "heater", "io"} <= set(outputs)
    assert loaded == []


async def test_what_was_prepared_is_used_and_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    async def drive_off(known: Any) -> list[dict[str, Any]]:
        given.append(known)
        return []

    monkeypatch.setattr(offpath, "drive_off", drive_off)
    host = supervisor(tmp_path)
    host._station = load_station(STATION)
    await host._prepare()
    await host._make_safe("safe")
    await host._make_safe("control ended")
    assert isinstance(given[0], offpath.Prepared)
    assert given[1] is host._station  # lines that were closed are not trusted to open again


class _Unkillable:
    """A process that waits for its disk: the signal is taken, and it ends when the disk answers."""

    returncode: int | None = None

    def __init__(self) -> None:
        self.killed = False
        self.answers = asyncio.Event()

    def kill(self) -> None:
        self.killed = True

    async def wait(self) -> int:
        await self.answers.wait()
        self.returncode = -signal.SIGKILL
        return self.returncode


async def test_a_killed_control_that_waits_for_its_disk_holds_up_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "KILLED_S", 0.05)
    off: list[bool] = []
    host = supervisor(tmp_path)
    control: Any = _Unkillable()
    host._children["control"] = Child("control", [], control, [])

    async def drive_off(_: Any) -> list[dict[str, Any]]:
        off.append(control.killed)
        return [{"output": "io", "confirmed": True, "seconds": 0.0, "error": ""}]

    monkeypatch.setattr(offpath, "drive_off", drive_off)
    async with asyncio.timeout(5.0):
        reply = await host._safe("a person")
    assert (reply["ok"], reply["by"], off) == (True, "supervisor", [True])
    monkeypatch.setattr(supervise, "CONTROL_FROZEN_S", -30.0)
    monkeypatch.setattr(supervise, "HEARTBEAT_S", 0.01)
    async with asyncio.timeout(5.0):  # the same when nobody asks, and it has only been silent
        await host._watch_frozen(host._children["control"])
    assert off == [True, True]
    assert "silent for more than" in host.state.supervisor_log.read_text()


async def test_a_serial_port_that_control_still_holds_is_opened_when_it_lets_go() -> None:
    instrument, held = pty.openpty()
    fcntl.flock(held, fcntl.LOCK_EX)  # as pyserial does for a port of one's own
    asyncio.get_running_loop().call_later(0.1, fcntl.flock, held, fcntl.LOCK_UN)
    line = Line("serial", SerialPort(os.ttyname(held)))
    await offpath._open(line)
    try:
        assert line.openings == 1
    finally:
        await line.close()
        os.close(instrument)
        os.close(held)
