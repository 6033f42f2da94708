"""Net counts of a line by windows or by a fit with model weights (by projection: ``projection``): one answer.

A window estimate is linear: net = sum over segments of c_s S_s, with c = 1 in the window and minus the share
of the background in its bands. So its variance is sum c_s^2 var_s, exactly, at any number of counts, and
nothing is ever weighted by the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.constants import GAUSS_FWHM_PER_SIGMA
from edge.events import ROW_BIN_CHANNELS, Segmentation
from edge.linear_fit import Shapes
from edge.lines import LineWindow
from edge.peaks import gaussian

Floats = NDArray[np.float64]

FIT_ITERATIONS = 3  # of the weights


@dataclass(frozen=True)
class Slope:
    """Relative slope of a continuum per keV, at the middle of the band it is taken from."""

    value: float = 0.0
    sigma: float = 0.0


def continuum_slope(
    spectrum: ArrayLike, energy_kev: Floats, band_kev: tuple[float, float], prior_sigma: float
) -> Slope:
    """Return the slope of a continuum inside a band, combined with a prior of zero.

    For a density 1 + s (E - Em) over a band of width w the mean of E - Em is s w^2 / 12, with an error of
    w / sqrt(12 N); so s = 12 mean / w^2 and sigma = sqrt(12 / N) / w. Combined by inverse variance.

    Args:
        spectrum: counts per channel, shape (n,).
        energy_kev: energy of each channel, shape (n,), evenly spaced.
        band_kev: lower and upper end.
        prior_sigma: one sigma of the prior, 1/keV.

    Returns:
        The slope; the prior itself where the band holds no counts.

    Raises:
        ValueError: if the shapes differ.
    """
    counts = np.asarray(spectrum, np.float64)
    if counts.shape != energy_kev.shape:
        raise ValueError(f"spectrum {counts.shape} and energies {energy_kev.shape} differ")
    inside = (energy_kev >= band_kev[0]) & (energy_kev < band_kev[1])
    total = float(counts[inside].sum())
    if total == 0.0:
        return Slope(0.0, prior_sigma)
    step = energy_kev[1] - energy_kev[0]
    width = float(inside.sum() * step)
    middle = float(energy_kev[inside].mean())
    measured = 12.0 * float(np.sum(counts[inside] * (energy_kev[inside] - middle))) / total / width**2
    sigma = math.sqrt(12.0 / total) / width
    weight, prior = sigma**-2, prior_sigma**-2 if prior_sigma > 0 else math.inf
    if math.isinf(prior):
        return Slope(0.0, 0.0)
    return Slope(measured * weight / (weight + prior), (weight + prior) ** -0.5)


def coefficients(
    segmentation: Segmentation, window: LineWindow, channels_in: ArrayLike, slope: float = 0.0
) -> Floats:
    """Return c with net = sum c_s S_s for one line.

    Two-sided: the background density is interpolated linearly between the band centres to the window centre.
    One-sided: it is extrapolated, density(E) = density(band) [1 + slope (E - E_band)]. Widths are those of
    the channels that were really counted.

    Args:
        segmentation: of the detector.
        window: one of its windows.
        channels_in: channels per segment (mean over the passes), shape (segments,).
        slope: relative slope of the continuum per keV, used by one-sided windows only.

    Returns:
        Shape (segments,).

    Raises:
        ValueError: if a band has no channel.
    """
    width = np.asarray(channels_in, np.float64)
    result = np.zeros(segmentation.size)
    signal = segmentation.members(window.low_kev, window.high_kev)
    result[signal] = 1.0
    middle = 0.5 * (window.low_kev + window.high_kev)
    bands = [(0.5 * (a + b), segmentation.members(a, b)) for a, b in window.bands_kev]
    sizes = np.array([width[members].sum() for _, members in bands])
    if np.any(sizes <= 0.0):
        raise ValueError(f"{window.element}: a background band holds no channel")
    share = width[signal].sum() / sizes
    centres = np.array([centre for centre, _ in bands])
    if window.one_sided:
        share = share * (1.0 + slope * (middle - centres)) * sizes / sizes.sum()
    else:
        share = share * _interpolation(centres, sizes, middle)
    for (_, members), fraction in zip(bands, share, strict=True):
        result[members] -= fraction
    return result


def _interpolation(centres: Floats, sizes: Floats, middle: float) -> Floats:
    """Return weights, summing to one, that turn band densities into the density at the window centre.

    Bands of one side are joined by their widths; then linear between the two sides.
    """
    high = centres > middle
    place = [float(np.average(centres[side], weights=sizes[side])) for side in (~high, high)]
    lower = (place[1] - middle) / (place[1] - place[0])
    weights = np.where(high, 1.0 - lower, lower)
    for side in (~high, high):
        weights[side] *= sizes[side] / sizes[side].sum()
    return weights


def window_net(sums: ArrayLike, variances: ArrayLike, c: Floats) -> tuple[Floats, Floats]:
    """Return net counts and their variance.

    Args:
        sums: counts per segment, shape (..., segments).
        variances: of those, same shape.
        c: from ``coefficients``, shape (segments,).

    Returns:
        (net, variance), shape (...).
    """
    net: Floats = np.asarray(sums, np.float64) @ c
    variance: Floats = np.asarray(variances, np.float64) @ c**2
    return net, variance


def fit_net(
    spectra: ArrayLike,
    variances: ArrayLike,
    segmentation: Segmentation,
    window: LineWindow,
    bin_channels: ArrayLike,
    slope: float = 0.0,
) -> tuple[Floats, Floats]:
    """Return the counts of a line and their variance from linear fits with model weights.

    Shapes: a Gaussian of the window's centroid and width, and a continuum: for a one-sided window
    1 + slope (E - E_band), else a straight line. The fit runs from the window (or the lower band) to the
    upper band. Counts are scaled to those inside the window, so that both methods mean the same.

    Args:
        spectra: counts in the energy bins of the row spectra, shape (..., bins); fractional rows are allowed.
        variances: of those, same shape.
        segmentation: of the detector.
        window: the line.
        bin_channels: channels per bin (mean over the passes), shape (bins,).
        slope: as in ``coefficients``.

    Returns:
        (net, variance), each of shape (...).

    Raises:
        ValueError: if the range has fewer than eight bins.
    """
    detector = segmentation.detector
    per_bin = np.asarray(bin_channels, np.float64)
    step = segmentation.row_bin_kev
    energy = detector.offset_kev + (np.arange(per_bin.size) + 0.5) * step - 0.5 * detector.gain_kev
    low = min(window.low_kev, *(a for a, _ in window.bands_kev))
    high = max(window.high_kev, *(b for _, b in window.bands_kev))
    use = (energy >= low) & (energy <= high) & (per_bin > 0)
    use[-1] = False  # what lies above the scale
    if use.sum() < 8:
        raise ValueError(f"{window.element}: {int(use.sum())} energy bins are too few to fit")
    width = per_bin[use] / ROW_BIN_CHANNELS
    line = gaussian(energy[use], window.centroid_kev, window.fwhm_kev) * step * width
    shapes = [line]
    if window.one_sided:
        centre = 0.5 * (window.bands_kev[0][0] + window.bands_kev[-1][1])
        shapes.append(width * (1.0 + slope * (energy[use] - centre)))
    else:
        shapes += [width, width * (energy[use] - window.centroid_kev)]
    counts = np.asarray(spectra, np.float64)[..., use]
    fit = Shapes(np.stack(shapes)).weighted(counts.reshape(-1, counts.shape[-1]), FIT_ITERATIONS)
    inside = window_share(window)
    dispersion = np.asarray(variances, np.float64)[..., use].sum(axis=-1)
    dispersion = dispersion / np.maximum(counts.sum(axis=-1), 1.0)
    net = fit.amplitudes[:, 0].reshape(counts.shape[:-1]) * inside
    variance = fit.sigma[:, 0].reshape(counts.shape[:-1]) ** 2 * inside**2 * dispersion
    return net, variance


def window_share(window: LineWindow, shift_kev: float = 0.0) -> float:
    """Return the share of a Gaussian line that falls into its window when the line is displaced."""
    sigma = window.fwhm_kev / GAUSS_FWHM_PER_SIGMA * math.sqrt(2.0)
    place = window.centroid_kev + shift_kev
    return 0.5 * (math.erf((window.high_kev - place) / sigma) - math.erf((window.low_kev - place) / sigma))


def placement_error(window: LineWindow, sigma_kev: float) -> float:
    """Return the relative error of a net count from an error of the energy scale at the line.

    A window centred on its line loses in second order only: the larger change at +-1 sigma is taken.
    """
    centred = window_share(window)
    return max(abs(window_share(window, s * sigma_kev) / centred - 1.0) for s in (-1.0, 1.0))
