"""Raw events on disk: one append-only file of list-mode words per detector, and an index of what they are.

Layout, in ``runs/<id>/raw/``::

    pixe.words, pige.words    the 32-bit big-endian words as they came over the wire, pass after pass
    index.jsonl               one JSON object per line: the messages of kind "run", "scan", "pass",
                              "pass_end", "scan_end", "exposure" and "exposure_end" that control sent to the
                              reduce process, in order

A ``pass_end`` line names for each detector the range of its words: ``raw: {det: {path, offset, words,
sha256}}`` with ``path`` relative to the index's folder, ``offset`` in bytes and ``words`` in 32-bit words.
Bytes inside a message become ``{"base64": "..."}``. This is all that a reduction needs, so it can be repeated
bit for bit. Nothing here waits for the disk except ``sync``, which control calls from a thread.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

INDEX_NAME = "index.jsonl"
INDEXED_KINDS = frozenset(
    {"run", "scan", "pass", "pass_end", "scan_end", "exposure", "exposure_end", "image"}
)
WORD_BYTES = 4


class RawWriter:
    """Appends the words of one detector; an existing file is continued, never rewritten."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.words"
        self._file = self.path.open("ab", buffering=0)
        self._offset = self._pad()
        self._start = self._offset
        self._hash = hashlib.sha256()

    def _pad(self) -> int:
        """Complete a word that a crash left unfinished, so that later offsets stay on word boundaries."""
        size = self._file.seek(0, os.SEEK_END)
        missing = -size % WORD_BYTES
        if missing:
            self._file.write(bytes(missing))
        return size + missing

    def begin_pass(self, scan: int, n: int) -> None:
        """Start the range of pass ``n`` of ``scan``; the numbers are kept by the index."""
        self._start = self._offset
        self._hash = hashlib.sha256()

    def append(self, words: bytes) -> None:
        """Append whole 32-bit words.

        Raises:
            ValueError: if the length is not a multiple of four bytes.
        """
        if len(words) % WORD_BYTES:
            raise ValueError(f"{self.path.name}: {len(words)} bytes are not whole 32-bit words")
        view = memoryview(words)
        while view:
            view = view[self._file.write(view) :]
        self._offset += len(words)
        self._hash.update(words)

    def end_pass(self) -> dict[str, Any]:
        """Return the range written since ``begin_pass`` as it belongs into ``pass_end``."""
        return {
            "path": self.path.name,
            "offset": self._start,
            "words": (self._offset - self._start) // WORD_BYTES,
            "sha256": self._hash.hexdigest(),
        }

    def sync(self) -> None:
        """Wait until everything is on the disk; takes as long as the disk does."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        self._file.close()


class RawIndex:
    """Appends messages to the index; a message of another kind than ``INDEXED_KINDS`` is ignored."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / INDEX_NAME
        self._file = self.path.open("ab", buffering=0)
        if self._file.seek(0, os.SEEK_END) and not self.path.read_bytes().endswith(b"\n"):
            self._file.write(b"\n")  # a line that a crash cut off ends here and is skipped by the reader

    def write(self, message: Mapping[str, Any]) -> None:
        """Append one message."""
        if message.get("k") in INDEXED_KINDS:
            line = json.dumps(message, default=_plain, separators=(",", ":"), allow_nan=False)
            self._file.write(line.encode() + b"\n")

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        self._file.close()


def read_index(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the messages of an index in order; a line that was cut off by a crash is skipped.

    Raises:
        FileNotFoundError: if there is no index.
    """
    with (folder / INDEX_NAME).open("rb") as lines:
        for line in lines:
            try:
                message = json.loads(line, object_hook=_restored)
            except (ValueError, TypeError, RecursionError):  # also of what is no base64 after all
                continue
            if isinstance(message, dict):
                yield message


def replayed(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the messages of an index as a reduce process gets them that was not there when they were sent.

    An ``exposure`` that has ended carries its end as ``end``: its frames are in the record, or nowhere.

    Raises:
        FileNotFoundError: if there is no index.
    """
    ends: dict[Any, dict[str, Any]] = {}
    with (folder / INDEX_NAME).open("rb") as lines:
        for line in lines:
            if b'"exposure_end"' in line:
                with contextlib.suppress(ValueError, TypeError, RecursionError, AttributeError):
                    message = json.loads(line)
                    ends[message.get("n")] = message
    for message in read_index(folder):
        end = ends.get(message.get("n")) if message.get("k") == "exposure" else None
        yield message if end is None else {**message, "end": end}


def passes_on_disk(folder: Path) -> dict[int, dict[int, dict[str, Any]]]:
    """Return by scan and pass the message of its end; empty for a pass that was begun and never ended."""
    found: dict[int, dict[int, dict[str, Any]]] = {}
    for message in read_index(folder):
        kind, scan, n = message.get("k"), message.get("scan"), message.get("n")
        if kind in ("pass", "pass_end") and isinstance(scan, int) and isinstance(n, int):
            found.setdefault(scan, {})[n] = message if kind == "pass_end" else {}
    return found


def read_words(folder: Path, entry: Mapping[str, Any], *, verify: bool = False) -> bytes:
    """Return the words of one range.

    Args:
        folder: folder of the index.
        entry: ``{path, offset, words, sha256}`` of a ``pass_end`` message.
        verify: compare the checksum.

    Raises:
        ValueError: if the entry is no range, the path leaves the folder, the file is too short, or the
            checksum differs.
        OSError: if the file cannot be read.
    """
    name, offset, length = _range(entry)
    path = folder / name
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if offset + length > size:
            raise ValueError(f"{name}: {size} bytes, expected {length} at offset {offset}")
        file.seek(offset)
        words = file.read(length)
    if verify and "sha256" in entry and hashlib.sha256(words).hexdigest() != entry["sha256"]:
        raise ValueError(f"{name}: checksum of {length} bytes at offset {offset} differs from the index")
    return words


def _range(entry: Mapping[str, Any]) -> tuple[str, int, int]:
    """Return name, offset and length in bytes of an entry. Raises ValueError."""
    fields = entry if isinstance(entry, Mapping) else {}
    name, offset, words = (fields.get(key) for key in ("path", "offset", "words"))
    if not isinstance(name, str) or Path(name).name != name:
        raise ValueError(f"raw file {name!r} is not a plain name")
    if not (isinstance(offset, int) and isinstance(words, int) and offset >= 0 and words >= 0):
        raise ValueError(f"{name}: offset {offset!r} and words {words!r} are not a range")
    return name, offset, words * WORD_BYTES


def _plain(value: object) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return {"base64": base64.b64encode(value).decode("ascii")}
    raise TypeError(f"{type(value).__name__} does not belong into the index")


def _restored(table: dict[str, Any]) -> Any:
    if table.keys() == {"base64"}:
        return base64.b64decode(table["base64"])
    return table
