"""Impedance sweeps: Gamry ``.DTA``, ZPlot ``.z``, and CSV of frequency, Re Z, Im Z (also this project's own).

The sign of Im Z is kept as in the file, negative for a capacitance. Points are handed over as measured; a
file that holds several sweeps (frequency starts again) gives several.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivers.files.bounded import line_number, parse_float, read_lines
from drivers.files.errors import FileError

MAX_POINTS = 100_000
MAX_SWEEPS = 10_000
MIN_HZ, MAX_HZ = 1e-9, 1e12
MAX_OHM = 1e18
HEADER_ROWS = 40


@dataclass(frozen=True)
class RecordedSweep:
    """One sweep, sorted from high to low frequency.

    Attributes:
        frequency_hz: shape (n,).
        z_ohm: complex, shape (n,).
        number: of the sweep in its file, from 1.
        time_s: when it began, where the file tells.
    """

    path: Path
    frequency_hz: NDArray[np.float64]
    z_ohm: NDArray[np.complex128]
    number: int = 1
    time_s: float | None = None
    notes: tuple[str, ...] = ()


def read(path: Path) -> list[RecordedSweep]:
    """Read the sweeps of a file, by its first bytes. Raises FileError."""
    lines = read_lines(path)
    first = next((line for line in lines if line.strip()), "")
    if first.strip().upper() == "EXPLAIN":
        return [_sweep(path, _gamry(path, lines), 1, ())]
    if first.strip().upper().startswith("ZPLOT2"):
        return [_sweep(path, _zplot(path, lines), 1, ())]
    return _csv(path, lines)


def _gamry(path: Path, lines: Sequence[str]) -> list[tuple[float, float, float]]:
    """Read the table ZCURVE: a row of names, a row of units, rows that begin with a tab."""
    begin = next((i for i, line in enumerate(lines) if line.split("\t")[0].strip().upper() == "ZCURVE"), None)
    if begin is None or begin + 2 >= len(lines):
        raise FileError(
            path, "", "a table ZCURVE", "none (a Gamry file without an impedance sweep, or cut off)"
        )
    names = lines[begin + 1].split("\t")
    try:
        at = [names.index(name) for name in ("Freq", "Zreal", "Zimag")]
    except ValueError:
        raise FileError(
            path, line_number(begin + 1), "columns Freq, Zreal, Zimag", token=lines[begin + 1]
        ) from None
    rows = []
    for number in range(begin + 3, len(lines)):
        if not lines[number].startswith("\t"):
            break
        rows.append(_row(path, number, lines[number].split("\t"), at))
    return rows


def _zplot(path: Path, lines: Sequence[str]) -> list[tuple[float, float, float]]:
    """Read what follows "End Comments": frequency, amplitude, bias, time, Z', Z'', ..."""
    begin = next((i for i, line in enumerate(lines) if line.strip() == "End Comments"), None)
    if begin is None:
        raise FileError(path, "", 'a line "End Comments"', "none (a ZPlot file that is cut off)")
    rows = range(begin + 1, len(lines))
    return [_row(path, k, lines[k].split(), [0, 4, 5]) for k in rows if lines[k].strip()]


def _csv(path: Path, lines: Sequence[str]) -> list[RecordedSweep]:
    """Read a CSV with or without a header; columns by their names, else the first three."""
    delimiter = max(",;\t", key=lambda d: sum(line.count(d) for line in lines[:HEADER_ROWS]))
    cells = [[cell.strip() for cell in line.split(delimiter)] for line in lines]
    begin = next((i for i, row in enumerate(cells[:HEADER_ROWS]) if _numbers(row)), None)
    if begin is None:
        raise FileError(path, "", f"rows of numbers within the first {HEADER_ROWS} lines", "none")
    names = [name.lower() for name in cells[begin - 1]] if begin else []
    at = [_column(names, words) for words in (("freq",), ("real", "re("), ("imag", "im("))]
    if not names:
        at = [0, 1, 2]
    columns = [k for k in at if k is not None]
    if len(columns) != 3:
        raise FileError(
            path, line_number(begin - 1), "columns frequency, real and imaginary", ", ".join(names)
        )
    clock = _column(names, ("test time",))
    rows = [(k, _row(path, k, cells[k], columns)) for k in range(begin, len(cells)) if any(cells[k])]
    return _split(path, rows, [None if clock is None else _time(path, k, cells[k], clock) for k, _ in rows])


def _split(
    path: Path, rows: list[tuple[int, tuple[float, float, float]]], times: list[float | None]
) -> list[RecordedSweep]:
    """Cut where the frequency turns back by more than a factor of two."""
    points = [point for _, point in rows]
    falling = len(points) < 2 or points[1][0] <= points[0][0]
    groups: list[list[int]] = [[]]
    for k, point in enumerate(points):
        if groups[-1]:
            step = point[0] / points[groups[-1][-1]][0]
            if (step > 2 and falling) or (step < 0.5 and not falling):
                groups.append([])
        groups[-1].append(k)
    if len(groups) > MAX_SWEEPS:
        raise FileError(path, "", f"at most {MAX_SWEEPS} sweeps", f"{len(groups)}")
    return [_sweep(path, [points[k] for k in g], n, (), times[g[0]]) for n, g in enumerate(groups, 1)]


def _sweep(
    path: Path, rows: list[tuple[float, float, float]], number: int, notes: tuple[str, ...],
    time_s: float | None = None,
) -> RecordedSweep:  # fmt: skip
    if not 3 <= len(rows) <= MAX_POINTS:
        raise FileError(path, f"sweep {number}", f"3 to {MAX_POINTS} points", f"{len(rows)}")
    table = np.array(rows)
    order = np.argsort(-table[:, 0], kind="stable")
    z = table[order, 1] + 1j * table[order, 2]
    return RecordedSweep(path, table[order, 0], z, number, time_s, notes)


def _row(path: Path, number: int, cells: Sequence[str], at: Sequence[int]) -> tuple[float, float, float]:
    place = line_number(number)
    if len(cells) <= max(at):
        raise FileError(path, place, f"{max(at) + 1} columns", f"{len(cells)}")
    frequency, real, imaginary = (parse_float(path, place, cells[k].strip(), "a point") for k in at)
    if not MIN_HZ <= frequency <= MAX_HZ:
        raise FileError(path, place, f"a frequency from {MIN_HZ:g} to {MAX_HZ:g} Hz", token=cells[at[0]])
    if not 0 < math.hypot(real, imaginary) < MAX_OHM:
        raise FileError(
            path, place, f"an impedance above 0 and below {MAX_OHM:g} ohm", f"{real:g}, {imaginary:g}"
        )
    return frequency, real, imaginary


def _time(path: Path, number: int, cells: Sequence[str], at: int) -> float:
    return parse_float(path, line_number(number), cells[at] if at < len(cells) else "", "a time")


def _numbers(row: Sequence[str]) -> bool:
    def is_number(cell: str) -> bool:
        try:
            return math.isfinite(float(cell))
        except ValueError:
            return False

    return len(row) >= 3 and all(is_number(cell) for cell in row[:3])


def _column(names: Sequence[str], words: Sequence[str]) -> int | None:
    return next((k for k, name in enumerate(names) if any(word in name for word in words)), None)
