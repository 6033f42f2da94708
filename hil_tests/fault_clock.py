"""A wall clock that jumps, for the processes of one run.

CLOCK_REALTIME cannot be set for some processes only (time namespaces do not cover it), and setting that of
the machine would hit everybody. So every Python process of the run starts with ``sitecustomize``, before any
code of ours, and its wall clock (``time.time`` and what is made of it) reads an offset from a file. What asks
the kernel itself does not see the jump: time stamps of files, SQLite, a broker that is not Python.
"""

from __future__ import annotations

import struct
from pathlib import Path

HOOK = """import mmap
import struct
import time

_file = open({path!r}, "rb")
_page = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)
_time, _localtime, _gmtime, _strftime = time.time, time.localtime, time.gmtime, time.strftime


def offset_s():
    return struct.unpack("<d", _page[:8])[0]


def jumped():
    return _time() + offset_s()


time.time = jumped
time.time_ns = lambda: int(jumped() * 1e9)
time.localtime = lambda seconds=None: _localtime(jumped() if seconds is None else seconds)
time.gmtime = lambda seconds=None: _gmtime(jumped() if seconds is None else seconds)
time.strftime = lambda form, when=None: _strftime(form, time.localtime() if when is None else when)
"""


class ClockHook:
    """A folder for ``PYTHONPATH``, and the offset that its hook reads."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._offset = folder / "offset"
        self.jump(0.0)
        (folder / "sitecustomize.py").write_text(HOOK.format(path=str(self._offset)))

    def jump(self, by_s: float) -> None:
        """Set the clock to its true time and so many seconds."""
        with self._offset.open("r+b" if self._offset.exists() else "wb") as file:
            file.write(struct.pack("<d", by_s))
