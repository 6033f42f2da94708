"""A folder into which other software writes images: which of them are whole, new, repeated or missing.

Nothing tells when a file is complete: it grows, is renamed into place, or appears at once and is filled
later; a network file system has no notifications, and its clock is not ours. So the folder is listed again
and again. A file is a candidate when name, size and time of change have stood still for ``settle_s``, and it
is used when it reads as a whole image and has not changed while it was read. What cannot be read is tried
again until ``patience_s`` has passed since its last change, then it is counted as incomplete; nothing waits
for it.

Times are seconds of the clock that is handed in (monotonic); no wall clock of a file server decides anything.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.files.errors import FileError

Image = NDArray[np.integer[Any]]
MOST_FILES = 200_000  # in the folder: their names are kept in memory
MOST_AT_ONCE = 8  # read in one look, so that commands are heard in between
MOST_PROBLEMS, LONGEST_PROBLEM = 20, 300  # told, and characters of each
MOST_NUMBER = (1 << 62) - 1  # of an image: what a journal and a page can still count
NUMBER = r"(\d+)(?=\D*$)"  # the last digits of the name, before its ending


class TooMany(Exception):
    """The folder holds more files than are kept track of."""


@dataclass(frozen=True)
class WatchSettings:
    """What is looked for, and how long things take."""

    folder: Path
    pattern: str  # of names, as a shell has it: "*.tif"
    number: str = NUMBER  # regular expression; its first group is the number of the frame
    settle_s: float = 1.0
    patience_s: float = 30.0
    hold_s: float = 0.0  # an image that appears sooner after the start was exposed, in part, before it


@dataclass(frozen=True)
class Taken:
    """One whole image."""

    number: int
    image: Image
    origin: str
    nbytes: int
    sha256: str
    time_s: float | None  # of the last change of the file, wall clock of the file server


@dataclass
class Tally:
    """What was counted since the start."""

    frames: int = 0
    repeated: int = 0  # a number, or the very same content, for the second time
    held: int = 0  # exposed, in part, before the start
    lowest: int | None = None
    highest: int | None = None
    incomplete: dict[str, str] = field(default_factory=dict)  # what never became whole, and why
    more_incomplete: int = 0  # without a name of their own, and not in there any more
    numbers: set[int] = field(default_factory=set)
    contents: set[bytes] = field(default_factory=set)

    @property
    def lost(self) -> int:
        """Numbers missing between the lowest and the highest; a late file makes it smaller again."""
        if self.lowest is None or self.highest is None:
            return 0
        return self.highest - self.lowest + 1 - len(self.numbers)

    def admit(self, number: int, content: bytes) -> bool:
        """Take note of a whole image; return whether it is new."""
        if number in self.numbers or content in self.contents:
            self.repeated += 1
            return False
        self.note(number)
        self.contents.add(content)
        self.frames += 1
        return True

    def refuse_message(self, why: str) -> None:
        """Count a message that is no image; the first ones are told."""
        if len(self.incomplete) < MOST_PROBLEMS:
            self.incomplete[f"message {len(self.incomplete) + 1}"] = why[:LONGEST_PROBLEM]
        else:  # a camera of another kind sends them for hours
            self.more_incomplete += 1

    def note(self, number: int) -> None:
        """This number has come, as an image that is used or held."""
        self.numbers.add(number)
        self.lowest = number if self.lowest is None else min(self.lowest, number)
        self.highest = number if self.highest is None else max(self.highest, number)

    def as_dict(self) -> dict[str, Any]:
        """Return the counters as plain values."""
        told = list(self.incomplete.items())[:MOST_PROBLEMS]
        problems = [f"{name}: {why}"[:LONGEST_PROBLEM] for name, why in told]
        return {
            "frames": self.frames, "lost": self.lost, "repeated": self.repeated, "held": self.held,
            "incomplete": len(self.incomplete) + self.more_incomplete, "problems": problems,
        }  # fmt: skip


@dataclass
class _File:
    """What is known of one name."""

    signature: tuple[int, int, int]  # size, time of change in ns, inode
    first_s: float  # when this file was first seen, or seen to have begun anew
    since_s: float  # when it was last seen to change
    tried_s: float = -1e9
    done: bool = False


Reader = Callable[[Path], tuple[Image, bytes, int]]
"""Reads a whole single image: pixels, sha256 of the file, its bytes. Raises FileError or OSError."""


class FolderWatch:
    """Looks at one folder, exposure after exposure."""

    def __init__(self, settings: WatchSettings, read: Reader) -> None:
        self.settings = settings
        self.tally = Tally()
        self._read = read
        self._number = re.compile(settings.number)
        self._files: dict[str, _File] = {}
        self._started_s = 0.0

    def probe(self) -> None:
        """Look whether the folder can be listed. Raises OSError or TooMany."""
        for _ in self._listed():
            pass

    def start(self, now_s: float) -> None:
        """Count from zero: what is there already belongs to no exposure of ours."""
        self.tally = Tally()
        self._started_s = now_s
        self._files = {}
        for name, signature, _ in self._listed():
            self._files[name] = _File(signature, now_s, now_s, done=True)

    def look(self, now_s: float) -> Iterator[Taken]:
        """List the folder once and yield what has become whole.

        Raises:
            OSError: the folder cannot be listed.
            TooMany: it holds more files than can be kept track of.
        """
        listed = {name: (signature, changed_s) for name, signature, changed_s in self._listed()}
        for gone in self._files.keys() - listed.keys():
            del self._files[gone]
        due = []
        for name, (signature, changed_s) in listed.items():
            known = self._files.get(name)
            if known is None:
                self._files[name] = _File(signature, now_s, now_s)
            elif signature != known.signature:
                # Grown or touched, it is still the same exposure; another file under the name is another.
                new = known.done or signature[2] != known.signature[2]
                first_s = now_s if new else known.first_s
                self._files[name] = _File(signature, first_s, now_s)
                self.tally.incomplete.pop(name, None)
            elif not known.done and now_s - max(known.since_s, known.tried_s) >= self.settings.settle_s:
                due.append((name, changed_s))
        for name, changed_s in sorted(due)[:MOST_AT_ONCE]:
            taken = self._try(name, changed_s, now_s)
            if taken is not None:
                yield taken

    def _listed(self) -> Iterator[tuple[str, tuple[int, int, int], float]]:
        count = 0
        with os.scandir(self.settings.folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not fnmatch.fnmatchcase(entry.name, self.settings.pattern):
                    continue
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # renamed meanwhile
                    continue
                if not stat.S_ISREG(found.st_mode):
                    continue
                count += 1
                if count > MOST_FILES:
                    raise TooMany(f"more than {MOST_FILES} files: give every run a folder of its own")
                yield entry.name, (found.st_size, found.st_mtime_ns, found.st_ino), found.st_mtime

    def _try(self, name: str, changed_s: float, now_s: float) -> Taken | None:
        """Read a candidate; what does not work now is tried again later."""
        known, path = self._files[name], self.settings.folder / name
        known.tried_s = now_s
        number = self._number_of(name)
        if number is None:
            self._give_up(name, "there is no number in its name, or one that nobody counts to")
            return None
        try:
            image, content, nbytes = self._read(path)
            after = path.stat(follow_symlinks=False)
        except (FileError, OSError) as error:
            if now_s - known.since_s >= self.settings.patience_s:
                self._give_up(name, str(error))
            return None
        if (after.st_size, after.st_mtime_ns, after.st_ino) != known.signature or nbytes != after.st_size:
            return None  # changed while it was read: the next look sees that
        known.done = True
        if known.first_s - self._started_s < self.settings.hold_s:
            self.tally.held += 1
            return None
        if not self.tally.admit(number, content):
            return None
        return Taken(number, image, name, nbytes, content.hex(), changed_s)

    def _number_of(self, name: str) -> int | None:
        match = self._number.search(name)
        try:
            number = int(match.group(1)) if match is not None else -1
        except (TypeError, ValueError):  # a group of the user's own that has taken no digits
            return None
        return number if 0 <= number <= MOST_NUMBER else None

    def _give_up(self, name: str, why: str) -> None:
        self._files[name].done = True
        self.tally.incomplete[name] = why


def whole_image(shape: tuple[int, int], read: Callable[[Path], Any]) -> Reader:
    """Return a reader of files that hold one image of ``shape`` (ny, nx).

    Args:
        shape: rows and columns that the camera has.
        read: reads a file lazily, as ``drivers.files.images.read``.
    """

    def reader(path: Path) -> tuple[Image, bytes, int]:
        digest, size = hashlib.sha256(), 0
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
        recorded = read(path)
        if (recorded.ny, recorded.nx) != shape or recorded.n_frames != 1:
            found = f"{recorded.n_frames} of {recorded.ny} x {recorded.nx}"
            raise FileError(path, "", f"one image of {shape[0]} x {shape[1]} pixels", found)
        (image,) = recorded.frames()
        return image, digest.digest(), size

    return reader


def settings_of(told: Mapping[str, Any]) -> WatchSettings:
    """Return the settings from plain values, as the driver hands them to its process."""
    return WatchSettings(
        Path(told["folder"]), str(told["files"]), str(told.get("number") or NUMBER),
        float(told["settle_s"]), float(told["patience_s"]), float(told["hold_s"]),
    )  # fmt: skip
