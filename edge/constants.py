"""Constants with the unit in the name and the source beside the number; derived ones are computed.

Sources: SI brochure 2019 (exact values), CODATA 2018 (NIST SP 961), CIAAW abridged standard atomic weights
2021 (https://ciaaw.org), NNDC/ENSDF for the nuclear levels, ICRU reports 37 and 49 for mean excitation
energies.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

ELEMENTARY_CHARGE_COULOMB: Final = 1.602176634e-19  # exact, SI 2019
AVOGADRO_PER_MOL: Final = 6.02214076e23  # exact, SI 2019
FARADAY_COULOMB_PER_MOL: Final = ELEMENTARY_CHARGE_COULOMB * AVOGADRO_PER_MOL
SPEED_OF_LIGHT_M_S: Final = 299792458.0  # exact, SI
COULOMB_PER_AMPERE_HOUR: Final = 3600.0  # exact

ELECTRON_REST_KEV: Final = 510.99895000  # CODATA 2018; also the annihilation line
PROTON_REST_KEV: Final = 938272.08816  # CODATA 2018

LITHIUM7_LEVEL_KEV: Final = 477.612  # first excited state of 7Li, ENSDF (photon of 7Li(p,p'g)7Li at rest)
BERYLLIUM7_GAMMA_KEV: Final = 477.6035  # 7Be electron capture, seen at rest, ENSDF
BERYLLIUM7_HALF_LIFE_S: Final = 53.22 * 86400.0  # 53.22 d, ENSDF
BERYLLIUM7_BRANCHING: Final = 0.1044  # photons per decay, ENSDF
LITHIUM6_NATURAL_FRACTION: Final = 0.0759  # IUPAC representative isotopic composition

GAUSS_FWHM_PER_SIGMA: Final = 2.3548200450309493  # 2 sqrt(2 ln 2)

ATOMIC_MASS_G_MOL: Final = MappingProxyType(
    {
        "H": 1.008,
        "Li": 6.94,
        "B": 10.81,
        "C": 12.011,
        "N": 14.007,
        "O": 15.999,
        "F": 18.998,
        "Al": 26.982,
        "P": 30.974,
        "Co": 58.933,
        "Zr": 91.224,
        "La": 138.91,
        "Ta": 180.95,
    }
)
"""CIAAW abridged standard atomic weights, 2021."""

ATOMIC_NUMBER: Final = MappingProxyType(
    {
        "H": 1,
        "Li": 3,
        "B": 5,
        "C": 6,
        "N": 7,
        "O": 8,
        "F": 9,
        "Al": 13,
        "P": 15,
        "Co": 27,
        "Zr": 40,
        "La": 57,
        "Ta": 73,
    }
)

MEAN_EXCITATION_EV: Final = MappingProxyType(
    {
        "H": 19.2,
        "Li": 40.0,
        "B": 76.0,
        "C": 81.0,
        "N": 82.0,
        "O": 95.0,
        "F": 115.0,
        "Al": 166.0,
        "P": 173.0,
        "Co": 297.0,
        "Zr": 393.0,
        "La": 501.0,
        "Ta": 718.0,
    }
)
"""ICRU 37 (1984) table 4.3 / ICRU 49 (1993) table 2.8, elements; compounds shift them by a few eV."""
