"""Spectra as arrays: sums over energy windows, and accumulators that merge exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.calibration import EnergyScale

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def channels_within(
    scale: EnergyScale, n_channels: int, centre_kev: float, half_kev: float
) -> NDArray[np.bool_]:
    """Return which channels have their energy within +-half of a line: the classical region of interest.

    Whole channels, so that counts stay integers; shape (n_channels,).
    """
    energy = scale.energy_kev(np.arange(n_channels))
    return np.asarray(np.abs(energy - centre_kev) <= half_kev, np.bool_)


def window_sum(counts: ArrayLike, scale: EnergyScale, low_kev: float, high_kev: float) -> tuple[float, float]:
    """Return the counts between two energies and their Poisson error, edge channels taken in part.

    S = sum f_i y_i, sigma = sqrt(sum f_i^2 y_i), f_i the part of channel i (i - 1/2 to i + 1/2) inside.

    Args:
        counts: spectrum, shape (n,), counts.
        scale: energy of a channel.
        low_kev: lower limit.
        high_kev: upper limit.

    Raises: ValueError if the limits are not in order or lie outside the spectrum.
    """
    y = np.asarray(counts, np.float64)
    if not low_kev < high_kev:
        raise ValueError(f"window {low_kev} to {high_kev} keV is empty")
    low, high = scale.channel(low_kev, y.size), scale.channel(high_kev, y.size)
    place = np.arange(y.size)
    part = np.clip(np.minimum(place + 0.5, high) - np.maximum(place - 0.5, low), 0.0, 1.0)
    return float(part @ y), math.sqrt(float(part**2 @ y))


@dataclass
class MapSums:
    """Integer sums over a map: a spectrum per detector, and counts per pixel, detector and window.

    ``add`` takes counts in any order and pieces; ``merge`` adds another one of the same shape. Both are
    exact, so files reduced apart and together give the same numbers. Counts outside the channels are kept
    apart.
    """

    n_pixels: int
    n_detectors: int
    windows: NDArray[np.bool_]  # (n_windows, n_detectors, n_channels)

    def __post_init__(self) -> None:
        if self.windows.ndim != 3 or self.windows.shape[1] != self.n_detectors:
            raise ValueError(f"windows {self.windows.shape} are not (windows, {self.n_detectors}, channels)")
        n_windows, _, n_channels = self.windows.shape
        self.spectra: Counts = np.zeros((self.n_detectors, n_channels), np.int64)
        self.maps: Counts = np.zeros((n_windows, self.n_detectors, self.n_pixels), np.int64)
        self.totals: Counts = np.zeros((self.n_detectors, self.n_pixels), np.int64)
        self.outside = 0

    def add(self, pixel: Counts, detector: Counts, channel: Counts, counts: Counts) -> None:
        """Add counts: entry j adds counts[j] to (pixel[j], detector[j], channel[j]). Raises ValueError."""
        if pixel.size and (pixel.min() < 0 or pixel.max() >= self.n_pixels):
            raise ValueError(f"pixel outside 0 to {self.n_pixels - 1}")
        if detector.size and (detector.min() < 0 or detector.max() >= self.n_detectors):
            raise ValueError(f"detector outside 0 to {self.n_detectors - 1}")
        inside = (channel >= 0) & (channel < self.spectra.shape[1])
        self.outside += int(counts[~inside].sum())
        p, d, c, n = pixel[inside], detector[inside], channel[inside], counts[inside]
        np.add.at(self.spectra, (d, c), n)
        np.add.at(self.totals, (d, p), n)
        for k, window in enumerate(self.windows):
            hit = window[d, c]
            np.add.at(self.maps[k], (d[hit], p[hit]), n[hit])

    def merge(self, other: MapSums) -> None:
        """Add the sums of another one. Raises ValueError if it has other windows or another shape."""
        if self.totals.shape != other.totals.shape or not np.array_equal(self.windows, other.windows):
            raise ValueError("only sums of the same shape and windows can be merged")
        self.spectra += other.spectra
        self.maps += other.maps
        self.totals += other.totals
        self.outside += other.outside


GAIN_BITS = 26  # of the largest gain: a step of 1.5e-8 of it
EXACT_COUNTS = 1 << 27  # of this many, floats add up gains without rounding


@dataclass
class Projection:
    """Amplitudes per pixel by projecting each count through a gain matrix, with their variances.

    a[k, d, p] = sum_j gain[d, k, channel_j] counts_j, variance = sum_j gain^2 counts_j (Poisson): the linear
    fit of every pixel with the weights of the sum spectrum, done count by count. Unbiased for any pixel; the
    error is that of these weights. (Dynamic analysis: C. G. Ryan, Int. J. Imaging Syst. Technol. 11 (2000)
    219.) Gains and their squares are whole numbers of steps, 2^-26 of the largest rounded up to a power of 2,
    and the sums are integers: exact in any order and parts.
    """

    n_pixels: int
    gain: Floats  # (n_detectors, n_groups, n_channels)

    def __post_init__(self) -> None:
        n_detectors, n_groups, _ = self.gain.shape
        shape = (n_groups, n_detectors, self.n_pixels)
        self.sums: tuple[Counts, Counts] = (np.zeros(shape, np.int64), np.zeros(shape, np.int64))
        largest = float(np.abs(self.gain).max(initial=0.0))
        power = math.frexp(largest)[1]  # largest < 2^power
        self._steps = (2.0 ** (power - GAIN_BITS), 2.0 ** (2 * power - GAIN_BITS))
        self._tables = (np.rint(self.gain / self._steps[0]), np.rint(self.gain**2 / self._steps[1]))

    @property
    def amplitude(self) -> Floats:
        """Counts of each group, shape (n_groups, n_detectors, n_pixels)."""
        return np.asarray(self.sums[0] * self._steps[0], np.float64)

    @property
    def variance(self) -> Floats:
        """Their variances, the same shape."""
        return np.asarray(self.sums[1] * self._steps[1], np.float64)

    def add(self, pixel: Counts, detector: Counts, channel: Counts, counts: Counts) -> None:
        """Add counts as in ``MapSums.add``; channels outside the gain matrix are left out."""
        n_detectors, n_groups, n_channels = self.gain.shape
        inside = (channel >= 0) & (channel < n_channels)
        p, d, c, n = pixel[inside], detector[inside], channel[inside], counts[inside]
        place = d * self.n_pixels + p
        size = n_detectors * self.n_pixels
        few = int(n.sum()) < EXACT_COUNTS
        for k in range(n_groups):
            for table, total in zip(self._tables, self.sums, strict=True):
                weight = table[d, k, c]
                target = total[k].reshape(-1)
                if few:
                    target += np.bincount(place, weight * n, size).astype(np.int64)
                else:
                    np.add.at(target, place, weight.astype(np.int64) * n)

    def merge(self, other: Projection) -> None:
        """Add another one with the same gain. Raises ValueError if it differs."""
        if not np.array_equal(self.gain, other.gain) or self.n_pixels != other.n_pixels:
            raise ValueError("only projections through the same gain can be merged")
        for mine, theirs in zip(self.sums, other.sums, strict=True):
            mine += theirs


class SpectrumSums:
    """Spectra of one detector added up: counts as integers, times exactly, so parts merge in any order.

    ``live_s`` and ``real_s`` are None when one of the spectra has none.
    """

    def __init__(self, n_channels: int) -> None:
        """Start empty. Raises ValueError without channels."""
        if n_channels < 1:
            raise ValueError("a spectrum without channels")
        self.counts: Counts = np.zeros(n_channels, np.int64)
        self.number = 0
        self._times: list[Fraction | None] = [Fraction(0), Fraction(0)]

    def add(self, counts: Counts, live_s: float | None = None, real_s: float | None = None) -> None:
        """Add a spectrum. Raises ValueError for another number of channels; then nothing was added."""
        if counts.shape != self.counts.shape:
            raise ValueError(f"{counts.size} channels do not fit {self.counts.size}")
        self.counts += counts
        self.number += 1
        times = (None if t is None else Fraction(t) for t in (live_s, real_s))
        self._times = [_plus(a, b) for a, b in zip(self._times, times, strict=True)]

    def merge(self, other: SpectrumSums) -> None:
        """Add another part. Raises ValueError for another number of channels."""
        if other.counts.shape != self.counts.shape:
            raise ValueError(f"{other.counts.size} channels do not fit {self.counts.size}")
        self.counts += other.counts
        self.number += other.number
        self._times = [_plus(a, b) for a, b in zip(self._times, other._times, strict=True)]

    def result(self) -> tuple[Counts, float | None, float | None]:
        """Return counts, live and real time in seconds. Raises ValueError when nothing was added."""
        if not self.number:
            raise ValueError("no spectrum was added")
        live, real = (None if t is None else float(t) for t in self._times)
        return self.counts, live, real


def _plus(a: Fraction | None, b: Fraction | None) -> Fraction | None:
    return None if a is None or b is None else a + b
