"""Tables S1 to S4 of Perrenot et al. (supplementary information), calculated again from their own inputs.

Every row has our value beside the printed one. Where they differ the paper is misprinted or its sum is wrong;
our calculation is not bent to agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge.constants import LITHIUM6_NATURAL_FRACTION
from edge.isotopes import (
    Diffusion,
    LithiumContent,
    cylinder_volume_cm3,
    equilibrium_fraction6,
    lithium_molar_mass,
    migration_diffusion,
)

PIXEL_CM = 2.65e-4
DIAMETER_CM = 0.300
LPSCL_G_MOL, LPSCL_LITHIUM = 2.68e2, 6  # Li6PS5Cl
NMC_G_MOL = 96.6
PLATED_MOL, REINSERTED_MOL = 2.19e-5, 1.81e-5  # Faraday's law, tables S2 and S3 (printed with 10^+5)


@dataclass(frozen=True)
class Row:
    """One quantity of the tables."""

    table: str
    item: str
    unit: str
    printed: float
    ours: float
    remark: str = ""

    @property
    def agrees(self) -> bool:
        """Whether ours is the printed one within 0.6 % (inputs have three digits too)."""
        return math.isclose(self.ours, self.printed, rel_tol=0.006)


@dataclass(frozen=True)
class Cell:
    """The cell of the paper as its inputs define it."""

    cathode: LithiumContent
    separator: LithiumContent
    anode: LithiumContent


def paper_cell() -> Cell:
    """Return the pristine cell of table S1: masses weighed, volumes from projected areas."""

    def volume(pixels: int) -> float:
        return cylinder_volume_cm3(DIAMETER_CM, pixels * PIXEL_CM**2)

    def salt(mass_g: float) -> float:
        return LPSCL_LITHIUM * mass_g / LPSCL_G_MOL

    anode6 = 0.95
    return Cell(
        LithiumContent("composite electrode", salt(1.60e-3) + 3.80e-3 / NMC_G_MOL, volume(96714)),
        LithiumContent("separator", salt(1.16e-2), volume(354429)),
        LithiumContent("negative electrode", 0.750e-3 / lithium_molar_mass(anode6), volume(109017), anode6),
    )


def paper_diffusion(fraction6: float = 0.12) -> Diffusion:
    """Return table S4 with the Nernst-Einstein value beside it (the paper states no errors)."""
    return migration_diffusion(
        conductivity_s_cm=(2e-3, 0.0), fraction6=(fraction6, 0.0), voltage_v=(3.26, 0.0),
        length_cm=(8.3e-2, 0.0), gradient_cm4=(2.43e22, 0.0), lithium_cm3=(2.66e22, 0.0),
    )  # fmt: skip


def perrenot_tables() -> list[Row]:
    """Return all rows, in the order of the paper."""
    return [*_pristine(), *_charged(), *_transport()]


def _pristine() -> list[Row]:
    cell = paper_cell()
    ce, separator, anode = cell.cathode, cell.separator, cell.anode
    area = PIXEL_CM**2
    rows = [
        Row("S1", f"projected area of the {name}", "cm2", printed, pixels * area)
        for name, pixels, printed in (
            ("composite electrode", 96714, 6.79e-3), ("separator", 354429, 2.49e-2),
            ("negative electrode", 109017, 7.66e-3),
        )
    ]  # fmt: skip
    rows += [
        Row("S1", f"height of the {name}", "cm", printed, pixels * area / DIAMETER_CM)
        for name, pixels, printed in (
            ("composite electrode", 96714, 2.26e-2), ("separator", 354429, 8.30e-2),
            ("negative electrode", 109017, 2.55e-2),
        )
    ]  # fmt: skip
    rows += [
        Row("S1", f"volume of the {part.name}", "cm3", printed, part.volume_cm3)
        for part, printed in ((ce, 1.60e-3), (separator, 5.86e-3), (anode, 1.80e-3))
    ]
    wrong = "printed exponent wrong: the mass is 0.750 mg, not 0.750 g"
    share = (
        f"natural share {100 * LITHIUM6_NATURAL_FRACTION:.2f} %; the text says 7.4 %, the value used is 7.6 %"
    )
    return [
        *rows,
        Row("S1", "lithium in the composite electrode", "mol", 7.51e-5, ce.mol),
        Row("S1", "lithium in the separator", "mol", 2.59e-4, separator.mol),
        Row("S1", "lithium in the negative electrode", "mol", 1.25e-1, anode.mol,
            wrong + "; M = 6.02 g/mol is pure 6Li, 95 % is 6.07"),
        Row("S1", "Li density of the composite electrode", "1/cm3", 2.83e22, ce.density_cm3),
        Row("S1", "Li density of the separator", "1/cm3", 2.66e22, separator.density_cm3),
        Row("S1", "Li density of the negative electrode", "1/cm3", 4.16e22, anode.density_cm3,
            "printed with M = 6.02 (gives 4.17e22); with 0.750 g it would be 417 g/cm3"),
        Row("S1", "6Li density of the composite electrode", "1/cm3", 2.15e21, ce.density6_cm3, share),
        Row("S1", "6Li density of the separator", "1/cm3", 2.02e21, separator.density6_cm3, share),
        Row("S1", "6Li density of the negative electrode", "1/cm3", 3.95e25, anode.density6_cm3, wrong),
        Row("S1", "7Li density of the composite electrode", "1/cm3", 2.61e22, ce.density7_cm3),
        Row("S1", "7Li density of the separator", "1/cm3", 2.46e22, separator.density7_cm3),
        Row("S1", "7Li density of the negative electrode", "1/cm3", 2.08e22, anode.density7_cm3,
            "printed exponent wrong (5 % of 4.16e22 is 2.1e21)"),
    ]  # fmt: skip


def _charged() -> list[Row]:
    ce = paper_cell().cathode
    empty = ce.changed(-PLATED_MOL)
    full = empty.changed(REINSERTED_MOL)
    sign = "printed with 10^+5"
    total = (
        "wrong sum: 5.32e-5 + 1.81e-5 = 7.13e-5; printed is 5.32e-5 + 3.57e-5, the lithium of the "
        "electrolyte counted twice"
    )
    return [
        Row("S2", "lithium plated at the negative electrode", "mol", 2.19e5, PLATED_MOL, sign),
        Row("S2", "lithium of the delithiated electrode", "mol", 5.32e5, empty.mol, sign),
        Row("S2", "atoms of the delithiated electrode", "1", 3.20e19, empty.atoms),
        Row("S2", "Li density, delithiated", "1/cm3", 2.00e22, empty.density_cm3),
        Row("S2", "6Li density, delithiated", "1/cm3", 1.50e21, empty.density6_cm3,
            "printed as 7.4 %, calculated with 7.5 %; ours 7.59 %"),
        Row("S2", "7Li density, delithiated", "1/cm3", 1.85e22, empty.density7_cm3),
        Row("S3", "lithium reinserted", "mol", 1.81e5, REINSERTED_MOL, sign),
        Row("S3", "lithium of the relithiated electrode", "mol", 8.89e5, full.mol, f"{sign}; {total}"),
        Row("S3", "atoms of the relithiated electrode", "1", 5.35e19, full.atoms, "follows the wrong sum"),
        Row("S3", "Li density, relithiated", "1/cm3", 3.35e22, full.density_cm3, "follows the wrong sum"),
        Row("S3", "6Li density, relithiated", "1/cm3", 2.51e21, full.density6_cm3,
            "follows the wrong sum, with 7.5 %; and the reinserted lithium need not be natural"),
        Row("S3", "7Li density, relithiated", "1/cm3", 2.32e21, full.density7_cm3,
            "wrong: 92.6 % of the printed 3.35e22 is 3.10e22"),
    ]  # fmt: skip


def _transport() -> list[Row]:
    cell, printed = paper_cell(), paper_diffusion()
    share = 3.28e21 / cell.separator.density_cm3
    return [
        Row("S4", "6Li share of the separator", "1", 0.12, share, "12.3 %, printed as 12 %"),
        Row("S4", "migration flux", "1/(cm2 s)", 5.88e16, printed.flux.value),
        Row("S4", "apparent diffusion coefficient", "cm2/s", 2.42e-6, printed.apparent.value,
            "takes the whole cell voltage as the field; Nernst-Einstein with the same conductivity and "
            f"carriers: {printed.nernst_einstein.value:.2g} cm2/s, {printed.ratio.value:.0f} times less "
            f"(they agree at {1e3 * printed.voltage_that_agrees.value:.0f} mV)"),
        Row("S4", "the same with 12.3 %", "cm2/s", 2.42e-6, paper_diffusion(share).apparent.value),
    ]  # fmt: skip


def infinite_time_fraction6() -> float:
    """Return the 6Li share of the paper's cell when all isotopes have mixed (its note S1 b)."""
    cell = paper_cell()
    return equilibrium_fraction6([cell.cathode, cell.separator, cell.anode])
