"""Drawn particle traces, from the description of the measurement and not from our code.

A particle is a short cloud, Gaussian in time, its expected counts ``mu`` spread over some samples; every
sample is then drawn from a Poisson distribution with the background added.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def spaced(
    mu: float, background: float, n: int, seed: int, *, space: int = 200, width: float = 2.2
) -> Floats:
    """Return a trace with one particle of ``mu`` expected counts in every ``space`` samples."""
    rng = np.random.default_rng(seed)
    at = space / 2 + rng.uniform(-20, 20, n)
    shape = np.exp(-0.5 * ((np.arange(space) - at[:, None]) / width) ** 2)
    shape /= shape.sum(axis=1, keepdims=True)
    return rng.poisson((background + mu * shape).ravel()).astype(np.float64)


def two_lines(
    lithiation: Floats, seed: int, *, samples: int, backgrounds: tuple[float, float] = (0.9, 0.5),
    mean: float = 600.0, spread: float = 0.07, slope: float = 0.75, intercept: float = 0.05,
) -> tuple[Floats, Floats]:  # fmt: skip
    """Return a trace (2, samples) of Li and Mn, and the true ratio of every particle.

    Ratio = (intercept + slope x lithiation) x (1 + spread x a standard normal); Mn counts are lognormal about
    ``mean``; particles arrive at random.
    """
    rng = np.random.default_rng(seed)
    n = lithiation.size
    at = np.sort(rng.uniform(100, samples - 100, n))
    mn = rng.lognormal(np.log(mean), 0.45, n)
    ratio = (intercept + slope * lithiation) * (1 + spread * rng.normal(size=n))
    expected = np.repeat(np.array(backgrounds)[:, None], samples, axis=1)
    k = np.arange(-20, 21)
    for t, m, r in zip(at, mn, ratio, strict=True):
        i = int(t)
        shape = np.exp(-0.5 * ((k + i - t) / 2.2) ** 2)
        shape /= shape.sum()
        expected[0, i - 20 : i + 21] += m * r * shape
        expected[1, i - 20 : i + 21] += m * shape
    return rng.poisson(expected).astype(np.float64), ratio
