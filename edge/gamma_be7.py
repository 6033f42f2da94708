"""Is the 477.6 keV line of Be-7 (the transition of 7Li) in a germanium spectrum?

Beside it stand weak lines of the natural chains, above all Ac-228 at 478.33 keV, 0.73 keV away and inside the
peak. Each is predicted from a strong line of its own nuclide, subtracted with its error, and only then is it
decided whether something is left. The relative efficiency between the two energies comes from the spectrum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erfc

from edge.calibration import EnergyScale
from edge.detection import Decision, decide
from edge.gamma import GammaResult, MeasuredLine, Resolution
from edge.gamma_lines import (
    BE7,
    COMPTON_EDGE_CS137_KEV,
    EFFICIENCY_LINES,
    EQUILIBRIUM,
    INTERFERENCES,
    GammaLine,
)
from edge.peaks import TemplateFit, fit_templates, gaussian

Floats = NDArray[np.float64]

HALF_WINDOW_KEV = 7.0
CLAIM_SIGMA = 3.0  # a detection is claimed above this many standard uncertainties of a zero amount
ALPHA = 0.0013499  # the false-alarm rate that belongs to 3 sigma
EDGE_SIGMA_KEV = 2.0  # Compton edge of Cs-137 in germanium, smeared by the electrons' momentum and resolution
MIN_EFFICIENCY_LINES = 5
REFERENCE_KEV = 600.0  # where ln E is centred


@dataclass(frozen=True)
class Efficiency:
    """Relative full-energy efficiency: ln eff = const + b x + c x^2 with x = ln(E / 600 keV)."""

    b: float
    c: float
    covariance: Floats  # of b and c, scatter of the lines included
    lines: tuple[MeasuredLine, ...]
    residuals: Floats  # of ln(area / intensity), per line
    sigma: Floats  # error of each, before the scatter
    scatter: float  # extra relative error that the lines show (cascade summing, absorption in the sample)

    def ratio(self, energy_kev: float, reference_kev: float) -> tuple[float, Floats]:
        """Return eff(energy) / eff(reference) and its derivatives by b and c."""
        x, y = math.log(energy_kev / REFERENCE_KEV), math.log(reference_kev / REFERENCE_KEV)
        ratio = math.exp(self.b * (x - y) + self.c * (x * x - y * y))
        return ratio, ratio * np.array([x - y, x * x - y * y])

    def ratio_sigma(self, energy_kev: float, reference_kev: float) -> float:
        """Return the error of the ratio."""
        gradient = self.ratio(energy_kev, reference_kev)[1]
        return math.sqrt(float(gradient @ self.covariance @ gradient))


@dataclass(frozen=True)
class Share:
    """What one neighbouring line contributes, predicted."""

    line: GammaLine
    reference: GammaLine
    area: float
    sigma_stat: float  # counting of the reference line
    sigma_sys: float  # branching ratios and relative efficiency


@dataclass(frozen=True)
class Be7Result:
    """The 477.6 keV region and the decision."""

    decision: Decision  # counts
    energy_kev: float  # where the line was looked for
    shares: tuple[Share, ...]
    efficiency: Efficiency
    budget: Mapping[str, float]  # each part of the uncertainty, counts
    first: int  # first channel of the arrays below
    energies_kev: Floats
    counts: Floats
    continuum: Floats
    neighbours: Floats  # predicted lines
    line: Floats  # fitted Be-7 line
    chi2: float
    ndf: int


def fit_efficiency(lines: Sequence[MeasuredLine]) -> Efficiency:
    """Fit the relative efficiency through lines of nuclides in secular equilibrium.

    ln(area / intensity) = a_group + b x + c x^2 by weighted least squares; a group is a set of nuclides of
    one activity. Errors: counting and method of the area, emission probability. If the scatter is larger than
    that, a relative error common in size is added to each line until chi2 equals ndf.

    Raises: ValueError when fewer than five lines were found.
    """
    wanted = {one.name for one in EFFICIENCY_LINES}
    used = [m for m in lines if m.line.name in wanted and m.found and m.area > 0]
    groups = sorted({EQUILIBRIUM[m.line.nuclide] for m in used})
    if len(used) < max(MIN_EFFICIENCY_LINES, len(groups) + 3):
        raise ValueError(f"{len(used)} lines of the natural chains are too few for an efficiency curve")
    x = np.array([math.log(m.line.energy_kev / REFERENCE_KEV) for m in used])
    value = np.array([math.log(m.area / m.line.intensity) for m in used])
    own = np.array([
        math.hypot(m.area_sigma_stat, m.area_sigma_sys) / m.area for m in used
    ])  # fmt: skip
    own = np.hypot(own, [m.line.intensity_sigma / m.line.intensity for m in used])
    member = np.array([[EQUILIBRIUM[m.line.nuclide] == group for group in groups] for m in used], np.float64)
    design = np.concatenate([member, x[:, None], x[:, None] ** 2], axis=1)
    scatter, solved = 0.0, _least_squares(design, value, own)
    ndf = len(used) - design.shape[1]
    while solved[2] > ndf and scatter < 1.0:
        scatter += 0.001
        solved = _least_squares(design, value, np.hypot(own, scatter))
    beta, covariance, _ = solved
    return Efficiency(
        b=float(beta[-2]), c=float(beta[-1]), covariance=covariance[-2:, -2:], lines=tuple(used),
        residuals=value - design @ beta, sigma=own, scatter=scatter,
    )  # fmt: skip


def predict_shares(
    lines: Sequence[MeasuredLine], efficiency: Efficiency
) -> tuple[tuple[Share, ...], Floats, Floats]:
    """Predict each neighbour: area_ref I / I_ref eff(E) / eff(E_ref).

    Returns: the shares, and the statistical and systematic covariances between them, (k, k): neighbours of
    one nuclide share the counts of their reference line, all share the efficiency curve.
    Raises: ValueError if a reference line was not measured.
    """
    found = {m.line.name: m for m in lines}
    shares, stat_rows, sys_rows = [], [], []
    references = list(dict.fromkeys(reference.name for _, reference in INTERFERENCES))
    for k, (one, reference) in enumerate(INTERFERENCES):
        if reference.name not in found:
            raise ValueError(f"{reference.name}, from which {one.name} is predicted, could not be measured")
        m = found[reference.name]
        ratio, gradient = efficiency.ratio(one.energy_kev, reference.energy_kev)
        branching = one.intensity / reference.intensity
        stat, sys = np.zeros(len(references)), np.zeros(2 * len(references) + len(INTERFERENCES) + 2)
        place = references.index(reference.name)
        area = m.area * branching * ratio
        stat[place] = m.area_sigma_stat * branching * ratio
        sys[place] = m.area_sigma_sys * branching * ratio
        sys[len(references) + place] = area * reference.intensity_sigma / reference.intensity
        sys[2 * len(references) + k] = area * one.intensity_sigma / one.intensity
        sys[-2:] = _root(efficiency.covariance).T @ (m.area * branching * gradient)
        stat_rows.append(stat)
        sys_rows.append(sys)
        shares.append(Share(one, reference, area, float(np.linalg.norm(stat)), float(np.linalg.norm(sys))))
    stat_all, sys_all = np.array(stat_rows), np.array(sys_rows)
    return tuple(shares), stat_all @ stat_all.T, sys_all @ sys_all.T


def find_be7(
    counts: ArrayLike, result: GammaResult, *, alpha: float = ALPHA, beta: float = 0.05
) -> Be7Result:
    """Decide whether the 477.6 keV line is there after its neighbours are subtracted.

    The counts within +-7 keV are fitted with the line at its known place and the detector's own width on a
    straight background (both sides), the predicted neighbours held fixed. Statistical error: counting of the
    region and of the reference lines. Systematic: branching ratios, efficiency, position, width, and the
    largest change among other backgrounds (quadratic, a Compton edge of Cs-137, a wider window) / sqrt(3).

    Args:
        counts: spectrum, shape (n,).
        result: of ``reduce_germanium`` on the same counts.
        alpha: accepted rate of false claims; 3 sigma by default.
        beta: rate of misses at the detection limit.

    Returns: net counts with both errors, threshold, detection limit, interval.
    Raises: ValueError if the spectrum does not tell its own efficiency or resolution.
    Source: ISO 11929-1:2019; Currie, Anal. Chem. 40 (1968) 586.
    """
    if result.resolution is None:
        raise ValueError("too few lines to know the resolution")
    efficiency = fit_efficiency(result.lines)
    shares, stat, sys = predict_shares(result.lines, efficiency)
    y = np.asarray(counts, np.float64)
    region = _Region(y, result.corrected.scale, result.resolution, shares)
    fit, line = region.fit()
    gain = fit.gain[0]
    pull = -gain @ region.unit_neighbours.T  # change of the line per count of each neighbour
    at_zero = np.maximum(fit.model - fit.amplitudes[0] * line, 0.0)
    budget = region.variations(float(fit.amplitudes[0]))
    budget["counting of this region"] = math.sqrt(float(fit.covariance[0, 0]))
    budget["counting of the reference lines"] = math.sqrt(float(pull @ stat @ pull))
    budget["branching ratios and efficiency"] = math.sqrt(float(pull @ sys @ pull))
    counting = ("counting of this region", "counting of the reference lines")
    sigma_stat = math.hypot(*(budget[name] for name in counting))
    scaling = ("position", "width")
    additive = math.hypot(*(v for name, v in budget.items() if name not in counting + scaling))
    value = float(fit.amplitudes[0])
    scaled = math.hypot(*(budget[name] for name in scaling))
    zero = float(gain**2 @ at_zero) + budget[counting[1]] ** 2 + additive**2
    decision = decide(
        value, sigma_stat, math.hypot(additive, scaled), zero, float(gain**2 @ line),
        relative_sys=scaled / value if value > 3 * sigma_stat else 0.0, alpha=alpha, beta=beta,
    )  # fmt: skip
    neighbours = region.offset
    return Be7Result(
        decision=decision, energy_kev=BE7.energy_kev, shares=shares, efficiency=efficiency, budget=budget,
        first=region.first, energies_kev=region.energies, counts=region.counts,
        continuum=fit.model - fit.amplitudes[0] * line - neighbours, neighbours=neighbours,
        line=fit.amplitudes[0] * line, chi2=fit.chi2, ndf=fit.ndf,
    )  # fmt: skip


class _Region:
    """The channels about 477.6 keV with everything needed to fit them in several ways."""

    def __init__(
        self,
        y: Floats,
        scale: EnergyScale,
        resolution: Resolution,
        shares: Sequence[Share],
        wide: float = 1.0,
    ) -> None:
        self.y, self.scale, self.resolution, self.shares = y, scale, resolution, shares
        low, high = (scale.channel(BE7.energy_kev + s * wide * HALF_WINDOW_KEV, y.size) for s in (-1, 1))
        self.first = round(low)
        self.channels = np.arange(self.first, round(high) + 1, dtype=np.float64)
        self.counts = y[self.first : self.first + self.channels.size]
        self.energies = scale.energy_kev(self.channels)
        self.unit_neighbours = np.stack([self.bump(share.line.energy_kev) for share in shares])
        self.offset = np.array([share.area for share in shares]) @ self.unit_neighbours

    def bump(self, energy_kev: float, shift_kev: float = 0.0, stretch_kev: float = 0.0) -> Floats:
        """Return a line of unit area in counts per channel."""
        centre = self.scale.channel(energy_kev, self.y.size)
        gain = float(self.scale.gain_kev(centre))
        width = (self.resolution.fwhm_kev(energy_kev) + stretch_kev) / gain
        return gaussian(self.channels, centre + shift_kev / gain, width)

    def fit(
        self, *, shift_kev: float = 0.0, stretch_kev: float = 0.0, extra: Sequence[Floats] = ()
    ) -> tuple[TemplateFit, Floats]:
        """Fit line and straight background (and ``extra`` shapes); return the fit and the unit line."""
        line = self.bump(BE7.energy_kev, shift_kev, stretch_kev)
        run = (self.channels - self.channels.mean()) / self.channels.size
        shapes = np.stack([line, np.ones_like(run), run, *extra])
        return fit_templates(self.counts, shapes, offset=self.offset), line

    def variations(self, value: float) -> dict[str, float]:
        """Return the systematic parts that come from how the region is fitted, counts."""
        centre = self.scale.channel(BE7.energy_kev, self.y.size)
        shift = math.hypot(float(self.scale.sigma_kev(centre)), BE7.energy_sigma_kev)
        stretch = self.resolution.sigma_kev(BE7.energy_kev)
        run = (self.channels - self.channels.mean()) / self.channels.size
        edge = 0.5 * erfc((self.energies - COMPTON_EDGE_CS137_KEV) / (math.sqrt(2) * EDGE_SIGMA_KEV))
        wider = _Region(self.y, self.scale, self.resolution, self.shares, wide=1.4)
        others = [self.fit(extra=[run**2]), self.fit(extra=[edge]), wider.fit()]
        return {
            "position": _half(self.fit(shift_kev=s * shift) for s in (-1, 1)),
            "width": _half(self.fit(stretch_kev=s * stretch) for s in (-1, 1)),
            "background": max(abs(float(f.amplitudes[0]) - value) for f, _ in others) / math.sqrt(3),
        }


def _half(pair: Iterable[tuple[TemplateFit, Floats]]) -> float:
    low, high = (float(fit.amplitudes[0]) for fit, _ in pair)
    return 0.5 * abs(high - low)


def _least_squares(design: Floats, value: Floats, sigma: Floats) -> tuple[Floats, Floats, float]:
    inverse = np.linalg.pinv(design / sigma[:, None])
    beta = inverse @ (value / sigma)
    return beta, inverse @ inverse.T, float(np.sum(((value - design @ beta) / sigma) ** 2))


def _root(covariance: Floats) -> Floats:
    """Return L with L L^T = covariance, also where it is singular."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)), np.float64)
