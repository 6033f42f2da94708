"""The beam-line task: polls monitor, permit and outputs, and feeds the watchdog that acts without us."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from controller.clock import Ticker
from drivers.errors import DriverError, Refused
from drivers.line import Interrupted

if TYPE_CHECKING:
    from controller.guard import Guard
    from controller.record import Recorder
    from controller.scanning import Scanning
    from drivers.clock import Clock
    from drivers.roles import BeamlineIo, IoReading

STALE_PERIODS = 3
FEEDS_PER_TIMEOUT = 5


class Beamline:
    """Reads the I/O box for guard, scan and record; what is not fresh is not known."""

    def __init__(
        self, io: BeamlineIo | None, guard: Guard, clock: Clock, recorder: Recorder, scanning: Scanning, *,
        period_s: float, watchdog_s: float,
    ) -> None:  # fmt: skip
        self._io = io
        self._guard = guard
        self._clock = clock
        self._recorder = recorder
        self._scanning = scanning
        self._period_s = period_s
        self._feed_every_s = clock.wall_timeout_s(watchdog_s) / FEEDS_PER_TIMEOUT
        self._reading: IoReading | None = None

    async def poll(self) -> None:
        """Poll for ever; ends only by cancellation."""
        io, fed = self._io, 0.0
        if io is None:
            raise Refused("this station has no I/O box", device="io")
        async for _ in Ticker(self._clock, self._period_s):
            try:
                if time.monotonic() - fed >= self._feed_every_s:
                    await io.feed_watchdog()
                    fed = time.monotonic()
                reading = await io.read()
            except Interrupted:  # an off command went first; the next tick reads again
                continue
            except DriverError as error:
                self._recorder.fault("io", str(error))
                self.unknown()
                continue
            self.take(reading)

    def take(self, reading: IoReading) -> None:
        """Hand on one reading: the guard first."""
        self._reading = reading
        self._guard.io(reading)
        self._scanning.see_beam(reading.beam_current_a)
        self._recorder.io(reading)

    def unknown(self) -> None:
        """A reading that failed: the beam is not known, and says so to whoever looks."""
        self._reading = None
        self._scanning.see_beam(None)
        self._recorder.unknown("beam", {"current": "A", "blanked": ""})

    def now(self) -> tuple[float | None, bool | None]:
        """Return beam current (A) and whether the beam is blanked; None when unknown or no longer fresh."""
        reading = self._reading
        if reading is None:
            return None, None
        age_s = time.monotonic() - reading.monotonic_s
        if age_s > self._clock.wall_timeout_s(STALE_PERIODS * self._period_s):
            return None, None
        return reading.beam_current_a, reading.blanked
