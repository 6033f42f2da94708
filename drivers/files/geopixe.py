"""``.GeoPIXE`` sparse pixel records of micro-XRF maps (CSIRO/IXRF export).

uint16 header length, that many bytes of JSON, then one record per pixel and detector, all little-endian:
"DP", uint32 length of the record with its 16-byte head, uint16 x, uint16 y, uint16 detector, float32 dead
time in percent, then pairs (uint16 channel, uint16 counts). Facts from ``docs`` of lachlanc61/ColourspecXFM.
Energy is channel x gain: the format carries no offset.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from drivers.files.bounded import MAX_CHANNELS, MAX_DETECTORS, file_size
from drivers.files.errors import FileError
from drivers.files.recordings import Block, RecordedMap

MAX_BYTES = 64 << 30  # read in pieces; the limit only refuses nonsense
MAX_PIXELS = 1 << 24
PAIRS_PER_BLOCK = 1 << 18
MAX_NUMBER = 1e12  # of a header; also refuses NaN and infinity
_HEAD = struct.Struct("<2sIHHHf")


def read(path: Path) -> RecordedMap:
    """Check the header and every record once (in pieces) and return the map. Raises FileError."""
    size = file_size(path, MAX_BYTES)
    meta, start = _header(path)
    file = _Numbers(path, meta.get("File Header"))
    nx, ny = file.integer("Xres", MAX_CHANNELS), file.integer("Yres", MAX_CHANNELS)
    n_detectors, n_channels = file.integer("Dets", MAX_DETECTORS), file.integer("Chan", MAX_CHANNELS)
    if nx * ny * n_detectors > MAX_PIXELS:
        raise FileError(path, "File Header", f"at most {MAX_PIXELS} pixel records", nx * ny * n_detectors)
    shape = (nx, ny, n_detectors, n_channels)
    dead = np.full((ny, nx, n_detectors), np.nan, np.float32)
    for _ in _blocks(path, start, size, shape, dead):
        pass
    missing = int(np.isnan(dead).sum())
    if missing:
        raise FileError(path, "records", f"{dead.size} records", f"{dead.size - missing} (a truncated file)")
    started, notes = _started(meta["File Header"].get("Timestamp"))
    return RecordedMap(
        path=path, nx=nx, ny=ny, n_detectors=n_detectors, n_channels=n_channels,
        blocks=lambda: _blocks(path, start, size, shape), energy_kev=(0.0, file.number("Gain (eV)") / 1000),
        width_um=1000 * file.number("Width (mm)"), height_um=1000 * file.number("Height (mm)"),
        dwell_s=file.number("Dwell (mS)") / 1000, dead_fraction=dead, title=started, notes=notes,
    )  # fmt: skip


def _header(path: Path) -> tuple[dict[str, Any], int]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(2), "little")
            raw = file.read(length)
    except OSError as error:
        raise FileError(path, "", f"a readable file ({error.strerror})") from error
    if len(raw) != length or length < 2:
        raise FileError(path, "byte 0", f"a JSON header of {length} bytes", f"{len(raw)} bytes")
    try:
        meta = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FileError(path, "byte 2", "a JSON header", type(error).__name__) from error
    if not isinstance(meta, dict) or not isinstance(meta.get("File Header"), dict):
        raise FileError(path, "byte 2", 'a JSON header with "File Header"', token=raw[:40])
    return meta, 2 + length


class _Numbers:
    """Numbers of the JSON header, checked one by one."""

    def __init__(self, path: Path, table: Any) -> None:
        self.path = path
        self.table: dict[str, Any] = table

    def number(self, key: str) -> float:
        """Return a finite positive number."""
        value = self.table.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < MAX_NUMBER:
            raise FileError(self.path, f'header "{key}"', "a positive number", value)
        return float(value)

    def integer(self, key: str, high: int) -> int:
        """Return an integer from 1 to high."""
        value = self.number(key)
        if value != int(value) or value > high:
            raise FileError(self.path, f'header "{key}"', f"an integer from 1 to {high}", value)
        return int(value)


def _started(text: Any) -> tuple[str, tuple[str, ...]]:
    """Return the time stamp as written, in the one form seen in these files."""
    try:
        started = datetime.strptime(str(text)[:40], "%m/%d/%Y at %I:%M %p")
    except ValueError:
        return "", ("no start time in the known form",)
    return started.isoformat(" "), ()


def _blocks(
    path: Path,
    start: int,
    size: int,
    shape: tuple[int, int, int, int],
    dead: NDArray[np.float32] | None = None,
) -> Iterator[Block]:
    """Yield whole records, some 250 000 pairs at a time; every field is checked."""
    parts: list[Block] = []
    pairs = 0
    try:
        with path.open("rb") as file:
            file.seek(start)
            place = start
            while place < size:
                block, place = _record(path, file, place, size, shape, dead)
                parts.append(block)
                pairs += block.channel.size
                if pairs >= PAIRS_PER_BLOCK:
                    yield _joined(parts)
                    parts, pairs = [], 0
    except OSError as error:
        raise FileError(path, "", f"a readable file ({error.strerror})") from error
    if parts:
        yield _joined(parts)


def _record(
    path: Path, file: BinaryIO, place: int, size: int, shape: tuple[int, int, int, int],
    dead: NDArray[np.float32] | None,
) -> tuple[Block, int]:  # fmt: skip
    nx, ny, n_detectors, n_channels = shape
    where = f"record at byte {place}"
    head = file.read(_HEAD.size)
    if len(head) != _HEAD.size:
        raise FileError(path, where, f"{_HEAD.size} bytes", f"{len(head)} (a truncated file)")
    mark, length, x, y, detector, percent = _HEAD.unpack(head)
    if mark != b"DP":
        raise FileError(path, where, 'the mark "DP"', token=mark)
    body = length - _HEAD.size
    if body < 0 or body % 4 or body > 4 * n_channels:
        raise FileError(path, where, f"a length of 16 to {16 + 4 * n_channels} in steps of 4", length)
    if place + length > size:
        raise FileError(path, where, f"{length} bytes", f"{size - place} (a truncated file)")
    if x >= nx or y >= ny or detector >= n_detectors:
        raise FileError(path, where, f"x < {nx}, y < {ny}, detector < {n_detectors}", (x, y, detector))
    pairs = np.frombuffer(file.read(body), "<u2").reshape(-1, 2).astype(np.int64)
    channels = pairs[:, 0]
    if channels.size and (int(channels.max()) >= n_channels or np.any(np.diff(channels) <= 0)):
        raise FileError(path, where, f"rising channel numbers below {n_channels}")
    if dead is not None:
        if not np.isnan(dead[y, x, detector]):
            raise FileError(path, where, "a pixel that has not been written before", (x, y, detector))
        if not (math.isfinite(percent) and 0 <= percent < 100):
            raise FileError(path, where, "a dead time from 0 to 100 %", percent)
        dead[y, x, detector] = percent / 100
    pixel = np.full(channels.size, y * nx + x, np.int64)
    return Block(pixel, np.full(channels.size, detector, np.int64), channels, pairs[:, 1]), place + length


def _joined(parts: list[Block]) -> Block:
    return Block(
        np.concatenate([part.pixel for part in parts]),
        np.concatenate([part.detector for part in parts]),
        np.concatenate([part.channel for part in parts]),
        np.concatenate([part.counts for part in parts]),
    )
