"""What a set of lines does not explain: forgotten lines in the sum spectrum, and their image ("Back").

The sum spectrum is fitted with all known lines, the shape of sum peaks, and a continuum of cubic splines
whose knots are eight line widths apart. A Gaussian of the detector's width is then tried at every energy.
Where it is significant, a line has been forgotten. The residual image is the counts of every pixel in those
places, less what the fit of known lines and continuum explains of them: linear in the counts, so its variance
is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.constants import GAUSS_FWHM_PER_SIGMA
from edge.lines import XRAY_KEV

Floats = NDArray[np.float64]

SIGNIFICANT = 5.0  # standard deviations, from which a forgotten line is claimed: hundreds of places are tried
MOST_FEATURES = 8
TAIL, TAIL_FWHM = 0.05, 4.0  # of a line that is not quite a Gaussian, so far from its centre
KNOT_FWHM = 8.0  # the knots of the continuum are so many line widths apart
FLOOR = 0.05  # counts per bin of a model that serves as a weight


@dataclass(frozen=True)
class Known:
    """A line that is in the design."""

    name: str
    energy_kev: float
    fwhm_kev: float


@dataclass(frozen=True)
class Feature:
    """A line that is not in the design."""

    energy_kev: float
    fwhm_kev: float
    counts: float
    sigma: float
    names: tuple[str, ...]  # lines that it might be

    @property
    def significance(self) -> float:
        """Counts over their error."""
        return self.counts / self.sigma


class Design:
    """Known lines, sum peaks and continuum on an axis of energy bins.

    Args:
        energy_kev: centres of evenly spaced bins, shape (n,).
        lines: everything that is known to be there.
        pairs: shape of the sum peaks, shape (n,), or None.
        widths: FWHM in keV by energy: two arrays that are interpolated.
    """

    def __init__(
        self,
        energy_kev: Floats,
        lines: Sequence[Known],
        pairs: ArrayLike | None,
        widths: tuple[Floats, Floats],
    ) -> None:
        self.energy = energy_kev
        self.step = float(energy_kev[1] - energy_kev[0])
        self.fwhm = np.interp(energy_kev, *widths)
        self.lines = [line for line in lines if energy_kev[0] < line.energy_kev < energy_kev[-1]]
        self._given = (pairs, widths)
        shapes = [self.line(line.energy_kev, line.fwhm_kev) for line in self.lines]
        self.has_pairs = pairs is not None and float(np.sum(pairs)) > 0.0
        if self.has_pairs:
            shapes.append(np.asarray(pairs, np.float64))
        self.templates = np.stack([*shapes, *self._splines()])

    def also(self, features: Sequence[Feature]) -> Design:
        """Return the design with these lines behind its own."""
        more = [Known(f"{f.energy_kev:.3f} keV", f.energy_kev, f.fwhm_kev) for f in features]
        return Design(self.energy, [*self.lines, *more], *self._given)

    def line(self, centre_kev: float, fwhm_kev: float) -> Floats:
        """Return a Gaussian of unit area per bin."""
        sigma = fwhm_kev / GAUSS_FWHM_PER_SIGMA
        z = (self.energy - centre_kev) / sigma
        return np.asarray(np.exp(-0.5 * z * z) * self.step / (sigma * math.sqrt(2.0 * math.pi)), np.float64)

    def fit(self, spectrum: ArrayLike) -> SumFit:
        """Fit a sum spectrum with weights from the model or, where that is more, the smoothed counts.

        Raises:
            ValueError: if the spectrum has another length.
        """
        counts = np.asarray(spectrum, np.float64)
        if counts.shape != self.energy.shape:
            raise ValueError(f"spectrum {counts.shape} on {self.energy.shape} bins")
        smooth = self._smooth(counts)
        model = smooth
        for _ in range(4):
            weight = 1.0 / np.maximum(model, smooth)
            gain = _gain(self.templates, weight)
            amplitudes = gain @ counts
            model = amplitudes @ self.templates
        return SumFit(self, counts, model, amplitudes, gain, 1.0 / np.maximum(model, smooth))

    def _smooth(self, counts: Floats) -> Floats:
        """Return the mean of the counts within one line width, at least ``FLOOR``.

        The model alone will not do as a weight: next to a strong line that it forgets it is far too low.
        """
        half = np.maximum(np.rint(self.fwhm / self.step).astype(np.int64), 1)
        sums = np.concatenate([[0.0], np.cumsum(counts)])
        place = np.arange(counts.size)
        low, high = np.maximum(place - half, 0), np.minimum(place + half + 1, counts.size)
        mean: Floats = np.maximum((sums[high] - sums[low]) / (high - low), FLOOR)
        return mean

    def _splines(self) -> Floats:
        """Return cubic B-splines whose knots are ``KNOT_FWHM`` line widths apart, shape (splines, bins)."""
        from scipy.interpolate import BSpline  # loads slowly; a live run needs it at its end only

        first, last = float(self.energy[0]), float(self.energy[-1])
        knots = [first]
        while knots[-1] < last:
            knots.append(knots[-1] + KNOT_FWHM * float(np.interp(knots[-1], self.energy, self.fwhm)))
        inner = first + (np.array(knots[:-1]) - first) * (last - first) / (knots[-1] - first)
        places = np.concatenate([[first] * 3, inner, [last] * 4])
        basis = BSpline.design_matrix(self.energy, places, 3).toarray()
        return np.asarray(basis.T[basis.any(axis=0)], np.float64)


@dataclass(frozen=True)
class SumFit:
    """A fitted sum spectrum."""

    design: Design
    counts: Floats
    model: Floats
    amplitudes: Floats
    gain: Floats  # (templates, bins)
    weight: Floats

    @property
    def pairs(self) -> tuple[float, float]:
        """Fitted number of pairs and its error; NaN without a shape for them."""
        if not self.design.has_pairs:
            return math.nan, math.nan
        row = self.gain[len(self.design.lines)]
        return float(self.amplitudes[len(self.design.lines)]), float(np.sqrt(row**2 @ self.model.clip(FLOOR)))

    def features(self, candidates: Mapping[tuple[str, str], float] = XRAY_KEV) -> list[Feature]:
        """Return the lines that the design forgets, strongest first; found one by one, each then explained.

        For a line g at some energy, what the design cannot imitate of it is q = g - T^T G g; its counts are
        q W y / q W g, with variance sum (q W)^2 max(y, m) / (q W g)^2, m being the model without the line.

        Args:
            candidates: energies of lines by (element, line), to name a feature after.
        """
        found: list[Feature] = []
        fit = self
        for _ in range(MOST_FEATURES):
            best = fit._strongest(found, candidates)
            if best is None:
                break
            found.append(best)
            fit = self.design.also(found).fit(self.counts)
        return found

    def _strongest(
        self, found: Sequence[Feature], candidates: Mapping[tuple[str, str], float]
    ) -> Feature | None:
        energy, fwhm = self.design.energy, self.design.fwhm
        inside = (energy > energy[0] + fwhm) & (energy < energy[-1] - fwhm)
        known = [(f.energy_kev, f.fwhm_kev, f.counts) for f in found]
        amplitudes = self.amplitudes[: len(self.design.lines)]
        known += [
            (k.energy_kev, k.fwhm_kev, float(a)) for k, a in zip(self.design.lines, amplitudes, strict=True)
        ]
        least = np.zeros(energy.size)
        for at, width, strength in known:  # closer than a width two lines are not told apart
            inside &= np.abs(energy - at) > width
            near = np.abs(energy - at) < TAIL_FWHM * width  # what is weak there may be its tail
            least = np.maximum(least, np.where(near, TAIL * strength, 0.0))
        places = np.flatnonzero(inside)
        if places.size < 3:
            return None
        sigma_kev = fwhm[places, None] / GAUSS_FWHM_PER_SIGMA
        z = (energy - energy[places, None]) / sigma_kev
        shapes = np.exp(-0.5 * z * z) * self.design.step / (sigma_kev * math.sqrt(2.0 * math.pi))
        left = (shapes - (shapes @ self.gain.T) @ self.design.templates) * self.weight
        norm = np.sum(left * shapes, axis=1)
        free = norm > 0.2 * np.sum(shapes**2 * self.weight, axis=1)  # else the known explains nearly all
        norm = np.where(free, norm, np.inf)
        counts = (left @ self.counts) / norm
        sigma = np.sqrt(left**2 @ np.maximum(self.counts, self.model).clip(FLOOR)) / np.where(free, norm, 1.0)
        score = np.where(free & (counts > least[places]), counts / sigma, 0.0)
        top = int(np.argmax(score))
        if score[top] < SIGNIFICANT:
            return None
        at, width = float(energy[places[top]]), float(fwhm[places[top]])
        if 0 < top < places.size - 1:  # the top of a parabola through three places
            low, high = score[top - 1], score[top + 1]
            at += 0.5 * self.design.step * float((low - high) / (low - 2.0 * score[top] + high))
        names = sorted(
            (abs(kev - at), f"{element} {line}")
            for (element, line), kev in candidates.items()
            if abs(kev - at) < 0.5 * width
        )
        return Feature(at, width, float(counts[top]), float(sigma[top]), tuple(name for _, name in names[:3]))

    def back(self, features: Sequence[Feature]) -> Floats:
        """Return h with residual image = sum_c h_c y_c, variance = sum_c h_c^2 y_c, shape (bins,).

        With features: their counts, from a fit of design and features together. Without: the counts in the
        places that lie more than a line width from every known line, less the explained ones.
        """
        if features:
            fit = self.design.also(features).fit(self.counts)
            first = len(self.design.lines)
            return np.asarray(fit.gain[first : first + len(features)].sum(axis=0), np.float64)
        away = np.ones(self.design.energy.size)
        for line in self.design.lines:
            away[np.abs(self.design.energy - line.energy_kev) < line.fwhm_kev] = 0.0
        return np.asarray(away - (self.design.templates @ away) @ self.gain, np.float64)


def residual_image(spectra: Iterable[ArrayLike], back: Floats) -> tuple[Floats, Floats]:
    """Return the residual image and its one-sigma error image.

    Args:
        spectra: counts per pixel and bin in pieces, each of shape (pixels, bins).
        back: from ``SumFit.back``, shape (bins,).

    Returns:
        (counts, sigma), each of shape (all pixels,); a pixel without counts has the error of one event at the
        largest |h|.
    """
    values, variances = [], []
    for piece in spectra:
        counts = np.asarray(piece, np.float64)
        values.append(counts @ back)
        variances.append(counts @ back**2)
    least = float(np.max(np.abs(back))) ** 2
    return np.concatenate(values), np.sqrt(np.maximum(np.concatenate(variances), least))


def _gain(templates: Floats, weight: Floats) -> Floats:
    """Return (T W T^T)^+ T W; templates that others make up for share their amplitude."""
    norm = np.sqrt(np.sum(templates**2, axis=1))
    unit = templates / np.where(norm > 0.0, norm, 1.0)[:, None]
    weighted = unit * weight
    solved = np.linalg.pinv(weighted @ unit.T, rcond=1e-10, hermitian=True) @ weighted
    return np.asarray(solved / np.where(norm > 0.0, norm, 1.0)[:, None], np.float64)
