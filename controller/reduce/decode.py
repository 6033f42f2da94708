"""Words of one detector in one pass to events: chunks in order, gaps noticed, frames counted from 0."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drivers.amptek_listmode import FRAMES, ListModeDecoder, first_frame
from drivers.errors import BadReply

WORD_BYTES = 4
PIECE_BYTES = 1 << 20  # a whole pass is decoded in pieces, so that memory does not follow its length

Chunk = tuple[NDArray[np.uint16], NDArray[np.int64]]


@dataclass
class PassStream:
    """The stream of one detector during one pass.

    ``frame0`` is the detector's frame number before the first pulse, None when control did not know it: then
    the first frame word is taken for the first pulse, as control does.
    """

    frame0: int | None
    words: int = 0
    next_chunk: int = 0
    broken: str = ""  # why this stream cannot be used as it came
    last_frame: int = 0  # pulses seen since the start of the pass
    _decoder: ListModeDecoder = field(default_factory=ListModeDecoder)
    _shift: int | None = None  # to be subtracted from the decoder's frame numbers

    def take(self, chunk: int, words: bytes) -> Chunk | None:
        """Return the events of the next chunk; None once a chunk is missing or cannot be decoded."""
        if self.broken:
            return None
        if chunk != self.next_chunk:
            self.broken = f"chunk {self.next_chunk} is missing"
            return None
        self.next_chunk += 1
        try:
            return self._decode(words)
        except BadReply as error:
            self.broken = str(error)
            return None

    def replay(self, words: bytes) -> Iterator[Chunk]:
        """Yield the events of a whole pass from its raw words.

        Raises:
            BadReply: the words cannot be decoded; what was yielded before is void.
        """
        for start in range(0, len(words), PIECE_BYTES):
            yield self._decode(words[start : start + PIECE_BYTES])

    def fresh(self, frame0: int | None) -> PassStream:
        """Return a stream that starts the same pass again."""
        return PassStream(self.frame0 if frame0 is None else frame0)

    def _decode(self, words: bytes) -> Chunk:
        self.words += len(words) // WORD_BYTES
        if self._shift is None:
            first = first_frame(words)
            if first is not None:
                # pulses between frame0 and the first frame word, which wraps at 16 bits
                ahead = 1 if self.frame0 is None else (first - self.frame0) % FRAMES
                self._shift = first - ahead
        events = self._decoder.feed(words)
        if self._shift is None:
            return events.channel, np.zeros_like(events.frame)
        frame = events.frame - self._shift
        frame[events.frame < 0] = 0  # before the first frame word: before the first pulse
        self.last_frame = max(self.last_frame, events.last_frame - self._shift)
        return events.channel, frame
