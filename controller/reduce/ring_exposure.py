"""One exposure of a frame detector as reduce sees it: a thread takes frames from the ring and counts.

Frames are copied out of the ring before anything is done with them, and believed only if the writer had not
come round meanwhile. What was overwritten unread is counted. In the order of the camera's samples a frame is
only looked through for hits; all that follows is made of the hits, live as well as from the record.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from controller.reduce.hit_files import HitWriter, Rules, add_part
from drivers.files import hit_list
from drivers.frame_ring import Ring, Word
from edge import frame_hits
from edge.compton_frames import Compton, Counts, Dark, DarkLevel

BLOCK = 512  # frames: 6.5 MB, 56 ms at full rate
IDLE_S = 0.004
FIRST_DARK = 64  # frames that place the windows of the dark histogram
ROOM = 8  # a reader that was overtaken goes on one part in so many behind the writer's oldest frame
WRITE_PATIENCE_S = 20.0


class RingExposure:
    """Counts the frames of one exposure; ``thread`` runs from ``begin`` to ``end``.

    Args:
        source: of the driver (``FrameDetector.source``).
        folder: for the raw record.
        name: of the exposure there.
        rules: what makes photons of frames; None for dark frames.
        keep: frames to be kept whole, the first ones.
    """

    def __init__(
        self, source: Mapping[str, Any], folder: Path, name: str, rules: Rules | None, *, keep: int = 0
    ) -> None:
        self.source, self.name, self._folder = source, name, folder
        self.shape = (int(source["rows"]), int(source["columns"]))
        pixels = self.shape[0] * self.shape[1]
        plain = np.arange(pixels, dtype=np.uint16)
        self._order = frame_hits.readout_order(*self.shape) if source.get("interleaved") else plain
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._end: int | None = None
        self._rules = rules
        self.reducer: Compton | None = rules.reducer() if rules is not None else None
        self.dark: Dark | None = None
        self._waiting_dark: list[np.ndarray[Any, Any]] = []
        self.frames = 0  # counted, here or before a restart
        self.unread = 0  # overwritten before they were taken
        self.hits = 0
        self._span: tuple[int, int] | None = None  # numbers of the first and last frame in the record
        self.problem = ""
        self.keep, self.kept = keep, 0
        self.writer: HitWriter | None = None
        self._raw = np.zeros((BLOCK, pixels), np.uint16)
        self._numbers = np.zeros(BLOCK, np.uint64)
        self._dense = np.zeros((BLOCK, pixels), np.uint16)
        self._counts = np.zeros(BLOCK, np.uint16)
        self._pixels, self._values = np.zeros(BLOCK * pixels, np.uint16), np.zeros(BLOCK * pixels, np.uint16)
        self._scratch = frame_hits.Scratch(*self.shape)
        self._first = self._next = int(source["first"])
        self._thread: threading.Thread | None = None
        if self.reducer is not None:
            self._threshold = np.ascontiguousarray(self.reducer.tables.threshold.ravel()[self._order])
            self._take_up()

    def _take_up(self) -> None:
        """Count what an earlier process had written of this exposure."""
        if self.reducer is None or self._rules is None:
            return
        parts = 0
        for part in hit_list.parts(self._folder, self.name):
            add_part(self.reducer, part)
            self.frames += part.frames
            self.hits += int(part.pixels.size)
            self._next = self._first + part.first + part.frames
            if part.frames:
                began = self._span[0] if self._span else int(part.numbers[0])
                self._span = began, int(part.numbers[-1])
            parts += 1
        self.unread = self._next - self._first - self.frames
        if not parts:
            self._rules.save(hit_list.tables_path(self._folder, self.name))
        self.writer = HitWriter(self._folder, self.name, self.shape, time.monotonic, parts=parts)

    @property
    def recovered(self) -> bool:
        """Whether an earlier process had begun this exposure."""
        return self.frames > 0

    @property
    def absent(self) -> int:
        """Frame numbers within the record of an earlier process that never came to the ring."""
        return max(0, self._span[1] - self._span[0] + 1 - self.frames - self.unread) if self._span else 0

    @property
    def running(self) -> bool:
        """Whether it has begun to read."""
        return self._thread is not None

    def begin(self) -> None:
        """Start to read."""
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def end(self, position: int, patience_s: float) -> None:
        """Read up to ``position``, write the record, stop."""
        self._end = position
        if self._thread is None and self._next < position:
            self.begin()
        if self._thread is not None:
            self._thread.join(patience_s)
            self._stop.set()
            self._thread.join(patience_s)
        left = position - self._next
        if left > 0:
            self.unread += left
            self.problem = self.problem or f"{left} frames were not read in {patience_s:g} s"
        if self.writer is not None:
            self.writer.close(WRITE_PATIENCE_S)

    def leave(self) -> None:
        """Stop without another frame: what is in the ring now is not of this exposure."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(WRITE_PATIENCE_S)
        if self.writer is not None:
            self.writer.close(WRITE_PATIENCE_S)

    def snapshot(self) -> Counts | None:
        """Return the counts so far; None for dark frames."""
        with self._lock:
            return self.reducer.result() if self.reducer is not None else None

    def quick(self) -> dict[str, int]:
        """Return the numbers that cost nothing."""
        unrecorded = self.writer.unrecorded if self.writer is not None else 0
        return {"frames": self.frames, "hits": self.hits, "unread": self.unread, "unrecorded": unrecorded}

    def dark_level(self) -> DarkLevel | None:
        """Return what the dark frames said, in the order of the image; None without frames."""
        if self.dark is None:
            self._place_dark()
        if self.dark is None or not self.dark.frames:
            return None
        level, back = self.dark.result(), np.argsort(self._order)
        maps = (level.mean_adu, level.median_adu, level.noise_adu)
        mean, median, noise = (table.ravel()[back].reshape(self.shape) for table in maps)
        return DarkLevel(mean, median, noise, level.frames, level.outside, level.pooled_noise_adu)

    # --- the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # reduce is nice; what the ring holds does not wait for that
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 0)
        try:
            ring = Ring(Path(self.source["path"]), int(self.source["slots"]), 2 * self._raw.shape[1])
        except (RuntimeError, OSError) as error:
            self.problem = str(error)
            return
        try:
            while not self._stop.is_set() and (self._end is None or self._next < self._end):
                if ring.words[Word.EXPOSURE] != self.source["exposure"]:
                    self.problem = "another exposure has begun meanwhile"
                    return
                if not self._take(ring):
                    time.sleep(IDLE_S)
        except (OSError, ValueError) as error:
            self.problem = f"{type(error).__name__}: {error}"
        finally:
            ring.close()

    def _take(self, ring: Ring) -> bool:
        """Take one block; return whether there was one."""
        words, slots = ring.words, ring.slots
        written = words[Word.WRITTEN] if self._end is None else min(words[Word.WRITTEN], self._end)
        oldest = words[Word.CLAIMED] - slots
        if self._next < oldest:
            self._skip_to(min(oldest + slots // ROOM, written))
        at = self._next
        n = min(BLOCK, written - at, slots - at % slots)
        if n <= 0:
            return False
        first, size = at % slots, ring.frame_bytes
        taken = np.frombuffer(ring.frames, np.uint16, n * size // 2, first * size)
        self._raw[:n] = taken.reshape(n, -1)
        table = np.frombuffer(ring.table, np.uint64, 2 * n, 16 * first).reshape(n, 2)
        self._numbers[:n] = table[:, 0]
        torn = min(n, max(0, words[Word.CLAIMED] - slots - at))  # the writer came round while we copied
        if torn:
            self._skip_to(at + torn)
        if torn < n:
            self._count(torn, n)
        self._next = at + n
        words[Word.READ] = self._next
        return True

    def _skip_to(self, position: int) -> None:
        self.unread += position - self._next
        self._next = position

    def _count(self, first: int, n: int) -> None:
        raw, place = self._raw[first:n], self._next - self._first
        count = n - first
        if self.kept < self.keep:
            self._keep(raw)
        with self._lock:
            if self.reducer is None:
                self._count_dark(raw)
            else:
                hits = frame_hits.extract(
                    raw, count, self._threshold, self._order, self._counts, self._pixels, self._values,
                    self._scratch,
                )  # fmt: skip
                pixels, values = self._pixels[:hits], self._values[:hits]
                frame_hits.scatter(self._counts, count, pixels, values, self._dense)
                self.reducer.add(self._dense[:count].reshape(count, *self.shape), place)
                frame_hits.wipe(self._counts, count, pixels, self._dense)
                self.hits += hits
                if self.writer is not None:
                    numbers = self._numbers[first:n]
                    self.writer.add(place, numbers, self._counts[:count], pixels, values)
            self.frames += count

    def _count_dark(self, raw: np.ndarray[Any, Any]) -> None:
        frames = raw.reshape(-1, *self.shape)
        if self.dark is not None:
            self.dark.add(frames)
            return
        self._waiting_dark.append(frames.copy())
        if sum(len(part) for part in self._waiting_dark) >= FIRST_DARK:
            self._place_dark()

    def _place_dark(self) -> None:
        """Place the windows by the first frames, and count those."""
        if self._waiting_dark:
            frames = np.concatenate(self._waiting_dark)
            self._waiting_dark = []
            self.dark = Dark(frames[:FIRST_DARK])
            self.dark.add(frames)

    def _keep(self, raw: np.ndarray[Any, Any]) -> None:
        """Append whole frames as the camera sent them; what the disk does not take is not kept."""
        part = raw[: self.keep - self.kept]
        try:
            with (self._folder / f"{self.name}.bin").open("ab", buffering=0) as file:
                file.write(part.tobytes())
        except OSError as error:
            self.problem, self.keep = f"frames are not kept: {error}", self.kept
        else:
            self.kept += len(part)
