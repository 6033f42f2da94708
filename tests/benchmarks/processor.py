"""Who had the processor: a bound on lateness says nothing where strangers take half of it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.benchmarks.memory import tree


class Processor:
    """Divides the processor time from now on into ours, that of strangers, and what a hypervisor took."""

    def __init__(self) -> None:
        self._began = _machine()
        self._before = _processes()
        self._ours = 0
        self._now = self._began

    def look(self) -> None:
        """Take note; call it every few seconds, because a process that has ended cannot be asked."""
        after = _processes()
        self._ours += sum(ticks - self._before.get(pid, 0) for pid, ticks in after.items())
        self._before = after
        self._now = _machine()

    def text(self) -> str:
        """Return the shares in words."""
        busy, stolen, everything = (now - began for now, began in zip(self._now, self._began, strict=True))
        if not everything:
            return "processor: nobody looked\n"
        strangers = max(busy - self._ours, 0)
        return (
            f"processor: {self._ours / everything:.0%} this benchmark with its busy processes, "
            f"{strangers / everything:.0%} other programs, {stolen / everything:.1%} taken by a hypervisor\n"
        )


def _machine() -> tuple[int, int, int]:
    """Return ticks so far: busy, stolen, all."""
    user, nice, system, idle, wait, irq, soft, stolen, *_ = map(
        int, Path("/proc/stat").read_text().split()[1:11]
    )
    busy = user + nice + system + irq + soft
    return busy, stolen, busy + stolen + idle + wait


def _processes() -> dict[int, int]:
    """Return the ticks of this process and of all that it started."""
    found = {}
    for pid in tree(os.getpid()):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[pid] = int(fields[11]) + int(fields[12])
    return found
