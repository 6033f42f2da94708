"""Cameras for radiography: a watched folder, and a stream of messages."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from controller.config.base import refuse, rules
from controller.config.instruments.base import Device
from controller.config.quantities import Quantity

MOST_PIXELS = 1 << 26

Seconds = Annotated[float, Quantity("s", low=0.0, high=3600.0)]


class Camera(Device):
    """What both have. ``delay`` is how long after its exposure an image may arrive."""

    plays: ClassVar[frozenset[str]] = frozenset({"radiography"})

    pixels: Annotated[tuple[int, int], Field(strict=False)]  # columns, rows
    exposure_s: Annotated[float, Quantity("s", above=0.0, high=86400.0)] = Field(alias="exposure")
    delay_s: Seconds = Field(alias="delay", default=1.0)
    maker: Annotated[str, Field(min_length=1, max_length=80)] = "camera"

    @field_validator("pixels")
    @classmethod
    def _possible(cls, value: tuple[int, int]) -> tuple[int, int]:
        if min(value) < 1 or value[0] * value[1] > MOST_PIXELS:
            raise refuse(f"must be columns and rows, at most {MOST_PIXELS} pixels in all")
        return value


class FrameFolder(Camera):
    """Images in a folder: single TIFF or FITS files, or growing HDF5 files with ``dataset``."""

    line_kinds: ClassVar[tuple[str, ...]] = ("folder",)

    driver: Literal["frame_folder"]
    files: Annotated[str, Field(min_length=1, max_length=200)] = "*.tif"
    number: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    settle_s: Seconds = Field(alias="settle", default=1.0)
    patience_s: Seconds = Field(alias="patience", default=60.0)
    dataset: Annotated[str, Field(min_length=1, max_length=400)] | None = None
    numbers: Annotated[str, Field(min_length=1, max_length=400)] | None = None

    @field_validator("number")
    @classmethod
    def _one_group(cls, value: str | None) -> str | None:
        try:
            groups = re.compile(value or "()").groups
        except re.error as error:
            raise refuse(f"is no regular expression: {error}") from error
        if groups < 1:
            raise refuse("needs a group for the digits of the number, such as scan_([0-9]+)")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> FrameFolder:
        with rules() as rule:
            if "/" in self.files:
                rule.broken("files", "is a pattern of names, not a path: the folder is that of the line")
            if self.numbers is not None and self.dataset is None:
                rule.broken("numbers", "belongs to dataset: it numbers the images of an HDF5 file")
        return self


class FrameLive(Camera):
    """Images as ZeroMQ messages of areaDetector's NDPluginZMQ."""

    line_kinds: ClassVar[tuple[str, ...]] = ("zmq",)

    driver: Literal["frame_live"]
    socket: Literal["sub", "pull"] = "sub"
