"""Memory of a process and all that it started, shared pages counted by their share (PSS)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.race import grid

PERIOD_S = 5.0


class Memory:
    """Follows the memory of a tree of processes."""

    def __init__(self, root: int) -> None:
        self._root = root
        self.most_mb = 0.0
        self.parts_mb: dict[str, float] = {}
        self.samples = 0

    def follow(self, stop: threading.Event, also: Callable[[], None]) -> None:
        """Look every few seconds until told to stop, and do something else as often."""
        while not stop.wait(PERIOD_S):
            also()
            parts: dict[str, float] = {}
            for pid in tree(self._root):
                name, mb = name_of(pid), pss_mb(pid)
                if mb is not None:
                    parts[name] = parts.get(name, 0.0) + mb
            self.samples += 1
            if sum(parts.values()) > self.most_mb:
                self.most_mb, self.parts_mb = sum(parts.values()), parts

    def table(self, target_mb: float) -> str:
        """Return the largest sum that was seen, and what it was made of."""
        rows = [(f"memory, largest of {self.samples} looks", "PSS MB", "asked")]
        rows += [(name, f"{mb:.1f}", "") for name, mb in sorted(self.parts_mb.items(), key=lambda e: -e[1])]
        verdict = "ok" if self.most_mb < target_mb else "MISSED"
        rows.append(("all", f"{self.most_mb:.1f}", f"< {target_mb:g} {verdict}"))
        return grid(rows)


def tree(root: int) -> list[int]:
    """Return a process and its descendants."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def name_of(pid: int) -> str:
    """Return what a process is: the module it was started with."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "gone"
    return words[words.index("-m") + 1] if "-m" in words[:-1] else Path(words[0]).name


def pss_mb(pid: int) -> float | None:
    """Return the proportional set size of a process, None when it has ended."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        return None
    return None
