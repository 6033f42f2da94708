"""What a cell program means for a source of voltage with a current limit, and when it ends. No I/O.

Charging and discharging both source a voltage: the one that the program ends at or holds, never a current.
While the cell cannot reach it the current limit (compliance) regulates: that is constant current. When it
does, the voltage is held: constant voltage, without a switch-over. So the hardware itself can drive the cell
neither past that voltage nor above that current, in either direction, whoever is still alive to watch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from drivers.errors import OutOfRange, Refused
from drivers.keithley_scpi import Reading
from drivers.roles import (
    CcCv,
    CellAbilities,
    CellLimits,
    CellProgram,
    ConstantCurrent,
    ConstantVoltage,
    Ocv,
)

LEAST_A, MOST_A = 1e-9, 1.0
MOST_V = 20.0  # the 20 V ranges; the 200 V ranges are not for cells
RANGES_A = tuple(10.0**k for k in range(-6, 1))  # of both instruments, the 2450's finer ones not used
FASTEST_INTERVAL_S, LONGEST_RUN_S = 0.2, 1e6
OVER_LIMIT = 1.01  # readings scatter about a compliance that equals the limit
AT_TARGET, INVALID_MAX = 2, 2  # readings in a row

ABILITIES = CellAbilities("Keithley source", low_v=-MOST_V, high_v=MOST_V, most_a=MOST_A)


class Ending(StrEnum):
    """Why a program ended; the words are those of the other potentiostat's scripts."""

    VOLTAGE = "voltage reached"
    CURRENT = "current reached"
    TIME = "time"
    START = "open-circuit voltage outside the limits"
    LIMIT_HIGH = "limit voltage high"
    LIMIT_LOW = "limit voltage low"
    LIMIT_CURRENT = "limit current"
    LIMIT_CHARGE = "limit charge"
    INVALID = "invalid readings"
    LEASE = "limit time without the host"


@dataclass(frozen=True)
class Plan:
    """One program for the source."""

    kind: str  # ocv, cc, cccv, cv
    interval_s: float
    duration_s: float
    level_v: float = 0.0
    compliance_a: float = 0.0
    until_a: float = 0.0
    direction: float = 0.0  # of the current: 1 charges, -1 discharges, 0 for a held voltage or none
    limits: CellLimits | None = None

    @property
    def range_a(self) -> float:
        """The measure range: fixed, the smallest that the compliance fits in.

        Smaller, and the range itself would clamp the source; changing, and each change would be a gap.
        """
        return next(full for full in RANGES_A if full >= self.compliance_a * (1 - 1e-9))


def plan(program: CellProgram, *, low_v: float, high_v: float, most_a: float) -> Plan:
    """Return what a program means for the source.

    Args:
        program: the program.
        low_v: lowest voltage that this station allows, V.
        high_v: highest, V.
        most_a: largest current that it allows, A.

    Raises:
        OutOfRange: the instrument, the station or the program's own limits do not allow it.
        Refused: an impedance sweep, which these instruments have no generator for.
    """
    _check(
        program_interval := getattr(program, "interval_s", 1.0), FASTEST_INTERVAL_S, 600.0, "s", "interval"
    )
    if isinstance(program, Ocv):
        _check(program.duration_s, 0.0, LONGEST_RUN_S, "s", "duration")
        return Plan("ocv", program_interval, program.duration_s)
    if not isinstance(program, (ConstantCurrent, ConstantVoltage, CcCv)):
        raise Refused(f"{type(program).__name__}: no impedance sweeps, this is a source of direct current")
    limits = program.limits
    if not limits.voltage_low_v < limits.voltage_high_v:
        raise OutOfRange(
            f"no room between the voltage limits {limits.voltage_low_v} V and {limits.voltage_high_v} V"
        )
    _check(limits.voltage_low_v, max(low_v, -MOST_V), high_v, "V", "voltage limit")
    _check(limits.voltage_high_v, low_v, min(high_v, MOST_V), "V", "voltage limit")
    _check(limits.current_a, LEAST_A, min(most_a, MOST_A), "A", "current limit")
    _check(limits.charge_coulomb, 1e-9, 1e5, "C", "charge limit")
    _check(limits.duration_s, FASTEST_INTERVAL_S, LONGEST_RUN_S, "s", "duration")
    common = {"interval_s": min(program_interval, limits.duration_s), "duration_s": limits.duration_s}
    if isinstance(program, ConstantCurrent):
        kind, level_v, until_a = "cc", program.until_voltage_v, 0.0
        _check(level_v, limits.voltage_low_v, limits.voltage_high_v, "V", "voltage to be reached")
    else:
        kind = "cccv" if isinstance(program, CcCv) else "cv"
        level_v, until_a = program.voltage_v, program.until_current_a
        if not limits.voltage_low_v < level_v < limits.voltage_high_v:
            raise OutOfRange(
                f"voltage to hold {level_v} V leaves no room between the limits "
                f"{limits.voltage_low_v} V and {limits.voltage_high_v} V"
            )
        _check(until_a, 0.0, limits.current_a, "A", "current to fall to")
    if isinstance(program, ConstantVoltage):
        direction, compliance_a = 0.0, limits.current_a
    else:
        direction, compliance_a = math.copysign(1.0, program.current_a), abs(program.current_a)
        _check(compliance_a, LEAST_A, limits.current_a, "A", "current")
    return Plan(
        kind, level_v=level_v, compliance_a=compliance_a, until_a=until_a, direction=direction,
        limits=limits, **common,
    )  # fmt: skip


