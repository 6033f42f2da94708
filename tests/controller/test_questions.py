"""Questions on the desk and in the journal: who may answer, and what becomes of what a crash left open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller.desk import Desk
from controller.guard import Action, Trip
from controller.journal import AsyncJournal
from controller.questions import withdraw_old
from controller.record import Recorder
from tests.controller.fakes import SteppedClock

LOOK = "Look at the cell through the window."


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[AsyncJournal]:
    async with await AsyncJournal.open(tmp_path / "journal.sqlite", station="bench") as made:
        await made.boot("run")
        yield made


async def retained(journal: AsyncJournal) -> list[str]:
    return await journal.read(lambda reads: reads.retained_topics("question/*"))


def a_trip() -> Trip:
    return Trip(
        "interlock-smoke", "io.smoke", True, False, "", Action.SAFE, "io.smoke is true", 1.0, 1.0,
        acknowledge=LOOK,
    )  # fmt: skip


def recorder_of(journal: AsyncJournal) -> Recorder:
    return Recorder(journal, SteppedClock(), "run", lambda _: None)  # type: ignore[arg-type]


class Guard:
    """As much of the guard as a desk asks for."""

    def __init__(self) -> None:
        self.latched = {"interlock-smoke": a_trip()}

    def clear(self, trip_id: str, found: str) -> bool:
        if trip_id not in self.latched or not found:
            return False
        del self.latched[trip_id]
        return True


async def test_what_a_latch_asks_is_answered_at_the_station_only(journal: AsyncJournal) -> None:
    recorder = recorder_of(journal)
    await recorder.trip(a_trip())
    assert await retained(journal) == ["question/interlock-smoke"]
    (asked,) = await journal.read(lambda reads: reads.events(kind="question"))
    assert LOOK in asked.body["text"]
    assert asked.body["choices"] == []

    host: Any = SimpleNamespace(guard=Guard(), journal=journal, recorder=recorder, questions=None)
    desk = Desk(host)
    said = {"do": "answer", "id": "interlock-smoke", "choice": "nothing burns"}
    refused = await desk.handle({**said, "by": "phone (remote)", "remote": True})
    assert refused == {"ok": False, "error": "interlock-smoke is cleared at the station only"}
    assert await retained(journal) == ["question/interlock-smoke"]
    assert (await desk.handle({**said, "by": "Ada"}))["ok"]
    assert await retained(journal) == []
    (row,) = await journal.read(lambda reads: reads.events(kind="answer"))
    assert row.body == {"id": "interlock-smoke", "by": "Ada: nothing burns"}
    assert await journal.latches() == []


async def test_a_latch_that_asks_nothing_leaves_no_answer(journal: AsyncJournal) -> None:
    await journal.latch("permit", {"id": "permit", "text": "x"})
    await journal.clear_latch("permit", "Ada")
    assert await journal.read(lambda reads: reads.events(kind="answer")) == []


async def test_a_new_start_withdraws_what_a_crash_left_open(journal: AsyncJournal) -> None:
    for id_ in ("q1", "q2", "interlock-smoke"):
        await journal.record("question", "x", {"id": id_}, topic=f"question/{id_}", retain=True)
    await withdraw_old(journal, ["interlock-smoke"])
    assert await retained(journal) == ["question/interlock-smoke"]
    rows = await journal.read(lambda reads: reads.events(kind="answer"))
    assert [(row.body["id"], row.body["choice"]) for row in rows] == [
        ("q1", "withdrawn"),
        ("q2", "withdrawn"),
    ]
