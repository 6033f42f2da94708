"""The control law of a heater as pure functions: positional PID, ramped set-point, gains by temperature.

    u = kp (r - y) + I - kp td s + feed,   dI/dt = kp (r - y) / ti,   s = dy/dt behind a first-order filter

r is the working set-point, y the measurement, both in K; u, I and feed are powers in W, so that a change of
gains or of the reference power leaves the integral what it is: the power that keeps the temperature.
The derivative is taken on the measurement, never on the set-point. The integral moves no further than where
the output, without its derivative, reaches a limit: so it stands still while u is clipped. The clock belongs
to the caller, who passes the measured dt. A measurement that is None or not finite gives 0 W: never a guess.

No weight on the set-point: it is ramped, and what a ramp needs in power can be fed forward.

Source: K. J. Astrom, T. Hagglund, Advanced PID Control (ISA 2006), chapters 3 (form, filter, windup, bumpless
changes) and 9 (gain scheduling).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Gains:
    """Parameters of the law; ``ti_s`` infinite: no integral, ``td_s`` 0: no derivative."""

    kp_w_per_k: float
    ti_s: float = math.inf
    td_s: float = 0.0
    filter_s: float = 0.0  # time constant of the derivative's filter

    def __post_init__(self) -> None:
        if not (math.isfinite(self.kp_w_per_k) and self.kp_w_per_k > 0.0):
            raise ValueError(f"kp = {self.kp_w_per_k} W/K is not positive: heating must act against cold")
        if not self.ti_s > 0.0:
            raise ValueError(f"ti = {self.ti_s} s is not positive")
        for name, value in (("td", self.td_s), ("filter", self.filter_s)):
            if not (math.isfinite(value) and value >= 0.0):
                raise ValueError(f"{name} = {value} s is not a time")


@dataclass(frozen=True)
class Memory:
    """What the law remembers between two steps."""

    integral_w: float = 0.0
    measured_k: float | None = None  # of the step before; None after a start or an invalid measurement
    slope_k_per_s: float = 0.0  # filtered
    kp_w_per_k: float | None = None  # of the step before, for a change of gains without a bump


def step(
    gains: Gains, memory: Memory, *, target_k: float, now_k: float | None, dt_s: float,
    high_w: float, low_w: float = 0.0, feed_w: float = 0.0,
) -> tuple[float, Memory]:  # fmt: skip
    """Return the power in W and what to remember.

    Args:
        gains: of this step; other ones than before change the output only by what they integrate later.
        memory: of the step before.
        target_k: the working set-point, already ramped.
        now_k: the measurement; None or not finite: 0 W, and the slope begins anew.
        dt_s: measured time since the step before.
        high_w: upper limit of the output.
        low_w: lower limit of the output.
        feed_w: power known to be needed, added as it is.

    Raises:
        ValueError: dt_s is not positive, a limit or the set-point is no number, or the limits are crossed.
    """
    if not (math.isfinite(dt_s) and dt_s > 0.0):
        raise ValueError(f"dt_s = {dt_s} is not a positive time")
    if not (math.isfinite(low_w) and math.isfinite(high_w) and low_w <= high_w):
        raise ValueError(f"limits {low_w} to {high_w} W")
    if not (math.isfinite(target_k) and math.isfinite(feed_w)):
        raise ValueError(f"set-point {target_k} K with {feed_w} W fed forward")
    if now_k is None or not math.isfinite(now_k):
        return 0.0, replace(memory, measured_k=None, slope_k_per_s=0.0)
    slope = _slope(gains, memory, now_k, dt_s)
    error_k = target_k - now_k
    integral = memory.integral_w
    if memory.kp_w_per_k is not None:
        integral += (memory.kp_w_per_k - gains.kp_w_per_k) * error_k
    fixed = gains.kp_w_per_k * (error_k - gains.td_s * slope) + feed_w
    growth = gains.kp_w_per_k * error_k * dt_s / gains.ti_s
    offset_w = gains.kp_w_per_k * error_k + feed_w  # without the derivative, which passes
    lowest, highest = min(low_w - offset_w, integral), max(high_w - offset_w, integral)
    integral = min(max(integral + growth, lowest), highest)
    output = min(max(fixed + integral, low_w), high_w)
    return output, Memory(integral, now_k, slope, gains.kp_w_per_k)


def take_over(
    gains: Gains, memory: Memory, *, output_w: float, target_k: float, now_k: float, feed_w: float = 0.0
) -> Memory:
    """Return a memory with which the next step goes on from ``output_w``: manual to automatic, no bump."""
    slope = memory.slope_k_per_s if memory.measured_k is not None else 0.0
    integral = output_w - feed_w - gains.kp_w_per_k * (target_k - now_k - gains.td_s * slope)
    return Memory(integral, now_k, slope, gains.kp_w_per_k)


def ramped(working_k: float, target_k: float, rate_k_per_s: float, dt_s: float) -> float:
    """Return the working set-point ``dt_s`` later; a rate of 0 means at once. It never passes the target.

    Raises:
        ValueError: the rate is negative or no number, or dt_s is negative.
    """
    if not (rate_k_per_s >= 0.0 and math.isfinite(rate_k_per_s) and dt_s >= 0.0):
        raise ValueError(f"ramp of {rate_k_per_s} K/s for {dt_s} s")
    most_k = rate_k_per_s * dt_s
    if rate_k_per_s == 0.0 or abs(target_k - working_k) <= most_k:
        return target_k
    return working_k + math.copysign(most_k, target_k - working_k)


def scheduled(rows: Sequence[tuple[float, Gains]], at_k: float) -> Gains:
    """Return the gains at a temperature: linear between the rows, the outer ones beyond them.

    Args:
        rows: (temperature in K, gains), at least one, in rising order.
        at_k: the working set-point: a noisy measurement must not shake the gains.

    Raises:
        ValueError: no row, or not in rising order.
    """
    if not rows or any(b[0] <= a[0] for a, b in itertools.pairwise(rows)):
        raise ValueError("a gain schedule needs rows in rising order of temperature")
    for (low_k, low), (high_k, high) in itertools.pairwise(rows):
        if low_k < at_k < high_k:
            part = (at_k - low_k) / (high_k - low_k)
            per_s = _between(1.0 / low.ti_s, 1.0 / high.ti_s, part)
            return Gains(
                _between(low.kp_w_per_k, high.kp_w_per_k, part),
                1.0 / per_s if per_s > 0.0 else math.inf,
                _between(low.td_s, high.td_s, part),
                _between(low.filter_s, high.filter_s, part),
            )
    return rows[0][1] if at_k <= rows[0][0] else rows[-1][1]


def _between(low: float, high: float, part: float) -> float:
    return low + part * (high - low)


def _slope(gains: Gains, memory: Memory, now_k: float, dt_s: float) -> float:
    if memory.measured_k is None:
        return 0.0
    raw = (now_k - memory.measured_k) / dt_s
    return memory.slope_k_per_s + (raw - memory.slope_k_per_s) * dt_s / (gains.filter_s + dt_s)
