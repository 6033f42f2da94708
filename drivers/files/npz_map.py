"""Maps in numpy ``.npz`` archives.

Dense ``counts[y, x, (detector,) channel]`` or an event table ``y, x, channel``; optional scalars
energy_offset_keV and energy_gain_keV (energy = offset + gain x channel). Nothing is unpickled, and sizes are
taken from the archive's directory and the array headers before anything is decompressed.
"""

from __future__ import annotations

import io
import math
import tokenize
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.files import zip_safe
from drivers.files.bounded import MAX_CHANNELS, MAX_COUNT, MAX_DETECTORS
from drivers.files.errors import FileError
from drivers.files.recordings import Block, RecordedMap

MAX_ARRAY_BYTES = 256 << 20  # one array is in memory at a time
MAX_MEMBERS = 64
MAX_PIXELS = 1 << 24
CELLS_PER_BLOCK = 1 << 20
HEADER_ERRORS = (  # all that numpy's parser of array headers was seen to raise on hostile ones
    ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError, tokenize.TokenError,
)  # fmt: skip


def read(path: Path) -> RecordedMap:
    """Read a map. Raises FileError."""
    with zip_safe.opened(path) as archive:
        return _read(path, archive)


def _read(path: Path, archive: zipfile.ZipFile) -> RecordedMap:
    names = archive.namelist()
    if len(names) > MAX_MEMBERS or len(set(names)) != len(names):
        raise FileError(path, "", f"at most {MAX_MEMBERS} different arrays", f"{len(names)}")
    energy = _energy(path, archive)
    if "counts.npy" in names:
        return _dense(path, _array(path, archive, "counts.npy"), energy)
    if {"y.npy", "x.npy", "channel.npy"} <= set(names):
        table = [_array(path, archive, f"{name}.npy") for name in ("y", "x", "channel")]
        return _events(path, table, energy)
    raise FileError(path, "", "an array counts, or arrays y, x and channel", ", ".join(names))


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Return one array after checking the size that its directory entry and its header declare."""
    declared = archive.getinfo(name).file_size
    if declared > MAX_ARRAY_BYTES:
        raise FileError(path, name, f"at most {MAX_ARRAY_BYTES} bytes", f"{declared} bytes")
    with archive.open(name) as member:
        raw = member.read(declared + 1)
    buffer = io.BytesIO(raw)
    try:
        with warnings.catch_warnings():  # numpy's parser warns of odd literals before it refuses them
            warnings.simplefilter("ignore")
            shape, fortran, dtype = _array_header(buffer)
    except HEADER_ERRORS as error:
        raise FileError(path, name, "a numpy array", type(error).__name__) from error
    cells = math.prod(shape)
    if dtype.hasobject or dtype.kind not in "uif":
        raise FileError(path, name, "an array of numbers", str(dtype))
    if fortran and len(shape) > 1:
        raise FileError(path, name, "an array in C order", "Fortran order")
    if any(side < 0 for side in shape) or len(raw) - buffer.tell() != cells * dtype.itemsize:
        raise FileError(path, name, f"{cells} cells of {dtype}", f"{len(raw) - buffer.tell()} bytes")
    return np.frombuffer(raw, dtype, cells, buffer.tell()).reshape(shape)


def _array_header(buffer: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(buffer)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(buffer)
    return np.lib.format.read_array_header_2_0(buffer)


def _energy(path: Path, archive: zipfile.ZipFile) -> tuple[float, ...] | None:
    names = [f"energy_{part}_keV.npy" for part in ("offset", "gain")]
    if not set(names) <= set(archive.namelist()):
        return None
    values = []
    for name in names:
        array = _array(path, archive, name)
        if array.size != 1 or not np.isfinite(array).all():
            raise FileError(path, name, "one finite number", array.shape)
        values.append(float(array.reshape(())))
    if values[1] <= 0:
        raise FileError(path, names[1], "a positive gain in keV", values[1])
    return tuple(values)


def _checked(path: Path, name: str, array: NDArray[Any], high: int) -> NDArray[Any]:
    if array.dtype.kind not in "ui":
        raise FileError(path, name, "integers", str(array.dtype))
    if array.size and (int(array.min()) < 0 or int(array.max()) > high):
        raise FileError(path, name, f"values from 0 to {high}", (int(array.min()), int(array.max())))
    return array


def _dense(path: Path, counts: NDArray[Any], energy: tuple[float, ...] | None) -> RecordedMap:
    if counts.ndim == 3:
        counts = counts[:, :, None, :]
    if counts.ndim != 4 or 0 in counts.shape:
        raise FileError(path, "counts", "axes y, x, (detector,) channel, none empty", counts.shape)
    ny, nx, n_detectors, n_channels = counts.shape
    if n_detectors > MAX_DETECTORS or n_channels > MAX_CHANNELS or ny * nx > MAX_PIXELS:
        limits = f"at most {MAX_PIXELS} pixels, {MAX_DETECTORS} detectors, {MAX_CHANNELS} channels"
        raise FileError(path, "counts", limits, counts.shape)
    _checked(path, "counts", counts, MAX_COUNT)
    cells = counts.reshape(ny * nx, n_detectors, n_channels)

    def blocks() -> Iterator[Block]:
        step = max(1, CELLS_PER_BLOCK // (n_detectors * n_channels))
        for first in range(0, ny * nx, step):
            part = cells[first : first + step]
            pixel, detector, channel = np.nonzero(part)
            yield Block(pixel + first, detector, channel, part[pixel, detector, channel].astype(np.int64))

    return RecordedMap(path, nx, ny, n_detectors, n_channels, blocks, energy)


def _events(path: Path, table: list[NDArray[Any]], energy: tuple[float, ...] | None) -> RecordedMap:
    names = ("y", "x", "channel")
    if any(column.ndim != 1 or column.size != table[0].size for column in table) or not table[0].size:
        raise FileError(path, "y, x, channel", "three columns of one length", [c.shape for c in table])
    y, x, channel = (
        _checked(path, name, column, MAX_CHANNELS - 1) for name, column in zip(names, table, strict=True)
    )
    nx, ny, n_channels = int(x.max()) + 1, int(y.max()) + 1, int(channel.max()) + 1
    if ny * nx > MAX_PIXELS:
        raise FileError(path, "y, x", f"at most {MAX_PIXELS} pixels", f"{ny} x {nx}")

    def blocks() -> Iterator[Block]:
        for first in range(0, y.size, CELLS_PER_BLOCK):
            part = slice(first, first + CELLS_PER_BLOCK)
            rows = y[part].size
            pixel = y[part].astype(np.int64) * nx + x[part]
            yield Block(
                pixel, np.zeros(rows, np.int64), channel[part].astype(np.int64), np.ones(rows, np.int64)
            )

    return RecordedMap(path, nx, ny, 1, n_channels, blocks, energy)
