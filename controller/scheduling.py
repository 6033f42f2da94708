"""What control asks of the kernel so that other programs do not make it late, and what it got.

Round robin at the lowest real-time priority when that is allowed, else a negative nice value, else nothing.
With three cores or more control has the last one for itself and reduce keeps off it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

REALTIME_PRIORITY = (
    1  # above everything ordinary, below the kernel's own threads and every other real-time one
)
NICE = -5
CORES_TO_SHARE = 3  # with fewer, a core of its own for control would leave too little for the rest
GC_THRESHOLDS = (20_000, 20, 50)  # the youngest in ~0.1 ms; the whole heap (frozen at the start) rarely
M_MMAP_THRESHOLD = -3  # glibc, malloc.h
APART_BYTES = 64 << 10
CAP_SYS_NICE = 23

Class = Literal["round robin", "nice", "ordinary"]


@dataclass(frozen=True)
class Scheduling:
    """What control got, for the record of the run."""

    kind: Class
    priority: int  # real-time priority, or the nice value
    core: int | None  # its own, None when it shares all
    why: str = ""  # what is missing for more

    def as_dict(self) -> dict[str, Any]:
        """Return it for the record."""
        return asdict(self)


def may(realtime_limit: int, nice_limit: int, capable: bool) -> Class:
    """Return the best class that these rights allow.

    Args:
        realtime_limit: hard RLIMIT_RTPRIO, -1 for no limit.
        nice_limit: hard RLIMIT_NICE, -1 for no limit; the lowest nice value is 20 minus it.
        capable: whether the process has CAP_SYS_NICE.
    """
    if capable or realtime_limit == -1 or realtime_limit >= REALTIME_PRIORITY:
        return "round robin"
    if nice_limit == -1 or 20 - nice_limit <= NICE:
        return "nice"
    return "ordinary"


def rights() -> tuple[int, int, bool]:
    """Return this process's rights as ``may`` takes them."""
    return (
        resource.getrlimit(resource.RLIMIT_RTPRIO)[1],
        resource.getrlimit(resource.RLIMIT_NICE)[1],
        capable(Path("/proc/self/status").read_text()),
    )


def capable(status: str) -> bool:
    """Return whether the text of /proc/PID/status grants CAP_SYS_NICE."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> CAP_SYS_NICE & 1)
    return False


def split_cores(cores: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return (control's cores, everybody else's): the last one apart when there are enough."""
    ordered = sorted(cores)
    if len(ordered) < CORES_TO_SHARE:
        return ordered, ordered
    return ordered[-1:], ordered[:-1]


def take(*, system: Any = os) -> Scheduling:
    """Take the best class that is allowed, and a core; never raises. Threads made later are ordinary.

    Args:
        system: stands in for ``os`` in tests.
    """
    kind, priority, why = _take_class(system)
    mine, others = split_cores(list(system.sched_getaffinity(0)))
    core = None
    if mine != others:
        with contextlib.suppress(OSError):
            system.sched_setaffinity(0, mine)
            core = mine[0]
    return Scheduling(kind, priority, core, why)


def _take_class(system: Any) -> tuple[Class, int, str]:
    _raise_limits()
    try:
        system.sched_setscheduler(
            0, system.SCHED_RR | system.SCHED_RESET_ON_FORK, system.sched_param(REALTIME_PRIORITY)
        )
    except OSError:
        why = "no right to a real-time class (RLIMIT_RTPRIO)"
    else:
        return "round robin", REALTIME_PRIORITY, ""
    try:
        system.setpriority(system.PRIO_PROCESS, 0, NICE)
    except OSError:
        return "ordinary", system.getpriority(system.PRIO_PROCESS, 0), f"{why}, nor to nice {NICE}"
    return "nice", NICE, why


def _raise_limits() -> None:
    """Take what the hard limits allow: a soft one of 0 is what most systems start with."""
    for limit in (resource.RLIMIT_RTPRIO, resource.RLIMIT_NICE):
        with contextlib.suppress(OSError, ValueError):
            hard = resource.getrlimit(limit)[1]
            resource.setrlimit(limit, (hard, hard))


def keep_off(*, system: Any = os) -> list[int]:
    """Leave control's core to control (reduce calls it); return the cores that are left. Never raises."""
    cores = list(system.sched_getaffinity(0))
    _, others = split_cores(cores)
    if others != sorted(cores):
        with contextlib.suppress(OSError):
            system.sched_setaffinity(0, others)
            return others
    return sorted(cores)


def settle_memory() -> None:
    """Put what the set-up made out of the garbage collector's sight, and let it look less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def keep_large_apart() -> bool:
    """Give every block of 64 KiB or more pages of its own; return whether the C library can. Never raises.

    asyncio reads into 256 KiB each time. Once one such block was freed, glibc takes the next from the heap:
    what lives longer then settles in the gap between two reads, a read needs a new gap, and the heap grows
    by megabytes an hour of which nothing is in use.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        return bool(ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, APART_BYTES))
    return False
