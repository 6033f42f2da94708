"""List mode of Amptek's processors: 32-bit words in a FIFO.

======================  ============================================================================
``0aaa...``             event: channel in bits 29..16, low 16 bits of its time in 15..0
``10tt...``             time tag: 30 bits of time
``11ff...``             frame word: 16-bit frame number in bits 29..14, upper 14 time bits in 13..0
======================  ============================================================================

The timer and the frame counter run freely; clearing them puts a record of zero into the stream (as
AmptekHardwareInterface documents). What the guide's readers do not say and is assumed here: with frame
synchronisation the roll-over of the low 16 bits is announced by a frame word (``rollover_tags``: by a time
tag); enabling the MCA begins the list with one; a frame edge writes a word only while the MCA is enabled, but
always counts; the amplitude is the channel number.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]

INTERNAL, NO_TAGS, EXTERNAL, FRAME = 0, 1, 2, 3
ROLLOVER_TICKS = 1 << 16


class Fifo:
    """Words until somebody reads them; what does not fit is lost and flagged."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.lost = 0
        self.most = 0
        self._chunks: deque[Words] = deque()
        self._count = 0
        self._overflowed = False

    def __len__(self) -> int:
        return self._count

    def push(self, words: Words) -> None:
        """Append words."""
        room = max(0, self.capacity - self._count)
        if words.size > room:
            self.lost += words.size - room
            self._overflowed = True
            words = words[:room]
        if words.size:
            self._chunks.append(words)
            self._count += words.size
            self.most = max(self.most, self._count)

    def pop(self, most: int) -> tuple[bytes, bool]:
        """Take at most ``most`` words, big-endian; and whether words were lost since the last call."""
        taken: list[Words] = []
        left = most
        while self._chunks and left:
            chunk = self._chunks.popleft()
            taken.append(chunk[:left])
            if chunk.size > left:
                self._chunks.appendleft(chunk[left:])
            left -= taken[-1].size
        self._count -= most - left
        overflowed, self._overflowed = self._overflowed, False
        data = np.concatenate(taken).astype(">u4").tobytes() if taken else b""
        return data, overflowed

    def clear(self) -> None:
        """Forget everything."""
        self._chunks.clear()
        self._count = 0
        self._overflowed = False


class ListTimer:
    """Timer and frame counter; makes the words."""

    def __init__(self, now_s: float, *, rollover_tags: bool = False) -> None:
        self.sync = INTERNAL
        self.tick_s = 1e-6
        self.frame = 0
        self._rollover_tags = rollover_tags
        self._zero_s = now_s
        self._last_tick = 0

    def clear(self, now_s: float) -> Words:
        """Set timer and frame counter to zero; return the record of it."""
        self._zero_s = now_s
        self._last_tick = 0
        self.frame = 0
        return self.record(now_s)

    def set_tick(self, tick_s: float, now_s: float) -> None:
        """Change the clock; the timer starts anew."""
        if tick_s != self.tick_s:
            self.tick_s = tick_s
            self._zero_s = now_s
            self._last_tick = 0

    def record(self, now_s: float) -> Words:
        """Return the word that says where timer and frame counter stand."""
        tick = np.array([self._ticks(np.array([now_s]))[0]])
        self._last_tick = int(tick[0])
        if self.sync == FRAME:
            return _frame_words(np.array([self.frame]), tick)
        return _time_tags(tick) if self.sync != NO_TAGS else np.zeros(0, np.uint32)

    def words(self, event_s: Floats, channel: Integers, edge_s: Floats, until_s: float) -> Words:
        """Return the words of events and frame edges since the last call, in order of their ticks."""
        first, last = self._last_tick, int(self._ticks(np.array([until_s]))[0])
        rolled = np.arange(first // ROLLOVER_TICKS + 1, last // ROLLOVER_TICKS + 1) * ROLLOVER_TICKS
        self._last_tick = last
        event, edge = self._ticks(event_s), self._ticks(edge_s)
        frames = self.frame + 1 + np.arange(edge.size)
        self.frame += edge.size
        if self.sync == NO_TAGS:
            return _event_words(channel, event)
        if self.sync != FRAME:
            return _merged([rolled, event], [_time_tags(rolled), _event_words(channel, event)])
        if self._rollover_tags:
            at_rollover = _time_tags(rolled)
        else:
            at_rollover = _frame_words(frames[0] - 1 + np.searchsorted(edge, rolled) if edge.size
                                       else np.full(rolled.size, self.frame), rolled)  # fmt: skip
        return _merged(
            [rolled, edge, event], [at_rollover, _frame_words(frames, edge), _event_words(channel, event)]
        )

    def skip(self, edges: int, until_s: float) -> None:
        """Count frame edges and time while nothing is recorded."""
        self.frame += edges
        self._last_tick = int(self._ticks(np.array([until_s]))[0])

    def _ticks(self, time_s: Floats) -> Integers:
        return np.floor((time_s - self._zero_s) / self.tick_s + 1e-6).astype(np.int64)


def _merged(ticks: list[Integers], words: list[Words]) -> Words:
    """Order words by tick; of equal ticks the earlier list comes first."""
    order = np.argsort(np.concatenate(ticks), kind="stable")
    merged: Words = np.concatenate(words)[order]
    return merged


def _event_words(channel: Integers, tick: Integers) -> Words:
    return ((channel & 0x3FFF) << 16 | tick & 0xFFFF).astype(np.uint32)


def _time_tags(tick: Integers) -> Words:
    return (0x8000_0000 | tick & 0x3FFF_FFFF).astype(np.uint32)


def _frame_words(frame: Integers, tick: Integers) -> Words:
    return (0xC000_0000 | (frame & 0xFFFF) << 14 | tick >> 16 & 0x3FFF).astype(np.uint32)
