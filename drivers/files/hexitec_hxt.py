"""HEXITEC ``.hxt`` histograms: one spectrum per pixel.

Little endian, no padding: "HEXITECH" (8) · uint64 version, 2 or 3 · 9 int32 motor positions · int32 length of
the prefix · prefix (100 bytes in version 3, as many as the length in version 2) · time stamp (16 bytes, 13 in
version 2) · uint32 rows, columns, bins · float64 lower edge of each bin (keV or ADU, as calibrated) · float64
counts [row][column][bin]. Nothing follows.

Sources: the writer in stfc-detectors' HEXITEC GUI (``hxtitem.h``) and the reader of libhxt; no example file
could be redistributed, so files of other programs were not tried.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivers.files.bounded import file_size
from drivers.files.errors import FileError

MARK = b"HEXITECH"
MAX_BYTES = 4 << 30
MAX_SIDE, MAX_BINS = 1024, 1 << 16
PREFIX_BYTES = 100
_HEAD = struct.Struct("<8s Q 9i i")
_SHAPE = struct.Struct("<3I")


@dataclass(frozen=True)
class HxtSpectra:
    """Spectra of all pixels; ``low`` and ``width`` of the equal bins are in the unit of the file."""

    path: Path
    counts: NDArray[np.int64]  # (ny, nx, bins)
    low: float
    width: float
    prefix: str
    time_stamp: str
    version: int


def read(path: Path) -> HxtSpectra:
    """Read a histogram file. Raises FileError."""
    size = file_size(path, MAX_BYTES)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size or not head.startswith(MARK):
                raise FileError(path, "byte 0", "HEXITECH", token=head[:8])
            fields = _HEAD.unpack(head)
            version, length = fields[1], fields[-1]
            if version not in (2, 3):
                raise FileError(path, "byte 8", "version 2 or 3", version)
            if not 0 <= length <= (PREFIX_BYTES if version == 3 else 4096):
                raise FileError(path, "byte 52", f"a prefix of 0 to {PREFIX_BYTES} bytes", length)
            prefix = file.read(PREFIX_BYTES if version == 3 else length)
            stamp = file.read(16 if version == 3 else 13)
            raw = file.read(_SHAPE.size)
            if len(raw) < _SHAPE.size:
                raise FileError(path, "header", "rows, columns and bins", "the end of the file")
            ny, nx, bins = _SHAPE.unpack(raw)
            _check_shape(path, size, file.tell(), ny, nx, bins)
            low, width = _bins(path, np.frombuffer(file.read(8 * bins), "<f8"))
            counts = np.empty((ny, nx, bins), np.int64)
            for row in range(ny):
                part = file.read(8 * nx * bins)
                if len(part) != 8 * nx * bins:
                    raise FileError(path, f"row {row}", "a file that stays as it is", "a shorter one")
                counts[row] = _counts(path, row, np.frombuffer(part, "<f8").reshape(nx, bins))
    except OSError as error:
        raise FileError(path, "", f"a readable file ({error.strerror})") from error
    return HxtSpectra(path, counts, low, width, _text(prefix[:length]), _text(stamp), version)


def _check_shape(path: Path, size: int, at: int, ny: int, nx: int, bins: int) -> None:
    if not (1 <= ny <= MAX_SIDE and 1 <= nx <= MAX_SIDE and 2 <= bins <= MAX_BINS):
        limits = f"1 to {MAX_SIDE} rows and columns, 2 to {MAX_BINS} bins"
        raise FileError(path, "header", limits, f"{ny} x {nx} x {bins}")
    wanted = at + 8 * bins * (1 + ny * nx)
    if size != wanted:
        raise FileError(path, "", f"{wanted} bytes for {ny} x {nx} pixels of {bins} bins", f"{size} bytes")


def _bins(path: Path, edges: NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(edges[0]), float(edges[-1])
    with np.errstate(all="ignore"):
        width = (high - low) / (edges.size - 1)
        regular = np.isfinite(edges).all() and width > 0 and width < 1e9
        regular = (
            regular and np.abs(edges - low - width * np.arange(edges.size)).max() <= 1e-6 * width * edges.size
        )
    if not regular:
        raise FileError(path, "bins", "finite edges at equal, ascending distances", f"{low} to {high}")
    return low, width


def _counts(path: Path, row: int, values: NDArray[np.float64]) -> NDArray[np.int64]:
    with np.errstate(invalid="ignore"):
        good = bool((values >= 0).all() and (values < 2.0**53).all())
        if not good or not np.array_equal(values, np.floor(values)):
            raise FileError(path, f"row {row}", "whole counts, not negative", "other numbers")
    return values.astype(np.int64)


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("latin-1").strip()
