"""Building blocks of scripts: what every energised program has, the limits in each of its loops. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from enum import StrEnum

from drivers.errors import OutOfRange
from drivers.methodscript import CURRENT, GENERIC, POTENTIAL, TIME, literal
from drivers.methodscript_models import Capabilities
from drivers.roles import CellLimits

PHASE, END = "phase ", "end "  # what our scripts send as text
BANDWIDTH_HZ = 40.0
AUTORANGE_SPAN = 1e-3  # lowest over highest current range allowed while a voltage is held
LONGEST_RUN_S = 1e6
FASTEST_INTERVAL_S = 0.02
READING_S = 0.05  # averaging of the reading between two frequencies of a sweep


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
    SWING_HIGH = "limit voltage high: the sine at the next frequency could reach it"
    SWING_LOW = "limit voltage low: the sine at the next frequency could reach it"
    SWING_CURRENT = "limit current: the sine at the next frequency could reach it"
    INVALID = "invalid readings"


def prelude(limits: CellLimits) -> list[str]:
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


def if_inside(limits: CellLimits, margin_v: float, energised: list[str]) -> list[str]:
    """Measure with the cell off; go on only if that lies inside the limits (NaN does not)."""
    inside = [
        f"p < {literal(limits.voltage_high_v - margin_v)}",
        f"p > {literal(limits.voltage_low_v + margin_v)}",
    ]
    return [
        "meas 100m p ab",
        "store_var k 0i ja",
        *all_of(inside, ["store_var k 1i ja"]),
        "if k == 1i",
        *energised,
        "else",
        say(END, Ending.START),
        "endif",
        "cell_off",
    ]


def reading(*others: str, numbers: Sequence[str] = ()) -> list[str]:
    """Take over a reading: is it a number, add up the charge with the time that really passed, send it.

    Args:
        others: variables that are sent with it.
        numbers: of these, those that have to be numbers, too.
    """
    ampere = ["c <= 1", "c >= -1"]
    rest = ["p <= 10", "p >= -10", *(f"{name} {sign}" for name in numbers for sign in ("<= 1T", ">= -1T"))]
    return [
        "timer_get t",
        "store_var k 0i ja",
        *all_of(ampere, ["copy_var c g", *all_of(rest, ["store_var k 1i ja"])]),
        *count("b", "k == 0i"),
        "copy_var t d",
        "sub_var d s",
        "copy_var t s",
        "mul_var d g",
        "add_var q d",
        *package("t", "p", "c", "q", *others),
    ]


def limit_branches(limits: CellLimits) -> list[list[str]]:
    """Return the branches that end a program at its own limits."""
    ampere, coulomb = literal(limits.current_a), literal(limits.charge_coulomb)
    return [
        branch(f"p >= {literal(limits.voltage_high_v)}", Ending.LIMIT_HIGH),
        branch(f"p <= {literal(limits.voltage_low_v)}", Ending.LIMIT_LOW),
        branch(f"c > {ampere}", Ending.LIMIT_CURRENT),
        branch(f"c < -{ampere}", Ending.LIMIT_CURRENT),
        branch(f"q >= {coulomb}", Ending.LIMIT_CHARGE),
        branch(f"q <= -{coulomb}", Ending.LIMIT_CHARGE),
        branch("b >= 2i", Ending.INVALID),
        branch(f"t >= {literal(limits.duration_s)}", Ending.TIME),
    ]


def branch(condition: str, ending: Ending | None, *, code: int = 2) -> list[str]:
    """Return a condition with what it does: remember that it ended, say why, leave the loop."""
    said = [] if ending is None else [say(END, ending)]
    return [condition, f"store_var w {code}i ja", *said, "breakloop"]


def choose(branches: Iterable[list[str]]) -> list[str]:
    """Return if, elseif, endif around branches: the first that holds is taken."""
    lines: list[str] = []
    for condition, *body in branches:
        lines += [f"{'elseif' if lines else 'if'} {condition}", *body]
    return [*lines, "endif"]


def all_of(conditions: list[str], body: list[str]) -> list[str]:
    """All conditions at once: the language knows one comparison at a time."""
    return [*(f"if {condition}" for condition in conditions), *body, *("endif" for _ in conditions)]


def count(variable: str, condition: str) -> list[str]:
    """Return lines that count a variable up while a condition holds, and back to zero when it does not."""
    return [f"if {condition}", f"add_var {variable} 1i", "else", f"store_var {variable} 0i ja", "endif"]


def time_ran_out() -> list[str]:
    """The loop ended by its own length, which is the time limit once more."""
    return ["if w == 0i", say(END, Ending.TIME), "endif"]


def package(*names: str) -> list[str]:
    """Return the lines that send variables."""
    return ["pck_start", *(f"pck_add {name}" for name in names), "pck_end"]


def say(what: str, text: str) -> str:
    """Return the line that sends a text."""
    return f'send_string "{what}{text}"'


def current_ranges(limits: CellLimits, model: Capabilities) -> list[str]:
    """Begin on the range of the limit, and let the instrument choose from there down to its smallest one."""
    lowest, highest = max(limits.current_a * AUTORANGE_SPAN, model.ranges_a[0]), literal(limits.current_a)
    return [
        f"set_range ba {highest}",
        f"set_autoranging ba {literal(min(lowest, limits.current_a))} {highest}",
    ]


def whole_volts(limits: CellLimits) -> str:
    """Return a potential range that holds the window."""
    return literal(math.ceil(max(abs(limits.voltage_low_v), abs(limits.voltage_high_v))))


def check_limits(limits: CellLimits, model: Capabilities) -> None:
    """Refuse limits that have no room, or lie outside the model. Raises OutOfRange."""
    if not limits.voltage_low_v < limits.voltage_high_v:
        raise OutOfRange(
            f"no room between the voltage limits {limits.voltage_low_v} V and {limits.voltage_high_v} V"
        )
    for volt in (limits.voltage_low_v, limits.voltage_high_v):
        check(volt, model.low_v, model.high_v, "V", f"voltage limit of {model.name}:")
    check(limits.current_a, model.least_a, model.most_a, "A", f"current limit of {model.name}:")
    check(limits.charge_coulomb, 1e-9, 1e5, "C", "charge limit")


def run_times(interval_s: float, duration_s: float) -> str:
    """Return interval and length of a loop as literals; a run shorter than an interval has one reading."""
    check(duration_s, FASTEST_INTERVAL_S, LONGEST_RUN_S, "s", "duration")
    check(interval_s, FASTEST_INTERVAL_S, LONGEST_RUN_S, "s", "interval")
    return f"{literal(min(interval_s, duration_s))} {literal(duration_s)}"


def check(value: float, low: float, high: float, unit: str, what: str) -> None:
    """Refuse a value that is not between two others. Raises OutOfRange."""
    if not low <= value <= high:
        raise OutOfRange(f"{what} {value} {unit} is not between {low} and {high} {unit}")
