"""SCPI of the Keithley 2400 and 2450 as far as a battery needs it: numbers, status words, errors. No I/O.

Sources: 2400S-900-01 (user's manual), 2450-901-01 (reference manual).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from drivers.errors import BadReply

OVERFLOW, NOT_A_NUMBER = 9.9e37, 9.91e37  # what the instruments send instead of a number, either sign
NO_NUMBER_ABOVE = 9e37
LONGEST_QUEUE = 32  # more errors than either instrument keeps

STATUS_2400: Mapping[int, str] = {  # bits of the STAT element that are not normal here
    0: "overflow",
    4: "overvoltage protection active",
    16: "range compliance: the measure range clamps the source",
}
LIMITED_2400, REMOTE_SENSE_2400 = 1 << 3, 1 << 22

SOURCE_2450: Mapping[int, str] = {  # bits of the SOURSTAT element that are not normal here
    2: "overvoltage protection active",
    4: "over temperature",
}
LIMITED_2450, REMOTE_SENSE_2450, OUTPUT_ON_2450 = 1 << 5, 1 << 6, 1 << 7


@dataclass(frozen=True)
class Reading:
    """One measurement; None where the instrument sent no number."""

    voltage_v: float | None
    current_a: float | None
    time_s: float  # the instrument's own
    limited: bool  # the source is at its limit: constant current, for a source of voltage
    remote_sense: bool
    output_on: bool = True
    problems: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether it may be used."""
        return self.voltage_v is not None and self.current_a is not None and not self.problems


def line_of(buffer: bytes) -> str | None:
    """Return the one line that a reply is, without its end; None if its LF has not come yet.

    Raises:
        BadReply: bytes that are no text, or something behind the line.
    """
    head, end, rest = buffer.lstrip(b"\r\n").partition(b"\n")
    if not end:
        return None
    if rest.strip(b"\r\n"):
        raise BadReply("more than one line", reply=buffer)
    try:
        return head.strip(b"\r").decode("ascii").strip()
    except UnicodeDecodeError:
        raise BadReply("not text", reply=buffer) from None


def number(text: str) -> float | None:
    """Return a number; None for what stands for overflow or for none. Raises BadReply if it is neither."""
    try:
        value = float(text)
    except ValueError:
        raise BadReply("not a number", reply=text) from None
    if not math.isfinite(value) or abs(value) > NO_NUMBER_ABOVE:
        return None
    return value


def finite(text: str) -> float:
    """Return a number that must be one. Raises BadReply."""
    value = number(text)
    if value is None:
        raise BadReply("no number where there must be one", reply=text)
    return value


def whole(text: str) -> int:
    """Return a whole number, which the instruments may send as a float. Raises BadReply."""
    value = finite(text)
    if value != int(value) or value < 0:
        raise BadReply("not a whole number", reply=text)
    return int(value)


def argument(value: float) -> str:
    """Return a number as the instruments take it, seven digits: they resolve six and a half."""
    return f"{value:.7G}"


def error_of(text: str) -> tuple[int, str]:
    """Return code and words of an answer to ``:SYST:ERR?``; 0 for none. Raises BadReply."""
    code, comma, words = text.partition(",")
    if not comma or not words.startswith('"'):
        raise BadReply("not an entry of the error queue", reply=text)
    try:
        return int(code), words.strip('"').partition(";")[0]  # the 2450 adds severity and time behind ;
    except ValueError:
        raise BadReply("not an entry of the error queue", reply=text) from None


def reading_2400(text: str) -> Reading:
    """Return a reading of the elements VOLT,CURR,TIME,STAT. Raises BadReply."""
    volt, ampere, time, status = _elements(text, 4)
    bits = whole(status)
    problems = [words for bit, words in STATUS_2400.items() if bits >> bit & 1]
    return Reading(
        voltage_v=number(volt),
        current_a=number(ampere),
        time_s=finite(time),
        limited=bool(bits & LIMITED_2400),
        remote_sense=bool(bits & REMOTE_SENSE_2400),
        problems=tuple(problems),
    )


def readings_2450(text: str, *, sources: str) -> list[Reading]:
    """Return readings of the elements READ,SOUR,SOURSTAT,REL, of which ``sources`` is VOLT or CURR.

    Raises:
        BadReply: not four elements for each reading.
    """
    parts = text.split(",")
    if len(parts) % 4:
        raise BadReply("not four elements for each reading", reply=text)
    return [_reading_2450(parts[i : i + 4], sources) for i in range(0, len(parts), 4)]


def _reading_2450(parts: list[str], sources: str) -> Reading:
    measured, source, bits = number(parts[0]), number(parts[1]), whole(parts[2])
    problems = [words for bit, words in SOURCE_2450.items() if bits >> bit & 1]
    return Reading(
        voltage_v=source if sources == "VOLT" else measured,
        current_a=measured if sources == "VOLT" else source,
        time_s=finite(parts[3]),
        limited=bool(bits & LIMITED_2450),
        remote_sense=bool(bits & REMOTE_SENSE_2450),
        output_on=bool(bits & OUTPUT_ON_2450),
        problems=tuple(problems),
    )


def _elements(text: str, count: int) -> list[str]:
    parts = text.split(",")
    if len(parts) != count:
        raise BadReply(f"{len(parts)} elements instead of {count}", reply=text)
    return parts
