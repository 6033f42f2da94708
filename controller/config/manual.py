"""The ``manual`` step: for a while, programs on this machine may command, inside these limits.

What is not named is not allowed: without ``heater`` nobody heats, without ``cell`` nobody drives the cell.
The limits come on top of those of station, chemistry and sample, which they cannot widen.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from controller.config.base import Table, rules
from controller.config.quantities import Quantity, show
from controller.config.scans import Count, Duration, Length, Raster, Scan, ScanUntil, StepBase


class ManualHeater(Table):
    """Between which temperatures, and how fast, the heater may be sent."""

    low_k: Annotated[float, Quantity("K")] = Field(alias="low")
    high_k: Annotated[float, Quantity("K")] = Field(alias="high")
    ramp_k_per_s: Annotated[float, Quantity("K/s", above=0.0)] = Field(alias="ramp")

    @model_validator(mode="after")
    def _ordered(self) -> ManualHeater:
        with rules() as rule:
            if self.low_k >= self.high_k:
                rule.broken("high", "is not above the low limit")
        return self


class ManualCell(Table):
    """How far the cell may be driven: ``charge`` is how far from where the step found it, either way."""

    low_v: Annotated[float, Quantity("V")] = Field(alias="low")
    high_v: Annotated[float, Quantity("V")] = Field(alias="high")
    current_a: Annotated[float, Quantity("A", above=0.0, c_rate=True)] = Field(alias="current")
    charge_coulomb: Annotated[float, Quantity("C", above=0.0)] = Field(alias="charge")

    @model_validator(mode="after")
    def _ordered(self) -> ManualCell:
        with rules() as rule:
            if self.low_v >= self.high_v:
                rule.broken("high", "is not above the low limit")
        return self


class ManualScan(Table):
    """What may be scanned: this raster, and no more passes than these in the whole step."""

    raster: Raster
    passes: Count


class ManualStage(Table):
    """The box in which the stage may be moved, in its own coordinates."""

    low_um: Annotated[tuple[Length, ...], Field(strict=False, min_length=2, max_length=3, alias="low")]
    high_um: Annotated[tuple[Length, ...], Field(strict=False, min_length=2, max_length=3, alias="high")]

    @model_validator(mode="after")
    def _ordered(self) -> ManualStage:
        with rules() as rule:
            if len(self.low_um) != len(self.high_um):
                rule.broken("high", "has another number of axes than low")
            elif any(low > high for low, high in zip(self.low_um, self.high_um, strict=True)):
                rule.broken("high", "is below low in one of the axes")
        return self


class Manual(StepBase):
    """Local programs may command for a while: a RunEngine, a SECoP client, a script of one's own.

    ``gone`` is what happens when the one in charge is not heard for ``silence`` (wall time): ``hold`` opens
    the circuit, ends the scan and keeps the temperature; ``off`` also switches the heater off.
    """

    do: Literal["manual"]
    gone: Literal["hold", "off"]
    silence_s: Annotated[float, Quantity("s", low=1.0, high=600.0)] = Field(alias="silence", default=10.0)
    heater: ManualHeater | None = None
    cell: ManualCell | None = None
    scan: ManualScan | None = None
    stage: ManualStage | None = None
    timeout_s: Duration = Field(alias="timeout")

    @model_validator(mode="after")
    def _something(self) -> Manual:
        with rules() as rule:
            if not (self.heater or self.cell or self.scan or self.stage):
                rule.broken("", "allows nothing: give it heater, cell, scan or stage, each with its limits")
            if self.scan is not None:
                beam_s = self.scan.passes * self.scan.raster.scan().pass_s
                if beam_s > self.timeout_s:
                    rule.broken(
                        "timeout",
                        f"is too short for {self.scan.passes} passes: {show(beam_s, 's', 3)} of beam",
                        show(beam_s, "s", 3),
                    )
        return self

    @property
    def uses(self) -> tuple[str, ...]:
        """The roles that the station must have for what this step allows."""
        needed = {
            "heater": self.heater, "cell": self.cell, "scanner": self.scan, "pixe": self.scan,
            "pige": self.scan, "stage": self.stage,
        }  # fmt: skip
        return tuple(role for role, table in needed.items() if table is not None)

    def scan_step(self, passes: int, name: str = "by hand") -> Scan:
        """Return passes over the raster of this step as a scan of the experiment file would ask for them.

        Raises:
            ValueError: the step allows no scan.
        """
        if self.scan is None:
            raise ValueError("this step allows no scan")
        until = ScanUntil.model_construct(
            passes=passes, duration_s=None, counts=None, uncertainty=None, dose_per_cm2=None
        )
        return Scan.model_construct(
            do="scan", name=name, on_timeout="continue", raster=self.scan.raster, until=until,
            timeout_s=self.timeout_s, purpose="overview", mosaic=None,
        )  # fmt: skip
