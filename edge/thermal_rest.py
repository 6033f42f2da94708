"""The room's temperature from a plateau: what a record shows before anything was heated.

A body that is left alone goes towards its room by T_room = T + tau dT/dt. So a plateau whose slope is known
pins the room, better than a whole experiment does, in which a warmer room and a smaller loss look alike::

    T_room = m + tau b,   var = var(m) + tau^2 var(b) + b^2 var(tau)

with the mean m and the slope b of the plateau. Three things hide a slope: the scatter about the line; a heat
that nobody accounts for, which makes the temperature wander (its size is known from the whole record, and can
be no larger than the scatter allows: a wandering of w K per root second scatters about its line by
w sqrt(T / 15)); and rounding: a reading in steps of q may move by q unseen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.thermal_plant import ThermalRecord

Floats = NDArray[np.float64]

FEWEST = 8  # readings
ALLOWED = 2.0  # times the wandering that the scatter shows: one course of it is little to judge by


@dataclass(frozen=True)
class Plateau:
    """A straight line through the readings before the first power."""

    mean_k: float
    slope_k_per_s: float
    mean_sigma_k: float
    slope_sigma_k_per_s: float

    def room_k(self, constant_s: float, constant_sigma_s: float) -> tuple[float, float]:
        """Return the room's temperature and its one-sigma error, for the time constant of the body."""
        spread = math.hypot(
            self.mean_sigma_k, constant_s * self.slope_sigma_k_per_s, self.slope_k_per_s * constant_sigma_s
        )
        return self.mean_k + constant_s * self.slope_k_per_s, spread


def plateau(record: ThermalRecord, wander_k_root_s: float) -> Plateau | None:
    """Return the plateau before the first power, None when there is none of ``FEWEST`` readings.

    ``wander_k_root_s`` is what heat that is not accounted for does to the temperature, K s^-0.5.
    """
    heated = np.flatnonzero(record.power > 0.0)
    before = slice(0, int(heated[0]) + 1 if heated.size else record.power.size)
    good = np.isfinite(record.temperature_k[before])
    t, y = record.time_s[before][good], record.temperature_k[before][good]
    if t.size < FEWEST:
        return None
    span_s = float(t[-1] - t[0])
    since = t - t.mean()
    slope = float(since @ (y - y.mean()) / (since @ since))
    rest = y - y.mean() - slope * since
    step_k = _step_k(record.temperature_k)
    scatter = float(rest @ rest) / (t.size - 2) + step_k**2 / 12.0
    wander = min(wander_k_root_s**2, ALLOWED * 15.0 * scatter / span_s)
    slope_variance = scatter / float(since @ since) + 1.2 * wander / span_s + step_k**2 / (3.0 * span_s**2)
    mean_variance = scatter / t.size + step_k**2 / 12.0
    return Plateau(float(y.mean()), slope, math.sqrt(mean_variance), math.sqrt(slope_variance))


def _step_k(readings: Floats) -> float:
    """Return the step in which the readings are rounded: the smallest difference of two of them."""
    values = np.unique(np.round(readings[np.isfinite(readings)], 9))
    steps = np.diff(values)
    steps = steps[steps > 1e-6]
    return float(steps.min()) if steps.size else 0.0
