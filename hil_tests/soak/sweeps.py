"""Item ``sweeps``: the impedance experiment as a user runs it, and interrupted ones, against the twin."""

from __future__ import annotations

import math
import sys

from hil_tests.soak.runner import ROOT, Failed, Workshop
from hil_tests.soak.runs import on_the_bench

SPEED = 20.0
BOLTZMANN_EV_PER_K = 8.617333262e-5
OHMIC_OHM, TRANSFER_OHM, AT_K, ACTIVATION_EV = 2500.0, 2000.0, 333.15, 1.3  # of the twin's cell
FAR_Z = 3.09


def sweeps(work: Workshop) -> str:
    """Heat, charge, EIS, pulses, GEIS: R_s and R_ct against Arrhenius' law, coulombs against the twin's."""
    run = on_the_bench(work, "impedance", speed=SPEED, seed=1, limit_s=900.0)
    said, wrong = [], []
    for one in run.summary["impedance"]:
        quantities = one["quantities"]
        if not one["complete"] or not quantities:
            raise Failed(f"{one['step']}: {one['why_not']}")
        r_s, r_ct = (float(quantities[name]["value"]) for name in ("r_s", "r_ct"))
        rms = one["kramers_kronig"]["rms"]
        # Of the plate, and then: the truth file is written at the end, when the cell has begun to cool.
        kelvin = float(one["temperature_k"])
        factor = math.exp(ACTIVATION_EV / BOLTZMANN_EV_PER_K * (1.0 / kelvin - 1.0 / AT_K))
        said.append(
            f"{one['mode']}: R_s {r_s:.1f} ohm, R_ct {r_ct:.1f} ohm, Kramers-Kronig {rms:.2%}; "
            f"the cell's own at {kelvin:.2f} K: {OHMIC_OHM * factor:.1f} and {TRANSFER_OHM * factor:.1f} ohm"
        )
        if abs(r_s / r_ct / (OHMIC_OHM / TRANSFER_OHM) - 1.0) > 0.02:
            wrong.append(f"{one['mode']}: the ratio does not depend on the temperature, and is off")
        # 1 K is 14 %, and the cell is a little cooler than the plate.
        if abs(r_s / (OHMIC_OHM * factor) - 1.0) > 0.2:
            wrong.append(f"{one['mode']}: R_s is off by more than the temperature explains")
    charge = run.summary["charge"]
    z = (charge["coulomb"] - run.true_coulomb()) / charge["sigma"]
    said.append(f"counted {charge['coulomb']:.6f} C, {z:+.2f} sigma from the twin's")
    if abs(z) > FAR_Z:
        wrong.append("the charge is off")
    if wrong:
        raise Failed("\n".join([*wrong, *said]))
    place = ROOT / "hil_tests" / "test_run_sweeps.py"
    done = work.run([sys.executable, "-m", "pytest", "-q", "-n0", "-m", "soak", place], limit_s=900.0)
    if done.returncode:
        raise Failed(done.stdout.strip()[-2500:])
    return "\n".join([*said, done.stdout.strip().splitlines()[-1]])
