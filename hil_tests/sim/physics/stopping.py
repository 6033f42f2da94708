"""How fast protons slow down: Bethe's formula, ICRU mean excitation energies, Bragg additivity.

Per atom, in MeV cm2::

    S_Bethe = 4 pi r_e^2 m_e c^2 Z / beta^2 [ln(1 + 2 m_e c^2 beta^2 gamma^2 / I) - beta^2]
    S_slow  = 8 pi e^2 a_0 Z / (1 + Z^(2/3))^(3/2) v / v_0                (Lindhard and Scharff 1961)
    S       = (S_Bethe^-2 + S_slow^-2)^(-1/2)

The one in the logarithm stands for the shell corrections that are left out: without it Bethe's bracket turns
negative for heavy atoms below 1 MeV. A compound is the sum over its atoms (Bragg), with the mean excitation
energies that ICRU 37, table 5.1, gives for atoms in liquid and solid compounds: 1.13 times the element's,
except H, C, N, O and F.

The energies of interest are 0.55 MeV (threshold of the lithium line) to 3 MeV.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ELECTRON_MEV = 0.51099895069  # CODATA 2022
PROTON_MEV = 938.27208943  # CODATA 2022
ELECTRON_RADIUS_CM = 2.8179403205e-13  # CODATA 2022
BOHR_RADIUS_CM = 5.29177210544e-9  # CODATA 2022
E2_MEV_CM = 1.43996455e-13  # e^2 / (4 pi eps0), CODATA 2022
INVERSE_FINE_STRUCTURE = 137.035999177  # CODATA 2022
AVOGADRO_PER_MOL = 6.02214076e23  # exact, SI 2019
ELEMENTARY_CHARGE_COULOMB = 1.602176634e-19  # exact, SI 2019

ATOMIC_NUMBER = {
    "H": 1, "Li": 3, "Be": 4, "B": 5, "C": 6, "N": 7, "O": 8, "F": 9, "Al": 13, "Si": 14, "P": 15,
    "Co": 27, "Zr": 40, "La": 57, "Ta": 73,
}  # fmt: skip
ATOMIC_MASS_G_PER_MOL = {
    "H": 1.008, "Li": 6.94, "Be": 9.0122, "B": 10.81, "C": 12.011, "N": 14.007, "O": 15.999, "F": 18.998,
    "Al": 26.982, "Si": 28.085, "P": 30.974, "Co": 58.933, "Zr": 91.224, "La": 138.905, "Ta": 180.948,
}  # fmt: skip  # IUPAC abridged standard atomic weights, 2021
MEAN_EXCITATION_EV = {
    "H": 19.2, "Li": 40.0, "Be": 63.7, "B": 76.0, "C": 78.0, "N": 82.0, "O": 95.0, "F": 115.0,
    "Al": 166.0, "Si": 173.0, "P": 173.0, "Co": 297.0, "Zr": 393.0, "La": 501.0, "Ta": 718.0,
}  # fmt: skip  # ICRU 37, table 4.3 (the elements)
COMPOUND_EXCITATION_EV = {"H": 19.2, "C": 81.0, "N": 82.0, "O": 106.0, "F": 112.0}  # ICRU 37, table 5.1
COMPOUND_FACTOR = 1.13  # ICRU 37, table 5.1: every other element in a condensed compound


def stopping_mev_cm2(element: str, energy_mev: Floats | float, *, in_compound: bool = True) -> Floats:
    """Return the electronic stopping cross-section of one atom, MeV cm2, for protons of ``energy_mev``."""
    energy = np.asarray(energy_mev, dtype=np.float64)
    z = ATOMIC_NUMBER[element]
    gamma = 1.0 + energy / PROTON_MEV
    beta2 = 1.0 - gamma**-2
    excitation_mev = _excitation_ev(element, in_compound=in_compound) * 1e-6
    bracket = np.log1p(2.0 * ELECTRON_MEV * beta2 * gamma**2 / excitation_mev) - beta2
    bethe = 4.0 * np.pi * ELECTRON_RADIUS_CM**2 * ELECTRON_MEV * z / beta2 * bracket
    velocity = np.sqrt(2.0 * energy / PROTON_MEV) * INVERSE_FINE_STRUCTURE  # in units of v_0
    slow = 8.0 * np.pi * E2_MEV_CM * BOHR_RADIUS_CM * z / (1.0 + z ** (2.0 / 3.0)) ** 1.5 * velocity
    total: Floats = (bethe**-2 + slow**-2) ** -0.5
    return total


def linear_stopping_mev_per_cm(densities: Mapping[str, float], energy_mev: Floats | float) -> Floats:
    """Return dE/dx in a material given by its atoms per cm3 of each element."""
    in_compound = sum(1 for value in densities.values() if value > 0.0) > 1
    total = np.zeros_like(np.asarray(energy_mev, dtype=np.float64))
    for element, per_cm3 in densities.items():
        total = total + per_cm3 * stopping_mev_cm2(element, energy_mev, in_compound=in_compound)
    return total


def mass_density_g_per_cm3(densities: Mapping[str, float]) -> float:
    """Return the mass density that belongs to the atoms per cm3."""
    return sum(n * ATOMIC_MASS_G_PER_MOL[element] for element, n in densities.items()) / AVOGADRO_PER_MOL


def molar_mass_g_per_mol(formula: Mapping[str, float]) -> float:
    """Return the mass of one mole of a formula unit."""
    return sum(count * ATOMIC_MASS_G_PER_MOL[element] for element, count in formula.items())


def mixture_per_cm3(
    parts: list[tuple[float, Mapping[str, float]]], density_g_per_cm3: float
) -> dict[str, float]:
    """Return the atoms per cm3 of a mixture given as (mass fraction, formula)."""
    total = sum(fraction for fraction, _ in parts)
    densities: dict[str, float] = {}
    for fraction, formula in parts:
        mass = density_g_per_cm3 * fraction / total
        units = mass * AVOGADRO_PER_MOL / molar_mass_g_per_mol(formula)
        for element, count in formula.items():
            densities[element] = densities.get(element, 0.0) + units * count
    return densities


def slowing_down(
    densities: Mapping[str, float], start_mev: float, *, stop_mev: float = 0.1, points: int = 600
) -> tuple[Floats, Floats, Floats]:
    """Follow a proton into a thick target.

    Returns:
        (energy_mev, stopping_mev_per_cm, depth_cm), each of ``points`` values, energy falling from
        ``start_mev`` to ``stop_mev``, depth rising from zero.
    """
    energy = np.linspace(start_mev, stop_mev, points)
    stopping = linear_stopping_mev_per_cm(densities, energy)
    path = 0.5 * (1.0 / stopping[1:] + 1.0 / stopping[:-1]) * -np.diff(energy)
    return energy, stopping, np.concatenate(([0.0], np.cumsum(path)))


def _excitation_ev(element: str, *, in_compound: bool) -> float:
    if not in_compound:
        return MEAN_EXCITATION_EV[element]
    return COMPOUND_EXCITATION_EV.get(element, COMPOUND_FACTOR * MEAN_EXCITATION_EV[element])
