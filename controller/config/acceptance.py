"""``[acceptance]``: what is allowed while the instruments are tested, and what stands in place of a cell."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import Field

from controller.config.base import Table
from controller.config.quantities import Quantity


class Dummy(Table):
    """A resistor at the potentiostat, instead of a cell: between working and counter electrode."""

    resistance_ohm: Annotated[float, Quantity("ohm", low=1.0, high=1e9)] = Field(alias="resistance")
    power_w: Annotated[float, Quantity("W", above=0.0, high=100.0)] = Field(alias="power")
    tolerance: Annotated[float, Quantity("1", above=0.0, high=0.2)]


class StageLeave(Table):
    """Leave to move the stage: somebody has looked whether its way is free.

    Each axis goes by ``distance`` and back, within its limits in the table of the stage. Homing drives into
    the home sensor whatever those limits are, so it is allowed apart.
    """

    distance_um: Annotated[float, Quantity("um", low=1.0, high=1e5)] = Field(alias="distance")
    home: bool = False
    confirmed_by: Annotated[str, Field(min_length=2)]
    confirmed_on: date


class Acceptance(Table):
    """``[acceptance]``: for ``pytest hil_tests --station``; nothing else reads it."""

    dummy: Dummy | None = None
    stage: StageLeave | None = None
