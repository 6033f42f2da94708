"""A ring of frames in an mmap'd file, between one process that writes and one that reads: neither waits.

The file lies in memory (``/dev/shm``) and is named after the UDP port that its writer listens on, of which
there is one on a machine. Its header is 64-bit little-endian words (``Word``), then two words for each slot
(number of the frame at the detector, position in the ring's own count), then the slots.

Positions never go back, and survive the writer: what a reader has not taken when the writer comes round is
overwritten, and the reader finds out how much it was. The writer raises CLAIMED before it touches a slot and
WRITTEN after it: a reader copies frames first and looks at CLAIMED then.

Processors that reorder stores (ARM) see these words through the kernel's barriers only: the writer enters it
for each packet. Tried on x86-64.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Mapping
from dataclasses import fields
from enum import IntEnum
from pathlib import Path

from drivers.hexitec_packets import Counts

MAGIC = 0x31474E4952504F  # "OPRING1"
HEADER_BYTES = 4096
WORD_BYTES = 8
PREFERRED = Path("/dev/shm")  # noqa: S108  # a file on a disk would be written there, 117 MB a second


class Word(IntEnum):
    """Words of the header."""

    MAGIC = 0
    SLOTS = 1
    FRAME_BYTES = 2
    WRITTEN = 3  # frames that can be read: positions below it
    CLAIMED = 4  # positions below it have been begun
    GENERATION = 5  # starts of the writer
    PID = 6
    BEAT_NS = 7  # CLOCK_MONOTONIC of the writer's last look around
    MODE = 8  # set by control: see ``Mode``
    EXPOSURE = 9  # set by control; its change makes the writer count from zero
    SEEN = 10  # the exposure that the writer counts
    FIRST = 11  # position at which this exposure begins
    SILENT = 12  # times that nothing came for a while and nothing was left open, at the end of this exposure
    BASE = 13  # frame numbers below it have their fate
    HELD = 14  # whole frames that were not used
    IDLE = 15  # packets outside exposures
    READ = 16  # set by the reader: positions below it were taken or given up
    RESTARTS = 17  # of the writer within this exposure
    COUNTS = 32  # and on: ``Counts`` in the order of its fields


class Mode(IntEnum):
    """What the writer does with frames."""

    IDLE = 0  # not even looks at packets
    COUNT = 1
    HOLD = 2  # counts frames as held: the detector cannot measure now
    ENDING = 3  # as COUNT, and gives up what is open when nothing comes any more


NAMES = tuple(field.name for field in fields(Counts))


class RingError(RuntimeError):
    """The file is no ring, or one of another shape."""


def ring_path(port: int) -> Path:
    """Return where the ring of the writer that listens on ``port`` is."""
    folder = PREFERRED if PREFERRED.is_dir() and os.access(PREFERRED, os.W_OK) else Path("/tmp")  # noqa: S108
    return folder / f"operando-{os.getuid()}-{port}.ring"


class Ring:
    """The mapped file. ``words`` are the header, to be read and written by index."""

    def __init__(self, path: Path, slots: int, frame_bytes: int, *, create: bool = False) -> None:
        """Open a ring; with ``create`` one of this shape is made unless it is there. Raises RingError."""
        self.path, self.slots, self.frame_bytes = path, slots, frame_bytes
        size = HEADER_BYTES + slots * (2 * WORD_BYTES + frame_bytes)
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
        try:
            handle = os.open(path, flags, 0o600)
        except OSError as error:
            raise RingError(f"{path}: {error.strerror}") from error
        try:
            if os.fstat(handle).st_uid != os.getuid():
                raise RingError(f"{path}: belongs to somebody else")
            if create and os.fstat(handle).st_size != size:
                os.ftruncate(handle, 0)
                os.ftruncate(handle, size)
            if os.fstat(handle).st_size != size:
                raise RingError(f"{path}: not a ring of {slots} frames of {frame_bytes} bytes")
            self._map = mmap.mmap(handle, size)
        finally:
            os.close(handle)
        self._whole = memoryview(self._map)
        self.words = self._whole[:HEADER_BYTES].cast("Q")
        table = HEADER_BYTES + slots * 2 * WORD_BYTES
        self.table = self._whole[HEADER_BYTES:table].cast("Q")  # (frame number, position) of each slot
        self.frames = self._whole[table:]
        if create and self.words[Word.MAGIC] != MAGIC:
            self.words[Word.SLOTS], self.words[Word.FRAME_BYTES] = slots, frame_bytes
            self.words[Word.MAGIC] = MAGIC
        if (self.words[Word.MAGIC], self.words[Word.SLOTS], self.words[Word.FRAME_BYTES]) != (
            MAGIC, slots, frame_bytes,
        ):  # fmt: skip
            self.close()
            raise RingError(f"{path}: not a ring of {slots} frames of {frame_bytes} bytes")

    def close(self) -> None:
        """Unmap. The file stays: who comes next goes on with its counts."""
        for view in (self.words, self.table, self.frames, self._whole):
            view.release()
        self._map.close()

    def counts(self) -> dict[str, int]:
        """Return what the writer counted in this exposure."""
        first = int(Word.COUNTS)
        found = {name: self.words[first + k] for k, name in enumerate(NAMES)}
        return {**found, "held": self.words[Word.HELD], "restarts": self.words[Word.RESTARTS]}

    def put_counts(self, counts: Mapping[str, int] | Counts) -> None:
        """Store the writer's counters."""
        table = counts if isinstance(counts, Mapping) else vars(counts)
        for k, name in enumerate(NAMES):
            self.words[Word.COUNTS + k] = table[name]

    def beat_age_s(self) -> float:
        """Return how long ago the writer last looked around, s; infinite if there never was one."""
        beat = self.words[Word.BEAT_NS]
        return (time.monotonic_ns() - beat) / 1e9 if beat else float("inf")


class RingWriter:
    """The one process that writes."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        words = ring.words
        words[Word.CLAIMED] = words[Word.WRITTEN]  # what a killed writer had begun is void
        words[Word.PID] = os.getpid()
        words[Word.GENERATION] += 1
        size = ring.frame_bytes
        self._slots = [ring.frames[k * size : (k + 1) * size] for k in range(ring.slots)]
        self._table, self._words, self._n = ring.table, words, ring.slots

    def put(self, number: int, samples: memoryview) -> None:
        """Write a frame over the oldest one."""
        words = self._words
        position = words[3]  # Word.WRITTEN; an IntEnum would be looked up for each frame
        slot = position % self._n
        words[4] = position + 1
        self._slots[slot][:] = samples
        self._table[2 * slot] = number
        self._table[2 * slot + 1] = position
        words[3] = position + 1

    def close(self) -> None:
        """Release the memory."""
        for slot in self._slots:
            slot.release()
        self.ring.close()
