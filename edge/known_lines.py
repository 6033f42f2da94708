"""Lines by name for an energy calibration: X-rays of elements, decays of sources, and gammas under protons.

Decays are those of gamma_lines.py (ENSDF), X-rays the weighted means of xray_lines.py (xraylib). Under
protons a light nucleus decays in flight and its photon is shifted; listed are only lines of states that live
long enough for the nucleus to have stopped: lifetimes and level energies from ENSDF (19F: D. R. Tilley et
al., Nucl. Phys. A 595 (1995) 1; 27Al: M. S. Basunia, Nucl. Data Sheets 112 (2011) 1875). 7Li is refused for
that reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edge.constants import ELECTRON_REST_KEV
from edge.gamma_lines import CALIBRATION_SETS, LINES
from edge.xray_lines import groups_of

NEAR_KEV = 1.0
_PROTONS = (
    ("F-19 109.9", 109.894, 0.005),  # 0.59 ns
    ("F-19 197.1", 197.143, 0.004),  # 89 ns
    ("Al-27 843.8", 843.76, 0.10),  # 35 ps
)
ANNIHILATION = ("annihilation", ELECTRON_REST_KEV, 0.02)  # broad, and a few eV low: bound electrons


@dataclass(frozen=True)
class KnownLine:
    """A line that a calibration may use."""

    name: str
    energy_kev: float
    sigma_kev: float


def resolve(names: Sequence[str]) -> tuple[KnownLine, ...]:
    """Return the lines that names mean, by rising energy, each once.

    ``Fe`` is Fe Ka, ``Fe Kb`` as it says; ``Eu-152`` is every line of the set of that source, ``Cs-137
    661.7`` one of a nuclide; ``natural`` the strong lines of a room; ``F-19 197.1``, ``Al-27 843.8``,
    ``annihilation``.

    Raises: ValueError for a name that means nothing, or a line that cannot serve.
    """
    found = {line.name: line for name in names for line in _lines(name.strip())}
    return tuple(sorted(found.values(), key=lambda line: line.energy_kev))


def _lines(name: str) -> list[KnownLine]:
    if re.fullmatch(r"(7?Li|Li-7|lithium)\b.*", name, re.IGNORECASE):
        raise ValueError(
            f"{name}: the lithium nucleus decays in flight, so its line is shifted by up to 4.7 keV: it "
            "cannot calibrate; take annihilation, F-19, Al-27 or a source"
        )
    if name in CALIBRATION_SETS:
        return [KnownLine(one.name, one.energy_kev, one.energy_sigma_kev) for one in CALIBRATION_SETS[name]]
    if name.lower() in ("annihilation", "511"):
        return [KnownLine(*ANNIHILATION)]
    nuclide = re.fullmatch(r"([A-Z][a-z]?-\d{1,3})(?:\s+([0-9.]+))?", name)
    if nuclide is not None:
        listed = [KnownLine(one.name, one.energy_kev, one.energy_sigma_kev) for one in LINES
                  if one.nuclide == nuclide[1]]  # fmt: skip
        listed += [KnownLine(*one) for one in _PROTONS if one[0].startswith(nuclide[1] + " ")]
        return _near(name, listed, nuclide[2])
    return _xrays(name)


def _near(name: str, listed: list[KnownLine], energy: str | None) -> list[KnownLine]:
    known = ", ".join(line.name for line in listed)
    if not listed:
        raise ValueError(f"{name} is no nuclide with a listed line: {_known()}")
    if energy is None:
        if len(listed) > 1:
            raise ValueError(f"{name} has several lines, name those that are strong here: {known}")
        return listed
    near = [line for line in listed if abs(line.energy_kev - float(energy)) < NEAR_KEV]
    if not near:
        raise ValueError(f"{name} is not listed; there are {known}")
    return [min(near, key=lambda line: abs(line.energy_kev - float(energy)))]


def _xrays(name: str) -> list[KnownLine]:
    found = re.fullmatch(r"([A-Z][a-z]?)(?:\s+(Ka|Kb))?", name)
    if found is not None:
        try:
            groups = {group.series: group for group in groups_of(found[1], "K")}
        except ValueError:
            groups = {}
        series = found[2] or "Ka"
        if series in groups:
            return [KnownLine(f"{found[1]} {series}", groups[series].mean_kev, 0.001)]
    raise ValueError(f"{name} is no line that is known: {_known()}")


def _known() -> str:
    nuclides = ", ".join(dict.fromkeys(line.nuclide for line in LINES))
    return (
        f'elements ("Fe", "Fe Kb"), sources ({", ".join(CALIBRATION_SETS)}), single lines of {nuclides} '
        '("Cs-137 661.7"), under protons F-19 109.9, F-19 197.1, Al-27 843.8, and annihilation'
    )
