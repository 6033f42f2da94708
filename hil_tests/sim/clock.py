"""The lab clock of the bench: CLOCK_MONOTONIC, shifted to an epoch and run faster.

Host and bench agree on lab time because both compute ``(CLOCK_MONOTONIC - epoch) * speed`` on one machine.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class BenchClock(Protocol):
    """What a twin needs to know of time."""

    @property
    def speed(self) -> float:
        """Lab seconds per wall second."""
        ...

    def now_s(self) -> float:
        """Return lab time, s."""
        ...

    async def sleep(self, lab_s: float) -> None:
        """Wait for ``lab_s`` lab seconds."""
        ...


class LabClock:
    """Lab time from the monotonic clock of this machine."""

    def __init__(self, *, speed: float = 1.0, epoch: float | None = None) -> None:
        if not speed > 0.0:
            raise ValueError(f"speed must be positive, got {speed}")
        self.speed = speed
        self.epoch = time.monotonic() if epoch is None else epoch

    def now_s(self) -> float:
        """Return lab time: 0 at the epoch."""
        return (time.monotonic() - self.epoch) * self.speed

    async def sleep(self, lab_s: float) -> None:
        """Wait for ``lab_s`` lab seconds; anything not positive only yields."""
        await asyncio.sleep(max(0.0, lab_s) / self.speed)

    def wall_timeout_s(self, lab_deadline_s: float) -> float:
        """Return the wall seconds allowed for a safety deadline of ``lab_deadline_s`` lab seconds."""
        if self.speed <= 1.0:
            return lab_deadline_s
        return max(lab_deadline_s / self.speed, min(lab_deadline_s, 0.5))


class ManualClock:
    """Lab time that moves only when told, for tests that must not wait."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.speed = 1.0
        self._now_s = now_s
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now_s(self) -> float:
        """Return lab time."""
        return self._now_s

    async def sleep(self, lab_s: float) -> None:
        """Wait until someone has advanced the clock by ``lab_s``."""
        if lab_s <= 0.0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._now_s + lab_s, future))
        await future

    async def advance(self, lab_s: float) -> None:
        """Move on by ``lab_s``, waking sleepers in the order of their deadlines."""
        end_s = self._now_s + lab_s
        await _settle()
        while True:
            self._sleepers = [(due, future) for due, future in self._sleepers if not future.done()]
            due_now = [entry for entry in self._sleepers if entry[0] <= end_s + 1e-12]
            if not due_now:
                break
            due_s, future = min(due_now, key=lambda entry: entry[0])
            self._now_s = max(self._now_s, due_s)
            future.set_result(None)
            await _settle()
        self._now_s = end_s


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)
