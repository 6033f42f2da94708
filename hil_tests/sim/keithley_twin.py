"""What the twins of the Keithley 2400 and 2450 have in common: clock, error queue, settings."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from hil_tests.sim.clock import BenchClock
from hil_tests.sim.keithley_smu import SourceMeter
from hil_tests.sim.physics.cell import Cell
from hil_tests.sim.scpi import (
    WORDS,
    Commands,
    Handler,
    ScpiError,
    one_number,
    one_switch,
    one_word,
)
from hil_tests.sim.wire.faults import WireFaults

FRONT_POWER_HZ = 50.0
NOT_WITH_OUTPUT_OFF, BLOCKED_BY_INTERLOCK, TOO_SMALL_FOR_RANGE = 803, 802, 822
OWN_WORDS = {
    NOT_WITH_OUTPUT_OFF: "Not permitted with OUTPUT off",
    BLOCKED_BY_INTERLOCK: "OUTPUT blocked by interlock",
    TOO_SMALL_FOR_RANGE: "Too small for sense range",
}
SETTINGS = (
    "name", "baud", "firmware", "serial", "voltage_noise_v", "current_noise", "seed", "power_on",
    "enable_line",
)  # fmt: skip


class KeithleyTwin:
    """Base of both. ``answers`` does a message and returns what goes out.

    Args:
        cell: the physics; this twin is the only one that lets its time pass.
        clock: the lab clock of the bench.
        settings: ``name``, ``baud``, ``firmware``, ``serial``, ``voltage_noise_v``, ``current_noise``
            (fraction of the range), ``seed``, ``power_on`` (output-off state it wakes up with: NORM, or
            HIMP if that was saved as its power-on setup), ``enable_line`` (2400: ``INT``, or ``IENAB`` as
            newer instruments call it).
    """

    model = ""
    longest_queue = 10
    queue_empty = '0,"No error"'

    def __init__(self, cell: Cell, clock: BenchClock, settings: Mapping[str, Any] | None = None) -> None:
        given = dict(settings or {})
        if unknown := set(given) - set(SETTINGS):
            raise ValueError(f"unknown settings of the source: {', '.join(sorted(unknown))}")
        noise = float(given.get("voltage_noise_v", 20e-6)), float(given.get("current_noise", 5e-5))
        self.smu = SourceMeter(cell, noise, int(given.get("seed", 0)), str(given.get("power_on", "NORM")))
        self.cell = cell
        self.faults = WireFaults()
        self.given = given
        self._clock = clock
        self._time_s = self._booted_s = clock.now_s()
        self._errors: deque[int] = deque()
        self._settings: dict[str, str] = {}
        self._counts = dict.fromkeys(("commands", "readings", "errors", "resets"), 0)
        self._nplc = 1.0
        self._commands = Commands({**self._common(), **self._own()})

    def advance(self, now_s: float) -> None:
        """Let the cell live until ``now_s``."""
        if now_s > self._time_s:
            self.smu.process(now_s - self._time_s)
            self._time_s = now_s

    def answers(self, line: str) -> list[tuple[float, str]]:
        """Do one message; return [(delay in lab s, line)]."""
        now_s = self._clock.now_s()
        if now_s < self._booted_s:
            return []
        self.advance(now_s)
        self._counts["commands"] += 1
        self._took_s = 0.0
        told: list[str] = []
        try:
            told.extend(self._commands.run(line))
        except ScpiError as error:
            self.error(error.code)
        return [(self._took_s, ";".join(told))] if told else []

    def error(self, code: int) -> None:
        """Put an error into the queue."""
        self._counts["errors"] += 1
        if len(self._errors) >= self.longest_queue:
            self._errors[-1] = -350
        else:
            self._errors.append(code)

    def counters(self) -> dict[str, Any]:
        """Return what happened so far; the coulombs are the cell's own, not the converters'."""
        return {
            **self._counts,
            **self.smu.truth(),
            "errors_waiting": len(self._errors),
            "wire_faults": dict(self.faults.counts),
        }

    def _own(self) -> dict[str, Handler]:
        """Return the commands of this model."""
        raise AssertionError

    def _common(self) -> dict[str, Handler]:
        smu = self.smu
        table: dict[str, Handler] = {
            "*IDN?": lambda _a: self._identity(),
            "*CLS": lambda _a: self._errors.clear(),
            "*OPC?": lambda _a: "1",
            "*OPC": lambda _a: None,
            "*WAI": lambda _a: None,
            "*ESR?": lambda _a: "0",
            "*RST": lambda _a: self._reset_settings(),
            ":STATus:PRESet": lambda _a: None,
            ":SYSTem:ERRor[:NEXT]?": lambda _a: self._next_error(),
            ":SYSTem:LFRequency?": lambda _a: f"{FRONT_POWER_HZ:g}",
            ":SYSTem:BEEPer[:IMMediate]": lambda _a: None,
            ":OUTPut[1][:STATe]": lambda a: self._switch(on=one_switch(a)),
            ":OUTPut[1][:STATe]?": lambda _a: str(int(smu.output)),
            ":OUTPut[1]:INTerlock:STATe": self._require_interlock,
            ":OUTPut[1]:INTerlock:STATe?": lambda _a: str(int(smu.enable_required)),
            ":OUTPut[1]:INTerlock:TRIPped?": lambda _a: str(int(smu.enabled)),
            ":SOURce[1]:FUNCtion[:MODE]": self._source_function,
            ":SOURce[1]:FUNCtion[:MODE]?": lambda _a: smu.function,
        }
        for name, short in (("VOLTage", "VOLT"), ("CURRent", "CURR")):
            table.update(self._of_quantity(name, short))
        return table

    def _of_quantity(self, name: str, short: str) -> dict[str, Handler]:
        smu, source, sense = self.smu, f":SOURce[1]:{name}", f"[:SENSe[1]]:{name}[:DC]"
        level = f"{source}[:LEVel][:IMMediate][:AMPLitude]"
        return {
            level: lambda a: self._put(smu.level, short, one_number(a, -210.0, 210.0)),
            f"{level}?": lambda _a: f"{smu.level[short]:.6E}",
            f"{sense}:RANGe[:UPPer]": lambda a: self._put_range(short, one_number(a, -210.0, 210.0)),
            f"{sense}:RANGe[:UPPer]?": lambda _a: f"{smu.measure_range[short]:.6E}",
            f"{sense}:NPLCycles": self._put_nplc,
            f"{sense}:NPLCycles?": lambda _a: f"{self._nplc:.2f}",
            **self.kept(f"{source}:RANGe", f"{source}:RANGe:AUTO", f"{source}:DELay", f"{source}:DELay:AUTO"),
            **self.kept(f"{sense}:RANGe:AUTO", f"{sense}:AVERage[:STATe]"),
        }

    def kept(self, *headers: str) -> dict[str, Handler]:
        """Return pairs of commands for settings that are only remembered."""

        def pair(header: str) -> dict[str, Handler]:
            return {
                header: lambda a: self._settings.update({header: ",".join(a)}),
                f"{header}?": lambda _a: self._settings.get(header, "0"),
            }

        return {key: handler for header in headers for key, handler in pair(header).items()}

    def _put(self, where: dict[str, float], key: str, value: float) -> None:
        where[key] = value
        self.smu.apply()

    def _put_range(self, short: str, value: float) -> None:
        full = abs(value)
        if short == "CURR":
            full = next(r for r in self.current_ranges() if r >= full / 1.0500001)
        self._put(self.smu.measure_range, short, full)

    def current_ranges(self) -> tuple[float, ...]:
        """Return the nominal current ranges, smallest first."""
        return tuple(10.0**k for k in range(-6, 1))

    def _put_nplc(self, arguments: list[str]) -> None:
        self._nplc = one_number(arguments, 0.01, 10.0)

    def _put_limit(self, short: str, value: float) -> None:
        if value < 1e-3 * self.smu.measure_range[short]:
            raise ScpiError(TOO_SMALL_FOR_RANGE)
        self._put(self.smu.limit, short, value)

    def _source_function(self, arguments: list[str]) -> None:
        function = one_word(arguments, "VOLTage", "CURRent")
        if function != self.smu.function and self.smu.output:
            self.smu.switch(on=False)  # assumed: the manuals do not say what changing it live does
        self.smu.function = function
        self.smu.apply()

    def _require_interlock(self, arguments: list[str]) -> None:
        self.smu.enable_required = one_switch(arguments)
        self.smu.enable_line(given=self.smu.enabled)

    def _switch(self, *, on: bool) -> None:
        if not self.smu.switch(on=on):
            raise ScpiError(BLOCKED_BY_INTERLOCK)

    def _next_error(self) -> str:
        if not self._errors:
            return self.queue_empty
        code = self._errors.popleft()
        return f'{code},"{WORDS.get(code, OWN_WORDS.get(code, "Error"))}"'

    def _identity(self) -> str:
        raise AssertionError

    def _reset_settings(self) -> None:
        self.smu.reset()
        self._settings.clear()
        self._nplc = 1.0

    def _power_cycle(self, boot_s: float) -> None:
        """Power lost and back: everything forgotten, and the cell sees what wakes up."""
        self._counts["resets"] += 1
        self.advance(self._clock.now_s())
        self._reset_settings()
        self._errors.clear()
        self._booted_s = self._clock.now_s() + boot_s

    def _common_fault(self, fault: Mapping[str, Any]) -> None:
        """Inject what both have. Raises ValueError for an unknown kind."""
        kind = fault.get("kind")
        if self.faults.knows(kind):
            self.faults.inject(fault)
            return
        self.advance(self._clock.now_s())
        if kind == "reset":
            self._power_cycle(float(fault.get("boot_s", 2.0)))
        elif kind == "two_wire":  # a sense relay that falls back, or a hand at the front panel
            self.smu.remote_sense = False
        elif not self.smu.inject(fault):
            raise ValueError(f"no such fault of the source: {kind!r}")
        self.smu.apply()

    @property
    def _reading_s(self) -> float:
        return 2.0 * self._nplc / FRONT_POWER_HZ
