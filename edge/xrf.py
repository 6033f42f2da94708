"""X-ray fluorescence spectra: areas of line groups by a linear fit, with the energy scale and width refined.

A spectrum is the sum of groups of lines in fixed ratio (each with its silicon escape peaks), a smooth
continuum and a pile-up term; the areas are linear, only offset, gain, noise and Fano factor are not. K-alpha
and K-beta are groups of their own: absorption changes their ratio, so it is not fixed but tied softly to the
ratio at the atom.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.special import ndtr

from edge.background import snip
from edge.calibration import EnergyScale
from edge.peaks import FLOOR_COUNTS, FWHM_PER_SIGMA
from edge.xray_lines import (
    SILICON_CM2_G,
    SILICON_K_EDGE_KEV,
    SILICON_K_JUMP,
    SILICON_K_YIELD,
    SILICON_KA_CM2_G,
    SILICON_KA_KEV,
    LineGroup,
)

Floats = NDArray[np.float64]

EPSILON_KEV = 0.00385  # per electron-hole pair in silicon at working temperature (PyMca's convention)
RATIO_TOLERANCE = 0.20  # relative, one sigma: how far absorption may move K-beta / K-alpha from the atom's
MODEL_ERROR = 0.01  # of the model, in the weights: line shapes are not known better
ROUNDS = 4  # of the weights
PILE_UP = "pile-up"
CONTINUUM = ("continuum", "constant", "slope")


@dataclass(frozen=True)
class Detector:
    """FWHM^2 = noise^2 + (2.355)^2 F eps E, all in keV."""

    noise_kev: float
    fano: float
    covariance: Floats | None = None  # of ln noise and ln fano, where they were fitted

    def fwhm_kev(self, energy_kev: ArrayLike) -> Floats:
        """Return the FWHM in keV at energies in keV."""
        energy = np.maximum(np.asarray(energy_kev, np.float64), 0.0)
        return np.sqrt(self.noise_kev**2 + FWHM_PER_SIGMA**2 * self.fano * EPSILON_KEV * energy)

    def fwhm_sigma_kev(self, energy_kev: float) -> float:
        """Return the one-sigma error of the FWHM in keV at an energy in keV; NaN if nothing was fitted."""
        if self.covariance is None:
            return math.nan
        fwhm = float(self.fwhm_kev(energy_kev))
        slope = np.array([self.noise_kev**2, (fwhm**2 - self.noise_kev**2) / 2.0]) / fwhm
        return math.sqrt(max(0.0, float(slope @ self.covariance @ slope)))


@dataclass(frozen=True)
class GroupArea:
    """Area of one group of lines, counts. Errors are one sigma."""

    group: LineGroup
    area: float  # full-energy peaks, without escape
    sigma_stat: float
    sigma_sys: float


@dataclass(frozen=True)
class XrfFit:
    """A fitted spectrum in channels ``first`` to ``first + n - 1``."""

    scale: EnergyScale
    detector: Detector
    areas: tuple[GroupArea, ...]
    covariance: Floats  # of the areas, statistical, in their order
    first: int
    counts: Floats
    model: Floats
    components: dict[str, Floats]  # group name, "continuum", "pile-up" -> counts per channel
    gain: Floats  # (k, n): area of each group = gain @ counts; for maps
    chi2: float
    ndf: int

    def element(self, element: str, series: str = "K") -> tuple[float, float, float]:
        """Return area, statistical and systematic error of an element's series, its groups added."""
        chosen = [
            k for k, a in enumerate(self.areas)
            if a.group.element == element and a.group.series.startswith(series)
        ]  # fmt: skip
        if not chosen:
            raise ValueError(f"{element} {series} was not fitted")
        stat = math.sqrt(float(self.covariance[np.ix_(chosen, chosen)].sum()))
        return (
            sum(self.areas[k].area for k in chosen),
            stat,
            math.sqrt(sum(self.areas[k].sigma_sys ** 2 for k in chosen)),
        )


