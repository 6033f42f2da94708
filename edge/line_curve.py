"""A line and its continuum as curves over a spectrum, for people to look at. Counts come from elsewhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.line_counts import FIT_ITERATIONS
from edge.linear_fit import Shapes
from edge.lines import LineWindow
from edge.peaks import gaussian

Floats = NDArray[np.float64]

FEWEST = 8  # channels of a fit


def line_curve(
    spectrum: ArrayLike, energy_kev: Floats, window: LineWindow, slope: float = 0.0
) -> tuple[Floats, Floats]:
    """Return line plus continuum, and the continuum alone, fitted to a spectrum around one line.

    The shapes are those of ``line_counts.fit_net``: a Gaussian of the window's centroid and width, and for a
    one-sided window a continuum 1 + slope (E - E_band), else a straight line; weights from the model.

    Args:
        spectrum: counts per channel, shape (n,).
        energy_kev: energy of each channel, shape (n,), evenly spaced.
        window: of the line.
        slope: relative slope of the continuum per keV, used by one-sided windows only.

    Returns:
        (fit, continuum), each in counts per channel, shape (n,); NaN outside window and bands, and everywhere
        where the range has fewer than eight channels or no count.

    Raises:
        ValueError: if the shapes differ.
    """
    counts = np.asarray(spectrum, np.float64)
    if counts.shape != energy_kev.shape or counts.ndim != 1:
        raise ValueError(f"spectrum {counts.shape} and energies {energy_kev.shape} differ")
    fit, continuum = np.full(counts.size, np.nan), np.full(counts.size, np.nan)
    low = min(window.low_kev, *(a for a, _ in window.bands_kev))
    high = max(window.high_kev, *(b for _, b in window.bands_kev))
    use = (energy_kev >= low) & (energy_kev <= high)
    if use.sum() < FEWEST or not counts[use].any():
        return fit, continuum
    energy = energy_kev[use]
    line = gaussian(energy, window.centroid_kev, window.fwhm_kev) * (energy_kev[1] - energy_kev[0])
    if window.one_sided:
        centre = 0.5 * (window.bands_kev[0][0] + window.bands_kev[-1][1])
        below = [1.0 + slope * (energy - centre)]
    else:
        below = [np.ones(energy.size), energy - window.centroid_kev]
    found = Shapes(np.stack([line, *below])).weighted(counts[use][None, :], FIT_ITERATIONS)
    continuum[use] = found.amplitudes[0, 1:] @ np.stack(below)
    fit[use] = continuum[use] + found.amplitudes[0, 0] * line
    return fit, continuum
