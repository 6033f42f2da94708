"""Refusals for the journal: the first ones each, a flood as counts, so that nobody fills a disk with them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

BURST = 30  # rows that may be written at once
EVERY_S = 3.0  # and then one in so many seconds
COUNTS_EVERY_S = 10.0
MOST_REASONS = 16  # kinds of reasons that are told apart in one row of counts
OTHER = "other reasons"

Write = Callable[[dict[str, Any]], Awaitable[None]]


class Refusals:
    """Decides which refusal gets a row of its own, and writes how many had none."""

    def __init__(self, write: Write, *, now: Callable[[], float] = time.monotonic) -> None:
        """Make it.

        Args:
            write: writes a row; must not raise.
            now: monotonic seconds.
        """
        self._write = write
        self._now = now
        self._tokens, self._filled = float(BURST), now()
        self._counts: Counter[str] = Counter()
        self._telling: asyncio.Task[None] | None = None

    async def take(self, body: dict[str, Any]) -> bool:
        """Write a refusal, or count it if there were too many of late; return whether it was written."""
        now = self._now()
        self._tokens = min(float(BURST), self._tokens + (now - self._filled) / EVERY_S)
        self._filled = now
        if self._tokens < 1.0:
            self.count(str(body.get("reason", "")), 1)
            return False
        self._tokens -= 1.0
        await self._write(body)
        return True

    def count(self, reason: str, count: int) -> None:
        """Count refusals without rows of their own; a row with the counts follows."""
        known = reason in self._counts or len(self._counts) < MOST_REASONS
        self._counts[reason if known else OTHER] += count
        if self._telling is None or self._telling.done():
            self._telling = asyncio.ensure_future(self._tell_later())

    async def close(self) -> None:
        """Write the counts that are left."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        await self._tell()

    async def _tell_later(self) -> None:
        while self._counts:
            await asyncio.sleep(COUNTS_EVERY_S)
            await self._tell()

    async def _tell(self) -> None:
        counts, self._counts = dict(self._counts), Counter()
        if counts:
            await self._write({"reason": "too many to tell one by one", "counts": counts})
