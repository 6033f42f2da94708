"""Programmable supplies that give a heater its power; a loop elsewhere decides how much."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from controller.config.base import rules
from controller.config.instruments.base import Device
from controller.config.quantities import Quantity

HIGHEST_V, HIGHEST_A = 60.0, 19.6  # of one output; the current limit needs 2 % more than the heater draws


class Cpx400dp(Device):
    """One output of a bench supply with a heater of known resistance; ``power_cap`` also ends in it."""

    line_kinds: ClassVar[tuple[str, ...]] = ("tcp", "serial")
    usual_line: ClassVar[Mapping[str, int]] = {"port": 9221}
    usual_period: ClassVar[str] = "0.5 s"

    driver: Literal["aimtti_cpx400dp"]
    output: Literal[1, 2] = 1
    heater_ohm: Annotated[float, Quantity("ohm", low=0.5, high=10000.0)] = Field(alias="heater")
    power_cap_w: Annotated[float, Quantity("W", above=0.0, high=420.0)] = Field(alias="power_cap")
    take_lock: bool = False

    @model_validator(mode="after")
    def _one_output_can_give_it(self) -> Cpx400dp:
        with rules() as rule:
            volt = math.sqrt(self.power_cap_w * self.heater_ohm)
            if volt > HIGHEST_V or volt / self.heater_ohm > HIGHEST_A:
                rule.broken(
                    "power_cap",
                    f"needs {volt:.1f} V and {volt / self.heater_ohm:.2f} A at {self.heater_ohm:g} ohm: "
                    f"one output gives {HIGHEST_V:g} V and {HIGHEST_A:g} A",
                )
        return self
