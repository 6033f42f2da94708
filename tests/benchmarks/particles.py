"""Particle traces: baseline, threshold, runs and areas of ten million samples, against the same in numpy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edge.particles_events import ParticleReducer
from edge.particles_runs import EventRules
from edge.particles_thresholds import Threshold
from tests.benchmarks.race import Contender, race, table

Floats = NDArray[np.float64]

SAMPLES = 10_000_000
EVENTS = 20_000
CHUNK = 1 << 16
RULES = EventRules(Threshold("currie-ld"), edge="threshold")
WINDOWED = EventRules(Threshold("currie-ld"), edge="threshold", window=1 << 18)


def trace() -> Floats:
    """Return a background of 0.8 counts with Gaussian particles of 200 counts."""
    rng = np.random.default_rng(21)
    mean = np.full(SAMPLES, 0.8)
    shape = np.exp(-0.5 * (np.arange(-10, 11) / 2.2) ** 2)
    at = rng.integers(20, SAMPLES - 20, EVENTS)
    for k, part in zip(range(-10, 11), 200 * shape / shape.sum(), strict=True):
        mean += part * np.bincount(at + k, minlength=SAMPLES)
    return rng.poisson(mean).astype(np.float64)


def in_numpy(x: Floats) -> tuple[int, float]:
    """Iterate the mean, cut at b + 3.29 sqrt(b) + 2.71, sum the runs of at least three samples."""
    b = float(x.mean())
    for _ in range(100):
        level = b + 3.29 * math.sqrt(b) + 2.71
        new = float(x[x <= level].mean())
        if new == b:
            break
        b = new
    above = np.concatenate([[False], x > level, [False]])
    edges = np.flatnonzero(above[1:] != above[:-1])
    sums = np.add.reduceat(x, edges)[::2]
    return int(np.count_nonzero(edges[1::2] - edges[::2] >= 3)), float(sums.sum())


def in_edge(x: Floats, rules: EventRules = RULES) -> tuple[int, float]:
    """Do the same with errors, in chunks as they arrive."""
    reducer = ParticleReducer(("Au",), rules)
    for first in range(0, x.size, CHUNK):
        reducer.add(first, x[first : first + CHUNK])
    events = reducer.result().events[0]
    return len(events), float(events.gross_counts.sum())


def particles(rounds: int) -> str:
    """Race the reductions."""
    x = trace()
    theirs, ours = in_numpy(x)[0], in_edge(x)[0]
    contenders = [
        Contender("numpy, one array", lambda: in_numpy(x), note=f"{theirs} events"),
        Contender("edge, one baseline, chunks of 65 536", lambda: in_edge(x), note=f"{ours} events"),
        Contender("edge, a baseline per 262 144", lambda: in_edge(x, WINDOWED), note="drift followed"),
    ]
    race(contenders, rounds)
    title = f"particle trace, {SAMPLES / 1e6:g} M samples, {EVENTS} particles"
    return table(title, contenders, work=SAMPLES, unit="M samples/s", peer="numpy, one array")
