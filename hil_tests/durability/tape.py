"""Records what really goes to the disk: every write, cut and sync of SQLite, and the syncs of our own files.

SQLite's own layer for files (its VFS) is wrapped in this process through ctypes, so the pages are those that
the journal itself writes, in the order in which it does. Of files that Python writes, syncs and renamings are
noted, with the size at that moment. One append per entry: the tape outlives SIGKILL. ``power.py`` plays it
back.

An entry is a line of JSON and, where it says ``n``, as many bytes. ``op``: ``w`` write at ``o``, ``t`` cut to
``o``, ``s`` sync, ``x`` deleted, all of a file of SQLite; ``fs`` sync of another file of size ``o``, ``ds``
of a folder, ``mv`` renamed to ``to``; ``ack`` numbers that the journal has returned.
"""

from __future__ import annotations

import ctypes
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_FILE = ctypes.c_void_p
_OPEN = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, _FILE, ctypes.c_int, ctypes.POINTER(ctypes.c_int)
)
_DELETE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)
_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, _FILE, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64)
_CUT = ctypes.CFUNCTYPE(ctypes.c_int, _FILE, ctypes.c_int64)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, _FILE, ctypes.c_int)


class _Vfs(ctypes.Structure):
    """The beginning of ``sqlite3_vfs`` (sqlite3.h, version 1)."""

    _fields_ = (
        ("version", ctypes.c_int), ("file_size", ctypes.c_int), ("longest_path", ctypes.c_int),
        ("next", ctypes.c_void_p), ("name", ctypes.c_char_p), ("data", ctypes.c_void_p),
        ("open", _OPEN), ("delete", _DELETE),
    )  # fmt: skip


class _Methods(ctypes.Structure):
    """``sqlite3_io_methods`` (sqlite3.h, version 3)."""

    _fields_ = (
        ("version", ctypes.c_int), ("close", ctypes.c_void_p), ("read", ctypes.c_void_p), ("write", _WRITE),
        ("cut", _CUT), ("sync", _SYNC), ("rest", ctypes.c_void_p * 13),
    )  # fmt: skip


class Recorder:
    """Writes the tape of this process."""

    def __init__(self, path: Path) -> None:
        self._tape = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._own = str(path)
        self._names: dict[int, str] = {}  # of SQLite's files, by address
        self._wrapped: dict[
            int, _Methods
        ] = {}  # our copy of a table of methods, by the address of the original
        self._kept: list[Any] = []  # what C holds pointers to
        self._fsync: Callable[[Any], None] = os.fsync

    def put(self, op: str, file: str, data: bytes | None = None, **more: Any) -> None:
        """Write one entry."""
        told = {"op": op, "f": file, **more}
        if data is not None:
            told["n"] = len(data)
        os.write(self._tape, json.dumps(told).encode() + b"\n" + (data or b""))

    def install(self) -> None:
        """Wrap SQLite's files and Python's syncs and renamings from here on."""
        self._wrap_sqlite()
        self._wrap_python()

    def _wrap_python(self) -> None:
        def fsync(file: Any) -> None:
            self._fsync(file)
            number = file if isinstance(file, int) else file.fileno()
            status = os.fstat(number)
            op = "ds" if stat.S_ISDIR(status.st_mode) else "fs"
            self.put(op, os.readlink(f"/proc/self/fd/{number}"), o=status.st_size)

        def heard(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "os.rename":
                self.put("mv", str(Path(arguments[0]).absolute()), to=str(Path(arguments[1]).absolute()))

        os.fsync = fsync  # type: ignore[assignment]
        sys.addaudithook(heard)

    def _wrap_sqlite(self) -> None:
        """Put ourselves between SQLite and its default VFS."""
        import _sqlite3

        library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))  # None where it is built in
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
        library.sqlite3_vfs_find.argtypes = [ctypes.c_char_p]
        vfs = library.sqlite3_vfs_find(None).contents
        true_open = _OPEN(_address(vfs.open))
        true_delete = _DELETE(_address(vfs.delete))

        def opened(of: int, name: bytes | None, file: int, flags: int, out: Any) -> int:
            result = int(true_open(of, name, file, flags, out))
            if result == 0 and name:
                self._names[file] = os.fsdecode(name)
                slot = ctypes.cast(file, ctypes.POINTER(ctypes.c_void_p))
                if slot[0]:
                    slot[0] = ctypes.addressof(self._table(slot[0]))
            return result

        def deleted(of: int, name: bytes, sync: int) -> int:
            result = int(true_delete(of, name, sync))
            self.put("x", os.fsdecode(name))
            return result

        vfs.open, vfs.delete = _OPEN(opened), _DELETE(deleted)
        self._kept += [vfs, vfs.open, vfs.delete, opened, deleted, true_open, true_delete]

    def _table(self, address: int) -> _Methods:
        """Return our version of a table of methods."""
        if address in self._wrapped:
            return self._wrapped[address]
        true = _Methods.from_address(address)
        ours = _Methods.from_buffer_copy(true)
        write, cut, sync = (
            kind(_address(getattr(true, name)))
            for kind, name in ((_WRITE, "write"), (_CUT, "cut"), (_SYNC, "sync"))
        )

        def written(file: int, data: int, length: int, offset: int) -> int:
            result = int(write(file, data, length, offset))
            self.put("w", self._names.get(file, "?"), ctypes.string_at(data, length), o=offset)
            return result

        def shortened(file: int, size: int) -> int:
            result = int(cut(file, size))
            self.put("t", self._names.get(file, "?"), o=size)
            return result

        def synced(file: int, flags: int) -> int:
            result = int(sync(file, flags))
            self.put("s", self._names.get(file, "?"))
            return result

        ours.write, ours.cut, ours.sync = _WRITE(written), _CUT(shortened), _SYNC(synced)
        self._kept += [write, cut, sync, ours.write, ours.cut, ours.sync]
        self._wrapped[address] = ours
        return ours


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def record(path: Path) -> Recorder:
    """Begin a tape in this process."""
    recorder = Recorder(path)
    recorder.install()
    return recorder
