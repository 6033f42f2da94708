"""How many photons of each line leave a thick target per proton, from first principles and shapes.

Gamma line of 7Li, isotropic (the 477.6 keV state has spin 1/2)::

    Y = n_Li  integral_0^E0  sigma(E) / (dE/dx)(E)  dE

X-ray line of an element, with self-absorption on the way out at ``TAKE_OFF_DEG`` from the surface normal::

    Y = n b omega  integral  sigma(E) exp(-mu z(E) / cos(take-off)) / (dE/dx)(E)  dE

Only ratios of yields are used (between materials, and between states of charge): the scenario sets the rates.

* Ionisation: binary-encounter approximation, M. Gryzinski, Phys. Rev. 138 (1965) A336, as written by
  J. McGuire and P. Richard, Phys. Rev. A 8 (1973) 1374: sigma = N sigma_0 G(V) / U^2.
* Binding energies, fluorescence yields, branching and mu/rho: Elam, Ravel and Sieber, Radiat. Phys. Chem. 63
  (2002) 121, read with xraydb 4.5.
* 7Li(p,p'g): threshold 0.546 MeV and resonance at 1.03 MeV (FWHM 0.168 MeV) from the level scheme of 8Be
  (Tilley et al., Nucl. Phys. A 745 (2004) 155); between the points a shape of our own that rises to 3 MeV.
* 7Li(p,n)7Be: threshold 1.881 MeV, peak at 2.25 MeV, plateau near 0.3 b (Liskien and Paulsen, At. Data Nucl.
  Data Tables 15 (1975) 57); again a shape of our own through these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hil_tests.sim.physics.stopping import (
    ATOMIC_MASS_G_PER_MOL,
    AVOGADRO_PER_MOL,
    ELECTRON_MEV,
    PROTON_MEV,
    slowing_down,
)

Floats = npt.NDArray[np.float64]
Densities = Mapping[str, float]

MILLIBARN_CM2 = 1e-27
GRYZINSKI_CM2_EV2 = 6.56e-14  # pi e^4
TAKE_OFF_DEG = 45.0  # photon detector to surface normal
LITHIUM7 = 0.9241  # natural abundance, IUPAC 2021 (range 0.922 to 0.981 in commerce)

_ELEMENTS = ("H", "Li", "Be", "B", "C", "N", "O", "F", "Al", "Si", "P", "Co", "Zr", "La", "Ta")
_MU_CM2_PER_G = {
    "Al K": (2.2, 68.51, 184.5, 386.5, 718.2, 1109, 1586, 2025, 411.7, 548.1, 670, 3774, 1665, 4865, 1594),
    "Si K": (1.459, 41.94, 114.5, 242.5, 455.4, 711.3, 1028, 1327, 3112, 358.9, 439, 2534, 1138, 3393, 1501),
    "P K": (
        1.045, 26.52, 73.23, 156.7, 296.8, 468.2, 682.4, 888.7, 2228, 2743, 296.5, 1749, 798.9, 2426, 3710,
    ),
    "Zr L": (
        1.012, 25.28, 69.86, 149.6, 283.7, 448, 653.5, 851.9, 2148, 2664, 284.5, 1680, 769.4, 2338, 3569,
    ),
    "La La": (
        0.4282, 1.995, 5.458, 12.12, 23.88, 39.19, 59.55, 80.75, 237.3, 300.1, 349, 188, 574.9, 309.7, 637.2,
    ),
    "La Lb": (
        0.4185, 1.581, 4.259, 9.436, 18.63, 30.66, 46.72, 63.53, 188.9, 239.4, 279.6, 150.8, 465.2, 252.4,
        521.9,
    ),
    "Fe Ka": (
        0.4005, 0.8386, 2.093, 4.554, 8.99, 14.86, 22.8, 31.26, 95.85, 122.5, 144.1, 78.47, 246.8, 618, 287.3,
    ),
    "Co Ka": (
        0.3967, 0.6934, 1.67, 3.593, 7.073, 11.7, 17.97, 24.69, 76.41, 97.85, 115.4, 63.19, 199.7, 506.9,
        235.5,
    ),
    "Co Kb": (
        0.3929, 0.555, 1.268, 2.675, 5.236, 8.656, 13.32, 18.32, 57.32, 73.6, 87.03, 48.13, 153, 394.9, 183.4,
    ),
    "Ta La": (
        0.3909, 0.488, 1.073, 2.231, 4.345, 7.173, 11.04, 15.2, 47.84, 61.53, 72.9, 311.2, 129.4, 337.2,
        156.8,
    ),
    "Zr Ka": (
        0.3754, 0.2103, 0.2879, 0.44, 0.721, 1.09, 1.606, 2.171, 6.899, 8.964, 10.75, 54.29, 21.57, 59.09,
        118.1,
    ),
    "Zr Kb": (
        0.3726, 0.1965, 0.2523, 0.3608, 0.5611, 0.8193, 1.182, 1.577, 4.927, 6.4, 7.68, 39.53, 15.78, 43.41,
        87.44,
    ),
}  # fmt: skip
MU_CM2_PER_G = {line: dict(zip(_ELEMENTS, row, strict=True)) for line, row in _MU_CM2_PER_G.items()}


@dataclass(frozen=True)
class XrayLine:
    """One photon energy of one element.

    Args:
        element: symbol.
        energy_kev: mean energy of the unresolved components.
        binding_ev: of the shell (of the subshell that makes the line).
        electrons: in that shell.
        photons: fluorescence yield times branching: photons per vacancy.
    """

    element: str
    energy_kev: float
    binding_ev: float
    electrons: int
    photons: float


XRAY_LINES = {
    "Al K": XrayLine("Al", 1.487, 1559.0, 2, 0.033),
    "Si K": XrayLine("Si", 1.740, 1839.0, 2, 0.043),
    "P K": XrayLine("P", 2.013, 2145.5, 2, 0.0555 * 0.886),
    "Zr L": XrayLine("Zr", 2.044, 2223.0, 4, 0.031 * 0.86),
    "La La": XrayLine("La", 4.649, 5483.0, 4, 0.104 * 0.814),
    "La Lb": XrayLine("La", 5.042, 5891.0, 2, 0.103 * 0.85),
    "Co Ka": XrayLine("Co", 6.925, 7709.0, 2, 0.382 * 0.874),
    "Co Kb": XrayLine("Co", 7.649, 7709.0, 2, 0.382 * 0.126),
    "Ta La": XrayLine("Ta", 8.140, 9881.0, 4, 0.243 * 0.80),
    "Zr Ka": XrayLine("Zr", 15.746, 17998.0, 2, 0.705 * 0.844),
    "Zr Kb": XrayLine("Zr", 17.668, 17998.0, 2, 0.705 * 0.156),
}


def lithium_cross_section_cm2(energy_mev: Floats | float) -> Floats:
    """Return the production cross-section of the 478 keV photon of 7Li by protons."""
    energy = np.asarray(energy_mev, dtype=np.float64)
    half_width = 0.084
    resonance = 35.0 / (1.0 + ((energy - 1.03) / half_width) ** 2)
    rise = np.interp(energy, (0.546, 0.8, 1.2, 1.5, 2.0, 2.5, 3.0), (0.0, 2.0, 6.0, 12.0, 30.0, 60.0, 95.0))
    total: Floats = np.where(energy > 0.546, resonance + rise, 0.0) * MILLIBARN_CM2
    return total


def beryllium_cross_section_cm2(energy_mev: Floats | float) -> Floats:
    """Return the cross-section of 7Li(p,n)7Be."""
    points = (1.881, 1.92, 2.1, 2.25, 2.4, 2.6, 3.0)
    millibarn = np.interp(energy_mev, points, (0.0, 270.0, 350.0, 580.0, 420.0, 310.0, 280.0), left=0.0)
    return np.asarray(millibarn) * MILLIBARN_CM2


def ionisation_cross_section_cm2(energy_mev: Floats | float, binding_ev: float, electrons: int) -> Floats:
    """Return the cross-section for a vacancy in a shell, by protons, in binary-encounter approximation."""
    energy_ev = np.asarray(energy_mev, dtype=np.float64) * 1e6
    v2 = energy_ev * (ELECTRON_MEV / PROTON_MEV) / binding_ev  # square of proton over electron velocity
    v = np.sqrt(v2)
    alpha = v2 / (1.0 + v2)
    beta = np.minimum(1.0 / (4.0 * v * (1.0 + v)), 1.0)  # at 1 the reaction is closed
    bracket = alpha + (2.0 / 3.0) * (1.0 + beta) * np.log(2.7 + v)
    g = alpha**1.5 / v2 * bracket * (1.0 - beta) * (1.0 - beta ** (1.0 + v2))
    total: Floats = electrons * GRYZINSKI_CM2_EV2 / binding_ev**2 * g
    return total


def absorption_per_cm(densities: Densities, line: str) -> float:
    """Return the absorption coefficient of a material for the photons of a line, 1/cm."""
    mu = MU_CM2_PER_G[line]
    grams = {e: n * ATOMIC_MASS_G_PER_MOL[e] / AVOGADRO_PER_MOL for e, n in densities.items()}
    return sum(mass * mu[element] for element, mass in grams.items())


def lithium_yield(densities: Densities, start_mev: float) -> float:
    """Return 478 keV photons into 4 pi per proton that stops in the material."""
    energy, stopping, _ = slowing_down(densities, start_mev)
    per_cm = densities.get("Li", 0.0) * LITHIUM7 * lithium_cross_section_cm2(energy)
    return _integral(per_cm / stopping, energy)


def beryllium_yield(densities: Densities, start_mev: float) -> float:
    """Return nuclei of 7Be per proton that stops in the material."""
    energy, stopping, _ = slowing_down(densities, start_mev)
    per_cm = densities.get("Li", 0.0) * LITHIUM7 * beryllium_cross_section_cm2(energy)
    return _integral(per_cm / stopping, energy)


def xray_yield(densities: Densities, line: str, start_mev: float) -> float:
    """Return photons of an X-ray line that leave the material, into 4 pi and per proton."""
    data = XRAY_LINES[line]
    n = densities.get(data.element, 0.0)
    if n == 0.0:
        return 0.0
    energy, stopping, depth = slowing_down(densities, start_mev)
    out = np.exp(-absorption_per_cm(densities, line) * depth / math.cos(math.radians(TAKE_OFF_DEG)))
    vacancies = n * ionisation_cross_section_cm2(energy, data.binding_ev, data.electrons)
    return data.photons * _integral(vacancies * out / stopping, energy)


def transmission(line: str, absorbers: list[tuple[Densities, float]]) -> float:
    """Return the fraction of a line's photons that passes absorbers given as (atoms per cm3, cm)."""
    return math.exp(-sum(absorption_per_cm(material, line) * cm for material, cm in absorbers))


def _integral(values: Floats, energy_falling: Floats) -> float:
    return float(-np.trapezoid(values, energy_falling))
