"""EDS maps of Bruker (``.bcf``) and JEOL (``.pts``) through RosettaSciIO.

RosettaSciIO is GPL-3.0: it is not part of any default install and nothing of it is copied here. Who wants it
installs the extra ``vendor-maps``. The permissive way is to export the map as HDF5, TIFF or npz.
The map stays lazy: its shape is checked before any count is unpacked, and counts come out line by line.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from drivers.files.bounded import MAX_CHANNELS, MAX_COUNT, file_size
from drivers.files.errors import FileError
from drivers.files.recordings import Block, RecordedMap
from drivers.files.tiff_stack import TIFF_ERRORS, library

MAX_BYTES = 1 << 31
CELLS_PER_SLAB = 1 << 25
MAX_PIXELS = 1 << 24
MARKS = {".bcf": b"AAMVHFSS", ".pts": b""}
KEV_PER_UNIT = {"kev": 1.0, "ev": 1e-3}
UM_PER_UNIT = {"um": 1.0, "µm": 1.0, "nm": 1e-3, "mm": 1e3}
VENDOR_ERRORS = (*TIFF_ERRORS, SyntaxError, struct.error, NotImplementedError, UnicodeError)


def read(path: Path) -> RecordedMap:
    """Read the map of a .bcf or .pts file. Raises FileError."""
    suffix = path.suffix.lower()
    if suffix not in MARKS:
        raise FileError(path, "", "a .bcf or .pts file")
    file_size(path, MAX_BYTES)
    with path.open("rb") as file:
        head = file.read(8)
    if not head.startswith(MARKS[suffix]):
        raise FileError(path, "byte 0", f"the mark of a {suffix} file", token=head)
    found = _cube(path, suffix)
    data, axes = found["data"], found["axes"]
    if data.ndim != 3 or 0 in data.shape:
        raise FileError(path, "", "a map of spectra", data.shape)
    ny, nx, n_channels = data.shape
    if ny * nx > MAX_PIXELS or n_channels > MAX_CHANNELS:
        limits = f"at most {MAX_PIXELS} pixels and {MAX_CHANNELS} channels"
        raise FileError(path, "", limits, data.shape)
    if data.dtype.kind not in "ui":
        raise FileError(path, "", "counts", str(data.dtype))
    scale = KEV_PER_UNIT.get(str(axes[2].get("units", "")).lower())
    energy = None if scale is None else (float(axes[2]["offset"]) * scale, float(axes[2]["scale"]) * scale)
    pitch = [
        UM_PER_UNIT.get(str(a.get("units", "")).lower(), np.nan) * abs(float(a["scale"])) for a in axes[:2]
    ]
    known = bool(np.isfinite(pitch).all())
    return RecordedMap(
        path, nx, ny, 1, n_channels, lambda: _blocks(path, data), energy,
        width_um=pitch[1] * nx if known else None, height_um=pitch[0] * ny if known else None,
        notes=("read with RosettaSciIO",),
    )  # fmt: skip


def _cube(path: Path, suffix: str) -> dict[str, Any]:
    """Return the entry with the map of spectra; the file may hold pictures as well."""
    name = "rsciio.bruker" if suffix == ".bcf" else "rsciio.jeol"
    vendor = library(path, name, "vendor-maps")
    options: dict[str, Any] = {"select_type": "spectrum_image"} if suffix == ".bcf" else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            entries = vendor.file_reader(str(path), lazy=True, **options)
            found = next(entry for entry in entries if len(entry["data"].shape) == 3)
            return {"data": found["data"], "axes": found["axes"]}
    except StopIteration as error:
        raise FileError(path, "", "a map of spectra", "none in this file") from error
    except VENDOR_ERRORS as error:
        raise FileError(path, "", f"a whole {suffix} file", f"{type(error).__name__}: {error}") from error


def _blocks(path: Path, data: Any) -> Iterator[Block]:
    ny, nx, n_channels = data.shape
    step = max(1, CELLS_PER_SLAB // (nx * n_channels))
    for first in range(0, ny, step):
        try:
            part = np.asarray(data[first : first + step])
        except VENDOR_ERRORS as error:
            place = f"line {first}"
            raise FileError(path, place, "readable spectra", f"{type(error).__name__}: {error}") from error
        low, high = int(part.min()), int(part.max())
        if low < 0 or high > MAX_COUNT:
            raise FileError(path, f"line {first}", f"counts from 0 to {MAX_COUNT}", (low, high))
        y, x, channel = np.nonzero(part)
        counts = part[y, x, channel].astype(np.int64)
        yield Block((y + first) * nx + x, np.zeros(x.size, np.int64), channel, counts)
