"""The background of a particle trace: mean per window of samples, free of particles, with its error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.particles_kernels import below, quiet
from edge.particles_thresholds import Threshold

Floats = NDArray[np.float64]

MAX_ROUNDS = 200
GUARD = 4  # samples beside a claimed one that may hold the foot of a particle
MIN_SAMPLES = 100  # a window with fewer background samples takes its neighbour's baseline


@dataclass(frozen=True)
class Baseline:
    """Background of one line in one window.

    Attributes:
        iterated_counts: mean of the samples not above b + 3.29 sqrt(b) + 2.71, iterated until it stands; the
            thresholds follow from it.
        mean_counts: mean of those samples that have no claimed one within ``GUARD`` samples; this is
            subtracted.
        sigma_counts: its standard error, sqrt(variance / n).
        n_samples: that went into it.
        dispersion: variance / mean of those samples; 1 for counts, above it for single-ion spread or
            particles too small to be seen.
        threshold: level above which a sample is a claim.
        borrowed: too few samples here, so all of it is the neighbouring window's.
    """

    iterated_counts: float
    mean_counts: float
    sigma_counts: float
    n_samples: int
    dispersion: float
    threshold: float
    borrowed: bool = False

    @property
    def sigma_dispersion(self) -> float:
        """Standard error of the dispersion: D sqrt(2 / (n - 1)), as of the index of dispersion of counts."""
        return self.dispersion * math.sqrt(2.0 / max(self.n_samples - 1, 1))


def clip_level(mean_counts: float) -> float:
    """Return b + 3.29 sqrt(b) + 2.71, Currie's detection limit over a well-known mean (Currie 1968)."""
    return mean_counts + 3.29 * math.sqrt(max(mean_counts, 0.0)) + 2.71


def baseline(pieces: list[Floats], threshold: Threshold) -> Baseline | None:
    """Return the background of one line from gap-free pieces of a window, None with too few samples.

    b = mean of x <= b + 3.29 sqrt(b) + 2.71, repeated until the same samples are left (at most 200 times).
    At a true Poisson background the cut removes less than 1 sample in 2000, which lowers b by less than 0.5
    %.

    Raises:
        ValueError: a mean is negative: these samples are no counts.
    """
    n, total = sum(p.size for p in pieces), math.fsum(float(p.sum()) for p in pieces)
    if n < MIN_SAMPLES:
        return None
    mean, used = total / n, n
    for _ in range(MAX_ROUNDS):
        if mean < 0:
            raise ValueError(f"the samples have a mean of {mean:.3g}: they are no counts")
        parts = [below(p, clip_level(mean)) for p in pieces]
        left, mean_next = sum(p[0] for p in parts), math.fsum(p[1] for p in parts)
        if left < MIN_SAMPLES:
            return None
        same = left == used and mean_next / left == mean
        used, mean = left, mean_next / left
        if same:
            break
    parts = [quiet(p, clip_level(mean), GUARD) for p in pieces]
    left = sum(p[0] for p in parts)
    if left < MIN_SAMPLES:  # particles everywhere: nothing is quiet
        parts, left = [below(p, clip_level(mean)) for p in pieces], used
    silent = math.fsum(p[1] for p in parts) / left
    variance = max(math.fsum(p[2] for p in parts) / left - silent**2, 0.0)
    return Baseline(
        iterated_counts=mean,
        mean_counts=silent,
        sigma_counts=math.sqrt(max(variance, silent) / left) if silent > 0 else 1.0 / left,
        n_samples=left,
        dispersion=variance / silent if silent > 0 else 1.0,
        threshold=threshold.level(mean),
    )
