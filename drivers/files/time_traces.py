"""Time traces of single-particle instruments in CSV: Agilent, Tofwerk, or plain with a column per line.

A trace is handed over in blocks of samples with their numbers on the dwell-time grid. A sample that the file
does not hold has no number in any block: what is missing stays missing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivers.files.bounded import file_size, line_number, parse_float
from drivers.files.errors import FileError

MAX_BYTES = 8 << 30
MAX_LINE_CHARACTERS = 4096
MAX_COLUMNS = 64
HEADER_ROWS = 40  # a table that has not begun by then is none
BLOCK_ROWS = 1 << 16
MAX_SAMPLE = 1e12  # counts in one dwell time
MAX_GAP = 1 << 40
NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*\Z")
UNITS_S = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


@dataclass(frozen=True)
class TraceBlock:
    """Samples ``first``, ``first`` + 1, ... of every line, shape (lines, n), without a gap."""

    first: int
    samples: NDArray[np.float64]


@dataclass(frozen=True)
class RecordedTrace:
    """A time trace. ``blocks()`` reads the file once more, in pieces of bounded size.

    Attributes:
        lines: names of the columns, as in the file without their units.
        dwell_s: time per sample, None where the file does not tell.
        notes: what a person should know: rounded time stamps, how the numbering was found.
    """

    path: Path
    lines: tuple[str, ...]
    dwell_s: float | None
    blocks: Callable[[], Iterator[TraceBlock]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Table:
    """Where the numbers of a CSV stand."""

    path: Path
    delimiter: str
    header_rows: int
    index: int | None
    time: int | None
    time_unit_s: float
    columns: tuple[int, ...]
    names: tuple[str, ...]


def read(path: Path) -> RecordedTrace:
    """Read a CSV time trace. Raises FileError."""
    file_size(path, MAX_BYTES)
    table, dwell_s, resolution_s = _survey(path)
    notes = []
    if table.index is not None:
        notes.append("samples are numbered by the file's index column")
    elif table.time is not None:
        notes.append("samples are numbered by their time stamps")
        if dwell_s is not None and resolution_s > 0.5 * dwell_s:
            notes.append(
                f"time stamps are rounded to {resolution_s:g} s, dwell time {dwell_s:g} s: one lost sample "
                "cannot be told from rounding"
            )
    else:
        notes.append("no index and no time: samples are taken as following each other")
    return RecordedTrace(
        path, table.names, dwell_s, lambda: _blocks(table, dwell_s, resolution_s), tuple(notes)
    )


def _survey(path: Path) -> tuple[_Table, float | None, float]:
    """Read the head: names, delimiter, and the dwell time from the first rows."""
    with closing(_lines(path)) as lines:
        head = [text for _, text in islice(lines, HEADER_ROWS + 64)]
    delimiter = max(",;\t", key=lambda d: sum(line.count(d) for line in head))
    rows = [[cell.strip().strip('"') for cell in line.split(delimiter)] for line in head]
    begin = next((i for i, row in enumerate(rows) if _is_data(row) and i <= HEADER_ROWS), None)
    if begin is None:
        raise FileError(path, "", f"rows of numbers within the first {HEADER_ROWS} lines", "none")
    width = len(rows[begin])
    if width > MAX_COLUMNS:
        raise FileError(path, line_number(begin), f"at most {MAX_COLUMNS} columns", f"{width}")
    names = (
        rows[begin - 1]
        if begin and len(rows[begin - 1]) == width
        else [f"column {k + 1}" for k in range(width)]
    )
    index = next((k for k, n in enumerate(names) if n.lower() in ("index", "#", "sample", "no.")), None)
    time = next((k for k, n in enumerate(names) if n.lower().startswith("time")), None)
    columns = tuple(k for k in range(width) if k not in (index, time))
    clean = tuple(_name(names[k]) for k in columns)
    if not columns or len(set(clean)) != len(clean) or not all(clean):
        raise FileError(path, line_number(max(begin - 1, 0)), "columns of different lines", ", ".join(names))
    unit_s = UNITS_S.get(_unit(names[time]).lower(), 1.0) if time is not None else 1.0
    table = _Table(path, delimiter, begin, index, time, unit_s, columns, clean)
    stamps, resolution = [], 0.0
    if time is not None:
        data = [r for r in rows[begin:] if _is_data(r) and len(r) == width and NUMBER.match(r[time])]
        stamps = [float(row[time]) * unit_s for row in data]
        if not stamps or not all(map(math.isfinite, stamps)):
            raise FileError(path, line_number(begin), f"finite numbers in column {names[time]!r}", "none")
        resolution = max(10.0 ** -len(row[time].partition(".")[2]) for row in data) * unit_s
    steps = np.diff(stamps)
    dwell = None
    if np.any(steps > 0):  # stamps coarser than the dwell time repeat: then the average counts
        dwell = float(np.mean(steps) if np.any(steps == 0) else np.median(steps[steps > 0]))
    if dwell is not None and not (math.isfinite(dwell) and dwell > 0):
        raise FileError(path, line_number(begin), "rising time stamps", "none that rise")
    return table, dwell, resolution


def _blocks(table: _Table, dwell_s: float | None, resolution_s: float) -> Iterator[TraceBlock]:
    """Yield the samples; a jump of index or time starts a new block."""
    keep = [*table.columns]
    previous_number, previous_time = -1, math.nan
    rows: list[list[float]] = []
    first, found = 0, 0
    with closing(_lines(table.path)) as lines:
        for number, text in lines:
            if number < table.header_rows:
                continue
            cells = text.split(table.delimiter)
            if not any(cell.strip() for cell in cells) or _is_footer(cells, table):
                continue
            place = line_number(number)
            values = _values(table, place, cells)
            step = _step(table, place, values, previous_number, previous_time, dwell_s, resolution_s)
            sample = previous_number + step
            if rows and (step != 1 or len(rows) >= BLOCK_ROWS):
                yield TraceBlock(first, np.array(rows).T)
                rows = []
            if not rows:
                first = sample
            rows.append([values[k] for k in keep])
            found += 1
            previous_number = sample
            if table.time is not None:
                previous_time = values[table.time] * table.time_unit_s
    if rows:
        yield TraceBlock(first, np.array(rows).T)
    if not found:
        raise FileError(table.path, "", "samples", "none")


def _values(table: _Table, place: str, cells: list[str]) -> list[float]:
    width = max(*table.columns, table.index or 0, table.time or 0) + 1
    if len(cells) < width:
        raise FileError(table.path, place, f"{width} columns", f"{len(cells)}")
    values = []
    for k, cell in enumerate(cells[:width]):
        text = cell.strip().strip('"')
        missing = k in table.columns and (not text or text.lower() == "nan")
        values.append(math.nan if missing else parse_float(table.path, place, text, "a sample"))
        if k in table.columns and abs(values[-1]) > MAX_SAMPLE:
            raise FileError(table.path, place, f"a sample below {MAX_SAMPLE:g}", token=text)
    return values


def _step(
    table: _Table, place: str, values: list[float], number: int, time_s: float, dwell_s: float | None,
    resolution_s: float,
) -> int:  # fmt: skip
    """Return how many samples this row is ahead of the last one: 1 unless some are missing."""
    if table.index is not None:
        index = values[table.index]
        first = number < 0
        if index != math.floor(index) or (index <= number and not first) or not 0 <= index < MAX_GAP:
            raise FileError(table.path, place, "a rising whole index", token=f"{index:g}")
        return int(index) - number
    if table.time is None or dwell_s is None or number < 0:
        return 1
    ahead_s = values[table.time] * table.time_unit_s - time_s
    if not -resolution_s <= ahead_s < MAX_GAP * dwell_s:
        raise FileError(table.path, place, "a rising time stamp", token=f"{values[table.time]:g}")
    return max(1, round(ahead_s / dwell_s)) if ahead_s > 1.5 * dwell_s + resolution_s else 1


def _is_data(row: list[str]) -> bool:
    missing = ("", "nan")  # a lost sample of one line
    numbers = [bool(NUMBER.match(cell)) for cell in row]
    return any(numbers) and all(
        number or cell.strip().lower() in missing for number, cell in zip(numbers, row, strict=True)
    )


def _is_footer(cells: list[str], table: _Table) -> bool:
    """Return whether this is a remark behind the table, such as "Printed: ..."."""
    return len(cells) == 1 and max(*table.columns, 0) > 0 and not NUMBER.match(cells[0])


def _name(text: str) -> str:
    """Return a column's name without its unit: "[197Au]+ (cts)" is "[197Au]+"."""
    return re.sub(r"\s*[(].*[)]\s*\Z", "", text).strip()[:60]


def _unit(text: str) -> str:
    found = re.search(r"[(\[/_ ]\s*([^)\]/_ ]+?)\s*[)\]]?\s*\Z", text)
    return found.group(1) if found else ""


def _lines(path: Path) -> Generator[tuple[int, str], None, None]:
    """Yield (number, line) without ever holding more than one line of bounded length."""
    try:
        with path.open(encoding="latin-1", newline=None) as file:
            number = 0
            while text := file.readline(MAX_LINE_CHARACTERS + 1):
                if len(text) > MAX_LINE_CHARACTERS:
                    raise FileError(
                        path, line_number(number), f"at most {MAX_LINE_CHARACTERS} characters", "more"
                    )
                if "\0" in text:
                    raise FileError(
                        path, line_number(number), "text", "a NUL byte (a binary or damaged file)"
                    )
                yield number, text.rstrip("\r\n")
                number += 1
    except OSError as error:
        raise FileError(path, "", f"a readable file ({error.strerror})") from error
