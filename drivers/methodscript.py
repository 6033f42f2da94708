"""MethodSCRIPT on the wire: numbers, data packages, error codes. No I/O.

A value is 7 hexadecimal digits (offset 2^27) and one prefix character; metadata fields follow after commas.
Sources: PalmSens "MethodSCRIPT v1.8" and "EmStat4 communication protocol v1.3"; worked lines in the tests.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

from drivers.errors import BadReply

OFFSET = 1 << 27
LARGEST_COUNT = OFFSET - 1  # literals are kept to the same size as values on the wire
LONGEST_LINE = 255

PREFIX_EXPONENTS: Mapping[str, int] = {
    "a": -18, "f": -15, "p": -12, "n": -9, "u": -6, "m": -3,
    " ": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18,
}  # fmt: skip

# variable types we use
POTENTIAL, CURRENT, TIME, GENERIC = "ab", "ba", "eb", "ja"
FREQUENCY, Z_REAL, Z_IMAGINARY = "dc", "cc", "cd"

TIMING, OVERLOAD, UNDERLOAD, OVERLOAD_WARNING = 1, 2, 4, 8
STATUS_WORDS: Mapping[int, str] = {
    TIMING: "timing not met",
    OVERLOAD: "overload",
    UNDERLOAD: "underload",
    OVERLOAD_WARNING: "close to overload",
}
INVALID_STATUS = TIMING | OVERLOAD

ERROR_WORDS: Mapping[int, str] = {
    0x0003: "unknown command",
    0x0006: "not possible in this state",
    0x0007: "bad argument",
    0x0008: "too long",
    0x0009: "timeout inside the instrument",
    0x000C: "no script is loaded",
    0x000F: "potential out of range",
    0x0010: "not a number",
    0x0011: "frequency out of range",
    0x0012: "amplitude out of range",
    0x0014: "open-circuit measurement with the cell on",
    0x001B: "not supported by this instrument",
    0x001F: "this technique is not licensed on this instrument",
    0x0021: "bad potentiostat mode",
    0x0023: "not possible in this potentiostat mode",
    0x0028: "division by zero",
    0x0032: "critical overload, measurement aborted",
    0x0058: "timing not met",
    0x005A: "timing not met",
    0x0080: "counter electrode oscillates",
    0x4001: "unknown script command",
    0x4004: "unexpected character",
    0x4005: "literal too big",
    0x4008: "bad option",
    0x400B: "measurement loop inside a measurement loop",
    0x400C: "not allowed here",
    0x4018: "unexpected end",
    0x401B: "package commands out of order",
    0x4026: "variable declared twice",
    0x4027: "the cell must be on",
    0x4028: "the cell must be off",
    0x4029: "at least one step is needed",
    0x4032: "bad literal, or the potential set inside a measurement loop",  # the documents differ
    0x4039: "bad literal",
    0x4200: "an argument is negative",
    0x4205: "an argument is out of bounds",
    0x4206: "an argument that this instrument cannot take",
    0x420B: "variable not declared",
    0x7FFF: "fatal error",
}


_VARIABLE = re.compile(r"([a-z]{2})(?:([0-9A-F]{7})([afpnum kMGTPEi])|     nan)((?:,[0-9A-F]+)*)")
_ERROR = re.compile(r"(?P<command>[ -~]?)!(?P<code>[0-9A-Fa-f]{4})(?:: *(?P<where>Line \d+(?:, Col \d+)?))?")


@dataclass(frozen=True)
class Value:
    """One variable of a package."""

    kind: str
    value: float
    status: int = 0
    range_index: int | None = None

    @property
    def valid(self) -> bool:
        """A number that was measured in time and without overload."""
        return math.isfinite(self.value) and not self.status & INVALID_STATUS

    @property
    def problems(self) -> tuple[str, ...]:
        """What the status says, in words; NaN included."""
        words = [text for bit, text in STATUS_WORDS.items() if self.status & bit]
        return (*words, "not a number") if math.isnan(self.value) else tuple(words)


@dataclass(frozen=True)
class ScriptError:
    """An error line: of a command (``e!...``), of the parser (with line and column), of a run (``!...``)."""

    command: str
    code: int
    where: str = ""

    @property
    def words(self) -> str:
        """The error as a sentence."""
        text = ERROR_WORDS.get(self.code, "error without a name here")
        place = f" at {self.where.lower()}" if self.where else ""
        return f"{text} ({self.code:04X}){place}"


def encode_value(kind: str, value: float) -> str:
    """Return a variable as instruments write it: the finest prefix whose count fits; NaN has its own form.

    Raises:
        ValueError: infinite, or too large for the largest prefix.
    """
    if math.isnan(value):
        return f"{kind}     nan"
    if value == 0.0:
        return f"{kind}{OFFSET:07X} "
    for prefix, exponent in PREFIX_EXPONENTS.items():
        count = value * 10.0**-exponent
        if math.isfinite(count) and abs(round(count)) <= LARGEST_COUNT:
            return f"{kind}{round(count) + OFFSET:07X}{prefix}"
    raise ValueError(f"{value} does not fit into a MethodSCRIPT value")


def decode_value(text: str) -> Value:
    """Return the variable that ``text`` stands for, metadata included. Raises BadReply."""
    found = _VARIABLE.fullmatch(text)
    if found is None:
        raise BadReply("not a MethodSCRIPT variable", reply=text)
    kind, digits, prefix, tail = found.groups()
    if digits is None:
        value = math.nan
    else:
        count = int(digits, 16) - OFFSET
        # the decimal text is rounded once, where a product with 1e-6 would be rounded twice
        value = float(f"{count}e{PREFIX_EXPONENTS.get(prefix, 0)}")
    fields = {field[0]: field[1:] for field in tail.split(",") if len(field) > 1}
    status = int(fields["1"], 16) if "1" in fields else 0
    range_index = int(fields["2"], 16) if "2" in fields else None
    return Value(kind, value, status, range_index)


def decode_package(line: str) -> list[Value]:
    """Return the variables of a package line. Raises BadReply."""
    if not line.startswith("P"):
        raise BadReply("not a data package", reply=line)
    return [decode_value(text) for text in line[1:].split(";")]


def decode_error(line: str) -> ScriptError | None:
    """Return what an error line says; None if it is none."""
    found = _ERROR.fullmatch(line)
    if found is None:
        return None
    return ScriptError(found["command"], int(found["code"], 16), found["where"] or "")


def literal(value: float) -> str:
    """Return a number as a script literal: an integer with a prefix, no decimal point.

    The largest prefix that is exact is taken, otherwise the finest one whose count fits in 28 bits.

    Raises:
        ValueError: not finite, or too large.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} cannot be written into a script")
    exact = Decimal(repr(float(value)))
    for number in (exact, _rounded(exact)):
        if number == 0:
            return "0"
        for prefix, exponent in reversed(list(PREFIX_EXPONENTS.items())):
            count = number.scaleb(-exponent)
            if abs(count) <= LARGEST_COUNT and count == count.to_integral_value():
                return f"{int(count)}{prefix.strip()}"
    raise ValueError(f"{value} is too large for a script literal")


def _rounded(number: Decimal) -> Decimal:
    """Return the number in counts of the finest prefix that fits."""
    for exponent in PREFIX_EXPONENTS.values():
        count = number.scaleb(-exponent).to_integral_value(ROUND_HALF_EVEN)
        if abs(count) <= LARGEST_COUNT:
            return count.scaleb(exponent)
    return number
