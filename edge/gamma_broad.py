"""Spectra of scintillators without a calibration: the energies are told by the pattern of broad lines.

A scintillator's FWHM goes as sqrt(channel), its light is nearly proportional to energy, and its pedestal is
small; so a source shows as a pattern of a few peaks on an almost straight line through the origin.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.calibration import ScaleFit, fit_scale
from edge.gamma_lines import BROAD_SETS, GammaLine
from edge.peaks import Candidate, PeakFit, find_peaks, fit_peaks

Floats = NDArray[np.float64]

WIDTHS = tuple(1.4**k for k in range(7))  # FWHM / sqrt(channel) with which the peaks are first searched
THRESHOLD = 4.5
MAX_PEDESTAL = 0.05  # of the highest energy matched: offset of a plausible straight line
HALF_WINDOWS_FWHM = (1.3, 1.0, 1.7)  # of a fit, tried in this order
START_PART = 1e-3  # of all counts: less than that may lie below the first channel searched
SPIKE = 0.5  # of the width law: what is narrower is no line of this detector
MISFIT_FWHM = 0.25  # distance from a straight scale that costs an assignment one unit of significance
MOST_TRIED = 20  # assignments, best first
SHAPE_ERROR = 0.1  # of a FWHM: how well the centre of an unresolved group stands for its strongest line


@dataclass(frozen=True)
class BroadLine:
    """One line with its place in the spectrum. Errors are one sigma."""

    line: GammaLine
    fit: PeakFit
    channel: float
    channel_sigma: float  # statistical
    fwhm_channels: float
    significance: float
    area: float
    area_sigma: float
    energy_kev: float  # on the scale through all lines
    predicted_kev: float  # on the scale through the other lines only; NaN if they are fewer than two
    predicted_sigma_kev: float  # of that scale and of the centroid
    fwhm_kev: float
    fwhm_sigma_kev: float


@dataclass(frozen=True)
class BroadResult:
    """What was found in one scintillator spectrum."""

    source: str
    scale: ScaleFit
    lines: tuple[BroadLine, ...]
    candidates: tuple[Candidate, ...]  # every peak above the threshold, matched or not
    width: float  # FWHM = width sqrt(channel)


@dataclass(frozen=True)
class _Match:
    name: str
    score: float
    width: float
    pairs: tuple[tuple[GammaLine, Candidate], ...]


Found = tuple[GammaLine, Candidate, PeakFit]


def reduce_broad(counts: ArrayLike, *, source: str | None = None) -> BroadResult:
    """Find the lines of a scintillator spectrum and its energy scale.

    The peaks themselves tell the width law with which they are searched. For each set of lines every
    assignment of its required lines to peaks, in rising order, is tried with a straight line; it is allowed
    if the pedestal is below 5 % and each line lies within one FWHM. Lines that may be there are added where
    the line predicts them within a FWHM. The score is the significance of the peaks explained less that of
    those left over, less the misfit of the fitted centroids on a straight scale; the best assignment whose
    required lines are fitted wins.

    Args:
        counts: spectrum, shape (n,), counts.
        source: a name of BROAD_SETS; by default all are tried.

    Returns: lines and scale. For a light yield that is not proportional the residuals of the scale tell.
    Raises: ValueError if no pattern fits.
    """
    y = np.asarray(counts, np.float64)
    if source is not None and source not in BROAD_SETS:
        raise ValueError(f"unknown source {source!r}; known are {', '.join(BROAD_SETS)}")
    start = _start(y)
    law = _width_law(y, start)
    searches = [(width, _candidates(y, width, start)) for width in (law, law / 1.2, law * 1.2)]
    names = list(BROAD_SETS) if source is None else [source]
    matches = [
        match
        for width, candidates in searches
        for name in names
        for match in _matches(name, candidates, width, y.size)
    ]
    best: tuple[float, _Match, list[Found]] | None = None
    for match in sorted(matches, key=lambda match: -match.score)[:MOST_TRIED]:
        found = _fitted(y, match)
        rating = match.score - _misfit(found) if found else -math.inf
        if found and (best is None or rating > best[0]):
            best = rating, match, found
    if best is not None:
        _, match, found = best
        return _measured(match.name, found, dict(searches)[match.width], match.width)
    seen = ", ".join(f"{c.channel:.0f}" for c in searches[0][1]) or "none"
    raise ValueError(f"no known pattern of lines fits the peaks found (channels {seen})")


def _width_law(y: Floats, start: int) -> float:
    """Return the FWHM over sqrt(channel) of the spectrum: a median over the peaks, weighted by significance.

    Peaks are searched with many widths, fitted with a free one, and left out where they touch the cut-off.
    The width that makes the peaks stand out most would not do: it changes with a few counts, and a cut-off
    stands out more than any line.
    """
    laws, weights = [], []
    for width in WIDTHS:
        for candidate in _candidates(y, width, start):
            fit = _fit(y, candidate.channel, width)
            if fit is not None and fit.first > start:
                laws.append(fit.peaks[0].fwhm / math.sqrt(fit.peaks[0].centroid))
                weights.append(candidate.significance)
    if not laws:
        return 1.0
    order = np.argsort(laws)
    part = np.cumsum(np.array(weights)[order])
    return float(np.array(laws)[order][np.searchsorted(part, 0.5 * part[-1])])


def _fitted(y: Floats, match: _Match) -> list[Found]:
    """Fit the lines of an assignment; nothing where a required one is not found, or only as a spike."""
    found = []
    for line, candidate in match.pairs:
        fit = _fit(y, candidate.channel, match.width)
        law = match.width * math.sqrt(candidate.channel)
        if fit is not None and fit.peaks[0].fwhm > SPIKE * law:
            found.append((line, candidate, fit))
    required = BROAD_SETS[match.name][0]
    return found if {line for line, _, _ in found} >= set(required) else []


def _misfit(found: Sequence[Found]) -> float:
    """Return the sum over lines of (distance from a straight energy scale / a quarter of a FWHM)^2."""
    scale = _scale([line for line, _, _ in found], [fit for _, _, fit in found], bent=False).scale
    total = 0.0
    for line, _, fit in found:
        peak = fit.peaks[0]
        off = float(scale.energy_kev(peak.centroid)) - line.energy_kev
        total += (off / (MISFIT_FWHM * peak.fwhm * float(scale.gain_kev(peak.centroid)))) ** 2
    return total


def _measured(
    name: str,
    found: Sequence[Found],
    candidates: Sequence[Candidate],
    width: float,
) -> BroadResult:
    """Return scale and lines of an assignment."""
    fits = [(line, fit) for line, _, fit in found]
    scale = _scale([line for line, _ in fits], [fit for _, fit in fits])
    lines = []
    for k, (line, candidate, fit) in enumerate(found):
        rest = [pair for j, pair in enumerate(fits) if j != k]
        peak = fit.peaks[0]
        others = _scale([a for a, _ in rest], [b for _, b in rest]).scale if len(rest) > 1 else None
        gain = float(scale.scale.gain_kev(peak.centroid))
        lines.append(
            BroadLine(
                line=line, fit=fit, channel=peak.centroid, channel_sigma=peak.centroid_sigma,
                fwhm_channels=peak.fwhm, significance=candidate.significance, area=peak.area,
                area_sigma=peak.area_sigma, energy_kev=float(scale.scale.energy_kev(peak.centroid)),
                predicted_kev=float(others.energy_kev(peak.centroid)) if others else math.nan,
                predicted_sigma_kev=(
                    math.hypot(float(others.sigma_kev(peak.centroid)), peak.centroid_sigma * gain)
                    if others else math.nan
                ),
                fwhm_kev=peak.fwhm * gain, fwhm_sigma_kev=peak.fwhm_sigma * gain,
            )
        )  # fmt: skip
    return BroadResult(name, scale, tuple(lines), tuple(candidates), width)


def _start(y: Floats) -> int:
    """Return the channel from which peaks are searched: below lies a thousandth of the counts.

    The first channel with any count would do as well if it were not for a single stray count below the
    discriminator, behind which its edge looks like a peak.
    """
    if not y.any():
        raise ValueError("the spectrum is empty")
    return int(np.searchsorted(np.cumsum(y), START_PART * y.sum())) + 1


def _candidates(y: Floats, width: float, start: int) -> list[Candidate]:
    root = np.sqrt(np.maximum(np.arange(y.size, dtype=np.float64), 1.0))
    return find_peaks(y, width * root, threshold=THRESHOLD, first=start)


def _matches(name: str, candidates: Sequence[Candidate], width: float, n_channels: int) -> list[_Match]:
    """Return every allowed assignment of a set of lines to the peaks found."""
    required, optional = BROAD_SETS[name]
    energies = np.array([line.energy_kev for line in required])
    total = sum(candidate.significance for candidate in candidates)
    matches = []
    for chosen in itertools.combinations(candidates, len(required)):
        places = np.array([candidate.channel for candidate in chosen])
        fwhm = width * np.sqrt(places)
        gain, pedestal = (float(v) for v in np.polyfit(places, energies, 1, w=1 / fwhm))
        if gain <= 0 or abs(pedestal) > MAX_PEDESTAL * energies[-1]:
            continue
        if np.any(np.abs(energies - pedestal - gain * places) > gain * fwhm):
            continue
        pairs = list(zip(required, chosen, strict=True))
        for line in optional:
            at = (line.energy_kev - pedestal) / gain
            near = [c for c in candidates if abs(c.channel - at) < width * math.sqrt(max(at, 1.0))]
            if at < n_channels and near and all(c is not pair[1] for c in near for pair in pairs):
                pairs.append((line, min(near, key=lambda c: abs(c.channel - at))))
        explained = sum(candidate.significance for _, candidate in pairs)
        pairs.sort(key=lambda pair: pair[0].energy_kev)
        matches.append(_Match(name, 2 * explained - total, width, tuple(pairs)))
    return matches


def _fit(y: Floats, channel: float, width: float) -> PeakFit | None:
    """Fit a Gaussian on a straight line within +-1.3 FWHM; other windows where that finds none."""
    fwhm = width * math.sqrt(channel)
    for wide in HALF_WINDOWS_FWHM:
        half = wide * fwhm
        first, last = max(0, round(channel - half)), min(y.size - 1, round(channel + half))
        try:
            fit = fit_peaks(y, channel, fwhm, first=first, last=last)
        except ValueError:
            continue
        peak = fit.peaks[0]
        if fit.converged and peak.area > 0 and abs(peak.centroid - channel) < fwhm:
            return fit
    return None


def _scale(lines: Sequence[GammaLine], fits: Sequence[PeakFit], *, bent: bool = True) -> ScaleFit:
    peaks = [fit.peaks[0] for fit in fits]
    sigma = [math.hypot(peak.centroid_sigma, SHAPE_ERROR * peak.fwhm) for peak in peaks]
    places, energies = [peak.centroid for peak in peaks], [line.energy_kev for line in lines]
    straight = fit_scale(places, sigma, energies)
    if not bent or len(lines) < 4 or straight.excess_kev == 0:
        return straight
    curve = fit_scale(places, sigma, energies, powers=(0, 1, 2))
    return curve if abs(curve.scale.coefficients[0]) < MAX_PEDESTAL * max(energies) else straight
