"""Gamma spectra of germanium detectors: recognise the source, correct the energy, measure the lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.background import band_net
from edge.calibration import EnergyScale, ScaleFit, fit_scale
from edge.gamma_lines import CALIBRATION_SETS, INTERFERENCES, LINES, GammaLine
from edge.peaks import Peak, PeakFit, find_peaks, fit_peaks

Floats = NDArray[np.float64]

HALF_WINDOW_KEV = 7.0  # of a fit: the two sides of the background reach this far
HALF_WINDOW_FWHM = 1.5  # ... or this many FWHM, where a detector is so broad that 7 keV would not do
SEARCH_KEV = 1.5  # how far a recorded calibration may be off, plus
SEARCH_FRACTION = 0.001  # ... this part of the energy
FOUND_SIGMA = 4.0  # a line counts as found above this many errors of a zero area
RECOGNISED = 0.6  # part of a set's lines that must be found
CURVES = ((0.0, 1.0), (0.0, 1.0, 2.0), (0.0, 1.0, 2.0, 0.5))  # powers of the channel, tried in this order
GOAL_KEV = 0.03  # a curve is good when no line is further off than this, beyond its own error
NATURAL = ("Be-7", "K-40", "Cs-134", "Cs-137", "Tl-208", "Pb-212", "Ra-224", "Pb-214", "Bi-214", "Ac-228")


@dataclass(frozen=True)
class MeasuredLine:
    """A known line as it stands in the spectrum. Errors are one sigma."""

    line: GammaLine
    fit: PeakFit
    recorded_kev: float  # centroid on the recorded scale
    centroid_sigma_kev: float  # statistical, either scale
    centroid_sigma_sys_kev: float  # other windows, other background, centre of gravity
    fwhm_kev: float
    fwhm_sigma_kev: float
    area: float  # counts
    area_sigma_stat: float
    area_sigma_sys: float  # other windows, other background, counts in bands instead of a Gaussian
    significance: float  # area over the error it would have if it were zero
    alone: Peak | None  # the same with one Gaussian only; None beside a stronger neighbour
    energy_kev: float = math.nan  # centroid on the corrected scale
    energy_sigma_sys_kev: float = math.nan  # of the corrected scale and of the method

    @property
    def channel(self) -> float:
        """Fitted centroid, channels."""
        return self.fit.peaks[0].centroid

    @property
    def found(self) -> bool:
        """Whether the line stands out."""
        return self.significance > FOUND_SIGMA


@dataclass(frozen=True)
class Resolution:
    """FWHM^2 = a + b E (keV^2), with the covariance of a and b."""

    a: float
    b: float
    covariance: Floats

    def fwhm_kev(self, energy_kev: float) -> float:
        """Return the FWHM in keV."""
        return math.sqrt(max(self.a + self.b * energy_kev, 1e-12))

    def sigma_kev(self, energy_kev: float) -> float:
        """Return the error of the FWHM in keV."""
        jac = np.array([1.0, energy_kev])
        return math.sqrt(float(jac @ self.covariance @ jac)) / (2 * self.fwhm_kev(energy_kev))


@dataclass(frozen=True)
class GammaResult:
    """All that was found in one germanium spectrum."""

    source: str  # name of the calibration set that was recognised
    recorded: EnergyScale
    corrected: ScaleFit  # through the lines of ``calibration``
    calibration: tuple[MeasuredLine, ...]
    lines: tuple[MeasuredLine, ...]  # every listed line of the recognised nuclides, by energy
    resolution: Resolution | None


def reduce_germanium(counts: ArrayLike, recorded: EnergyScale, *, source: str | None = None) -> GammaResult:
    """Recognise the source, correct the energy scale with its lines, and measure all lines.

    Args:
        counts: spectrum, shape (n,), counts.
        recorded: the scale of the file; it may be off by 1.5 keV + 0.1 %.
        source: a name of CALIBRATION_SETS; by default the set of which most lines are found.

    Returns: lines with recorded and corrected energies; areas are net counts.
    Raises: ValueError if no set of lines is recognised, or an unknown ``source`` is asked for.
    """
    y = np.asarray(counts, np.float64)
    if source is not None and source not in CALIBRATION_SETS:
        raise ValueError(f"unknown source {source!r}; known are {', '.join(CALIBRATION_SETS)}")
    width_kev = _typical_fwhm_kev(y, recorded)
    name, found = _recognise(y, recorded, width_kev, list(CALIBRATION_SETS) if source is None else [source])
    corrected = _correct(found, recorded)
    resolution = fit_resolution(found)
    nuclides = NATURAL if name == "natural" else {m.line.nuclide for m in found}
    weak = [one for one, _ in INTERFERENCES]  # predicted, not measured: see edge/gamma_be7.py
    reported = [one for one in LINES if one.nuclide in nuclides and one not in weak]
    lines = []
    for one in reported:
        guess = resolution.fwhm_kev(one.energy_kev) if resolution else width_kev
        result = measure(y, recorded, one, guess, expected=corrected.scale, neighbours=reported)
        if result:
            lines.append(_on(result, corrected.scale))
    return GammaResult(
        source=name, recorded=recorded, corrected=corrected,
        calibration=tuple(_on(m, corrected.scale) for m in found),
        lines=tuple(sorted(lines, key=lambda m: m.line.energy_kev)), resolution=resolution,
    )  # fmt: skip


def measure(
    counts: Floats,
    recorded: EnergyScale,
    line: GammaLine,
    fwhm_kev: float,
    *,
    expected: EnergyScale | None = None,
    neighbours: Sequence[GammaLine] = (),
) -> MeasuredLine | None:
    """Fit one line: a Gaussian on a straight line in +-7 keV about its listed energy.

    Listed neighbours in that window get Gaussians of the same width at their known distances. The systematic
    error is the largest change of the value among other methods (a window 1.4 times as wide, a quadratic
    background, no neighbours where they are weaker, and, where there are none, the counts within +-1.25 FWHM
    above two side bands with their centre of gravity), divided by sqrt(3), the standard uncertainty of a
    rectangular distribution of that half-width (JCGM 100 4.3.7). Where a detector's peaks are not Gaussian
    this is the larger error.

    Args:
        counts: spectrum, shape (n,).
        recorded: scale of the file.
        line: what to look for.
        fwhm_kev: starting width.
        expected: a better scale, if one is known already; the search then is only one FWHM wide.
        neighbours: lines that may lie in the window.

    Returns: the line, or None where it is outside the spectrum or no fit was found.
    """
    try:
        centre = (expected or recorded).channel(line.energy_kev, counts.size)
        gain = float(recorded.gain_kev(centre))
        reach = (fwhm_kev if expected else SEARCH_KEV + SEARCH_FRACTION * line.energy_kev) / gain
        apart = [(one.energy_kev - line.energy_kev) / gain for one in neighbours if one is not line]
        blended = any(abs(distance) < 2 * fwhm_kev / gain for distance in apart)
        start = centre if blended else _highest(counts, centre, reach, fwhm_kev / gain)
        width = fwhm_kev / gain if expected else _half_height_width(counts, start, fwhm_kev / gain)
        half = max(HALF_WINDOW_KEV / gain, HALF_WINDOW_FWHM * width)
        starts = np.array([start, *(start + d for d in apart if abs(d) < half)])
        middle = centre if expected else start
        methods = ((1.0, 1), (1.4, 1), (1.0, 2))
        fits = [_fit(counts, starts, middle, width, half * wide, degree) for wide, degree in methods]
    except ValueError:
        return None
    main = fits[0]
    if main is None or not main.converged or abs(main.peaks[0].centroid - centre) > 2 * reach:
        return None
    peak = main.peaks[0]
    others = [fit.peaks[0] for fit in fits[1:] if fit is not None and fit.converged]
    alone = peak if starts.size == 1 else _alone(counts, main, starts[:1], middle, width, half)
    others += [alone] if alone is not None else []
    counted = _counted(counts, peak, half) if starts.size == 1 else []
    places = [other.centroid for other in others] + [place for _, place in counted]
    areas = [other.area for other in others] + [area for area, _ in counted]
    return MeasuredLine(
        line=line, fit=main, recorded_kev=float(recorded.energy_kev(peak.centroid)),
        centroid_sigma_kev=peak.centroid_sigma * gain,
        centroid_sigma_sys_kev=_largest(peak.centroid, places) * gain,
        fwhm_kev=peak.fwhm * gain, fwhm_sigma_kev=peak.fwhm_sigma * gain,
        area=peak.area, area_sigma_stat=peak.area_sigma, area_sigma_sys=_largest(peak.area, areas),
        alone=alone,
        significance=peak.area / math.sqrt(max(peak.area_sigma**2 - peak.area, 1.0)),
    )  # fmt: skip


def fit_resolution(lines: Sequence[MeasuredLine]) -> Resolution | None:
    """Fit FWHM^2 = a + b E through measured lines; None for fewer than three.

    The scatter beyond the statistical errors is in the covariance, as in ``fit_scale``.
    """
    good = [m for m in lines if m.found and m.fwhm_sigma_kev > 0]
    if len(good) < 3:
        return None
    energy = np.array([m.line.energy_kev for m in good])
    squared = np.array([m.fwhm_kev**2 for m in good])
    sigma = np.array([2 * m.fwhm_kev * m.fwhm_sigma_kev for m in good])
    scale = fit_scale(energy, 0.0, squared, sigma).scale
    covariance = scale.covariance if scale.covariance is not None else np.zeros((2, 2))
    return Resolution(scale.coefficients[0], scale.coefficients[1], covariance)


def _recognise(
    counts: Floats, recorded: EnergyScale, width_kev: float, names: Sequence[str]
) -> tuple[str, list[MeasuredLine]]:
    """Return the set of which the largest part is found, with the lines found."""
    found = {}
    for name in names:
        measured = [measure(counts, recorded, one, width_kev) for one in CALIBRATION_SETS[name]]
        found[name] = [m for m in measured if m is not None and m.found]
    best = max(found, key=lambda name: len(found[name]) / len(CALIBRATION_SETS[name]))
    if len(found[best]) < max(3, RECOGNISED * len(CALIBRATION_SETS[best])):
        tried = ", ".join(
            f"{len(lines)} of {len(CALIBRATION_SETS[name])} of {name}" for name, lines in found.items()
        )
        raise ValueError(f"no known set of gamma lines was recognised (found {tried})")
    return best, found[best]


def _on(measured: MeasuredLine, scale: EnergyScale) -> MeasuredLine:
    """Add the energy on the corrected scale."""
    channel = measured.channel
    sys = math.hypot(float(scale.sigma_kev(channel)), measured.centroid_sigma_sys_kev)
    return replace(measured, energy_kev=float(scale.energy_kev(channel)), energy_sigma_sys_kev=sys)


def _correct(found: Sequence[MeasuredLine], recorded: EnergyScale) -> ScaleFit:
    """Fit the simplest curve that leaves no line off by more than GOAL_KEV plus its own error."""
    channels = [m.channel for m in found]
    gains = recorded.gain_kev(channels)
    sigma = np.array([math.hypot(m.centroid_sigma_kev, m.centroid_sigma_sys_kev) for m in found]) / gains
    energies = [m.line.energy_kev for m in found]
    known = [m.line.energy_sigma_kev for m in found]
    for powers in CURVES:
        if len(powers) == 2 or len(found) >= len(powers) + 2:
            fit = fit_scale(channels, sigma, energies, known, powers=powers, centre=recorded.centre)
            if np.all(np.abs(fit.residuals_kev) < GOAL_KEV + fit.sigma_kev):
                break
    return fit


def _typical_fwhm_kev(counts: Floats, recorded: EnergyScale) -> float:
    """Return the width (keV) at which a matched filter finds most: the spectrum tells its resolution."""
    nonzero = np.flatnonzero(counts)
    if nonzero.size == 0:
        raise ValueError("the spectrum is empty")
    gain = float(recorded.gain_kev(counts.size / 2))
    scores = {}
    for width_kev in (0.8, 1.2, 1.8, 2.7, 4.0, 6.0):
        channels = np.full(counts.size, max(width_kev / gain, 2.0))
        peaks = find_peaks(counts, channels, threshold=8.0, first=int(nonzero[0]))
        scores[width_kev] = sum(peak.significance for peak in peaks)
    return max(scores, key=lambda key: scores[key])


def _highest(counts: Floats, centre: float, reach: float, fwhm: float) -> float:
    """Return the channel within ``reach`` of ``centre`` where a running sum one FWHM wide is largest."""
    half = max(1, round(fwhm / 2))
    first, last = math.floor(centre - reach), math.ceil(centre + reach)
    if first - half < 0 or last + half >= counts.size:
        raise ValueError("the search reaches beyond the spectrum")
    sums = np.convolve(counts[first - half : last + half + 1], np.ones(2 * half + 1), "valid")
    return float(first + int(np.argmax(sums)))


def _half_height_width(counts: Floats, start: float, guess: float) -> float:
    """Return the width at half height about a maximum, in channels; ``guess`` where it cannot be read off."""
    c, far = round(start), max(round(6 * guess), 3)
    part = counts[max(0, c - far) : c + far + 1]
    level = 0.5 * (float(np.percentile(part, 20)) + float(counts[max(c - 1, 0) : c + 2].mean()))
    left = next((i for i in range(1, far) if counts[max(c - i, 0)] < level), None)
    right = next((i for i in range(1, far) if counts[min(c + i, counts.size - 1)] < level), None)
    if left is None or right is None:
        return guess
    return float(min(max(left + right - 1, 0.6 * guess), 4 * guess))


def _fit(
    counts: Floats, starts: Floats, middle: float, fwhm: float, half: float, degree: int
) -> PeakFit | None:
    first, last = round(middle - half), round(middle + half)
    try:
        return fit_peaks(counts, starts, fwhm, first=first, last=last, degree=degree, linked=True)
    except ValueError:
        return None


def _alone(
    counts: Floats, main: PeakFit, start: Floats, middle: float, width: float, half: float
) -> Peak | None:
    """Return the first peak fitted without its neighbours, or None beside a stronger one."""
    if main.peaks[0].area < max(other.area for other in main.peaks):
        return None
    single = _fit(counts, start, middle, width, half, 1)
    return single.peaks[0] if single is not None and single.converged else None


def _counted(counts: Floats, peak: Peak, half: float) -> list[tuple[float, float]]:
    """Return net area and centre of gravity within +-1.25 FWHM, above bands on both sides."""
    inner, outer = 1.25 * peak.fwhm, max(half, 2.5 * peak.fwhm)
    first, last = math.floor(peak.centroid - inner), math.ceil(peak.centroid + inner)
    bands = [(math.floor(peak.centroid - outer), first - 1), (last + 1, math.ceil(peak.centroid + outer))]
    try:
        area = band_net(counts, (first, last), bands).net
    except ValueError:
        return []
    if area < FOUND_SIGMA * peak.area_sigma:
        return [(area, peak.centroid)]
    x = np.arange(first, last + 1)
    levels = [float(counts[low : high + 1].mean()) for low, high in bands]
    net = counts[x] - np.linspace(levels[0], levels[1], x.size)
    return [(area, float(net @ x / net.sum()))] if net.sum() > 0 else [(area, peak.centroid)]


def _largest(value: float, others: Sequence[float]) -> float:
    return max((abs(other - value) for other in others), default=0.0) / math.sqrt(3)
