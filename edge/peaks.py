"""Peaks in counting spectra: search, Gaussian fit, and areas of lines of known shape.

Every fit is least squares with weights from the model, iterated (Fisher scoring of the Poisson likelihood),
never from the data: weights 1/max(y, 1) bias each area by about one sigma at two counts per channel.
A Gaussian is taken at the channel number, so its FWHM is the apparent one, channel width included; its area
in counts is exact while the FWHM exceeds 1.5 channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
FWHM_PER_SIGMA = 2.3548200450309493  # 2 sqrt(2 ln 2)
ROOT_2_PI = math.sqrt(2.0 * math.pi)
FLOOR_COUNTS = 0.05  # of the model where it serves as a weight: an empty channel has no infinite weight
ITERATIONS = 60
WORST_INVERSE = 1e8  # largest entry of an inverse (diagonal scaled to one) that is taken as it is


@dataclass(frozen=True)
class Candidate:
    """A place where a search found a peak."""

    channel: float
    significance: float  # height over its Poisson error


@dataclass(frozen=True)
class Peak:
    """One fitted Gaussian. Errors are statistical, one sigma; zero where a value was held fixed."""

    centroid: float  # channel number, fractional
    centroid_sigma: float
    fwhm: float  # channels
    fwhm_sigma: float
    area: float  # counts
    area_sigma: float


@dataclass(frozen=True)
class PeakFit:
    """Gaussians on a polynomial, fitted in channels ``first`` to ``first + n - 1``."""

    peaks: tuple[Peak, ...]
    first: int
    model: Floats  # (n,) counts per channel, peaks and background
    background: Floats  # (n,)
    residuals: Floats  # (n,) (data - model) / sqrt(model)
    chi2: float  # Pearson
    ndf: int
    converged: bool

    @property
    def chi2_per_ndf(self) -> float:
        """Reduced chi2, NaN without degrees of freedom."""
        return self.chi2 / self.ndf if self.ndf > 0 else float("nan")


@dataclass(frozen=True)
class TemplateFit:
    """Amplitudes of known shapes."""

    amplitudes: Floats  # (k,)
    covariance: Floats  # (k, k), Poisson
    gain: Floats  # (k, n): amplitudes = gain @ (counts - offset)
    model: Floats  # (n,)
    chi2: float
    ndf: int


def gaussian(channel: ArrayLike, centroid: float, fwhm: float) -> Floats:
    """Return a Gaussian of unit area per channel: exp(-(x-c)^2 / 2s^2) / (s sqrt(2 pi)), s = fwhm / 2.355."""
    sigma = fwhm / FWHM_PER_SIGMA
    z = (np.asarray(channel, np.float64) - centroid) / sigma
    return np.asarray(np.exp(-0.5 * z * z) / (sigma * np.sqrt(2 * np.pi)), np.float64)


def find_peaks(
    counts: ArrayLike, fwhm: ArrayLike, *, threshold: float = 5.0, first: int = 0
) -> list[Candidate]:
    """Find peaks by matched zero-area filtering.

    At each channel the counts are summed with the negative second derivative of a Gaussian of the expected
    width (zero area and first moment, so a straight background cancels); the sum over its Poisson error
    sqrt(sum kernel^2 counts) is the significance. Local maxima above ``threshold`` are returned, the largest
    within one FWHM only.

    Args:
        counts: shape (n,), not negative.
        fwhm: FWHM expected at each channel, in channels, shape (n,) or scalar.
        threshold: smallest significance, standard deviations.
        first: channels below are not searched.

    Returns: candidates by rising channel; the position is the significance-weighted mean about the maximum.
    Raises: ValueError if counts is not one-dimensional or has a negative entry.
    Source: Mariscotti, NIM 50 (1967) 309; Phillips and Marlow, NIM 137 (1976) 525.
    """
    y = np.asarray(counts, np.float64)
    if y.ndim != 1 or (y.size and y.min() < 0):
        raise ValueError("counts must be one spectrum without negative entries")
    widths = np.maximum(np.broadcast_to(np.asarray(fwhm, np.float64), y.shape), 1.0)
    score = _filtered(y, widths, first)
    found: list[Candidate] = []
    for channel in np.argsort(score)[::-1]:
        if score[channel] < threshold:
            break
        if all(abs(channel - other.channel) > widths[channel] for other in found):
            half = max(1, int(widths[channel] / 3))
            part = slice(max(0, channel - half), channel + half + 1)
            weight = np.maximum(score[part], 0.0)
            place = float(np.sum(weight * np.arange(y.size)[part]) / np.sum(weight))
            found.append(Candidate(place, float(score[channel])))
    return sorted(found, key=lambda candidate: candidate.channel)


def _filtered(y: Floats, widths: Floats, first: int) -> Floats:
    """Return the significance of a peak at each channel (zero where the kernel leaves the spectrum)."""
    score = np.zeros(y.size)
    keys = np.rint(4 * np.maximum(widths, 1.0)).astype(np.int64)
    for key in np.unique(keys):
        kernel = _kernel(float(key) / 4)
        half = kernel.size // 2
        own = np.flatnonzero(keys == key)
        own = own[(own >= max(first + half, 2)) & (own < y.size - max(half, 2))]
        if own.size == 0:
            continue
        part = y[own[0] - half : own[-1] + half + 1]
        height = np.correlate(part, kernel, "valid")[own - own[0]]
        variance = np.correlate(part, kernel**2, "valid")[own - own[0]]
        score[own] = np.where(variance > 0, height / np.sqrt(np.where(variance > 0, variance, 1.0)), 0.0)
    local = np.zeros(y.size, bool)
    local[1:-1] = (score[1:-1] >= score[:-2]) & (score[1:-1] > score[2:])
    return np.where(local, score, 0.0)


def _kernel(fwhm: float) -> Floats:
    sigma = fwhm / FWHM_PER_SIGMA
    half = max(2, round(4 * sigma))
    z = np.arange(-half, half + 1, dtype=np.float64) / sigma
    hat = (1 - z * z) * np.exp(-0.5 * z * z)
    return np.asarray(hat - hat.mean(), np.float64)


def fit_peaks(
    counts: ArrayLike,
    centroids: ArrayLike,
    fwhm: float,
    *,
    first: int,
    last: int,
    degree: int = 1,
    linked: bool = False,
    fixed_width: bool = False,
) -> PeakFit:
    """Fit Gaussians of one common width on a polynomial background.

    mu_i = sum_k A_k g(i; c_k, w) + P(i). Maximum Poisson likelihood by Fisher scoring with step control; the
    covariance is the inverse of the Fisher information at the solution.

    Args:
        counts: whole spectrum, shape (N,), counts (Poisson).
        centroids: starting positions in channels, shape (k,).
        fwhm: starting width in channels.
        first: first fitted channel.
        last: last fitted channel, included.
        degree: of the background polynomial.
        linked: hold the distances between the centroids, which then shift together.
        fixed_width: hold the width.

    Returns: peaks in the order of ``centroids``; NaN values and converged = False if no fit was found.
    Raises: ValueError if the region is outside the spectrum or too short, or counts are negative.
    Source: Baker and Cousins, NIM 221 (1984) 437.
    """
    y_all = np.asarray(counts, np.float64)
    start = np.atleast_1d(np.asarray(centroids, np.float64))
    free = start.size + (1 if linked else start.size) + (not fixed_width) + degree + 1
    if not 0 <= first <= last < y_all.size or last - first + 1 < free:
        raise ValueError(f"channels {first} to {last} cannot carry a fit of {free} parameters")
    y = y_all[first : last + 1]
    if y.min() < 0:
        raise ValueError("counts must not be negative")
    return _Problem(y, first, start, fwhm, degree, linked, not fixed_width).solve()


class _Problem:
    """The likelihood of one region; parameters are areas, background, shifts, width (if free)."""

    def __init__(
        self, y: Floats, first: int, start: Floats, fwhm: float, degree: int, linked: bool, width: bool
    ) -> None:
        self.y, self.first, self.start, self.fwhm = y, first, start, fwhm
        self.k, self.degree, self.linked, self.width = start.size, degree, linked, width
        self.shifts = 1 if linked else self.k
        self.x = np.arange(first, first + y.size, dtype=np.float64)
        middle, half = self.x.mean(), max(1.0, 0.5 * (y.size - 1))
        self.powers = ((self.x - middle) / half)[:, None] ** np.arange(degree + 1)
        self.linear = self.k + degree + 1

    def shape(self, p: Floats) -> tuple[Floats, float]:
        """Return centroids and FWHM of a parameter vector."""
        n = self.linear
        return self.start + p[n : n + self.shifts], float(p[-1]) if self.width else self.fwhm

    def design(self, p: Floats) -> Floats:
        """Return the linear part: unit Gaussians and background powers, shape (n, k + degree + 1)."""
        centroids, fwhm = self.shape(p)
        sigma = fwhm / FWHM_PER_SIGMA
        z = (self.x[:, None] - centroids) / sigma
        shapes = np.exp(-0.5 * z * z) / (sigma * ROOT_2_PI)
        return np.concatenate([shapes, self.powers], axis=1)

    def jacobian(self, p: Floats) -> tuple[Floats, Floats]:
        """Return the model and its derivatives."""
        design = self.design(p)
        centroids, fwhm = self.shape(p)
        sigma = fwhm / FWHM_PER_SIGMA
        bumps = design[:, : self.k] * p[: self.k]
        z = (self.x[:, None] - centroids) / sigma
        columns = [design]
        moves = bumps * z / sigma
        columns.append(np.sum(moves, axis=1, keepdims=True) if self.linked else moves)
        if self.width:
            columns.append(np.sum(bumps * (z * z - 1), axis=1, keepdims=True) / fwhm)
        return design @ p[: self.linear], np.concatenate(columns, axis=1)

    def allowed(self, p: Floats) -> bool:
        """Positions stay in the region, the width within a factor 4 of its start."""
        centroids, fwhm = self.shape(p)
        inside = np.all((centroids >= self.x[0] - 1) & (centroids <= self.x[-1] + 1))
        return bool(np.isfinite(p).all() and inside and 0.25 < fwhm / self.fwhm < 4)

    def deviance(self, mu: Floats) -> float:
        """Return 2 sum [mu - y + y ln(y / mu)], mu floored."""
        m = np.maximum(mu, FLOOR_COUNTS)
        log = np.where(self.y > 0, self.y * np.log(np.where(self.y > 0, self.y, 1.0) / m), 0.0)
        return float(2 * np.sum(m - self.y + log))

    def begin(self) -> Floats:
        """Return starting parameters: the linear part from two reweighted least squares."""
        p = np.zeros(self.linear + self.shifts + self.width)
        if self.width:
            p[-1] = self.fwhm
        design = self.design(p)
        p[: self.linear] = fit_templates(self.y, design.T).amplitudes
        return p

    def solve(self) -> PeakFit:
        """Iterate to the maximum of the likelihood."""
        p = self.begin()
        mu, jac = self.jacobian(p)
        best, damping, converged = self.deviance(mu), 1e-3, False
        for _ in range(ITERATIONS):
            weight = 1 / np.maximum(mu, FLOOR_COUNTS)
            info = jac.T @ (jac * weight[:, None])
            gradient = jac.T @ (weight * (self.y - mu))
            scale = np.maximum(info.diagonal(), 1e-300)
            info.flat[:: info.shape[0] + 1] += damping * scale
            step = _solve(info, gradient)
            trial = p + step
            value, size = np.inf, float(np.max(np.abs(step) * np.sqrt(scale)))
            if self.allowed(trial):
                trial_mu, trial_jac = self.jacobian(trial)
                value = self.deviance(trial_mu)
            if value <= best + 1e-9:
                converged = size < 1e-3 and damping < 1.0
                p, mu, jac, best, damping = trial, trial_mu, trial_jac, value, damping / 10
                if converged:
                    break
            elif size < 1e-3:
                converged = True
                break
            else:
                damping *= 10
                if damping > 1e9:
                    break
        return self.result(p, mu, jac, converged)

    def result(self, p: Floats, mu: Floats, jac: Floats, converged: bool) -> PeakFit:
        """Return the fit with its errors."""
        weight = 1 / np.maximum(mu, FLOOR_COUNTS)
        sigma = np.sqrt(np.maximum(_inverse(jac.T @ (jac * weight[:, None])).diagonal(), 0.0))
        centroids, fwhm = self.shape(p)
        n = self.linear
        centroid_sigma = np.broadcast_to(sigma[n : n + self.shifts], self.k)
        width_sigma = float(sigma[-1]) if self.width else 0.0
        blank = 1.0 if converged else float("nan")
        peaks = tuple(
            Peak(
                centroid=blank * float(centroids[k]), centroid_sigma=blank * float(centroid_sigma[k]),
                fwhm=blank * fwhm, fwhm_sigma=blank * width_sigma,
                area=blank * float(p[k]), area_sigma=blank * float(sigma[k]),
            )
            for k in range(self.k)
        )  # fmt: skip
        safe = np.maximum(mu, FLOOR_COUNTS)
        residuals = (self.y - mu) / np.sqrt(safe)
        background = self.powers @ p[self.k : n]
        return PeakFit(
            peaks=peaks, first=self.first, model=mu, background=background, residuals=residuals,
            chi2=float(np.sum(residuals**2)), ndf=self.y.size - p.size, converged=converged,
        )  # fmt: skip


def _solve(matrix: Floats, vector: Floats) -> Floats:
    try:
        return np.asarray(np.linalg.solve(matrix, vector), np.float64)
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.lstsq(matrix, vector, rcond=None)[0], np.float64)


def _inverse(matrix: Floats) -> Floats:
    """Invert a positive matrix after scaling its diagonal to one (areas and positions differ by decades)."""
    scale = np.sqrt(np.maximum(matrix.diagonal(), 1e-300))
    both = scale[:, None] * scale
    unit = matrix / both
    try:
        inverse = np.linalg.inv(unit)
    except np.linalg.LinAlgError:
        inverse = np.full_like(unit, np.inf)
    if not np.abs(inverse).max() < WORST_INVERSE:  # nearly dependent: the least one instead
        inverse = np.linalg.pinv(unit)
    return np.asarray(inverse / both, np.float64)


def fit_templates(
    counts: ArrayLike, templates: ArrayLike, *, iterations: int = 4, offset: ArrayLike = 0.0
) -> TemplateFit:
    """Fit amplitudes of known shapes: y_i ~ Poisson(sum_k a_k T_ki + offset_i).

    Least squares with weights 1 / max(model, floor); the first model is the counts smoothed by an unweighted
    fit, so a channel's own fluctuation never sets its weight. For any weights the estimate is unbiased; its
    covariance is G diag(model) G^T with the gain matrix G = (T W T^T)^-1 T W, the Poisson one.

    Args:
        counts: shape (n,).
        templates: shape (k, n); a line of unit area gives an amplitude in counts.
        iterations: of the weights.
        offset: known counts per channel that are in the data, shape (n,) or scalar.

    Returns: amplitudes (k,), covariance (k, k). Nothing is clipped: an area may be negative.
    Raises: ValueError if shapes differ or the templates are linearly dependent.
    Source: Baker and Cousins, NIM 221 (1984) 437.
    """
    y = np.asarray(counts, np.float64)
    shapes = np.asarray(templates, np.float64)
    known = np.broadcast_to(np.asarray(offset, np.float64), y.shape)
    if shapes.ndim != 2 or y.ndim != 1 or shapes.shape[1] != y.size:
        raise ValueError(f"templates {shapes.shape} do not fit counts {y.shape}")
    norm = np.sqrt(np.sum(shapes**2, axis=1))
    unit = shapes / np.where(norm > 0, norm, 1.0)[:, None]
    if np.linalg.matrix_rank(unit, tol=1e-9) < shapes.shape[0]:
        raise ValueError("the templates are linearly dependent")
    model = np.full(y.size, max(float(y.mean()), FLOOR_COUNTS))
    for _ in range(iterations + 1):
        weight = 1 / np.maximum(model, FLOOR_COUNTS)
        gain = _inverse((unit * weight) @ unit.T) @ (unit * weight)
        amplitudes = gain @ (y - known)
        model = amplitudes @ unit + known
    safe = np.maximum(model, FLOOR_COUNTS)
    covariance = (gain * safe) @ gain.T
    scale = np.where(norm > 0, norm, 1.0)
    return TemplateFit(
        amplitudes=amplitudes / scale,
        covariance=covariance / np.outer(scale, scale),
        gain=gain / scale[:, None],
        model=model,
        chi2=float(np.sum((y - model) ** 2 / safe)),
        ndf=y.size - shapes.shape[0],
    )
