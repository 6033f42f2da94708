"""The state of charge: from x, between named scans, from coulombs; agreement and verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edge.calibration_tables import X_EMPTY, X_FULL
from edge.settings import Settings
from edge.uncertainty import Estimate

Floats = NDArray[np.float64]
Pair = tuple[Floats, Floats]  # a value and its statistical one-sigma error

RESOLVED_SIGMA = 3.0  # a change is called resolved from here
AGREE_Z = 2.0  # beam and charge are said to agree up to here


def soc_of(x: Pair) -> Pair:
    """Return the state of charge (1 - x) / 0.5 and sigma: 0 at x = 1, 1 at x = 0.5."""
    width = X_FULL - X_EMPTY
    return (X_FULL - x[0]) / width, x[1] / width


def soc_between(x: Pair, zero: Pair, full: Pair) -> Pair:
    """Return the state of charge between two named scans, (x0 - x) / (x0 - x1), and sigma.

    sigma^2 = [s_x^2 + (1 - q)^2 s_0^2 + q^2 s_1^2] / (x0 - x1)^2 with q the result (GUM 5.1.2).
    """
    span = zero[0] - full[0]
    value = (zero[0] - x[0]) / span
    sigma = np.sqrt(x[1] ** 2 + ((1.0 - value) * zero[1]) ** 2 + (value * full[1]) ** 2) / np.abs(span)
    return value, sigma


def soc_from_charge(
    charge_coulomb: float,
    sigma_coulomb: float,
    capacity_coulomb: float,
    capacity_error: float,
    leakage_a: float = 0.0,
    elapsed_s: float = 0.0,
) -> Estimate:
    """Return the state of charge from the coulombs that passed.

    soc = Q / C;  statistical: sigma_Q / C (current offset and noise, as integrated by the controller);
    systematic: soc sigma_C / C and leakage or side reactions, I_leak t / C, in quadrature.

    Args:
        charge_coulomb: Q since the reference state.
        sigma_coulomb: its one-sigma error.
        capacity_coulomb: C, the charge for x from 1 to 0.5.
        capacity_error: relative.
        leakage_a: one-sigma current that passes without moving lithium out of the host.
        elapsed_s: for how long.

    Raises:
        ValueError: if the capacity is not positive.
    """
    if capacity_coulomb <= 0.0:
        raise ValueError(f"capacity must be positive, got {capacity_coulomb} C")
    soc = charge_coulomb / capacity_coulomb
    systematic = math.hypot(soc * capacity_error, leakage_a * elapsed_s / capacity_coulomb)
    return Estimate(soc, abs(sigma_coulomb) / capacity_coulomb, systematic, "1")


def relative_soc(
    settings: Settings, results: Mapping[str, Mapping[str, Estimate]], now: Mapping[str, Estimate]
) -> Estimate | None:
    """Return the SoC of a host layer between the two scans named in the settings, or None.

    Args:
        settings: names the scans for 0 and, optionally, for 1; without it x = 0.5 stands for 1.
        results: quantities of this layer by scan name.
        now: quantities of this layer in the scan asked for.
    """
    zero = results.get(settings.relative_zero or "")
    if zero is None or "x" not in now:
        return None
    full = results.get(settings.relative_full or "")
    if settings.relative_full is not None and full is None:
        return None
    bases = [_x(zero), _x(full) if full is not None else Estimate(0.5, 0.0, 0.0, "1")]
    x = now["x"]

    def pair(e: Estimate, sigma: float) -> Pair:
        return np.array(e.value), np.array(sigma)

    stat = soc_between(pair(x, x.sigma_stat), *(pair(b, b.sigma_stat) for b in bases))
    sys = soc_between(pair(x, x.sigma_sys), *(pair(b, b.sigma_sys) for b in bases))
    return Estimate(float(stat[0]), float(stat[1]), float(sys[1]), "1")


def _x(quantities: Mapping[str, Estimate]) -> Estimate:
    """Return x of a scan; the reference itself has x = 1 by definition."""
    return quantities.get("x", Estimate(1.0, 0.0, 0.0, "1"))


def outside_range(x: float) -> str | None:
    """Return a sentence if x lies outside 0.5 to 1, which is flagged and never clipped."""
    if X_EMPTY <= x <= X_FULL:
        return None
    return f"x = {x:.3f} is outside 0.5 to 1: reported as measured"


def change_verdict(relative_signal: Sequence[Estimate]) -> str:
    """Return "change resolved" if any signal differs from 1 by at least 3 sigma, both kinds of error."""
    seen = any(abs(e.value - 1.0) >= RESOLVED_SIGMA * e.total for e in relative_signal if e.total > 0.0)
    return "change resolved" if seen else "no change resolved"
