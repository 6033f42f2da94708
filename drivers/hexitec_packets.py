"""UDP packets of a HEXITEC camera, put together to frames: pure, no socket.

A frame travels as packets of ``packet_bytes`` and a rest (80 x 80: 8000 + 4800). Each begins with a header:

short (8 bytes, little endian)    u32 frame number, u32 packet number
extended (64 bytes)               u64 frame number, u32 packet number, u32 flags, zeros

bit 31 of packet number (short) or flags (extended) marks the first packet of a frame, bit 30 the last. A
frame is whole when every packet of it is there, whatever order they came in; the end flag says nothing.

Every frame number from the first expected one on ends in exactly one of three counters: ``frames`` (whole
and delivered), ``incomplete`` (some packets came) or ``missing`` (none did). What comes for a frame that was
given up is ``late`` and never used.

Sources: stfc-aeg/hexitec-detector (HexitecDefinitions.h, HexitecUdpProducer.py).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

DEFAULT_PORT = 61649
START_OF_FRAME, END_OF_FRAME = 1 << 31, 1 << 30
PACKET_MASK = (1 << 30) - 1
SHORT, EXTENDED = struct.Struct("<II"), struct.Struct("<QII")
HEADER_BYTES = {"short": 8, "extended": 64}
WINDOW = 16  # frames that may be open at once: 1.8 ms at 9118.87 frames/s
MEMORY = 1024  # closed frames whose fate is remembered, to tell doubled packets from late ones
LEAP = 65536  # a number further ahead (7 s), or behind what is remembered, is believed when it goes on so
BELIEVED = 16  # packets in a row
_M32, _HALF = (1 << 32) - 1, 1 << 31
_OPEN, _WHOLE, _GIVEN_UP = 0, 1, 2

Header = Literal["short", "extended"]


@dataclass(frozen=True)
class Layout:
    """How a frame of uint16 samples is cut into packets."""

    rows: int = 80
    columns: int = 80
    packet_bytes: int = 8000
    header: Header = "short"

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        return 2 * self.rows * self.columns

    @property
    def header_bytes(self) -> int:
        """Bytes before the samples of each packet."""
        return HEADER_BYTES[self.header]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of samples in each packet of a frame, in order."""
        whole, rest = divmod(self.frame_bytes, self.packet_bytes)
        return (self.packet_bytes,) * whole + ((rest,) if rest else ())


@dataclass
class Counts:
    """What became of packets and frames."""

    packets: int = 0
    frames: int = 0  # whole and delivered
    incomplete: int = 0  # frames of which some packets came
    missing: int = 0  # frames of which none came
    lost_packets: int = 0  # of incomplete and missing frames
    doubled: int = 0  # packets that were there already
    late: int = 0  # packets of frames that had been given up
    reordered: int = 0  # packets behind a later one, in time to be used
    bad: int = 0  # packets of a wrong size, number or flag
    leaps: int = 0  # packets whose frame number was not believed
    resets: int = 0  # times that the detector began to number anew