def escape_fraction(energy_kev: float) -> float:
    """Return escape peak over full-energy peak of a silicon detector at normal incidence.

    f = (w / 2)(1 - 1/r)[1 - (m_K / m_E) ln(1 + m_E / m_K)], e = f / (1 - f), with fluorescence yield w, jump
    ratio r, and mass attenuations m_K of silicon for its own K-alpha, m_E for the photon. Zero below the
    edge.

    Source: Reed and Ware, J. Phys. E 5 (1972) 582.
    """
    if energy_kev <= SILICON_K_EDGE_KEV:
        return 0.0
    energies, attenuation = np.log(np.array(SILICON_CM2_G)).T
    m_e = math.exp(float(np.interp(math.log(energy_kev), energies, attenuation)))
    ratio = SILICON_KA_CM2_G / m_e
    f = 0.5 * SILICON_K_YIELD * (1 - 1 / SILICON_K_JUMP) * (1 - ratio * math.log(1 + 1 / ratio))
    return f / (1 - f)


def fit_groups(
    counts: ArrayLike,
    scale: EnergyScale,
    detector: Detector,
    groups: Sequence[LineGroup],
    *,
    low_kev: float,
    high_kev: float,
    refine: bool = True,
) -> XrfFit:
    """Fit the areas of line groups between two energies.

    Least squares with weights 1 / (model + (0.01 model)^2), iterated, linear in all areas; with ``refine``,
    offset, gain, noise and Fano factor are varied outside (variable projection). Statistical errors are
    Poisson, propagated through the weights: G diag(model) G^T. Systematic: the larger of 2 % of the lines
    that overlap (the shape error) and the change when the K-beta tie is loosened to twice its width.

    Args:
        counts: spectrum, shape (N,), counts.
        scale: energy of a channel; refined within a few channels.
        detector: starting width.
        groups: what to fit.
        low_kev: start of the range.
        high_kev: end of the range.
        refine: whether scale and width are varied.

    Returns: the fit; ``areas`` in the order of ``groups``.
    Raises: ValueError if the range holds too few channels or counts are negative.
    Source: Van Espen and Janssens in Handbook of X-Ray Spectrometry, 2nd ed. (2002), chapter 4.
    """
    y_all = np.asarray(counts, np.float64)
    if y_all.ndim != 1 or y_all.size == 0 or y_all.min() < 0:
        raise ValueError("counts must be one spectrum without negative entries")
    first = max(0, math.ceil(scale.channel(low_kev, y_all.size)))
    top_kev = min(high_kev, scale.range_kev(y_all.size)[1])
    last = min(y_all.size - 1, math.floor(scale.channel(top_kev, y_all.size)))
    if last - first < 3 * (len(groups) + 4):
        raise ValueError(f"{low_kev} to {high_kev} keV holds too few channels for {len(groups)} groups")
    problem = _Problem(y_all, first, last, tuple(groups), scale, detector)
    if refine:
        scale, detector = problem.refine(scale, detector)
    return problem.result(scale, detector)


