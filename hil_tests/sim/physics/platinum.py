"""A platinum element and its leads, as an ohmmeter sees them (IEC 60751:2008, Callendar-Van Dusen).

Written apart from the drivers' own conversion, so that an error in one of them shows.
"""

from __future__ import annotations

KELVIN_AT_0_C = 273.15
COEFFICIENTS = (3.9083e-3, -5.775e-7, -4.183e-12)  # A /K, B /K2, C /K4, the last below 0 degC


def ohm(kelvin: float, r0_ohm: float = 100.0, lead_ohm: float = 0.0) -> float:
    """Return what is measured at the end of the leads, ohm."""
    t = kelvin - KELVIN_AT_0_C
    a, b, c = COEFFICIENTS
    polynomial = 1.0 + t * (a + t * b)
    if t < 0.0:
        polynomial += c * (t - 100.0) * t * t * t
    return r0_ohm * polynomial + lead_ohm


def celsius(resistance_ohm: float) -> float:
    """Return what an instrument makes of it that takes it for an ideal Pt100, by bisection."""
    low, high = -250.0, 1000.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        if ohm(middle + KELVIN_AT_0_C) < resistance_ohm:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)
