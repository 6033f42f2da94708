"""Platinum resistance thermometers: ohm to degC and back. Pure functions.

Callendar-Van Dusen equation of IEC 60751:2008 (alpha = 0.003851 /K), valid from -200 to 850 degC:

    R(t) = R0 (1 + A t + B t^2 + C (t - 100) t^3),  the C term only below 0 degC
"""

from __future__ import annotations

import math
from typing import Literal

A_PER_K = 3.9083e-3  # IEC 60751:2008, 4.2
B_PER_K2 = -5.775e-7  # the same
C_PER_K4 = -4.183e-12  # the same; only below 0 degC
LOWEST_C, HIGHEST_C = -200.0, 850.0  # range of the equation
R0_OHM = 100.0  # Pt100

ToleranceClass = Literal["AA", "A", "B", "C"]
# IEC 60751:2008, wire-wound elements: K at 0 degC, K per |t|, lowest and highest temperature of the class
TOLERANCES: dict[str, tuple[float, float, float, float]] = {
    "AA": (0.1, 0.0017, -50.0, 250.0),
    "A": (0.15, 0.002, -100.0, 450.0),
    "B": (0.3, 0.005, -196.0, 600.0),
    "C": (0.6, 0.01, -196.0, 600.0),
}


def resistance_ohm(temperature_c: float, r0_ohm: float = R0_OHM) -> float:
    """Return the resistance of an ideal element, ohm.

    Args:
        temperature_c: -200 to 850 degC.
        r0_ohm: resistance at 0 degC.

    Raises:
        ValueError: outside the range of IEC 60751, or not a number, or r0_ohm not positive.
    """
    if not LOWEST_C <= temperature_c <= HIGHEST_C:
        raise ValueError(f"{temperature_c} degC is outside IEC 60751, {LOWEST_C:g} to {HIGHEST_C:g} degC")
    return _positive(r0_ohm) * _ratio(temperature_c)


def temperature_c(resistance_ohm: float, r0_ohm: float = R0_OHM) -> float:
    """Return the temperature at which an ideal element has this resistance, degC.

    From R0 upwards the quadratic is solved; below, Newton's method starts from that solution (the slope is
    positive in the whole range, so it converges; the result is good to 1e-9 K).

    Args:
        resistance_ohm: 18.52 to 390.48 ohm for a Pt100.
        r0_ohm: resistance at 0 degC.

    Raises:
        ValueError: outside the range of IEC 60751, or not a number: a broken wire or a short circuit.
    """
    ratio = resistance_ohm / _positive(r0_ohm)
    if not _ratio(LOWEST_C) <= ratio <= _ratio(HIGHEST_C):
        low, high = r0_ohm * _ratio(LOWEST_C), r0_ohm * _ratio(HIGHEST_C)
        raise ValueError(f"{resistance_ohm} ohm is outside IEC 60751, {low:.4f} to {high:.4f} ohm")
    t_c = (-A_PER_K + math.sqrt(A_PER_K**2 - 4.0 * B_PER_K2 * (1.0 - ratio))) / (2.0 * B_PER_K2)
    if ratio >= 1.0:
        return t_c
    for _ in range(10):
        step_k = (_ratio(t_c) - ratio) / _slope_per_k(t_c)
        t_c -= step_k
        if abs(step_k) < 1e-10:
            break
    return t_c


def slope_ohm_per_k(temperature_c: float, r0_ohm: float = R0_OHM) -> float:
    """Return dR/dt, ohm/K. Raises ValueError outside the range of IEC 60751."""
    if not LOWEST_C <= temperature_c <= HIGHEST_C:
        raise ValueError(f"{temperature_c} degC is outside IEC 60751, {LOWEST_C:g} to {HIGHEST_C:g} degC")
    return _positive(r0_ohm) * _slope_per_k(temperature_c)


def tolerance_k(temperature_c: float, tolerance_class: ToleranceClass) -> float:
    """Return the tolerance (largest deviation) of a wire-wound element of this class, K.

    Raises:
        ValueError: unknown class, or a temperature for which the class is not defined.
    """
    if tolerance_class not in TOLERANCES:
        raise ValueError(f"tolerance class {tolerance_class!r} is none of {', '.join(TOLERANCES)}")
    at_zero_k, per_kelvin, low_c, high_c = TOLERANCES[tolerance_class]
    if not low_c <= temperature_c <= high_c:
        raise ValueError(
            f"class {tolerance_class} is defined from {low_c:g} to {high_c:g} degC, not at {temperature_c}"
        )
    return at_zero_k + per_kelvin * abs(temperature_c)


def _ratio(t_c: float) -> float:
    cubic = C_PER_K4 * (t_c - 100.0) * t_c**3 if t_c < 0.0 else 0.0
    return 1.0 + A_PER_K * t_c + B_PER_K2 * t_c**2 + cubic


def _slope_per_k(t_c: float) -> float:
    cubic = C_PER_K4 * (4.0 * t_c - 300.0) * t_c**2 if t_c < 0.0 else 0.0
    return A_PER_K + 2.0 * B_PER_K2 * t_c + cubic


def _positive(r0_ohm: float) -> float:
    if not (math.isfinite(r0_ohm) and r0_ohm > 0.0):
        raise ValueError(f"r0 = {r0_ohm} ohm")
    return r0_ohm
