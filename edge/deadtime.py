"""Dead time per pixel: modelled from the pixel's rate, its length fitted to the slow and fast counters.

The slow (shaping) channel is paralysable: m = n exp(-n tau). The fast channel sees almost every photon; what
it misses is its pulse-pair resolving time. At the usual 0.3 to 1 kcps both are below one per cent, but they
differ between detectors and layers, so Li/Co needs them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

TAU_RANGE_S = (0.0, 2e-4)  # shaping times from 0.1 to about 50 us
PILE_UP_FLAG = 0.01  # a pixel whose pile-up fraction is above this is flagged


@dataclass(frozen=True)
class DeadTime:
    """Fitted dead time per pulse of one detector, with its error, and how well the counters agree."""

    tau_s: float
    sigma_s: float


@dataclass(frozen=True)
class CounterCheck:
    """The counters of one detector in one pass against the events received and the dead-time model."""

    received: int
    slow: int
    fast: int
    lost: int  # slow minus received; negative means events that the counter does not know
    dead_fraction: float
    fast_expected: float
    z: float  # (fast - expected) / sigma


def true_rate_hz(observed_hz: ArrayLike, tau_s: float) -> Floats:
    """Return the photon rate behind an observed rate: n solves m = n exp(-n tau), the smaller solution.

    Args:
        observed_hz: rates of recorded events, any shape.
        tau_s: dead time per pulse; 0 returns the observed rates.

    Returns:
        Rates of the same shape; NaN where m tau > 1/e, which no paralysable detector can show.

    Source: Knoll, Radiation Detection and Measurement, 4th ed., section 4.7.
    """
    observed = np.asarray(observed_hz, dtype=np.float64)
    if tau_s == 0.0:
        return observed.copy()
    busy = observed * tau_s
    possible = busy < math.exp(-1.0)
    busy = np.where(possible, busy, 0.0)
    u = busy * (1.0 + busy)
    for _ in range(50):  # Newton for u exp(-u) = m tau, from below; three steps at a dead time of 1 %
        step = (u - busy * np.exp(u)) / (1.0 - u)
        u = u - step
        if np.max(np.abs(step), initial=0.0) < 1e-15:
            break
    rate: Floats = np.where(possible, u / tau_s, np.nan)
    return rate


def smooth_rate_hz(counts: ArrayLike, time_s: ArrayLike, enough: float = 400.0) -> Floats:
    """Return the observed rate of each pixel, averaged over a square of neighbours with enough counts.

    The dead fraction is proportional to the rate; from a pixel's own few counts it would be biased (the mean
    of n^2 is not the square of the mean) and correlated with the counts that it corrects.

    Args:
        counts: all recorded events per pixel, shape (ny, nx).
        time_s: dwell per pixel, same shape; pixels with zero time do not take part.
        enough: counts wanted in the square; 400 give 5 % of a correction that is itself below a per cent.

    Returns:
        Rates, shape (ny, nx); 0 where no pixel of the square has time.
    """
    number = np.asarray(counts, dtype=np.float64)
    time = np.asarray(time_s, dtype=np.float64)
    mean = float(number.mean()) if number.size else 0.0
    side = 1 if mean <= 0 else math.ceil(math.sqrt(enough / mean))
    half = min(side // 2, max(number.shape, default=0))
    summed, spent = _box_sum(number, half), _box_sum(time, half)
    rate: Floats = np.divide(summed, spent, out=np.zeros_like(summed), where=spent > 0)
    return rate


def expected_fast(
    recorded: float, observed_hz: Floats, time_s: Floats, tau_s: float, fast_dead_s: float
) -> float:
    """Return the fast counts that go with the recorded ones: N + sum of t [n exp(-n tau_fast) - m].

    Only the difference between both channels comes from the smoothed rates, so that smoothing, which does not
    keep the sum, does not enter at first order.
    """
    rate = true_rate_hz(observed_hz, tau_s)
    return recorded + float(np.sum((rate * np.exp(-rate * fast_dead_s) - observed_hz) * time_s))


def fit_dead_time(
    recorded: float,
    fast: float,
    observed_hz: Floats,
    time_s: Floats,
    fast_dead_s: float,
    prior: DeadTime | None = None,
) -> DeadTime:
    """Return the dead time per pulse for which the model gives the counted fast pulses.

    Args:
        recorded: events of the slow channel.
        fast: increase of the fast counter over the same time.
        observed_hz: recorded rates of all pixels and of the beam-off time, shape (n,).
        time_s: the time spent at each, shape (n,).
        fast_dead_s: pulse-pair resolving time of the fast channel.
        prior: combined with the fit by inverse variance when given.

    Returns:
        The dead time; its sigma comes from the binomial spread of what the slow channel missed, the square
        root of their number. Where no dead time explains the counters (noise in the fast channel, rates
        beyond the maximum of a paralysable channel) it is the nearest one, and its sigma says how far off.

    Raises:
        ValueError: if nothing was recorded.
    """
    if recorded <= 0.0 or fast <= 0.0:
        raise ValueError(f"no counts to fit a dead time to: recorded {recorded}, fast {fast}")
    low, high = TAU_RANGE_S
    high = min(high, 0.999 * math.exp(-1.0) / max(float(np.max(observed_hz)), 1e-9))
    slope = float(np.sum(observed_hz**2 * time_s))  # d(expected)/d(tau) to first order; nowhere less

    def off(tau_s: float) -> float:
        return fast - expected_fast(recorded, observed_hz, time_s, tau_s, fast_dead_s)

    while high - low > 1e-9 * TAU_RANGE_S[1]:  # what is expected grows with tau
        middle = 0.5 * (low + high)
        low, high = (middle, high) if off(middle) > 0.0 else (low, middle)
    tau = 0.5 * (low + high)
    missed = max(expected_fast(recorded, observed_hz, time_s, tau, 0.0) - recorded, 1.0)
    # What the fit leaves is nothing but where a bound stopped it.
    sigma = math.hypot(math.sqrt(missed), off(tau)) / slope
    if prior is None:
        return DeadTime(tau, sigma)
    weight, other = sigma**-2, prior.sigma_s**-2
    total = weight + other
    return DeadTime((tau * weight + prior.tau_s * other) / total, total**-0.5)


def live_fraction(observed_hz: ArrayLike, tau_s: float) -> Floats:
    """Return the fraction of photons that are recorded, exp(-n tau), for observed rates of any shape."""
    fraction: Floats = np.exp(-true_rate_hz(observed_hz, tau_s) * tau_s)
    return fraction


def pile_up_fraction(observed_hz: ArrayLike, tau_s: float, fast_dead_s: float) -> Floats:
    """Return the fraction of events that hold an unrecognised second photon, 1 - exp(-n tau_fast)."""
    fraction: Floats = -np.expm1(-true_rate_hz(observed_hz, tau_s) * fast_dead_s)
    return fraction


def check_counters(
    received: int, slow: int, fast: int, observed_hz: Floats, time_s: Floats, tau_s: float, fast_dead_s: float
) -> CounterCheck:
    """Compare the counters of one pass with the events received and with the model.

    ``z`` uses sigma = sqrt(missed), at least 1: the binomial spread of what the slow channel missed.
    """
    expected = expected_fast(slow, observed_hz, time_s, tau_s, fast_dead_s)
    missed = expected_fast(slow, observed_hz, time_s, tau_s, 0.0) - slow
    dead = missed / (slow + missed) if slow + missed > 0 else 0.0
    z = (fast - expected) / math.sqrt(max(missed, 1.0))
    return CounterCheck(received, slow, fast, slow - received, dead, expected, z)


def _box_sum(values: Floats, half: int) -> Floats:
    """Sum over a (2 half + 1) square, cut at the borders."""
    if half == 0:
        return values
    result = values
    for axis in (0, 1):
        length = result.shape[axis]
        sums = np.concatenate(
            [np.zeros_like(result.take([0], axis)), np.cumsum(result, axis=axis)], axis=axis
        )
        index = np.arange(length)
        upper = np.minimum(index + half + 1, length)
        lower = np.maximum(index - half, 0)
        result = sums.take(upper, axis) - sums.take(lower, axis)
    return result
