"""Energy scale of a detector in time: centroids of known lines, and a gain that follows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.constants import GAUSS_FWHM_PER_SIGMA
from edge.lines import ANNIHILATION_FWHM_KEV, ANNIHILATION_KEV, LineWindow
from edge.settings import Detector

INITIAL_SIGMA = 5e-3  # relative error of the nominal scale before any line was seen
WALK_SIGMA = 2e-4  # relative change expected from one pass to the next
SIGNIFICANT = 10.0  # a line takes part when its net counts are this many sigma
REBIN_FRACTION = (
    0.1  # of the line's Gaussian sigma: a larger misplacement asks for the pass to be binned again
)


@dataclass(frozen=True)
class Marker:
    """A line whose energy is known, with the error of that knowledge."""

    name: str
    energy_kev: float
    fwhm_kev: float
    sigma_kev: float


@dataclass(frozen=True)
class Centroid:
    """A measured line position on the nominal scale, keV."""

    marker: Marker
    nominal_kev: float
    sigma_kev: float
    net_counts: float
    sigma_counts: float


@dataclass(frozen=True)
class Gain:
    """Factor on the nominal energy scale and its one-sigma error."""

    value: float = 1.0
    sigma: float = INITIAL_SIGMA
    passes: int = 0


def markers(
    detector: Detector, windows: Sequence[LineWindow], lithium_sigma_kev: float
) -> tuple[Marker, ...]:
    """Return the lines that a detector's scale can be followed by.

    Args:
        detector: the HPGe follows the annihilation and the lithium line, the SDD every X-ray window.
        windows: the analysis windows on it.
        lithium_sigma_kev: how well the place of the lithium line is known.
    """
    if detector.kind == "sdd":
        return tuple(Marker(w.element, w.centroid_kev, w.fwhm_kev, 0.001) for w in windows)
    found = [Marker("511", ANNIHILATION_KEV, ANNIHILATION_FWHM_KEV, 0.02)]
    found += [
        Marker(w.element, w.centroid_kev, w.fwhm_kev, lithium_sigma_kev) for w in windows if w.element == "Li"
    ]
    return tuple(found)


def centroid(
    spectrum: NDArray[np.int64], detector: Detector, marker: Marker, gain: float, rounds: int = 6
) -> Centroid | None:
    """Return the centroid of a line on the nominal scale, background-subtracted, or None if it is not there.

    Net-weighted mean within +-1.2 FWHM; the background is linear between two bands of half a FWHM on both
    sides, 1.5 to 2 FWHM away. The window follows the centroid. sigma^2 = sum of var_i (E_i - c)^2 / net^2,
    where var_i holds the counts and those of the subtracted background.

    Args:
        spectrum: counts per channel.
        detector: nominal scale.
        marker: the line.
        gain: best present factor, where the search begins.
        rounds: repetitions of the search.

    Returns:
        The centroid, or None when the net counts are not ``SIGNIFICANT`` or the window leaves the spectrum.
    """
    energy = detector.offset_kev + detector.gain_kev * np.arange(detector.channels)
    place = marker.energy_kev / gain
    half = 1.2 * marker.fwhm_kev
    inner, outer = 1.5 * marker.fwhm_kev, 2.0 * marker.fwhm_kev
    start, step = place, 0.0
    for _ in range(rounds):
        if place - outer < energy[0] or place + outer > energy[-1]:
            return None
        distance = energy - place
        signal = np.abs(distance) <= half
        low, high = (distance >= -outer) & (distance < -inner), (distance > inner) & (distance <= outer)
        if not (signal.any() and low.any() and high.any()):
            return None
        density = spectrum[low].mean(), spectrum[high].mean()
        share = 0.5 * (1.0 + distance[signal] / (0.5 * (inner + outer)))
        background = density[0] * (1.0 - share) + density[1] * share
        counts = spectrum[signal]
        net = float(np.sum(counts - background))
        variance = (1 - share) ** 2 * density[0] / low.sum() + share**2 * density[1] / high.sum()
        sigma_net = math.sqrt(float(np.sum(counts)) + float(np.sum(np.sqrt(variance))) ** 2)
        if sigma_net == 0.0 or net < SIGNIFICANT * sigma_net:
            return None
        step = float(np.sum((counts - background) * distance[signal])) / net
        sigma = math.sqrt(float(np.sum((counts + variance) * (distance[signal] - step) ** 2))) / net
        place += step
        if abs(place - start) > marker.fwhm_kev:
            return None
        if abs(step) < 0.01 * sigma:
            break
    return Centroid(marker, place, sigma, net, sigma_net)


def measured_gain(found: Sequence[Centroid]) -> tuple[float, float] | None:
    """Return the gain factor that the centroids ask for and its error, or None without centroids.

    Each gives E / E_nominal with sigma^2 = sigma_E^2 + sigma_centroid^2, combined by inverse variance; the
    error is enlarged by sqrt(chi2/dof) where lines disagree.
    """
    if not found:
        return None
    values = np.array([c.marker.energy_kev / c.nominal_kev for c in found])
    sigmas = np.array([math.hypot(c.sigma_kev, c.marker.sigma_kev) / c.nominal_kev for c in found])
    weights = sigmas**-2
    mean = float(np.sum(weights * values) / np.sum(weights))
    sigma = float(np.sum(weights)) ** -0.5
    if len(found) > 1:
        chi2 = float(np.sum(weights * (values - mean) ** 2)) / (len(found) - 1)
        sigma *= math.sqrt(max(chi2, 1.0))
    return mean, sigma


def follow(gain: Gain, measured: tuple[float, float] | None) -> Gain:
    """Return the gain after one more pass: a random walk updated with the measured factor.

    P = sigma^2 + walk^2; K = P / (P + sigma_m^2); g += K (m - g); P *= 1 - K.  Without a measurement only the
    error grows.

    Source: Kalman, J. Basic Eng. 82 (1960) 35, scalar case.
    """
    variance = gain.sigma**2 + (WALK_SIGMA**2 if gain.passes else 0.0)
    if measured is None:
        return Gain(gain.value, math.sqrt(variance), gain.passes + 1)
    value, sigma = measured
    share = variance / (variance + sigma**2)
    return Gain(gain.value + share * (value - gain.value), math.sqrt(variance * (1 - share)), gain.passes + 1)


def misplaced(used: float, now: Gain, windows: Sequence[LineWindow]) -> bool:
    """Return whether windows laid with gain ``used`` sit too far from the lines for the gain known now.

    Too far is ``REBIN_FRACTION`` of the Gaussian sigma of any line, and three errors of the gain.
    """
    shift = abs(now.value - used)
    if shift < 3.0 * now.sigma:
        return False
    return any(shift * w.centroid_kev > REBIN_FRACTION * w.fwhm_kev / GAUSS_FWHM_PER_SIGMA for w in windows)
