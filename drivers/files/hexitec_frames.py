"""Frames of a HEXITEC (80 x 80 pixels, uint16 ADU), read in blocks: a run of 57 GB needs a few MB of memory.

Three forms, told apart by their first bytes:

* raw ``.bin``/``.dat`` of the control software: frames one behind the other, uint16 little endian, row by
  row, no header. Nothing marks them, so the size must be a whole number of frames of the stated shape.
* stream of the flight read-out (HEXITEC-GSE): uint32 little-endian words. A frame is 0xFE6B, 3 words of time,
  80 rows of 9 header words (the low byte of the first is the row) and 80 samples, 0xFADE. A last frame that
  was cut off is left out and noted.
* HDF5 with one dataset of shape (frames, rows, columns), uint16.

Source of the stream: github.com/MarkN0/HEXITEC-GSE and the frames of its recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.files.bounded import file_size
from drivers.files.errors import FileError
from drivers.files.hdf5_vet import vet

Frames = NDArray[np.uint16]
Block = tuple[int, Frames]  # number of the first frame, frames (n, ny, nx)

MAX_BYTES = 4 << 40
MAX_SIDE = 4096
BLOCK_BYTES = 4 << 20  # of uint16 frames in one block
SHAPE = (80, 80)
HDF5_MARK = b"\x89HDF\r\n\x1a\n"
SYNC, END = 0xFE6B, 0xFADE
ROW_WORDS = 9
STREAM_WORDS = 4 + SHAPE[0] * (ROW_WORDS + SHAPE[1]) + 1
MAX_CHUNK_BYTES = 256 << 20  # of a compressed HDF5 dataset: one is unpacked at a time
HDF5_NAMES = ("raw_frames", "frames", "data", "processed_frames")
HDF5_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    OverflowError,
    AttributeError,
    MemoryError,
)


@dataclass(frozen=True)
class FrameRecording:
    """Frames in a file. ``blocks(start, stop)`` yields them in order, a few MB at a time."""

    path: Path
    kind: str
    ny: int
    nx: int
    n_frames: int
    blocks: Callable[[int, int | None], Iterator[Block]]
    notes: tuple[str, ...] = ()

    @property
    def per_block(self) -> int:
        """Frames in a block."""
        return frames_per_block(self.ny, self.nx)


def frames_per_block(ny: int, nx: int) -> int:
    """Return how many frames make a block."""
    return max(1, BLOCK_BYTES // (2 * ny * nx))


def read(path: Path, shape: tuple[int, int] = SHAPE) -> FrameRecording:
    """Open a recording; ``shape`` (rows, columns) is that of raw files. Raises FileError."""
    size = file_size(path, MAX_BYTES)
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise FileError(path, "", f"a readable file ({error.strerror})") from error
    if start == HDF5_MARK:
        return _read_hdf5(path)
    if start[:4] == SYNC.to_bytes(4, "little"):
        return _read_stream(path, size)
    return _read_raw(path, size, shape)


def _read_raw(path: Path, size: int, shape: tuple[int, int]) -> FrameRecording:
    ny, nx = shape
    if not (1 <= ny <= MAX_SIDE and 1 <= nx <= MAX_SIDE):
        raise FileError(path, "", f"frames of 1 to {MAX_SIDE} rows and columns", f"{ny} x {nx}")
    bytes_ = 2 * ny * nx
    if size % bytes_:
        raise FileError(
            path, "", f"whole frames of {ny} x {nx} uint16 ({bytes_} bytes each)", f"{size} bytes"
        )

    def blocks(start: int = 0, stop: int | None = None) -> Iterator[Block]:
        last = size // bytes_ if stop is None else min(stop, size // bytes_)
        for first, raw in _pieces(path, bytes_, start, last, frames_per_block(ny, nx)):
            yield first, np.frombuffer(raw, "<u2").reshape(-1, ny, nx).astype(np.uint16, copy=False)

    return FrameRecording(path, "raw frames", ny, nx, size // bytes_, blocks)


def _pieces(path: Path, item: int, start: int, stop: int, per_block: int) -> Iterator[tuple[int, bytearray]]:
    """Yield (number, bytes) of whole items from start to stop; in memory that may be written to."""
    try:
        with path.open("rb") as file:
            file.seek(start * item)
            for first in range(start, stop, per_block):
                wanted = min(per_block, stop - first) * item
                raw = bytearray(wanted)
                if file.readinto(raw) != wanted:
                    raise FileError(path, f"frame {first}", "a file that stays as it is", "a shorter one")
                yield first, raw
    except OSError as error:
        raise FileError(path, "", f"a readable file ({error.strerror})") from error


def _read_stream(path: Path, size: int) -> FrameRecording:
    item = 4 * STREAM_WORDS
    whole, rest = divmod(size, item)
    if whole == 0:
        raise FileError(path, "", f"at least one frame of {item} bytes", f"{size} bytes")
    ny, nx = SHAPE
    notes = (f"a last frame of {rest} of {item} bytes was left out",) if rest else ()

    def blocks(start: int = 0, stop: int | None = None) -> Iterator[Block]:
        last = whole if stop is None else min(stop, whole)
        for first, raw in _pieces(path, item, start, last, frames_per_block(ny, nx)):
            yield first, _decode_stream(path, first, np.frombuffer(raw, "<u4").reshape(-1, STREAM_WORDS))

    return FrameRecording(path, "flight stream", ny, nx, whole, blocks, notes)


def _decode_stream(path: Path, first: int, words: NDArray[np.uint32]) -> Frames:
    ny, nx = SHAPE
    rows = words[:, 4:-1].reshape(-1, ny, ROW_WORDS + nx)
    bad = (words[:, 0] != SYNC) | (words[:, -1] != END)
    bad |= ((rows[:, :, 0] & 0xFF) != np.arange(ny)).any(axis=1)
    bad |= (rows[:, :, ROW_WORDS:] > 0xFFFF).any(axis=(1, 2))
    if bad.any():
        number = first + int(bad.argmax())
        raise FileError(
            path, f"frame {number} (byte {4 * STREAM_WORDS * number})",
            f"{SYNC:#06x}, rows 0 to {ny - 1} of 16-bit samples, {END:#06x}", "something else",
        )  # fmt: skip
    return rows[:, :, ROW_WORDS:].astype(np.uint16)


def _read_hdf5(path: Path) -> FrameRecording:
    import h5py

    try:
        vet(path)
        with h5py.File(path, "r") as file:
            name, ny, nx, n = _find_frames(path, file, h5py)
    except HDF5_ERRORS as error:
        if isinstance(error, FileError):
            raise
        raise FileError(path, "", "a whole HDF5 file", f"{type(error).__name__}: {error}") from error

    def blocks(start: int = 0, stop: int | None = None) -> Iterator[Block]:
        last = n if stop is None else min(stop, n)
        step = frames_per_block(ny, nx)
        try:
            with h5py.File(path, "r") as file:
                for first in range(start, last, step):
                    values = file[name][first : min(first + step, last)]
                    yield first, np.ascontiguousarray(values, np.uint16)
        except HDF5_ERRORS as error:
            if isinstance(error, FileError):
                raise
            raise FileError(path, name, "readable frames", f"{type(error).__name__}: {error}") from error

    return FrameRecording(path, f"HDF5 {name}", ny, nx, n, blocks)


def _find_frames(path: Path, file: Any, h5py: Any) -> tuple[str, int, int, int]:
    """Return name and shape of the frames: by name, or the only dataset of that form at the top."""
    found = [
        name for name in list(file)[:1000]
        if isinstance(file.get(name), h5py.Dataset) and file[name].ndim == 3 and file[name].dtype == np.uint16
    ]  # fmt: skip
    named = [name for name in HDF5_NAMES if name in found]
    if not named and len(found) != 1:
        raise FileError(path, "", "one dataset (frames, rows, columns) of uint16", f"{len(found)} of them")
    dataset = file[(named or found)[0]]
    n, ny, nx = dataset.shape
    if n == 0 or not (1 <= ny <= MAX_SIDE and 1 <= nx <= MAX_SIDE):
        raise FileError(path, dataset.name, f"frames of 1 to {MAX_SIDE} rows and columns", dataset.shape)
    chunk = 2 * int(np.prod(dataset.chunks, dtype=np.int64)) if dataset.chunks else 0
    if chunk > MAX_CHUNK_BYTES:
        raise FileError(path, dataset.name, f"chunks of at most {MAX_CHUNK_BYTES} bytes", f"{chunk} bytes")
    return (named or found)[0], int(ny), int(nx), int(n)
