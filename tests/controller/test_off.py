"""``operando off`` and ``resume --interrupted``: what a service manager starts while no person looks on."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from controller import cli, off, offpath
from controller.journal_store import Journal
from controller.launch import interrupted_run
from controller.paths import StateDir, StationLock

STATION = Path(__file__).parent / "config" / "station.toml"


def result(output: str, *, confirmed: bool) -> dict[str, Any]:
    error = "" if confirmed else "no such port"
    return {"output": output, "confirmed": confirmed, "seconds": 0.01, "error": error}


class Wires:
    """Stands in for the off path: what it answers, one call after the other."""

    def __init__(self, *confirmed: bool) -> None:
        self.answers = list(confirmed)
        self.calls = 0

    async def drive_off(self, known: object) -> list[dict[str, Any]]:
        answer = self.answers[min(self.calls, len(self.answers) - 1)]
        self.calls += 1
        return [result("io", confirmed=True), result("cell", confirmed=answer)]


def words(folder: Path, *more: str) -> list[str]:
    return ["off", str(STATION), "--state", str(folder / "state"), *more]


def test_confirmed_and_left_for_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(offpath, "drive_off", Wires(True).drive_off)
    assert cli.main(words(tmp_path)) == 0
    assert "cell     off, confirmed" in capsys.readouterr().out
    note = json.loads((tmp_path / "state" / "supervisor.jsonl").read_text())
    assert (note["what"], note["results"][1]["confirmed"]) == ("operando off", True)


def test_what_did_not_confirm_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(offpath, "drive_off", Wires(False).drive_off)
    assert cli.main(words(tmp_path)) == 3
    assert "NOT CONFIRMED: no such port" in capsys.readouterr().out


def test_ports_that_come_up_late_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wires = Wires(False, False, True)
    monkeypatch.setattr(offpath, "drive_off", wires.drive_off)
    monkeypatch.setattr(off, "AGAIN_S", 0.0)
    assert cli.main(words(tmp_path, "--wait", "60")) == 0
    assert wires.calls == 3


def test_a_running_host_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wires = Wires(True)
    monkeypatch.setattr(offpath, "drive_off", wires.drive_off)
    lock = StationLock(StateDir(tmp_path / "state"))
    lock.acquire({"pid": 1})
    try:
        assert cli.main(words(tmp_path)) == 3
    finally:
        lock.release()
    assert "operando safe" in capsys.readouterr().err
    assert wires.calls == 0
    assert cli.main(words(tmp_path)) == 0  # and the lock was not kept


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "state")


def begin(state: StateDir, folder: Path, *, ended: bool = False) -> None:
    folder.mkdir(parents=True)
    (folder / "start.json").write_text("{}")
    with Journal.open(state.journal, station="lab") as journal:
        journal.boot("run")
        journal.start_run(folder.name, experiment="e", directory=str(folder), body={})
        if ended:
            journal.end_run(folder.name, outcome="success", exit_code=0, reason="")


def test_only_a_run_that_is_open_is_gone_on_with(state: StateDir, tmp_path: Path) -> None:
    assert interrupted_run(state) is None  # a station that never ran
    begin(state, tmp_path / "runs" / "ended", ended=True)
    assert interrupted_run(state) is None
    begin(state, tmp_path / "runs" / "open")
    begin(state, tmp_path / "runs" / "later", ended=True)
    assert interrupted_run(state) == tmp_path / "runs" / "open"
    (tmp_path / "runs" / "open" / "start.json").unlink()  # somebody removed it
    assert interrupted_run(state) is None


def test_nothing_to_go_on_with_is_a_success_that_systemd_is_told(
    state: StateDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(state, tmp_path / "runs" / "ended", ended=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert cli.main(["resume", "--interrupted", "--state", str(state.path), "--service"]) == 0
        assert b"READY=1" in systemd.recv(1000).splitlines()  # else a unit of type notify has failed
    assert "nothing to go on with" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["ended"]  # and nothing was begun


def test_a_run_or_the_interrupted_one_but_not_both(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["resume"]) == 2
    assert cli.main(["resume", "runs/x", "--interrupted"]) == 2
    assert "either" in capsys.readouterr().err


def test_a_journal_that_cannot_be_read_is_no_station_without_runs(
    state: StateDir, capsys: pytest.CaptureFixture[str]
) -> None:
    state.journal.write_bytes(b"not a journal" * 500)
    assert cli.main(["resume", "--interrupted", "--state", str(state.path)]) == 3
    assert "journal.sqlite" in capsys.readouterr().err
