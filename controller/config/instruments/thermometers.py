"""Thermometers: modules that measure and energise nothing."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from controller.config.base import rules
from controller.config.instruments.base import Device
from controller.config.quantities import Quantity

OTHER_CODES = (0x2F,)  # alpha 0.003916


class M7015(Device):
    """One channel of an RTD module."""

    plays: ClassVar[frozenset[str]] = frozenset()
    line_kinds: ClassVar[tuple[str, ...]] = ("serial", "tcp")
    modbus: ClassVar[bool] = True
    one_of: ClassVar[str] = "channel"
    usual_period: ClassVar[str] = "0.5 s"

    driver: Literal["icpdas_m7015"]
    unit_id: Annotated[int, Field(ge=1, le=247)] = 1
    channel: Annotated[int, Field(ge=0, le=5)] = 0
    type_code: Literal[0x20, 0x21, 0x22, 0x23, 0x2E, 0x2F, 0x80] = 0x20
    data_format: Literal["raw", "engineering"] = "raw"
    r0_ohm: Annotated[float, Quantity("ohm", low=90.0, high=110.0)] = Field(alias="r0", default=100.0)
    lead_ohm: Annotated[float, Quantity("ohm", low=0.0, high=20.0)] = Field(alias="leads", default=0.0)
    tolerance_class: Literal["AA", "A", "B", "C"] | None = None

    @model_validator(mode="after")
    def _corrections_need_iec_60751(self) -> M7015:
        with rules() as rule:
            if self.type_code in OTHER_CODES and (self.r0_ohm != 100.0 or self.lead_ohm != 0.0):
                rule.broken(
                    "type_code",
                    f"{self.type_code:#04x} is no IEC 60751 element: r0 and leads cannot be put right",
                )
        return self
