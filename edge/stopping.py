"""Stopping of protons in compounds by Bragg's rule, and the thick-target yield of a photon line.

Only ratios between neighbouring compositions are used, so the Bethe formula without shell and density
corrections is enough: what it neglects (a few per cent of the stopping of heavy elements between 1 and 3 MeV)
is common to numerator and denominator. ION_BEAM.md shows by how much the result moves when it is varied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edge.constants import (
    ATOMIC_MASS_G_MOL,
    ATOMIC_NUMBER,
    ELECTRON_REST_KEV,
    MEAN_EXCITATION_EV,
    PROTON_REST_KEV,
)

Floats = NDArray[np.float64]
Formula = Mapping[str, float]

_CLASSICAL_ELECTRON_RADIUS_CM = 2.8179403262e-13  # CODATA 2018

LCO: Formula = {"Li": 1.0, "Co": 1.0, "O": 2.0}
LLZO: Formula = {"Li": 6.3, "Al": 0.1, "La": 3.0, "Zr": 1.6, "Ta": 0.4, "O": 12.0}  # paper, section 4.4
MEEP: Formula = {"N": 1.0, "P": 1.0, "O": 6.0, "C": 10.0, "H": 22.0}  # [NP(OC2H4OC2H4OCH3)2]
LIBOB: Formula = {"Li": 1.0, "B": 1.0, "C": 4.0, "O": 8.0}
PVDF: Formula = {"C": 2.0, "H": 2.0, "F": 2.0}
CARBON: Formula = {"C": 1.0}


def molar_mass_g_mol(formula: Formula) -> float:
    """Return the molar mass, g/mol, from CIAAW standard atomic weights."""
    return sum(count * ATOMIC_MASS_G_MOL[element] for element, count in formula.items())


def atomic_stopping_kev_cm2(element: str, energy_kev: Floats) -> Floats:
    """Return the electronic stopping cross-section of one atom for protons, keV cm2.

    S = 4 pi r_e^2 m c^2 Z / beta^2 [ln(2 m c^2 beta^2 gamma^2 / I) - beta^2]

    Args:
        element: chemical symbol in ``MEAN_EXCITATION_EV``.
        energy_kev: kinetic energies, any shape; the formula needs at least about 500 keV.

    Returns:
        Stopping of the same shape.

    Raises:
        ValueError: below 500 keV, where the Bethe formula without shell corrections does not hold.

    Source: ICRU report 49 (1993), equation 2.1 without shell, Barkas and Bloch terms.
    """
    energy = np.asarray(energy_kev, dtype=np.float64)
    if np.any(energy < 500.0):
        raise ValueError(f"the Bethe formula is used from 500 keV up, got {float(np.min(energy))} keV")
    gamma = 1.0 + energy / PROTON_REST_KEV
    beta2 = 1.0 - 1.0 / gamma**2
    excitation_kev = MEAN_EXCITATION_EV[element] / 1000.0
    logarithm = np.log(2.0 * ELECTRON_REST_KEV * beta2 * gamma**2 / excitation_kev) - beta2
    scale = 4.0 * math.pi * _CLASSICAL_ELECTRON_RADIUS_CM**2 * ELECTRON_REST_KEV
    result: Floats = scale * ATOMIC_NUMBER[element] / beta2 * logarithm
    return result


def mixture_atoms_per_gram(parts: Mapping[str, tuple[Formula, float]], lithium_x: float) -> dict[str, float]:
    """Return moles of atoms per gram of the fully lithiated mixture, with the host at ``lithium_x``.

    Removing lithium removes its mass: everything else stays, so the result is per gram *as weighed at x = 1*.

    Args:
        parts: component name -> (formula at x = 1, mass fraction); the host must be called "host".
        lithium_x: x in Li_xCoO2.
    """
    atoms: dict[str, float] = {}
    for name, (formula, fraction) in parts.items():
        moles = fraction / molar_mass_g_mol(formula)
        for element, count in formula.items():
            present = count * lithium_x if name == "host" and element == "Li" else count
            atoms[element] = atoms.get(element, 0.0) + moles * present
    return atoms


def relative_lithium_yield(
    parts: Mapping[str, tuple[Formula, float]],
    x: Floats,
    energy_kev: float,
    lowest_kev: float = 1000.0,
    exponent: float = 0.0,
) -> Floats:
    """Return the thick-target lithium signal relative to x = 1, no unit.

    Y(x) = n_Li(x) integral of sigma(E) / S(E; x) dE, with S the sum over n_i(x) S_i(E) (Bragg) and
    sigma ~ E^exponent between ``lowest_kev`` and ``energy_kev``. The shape of sigma cancels to 0.1 %, because
    the stopping of all these elements falls with energy in nearly the same way.

    Args:
        parts: as in ``mixture_atoms_per_gram``.
        x: lithium contents, shape (n,).
        energy_kev: proton energy at the surface.
        lowest_kev: where the excitation becomes negligible.
        exponent: power of the assumed cross-section.

    Returns:
        Shape (n,).

    Source: thick-target yield, e.g. Wang and Nastasi, Handbook of Modern Ion Beam Materials Analysis (2009),
    chapter 7; Bragg and Kleeman, Phil. Mag. 10 (1905) 318.
    """
    energies = np.linspace(lowest_kev, energy_kev, 201)
    stopping = {e: atomic_stopping_kev_cm2(e, energies) for e in mixture_atoms_per_gram(parts, 1.0)}

    def signal(content: float) -> float:
        atoms = mixture_atoms_per_gram(parts, content)
        total = sum(moles * stopping[element] for element, moles in atoms.items())
        integral = np.trapezoid((energies / energy_kev) ** exponent / total, energies)
        return float(atoms["Li"] * integral)

    full = signal(1.0)
    return np.array([signal(float(content)) / full for content in np.asarray(x, dtype=np.float64)])
