"""A source-measure unit in front of a cell: what both Keithley twins have behind their commands.

A source of voltage turns into one of current when the cell would take more than the compliance, and back;
a source of current turns into one of voltage at its limit. What a cell sees when the output is off is the
output-off state: high impedance opens the relay, the others leave a source of 0 V (or 0 A) at the terminals.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hil_tests.sim.physics.cell import Cell

SLICE_S = 0.5  # of lab time: how often the source looks which of its two limits regulates
HIMP, NORM, ZERO, GUAR = "HIMP", "NORM", "ZERO", "GUAR"
NORMAL_OFF_FRACTION = 0.005  # of the current range: compliance of the 0 V of NORM
OVERFLOW = 9.9e37


@dataclass(frozen=True)
class Measured:
    """What the converters see."""

    volt: float
    ampere: float
    limited: bool  # the other limit than the set value regulates
    range_limited: bool = False  # and it is the measure range that clamps


class SourceMeter:
    """Source, limits, output relay.

    Args:
        cell: the physics; only this lets its time pass.
        noise: standard deviation of the voltage in V, and of the current as a fraction of its range.
        seed: of that noise.
        power_on: output-off state that it wakes up with; another than NORM was saved as its power-on setup.
    """

    def __init__(self, cell: Cell, noise: tuple[float, float], seed: int, power_on: str = NORM) -> None:
        self.cell = cell
        self.enabled = True  # interlock or output-enable line
        self.enable_required = False
        self.overloads = 0  # this many currents to come overflow, by fault
        self.no_numbers = 0  # this many voltages to come are no number, by fault
        self.set_error_v = 0.0  # the source is wrong by so much, by fault
        self._noise = noise
        self._random = random.Random(seed)
        self._power_on = power_on
        self._output = False
        self.limited = self.range_limited = False
        self.reset()

    def reset(self) -> None:
        """Come back as it wakes up: output off, from the factory as a source of 0 V."""
        self.function = "VOLT"
        self.level = {"VOLT": 0.0, "CURR": 0.0}
        self.limit = {"VOLT": 21.0, "CURR": 105e-6}  # of the other quantity: volt limit of a current source
        self.measure_range = {"VOLT": 21.0, "CURR": 105e-6}
        self.off_state = {"VOLT": self._power_on, "CURR": self._power_on}
        self.remote_sense = False
        self._output = False
        self.apply()

    @property
    def output(self) -> bool:
        """Whether the output is on."""
        return self._output

    @property
    def connected(self) -> bool:
        """Whether anything but an open relay is at the cell."""
        return self._output or self.off_state[self.function] != HIMP

    def switch(self, *, on: bool) -> bool:
        """Turn the output on or off; return False if it cannot be turned on."""
        if on and self.enable_required and not self.enabled:
            return False
        self._output = on
        self.apply()
        return True

    def enable_line(self, *, given: bool) -> None:
        """The interlock closes or opens; opening turns the output off, closing nothing on."""
        self.enabled = given
        if self.enable_required and not given:
            self.switch(on=False)

    def process(self, dt_s: float) -> None:
        """Let time pass for the cell."""
        steps = max(1, math.ceil(dt_s / SLICE_S - 1e-9)) if self.connected else 1
        for _ in range(steps):
            self.apply()
            self.cell.process(dt_s / steps)
        self.apply()

    def apply(self) -> None:
        """Let set value and limit act on the cell as it is now."""
        self.limited = self.range_limited = False
        if self._output and self.function == "CURR":
            self._current_source(self.level["CURR"], self._clamp("VOLT"))
        elif self._output:
            self._voltage_source(self.level["VOLT"] + self.set_error_v, self._clamp("CURR"))
        elif self.off_state[self.function] == NORM:
            self._voltage_source(0.0, NORMAL_OFF_FRACTION * self.measure_range["CURR"])
        elif self.off_state[self.function] == ZERO:
            self._voltage_source(0.0, self.limit["CURR"])
        elif self.off_state[self.function] == GUAR:
            self.cell.galvanostat(0.0)
        else:
            self.cell.open_circuit()

    def measure(self) -> Measured:
        """Return one reading of both quantities."""
        self.apply()
        volt = self.cell.voltage_v + self._random.gauss(0.0, self._noise[0])
        full = self.measure_range["CURR"]
        ampere = self.cell.current_a + self._random.gauss(0.0, self._noise[1] * full)
        sourced = self._output and self.function == "CURR"  # measured on the range of the source
        if (abs(ampere) > 1.06 * full and not sourced) or self.overloads:
            ampere = math.copysign(OVERFLOW, ampere)
        if self.no_numbers:
            volt = OVERFLOW
        self.overloads, self.no_numbers = max(self.overloads - 1, 0), max(self.no_numbers - 1, 0)
        return Measured(volt, ampere, self.limited, self.limited and self.range_limited)

    def inject(self, fault: Mapping[str, Any]) -> bool:
        """Make something go wrong in the source or at the cell; False: no such kind here."""
        kind = fault.get("kind")
        if kind == "overload":
            self.overloads = int(fault.get("count", 1))
        elif kind == "nan":
            self.no_numbers = int(fault.get("count", 1))
        elif kind == "set_error":
            self.set_error_v = float(fault.get("volt", 0.0))
        elif kind == "contact":
            self.cell.contact_ohm = float(fault.get("ohm", 0.0))
        elif kind == "short":
            ohm = fault.get("ohm", 100.0)
            self.cell.short_ohm = math.inf if ohm is None else float(ohm)
        elif kind == "interlock":
            self.enable_line(given=bool(fault.get("given", False)))
        elif kind == "front_panel":  # somebody presses the OUTPUT key
            self.switch(on=False)
        else:
            return False
        return True

    def truth(self) -> dict[str, Any]:
        """Return what is on, and the cell's own coulombs."""
        charge = self.cell.charge
        return {
            "cell_on": self.output,
            "connected": self.connected,
            "off_state": self.off_state[self.function],
            "voltage_v": self.cell.voltage_v,
            "terminal_coulomb": charge.terminals,
            "charge_coulomb": charge.passed_charge,
            "discharge_coulomb": charge.passed_discharge,
        }

    def _clamp(self, quantity: str) -> float:
        """The lower one of real and range compliance."""
        most = 1.05 * self.measure_range[quantity]
        self.range_limited = most < self.limit[quantity]
        return min(most, self.limit[quantity])

    def _voltage_source(self, volt: float, most_a: float) -> None:
        self.cell.potentiostat(volt)
        if abs(self.cell.current_a) > most_a:
            self.cell.galvanostat(math.copysign(most_a, self.cell.current_a))
            self.limited = True

    def _current_source(self, ampere: float, most_v: float) -> None:
        self.cell.galvanostat(ampere)
        if abs(self.cell.voltage_v) > most_v:
            self.cell.potentiostat(math.copysign(most_v, self.cell.voltage_v))
            self.limited = True