class _Problem:
    """One spectrum and its groups; scale and detector are given to each method."""

    def __init__(
        self,
        y: Floats,
        first: int,
        last: int,
        groups: tuple[LineGroup, ...],
        scale: EnergyScale,
        detector: Detector,
    ) -> None:
        self.first, self.groups = first, groups
        self.x = np.arange(first, last + 1, dtype=np.float64)
        self.y = y[first : last + 1]
        self.smooth = np.maximum(np.convolve(np.pad(self.y, 4, mode="edge"), np.ones(9) / 9, "valid"), 1.0)
        width = detector.fwhm_kev(scale.energy_kev(np.arange(y.size))) / scale.gain_kev(np.arange(y.size))
        smooth = _running_mean(snip(y, 2.0 * width, smooth=3), round(float(np.median(width))))[
            first : last + 1
        ]
        run = (self.x - self.x.mean()) / self.x.size
        self.continuum = np.stack([smooth + FLOOR_COUNTS, np.ones_like(run), run])
        self.pile_up = _pile_up(y, scale)[first : last + 1]
        self.ties = [
            (k, j) for k, b in enumerate(groups) for j, a in enumerate(groups)
            if b.series == "Kb" and a.series == "Ka" and a.element == b.element
        ]  # fmt: skip

    def templates(self, scale: EnergyScale, detector: Detector) -> Floats:
        """Return unit-area groups, continuum and pile-up, shape (k + 4, n)."""
        edges = scale.energy_kev(np.append(self.x, self.x[-1] + 1) - 0.5)
        rows = []
        for group in self.groups:
            row = np.zeros(self.x.size)
            for energy, weight in zip(group.energies_kev, group.weights, strict=True):
                row += weight * _binned(edges, energy, detector, group.extra_fwhm_kev)
                escape = escape_fraction(energy)
                if escape > 0 and energy - SILICON_KA_KEV > edges[0]:
                    row += weight * escape * _binned(edges, energy - SILICON_KA_KEV, detector)
            rows.append(row)
        extra = [self.pile_up] if self.pile_up.any() else []
        return np.stack([*rows, *self.continuum, *extra])

    def solve(self, shapes: Floats, *, loosen: float = 1.0) -> tuple[Floats, Floats]:
        """Return amplitudes and gain of the linear fit with its ties; weights from the model, iterated."""
        amplitudes, model = np.zeros(shapes.shape[0]), self.smooth
        norm = np.sqrt(np.sum(shapes**2, axis=1))
        unit = shapes / norm[:, None]
        for _ in range(ROUNDS):
            weighted = unit / (model + (MODEL_ERROR * model) ** 2)
            normal = weighted @ unit.T + self.tied(amplitudes, norm, loosen)
            amplitudes = _solve(normal, weighted @ self.y) / norm
            model = np.maximum(amplitudes @ shapes, 0.05 * self.smooth)
        return amplitudes, np.linalg.pinv(normal, rcond=1e-12, hermitian=True) @ weighted / norm[:, None]

    def misfit(self, shapes: Floats, weight: Floats) -> Floats:
        """Return weighted residuals of the best amplitudes for fixed weights, shape (n,)."""
        norm = np.sqrt(np.sum(shapes**2, axis=1))
        unit = shapes / norm[:, None]
        weighted = unit * weight
        normal, right = weighted @ unit.T, weighted @ self.y
        free = _solve(normal, right) / norm  # the ties need amplitudes to be relative to
        amplitudes = _solve(normal + self.tied(free, norm, 1.0), right) / norm
        return np.asarray((self.y - amplitudes @ shapes) * np.sqrt(weight), np.float64)

    def tied(self, amplitudes: Floats, norm: Floats, loosen: float) -> Floats:
        """Return what the K-beta ties add to the normal matrix; nothing before amplitudes are known."""
        added = np.zeros((norm.size, norm.size))
        for beta, alpha in self.ties if amplitudes.any() else []:
            ratio = self.groups[beta].ratio
            tie = np.zeros(norm.size)
            tie[beta], tie[alpha] = 1 / norm[beta], -ratio / norm[alpha]
            added += (
                np.outer(tie, tie) / (loosen * RATIO_TOLERANCE * ratio * max(amplitudes[alpha], 1.0)) ** 2
            )
        return added

    def refine(self, scale: EnergyScale, detector: Detector) -> tuple[EnergyScale, Detector]:
        """Vary offset, gain, noise and Fano factor until chi2 is smallest."""
        centre = 0.5 * (self.x[0] + self.x[-1])
        half = 0.5 * (self.x[-1] - self.x[0])
        step = float(scale.gain_kev(centre))

        def moved(p: Floats) -> tuple[EnergyScale, Detector]:
            base = list(scale.coefficients)
            slope = p[1] * step / half  # p: channels at the centre and at the ends, then relative widths
            base[0] += p[0] * step - slope * (centre + scale.centre)
            base[1] += slope
            noise, fano = detector.noise_kev * math.exp(p[2]), detector.fano * math.exp(p[3])
            return EnergyScale(tuple(base), scale.centre, None, scale.powers), Detector(noise, fano)

        weight = 1 / (
            self.smooth + (MODEL_ERROR * self.smooth) ** 2
        )  # the same for every trial, so that they compare

        def misfit(q: Floats) -> Floats:
            return self.misfit(self.templates(*moved(q - 1.0)), weight)

        # q = p + 1: least_squares takes its difference steps relative to the value
        bounds = ([-5.0, -5.0, -0.5, -0.5], [7.0, 7.0, 2.5, 2.5])
        found = least_squares(misfit, np.ones(4), bounds=bounds, diff_step=[1e-3] * 4)
        freedom = max(self.y.size - found.x.size - len(self.groups), 1)
        excess = max(1.0, 2.0 * float(found.cost) / freedom)  # what the shapes miss is in the errors
        jacobian = np.asarray(found.jac, np.float64)
        covariance = np.asarray(excess * np.linalg.pinv(jacobian.T @ jacobian), np.float64)
        scale, detector = moved(found.x - 1.0)
        return scale, replace(detector, covariance=covariance[2:, 2:])

    def result(self, scale: EnergyScale, detector: Detector) -> XrfFit:
        """Return the fit at a given scale and width."""
        shapes = self.templates(scale, detector)
        amplitudes, gain = self.solve(shapes)
        loose = self.solve(shapes, loosen=2.0)[0]
        model = amplitudes @ shapes
        safe = np.maximum(model, FLOOR_COUNTS)
        k = len(self.groups)
        covariance = (gain[:k] * safe) @ gain[:k].T
        shape_error = MODEL_ERROR * np.sqrt(np.einsum("kn,kn->k", gain[:k] ** 2, np.broadcast_to(
            safe**2, gain[:k].shape)))  # fmt: skip
        sys = np.hypot(shape_error, loose[:k] - amplitudes[:k])
        components = {g.name: amplitudes[j] * shapes[j] for j, g in enumerate(self.groups)}
        components[CONTINUUM[0]] = amplitudes[k : k + 3] @ shapes[k : k + 3]
        if shapes.shape[0] > k + 3:
            components[PILE_UP] = amplitudes[k + 3] * shapes[k + 3]
        areas = tuple(
            GroupArea(g, float(amplitudes[j]), math.sqrt(max(float(covariance[j, j]), 0.0)), float(sys[j]))
            for j, g in enumerate(self.groups)
        )
        return XrfFit(
            scale=scale, detector=detector, areas=areas, covariance=covariance, first=self.first,
            counts=self.y, model=model, components=components, gain=gain[:k],
            chi2=float(np.sum((self.y - model) ** 2 / safe)), ndf=self.y.size - shapes.shape[0] - 4,
        )  # fmt: skip


