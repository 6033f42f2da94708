"""The process that reads a camera's images: ``python -m drivers.frame_worker SETTINGS`` (JSON).

It may hang with a file system or die with a library; control only hears nothing more. It holds one image at a
time, puts it into the folder of the run (temporary name, fsync, rename, fsync of the folder), and only then
writes a line about it. Commands come as lines on its standard input; when that ends, so does it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile

from drivers.frame_watch import FolderWatch, Taken, Tally, TooMany, settings_of, whole_image

NICE = 5
BEAT_S = 0.5


class Source(Protocol):
    """Where images come from."""

    tally: Tally

    def probe(self) -> None:
        """Look whether anything can come from there. Raises OSError or TooMany."""
        ...

    def start(self, now_s: float) -> None:
        """Count from zero."""
        ...

    def look(self, now_s: float) -> Iterator[Taken]:
        """Yield what has come."""
        ...


def put(folder: Path, taken: Taken) -> Path:
    """Write an image whole and durably; return its path. Raises OSError."""
    path = folder / f"{taken.number:08d}.tif"
    part = folder / f".{path.name}.part"
    with part.open("wb") as file:
        tifffile.imwrite(file, taken.image, metadata=None, software=False)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return path


class Worker:
    """Obeys commands, looks, tells."""

    def __init__(self, source: Source, period_s: float) -> None:
        self._source = source
        self._period_s = period_s
        self._folder: Path | None = None
        self._told_s = -1e9
        self._trouble = ""

    def run(self) -> None:
        """Serve until the other end is gone."""
        try:
            self._source.probe()
        except (OSError, TooMany) as error:
            self._trouble = str(error)
        self._tell("ready")
        pending = b""
        while True:
            if select.select([0], [], [], self._period_s)[0]:
                block = os.read(0, 4096)
                if not block:
                    return
                *lines, pending = (pending + block).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))
            if self._folder is not None:
                self._look(self._folder)
            if time.monotonic() - self._told_s >= BEAT_S:
                self._tell("beat")

    def _obey(self, command: Mapping[str, Any]) -> None:
        if command["do"] == "start":
            folder = Path(command["folder"])
            folder.mkdir(parents=True, exist_ok=True)
            self._trouble = ""
            try:
                self._source.start(time.monotonic())
                if (last := command.get("after")) is not None:  # of a process that died: gaps are seen
                    self._source.tally.note(int(last))
            except (OSError, TooMany) as error:
                self._trouble = str(error)
            self._folder = folder
            self._tell("started")
        elif command["do"] == "stop":
            self._folder = None
            self._tell("stopped")

    def _look(self, folder: Path) -> None:
        try:
            for taken in self._source.look(time.monotonic()):
                path = put(folder, taken)
                said = {
                    "number": taken.number, "path": str(path), "nbytes": taken.nbytes,
                    "sha256": taken.sha256, "origin": taken.origin, "time_s": taken.time_s,
                    "seen_s": time.time(), "shape": list(np.shape(taken.image)),
                }  # fmt: skip
                self._tell("image", image=said)
            self._trouble = ""
        except (OSError, TooMany) as error:
            self._trouble = str(error)

    def _tell(self, kind: str, **more: Any) -> None:
        counted = self._source.tally.as_dict()
        if self._trouble:
            counted["problems"] = [self._trouble, *counted["problems"]]
        sys.stdout.write(json.dumps({"k": kind, **counted, **more}) + "\n")
        sys.stdout.flush()
        self._told_s = time.monotonic()


def source_of(told: Mapping[str, Any]) -> Source:
    """Return the source that the settings describe."""
    shape = (int(told["shape"][0]), int(told["shape"][1]))
    if told["kind"] == "zmq":
        from drivers.frame_stream import Stream

        return Stream(told, shape)
    if told.get("dataset"):
        from drivers.frame_hdf5 import Hdf5Watch

        return Hdf5Watch(settings_of(told), shape, str(told["dataset"]), str(told.get("numbers") or ""))
    from drivers.files import images

    return FolderWatch(settings_of(told), whole_image(shape, images.read))


def main() -> int:
    """Run the process."""
    told = json.loads(sys.argv[1])
    with contextlib.suppress(OSError):
        os.nice(NICE)
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        Worker(source_of(told), float(told["period_s"])).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
