"""Temperature controllers that have their own loop, and what is known of the heated holder."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from controller.config.base import Table, refuse
from controller.config.instruments.base import Device, Instrument
from controller.config.quantities import Difference, Quantity

if TYPE_CHECKING:
    from controller.config.limits import CellWindow
    from controller.config.station import Limits

EUROTHERM_PERIOD_S = 0.2  # 9600 baud: 31 ms on the wire plus processing, 5 Hz at most


class SensorBreak(Table):
    """What a person found at the front panel: no register tells what a broken Pt100 does."""

    setting: Literal["off", "on", "latching"]
    safe_output_fraction: Annotated[float, Quantity("1", low=-1.0, high=1.0)] = Field(alias="safe_output")
    confirmed_by: str
    confirmed_on: datetime.date

    @field_validator("setting")
    @classmethod
    def _has_a_reaction(cls, value: str) -> str:
        if value == "off":
            raise refuse(
                "means full heat with a broken Pt100: set SB.TYP to on or latching at the instrument",
                '"on" or "latching"',
            )
        return value

    @field_validator("safe_output_fraction")
    @classmethod
    def _no_heat(cls, value: float) -> float:
        if value != 0.0:
            raise refuse("keeps heating with a broken Pt100: it must be 0 %", "0 %")
        return value

    @field_validator("confirmed_by")
    @classmethod
    def _names_a_person(cls, value: str) -> str:
        if len(value.strip()) < 2:
            raise refuse("must name the person who looked at the instrument")
        return value


class Plant(Table):
    """What an identification found of the heated holder: the guard holds the temperature against it.

    One heat capacity and one loss: C dT/dt = P - G (T - ambient). ``tolerance`` is the relative error of C
    and of G, ``lag`` how far in time the sensor may be ahead of or behind the mean temperature.
    """

    power_w: Annotated[float, Quantity("W", above=0.0, high=1000.0)] = Field(alias="power")
    capacity_j_per_k: Annotated[float, Quantity("J/K", above=0.0, high=1e5)] = Field(alias="capacity")
    loss_w_per_k: Annotated[float, Quantity("W/K", above=0.0, high=100.0)] = Field(alias="loss")
    lag_s: Annotated[float, Quantity("s", low=0.0, high=300.0)] = Field(alias="lag")
    ambient_k: Annotated[float, Quantity("K", low=253.0, high=333.0)] = Field(alias="ambient")
    ambient_within_k: Annotated[float, Difference(above=0.0, high=30.0)] = Field(alias="ambient_within")
    tolerance: Annotated[float, Quantity("1", above=0.0, high=0.5)] = 0.1
    noise_k: Annotated[float, Difference(above=0.0, high=1.0)] | None = Field(alias="noise", default=None)
    identified_by: Annotated[str, Field(min_length=2)]
    identified_on: datetime.date


class Heating(Instrument):
    """What every device has that can play the heater."""

    plays: ClassVar[frozenset[str]] = frozenset({"heater"})
    energises: ClassVar[bool] = True

    plant: Plant | None = None

    def hard_limits(self, limits: Limits, cell: CellWindow | None) -> Mapping[str, Any]:
        """Return the range (K) and the rate (K/s) of set-points."""
        low_k, high_k = limits.temperature.low_k, limits.temperature.high_k
        if cell is not None:
            low_k, high_k = cell.temperature_low_k, cell.temperature_high_k
        return {
            "temperature_low_k": low_k,
            "temperature_high_k": high_k,
            "temperature_rate_k_per_s": limits.temperature_rate_k_per_s,
        }


class Eurotherm(Heating, Device):
    """Heater controller with its own Pt100 and control loop."""

    line_kinds: ClassVar[tuple[str, ...]] = ("serial", "tcp")
    usual_period: ClassVar[str] = "0.25 s"
    modbus: ClassVar[bool] = True

    driver: Literal["eurotherm_3200"]
    unit_id: Annotated[int, Field(ge=1, le=254)] = 1
    sensor_break: SensorBreak

    @field_validator("period_s")
    @classmethod
    def _not_faster_than_the_line(cls, value: float) -> float:
        if value < EUROTHERM_PERIOD_S:
            raise refuse("is faster than this controller answers: 0.2 s at least", "0.2 s")
        return value
