"""What control gets from the kernel: with each of the rights by a stand-in, and once for real."""

import json
import os
import platform
import subprocess
import sys
from typing import Any

import pytest

from controller.scheduling import NICE, capable, keep_off, may, split_cores, take


class Kernel:
    """Stands in for ``os``."""

    SCHED_RR, SCHED_RESET_ON_FORK, PRIO_PROCESS = 2, 0x40000000, 0

    def __init__(self, *, realtime: bool, nice: bool, cores: int) -> None:
        self.realtime, self.nice = realtime, nice
        self.cores = set(range(cores))
        self.policy: tuple[int, int] | None = None
        self.value = 0

    def sched_param(self, priority: int) -> int:
        return priority

    def sched_setscheduler(self, pid: int, policy: int, priority: int) -> None:
        if not self.realtime:
            raise PermissionError(1, "no")
        self.policy = (policy, priority)

    def setpriority(self, which: int, who: int, value: int) -> None:
        if not self.nice:
            raise PermissionError(13, "no")
        self.value = value

    def getpriority(self, which: int, who: int) -> int:
        return self.value

    def sched_getaffinity(self, pid: int) -> set[int]:
        return self.cores

    def sched_setaffinity(self, pid: int, cores: list[int]) -> None:
        self.cores = set(cores)


def test_the_best_that_is_allowed_is_taken() -> None:
    kernel = Kernel(realtime=True, nice=True, cores=4)
    got = take(system=kernel)
    assert (got.kind, got.priority, got.core, got.why) == ("round robin", 1, 3, "")
    assert kernel.policy == (kernel.SCHED_RR | kernel.SCHED_RESET_ON_FORK, 1)
    assert (kernel.cores, kernel.value) == ({3}, 0)


def test_else_a_nice_value_else_nothing_and_it_says_so() -> None:
    kernel = Kernel(realtime=False, nice=True, cores=4)
    got = take(system=kernel)
    assert (got.kind, got.priority, kernel.value) == ("nice", NICE, NICE)
    assert "RLIMIT_RTPRIO" in got.why
    none = take(system=Kernel(realtime=False, nice=False, cores=4))
    assert (none.kind, none.priority) == ("ordinary", 0)
    assert "nice" in none.why


@pytest.mark.parametrize(
    ("cores", "control", "reduce"), [(1, {0}, {0}), (2, {0, 1}, {0, 1}), (3, {2}, {0, 1})]
)
def test_reduce_keeps_off_controls_core_where_there_are_three(
    cores: int, control: set[int], reduce: set[int]
) -> None:
    mine, others = (
        Kernel(realtime=True, nice=True, cores=cores),
        Kernel(realtime=True, nice=True, cores=cores),
    )
    got = take(system=mine)
    assert mine.cores == control
    assert got.core == (2 if cores == 3 else None)
    assert set(keep_off(system=others)) == others.cores == reduce
    assert split_cores([7, 3, 5]) == ([7], [3, 5])  # whichever it may use


@pytest.mark.parametrize(
    ("rights", "kind"),
    [
        ((1, 0, False), "round robin"), ((-1, 0, False), "round robin"), ((0, 0, True), "round robin"),
        ((0, 25, False), "nice"), ((0, -1, False), "nice"), ((0, 24, False), "ordinary"),
    ],
)  # fmt: skip
def test_rights(rights: tuple[int, int, bool], kind: str) -> None:
    assert may(*rights) == kind


def test_capability() -> None:
    assert capable("Name:\tx\nCapEff:\t0000000000800000\n")
    assert not capable("CapEff:\t0000000000400000\n")
    assert not capable("")


PROGRAM = """
import gc, json, os, threading
from controller.scheduling import rights, may, settle_memory, take
wanted = may(*rights())
got = take()
others = []
thread = threading.Thread(target=lambda: others.append(os.sched_getscheduler(0)))
thread.start(); thread.join()
settle_memory()
print(json.dumps({"wanted": wanted, "got": got.as_dict(), "policy": os.sched_getscheduler(0) & 0xffff,
                  "thread": others[0] & 0xffff, "nice": os.getpriority(os.PRIO_PROCESS, 0),
                  "frozen": gc.get_freeze_count(), "thresholds": gc.get_threshold()}))
"""


def test_this_machine_for_real() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    told = json.loads(done.stdout)
    assert told["got"]["kind"] == told["wanted"]  # what doctor foretells is what control gets
    policy = {"round robin": os.SCHED_RR, "nice": os.SCHED_OTHER, "ordinary": os.SCHED_OTHER}
    assert told["policy"] == policy[told["wanted"]]
    assert told["thread"] == os.SCHED_OTHER  # reset: the journal's thread is an ordinary one
    unchanged = os.getpriority(os.PRIO_PROCESS, 0)  # the tests themselves may run under nice
    assert told["nice"] == (NICE if told["wanted"] == "nice" else unchanged)
    assert told["frozen"] > 1000
    assert told["thresholds"][0] > 700  # what Python begins with


READS = """
import ctypes, json, sys
from asyncio import selector_events
from controller.scheduling import keep_large_apart

names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
Info = type("Info", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in names]})
mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Info
can = keep_large_apart() if sys.argv[1] == "apart" else None
read_bytes = selector_events._SelectorTransport.max_size
apart = []
for _ in range(3):
    before = mallinfo2().hblks
    buffer = bytes(read_bytes)
    apart.append(mallinfo2().hblks - before)
    del buffer
print(json.dumps([can, apart]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what glibc does with its heap")
def test_what_is_read_into_is_no_part_of_the_heap() -> None:
    """A run at speed 40 grew by 10 MB an hour, of which nothing was in use."""

    def told(how: str) -> list[Any]:
        words = [sys.executable, "-c", READS, how]
        done = subprocess.run(words, capture_output=True, check=True, timeout=60)
        found: list[Any] = json.loads(done.stdout)
        return found

    assert told("as it is") == [None, [1, 0, 0]]  # or it would not be needed
    assert told("apart") == [True, [1, 1, 1]]
