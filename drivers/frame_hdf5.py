"""Images that other software writes into growing HDF5 files (areaDetector, NeXus), while they are written.

A file with the SWMR flag is read while it grows: an image is used once the next one has been begun, or when
nothing has grown for ``settle_s``, because the extent of a dataset may be on disk before its last image is.
Any other file is used when it has stood still for ``settle_s``; while it is being written the library sees
half of a structure and says so, which is tried again. Where the detector's own numbers stand in a dataset
(areaDetector: NDArrayUniqueId), gaps and repeats are seen; else images are numbered as they come.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from drivers.files.errors import FileError
from drivers.files.hdf5_safe import HDF5_ERRORS, check, walk
from drivers.frame_watch import MOST_AT_ONCE, MOST_NUMBER, FolderWatch, Taken, Tally, WatchSettings

SIGNATURE = b"\x89HDF\r\n\x1a\n"
FLAGS_AT, SWMR_FLAG = 11, 0x04  # of a superblock of version 3: the file is open for SWMR writing


@dataclass
class _Growing:
    """How far one file has been read."""

    signature: tuple[int, int, int]
    first_s: float
    since_s: float
    taken: int | None  # images that were used or left; None: what is there now is old
    images: int = 0  # that the dataset has
    grown_s: float = 0.0
    read_s: float = -1e9  # when everything in it had been read
    given_up: bool = False


class Hdf5Watch(FolderWatch):
    """Looks at one folder of growing files.

    Args:
        settings: as for single images; ``number`` is not used.
        shape: rows and columns of an image.
        dataset: path of the images inside a file, (n, ny, nx).
        numbers: path of the detector's own numbers, (n,), or "".
    """

    def __init__(self, settings: WatchSettings, shape: tuple[int, int], dataset: str, numbers: str) -> None:
        super().__init__(settings, _never)
        self._shape, self._dataset, self._unique = shape, dataset, numbers
        self._growing: dict[str, _Growing] = {}
        self._next = 0

    def start(self, now_s: float) -> None:
        """Count from zero: what the files hold already belongs to no exposure of ours."""
        self.tally = Tally()
        self._started_s, self._next = now_s, 0
        self._growing = {
            name: _Growing(signature, now_s, now_s, None) for name, signature, _ in self._listed()
        }

    def look(self, now_s: float) -> Iterator[Taken]:
        """Look into every file that may have grown, and yield what is whole."""
        listed = {name: (signature, changed_s) for name, signature, changed_s in self._listed()}
        for gone in self._growing.keys() - listed.keys():
            del self._growing[gone]
        left = MOST_AT_ONCE
        for name, (signature, changed_s) in sorted(listed.items()):
            known = self._growing.get(name)
            if known is None or signature[2] != known.signature[2]:
                known = self._growing[name] = _Growing(signature, now_s, now_s, 0, grown_s=now_s)
            elif signature != known.signature:
                known.signature, known.since_s, known.given_up = signature, now_s, False
                self.tally.incomplete.pop(name, None)
            if known.given_up or known.read_s > known.since_s + self.settings.settle_s:
                continue
            for taken in self._read_on(name, known, changed_s, now_s, left):
                left -= 1
                yield taken

    def _read_on(
        self, name: str, known: _Growing, changed_s: float, now_s: float, most: int
    ) -> Iterator[Taken]:
        path = self.settings.folder / name
        still = now_s - known.since_s >= self.settings.settle_s
        try:
            swmr = _swmr(path)  # only then: in this mode the library reads a cut file again and again
            if not still and not swmr:
                return
            with h5py.File(path, "r", libver="latest" if swmr else None, swmr=swmr, locking=False) as file:
                yield from self._images(path, file, known, changed_s, now_s, most)
        except (FileError, *HDF5_ERRORS) as error:
            if now_s - known.since_s >= self.settings.patience_s:
                known.given_up = True
                self.tally.incomplete[name] = f"{type(error).__name__}: {error}"

    def _images(
        self, path: Path, file: Any, known: _Growing, changed_s: float, now_s: float, most: int
    ) -> Iterator[Taken]:
        found = walk(path, file, self._dataset)
        if not isinstance(found, h5py.Dataset):
            raise FileError(path, self._dataset, "a dataset of images", "nothing")
        check(path, self._dataset, found)
        if len(found.shape) != 3 or found.shape[1:] != self._shape or found.dtype.kind not in "iu":
            text = f"whole ADU in images of {self._shape[0]} x {self._shape[1]} pixels"
            raise FileError(path, self._dataset, text, f"{found.dtype} {found.shape}")
        unique = self._numbers_in(path, file) if self._unique else None
        images = found.shape[0] if unique is None else min(found.shape[0], unique.shape[0])
        if known.taken is None:  # written before the start
            known.taken = images
        if images > known.images:
            known.images, known.grown_s = images, now_s
        rests = now_s - known.grown_s >= self.settings.settle_s
        usable = images if rests else images - 1
        while known.taken < usable and most > 0:
            image, at = np.asarray(found[known.taken]), known.taken
            number = int(unique[at]) if unique is not None else self._next
            if not 0 <= number <= MOST_NUMBER:
                raise FileError(path, self._unique, "numbers of images", number)
            known.taken, most = known.taken + 1, most - 1
            taken = self._admit(path.name, at, number, image, changed_s, now_s)
            if taken is not None:
                yield taken
        if rests and known.taken >= images:
            known.read_s = now_s

    def _numbers_in(self, path: Path, file: Any) -> Any:
        found = walk(path, file, self._unique)
        if not isinstance(found, h5py.Dataset):
            raise FileError(path, self._unique, "a dataset of numbers", "nothing")
        check(path, self._unique, found)
        if len(found.shape) != 1 or found.dtype.kind not in "iu":
            text = f"{found.dtype} {found.shape}"
            raise FileError(path, self._unique, "one whole number for each image", text)
        return found

    def _admit(
        self, name: str, at: int, number: int, image: Any, changed_s: float, now_s: float
    ) -> Taken | None:
        content = hashlib.sha256(image.tobytes()).digest()
        if now_s - self._started_s < self.settings.hold_s:
            self.tally.held += 1
            return None
        if not self.tally.admit(number, content):
            return None
        self._next += 1
        return Taken(number, image, f"{name}[{at}]", image.nbytes, content.hex(), changed_s)


def _swmr(path: Path) -> bool:
    """Return whether a file is being written with SWMR, by its superblock."""
    with path.open("rb") as file:
        head = file.read(FLAGS_AT + 1)
    return head.startswith(SIGNATURE) and len(head) > FLAGS_AT and head[8] == 3 and bool(head[-1] & SWMR_FLAG)


def _never(path: Path) -> Any:
    raise FileError(path, "", "a growing file")
