"""One X-ray spectrum from counts to lines: find elements, fit all groups, and measure each line by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.calibration import EnergyScale
from edge.peaks import PeakFit, fit_peaks
from edge.spectra import channels_within
from edge.xray_lines import LineGroup, groups_of
from edge.xrf import Detector, XrfFit, fit_groups
from edge.xrf_elements import Found, identify

Floats = NDArray[np.float64]

START_DETECTOR = Detector(noise_kev=0.080, fano=0.12)  # of a usual silicon drift detector; refined by the fit
ROI_HALF_KEV = 0.085  # of the regions that are counted without background
OWN_SHARE = 0.8  # a peak is told of a group only if most of it is that group's, by the fit
MN_KA_KEV = 5.895  # where a resolution is quoted
SCATTER_MARGIN_KEV = 0.6  # the fitted range ends this far above the last line of an element


@dataclass(frozen=True)
class XrayLine:
    """One group of lines seen as one peak: Gaussian on a straight line. Errors are one sigma, statistical."""

    group: LineGroup
    fit: PeakFit
    energy_kev: float  # centroid on the recorded scale
    energy_sigma_kev: float
    fwhm_kev: float
    fwhm_sigma_kev: float
    area: float
    area_sigma: float  # Poisson
    area_sigma_sys: (
        float  # excess of chi2 over its degrees of freedom: how far from a Gaussian on a line it is
    )
    roi_counts: int  # |E - E_line| <= 0.085 keV on the recorded scale, background included


@dataclass(frozen=True)
class XrfResult:
    """All that was found in one spectrum."""

    recorded: EnergyScale
    found: Found
    fit: XrfFit
    lines: tuple[XrayLine, ...]
    fit_half_kev: float  # half width of the region in which each line was fitted by itself


def parse_elements(text: str) -> tuple[LineGroup, ...]:
    """Return the groups asked for: "Cr, Mn, Fe, W:L" (K lines unless L is named). Raises ValueError."""
    groups: list[LineGroup] = []
    for word in text.replace(";", ",").split(","):
        element, _, series = word.strip().partition(":")
        if element:
            groups += groups_of(element, series.strip() or "K")
    if not groups:
        raise ValueError("no element is named")
    return tuple(groups)


def reduce_xrf(
    counts: ArrayLike,
    recorded: EnergyScale,
    *,
    groups: Sequence[LineGroup] | None = None,
    low_kev: float = 1.3,
    high_kev: float | None = None,
) -> XrfResult:
    """Find what is in a spectrum and how much of each.

    Args:
        counts: spectrum, shape (n,), counts.
        recorded: scale of the file, good to 20 eV.
        groups: what to fit; by default what ``identify`` finds.
        low_kev: start of the fitted range.
        high_kev: its end; by default 0.6 keV above the last line of an element.

    Returns: the linear fit of all groups, and every group measured by itself on the recorded scale.
    Raises: ValueError if nothing is found or the range does not carry the fit.
    """
    y = np.asarray(counts, np.float64)
    top = recorded.range_kev(y.size)[1]
    found = identify(y, recorded, START_DETECTOR, low_kev=low_kev, high_kev=min(high_kev or top, top))
    chosen = tuple(groups) if groups else found.groups
    lines = [g for g in chosen if g.series != "line"]
    if not lines:
        raise ValueError("no element's lines were found; name them with --elements")
    end = high_kev or max(max(g.energies_kev) for g in lines) + SCATTER_MARGIN_KEV
    end = min(end, top)
    inside = [g for g in chosen if low_kev < g.mean_kev < end - 0.1]
    fit = fit_groups(y, recorded, START_DETECTOR, inside, low_kev=low_kev, high_kev=end)
    resolution = float(fit.detector.fwhm_kev(MN_KA_KEV))
    half = max(0.10, 0.05 * round(resolution / 0.05))  # in steps, so that detectors of one instrument agree
    own = {a.group: a.area for a in fit.areas}
    measured = [measure(y, recorded, g, half, resolution) for g in chosen]
    clear = [m for m in measured if m and own.get(m.group, m.area) > OWN_SHARE * m.area]
    return XrfResult(recorded, found, fit, tuple(clear), half)


def measure(
    counts: Floats, scale: EnergyScale, group: LineGroup, half_kev: float, fwhm_kev: float
) -> XrayLine | None:
    """Fit one group as a single peak in +-``half_kev`` about its energy, on the scale as recorded.

    Returns: the line, or None where no peak could be fitted. Neighbouring lines are not separated here: the
    areas that count are those of ``fit_groups``.
    """
    energy = group.mean_kev
    inside = np.flatnonzero(channels_within(scale, counts.size, energy, half_kev))
    if inside.size < 7:
        return None
    centre = scale.channel(energy, counts.size)
    gain = float(scale.gain_kev(centre))
    try:
        fit = fit_peaks(counts, centre, fwhm_kev / gain, first=int(inside[0]), last=int(inside[-1]))
    except ValueError:
        return None
    peak = fit.peaks[0]
    if (
        not fit.converged
        or abs(peak.centroid - centre) * gain > 0.5 * half_kev
        or peak.area < 3 * peak.area_sigma
    ):
        return None
    roi = channels_within(scale, counts.size, energy, ROI_HALF_KEV)
    return XrayLine(
        group=group, fit=fit, energy_kev=float(scale.energy_kev(peak.centroid)),
        energy_sigma_kev=peak.centroid_sigma * gain, fwhm_kev=peak.fwhm * gain,
        fwhm_sigma_kev=peak.fwhm_sigma * gain, area=peak.area, area_sigma=peak.area_sigma,
        area_sigma_sys=peak.area_sigma * math.sqrt(max(fit.chi2_per_ndf - 1, 0.0)),
        roi_counts=int(counts[roi].sum()),
    )  # fmt: skip


def centre_of_mass_sigma(image: ArrayLike) -> tuple[float, float]:
    """Return one sigma of ``centre_of_mass`` (y, x) in pixels from the Poisson errors of the counts.

    The derivative by the counts of a pixel is (its place - centre) / total. NaN for an empty map.
    """
    weight = np.asarray(image, np.float64)
    total = weight.sum()
    if total <= 0:
        return math.nan, math.nan
    y, x = centre_of_mass(weight)
    rows, columns = np.indices(weight.shape)
    return (
        math.sqrt(float((weight * (rows - y) ** 2).sum())) / float(total),
        math.sqrt(float((weight * (columns - x) ** 2).sum())) / float(total),
    )


def centre_of_mass(image: ArrayLike) -> tuple[float, float]:
    """Return the centre of mass (y, x) of a map in pixels; NaN for an empty one. Weights are the counts."""
    weight = np.asarray(image, np.float64)
    total = weight.sum()
    if total <= 0:
        return math.nan, math.nan
    rows, columns = np.indices(weight.shape)
    return float((rows * weight).sum() / total), float((columns * weight).sum() / total)
