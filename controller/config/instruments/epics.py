"""Signals that EPICS serves, as monitors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from controller.config.base import Table, refuse, rules
from controller.config.instruments.base import Device
from controller.config.quantities import Quantity

PvName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_:;.<>\-\[\]{}+$/]{1,200}$")]
Within = Annotated[float, Quantity("s", above=0.0, high=3600.0)]


class EpicsChannel(Table):
    """One PV: a number with its unit, or a switch (anything but 0 is true)."""

    pv: PvName
    unit: Annotated[str, Field(max_length=20)] | None = None
    switch: bool = False
    within_s: Within | None = Field(alias="within", default=None)

    @model_validator(mode="after")
    def _one_kind(self) -> EpicsChannel:
        with rules() as rule:
            if self.switch and self.unit is not None:
                rule.broken("unit", "has no meaning for a switch")
            if not self.switch and self.unit is None:
                rule.broken("unit", 'is missing: such as "mA", "" for a plain number; or say switch = true')
        return self


class Heartbeat(Table):
    """A PV whose value must change at least once ``within`` so long."""

    pv: PvName
    within_s: Within = Field(alias="within")


class EpicsPv(Device):
    """PVs read over Channel Access or PVAccess, searched for at the host and port of the line."""

    line_kinds: ClassVar[tuple[str, ...]] = ("epics",)
    begins_with: ClassVar[Mapping[str, tuple[str, ...]]] = {"": ("channels.ring_current.unit",)}

    driver: Literal["epics_pv"]
    protocol: Literal["ca", "pva"] = "ca"
    channels: Annotated[dict[str, EpicsChannel], Field(min_length=1, max_length=50)]
    heartbeat: Heartbeat | None = None

    @field_validator("channels")
    @classmethod
    def _not_ours(cls, value: dict[str, EpicsChannel]) -> dict[str, EpicsChannel]:
        if "heartbeat" in value:
            raise refuse("has a channel called heartbeat, which is a name of the driver's own")
        return value
