"""The ``[device.X]`` tables of a station file, one model for each built-in driver.

The keys mirror the instrument's sheet; the rules are those that need no other table. A driver of a third
party (entry-point group ``operando.drivers``) brings its own keys, which are handed to it as they stand.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from controller.config.base import Table, refuse, rules
from controller.config.problems import did_you_mean
from controller.config.quantities import Difference, Quantity

DRIVER_GROUP = "operando.drivers"
FOREIGN = "another driver"  # tag of the model that takes third parties' keys

DAC_HIGH_V = 5.0  # LabJack T7: DAC0 and DAC1 give about 0 to 5 V
EUROTHERM_PERIOD_S = 0.2  # 9600 baud: 31 ms on the wire plus processing, 5 Hz at most

Fio = Annotated[int, Field(ge=0, le=7)]
SwitchName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,30}$")]
Positive = Annotated[int, Field(gt=0)]


class Device(Table):
    """What every ``[device.X]`` table has."""

    driver: str
    line: str
    period_s: Annotated[float, Quantity("s", above=0.0, high=60.0)] = Field(alias="period")

    def settings(self) -> dict[str, Any]:
        """Return the settings for the driver: SI values under names that end in their unit."""
        return self.model_dump(exclude={"driver", "line"}, exclude_none=True)


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


class Eurotherm(Device):
    """Heater controller with its own Pt100 and control loop."""

    driver: Literal["eurotherm_3200"]
    unit_id: Annotated[int, Field(ge=1, le=254)] = 1
    sensor_break: SensorBreak
    plant: Plant | None = None

    @field_validator("period_s")
    @classmethod
    def _not_faster_than_the_line(cls, value: float) -> float:
        if value < EUROTHERM_PERIOD_S:
            raise refuse("is faster than this controller answers: 0.2 s at least", "0.2 s")
        return value


class EmStat(Device):
    """Potentiostat that runs MethodSCRIPT."""

    driver: Literal["palmsens_emstat4"]
    model: Literal["es4_hr", "es4_lr"] = "es4_hr"

    @field_validator("period_s")
    @classmethod
    def _within_the_script(cls, value: float) -> float:
        if not 0.1 <= value <= 10.0:
            raise refuse("must be from 0.1 s to 10 s: it is the interval of the samples", "0.1 s to 10 s")
        return value


class Scanner(Table):
    """Beam deflection by the two analogue outputs; position = (voltage - centre) * scale."""

    x_dac: Annotated[int, Field(ge=0, le=1)]
    y_dac: Annotated[int, Field(ge=0, le=1)]
    centre_v: Annotated[float, Quantity("V", above=0.0, high=DAC_HIGH_V)] = Field(alias="centre")
    scale_x_um_per_v: Annotated[float, Quantity("um/V")] = Field(alias="scale_x")
    scale_y_um_per_v: Annotated[float, Quantity("um/V")] = Field(alias="scale_y")
    pixel_clock: Fio
    blank: Fio
    settle_s: Annotated[float, Quantity("s", low=0.0, high=1.0)] = Field(alias="settle", default=2e-3)
    allowed_gap_s: Annotated[float, Quantity("s", above=0.0, high=10.0)] = Field(
        alias="allowed_gap", default=0.25
    )

    @field_validator("scale_x_um_per_v", "scale_y_um_per_v")
    @classmethod
    def _not_zero(cls, value: float) -> float:
        if value == 0.0:
            raise refuse("must not be zero")
        return value

    @model_validator(mode="after")
    def _two_outputs(self) -> Scanner:
        with rules() as rule:
            if self.x_dac == self.y_dac:
                rule.broken("y_dac", "is the output that x_dac uses: x and y need one each")
        return self

    def reach_um(self, axis: Literal["x", "y"]) -> tuple[float, float]:
        """Return the lowest and highest position that the output can reach."""
        scale = self.scale_x_um_per_v if axis == "x" else self.scale_y_um_per_v
        ends = (-self.centre_v * scale, (DAC_HIGH_V - self.centre_v) * scale)
        return min(ends), max(ends)


class BeamCurrent(Table):
    """Analogue input of the beam monitor."""

    ain: Annotated[int, Field(ge=0, le=13)]
    scale_a_per_v: Annotated[float, Quantity("A/V")] = Field(alias="scale")

    @field_validator("scale_a_per_v")
    @classmethod
    def _not_zero(cls, value: float) -> float:
        if value == 0.0:
            raise refuse("must not be zero")
        return value


class Relay(Table):
    """Relay in series with the heater; high closes it."""

    fio: Fio


class Shutter(Table):
    """Beam shutter; high opens it. ``readback`` is the line that tells where it really is."""

    fio: Fio
    readback: Fio | None = None


class Permit(Table):
    """Physical permit (emergency stop chain); high permits. Pulled down outside, as a ``Switch``."""

    fio: Fio


class Switch(Table):
    """A digital input with a name, for interlock rows; high is good.

    The box pulls its inputs up with 100 kOhm: pulled down outside, a wire that breaks reads low.
    """

    fio: Fio


class Watchdog(Table):
    """Strict watchdog of the box: blanks the beam, opens the relay, closes the shutter."""

    timeout_s: Annotated[float, Quantity("s", low=1.0, high=10.0)] = Field(alias="timeout")

    @field_validator("timeout_s")
    @classmethod
    def _whole_seconds(cls, value: float) -> float:
        if value != round(value):
            raise refuse("must be whole seconds: the instrument counts nothing finer")
        return value


class LabJack(Device):
    """Beam scanner, beam monitor, heater relay, shutter and permit on one box."""

    driver: Literal["labjack_t7"]
    scanner: Scanner | None = None
    beam_current: BeamCurrent | None = None
    relay: Relay | None = None
    shutter: Shutter | None = None
    permit: Permit | None = None
    switches: dict[SwitchName, Switch] | None = None
    watchdog: Watchdog | None = None

    @model_validator(mode="after")
    def _wiring(self) -> LabJack:
        with rules() as rule:
            used: dict[int, str] = {}
            for key, fio in self._digital_lines():
                if fio in used:
                    rule.broken(key, f"is already used by {used[fio]}: every digital line has one job")
                used.setdefault(fio, key)
            if self.scanner is not None and self.watchdog is None:
                rule.broken(
                    "watchdog", "is missing: a scanner without it leaves the beam on when the host dies"
                )
            if self.scanner is not None and self.beam_current is None:
                rule.broken("beam_current", "is missing: without it neither dose nor loss of beam is seen")
        return self

    def _digital_lines(self) -> Iterator[tuple[str, int]]:
        if self.scanner is not None:
            yield "scanner.pixel_clock", self.scanner.pixel_clock
            yield "scanner.blank", self.scanner.blank
        if self.relay is not None:
            yield "relay.fio", self.relay.fio
        if self.shutter is not None:
            yield "shutter.fio", self.shutter.fio
            if self.shutter.readback is not None:
                yield "shutter.readback", self.shutter.readback
        if self.permit is not None:
            yield "permit.fio", self.permit.fio
        for name, switch in (self.switches or {}).items():
            yield f"switches.{name}.fio", switch.fio


class EnergyScale(Table):
    """Nominal calibration: energy = offset + gain * channel; refined on the running spectrum."""

    offset_kev: Annotated[float, Quantity("keV")] = Field(alias="offset")
    gain_kev: Annotated[float, Quantity("keV", above=0.0)] = Field(alias="gain")


class Amptek(Device):
    """Digital pulse processor in list mode; ``detector`` says what is connected to it."""

    driver: Literal["amptek_dp5"]
    detector: Literal["sdd", "hpge"]
    channels: Literal[256, 512, 1024, 2048, 4096, 8192]
    energy: EnergyScale
    fifo_words: Positive
    list_clock_s: Annotated[float, Quantity("s")] = Field(alias="list_clock")
    resolution_kev: Annotated[float, Quantity("keV", above=0.0, high=20.0)] | None = Field(
        alias="resolution", default=None
    )
    fast_dead_s: Annotated[float, Quantity("s", above=0.0, high=1e-3)] | None = Field(
        alias="fast_dead", default=None
    )
    lifetime_s: Annotated[float, Quantity("s", low=10.0, high=1e6)] | None = Field(
        alias="lifetime", default=None
    )
    commands: dict[str, str] = Field(default_factory=dict)

    @field_validator("list_clock_s")
    @classmethod
    def _clock(cls, value: float) -> float:
        if not any(abs(value / one - 1.0) < 1e-9 for one in (1e-6, 1e-7)):
            raise refuse('must be "1 us" or "100 ns": this instrument has no other', "1 us or 100 ns")
        return value

    @property
    def highest_kev(self) -> float:
        """Energy at the end of the spectrum, keV."""
        return self.energy.offset_kev + self.energy.gain_kev * self.channels


BUILT_IN: dict[str, type[Device]] = {
    "eurotherm_3200": Eurotherm,
    "palmsens_emstat4": EmStat,
    "labjack_t7": LabJack,
    "amptek_dp5": Amptek,
}


def _not_built_in(schema: dict[str, Any]) -> None:
    schema["not"] = {"enum": sorted(BUILT_IN)}


class ForeignDevice(BaseModel):
    """A device of a third party's driver: the common keys are ours, the others are the driver's own."""

    model_config = ConfigDict(
        extra="allow", strict=True, frozen=True, title="Device of a third party's driver"
    )

    driver: str = Field(json_schema_extra=_not_built_in)
    line: str
    period_s: Annotated[float, Quantity("s", above=0.0, high=60.0)] = Field(alias="period")

    @field_validator("driver")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in known_drivers():
            raise refuse(f"is no known driver{did_you_mean(value, known_drivers())}")
        return value

    def settings(self) -> dict[str, Any]:
        """Return the driver's own keys as they stand in the file, and ``period_s``."""
        return {**(self.model_extra or {}), "period_s": self.period_s}


def known_drivers() -> frozenset[str]:
    """Return the built-in drivers and those installed under the entry-point group."""
    return frozenset(BUILT_IN) | {point.name for point in entry_points(group=DRIVER_GROUP)}


def _model_of(value: Any) -> str:
    """Choose the model of a table by its driver; an unknown one is refused by the last model."""
    driver = value.get("driver") if isinstance(value, Mapping) else getattr(value, "driver", None)
    return driver if isinstance(driver, str) and driver in BUILT_IN else FOREIGN


AnyDevice = Annotated[
    Annotated[Eurotherm, Tag("eurotherm_3200")]
    | Annotated[EmStat, Tag("palmsens_emstat4")]
    | Annotated[LabJack, Tag("labjack_t7")]
    | Annotated[Amptek, Tag("amptek_dp5")]
    | Annotated[ForeignDevice, Tag(FOREIGN)],
    Discriminator(_model_of),
]
