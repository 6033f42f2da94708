"""Hit lists of a frame detector as the host writes them: parts of one exposure, and its tables.

``EXPOSURE_0001.hits`` and on: magic ``OPHITS01``, u32 length of a JSON object, the object, then little-endian
arrays: u64 frame number at the detector (frames), u16 hits of each frame (frames), u16 pixel (hits), u16 ADU
(hits). The object has ``frames``, ``hits``, ``first`` (place of the first frame in the exposure), ``rows``,
``columns``, ``exposure``. A part has no gap in ``first``; a gap between two parts is frames that were not
recorded.

``EXPOSURE.tables.npz``: dark_adu, noise_adu, gain_kev, offset_kev, usable, threshold, threshold_kev, bins,
add_pairs, ring: what made the hits, and what turns them into energies.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.files.bounded import file_size
from drivers.files.errors import FileError

MAGIC = b"OPHITS01"
MAX_BYTES = 1 << 30
MAX_HEAD = 1 << 16
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Part:
    """One file of hits."""

    path: Path
    exposure: str
    rows: int
    columns: int
    first: int  # place of its first frame in the exposure
    numbers: NDArray[np.uint64]  # of the frames at the detector
    counts: NDArray[np.uint16]  # hits of each frame
    pixels: NDArray[np.uint16]
    values: NDArray[np.uint16]

    @property
    def frames(self) -> int:
        """Frames in this part."""
        return self.numbers.size


def pack(part: Part, more: Mapping[str, Any] | None = None) -> bytes:
    """Return the content of a file."""
    head = {
        "exposure": part.exposure, "rows": part.rows, "columns": part.columns, "first": part.first,
        "frames": part.frames, "hits": int(part.pixels.size), **(more or {}),
    }  # fmt: skip
    text = json.dumps(head, separators=(",", ":")).encode()
    arrays = (
        part.numbers.astype("<u8"), part.counts.astype("<u2"), part.pixels.astype("<u2"),
        part.values.astype("<u2"),
    )  # fmt: skip
    return b"".join([MAGIC, _LENGTH.pack(len(text)), text, *(array.tobytes() for array in arrays)])


def read(path: Path) -> Part:
    """Read one part. Raises FileError."""
    size = file_size(path, MAX_BYTES)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FileError(path, "", f"a readable file ({error.strerror})") from error
    if raw[: len(MAGIC)] != MAGIC or len(raw) < len(MAGIC) + _LENGTH.size:
        raise FileError(path, "", "a hit list, which begins with OPHITS01")
    (length,) = _LENGTH.unpack_from(raw, len(MAGIC))
    start = len(MAGIC) + _LENGTH.size
    if length > MAX_HEAD or start + length > len(raw):
        raise FileError(path, "", "a head within the file", f"{length} bytes")
    try:
        head = json.loads(raw[start : start + length])
        frames, hits, rows, columns, first = (
            int(head[key]) for key in ("frames", "hits", "rows", "columns", "first")
        )
        exposure = str(head["exposure"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileError(path, "head", "frames, hits, rows, columns, first, exposure") from error
    body = start + length
    wanted = body + 10 * frames + 4 * hits
    if min(frames, hits, first) < 0 or not (0 < rows * columns < 1 << 16) or size != wanted:
        raise FileError(path, "", f"{frames} frames and {hits} hits: {wanted} bytes", f"{size} bytes")
    numbers = np.frombuffer(raw, "<u8", frames, body)
    counts = np.frombuffer(raw, "<u2", frames, body + 8 * frames)
    pixels = np.frombuffer(raw, "<u2", hits, body + 10 * frames)
    values = np.frombuffer(raw, "<u2", hits, body + 10 * frames + 2 * hits)
    if int(counts.sum(dtype=np.int64)) != hits or (hits and int(pixels.max()) >= rows * columns):
        raise FileError(path, "", "counts that add up to the hits, and pixels of the detector")
    return Part(path, exposure, rows, columns, first, numbers, counts, pixels, values)


def part_path(folder: Path, exposure: str, number: int) -> Path:
    """Return the name of part ``number`` (from 1) of an exposure."""
    return folder / f"{exposure}_{number:04d}.hits"


def tables_path(folder: Path, exposure: str) -> Path:
    """Return the name of the tables of an exposure."""
    return folder / f"{exposure}.tables.npz"


def parts(folder: Path, exposure: str) -> Iterator[Part]:
    """Yield the parts of an exposure in order. Raises FileError."""
    for path in sorted(folder.glob(f"{exposure}_[0-9][0-9][0-9][0-9].hits")):
        yield read(path)
