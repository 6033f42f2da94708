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

WIDTHS = tuple(1.2**k for k in range(0, 12))  # FWHM / sqrt(channel) that are tried
THRESHOLD = 4.5
MAX_PEDESTAL = 0.05  # of the highest energy matched: offset of a plausible straight line
HALF_WINDOW_FWHM = 1.3
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
    fwhm_kev: float


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
    pairs: tuple[tuple[GammaLine, Candidate], ...]


def reduce_broad(counts: ArrayLike, *, source: str | None = None) -> BroadResult:
    """Find the lines of a scintillator spectrum and its energy scale.

    Peaks are searched with the width law that makes them stand out most. For each set of lines every
    assignment of its required lines to peaks, in rising order, is tried with a straight line; it is allowed
    if the pedestal is below 5 % and each line lies within one FWHM. Lines that may be there are added where
    the line predicts them within a FWHM. The score is the significance of the peaks explained less that
    of those left over; the best assignment wins.

    Args:
        counts: spectrum, shape (n,), counts.
        source: a name of BROAD_SETS; by default all are tried.

    Returns: lines and scale. For a light yield that is not proportional the residuals of the scale tell.
    Raises: ValueError if no pattern fits.
    """
    y = np.asarray(counts, np.float64)
    if source is not None and source not in BROAD_SETS:
        raise ValueError(f"unknown source {source!r}; known are {', '.join(BROAD_SETS)}")
    width, candidates = _search(y)
    names = list(BROAD_SETS) if source is None else [source]
    matches = [match for name in names for match in _matches(name, candidates, width, y.size)]
    if not matches:
        seen = ", ".join(f"{c.channel:.0f}" for c in candidates) or "none"
        raise ValueError(f"no known pattern of lines fits the peaks found (channels {seen})")
    best = max(matches, key=lambda match: match.score)
    fits = [(line, _fit(y, candidate.channel, width)) for line, candidate in best.pairs]
    scale = _scale([line for line, _ in fits], [fit for _, fit in fits])
    lines = []
    for k, ((line, candidate), (_, fit)) in enumerate(zip(best.pairs, fits, strict=True)):
        rest = [pair for j, pair in enumerate(fits) if j != k]
        peak = fit.peaks[0]
        others = _scale([a for a, _ in rest], [b for _, b in rest]).scale if len(rest) > 1 else None
        lines.append(
            BroadLine(
                line=line, fit=fit, channel=peak.centroid, channel_sigma=peak.centroid_sigma,
                fwhm_channels=peak.fwhm, significance=candidate.significance, area=peak.area,
                area_sigma=peak.area_sigma, energy_kev=float(scale.scale.energy_kev(peak.centroid)),
                predicted_kev=float(others.energy_kev(peak.centroid)) if others else math.nan,
                fwhm_kev=peak.fwhm * float(scale.scale.gain_kev(peak.centroid)),
            )
        )  # fmt: skip
    return BroadResult(best.name, scale, tuple(lines), tuple(candidates), width)


def _search(y: Floats) -> tuple[float, list[Candidate]]:
    nonzero = np.flatnonzero(y)
    if nonzero.size == 0:
        raise ValueError("the spectrum is empty")
    root = np.sqrt(np.maximum(np.arange(y.size, dtype=np.float64), 1.0))
    best: tuple[float, float, list[Candidate]] = (-1.0, 1.0, [])
    for width in WIDTHS:
        peaks = find_peaks(y, width * root, threshold=THRESHOLD, first=int(nonzero[0]) + 1)
        total = sum(peak.significance for peak in peaks)
        if total > best[0]:
            best = (total, width, peaks)
    return best[1], best[2]


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
        matches.append(_Match(name, 2 * explained - total, tuple(pairs)))
    return matches


def _fit(y: Floats, channel: float, width: float) -> PeakFit:
    """Fit a Gaussian on a straight line within +-1.3 FWHM."""
    fwhm = width * math.sqrt(channel)
    half = HALF_WINDOW_FWHM * fwhm
    first, last = max(0, round(channel - half)), min(y.size - 1, round(channel + half))
    fit = fit_peaks(y, channel, fwhm, first=first, last=last)
    if not fit.converged:
        raise ValueError(f"no Gaussian fits the peak at channel {channel:.0f}")
    return fit


def _scale(lines: Sequence[GammaLine], fits: Sequence[PeakFit]) -> ScaleFit:
    peaks = [fit.peaks[0] for fit in fits]
    sigma = [math.hypot(peak.centroid_sigma, SHAPE_ERROR * peak.fwhm) for peak in peaks]
    places, energies = [peak.centroid for peak in peaks], [line.energy_kev for line in lines]
    straight = fit_scale(places, sigma, energies)
    if len(lines) < 4 or straight.excess_kev == 0:
        return straight
    bent = fit_scale(places, sigma, energies, powers=(0, 1, 2))
    return bent if abs(bent.scale.coefficients[0]) < MAX_PEDESTAL * max(energies) else straight
