"""What the two papers print, computed again from their own formulas: our value beside the printed one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge.compton_lithium import TABLE_2, table_2
from edge.compton_physics import (
    Pinhole,
    energy_of_momentum_kev,
    momentum_au,
    scattered_energy_kev,
)

ENERGY_KEV, RIGHT = 115.0, math.pi / 2.0
FRAME_RATE_HZ, FRAME_BYTES = 9000.0, 80 * 80 * 2


@dataclass(frozen=True)
class Check:
    """One printed number."""

    what: str
    ours: str
    printed: str
    verdict: str


def checks() -> tuple[Check, ...]:
    """Return the numbers of Huang 2022 and 2024 that their own formulas give, and where print differs."""
    peak = float(scattered_energy_kev(ENERGY_KEV, RIGHT))
    edges = energy_of_momentum_kev(ENERGY_KEV, np.array([-5.0, -1.0, 1.0, 5.0]), RIGHT)
    line = table_2()
    angles = Pinhole().angles_rad(80, 80)
    middle = angles[40]
    spread = [float(scattered_energy_kev(ENERGY_KEV, a)) for a in (middle.max(), middle.min())]
    per_bin = 0.2 * float(
        momentum_au(ENERGY_KEV, peak + 0.5, RIGHT) - momentum_au(ENERGY_KEV, peak - 0.5, RIGHT)
    )
    x = [row[3] for row in TABLE_2 if row[0] == "discharged"]
    core_kev, ripple = edges[2] - edges[1], (spread[1] - spread[0]) / 2
    rows = (
        ("Compton peak at 90 deg (keV)", f"{peak:.3f}", "93.9", "agrees"),
        ("shift (keV)", f"{ENERGY_KEV - peak:.2f}", "21.1", "agrees"),
        (
            "edges of the S windows (keV)", " ".join(f"{e:.2f}" for e in edges), "-",
            f"core {core_kev:.2f} keV = {core_kev / 0.2:.1f} bins: split bins",
        ),
        ("wings of S (2022, text)", "1 < |pz| < 5", "|pz| > 5", "misprint; equation 9 and 2024 as here"),
        ("bin of 0.2 keV (a.u.)", f"{per_bin:.3f}", "-", ""),
        ("FWHM of 0.79 keV (a.u.)", f"{0.79 / 0.2 * per_bin:.2f}", "-", "nearly half the core window"),
        (
            "peak along the beam (keV)", f"{spread[0]:.2f} to {spread[1]:.2f}", "+-2 %",
            f"+-{ripple:.2f} keV, more than the core: angle per pixel",
        ),
        (
            "Table 2: 1-x", f"{line.slope:.5f} S {line.intercept:+.5f}", "linear",
            f"R2 {line.r_squared:.5f}, largest residual {np.abs(line.residuals).max():.4f}",
        ),
        ("gradient of 1-x, region 1 to 2", f"{(x[0] - x[1]) / x[0]:.1%}", "3 %", "0.03 absolute, or a slip"),
        ("gradient of 1-x, region 2 to 3", f"{(x[1] - x[2]) / x[1]:.1%}", "16 %", "agrees"),
        ("pixel at the sample (mm)", f"{Pinhole().pixel_mm:.3f}", "0.27; 0.25", "0.25 (2024) is a slip"),
        (
            "4.5e6 frames at 9 kHz",
            f"{4.5e6 / FRAME_RATE_HZ:.0f} s, {4.5e6 * FRAME_BYTES / 1e9:.1f} GB",
            "-", "12 min in 2022: another run",
        ),
        ("diameter of the cathode (2024)", "14 mm", "14 cm", "misprint: the anode has 16 mm"),
        ("annihilation photons (2024)", "none below 1022 keV", "at 115 keV", "impossible"),
        (
            "cathode (2024)", "r1 - 0.64 r3 - separator", "64% of r3 and separator",
            "0.64 of both leaves 72 um of beam for 65 um",
        ),
    )  # fmt: skip
    return tuple(Check(*row) for row in rows)
