"""Tables A1, A2, 1 and other numbers of Moeller et al., Batteries 7 (2021) 41: ours beside the printed.

Every value is calculated from the paper's own formula and inputs. Where the paper's number does not follow
from them, both are printed, and the row says what is the matter; nothing is made to agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge.calibration_tables import A2_LITHIUM_MOL_CM3, A2_RELATIVE_CONCENTRATION, LCO_LLZO
from edge.constants import AVOGADRO_PER_MOL, FARADAY_COULOMB_PER_MOL
from edge.stopping import LCO, LLZO, molar_mass_g_mol

LCO_G_CM3, LCO_HALF_G_CM3, LLZO_G_CM3 = 5.05, 4.87, 5.4  # densities of table A1
LLZO_PRINTED_G_MOL = 873.6285
TABLE_1_COUNTS = (904.0, 847.0, 818.0, 710.0)  # lithium signals of table 1
TABLE_1_X = (0.865, 0.783, 0.540)  # printed
NO_ALUMINIUM = {**LLZO, "Li": 6.6, "Al": 0.0}
X_STEPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)


@dataclass(frozen=True)
class Row:
    """One number of the paper."""

    where: str
    what: str
    ours: float
    printed: float
    tolerance: float  # half a unit of the last printed digit, or what the paper's own rounding allows
    unit: str = "1"
    note: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the printed number follows from the paper's own formula."""
        return abs(self.ours - self.printed) <= self.tolerance * (1.0 + 1e-9)


def rows() -> list[Row]:
    """Return every number that can be calculated again, in the order of the paper's tables."""
    return [*_table_a1(), *_table_a2(), *_atomic_percent(), *_table_1(), *_uncertainties(), *_cell()]


def text() -> str:
    """Return the rows as a table in Markdown."""
    lines = [
        "| table | quantity | ours | printed | |",
        "|---|---|---|---|---|",
    ]
    for row in rows():
        digits = max(0, -math.floor(math.log10(row.tolerance)) + (not row.agrees))
        unit = "" if row.unit == "1" else f" {row.unit}"
        said = ("agrees" if row.agrees else "**differs**") + (f": {row.note}" if row.note else "")
        printed = f"{row.printed:.{max(0, -math.floor(math.log10(row.tolerance)))}f}"
        lines.append(f"| {row.where} | {row.what} | {row.ours:.{digits}f}{unit} | {printed}{unit} | {said} |")
    return "\n".join(lines) + "\n"


def _volume_share() -> float:
    """Return the share of LCO in the volume of a 1:1 mixture by mass."""
    return (1.0 / LCO_G_CM3) / (1.0 / LCO_G_CM3 + 1.0 / LLZO_G_CM3)


def _table_a1() -> Iterator[Row]:
    half = {**LCO, "Li": 0.5}
    yield Row("A1", "molar mass of LiCoO2", molar_mass_g_mol(LCO), 97.9, 0.05, "g/mol")
    yield Row("A1", "molar mass of Li0.5CoO2", molar_mass_g_mol(half), 94.4, 0.05, "g/mol")
    both = "neither formula of the text gives it"
    yield Row(
        "A1",
        "molar mass of LLZO, Li6.3Al0.1",
        molar_mass_g_mol(LLZO),
        LLZO_PRINTED_G_MOL,
        5e-5,
        "g/mol",
        both,
    )
    yield Row(
        "A1",
        "molar mass of LLZO, Li6.6",
        molar_mass_g_mol(NO_ALUMINIUM),
        LLZO_PRINTED_G_MOL,
        5e-5,
        "g/mol",
        both,
    )
    unit = "mol/cm3"
    yield Row(
        "A1", "density over molar mass, LiCoO2", LCO_G_CM3 / 97.9, 0.0516, 5e-5, unit,
        f"printed as atoms/cm3, which would be {LCO_G_CM3 / 97.9 * AVOGADRO_PER_MOL:.3g}",
    )  # fmt: skip
    yield Row("A1", "density over molar mass, Li0.5CoO2", LCO_HALF_G_CM3 / 94.4, 0.0516, 5e-5, unit)
    yield Row("A1", "lithium in Li0.5CoO2", 0.5 * LCO_HALF_G_CM3 / 94.4, 0.0258, 5e-5, unit)
    for formula, count in (("Li6.3Al0.1", 6.3), ("Li6.6", 6.6)):
        ours = count * LLZO_G_CM3 / LLZO_PRINTED_G_MOL
        yield Row("A1", f"lithium in LLZO, {formula}", ours, 0.0399, 5e-5, unit, "0.0399 needs Li6.45")


def _table_a2() -> Iterator[Row]:
    share = _volume_share()
    yield Row("A2", "volume share of LCO at 1:1 by mass", share, 0.516, 5e-4, "1", "the text has 51.7 %")
    for x, printed in zip(X_STEPS, A2_LITHIUM_MOL_CM3, strict=True):
        yield Row("A2", f"lithium, x = {x}", 0.516 * 0.0516 * x + 0.484 * 0.0399, printed, 1e-4, "mol/cm3")
    for x, printed in zip(X_STEPS, A2_RELATIVE_CONCENTRATION, strict=True):
        ours = (share * 0.0516 * x + (1.0 - share) * 0.0399) / (share * 0.0516 + (1.0 - share) * 0.0399)
        yield Row("A2", f"relative concentration, x = {x}", ours, printed, 1.5e-4)
    slope, start = np.polyfit(LCO_LLZO.x, LCO_LLZO.signal, 1)
    residual = LCO_LLZO.signal - (slope * LCO_LLZO.x + start)
    spread = LCO_LLZO.signal - LCO_LLZO.signal.mean()
    yield Row("A2", "R2 of a line through the SimNRA signal", 1.0 - residual @ residual / (spread @ spread),
              0.999, 5e-4, "1", f"s = {slope:.4f} x + {start:.4f}")  # fmt: skip
    yield Row("A2", "drop of the signal to x = 0.5", 100.0 * (1.0 - LCO_LLZO.signal[-1]), 28.0, 0.5, "%")


