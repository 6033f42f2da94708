"""Incremental capacity dQ/dV with an error: the slope of V against Q by least squares in windows of voltage.

Q is nearly exact and V carries the noise, so V is fitted against Q and the slope inverted; differences of
Q over differences of V would divide by the noise. A window has a stated width in volts: that is the
smoothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
MIN_POINTS = 5
MIN_SIGNIFICANCE = 3.0  # a slope dV/dQ that is less sure has no inverse worth printing


@dataclass(frozen=True)
class Incremental:
    """dQ/dV of one step; windows do not overlap, so points are independent."""

    voltage_v: Floats  # (n,) where each window has its mean
    value: Floats  # (n,) Ah/V, in the direction of the step (positive); NaN where the slope is not resolved
    sigma_stat: Floats  # (n,) noise of the voltage
    sigma_smooth: Floats  # (n,) what the window's width may have flattened
    points: NDArray[np.int64]  # (n,) samples in each window
    window_v: float
    voltage_noise_v: float


def incremental_capacity(
    charge_ah: Floats, voltage_v: Floats, window_v: float, noise_v: float
) -> Incremental:
    """Return dQ/dV in windows of equal voltage along a step at constant current.

    In each window V = a + b Q is fitted with equal weights; dQ/dV = 1/b, sigma_stat = sigma_b / b^2 with
    sigma_b^2 = noise^2 / sum (Q - mean Q)^2. A curve within the window adds no bias to b at the window's
    middle up to the second order; the third order is bounded by halving the window: sigma_smooth = |b -
    mean of the halves' b| / b^2.

    Args:
        charge_ah: charge passed since the start of the step, Ah, not falling, shape (n,).
        voltage_v: voltage, V, shape (n,), rising or falling on the whole.
        window_v: width of a window, V.
        noise_v: one sigma of a voltage reading, V.

    Returns:
        Windows in the order of the step; those with fewer than 5 samples are widened until they have 5.
        The value is positive where the voltage moves in the direction of the step.

    Raises:
        ValueError: if shapes differ, the window or noise is not positive, or there are fewer than 10 samples.

    Source: least squares with one exact variable; Dubarry et al. on incremental capacity as a method.
    """
    if charge_ah.shape != voltage_v.shape or charge_ah.size < 2 * MIN_POINTS:
        raise ValueError(
            f"{charge_ah.size} charges and {voltage_v.size} voltages: at least {2 * MIN_POINTS} pairs"
        )
    if window_v <= 0 or noise_v <= 0:
        raise ValueError(f"window {window_v} V and noise {noise_v} V must be positive")
    direction = 1.0 if voltage_v[-1] >= voltage_v[0] else -1.0
    edges = _edges(direction * voltage_v, window_v, noise_v)
    rows = []
    for first, last in pairwise(edges):
        q, v = charge_ah[first:last], direction * voltage_v[first:last]
        slope, spread = _slope(q, v)
        middle = (last - first) // 2
        halves = [_slope(q[:middle], v[:middle])[0], _slope(q[middle:], v[middle:])[0]]
        sigma = noise_v / math.sqrt(spread) if spread > 0 else math.nan
        curved = abs(slope - 0.5 * (halves[0] + halves[1])) if middle >= MIN_POINTS else 0.0
        if not (math.isfinite(sigma) and slope > MIN_SIGNIFICANCE * sigma):
            rows.append((float(v.mean()), math.nan, math.nan, math.nan, last - first))
            continue
        rows.append((float(v.mean()), 1.0 / slope, sigma / slope**2, curved / slope**2, last - first))
    table = np.array(rows)
    return Incremental(
        direction * table[:, 0],
        table[:, 1],
        table[:, 2],
        table[:, 3],
        table[:, 4].astype(np.int64),
        window_v,
        noise_v,
    )


def _edges(rising: Floats, window_v: float, noise_v: float) -> list[int]:
    """Return record numbers that cut a voltage into windows: each ends where it has climbed by the width.

    Where a noisy voltage first passes a level its noise is high, and the slope would be too. So the
    crossing is sought in a moving mean so wide that its noise is a tenth of what the voltage moves within it.
    """
    n = rising.size
    per_sample = max(float(np.ptp(rising)) / n, 1e-12)
    wide = int(np.clip(math.ceil((10.0 * noise_v / per_sample) ** (2.0 / 3.0)), 1, max(1, n // 8)))
    top = np.maximum.accumulate(ndimage.uniform_filter1d(rising, wide, mode="nearest"))
    edges, start = [0], float(top[0])
    while edges[-1] < n:
        end = int(np.searchsorted(top, start + window_v, side="right"))
        end = max(end, edges[-1] + MIN_POINTS)
        if n - end < MIN_POINTS:
            end = n
        edges.append(end)
        if end < n:
            start = float(top[end - 1])
    return edges


def _slope(q: Floats, v: Floats) -> tuple[float, float]:
    d = q - q.mean()
    spread = float(d @ d)
    return (float(d @ v) / spread if spread > 0 else math.nan), spread
