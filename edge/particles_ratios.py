"""Distribution of ratios: its Gaussian, the calibration line through known cells, and the frames.

The Gaussian is fitted to the single particles by maximum likelihood, never to a histogram by chi squared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, stdtrit

from edge.uncertainty import ONE_SIGMA

Floats = NDArray[np.float64]

ROUNDS = 400
MIN_PARTICLES = 10
TWO_SIGMA_OUTSIDE = 2.0 * float(ndtr(-2.0))  # 4.55 % of a Gaussian lie outside +-2 sigma


@dataclass(frozen=True)
class GaussianFit:
    """A Gaussian, and what share of the particles it does not hold; arrays when several sets were fitted.

    Attributes:
        mean, width: of the Gaussian; the width holds counting errors and the spread of the material.
        main: fraction of the particles in the Gaussian, the others lie evenly over the range of the data.
        covariance: of (mean, width, main), shape (..., 3, 3).
        log_likelihood: at the maximum.
        n: particles.
    """

    mean: Floats
    width: Floats
    main: Floats
    covariance: Floats
    log_likelihood: Floats
    n: int

    @property
    def sigma(self) -> Floats:
        """One sigma of mean, width and main, shape (..., 3)."""
        variance = np.diagonal(self.covariance, axis1=-2, axis2=-1)
        return np.sqrt(np.where(variance >= 0, variance, np.nan))

    def mean_interval(self, level: float = ONE_SIGMA) -> tuple[Floats, Floats]:
        """Return the interval of the mean with Student's factor for the particles inside the Gaussian."""
        half = self.sigma[..., 0] * stdtrit(self.main * self.n - 1.0, (1.0 + level) / 2.0)
        half = half * np.sqrt(self.main * self.n / (self.main * self.n - 1.0))
        return self.mean - half, self.mean + half


def fit_gaussian(values: ArrayLike, *, outliers: bool = True) -> GaussianFit:
    """Fit mean and width of single values by maximum likelihood, unbinned.

    L = sum ln[f N(r; mean, width) + (1 - f) / (r_max - r_min)], found by expectation-maximisation; without
    ``outliers`` f = 1 and the maximum is the sample's mean and root mean square. The width is corrected for
    the bias of the maximum, sqrt(f n / (f n - 2)), so that its logarithm has none. Covariance: inverse of
    the observed information (second derivatives of L).

    Args:
        values: finite, shape (..., n) with n >= 10.
        outliers: allow for an even background under the Gaussian (diverging particles).

    Raises:
        ValueError: too few values, not finite, or all the same.

    Source: Dempster, Laird and Rubin, J. R. Stat. Soc. B 39 (1977) 1.
    """
    r = np.asarray(values, np.float64)
    n = r.shape[-1]
    if n < MIN_PARTICLES or not np.isfinite(r).all():
        raise ValueError(f"a Gaussian needs at least {MIN_PARTICLES} finite values, got {n}")
    span = r.max(axis=-1) - r.min(axis=-1)
    if np.any(span <= 0):
        raise ValueError("all values are the same")
    flat = 1.0 / span
    mean, width, main = r.mean(axis=-1), r.std(axis=-1), np.ones(r.shape[:-1])
    covariance = np.zeros((*r.shape[:-1], 3, 3))
    covariance[..., 0, 0], covariance[..., 1, 1] = width**2 / n, width**2 / (2 * n)
    if outliers:
        found = _maximise(r, flat)
        mixed = found[2] < 1.0 - 0.5 / n  # else not even half a particle is outside: a plain Gaussian
        mean, width, main = (np.where(mixed, a, b) for a, b in zip(found, (mean, width, main), strict=True))
        covariance = np.where(mixed[..., None, None], _covariance(r, *found, flat), covariance)
    likelihood = _log_likelihood(r, mean, width, main, flat)
    held = main * n
    return GaussianFit(mean, width * np.sqrt(held / (held - 2.0)), main, covariance, likelihood, n)


