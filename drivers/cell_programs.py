"""What a potentiostat is asked to do to a cell, within which limits, and what it tells meanwhile.

Quantities are SI with the unit in the name; a positive current charges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class CellEventKind(StrEnum):
    """What a running cell program reports besides samples."""

    STARTED = "started"
    PHASE = "phase"
    FINISHED = "finished"
    ABORTED = "aborted"
    RUNTIME_ERROR = "runtime_error"


@dataclass(frozen=True)
class CellEvent:
    """A change of state of the running cell program."""

    monotonic_s: float
    kind: CellEventKind
    detail: str = ""  # for FINISHED: the reason the script gave; for PHASE: cc, cv, ocv, eis, geis


@dataclass(frozen=True)
class CellSample:
    """One data package of the potentiostat."""

    monotonic_s: float
    elapsed_s: float  # instrument time since the program began
    phase: str  # ocv, cc, cv, eis, geis
    voltage_v: float | None
    current_a: float | None
    charge_coulomb: float | None = None  # as integrated by the instrument's own script, where it does
    valid: bool = True  # False: NaN, overload or timing status
    problems: tuple[str, ...] = ()
    frequency_hz: float | None = None
    z_real_ohm: float | None = None
    z_imag_ohm: float | None = None
    swing_v: float = 0.0  # peak of the sine about voltage_v and current_a while this was measured
    swing_a: float = 0.0


@dataclass(frozen=True)
class CellLimits:
    """Limits written into every script, whatever the program asks for."""

    voltage_low_v: float
    voltage_high_v: float
    current_a: float  # largest magnitude
    charge_coulomb: float  # largest magnitude in this program
    duration_s: float

    def __post_init__(self) -> None:
        values = (
            self.voltage_low_v,
            self.voltage_high_v,
            self.current_a,
            self.charge_coulomb,
            self.duration_s,
        )
        if not all(math.isfinite(value) for value in values):
            raise ValueError(f"every cell limit must be finite, got {self}")


@dataclass(frozen=True)
class Ocv:
    """Open circuit: measure the voltage with the cell disconnected."""

    duration_s: float
    interval_s: float = 1.0


@dataclass(frozen=True)
class ConstantCurrent:
    """Constant current (positive charges) until the voltage is reached or a limit strikes."""

    current_a: float
    until_voltage_v: float
    limits: CellLimits
    interval_s: float = 1.0


@dataclass(frozen=True)
class ConstantVoltage:
    """Hold a voltage until the current has fallen or a limit strikes."""

    voltage_v: float
    until_current_a: float
    limits: CellLimits
    interval_s: float = 1.0


@dataclass(frozen=True)
class CcCv:
    """Constant current to a voltage, then hold it: one script, limits in both loops."""

    current_a: float
    voltage_v: float
    until_current_a: float
    limits: CellLimits
    interval_s: float = 1.0


@dataclass(frozen=True)
class Eis:
    """Potentiostatic impedance sweep: a sine of voltage about a held voltage."""

    amplitude_v: float  # rms, as instruments have it; the peak is sqrt(2) of it
    start_hz: float
    stop_hz: float
    points: int
    limits: CellLimits
    voltage_v: float | None = None  # held meanwhile; None: the open-circuit voltage at the start


@dataclass(frozen=True)
class Geis:
    """Galvanostatic impedance sweep: a sine of current about a direct current (positive charges)."""

    amplitude_a: float  # rms
    start_hz: float
    stop_hz: float
    points: int
    limits: CellLimits
    bias_a: float = 0.0


CellProgram = Ocv | ConstantCurrent | ConstantVoltage | CcCv | Eis | Geis


@dataclass(frozen=True)
class SweepAbility:
    """Which impedance sweeps an instrument can do; amplitudes are rms, V or A."""

    slowest_hz: float
    fastest_hz: float
    least: float
    most: float


@dataclass(frozen=True)
class CellAbilities:
    """What an instrument can do to a cell, before anything is asked of it; None where it cannot at all."""

    name: str  # for messages
    low_v: float
    high_v: float
    most_a: float
    galvanostat: bool = True
    eis: SweepAbility | None = None
    geis: SweepAbility | None = None
