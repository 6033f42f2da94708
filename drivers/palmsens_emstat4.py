"""PalmSens EmStat4 (HR, LR), EmStat Pico, Sensit: cell programs as MethodSCRIPT over a serial line.

The instrument pushes lines while a script runs; there is no watchdog in it, so the limits are in the script
(``methodscript_scripts``). Halt (``h``) is never used: the cell stays energised while halted.

One reader at a time: ``next`` holds the line while it waits; ``stop`` interrupts it and takes over.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from drivers.clock import Clock
from drivers.errors import BadReply, NoReply, Refused
from drivers.line import Interrupted, Line
from drivers.methodscript import (
    CURRENT,
    FREQUENCY,
    GENERIC,
    POTENTIAL,
    TIME,
    Z_IMAGINARY,
    Z_REAL,
    Value,
    decode_error,
    decode_package,
)
from drivers.methodscript_models import CAPABILITIES, Capabilities
from drivers.methodscript_parts import END, PHASE
from drivers.methodscript_scripts import off_script, write_script
from drivers.palmsens_abilities import PRODUCTS, WHAT_TO_DO, check_script, code_of, probes, swing
from drivers.roles import (
    CellAbilities,
    CellEvent,
    CellEventKind,
    CellProgram,
    CellSample,
    Identity,
    Role,
)

ANSWER_S = 1.0  # to any command, wall seconds
SCRIPT_ANSWER_S = 3.0  # to a whole script that has to be parsed
ABORT_S = 3.0  # from Z to the empty line
OCV_RUN_S = 3.0
STOP_S = 12.0  # all of it, whatever happens
PAUSE_AFTER_ERROR_S = 0.1  # the instrument asks for it
FLOW_CONTROL = b"\x11\x13"  # may come at power-up
OUTPUT_LETTERS = "PMLCT*+-"
NO_WATCHDOG = (
    "no host watchdog: a running script goes on when the cable is pulled; what bounds it are the voltage, "
    "current, charge and time limits inside the script itself"
)


class EmStat4:
    """A potentiostat that runs one program at a time.

    Args:
        line: the serial line, open.
        name: name of the device, for messages.
        clock: not needed: the instrument keeps its own time, and replies are waited for in wall seconds.
        settings: ``model`` = es4_hr, es4_lr or pico.
    """

    def __init__(self, line: Line, *, name: str, clock: Clock, settings: Mapping[str, Any]) -> None:
        model = settings.get("model", "es4_hr")
        if model not in CAPABILITIES:
            raise ValueError(f"{name}: model = {model!r} is none of {', '.join(CAPABILITIES)}")
        self.name = name
        self.model: Capabilities = CAPABILITIES[model]
        self._line = line
        self._running = False
        self._reader = asyncio.Lock()
        self._stops = 0  # callers of stop that have not finished
        self._happened: deque[CellSample | CellEvent] = deque()
        self._prepared_opening: int | None = None
        self._phase = ""
        self._ending = ""
        self._failure = ""
        self._aborted = False
        self._elapsed_s = -1.0
        self._program: CellProgram | None = None

    @property
    def roles(self) -> frozenset[Role]:
        """It is a potentiostat and nothing else."""
        return frozenset({Role.POTENTIOSTAT})

    @property
    def running(self) -> bool:
        """Whether a script is running, as far as we know; true also while in doubt."""
        return self._running

    async def identify(self) -> Identity:
        """Ask who is there, without changing anything.

        Raises:
            NoReply: silence.
            BadReply: something else answers, another model than the station file says, or its firmware is
                too old for our scripts.
            Refused: a script is running (``prepare`` ends it).
        """
        async with self._reader:
            await self._drain()
            version = await self._ask("t", "t")
            flag = await self._read(ANSWER_S)
            code = code_of(version, flag, self.model, self.name)
            serial = await self._ask("i", "i")
            script = await self._ask("v", "v")
        check_script(script[1:], self.name)
        firmware = version[1 + len(code) :].partition("#")[0]
        name = self.model.name if code in self.model.codes else PRODUCTS[code]
        return Identity("PalmSens", name, serial[1:] or None, f"{firmware}, MethodSCRIPT {script[1:]}")

    async def probe(self) -> tuple[CellAbilities, list[str]]:
        """Find out what this very instrument can do: scripts are loaded, none is run, nothing is energised.

        The parser of the instrument refuses what its firmware does not know, what the model has not, and what
        is not licensed; a script that opens the circuit is loaded last, so that nothing else stays in it.

        Returns: what it can do (the model's table less what was refused), and what is missing, in words with
            what to do about it.

        Raises:
            NoReply, BadReply: no answer to a script. Refused: a program is running.
        """
        found, missing = self.model.abilities, []
        async with self._reader:
            if self._running:
                raise Refused("a program is running", device=self.name)
            try:
                for what, changes, program in probes(self.model):
                    refusal = await self._load(write_script(program, self.model))
                    if refusal:
                        missing.append(f"no {what} on this instrument: {refusal}; {WHAT_TO_DO}")
                        found = replace(found, **changes)
            finally:
                await self._load(off_script(self.model))
        return found, missing

    async def prepare(self) -> list[str]:
        """End whatever runs, open the circuit, prove it, and read the open-circuit voltage."""
        async with self._reader:
            interrupted = self._running
            volt = await self._make_safe()
            self._happened.clear()
            if interrupted:
                self._happen(CellEventKind.ABORTED, "stopped when the link was prepared again")
            self._prepared_opening = self._line.openings
        return [NO_WATCHDOG, f"circuit open, {volt:.4f} V"]

    async def start(self, program: CellProgram) -> None:
        """Send and start a program.

        Raises:
            OutOfRange: the program does not fit the model or its own limits; nothing was sent.
            Refused: a program is running, ``prepare`` has not been called on this connection, or the
                instrument does not accept the script (nothing was run).
            NoReply: no answer; the script may be running, so ``running`` is true until ``stop``.
        """
        script = write_script(program, self.model)
        async with self._reader:
            if self._running:
                raise Refused("a program is running", device=self.name)
            if self._prepared_opening != self._line.openings:
                raise Refused("the line has been opened since; prepare first", device=self.name)
            self._begin_program(program)
            self._running = True  # in doubt until the answer is here
            try:
                await self._send_script(script)
            except Refused:
                self._running = False
                raise
            self._happened.clear()
            self._happen(CellEventKind.STARTED, type(program).__name__)

    async def next(self, timeout_s: float) -> CellSample | CellEvent:
        """Return the next sample or event.

        Raises:
            NoReply: nothing within ``timeout_s`` wall seconds, or the link is lost. The script goes on.
            BadReply: a line that cannot be read; the stream goes on.
            Refused: no program is running and everything that happened has been told.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        remaining_s = timeout_s
        while True:
            if self._happened:
                return self._happened.popleft()
            if remaining_s < 0:
                raise NoReply(f"no sample within {timeout_s:g} s, only other lines", device=self.name)
            async with self._reader:
                if self._happened:
                    continue
                if not self._running:
                    raise Refused("no program is running", device=self.name)
                remaining_s = deadline - asyncio.get_running_loop().time()
                try:
                    await self._take_line(await self._read(max(remaining_s, 0.0)))
                except NoReply:
                    if self._stops == 0:
                        raise
            if self._stops:
                await asyncio.sleep(0)  # stop has its turn; what it finds comes out of here

    async def stop(self) -> None:
        """Abort the program, open the circuit, prove it. Bounded; harmless when repeated.

        Raises:
            NoReply, BadReply, Refused: it could not be proved that the circuit is open.
        """
        self._stops += 1
        if self._stops == 1:
            self._line.interrupt()
        try:
            async with asyncio.timeout(STOP_S), self._reader:
                await self._make_safe()
        except TimeoutError as error:
            raise NoReply(f"not stopped within {STOP_S:g} s", device=self.name) from error
        finally:
            self._stops -= 1

    async def off(self) -> None:
        """Safe state: no script, circuit open."""
        await self.stop()

    async def read_ocv(self) -> float:
        """Open the circuit and return the voltage, V. Raises Refused while a program is running."""
        async with self._reader:
            if self._running:
                raise Refused("a program is running", device=self.name)
            return await self._open_circuit()

    async def close(self) -> None:
        """Release the line; a running script goes on inside its limits."""
        await self._line.close()

    async def _make_safe(self) -> float:
        """End a script, open the circuit, prove it; return the voltage. Repeating all of it is safe."""
        try:
            await self._abort_script()
            return await self._open_circuit()
        except Interrupted:
            raise
        except (NoReply, BadReply):
            await asyncio.sleep(PAUSE_AFTER_ERROR_S)
            await self._abort_script()
            return await self._open_circuit()

    async def _abort_script(self) -> None:
        """Resynchronise: LF ends a begun command, Z a running script. What still comes is taken over."""
        await self._line.send(b"\nZ\n", device=self.name)
        deadline = asyncio.get_running_loop().time() + ABORT_S
        acknowledged = False
        while not acknowledged or self._running:
            line = await self._read_until(deadline)
            if not acknowledged and line.startswith("Z"):
                acknowledged = True
                self._aborted = True
                if line != "Z":  # nothing was running, or nothing is any more
                    await asyncio.sleep(PAUSE_AFTER_ERROR_S)
                    self._finish(CellEventKind.ABORTED, "the instrument was idle")
                    return
                self._running = True  # until its last line, whoever started it
            elif self._running or acknowledged:
                await self._take_old_line(line)

    async def _take_old_line(self, line: str) -> None:
        """While aborting: keep what can be read, skip what cannot."""
        error = decode_error(line)
        if error is not None and not error.command:
            self._failure = error.words
            await asyncio.sleep(PAUSE_AFTER_ERROR_S)
            self._finish(CellEventKind.RUNTIME_ERROR, error.words)
            return
        try:
            self._take_output(line)
        except BadReply:
            return

    async def _open_circuit(self) -> float:
        """Run the script that opens the circuit and proves it; return the voltage."""
        await self._send_script(off_script(self.model))
        volt: float | None = None
        deadline = asyncio.get_running_loop().time() + OCV_RUN_S
        while line := await self._read_until(deadline):
            error = decode_error(line)
            if error is not None:
                await asyncio.sleep(PAUSE_AFTER_ERROR_S)
                raise Refused(f"circuit not open: {error.words}", device=self.name, reply=line)
            if line.startswith("P"):
                volts = [value.value for value in decode_package(line) if value.kind == POTENTIAL]
                volt = volts[0] if volts else volt
        if volt is None:
            raise BadReply("no voltage in the open-circuit measurement", device=self.name)
        return volt

    async def _load(self, script: str) -> str:
        """Load a script without running it; return in words why it was refused, "" when it was not."""
        await self._drain()
        await self._line.send(f"l\n{script}\n\n".encode("ascii"), device=self.name)
        answer = await self._read(SCRIPT_ANSWER_S)
        if answer == "l":
            return ""
        error = decode_error(answer)
        await asyncio.sleep(PAUSE_AFTER_ERROR_S)
        if error is None:
            raise BadReply("not an answer to a script", device=self.name, request="l", reply=answer)
        return error.words

    async def _send_script(self, script: str) -> None:
        """Send a script and wait until the instrument has accepted it."""
        await self._drain()
        await self._line.send(f"e\n{script}\n\n".encode("ascii"), device=self.name)
        answer = await self._read(SCRIPT_ANSWER_S)
        if answer == "e":
            return
        error = decode_error(answer)
        await asyncio.sleep(PAUSE_AFTER_ERROR_S)
        if error is None:
            raise BadReply("not an answer to a script", device=self.name, request="e", reply=answer)
        raise Refused(f"script refused: {error.words}", device=self.name, request="e", reply=answer)

    async def _take_line(self, line: str) -> None:
        """One line of a running script; after a runtime error the cell is still on and goes off here."""
        error = decode_error(line)
        if error is None:
            self._take_output(line)
            return
        if error.command:  # somebody else's command, or noise
            raise BadReply("unexpected answer while a script runs", device=self.name, reply=line)
        self._failure = error.words
        await asyncio.sleep(PAUSE_AFTER_ERROR_S)
        await self._open_circuit()  # if this fails, that goes out, and we stay in doubt
        self._finish(CellEventKind.RUNTIME_ERROR, error.words)

    def _take_output(self, line: str) -> None:
        """One line of output that is no error. Raises BadReply."""
        if not line:
            kind = CellEventKind.ABORTED if self._aborted else CellEventKind.FINISHED
            self._finish(kind, "aborted" if self._aborted else self._ending)
        elif line == "Z":
            self._aborted = True
        elif line.startswith("T" + PHASE):
            self._phase = line[1 + len(PHASE) :]
            self._happen(CellEventKind.PHASE, self._phase)
        elif line.startswith("T" + END):
            self._ending = line[1 + len(END) :]
        elif line.startswith("P"):
            self._happened.append(self._sample(line))
        elif line[0] not in OUTPUT_LETTERS:
            raise BadReply("not a line of a script's output", device=self.name, reply=line)

    def _sample(self, line: str) -> CellSample:
        values = {value.kind: value for value in decode_package(line)}
        elapsed = values.get(TIME)
        if elapsed is None or not elapsed.value > self._elapsed_s:
            raise BadReply("time did not go on", device=self.name, reply=line)
        self._elapsed_s = elapsed.value
        problems = [f"{kind}: {text}" for kind, value in values.items() for text in value.problems]
        real, imaginary = _number(values.get(Z_REAL)), _number(values.get(Z_IMAGINARY))
        swing_v, swing_a = swing(self._program, real, imaginary)
        return CellSample(
            monotonic_s=time.monotonic(),
            elapsed_s=elapsed.value,
            phase=self._phase,
            voltage_v=_number(values.get(POTENTIAL)),
            current_a=_number(values.get(CURRENT)),
            charge_coulomb=_number(values.get(GENERIC)),
            valid=all(value.valid for value in values.values()),
            problems=tuple(problems),
            frequency_hz=_number(values.get(FREQUENCY)),
            z_real_ohm=real,
            z_imag_ohm=imaginary,
            swing_v=swing_v,
            swing_a=swing_a,
        )

    async def _ask(self, command: str, letter: str) -> str:
        """Send a command and return the line that answers it, past the output of a running script.

        Raises:
            Refused: the instrument says no.
            BadReply: something else answers.
            NoReply: silence.
        """
        await self._line.send(f"{command}\n".encode("ascii"), device=self.name)
        deadline = asyncio.get_running_loop().time() + ANSWER_S
        seen: bytes | str = b""
        while True:
            try:
                answer = await self._read_until(deadline)
            except NoReply as error:
                seen = error.reply or seen
                if not seen:
                    raise NoReply(error.message, device=self.name, request=command) from error
                raise BadReply(
                    "not the answer asked for", device=self.name, request=command, reply=seen
                ) from error
            refusal = decode_error(answer)
            if refusal is not None and refusal.command == letter:
                await asyncio.sleep(PAUSE_AFTER_ERROR_S)
                raise Refused(refusal.words, device=self.name, request=command, reply=answer)
            if answer.startswith(letter):
                return answer
            if answer and answer[0] not in OUTPUT_LETTERS:
                raise BadReply("not the answer asked for", device=self.name, request=command, reply=answer)
            seen = answer or seen

    async def _drain(self) -> None:
        """Throw away what an idle instrument has said unasked."""
        await asyncio.sleep(0)  # twice: what the kernel has reaches the port before we look
        await asyncio.sleep(0)
        self._line.drain()

    async def _read(self, timeout_s: float) -> str:
        """Return the next line without its end and without flow-control characters."""
        line = await self._line.read_line(timeout_s, device=self.name)
        text = line.translate(None, FLOW_CONTROL).rstrip(b"\r\n")
        return text.decode("ascii", errors="backslashreplace")

    async def _read_until(self, deadline_s: float) -> str:
        """Return the next line before a moment of the loop's clock; lines may not go on for ever."""
        remaining_s = deadline_s - asyncio.get_running_loop().time()
        if remaining_s <= 0:
            raise NoReply("lines came, but not the one that was waited for", device=self.name)
        return await self._read(remaining_s)

    def _begin_program(self, program: CellProgram) -> None:
        self._program = program
        self._phase = self._ending = self._failure = ""
        self._aborted = False
        self._elapsed_s = -1.0

    def _happen(self, kind: CellEventKind, detail: str = "") -> None:
        self._happened.append(CellEvent(time.monotonic(), kind, detail))

    def _finish(self, kind: CellEventKind, detail: str) -> None:
        """A run has ended; tell it if it was one that we knew of."""
        if self._running:
            self._running = False
            if self._failure:
                kind, detail = CellEventKind.RUNTIME_ERROR, self._failure
            self._happen(kind, detail)


def _number(value: Value | None) -> float | None:
    """Return the number, None if there is none or it is no number."""
    return value.value if value is not None and value.value == value.value else None
