"""Line energies, detector resolution, and the windows in which lines and their backgrounds are counted.

X-ray energies: X-ray Data Booklet (LBNL 2009), table 1-2; K-alpha means are weighted by the relative
intensities of its table 1-3. The lithium photon is described by the line that the station measured, because
the recoiling nucleus decays in flight: shifted and broadened at 0 degrees (ION_BEAM.md, "Lithium").
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from edge.constants import ATOMIC_NUMBER, ELECTRON_REST_KEV

XRAY_KEV: Final = MappingProxyType(
    {
        ("Al", "Ka"): 1.4866,
        ("Si", "Ka"): 1.7398,
        ("P", "Ka"): 2.0134,
        ("P", "Kb"): 2.1391,
        ("S", "Ka"): 2.3075,
        ("Mn", "Ka"): 5.8944,
        ("Mn", "Kb"): 6.4905,
        ("Fe", "Ka"): 6.3995,
        ("Fe", "Kb"): 7.0580,
        ("Co", "Ka"): 6.9253,
        ("Co", "Kb"): 7.6494,
        ("Ni", "Ka"): 7.4722,
        ("Ni", "Kb"): 8.2647,
        ("Cu", "Ka"): 8.0411,
        ("Zr", "La"): 2.0422,
        ("Zr", "Ka"): 15.7464,
        ("Zr", "Kb"): 17.6678,
        ("La", "La"): 4.6494,
        ("La", "Lb"): 5.0421,
        ("Ta", "La"): 8.1398,
    }
)
"""Photon energies in keV by element and line."""

DEFAULT_LINE: Final = MappingProxyType(
    {"Al": "Ka", "P": "Ka", "S": "Ka", "Mn": "Ka", "Fe": "Ka", "Co": "Ka", "Ni": "Ka", "Zr": "Ka", "La": "La"}
)
"""The line that stands for an element unless the experiment file names another."""

LITHIUM_BAND_HIGH_KEV: Final = (
    505.0  # the band ends here: 511 keV annihilation, Doppler-broadened, starts above
)
ANNIHILATION_KEV: Final = ELECTRON_REST_KEV
ANNIHILATION_FWHM_KEV: Final = 2.8  # 2 keV detector, broadened by the motion of the annihilating electron

PHOSPHORUS_ZIRCONIUM = (
    "P Ka (2.013 keV) and Zr La (2.042 keV) are 29 eV apart and do not separate at 145 eV resolution"
)

_SILICON_FANO_KEV: Final = 0.115 * 0.00366  # Fano factor times 3.66 eV per electron-hole pair (silicon)
_COMPOSITE_ELEMENTS: Final = MappingProxyType(
    {
        "LLZO": ("Li", "La", "Zr", "Ta", "O"),
        "MEEP": ("H", "C", "N", "O", "P"),
        "LiBOB": ("Li", "B", "C", "O"),
        "MEEP-LiBOB": ("H", "Li", "B", "C", "N", "O", "P"),
        "PVdF": ("H", "C", "F"),
    }
)


@dataclass(frozen=True)
class LineWindow:
    """Where one line of one element is counted, and from which bands its background is taken, all in keV."""

    element: str
    line: str
    centroid_kev: float
    fwhm_kev: float
    low_kev: float
    high_kev: float
    bands_kev: tuple[tuple[float, float], ...]

    @property
    def width_kev(self) -> float:
        """Width of the signal window."""
        return self.high_kev - self.low_kev

    @property
    def one_sided(self) -> bool:
        """Whether the background is extrapolated from one side instead of interpolated between two."""
        sides = {band[0] > self.centroid_kev for band in self.bands_kev}
        return len(sides) == 1


def silicon_fwhm_kev(energy_kev: float, resolution_kev: float, at_kev: float = 5.895) -> float:
    """Return the full width at half maximum of a silicon detector at an energy, keV.

    FWHM^2(E) = FWHM^2(E0) + 8 ln2 F eps (E - E0), with Fano factor F = 0.115 and eps = 3.66 eV.

    Args:
        energy_kev: photon energy.
        resolution_kev: FWHM at ``at_kev`` (by convention Mn Ka).
        at_kev: energy where ``resolution_kev`` was measured.

    Raises:
        ValueError: if the resolution is smaller than the Fano limit allows.

    Source: Knoll, Radiation Detection and Measurement, 4th ed., section 13.4.
    """
    squared = resolution_kev**2 + 8.0 * math.log(2.0) * _SILICON_FANO_KEV * (energy_kev - at_kev)
    if squared <= 0.0:
        raise ValueError(
            f"resolution {resolution_kev} keV at {at_kev} keV is below the Fano limit at {energy_kev} keV"
        )
    return math.sqrt(squared)


def xray_window(element: str, line: str | None, resolution_kev: float) -> LineWindow:
    """Return the default window of an X-ray line, with a band on each side.

    Window: centroid +- 1.25 FWHM; bands from 1.6 to 2.6 FWHM on both sides. P Ka has its own, because P Kb
    (2.139 keV) would lie in the upper band.

    Args:
        element: chemical symbol.
        line: "Ka", "Kb", "La", "Lb", or None for the default line of the element.
        resolution_kev: FWHM of the detector at 5.895 keV.

    Raises:
        ValueError: if the line is not in the table.
    """
    name = line or DEFAULT_LINE.get(element, "Ka")
    centroid = XRAY_KEV.get((element, name))
    if centroid is None:
        known = ", ".join(f"{e} {n}" for e, n in XRAY_KEV)
        raise ValueError(f"no X-ray line {element} {name}; known: {known}")
    fwhm = silicon_fwhm_kev(centroid, resolution_kev)
    low, high = centroid - 1.25 * fwhm, centroid + 1.25 * fwhm
    bands = (
        (centroid - 2.6 * fwhm, centroid - 1.6 * fwhm),
        (centroid + 1.6 * fwhm, centroid + 2.6 * fwhm),
    )
    if (element, name) == ("P", "Ka"):
        bands = ((centroid - 2.3 * fwhm, centroid - 1.5 * fwhm), (2.225, 2.290))
    return LineWindow(element, name, centroid, fwhm, low, high, bands)


def lithium_window(centroid_kev: float, fwhm_kev: float) -> LineWindow:
    """Return the window of the lithium photon from the line measured at the station.

    Window: centroid +- 1 FWHM (98.1 % of a Gaussian). The background band is on the high side only, from
    1.5 FWHM above the centroid to 505 keV: the steps of the Compton continua lie below the line.

    Args:
        centroid_kev: measured centroid; 477.6 (at rest) to 482.4 (largest forward shift) is accepted.
        fwhm_kev: measured full width at half maximum.

    Raises:
        ValueError: if the line cannot be that of 7Li, or leaves no room below 505 keV.
    """
    if not 472.5 <= centroid_kev <= 483.0:
        raise ValueError(
            f"lithium line at {centroid_kev} keV: the 477.6 keV photon shifts by at most 4.7 keV either way"
        )
    if not 0.5 <= fwhm_kev <= 10.0:
        raise ValueError(f"lithium line FWHM {fwhm_kev} keV is outside 0.5 to 10 keV")
    band = (centroid_kev + 1.5 * fwhm_kev, LITHIUM_BAND_HIGH_KEV)
    if band[1] - band[0] < 5.0:
        raise ValueError(f"background band {band[0]:.1f} to {band[1]:.1f} keV is narrower than 5 keV")
    return LineWindow(
        "Li", "gamma", centroid_kev, fwhm_kev, centroid_kev - fwhm_kev, centroid_kev + fwhm_kev, (band,)
    )


def elements_of(material: str) -> tuple[str, ...]:
    """Return the elements of a material: a chemical formula, or a known name such as "MEEP-LiBOB" or "LLZO".

    Names that are neither give an empty tuple.
    """
    if material in _COMPOSITE_ELEMENTS:
        return _COMPOSITE_ELEMENTS[material]
    parts = re.findall(r"([A-Z][a-z]?)([0-9.]*)", material)
    if "".join(symbol + number for symbol, number in parts) != material:
        return ()
    symbols = tuple(dict.fromkeys(symbol for symbol, _ in parts))
    known = set(ATOMIC_NUMBER) | {element for element, _ in XRAY_KEV}
    return symbols if all(symbol in known for symbol in symbols) else ()


def overlaps(windows: Iterable[LineWindow], present: Iterable[str], resolution_kev: float) -> list[str]:
    """Return one sentence for each X-ray line of a present element that falls onto another element's window.

    A line counts as overlapping when it is closer to the centroid than one FWHM.

    Args:
        windows: the X-ray windows in use.
        present: chemical symbols of everything in the sample.
        resolution_kev: FWHM of the detector at 5.895 keV.
    """
    found = []
    elements = set(present)
    for window in windows:
        for (element, line), energy_kev in XRAY_KEV.items():
            if element == window.element or element not in elements:
                continue
            if abs(energy_kev - window.centroid_kev) < window.fwhm_kev:
                apart_ev = 1000 * abs(energy_kev - window.centroid_kev)
                found.append(
                    f"{element} {line} ({energy_kev:.3f} keV) lies on {window.element} {window.line} "
                    f"({window.centroid_kev:.3f} keV): {apart_ev:.0f} eV apart, "
                    f"resolution {1000 * resolution_kev:.0f} eV"
                )
    return found
