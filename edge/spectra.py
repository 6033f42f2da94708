"""Spectra as arrays: sums over energy windows, and accumulators that merge exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

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


@dataclass
class Projection:
    """Amplitudes per pixel by projecting each count through a gain matrix, with their variances.

    a[k, d, p] = sum_j gain[d, k, channel_j] counts_j, variance = sum_j gain^2 counts_j (Poisson): the linear
    fit of every pixel with the weights of the sum spectrum, done count by count. Unbiased for any pixel; the
    error is that of these weights. (Dynamic analysis: C. G. Ryan, Int. J. Imaging Syst. Technol. 11 (2000)
    219.)
    """

    n_pixels: int
    gain: Floats  # (n_detectors, n_groups, n_channels)

    def __post_init__(self) -> None:
        n_detectors, n_groups, _ = self.gain.shape
        self.amplitude: Floats = np.zeros((n_groups, n_detectors, self.n_pixels))
        self.variance: Floats = np.zeros_like(self.amplitude)

    def add(self, pixel: Counts, detector: Counts, channel: Counts, counts: Counts) -> None:
        """Add counts as in ``MapSums.add``; channels outside the gain matrix are left out."""
        n_detectors, n_groups, n_channels = self.gain.shape
        inside = (channel >= 0) & (channel < n_channels)
        p, d, c, n = pixel[inside], detector[inside], channel[inside], counts[inside]
        place = d * self.n_pixels + p
        shape = (n_detectors, self.n_pixels)
        for k in range(n_groups):
            factor = self.gain[d, k, c]
            for target, weight in ((self.amplitude, factor * n), (self.variance, factor**2 * n)):
                target[k] += np.bincount(place, weight, n_detectors * self.n_pixels).reshape(shape)

    def merge(self, other: Projection) -> None:
        """Add another one with the same gain. Raises ValueError if it differs."""
        if not np.array_equal(self.gain, other.gain) or self.n_pixels != other.n_pixels:
            raise ValueError("only projections through the same gain can be merged")
        self.amplitude += other.amplitude
        self.variance += other.variance
