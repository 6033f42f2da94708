"""``[resume]``: how an interrupted run goes on: by itself within these bounds, else a person is asked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controller.config.base import Table
from controller.config.quantities import Difference, Quantity
from controller.config.scans import Duration

AGE_S = 6 * 3600.0  # a night's power cut is worth a question, a reboot is not


class Resume(Table):
    """What an interruption may do to a run that goes on by itself; ``None`` is not looked at."""

    age_s: Duration = Field(alias="age", default=AGE_S)
    voltage_change_v: Annotated[float, Quantity("V", above=0.0)] | None = Field(
        alias="voltage_change", default=None
    )
    temperature_change_k: Annotated[float, Difference(above=0.0)] | None = Field(
        alias="temperature_change", default=None
    )
    answer_within_s: Duration = Field(alias="answer_within", default=1800.0)
    otherwise: Literal["leave", "continue", "abort"] = "leave"
