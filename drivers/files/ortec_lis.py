"""ORTEC PRO list mode ``.Lis`` (list style 2): a 256-byte header, then little-endian 32-bit words.

Header (ORTEC Software File Structure Manual 753800, "List mode"; little-endian, no padding):
  0 int32 -13 · 4 int32 list style · 8 float64 start, days since 1899-12-30 · 16 address (80)
  96 MCB type (9) · 105 serial (16) · 121 sample (80) · 201 energy calibration valid (1) · 202 unit (4)
  206 float32 x 3 offset, gain, quadratic · 218 shape valid (1) · 219 float32 x 3
  231 int32 conversion gain (channels) · 235 int32 detector · 239 float32 real s · 243 float32 live time s
Words, by their two top bits: 11 event (bits 16-29 ADC value, bits 0-15 time in 200 ns), 10 real time and
01 live time in 10 ms, 00 anything else (skipped). The time of an event is the last real-time word plus its 16
bits, which count 200 ns since that word; they may reach 13 ms, so the last event may lie after the last
real-time word.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drivers.files.bounded import file_size
from drivers.files.errors import FileError
from drivers.files.recordings import EventBlock, RecordedEvents

HEADER_BYTES = 256
MAX_BYTES = 64 << 30  # read in pieces; the limit only refuses nonsense
WORDS_PER_BLOCK = 1 << 18  # 1 MB of file, about 5 MB of arrays
TICK_S = 200e-9
TICKS_PER_REAL_TIME = 50_000  # 10 ms
ADC_VALUES = 1 << 14
_HEADER = struct.Struct("<ii d 80s 9s 16s 80s B 4s 3f B 3f i i f f")


class _Header(NamedTuple):
    n_channels: int
    energy_kev: tuple[float, ...] | None
    started: datetime | None
    live_s: float | None
    real_s: float | None
    title: str


def read(path: Path) -> RecordedEvents:
    """Check the header and every word once (in pieces) and return the recording. Raises FileError."""
    size = file_size(path, MAX_BYTES)
    if size < HEADER_BYTES or (size - HEADER_BYTES) % 4:
        raise FileError(path, "", f"{HEADER_BYTES} header bytes and whole 4-byte words", f"{size} bytes")
    header = _header(path)
    n_events, highest = 0, 0
    for block in _blocks(path):
        n_events += block.channel.size
        highest = max(highest, int(block.channel.max(initial=0)))
    if n_events == 0:
        raise FileError(path, "words", "at least one event", "none")
    return RecordedEvents(
        path=path, n_channels=max(header.n_channels, highest + 1), tick_s=TICK_S,
        blocks=lambda: _blocks(path),
        n_events=n_events, live_s=header.live_s, real_s=header.real_s, started=header.started,
        energy_kev=header.energy_kev, title=header.title,
    )  # fmt: skip


def _header(path: Path) -> _Header:
    try:
        with path.open("rb") as file:
            raw = file.read(HEADER_BYTES)
    except OSError as error:
        raise FileError(path, "", f"a readable file ({error.strerror})") from error
    fields = _HEADER.unpack_from(raw)
    magic, style, days, sample, valid = fields[0], fields[1], fields[2], fields[6], fields[7]
    if magic != -13:
        raise FileError(path, "byte 0", "-13, the mark of an ORTEC list file", magic)
    if style != 2:
        raise FileError(path, "byte 4", "list style 2 (PRO list mode)", style)
    gain = fields[16]
    if not 16 <= gain <= ADC_VALUES:
        raise FileError(path, "byte 231", "a conversion gain from 16 to 16384 channels", gain)
    calibration = tuple(float(value) for value in fields[9:12])
    usable = bool(valid) and all(map(math.isfinite, calibration)) and calibration[1] > 0
    return _Header(
        n_channels=gain,
        energy_kev=calibration if usable else None,
        started=_ole_date(days),
        live_s=_positive(fields[19]),
        real_s=_positive(fields[18]),
        title=sample.split(b"\0", 1)[0].decode("latin-1").strip(),
    )


def _positive(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) and value > 0 else None


def _ole_date(days: float) -> datetime | None:
    if not (math.isfinite(days) and 0 < days < 100_000):
        return None
    return datetime(1899, 12, 30) + timedelta(days=days)


def _blocks(path: Path) -> Iterator[EventBlock]:
    """Yield the events; the time base runs on from block to block."""
    base_ticks = 0
    place = HEADER_BYTES
    try:
        with path.open("rb") as file:
            file.seek(HEADER_BYTES)
            while raw := file.read(4 * WORDS_PER_BLOCK):
                words = np.frombuffer(raw[: len(raw) // 4 * 4], "<u4")
                block, base_ticks = _decode(path, place, words, base_ticks)
                place += len(raw)
                yield block
    except OSError as error:
        raise FileError(path, f"byte {place}", f"a readable file ({error.strerror})") from error


def _decode(path: Path, place: int, words: NDArray[np.uint32], base_ticks: int) -> tuple[EventBlock, int]:
    kind = words >> np.uint32(30)
    is_real = kind == 2
    real = (words & np.uint32(0x3FFFFFFF)).astype(np.int64) * TICKS_PER_REAL_TIME
    bases = np.concatenate([[base_ticks], real[is_real]])
    backward = np.flatnonzero(np.diff(bases) < 0)
    if backward.size:
        where = np.flatnonzero(is_real)[backward[0]]
        raise FileError(path, f"byte {place + 4 * int(where)}", "a real time that does not run backward")
    is_event = kind == 3
    event = words[is_event]
    ticks = bases[np.cumsum(is_real)[is_event]] + (event & np.uint32(0xFFFF)).astype(np.int64)
    channel = ((event >> np.uint32(16)) & np.uint32(0x3FFF)).astype(np.uint16)
    return EventBlock(channel, ticks), int(bases[-1])
