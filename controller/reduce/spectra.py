"""Spectra of a scan as product fields: with windows, counts and curves of their lines."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.reduce.pictures import Fields, regions
from edge.analysis import Analysis
from edge.line_curve import line_curve
from edge.scan_data import ScanData
from edge.settings import AnalysisLine


def spectra(analysis: Analysis, scan: ScanData) -> dict[str, Fields]:
    """Return the spectrum of every detector with the beam on and off, raw channels on the present scale.

    With the windows of its lines, the counts of each by its own method, and curves of line and continuum.
    """
    found = {}
    for name, part in scan.spectra.items():
        detector = analysis.settings.detectors[name]
        gain = analysis.gains[name].value
        channel = np.arange(detector.channels)
        energy_kev = np.asarray((detector.offset_kev + detector.gain_kev * channel) * gain, np.float64)
        lines = [line for line in analysis.settings.lines if line.detector == name]
        fit, continuum = _curves(analysis, lines, part.on, energy_kev)
        found[name] = {
            "detector": name,
            "unit": "counts",
            "energy_kev": energy_kev,
            "values": part.on.astype(np.uint32),
            "beam_off": part.off.astype(np.uint32),
            "fit": fit.astype(np.float32),
            "continuum": continuum.astype(np.float32),
            "windows": [_window(analysis, scan, line) for line in lines],
        }
    return found


def _curves(
    analysis: Analysis, lines: list[AnalysisLine], spectrum: NDArray[Any], energy_kev: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the curves of all lines of a detector in one; where two meet, the higher line counts."""
    fit, continuum = np.full(energy_kev.size, np.nan), np.full(energy_kev.size, np.nan)
    for line in lines:
        drawn, below = line_curve(spectrum, energy_kev, line.window, analysis.slope.value)
        better = np.isfinite(drawn) & ~(fit >= drawn)
        fit[better], continuum[better] = drawn[better], below[better]
    return fit, continuum


def _window(analysis: Analysis, scan: ScanData, line: AnalysisLine) -> Fields:
    """Return where a line is counted, and its counts in the whole scan (null where there is no raster)."""
    window, grid = line.window, scan.start.grid
    entry: Fields = {
        "element": line.element,
        "label": f"{line.element} {window.line}".strip(),
        "method": line.method,
        "low_kev": window.low_kev,
        "high_kev": window.high_kev,
        "sidebands": [list(band) for band in window.bands_kev],
        "net": None,
        "sigma": None,
    }
    if grid is not None and scan.blocks:
        net, variance = regions(analysis, scan, line, np.zeros((grid.ny, grid.nx), np.int32))
        if net.size and np.isfinite(net[0]) and variance[0] >= 0.0:
            entry |= {"net": float(net[0]), "sigma": math.sqrt(float(variance[0]))}
    return entry
