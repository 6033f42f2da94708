"""Keithley 2450 as the source of a cell: SCPI on a TCP socket (port 5025).

SCPI and not TSP: a TSP script would add a charge limit inside the instrument, but while it runs nothing else
is answered, and a host that is alive could neither look nor change its mind. SCPI's trigger model runs beside
the command interface. So every program is one: it measures, tests each reading, counts them, and turns the
output off at its end. It also holds a lease: the host sends ``*TRG`` at every look, and when that has not
come for some readings the model turns the output off by itself.

A station that uses TSP or the 2400's emulation is refused with the command that changes it (``*LANG``).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from drivers.clock import Clock
from drivers.errors import BadReply, OutOfRange, Refused
from drivers.keithley_plan import Ending, Plan
from drivers.keithley_scpi import Reading, argument, readings_2450, whole
from drivers.keithley_source import HEADROOM_V, KeithleySource
from drivers.line import Line
from drivers.roles import CellEventKind

BUFFER = '"defbuffer1"'
ELEMENTS = "READ,SOUR,SOURSTAT,REL"
MOST_READINGS = 100_000  # what that buffer holds
MOST_AT_ONCE = 1000  # in one reply: 60 kB, half of what a line takes
LEASE_S, LEAST_LEASE_READINGS = 10.0, 3
CLAMP_FACTOR = 1.1  # a current beyond the compliance by more is no current, but a fault
REST_RANGE_A = 1e-8  # the lowest range of this instrument
ENDED = frozenset({"IDLE", "EMPTY", "ABORTED", "FAILED"})

INTERLOCK = "the interlock is required: when it opens, the output goes off"
NO_INTERLOCK = "the interlock is not used; by itself it only limits the voltage to 42 V, which no cell needs"


class Keithley2450(KeithleySource):
    """Model 2450 on a TCP line. One more setting: ``lease_s``."""

    model = "2450"

    def __init__(self, line: Line, *, name: str, clock: Clock, settings: Mapping[str, Any]) -> None:
        super().__init__(line, name=name, clock=clock, settings=settings)
        lease_s = float(settings.get("lease_s", LEASE_S))
        self._lease_lab_s = clock.wall_timeout_s(lease_s) * clock.speed
        self._sources = "CURR"
        self._taken = self._count = 0  # readings: fetched, and when the trigger model ends
        self._newest: Reading | None = None
        self._widest = 0.0

    def _unbounded(self) -> list[str]:
        return [
            "no host watchdog of its own: the trigger model that runs each program switches the output off "
            f"when the host has not renewed it for {self._lease_lab_s:g} s (3 readings at least), after its "
            "own count of readings, and at a reading beyond the current. Until then the voltage cannot pass "
            "the one of the program and the current not its limit, by hardware; the other side of the "
            "voltage window and the charge are watched by the host alone",
            INTERLOCK if self._interlock else NO_INTERLOCK,
        ]

    def _off_commands(self) -> tuple[str, ...]:
        return ":ABOR", ":OUTP:VOLT:SMOD HIMP", ":OUTP:CURR:SMOD HIMP", ":OUTP OFF"

    def _off_states(self) -> tuple[str, ...]:
        return ":OUTP:VOLT:SMOD?", ":OUTP:CURR:SMOD?"

    async def _set_up(self) -> None:
        language = await self._ask("*LANG?")
        if language.upper() != "SCPI":
            raise Refused(
                "the instrument speaks another command set: send *LANG SCPI and switch it off and on",
                device=self.name, request="*LANG?", reply=language,
            )  # fmt: skip
        sense = "ON" if self._four_wire else "OFF"
        await self._tell(
            "*CLS",
            ":FORM:DATA ASC",
            f":SENS:VOLT:RSEN {sense}",
            f":SENS:CURR:RSEN {sense}",
            f":SENS:VOLT:NPLC {argument(self._nplc)}",
            f":SENS:CURR:NPLC {argument(self._nplc)}",
            ":SENS:VOLT:AVER OFF",
            ":SENS:CURR:AVER OFF",
            ":SENS:COUN 1",
        )
        await self._tell(
            ":SOUR:VOLT:READ:BACK ON",
            ":SOUR:CURR:READ:BACK ON",
        )
        await self._verify({":SENS:VOLT:RSEN?": self._four_wire, ":SENS:CURR:RSEN?": self._four_wire})
        await self._require_interlock("the interlock")

    async def _at_rest(self) -> float:
        try:
            await self._as_current_source()
            await self._tell(":OUTP ON")
            (reading,) = readings_2450(
                await self._ask(f":READ? {BUFFER},{ELEMENTS}", timeout_s=1.0 + 10.0 * self._reading_s),
                sources="CURR",
            )
        except ValueError as error:
            raise BadReply(str(error), device=self.name) from None
        finally:
            await self._switch_off()
        reading = self._checked(reading)
        if not reading.valid or reading.voltage_v is None:
            why = "; ".join(reading.problems) or "overflow"
            raise BadReply(f"no voltage at rest: {why}", device=self.name)
        return reading.voltage_v

    async def _as_current_source(self) -> None:
        """Everything for 0 A but the output."""
        self._sources = "CURR"
        await self._tell(
            ":SOUR:FUNC CURR",
            f":SOUR:CURR:RANG {argument(REST_RANGE_A)}",
            ":SOUR:CURR 0",
            f":SOUR:CURR:VLIM {argument(self._high_v + HEADROOM_V)}",
            ':SENS:FUNC "VOLT"',
            f":SENS:VOLT:RANG {argument(self._high_v + HEADROOM_V)}",
        )

    async def _begin(self, wanted: Plan) -> None:
        count = math.ceil(wanted.duration_s / wanted.interval_s) + 1
        if count > MOST_READINGS:
            raise OutOfRange(
                f"{count} readings do not fit into the instrument's {MOST_READINGS}: take a longer interval",
                device=self.name,
            )
        if wanted.kind == "ocv":
            await self._as_current_source()
            widest = self._high_v + HEADROOM_V
        else:
            self._sources = "VOLT"
            await self._tell(
                ":SOUR:FUNC VOLT",
                f":SOUR:VOLT:RANG {argument(abs(wanted.level_v))}",
                f":SOUR:VOLT {argument(wanted.level_v)}",
                ':SENS:FUNC "CURR"',
                f":SENS:CURR:RANG {argument(wanted.range_a)}",
                f":SOUR:VOLT:ILIM {argument(wanted.compliance_a)}",
            )
            await self._verify({":SOUR:VOLT?": wanted.level_v, ":SOUR:VOLT:ILIM?": wanted.compliance_a})
            widest = CLAMP_FACTOR * wanted.compliance_a
        self._count, self._widest, self._taken, self._newest = count, widest, 0, None
        await self._tell(*self._model_of(wanted, count, widest))
        await self._tell(":INIT")

    def _model_of(self, wanted: Plan, count: int, widest: float) -> list[str]:
        """Return the trigger model: block by block, in the order of the numbers."""
        lease = max(LEAST_LEASE_READINGS, math.ceil(self._lease_lab_s / wanted.interval_s))
        delay_s = max(wanted.interval_s - self._reading_s, 0.0)
        measure, renewed, off = 4, 11, 13
        limit = f"{argument(-widest)},{argument(widest)}"
        return [
            ':TRIG:LOAD "EMPTY"',
            f":TRIG:BLOC:BUFF:CLE 1,{BUFFER}",
            ":TRIG:BLOC:SOUR:STAT 2,ON",
            f":TRIG:BLOC:DEL:CONS 3,{argument(delay_s)}",
            f":TRIG:BLOC:MEAS {measure},{BUFFER},1",
            f":TRIG:BLOC:BRAN:LIM:CONS 5,OUT,{limit},{off},{measure}",
            f":TRIG:BLOC:BRAN:COUN 6,{count},8",
            f":TRIG:BLOC:BRAN:ALW 7,{off}",
            f":TRIG:BLOC:BRAN:EVEN 8,COMM,{renewed}",
            f":TRIG:BLOC:BRAN:COUN 9,{lease},3",
            f":TRIG:BLOC:BRAN:ALW 10,{off}",
            f":TRIG:BLOC:BRAN:COUN:RES {renewed},9",
            ":TRIG:BLOC:BRAN:ALW 12,3",
            f":TRIG:BLOC:SOUR:STAT {off},OFF",
        ]

    async def _look(self) -> None:
        judge = self._judge
        assert judge is not None  # noqa: S101  # a program runs
        interval_s = judge.plan.interval_s
        try:
            state = (await self._ask("*TRG\n:TRIG:STAT?")).partition(";")[0].upper()
            there = whole(await self._ask(f":TRAC:ACT:END? {BUFFER}"))
            if there > MOST_READINGS:
                raise BadReply(f"{there} readings in a buffer of {MOST_READINGS}", device=self.name)
            end = min(there, self._taken + MOST_AT_ONCE)
            readings: list[Reading] = []
            if end > self._taken:
                text = await self._ask(f":TRAC:DATA? {self._taken + 1},{end},{BUFFER},{ELEMENTS}")
                readings = self._in_order(readings_2450(text, sources=self._sources), end, text)
                self._taken = end
                self._newest = readings[-1]
        finally:
            self._due_s = max(self._due_s + interval_s, self._clock.now_s())
        for reading in readings:
            if not reading.output_on:
                await self._lost("the output is off, and not by this program")
                return
            if not await self._take(reading, reading.time_s + interval_s):
                return
        if end < self._taken:
            await self._lost("the instrument has forgotten its readings: it was switched off or reset")
        elif state in ENDED and end == there:
            await self._ended_by_itself()

    def _in_order(self, readings: list[Reading], end: int, text: str) -> list[Reading]:
        """Return the readings that were asked for; they count as taken only if time goes on in them."""
        asked = end - self._taken
        if len(readings) != asked:
            raise BadReply(f"{len(readings)} readings instead of {asked}", device=self.name, reply=text)
        before = [] if self._newest is None else [self._newest]
        times = [reading.time_s for reading in (*before, *readings)]
        if any(later <= earlier for earlier, later in itertools.pairwise(times)):
            raise BadReply("time did not go on", device=self.name, reply=text)
        return readings

    async def _lost(self, why: str) -> None:
        await self._switch_off()
        self._finish(CellEventKind.RUNTIME_ERROR, why)

    async def _ended_by_itself(self) -> None:
        """The trigger model is through: say why, from what it left."""
        await self._switch_off()
        measured = None
        if self._newest is not None:
            measured = self._newest.current_a if self._sources == "VOLT" else self._newest.voltage_v
        beyond = self._newest is not None and (measured is None or abs(measured) > self._widest)
        if self._taken >= self._count:
            ending = Ending.TIME
        else:
            ending = Ending.LIMIT_CURRENT if beyond else Ending.LEASE
        self._finish(CellEventKind.FINISHED, str(ending))
