"""Amptek DP5 and PX5: list-mode detectors."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from controller.config.base import Table, refuse
from controller.config.instruments.base import Device, Positive
from controller.config.quantities import Quantity


class MeasuredScale(Table):
    """How an energy scale was found: ``operando calibrate`` writes it. Told in every record and report."""

    offset_error_kev: Annotated[float, Quantity("keV", low=0.0)] = Field(alias="offset_error")
    gain_error_kev: Annotated[float, Quantity("keV", low=0.0)] = Field(alias="gain_error")
    correlation: Annotated[float, Field(ge=-1.0, le=1.0)]
    lines: Annotated[tuple[str, ...], Field(min_length=2, strict=False)]
    on: datetime.date
    source: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class EnergyScale(Table):
    """Nominal calibration: energy = offset + gain * channel; refined on the running spectrum."""

    offset_kev: Annotated[float, Quantity("keV")] = Field(alias="offset")
    gain_kev: Annotated[float, Quantity("keV", above=0.0)] = Field(alias="gain")
    measured: MeasuredScale | None = Field(default=None, exclude=True)  # not the driver's business


class Amptek(Device):
    """Digital pulse processor in list mode; ``detector`` says what is connected to it."""

    plays: ClassVar[frozenset[str]] = frozenset({"pixe", "pige"})
    line_kinds: ClassVar[tuple[str, ...]] = ("udp", "serial")
    usual_line: ClassVar[Mapping[str, int]] = {"port": 10001, "baud": 115200}
    usual_period: ClassVar[str] = "0.05 s"

    driver: Literal["amptek_dp5"]
    detector: Literal["sdd", "hpge"]
    channels: Literal[256, 512, 1024, 2048, 4096, 8192]
    energy: EnergyScale
    fifo_words: Positive
    list_clock_s: Annotated[float, Quantity("s")] = Field(alias="list_clock")
    resolution_kev: Annotated[float, Quantity("keV", above=0.0, high=20.0)] | None = Field(
        alias="resolution", default=None
    )
    fast_dead_s: Annotated[float, Quantity("s", above=0.0, high=1e-3)] | None = Field(
        alias="fast_dead", default=None
    )
    lifetime_s: Annotated[float, Quantity("s", low=10.0, high=1e6)] | None = Field(
        alias="lifetime", default=None
    )
    commands: dict[str, str] = Field(default_factory=dict)

    @field_validator("list_clock_s")
    @classmethod
    def _clock(cls, value: float) -> float:
        if not any(abs(value / one - 1.0) < 1e-9 for one in (1e-6, 1e-7)):
            raise refuse('must be "1 us" or "100 ns": this instrument has no other', "1 us or 100 ns")
        return value

    @property
    def highest_kev(self) -> float:
        """Energy at the end of the spectrum, keV."""
        return self.energy.offset_kev + self.energy.gain_kev * self.channels
