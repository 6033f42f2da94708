"""Which PalmSens instrument answers, what it lacks, and how far a sine swings. No I/O."""

from __future__ import annotations

import math
from typing import Any

from drivers.errors import BadReply
from drivers.methodscript_models import CAPABILITIES, NEEDED_SCRIPT, Capabilities
from drivers.methodscript_sweeps import PEAK
from drivers.roles import CellLimits, CellProgram, ConstantCurrent, Eis, Geis

PRODUCTS = {"nexus1": "Nexus", "espbl": "EmStat Pico bootloader"}  # that we know and do not drive
UPDATE = "update it with PalmSens' own software (PSTrace)"
WHAT_TO_DO = (
    "leave such steps out of the experiment, update the firmware with PSTrace, or ask for the licence"
)


def code_of(version: str, flag: str, model: Capabilities, device: str) -> str:
    """Return the type code in the answer to ``t``. Raises BadReply if it is not the station's model."""
    codes = [code for known in CAPABILITIES.values() for code in known.codes]
    code = next((code for code in (*codes, *PRODUCTS) if version.startswith("t" + code)), None)
    if code is None or not flag.startswith("R"):
        raise BadReply("not a MethodSCRIPT instrument", device=device, request="t", reply=version)
    if code not in model.codes:
        other = next((key for key, known in CAPABILITIES.items() if code in known.codes), None)
        advice = "" if other is None else f'; if this is the right one, write model = "{other}"'
        raise BadReply(
            f"the station file says {model.name}{advice}", device=device, request="t", reply=version
        )
    return code


def check_script(version: str, device: str) -> None:
    """Refuse a firmware that does not know the language as our scripts use it. Raises BadReply."""
    try:
        had = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        had = ()
    if len(had) < 2 or had < NEEDED_SCRIPT:
        needed = ".".join(str(part) for part in NEEDED_SCRIPT)
        raise BadReply(
            f"this firmware knows MethodSCRIPT {version}, our scripts need {needed} or newer: {UPDATE}",
            device=device, request="v", reply=f"v{version}",
        )  # fmt: skip


def probes(model: Capabilities) -> list[tuple[str, dict[str, Any], CellProgram]]:
    """Return what may be missing: its name, what the abilities then are, and a program that needs it."""
    most_a = min(1e-3, model.most_a)
    limits = CellLimits(0.0, min(1.0, model.high_v), most_a, 1.0, 60.0)
    found: list[tuple[str, dict[str, Any], CellProgram]] = []
    if model.galvanostat:
        charge = ConstantCurrent(most_a / 2, 0.5, limits)
        found.append(("galvanostat (constant current)", {"galvanostat": False, "geis": None}, charge))
    if model.eis is not None:
        found.append(("impedance (EIS)", {"eis": None}, Eis(0.01, 1e3, 1e2, 2, limits)))
    if model.geis is not None:
        sweep = Geis(most_a / 10, 1e3, 1e2, 2, limits)
        found.append(("galvanostatic impedance (GEIS)", {"geis": None}, sweep))
    return found


def swing(
    program: CellProgram | None, real_ohm: float | None, imaginary_ohm: float | None
) -> tuple[float, float]:
    """Return the peaks of voltage (V) and current (A) of the sine about a point of a sweep; 0 without one."""
    if real_ohm is None or imaginary_ohm is None or not isinstance(program, Eis | Geis):
        return 0.0, 0.0
    modulus_ohm = math.hypot(real_ohm, imaginary_ohm)
    if isinstance(program, Geis):
        return PEAK * program.amplitude_a * modulus_ohm, PEAK * program.amplitude_a
    peak_v = PEAK * program.amplitude_v
    return peak_v, peak_v / modulus_ohm if modulus_ohm > 0.0 else 0.0
