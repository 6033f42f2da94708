"""From ratios to lithium: which particles diverge, what they hold back, and what the two sums say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from edge.constants import ATOMIC_MASS_G_MOL, COULOMB_PER_AMPERE_HOUR, FARADAY_COULOMB_PER_MOL
from edge.particles_pairs import binomial_interval, wilson_interval
from edge.particles_ratios import Frame, Line
from edge.uncertainty import ONE_SIGMA, TWO_SIGMA, Estimate

Floats = NDArray[np.float64]

NICKEL_G_MOL: Final = 58.693  # CIAAW abridged standard atomic weights 2021
MANGANESE_G_MOL: Final = 54.938  # the same
GAUSS_ABOVE_TWO_SIGMA: Final = float(ndtr(-2.0))  # 2.28 % of a Gaussian lie above mean + 2 sigma

PAPER_DIVERGING: Final = MappingProxyType({
    "charged, not cycled": (6, 1), "1 C, 100 cycles": (8, 1), "2 C, 100 cycles": (15, 2),
    "2 C, 50 cycles": (11, 1), "3 C, 100 cycles": (10, 1),
})  # fmt: skip
"""Diverging fraction in %, +-, as printed by Kroeger et al. (the paper of this technique)."""
PAPER_INACTIVE_MAH_G: Final = MappingProxyType({
    "1 C, 100 cycles": (4.5, 1.7), "2 C, 50 cycles": (9.5, 3.4), "2 C, 100 cycles": (12.1, 4.4),
    "3 C, 100 cycles": (10.1, 3.4),
})  # fmt: skip
"""Table 1 of the same paper: inactive lithium in mAh/g, +-."""


def molar_mass_nmc(nickel: float, manganese: float, cobalt: float) -> float:
    """Return g/mol of LiNi_aMn_bCo_cO2."""
    mass = ATOMIC_MASS_G_MOL
    metals = nickel * NICKEL_G_MOL + manganese * MANGANESE_G_MOL + cobalt * mass["Co"]
    return mass["Li"] + metals + 2 * mass["O"]


def theoretical_capacity_mah_g(molar_mass_g_mol: float) -> float:
    """Return F / (3.6 M) in mAh/g: one lithium per formula unit (278 for NMC532)."""
    if not molar_mass_g_mol > 0:
        raise ValueError(f"molar mass {molar_mass_g_mol} must be positive")
    return FARADAY_COULOMB_PER_MOL / (COULOMB_PER_AMPERE_HOUR / 1000.0) / molar_mass_g_mol


NMC532_MAH_G: Final = theoretical_capacity_mah_g(molar_mass_nmc(0.5, 0.3, 0.2))


@dataclass(frozen=True)
class Diverging:
    """How many particles lie above a frame (lithium kept back), and below it.

    Attributes:
        n, above, below: particles.
        fraction: above / n; statistical error: binomial (half of the Wilson interval), systematic: what
            moving the frame's border by its own error changes.
        interval, interval95: Clopper-Pearson, 68.3 % and 95.4 %.
        outside: above and below together / n: a Gaussian alone has 4.55 % there.
        expected: fraction above the frame if no particle diverged: 2.28 % of a Gaussian, more where many
            particles are small and their counting errors large.
        excess: (above / n - expected) / (1 - expected).
    """

    n: int
    above: int
    below: int
    fraction: Estimate
    interval: tuple[float, float]
    interval95: tuple[float, float]
    outside: Estimate
    expected: float
    excess: Estimate


def diverging(ratios: ArrayLike, frame: Frame, counting: ArrayLike | None = None) -> Diverging:
    """Count the particles outside a frame.

    Args:
        ratios: one per particle, finite, shape (n,).
        frame: of the calibration cell that was charged as this one.
        counting: counting error that every particle's ratio would have at the frame's mean (``null_sigma``);
            then expected = mean of Q((high - mean) / sqrt(material^2 + counting_i^2)), Q the Gaussian tail.

    Raises:
        ValueError: no particles.
    """
    r = np.asarray(ratios, np.float64)
    n = r.size
    if n == 0:
        raise ValueError("there are no particles")
    above, below = int(np.count_nonzero(r > frame.high)), int(np.count_nonzero(r < frame.low))
    moved = [np.count_nonzero(r > frame.high + k * frame.sigma_high) / n for k in (-1, 1)]
    moved_low = [np.count_nonzero(r < frame.low + k * frame.sigma_low) / n for k in (-1, 1)]
    sys, sys_low = abs(moved[0] - moved[1]) / 2, abs(moved_low[1] - moved_low[0]) / 2
    stat, stat_outside = _wilson_half(above, n), _wilson_half(above + below, n)
    fraction = above / n
    expected = GAUSS_ABOVE_TWO_SIGMA
    if counting is not None and frame.width > 0:
        spread = np.hypot(frame.material, np.asarray(counting, np.float64))
        expected = float(np.nanmean(ndtr(-2 * frame.width / spread)))
    scale = 1 / (1 - expected)
    excess = (fraction - expected) * scale
    return Diverging(
        n, above, below, Estimate(fraction, stat, sys, ""), _interval(above, n, ONE_SIGMA),
        _interval(above, n, TWO_SIGMA),
        Estimate((above + below) / n, stat_outside, math.hypot(sys, sys_low), ""), expected,
        Estimate(excess, stat * scale, sys * scale, ""),
    )  # fmt: skip


def held_back(ratios: ArrayLike, frame: Frame, line: Line, capacity_mah_g: float = NMC532_MAH_G) -> Estimate:
    """Return the lithium that particles above a frame hold more than the others, mAh per g of material.

    Q = capacity x mean over all particles of (DOL_i - DOL of the frame's mean) for those above the frame, 0
    for the others; DOL = (ratio - intercept) / slope. Every particle counts the same, as if all had one
    mass, and what a
    Gaussian alone has above its frame is subtracted: E[(r - mean) ; r > mean + 2 width] = width x phi(2).

    Statistical error: standard error of the mean; systematic: slope of the calibration and border of the
    frame.
    """
    r = np.asarray(ratios, np.float64)
    if r.size < 2:
        raise ValueError("there are too few particles")
    per_ratio = capacity_mah_g / line.slope
    kept = np.where(r > frame.high, r - frame.mean, 0.0)
    gauss = frame.width * math.exp(-2.0) / math.sqrt(2 * math.pi)
    value = (float(kept.mean()) - gauss) * per_ratio
    stat = float(kept.std(ddof=1)) / math.sqrt(r.size) * abs(per_ratio)
    slope = abs(value) * math.sqrt(float(line.covariance[1, 1])) / abs(line.slope)
    at_border = abs(frame.high - frame.mean) * abs(per_ratio)
    edges = [np.count_nonzero(r > frame.high + k * frame.sigma_high) / r.size for k in (-1, 1)]
    sys = math.hypot(slope, at_border * abs(edges[0] - edges[1]) / 2)
    return Estimate(value, stat, sys, "mAh/g")


def inactive(lithiation: Estimate, active_mah_g: Estimate, capacity_mah_g: float = NMC532_MAH_G) -> Estimate:
    """Return the lithium that is in the material but does not come out: capacity x DOL - active, in mAh/g.

    Args:
        lithiation: degree of lithiation after digestion (ICP-OES of the solution), 0 to 1.
        active_mah_g: charge capacity that lithium metal still takes out (C/20).
        capacity_mah_g: theoretical capacity of the material.

    Nothing is clipped: a negative value says that the two measurements disagree.
    """
    return Estimate(
        capacity_mah_g * lithiation.value - active_mah_g.value,
        math.hypot(capacity_mah_g * lithiation.sigma_stat, active_mah_g.sigma_stat),
        math.hypot(capacity_mah_g * lithiation.sigma_sys, active_mah_g.sigma_sys),
        "mAh/g",
    )


def soc_from_capacity(charge_mah_g: float, capacity_mah_g: float = NMC532_MAH_G) -> float:
    """Return charge / theoretical capacity; a preset charge is not yet a measured state of charge."""
    return charge_mah_g / capacity_mah_g


def _wilson_half(hits: int, n: int) -> float:
    low, high = wilson_interval(hits, n)
    return float(high - low) / 2


def _interval(hits: int, n: int, level: float) -> tuple[float, float]:
    low, high = binomial_interval(hits, n, level)
    return float(low), float(high)
