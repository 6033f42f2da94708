"""Questions to a person: everybody who looks on is asked, one answers; if nobody does a time limit decides.

While a question is open the run is held: beam blanked, circuit open, temperature kept. It is journalled
before it is told, published retained on ``question/<id>``, shown by ``status`` and ``watch``, and answered by
``operando answer`` or, where the station allows it, by a signed remote command. The answer is journalled,
with who gave it, before anything follows from it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from controller.payloads import question

if TYPE_CHECKING:
    from controller.journal import AsyncJournal
    from controller.journal_read import Reads
    from controller.record import Recorder
    from controller.steps.context import Context
    from drivers.clock import Clock

CONTINUE, PAUSE, STOP, ABORT = "continue", "pause", "stop", "abort"
USUAL = (CONTINUE, STOP, ABORT)  # what can be answered where the file names nothing else
NOBODY = "nobody: the time limit"
WITHDRAWN = "withdrawn"  # the run ended, or was stopped, before anybody answered
LOOK_S = 0.5  # lab seconds between two looks at the time limit


@dataclass(frozen=True, slots=True)
class Answer:
    """What was chosen, and by whom; ``late`` when the time limit chose."""

    choice: str
    by: str
    late: bool = False


@dataclass(slots=True)
class _Open:
    """A question that waits."""

    told: dict[str, Any]
    answer: asyncio.Future[Answer]
    settled: bool = False  # an answer is on its way to the disk: there is only one

    @property
    def choices(self) -> list[str]:
        return list(self.told["choices"])


class Questions:
    """Asks for one run.

    Args:
        recorder: of the run.
        clock: lab time; time limits are lab time.
        context: held while a question is open.
    """

    def __init__(self, recorder: Recorder, clock: Clock, context: Context) -> None:
        self._recorder = recorder
        self._clock = clock
        self._context = context
        self._open: dict[str, _Open] = {}
        self._asked = 0

    async def ask(self, text: str, choices: Sequence[str], *, default: str, timeout_s: float) -> Answer:
        """Ask, hold the run, and return the answer, or ``default`` when nobody gave one in time.

        Args:
            text: the question, in plain words.
            choices: what can be answered.
            default: what is done after ``timeout_s``; need not be a choice.
            timeout_s: lab seconds.
        """
        self._asked += 1
        id_ = f"q{self._asked}"
        now_s, now = self._clock.now_s(), time.time()
        speed = self._clock.speed
        told = {
            **question(id_, text=text, choices=choices, default=default, expires=now + timeout_s / speed),
            "answer": f"operando answer {id_} CHOICE",
        }
        waiting = _Open(told, asyncio.get_running_loop().create_future())
        self._context.hold(id_)
        try:
            await self._recorder.event("question", "sequence", told, topic=f"question/{id_}", retain=True)
            self._open[id_] = waiting
            self._recorder.line(
                f"QUESTION {id_}: {text} [{' | '.join(choices)}] -> operando answer {id_} ..."
            )
            return await self._answered(id_, waiting, now_s + timeout_s)
        finally:
            self._open.pop(id_, None)
            self._context.release(id_)
            if not waiting.settled:  # the run ends: nobody can answer any more
                self._close(id_, WITHDRAWN, "the run")

    async def _answered(self, id_: str, waiting: _Open, until_s: float) -> Answer:
        """Wait for the answer; its time limit counts although the run is held."""
        while not waiting.answer.done():
            if self._context.finishing and not waiting.settled:
                waiting.settled = True
                self._close(id_, WITHDRAWN, "stop")
                return Answer(STOP, "stop")
            left_s = until_s - self._clock.now_s()
            if left_s <= 0 and not waiting.settled:
                waiting.settled = True
                default = str(waiting.told["default"])
                await self._settle(id_, default, NOBODY)
                return Answer(default, NOBODY, late=True)
            await self._clock.sleep(max(min(left_s, LOOK_S + 0.05 * self._clock.speed), 0.01))
        return waiting.answer.result()

    async def answer(self, id_: str, choice: str, by: str) -> str:
        """Take an answer; return a word about it once it is on the disk.

        Args:
            id_: of the question; empty for the only one that is open.
            choice: one of its choices, or the beginning of exactly one.
            by: who answers.

        Raises:
            ValueError: there is no such question, or no such choice; says what there is.
        """
        names = [name for name, waiting in self._open.items() if not waiting.settled]
        if id_ and id_ not in names and len(names) == 1:
            id_, choice = "", f"{id_} {choice}"  # an answer of two words
        waiting = self._find(names, id_)
        chosen = _chosen(choice, waiting.choices)
        if waiting.settled:
            raise ValueError(f"{waiting.told['id']} has just been answered")
        waiting.settled = True
        name = str(waiting.told["id"])
        try:
            await self._settle(name, chosen, by)
        except BaseException:
            waiting.settled = False
            raise
        if not waiting.answer.done():
            waiting.answer.set_result(Answer(chosen, by))
        return f"{name}: {chosen}"

    def open(self) -> list[dict[str, Any]]:
        """Return the questions that wait, oldest first, with the seconds that are left (wall)."""
        now = time.time()
        return [
            {**waiting.told, "left_s": max(0.0, float(waiting.told["expires"]) - now)}
            for waiting in self._open.values()
            if not waiting.settled
        ]

    def _find(self, names: Sequence[str], id_: str) -> _Open:
        if id_ in names:
            return self._open[id_]
        if not names:
            raise ValueError("no question is open")
        if id_ or len(names) > 1:
            raise ValueError(f"which question? open: {', '.join(names)}")
        return self._open[names[0]]

    async def _settle(self, id_: str, choice: str, by: str) -> None:
        """Commit an answer; with it the retained question goes."""
        await self._recorder.event(
            "answer", "sequence", {"id": id_, "choice": choice, "by": by}, topic=f"question/{id_}",
            retain=True, payload=b"",
        )  # fmt: skip
        self._recorder.line(f"ANSWER {id_}: {choice} ({by})")

    def _close(self, id_: str, choice: str, by: str) -> None:
        """Take a question back without waiting for the disk."""
        body = {"id": id_, "choice": choice, "by": by}
        self._recorder.post("answer", "sequence", body, topic=f"question/{id_}", retain=True, payload=b"")


def _chosen(choice: str, choices: Sequence[str]) -> str:
    """Return the choice that is meant. Raises ValueError."""
    said = choice.strip().casefold()
    exact = [one for one in choices if one.casefold() == said]
    near = exact or [one for one in choices if said and one.casefold().startswith(said)]
    if len(near) != 1:
        raise ValueError(f"{choice!r} is not an answer; answers: {', '.join(choices)}")
    return near[0]


async def withdraw_old(journal: AsyncJournal, latched: Iterable[str]) -> None:
    """Clear retained questions of a host that is gone; what a standing latch asks stays.

    Args:
        journal: the station's.
        latched: ids of the latches that hold.
    """
    keep = {f"question/{id_}" for id_ in latched}

    def retained(reads: Reads) -> list[str]:
        return reads.retained_topics("question/*")

    for topic in await journal.read(retained):
        if topic not in keep:
            body = {"id": topic.partition("/")[2], "choice": WITHDRAWN, "by": "a new start of the host"}
            await journal.record("answer", "sequence", body, topic=topic, retain=True, payload=b"")


def of_latch(id_: str, text: str, asks: str) -> dict[str, Any]:
    """Return the question of a latched trip that a person at the station must look into."""
    told = question(id_, text=f"{text}. {asks}", choices=())
    return {**told, "answer": f'operando answer {id_} "what I found"', "local": True}
