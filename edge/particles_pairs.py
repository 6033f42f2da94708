"""Two lines of one particle: which events belong together, how many do by accident, and their ratio."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from edge.particles_runs import Events
from edge.uncertainty import ONE_SIGMA, Estimate, ratio

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHIFTS = 20  # delays on either side at which accidental pairs are counted


@dataclass(frozen=True)
class Pairs:
    """Events of two lines that coincide.

    Attributes:
        first, second: numbers of the paired events in the two tables, shape (n,), in time order.
        ambiguous: more than one partner was within the window; the nearest was taken. Shape (n,).
        accidental: how many of the pairs are expected to be two different particles.
        accidental_delayed: pairs per delay when the second line is shifted far outside the window, with its
            counting error: holds no true pairs, but counts accidental ones of the particles that have a
            partner too, so it is an upper bound.
        pile_up: expected fraction of events that hold a second particle, 1 - exp(-rate x event length).
    """

    first: Ints
    second: Ints
    ambiguous: NDArray[np.bool_]
    accidental: float
    accidental_delayed: Estimate
    pile_up: float

    def __len__(self) -> int:
        return int(self.first.size)


def coincidences(first: Events, second: Events, window: int, n_samples: int) -> Pairs:
    """Pair events whose peaks are at most ``window`` samples apart, each with its nearest free partner.

    Accidental pairs: of N1 - C and N2 - C events without a partner, and as many unrelated ones among the
    pairs, (N1 - C)(N2 - C)(2 window + 1) / n_samples lie together by chance (Poisson arrivals, rates far
    below one per window).

    Args:
        first: events of one line, in time order.
        second: events of the other one.
        window: largest distance of the peaks, samples, not negative.
        n_samples: measured samples of the trace.

    Raises:
        ValueError: the window is negative or the trace empty.
    """
    if window < 0 or n_samples <= 0:
        raise ValueError(f"a window of {window} samples in a trace of {n_samples}")
    a, b, ambiguous = _match(first.peak, second.peak, window)
    alone = (len(first) - a.size) * (len(second) - a.size)
    accidental = alone * (2 * window + 1) / n_samples
    length = float(np.mean(first.stop - first.start)) if len(first) else 0.0
    return Pairs(
        a, b, ambiguous, accidental, _delayed(first.peak, second.peak, window, n_samples),
        float(-np.expm1(-len(first) / n_samples * length)),
    )  # fmt: skip


def _match(a: Ints, b: Ints, window: int) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Return index pairs, nearest first; a partner is taken once."""
    low = np.searchsorted(b, a - window, side="left")
    high = np.searchsorted(b, a + window, side="right")
    partners = high - low
    i = np.repeat(np.arange(a.size), partners)
    j = np.arange(i.size) - np.repeat(np.cumsum(partners) - partners, partners) + np.repeat(low, partners)
    order = np.lexsort((j, i, np.abs(a[i] - b[j])))
    free_a, free_b = np.ones(a.size, bool), np.ones(b.size, bool)
    taken = []
    for k in order:
        if free_a[i[k]] and free_b[j[k]]:
            free_a[i[k]] = free_b[j[k]] = False
            taken.append(k)
    chosen = np.sort(np.array(taken, np.int64))
    wanted = np.bincount(j, minlength=b.size)
    return i[chosen], j[chosen], (partners[i[chosen]] > 1) | (wanted[j[chosen]] > 1)


def _delayed(a: Ints, b: Ints, window: int, n_samples: int) -> Estimate:
    """Return pairs per delay, the average of ``SHIFTS`` delays on either side."""
    if a.size == 0 or b.size == 0:
        return Estimate(0.0, 0.0, 0.0, "pairs")
    step = 10 * (2 * window + 1) + 100
    found = 0
    for k in range(1, SHIFTS + 1):
        for sign in (1, -1):
            moved = b + sign * k * step
            found += _match(a, moved, window)[0].size
    trials = 2 * SHIFTS
    return Estimate(found / trials, max(found, 1) ** 0.5 / trials, 0.0, "pairs")


