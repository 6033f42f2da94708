"""What the Keithley 2400 and 2450 have in common as a source for a cell: programs, reading, switching off.

Neither runs a script with limits inside as the EmStat4 does. What the hardware bounds by itself is in
``keithley_plan``; what each adds, and what is unbounded when the host is gone, stands in its own file.

The output-off state is high impedance (relay open), written and read back before anything else: in the
state these instruments wake up in, a cell that is "off" is discharged through the source at 0 V. For the
same reason ``*RST`` is never sent: it would fall back to that state with the cell connected.

Every group of commands is followed by the error queue until it is empty. An unknown or refused query gets
no answer at all, so after a time-out the queue is read, too.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from drivers.clock import Clock
from drivers.errors import BadReply, DriverError, NoReply, OutOfRange, Refused
from drivers.keithley_plan import Ending, Judge, Plan, plan
from drivers.keithley_scpi import LONGEST_QUEUE, Reading, error_of, line_of, number
from drivers.line import Line
from drivers.roles import CellEvent, CellEventKind, CellProgram, CellSample, Identity, Role

ANSWER_S = 1.0  # to any query, wall seconds
STOP_S = 8.0  # all of it, whatever happens
OFF_ANSWER_S = 1.5
HEADROOM_V = 1.0  # of the limit of a current source of 0 A above the station's highest voltage
HIGH_IMPEDANCE = "HIMP"
NOT_PREPARED = "the line has been opened since; prepare first"


class KeithleySource:
    """A potentiostat that runs one program at a time. Not used by itself: see the two instruments.

    Args:
        line: the line, open.
        name: name of the device, for messages.
        clock: lab time, in which readings are due.
        settings: ``sense`` = 4-wire or 2-wire; ``nplc``; ``interlock`` true if the instrument's interlock is
            wired; ``voltage_low_v``, ``voltage_high_v``, ``current_limit_a``: what no program may exceed.
    """

    model = ""
    clear_device = b""  # what ends a pending operation

    def __init__(self, line: Line, *, name: str, clock: Clock, settings: Mapping[str, Any]) -> None:
        self.name = name
        self._line = line
        self._clock = clock
        self._four_wire = settings.get("sense", "4-wire") == "4-wire"
        self._nplc = float(settings.get("nplc", 1.0))
        self._interlock = bool(settings.get("interlock", False))
        self._low_v = float(settings.get("voltage_low_v", 0.0))
        self._high_v = float(settings.get("voltage_high_v", 5.0))
        self._most_a = float(settings.get("current_limit_a", 0.1))
        self._power_line_hz = 50.0
        self._reader = asyncio.Lock()
        self._stops = 0
        self._prepared_opening: int | None = None
        self._happened: deque[CellSample | CellEvent] = deque()
        self._judge: Judge | None = None  # of the program that runs
        self._running = False
        self._due_s = 0.0  # lab time of the next look
        self._told_phase = ""

    @property
    def roles(self) -> frozenset[Role]:
        """It is a potentiostat and nothing else."""
        return frozenset({Role.POTENTIOSTAT})

    @property
    def running(self) -> bool:
        """Whether a program is running, as far as we know; true also while in doubt."""
        return self._running

    async def identify(self) -> Identity:
        """Ask who is there, without changing anything.

        Raises:
            NoReply: silence.
            BadReply: something else answers, or the other model.
        """
        async with self._reader:
            answer = await self._ask("*IDN?")
        parts = [part.strip() for part in answer.split(",")]
        if len(parts) < 4 or not parts[0].upper().startswith("KEITHLEY"):
            raise BadReply("not a Keithley source", device=self.name, request="*IDN?", reply=answer)
        model = parts[1].upper().removeprefix("MODEL").strip()
        if model != self.model:
            raise BadReply(
                f"the station file says {self.model}", device=self.name, request="*IDN?", reply=answer
            )
        return Identity("Keithley", model, parts[2] or None, parts[3] or None)

    async def prepare(self) -> list[str]:
        """Switch off to high impedance, prove it, set what never changes, read the voltage at rest."""
        async with self._reader:
            interrupted, self._running = self._running, True  # in doubt until it is proved
            await self._switch_off()
            self._running = False
            self._happened.clear()
            if interrupted:
                self._happen(CellEventKind.ABORTED, "stopped when the link was prepared again")
            self._power_line_hz = self._frequency(await self._ask(":SYST:LFR?"))
            await self._set_up()
            volt = await self._at_rest()
            self._prepared_opening = self._line.openings
        wires = "4-wire" if self._four_wire else "2-wire: the leads are part of the cell"
        return [
            *self._unbounded(),
            f"output off is high impedance ({HIGH_IMPEDANCE}), read back; {wires}; at rest {volt:.4f} V, "
            "measured as a current source of 0 A with the relay closed",
        ]

    async def start(self, program: CellProgram) -> None:
        """Start a program; the cell is connected only if its voltage at rest lies inside the limits.

        Raises:
            OutOfRange: the program does not fit the instrument, the station or its own limits.
            Refused: an impedance sweep, a program is running, ``prepare`` has not been called on this
                connection, or the instrument does not accept a setting. Nothing is energised.
            NoReply: no answer; the output may be on, so ``running`` is true until ``stop``.
        """
        try:
            wanted = plan(program, low_v=self._low_v, high_v=self._high_v, most_a=self._most_a)
        except Refused as error:
            raise Refused(error.message, device=self.name) from None
        async with self._reader:
            if self._running:
                raise Refused("a program is running", device=self.name)
            if self._prepared_opening != self._line.openings:
                raise Refused(NOT_PREPARED, device=self.name)
            self._judge = judge = Judge(wanted)
            self._told_phase = ""
            self._happened.clear()
            self._running = True
            try:
                volt = await self._at_rest()
                outside = judge.outside(volt)
                if not outside:
                    await self._begin(wanted)
            except (Refused, OutOfRange):
                await self._switch_off()
                self._running = False
                raise
            self._happen(CellEventKind.STARTED, type(program).__name__)
            if outside:
                self._finish(CellEventKind.FINISHED, f"{Ending.START}: {volt:.4f} V")
            self._due_s = self._clock.now_s() + wanted.interval_s

    async def next(self, timeout_s: float) -> CellSample | CellEvent:
        """Return the next sample or event.

        Raises:
            NoReply: nothing within ``timeout_s`` wall seconds, or the link is lost; the program goes on.
            BadReply: an answer that cannot be read; the next one may.
            Refused: no program is running and everything that happened has been told.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            if self._happened:
                return self._happened.popleft()
            if not self._running:
                raise Refused("no program is running", device=self.name)
            remaining_s = deadline - loop.time()
            wait_s = self._due_s - self._clock.now_s()
            if remaining_s <= 0 or wait_s / self._clock.speed > remaining_s:
                await asyncio.sleep(max(remaining_s, 0.0))
                raise NoReply(f"no sample within {timeout_s:g} s", device=self.name)
            if wait_s > 0:
                await self._clock.sleep(wait_s)
                continue
            async with self._reader:
                if self._running and not self._happened and not self._stops:
                    await self._look()
            if self._stops:
                await asyncio.sleep(0)  # stop has its turn; what it finds comes out of here

    async def stop(self) -> None:
        """Switch the output off to high impedance and prove it. Bounded; harmless when repeated.

        Raises:
            NoReply, BadReply, Refused: it could not be proved that the output is off.
        """
        self._stops += 1
        self._line.interrupt()
        try:
            async with asyncio.timeout(STOP_S), self._reader, self._line.reserved():
                await self._switch_off()
                if self._running:
                    self._finish(CellEventKind.ABORTED, "stopped")
        except TimeoutError as error:
            raise NoReply(f"not stopped within {STOP_S:g} s", device=self.name) from error
        finally:
            self._stops -= 1

    async def off(self) -> None:
        """Safe state: output off, relay open."""
        await self.stop()

    async def read_ocv(self) -> float:
        """Return the voltage at rest, V, measured with 0 A. Raises Refused while a program is running."""
        async with self._reader:
            if self._running:
                raise Refused("a program is running", device=self.name)
            return await self._at_rest()

    async def close(self) -> None:
        """Release the line; the output stays as it is."""
        await self._line.close()

    # what the two instruments do in their own way

    def _unbounded(self) -> list[str]:
        """Return in plain words what nobody bounds when the host is gone."""
        raise AssertionError

    async def _set_up(self) -> None:
        """Set what never changes, with the output off."""
        raise AssertionError

    async def _at_rest(self) -> float:
        """Return the voltage with 0 A; the output is off before and after."""
        raise AssertionError

    async def _begin(self, wanted: Plan) -> None:
        """Configure the source and start; Refused if the instrument does not take it."""
        raise AssertionError

    async def _look(self) -> None:
        """Fetch what there is and hand it to ``_take``; set when the next look is due."""
        raise AssertionError

    def _off_commands(self) -> tuple[str, ...]:
        """Return what switches the output off, high impedance first."""
        raise AssertionError

    def _off_states(self) -> tuple[str, ...]:
        """Return the queries that must be answered with HIMP."""
        raise AssertionError

    # what they share

    async def _take(self, reading: Reading, elapsed_s: float) -> bool:
        """Take over a reading; end the program if it says so. Return whether it goes on."""
        judge = self._judge
        assert judge is not None  # noqa: S101  # a program runs
        ending = judge.take(self._checked(reading), elapsed_s)
        if judge.phase != self._told_phase:
            self._told_phase = judge.phase
            self._happen(CellEventKind.PHASE, judge.phase)
        self._happened.append(self._sample(self._checked(reading), elapsed_s, judge.phase))
        if ending is None:
            return True
        await self._switch_off()
        self._finish(CellEventKind.FINISHED, str(ending))
        return False

    def _checked(self, reading: Reading) -> Reading:
        """A reading over other wires than the station says is none."""
        if reading.remote_sense == self._four_wire:
            return reading
        words = "the instrument has gone back to 2-wire sense" if self._four_wire else "4-wire sense is on"
        return Reading(
            reading.voltage_v, reading.current_a, reading.time_s, reading.limited, reading.remote_sense,
            reading.output_on, (*reading.problems, words),
        )  # fmt: skip

    def _sample(self, reading: Reading, elapsed_s: float, phase: str) -> CellSample:
        problems = list(reading.problems)
        if reading.voltage_v is None:
            problems.append("voltage: overflow or no number")
        if reading.current_a is None:
            problems.append("current: overflow or no number")
        return CellSample(
            monotonic_s=time.monotonic(),
            elapsed_s=elapsed_s,
            phase=phase,
            voltage_v=reading.voltage_v,
            current_a=None if phase == "ocv" else reading.current_a,
            valid=reading.valid,
            problems=tuple(problems),
        )

    async def _switch_off(self) -> None:
        """Output off, high impedance, both read back; then the error queue is emptied. Repeating is safe."""
        commands = self.clear_device + "\n".join((*self._off_commands(), ":OUTP?", "")).encode("ascii")
        try:
            await self._line.ask(commands, _is_off, timeout_s=OFF_ANSWER_S, device=self.name, urgent=True)
        except (NoReply, BadReply):  # once more: an exchange was cut off, or the line was lost
            await self._line.ask(commands, _is_off, timeout_s=OFF_ANSWER_S, device=self.name, urgent=True)
        for query in self._off_states():
            state = await self._ask(query, urgent=True)
            if state.upper()[:4] != HIGH_IMPEDANCE:
                raise Refused(
                    "the output-off state is not high impedance: the cell would be discharged",
                    device=self.name, request=query, reply=state,
                )  # fmt: skip
        await self._errors(urgent=True)

    async def _tell(self, *commands: str) -> None:
        """Send commands one a line, and read the error queue. Raises Refused with what it holds."""
        text = "".join(f"{command}\n" for command in commands)
        first = await self._exchange(f"{text}:SYST:ERR?\n")
        errors = await self._errors(first)
        if errors:
            raise Refused("; ".join(errors), device=self.name, request=text.strip())

    async def _errors(self, first: str | None = None, *, urgent: bool = False) -> list[str]:
        """Empty the error queue; return its entries, oldest first."""
        found: list[str] = []
        entry = first
        for _ in range(LONGEST_QUEUE):
            code, words = error_of(
                entry if entry is not None else await self._ask(":SYST:ERR?", urgent=urgent)
            )
            if code == 0:
                return found
            found.append(f"{code} {words}")
            entry = None
        raise BadReply("the error queue does not become empty", device=self.name, reply="; ".join(found))

    async def _ask(self, query: str, *, timeout_s: float = ANSWER_S, urgent: bool = False) -> str:
        """Return the answer to a query. Raises NoReply, BadReply, Refused (with the error queue)."""
        try:
            return await self._exchange(query + "\n", timeout_s=timeout_s, urgent=urgent)
        except NoReply as silence:
            if urgent or self._stops or silence.message.startswith(("link lost", "cannot open")):
                raise
            raise await self._why(query, silence) from silence

    async def _why(self, query: str, silence: NoReply) -> DriverError:
        """A query that is refused gets no answer; the queue knows. Return what to raise."""
        try:
            first = await self._exchange(self.clear_device.decode("ascii") + ":SYST:ERR?\n")
            errors = await self._errors(first)
        except DriverError:
            return silence
        if not errors:
            return silence
        return Refused("; ".join(errors), device=self.name, request=query)

    async def _exchange(self, text: str, *, timeout_s: float = ANSWER_S, urgent: bool = False) -> str:
        return await self._line.ask(
            text.encode("ascii"), line_of, timeout_s=timeout_s, device=self.name, urgent=urgent
        )

    async def _verify(self, expected: Mapping[str, float]) -> None:
        """Read settings back. Raises Refused naming the first that is not what was written."""
        for query, value in expected.items():
            answer = await self._ask(query)
            found = number(answer)
            if found is None or abs(found - value) > 1e-3 * abs(value) + 1e-12:
                raise Refused(f"{value:g} was written", device=self.name, request=query, reply=answer)

    async def _require_interlock(self, what: str) -> None:
        """Make the interlock decide over the output, if the station says that it is wired."""
        if not self._interlock:
            return
        await self._tell(":OUTP:INT:STAT ON")
        await self._verify({":OUTP:INT:STAT?": 1.0})
        if number(await self._ask(":OUTP:INT:TRIP?")) != 1.0:
            raise Refused(f"{what} is open: the output cannot be turned on", device=self.name)

    def _frequency(self, answer: str) -> float:
        hertz = number(answer)
        if hertz is None or not 45.0 < hertz < 65.0:
            raise BadReply("no power-line frequency", device=self.name, request=":SYST:LFR?", reply=answer)
        return hertz

    @property
    def _reading_s(self) -> float:
        """How long one reading of voltage and current takes, s."""
        return 2.0 * self._nplc / self._power_line_hz

    def _happen(self, kind: CellEventKind, detail: str = "") -> None:
        self._happened.append(CellEvent(time.monotonic(), kind, detail))

    def _finish(self, kind: CellEventKind, detail: str) -> None:
        self._running = False
        self._happen(kind, detail)


def _is_off(buffer: bytes) -> bool | None:
    """Look for the answer 0 to ``:OUTP?`` among what earlier requests may still bring."""
    for line in buffer.split(b"\n")[:-1]:
        answer = line.strip(b"\r\x00 ")
        if answer == b"0":
            return True
        if answer == b"1":
            raise Refused("the output is still on", reply=buffer)
    return None
