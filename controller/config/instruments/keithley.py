"""Keithley sources as potentiostats."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from controller.config.base import Table, refuse
from controller.config.instruments.base import Device
from controller.config.quantities import Quantity
from drivers.keithley_plan import ABILITIES

if TYPE_CHECKING:
    from controller.config.limits import CellWindow
    from controller.config.station import Limits
    from drivers.roles import CellAbilities


class Interlock(Table):
    """The interlock or output-enable line: wired by a person to something that has a watchdog."""

    wired_to: Annotated[str, Field(min_length=3, max_length=200)]
    confirmed_by: Annotated[str, Field(min_length=2)]
    confirmed_on: datetime.date


class Keithley2400(Device):
    """Source of voltage with a current limit: constant current, constant voltage, no sweeps."""

    plays: ClassVar[frozenset[str]] = frozenset({"cell"})
    line_kinds: ClassVar[tuple[str, ...]] = ("serial", "tcp")
    usual_line: ClassVar[Mapping[str, int]] = {"baud": 57600}

    driver: Literal["keithley_2400"]
    sense: Literal["4-wire", "2-wire"] = "4-wire"
    nplc: Annotated[float, Field(ge=0.01, le=10.0)] = 1.0
    interlock: Interlock | None = None

    @field_validator("period_s")
    @classmethod
    def _slower_than_a_reading(cls, value: float) -> float:
        if not 0.2 <= value <= 10.0:
            raise refuse("must be from 0.2 s to 10 s: it is the interval of the samples", "0.2 s to 10 s")
        return value

    def settings(self) -> dict[str, Any]:
        """Return the settings for the driver."""
        return {**super().settings(), "interlock": self.interlock is not None}

    def hard_limits(self, limits: Limits, cell: CellWindow | None) -> Mapping[str, Any]:
        """Return the window that no program may leave, whatever it is asked for."""
        return {
            "voltage_low_v": cell.voltage_low_v if cell else limits.voltage.low_v,
            "voltage_high_v": cell.voltage_high_v if cell else limits.voltage.high_v,
            "current_limit_a": (cell or limits).current_a,
        }

    @property
    def abilities(self) -> CellAbilities:
        """Return what it can do to a cell."""
        return ABILITIES


class Keithley2450(Keithley2400):
    """The same on a socket, with a lease inside the instrument."""

    line_kinds: ClassVar[tuple[str, ...]] = ("tcp",)
    usual_line: ClassVar[Mapping[str, int]] = {"port": 5025}

    driver: Literal["keithley_2450"]  # type: ignore[assignment]
    lease_s: Annotated[float, Quantity("s", low=3.0, high=120.0)] = Field(alias="lease", default=10.0)
