"""Any temperature controller that speaks Modbus and is described in the station file; no brand is known here.

Process value, set-point and output must be described; mode (off, automatic, manual), manual output, ramp,
working set-point and status as far as the controller has them. ``off`` takes the surest of what there is:

1. mode "off", if there is one;  2. manual at 0 %, if there are mode and manual output;
3. set-point to the lowest that is allowed, without ramp, and the output has to follow.

In each case the output must read zero before the way counts; if it does not, the next way is tried. What the
controller does with a broken sensor is in no description: a person confirms it, or ``prepare`` refuses.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from drivers.clock import Clock
from drivers.errors import BadReply, NoReply, OutOfRange, Refused
from drivers.going_off import GoingOff
from drivers.heater_limits import HeaterLimits
from drivers.line import Interrupted, Line
from drivers.modbus import Modbus, ModbusRtu, ModbusTcp
from drivers.modbus_pid_points import BITS, Point, blocks, description, split
from drivers.roles import HeaterReading, Identity, Role

T = TypeVar("T")

TIMEOUT_S = 0.15, 0.3
TIMEOUT_PERIODS = 0.4  # see eurotherm_3200: a lost reply and its repetition must fit before the guard's limit
ZERO = 0.0006  # output fraction that counts as zero: half a step of a tenth of a per cent
OUTPUT_FALLS_S = 0.5  # lab seconds for the output to follow
PLAUSIBLE_K = 73.0, 2273.0  # of any sensor of such a controller


class ModbusPid:
    """One controller.

    Args:
        line: serial line (RTU) or TCP.
        name: for messages, as in the station file.
        clock: lab time, for the waits of ``off``.
        settings: ``unit_id``, ``framing`` ("rtu" or "tcp"), the description (``modbus_pid_points``),
            ``sensor_break`` {setting, safe_output_fraction, confirmed_by, confirmed_on}; optional
            ``temperature_low_k``, ``temperature_high_k``, ``temperature_rate_k_per_s``, ``period_s``,
            ``timeout_s``.
    """

    roles = frozenset({Role.TEMPERATURE_CONTROLLER, Role.THERMOMETER})

    def __init__(self, line: Line, *, name: str, clock: Clock, settings: Mapping[str, Any]) -> None:
        self.name = name
        self._line = line
        self._clock = clock
        self._settings = dict(settings)
        self._limits = HeaterLimits.of(settings, name)
        self._is = description(settings)
        self._unit = self._unit_on(line, settings)
        self._poll = blocks(self._is.points())
        self._going_off = GoingOff(line, name)
        self._target_k: float | None = None
        self._ramp_k_per_min: float | None = None
        self._ramp_cleared = False
        if self._is.setpoint.write is None:
            raise OutOfRange("setpoint: the function that writes it is missing", device=name)

    def _unit_on(self, line: Line, settings: Mapping[str, Any]) -> Modbus:
        usual_s = TIMEOUT_PERIODS * float(settings.get("period_s", 0.5))
        timeout_s = float(settings.get("timeout_s", min(max(usual_s, TIMEOUT_S[0]), TIMEOUT_S[1])))
        kind = ModbusTcp if settings.get("framing", "rtu") == "tcp" else ModbusRtu
        return kind(line, int(settings.get("unit_id", 1)), device=self.name, timeout_s=timeout_s)

    async def identify(self) -> Identity:
        """Compare the register that tells the model, where one is described; else read the process value.

        Raises:
            BadReply: another number than described, so another instrument.
        """
        if self._is.identity is not None:
            point, expected = self._is.identity
            got = int(point.raw(await self._read(point)))
            if got not in expected:
                raise BadReply(
                    f"is no {self._is.maker} {self._is.model} as described: register {point.register} is "
                    f"{got} instead of {' or '.join(map(str, expected))}",
                    device=self.name,
                )
        else:
            await self._read(self._is.process)
        return Identity(self._is.maker, self._is.model)

    async def prepare(self) -> list[str]:
        """Go off, read everything that is described once; return what ``check`` must say.

        Raises:
            BadReply: what comes does not fit the description.
            Refused: nobody has confirmed what the controller does with a broken sensor, or it says no.
        """
        await self.identify()
        await self.off()
        confirmed = self._confirmed_sensor_break()
        reading = await self.read()
        if reading.temperature_k is not None and reading.sensor_ok:
            shown = f"measures {reading.temperature_k - 273.15:.1f} degC: compare with its display"
        else:
            shown = "measures nothing"
        notes = [
            confirmed,
            "is described by the station file alone: a wrong register or scale shows only in a comparison "
            "with the display",
            shown,
            f"is switched off by {self._way_off()}",
            "no watch on the host is known: if the host dies it keeps the last set-point; only the relay in "
            "series ends the heating",
            "after a power failure it may go on with its last set-point until the next preparation",
        ]
        if self._is.setpoint_wears:
            notes.append(
                "set-points may go to a memory that wears out: they are written only when they change"
            )
        if self._is.ramp is None:
            notes.append("no ramp is described: set-points act at once, and rates are refused")
        if self._is.identity is None:
            notes.append("no register tells who it is: anything that answers at this address passes")
        notes += [f"reports: {problem}" for problem in reading.problems]
        return [f"{self.name}: {note}" for note in notes]

    async def read(self) -> HeaterReading:
        """Poll once: the values, and the status last, so that a break in between is not missed."""
        words: dict[Point, list[int]] = {}
        status = {flag.point for flag in self._is.flags}
        for block in sorted(self._poll, key=lambda block: any(point in status for point in block)):
            words |= split(block, await self._block(block))
        working = self._is.working or self._is.setpoint
        output, working_k = self._is.output.value(words[self._is.output]), working.value(words[working])
        if not (math.isfinite(working_k) and -1.001 <= output <= 1.001):
            raise BadReply(
                f"reports an output of {100 * output:g} % and a set-point of {working_k:g} K: the "
                "description does not fit",
                device=self.name,
            )
        temperature_k, problems = self._temperature(words)
        problems += self._set_otherwise(words)
        mode = self._is.mode
        flags = sum(1 << i for i, flag in enumerate(self._is.flags) if flag.is_set(words[flag.point]))
        return HeaterReading(
            monotonic_s=time.monotonic(),
            temperature_k=temperature_k,
            working_setpoint_k=working_k,
            output_fraction=min(max(output, -1.0), 1.0),
            sensor_ok=temperature_k is not None,
            status_word=flags,
            problems=tuple(problems),
            automatic=None if mode is None else int(mode.point.raw(words[mode.point])) == mode.auto,
        )

    def _temperature(self, words: Mapping[Point, list[int]]) -> tuple[float | None, list[str]]:
        """Return the temperature, or None, and every word of the status."""
        process = words[self._is.process]
        found = [flag for flag in self._is.flags if flag.is_set(words[flag.point])]
        problems = [flag.says for flag in found]
        if self._is.process.is_invalid(process):
            return None, [*problems, f"has no value: it shows {'/'.join(f'{word:#06x}' for word in process)}"]
        kelvin = self._is.process.value(process)
        if not self._is.process.in_range(process) or not PLAUSIBLE_K[0] <= kelvin <= PLAUSIBLE_K[1]:
            return None, [*problems, f"{kelvin - 273.15:g} degC is outside its range: no temperature"]
        return None if any(flag.sensor for flag in found) else kelvin, problems

    def _set_otherwise(self, words: Mapping[Point, list[int]]) -> list[str]:
        """Say that somebody else has changed the set-point or the mode."""
        problems: list[str] = []
        if self._target_k is None:
            return problems
        if self._is.working is None:
            target_k = self._is.setpoint.value(words[self._is.setpoint])
            if abs(target_k - self._target_k) > 1.5 * self._is.setpoint.step + 1e-3:
                problems.append(
                    f"follows {target_k - 273.15:.1f} degC instead of {self._target_k - 273.15:.1f}: it has "
                    "restarted, or somebody changed it"
                )
        mode = self._is.mode
        if mode is not None and int(mode.point.raw(words[mode.point])) != mode.auto:
            problems.append("is not in automatic mode: the set-point has no effect")
        return problems

    async def set_target_k(self, target_k: float) -> None:
        """Write the set-point and read it back, then make the mode automatic.

        Raises:
            OutOfRange: outside the limits of the settings or of the description; nothing was written.
            Interrupted: ``off`` came first.
        """
        self._limits.check_target_k(target_k)
        self._is.setpoint.coded(target_k)  # refuses before anything is sent
        async with self._going_off.command():
            if self._ramp_cleared and self._ramp_k_per_min is not None:
                await self._write_ramp(self._ramp_k_per_min)
            await self._write(self._is.setpoint, target_k)
            self._target_k = target_k
            mode = self._is.mode
            if mode is not None and int(mode.point.raw(await self._read(mode.point))) != mode.auto:
                await self._write_raw(mode.point, mode.auto)

    async def set_ramp_k_per_min(self, rate_k_per_min: float) -> None:
        """Limit the rate of the set-point; 0 means no limit.

        Raises:
            OutOfRange: negative, not a number, not within the limit of the settings, or no ramp is described.
        """
        self._limits.check_ramp_k_per_min(rate_k_per_min)
        if self._is.ramp is None:
            if rate_k_per_min > 0.0:
                raise OutOfRange("no ramp is described for this controller", device=self.name)
            return
        async with self._going_off.command():
            await self._write_ramp(rate_k_per_min)
            self._ramp_k_per_min = rate_k_per_min

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

    def _ways_off(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        mode, ways = self._is.mode, list[tuple[str, Callable[[], Awaitable[None]]]]()
        if mode is not None and mode.off is not None:
            ways.append(("its mode off", self._mode_off))
        if mode is not None and mode.manual is not None and self._is.manual_output is not None:
            ways.append(("manual mode at 0 %", self._manual_zero))
        ways.append(("its lowest set-point", self._setpoint_down))
        return ways

    def _way_off(self) -> str:
        return ", else ".join(words for words, _ in self._ways_off())

    async def _go_off(self) -> None:
        self._target_k = None
        failed: list[str] = []
        for words, way in self._ways_off():
            try:
                await way()
                if await self._output_is_zero():
                    return
                failed.append(f"{words}: the output does not fall to zero")
            except (BadReply, Refused) as error:
                failed.append(f"{words}: {error.message}")
        raise BadReply("is not off; " + "; ".join(failed), device=self.name)

    async def _mode_off(self) -> None:
        mode = self._is.mode
        if mode is not None and mode.off is not None:
            await self._write_raw(mode.point, mode.off, urgent=True)

    async def _manual_zero(self) -> None:
        """Manual mode may take over the present output, so that is set to zero before and after it."""
        mode, output = self._is.mode, self._is.manual_output
        if mode is not None and mode.manual is not None and output is not None:
            await self._write_raw(mode.point, mode.manual, urgent=True)
            await self._write(output, 0.0, urgent=True)

    async def _setpoint_down(self) -> None:
        if self._is.ramp is not None:
            self._ramp_cleared = True
            await self._no_ramp(urgent=True)
        setpoint = self._is.setpoint
        lowest_k = self._limits.low_k
        if math.isfinite(setpoint.low):
            lowest_k = max(lowest_k, setpoint.si(setpoint.low))
        await self._write(setpoint, lowest_k, urgent=True)

    async def _output_is_zero(self) -> bool:
        end_s = self._clock.now_s() + self._clock.wall_timeout_s(OUTPUT_FALLS_S) * self._clock.speed
        while True:
            words = await self._read(self._is.output, urgent=True)
            if abs(self._is.output.value(words)) <= max(ZERO, 0.5 * self._is.output.step):
                return True
            if self._clock.now_s() >= end_s:
                return False
            await self._clock.sleep(0.1)

    # --- inside --------------------------------------------------------------------------------------------

    async def _write_ramp(self, rate_k_per_min: float) -> None:
        ramp = self._is.ramp
        if ramp is None:
            return
        if rate_k_per_min == 0.0:
            await self._no_ramp()
            return
        await self._write(ramp.point, rate_k_per_min)
        if ramp.enable is not None:
            await self._write_raw(ramp.enable, ramp.on)
        self._ramp_cleared = False

    async def _no_ramp(self, *, urgent: bool = False) -> None:
        ramp = self._is.ramp
        if ramp is not None and ramp.enable is not None:
            await self._write_raw(ramp.enable, ramp.off, urgent=urgent)
        elif ramp is not None:
            await self._write_words(ramp.point, ramp.point.coded_raw(ramp.none), urgent=urgent)

    async def _write(self, point: Point, value: float, *, urgent: bool = False) -> None:
        await self._write_words(point, point.coded(value), urgent=urgent)

    async def _write_raw(self, point: Point, number: int, *, urgent: bool = False) -> None:
        await self._write_words(point, point.coded_raw(number), urgent=urgent)

    async def _write_words(self, point: Point, words: list[int], *, urgent: bool) -> None:
        """Write unless it is there already, and read it back; a float may be rounded by the controller."""
        if await self._read(point, urgent=urgent) == words:
            return
        if point.write == 5:
            await _twice(lambda: self._unit.write_coil(point.register, on=bool(words[0]), urgent=urgent))
        elif point.write == 6:
            await _twice(lambda: self._unit.write_register(point.register, words[0], urgent=urgent))
        elif point.write == 16:
            await _twice(lambda: self._unit.write_registers(point.register, words, urgent=urgent))
        else:
            raise OutOfRange(f"register {point.register} is described as read-only", device=self.name)
        got = await self._read(point, urgent=urgent)
        close = abs(point.raw(got) - point.raw(words)) * abs(point.scale) <= 0.051
        if got != words and not (point.type == "float32" and close):
            raise BadReply(
                f"register {point.register} was set to {point.shown(words):g} and reads {point.shown(got):g}",
                device=self.name,
            )

    async def _read(self, point: Point, *, urgent: bool = False) -> list[int]:
        return await self._block([point], urgent=urgent)

    async def _block(self, block: list[Point], *, urgent: bool = False) -> list[int]:
        first, last = block[0], block[-1]
        count = last.register + last.words - first.register
        if first.function in BITS:
            bits = await _twice(
                lambda: self._unit.read_bits(first.register, count, function=first.function, urgent=urgent)
            )
            return [int(bit) for bit in bits]
        read = self._unit.read_input if first.function == 4 else self._unit.read_holding
        return await _twice(lambda: read(first.register, count, urgent=urgent))

    def _confirmed_sensor_break(self) -> str:
        known = self._settings.get("sensor_break") or {}
        setting, who = known.get("setting"), known.get("confirmed_by")
        if not who or setting not in ("on", "latching") or known.get("safe_output_fraction") != 0.0:
            raise Refused(
                "nobody has confirmed that a broken sensor turns the heat off; no register is described that "
                "tells it",
                device=self.name,
            )
        return (
            f"a broken sensor turns its output to 0 % ({setting}), as confirmed by {who} on "
            f"{known.get('confirmed_on')}"
        )


async def _twice(exchange: Callable[[], Awaitable[T]]) -> T:
    """Do an exchange; once more if the reply is missing or damaged, but not if it was interrupted."""
    try:
        return await exchange()
    except Interrupted:
        raise
    except (NoReply, BadReply):
        return await exchange()
