"""The ``[sample]`` and ``[analysis]`` tables of an experiment: what is there, what to count."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from controller.config.base import Rules, Table, refuse, rules
from controller.config.calibrations import HOSTS
from controller.config.chemistry import CHEMISTRIES
from controller.config.problems import did_you_mean
from controller.config.quantities import Quantity

LITHIUM_BAND_HIGH_KEV = 505.0  # above begins the annihilation line, 511 keV
SUM_TOLERANCE = 0.005  # of mass fractions

# X-ray lines that the reduction knows, by element; lithium is seen by its gamma line.
XRAY_LINES: dict[str, tuple[str, ...]] = {
    "Al": ("Ka",),
    "Si": ("Ka",),
    "P": ("Ka", "Kb"),
    "S": ("Ka",),
    "Mn": ("Ka", "Kb"),
    "Fe": ("Ka", "Kb"),
    "Co": ("Ka", "Kb"),
    "Ni": ("Ka", "Kb"),
    "Cu": ("Ka",),
    "Zr": ("La", "Ka", "Kb"),
    "La": ("La", "Lb"),
    "Ta": ("La",),
}

Word = Annotated[str, Field(min_length=1, max_length=60)]
Energy = Annotated[float, Quantity("keV", above=0.0)]
Band = Annotated[tuple[Energy, Energy], Field(strict=False)]
Relative = Annotated[float, Quantity("1", low=0.0, high=1.0)]


class Layer(Table):
    """``[[sample.layer]]``: one layer, in order along the interface normal (+y)."""

    name: Word
    kind: Literal["metal", "separator", "host"]
    host: str | None = None
    mass_fractions: dict[str, Annotated[float, Field(ge=0.0, le=1.0)]] = Field(default_factory=dict)
    normaliser: str | None = None
    in_field: Annotated[float, Quantity("1", above=0.0, high=1.0)] | None = (
        None  # share of the raster, for estimates
    )

    @field_validator("host")
    @classmethod
    def _known_host(cls, value: str | None) -> str | None:
        if value is not None and value not in HOSTS:
            raise refuse("is no host compound that a calibration exists for" + did_you_mean(value, HOSTS))
        return value

    @model_validator(mode="after")
    def _complete(self) -> Layer:
        with rules() as rule:
            if self.kind == "host":
                self._check_host(rule)
            elif self.host is not None:
                rule.broken(
                    "host",
                    f'belongs to kind = "host", this layer is a {self.kind}: x and SoC exist only for hosts',
                )
            total = sum(self.mass_fractions.values())
            if self.mass_fractions and abs(total - 1.0) > SUM_TOLERANCE:
                rule.broken("mass_fractions", f"add up to {total:.4g}, not to 1", "1")
        return self

    def _check_host(self, rule: Rules) -> None:
        if self.host is None:
            rule.broken("host", 'is missing: the compound that hosts the lithium, such as "LiCoO2"')
        elif self.mass_fractions and self.host not in self.mass_fractions:
            rule.broken("mass_fractions", f"do not name the host {self.host}")
        if not self.mass_fractions:
            rule.broken("mass_fractions", "is missing: the calibration belongs to one composition")
        if self.normaliser is None:
            rule.broken("normaliser", 'is missing: the element that represents this layer, such as "Co"')


class SampleTemperatures(Table):
    """Narrower than the station's, never wider."""

    low_k: Annotated[float, Quantity("K")] | None = Field(alias="low", default=None)
    high_k: Annotated[float, Quantity("K")] | None = Field(alias="high", default=None)


class SampleVoltages(Table):
    """Narrower than the station's, never wider."""

    low_v: Annotated[float, Quantity("V")] | None = Field(alias="low", default=None)
    high_v: Annotated[float, Quantity("V")] | None = Field(alias="high", default=None)


class SampleLimits(Table):
    """``[sample.limits]``: they count only where they are narrower than the station's."""

    temperature: SampleTemperatures = SampleTemperatures()
    voltage: SampleVoltages = SampleVoltages()
    current_a: Annotated[float, Quantity("A", above=0.0, c_rate=True)] | None = Field(
        alias="current", default=None
    )
    charge_coulomb: Annotated[float, Quantity("C", above=0.0)] | None = Field(alias="charge", default=None)
    dose_per_cm2: Annotated[float, Quantity("1/cm2", above=0.0)] | None = Field(alias="dose", default=None)


