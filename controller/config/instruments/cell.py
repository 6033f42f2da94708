"""Potentiostats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import field_validator

from controller.config.base import refuse
from controller.config.instruments.base import Device
from drivers.methodscript_models import CAPABILITIES
from drivers.roles import CellAbilities


class EmStat(Device):
    """Potentiostat that runs MethodSCRIPT."""

    plays: ClassVar[frozenset[str]] = frozenset({"cell"})
    line_kinds: ClassVar[tuple[str, ...]] = ("serial", "tcp")
    usual_line: ClassVar[Mapping[str, int]] = {"baud": 921600}

    driver: Literal["palmsens_emstat4"]
    model: Literal["es4_hr", "es4_lr"] = "es4_hr"

    @property
    def abilities(self) -> CellAbilities:
        """What this model can do to a cell: steps are compared with it before anything is started."""
        return CAPABILITIES[self.model].abilities

    @field_validator("period_s")
    @classmethod
    def _within_the_script(cls, value: float) -> float:
        if not 0.1 <= value <= 10.0:
            raise refuse("must be from 0.1 s to 10 s: it is the interval of the samples", "0.1 s to 10 s")
        return value
