"""Which elements are in an X-ray spectrum: peaks are explained from the strongest down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.calibration import EnergyScale
from edge.peaks import find_peaks
from edge.xray_lines import GROUPS, SILICON_KA_KEV, LineGroup, groups_of, single_line
from edge.xrf import Detector

Floats = NDArray[np.float64]

THRESHOLD = 8.0
TOLERANCE_KEV = 0.035  # between a peak and a line
ELEMENTS = tuple(group.element for group in GROUPS.values() if group.series == "Ka")
STRONG = 0.02  # of the strongest peak: such lines make escape and sum peaks


@dataclass(frozen=True)
class Found:
    """The groups to fit and why each peak is there."""

    groups: tuple[LineGroup, ...]
    elements: tuple[str, ...]
    explained: tuple[tuple[float, float, str], ...]  # energy keV, significance, explanation


def identify(
    counts: ArrayLike, scale: EnergyScale, detector: Detector, *, low_kev: float, high_kev: float
) -> Found:
    """Explain the peaks of a spectrum by K lines, escape and sum peaks.

    Peaks (matched filter, 8 sigma) are taken by falling significance. Each is, in this order: a line of an
    element already found; an escape or sum peak of strong lines already found, or the K-alpha of a listed
    element, whichever is nearer; or a single line without a name (scattered source radiation).

    Args:
        counts: spectrum, shape (n,), counts.
        scale: energy of a channel, good to 20 eV.
        detector: its resolution.
        low_kev: start of the search.
        high_kev: end of the search.

    Returns: groups for ``fit_groups``. L lines and hidden elements must be asked for by name.
    """
    y = np.asarray(counts, np.float64)
    channels = np.arange(y.size)
    energy = scale.energy_kev(channels)
    width = detector.fwhm_kev(energy) / scale.gain_kev(channels)
    peaks = find_peaks(y, width, threshold=THRESHOLD, first=int(np.searchsorted(energy, low_kev)))
    rows = [(float(scale.energy_kev(p.channel)), p.significance) for p in peaks]
    rows = [row for row in rows if low_kev <= row[0] <= high_kev]
    elements: list[str] = []
    singles: list[float] = []
    strong: list[float] = []
    explained = []
    top = max((s for _, s in rows), default=0.0)
    for peak_kev, significance in sorted(rows, key=lambda row: -row[1]):
        why = _known(peak_kev, elements, singles)
        if not why:
            name, miss = _nearest(peak_kev)
            artefact, artefact_miss = _artefact(peak_kev, strong)
            if artefact and artefact_miss < miss:
                why = artefact
            elif miss < TOLERANCE_KEV:
                elements.append(name)
                why = f"{name} Ka"
            else:
                singles.append(peak_kev)
                why = "not an element's K line"
            if significance > STRONG * top and why != artefact:
                strong.append(peak_kev)
        explained.append((peak_kev, significance, why))
    ordered = sorted(elements, key=ELEMENTS.index)
    groups = [group for name in ordered for group in groups_of(name)]
    groups += [single_line(value, _extra_width(y, energy, detector, value)) for value in sorted(singles)]
    return Found(tuple(groups), tuple(ordered), tuple(sorted(explained)))


def _extra_width(y: Floats, energy: Floats, detector: Detector, peak_kev: float) -> float:
    """Return what a peak is wider than the detector's resolution, from its width at half height, keV."""
    own = float(detector.fwhm_kev(peak_kev))
    part = np.flatnonzero(np.abs(energy - peak_kev) < 4 * own)
    smooth = np.convolve(y[part], np.ones(5) / 5, "same")
    level = 0.5 * (float(np.percentile(smooth, 10)) + float(smooth.max()))
    gain = float(energy[part[1]] - energy[part[0]])
    width = float(np.count_nonzero(smooth > level)) * gain
    return float(np.sqrt(max(width**2 - own**2, 0.0)))


def _known(energy_kev: float, elements: Sequence[str], singles: Sequence[float]) -> str:
    for element in elements:
        for group in groups_of(element):
            if abs(group.mean_kev - energy_kev) < 2 * TOLERANCE_KEV:
                return group.name
    return "single line" if any(abs(one - energy_kev) < 5 * TOLERANCE_KEV for one in singles) else ""


def _artefact(energy_kev: float, strong: Sequence[float]) -> tuple[str, float]:
    """Return the nearest escape or sum peak of strong lines and its distance."""
    places = [(line - SILICON_KA_KEV, f"escape of {line:.2f} keV") for line in strong]
    for k, one in enumerate(strong):
        places += [(one + other, f"sum of {one:.2f} and {other:.2f} keV") for other in strong[k:]]
    near = [(abs(place - energy_kev), why) for place, why in places]
    miss, why = min(near, default=(float("inf"), ""))
    return (why, miss) if miss < 3 * TOLERANCE_KEV else ("", float("inf"))


def _nearest(energy_kev: float) -> tuple[str, float]:
    """Return the element whose K-alpha is nearest, and its distance."""
    alphas = [(abs(GROUPS[f"{name} Ka"].mean_kev - energy_kev), name) for name in ELEMENTS]
    miss, name = min(alphas)
    return name, miss