class Sample(Table):
    """``[sample]``."""

    name: Word
    chemistry: str
    capacity_coulomb: Annotated[float, Quantity("C", above=0.0)] = Field(alias="capacity")
    capacity_error: Annotated[float, Quantity("1", above=0.0, high=1.0)]
    theoretical_capacity_coulomb: Annotated[float, Quantity("C", above=0.0)] | None = Field(
        alias="theoretical_capacity", default=None
    )  # what C-rates refer to; default: capacity
    leakage_a: Annotated[float, Quantity("A", low=0.0)] = Field(alias="leakage", default=0.0)
    soc: Annotated[float, Quantity("1", low=0.0, high=1.0)] = 0.0  # at the start
    limits: SampleLimits = SampleLimits()
    layers: Annotated[tuple[Layer, ...], Field(alias="layer", min_length=2, strict=False)] = ()  # for scans

    @field_validator("chemistry")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in CHEMISTRIES:
            known = did_you_mean(value, CHEMISTRIES)
            raise refuse(f"is no chemistry that limits are known for{known}")
        return value

    @property
    def hosts(self) -> tuple[Layer, ...]:
        """The layers that have an x."""
        return tuple(layer for layer in self.layers if layer.kind == "host")


class AnalysisLine(Table):
    """``[[analysis.line]]``: one element to count. Window and background have defaults by element."""

    element: str
    detector: Literal["pixe", "pige"]
    line: str | None = None
    method: Literal["window", "projection", "fit"] = "window"
    window_kev: Band | None = Field(alias="window", default=None)
    background_kev: Annotated[tuple[Band, ...], Field(strict=False)] | None = Field(
        alias="background", default=None
    )

    @field_validator("element")
    @classmethod
    def _known(cls, value: str) -> str:
        if value != "Li" and value not in XRAY_LINES:
            raise refuse("is no element with a known line" + did_you_mean(value, ("Li", *XRAY_LINES)))
        return value

    @model_validator(mode="after")
    def _sensible(self) -> AnalysisLine:
        with rules() as rule:
            lithium = self.element == "Li"
            if lithium != (self.detector == "pige"):
                needed = "pige" if lithium else "pixe"
                rule.broken("detector", f'does not see {self.element}: it is counted by "{needed}"', needed)
            if self.line is not None and self.line not in XRAY_LINES.get(self.element, ()):
                known = ", ".join(XRAY_LINES.get(self.element, ())) or "none: leave it out"
                rule.broken("line", f"is no line of {self.element} that is known; known are {known}")
            self._check_bands(rule)
        return self

    def _check_bands(self, rule: Rules) -> None:
        bands = self.background_kev or ()
        named = [("window", self.window_kev)] if self.window_kev else []
        for key, (low, high) in [*named, *((f"background.{i}", band) for i, band in enumerate(bands))]:
            if low >= high:
                rule.broken(key, "must be a lower and a higher energy")
        if self.window_kev and any(
            band[0] < self.window_kev[1] and band[1] > self.window_kev[0] for band in bands
        ):
            rule.broken("background", "overlaps the window")
        if self.element == "Li":
            for index, band in enumerate(bands):
                if band[1] > LITHIUM_BAND_HIGH_KEV:
                    rule.broken(
                        f"background.{index}",
                        "reaches above 505 keV, where the annihilation line at 511 keV begins",
                        "505 keV",
                    )
                if self.window_kev and band[0] < self.window_kev[0]:
                    rule.broken(
                        f"background.{index}",
                        "lies below the line: lithium sits on the Compton continua of higher lines, its "
                        "background is taken on the high side",
                    )


class RelativeScans(Table):
    """Scans between which a relative SoC runs from 0 (``zero``) to 1 (``full``)."""

    zero: str
    full: str | None = None


class Priors(Table):
    """One-sigma systematic errors that differ from the defaults of the reduction."""

    normalisation: Relative | None = None
    cell_to_cell: Relative | None = None
    evaluation: Relative | None = None
    surface_layer: Relative | None = None
    beam_charge: Relative | None = None
    dead_time: Relative | None = None
    lithium_centroid_kev: Annotated[float, Quantity("keV", low=0.0, high=10.0)] | None = Field(
        alias="lithium_centroid", default=None
    )


class Analysis(Table):
    """``[analysis]``."""

    reference: str
    calibration: str | None = None
    interface: Annotated[tuple[str, str], Field(strict=False)]
    relative: RelativeScans | None = None
    same_cell: bool = True
    priors: Priors = Priors()
    lines: Annotated[tuple[AnalysisLine, ...], Field(alias="line", min_length=1, strict=False)]
