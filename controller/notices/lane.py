"""The way to one receiver: what waits for it, when the next message may go, and what is tried again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from controller.notices.notice import Letter, Notice, letter, plain
from controller.notices.post import PostError

URGENT_GAP_S = 10.0  # between two messages that cannot wait: a cascade of trips is one or two messages
MAX_WAITING = 200
FIRST_RETRY_S, LONGEST_RETRY_S = 2.0, 300.0
OLDEST_S = 24 * 3600.0  # what nobody could be told for a day is no news any more


class Lane:
    """Keeps and sends the notices of one receiver; another one that is down holds up nobody here.

    The first of what can wait goes at once; what comes within ``quiet_s`` after a message is gathered into
    the next one. What is urgent never waits for more than ``URGENT_GAP_S``, and takes along what waits.

    Args:
        name: of the receiver, without its address.
        station: for the messages.
        post: sends one message, or raises PostError.
        quiet_s: least wall seconds between messages about what can wait.
        on_change: called when what waits has changed; saves it.
        say: takes one line for the log.
    """

    def __init__(
        self, name: str, station: str, post: Callable[[Letter], Awaitable[None]], *, quiet_s: float,
        on_change: Callable[[], None], say: Callable[[str], None],
        now_s: Callable[[], float] = time.monotonic, wall_s: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.name = name
        self.waiting: list[Notice] = []
        self.dropped = 0
        self._station = station
        self.post = post
        self._quiet_s = quiet_s
        self._on_change = on_change
        self._say = say
        self._now_s, self._wall_s = now_s, wall_s
        self._sent_s = float("-inf")
        self._failures = 0
        self._retry_s = float("-inf")  # not before, after a failure
        self._woken = asyncio.Event()

    def put(self, notices: Iterable[Notice]) -> None:
        """Take notices; of too many the oldest that can wait goes, then the oldest that is no trip."""
        known = {one.id for one in self.waiting}
        fresh = list({one.id: one for one in notices if one.id not in known}.values())
        self.waiting += fresh
        if any(one.urgent for one in fresh):  # whatever was tried in vain: news of a trip is tried at once
            self._retry_s = min(self._retry_s, self._now_s() + FIRST_RETRY_S)
        while len(self.waiting) > MAX_WAITING:
            spare = next((one for one in self.waiting if not one.urgent), None)
            spare = spare or next((one for one in self.waiting if one.kind != "trips"), self.waiting[0])
            self.waiting.remove(spare)
            self.dropped += 1
        self._woken.set()

    def due_in_s(self) -> float | None:
        """Return the wall seconds until the next message may go, None when nothing waits."""
        if not self.waiting:
            return None
        urgent = any(one.urgent for one in self.waiting)
        gap_s = URGENT_GAP_S if urgent else max(self._quiet_s, URGENT_GAP_S)
        return max(self._sent_s + gap_s, self._retry_s) - self._now_s()

    async def run(self) -> None:
        """Send for ever."""
        while True:
            due_s = self.due_in_s()
            if due_s is not None and due_s <= 0:
                await self.send()
                continue
            self._woken.clear()
            try:
                async with asyncio.timeout(due_s):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def send(self) -> bool:
        """Try to send all that waits as one message; return whether it got through."""
        oldest = self._wall_s() - OLDEST_S
        stale = [one for one in self.waiting if one.t < oldest and one.kind != "trips"]
        self.waiting = [one for one in self.waiting if one not in stale]
        self.dropped += len(stale)
        batch, dropped = list(self.waiting), self.dropped
        if not batch:
            return True
        try:
            await self.post(letter(self._station, batch, dropped))
        except PostError as error:
            self._failures += 1
            pause_s = min(FIRST_RETRY_S * 2.0 ** (self._failures - 1), LONGEST_RETRY_S)
            self._retry_s = self._now_s() + pause_s * random.uniform(0.7, 1.0)  # noqa: S311 - no secret
            self._say(f"{self.name}: {plain(error, 200)}; again in {pause_s:.0f} s, {len(batch)} wait")
            return False
        self.waiting = [one for one in self.waiting if one not in batch]
        self.dropped -= dropped
        self._failures, self._retry_s = 0, float("-inf")
        self._sent_s = self._now_s()
        self._on_change()
        return True

    def as_dict(self) -> dict[str, Any]:
        """Return what waits, to be kept on disk."""
        return {"waiting": [one.as_dict() for one in self.waiting], "dropped": self.dropped}

    def take_up(self, kept: dict[str, Any]) -> None:
        """Go on with what waited when this process ended."""
        self.put(Notice(**one) for one in kept.get("waiting", ()))
        self.dropped += int(kept.get("dropped", 0))
