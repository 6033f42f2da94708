"""A temperature controller that is described here, register by register, and by nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from controller.config.base import Table, rules
from controller.config.instruments.base import Device
from controller.config.instruments.temperature import Heating, SensorBreak
from drivers.errors import OutOfRange
from drivers.modbus_pid_points import description

TEMPERATURE_UNITS = ("K", "degC", "degF")
Address = Annotated[int, Field(ge=0, le=0xFFFF)]
Number = Annotated[int, Field(ge=0, le=0xFFFFFFFF)]
Type = Literal["int16", "uint16", "int32", "uint32", "float32", "bit"]


class Coded(Table):
    """Where a value is and how it is coded; ``register`` is the protocol address, from 0."""

    address: Address = Field(alias="register")
    type: Type = "int16"
    function: Literal[1, 2, 3, 4] = 3
    write: Literal[5, 6, 16] | None = None
    word_order: Literal["high first", "low first"] = "high first"


class Value(Coded):
    """value = ``scale`` x number + ``offset``, in ``unit``; ``low`` and ``high`` are in that unit, too."""

    unit: Literal["K", "degC", "degF", "%", "1", "K/min", "K/s", "K/h", "degF/min"]
    scale: float = 1.0
    offset: float = 0.0
    low: float | None = None
    high: float | None = None
    invalid: list[Number] = Field(default_factory=list)


class Status(Coded):
    """A word or bit that says something; ``sensor`` means that there is no temperature then."""

    says: Annotated[str, Field(min_length=3)]
    sensor: bool = False
    mask: Number | None = None
    equals: list[int] | None = None
    unlike: list[int] | None = None


class Switch(Coded):
    """A choice of two numbers."""

    on: int
    off: int


class Ramp(Value):
    """Limit on the rate of the set-point; ``none`` is the number for no limit, or ``enable`` switches it."""

    none: float = 0.0
    enable: Switch | None = None


class Mode(Coded):
    """The numbers for automatic, off and manual."""

    auto: int
    off: int | None = None
    manual: int | None = None


class Named(Coded):
    """A register that tells the model: one of the numbers in ``equals``."""

    equals: Annotated[list[int], Field(min_length=1)]


class ModbusPid(Heating, Device):
    """An unlisted controller; what is left out does not exist for the driver."""

    line_kinds: ClassVar[tuple[str, ...]] = ("serial", "tcp")
    modbus: ClassVar[bool] = True
    usual_period: ClassVar[str] = "0.5 s"
    begins_with: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "": (
            "process_value.low", "process_value.high", "process_value.invalid", "setpoint.low",
            "setpoint.high", "setpoint.write",
        )
    }  # fmt: skip

    driver: Literal["modbus_pid"]
    unit_id: Annotated[int, Field(ge=1, le=254)] = 1
    framing: Literal["rtu", "tcp"] = "rtu"
    maker: str = "unlisted"
    model: str = "Modbus controller"
    process_value: Value
    setpoint: Value
    output: Value
    working_setpoint: Value | None = None
    manual_output: Value | None = None
    mode: Mode | None = None
    ramp: Ramp | None = None
    status: list[Status] = Field(default_factory=list)
    identity: Named | None = None
    setpoint_wears: bool = True
    sensor_break: SensorBreak

    def settings(self) -> dict[str, Any]:
        """Return the description as the driver takes it."""
        return self.model_dump(exclude={"driver", "line"}, exclude_none=True)

    @model_validator(mode="after")
    def _describes_a_controller(self) -> ModbusPid:
        with rules() as rule:
            for key in ("process_value", "setpoint", "working_setpoint"):
                value = getattr(self, key)
                if value is not None and value.unit not in TEMPERATURE_UNITS:
                    rule.broken(f"{key}.unit", "must be K, degC or degF")
            for key in ("process_value", "setpoint"):
                value = getattr(self, key)
                if value.low is None or value.high is None:
                    rule.broken(key, "needs low and high: beyond them it is no temperature, or no set-point")
            for key in ("output", "manual_output"):
                value = getattr(self, key)
                if value is not None and value.unit not in ("%", "1"):
                    rule.broken(f"{key}.unit", 'must be "%" or "1"')
            for key in ("setpoint", "manual_output", "mode", "ramp"):
                value = getattr(self, key)
                if value is not None and value.write is None:
                    rule.broken(f"{key}.write", "is missing: the function that writes it, 5, 6 or 16")
            if not any(status.sensor for status in self.status) and not self.process_value.invalid:
                rule.broken(
                    "status", "no word, and no invalid of process_value, tells a broken sensor: describe one"
                )
            try:
                description(self.settings())
            except OutOfRange as error:
                rule.broken("register", error.message)
        return self
