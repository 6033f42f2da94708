"""Two threads against one, for each kernel of a stream, and what this machine gives at most in the same run.

Each thread has its own accumulators, made and written to before, and its own part of the events. Rounds are
short. A round is quiet if strangers had next to nothing of the processors, by what the system counts. Where
there are too few of them, rounds stand in for them in which each thread for itself had a processor nearly all
the time it was there, whatever strangers did with the rest: then one thread had company, and the table says
so. A round in which only the mean is high does not count: threads that wait for each other would pass for
threads that were held up. With neither there is no number.

HEXITEC frames have 5 % of their samples above threshold. Each thread goes through 800 of its own, 10 MB,
eight or four times: more memory than in a run (one thread, blocks of 512 frames just written) or of recorded
files (blocks of 4 MB just read, on each thread), so it leans on the shared cache more than either.

Work that shares nothing stands beside: arithmetic that keeps all units of a core busy (two halves of one core
would not do twice of it), and reading memory as fast as it comes.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from edge.compton_frames import Compton
from edge.cube import Cube, bin_table
from edge.event_kernels import accumulate
from edge.events import ranges_of
from edge.projection import project
from tests.benchmarks.compton import frames, tables
from tests.benchmarks.ion_beam import COMPONENTS, PIXELS, SEGMENTS, Scan, read
from tests.benchmarks.race import grid

EVENTS = 4_000_000
FRAMES = 1600
READ_WORDS = 8_000_000  # 64 MB, more than the caches hold
QUIET = 0.08  # of the processors that strangers may have had
TAKEN = 0.9  # of the clock that the threads must have had processors for, where strangers are busy
ENOUGH = 5  # rounds for a verdict
TARGET = 1.6
PAUSE_S = 0.01
Call = Callable[[int, int], object]


@njit("void(u8, u8[::1])", nogil=True)
def spin(n, values):  # type: ignore[no-untyped-def]
    """Let 64 independent generators of random numbers take n steps each, in vector registers, in place."""
    for _ in range(n):
        for k in range(64):
            x = values[k]
            x ^= x << np.uint64(13)
            x ^= x >> np.uint64(7)
            x ^= x << np.uint64(17)
            values[k] = x


@dataclass
class Kind:
    """Work on shares 0 and 1 of 2 by thread ``k``: ``call(k, share)``."""

    name: str
    call: Call
    target: float | None = TARGET
    rounds: list[Round] = field(default_factory=list)


@dataclass(frozen=True)
class Round:
    """One thread doing both shares, then two doing one each."""

    ratio: float  # of the times on the clock
    taken: float  # part of its clock for which a thread had a processor, of the thread that had least
    strangers: float  # part of all processors that others had


def _busy_s() -> float:
    """Return the seconds that all processors were busy so far."""
    words = Path("/proc/stat").read_text().split()[1:9]
    user, nice, system, _idle, _wait, irq, soft, stolen = map(int, words)
    return (user + nice + system + irq + soft + stolen) / 100.0


def _together(calls: Sequence[Callable[[], object]]) -> tuple[float, float]:
    """Run each call on its own thread, begun together; return seconds and the least part that one ran."""
    barrier, told = threading.Barrier(len(calls)), [(0.0, 0.0, 0.0)] * len(calls)

    def work(k: int) -> None:
        barrier.wait()
        began, own = time.perf_counter(), time.thread_time()
        calls[k]()
        own = time.thread_time() - own
        told[k] = (began, time.perf_counter(), own)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = min(began for began, _, _ in told)
    return max(end for _, end, _ in told) - first, min(own / (end - first) for _, end, own in told)


def once(kind: Kind) -> Round:
    """Measure one round."""
    busy, own, began = _busy_s(), time.process_time(), time.perf_counter()
    one, alone = _together([lambda: (kind.call(0, 0), kind.call(0, 1))])
    two, both = _together([lambda: kind.call(0, 0), lambda: kind.call(1, 1)])
    strangers = _busy_s() - busy - (time.process_time() - own)
    room = (time.perf_counter() - began) * len(os.sched_getaffinity(0))
    return Round(one / two, min(alone, both), strangers / room)


def judged(kind: Kind) -> tuple[list[float], str]:
    """Return the ratios of the rounds that count, and which they are."""
    quiet = [one.ratio for one in kind.rounds if one.strangers <= QUIET]
    if len(quiet) >= ENOUGH:
        return quiet, "quiet rounds"
    held = [one.ratio for one in kind.rounds if one.taken >= TAKEN]
    return (held, "rounds beside strangers") if len(held) >= ENOUGH else ([], "")


def _kinds() -> list[Kind]:
    """Prepare all that is worked on, so that nothing is allocated or touched for the first time later."""
    scan = Scan.make(1024)
    half = EVENTS // 2
    parts = (scan.records[:half].copy(), scan.records[half : 2 * half].copy())
    adu = frames(0.05, FRAMES)
    shots = (adu[: FRAMES // 2].copy(), adu[FRAMES // 2 :].copy())
    values = [np.arange(1, 65, dtype=np.uint64) for _ in range(2)]
    memory = [np.ones(READ_WORDS, np.uint64) for _ in range(2)]
    bins, windows = bin_table(1024, np.arange(1024), 1024), (scan.lookup, ranges_of(scan.lookup))
    cubes = [Cube(PIXELS, 1024) for _ in range(2)]
    counts = [np.zeros((PIXELS + 1, SEGMENTS), np.uint32) for _ in range(2)]
    asides = [(np.zeros(scan.channels + 1, np.uint32), np.zeros(64, np.uint32)) for _ in range(2)]
    gains = np.random.default_rng(5).integers(-(1 << 20), 1 << 20, (1025, 2 * COMPONENTS)).astype(np.int32)
    sums = [np.zeros((PIXELS + 1, 2 * COMPONENTS), np.int64) for _ in range(2)]
    alone, added = ([Compton(tables(), add_pairs=add) for _ in range(2)] for add in (False, True))

    def maps(k: int, share: int) -> None:
        for _ in range(8):
            accumulate(parts[share], *windows, counts[k], *asides[k])

    def many(call: Callable[[Any], object], data: Any, times: int) -> None:
        for _ in range(times):
            call(data)

    return [
        Kind("arithmetic, no memory", lambda k, share: spin(np.uint64(2_000_000), values[k]), None),
        Kind("reading 64 MB", lambda k, share: many(read, memory[share], 6), None),
        Kind("list mode to cube", lambda k, share: many(lambda r: cubes[k].add(r, bins), parts[share], 4)),
        Kind("maps of 5 windows", maps),
        Kind("projection", lambda k, share: many(lambda r: project(r, gains, sums[k]), parts[share], 2)),
        Kind("HEXITEC, discriminate", lambda k, share: many(alone[k].add, shots[share], 8)),
        Kind("HEXITEC, add <= 2 px", lambda k, share: many(added[k].add, shots[share], 4)),
    ]


def threads(rounds: int) -> str:
    """Measure every kind, round by round; a busy machine gets more rounds, but no verdict for nothing."""
    kinds = _kinds()
    for kind in kinds:
        for k in (0, 1):
            kind.call(k, k)
    for number in range(6 * rounds):
        for kind in kinds:
            if number < rounds or len(judged(kind)[0]) < ENOUGH:
                kind.rounds.append(once(kind))
                time.sleep(PAUSE_S)
    rows = [("two threads against one", "ratio", "asked", "from", "")]
    for kind in kinds:
        ratios, which = judged(kind)
        asked = "-" if kind.target is None else f">= {kind.target:g}"
        if not ratios:
            rows.append(
                (kind.name, "-", asked, "-", f"no verdict: strangers in all {len(kind.rounds)} rounds")
            )
            continue
        ratio = statistics.median(ratios)
        verdict = "" if kind.target is None else ("ok" if ratio >= kind.target else "MISSED")
        spread = f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append((kind.name, spread, asked, f"{len(ratios)} of {len(kind.rounds)}, {which}", verdict))
    return grid(rows)
