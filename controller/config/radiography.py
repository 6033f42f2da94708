"""``[radiography]``: what of the images of a camera is turned into transmission and lithium."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from controller.config.base import Table, rules
from controller.config.quantities import Quantity

Pixels = Annotated[tuple[int, int], Field(strict=False)]


class Rectangle(Table):
    """Rows and columns of pixels, from the first to behind the last, counted from 0."""

    rows: Pixels
    columns: Pixels

    @model_validator(mode="after")
    def _not_empty(self) -> Rectangle:
        with rules() as rule:
            for key in ("rows", "columns"):
                first, last = getattr(self, key)
                if not 0 <= first < last:
                    rule.broken(key, "must be a first pixel and, behind it, the end")
        return self


class Region(Rectangle):
    """A named part of the image."""

    name: Annotated[str, Field(min_length=1, max_length=40)]


class Radiography(Table):
    """How images are reduced while they come; the same as the options of ``operando reduce radiography``."""

    air: Rectangle  # where every image shows the open beam: the dose
    regions: Annotated[tuple[Region, ...], Field(alias="region", strict=False)] = ()
    along: Rectangle | None = None  # profiles run along its rows
    bin_px: Annotated[int, Field(ge=1, le=1000)] = Field(alias="bin", default=1)
    strips: Annotated[int, Field(ge=1, le=1000)] = 1
    pixel_um: Annotated[float, Quantity("um", above=0.0, high=10_000.0)] | None = Field(
        alias="pixel", default=None
    )
    wavelength_um: Annotated[float, Quantity("um", above=0.0, high=0.01)] | None = Field(
        alias="wavelength", default=None
    )
    beam_temperature_k: Annotated[float, Quantity("K", above=0.0, high=5000.0)] | None = Field(
        alias="beam_temperature", default=None
    )
    thickness_um: Annotated[float, Quantity("um", above=0.0, high=1e6)] | None = Field(
        alias="thickness", default=None
    )
    reference: str | None = None  # an exposure of the sample; without one the open beam

    @model_validator(mode="after")
    def _one_spectrum(self) -> Radiography:
        with rules() as rule:
            if self.wavelength_um is not None and self.beam_temperature_k is not None:
                rule.broken("wavelength", "contradicts beam_temperature: one says what the neutrons are")
        return self

    def settings(self) -> dict[str, Any]:
        """Return what the reduction is told: plain values."""
        return {
            "air": self.air.model_dump(), "regions": [one.model_dump() for one in self.regions],
            "along": None if self.along is None else self.along.model_dump(), "bin_px": self.bin_px,
            "strips": self.strips, "pixel_um": self.pixel_um,
            "wavelength_angstrom": _angstrom(self.wavelength_um),
            "maxwell_k": self.beam_temperature_k,
            "path_cm": None if self.thickness_um is None else round(1e-4 * self.thickness_um, 9),
            "reference": self.reference,
        }  # fmt: skip


def _angstrom(wavelength_um: float | None) -> float | None:
    """Return a wavelength as a person would write it: the powers of ten leave no crumbs."""
    return None if wavelength_um is None else round(1e4 * wavelength_um, 9)
