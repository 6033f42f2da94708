"""From S to lithium: the calibration line of Huang 2022 and the unmixing of depth regions of Huang 2024."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.compton_profile import SValues, s_of_sums

Floats = NDArray[np.float64]

# Huang et al., Adv. Sci. 9 (2022) 2105723, Table 2: state, depth region, S, 1-x in Li(1-x)Ni0.8Mn0.1Co0.1O2
TABLE_2 = (
    ("charged", 1, 0.88, 0.10), ("charged", 2, 0.72, 0.03), ("charged", 3, 0.65, 0.00),
    ("discharged", 1, 2.40, 0.76), ("discharged", 2, 2.34, 0.73), ("discharged", 3, 2.06, 0.61),
)  # fmt: skip
ROUNDING = 0.005 / math.sqrt(3.0)  # one sigma of a value printed with two decimals
ATTENUATION = (1.015, 1.010, 1.005)  # factors on the counts of depth regions 1, 2, 3 (Huang 2022, XCS-I)


@dataclass(frozen=True)
class Line:
    """1 - x = slope S + intercept, with the covariance of both and the range of S it was made in."""

    slope: float
    intercept: float
    covariance: Floats  # of (slope, intercept)
    low_s: float
    high_s: float
    residuals: Floats
    r_squared: float
    source: str


@dataclass(frozen=True)
class Stoichiometry:
    """1 - x with its errors; ``extrapolated`` where S is outside the calibrated range. Nothing is clipped."""

    value: Floats
    sigma_stat: Floats
    sigma_sys: Floats
    extrapolated: NDArray[np.bool_]


def calibrate(s: ArrayLike, stoichiometry: ArrayLike, sigma: float = ROUNDING, source: str = "") -> Line:
    """Return the least-squares line through pairs of S and 1 - x.

    Both columns carry the error ``sigma`` (rounding, in Table 2); a point then has sigma sqrt(1 + slope^2),
    which scales the covariance. The points get equal weight.

    Raises:
        ValueError: with fewer than three different points.
    """
    x, y = np.asarray(s, np.float64), np.asarray(stoichiometry, np.float64)
    if x.size < 3 or np.ptp(x) == 0.0:
        raise ValueError("a calibration line needs at least three points at different S")
    design = np.stack([x, np.ones_like(x)])
    inverse = np.linalg.inv(design @ design.T)
    slope, intercept = inverse @ design @ y
    residuals = y - slope * x - intercept
    unexplained = float((residuals**2).sum() / ((y - y.mean()) ** 2).sum())
    covariance = inverse * sigma**2 * (1.0 + slope**2)
    return Line(float(slope), float(intercept), covariance, float(x.min()), float(x.max()), residuals,
                1.0 - unexplained, source)  # fmt: skip


def table_2() -> Line:
    """Return the line of the six rows of Table 2: slope 0.43306, intercept -0.28154."""
    return calibrate([row[2] for row in TABLE_2], [row[3] for row in TABLE_2], source="Huang 2022, Table 2")


def stoichiometry(
    s: ArrayLike, sigma_stat: ArrayLike, sigma_sys: ArrayLike, line: Line, *, extrapolate: bool = True
) -> Stoichiometry:
    """Return 1 - x from S.

    sigma_stat = slope sigma_S; sigma_sys^2 = (slope sigma_S,sys)^2 + the error of the line,
    S^2 var(a) + 2 S cov(a, b) + var(b). NaN stays NaN.

    Raises:
        ValueError: for S outside of the calibrated range if ``extrapolate`` is False.
    """
    value, stat, sys = (np.asarray(a, np.float64) for a in (s, sigma_stat, sigma_sys))
    outside = np.isfinite(value) & ((value < line.low_s) | (value > line.high_s))
    if not extrapolate and outside.any():
        raise ValueError(f"S outside of {line.low_s} to {line.high_s}, where the calibration was made")
    c = line.covariance
    of_line = value**2 * c[0, 0] + 2.0 * value * c[0, 1] + c[1, 1]
    return Stoichiometry(
        line.slope * value + line.intercept, np.abs(line.slope) * stat,
        np.sqrt((line.slope * sys) ** 2 + of_line), outside,
    )  # fmt: skip


@dataclass(frozen=True)
class Mixing:
    """Which part of each component every depth region holds: counts(region) = sum fraction x component.

    ``fractions`` has a row per region and a column per component; ``sigma`` the errors of the fractions (one
    sigma, 0 where exact); ``volumes`` what a component's counts are divided by (any unit, such as um
    thickness).
    """

    regions: tuple[str, ...]
    components: tuple[str, ...]
    fractions: Floats
    sigma: Floats
    volumes: Floats
    volume_sigma: Floats

    def __post_init__(self) -> None:
        """Refuse what cannot be unmixed."""
        n, m = len(self.regions), len(self.components)
        if n != m or self.fractions.shape != (n, m) or self.sigma.shape != (n, m):
            raise ValueError(
                f"{n} regions and {m} components: as many of each, and a fraction for every pair"
            )
        if self.volumes.shape != (m,) or (self.volumes <= 0).any():
            raise ValueError("every component needs a positive volume")
        if abs(np.linalg.det(self.fractions)) < 1e-6:
            raise ValueError("the regions do not tell the components apart (singular fractions)")

    @property
    def inverse(self) -> Floats:
        """Return the matrix that makes components from regions."""
        return np.asarray(np.linalg.inv(self.fractions))


def huang_2024(error: float = 0.01) -> Mixing:
    """Return the regions of Huang, Cell Rep. Phys. Sci. 5 (2024) 101995: cathode, interphase, anode.

    separator = region 2 - 0.89 region 3; cathode = region 1 - 0.64 region 3 - separator. "region 1 accounts
    for 64% of the intensities in region 3 and the entire separator region" can also be read as 0.64 (region 3
    + separator); the thicknesses decide: 250 um of beam = 64 % lithium (160) + 27.5 separator (11 % of 250,
    30 um as built) + 62.5 cathode (65 um as built). ``error`` is that of 0.89 and 0.64, our estimate.
    """
    fractions = np.array([[1.0, 1.0, 0.64], [0.0, 1.0, 0.89], [0.0, 0.0, 1.0]])
    sigma = np.where(np.isin(fractions, (0.64, 0.89)), error, 0.0)
    return Mixing(
        ("region 1", "region 2", "region 3"), ("cathode", "separator", "anode"), fractions, sigma,
        np.array([65.0, 30.0, 250.0]), np.zeros(3),
    )  # fmt: skip


@dataclass(frozen=True)
class Unmixed:
    """Components of the depth regions. Leading axis: component."""

    s: SValues
    sigma_sys: Floats  # of S, from the fractions
    covariance: Floats  # of S, statistical, (components, components)
    counts: Floats  # core + wings per volume
    counts_sigma: Floats
    counts_sigma_sys: Floats


def unmix_sums(sums: Floats, mixing: Mixing, factors: Sequence[float] | None = None) -> Unmixed:
    """Return S and counts per volume of the components from core and wings of the regions.

    Every component is a linear combination of regions, whose counts are independent:
    C = sum a_r f_r C_r, var(C) = sum (a_r f_r)^2 var(C_r), and so for wings and covariance. Two components
    share regions: cov(S_i, S_j) = sum over regions of the products of dS/dC and dS/dW with the region's
    covariance.

    Args:
        sums: (regions, 5) of ``compton_profile``.
        mixing: fractions and volumes.
        factors: on the counts of each region, for attenuation (1 if left out).
    """
    f = np.ones(len(mixing.regions)) if factors is None else np.asarray(factors, np.float64)
    s, per_volume, sigma = _unmixed(sums, mixing.inverse, f, mixing.volumes)
    covariance = _covariance(sums, mixing.inverse * f, s)
    s_sys, n_sys = np.zeros(s.s.shape), (per_volume * mixing.volume_sigma / mixing.volumes) ** 2
    for i, j in zip(*np.nonzero(mixing.sigma), strict=True):
        moved = mixing.fractions.copy()
        moved[i, j] += mixing.sigma[i, j]
        other, other_volume, _ = _unmixed(
            sums, np.asarray(np.linalg.inv(moved), np.float64), f, mixing.volumes
        )
        s_sys += (other.s - s.s) ** 2
        n_sys += (other_volume - per_volume) ** 2
    return Unmixed(s, np.sqrt(s_sys), covariance, per_volume, sigma, np.sqrt(n_sys))


def unmix_spectra(
    spectra: Floats, mixing: Mixing, factors: Sequence[float] | None = None
) -> tuple[Floats, Floats]:
    """Return spectra per volume of the components and their errors, shape (components, bins).

    Components that share a region are correlated bin by bin; within a component bins are independent.
    """
    f = np.ones(len(mixing.regions)) if factors is None else np.asarray(factors, np.float64)
    weight = mixing.inverse * f / mixing.volumes[:, None]
    return weight @ spectra, np.sqrt(weight**2 @ spectra)


def _unmixed(sums: Floats, inverse: Floats, f: Floats, volumes: Floats) -> tuple[SValues, Floats, Floats]:
    weight = inverse * f
    mixed = np.empty((weight.shape[0], 5))
    mixed[:, :2] = weight @ sums[:, :2]
    mixed[:, 2:] = weight**2 @ sums[:, 2:]
    total = mixed[:, 0] + mixed[:, 1]
    sigma = np.sqrt(mixed[:, 2] + mixed[:, 3] + 2.0 * mixed[:, 4])
    return s_of_sums(mixed), total / volumes, sigma / volumes


def _covariance(sums: Floats, weight: Floats, s: SValues) -> Floats:
    core, wings = s.sums[:, 0], s.sums[:, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        by_core, by_wings = s.s / core, -s.s / wings
    n = weight.shape[0]
    out = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            joint = weight[i] * weight[j]
            out[i, j] = (
                by_core[i] * by_core[j] * (joint @ sums[:, 2])
                + by_wings[i] * by_wings[j] * (joint @ sums[:, 3])
                + (by_core[i] * by_wings[j] + by_wings[i] * by_core[j]) * (joint @ sums[:, 4])
            )  # fmt: skip
    return out
