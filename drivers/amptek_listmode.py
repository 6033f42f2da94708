"""List-mode words of Amptek's processors as events with pixel numbers: pure, vectorised, in chunks.

32-bit big-endian words:

====================  ===========================================================================
``0aaa aaaa ...``     event: amplitude in bits 29..16, low 16 bits of its time in 15..0
``10tt tttt ...``     time tag: 30-bit time, upper 14 bits in 29..16, lower 16 bits in 15..0
``11ff ffff ...``     frame word: 16-bit frame number in bits 29..14, upper 14 time bits in 13..0
====================  ===========================================================================

The time of an event is the upper 14 bits of the last tag or frame word before it and its own low 16 bits.
Frame numbers and times wrap and are unwrapped here: a step forward is less than half the range (32 768
frames; 2**29 ticks, which is 9 min at 1 us and 54 s at 100 ns, with a tag every 65 536 ticks), anything else
is a step back.

Source: Amptek, Digital Products Programmer's Guide, revision B0, "list-mode data". (One public reader tests
the two top bits without masking and takes every time tag for a frame word.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivers.errors import BadReply

WORD_BYTES = 4
UPPER_TIMES = 1 << 14
FRAMES = 1 << 16
UNKNOWN_FRAME = -1

Words = NDArray[np.uint32]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class ListEvents:
    """The events of one chunk, and where the stream stands behind it.

    ``frame`` is -1 for events before the first frame word of the stream. ``untagged`` counts the events,
    first in this chunk, that came before any tag or frame word: their time is right only if the list-mode
    timer was cleared at the beginning of the stream.
    """

    channel: NDArray[np.uint16]
    time_ticks: NDArray[np.uint64]
    frame: Integers
    last_frame: int
    last_time: int
    untagged: int = 0


@dataclass(frozen=True)
class _State:
    upper: int = 0  # unwrapped, in units of 65 536 ticks
    tagged: bool = False
    tag_time: int = 0
    frame: int = UNKNOWN_FRAME
    last_time: int = 0
    tail: bytes = b""


class ListModeDecoder:
    """Decodes one stream in chunks of any size."""

    def __init__(self) -> None:
        self._state = _State()

    @property
    def last_frame(self) -> int:
        """The last frame number, unwrapped; -1 before the first frame word."""
        return self._state.frame

    def restart_time(self) -> None:
        """Forget the time but not the frame: the timer was cleared, or counting was paused for long."""
        self._state = _State(frame=self._state.frame)

    def feed(self, words: bytes) -> ListEvents:
        """Decode the next bytes of the stream; an incomplete last word waits for the next call.

        Raises:
            BadReply: a time tag or frame word steps back. The chunk is refused as a whole and the decoder
                stays as it was before it.
        """
        state = self._state
        data = state.tail + words
        whole = len(data) - len(data) % WORD_BYTES
        word = np.frombuffer(data[:whole], dtype=">u4").astype(np.uint32)
        is_event = word < 0x8000_0000
        is_frame = word >= 0xC000_0000
        upper = _uppers(word, is_event, is_frame, state)
        frame = _frames(word, is_frame, state)
        event = word[is_event]
        low = (event & 0xFFFF).astype(np.int64)
        time_ticks = upper[np.cumsum(~is_event)[is_event]] << 16 | low
        tag_times = _tag_times(word, is_event, is_frame, upper, state)
        self._state = _State(
            upper=int(upper[-1]),
            tagged=state.tagged or len(upper) > 1,
            tag_time=int(tag_times[-1]),
            frame=int(frame[-1]),
            last_time=max(
                state.last_time,
                int(upper[-1]) << 16,
                int(tag_times[-1]),
                int(time_ticks.max(initial=0)),
            ),
            tail=data[whole:],
        )
        return ListEvents(
            channel=(event >> 16 & 0x3FFF).astype(np.uint16),
            time_ticks=time_ticks.astype(np.uint64),
            frame=frame[np.cumsum(is_frame)[is_event]],
            last_frame=self._state.frame,
            last_time=self._state.last_time,
            untagged=0 if state.tagged else int((np.cumsum(~is_event)[is_event] == 0).sum()),
        )


def _uppers(word: Words, is_event: NDArray[np.bool_], is_frame: NDArray[np.bool_], state: _State) -> Integers:
    """Upper time before the chunk, then behind each tag and frame word, unwrapped."""
    raw = np.where(is_frame, word & 0x3FFF, word >> 16 & 0x3FFF)[~is_event].astype(np.int64)
    return _unwrapped(raw, state.upper if state.tagged else None, UPPER_TIMES, state.upper, "time")


def _frames(word: Words, is_frame: NDArray[np.bool_], state: _State) -> Integers:
    """Frame number before the chunk, then behind each frame word, unwrapped."""
    raw = (word[is_frame] >> 14 & 0xFFFF).astype(np.int64)
    known = state.frame if state.frame != UNKNOWN_FRAME else None
    return _unwrapped(raw, known, FRAMES, UNKNOWN_FRAME, "frame")


def _unwrapped(raw: Integers, last: int | None, modulus: int, unknown: int, what: str) -> Integers:
    """Put ``last`` (``unknown`` if None) before ``raw`` and undo the wraps; the first ever is taken as is."""
    start = last if last is not None else int(raw[0]) if raw.size else unknown
    steps = np.diff(raw, prepend=start % modulus) % modulus
    if (steps >= modulus // 2).any():
        at = int(np.argmax(steps >= modulus // 2))
        before = start % modulus if at == 0 else int(raw[at - 1])
        raise BadReply(f"list-mode {what} steps back from {before} to {int(raw[at])}")
    values = start + np.cumsum(steps)
    return np.concatenate(([last if last is not None else unknown], values)).astype(np.int64)


def _tag_times(
    word: Words,
    is_event: NDArray[np.bool_],
    is_frame: NDArray[np.bool_],
    upper: Integers,
    state: _State,
) -> Integers:
    """Full time of the last tag before the chunk, then of each tag in it."""
    is_tag = ~is_event & ~is_frame
    times = upper[np.cumsum(~is_event)[is_tag]] << 16 | (word[is_tag] & 0xFFFF).astype(np.int64)
    times = np.concatenate(([state.tag_time], times)).astype(np.int64)
    if (np.diff(times) < 0).any():
        at = int(np.argmax(np.diff(times) < 0))
        raise BadReply(f"list-mode time tag steps back from {int(times[at])} to {int(times[at + 1])}")
    return times


def first_frame(words: bytes) -> int | None:
    """Return the first 16-bit frame number in a chunk of whole words, None when it holds no frame word."""
    word = np.frombuffer(words[: len(words) - len(words) % WORD_BYTES], dtype=">u4")
    frames = word[word >= 0xC000_0000]
    return int(frames[0]) >> 14 & 0xFFFF if frames.size else None
