"""How a step of a cycler was driven, from its samples: constant current, constant voltage, and since when."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MAD_PER_SIGMA = 0.6744897501960817
CC_SPREAD = 0.01  # a current that stays within 1 % is constant
CV_TOLERANCE_V = 1e-3  # a voltage that stays within 1 mV (or its noise) of its last value is held
HELD_SIGMAS = 6.0  # of thousands of samples none lies farther off by noise alone
SWITCH_DROP = 0.005  # the current has left its constant value when 0.5 % are gone
FITTED = 8  # samples before the switch through which the voltage is drawn on to its limit
FEWEST = 4  # of them
ODD = 3.0  # sigmas that are no accident


@dataclass(frozen=True)
class Driven:
    """How a step was driven: "CC", "CV", "CC-CV" or "other"; with "CC-CV" what is sure of the switch."""

    control: str
    certain_cc: int = 0  # samples before this one were at constant current
    certain_cv: int = 0  # this one and all later ones were at constant voltage


@dataclass(frozen=True)
class Crossing:
    """When the voltage reached its limit. One sigma each."""

    time_s: float
    stat_s: float  # noise of the voltage
    sampling_s: float  # the curve between the samples


def current_noise(current: Floats, resolution_a: float) -> float:
    """Return the one-sigma noise of a current, A: second differences without jumps, never below rounding.

    A constant and a slope cancel in y[i-1] - 2 y[i] + y[i+1], whose variance is 6 sigma^2. The first two
    samples of a step (settling) are left out.
    """
    floor = resolution_a / math.sqrt(12.0)
    if current.size < 7:
        return floor
    return max(floor, clipped_rms(np.diff(current[2:], 2), resolution_a) / math.sqrt(6.0))


def voltage_noise(voltage: Floats, resolution_v: float) -> float:
    """Return one sigma of the voltage, V: third differences (variance 20 sigma^2), or its rounding.

    Third differences cancel a parabola, which a voltage curve is between four neighbouring samples.
    """
    floor = resolution_v / math.sqrt(12.0)
    if voltage.size < 8:
        return floor
    return max(floor, clipped_rms(np.diff(voltage, 3), resolution_v) / math.sqrt(20.0))


def clipped_rms(values: Floats, resolution: float) -> float:
    """Return the rms of what lies within 5 robust sigmas of zero (a median alone has steps of rounding)."""
    size = np.abs(values)
    limit = 5.0 * max(float(np.median(size)) / MAD_PER_SIGMA, resolution)
    return float(np.sqrt(np.mean(size[size <= limit] ** 2)))


def classify(voltage: Floats, current: Floats, resolution_v: float, resolution_a: float) -> Driven:
    """Return how a step was driven.

    The voltage is held where it stays within max(1 mV, 4 resolutions, 6 times its noise) of its last value
    to the end; the current has left its constant value where it has dropped by more than 0.5 % (or 5 times
    its noise) for good. Held from the first three records on: "CV". No drop: "CC" if the current stays
    within 1 %, else "other".

    Args:
        voltage: V, shape (n,).
        current: A, positive in the direction of the step, shape (n,).
        resolution_v: of the voltage, V.
        resolution_a: of the current, A.
    """
    n = voltage.size
    if n < 3:
        return Driven("other")
    end = float(np.median(voltage[-3:]))
    wide = max(CV_TOLERANCE_V, 4.0 * resolution_v, HELD_SIGMAS * voltage_noise(voltage, resolution_v))
    held = np.abs(voltage - end) <= wide
    plateau = n - int(np.argmin(held[::-1])) if not np.all(held) else 0
    noise = current_noise(current, resolution_a)
    level = float(np.median(current[:plateau])) if plateau >= 3 else float(np.max(current[: max(3, plateau)]))
    low = current < level - max(SWITCH_DROP * abs(level), 5.0 * noise)
    since = n - int(np.argmin(low[::-1])) if not np.all(low) else 0  # low from here to the end
    if since < n - 1 and plateau < n - 2:
        if max(since, plateau) <= 3:
            return Driven("CV")
        return Driven("CC-CV", max(1, min(since, plateau)), max(since, plateau))
    settled = current[min(2, n - 1) :]
    middle = float(np.median(settled))
    spread = float(np.percentile(np.abs(settled - middle), 98))
    steady = spread <= CC_SPREAD * abs(middle) + 5.0 * resolution_a
    noisy = noise < 0.1 * abs(middle) and spread <= 5.0 * noise
    return Driven("CC" if steady or noisy else "other")


def crossing(time_s: Floats, voltage: Floats, driven: Driven, resolution_v: float) -> Crossing:
    """Return when the voltage of a CC-CV step reached the limit at which it was then held.

    The current alone tells it late: it must first have fallen by more than its noise. So a parabola (or
    a line, of less than six samples) through the last ones that were surely at constant current is
    drawn on to the mean of those at constant voltage. sigma_stat: the noise of the voltage, through the
    fit; sigma_sampling: what a polynomial of one order more says otherwise, where that is more than its
    noise. Where the answer does not lie in the interval that the samples leave open, or too few samples
    stand before it: the middle of this interval, +- width / sqrt(12).

    Args:
        time_s: s, rising, shape (n,).
        voltage: V, shape (n,).
        driven: what `classify` has found, with "CC-CV".
        resolution_v: of the voltage, V.
    """
    cc, cv = driven.certain_cc, driven.certain_cv
    earliest, latest = float(time_s[cc - 1]), float(time_s[cv])
    used = slice(max(2, cc - FITTED), cc)
    found = None
    if cc - used.start >= FEWEST:
        noise = max(voltage_noise(voltage, resolution_v), 1e-9)
        limit = float(np.mean(voltage[cv:]))
        sigma_limit = noise / math.sqrt(voltage.size - cv)
        found = _reached(time_s[used] - earliest, voltage[used] - limit, noise, sigma_limit)
    if found is not None:
        at = earliest + found.time_s
        inside = min(max(at, earliest), latest)
        if abs(at - inside) <= ODD * math.hypot(found.stat_s, found.sampling_s):
            return Crossing(inside, found.stat_s, found.sampling_s)
    return Crossing((earliest + latest) / 2.0, 0.0, (latest - earliest) / math.sqrt(12.0))


def _reached(t: Floats, y: Floats, noise: float, sigma_limit: float) -> Crossing | None:
    """Return where a polynomial through (t, y) reaches zero after the last of them, or None if nowhere."""
    order = 2 if t.size >= 6 else 1
    scale = max(float(t[-1] - t[0]), 1e-9)
    first, second = (_root(t / scale, y, n, noise) for n in (order, order + 1))
    if first is None:
        return None
    at, sigma, slope = first
    stat = math.hypot(sigma, sigma_limit / slope)
    sampling = 0.0
    if second is not None:  # nested fits: the variance of their difference is the difference of theirs
        noise_of_difference = math.sqrt(max(0.0, second[1] ** 2 - sigma**2))
        differ = abs(second[0] - at)
        sampling = differ if differ > ODD * noise_of_difference else 0.0
    return Crossing(at * scale, stat * scale, sampling * scale)


def _root(x: Floats, y: Floats, order: int, noise: float) -> tuple[float, float, float] | None:
    """Return the first zero after the last x of a polynomial fit, its sigma, and |slope| there."""
    powers = np.arange(order + 1)
    design = (x[:, None] - x[-1]) ** powers
    inverse = np.linalg.pinv(design)
    coefficients = inverse @ y
    roots = np.roots(coefficients[::-1])
    ahead = [float(r.real) for r in roots if abs(r.imag) < 1e-12 and r.real > -1.0]
    if not ahead:
        return None
    root = min(ahead, key=abs)
    slope = abs(float(np.sum(powers[1:] * coefficients[1:] * root ** (powers[1:] - 1))))
    if slope == 0.0:
        return None
    return float(x[-1]) + root, noise * float(np.linalg.norm(root**powers @ inverse)) / slope, slope
