"""Eurotherm 3200 series temperature controllers (3208, 3216, 32h8) over Modbus RTU.

What shapes this driver: a broken Pt100 can mean full heat, and no known register tells whether it does, so a
person confirms that setting; no watch on the host is known, so the last set-point stays when the host dies;
the set-points 2, 24 and 25 wear out the memory and are never written; values travel as IEEE floats, so that
no decimals have to be guessed (they are compared with the 16-bit registers once). The registers are in
``eurotherm_registers``.

``off`` does not trust the ramp: it clears the rate limit, brings the set-point to its low limit and, if the
output has not fallen to zero then, takes the controller into manual mode at 0 %.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from drivers import eurotherm_registers as reg
from drivers.clock import Clock
from drivers.errors import BadReply, OutOfRange, Refused
from drivers.going_off import GoingOff
from drivers.heater_limits import HeaterLimits
from drivers.line import Line
from drivers.modbus import ModbusRtu
from drivers.roles import HeaterReading, Identity, Role

KELVIN_AT_0_C = 273.15
TIMEOUT_S = 0.15, 0.3  # the instrument needs tens of ms, the longest reply 26 ms at 9600 baud
TIMEOUT_PERIODS = (
    0.4  # between these: a lost reply costs the time-out twice and a repetition, and all of that
)
# must be over before the last reading is three periods old
FASTEST_PERIOD_S = 0.2
ZERO_PERCENT = 0.05
OUTPUT_FALLS_S = 0.6  # lab seconds for the output to follow: the loop runs every 0.1 to 0.25 s
END_OF_RANGE_C = 0.05  # so near to an end of the range the input is not measuring


class Eurotherm3200:
    """One controller with its Pt100 and heater.

    Args:
        line: serial line.
        name: for messages, as in the station file.
        clock: lab time, for the waits of ``off``.
        settings: ``unit_id`` and ``sensor_break`` {setting, safe_output_fraction, confirmed_by,
            confirmed_on}; optional limits ``temperature_low_k``, ``temperature_high_k``,
            ``temperature_rate_k_per_s``, ``period_s`` between two readings, and ``timeout_s``.
    """

    roles = frozenset({Role.TEMPERATURE_CONTROLLER, Role.THERMOMETER})

    def __init__(self, line: Line, *, name: str, clock: Clock, settings: Mapping[str, Any]) -> None:
        self.name = name
        self._line = line
        self._clock = clock
        self._settings = dict(settings)
        self._limits = HeaterLimits.of(settings, name)
        usual_s = TIMEOUT_PERIODS * float(settings.get("period_s", FASTEST_PERIOD_S))
        timeout_s = float(settings.get("timeout_s", min(max(usual_s, TIMEOUT_S[0]), TIMEOUT_S[1])))
        unit = ModbusRtu(line, int(settings.get("unit_id", 1)), device=name, timeout_s=timeout_s)
        self._registers = reg.Registers(unit, name)
        self._limits_c: tuple[float, float] | None = None  # registers 112 and 111
        self._range_c: tuple[float, float] | None = None  # registers 11 and 12
        self._target_c: float | None = None
        self._rate_k_per_min: float | None = None  # as asked for
        self._rate_cleared = False
        self._going_off = GoingOff(line, name)

    async def identify(self) -> Identity:
        """Check that a 3200 answers: it knows its status twice, the second time inverted.

        Raises:
            BadReply: something else answers.
        """
        status, inverse = await self._registers.words(reg.STATUS, 2)
        if status ^ inverse != 0xFFFF:
            raise BadReply(
                f"is no Eurotherm 3200: register 76 ({inverse:04x}) is not the inverse of 75 ({status:04x})",
                device=self.name,
            )
        try:
            (version,) = await self._registers.words(reg.FIRMWARE)
        except Refused:
            return Identity("Eurotherm", "3200 series")
        return Identity("Eurotherm", "3200 series", firmware=f"{version >> 8:x}.{version & 0xFF:02x}")

    async def prepare(self) -> list[str]:
        """Go off, compare both views of the numbers, read the limits; return what ``check`` must say.

        Raises:
            BadReply: the views disagree, or something else answers.
            Refused: nobody has confirmed what the controller does with a broken sensor.
        """
        await self.identify()
        await self.off()
        confirmed = self._confirmed_sensor_break()
        decimals = await self._decimals()
        low_c, high_c = await self._registers.floats(reg.RANGE_LOW, 2)
        if not low_c < high_c:
            raise BadReply(f"has the range {low_c:g} to {high_c:g} degC", device=self.name)
        self._range_c = low_c, high_c
        (local_c,) = await self._registers.floats(reg.LOCAL_SETPOINT)
        limits_c = await self._setpoint_limits_c()
        (status,) = await self._registers.words(reg.STATUS)
        notes = [
            confirmed,
            "no watch on the host is known: if the host dies it keeps the last set-point; only the relay in "
            "series ends the heating",
            f"after a power failure it may follow its local set-point, {local_c:.1f} degC, until the next "
            "preparation",
            f"set-points from {limits_c[0]:g} to {limits_c[1]:g} degC; its temperatures are taken as degC, "
            f"{decimals} decimals on the 16-bit registers; set-points in EEPROM are never written",
        ]
        if status & 1 << reg.MANUAL_BIT:
            notes.append("is in manual mode at 0 %; the first set-point takes it back to automatic")
        notes += [f"reports: {word}" for word in reg.status_words(status & ~(1 << reg.MANUAL_BIT))]
        return [f"{self.name}: {note}" for note in notes]

    async def read(self) -> HeaterReading:
        """Poll once: temperature, set-point and output, then the status, so that a break is not missed."""
        process_c, target_c, _, output_percent, working_c = await self._registers.floats(reg.PROCESS_VALUE, 5)
        (status,) = await self._registers.words(reg.STATUS)
        if not (math.isfinite(working_c) and -100.1 <= output_percent <= 100.1):
            raise BadReply(
                f"reports an output of {output_percent:g} % and a working set-point of {working_c:g} degC",
                device=self.name,
            )
        problems = reg.status_words(status)
        wrong = self._not_measuring(process_c)
        if wrong:
            problems.append(wrong)
        if self._target_c is not None and not abs(target_c - self._target_c) <= 2 * reg.SAME_C:
            problems.append(
                f"follows a set-point of {target_c:.1f} degC instead of {self._target_c:.1f}: it has "
                "restarted, or somebody changed it"
            )
        broken = wrong or status & (1 << reg.SENSOR_BREAK_BIT | 1 << reg.OUT_OF_RANGE_BIT)
        return HeaterReading(
            monotonic_s=time.monotonic(),
            temperature_k=None if broken else process_c + KELVIN_AT_0_C,
            working_setpoint_k=working_c + KELVIN_AT_0_C,
            output_fraction=output_percent / 100.0,
            sensor_ok=not broken,
            status_word=status,
            problems=tuple(problems),
            automatic=not status & 1 << reg.MANUAL_BIT,
        )

    async def set_target_k(self, target_k: float) -> None:
        """Write the volatile set-point, make it the active one, read both back.

        Raises:
            OutOfRange: outside the limits of the settings or of the instrument; nothing was written.
            Interrupted: ``off`` came first.
        """
        self._limits.check_target_k(target_k)
        target_c = target_k - KELVIN_AT_0_C
        async with self._going_off.command():
            low_c, high_c = await self._setpoint_limits_c()
            if not low_c <= target_c <= high_c:
                raise OutOfRange(
                    f"set-point {target_c:.2f} degC is outside {low_c:g} to {high_c:g} degC, the limits of "
                    "the instrument",
                    device=self.name,
                )
            if self._rate_cleared and self._rate_k_per_min is not None:
                await self._write_rate(self._rate_k_per_min)
            await self._registers.write_float(reg.REMOTE_SETPOINT, target_c)
            self._target_c = target_c
            await self._registers.write_word(reg.SETPOINT_SOURCE, 1)
            (status,) = await self._registers.words(reg.STATUS)
            if status & 1 << reg.MANUAL_BIT:
                await self._registers.write_word(reg.MANUAL_MODE, 0)

    async def set_ramp_k_per_min(self, rate_k_per_min: float) -> None:
        """Limit the rate of the working set-point; 0 means no limit. ``off`` clears it for itself only.

        Raises:
            OutOfRange: negative, not a number, or not within the limit of the settings.
            Interrupted: ``off`` came first.
        """
        self._limits.check_ramp_k_per_min(rate_k_per_min)
        async with self._going_off.command():
            await self._write_rate(rate_k_per_min)
            self._rate_k_per_min = rate_k_per_min

    async def off(self) -> None:
        """Output to zero and verified, before whatever else wants the line; 1.8 s at most.

        Raises:
            NoReply, BadReply, Refused: not confirmed. The output may still be on.
        """
        await self._going_off.off(self._go_off)

    async def close(self) -> None:
        """Release the line."""
        await self._line.close()

    # --- off -----------------------------------------------------------------------------------------------

    async def _go_off(self) -> None:
        self._target_c = None
        try:
            await self._setpoint_down()
            zero = await self._output_is_zero()
        except (BadReply, Refused):
            zero = False
        if not zero:
            await self._manual_zero()

    async def _setpoint_down(self) -> None:
        """Working set-point to its low limit at once."""
        low_c, _ = await self._setpoint_limits_c(urgent=True)
        await self._registers.write_float(reg.REMOTE_SETPOINT, low_c, urgent=True)
        await self._registers.write_word(reg.SETPOINT_SOURCE, 1, urgent=True)
        self._rate_cleared = True
        await self._registers.write_float(reg.SETPOINT_RATE, 0.0, same=0.0, urgent=True)

    async def _manual_zero(self) -> None:
        """Manual mode takes over the present output, so that is set to zero after it."""
        await self._registers.write_word(reg.MANUAL_MODE, 1, urgent=True)
        await self._registers.write_float(reg.MANUAL_OUTPUT, 0.0, urgent=True)
        if not await self._output_is_zero():
            raise BadReply("was switched off, and its output does not fall to zero", device=self.name)

    async def _output_is_zero(self) -> bool:
        """Wait for the output to fall to zero; False if it does not in time."""
        end_s = self._clock.now_s() + self._clock.wall_timeout_s(OUTPUT_FALLS_S) * self._clock.speed
        while True:
            values = await self._registers.floats(reg.PROCESS_VALUE, 5, urgent=True)
            if abs(values[3]) <= ZERO_PERCENT:
                return True
            if self._clock.now_s() >= end_s:
                return False
            await self._clock.sleep(0.1)

    # --- inside --------------------------------------------------------------------------------------------

    async def _write_rate(self, rate_k_per_min: float) -> None:
        (unit,) = await self._registers.words(reg.RATE_UNIT)
        if unit not in reg.RATE_UNIT_MIN:
            raise BadReply(f"has the ramp unit {unit}", device=self.name)
        rate = rate_k_per_min * reg.RATE_UNIT_MIN[unit]
        await self._registers.write_float(reg.SETPOINT_RATE, rate, same=0.01 * rate)
        self._rate_cleared = False

    async def _setpoint_limits_c(self, *, urgent: bool = False) -> tuple[float, float]:
        """Read the set-point limits once; return low and high."""
        if self._limits_c is None:
            high_c, low_c = await self._registers.floats(reg.SETPOINT_HIGH, 2, urgent=urgent)
            if not -300.0 < low_c < high_c < 3000.0:
                raise BadReply(f"has set-point limits {low_c:g} to {high_c:g} degC", device=self.name)
            self._limits_c = low_c, high_c
        return self._limits_c

    async def _decimals(self) -> int:
        """Return the decimals of the 16-bit registers, which must show the same values as the floats.

        Temperature, target and its limits only: per cent have their own decimals, and the working set-point
        may still be on its way down between the two reads.
        """
        values, words = [], []
        for register, count in ((reg.PROCESS_VALUE, 5), (reg.SETPOINT_HIGH, 2)):
            values += await self._registers.floats(register, count)
            words += await self._registers.words(register, count)
        del values[2:5], words[2:5]
        decimals = reg.decimals_shown(values, words)
        if decimals is None:
            raise BadReply(
                f"shows {[reg.signed(word) for word in words]} in its 16-bit registers and "
                f"{[round(value, 3) for value in values]} in its IEEE registers",
                device=self.name,
            )
        return decimals

    def _not_measuring(self, process_c: float) -> str:
        """Say why this cannot be a temperature, or nothing."""
        if not -200.0 <= process_c <= 850.0:
            return f"{process_c:g} degC is no temperature of a Pt100"
        if self._range_c is not None:
            low_c, high_c = self._range_c
            if not low_c + END_OF_RANGE_C < process_c < high_c - END_OF_RANGE_C:
                return f"{process_c:g} degC is the end of the range: open or shorted sensor"
        return ""

    def _confirmed_sensor_break(self) -> str:
        known = self._settings.get("sensor_break") or {}
        setting, who = known.get("setting"), known.get("confirmed_by")
        if not who or setting not in ("on", "latching") or known.get("safe_output_fraction") != 0.0:
            raise Refused(
                "nobody has confirmed that a broken sensor turns the heat off (SB.TYP on or latching, "
                "SAFE 0 %); no known register tells it",
                device=self.name,
            )
        return (
            f"sensor break is {setting} with safe output 0 %, as confirmed by {who} on "
            f"{known.get('confirmed_on')}; no known register tells it"
        )