def _maximise(r: Floats, flat: Floats) -> tuple[Floats, Floats, Floats]:
    low, middle, high = np.quantile(r, [0.16, 0.5, 0.84], axis=-1)
    mean, width = middle, np.maximum((high - low) / 2, 1e-6 / flat)
    main = np.full(r.shape[:-1], 0.9)
    for _ in range(ROUNDS):
        z = (r - mean[..., None]) / width[..., None]
        inside = main[..., None] * np.exp(-0.5 * z**2) / (width[..., None] * math.sqrt(2 * math.pi))
        share = inside / (inside + ((1 - main) * flat)[..., None])
        weight = share.sum(axis=-1)
        mean_next = (share * r).sum(axis=-1) / weight
        spread = np.sqrt((share * (r - mean_next[..., None]) ** 2).sum(axis=-1) / weight)
        change = np.max(np.abs(mean_next - mean) / width + np.abs(spread - width) / width)
        mean, width, main = mean_next, np.maximum(spread, 1e-9 / flat), weight / r.shape[-1]
        if change < 1e-7:
            break
    return mean, width, main


def _log_likelihood(r: Floats, mean: Floats, width: Floats, main: Floats, flat: Floats) -> Floats:
    z = (r - mean[..., None]) / width[..., None]
    density = main[..., None] * np.exp(-0.5 * z**2) / (width[..., None] * math.sqrt(2 * math.pi))
    total: Floats = np.log(density + ((1 - main) * flat)[..., None]).sum(axis=-1)
    return total


def _covariance(r: Floats, mean: Floats, width: Floats, main: Floats, flat: Floats) -> Floats:
    """Return the inverse of the information, from the analytic second derivatives of ln(density)."""
    m, s, f = mean[..., None], width[..., None], main[..., None]
    z = (r - m) / s
    g = np.exp(-0.5 * z**2) / (s * math.sqrt(2 * math.pi))
    p = f * g + (1 - f) * flat[..., None]
    gm, gs = g * z / s, g * (z**2 - 1) / s
    gmm, gms = g * (z**2 - 1) / s**2, g * (z**3 - 3 * z) / s**2
    gss = g * (z**4 - 5 * z**2 + 2) / s**2
    first = [f * gm, f * gs, g - flat[..., None]]
    second = [[f * gmm, f * gms, gm], [f * gms, f * gss, gs], [gm, gs, np.zeros_like(g)]]
    information = np.empty((*r.shape[:-1], 3, 3))
    for i in range(3):
        for j in range(3):
            information[..., i, j] = (first[i] * first[j] / p**2 - second[i][j] / p).sum(axis=-1)
    bad = np.linalg.det(information) <= 0
    covariance: Floats = np.linalg.inv(np.where(bad[..., None, None], np.eye(3), information))
    return np.where(bad[..., None, None], np.nan, covariance)


@dataclass(frozen=True)
class Line:
    """y = intercept + slope x with its covariance, scaled by chi2/ndf when the points scatter more."""

    intercept: float
    slope: float
    covariance: Floats
    chi2: float
    ndf: int

    def at(self, x: float) -> tuple[float, float]:
        """Return y and its one-sigma error."""
        return self.intercept + self.slope * x, math.sqrt(max(self._variance(x), 0.0))

    def inverse(self, y: float, sigma_y: float = 0.0) -> tuple[float, float]:
        """Return x for y and its one-sigma error: sqrt(sigma_y^2 + variance of the line there) / |slope|."""
        x = (y - self.intercept) / self.slope
        return x, math.sqrt(sigma_y**2 + max(self._variance(x), 0.0)) / abs(self.slope)

    def _variance(self, x: float) -> float:
        c = self.covariance
        return float(c[0, 0] + 2 * x * c[0, 1] + x**2 * c[1, 1])


