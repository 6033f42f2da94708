"""Which model reads a ``[device.X]`` table: one for each built-in driver, one for those of third parties.

A driver of a third party (entry-point group ``operando.drivers``) brings its own keys, which are handed to it
as they stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from importlib.metadata import entry_points
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator

from controller.config.base import refuse
from controller.config.instruments.amptek import Amptek
from controller.config.instruments.base import Composite, Device, Instrument
from controller.config.instruments.camera import FrameFolder, FrameLive
from controller.config.instruments.cell import EmStat
from controller.config.instruments.epics import EpicsPv
from controller.config.instruments.hexitec import Hexitec
from controller.config.instruments.host_pid import HostPid
from controller.config.instruments.keithley import Keithley2400, Keithley2450
from controller.config.instruments.labjack import LabJack
from controller.config.instruments.modbus_pid import ModbusPid
from controller.config.instruments.supply import Cpx400dp
from controller.config.instruments.temperature import Eurotherm
from controller.config.instruments.thermometers import M7015
from controller.config.instruments.zaber import Zaber
from controller.config.problems import did_you_mean
from controller.config.quantities import Quantity

DRIVER_GROUP = "operando.drivers"
FOREIGN = "another driver"  # tag of the model that takes third parties' keys

BUILT_IN: dict[str, type[Instrument]] = {
    "eurotherm_3200": Eurotherm,
    "host_pid": HostPid,
    "palmsens_emstat4": EmStat,
    "keithley_2400": Keithley2400,
    "keithley_2450": Keithley2450,
    "labjack_t7": LabJack,
    "amptek_dp5": Amptek,
    "frame_folder": FrameFolder,
    "frame_live": FrameLive,
    "hexitec": Hexitec,
    "zaber_ascii": Zaber,
    "icpdas_m7015": M7015,
    "aimtti_cpx400dp": Cpx400dp,
    "modbus_pid": ModbusPid,
    "epics_pv": EpicsPv,
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

    def hard_limits(self, limits: object, cell: object) -> Mapping[str, Any]:
        """Return nothing: what a foreign driver must refuse is not known here."""
        return {}

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


if TYPE_CHECKING:
    AnyDevice = Device | Composite | ForeignDevice
else:
    AnyDevice = Annotated[
        reduce(
            or_,
            [Annotated[model, Tag(tag)] for tag, model in {**BUILT_IN, FOREIGN: ForeignDevice}.items()],
        ),
        Discriminator(_model_of),
    ]
