"""Steps that scan the beam over the sample: the raster, what ends a scan, and what it is for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from controller.config.base import Rules, Table, refuse, rules
from controller.config.problems import NEEDED_FOR
from controller.config.quantities import Quantity, show
from drivers.roles import Raster as ScanRaster

OnTimeout = Literal["continue", "pause", "abort", "ask"]
Detector = Literal["pixe", "pige"]
Title = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._%+-]{0,59}$")]
Duration = Annotated[float, Quantity("s", above=0.0, high=30 * 86400.0)]
Length = Annotated[float, Quantity("um")]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class StepBase(Table):
    """What every step may have."""

    name: Title | None = None
    on_timeout: OnTimeout = "abort"
    answer_within_s: Duration = Field(alias="answer_within", default=1800.0)  # with ask; then it is abort


class Raster(Table):
    """A rectangle of pixels about a centre, scanned line by line."""

    pixels: Annotated[tuple[int, int], Field(strict=False)]
    size_um: Annotated[tuple[Length, Length], Field(strict=False, alias="size")]
    dwell_s: Annotated[float, Quantity("s", low=1e-4)] = Field(alias="dwell")
    centre_um: Annotated[tuple[Length, Length], Field(strict=False, alias="centre")] = (0.0, 0.0)

    @model_validator(mode="after")
    def _sizes(self) -> Raster:
        with rules() as rule:
            for index in (0, 1):
                if not 2 <= self.pixels[index] <= 1024:
                    rule.broken(f"pixels.{index}", "must be from 2 to 1024", "2 to 1024")
                if self.size_um[index] <= 0.0:
                    rule.broken(f"size.{index}", "must be more than 0 um", "0 um")
        return self

    def scan(self, origin_um: tuple[float, float] = (0.0, 0.0)) -> ScanRaster:
        """Return the raster for the scanner, about an origin that ``move`` may have shifted."""
        return ScanRaster(
            nx=self.pixels[0],
            ny=self.pixels[1],
            width_um=self.size_um[0],
            height_um=self.size_um[1],
            dwell_s=self.dwell_s,
            centre_x_um=self.centre_um[0] + origin_um[0],
            centre_y_um=self.centre_um[1] + origin_um[1],
        )


class CountsGoal(Table):
    """Net counts of an element in a layer, all passes of this scan together."""

    element: str
    layer: str
    at_least: Annotated[int, Field(ge=1)]


class UncertaintyGoal(Table):
    """Statistical uncertainty of a quantity of a layer: absolute for x and SoC, relative for the others."""

    quantity: Literal["li_relative", "li_per_charge", "x", "soc_beam"]
    layer: str
    below: Annotated[float, Quantity("1", above=0.0, high=1.0)]


class ScanUntil(Table):
    """What ends a scan, at the end of a pass: whichever comes first."""

    passes: Count | None = None
    duration_s: Duration | None = Field(alias="duration", default=None)
    counts: CountsGoal | None = None
    uncertainty: UncertaintyGoal | None = None
    dose_per_cm2: Annotated[float, Quantity("1/cm2", above=0.0)] | None = Field(alias="dose", default=None)

    @model_validator(mode="after")
    def _something(self) -> ScanUntil:
        with rules() as rule:
            if not self.model_fields_set:
                rule.broken(
                    "", "needs an end: passes, duration, counts, uncertainty or dose, such as { passes = 4 }"
                )
        return self


class ScanBase(StepBase):
    """The beam over a raster, pass after pass."""

    raster: Raster
    until: ScanUntil | None = None
    timeout_s: Duration | None = Field(alias="timeout", default=None)

    @model_validator(mode="after")
    def _bounded(self) -> ScanBase:
        with rules() as rule:
            if self.until is not None:
                self._check_end(rule, self.until)
        return self

    def _check_end(self, rule: Rules, until: ScanUntil) -> None:
        if self.timeout_s is None:
            rule.broken("timeout", f"is missing: {NEEDED_FOR['timeout']}")
            return
        if until.duration_s is not None and until.duration_s > self.timeout_s:
            rule.broken(
                "timeout",
                f"is shorter than until.duration, {show(until.duration_s, 's')}: it would strike first",
            )
        beam_s = self.raster.scan().pass_s
        if beam_s > self.timeout_s:
            rule.broken(
                "timeout",
                f"is shorter than a single pass: {self.raster.pixels[0]} x {self.raster.pixels[1]} pixels of "
                f"{show(self.raster.dwell_s, 's')} are {show(beam_s, 's', 3)} of beam",
                show(beam_s, "s", 3),
            )
        elif until.passes is not None and until.passes * beam_s > self.timeout_s:
            rule.broken(
                "timeout",
                f"is too short for {until.passes} passes, which are "
                f"{show(until.passes * beam_s, 's', 3)} of beam",
                show(until.passes * beam_s, "s", 3),
            )


@dataclass(frozen=True)
class Tile:
    """One tile of a mosaic: its place among the others, and by how much it lies beside the middle."""

    column: int
    row: int
    shift_um: tuple[float, float]  # of its centre on the sample


class Mosaic(Table):
    """Tiles of one raster side by side, from one to the next by the stage: an overview of a large field.

    Neighbours share ``overlap`` pixels; the step is a whole number of pixels, so that tiles are stitched by
    counting. ``centre`` is where the stage stands for the middle of all of them, in its own coordinates.
    ``until`` and ``timeout`` of the scan hold for each tile.
    """

    tiles: Annotated[tuple[int, int], Field(strict=False)]
    centre_um: Annotated[tuple[Length, ...], Field(strict=False, alias="centre", min_length=2, max_length=3)]
    overlap: Annotated[int, Field(ge=0, le=512)] = 0

    @field_validator("tiles")
    @classmethod
    def _some(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not all(1 <= number <= 100 for number in value) or value == (1, 1):
            raise refuse("must be from 1 to 100 in each direction, and more than one in all", "1 to 100")
        return value

    def pitch_um(self, raster: Raster) -> tuple[float, float]:
        """Return the step from one tile to the next."""
        x, y = ((raster.pixels[n] - self.overlap) * raster.size_um[n] / raster.pixels[n] for n in (0, 1))
        return x, y

    def walk(self, raster: Raster) -> Iterator[Tile]:
        """Yield the tiles in the order in which they are scanned, row by row, every other row backwards."""
        (columns, rows), pitch_um = self.tiles, self.pitch_um(raster)
        for row in range(rows):
            for column in range(columns) if row % 2 == 0 else reversed(range(columns)):
                x, y = column - (columns - 1) / 2, row - (rows - 1) / 2
                yield Tile(column, row, (x * pitch_um[0], y * pitch_um[1]))


class Scan(ScanBase):
    """Maps of the sample. ``purpose`` is found from the place in the experiment unless it is given."""

    do: Literal["scan"]
    name: Title
    purpose: Literal["overview", "reference", "charging", "discharging", "after"] | None = None
    mosaic: Mosaic | None = None

    @model_validator(mode="after")
    def _tiled(self) -> Scan:
        if self.mosaic is None:
            return self
        with rules() as rule:
            if self.purpose not in (None, "overview"):
                rule.broken("purpose", "cannot be that of a mosaic, which is an overview", "overview")
            if self.mosaic.overlap >= min(self.raster.pixels):
                rule.broken("mosaic.overlap", "is the whole tile: it must be less than raster.pixels")
            until = self.until
            if until is None or until.counts is not None or until.uncertainty is not None:
                rule.broken("until", "of a mosaic is passes, duration or dose, of each tile")
        return self


class Calibrate(ScanBase):
    """A scan that serves the energy calibration only."""

    do: Literal["calibrate"]
    detectors: Annotated[tuple[Detector, ...], Field(min_length=1, strict=False)] = ("pixe", "pige")
