"""HDF5 files are first looked at by another process, because broken ones can hang or crash the HDF5 library.

``vet(path)`` has a helper process walk through the file: every link, attribute, type and chunk index, and the
first and last value of each dataset. What raises an error there is met again, as an error, by the reader;
only a helper that dies or does not come back condemns the file. The helper is started once and serves for
all files; between two objects it looks at the clock, so a large file is not taken for a broken one.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import resource
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from drivers.files.errors import FileError

LIMIT_S = 5.0  # for one operation of the library that does not return
WALK_S = 3.0  # then the rest of a large file is taken on trust
MEMORY_BYTES = 8 << 30
SAMPLE_BYTES = 16 << 20  # largest chunk of which a value is read
START_S = 120.0
ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "drivers.files.hdf5_vet"]
_LOCK = threading.Lock()


class _Helper:
    """The process."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._process = subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, cwd=ROOT,
        )  # fmt: skip
        self._came_back(START_S)  # h5py is loaded; only now does the clock run

    def look(self, path: Path, limit_s: float) -> str:
        """Return how it came back from the file: well, or "hung", or "died"."""
        into = self._process.stdin
        try:
            if into is not None:
                into.write(json.dumps(str(path)).encode() + b"\n")
                into.flush()
            return self._came_back(limit_s)
        except OSError:  # a broken pipe
            return "died"

    def _came_back(self, limit_s: float) -> str:
        back = self._process.stdout
        if back is None or not select.select([back], [], [], limit_s)[0]:
            return "hung"
        return "well" if back.readline() == b"ok\n" else "died"

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class _Vet:
    helper: _Helper | None = None


def vet(path: Path) -> None:
    """Raise FileError for a file that hangs or crashes the HDF5 library; twice, as a helper may be killed."""
    with _LOCK:
        for _ in range(2):
            if _Vet.helper is None or _Vet.helper.owner != os.getpid():
                _Vet.helper = _Helper()
            how = _Vet.helper.look(path.absolute(), LIMIT_S + WALK_S)
            if how == "well":
                return
            _end()
            if how == "hung":
                break
    raise FileError(path, "", "a whole HDF5 file", "one on which the HDF5 library hangs or crashes")


def _end() -> None:
    if _Vet.helper is not None and _Vet.helper.owner == os.getpid():
        _Vet.helper.end()
    _Vet.helper = None


atexit.register(_end)


def look(path: str) -> None:
    """Touch everything in a file that a reader may touch. Errors are the reader's business."""
    import h5py

    ends_s = time.monotonic() + WALK_S

    def visit(name: str, thing: Any) -> bool | None:
        with contextlib.suppress(Exception):
            for key in thing.attrs:
                with contextlib.suppress(Exception):
                    thing.attrs[key]
        if isinstance(thing, h5py.Dataset):
            with contextlib.suppress(Exception):
                _sample(thing)
        return True if time.monotonic() > ends_s else None

    with contextlib.suppress(Exception), h5py.File(path, "r", locking=False) as file:
        visit("/", file)
        file.visititems(visit)


def _sample(found: Any) -> None:
    """Read the first and the last value, where that costs little and stays inside the file."""
    if found.is_virtual or found.external or not found.shape or 0 in found.shape or found.dtype.hasobject:
        return
    chunk = found.dtype.itemsize
    for side in found.chunks or (1,):
        chunk *= side
    if chunk <= SAMPLE_BYTES:
        found[tuple(0 for _ in found.shape)]
        found[tuple(side - 1 for side in found.shape)]


def main() -> None:
    """Serve: a path as JSON on each line of the input, "ok" for each that was come back from."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    importlib.import_module("h5py")
    sys.stdout.write("ok\n")
    sys.stdout.flush()
    for line in sys.stdin:
        look(json.loads(line))
        sys.stdout.write("ok\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
