"""``[acceptance]``: what is connected in place of a cell while the instruments are tested."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from controller.config.base import Table
from controller.config.quantities import Quantity


class Dummy(Table):
    """A resistor at the potentiostat, instead of a cell: between working and counter electrode."""

    resistance_ohm: Annotated[float, Quantity("ohm", low=1.0, high=1e9)] = Field(alias="resistance")
    power_w: Annotated[float, Quantity("W", above=0.0, high=100.0)] = Field(alias="power")
    tolerance: Annotated[float, Quantity("1", above=0.0, high=0.2)]


class Acceptance(Table):
    """``[acceptance]``: for ``pytest hil_tests --station``; nothing else reads it."""

    dummy: Dummy | None = None
