"""Runs a parsed MethodSCRIPT against the front, in lab time.

The script has its own time: commands take none, measurements take place exactly at their intervals, however
late the wall clock is, and the physics is brought to that instant before the reading. A host that is gone
changes nothing.

What the documents leave open is decided here and said so: the first point of a measurement loop comes one
interval after its start, a turn of a script loop takes 1 ms, arithmetic on NaN gives NaN and comparing with
it is false, a measurement without the cell is error 4027.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from hil_tests.sim.clock import BenchClock
from hil_tests.sim.emstat_front import GALVANOSTAT, HIGH_SPEED, MODE_MISMATCH, Front, FrontError, Reading
from hil_tests.sim.emstat_script import (
    UNDECLARED,
    Argument,
    Block,
    Choice,
    Command,
    Condition,
    Number,
    Operand,
    Script,
    Statement,
    Variable,
)
from hil_tests.sim.emstat_values import Value, encode

OCP_WITH_CELL_ON, DIVISION_BY_ZERO, PACKAGE_ORDER, CELL_MUST_BE_ON = 0x0014, 0x0028, 0x401B, 0x4027
UNSUPPORTED, BAD_INDEX = 0x001B, 0x0007
LOOP_TURN_S = 0.001
SHORTEST_POINT_S, PERIODS = 0.1, 3.0  # of one frequency; measured again after each change of the range
HEADERS = {
    "meas_loop_ca": "M0007",
    "meas_loop_cp": "M000A",
    "meas_loop_ocp": "M000B",
    "meas_loop_eis": "M000D",
    "meas_loop_geis": "M000E",
}

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "&": lambda a, b: bool(int(a) & int(b)),
    "|": lambda a, b: bool(int(a) | int(b)),
}


class RunFailed(Exception):
    """A runtime error: the run ends, on_finished is not executed, the cell stays as it is."""

    def __init__(self, code: int, line: int) -> None:
        super().__init__(f"{code:04X} at line {line}")
        self.code, self.line = code, line


class Aborted(Exception):
    """``Z``, or the command ``abort``."""


class _LeaveLoop(Exception):
    """``breakloop``, or ``Y``."""


class Runner:
    """One run of one script.

    Args:
        script: what to run.
        front: the analogue front.
        clock: lab time.
        emit: called with each line of output.
        advance: brings the physics to a lab time.
    """

    def __init__(
        self,
        script: Script,
        front: Front,
        clock: BenchClock,
        emit: Callable[[str], None],
        advance: Callable[[float], None],
    ) -> None:
        self.points = self.range_changes = 0
        self.halted = False
        self.waiting_until_s = clock.now_s()  # the physics must not be driven past this by anybody else
        self.forced_error: int | None = None
        self._script = script
        self._front = front
        self._clock = clock
        self._emit = emit
        self._advance = advance
        self._aborting = self._leaving = False
        self._sleeper: asyncio.Future[None] | None = None
        self._time_s = clock.now_s()
        self._timer_s = self._interval_from_s = self._time_s
        self._interval_s = 0.0
        self._variables = {name: Value() for name in script.variables}
        self._arrays = {name: [Value() for _ in range(size)] for name, size in script.arrays.items()}
        self._package: list[str] | None = None
        self._output = True
        self._line = 0
        self._commands = self._table()

    async def run(self) -> None:
        """Run to the end. Raises RunFailed."""
        try:
            with contextlib.suppress(Aborted, _LeaveLoop):
                await self._statements(self._script.body)
            self._aborting = False
            await self._statements(self._script.on_finished)
        except FrontError as error:
            raise RunFailed(error.code, self._line) from error
        except (OverflowError, ZeroDivisionError) as error:
            raise RunFailed(DIVISION_BY_ZERO, self._line) from error

    def abort(self) -> None:
        """``Z``: end at the next instant."""
        self._aborting = True
        self._wake()

    def leave_loop(self) -> None:
        """``Y``: end the current loop."""
        self._leaving = True
        self._wake()

    def _wake(self) -> None:
        if self._sleeper is not None:
            self._sleeper.cancel()

    async def _until(self, time_s: float) -> None:
        """Wait for script time ``time_s``; bring the physics there."""
        self.waiting_until_s = time_s
        while self.halted or self._clock.now_s() < time_s:
            if self._aborting or self._leaving:
                break
            remaining_s = max(time_s - self._clock.now_s(), 0.05 if self.halted else 0.0)
            self._sleeper = asyncio.ensure_future(self._clock.sleep(remaining_s))
            try:
                await self._sleeper
            except asyncio.CancelledError:
                if not (self._aborting or self._leaving):
                    raise
            finally:
                self._sleeper = None
        else:
            await asyncio.sleep(0)
        if self._aborting or self._leaving:
            self._time_s = max(self._time_s, min(time_s, self._clock.now_s()))
            self._advance(self._time_s)
            self._leaving = False
            raise Aborted if self._aborting else _LeaveLoop
        if self.forced_error is not None:
            code, self.forced_error = self.forced_error, None
            raise RunFailed(code, self._line)
        self._time_s = time_s
        self._advance(time_s)

    async def _statements(self, statements: Iterable[Statement]) -> None:
        for statement in statements:
            if isinstance(statement, Command):
                self._line = statement.line
                await self._command(statement)
            elif isinstance(statement, Choice):
                await self._choice(statement)
            else:
                self._line = statement.head.line
                await (self._loop(statement) if statement.condition else self._measurement(statement))

    async def _choice(self, choice: Choice) -> None:
        for condition, body in choice.branches:
            if condition is None or self._holds(condition):
                await self._statements(body)
                return

    async def _loop(self, block: Block) -> None:
        self._emit("L")
        try:
            while block.condition is not None and self._holds(block.condition):
                await self._until(self._time_s + LOOP_TURN_S)
                await self._statements(block.body)
        except _LeaveLoop:
            pass
        except Aborted:
            self._emit("+")
            raise
        self._emit("+")

    async def _measurement(self, block: Block) -> None:
        name = block.head.name
        points = {
            "meas_loop_ca": self._chrono,
            "meas_loop_cp": self._chrono,
            "meas_loop_ocp": self._chrono,
            "meas_loop_eis": self._impedance,
            "meas_loop_geis": self._impedance,
        }[name](block.head)
        self._emit(HEADERS[name])
        try:
            for wait_s, take in points:
                await self._until(wait_s)
                self.points += 1
                take()
                await self._statements(block.body)
        except _LeaveLoop:
            pass
        except Aborted:
            self._emit("*")
            raise
        self._emit("*")

    def _chrono(self, head: Command) -> Iterator[tuple[float, Callable[[], None]]]:
        galvanostatic = head.name == "meas_loop_cp"
        potential = head.arguments[0]
        if head.name == "meas_loop_ocp":
            if self._front.cell_on:
                raise FrontError(OCP_WITH_CELL_ON)
            interval_s, run_s = (self._number(argument) for argument in head.arguments[1:])
        else:
            self._need_cell(galvanostatic=galvanostatic)
            set_value, interval_s, run_s = (self._number(argument) for argument in head.arguments[2:])
            (self._front.set_current if galvanostatic else self._front.set_potential)(set_value)

        def take() -> None:
            self._store(potential, self._front.measure_v(), "ab")
            if head.name != "meas_loop_ocp":
                self._store(head.arguments[1], self._front.measure_a(), "ba")

        count = max(1, math.floor(run_s / interval_s + 1e-6))
        start_s = self._time_s
        return ((start_s + k * interval_s, take) for k in range(1, count + 1))

    def _impedance(self, head: Command) -> Iterator[tuple[float, Callable[[], None]]]:
        galvanostatic = head.name == "meas_loop_geis"
        self._need_cell(galvanostatic=galvanostatic)
        if not galvanostatic and self._front.mode != HIGH_SPEED:
            raise FrontError(MODE_MISMATCH)
        amplitude, first_hz, last_hz, count, bias = (
            self._number(argument) for argument in head.arguments[3:]
        )
        (self._front.set_current if galvanostatic else self._front.set_potential)(bias)
        ratio = (last_hz / first_hz) ** (1.0 / max(count - 1.0, 1.0))
        for k in range(int(count)):
            hertz = first_hz * ratio**k
            times = self._front.begin_sine(amplitude, hertz)
            self.range_changes += times - 1
            point_s = max(SHORTEST_POINT_S, PERIODS / hertz)
            yield self._time_s + times * point_s, self._impedance_point(head, amplitude, hertz)

    def _impedance_point(self, head: Command, amplitude: float, hertz: float) -> Callable[[], None]:
        def take() -> None:
            ohm, reading = self._front.measure_sine(amplitude, hertz)
            self._store(head.arguments[0], Reading(hertz), "dc")
            self._store(head.arguments[1], replace(reading, value=ohm.real), "cc")
            self._store(head.arguments[2], replace(reading, value=ohm.imag), "cd")

        return take

    def _need_cell(self, *, galvanostatic: bool) -> None:
        if (self._front.mode == GALVANOSTAT) is not galvanostatic:
            raise FrontError(MODE_MISMATCH)
        if not self._front.cell_on:
            raise FrontError(CELL_MUST_BE_ON)

    async def _command(self, command: Command) -> None:
        arguments = command.arguments
        if command.name == "wait":
            await self._until(self._time_s + self._number(arguments[0]))
        elif command.name == "await_int":
            self._interval_from_s += self._interval_s
            await self._until(max(self._interval_from_s, self._time_s))
        elif command.name == "meas":
            await self._until(self._time_s + self._number(arguments[0]))
            self._measure(arguments[1], str(arguments[2]))
        elif (setting := self._front.command(command.name)) is not None:
            setting(*(self._number(a) if isinstance(a, (Number, Variable)) else a for a in arguments))
        elif command.name in self._commands:
            self._commands[command.name](*arguments)

    def _table(self) -> dict[str, Callable[..., None]]:
        return {
            "store_var": self._store_var,
            "copy_var": lambda a, b: self._set(b, replace(self._value(a))),
            "add_var": lambda a, b: self._calculate(a, b, operator.add),
            "sub_var": lambda a, b: self._calculate(a, b, operator.sub),
            "mul_var": lambda a, b: self._calculate(a, b, operator.mul),
            "div_var": lambda a, b: self._calculate(a, b, operator.truediv),
            "mod_var": lambda a, b: self._calculate(a, b, math.fmod),
            "pow_var": lambda a, b: self._calculate(a, b, operator.pow),
            "alter_vartype": lambda a, kind: self._set(a, replace(self._value(a), kind=kind)),
            "int_to_float": lambda a: self._set(a, replace(self._value(a), integer=False)),
            "float_to_int": self._to_integer,
            "set_int": self._set_interval,
            "set_script_output": lambda a: setattr(self, "_output", self._number(a) != 0.0),
            "cell_on": lambda: self._front.switch(on=True),
            "cell_off": lambda: self._front.switch(on=False),
            "timer_start": lambda: setattr(self, "_timer_s", self._time_s),
            "timer_get": lambda a: self._set(a, Value(self._time_s - self._timer_s, "eb")),
            "pck_start": lambda: setattr(self, "_package", []),
            "pck_add": self._pck_add,
            "pck_end": self._pck_end,
            "send_string": self._send_string,
            "abort": lambda: _throw(Aborted()),
            "breakloop": lambda: _throw(_LeaveLoop()),
        }

    def _measure(self, variable: Argument, kind: str) -> None:
        readings = {"ab": self._front.measure_v, "ba": self._front.measure_a}
        if kind not in readings:
            raise FrontError(UNSUPPORTED)
        self._store(variable, readings[kind](), kind)

    def _store_var(self, variable: Argument, number: Operand, kind: str) -> None:
        source = self._value(number)
        self._set(variable, Value(source.number, kind, source.integer))

    def _to_integer(self, variable: Argument) -> None:
        value = self._value(variable)
        self._set(variable, replace(value, number=float(int(value.number)), integer=True))

    def _set_interval(self, number: Argument) -> None:
        self._interval_s = self._number(number)
        self._interval_from_s = self._time_s

    def _calculate(self, a: Argument, b: Argument, function: Callable[[float, float], float]) -> None:
        left, right = self._value(a), self._value(b)
        self._set(a, replace(left, number=function(left.number, right.number)))

    def _holds(self, condition: Condition) -> bool:
        return _COMPARE[condition.operator](self._number(condition.left), self._number(condition.right))

    def _pck_add(self, variable: Argument) -> None:
        if self._package is None:
            raise FrontError(PACKAGE_ORDER)
        self._package.append(encode(self._value(variable)))

    def _pck_end(self) -> None:
        if self._package is None:
            raise FrontError(PACKAGE_ORDER)
        if self._output:
            self._emit("P" + ";".join(self._package))
        self._package = None

    def _send_string(self, text: str) -> None:
        body = text[text.index('"') + 1 : -1]
        if text.startswith("f"):
            body = re.sub(r"\{([^}]*)\}", lambda found: self._shown(found.group(1).strip()), body)
        if self._output:
            self._emit("T" + body)

    def _shown(self, name: str) -> str:
        found = re.fullmatch(r"(\w+)(?:\[(?:(\d+)i|(\w+))\])?", name)
        if found is None or found[1] not in {**self._variables, **self._arrays}:
            raise FrontError(UNDECLARED)
        index = Number(float(found[2]), True) if found[2] else Variable(found[3]) if found[3] else None
        return f"{self._number(Variable(found[1], index)):g}"

    def _store(self, variable: Argument, reading: Reading, kind: str) -> None:
        self._set(variable, Value(reading.value, kind, False, reading.status, reading.range_index))

    def _set(self, target: Argument, value: Value) -> None:
        if not isinstance(target, Variable):
            raise FrontError(BAD_INDEX)
        if target.index is None:
            self._variables[target.name] = value
        else:
            self._arrays[target.name][self._index(target)] = value

    def _value(self, argument: Any) -> Value:
        if isinstance(argument, Number):
            return Value(argument.value, "aa", argument.integer)
        if not isinstance(argument, Variable):
            raise FrontError(BAD_INDEX)
        if argument.index is not None:
            return self._arrays[argument.name][self._index(argument)]
        return self._variables[argument.name]

    def _index(self, variable: Variable) -> int:
        index = int(self._number(variable.index))
        if not 0 <= index < len(self._arrays[variable.name]):
            raise FrontError(BAD_INDEX)
        return index

    def _number(self, argument: Any) -> float:
        return self._value(argument).number


def _throw(error: Exception) -> None:
    raise error