@dataclass
class Judge:
    """Follows a running plan reading by reading."""

    plan: Plan
    phase: str = ""
    charge_coulomb: float = 0.0
    _invalid: int = 0
    _at_target: int = 0
    _clamped: int = 0
    _last: tuple[float, float] | None = field(default=None)  # time and current

    def __post_init__(self) -> None:
        self.phase = {"cccv": "cc"}.get(self.plan.kind, self.plan.kind)

    def take(self, reading: Reading, elapsed_s: float) -> Ending | None:
        """Take the next reading; return why the program has to end, or None."""
        self._invalid = 0 if reading.valid else self._invalid + 1
        if reading.voltage_v is None or reading.current_a is None or not reading.valid:
            return Ending.INVALID if self._invalid >= INVALID_MAX else self._time(elapsed_s)
        if self.plan.kind == "ocv":
            return self._time(elapsed_s)
        if self.plan.kind == "cccv" and not self._in_constant_current(reading, reading.voltage_v):
            self.phase = "cv"  # for good
        self._count_charge(elapsed_s, reading.current_a)
        return (
            self._reached(reading, reading.voltage_v, reading.current_a)
            or self._beyond(reading, reading.voltage_v, reading.current_a)
            or self._time(elapsed_s)
        )

    def outside(self, voltage_v: float) -> bool:
        """Whether a cell at rest with this voltage must not be connected at all."""
        limits = self.plan.limits
        return limits is not None and not limits.voltage_low_v < voltage_v < limits.voltage_high_v

    def _in_constant_current(self, reading: Reading, voltage_v: float) -> bool:
        """In compliance, and on the side of the voltage to be reached that the program comes from."""
        return reading.limited and self.plan.direction * (voltage_v - self.plan.level_v) < 0.0

    def _count_charge(self, elapsed_s: float, current_a: float) -> None:
        then_s, then_a = self._last or (0.0, current_a)
        self.charge_coulomb += 0.5 * (current_a + then_a) * (elapsed_s - then_s)
        self._last = (elapsed_s, current_a)

    def _reached(self, reading: Reading, voltage_v: float, current_a: float) -> Ending | None:
        plan = self.plan
        if plan.kind == "cc":
            return None if self._in_constant_current(reading, voltage_v) else Ending.VOLTAGE
        if self.phase != "cv":
            return None
        small = current_a * plan.direction if plan.direction else abs(current_a)
        self._at_target = self._at_target + 1 if small <= plan.until_a else 0
        return Ending.CURRENT if self._at_target >= AT_TARGET else None

    def _beyond(self, reading: Reading, voltage_v: float, current_a: float) -> Ending | None:
        limits = self.plan.limits
        if limits is None:
            return None
        self._clamped = self._clamped + 1 if self.plan.kind == "cv" and reading.limited else 0
        if voltage_v >= limits.voltage_high_v:
            return Ending.LIMIT_HIGH
        if voltage_v <= limits.voltage_low_v:
            return Ending.LIMIT_LOW
        if abs(current_a) > OVER_LIMIT * limits.current_a or self._clamped >= AT_TARGET:
            return Ending.LIMIT_CURRENT
        return Ending.LIMIT_CHARGE if abs(self.charge_coulomb) >= limits.charge_coulomb else None

    def _time(self, elapsed_s: float) -> Ending | None:
        return Ending.TIME if elapsed_s >= self.plan.duration_s - 1e-6 else None


def _check(value: float, low: float, high: float, unit: str, what: str) -> None:
    if not low <= value <= high:
        raise OutOfRange(f"{what} {value} {unit} is not between {low} and {high} {unit}")
