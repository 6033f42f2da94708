"""When a message goes to a receiver, and what is in it; time is the test's own."""

from __future__ import annotations

import pytest

from controller.notices.lane import LONGEST_RETRY_S, MAX_WAITING, URGENT_GAP_S, Lane
from controller.notices.notice import Letter, Notice, letter
from controller.notices.post import PostError

QUIET_S = 300.0


class Receiver:
    """Keeps what comes; can be down."""

    def __init__(self) -> None:
        self.got: list[Letter] = []
        self.tried = 0
        self.down = False
        self.now_s = 0.0
        self.said: list[str] = []
        self.lane = Lane(
            "receiver", "lab", self.take, quiet_s=QUIET_S, on_change=lambda: None, say=self.said.append,
            now_s=lambda: self.now_s, wall_s=lambda: 1e9 + self.now_s,
        )  # fmt: skip

    async def take(self, message: Letter) -> None:
        self.tried += 1
        if self.down:
            raise PostError("connection refused")
        self.got.append(message)

    async def until(self, now_s: float) -> None:
        """Let time pass as the lane itself would sleep."""
        while (due_s := self.lane.due_in_s()) is not None and self.now_s + due_s <= now_s:
            self.now_s += max(due_s, 0.0)
            await self.lane.send()
        self.now_s = now_s


def notice(n: int, kind: str = "gaps", now_s: float = 0.0) -> Notice:
    return Notice(f"b:{n}", kind, kind in ("trips", "ends"), f"{kind} {n}", "text", 1e9 + now_s)


async def test_the_first_goes_at_once_and_a_burst_becomes_one_message() -> None:
    to = Receiver()
    to.lane.put([notice(1)])
    await to.until(0.0)
    assert [len(one.notices) for one in to.got] == [1]
    for n in range(2, 42):
        to.lane.put([notice(n)])
        await to.until(to.now_s + 1.0)
    assert len(to.got) == 1
    await to.until(QUIET_S)
    assert [len(one.notices) for one in to.got] == [1, 40]
    assert to.got[1].subject == "[lab] gaps 2 (+39 more)"
    assert "and 15 more: see the journal" in to.got[1].body


async def test_a_trip_waits_for_no_chatter_and_stands_first() -> None:
    to = Receiver()
    to.lane.put([notice(1)])
    await to.until(0.0)
    to.lane.put([notice(n) for n in range(2, 90)])
    await to.until(20.0)
    assert len(to.got) == 1
    to.lane.put([notice(90, "trips", 20.0)])
    await to.until(20.0)
    assert len(to.got) == 2
    assert to.got[1].subject == "[lab] trips 90 (+88 more)"
    assert to.got[1].urgent
    # A cascade of trips is two messages, the second one URGENT_GAP_S later and never lost.
    to.lane.put([notice(n, "trips", 20.0) for n in range(91, 99)])
    await to.until(20.0 + URGENT_GAP_S - 0.1)
    assert len(to.got) == 2
    await to.until(20.0 + URGENT_GAP_S)
    assert {one.id for one in to.got[2].notices} == {f"b:{n}" for n in range(91, 99)}


async def test_a_flood_drops_chatter_and_no_trip() -> None:
    to = Receiver()
    to.down = True
    to.lane.put([notice(0, "trips")])
    to.lane.put([notice(n) for n in range(1, 3 * MAX_WAITING)])
    to.lane.put([notice(10_000, "ends")])
    assert len(to.lane.waiting) == MAX_WAITING
    to.down = False
    await to.until(0.0)
    kinds = [one.kind for one in to.got[0].notices]
    assert kinds[:2] == ["trips", "ends"]
    assert to.got[0].dropped == 2 * MAX_WAITING + 1
    assert f"{2 * MAX_WAITING + 1} earlier notices were given up" in to.got[0].body
    to.lane.put([notice(20_000, "trips")])
    await to.until(QUIET_S)
    assert to.got[1].dropped == 0


async def test_a_receiver_that_is_down_is_tried_ever_less_and_at_once_for_a_trip() -> None:
    to = Receiver()
    to.down = True
    to.lane.put([notice(1)])
    await to.until(3600.0)
    assert 15 <= to.tried <= 30  # 2, 4, 8 ... 300 s
    assert len(to.said) == to.tried
    assert f"again in {LONGEST_RETRY_S:.0f} s" in to.said[-1]
    to.down = False
    to.lane.put([notice(2, "trips", 3600.0)])
    await to.until(3602.0)
    assert [one.id for one in to.got[0].notices] == ["b:2", "b:1"]


async def test_the_same_thing_waits_only_once_and_old_news_is_dropped() -> None:
    to = Receiver()
    to.down = True
    to.lane.put([notice(1), notice(1)])
    to.lane.put([notice(1), notice(2, "trips")])
    assert len(to.lane.waiting) == 2
    await to.until(25 * 3600.0)
    to.down = False
    await to.until(26 * 3600.0)
    assert [one.kind for one in to.got[0].notices] == ["trips"]  # a gap of yesterday is no news, a trip is


def test_what_waited_is_taken_up_again() -> None:
    to, later = Receiver(), Receiver()
    to.lane.put([notice(1), notice(2, "trips")])
    to.lane.dropped = 3
    later.lane.take_up(to.lane.as_dict())
    assert (later.lane.waiting, later.lane.dropped) == (to.lane.waiting, 3)


def test_a_hostile_text_cannot_put_a_line_of_its_own_into_a_subject() -> None:
    from controller.journal_rows import Event
    from controller.notices.notice import of_event

    body = {"id": "x\r\nBcc: all@example.org", "text": "a\x1b[31m\n\nb" + "y" * 5000, "action": "safe"}
    told = of_event(Event(7, "b", "r", 1.0, None, "trip", "guard", body))
    assert told is not None
    assert told.title.isprintable()
    assert told.text.isprintable()
    assert len(told.text) <= 600
    assert "\n" not in letter("lab", [told]).subject


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("trip", {"id": "permit", "text": "io.permit is false", "action": "safe", "latch": True},
         ("TRIP permit", "operando clear permit")),
        ("run", {"state": "ended", "code": 4, "outcome": "cell.voltage 4.4 V"},
         ("run stopped by the guard", "4.4 V")),
        ("question", {"text": "Go on?", "choices": ["continue", "stop"], "expires": 1e9, "default": "abort",
                      "answer": "operando answer q1 CHOICE"},
         ("a question", "[continue | stop]", "operando answer q1", "Without an answer", "abort")),
        ("supervisor", {"what": "control was silent", "t": 5.0, "run": "r", "results": [
            {"output": "cell", "confirmed": True}, {"output": "heater", "confirmed": False}]},
         ("the supervisor acted", "Confirmed off: cell", "NOT CONFIRMED OFF: heater")),
    ],
)  # fmt: skip
def test_what_is_said(kind: str, body: dict[str, object], words: tuple[str, ...]) -> None:
    from controller.journal_rows import Event
    from controller.notices.notice import of_event

    told = of_event(Event(7, "b", "r", 1.0, None, kind, "x", dict(body)))
    assert told is not None
    assert told.urgent
    for word in words:
        assert word in f"{told.title} {told.text}"
