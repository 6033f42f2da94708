"""Uncertainties: exact intervals at a few counts, ratios, pulls. Values with both kinds of error.

Nothing here is clipped. Statistical and systematic one-sigma errors stay apart until ``Estimate.total``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaincinv, gammaln

Floats = NDArray[np.float64]

ONE_SIGMA = math.erf(1.0 / math.sqrt(2.0))  # 0.6827, two-sided
TWO_SIGMA = math.erf(2.0 / math.sqrt(2.0))  # 0.9545, two-sided
ONE_SIGMA_SHARES = (0.15865525393145707, 0.8413447460685429)  # of a normal distribution below -1 and +1 sigma


@dataclass(frozen=True)
class Estimate:
    """A value with statistical and systematic one-sigma errors and a unit."""

    value: float
    sigma_stat: float
    sigma_sys: float
    unit: str

    @property
    def total(self) -> float:
        """Both errors in quadrature."""
        return math.hypot(self.sigma_stat, self.sigma_sys)

    def to_dict(self) -> dict[str, float | str]:
        """Return plain values for a message or a file."""
        return {
            "value": self.value,
            "sigma_stat": self.sigma_stat,
            "sigma_sys": self.sigma_sys,
            "unit": self.unit,
        }


def garwood_interval(counts: ArrayLike, level: float = ONE_SIGMA) -> tuple[Floats, Floats]:
    """Return the exact central confidence interval of a Poisson mean.

    lower = P^-1(n, (1-level)/2), upper = P^-1(n+1, (1+level)/2), with P^-1 the inverse of the regularised
    lower incomplete gamma function; the lower bound is 0 at n = 0. Coverage is never below ``level``.

    Args:
        counts: observed counts, any shape, not negative.
        level: two-sided confidence, 0 to 1.

    Returns:
        (lower, upper), each of the shape of ``counts``.

    Raises:
        ValueError: if a count is negative or the level is not between 0 and 1.

    Source: Garwood, Biometrika 28 (1936) 437; tabulated by Gehrels, ApJ 303 (1986) 336.
    """
    n = np.asarray(counts, dtype=np.float64)
    _check(n, level)
    tail = (1.0 - level) / 2.0
    lower: Floats = np.where(n > 0, gammaincinv(np.maximum(n, 0.5), tail), 0.0)
    upper: Floats = np.asarray(gammaincinv(n + 1.0, 1.0 - tail), dtype=np.float64)
    return lower, upper


def feldman_cousins_interval(
    counts: int, background: float, level: float = ONE_SIGMA, step: float = 0.005
) -> tuple[float, float]:
    """Return the unified confidence interval of a Poisson signal over a known mean background.

    For every signal mu on a grid, values of n are accepted in the order of P(n|mu+b) / P(n|max(0,n-b)+b)
    until the level is reached; the interval runs from the smallest to the largest mu that accepts ``counts``.

    Args:
        counts: observed counts, signal and background together.
        background: known mean background.
        level: confidence, 0 to 1.
        step: grid of the signal, counts; the bounds are good to about this.

    Returns:
        (lower, upper) of the signal mean; never empty, never negative.

    Raises:
        ValueError: if an argument is negative or the level is not between 0 and 1.

    Source: Feldman and Cousins, Phys. Rev. D 57 (1998) 3873, section IV.
    """
    _check(np.array([float(counts), background]), level)
    reach = counts + 6.0 * math.sqrt(counts + 4.0) + 6.0
    signals = np.arange(0.0, reach, step)
    n = np.arange(0, int(reach + background + 8.0 * math.sqrt(reach + background + 1.0)) + 10)
    best = np.maximum(n - background, 0.0) + background
    mean = signals[:, None] + background
    with np.errstate(divide="ignore", invalid="ignore"):
        log_p = n * np.log(mean) - mean - gammaln(n + 1.0)
        log_best = np.where(best > 0, n * np.log(np.where(best > 0, best, 1.0)), 0.0) - best
        log_best = log_best - gammaln(n + 1.0)
    log_p[np.isnan(log_p)] = 0.0  # mean 0 and n 0: probability 1
    probability = np.exp(log_p)
    order = np.argsort(-(log_p - log_best), axis=1, kind="stable")
    sorted_p = np.take_along_axis(probability, order, axis=1)
    before = np.cumsum(sorted_p, axis=1) - sorted_p
    accepted = np.zeros_like(before, dtype=bool)
    np.put_along_axis(accepted, order, before < level, axis=1)
    inside = np.flatnonzero(accepted[:, counts])
    return float(signals[inside[0]]), float(signals[inside[-1]])


def ratio(
    numerator: ArrayLike, sigma_numerator: ArrayLike, denominator: ArrayLike, sigma_denominator: ArrayLike
) -> tuple[Floats, Floats]:
    """Return the quotient of two independent values and its one-sigma error.

    r = a/b;  sigma_r^2 = (sigma_a / b)^2 + (a sigma_b / b^2)^2.

    Args:
        numerator: a, any shape.
        sigma_numerator: its error, same shape.
        denominator: b, same shape.
        sigma_denominator: its error, same shape.

    Returns:
        (r, sigma), NaN where b is zero.

    Source: JCGM 100:2008 (GUM) 5.1.2.
    """
    a, sa = np.asarray(numerator, np.float64), np.asarray(sigma_numerator, np.float64)
    b, sb = np.asarray(denominator, np.float64), np.asarray(sigma_denominator, np.float64)
    safe = np.where(b == 0.0, np.nan, b)
    value: Floats = a / safe
    sigma: Floats = np.hypot(sa / safe, a * sb / safe**2)
    return value, sigma


def pulls(estimate: ArrayLike, truth: ArrayLike, sigma: ArrayLike) -> tuple[float, float]:
    """Return mean and standard deviation of (estimate - truth) / sigma over independent draws.

    Raises:
        ValueError: if a pull is not finite.
    """
    values = (np.asarray(estimate, np.float64) - np.asarray(truth, np.float64)) / np.asarray(
        sigma, np.float64
    )
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{np.count_nonzero(~np.isfinite(values))} pulls are not finite")
    return float(np.mean(values)), float(np.std(values, ddof=1))


def difference_z(a: Estimate, b: Estimate) -> float:
    """Return (a - b) / sigma of two independent estimates, with both kinds of error of both."""
    return (a.value - b.value) / math.hypot(a.total, b.total)


def _check(values: Floats, level: float) -> None:
    if np.any(values < 0.0):
        raise ValueError(f"counts must not be negative, got {float(np.min(values))}")
    if not 0.0 < level < 1.0:
        raise ValueError(f"confidence level {level} is not between 0 and 1")
