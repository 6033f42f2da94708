"""LabJack T7: beam scanner, beam monitor, relay, shutter, permit and interlock inputs on one box."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from controller.config.base import Table, refuse, rules
from controller.config.instruments.base import Device
from controller.config.quantities import Quantity

if TYPE_CHECKING:
    from controller.config.limits import CellWindow
    from controller.config.station import Limits

DAC_HIGH_V = 5.0  # DAC0 and DAC1 give about 0 to 5 V

Fio = Annotated[int, Field(ge=0, le=7)]
SwitchName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,30}$")]


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

    plays: ClassVar[frozenset[str]] = frozenset({"scanner"})
    line_kinds: ClassVar[tuple[str, ...]] = ("tcp",)
    usual_line: ClassVar[Mapping[str, int]] = {"port": 502}
    usual_period: ClassVar[str] = "0.1 s"
    begins_with: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "heater": ("relay", "permit", "watchdog"),
        "cell": ("permit",),
        "scanner": ("scanner", "beam_current", "permit", "watchdog"),
        "compton": ("shutter",),
        "radiography": ("shutter",),
    }

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

    def hard_limits(self, limits: Limits, cell: CellWindow | None) -> Mapping[str, Any]:
        """Return the longest time of an unblanked beam on one pixel."""
        return {"dwell_limit_s": limits.dwell_s}
