"""Writes the MethodSCRIPT of a cell program. No I/O.

A potentiostat of this family has no watchdog: a script goes on when the cable is pulled. So every loop that
has the cell connected checks, at each reading, both voltage limits, the current in both directions, the
charge it has added up itself, and the time; two readings in a row that are no numbers end it as well. (In a
sweep each frequency is a measurement of its own, and the limits are checked between them.) The cell is
switched on only if a first reading at open circuit lies inside the limits. Whatever ends a program, it says
why, and ``on_finished`` opens the circuit; after a runtime error the instrument does not do that, so the
driver does.

A constant-current phase that ends for another reason than its voltage is never followed by constant voltage.
Leave room between a program's current and its limit: a reading above the limit ends the program at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum

from drivers.errors import OutOfRange
from drivers.methodscript import (
    CURRENT,
    FREQUENCY,
    GENERIC,
    LONGEST_LINE,
    POTENTIAL,
    TIME,
    Capabilities,
    literal,
)
from drivers.roles import CcCv, CellLimits, CellProgram, ConstantCurrent, ConstantVoltage, Eis, Ocv

PHASE, END = "phase ", "end "  # what our scripts send as text
BANDWIDTH_HZ = 40.0
AUTORANGE_SPAN = 1e-3  # lowest over highest current range allowed while a voltage is held
LONGEST_RUN_S = 1e6
FASTEST_INTERVAL_S = 0.02
EIS_AMPLITUDE_V = (1e-3, 0.25)
EIS_READING_S = 0.05


class Ending(StrEnum):
    """Why a script ended."""

    VOLTAGE = "voltage reached"
    CURRENT = "current reached"
    TIME = "time"
    DONE = "sweep done"
    START = "open-circuit voltage outside the limits"
    LIMIT_HIGH = "limit voltage high"
    LIMIT_LOW = "limit voltage low"
    LIMIT_CURRENT = "limit current"
    LIMIT_CHARGE = "limit charge"
    INVALID = "invalid readings"


def write_script(program: CellProgram, model: Capabilities) -> str:
    """Return the script of a program, lines joined by LF, without the leading ``e`` and the empty last line.

    Raises:
        OutOfRange: the model, the program's own limits or the language do not allow it.
    """
    if isinstance(program, Ocv):
        lines = _ocv(program, model)
    else:
        _check_limits(program.limits, model)
        if isinstance(program, ConstantVoltage):
            lines = _potentiostatic(program)
        elif isinstance(program, Eis):
            lines = _impedance(program, model)
        else:
            lines = _galvanostatic(program, model)
    lines += ["on_finished:", "cell_off"]
    too_long = [line for line in lines if len(line) > LONGEST_LINE]
    if too_long:
        raise OutOfRange(f"script line longer than {LONGEST_LINE} characters: {too_long[0]}")
    return "\n".join(lines)


def off_script(model: Capabilities) -> str:
    """Return a script that opens the circuit and proves it: the measurement in it refuses a closed one."""
    return write_script(Ocv(duration_s=0.1, interval_s=0.1), model)


def _ocv(program: Ocv, model: Capabilities) -> list[str]:
    return [
        "var p",
        "var t",
        "set_pgstat_chan 0",
        "set_pgstat_mode 2",
        f"set_max_bandwidth {literal(BANDWIDTH_HZ)}",
        f"set_range ab {literal(math.ceil(max(-model.low_v, model.high_v)))}",
        "cell_off",
        "timer_start",
        _say(PHASE, "ocv"),
        f"meas_loop_ocp p {_times(program.interval_s, program.duration_s)}",
        "timer_get t",
        *_package("t", "p"),
        f"if t >= {literal(program.duration_s)}",
        "breakloop",
        "endif",
        "endloop",
        _say(END, Ending.TIME),
    ]


def _galvanostatic(program: ConstantCurrent | CcCv, model: Capabilities) -> list[str]:
    limits, current_a = program.limits, program.current_a
    hold = isinstance(program, CcCv)
    until_v = program.voltage_v if isinstance(program, CcCv) else program.until_voltage_v
    if not model.galvanostat:
        raise OutOfRange(f"{model.name} has no galvanostat")
    _check(abs(current_a), model.least_a, limits.current_a, "A", "current")
    _check(until_v, limits.voltage_low_v, limits.voltage_high_v, "V", "voltage to be reached")
    compare = ">=" if current_a > 0.0 else "<="
    reached = _branch(f"p {compare} {literal(until_v)}", None if hold else Ending.VOLTAGE, code=1)
    energised = [
        "set_i 0",
        "cell_on",
        "timer_start",
        _say(PHASE, "cc"),
        f"meas_loop_cp p c {literal(current_a)} {_times(program.interval_s, limits.duration_s)}",
        *_reading(),
        *_choose([reached, *_limit_branches(limits)]),
        "endloop",
    ]
    if isinstance(program, CcCv):
        energised += ["if w == 1i", *_then_hold(program), "elseif w == 0i", _say(END, Ending.TIME), "endif"]
    else:
        energised += _time_ran_out()
    return [
        *_prelude(limits),
        "set_pgstat_mode 6",
        f"set_max_bandwidth {literal(BANDWIDTH_HZ)}",
        f"set_range ab {_whole_volts(limits)}",
        f"set_range db {literal(abs(current_a))}",
        *_if_inside(limits, 0.0, energised),
    ]


def _then_hold(program: CcCv) -> list[str]:
    hold = ConstantVoltage(program.voltage_v, program.until_current_a, program.limits, program.interval_s)
    compare = "<=" if program.current_a > 0.0 else ">="
    until_a = math.copysign(program.until_current_a, program.current_a)
    return [
        "store_var w 0i ja",
        *_potentiostat(hold),
        f"set_e {literal(hold.voltage_v)}",
        "cell_on",
        *_hold_loop(hold, [f"c {compare} {literal(until_a)}"]),
    ]


def _potentiostatic(program: ConstantVoltage) -> list[str]:
    until = literal(program.until_current_a)
    small = [f"c <= {until}", f"c >= {literal(-program.until_current_a)}"]
    return [
        *_prelude(program.limits),
        *_potentiostat(program),
        f"set_range ab {_whole_volts(program.limits)}",
        *_if_inside(
            program.limits,
            0.0,
            [
                f"set_e {literal(program.voltage_v)}",
                "cell_on",
                "timer_start",
                *_hold_loop(program, small),
            ],
        ),
    ]


def _potentiostat(program: ConstantVoltage) -> list[str]:
    """Low-speed mode with ranges up to the current limit; checks the program."""
    limits, volt = program.limits, literal(program.voltage_v)
    _check(program.until_current_a, 0.0, limits.current_a, "A", "current to fall to")
    if not limits.voltage_low_v < program.voltage_v < limits.voltage_high_v:
        raise OutOfRange(
            f"voltage to hold {program.voltage_v} V leaves no room between the limits "
            f"{limits.voltage_low_v} V and {limits.voltage_high_v} V"
        )
    return [
        "set_pgstat_mode 2",
        f"set_max_bandwidth {literal(BANDWIDTH_HZ)}",
        f"set_range_minmax da {volt} {volt}",
        *_current_ranges(limits),
    ]


def _hold_loop(program: ConstantVoltage, small: list[str]) -> list[str]:
    """The constant-voltage loop; it ends when all conditions of ``small`` held at two readings in a row."""
    limits = program.limits
    times = _times(program.interval_s, limits.duration_s)
    return [
        "store_var n 0i ja",
        _say(PHASE, "cv"),
        f"meas_loop_ca p c {literal(program.voltage_v)} {times}",
        *_reading(),
        "store_var k 0i ja",
        *_all(small, ["store_var k 1i ja"]),
        *_count("n", "k == 1i"),
        *_choose([*_limit_branches(limits), _branch("n >= 2i", Ending.CURRENT)]),
        "endloop",
        *_time_ran_out(),
    ]


def _impedance(program: Eis, model: Capabilities) -> list[str]:
    """One frequency after the other, each its own measurement loop, the limits checked between them."""
    limits = program.limits
    ratio = _check_sweep(program, model)
    amplitude = literal(program.amplitude_v)
    energised = [
        "set_range_minmax da e e",
        "set_e e",
        "cell_on",
        "timer_start",
        _say(PHASE, "eis"),
        f"loop m < {program.points}i",
        f"meas_loop_eis x r j {amplitude} f f 1i e",
        "endloop",
        f"meas {literal(EIS_READING_S)} p ab",
        f"meas {literal(EIS_READING_S)} c ba",
        *_reading("x", "r", "j"),
        *_choose(_limit_branches(limits)),
        f"mul_var f {literal(ratio)}",
        "add_var m 1i",
        "endloop",
        "if w == 0i",
        _say(END, Ending.DONE),
        "endif",
    ]
    return [
        *(f"var {name}" for name in "xrjfem"),
        f"store_var f {literal(program.start_hz)} {FREQUENCY}",
        "store_var m 0i ja",
        *_prelude(limits),
        "set_pgstat_mode 3",
        f"set_max_bandwidth {literal(max(program.start_hz, program.stop_hz))}",
        *_current_ranges(limits),
        f"set_range ab {_whole_volts(limits)}",
        *_if_inside(limits, 1.5 * program.amplitude_v, ["copy_var p e", *energised]),
    ]


def _prelude(limits: CellLimits) -> list[str]:
    """Declare the variables of every energised program.

    p volt, c ampere, t time, s time of the last reading, d charge since then, q charge, g last current that
    was a number, b readings in a row that were none, n readings in a row at the target, k yes or no, w how
    it ended: 0 not yet, 1 at the target of the first phase, 2 by anything else.
    """
    return [
        *(f"var {name}" for name in "pctsdqgbnkw"),
        f"store_var q 0 {GENERIC}",
        f"store_var s 0 {TIME}",
        f"store_var g 0 {CURRENT}",
        f"store_var p 0 {POTENTIAL}",
        "store_var b 0i ja",
        "store_var n 0i ja",
        "store_var w 0i ja",
        "set_pgstat_chan 0",
    ]


def _if_inside(limits: CellLimits, margin_v: float, energised: list[str]) -> list[str]:
    """Measure with the cell off; go on only if that lies inside the limits (NaN does not)."""
    inside = [
        f"p < {literal(limits.voltage_high_v - margin_v)}",
        f"p > {literal(limits.voltage_low_v + margin_v)}",
    ]
    return [
        "meas 100m p ab",
        "store_var k 0i ja",
        *_all(inside, ["store_var k 1i ja"]),
        "if k == 1i",
        *energised,
        "else",
        _say(END, Ending.START),
        "endif",
        "cell_off",
    ]


def _reading(*others: str) -> list[str]:
    """Take over a reading: is it a number, add up the charge with the time that really passed, send it."""
    numbers = ["c <= 1", "c >= -1"]
    return [
        "timer_get t",
        "store_var k 0i ja",
        *_all(numbers, ["copy_var c g", *_all(["p <= 10", "p >= -10"], ["store_var k 1i ja"])]),
        *_count("b", "k == 0i"),
        "copy_var t d",
        "sub_var d s",
        "copy_var t s",
        "mul_var d g",
        "add_var q d",
        *_package("t", "p", "c", "q", *others),
    ]


def _limit_branches(limits: CellLimits) -> list[list[str]]:
    ampere, coulomb = literal(limits.current_a), literal(limits.charge_coulomb)
    return [
        _branch(f"p >= {literal(limits.voltage_high_v)}", Ending.LIMIT_HIGH),
        _branch(f"p <= {literal(limits.voltage_low_v)}", Ending.LIMIT_LOW),
        _branch(f"c > {ampere}", Ending.LIMIT_CURRENT),
        _branch(f"c < -{ampere}", Ending.LIMIT_CURRENT),
        _branch(f"q >= {coulomb}", Ending.LIMIT_CHARGE),
        _branch(f"q <= -{coulomb}", Ending.LIMIT_CHARGE),
        _branch("b >= 2i", Ending.INVALID),
        _branch(f"t >= {literal(limits.duration_s)}", Ending.TIME),
    ]


def _branch(condition: str, ending: Ending | None, *, code: int = 2) -> list[str]:
    said = [] if ending is None else [_say(END, ending)]
    return [condition, f"store_var w {code}i ja", *said, "breakloop"]


def _choose(branches: Iterable[list[str]]) -> list[str]:
    lines: list[str] = []
    for condition, *body in branches:
        lines += [f"{'elseif' if lines else 'if'} {condition}", *body]
    return [*lines, "endif"]


def _all(conditions: list[str], body: list[str]) -> list[str]:
    """All conditions at once: the language knows one comparison at a time."""
    return [*(f"if {condition}" for condition in conditions), *body, *("endif" for _ in conditions)]


def _count(variable: str, condition: str) -> list[str]:
    return [f"if {condition}", f"add_var {variable} 1i", "else", f"store_var {variable} 0i ja", "endif"]


def _time_ran_out() -> list[str]:
    """The loop ended by its own length, which is the time limit once more."""
    return ["if w == 0i", _say(END, Ending.TIME), "endif"]


def _package(*names: str) -> list[str]:
    return ["pck_start", *(f"pck_add {name}" for name in names), "pck_end"]


def _say(what: str, text: str) -> str:
    return f'send_string "{what}{text}"'


def _current_ranges(limits: CellLimits) -> list[str]:
    highest = literal(limits.current_a)
    return [
        f"set_range ba {highest}",
        f"set_autoranging ba {literal(limits.current_a * AUTORANGE_SPAN)} {highest}",
    ]


def _whole_volts(limits: CellLimits) -> str:
    return literal(math.ceil(max(abs(limits.voltage_low_v), abs(limits.voltage_high_v))))


def _check_limits(limits: CellLimits, model: Capabilities) -> None:
    if not limits.voltage_low_v < limits.voltage_high_v:
        raise OutOfRange(
            f"no room between the voltage limits {limits.voltage_low_v} V and {limits.voltage_high_v} V"
        )
    for volt in (limits.voltage_low_v, limits.voltage_high_v):
        _check(volt, model.low_v, model.high_v, "V", f"voltage limit of {model.name}:")
    _check(limits.current_a, model.least_a, model.most_a, "A", f"current limit of {model.name}:")
    _check(limits.charge_coulomb, 1e-9, 1e5, "C", "charge limit")


def _times(interval_s: float, duration_s: float) -> str:
    """Return interval and length of a loop as literals; a run shorter than an interval has one reading."""
    _check(duration_s, FASTEST_INTERVAL_S, LONGEST_RUN_S, "s", "duration")
    _check(interval_s, FASTEST_INTERVAL_S, LONGEST_RUN_S, "s", "interval")
    return f"{literal(min(interval_s, duration_s))} {literal(duration_s)}"


def _check_sweep(program: Eis, model: Capabilities) -> float:
    """Return the ratio of one frequency to the one before."""
    _check(program.amplitude_v, *EIS_AMPLITUDE_V, "V", "amplitude")
    _check(program.points, 1, 1000, "", "number of frequencies")
    for hertz in (program.start_hz, program.stop_hz):
        _check(hertz, model.slowest_hz, model.fastest_hz, "Hz", "frequency")
    ratio = math.pow(program.stop_hz / program.start_hz, 1.0 / max(program.points - 1, 1))
    periods_s = (1.0 / (program.start_hz * ratio**k) for k in range(program.points))
    least_s = sum(periods_s) + 2 * EIS_READING_S * program.points
    _check(program.limits.duration_s, least_s, LONGEST_RUN_S, "s", "duration of the sweep")
    return ratio


def _check(value: float, low: float, high: float, unit: str, what: str) -> None:
    if not low <= value <= high:
        raise OutOfRange(f"{what} {value} {unit} is not between {low} and {high} {unit}")
