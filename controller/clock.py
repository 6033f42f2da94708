"""Lab time on the host: the clock of a virtual bench, the handshake that permits it, and periodic ticks."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from drivers.clock import Clock

_FLOOR_S = 0.5  # wall seconds below which no safety deadline is squeezed by a fast clock


class BenchError(Exception):
    """The virtual bench named in the station file does not stand behind its clock."""


class ScaledClock:
    """Lab seconds that run ``speed`` times faster than CLOCK_MONOTONIC, counted from ``epoch``.

    Bench and host compute the same lab time from the same two numbers: lab = (monotonic - epoch) * speed.
    """

    def __init__(
        self, epoch: float, speed: float, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        if not math.isfinite(epoch):
            raise ValueError(f"epoch = {epoch} is not a time")
        if not (math.isfinite(speed) and speed >= 1.0):
            raise ValueError(f"speed = {speed} is not a number of at least 1")
        self.epoch = epoch
        self._speed = speed
        self._monotonic = monotonic

    @property
    def speed(self) -> float:
        """Lab seconds per wall second."""
        return self._speed

    def now_s(self) -> float:
        """Return lab time in seconds."""
        return (self._monotonic() - self.epoch) * self._speed

    async def sleep(self, lab_s: float) -> None:
        """Wait for ``lab_s`` lab seconds."""
        await asyncio.sleep(max(lab_s, 0.0) / self._speed)

    def wall_timeout_s(self, lab_deadline_s: float) -> float:
        """Return D at speed 1, else max(D / speed, min(D, 0.5 s)), in wall seconds."""
        if self._speed == 1.0:
            return lab_deadline_s
        return max(lab_deadline_s / self._speed, min(lab_deadline_s, _FLOOR_S))


class Ticker:
    """Ticks on a fixed grid of lab time; iterating yields the measured dt since the tick before.

    The first tick comes one period after the iteration began. A slot of the grid that passed while the
    consumer was busy is skipped and counted in ``missed``; nothing is ever made up for, so there is at most
    one tick per slot. dt is always positive.
    """

    def __init__(self, clock: Clock, period_s: float) -> None:
        if not (math.isfinite(period_s) and period_s > 0):
            raise ValueError(f"period_s = {period_s} is not a positive number of seconds")
        self._clock = clock
        self.period_s = period_s
        self.ticks = 0
        self.missed = 0
        self.late_s = 0.0  # wall seconds between the last tick's slot and the moment it was delivered
        self.worst_late_s = 0.0

    async def __aiter__(self) -> AsyncIterator[float]:
        """Yield dt in lab seconds, for ever."""
        clock, period = self._clock, self.period_s
        slack = period * 1e-6  # rounding of the grid and of sleep; far below any period in use
        start = last = clock.now_s()
        slot = 1
        while True:
            due = start + slot * period
            now = clock.now_s()
            slept = False
            while now < due - slack or not slept:  # a loop may wake early; it must also yield when late
                await clock.sleep(max(due - now, 0.0))
                slept = True
                now = clock.now_s()
            reached = int((now - start + slack) // period)
            self.missed += reached - slot
            self.late_s = max(now - due, 0.0) / clock.speed
            self.worst_late_s = max(self.worst_late_s, self.late_s)
            self.ticks += 1
            slot = reached + 1
            dt, last = now - last, now
            yield dt


async def bench_clock(bench: Mapping[str, Any], *, timeout_s: float = 2.0) -> ScaledClock:
    """Return the clock of the virtual bench that wrote the station file's ``[bench]`` table.

    The bench must answer on its own socket to its own nonce, with the speed and the epoch that the file
    holds: a station file that was copied, or outlived its bench, cannot make the host run fast.

    Args:
        bench: the table with ``socket``, ``nonce``, ``epoch`` and ``speed``.
        timeout_s: wall seconds for connecting and answering together.

    Raises:
        BenchError: nobody answers in time, the answer is no, or it contradicts the file.
    """
    path, speed, epoch = str(bench["socket"]), float(bench["speed"]), float(bench["epoch"])
    try:
        async with asyncio.timeout(timeout_s):
            reply = await _ask_bench(path, {"nonce": str(bench["nonce"])})
    except TimeoutError:
        raise BenchError(f"the bench at {path} did not answer within {timeout_s:g} s") from None
    except OSError as error:
        raise BenchError(f"no bench answers at {path}: {error.strerror or error}") from None
    if reply.get("ok") is not True:
        raise BenchError(f"the bench at {path} refused the nonce of the station file")
    try:
        agreed = (float(reply["speed"]), float(reply["epoch"]))
    except (KeyError, TypeError, ValueError):
        raise BenchError(f"the bench at {path} answered without speed and epoch: {reply}") from None
    if not math.isclose(agreed[0], speed) or abs(agreed[1] - epoch) > 1e-3:
        raise BenchError(
            f"the bench at {path} runs at speed {agreed[0]:g} from epoch {agreed[1]:.3f}, "
            f"the station file says {speed:g} from {epoch:.3f}"
        )
    try:
        return ScaledClock(agreed[1], agreed[0])
    except ValueError as error:
        raise BenchError(f"the bench at {path} offers a clock that cannot be: {error}") from None


async def _ask_bench(path: str, request: dict[str, Any]) -> dict[str, Any]:
    """Send one JSON line to the bench and return the JSON object that comes back."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        line = await reader.readline()
    finally:
        writer.close()
    try:
        reply = json.loads(line)
    except ValueError:
        reply = None
    if not isinstance(reply, dict):
        raise BenchError(f"the bench at {path} did not answer with a JSON object: {line[:80]!r}")
    return reply