def event_ratio(events: Events, numerator: int, denominator: int) -> tuple[Floats, Floats]:
    """Return the ratio of two lines' areas over the same samples and its one-sigma error, shape (n,).

    The events are those that one line decided (the stronger one, whose detection does not depend on the
    ratio), so a particle that has lost all of its lithium counts with a ratio near 0 instead of being left
    out.

    Source: JCGM 100:2008 5.1.2; below about 20 counts use ``ratio_interval``.
    """
    a, b = events.area_counts[:, numerator], events.area_counts[:, denominator]
    return ratio(a, events.sigma_counts[:, numerator], b, events.sigma_counts[:, denominator])


def null_sigma(events: Events, numerator: int, denominator: int, mean: float, noise: float = 1.0) -> Floats:
    """Return the counting error that the ratio of every event would have if its true ratio were ``mean``.

    variance = [noise (mean b + B_a) + mean^2 sigma_b^2] / b^2, with b the area of the denominator and B_a the
    background counts of the numerator: unlike ``event_ratio`` it does not grow with the ratio that was
    measured.
    """
    b = events.area_counts[:, denominator]
    own = noise * (mean * np.maximum(b, 0.0) + events.background_counts[:, numerator])
    other = mean**2 * events.sigma_counts[:, denominator] ** 2
    out: Floats = np.sqrt(own + other) / np.where(b > 0, b, np.nan)
    return out


def ratio_interval(
    numerator: ArrayLike, denominator: ArrayLike, level: float = ONE_SIGMA
) -> tuple[Floats, Floats]:
    """Return the exact central interval of the ratio of two Poisson means, without background.

    Given n1 + n2, n1 is binomial with p = r / (1 + r): the Clopper-Pearson bounds of p give those of r = p /
    (1 - p).

    Args:
        numerator: counts n1, whole numbers, any shape.
        denominator: counts n2, same shape.
        level: two-sided confidence.

    Returns:
        (low, high): low is 0 where n1 = 0, high is infinite where n2 = 0.

    Raises:
        ValueError: a count is negative.

    Source: Przyborowski and Wilenski, Biometrika 31 (1940) 313; Clopper and Pearson, Biometrika 26 (1934)
    404.
    """
    n1, n2 = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    if np.any(n1 < 0) or np.any(n2 < 0):
        raise ValueError("counts must not be negative")
    low, high = binomial_interval(n1, n1 + n2, level)
    with np.errstate(divide="ignore"):
        return low / (1.0 - low), np.where(high < 1.0, high / (1.0 - np.minimum(high, 1.0)), np.inf)


def binomial_interval(hits: ArrayLike, trials: ArrayLike, level: float = ONE_SIGMA) -> tuple[Floats, Floats]:
    """Return the Clopper-Pearson interval of a fraction: its coverage is never below ``level``.

    low = B^-1((1-level)/2; k, n-k+1), high = B^-1((1+level)/2; k+1, n-k), B the regularised incomplete beta
    function; 0 at k = 0 and 1 at k = n.

    Raises:
        ValueError: more hits than trials.

    Source: Clopper and Pearson, Biometrika 26 (1934) 404.
    """
    k, n = np.broadcast_arrays(np.asarray(hits, np.float64), np.asarray(trials, np.float64))
    if np.any(k > n) or np.any(k < 0):
        raise ValueError("hits must lie between 0 and the number of trials")
    tail = (1.0 - level) / 2.0
    low = np.where(k > 0, betaincinv(np.maximum(k, 0.5), n - k + 1.0, tail), 0.0)
    high = np.where(k < n, betaincinv(k + 1.0, np.maximum(n - k, 0.5), 1.0 - tail), 1.0)
    return low, high


def wilson_interval(hits: ArrayLike, trials: ArrayLike, z: float = 1.0) -> tuple[Floats, Floats]:
    """Return the score interval of a fraction, z standard deviations: coverage near the level on average.

    (k + z^2/2 -+ z sqrt(k (n-k)/n + z^2/4)) / (n + z^2).

    Source: Wilson, J. Am. Stat. Assoc. 22 (1927) 209.
    """
    k, n = np.asarray(hits, np.float64), np.asarray(trials, np.float64)
    half = z * np.sqrt(k * (n - k) / n + z**2 / 4)
    centre = k + z**2 / 2
    return (centre - half) / (n + z**2), (centre + half) / (n + z**2)