def _atomic_percent() -> Iterator[Row]:
    def share(x: float) -> float:
        atoms = {"lco": 0.5 / molar_mass_g_mol(LCO), "llzo": 0.5 / molar_mass_g_mol(LLZO)}
        lithium = atoms["lco"] * x + atoms["llzo"] * LLZO["Li"]
        everything = atoms["lco"] * (x + 3.0) + atoms["llzo"] * sum(LLZO.values())
        return 100.0 * lithium / everything

    full, half = share(1.0), share(0.5)
    yield Row(
        "text",
        "lithium in the mixture, x = 1",
        full,
        25.84,
        0.05,
        "at%",
        "standard atomic weights, Li6.3Al0.1",
    )
    yield Row(
        "text", "lithium in the mixture, x = 0.5", half, 21.7, 0.05, "at%", "21.7 is a misprint of 19.7"
    )
    yield Row("text", "drop in at% to x = 0.5", 100.0 * (1.0 - half / full), 24.0, 0.6, "%",
              "contradicts the 28 % of A2: at% is not the signal")  # fmt: skip


def _table_1() -> Iterator[Row]:
    relative = [counts / TABLE_1_COUNTS[0] for counts in TABLE_1_COUNTS]
    for counts, ours, printed in zip(TABLE_1_COUNTS[1:], relative[1:], (0.937, 0.905, 0.785), strict=True):
        yield Row("1", f"relative signal of {counts:.0f}", ours, printed, 6e-4)
    table_x = LCO_LLZO.x_of(np.array(relative[1:]))
    for ours, printed in zip(table_x, TABLE_1_X, strict=True):
        yield Row("1", f"x by table A2, printed {printed}", float(ours), printed, 5e-4, "1",
                  "the table was made from at%, not from SimNRA as the text says")  # fmt: skip
    for x, printed in zip(TABLE_1_X, (28.0, 43.4, 92.0), strict=True):
        note = "the text says 27 %" if printed == 28.0 else ""
        yield Row(
            "1", f"SoC = (1 - x) / 0.5 at the printed x = {x}", 200.0 * (1.0 - x), printed, 0.05, "%", note
        )
    for x, printed in zip(table_x, (28.0, 43.4, 92.0), strict=True):
        yield Row("1", f"SoC by table A2, printed {printed} %", 200.0 * (1.0 - float(x)), printed, 0.05, "%",
                  "follows from x")  # fmt: skip
    second = 100.0 * (TABLE_1_X[0] - TABLE_1_X[1]) / (TABLE_1_X[0] - TABLE_1_X[2])
    yield Row("text", "SoC of the second cycle at 3.95 V", second, 24.0, 0.5, "%", "off by one")


def _uncertainties() -> Iterator[Row]:
    absolute = math.sqrt(1.0 + 2.0**2 + 4.0**2 + 5.0**2 + 2.0**2)
    yield Row("text", "absolute uncertainty", absolute, 7.1, 0.05, "%")
    relative = math.hypot(1.0, 2.0)
    slope = float(np.polyfit(LCO_LLZO.x, LCO_LLZO.signal, 1)[0])
    sigma_x = [0.01 * relative * float(s) / slope for s in (LCO_LLZO.signal[-1], LCO_LLZO.signal[1])]
    yield Row("text", "relative uncertainty", relative, 2.2, 0.05, "%",
              f"never turned into x: {sigma_x[0]:.3f} to {sigma_x[1]:.3f}, "
              f"that is {200 * sigma_x[0]:.0f} to {200 * sigma_x[1]:.0f} % SoC")  # fmt: skip


def _cell() -> Iterator[Row]:
    capacity = 0.5 * FARADAY_COULOMB_PER_MOL / 3.6 / molar_mass_g_mol(LCO)
    yield Row("text", "capacity of LCO at a change of x of 0.5", capacity, 137.0, 0.5, "mAh/g")
    yield Row("text", "utilisation, 101 of 129 mAh/g", 100.0 * 101.0 / 129.0, 78.0, 0.5, "%",
              "printed +- 6 %, its inputs give +- 4.9 %")  # fmt: skip
    yield Row("text", "Zr signal, separator over cathode", 2.0 * 75.4 / 65.7, 2.28, 0.005, "1",
              "2.00 x 75.4 / 65.7: the stopping ratio the other way round than in the text")  # fmt: skip
    yield Row("text", "change of Co/Li from 16.9 to 21.6", 100.0 * (1.0 - 16.9 / 21.6), 20.0, 2.0, "%")
    yield Row("text", "operando SoC, 29.7 uAh of 0.95 mAh", 100.0 * 0.0297 / 0.95, 31.0, 0.5, "%",
              "a factor of ten; Co/Li 13.1 to 13.3 +- 0.2 shows no change, and excludes 31 %")  # fmt: skip
