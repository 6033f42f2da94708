"""A cell that heats itself: a decomposition that follows Arrhenius, until its heat is spent.

    P = P_ref exp(E/k (1/T_ref - 1/T)) (what is left / what there was)

The hotter the cell, the faster it heats: above a temperature that its cooling decides, nothing outside stops
it. With an activation energy of 0 it is a constant source. The numbers come with the fault and describe no
particular cell: decompositions of lithium cells have 1 to 2 eV and some 100 to 1000 J per gram.
"""

from __future__ import annotations

import math

BOLTZMANN_EV_PER_K = 8.617333262e-5  # CODATA 2018
HOTTEST_FACTOR = 1e3  # of the power at the reference temperature: what heat and mass transport let through


class SelfHeating:
    """Heat made inside the cell; silent until it is set off."""

    def __init__(self) -> None:
        self.watt = 0.0
        self.reference_k = 333.15
        self.ev = 0.0
        self.joule = math.inf  # in all
        self.spent_joule = 0.0

    def begin(self, watt: float, *, reference_k: float, ev: float, joule: float) -> None:
        """Set it off: ``watt`` at ``reference_k``; 0 W ends it.

        Raises:
            ValueError: a number that no such source has.
        """
        if not (reference_k > 0.0 and ev >= 0.0 and joule > 0.0 and math.isfinite(watt)):
            raise ValueError(f"no such heating: {watt} W at {reference_k} K, {ev} eV, {joule} J")
        self.watt, self.reference_k, self.ev, self.joule = watt, reference_k, ev, joule
        self.spent_joule = 0.0

    def process(self, dt_s: float, cell_k: float) -> float:
        """Return the power in W for the coming ``dt_s`` seconds at a temperature, and count it."""
        exponent = self.ev / BOLTZMANN_EV_PER_K * (1.0 / self.reference_k - 1.0 / cell_k)
        factor = min(math.exp(min(exponent, math.log(HOTTEST_FACTOR))), HOTTEST_FACTOR)
        if math.isinf(self.joule):
            return self.watt * factor
        left = max(0.0, 1.0 - self.spent_joule / self.joule)
        power_w = self.watt * factor * left
        self.spent_joule += power_w * dt_s
        return power_w
