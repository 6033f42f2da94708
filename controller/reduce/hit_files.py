"""The raw record of a photon-counting exposure: parts with hits, written by a thread; and its tables.

Nothing of the reduction waits for the disk: what the thread cannot write in time, or at all, is left out of
the record, and the frames are counted as unrecorded.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.files import hit_list
from drivers.files.errors import FileError
from drivers.files.hit_list import Part
from edge import frame_hits
from edge.compton_frames import Compton, EnergyBins, PixelScale

PART_BYTES = 16 << 20
PART_S = 5.0  # a crash loses no more of the record than this
WAITING = 8  # parts: 128 MB at most
BLOCK = 512  # frames that are put together again at once
Ints = NDArray[np.uint16]


@dataclass(frozen=True)
class Rules:
    """What turns frames into photons: kept beside the hits, so that they can be counted again."""

    scale: PixelScale
    threshold_kev: float
    bins: EnergyBins
    add_pairs: bool
    ring: int

    def reducer(self) -> Compton:
        """Return an empty reducer. Raises ValueError if no pixel can be used."""
        return Compton(
            self.scale.tables(self.threshold_kev, self.bins), add_pairs=self.add_pairs, ring=self.ring
        )

    def save(self, path: Path) -> None:
        """Write the tables, whole or not at all."""
        scale, bins = self.scale, self.bins
        threshold = scale.tables(self.threshold_kev, bins).threshold

        def write(file: Any) -> None:
            np.savez(
                file, dark_adu=scale.dark_adu, noise_adu=scale.noise_adu, gain_kev=scale.gain_kev,
                offset_kev=scale.offset_kev, usable=scale.usable, threshold=threshold,
                threshold_kev=self.threshold_kev, bins=(bins.width_kev, bins.count, bins.low_kev),
                add_pairs=self.add_pairs, ring=self.ring,
            )  # fmt: skip

        put(path, write)


def load_rules(path: Path) -> Rules:
    """Read the tables of an exposure. Raises FileError."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as table:
            width, count, low = table["bins"]
            scale = PixelScale(
                *(
                    np.asarray(table[key])
                    for key in ("dark_adu", "noise_adu", "gain_kev", "offset_kev", "usable")
                )
            )
            return Rules(
                scale, float(table["threshold_kev"]), EnergyBins(float(width), int(count), float(low)),
                bool(table["add_pairs"]), int(table["ring"]),
            )  # fmt: skip
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise FileError(path, "", f"the tables of an exposure ({error})") from error


def recount(folder: Path, exposure: str) -> Compton:
    """Count an exposure again from its hits: the same integers as when it was taken. Raises FileError."""
    reducer = load_rules(hit_list.tables_path(folder, exposure)).reducer()
    for part in hit_list.parts(folder, exposure):
        add_part(reducer, part)
    return reducer


def recorded(folder: Path, exposure: str) -> Iterator[dict[str, Any]]:
    """Yield what is to be told of each part on the disk, as the writer told it. Raises FileError."""
    for part in hit_list.parts(folder, exposure):
        yield _told(part, part.path.read_bytes())


def _told(part: Part, content: bytes) -> dict[str, Any]:
    return {
        "path": part.path.name, "bytes": len(content), "first": part.first, "frames": part.frames,
        "hits": int(part.pixels.size), "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip


def add_part(reducer: Compton, part: Part) -> None:
    """Add a part to a reducer. Raises FileError if it is of another detector."""
    if (part.rows, part.columns) != (reducer.ny, reducer.nx):
        raise FileError(part.path, "", f"{reducer.ny} x {reducer.nx} pixels", f"{part.rows} x {part.columns}")
    frames = np.zeros((BLOCK, reducer.ny * reducer.nx), np.uint16)
    counts, pixels, values = (np.array(a, np.uint16) for a in (part.counts, part.pixels, part.values))
    at = 0
    for first in range(0, part.frames, BLOCK):
        here = counts[first : first + BLOCK]
        n, hits = here.size, int(here.sum(dtype=np.int64))
        taken = pixels[at : at + hits]
        frame_hits.scatter(here, n, taken, values[at : at + hits], frames)
        reducer.add(frames[:n].reshape(n, reducer.ny, reducer.nx), part.first + first)
        frame_hits.wipe(here, n, taken, frames)
        at += hits


def put(path: Path, write: Callable[[Any], None]) -> None:
    """Write a file under another name, sync, rename, sync the folder."""
    scratch = path.with_name(path.name + ".tmp")
    try:
        with scratch.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class HitWriter:
    """Collects hits and hands parts to its thread. Called from one thread, except ``report``."""

    def __init__(
        self,
        folder: Path,
        exposure: str,
        shape: tuple[int, int],
        clock: Callable[[], float],
        *,
        parts: int = 0,
    ) -> None:
        """``parts``: those of this exposure that are on the disk already."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._exposure, self._shape, self._clock = folder, exposure, shape, clock
        self._number = parts
        self._begun_s, self._bytes, self._first, self._next = clock(), 0, 0, 0
        self._pieces: list[tuple[NDArray[np.uint64], Ints, Ints, Ints]] = []
        self._queue: queue.Queue[Part | None] = queue.Queue(WAITING)
        self._lock = threading.Lock()
        self._done: list[dict[str, Any]] = []
        self.unrecorded = 0  # frames
        self.error = ""
        self._thread = threading.Thread(target=self._work, name="hits", daemon=True)
        self._thread.start()

    def add(self, first: int, numbers: NDArray[np.uint64], counts: Ints, pixels: Ints, values: Ints) -> None:
        """Take the hits of frames from place ``first`` on; the arrays are copied."""
        if self._pieces and first != self._next:
            self.cut()  # a part has no gap
        if not self._pieces:
            self._first, self._begun_s = first, self._clock()
        self._next = first + numbers.size
        self._pieces.append((numbers.copy(), counts.copy(), pixels.copy(), values.copy()))
        self._bytes += 10 * numbers.size + 4 * pixels.size
        if self._bytes >= PART_BYTES or self._clock() - self._begun_s >= PART_S:
            self.cut()

    def cut(self) -> None:
        """Hand over what has been collected."""
        if not self._pieces:
            return
        columns = [np.concatenate(column) for column in zip(*self._pieces, strict=True)]
        self._pieces, self._bytes = [], 0
        self._number += 1
        path = hit_list.part_path(self._folder, self._exposure, self._number)
        part = Part(path, self._exposure, *self._shape, self._first, *columns)
        try:
            self._queue.put_nowait(part)
        except queue.Full:
            self._lose(part, "the disk is slower than the hits come")

    def report(self) -> list[dict[str, Any]]:
        """Return the parts that have come to the disk since the last call."""
        with self._lock:
            done, self._done = self._done, []
        return done

    def close(self, patience_s: float) -> None:
        """Write the rest; what takes longer than ``patience_s`` is unrecorded."""
        self.cut()
        try:
            self._queue.put(None, timeout=patience_s)
        except queue.Full:
            return
        self._thread.join(patience_s)

    def _work(self) -> None:
        while (part := self._queue.get()) is not None:
            content = hit_list.pack(part)
            try:
                put(part.path, lambda file, content=content: file.write(content))  # type: ignore[misc]
            except OSError as error:
                self._lose(part, str(error))
                continue
            with self._lock:
                self._done.append(_told(part, content))

    def _lose(self, part: Part, why: str) -> None:
        with self._lock:
            self.unrecorded += part.frames
            self.error = why
