"""Time as the drivers see it: lab seconds, which run faster than the wall only against a virtual bench."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """A source of lab time. Waits of the experiment use it; reply timeouts are wall seconds."""

    @property
    def speed(self) -> float:
        """Lab seconds per wall second; exactly 1 on real hardware."""
        ...

    def now_s(self) -> float:
        """Return monotonic lab time in seconds."""
        ...

    async def sleep(self, lab_s: float) -> None:
        """Wait for ``lab_s`` lab seconds."""
        ...

    def wall_timeout_s(self, lab_deadline_s: float) -> float:
        """Return the wall seconds allowed for a deadline given in lab seconds."""
        ...


class RealClock:
    """Lab time is the monotonic clock of this machine."""

    speed = 1.0

    def now_s(self) -> float:
        """Return monotonic time in seconds."""
        return time.monotonic()

    async def sleep(self, lab_s: float) -> None:
        """Wait for ``lab_s`` seconds."""
        await asyncio.sleep(lab_s)

    def wall_timeout_s(self, lab_deadline_s: float) -> float:
        """Return the deadline itself."""
        return lab_deadline_s
