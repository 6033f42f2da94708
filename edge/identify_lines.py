"""Which peak of a spectrum is which known line: an energy calibration from nothing, or from a rough one.

Every pair of peaks is tried as the lowest and the highest of the named lines; a pair stands if the straight
line through it passes near a peak for every other name. What it explains is the significance of the peaks it
uses. If another reading of the spectrum explains nearly as much, the identification is refused: nobody can
tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.calibration import EnergyScale, ScaleFit, fit_scale
from edge.known_lines import KnownLine
from edge.peaks import Peak, find_peaks, fit_peaks

Floats = NDArray[np.float64]
WIDTHS = (2.0, 3.0, 4.5, 7.0, 10.0, 15.0, 22.0, 33.0, 50.0, 75.0)  # channels, with which peaks are searched
THRESHOLD = 6.0  # standard deviations
MOST_PEAKS = 40
PEDESTAL = 0.15  # of the highest energy: an offset beyond that is no calibration of a detector
NEAR_GAIN, NEAR_PLACE = 0.05, 0.03  # how far a rough calibration may be off: gain, and place of a line
SURE = 6.0  # by this much (in units of log significance) the best reading must be better than any other
SCATTER, BROAD_SCATTER = 0.15, 0.4  # of a FWHM, that lines may lie off a straight scale: see _straight
BROAD = 0.03  # FWHM over energy: a scintillator, whose light is not proportional
SHAPE_ERROR = 0.02  # of a FWHM: a peak is no Gaussian on a line to better than that
REACH = 1.3  # FWHM on each side that a peak is fitted in


class Ambiguous(ValueError):
    """The spectrum can be read in more than one way."""


@dataclass(frozen=True)
class Seen:
    """A peak of the search."""

    channel: float
    significance: float
    fwhm: float  # channels, at half height


@dataclass(frozen=True)
class Calibrated:
    """A calibration and what it rests on."""

    fit: ScaleFit
    lines: tuple[KnownLine, ...]
    peaks: tuple[Peak, ...]
    seen: tuple[Seen, ...]  # every peak of the search
    sure: float  # by how much the next best reading is worse; infinite if there is none


def calibrate(
    counts: ArrayLike, lines: Sequence[KnownLine], *, near: EnergyScale | None = None
) -> Calibrated:
    """Find known lines in a spectrum and fit the straight energy scale through them.

    Args:
        counts: spectrum, shape (n,), counts per channel (Poisson).
        lines: known lines in keV, all of which must be there.
        near: a rough scale; without it at least three lines are needed.

    Returns: scale (energy = offset + gain x channel, keV) with covariance, fitted peaks in the order of
    energy.
    Raises: Ambiguous when another assignment explains nearly as much; ValueError when the lines are not
    there.
    """
    y = np.asarray(counts, np.float64)
    wanted = sorted(lines, key=lambda line: line.energy_kev)
    if len(wanted) < 2:
        raise ValueError("gain and offset need two lines at least")
    if len(wanted) < 3 and near is None:
        raise Ambiguous(
            "any two peaks fit two lines: name a third one, or say the rough calibration (--near OFFSET,GAIN)"
        )
    seen = search(y)
    best, second = _best(seen, np.array([line.energy_kev for line in wanted]), y.size, near)
    sure = best[0] - second
    if sure < SURE:
        raise Ambiguous(
            f"the spectrum can be read in several ways: the next one is worse by {sure:.1f} only, {SURE:g} "
            "are asked for; name more lines, or say the rough calibration (--near OFFSET,GAIN)"
        )
    peaks = tuple(_fitted(y, seen[index], line) for index, line in zip(best[1], wanted, strict=True))
    fit = fit_scale(
        [peak.centroid for peak in peaks],
        [math.hypot(peak.centroid_sigma, SHAPE_ERROR * peak.fwhm) for peak in peaks],
        [line.energy_kev for line in wanted],
        [line.sigma_kev for line in wanted],
    )
    for peak, line, miss in zip(peaks, wanted, fit.residuals_kev, strict=True):
        if abs(miss) > 0.5 * peak.fwhm * fit.scale.coefficients[1]:
            raise ValueError(
                f"{line.name} lies {abs(miss):.3g} keV beside the scale of the others: is it that line?"
            )
    _straight(fit, peaks)
    return Calibrated(fit, tuple(wanted), peaks, tuple(seen), sure)


def _straight(fit: ScaleFit, peaks: Sequence[Peak]) -> None:
    """Refuse a scatter that no electronics has: then one of the lines is another one."""
    fwhm_kev = np.array([peak.fwhm for peak in peaks]) * fit.scale.coefficients[1]
    broad = (
        float(np.median(fwhm_kev / fit.energies_kev)) > BROAD and float(np.median(fit.energies_kev)) > 20.0
    )
    allowed = (BROAD_SCATTER if broad else SCATTER) * float(np.median(fwhm_kev))
    if fit.excess_kev > allowed:
        raise ValueError(
            f"the lines lie {fit.excess_kev:.3g} keV off a straight scale, at a resolution of "
            f"{np.median(fwhm_kev):.3g} keV: one of them is another line, or its peak is two"
        )


def search(counts: Floats) -> list[Seen]:
    """Return the peaks of a spectrum (counts, shape (n,)) of unknown resolution, by rising channel."""
    found: list[Seen] = []
    total = np.cumsum(counts)
    start = int(np.searchsorted(total, 1e-4 * total[-1])) if total.size and total[-1] > 0 else 0
    for width in WIDTHS:
        if 8 * width < counts.size:
            found += [Seen(one.channel, one.significance, width)
                      for one in find_peaks(counts, width, threshold=THRESHOLD, first=start)]  # fmt: skip
    kept: list[Seen] = []
    for one in sorted(found, key=lambda peak: -peak.significance):
        if all(abs(one.channel - other.channel) > 0.8 * max(one.fwhm, other.fwhm) for other in kept):
            kept.append(one)
    shaped = [Seen(one.channel, one.significance, _half_height(counts, one)) for one in kept[:MOST_PEAKS]]
    return sorted(shaped, key=lambda peak: peak.channel)


def _half_height(counts: Floats, one: Seen) -> float:
    """Return the full width at half height in channels: tall peaks are found with too wide a filter."""
    reach = max(3, round(1.5 * one.fwhm))
    first = max(0, round(one.channel) - reach)
    part = counts[first : round(one.channel) + reach + 1]
    box = max(1, round(math.sqrt(one.fwhm) / 2)) if part.max() < 1000 else 1
    smooth = np.convolve(part, np.ones(box) / box, "same")
    middle = round(one.channel) - first
    near = slice(max(0, middle - reach // 3), middle + reach // 3 + 1)
    top = int(np.argmax(smooth[near])) + near.start
    floor = min(float(smooth[: top + 1].min()), float(smooth[top:].min()))
    below = np.flatnonzero(smooth < 0.5 * (smooth[top] + floor))
    left, right = below[below < top], below[below > top]
    if not left.size or not right.size:
        return one.fwhm
    return float(np.clip(right[0] - left[-1] - 1, 2.0, one.fwhm))


def _best(
    seen: list[Seen], energies: Floats, n_channels: int, near: EnergyScale | None
) -> tuple[tuple[float, tuple[int, ...]], float]:
    """Return (score, peaks) of the best assignment, and the score of the best that is really another one."""
    places = np.array([one.channel for one in seen])
    readings: list[tuple[float, tuple[int, ...]]] = []
    for low, high in combinations(range(len(seen)), 2):
        gain = (energies[-1] - energies[0]) / (places[high] - places[low])
        offset = energies[0] - gain * places[low]
        if _possible(offset, gain, energies, n_channels, near):
            chosen = _nearest(seen, places, (energies - offset) / gain)
            if chosen is not None and chosen[0][0] == low and chosen[0][-1] == high:
                readings.append((chosen[1], chosen[0]))
    if not readings:
        raise ValueError(
            f"the named lines are not there: {len(seen)} peaks were found at channels "
            + ", ".join(f"{place:.0f}" for place in places[:20])
        )
    readings.sort(reverse=True)
    best = readings[0]
    others = [score for score, chosen in readings[1:] if _other(seen, best[1], chosen)]
    return best, max(others, default=-math.inf)


def _possible(
    offset: float, gain: float, energies: Floats, n_channels: int, near: EnergyScale | None
) -> bool:
    if near is None:
        return abs(offset) < PEDESTAL * float(energies[-1])
    expected = np.array([near.channel(float(energy), 4 * n_channels) for energy in energies])
    rough = float(near.gain_kev(expected.mean()))
    misses = np.abs((energies - offset) / gain - expected)
    return abs(gain / rough - 1.0) < NEAR_GAIN and bool((misses < NEAR_PLACE * expected + 5.0).all())


def _nearest(seen: list[Seen], places: Floats, expected: Floats) -> tuple[tuple[int, ...], float] | None:
    """Return the peaks nearest to the expected channels, and a score; None if one is more than a FWHM off."""
    chosen: list[int] = []
    score = 0.0
    for place in expected:
        index = int(np.argmin(np.abs(places - place)))
        miss = abs(places[index] - place) / max(seen[index].fwhm, 3.0)
        if miss > 1.0 or index in chosen:
            return None
        chosen.append(index)
        score += math.log(seen[index].significance) - 2.0 * miss**2
    return tuple(chosen), score


def _other(seen: list[Seen], one: tuple[int, ...], two: tuple[int, ...]) -> bool:
    """Whether two assignments put some line at really different places."""
    return any(
        abs(seen[a].channel - seen[b].channel) > 2.0 * max(seen[a].fwhm, seen[b].fwhm)
        for a, b in zip(one, two, strict=True)
    )


def _fitted(y: Floats, start: Seen, line: KnownLine) -> Peak:
    """Fit a Gaussian on a straight line; its own width tells the window of the next fit."""
    peak: Peak | None = None
    centre, fwhm = start.channel, start.fwhm
    for _ in range(3):
        half = max(4, round(REACH * fwhm))
        first, last = max(0, round(centre) - half), min(y.size - 1, round(centre) + half)
        fit = fit_peaks(y, [centre], fwhm, first=first, last=last)
        found = fit.peaks[0]
        if not fit.converged or not abs(found.centroid - start.channel) < 1.5 * start.fwhm + 2.0:
            break
        peak, centre, fwhm = found, found.centroid, max(1.5, abs(found.fwhm))
    if peak is None or not peak.area > 3.0 * peak.area_sigma:
        raise ValueError(f"{line.name} near channel {start.channel:.0f} cannot be fitted as a peak")
    return peak
