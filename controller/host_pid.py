"""A temperature controller made of a thermometer and a heater supply: the loop runs in this host.

It plays the role of an instrument with its own loop, so heating, guard and off path need not know. One poll
is one tick of the loop: read temperature and measured power together, decide, write the power. What it never
does is guess: a temperature that is invalid, does not come or comes late takes the power off at once, and
the tick after the next valid one begins where the loop had been. What it reports as output is the power that
the supply measured, with what was asked for beside it, so the guard judges by what the heater really got.

Off goes to the supply alone, urgently, and needs neither thermometer nor law.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from controller import pid
from drivers.errors import BadReply, DriverError, NoReply, Refused
from drivers.heater_limits import HeaterLimits
from drivers.line import Interrupted
from drivers.roles import HeaterReading, Identity, Role

if TYPE_CHECKING:
    from drivers.clock import Clock
    from drivers.roles import Device, HeaterPower, PowerReading, Thermometer, ThermometerReading

LATE_PERIODS = 2.0  # without a valid temperature for so long the power goes off; the guard waits three
GAP_PERIODS = 4.0  # a longer gap between ticks is not integrated over
FORGET_S = 30.0  # lab seconds without power after which the loop begins anew, from what it measures
OFF_LIMIT_S = 1.8  # wall seconds for all of ``off``, as every heater's
TOO_MUCH, TOO_MUCH_SHARE = 0.10, 0.03  # of what was asked for, and of full power: more is a fault
TOO_MUCH_COUNT = 3  # ticks in a row; a supply takes a moment to follow
TOO_LITTLE = 0.10  # less by this and the share above is said, and left to the integral

Law = Callable[[float, float], float]  # temperature in K and dt in s to a power in W, in place of the PID


class HostPid:
    """Thermometer plus supply as a temperature controller.

    Args:
        parts: ``thermometer`` (role Thermometer) and ``supply`` (role HeaterPower).
        name: for messages, as in the station file.
        clock: lab time: ticks are measured in it.
        settings: ``period_s``, ``power_w`` (full power, output 1), ``gains`` {kp_w_per_k, ti_s, td_s,
            filter_s}; optional ``schedule`` (rows of gains with ``at_k``), ``plant`` {capacity_j_per_k,
            loss_w_per_k, ambient_k} with ``feed_forward`` false to leave it to the guard alone;
            optional limits ``temperature_low_k``, ``temperature_high_k``, ``temperature_rate_k_per_s``.
    """

    roles = frozenset({Role.TEMPERATURE_CONTROLLER, Role.THERMOMETER})

    def __init__(
        self, parts: Mapping[str, Device], *, name: str, clock: Clock, settings: Mapping[str, Any]
    ) -> None:
        self.name = name
        self._thermometer = cast("Thermometer", parts["thermometer"])
        self._supply = cast("HeaterPower", parts["supply"])
        self._clock = clock
        self._period_s = float(settings["period_s"])
        self.full_w = float(settings["power_w"])
        self._rows = _schedule(settings)
        self._plant: Mapping[str, float] | None = None
        if settings.get("feed_forward", True):
            self._plant = settings.get("plant")
        self._limits = HeaterLimits.of(settings, name)
        fastest_k_per_s = self._limits.fastest_k_per_s
        self._ramp_k_per_s = fastest_k_per_s if math.isfinite(fastest_k_per_s) else 0.0
        self._target_k: float | None = None
        self._working_k: float | None = None  # None: begins at the next measured temperature
        self._law: Law | None = None
        self._memory = pid.Memory()
        self._ticked_s: float | None = None  # lab time of the last tick with a valid temperature
        self._asked_w = 0.0
        self._too_much = 0
        self._off_count = 0  # how often off was asked for: what began before it must not write after it
        self._going_off: asyncio.Task[None] | None = None
        self._late: asyncio.TimerHandle | None = None
        self._cutting: asyncio.Task[None] | None = None
        self._cut_failed = ""
        self._perhaps_on = True  # until an off was confirmed
        self.cuts = 0  # how often the power was taken off because the temperature was not known
        self._tick = asyncio.Lock()

    async def identify(self) -> Identity:
        """Say what it is made of; both parts identify themselves."""
        return Identity("operando", f"PID in the host ({self._thermometer.name}, {self._supply.name})")

    async def prepare(self) -> list[str]:
        """Go off, read the thermometer once; return what ``check`` must say."""
        await self.off()
        reading = await self._thermometer.read()
        gains = ", ".join(
            f"{one.kp_w_per_k:g} W/K, {one.ti_s:g} s, {one.td_s:g} s" + (f" at {at_k:g} K" if at_k else "")
            for at_k, one in self._rows
        )
        notes = [
            f"the loop runs in this host, every {self._period_s:g} s, up to {self.full_w:g} W ({gains})",
            "if the host dies the supply keeps its last power: only the relay in series ends the heating",
        ]
        if self._plant is None:
            notes.append("no plant is fed forward: after a fast ramp it overshoots; see operando tune")
        if reading.temperature_k is None:
            notes.append(f"the temperature is not valid now: {', '.join(reading.problems) or 'no reason'}")
        return [f"{self.name}: {note}" for note in notes]

    async def read(self) -> HeaterReading:
        """One tick: measure, decide, write.

        Raises:
            DriverError: temperature or power could not be measured, or the supply gives more than it was
                told. The power is off then, or could not be switched off, which the message says.
            Interrupted: ``off`` came first.
        """
        async with self._tick:
            began = self._off_count
            temperature, power = await self._measure()
            now_s = self._clock.now_s()
            measured_w = power.power_w
            if measured_w is None or not math.isfinite(measured_w):
                await self._cut("the supply does not say what it gives")
                raise BadReply("the power is not known", device=self.name)
            asked_w = self._asked_w
            problems = [*temperature.problems, *power.problems, *self._compare(measured_w)]
            now_k = temperature.temperature_k if temperature.sensor_ok else None
            if now_k is not None and not math.isfinite(now_k):
                now_k = None
            if self._too_much >= TOO_MUCH_COUNT:
                await self._cut("more than asked for")
                raise BadReply(
                    f"the supply gives {measured_w:.2f} W where {self._asked_w:.2f} W were asked for",
                    device=self.name,
                )
            if now_k is None:
                await self._cut("no valid temperature", unless_off=True)
            elif self._target_k is not None and began == self._off_count:
                await self._control(now_k, now_s, began)
            return HeaterReading(
                monotonic_s=temperature.monotonic_s,
                temperature_k=now_k,
                working_setpoint_k=self._reported_setpoint_k(),
                output_fraction=max(0.0, measured_w / self.full_w),
                sensor_ok=now_k is not None,
                status_word=0,
                problems=tuple(problems),
                asked_fraction=asked_w / self.full_w,
            )

    async def set_target_k(self, target_k: float) -> None:
        """Take a new target; the working set-point goes there at the ramp, from where it is.

        Raises:
            OutOfRange: outside the limits of the settings.
            Refused: while ``off`` is under way.
        """
        self._limits.check_target_k(target_k)
        if self._going_off is not None and not self._going_off.done():
            raise Refused("is being switched off", device=self.name)
        if self._target_k is None:
            self._begin_anew()
        self._target_k = target_k

    async def set_ramp_k_per_min(self, rate_k_per_min: float) -> None:
        """Limit the rate of the working set-point; 0 means no limit, where the settings have none either.

        Raises:
            OutOfRange: negative, not a number, or faster than the limit of the settings.
        """
        self._limits.check_ramp_k_per_min(rate_k_per_min)
        self._ramp_k_per_s = rate_k_per_min / 60.0

    def drive_by(self, law: Law | None) -> None:
        """Let another law than the PID decide the power (a relay test): same cap, same ways off.

        It lasts until ``off``. None: the PID again.
        """
        self._law = law

    async def off(self) -> None:
        """Power off, at the supply, before anything else on its line; 1.8 s at most.

        Raises:
            NoReply, BadReply, Refused: not confirmed. The output may still be on.
        """
        self._off_count += 1
        self._target_k = self._law = None
        self._asked_w = 0.0
        self._not_late()
        if self._going_off is None or self._going_off.done():
            self._going_off = asyncio.create_task(self._go_off(), name=f"{self.name} off")
            self._going_off.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._going_off)

    async def close(self) -> None:
        """Nothing of its own to release: its parts have the lines."""
        self._not_late()

    # --- inside ---------------------------------------------------------------------------------------

    async def _measure(self) -> tuple[ThermometerReading, PowerReading]:
        """Ask both at the same time; what does not answer takes the power off before it is told."""
        temperature, power = await asyncio.gather(
            self._thermometer.read(), self._supply.read(), return_exceptions=True
        )
        for answer in (temperature, power):
            if isinstance(answer, Interrupted):
                raise answer
            if isinstance(answer, DriverError):
                await self._cut(str(answer), unless_off=True)
                if self._cut_failed:
                    raise BadReply(f"{answer}; {self._cut_failed}", device=self.name) from answer
                raise answer
            if isinstance(answer, BaseException):
                await self._cut("a failure", unless_off=True)
                raise answer
        return cast("ThermometerReading", temperature), cast("PowerReading", power)

    async def _control(self, now_k: float, now_s: float, began: int) -> None:
        """Decide the power and write it, unless off was asked for meanwhile."""
        dt_s = self._period_s
        if self._ticked_s is not None:
            since_s = now_s - self._ticked_s
            if since_s > self._lab_s(FORGET_S):
                self._begin_anew()
            elif 0.0 < since_s <= self._lab_s(GAP_PERIODS * self._period_s):
                dt_s = since_s
        power_w = self._decide(now_k, dt_s)
        self._ticked_s = now_s
        self._asked_w = power_w
        self._expect_next(power_w)
        self._perhaps_on = True
        try:
            await self._supply.set_power_w(power_w)
        except DriverError as error:
            if not isinstance(error, Interrupted):
                await self._cut(str(error))
            raise
        if began != self._off_count:  # whatever became of that write: off is the last word
            await self._supply.off()
            raise Interrupted("switched off meanwhile", device=self.name)

    def _lab_s(self, deadline_s: float) -> float:
        """Return a deadline in lab seconds, by the rule for fast clocks: there ticks are further apart."""
        return self._clock.wall_timeout_s(deadline_s) * self._clock.speed

    def _decide(self, now_k: float, dt_s: float) -> float:
        target_k = self._target_k
        if target_k is None:
            return 0.0
        if self._law is not None:
            power_w = self._law(now_k, dt_s)
            return min(max(power_w, 0.0), self.full_w) if math.isfinite(power_w) else 0.0
        if self._working_k is None:
            self._working_k = now_k
        before_k = self._working_k
        self._working_k = pid.ramped(before_k, target_k, self._ramp_k_per_s, dt_s)
        gains = pid.scheduled(self._rows, self._working_k)
        power_w, self._memory = pid.step(
            gains, self._memory, target_k=self._working_k, now_k=now_k, dt_s=dt_s, high_w=self.full_w,
            feed_w=self._feed_w(self._working_k, (self._working_k - before_k) / dt_s),
        )  # fmt: skip
        return power_w

    def _feed_w(self, working_k: float, rate_k_per_s: float) -> float:
        """Return what the identified plant needs to follow the working set-point, W."""
        plant = self._plant
        if plant is None or self._ramp_k_per_s == 0.0:
            return 0.0
        needed_w = plant["loss_w_per_k"] * (working_k - plant["ambient_k"])
        needed_w += plant["capacity_j_per_k"] * rate_k_per_s
        return min(max(needed_w, 0.0), self.full_w)

    def _compare(self, measured_w: float) -> list[str]:
        """Compare what the supply gives with what it was told at the last tick."""
        asked_w, share_w = self._asked_w, TOO_MUCH_SHARE * self.full_w
        if measured_w > asked_w * (1.0 + TOO_MUCH) + share_w:
            self._too_much += 1
            return [f"the supply gives {measured_w:.2f} W where {asked_w:.2f} W were asked for"]
        self._too_much = 0
        if measured_w < asked_w * (1.0 - TOO_LITTLE) - share_w:
            return [f"the supply gives only {measured_w:.2f} W of {asked_w:.2f} W"]
        return []

    def _reported_setpoint_k(self) -> float:
        """Return the working set-point; the lowest one allowed while off, as an instrument would show."""
        if self._target_k is None:
            return self._limits.low_k
        if self._law is not None or self._working_k is None:
            return self._target_k
        return self._working_k

    def _begin_anew(self) -> None:
        self._working_k = None
        self._memory = pid.Memory()

    # --- ways off -------------------------------------------------------------------------------------

    async def _go_off(self) -> None:
        try:
            async with asyncio.timeout(OFF_LIMIT_S):
                await self._supply.off()
                self._perhaps_on = False
        except TimeoutError as error:
            raise NoReply(f"off is not confirmed after {OFF_LIMIT_S:g} s", device=self.name) from error

    def _expect_next(self, power_w: float) -> None:
        """The next valid temperature has to come in time, or the power goes without it."""
        self._not_late()
        if power_w > 0.0:
            allowed_s = self._clock.wall_timeout_s(LATE_PERIODS * self._period_s)
            self._late = asyncio.get_running_loop().call_later(allowed_s, self._too_late)

    def _not_late(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._late = None
        self._cutting = asyncio.create_task(self._cut("the temperature is late"), name=f"{self.name} cut")

    async def _cut(self, why: str, *, unless_off: bool = False) -> None:
        """Power off for want of a temperature; the target stays, the loop goes on with the next valid one."""
        self._not_late()
        if unless_off and not self._perhaps_on:
            return
        self._memory = pid.Memory(self._memory.integral_w, kp_w_per_k=self._memory.kp_w_per_k)
        was_w, self._asked_w = self._asked_w, 0.0
        if was_w > 0.0:
            self.cuts += 1
        try:
            async with asyncio.timeout(OFF_LIMIT_S):
                await self._supply.off()
        except (DriverError, TimeoutError) as error:
            self._cut_failed = f"and the power could not be taken off ({why}): {error}"
        else:
            self._cut_failed, self._perhaps_on = "", False


def _schedule(settings: Mapping[str, Any]) -> list[tuple[float, pid.Gains]]:
    """Return the gains by temperature; a single set of them stands alone, at 0 K."""
    rows = [(float(row["at_k"]), _gains(row)) for row in settings.get("schedule") or ()]
    return rows or [(0.0, _gains(settings["gains"]))]


def _gains(table: Mapping[str, Any]) -> pid.Gains:
    return pid.Gains(
        float(table["kp_w_per_k"]), float(table.get("ti_s", math.inf)), float(table.get("td_s", 0.0)),
        float(table.get("filter_s", 0.0)),
    )  # fmt: skip
