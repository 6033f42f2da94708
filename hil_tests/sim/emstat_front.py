"""The analogue front of the potentiostat: modes, ranges, cell switch and what the converters see.

What the documents leave open is decided here and said so: changing the mode with the cell on opens the
circuit until the next ``cell_on``; a range is the smallest nominal one that holds the value asked for. While
an impedance is measured, each change of the range costs the measurement once more, one range at a time; a
range is left upwards above its warning and downwards where the next smaller one would do. The noise of an
impedance is a tenth of that of a reading, for it is averaged over periods.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from hil_tests.sim.physics.cell import Cell

POTENTIAL_RANGE, BAD_ARGUMENT, BAD_MODE, MODE_MISMATCH = 0x000F, 0x4200, 0x0021, 0x0023
BAD_FREQUENCY, BAD_AMPLITUDE = 0x0011, 0x0012
TIMING, OVERLOAD, UNDERLOAD, OVERLOAD_WARNING = 1, 2, 4, 8
OVERLOAD_AT, WARNING_AT, UNDERLOAD_AT = 2.92, 2.46, 0.123  # of the nominal range
LOW_SPEED, HIGH_SPEED, MAX_RANGE, GALVANOSTAT = 2, 3, 4, 6
PEAK = math.sqrt(2.0)
AVERAGED = 0.1
VOLT_RANGES = {2: 0.05, 3: 0.1, 4: 0.2, 5: 0.5, 6: 1.0}  # what the sine of a galvanostatic sweep is read on

_ES4_RANGES_A = {
    3: 1e-9,
    6: 10e-9,
    9: 100e-9,
    12: 1e-6,
    15: 10e-6,
    18: 100e-6,
    21: 1e-3,
    24: 10e-3,
    27: 100e-3,
}
_PICO_RANGES_A = {
    0: 100e-9, 1: 2e-6, 2: 4e-6, 3: 8e-6, 4: 16e-6, 5: 32e-6, 6: 63e-6, 7: 125e-6, 8: 250e-6, 9: 500e-6,
    10: 1e-3, 11: 5e-3,
}  # fmt: skip


@dataclass(frozen=True)
class Model:
    """What one type of instrument can do."""

    code: str  # in the answer to ``t``
    low_v: float
    high_v: float
    most_a: float
    ranges_a: dict[int, float]
    galvanostat: bool = True
    fastest_hz: float = 200e3
    most_rms_v: float = 0.9


MODELS = {
    "es4_hr": Model("es4_hr", -6.0, 6.0, 0.2, {k: v for k, v in _ES4_RANGES_A.items() if k >= 9}),
    "es4_lr": Model("es4_lr", -3.0, 3.0, 0.03, {k: v for k, v in _ES4_RANGES_A.items() if k <= 24}),
    "pico": Model("espico", -1.7, 2.0, 0.005, _PICO_RANGES_A, galvanostat=False, most_rms_v=0.429),
}


class FrontError(Exception):
    """The front cannot do what the script asks: a runtime error code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"{code:04X}")
        self.code = code


@dataclass(frozen=True)
class Reading:
    """A converted value with its metadata."""

    value: float
    status: int | None = None
    range_index: int | None = None


@dataclass
class _Ranges:
    """Ranges of one converter: those it may use, and the one it is on."""

    table: list[tuple[int, float]]  # index and nominal value, smallest first
    lowest: int
    highest: int
    now: int
    stuck: bool = False  # by fault

    def settle(self, peak: float) -> int:
        """Move to the smallest range that holds a peak; return how many ranges that was."""
        if self.stuck:
            return 0
        fitting = next(
            (k for k in range(self.lowest, self.highest) if peak <= WARNING_AT * self.table[k][1]),
            self.highest,
        )
        before, self.now = min(max(self.now, self.lowest), self.highest), fitting
        return abs(fitting - before)

    def status(self, peak: float) -> tuple[int, int]:
        """Return status and index of a peak on the present range."""
        index, nominal = self.table[self.now]
        ratio = peak / nominal
        over = OVERLOAD if ratio > OVERLOAD_AT else OVERLOAD_WARNING if ratio > WARNING_AT else 0
        return over or (UNDERLOAD if ratio < UNDERLOAD_AT else 0), index


