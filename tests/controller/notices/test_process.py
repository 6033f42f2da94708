"""The process itself: a real journal, a real receiver; it is killed, ended and left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.journal_store import Journal
from tests.controller.notices.receivers import Hook

STATION = (Path(__file__).parents[1] / "config" / "station.toml").read_text()
TRIP = {
    "id": "permit", "channel": "io.permit", "value": False, "limit": True, "unit": "", "action": "safe",
    "text": "io.permit is false", "latch": True,
}  # fmt: skip
SUMMARY = {
    "layers": [{"name": "cathode", "kind": "host", "quantities": {
        "soc_beam": {"value": 0.31, "sigma_stat": 0.03, "sigma_sys": 0.04, "unit": "1"}}}],
    "charge": {"coulomb": 3.6e-3},
}  # fmt: skip


class World:
    """A station whose journal the test writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_dir = folder / "runs" / "run-1"
        self.run_dir.mkdir(parents=True)
        (folder / "state").mkdir()
        self.hook = Hook()
        self.station = folder / "station.toml"
        self.station.write_text(
            f'{STATION}\n[notify]\nquiet = "0 s"\nabout = ["trips", "ends", "gaps", "host"]\n'
            f'[[notify.webhook]]\nurl = "{self.hook.url}"\n'
        )
        self.journal = Journal.open(folder / "state" / "journal.sqlite", station="lab")
        self.journal.boot("run")
        self.journal.start_run("run-1", experiment="x", directory=str(self.run_dir))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "controller.notices", "--station", str(self.station)]
        command += ["--state", str(self.folder / "state"), "--run-dir", str(self.run_dir)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)

    def gap(self, text: str) -> None:
        self.journal.record("gap", "reduce", {"text": text, "end": False}, run="run-1")

    def end_run(self) -> None:
        ended = {"state": "ended", "code": 6, "outcome": "finished, but with gaps: one"}
        self.journal.record("run", "host", ended, run="run-1")

    def titles(self) -> list[str]:
        return [notice["title"] for notice in self.hook.notices()]

    def until(self, true: Callable[[], object], what: str, seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            log = (self.folder / "log").read_text()
            assert time.monotonic() < deadline, f"{what}; told: {self.titles()}; log: {log}"
            time.sleep(0.05)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self.process.stdin is not None:
                self.process.stdin.close()

    def close(self) -> None:
        self.kill()
        self.journal.close()
        self.hook.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def test_killed_and_ended_nothing_is_lost_and_nothing_told_twice(world: World) -> None:
    world.start()
    world.journal.latch("permit", TRIP, run="run-1")
    world.until(lambda: "TRIP permit" in world.titles(), "the trip is told")
    kept = world.folder / "state" / "notices.json"
    world.until(lambda: '"TRIP permit"' not in kept.read_text(), "and that it was told is on disk")
    world.kill()
    world.gap("while nobody looked")
    world.start()
    world.until(lambda: len(world.titles()) == 2, "what came while it was dead is told")
    assert world.process is not None

    # The run ends: its result is told with it, from the summary that comes later.
    world.end_run()
    world.journal.end_run("run-1", outcome="success", exit_code=6)
    time.sleep(1.5)
    assert len(world.titles()) == 2
    (world.run_dir / "summary.json").write_text(json.dumps(SUMMARY))
    world.until(lambda: len(world.titles()) == 3, "the end is told")
    told = world.hook.notices()[-1]
    assert told["title"] == "run finished, with gaps"
    assert told["text"].endswith("one. cathode: SoC 0.310 ± 0.050; charge 1 uAh")
    world.process.send_signal(signal.SIGTERM)
    assert world.process.wait(20.0) == 0
    assert [title.split()[0] for title in world.titles()] == ["TRIP", "gap", "run"]


def test_a_receiver_that_is_down_gets_it_from_the_one_who_stays_behind(world: World) -> None:
    """The supervisor waits for nobody; what is not through then is tried on by a process of its own."""
    port = world.hook.port
    world.hook.close()
    world.start()
    world.journal.latch("permit", TRIP, run="run-1")
    world.until(lambda: "again in" in (world.folder / "log").read_text(), "it was tried in vain")
    assert world.process is not None
    world.process.send_signal(signal.SIGTERM)
    assert world.process.wait(20.0) == 0
    world.hook = Hook(port)
    world.until(lambda: "TRIP permit" in world.titles(), "it came through")
    lock = world.folder / "state" / "notices.lock"
    world.until(lambda: not lock.read_text().strip("\0 ") or not _alive(lock), "and nobody stays for ever")


def _alive(lock: Path) -> bool:
    try:
        os.kill(int(lock.read_text()), 0)
    except (ProcessLookupError, ValueError):
        return False
    return True


def test_the_end_of_the_supervisor_is_told(world: World) -> None:
    """Its input ends without a word of farewell; what the supervisor last wrote is told, too, and once."""
    world.start()
    line = {"t": time.time(), "what": "control was silent: killed", "run": "run-1", "results": [
        {"output": "cell", "confirmed": True}]}  # fmt: skip
    log = world.folder / "state" / "supervisor.jsonl"
    log.write_text(json.dumps(line) + "\n" + '{"torn')
    world.until(lambda: len(world.titles()) == 1, "the supervisor's act is told")
    world.journal.record("supervisor", "supervisor", line)  # as the next control does
    log.unlink()
    assert world.process is not None
    assert world.process.stdin is not None
    world.process.stdin.close()
    world.until(lambda: len(world.titles()) == 2, "the end of the supervisor is told")
    assert world.process.wait(20.0) == 0
    assert world.titles() == ["the supervisor acted", "the supervisor is gone"]


def test_the_first_start_tells_nothing_of_the_past(world: World) -> None:
    world.gap("of an earlier run")
    world.journal.close()
    world.journal = Journal.open(world.folder / "state" / "journal.sqlite", station="lab")
    world.journal.boot("run")
    world.gap("of this one")
    world.start()
    world.until(lambda: world.titles(), "something is told")
    assert [notice["text"] for notice in world.hook.notices()] == ["of this one"]
