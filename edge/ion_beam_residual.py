"""What the X-ray lines of a run do not explain: per scan in its sum spectrum, and as an image of its cube."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.cube import Cube, bin_table, rebin_factor
from edge.deadtime import true_rate_hz
from edge.events import ROW_BIN_CHANNELS, Segmentation
from edge.geometry import Floats
from edge.linear_fit import Shapes
from edge.lines import XRAY_KEV, elements_of, silicon_fwhm_kev
from edge.measure import observed_rates_hz
from edge.pileup import expected_pairs, sum_spectrum
from edge.projection_residual import Design, Feature, Known, SumFit, residual_image
from edge.scan_data import ScanData
from edge.settings import Detector, Settings

LOW_KEV = 1.2  # below, windows and dead layers absorb nearly everything
LEAST_COUNTS = 500  # of a sum spectrum, else nothing is tried


@dataclass(frozen=True)
class Residual:
    """The residual image of one scan and detector."""

    features: tuple[Feature, ...]
    counts: Floats  # per pixel, shape (pixels,)
    sigma: Floats
    pairs: tuple[float, float]  # fitted sum events and their error
    pairs_expected: float
    bins: int  # of the cube that it was made from
    fitted: Mapping[
        str, tuple[Floats, Floats]
    ]  # line -> counts and sigma per pixel, all lines fitted together


def known_lines(settings: Settings, detector: Detector) -> list[Known]:
    """Return the lines of all elements that the analysis counts or the layers are said to hold."""
    elements = {line.element for line in settings.lines}
    for layer in settings.layers:
        elements |= {e for material in layer.mass_fractions for e in elements_of(material)}
        elements |= {layer.normaliser} if layer.normaliser else set()
    return [
        Known(f"{element} {line}", kev, silicon_fwhm_kev(kev, detector.resolution_kev))
        for (element, line), kev in XRAY_KEV.items()
        if element in elements
    ]


def bins_of(detector: Detector, gain: float, factor: int) -> tuple[NDArray[np.int64], Floats]:
    """Return the bin of each channel on the corrected scale, and the energies of the bins in keV.

    Bins are ``factor`` nominal channels wide and begin at ``LOW_KEV``; the last one ends where every pass
    still has channels. Channels outside get -1.
    """
    step = factor * detector.gain_kev
    bins = int((detector.energy_kev(detector.channels - 1) * 0.98 - LOW_KEV) / step)
    centres = (detector.offset_kev + detector.gain_kev * np.arange(detector.channels)) * gain
    place = np.floor((centres - LOW_KEV) / step + 1e-9).astype(np.int64)
    inside = (place >= 0) & (place < bins)
    energy = LOW_KEV + (np.arange(bins) + 0.5) * step - 0.5 * detector.gain_kev
    return np.where(inside, place, -1), np.asarray(energy, np.float64)


def fit_sum(settings: Settings, detector: Detector, rows: Floats, energy_kev: Floats) -> SumFit:
    """Fit a sum spectrum with everything known, the sum peaks included.

    Args:
        settings: of the run.
        detector: an SDD.
        rows: counts per line of the raster and bin, shape (ny, n).
        energy_kev: of the bins, shape (n,).
    """
    grid = np.arange(1.0, 40.0, 0.5)
    widths = (grid, np.array([silicon_fwhm_kev(float(e), detector.resolution_kev) for e in grid]))
    pairs = sum_spectrum(rows, float(energy_kev[0]), float(energy_kev[1] - energy_kev[0]))
    return Design(energy_kev, known_lines(settings, detector), pairs, widths).fit(rows.sum(axis=0))


def unexplained(settings: Settings, detector: Detector, scan: ScanData) -> list[dict[str, Any]]:
    """Return the lines in the beam-on sum spectrum of a scan that no known line explains, as plain values."""
    if detector.kind != "sdd" or detector.name not in scan.spectra:
        return []
    rows = scan.spectra[detector.name].rows.astype(np.float64)
    step = ROW_BIN_CHANNELS * detector.gain_kev
    energy = detector.offset_kev + (np.arange(rows.shape[1]) + 0.5) * step - 0.5 * detector.gain_kev
    use = (energy > LOW_KEV) & (energy < 0.98 * energy[-2])
    if rows[:, use].sum() < LEAST_COUNTS:
        return []
    found = fit_sum(settings, detector, rows[:, use], energy[use]).features()
    return [
        {
            "energy_kev": f.energy_kev,
            "counts": f.counts,
            "sigma": f.sigma,
            "names": list(f.names),
            "text": f"a line at {f.energy_kev:.2f} keV that no known element explains"
            f"{f' ({chr(32).join(f.names)}?)' if f.names else ''}: {f.counts:.0f} +- {f.sigma:.0f} counts",
        }
        for f in found
    ]


def empty_cube(scan: ScanData, detector: Detector) -> tuple[Cube, int]:
    """Return a cube for a scan, at most 64 MB, and the channels per bin. ValueError without raster."""
    grid = scan.start.grid
    if grid is None:
        raise ValueError(f"scan {scan.start.name} has no raster")
    factor = rebin_factor(grid.nx * grid.ny, detector.channels)
    _, energy = bins_of(detector, 1.0, factor)
    return Cube(grid.nx * grid.ny, energy.size), factor


def cube_table(detector: Detector, gain: float, factor: int) -> NDArray[np.uint32]:
    """Return the lookup table of a cube for passes on an energy scale, shape (channels + 1,)."""
    place, energy = bins_of(detector, gain, factor)
    return bin_table(detector.channels, place, energy.size)


def residual(
    settings: Settings,
    segmentations: Mapping[str, Segmentation],
    scan: ScanData,
    name: str,
    cube: Cube,
    factor: int,
    tau_s: float,
) -> Residual:
    """Return the residual image of a scan from its cube.

    Args:
        settings: of the run.
        segmentations: per detector.
        scan: that the cube is of.
        name: of the detector.
        cube: counts per pixel and bin.
        factor: channels per bin.
        tau_s: dead time per pulse.
    """
    detector = segmentations[name].detector
    _, energy = bins_of(detector, 1.0, factor)
    grid = scan.start.grid
    width = grid.nx if grid is not None else cube.pixels
    pieces = [(start, start + width) for start in range(0, cube.pixels, width)]
    rows = np.stack([cube.spectra(*piece).sum(axis=0) for piece in pieces])
    fit = fit_sum(settings, detector, rows, energy)
    features = tuple(fit.features()) if rows.sum() >= LEAST_COUNTS else ()
    counts, sigma = residual_image((cube.spectra(*piece) for piece in pieces), fit.back(features))
    rate, time_s = observed_rates_hz(scan, name)
    expected = expected_pairs(true_rate_hz(rate[:-1], tau_s), time_s[:-1], detector.fast_dead_s)
    wanted = {f"{line.element} {line.window.line}" for line in settings.lines if line.detector == name}
    fitted = _fitted_maps(fit.design, features, cube, pieces, wanted)
    return Residual(features, counts, sigma, fit.pairs, expected, cube.bins, fitted)


def _fitted_maps(
    design: Design,
    features: Sequence[Feature],
    cube: Cube,
    pieces: Sequence[tuple[int, int]],
    wanted: set[str],
) -> dict[str, tuple[Floats, Floats]]:
    """Return maps of the analysed and of the forgotten lines from unweighted fits of all lines per pixel.

    Without weights every pixel has the same gains, and a pixel of three counts is not biased; none where the
    lines cannot be told apart.
    """
    whole = design.also(features)
    try:
        shapes = Shapes(whole.templates)
    except ValueError:
        return {}
    fits = [shapes.unweighted(cube.spectra(*piece)) for piece in pieces]
    amplitudes = np.concatenate([fit.amplitudes for fit in fits])
    sigma = np.concatenate([fit.sigma for fit in fits])
    known = len(design.lines)
    return {
        line.name: (amplitudes[:, k], sigma[:, k])
        for k, line in enumerate(whole.lines)
        if line.name in wanted or k >= known
    }
