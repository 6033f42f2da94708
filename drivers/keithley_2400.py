"""Keithley 2400 as the source of a cell: SCPI on RS-232.

Read on demand: each ``:READ?`` is one measurement, and between two of them nothing in the instrument looks
at the cell. It has no host watchdog, and while its own trigger model runs a finite sweep it answers nothing
but an abort, so that a program that ends by itself could not be watched. What bounds the cell without the
host is therefore hardware only: the voltage of the source and the compliance current, both until somebody
switches it off, or until the output-enable line opens (pin 8 of the digital I/O), which something with a
watchdog can pull. At the instrument: 57600 baud, 8 bits, terminator LF, no flow control.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from drivers.errors import BadReply, DriverError, Refused
from drivers.keithley_enable import BLOCKED, OPEN, EnableLine
from drivers.keithley_plan import Plan
from drivers.keithley_scpi import Reading, argument, line_of, reading_2400
from drivers.keithley_source import HEADROOM_V, KeithleySource
from drivers.roles import CellEventKind

if TYPE_CHECKING:
    from drivers.clock import Clock
    from drivers.line import Line

READ_ANSWER_S, READ_ANSWER_FACTOR = 1.0, 10.0  # time-out of a reading: this, and times its own duration
CLOCK_WRAPS_S, NEAR_WRAP_S = 100_000.0, 90_000.0  # the time stamp has five digits before the point
READ = b":OUTP?\n:READ?\n"
REST_RANGE_A = 1e-6  # the lowest range: 0 A is then as near to 0 as this instrument can

NO_WATCHDOG = (
    "no host watchdog: if the host dies, the output stays on. The voltage cannot pass the one of the program "
    "and the current not its compliance, by hardware; time and charge are then unbounded, the other side of "
    "the voltage window is not watched, and a discharge is held at its end for ever"
)
WAKES_UP_LOADED = (
    "after a loss of its own power it wakes up with output off as a 0 V source: save high impedance as its "
    "power-on setup (*SAV 0, :SYST:POS SAV0), or the cell is discharged until the host comes back"
)


class Keithley2400(KeithleySource):
    """Model 2400 on a serial line."""

    model = "2400"
    clear_device = b"\x18\n"

    def __init__(self, line: Line, *, name: str, clock: Clock, settings: Mapping[str, Any]) -> None:
        super().__init__(line, name=name, clock=clock, settings=settings)
        self._enable = EnableLine(name, self._ask, self._tell, wired=self._interlock)

    def _unbounded(self) -> list[str]:
        return [NO_WATCHDOG, self._enable.note(), WAKES_UP_LOADED]

    def _off_commands(self) -> tuple[str, ...]:
        return ":OUTP:SMOD HIMP", ":OUTP OFF"

    def _off_states(self) -> tuple[str, ...]:
        return (":OUTP:SMOD?",)

    async def _set_up(self) -> None:
        await self._tell(
            "*CLS",
            ":SOUR:CLE:AUTO OFF",
            ":ARM:COUN 1",
            ":TRIG:COUN 1",
            ":SOUR:VOLT:MODE FIX",
            ":SOUR:CURR:MODE FIX",
            ":SOUR:DEL:AUTO ON",
        )
        await self._tell(
            ":SENS:FUNC:CONC ON",
            ':SENS:FUNC "VOLT","CURR"',
            ":SENS:AVER OFF",
            ":CALC:STAT OFF",
            f":SENS:VOLT:NPLC {argument(self._nplc)}",
            ":FORM:ELEM VOLT,CURR,TIME,STAT",
        )
        await self._tell(
            f":SYST:RSEN {'ON' if self._four_wire else 'OFF'}",
            ":SYST:AZER ON",
        )
        await self._verify({":SYST:RSEN?": float(self._four_wire)})
        await self._enable.prepare()

    async def _at_rest(self) -> float:
        try:
            await self._as_current_source()
            reading = self._checked(await self._read())
        finally:
            await self._switch_off()
        if not reading.valid or reading.voltage_v is None:
            why = "; ".join(reading.problems) or "overflow"
            raise BadReply(f"no voltage at rest: {why}", device=self.name)
        return reading.voltage_v

    async def _as_current_source(self) -> None:
        """Output on with 0 A."""
        await self._tell(
            ":SOUR:FUNC CURR",
            f":SOUR:CURR:RANG {argument(REST_RANGE_A)}",
            ":SOUR:CURR:LEV 0",
            f":SENS:VOLT:RANG {argument(self._high_v + HEADROOM_V)}",
            f":SENS:VOLT:PROT {argument(self._high_v + HEADROOM_V)}",
        )
        await self._switch_on()

    async def _switch_on(self) -> None:
        """Output on. Raises Refused, in words a person can act on if the output-enable line keeps it off."""
        try:
            await self._tell(":OUTP ON")
        except Refused as error:
            if BLOCKED not in error.message:
                raise
            raise Refused(
                f"{self._enable.why_open()} ({error.message})", device=self.name, request=":OUTP ON"
            ) from None

    async def _begin(self, wanted: Plan) -> None:
        if wanted.kind == "ocv":
            await self._as_current_source()
        else:
            await self._tell(
                ":SOUR:FUNC VOLT",
                f":SOUR:VOLT:RANG {argument(abs(wanted.level_v))}",
                f":SOUR:VOLT:LEV {argument(wanted.level_v)}",
                f":SENS:CURR:RANG {argument(wanted.range_a)}",
                f":SENS:CURR:PROT {argument(wanted.compliance_a)}",
            )
            await self._verify({":SOUR:VOLT:LEV?": wanted.level_v, ":SENS:CURR:PROT?": wanted.compliance_a})
            await self._switch_on()
        await self._verify({":OUTP?": 1.0})
        await self._tell(":SYST:TIME:RES")
        self._began_s = self._clock.now_s()
        self._last_s, self._wraps = 0.0, 0

    async def _look(self) -> None:
        judge = self._judge
        assert judge is not None  # noqa: S101  # a program runs
        try:
            reading = await self._read()
        except Refused as error:  # output off: power lost, output-enable open, a hand at the front panel
            await self._switch_off()
            why = f"{error.message}, and not by this program"
            with contextlib.suppress(DriverError):  # it is off, whoever did it
                if await self._enable.is_open():
                    why = f"{error.message}: {OPEN}"
            self._finish(CellEventKind.RUNTIME_ERROR, why)
            return
        finally:
            self._due_s = max(self._due_s + judge.plan.interval_s, self._clock.now_s())
        if reading.time_s < self._last_s - NEAR_WRAP_S:
            self._wraps += 1
        elif reading.time_s <= self._last_s:
            raise BadReply("time did not go on", device=self.name, reply=str(reading.time_s))
        self._last_s = reading.time_s
        await self._take(reading, reading.time_s + self._wraps * CLOCK_WRAPS_S)

    async def _read(self) -> Reading:
        """One measurement. Raises Refused if the output is off: ``:READ?`` would not be answered then."""
        timeout_s = READ_ANSWER_S + READ_ANSWER_FACTOR * self._reading_s
        text = await self._line.ask(READ, _reading_of, timeout_s=timeout_s, device=self.name)
        try:
            return reading_2400(text)
        except BadReply as error:
            raise BadReply(error.message, device=self.name, request=READ, reply=text) from None


def _reading_of(buffer: bytes) -> str | None:
    """Return what ``:READ?`` answers behind the answer to ``:OUTP?``. Raises Refused, BadReply."""
    state, end, rest = buffer.partition(b"\n")
    if not end:
        return None
    if state.strip() == b"0":
        raise Refused("the output is off", request=READ)
    if state.strip() != b"1":
        raise BadReply("not the state of the output", request=READ, reply=buffer)
    return line_of(rest)
