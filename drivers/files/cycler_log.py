"""Logs of battery cyclers: one record of what the file says, whatever program wrote it.

Signs are made explicit here: current is positive when it charges the cell. How the file had it is in
``signs``. ``read`` chooses the reader by what is in the file.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivers.files.bounded import file_size
from drivers.files.errors import FileError

Floats = NDArray[np.float64]
MAX_BYTES = 4 << 30
MAX_LINE = 1 << 16
MAX_FIELDS = 512
MAX_RECORDS = 20_000_000
MAX_HEAD_LINES = 40
REST, CHARGE, DISCHARGE = 0, 1, -1
MAX_SENSORS = 64


@dataclass(frozen=True)
class CyclerLog:
    """A cycling log, one entry per record. Arrays have shape (n,)."""

    path: Path
    program: str  # "Maccor", "Neware", "Battery Data Format"
    time_s: Floats  # since the start of the test, as recorded
    current_a: Floats  # charge positive
    voltage_v: Floats
    cycle: NDArray[np.int64]  # as recorded
    step: NDArray[np.int64]  # number in the cycler's program, as recorded
    state: NDArray[np.int8]  # REST, CHARGE, DISCHARGE as recorded; if not recorded, the sign of the current
    signs: str  # how the file had the sign of the current
    control: NDArray[np.int64]  # index into ``controls``
    controls: tuple[str, ...]  # as recorded, "CC", "CV", ...; "" = not told
    step_time_s: Floats | None = None  # since the start of the step
    counter_ah: Floats | None = None  # the cycler's own capacity, unsigned, from 0 in each step
    counter_wh: Floats | None = None
    clock_s: Floats | None = None  # local wall clock, seconds since 1970 as if UTC: no zone is told
    sensors: Mapping[str, Floats] = field(default_factory=dict)  # "Aux #1 / C": as recorded
    current_resolution_a: float = 0.0  # of the printed numbers
    voltage_resolution_v: float = 0.0
    time_resolution_s: float = 0.0
    counter_resolution_ah: float = 0.0
    title: str = ""
    notes: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """Number of records."""
        return int(self.time_s.size)


def read(path: Path) -> CyclerLog:
    """Read a log of any known program. Raises FileError."""
    from drivers.files import bdf_csv, maccor_text, neware_csv

    head = [line for _, line in zip(range(MAX_HEAD_LINES), lines(path), strict=False)]
    for reader in (maccor_text, neware_csv, bdf_csv):
        if reader.recognises(head):
            log: CyclerLog = reader.read(path)
            return log
    raise FileError(path, "", "a log of Maccor (text), Neware (CSV) or in Battery Data Format (CSV)")


def lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text log, decoded, without their ends. Raises FileError."""
    file_size(path, MAX_BYTES)
    number = 0
    try:
        with path.open("rb") as file:
            while raw := file.readline(MAX_LINE + 1):
                number += 1
                if len(raw) > MAX_LINE:
                    raise FileError(path, f"line {number}", f"at most {MAX_LINE} characters")
                if b"\0" in raw:
                    raise FileError(path, f"line {number}", "text", "a NUL byte (a binary or damaged file)")
                yield raw.decode("utf-8-sig" if number == 1 else "utf-8", "replace").rstrip("\r\n")
    except OSError as error:
        raise FileError(path, "", f"a readable file ({error.strerror})") from error


def fields_of(path: Path, number: int, line: str, separator: str) -> list[str]:
    """Split a line. Raises FileError with too many fields or an open quote."""
    if '"' in line:
        try:
            parts = next(csv.reader([line], delimiter=separator, strict=True))
        except (csv.Error, StopIteration) as error:
            raise FileError(path, f"line {number}", "fields with closed quotes", str(error)) from error
    else:
        parts = line.split(separator)
    if len(parts) > MAX_FIELDS:
        raise FileError(path, f"line {number}", f"at most {MAX_FIELDS} fields", len(parts))
    return [part.strip() for part in parts]


def number_of(path: Path, line: int, what: str, token: str) -> float:
    """Return a finite number of a field."""
    try:
        value = float(token)
    except ValueError:
        raise FileError(path, f"line {line}", f"{what}, a number", token=token) from None
    if not math.isfinite(value) or "_" in token:
        raise FileError(path, f"line {line}", f"{what}, a finite number", token=token)
    return value


def index_of(path: Path, line: int, what: str, token: str) -> int:
    """Return a whole number of a field, from 0 to 10^9."""
    value = number_of(path, line, what, token)
    if value != int(value) or not 0 <= value <= 1e9:
        raise FileError(path, f"line {line}", f"{what}, a whole number", token=token)
    return int(value)


_TIME = re.compile(r"(?:(\d{1,6})d\s+)?(\d{1,7}):(\d{1,2}):(\d{1,2}(?:\.\d{1,20})?)")


def seconds_of(path: Path, line: int, what: str, token: str) -> float:
    """Return seconds from "12:34:56.7" or "1d 02:03:04.5"."""
    matched = _TIME.fullmatch(token)
    if matched is None:
        return number_of(path, line, what, token)
    days, hours, minutes, seconds = matched.groups()
    return 86400.0 * int(days or 0) + 3600.0 * int(hours) + 60.0 * int(minutes) + float(seconds)


def clock_of(token: str, forms: tuple[str, ...]) -> float:
    """Return a wall clock as seconds since 1970 (as if UTC), NaN if it is in none of the forms."""
    for form in forms:
        try:
            return (datetime.strptime(token, form) - datetime(1970, 1, 1)).total_seconds()
        except ValueError:
            continue
    return math.nan


def decimals(token: str) -> int:
    """Return how many decimals a number is printed with (an exponent counts)."""
    mantissa, _, exponent = token.lower().partition("e")
    shift = int(exponent) if re.fullmatch(r"[+-]?\d{1,3}", exponent) else 0
    return len(mantissa.partition(".")[2]) - shift


@dataclass
class Resolution:
    """The finest printed decimal of a column."""

    places: int = -99

    def see(self, token: str) -> None:
        """Look at one field."""
        self.places = max(self.places, decimals(token))

    @property
    def value(self) -> float:
        """One unit of the last place, 0 if nothing was seen."""
        return 10.0**-self.places if -99 < self.places < 18 else 0.0
