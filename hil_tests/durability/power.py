"""A power cut, played back from a tape: what was not synced is lost, in part or wholly, in any order.

Simulated: every write of SQLite since the last sync of its file is kept, dropped or torn, each by itself, in
sectors of 512 bytes; a file that was only appended to ends anywhere between its last sync and its present
end, or has zeros there; a file that was renamed without a sync of its content is empty, and without one of
its folder it may bear its old name. Not simulated: a disk that lies about a sync; damage to what was safe.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECTOR = 512


@dataclass
class Entry:
    """One entry of a tape."""

    op: str
    file: str
    offset: int = 0
    data: bytes = b""
    to: str = ""
    seqs: list[int] = field(default_factory=list)


def read_tape(path: Path) -> list[Entry]:
    """Return the entries of a tape; one that a kill cut off is none."""
    raw, at, found = path.read_bytes(), 0, []
    while (end := raw.find(b"\n", at)) >= 0:
        told: dict[str, Any] = json.loads(raw[at:end])
        at = end + 1 + told.get("n", 0)
        if at > len(raw):
            break
        more = {"to": told.get("to", ""), "seqs": told.get("seqs", [])}
        found.append(Entry(told["op"], told["f"], told.get("o", 0), raw[end + 1 : at], **more))
    return found


class Disk:
    """What is on the disk for certain, and what is still on its way there."""

    def __init__(self) -> None:
        self._safe: dict[str, bytearray] = {}  # of SQLite's files
        self._open: dict[str, list[Entry]] = {}
        self.synced: dict[str, int] = {}  # bytes of other files that are safe
        self.renamed: list[
            tuple[str, str, bool]
        ] = []  # since the last sync of the folder: from, to, content safe
        self.acknowledged: set[int] = set()

    @classmethod
    def after(cls, entries: list[Entry]) -> Disk:
        """Return the disk when these entries have happened."""
        disk = cls()
        for entry in entries:
            disk.take(entry)
        return disk

    def take(self, entry: Entry) -> None:
        """Let one entry happen."""
        if entry.op in "wt":
            self._open.setdefault(entry.file, []).append(entry)
        elif entry.op == "s":
            safe = self._safe.setdefault(entry.file, bytearray())
            for one in self._open.pop(entry.file, []):
                _apply(safe, one)
        elif entry.op == "x":
            self._safe.pop(entry.file, None)
            self._open.pop(entry.file, None)
        elif entry.op == "fs":
            self.synced[entry.file] = entry.offset
        elif entry.op == "mv":
            whole = entry.file in self.synced
            self.synced[entry.to] = self.synced.pop(entry.file, 0)
            self.renamed.append((entry.file, entry.to, whole))
        elif entry.op == "ds":
            self.renamed = [one for one in self.renamed if str(Path(one[1]).parent) != entry.file]
        elif entry.op == "ack":
            self.acknowledged.update(entry.seqs)

    def files(self, rng: random.Random) -> Iterator[tuple[str, bytes]]:
        """Yield SQLite's files as they are found after a power cut now."""
        for name in {*self._safe, *self._open}:
            content = bytearray(self._safe.get(name, b""))
            for entry in self._open.get(name, ()):
                for part in _survives(entry, rng):
                    _apply(content, part)
            if content or name in self._safe:
                yield name, bytes(content)


def _survives(entry: Entry, rng: random.Random) -> Iterator[Entry]:
    """Yield what of an unsynced write reached the disk: nothing, all, or some of its sectors."""
    fate = rng.choice(("lost", "whole", "torn"))
    if fate == "whole" or (fate == "torn" and entry.op == "t"):
        yield entry
    elif fate == "torn":
        for at in range(0, len(entry.data), SECTOR):
            if rng.random() < 0.5:
                yield Entry("w", entry.file, entry.offset + at, entry.data[at : at + SECTOR])


def _apply(content: bytearray, entry: Entry) -> None:
    if entry.op == "t":
        del content[entry.offset :]
        return
    end = entry.offset + len(entry.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    content[entry.offset : end] = entry.data


def cut(tape: Path, folder: Path, seed: str) -> str:
    """Lose what the tape says was not safe, below ``folder``; return in words what was lost.

    To be called when every process of the host is dead. What is not on the tape stays as it is.
    """
    rng = random.Random(seed)  # noqa: S311 - losses, not secrets
    disk, lost = Disk.after(read_tape(tape)), []
    for name, content in disk.files(rng):
        path = Path(name)
        if path.exists() and path.read_bytes() != content:
            lost.append(f"{path.name}: {path.stat().st_size} to {len(content)} bytes")
            path.write_bytes(content)
    for path in folder.rglob("*-shm"):
        path.unlink()
    for old, new, whole in disk.renamed:
        fate = rng.choice(("done", "undone"))
        if fate == "undone" and Path(new).exists():
            Path(new).rename(old)
            lost.append(f"{Path(new).name}: not renamed")
        elif not whole:
            Path(new).write_bytes(b"")
            lost.append(f"{Path(new).name}: empty")
    for path in (*folder.rglob("*.words"), *folder.rglob("index.jsonl")):
        safe, size = disk.synced.get(str(path), 0), path.stat().st_size
        left = rng.randint(min(safe, size), size)
        if left < size:
            zeros = rng.choice((0, size - left))
            path.write_bytes(path.read_bytes()[:left] + bytes(zeros))
            lost.append(f"{path.name}: the last {size - left} of {size} bytes{' are zeros' if zeros else ''}")
    return "; ".join(lost) or "nothing was on its way"
