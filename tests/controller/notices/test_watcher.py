"""Silence is told once, and its end; a heartbeat goes only while all is well. The clock is the test's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.config.notify import Notify
from controller.journal_store import Journal
from controller.notices.keep import Busy, Keeper
from controller.notices.watcher import SILENT_S, STARTING_SILENT_S, Watcher
from controller.paths import StateDir


class World:
    """A journal that grows when the test says so."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)
        self.state = StateDir(folder / "state")
        self.journal = Journal.open(self.state.journal, station="lab")
        self.journal.boot("run")
        self.journal.start_run("run-1", experiment="x", directory=str(folder))
        self.keeper = Keeper(self.state.path)
        self.keeper.lock()
        told = {"webhook": [{"url": "http://127.0.0.1:9/"}], "heartbeat": {"url": "http://127.0.0.1:9/"}}
        table = Notify.model_validate(told)
        self.watcher = Watcher(table, "lab", self.state, folder, self.keeper, lambda _: None)

    def titles(self) -> list[str]:
        return [notice.title for notice in self.watcher.lanes[0].waiting]

    def look(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.now_s += 1.0
            self.watcher.look()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path, monkeypatch)
    yield made
    made.keeper.unlock()
    made.journal.close()


def test_silence_is_told_once_and_its_end_too(world: World) -> None:
    world.look(3)
    assert world.watcher.well()
    world.look(STARTING_SILENT_S - 10)
    assert world.titles() == []  # before the first checkpoint it may take its time
    world.journal.checkpoint("run-1", "sequence", {})
    world.look(SILENT_S - 2)
    assert world.titles() == []
    world.look(60)
    assert world.titles() == ["the host is silent"]
    assert not world.watcher.well()
    world.journal.checkpoint("run-1", "sequence", {"done": 1})
    world.look(3)
    assert world.titles() == ["the host is silent", "the host is heard again"]
    assert world.watcher.well()


def test_a_run_that_has_ended_may_be_silent(world: World) -> None:
    world.look(3)
    world.journal.record("run", "host", {"state": "ended", "code": 0, "outcome": "done"}, run="run-1")
    world.look(600)
    assert not world.watcher.well()  # no heartbeat any more
    world.watcher.the_end()
    assert world.titles() == ["run done"]  # its summary never came


def test_what_was_not_asked_for_is_not_told(world: World) -> None:
    world.journal.record("gap", "reduce", {"text": "x"}, run="run-1")
    world.watcher._table = world.watcher._table.model_copy(update={"about": ("trips",)})
    world.look(3)
    assert world.titles() == []


def test_only_one_sends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.notices.keep.TAKE_OVER_S", -1.0)
    monkeypatch.setattr("os.kill", lambda *_: None)
    with pytest.raises(Busy, match=r"notices\.lock is held"):
        Keeper(world.state.path).lock()