def _binned(edges_kev: Floats, energy_kev: float, detector: Detector, extra_kev: float = 0.0) -> Floats:
    """Return a unit Gaussian integrated over bins."""
    sigma = math.hypot(float(detector.fwhm_kev(energy_kev)), extra_kev) / FWHM_PER_SIGMA
    return np.diff(ndtr((edges_kev - energy_kev) / sigma))


def _solve(normal: Floats, right: Floats) -> Floats:
    """Solve a symmetric system, by the pseudo-inverse where two shapes are nearly the same."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", scipy.linalg.LinAlgWarning)
            return np.asarray(scipy.linalg.solve(normal, right, assume_a="pos"), np.float64)
    except (scipy.linalg.LinAlgError, scipy.linalg.LinAlgWarning):
        return np.asarray(np.linalg.pinv(normal, rcond=1e-12, hermitian=True) @ right, np.float64)


def _running_mean(y: Floats, half: int) -> Floats:
    """Return the mean over 2 half + 1 channels, twice: noise must not shape the continuum."""
    box = np.ones(2 * half + 1) / (2 * half + 1)
    for _ in range(2):
        y = np.convolve(np.pad(y, half, mode="edge"), box, "valid")
    return y


def _pile_up(y: Floats, scale: EnergyScale) -> Floats:
    """Return the shape of two photons taken for one: the spectrum convolved with itself, sum 1."""
    total = float(y.sum())
    if total < 1e4:  # too few for the shape to be seen, or to be known
        return np.zeros_like(y)
    size = 1 << (2 * y.size - 1).bit_length()
    spectrum = np.fft.rfft(y, size)
    both = np.maximum(np.fft.irfft(spectrum**2, size)[: 2 * y.size - 1], 0.0)
    shift = round(float(scale.energy_kev(0.0)) / float(scale.gain_kev(0.0)))  # E_i + E_j = E(i + j + shift)
    out = np.zeros_like(y)
    for channel in range(max(0, shift), min(y.size, both.size + shift)):
        out[channel] = both[channel - shift]
    return out / out.sum() if out.sum() > 0 else out
