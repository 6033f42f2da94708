"""A line and its continuum fitted to the spectrum of a whole scan, for the eye: results count elsewhere."""

from __future__ import annotations

import numpy as np

from controller.offline.view import Floats, SpectrumView, Window
from edge.peaks import fit_templates, gaussian

REACH_FWHM = 1.2  # the fit begins so far below the line: steps of the continua lie lower


def fitted(
    view: SpectrumView, window: Window, centroid_kev: float, fwhm_kev: float, slope_per_kev: float
) -> tuple[Floats, Floats, Floats] | None:
    """Return energies, line with continuum, and continuum alone, in counts per channel.

    The line is a Gaussian of given place and width; the continuum 1 + slope (E - middle of the bands). Both
    amplitudes are free; weights come from the model. None when the fit cannot be done.

    Args:
        view: the spectrum.
        window: of the line, with its background bands.
        centroid_kev: place of the line.
        fwhm_kev: its full width at half maximum.
        slope_per_kev: of the continuum, relative.
    """
    low, high = centroid_kev - REACH_FWHM * fwhm_kev, max(end for _, end in window.bands_kev)
    inside = (view.energy_kev >= low) & (view.energy_kev <= high)
    energy, counts = view.energy_kev[inside], view.counts[inside]
    if energy.size < 8 or counts.sum() <= 0:
        return None
    middle = 0.5 * (window.bands_kev[0][0] + window.bands_kev[-1][1])
    continuum = 1.0 + slope_per_kev * (energy - middle)
    try:
        fit = fit_templates(counts, np.stack([gaussian(energy, centroid_kev, fwhm_kev), continuum]))
    except (ValueError, np.linalg.LinAlgError):
        return None
    base: Floats = fit.amplitudes[1] * continuum
    return energy, fit.model, base