class Assembler:
    """Puts packets together. ``packet`` is where the next one must be received into.

    Args:
        layout: of frames and packets.
        deliver: takes (frame number, samples) of each whole frame; the memory is used again afterwards.
        counts: to be continued; new ones by default.
        first: number of the first frame that is expected.
    """

    def __init__(
        self,
        layout: Layout,
        deliver: Callable[[int, memoryview], None],
        *,
        counts: Counts | None = None,
        first: int = 0,
    ) -> None:
        self.counts = counts or Counts()
        self.base = first  # every number below it has its fate
        self._newest = first - 1
        sizes, head = layout.sizes, layout.header_bytes
        self.packet = memoryview(bytearray(head + max(sizes) + 1))  # one more: too long a packet shows itself
        self._deliver = deliver
        self._short = layout.header == "short"
        self._totals = tuple(head + size for size in sizes)
        last = len(sizes) - 1
        self._flags = tuple(2 * (k == 0) + (k == last) for k in range(len(sizes)))
        self._full = (1 << len(sizes)) - 1
        self._from = tuple(self.packet[head : head + size] for size in sizes)
        starts = [sum(sizes[:k]) for k in range(len(sizes))]
        self._free = [_Slot(layout.frame_bytes, starts, sizes) for _ in range(WINDOW + 1)]
        self._open: dict[int, _Slot] = {}
        self._fate = bytearray(MEMORY)
        self._leap_from = self._leap_at = 0
        self._leaps_in_a_row = 0

    def take(self, size: int) -> None:
        """Take the packet of ``size`` bytes that lies in ``packet``."""
        counts = self.counts
        counts.packets += 1
        if size not in self._totals:
            counts.bad += 1
            return
        if self._short:
            number, word = SHORT.unpack_from(self.packet)
            frame = self._newest + ((number - self._newest + _HALF) & _M32) - _HALF
        else:
            frame, word, flags = EXTENDED.unpack_from(self.packet)
            word |= flags
        index = word & PACKET_MASK
        if index >= len(self._totals) or size != self._totals[index] or word >> 30 != self._flags[index]:
            counts.bad += 1
            return
        newest = self._newest
        if frame > newest:
            if frame - newest > LEAP:
                self._leap(frame)
                return
            self._advance(frame)
        elif frame < self.base:
            self._closed(frame)
            return
        slot = self._open.get(frame)
        if slot is None:
            if self._fate[frame % MEMORY] == _WHOLE:
                counts.doubled += 1
                return
            slot = self._open[frame] = self._free.pop()
            slot.got = 0
        bit = 1 << index
        if slot.got & bit:
            counts.doubled += 1
            return
        counts.reordered += frame < newest or slot.got > bit
        slot.got |= bit
        slot.parts[index][:] = self._from[index]
        self._leaps_in_a_row = 0
        if slot.got == self._full:
            self._whole(frame, slot)

    def flush(self) -> None:
        """Give up what is still open: nothing more will come."""
        self._close_to(self._newest + 1)

    # --- fates -------------------------------------------------------------------------------------------

    def _whole(self, frame: int, slot: _Slot) -> None:
        self._deliver(frame, slot.memory)
        self.counts.frames += 1
        del self._open[frame]
        self._free.append(slot)
        self._fate[frame % MEMORY] = _WHOLE
        if frame == self.base:
            base = frame + 1
            while base <= self._newest and self._fate[base % MEMORY] == _WHOLE:
                base += 1
            self.base = base

    def _advance(self, frame: int) -> None:
        """Take a higher number than any before; what it leaves too far behind is given up."""
        if frame - self._newest > WINDOW:
            self._close_to(self._newest + 1)
            end = frame - WINDOW + 1
            skipped = end - self.base
            self.counts.missing += skipped
            self.counts.lost_packets += skipped * len(self._totals)
            for number in range(max(self.base, end - MEMORY), end):
                self._fate[number % MEMORY] = _GIVEN_UP
            self.base, self._newest = end, end - 1
        for number in range(self._newest + 1, frame + 1):
            self._fate[number % MEMORY] = _OPEN
        self._newest = frame
        if frame - self.base >= WINDOW:
            self._close_to(frame - WINDOW + 1)

    def _close_to(self, end: int) -> None:
        """Decide about every number below ``end``, which is at most the next one."""
        counts, packets = self.counts, len(self._totals)
        for number in range(self.base, end):
            slot = self._open.pop(number, None)
            if slot is not None:
                counts.incomplete += 1
                counts.lost_packets += packets - slot.got.bit_count()
                self._free.append(slot)
            elif self._fate[number % MEMORY] != _WHOLE:
                counts.missing += 1
                counts.lost_packets += packets
            else:
                continue
            self._fate[number % MEMORY] = _GIVEN_UP
        base = max(self.base, end)
        while base <= self._newest and self._fate[base % MEMORY] == _WHOLE:
            base += 1
        self.base = base

    def _closed(self, frame: int) -> None:
        """Count a packet of a frame that has its fate."""
        if frame < self.base - MEMORY:
            self._leap(frame)
        elif self._fate[frame % MEMORY] == _WHOLE:
            self.counts.doubled += 1
        else:
            self.counts.late += 1

    def _leap(self, frame: int) -> None:
        """Believe a number far from the others only when the next ones go on from it."""
        self.counts.leaps += 1
        goes_on = self._leaps_in_a_row > 0 and 0 <= frame - self._leap_at <= WINDOW
        self._leaps_in_a_row = self._leaps_in_a_row + 1 if goes_on else 1
        if not goes_on:
            self._leap_from = frame
        self._leap_at = frame
        if self._leaps_in_a_row < BELIEVED:
            return
        self._leaps_in_a_row = 0
        if frame > self._newest:
            self._advance(frame)
            return
        self._close_to(self._newest + 1)
        self.counts.resets += 1
        passed = frame + 1 - self._leap_from  # while it was not believed
        self.counts.missing += passed
        self.counts.lost_packets += passed * len(self._totals)
        self._fate[:] = bytes([_GIVEN_UP]) * MEMORY
        self.base, self._newest = frame + 1, frame


class _Slot:
    """Memory for one frame, and which of its packets are there."""

    __slots__ = ("got", "memory", "parts")

    def __init__(self, frame_bytes: int, starts: list[int], sizes: tuple[int, ...]) -> None:
        self.memory = memoryview(bytearray(frame_bytes))
        self.parts = tuple(
            self.memory[start : start + size] for start, size in zip(starts, sizes, strict=True)
        )
        self.got = 0
