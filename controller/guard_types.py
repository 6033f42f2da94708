"""What the guard's parts share: actions, trips, and the rules that the files give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Action(StrEnum):
    """What a trip asks for."""

    HOLD = "hold"
    OPEN_CIRCUIT = "open_circuit"
    HEATER_OFF = "heater_off"
    BLANK = "blank"
    SHUTTER = "shutter"
    SAFE = "safe"


@dataclass(frozen=True)
class Trip:
    """One protective decision; ``text`` names channel, value, limit and time in plain words."""

    id: str
    channel: str
    value: float | str | None
    limit: float | str | None
    unit: str
    action: Action
    text: str
    lab_s: float
    wall_s: float
    latch: bool = True
    acknowledge: str = ""  # what a local operator must look at and say before the latch is cleared


@dataclass(frozen=True)
class Finding:
    """What a rule has found: a trip without its time."""

    id: str
    channel: str
    value: float | str | None
    limit: float | str | None
    unit: str
    action: Action
    text: str


Band = tuple[float, float]  # lowest and highest value that a parameter may have


@dataclass(frozen=True)
class Plant:
    """What is known of the heated holder, as bands: nothing outside of them is possible without a fault.

    One heat capacity, one loss: C dT/dt = P - G (T - T_ambient). ``lag_s`` is how far, in time, the sensor
    may be ahead of or behind the mean temperature of that capacity while it changes.
    """

    power_w: Band
    capacity_j_per_k: Band
    loss_w_per_k: Band
    ambient_k: Band
    lag_s: float
    source: str  # where the numbers come from, for messages

    @classmethod
    def identified(
        cls, *, power_w: float, capacity_j_per_k: float, loss_w_per_k: float, ambient_k: float,
        ambient_within_k: float, tolerance: float, lag_s: float, source: str,
    ) -> Plant:  # fmt: skip
        """Return the bands of measured parameters; ``tolerance`` is the relative error of C and of G."""
        return cls(
            (power_w, power_w),
            (capacity_j_per_k * (1 - tolerance), capacity_j_per_k * (1 + tolerance)),
            (loss_w_per_k * (1 - tolerance), loss_w_per_k * (1 + tolerance)),
            (ambient_k - ambient_within_k, ambient_k + ambient_within_k), lag_s, source,
        )  # fmt: skip

    def described(self) -> str:
        """Return the parameters in words."""
        power, capacity, loss = (
            _band(band) for band in (self.power_w, self.capacity_j_per_k, self.loss_w_per_k)
        )
        return (
            f"{self.source}: {power} W, {capacity} J/K, {loss} W/K, ambient {_band(self.ambient_k)} K, "
            f"lag {self.lag_s:g} s"
        )


# A holder of which nothing was measured: from a bare coin cell on a foil heater to a clamp of a kilogram.
UNKNOWN_PLANT = Plant(
    (1.0, 100.0), (10.0, 1000.0), (0.01, 2.0), (283.0, 310.0), 30.0, "no identified plant, defaults"
)


@dataclass(frozen=True)
class GuardRules:
    """Hard limits of the station, in SI, and the period of every guarded device in lab seconds."""

    temperature_low_k: float
    temperature_high_k: float
    temperature_rate_k_per_s: float
    voltage_low_v: float
    voltage_high_v: float
    current_a: float
    charge_coulomb: float
    period_s: Mapping[str, float]  # keys heater, io, cell
    plant: Plant = UNKNOWN_PLANT
    heater_noise_k: float | None = None  # smallest noise that the reading always has, if that was measured
    monitor_s: Mapping[str, float] = field(default_factory=dict)  # period of every further device
    stage: str = ""  # name of the stage, if there is one
    stage_within_um: float = 5.0  # how far from where it was left it may be read
    watch_shutter: bool = False  # the station has one, with a read-back


class Condition(Protocol):
    """An interlock row's condition, parsed from the station file."""

    def holds(self, values: Mapping[str, float | bool | None]) -> bool | None:
        """Return whether the row is met, None when an input is unknown."""
        ...

    @property
    def channels(self) -> frozenset[str]:
        """Every reading it looks at, such as heater.temperature."""
        ...


@dataclass(frozen=True)
class InterlockRow:
    """One row of the interlock matrix."""

    name: str
    text: str
    condition: Condition
    grace_s: float
    action: Action
    latch: bool
    acknowledge: str = ""


def _band(band: Band) -> str:
    low, high = band
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