def fit_line(x: ArrayLike, sigma_x: ArrayLike, y: ArrayLike, sigma_y: ArrayLike) -> Line:
    """Fit a straight line to points with errors in both coordinates.

    Least squares of W (y - a - b x)^2 with W = 1 / (sigma_y^2 + b^2 sigma_x^2), by York's unified equations.
    The covariance is multiplied by chi2/ndf where that is above 1.

    Args:
        x: abscissas, shape (n,), n >= 3.
        sigma_x: their errors, same shape.
        y: ordinates, same shape.
        sigma_y: their errors; not 0 where sigma_x is.

    Raises:
        ValueError: fewer than 3 points, a point without error, or all x the same.

    Source: York, Evensen, Martinez and Delgado, Am. J. Phys. 72 (2004) 367.
    """
    u, v = np.asarray(x, np.float64), np.asarray(y, np.float64)
    su, sv = np.asarray(sigma_x, np.float64), np.asarray(sigma_y, np.float64)
    if u.size < 3 or np.ptp(u) == 0:
        raise ValueError("a calibration line needs at least 3 points at different abscissas")
    if np.any(su**2 + sv**2 <= 0) or not np.isfinite([u, v, su, sv]).all():
        raise ValueError("every point of a calibration line needs an error above 0")
    slope = float(np.polyfit(u, v, 1)[0])
    for _ in range(200):
        w = 1.0 / (sv**2 + slope**2 * su**2)
        x_bar, y_bar = np.average(u, weights=w), np.average(v, weights=w)
        du, dv = u - x_bar, v - y_bar
        beta = w * (du * sv**2 + slope * dv * su**2)
        new = float(np.sum(w * beta * dv) / np.sum(w * beta * du))
        if abs(new - slope) <= 1e-14 * abs(new):
            slope = new
            break
        slope = new
    adjusted = x_bar + beta
    centre = np.average(adjusted, weights=w)
    var_slope = 1.0 / np.sum(w * (adjusted - centre) ** 2)
    intercept = float(y_bar - slope * x_bar)
    chi2, ndf = float(np.sum(w * (v - intercept - slope * u) ** 2)), u.size - 2
    covariance = np.array([
        [1.0 / np.sum(w) + centre**2 * var_slope, -centre * var_slope], [-centre * var_slope, var_slope]
    ])  # fmt: skip
    return Line(intercept, slope, covariance * max(1.0, chi2 / ndf), chi2, ndf)


@dataclass(frozen=True)
class Frame:
    """The ratios of one calibration cell: mean +- 2 widths of its Gaussian, drawn behind every histogram."""

    name: str
    mean: float
    width: float
    sigma_mean: float
    sigma_width: float
    covariance: float = 0.0  # of mean and width
    counting: float = 0.0  # median counting error of its particles: part of the width

    @classmethod
    def of(cls, name: str, fit: GaussianFit, counting: float = 0.0) -> Frame:
        """Return the frame of a fitted Gaussian."""
        sigma = fit.sigma
        return cls(
            name, float(fit.mean), float(fit.width), float(sigma[0]), float(sigma[1]),
            float(fit.covariance[0, 1]), counting,
        )  # fmt: skip

    @property
    def material(self) -> float:
        """Width without the counting error: spread of the particles themselves."""
        return math.sqrt(max(self.width**2 - self.counting**2, 0.0))

    @property
    def low(self) -> float:
        """Lower border."""
        return self.mean - 2 * self.width

    @property
    def high(self) -> float:
        """Upper border."""
        return self.mean + 2 * self.width

    @property
    def sigma_low(self) -> float:
        """One sigma of the lower border."""
        return math.sqrt(max(self.sigma_mean**2 + 4 * self.sigma_width**2 - 4 * self.covariance, 0.0))

    @property
    def sigma_high(self) -> float:
        """One sigma of the upper border."""
        return math.sqrt(max(self.sigma_mean**2 + 4 * self.sigma_width**2 + 4 * self.covariance, 0.0))
