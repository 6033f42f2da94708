"""Two threads against one, for each kernel of a stream, and what this machine gives at most in the same run.

Each thread has its own accumulators, made and written to before, and its own part of the events. Rounds are
short, and each has a witness: arithmetic on one thread and on two, just before and just after. The processors
of a virtual machine are often less than two, and its own clock does not tell; a round counts if both of
its witnesses were nearly twice as fast on two. Which rounds count does not depend on what they found. With
too few of them there is no verdict.

HEXITEC frames have 5 % of their samples above threshold. Each thread goes through 800 of its own, 10 MB,
eight or four times: more memory than in a run (one thread, blocks of 512 frames just written) or of recorded
files (blocks of 4 MB just read, on each thread), so it leans on the shared cache more than either.

The arithmetic keeps all units of a core busy: two halves of one core would not do twice of it. Reading memory
as fast as it comes stands beside.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
WITNESS = 1.85  # so much faster must arithmetic be on two threads, or there were not two processors
WITNESS_STEPS = 400_000
ENOUGH = 41  # rounds for a verdict
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

    def counting(self) -> list[float]:
        """Return the ratios of the rounds in which there were two processors."""
        return [one.ratio for one in self.rounds if one.witness >= WITNESS]


@dataclass(frozen=True)
class Round:
    """One thread doing both shares, then two doing one each."""

    ratio: float  # of the times on the clock
    witness: float  # the lesser ratio of the arithmetic before and after


def _together(calls: Sequence[Callable[[], object]]) -> float:
    """Run each call on its own thread, begun together; return seconds."""
    barrier, told = threading.Barrier(len(calls)), [(0.0, 0.0)] * len(calls)

    def work(k: int) -> None:
        barrier.wait()
        began = time.perf_counter()
        calls[k]()
        told[k] = (began, time.perf_counter())

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(end for _, end in told) - min(began for began, _ in told)


def _ratio(call: Call) -> float:
    one = _together([lambda: (call(0, 0), call(0, 1))])
    return one / _together([lambda: call(0, 0), lambda: call(1, 1)])


def once(call: Call, arithmetic: Call) -> Round:
    """Measure one round between its witnesses."""
    before, ratio, after = _ratio(arithmetic), _ratio(call), _ratio(arithmetic)
    return Round(ratio, min(before, after))


def _kinds() -> list[Kind]:
    """Prepare all that is worked on, so that nothing is allocated or touched for the first time later."""
    scan = Scan.make(1024)
    half = EVENTS // 2
    parts = (scan.records[:half].copy(), scan.records[half : 2 * half].copy())
    adu = frames(0.05, FRAMES)
    shots = (adu[: FRAMES // 2].copy(), adu[FRAMES // 2 :].copy())
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
        Kind("reading 64 MB", lambda k, share: many(read, memory[share], 6), None),
        Kind("list mode to cube", lambda k, share: many(lambda r: cubes[k].add(r, bins), parts[share], 4)),
        Kind("maps of 5 windows", maps),
        Kind("projection", lambda k, share: many(lambda r: project(r, gains, sums[k]), parts[share], 2)),
        Kind("HEXITEC, discriminate", lambda k, share: many(alone[k].add, shots[share], 8)),
        Kind("HEXITEC, add <= 2 px", lambda k, share: many(added[k].add, shots[share], 4)),
    ]


def threads(rounds: int) -> str:
    """Measure every kind, round by round; a busy machine gets more rounds, but no verdict for nothing."""
    values = [np.arange(1, 65, dtype=np.uint64) for _ in range(2)]

    def arithmetic(k: int, _share: int) -> None:
        spin(np.uint64(WITNESS_STEPS), values[k])

    kinds = _kinds()
    for k in (0, 1):
        arithmetic(k, k)
        for kind in kinds:
            kind.call(k, k)
    for number in range(12 * rounds):
        for kind in kinds:
            if number < rounds or len(kind.counting()) < ENOUGH:
                kind.rounds.append(once(kind.call, arithmetic))
                time.sleep(PAUSE_S)
    witnesses = [one.witness for kind in kinds for one in kind.rounds]
    rows = [
        ("two threads against one", "ratio", "asked", "rounds that count", ""),
        ("arithmetic, the witness", _spread(witnesses), "-", f"{len(witnesses)}, all", ""),
    ]
    for kind in kinds:
        asked = "-" if kind.target is None else f">= {kind.target:g}"
        ratios, verdict = kind.counting(), ""
        if len(ratios) < ENOUGH:
            verdict = "no verdict: the machine did not have two processors to give"
        elif kind.target is not None:
            verdict = "ok" if statistics.median(ratios) >= kind.target else "MISSED"
        spread = _spread(ratios) if ratios else "-"
        rows.append((kind.name, spread, asked, f"{len(ratios)} of {len(kind.rounds)}", verdict))
    return grid(rows)


def _spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
