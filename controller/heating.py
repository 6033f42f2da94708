"""The heating task: polls the temperature controller, keeps its lease, and is asked for a temperature.

The control loop itself is the instrument's own; this task decides nothing about power. It feeds the guard
with every reading and publishes what was measured, invalid readings as invalid.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING

from controller.clock import Ticker
from controller.guard import Action
from drivers.errors import DriverError, Refused
from drivers.line import Interrupted

if TYPE_CHECKING:
    from controller.guard import Guard
    from controller.record import Recorder
    from drivers.clock import Clock
    from drivers.roles import BeamlineIo, HeaterReading, TemperatureController

LEASE_S = 3.0  # lab seconds a heated plate may go unattended, as a printer's heater lease
HISTORY_S = 3600.0


class Heating:
    """Owner of the heater: nobody else writes its set-point. Without one nothing is known of temperature."""

    def __init__(
        self,
        heater: TemperatureController | None,
        io: BeamlineIo | None,
        guard: Guard,
        clock: Clock,
        recorder: Recorder,
        *,
        period_s: float,
    ) -> None:
        self._heater = heater
        self._io = io
        self._guard = guard
        self._clock = clock
        self._recorder = recorder
        self._period_s = period_s
        self._history: deque[tuple[float, float | None]] = deque()
        self._band: tuple[float, float] | None = None  # target and half width that was last asked about
        self._in_band_since_s: float | None = None
        self.target_k: float | None = None
        self.reading: HeaterReading | None = None
        self.skipped_ticks = 0

    async def poll(self) -> None:
        """Poll for ever; ends only by cancellation."""
        heater = self._needed()
        ticker = Ticker(self._clock, self._period_s)
        async for _ in ticker:
            self.skipped_ticks = ticker.missed
            try:
                reading = await heater.read()
            except Interrupted:  # an off command went first; the next tick reads again
                continue
            except DriverError as error:
                self.reading = None
                self._recorder.fault("heater", str(error))
                if self.temperature_k() is None:  # no longer fresh: whoever looks sees that it is not known
                    self._recorder.unknown("heater", {"temperature": "K", "output": "1"})
                continue
            self._take(reading)

    def _take(self, reading: HeaterReading) -> None:
        self.reading = reading
        now_s = self._clock.now_s()
        if self.temperature_k() is None:  # unmeasured for longer than a reading holds
            self._in_band_since_s = None
        value = reading.temperature_k if reading.sensor_ok else None
        self._history.append((now_s, value))
        while now_s - self._history[0][0] > HISTORY_S:
            self._history.popleft()
        if self._band is not None:
            self._in_band_since_s = _since(self._in_band_since_s, now_s, value, *self._band)
        self._guard.heater(reading)
        if self.target_k is not None:
            self._guard.lease("heater", LEASE_S, Action.HEATER_OFF)
        self._recorder.heater(reading, self.target_k)

    async def heat(self, to_k: float, *, ramp_k_per_s: float) -> None:
        """Close the relay and set the target; refused while anything is latched or the sensor is invalid."""
        heater, io = self._needed(), self._io
        refusal = self._guard.refuses() or self._guard.refuses_target(to_k)
        if refusal:
            raise Refused(f"heating is refused: {refusal}", device="heater")
        if not self._history:  # a run that begins with this step: the first reading is under way
            await self._clock.sleep(2.0 * self._period_s)
        if self.temperature_k() is None:
            raise Refused("heating is refused: the temperature is not known", device="heater")
        self._guard.heater_asked(None)
        await heater.set_ramp_k_per_min(ramp_k_per_s * 60.0)
        await heater.set_target_k(to_k)
        refusal = self._guard.refuses()  # a trip that came while the line was being waited for
        if refusal:
            await heater.off()
            raise Refused(f"heating is refused: {refusal}", device="heater")
        self.target_k = to_k
        self._guard.heater_asked(to_k)
        self._guard.lease("heater", LEASE_S, Action.HEATER_OFF)
        if io is not None:
            await io.set_relay(closed=True)

    async def off(self) -> None:
        """Heater off: set-point to its low limit and the series relay open; both are tried."""
        self.target_k = None
        self._guard.heater_asked(None)
        jobs = [self._needed().off()]
        if self._io is not None:
            jobs.append(self._io.set_relay(closed=False))
        try:
            results = await asyncio.gather(*jobs, return_exceptions=True)
        finally:
            self._guard.release("heater")  # only now: until here it may be on
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def stand_down(self) -> None:
        """The run is over and everything is switched off at once: nothing renews the lease any more."""
        self.target_k = None
        self._guard.heater_asked(None)
        self._guard.release("heater")

    def temperature_k(self) -> float | None:
        """Return the newest temperature, or None when it is invalid or no longer fresh."""
        if not self._history:
            return None
        at_s, value = self._history[-1]
        return value if self._clock.now_s() - at_s <= self._holds_s() else None

    def _needed(self) -> TemperatureController:
        if self._heater is None:
            raise Refused("this station has no heater", device="heater")
        return self._heater

    def _holds_s(self) -> float:
        """Return for how many lab seconds a reading is taken for the present temperature."""
        return self._clock.wall_timeout_s(3 * self._period_s) * self._clock.speed

    def stable(self, target_k: float, within_k: float, for_s: float) -> bool:
        """Return whether every reading of the last ``for_s`` lab seconds was valid and inside the band."""
        if self.temperature_k() is None:
            return False
        if self._band != (
            target_k,
            within_k,
        ):  # what is remembered says since when; from here on it is counted
            self._band, self._in_band_since_s = (target_k, within_k), None
            before_s = -math.inf
            for at_s, value in self._history:
                if at_s - before_s > self._holds_s():
                    self._in_band_since_s = None
                before_s = at_s
                self._in_band_since_s = _since(self._in_band_since_s, at_s, value, target_k, within_k)
        since_s = self._in_band_since_s
        return since_s is not None and self._clock.now_s() - since_s >= for_s


def _since(
    since_s: float | None, at_s: float, value: float | None, target_k: float, within_k: float
) -> float | None:
    """Return since when every reading has been inside a band, this one included; None if it is not."""
    if value is None or abs(value - target_k) > within_k:
        return None
    return at_s if since_s is None else since_s