class Front:
    """Cell switch, set values and ranges in front of a cell.

    Args:
        cell: the physics.
        model: the type of instrument.
        noise: standard deviation of the voltage in V, and of the current as a fraction of the range.
        seed: of that noise.
    """

    def __init__(self, cell: Cell, model: Model, noise: tuple[float, float], seed: int) -> None:
        self.cell = cell
        self.model = model
        self.mode = 0
        self.cell_on = False
        self.overloads = 0  # this many readings to come are overloaded, by fault
        self.no_numbers = 0  # this many voltages to come are no number, by fault
        self.set_error_v = 0.0  # what is applied differs by this from what was asked for, by fault
        self._noise = noise
        self._random = random.Random(seed)
        self._set_v = 0.0
        self._set_a = 0.0
        self._ranges = sorted(model.ranges_a.items(), key=lambda item: item[1])
        self._lowest = self._highest = len(self._ranges) - 1
        self._sine_a = _Ranges(self._ranges, self._lowest, self._highest, self._highest)
        volts = sorted(VOLT_RANGES.items())
        self._sine_v = _Ranges(volts, 0, len(volts) - 1, len(volts) - 1)
        self.cell.open_circuit()

    def command(self, name: str) -> Callable[..., None] | None:
        """Return the setting that the command ``name`` changes; None if it changes nothing simulated."""
        settings: dict[str, Callable[..., None]] = {
            "set_pgstat_mode": self._set_mode,
            "set_e": self.set_potential,
            "set_i": self.set_current,
            "set_range": self._set_range,
            "set_autoranging": self._set_autoranging,
            "set_range_minmax": self._check_potentials,
        }
        return settings.get(name)

    def switch(self, *, on: bool) -> None:
        """Close or open the cell relay."""
        if on and self.mode == 0:
            raise FrontError(BAD_MODE)
        self.cell_on = on
        self._apply()

    def set_potential(self, volt: float) -> None:
        """Set the potential that is applied while the cell is on."""
        if not self.model.low_v <= volt <= self.model.high_v:
            raise FrontError(POTENTIAL_RANGE)
        self._set_v = volt
        self._apply()

    def set_current(self, ampere: float) -> None:
        """Set the current that is forced in galvanostat mode."""
        if abs(ampere) > self.model.most_a:
            raise FrontError(BAD_ARGUMENT)
        self._set_a = ampere
        self._apply()

    def misapply(self, error_v: float) -> None:
        """Let the applied potential be wrong from now on."""
        self.set_error_v = error_v
        self._apply()

    def measure_v(self) -> Reading:
        """Convert the potential."""
        if self.no_numbers > 0:
            self.no_numbers -= 1
            return Reading(float("nan"), 0)
        return Reading(self.cell.voltage_v + self._random.gauss(0.0, self._noise[0]))

    def measure_a(self) -> Reading:
        """Convert the current, with status and range."""
        ampere = self.cell.current_a
        index, nominal = self._ranges[self._highest]
        for position in range(self._lowest, self._highest + 1):
            if abs(ampere) <= WARNING_AT * self._ranges[position][1]:
                index, nominal = self._ranges[position]
                break
        ratio = abs(ampere) / nominal
        if self.overloads > 0 or ratio > OVERLOAD_AT:
            self.overloads = max(0, self.overloads - 1)
            return Reading(float("nan"), OVERLOAD, index)
        status = OVERLOAD_WARNING if ratio > WARNING_AT else UNDERLOAD if ratio < UNDERLOAD_AT else 0
        return Reading(ampere + self._random.gauss(0.0, self._noise[1] * nominal), status, index)

    def begin_sine(self, amplitude: float, frequency_hz: float) -> int:
        """Superpose a sine, rms V or (galvanostat) A; return how often it is measured till the range fits."""
        most = self.model.most_a if self.mode == GALVANOSTAT else self.model.most_rms_v
        if not 0.0 < amplitude <= most:
            raise FrontError(BAD_AMPLITUDE)
        if not 0.0 < frequency_hz <= self.model.fastest_hz:
            raise FrontError(BAD_FREQUENCY)
        ranges, peak, _, _ = self._sine(amplitude, frequency_hz)
        return 1 + ranges.settle(peak)

    def measure_sine(self, amplitude: float, frequency_hz: float) -> tuple[complex, Reading]:
        """Convert an impedance; the reading has status and range, and NaN when that was overloaded."""
        ranges, peak, sine, ohm = self._sine(amplitude, frequency_hz)
        status, index = ranges.status(peak)
        if self.overloads > 0:
            self.overloads, status = self.overloads - 1, OVERLOAD
        if status & OVERLOAD:
            return complex(math.nan, math.nan), Reading(math.nan, OVERLOAD, index)
        noise = self._noise[0] if self.mode == GALVANOSTAT else self._noise[1] * ranges.table[ranges.now][1]
        error = complex(self._random.gauss(0.0, 1.0), self._random.gauss(0.0, 1.0)) * AVERAGED * noise / sine
        return ohm * (1.0 + error), Reading(0.0, status, index)

    def stick(self, ampere: float | None) -> None:
        """Let the range of the current stay where it is, at ``ampere``, or (None) free it again, by fault."""
        self._sine_a.stuck = ampere is not None
        if ampere is not None:
            self._sine_a.now = self._position(ampere)

    def _sine(self, amplitude: float, frequency_hz: float) -> tuple[_Ranges, float, float, complex]:
        """Return the converter in question, the peak on it, the rms of the sine there, and the impedance."""
        ohm = self.cell.impedance_ohm(frequency_hz)
        if self.mode == GALVANOSTAT:
            sine = amplitude * abs(ohm)
            return self._sine_v, PEAK * sine, sine, ohm
        self._sine_a.lowest, self._sine_a.highest = self._lowest, self._highest
        sine = amplitude / abs(ohm)
        return self._sine_a, abs(self.cell.current_a) + PEAK * sine, sine, ohm

    def _apply(self) -> None:
        if not self.cell_on:
            self.cell.open_circuit()
        elif self.mode == GALVANOSTAT:
            self.cell.galvanostat(self._set_a)
        else:
            self.cell.potentiostat(self._set_v + self.set_error_v)

    def _set_mode(self, mode: float) -> None:
        if mode not in (0, LOW_SPEED, HIGH_SPEED, MAX_RANGE, GALVANOSTAT):
            raise FrontError(BAD_MODE)
        if mode == GALVANOSTAT and not self.model.galvanostat:
            raise FrontError(BAD_MODE)
        if mode != self.mode:
            self.cell_on = False
            self._apply()
        self.mode = int(mode)

    def _set_range(self, kind: str, value: float) -> None:
        if kind == "ba" or (kind == "db" and self.mode == GALVANOSTAT):
            self._lowest = self._highest = self._position(value)
            if not self._sine_a.stuck:
                self._sine_a.now = self._highest

    def _set_autoranging(self, kind: str, low: float, high: float) -> None:
        if kind == "ba" or (kind == "db" and self.mode == GALVANOSTAT):
            self._lowest, self._highest = self._position(low), self._position(high)

    def _check_potentials(self, kind: str, low: float, high: float) -> None:
        if kind == "da" and not self.model.low_v <= low <= high <= self.model.high_v:
            raise FrontError(POTENTIAL_RANGE)

    def _position(self, ampere: float) -> int:
        for position, (_, nominal) in enumerate(self._ranges):
            if abs(ampere) <= nominal * (1.0 + 1e-9):
                return position
        return len(self._ranges) - 1
