"""A temperature controller made of a thermometer and a supply; its loop runs in the host."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from controller.config.base import Table, rules
from controller.config.instruments.base import Composite
from controller.config.instruments.temperature import Heating
from controller.config.quantities import Quantity


class Gains(Table):
    """Parameters of the PID, as ``operando tune`` prints them; see controller/pid.py for the law."""

    kp_w_per_k: Annotated[float, Quantity("W/K", above=0.0, high=1000.0)] = Field(alias="kp")
    ti_s: Annotated[float, Quantity("s", low=1.0, high=1e5)] = Field(alias="ti")
    td_s: Annotated[float, Quantity("s", low=0.0, high=1000.0)] = Field(alias="td", default=0.0)
    filter_s: Annotated[float, Quantity("s", low=0.0, high=100.0)] = Field(alias="filter", default=1.0)


class GainsAt(Gains):
    """One row of a gain schedule: linear between the rows, the outer ones beyond them."""

    at_k: Annotated[float, Quantity("K")] = Field(alias="at")


class HostPid(Heating, Composite):
    """Thermometer, supply and the law between them."""

    parts: ClassVar[tuple[str, ...]] = ("thermometer", "supply")
    made_of: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "thermometer": ("icpdas_m7015",),
        "supply": ("aimtti_cpx400dp",),
    }
    off_parts: ClassVar[tuple[str, ...]] = ("supply",)
    usual_period: ClassVar[str] = "0.5 s"
    begins_with: ClassVar[Mapping[str, tuple[str, ...]]] = {"": ("gains",)}

    driver: Literal["host_pid"]
    thermometer: str
    supply: str
    power_w: Annotated[float, Quantity("W", above=0.0, high=420.0)] = Field(alias="power")
    gains: Gains | None = None
    schedule: list[GainsAt] | None = None
    feed_forward: bool = True

    @model_validator(mode="after")
    def _one_law(self) -> HostPid:
        with rules() as rule:
            if (self.gains is None) is (self.schedule is None):
                rule.broken("gains", "or schedule: one of both must be there (operando tune finds them)")
            rows = self.schedule or []
            if self.schedule is not None and not rows:
                rule.broken("schedule", "has no row")
            for index, (before, row) in enumerate(itertools.pairwise(rows), 1):
                if row.at_k <= before.at_k:
                    rule.broken(f"schedule.{index}.at", "must be above the row before it")
            if self.plant is not None and abs(self.plant.power_w - self.power_w) > 1e-6 * self.power_w:
                rule.broken(
                    "plant.power",
                    f"is {self.plant.power_w:g} W: here it is the power at output 1, which is power",
                    f"{self.power_w:g} W",
                )
            if self.thermometer == self.supply:
                rule.broken("supply", "is the device that measures the temperature")
        return self

    def settings(self) -> dict[str, Any]:
        """Return the settings for the loop: SI values under names that end in their unit."""
        return self.model_dump(exclude={"driver", "thermometer", "supply"}, exclude_none=True)
