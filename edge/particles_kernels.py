"""Compiled loops of the particle reduction: means below a level, and runs of samples above one."""

from __future__ import annotations

import numpy as np
from numba import njit

# columns of the integer and of the float table of runs
START, STOP, ABOVE, PEAK = range(4)
RUN_INTEGERS = 4
HEIGHT = 0
SUMS = 1  # first of the sums, one per line


@njit(
    "Tuple((i8, f8, f8))(f8[::1], f8)", cache=True, nogil=True, boundscheck=False, fastmath={"reassoc", "nsz"}
)
def below(x, level):  # type: ignore[no-untyped-def]  # numba compiles the signature above
    """Return how many samples (counts, shape (n,)) lie at or below a level, their sum and sum of squares.

    Sums may be formed in another order than from left to right, but always in the same one for the same
    array.
    """
    n, total, squares = 0, 0.0, 0.0
    for i in range(x.size):
        v = x[i] if x[i] <= level else 0.0
        n += x[i] <= level
        total += v
        squares += v * v
    return n, total, squares


@njit("Tuple((i8, f8, f8))(f8[::1], f8, i8)", cache=True, nogil=True, boundscheck=False)
def quiet(x, level, guard):  # type: ignore[no-untyped-def]
    """Return the same over those samples, shape (n,), with none above the level within ``guard`` of them."""
    n, total, squares = 0, 0.0, 0.0
    since = guard + 1  # samples since the last one above the level
    held_n, held_total, held_squares = 0, 0.0, 0.0
    for i in range(x.size):
        v = x[i]
        if v > level:
            if since > guard:  # take back what came within guard before
                first = max(i - guard, 0)
                for j in range(first, i):
                    w = x[j]
                    if i - j <= since - guard:
                        held_n += 1
                        held_total += w
                        held_squares += w * w
            since = 0
        else:
            since += 1
            if since > guard:
                n += 1
                total += v
                squares += v * v
    return n - held_n, total - held_total, squares - held_squares


@njit("i8(f8[:,::1], i8, f8, f8)", cache=True, nogil=True, boundscheck=False)
def count_runs(samples, line, level, threshold):  # type: ignore[no-untyped-def]
    """Return how many runs ``find_runs`` will write for samples of shape (lines, n)."""
    x = samples[line]
    n = x.size
    count, i = 0, 0
    while i < n:
        if not x[i] > level:
            i += 1
            continue
        wanted = i == 0
        while i < n and x[i] > level:
            wanted = wanted or x[i] > threshold
            i += 1
        count += wanted or i == n
    return count


@njit("i8(f8[:,::1], i8, i8, f8, f8, i8[:,::1], f8[:,::1])", cache=True, nogil=True, boundscheck=False)
def find_runs(samples, line, first, level, threshold, integers, floats):  # type: ignore[no-untyped-def]
    """Write every run of samples above ``level`` that holds one above ``threshold``; return how many.

    A run that touches the first or the last sample is always written: it may go on in the neighbouring piece.

    Args:
        samples: shape (lines, n), gap-free.
        line: the row that decides.
        first: index of sample 0 in the whole trace.
        level: edge of a run; not above ``threshold``.
        threshold: what makes it a particle.
        integers: out, shape (runs, 4): start, stop (behind the last), samples above threshold, peak.
        floats: out, shape (runs, 1 + lines): height, sums over the run of every line.
    """
    lines, n = samples.shape
    x = samples[line]
    count = 0
    i = 0
    while i < n:
        if not x[i] > level:
            i += 1
            continue
        start, above, peak = i, 0, i
        while i < n and x[i] > level:
            above += x[i] > threshold
            if x[i] > x[peak]:
                peak = i
            i += 1
        if above > 0 or start == 0 or i == n:
            integers[count, START] = first + start
            integers[count, STOP] = first + i
            integers[count, ABOVE] = above
            integers[count, PEAK] = first + peak
            floats[count, HEIGHT] = x[peak]
            for k in range(lines):
                total = 0.0
                for j in range(start, i):
                    total += samples[k, j]
                floats[count, SUMS + k] = total
            count += 1
    return count


def warm() -> None:
    """Run every kernel once, so that the first real chunk finds them loaded."""
    one = np.zeros((1, 1))
    below(one[0], 0.0)
    quiet(one[0], 0.0, 1)
    count_runs(one, 0, 0.0, 0.0)
    find_runs(one, 0, 0, 0.0, 0.0, np.zeros((2, RUN_INTEGERS), np.int64), np.zeros((2, 2)))
