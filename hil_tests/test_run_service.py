"""A station under a service manager: told what is so, off after a crash, gone on with, never begun anew."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import pytest

from hil_tests.harness import OPERANDO, Run, World, ending, energised, eventually, operando


class Manager:
    """systemd's end of the notify socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.lines: list[str] = []

    def told(self) -> list[str]:
        while True:
            try:
                self.lines += self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self.lines

    def forget(self) -> None:
        self.told()
        self.lines.clear()

    def until(self, line: str, run: Run) -> None:
        eventually(lambda: line in self.told(), line, tell=lambda: f"{self.lines}\n{run.tell()}")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    manager = Manager(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    yield manager
    manager.close()


def test_told_killed_off_resumed_and_frozen(world: World, tmp_path: Path, manager: Manager) -> None:
    path = energised(tmp_path / "energised.toml", charge_s=600.0)
    state = ("--state", str(tmp_path / "state"))
    run = Run.start(tmp_path, path, "--station", str(world.station), "--service")
    with ending(run):
        manager.until("READY=1", run)
        world.until(lambda outputs: outputs.on, "everything is on", run=run)
        assert run.pid("supervisor") == run.process.pid  # the one process that the manager knows

        manager.forget()
        manager.until("WATCHDOG=1", run)
        speakers = [
            pid for pid in Path("/proc").iterdir()
            if pid.name.isdigit() and str(run.run_dir).encode() in _of(pid, "cmdline")
            and b"NOTIFY_SOCKET" in _of(pid, "environ") and int(pid.name) != run.process.pid
        ]  # fmt: skip
        assert speakers == []  # nobody else can speak for it

        refused = operando("off", str(world.station), *state)
        assert refused.returncode == 3
        assert "operando safe" in refused.stderr
        assert world.outputs().on  # a running host was left alone

        run.kill_all()  # as the power going; the cell charges on, by its own program
        assert world.outputs().cell_on
        manager.forget()
        off = operando("off", str(world.station), "--json", *state)
        assert (off.returncode, json.loads(off.stdout)["ok"]) == (0, True), off.stdout + off.stderr
        world.stays_off()
        told = (tmp_path / "state" / "supervisor.jsonl").read_text()
        assert "operando off" in told

        command = ["resume", "--interrupted", "--station-name", "bench", "--service", *state]
        again = Run._spawn([*OPERANDO, *command], tmp_path, tmp_path / "state")
        again.run_dir = run.run_dir  # the same: nothing is begun
        with ending(again):
            manager.until("READY=1", again)
            world.until(lambda outputs: outputs.cell_on, "the charge goes on", run=again)
            assert [p.name for p in (tmp_path / "runs").iterdir()] == [run.run_dir.name]
            manager.until("WATCHDOG=1", again)
            manager.forget()
            again.signal("control", signal.SIGSTOP)
            silent = "STATUS=control has not been heard for more than 3 s"
            manager.until(silent, again)
            world.until(lambda outputs: outputs.off, "the supervisor drives everything off")
            manager.until("STOPPING=1", again)
            said = manager.told()
            assert "WATCHDOG=1" not in said[said.index(silent) : said.index("STOPPING=1")]
        assert any("operando off" in json.dumps(row["body"]) for row in again.events("supervisor"))


def _of(process: Path, name: str) -> bytes:
    try:
        return (process / name).read_bytes()
    except OSError:  # it has just ended
        return b""
