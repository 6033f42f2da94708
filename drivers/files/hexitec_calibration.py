"""Calibration of a HEXITEC: gain (keV per ADU) and offset (keV) per pixel.

Text as the control software has it (``m.txt``, ``c.txt``): a line per row, numbers separated by blanks, tabs
or commas. Or an ``.npz`` with arrays ``gain_keV_per_ADU`` and ``offset_keV``. Zero gain marks a pixel that is
not calibrated; it becomes NaN.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivers.files import npz_map, zip_safe
from drivers.files.bounded import line_number, parse_float, read_lines
from drivers.files.errors import FileError

Floats = NDArray[np.float64]
MAX_SIDE = 4096
MAX_BYTES = 256 << 20
GAIN, OFFSET = "gain_keV_per_ADU.npy", "offset_keV.npy"


def read_matrix(path: Path) -> Floats:
    """Return the numbers of a text file, shape (rows, columns). Raises FileError."""
    rows: list[list[float]] = []
    for index, line in enumerate(read_lines(path)):
        words = line.replace(",", " ").split()
        if not words:
            continue
        place = line_number(index)
        if len(words) > MAX_SIDE or len(rows) >= MAX_SIDE:
            raise FileError(path, place, f"at most {MAX_SIDE} rows and columns")
        if rows and len(words) != len(rows[0]):
            raise FileError(path, place, f"{len(rows[0])} numbers, as in the lines before", len(words))
        rows.append([parse_float(path, place, word, "a coefficient") for word in words])
    if not rows:
        raise FileError(path, "", "rows of numbers", "none")
    return np.array(rows)


def read_text(gain: Path, offset: Path) -> tuple[Floats, Floats]:
    """Return gain and offset from two text files. Raises FileError if they differ in shape."""
    m, c = read_matrix(gain), read_matrix(offset)
    if m.shape != c.shape:
        raise FileError(offset, "", f"{m.shape[0]} x {m.shape[1]} numbers, as in {gain.name}", c.shape)
    return _checked(gain, m, c)


def read_npz(path: Path) -> tuple[Floats, Floats]:
    """Return gain and offset from an archive. Raises FileError."""
    with zip_safe.opened(path, MAX_BYTES) as archive:
        if not {GAIN, OFFSET} <= set(archive.namelist()):
            raise FileError(path, "", "arrays gain_keV_per_ADU and offset_keV")
        m, c = (npz_map._array(path, archive, name).astype(np.float64) for name in (GAIN, OFFSET))
    if m.ndim != 2 or m.shape != c.shape or 0 in m.shape or max(m.shape) > MAX_SIDE:
        raise FileError(path, "", "two arrays (rows, columns) of one shape", f"{m.shape} and {c.shape}")
    return _checked(path, m, c)


def _checked(path: Path, gain: Floats, offset: Floats) -> tuple[Floats, Floats]:
    if not (np.isfinite(gain) & np.isfinite(offset)).all() or (gain < 0).any():
        raise FileError(path, "", "finite coefficients, gains not negative", "others")
    missing = gain == 0
    if missing.all():
        raise FileError(path, "", "at least one calibrated pixel", "zeros only")
    return np.where(missing, np.nan, gain), np.where(missing, np.nan, offset)
