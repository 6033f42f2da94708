"""Zaber stages: up to three axes on one line, with the limits that no move may leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from controller.config.base import Table, refuse, rules
from controller.config.instruments.base import Device
from controller.config.quantities import Quantity, show

Position = Annotated[float, Quantity("um", low=-2e6, high=2e6)]


class StageAxis(Table):
    """One axis. Coordinates are the controller's own: zero at the home sensor.

    ``centre`` is where the sample's origin lies in the undeflected beam; when the carriage goes on from there
    the beam wanders over the sample the other way, unless the stage is mounted ``reversed``.
    """

    device: Annotated[int, Field(ge=1, le=99)] = 1
    axis: Annotated[int, Field(ge=1, le=9)] = 1
    microstep_um: Annotated[float, Quantity("um", above=0.0, high=100.0)] = Field(alias="microstep")
    resolution: Annotated[int, Field(ge=1, le=4096)] = 64
    low_um: Position = Field(alias="low")
    high_um: Position = Field(alias="high")
    centre_um: Position = Field(alias="centre")
    reversed: bool = False
    within_um: Annotated[float, Quantity("um", above=0.0, high=1000.0)] | None = Field(
        alias="within", default=None
    )

    @model_validator(mode="after")
    def _ordered(self) -> StageAxis:
        with rules() as rule:
            if self.low_um >= self.high_um:
                rule.broken("high", "is not above the low limit")
            elif not self.low_um <= self.centre_um <= self.high_um:
                rule.broken("centre", "is outside the limits of this axis")
        return self

    @property
    def sign(self) -> float:
        """By how much the beam moves over the sample when the carriage moves by one."""
        return 1.0 if self.reversed else -1.0


class Zaber(Device):
    """Controller, or chain of controllers, with an x and a y axis and perhaps a z axis."""

    plays: ClassVar[frozenset[str]] = frozenset({"stage"})
    line_kinds: ClassVar[tuple[str, ...]] = ("serial", "tcp")
    usual_line: ClassVar[Mapping[str, int]] = {"baud": 115200}
    begins_with: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "": ("axes.x.device", "axes.x.axis", "axes.y.device", "axes.y.axis")
    }

    driver: Literal["zaber_ascii"]
    axes: dict[Literal["x", "y", "z"], StageAxis]
    move_timeout_s: Annotated[float, Quantity("s", low=1.0, high=3600.0)] = Field(
        alias="timeout", default=60.0
    )

    @field_validator("axes")
    @classmethod
    def _in_order(cls, value: dict[Literal["x", "y", "z"], StageAxis]) -> Any:
        if not {"x", "y"} <= set(value):
            raise refuse("must have an axis x and an axis y")
        seen: dict[tuple[int, int], str] = {}
        for name, axis in value.items():
            if (axis.device, axis.axis) in seen:
                raise refuse(f"gives {name} the address of {seen[axis.device, axis.axis]}")
            seen[axis.device, axis.axis] = name
        return {name: value[name] for name in ("x", "y", "z") if name in value}

    @field_validator("period_s")
    @classmethod
    def _not_too_often(cls, value: float) -> float:
        if value < 0.1:
            raise refuse("is faster than all axes can be read: 0.1 s at least", "0.1 s")
        return value

    def settings(self) -> dict[str, Any]:
        """Return what the driver takes; where the beam is concerns the host alone."""
        axes = {
            name: axis.model_dump(exclude={"centre_um", "reversed"}, exclude_none=True)
            for name, axis in self.axes.items()
        }
        return {"axes": axes, "move_timeout_s": self.move_timeout_s, "period_s": self.period_s}

    def shift_um(self, position_um: tuple[float, ...]) -> tuple[float, float]:
        """Return by how much the beam is displaced on the sample when the stage stands at a position."""
        x, y = self.axes["x"], self.axes["y"]
        return x.sign * (position_um[0] - x.centre_um), y.sign * (position_um[1] - y.centre_um)

    def beside_um(self, position_um: tuple[float, ...], shift_um: tuple[float, float]) -> tuple[float, ...]:
        """Return where the stage stands for a place that lies beside another on the sample."""
        x, y = (
            position_um[n] + axis.sign * shift_um[n]
            for n, axis in enumerate((self.axes["x"], self.axes["y"]))
        )
        return (x, y, *position_um[2:])

    def outside(self, position_um: tuple[float, ...]) -> str | None:
        """Return what is wrong with a position, None if the stage may go there."""
        if len(position_um) != len(self.axes):
            return f"has {len(position_um)} coordinates, and the stage has {len(self.axes)} axes"
        for (name, axis), value in zip(self.axes.items(), position_um, strict=True):
            if not axis.low_um <= value <= axis.high_um:
                return (
                    f"is outside the limits of axis {name}, {show(axis.low_um, 'um')} to "
                    f"{show(axis.high_um, 'um')}"
                )
        return None
