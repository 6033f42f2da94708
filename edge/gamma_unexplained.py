"""What the lines of an analysis do not explain: peaks of a germanium spectrum that no nuclide of it has.

A forgotten nuclide is a systematic error that no uncertainty holds; here it shows itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import nbinom, poisson

from edge.calibration import EnergyScale
from edge.detection import Decision, decide
from edge.gamma import NATURAL, GammaResult, MeasuredLine, Resolution
from edge.gamma_library import ANNIHILATION_KEV, DECAYS, OTHERS
from edge.peaks import FWHM_PER_SIGMA, find_peaks, fit_peaks, fit_templates, gaussian

Floats = NDArray[np.float64]
_STRONGEST = {nuclide: i for i, nuclide in sorted((i, nuclide) for nuclide, _, i in DECAYS)}

FALSE_CLAIMS = 0.05  # accepted number of false lines per spectrum, shared out over all places searched
SEARCH_SIGMA = 3.0  # a matched filter proposes from here; the decision is taken by a fit
LOWEST_KEV = 30.0
START_PART = 1e-3  # of all counts: less than that may lie below the first channel searched
HALF_WINDOW_FWHM = 4.0
APART_FWHM = 1.0  # closer to a line of the analysis two lines are not told apart
TAIL, TAIL_FWHM = 0.02, 5.0  # of a stronger line, which is not quite a Gaussian, so far from its centre
SAME_FWHM = 0.4  # how far a candidate may be from the peak, plus three errors of the peak
LIKELY = 1.5  # a weak line of a known nuclide explains so many times what its strong lines predict
EFFICIENCY_POWER = -0.8  # of the energy: how the efficiency of germanium falls above 200 keV, roughly
MOST = 60
STRONG_PART = 0.03  # of the strongest line of a nuclide: weaker ones name no peak
STRONGEST_PEAKS, MOST_NAMES = 2, 4
NAMED = (
    *((e, f"{n} {e:.1f}") for n, e, i in DECAYS if i > STRONG_PART * _STRONGEST[n]),
    *((e, f"{n} {e:.1f}") for n, e in OTHERS.items()),
)


@dataclass(frozen=True)
class Unexplained:
    """One peak beyond the lines of the analysis. Errors are one sigma."""

    channel: float
    energy_kev: float  # corrected scale
    energy_sigma_kev: float  # statistical
    energy_sigma_sys_kev: float  # of the scale
    fwhm_kev: float  # of the detector, not fitted
    decision: Decision  # counts
    candidates: tuple[str, ...]  # what it might be, nearest first

    @property
    def significance(self) -> float:
        """Counts over the error they would have if there were none."""
        return self.decision.value / math.sqrt(self.decision.variance_at_zero)


@dataclass(frozen=True)
class Residual:
    """All peaks that the measured lines leave over."""

    lines: tuple[Unexplained, ...]  # no nuclide of the analysis has them, by energy
    weaker: tuple[Unexplained, ...]  # further lines of its nuclides, as strong as their strong lines say
    alpha: float  # false claims accepted at each place
    lowest_kev: float  # nothing is searched below


def find_unexplained(counts: ArrayLike, result: GammaResult) -> Residual | None:
    """Return the peaks above Currie's limit that the lines of a result do not explain.

    A matched filter proposes places. At each one a Gaussian of the detector's own width is fitted with the
    measured lines beside it on a straight background within +-4 FWHM. It is claimed above the decision
    threshold of ISO 11929 (Currie's critical level) for a rate of false claims alpha = 0.05 / (number of
    places one FWHM apart): one spectrum in twenty has a false line. At few counts the counts within one FWHM
    must beyond that be improbable as Poisson counts of the background (with its error: negative binomial).
    Within one FWHM of a measured line nothing is claimed, nor within five what is weaker than 2 % of it.
    Strongest first, each claimed one is part of the fits of the others.

    A peak at a weaker line of a nuclide of the analysis is explained by it, if it is not more than 1.5
    times what the nearest measured line of that nuclide predicts by intensity and a rough efficiency.

    Args:
        counts: spectrum, shape (n,).
        result: of ``reduce_germanium`` on the same counts.

    Returns: the peaks; statistical error: counting; systematic: a quadratic background instead, / sqrt(3).
        None where too few lines tell the detector's resolution.
    Source: Currie, Anal. Chem. 40 (1968) 586; ISO 11929-1:2019.
    """
    if result.resolution is None:
        return None
    search = _Search(np.asarray(counts, np.float64), result, result.resolution)
    found = sorted(search.run(), key=lambda one: one.energy_kev)
    pairs = [(one, search.expected(one)) for one in found]
    return Residual(
        lines=tuple(search.with_names(one, found) for one, names in pairs if not names),
        weaker=tuple(replace(one, candidates=names) for one, names in pairs if names),
        alpha=search.alpha,
        lowest_kev=float(search.scale.energy_kev(search.start)),
    )  # fmt: skip


class _Search:
    """One spectrum with what is known of it."""

    def __init__(self, y: Floats, result: GammaResult, resolution: Resolution) -> None:
        self.y, self.result = y, result
        self.scale: EnergyScale = result.corrected.scale
        self.lines = [m for m in result.lines if m.area > 0]
        channels = np.arange(y.size)
        energy, gain = self.scale.energy_kev(channels), self.scale.gain_kev(channels)
        typical = np.sqrt(np.maximum(resolution.a + resolution.b * np.maximum(energy, 0.0), 0.0))
        self.width = np.maximum(typical / gain, 1.5)
        begin = int(np.searchsorted(np.cumsum(y), START_PART * y.sum())) + 1
        self.start = max(begin, int(np.searchsorted(energy, LOWEST_KEV)))
        self.alpha = FALSE_CLAIMS / max(1.0, float(np.sum(1 / self.width[self.start :])))
        self.known = [(m.channel, m.area) for m in self.lines]

    def run(self) -> list[Unexplained]:
        """Return every claimed peak."""
        proposed = find_peaks(self.y, self.width, threshold=SEARCH_SIGMA, first=self.start)
        found: list[Unexplained] = []
        for one in sorted(proposed, key=lambda peak: -peak.significance):
            claimed = None if self._hidden(one.channel) else self._decide(one.channel)
            if claimed is not None and not self._tail(claimed.channel, claimed.decision.value):
                found.append(claimed)
                self.known.append((claimed.channel, claimed.decision.value))
            if len(found) == MOST:
                break
        return found

    def expected(self, one: Unexplained) -> tuple[str, ...]:
        """Return the weaker lines of the nuclides of the analysis that are that peak, if they can be."""
        nuclides = NATURAL if self.result.source == "natural" else {m.line.nuclide for m in self.lines}
        reach = self._reach(one)
        near = [(n, e, i) for n, e, i in DECAYS if n in nuclides and abs(e - one.energy_kev) < reach]
        predicted: dict[str, float] = {}
        for n, e, i in near:
            name = f"{n} {e:.1f}"
            predicted[name] = predicted.get(name, 0.0) + self._predicted(n, e, i)
        if one.decision.value - 2 * one.decision.sigma > LIKELY * sum(predicted.values()):
            return ()
        return tuple(sorted(predicted, key=lambda name: -predicted[name]))

    def with_names(self, one: Unexplained, found: Sequence[Unexplained]) -> Unexplained:
        """Return a peak with what lies at its energy, nearest first; of a nuclide its strong lines only."""
        places = list(NAMED)
        strong = [m for m in self.lines if m.found]
        for m in strong:
            if m.line.energy_kev > 3 * ANNIHILATION_KEV:
                places.append((m.line.energy_kev - ANNIHILATION_KEV, f"single escape of {m.line.name}"))
                places.append((m.line.energy_kev - 2 * ANNIHILATION_KEV, f"double escape of {m.line.name}"))
        for a, b in itertools.combinations(strong, 2):
            if a.line.nuclide == b.line.nuclide:
                both = a.line.energy_kev + b.line.energy_kev
                places.append((both, f"sum of {a.line.name} and {b.line.energy_kev:.1f}"))
        top = sorted(found, key=lambda other: -other.decision.value)[:STRONGEST_PEAKS]
        for other, m in itertools.product(top, strong):
            both = other.energy_kev + m.line.energy_kev
            places.append((both, f"sum of {m.line.name} and the peak at {other.energy_kev:.1f}"))
        reach = self._reach(one)
        near = sorted((abs(energy - one.energy_kev), name) for energy, name in places)
        return replace(one, candidates=tuple(name for off, name in near if off < reach)[:MOST_NAMES])

    def _reach(self, one: Unexplained) -> float:
        return SAME_FWHM * one.fwhm_kev + 3 * math.hypot(one.energy_sigma_kev, one.energy_sigma_sys_kev)

    def _predicted(self, nuclide: str, energy_kev: float, intensity: float) -> float:
        """Return the counts of a line from the nearest measured one of its nuclide.

        Below 200 keV by intensity alone: absorption in the sample makes it less than that.
        """
        own = [m for m in self.lines if m.line.nuclide == nuclide and m.found]
        if not own:
            return 0.0
        nearest: MeasuredLine = min(own, key=lambda m: abs(math.log(m.line.energy_kev / energy_kev)))
        ratio = max(energy_kev, 200.0) / max(nearest.line.energy_kev, 200.0)
        return nearest.area * intensity / nearest.line.intensity * float(ratio**EFFICIENCY_POWER)

    def _hidden(self, channel: float) -> bool:
        width = float(self.width[round(channel)])
        return any(abs(channel - place) < APART_FWHM * width for place, _ in self.known)

    def _tail(self, channel: float, area: float) -> bool:
        width = float(self.width[round(channel)])
        near = [strength for place, strength in self.known if abs(channel - place) < TAIL_FWHM * width]
        return self._hidden(channel) or any(area < TAIL * strength for strength in near)

    def _window(self, channel: float) -> tuple[int, int, list[float]]:
        half = HALF_WINDOW_FWHM * float(self.width[round(channel)])
        first, last = max(round(channel - half), self.start), min(round(channel + half), self.y.size - 1)
        beside = [place for place, _ in self.known if first - half / 4 < place < last + half / 4]
        return first, last, beside

    def _decide(self, channel: float) -> Unexplained | None:
        """Fit one place and return it if it is claimed."""
        try:
            channel, sigma = self._centre(channel)
            first, last, beside = self._window(channel)
            x = np.arange(first, last + 1, dtype=np.float64)
            width = float(self.width[round(channel)])
            run = (x - x.mean()) / x.size
            line = gaussian(x, channel, width)
            others = [gaussian(x, place, width) for place in beside] + [np.ones_like(x), run]
            fit = fit_templates(self.y[first : last + 1], np.stack([line, *others]))
            none = fit_templates(self.y[first : last + 1], np.stack(others))
            bent = fit_templates(self.y[first : last + 1], np.stack([line, *others, run**2]))
        except ValueError:  # at an end of the spectrum, or lines on top of each other
            return None
        zero = np.maximum(none.model, 0.0)
        value = float(fit.amplitudes[0])
        sys = abs(float(bent.amplitudes[0]) - value) / math.sqrt(3)
        decision = decide(
            value, math.sqrt(float(fit.covariance[0, 0])), sys,
            float(fit.gain[0] ** 2 @ zero) + sys**2, float(fit.gain[0] ** 2 @ line), alpha=self.alpha,
        )  # fmt: skip
        inside = np.abs(x - channel) <= width
        gross, mean = float(self.y[first : last + 1][inside].sum()), float(zero[inside].sum())
        spread = mean * mean * inside.sum() / max(float(zero.sum()), 1.0) / max(mean, 1e-9)
        if not decision.detected or _chance(gross, mean, spread) > self.alpha:
            return None
        gain = float(self.scale.gain_kev(channel))
        return Unexplained(
            channel, float(self.scale.energy_kev(channel)), sigma * gain,
            float(self.scale.sigma_kev(channel)), width * gain, decision, (),
        )  # fmt: skip

    def _centre(self, channel: float) -> tuple[float, float]:
        """Return the centroid and its error of a fit with fixed width; raises ValueError without one."""
        first, last, beside = self._window(channel)
        width = float(self.width[round(channel)])
        starts: Sequence[float] = [channel, *beside]
        fit = fit_peaks(self.y, starts, width, first=first, last=last, fixed_width=True)
        if not fit.converged or abs(fit.peaks[0].centroid - channel) > width:
            raise ValueError("no peak there")
        sigma = min(fit.peaks[0].centroid_sigma, width / FWHM_PER_SIGMA)
        return fit.peaks[0].centroid, sigma


def _chance(gross: float, mean: float, variance: float) -> float:
    """Return the probability of so many counts or more, for a mean known with some variance."""
    if mean <= 0:
        return 0.0 if gross > 0 else 1.0
    if variance <= 0:
        return float(poisson.sf(gross - 1, mean))
    return float(nbinom.sf(gross - 1, mean * mean / variance, mean / (mean + variance)))
