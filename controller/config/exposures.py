"""Steps of the frame detectors: count frames until there are enough of them, or of what they show."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from controller.config.base import Table, rules
from controller.config.quantities import Quantity, show
from controller.config.scans import Duration, StepBase, Title

FrameDetectorRole = Literal["compton", "radiography"]
MOST_FRAMES = 1_000_000_000


class FrameUncertainty(Table):
    """Statistical uncertainty of what the frames are reduced to."""

    quantity: Literal["s"]  # the S-parameter of the whole detector
    below: Annotated[float, Quantity("1", above=0.0, high=1.0)]


class ExposureUntil(Table):
    """What ends an exposure: whichever comes first."""

    frames: Annotated[int, Field(ge=1, le=MOST_FRAMES)] | None = None
    duration_s: Duration | None = Field(alias="duration", default=None)
    counts: Annotated[int, Field(ge=1)] | None = None  # photons in all pixels, where photons are counted
    uncertainty: FrameUncertainty | None = None

    @model_validator(mode="after")
    def _something(self) -> ExposureUntil:
        with rules() as rule:
            if not self.model_fields_set:
                rule.broken(
                    "", "needs an end: frames, duration, counts or uncertainty, such as { frames = 8192 }"
                )
        return self


class Expose(StepBase):
    """Frames of one detector. The shutter is open, but for ``dark`` frames."""

    do: Literal["expose"]
    name: Title
    detector: FrameDetectorRole
    purpose: Literal["sample", "dark", "flat"] = "sample"
    until: ExposureUntil
    keep_frames: Annotated[int, Field(ge=0, le=MOST_FRAMES)] = 0  # kept whole, the first ones
    timeout_s: Duration = Field(alias="timeout")

    @model_validator(mode="after")
    def _consistent(self) -> Expose:
        until = self.until
        with rules() as rule:
            if until.duration_s is not None and until.duration_s > self.timeout_s:
                rule.broken(
                    "timeout",
                    f"is shorter than until.duration, {show(until.duration_s, 's')}: it would strike first",
                )
            for key in ("counts", "uncertainty"):
                counted = self.detector == "compton" and self.purpose == "sample"
                if getattr(until, key) is not None and not counted:
                    rule.broken(f"until.{key}", "needs photons that are counted: compton, not dark or flat")
        return self
