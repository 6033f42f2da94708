"""HEXITEC cameras: frames over UDP, commands over a serial line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from controller.config.base import Table, refuse, rules
from controller.config.instruments.base import Device
from controller.config.quantities import Quantity
from drivers.hexitec_commands import BIAS_PER_VOLT, DAC_VOLT

FAST_BYTES_PER_S = 20e6
LOWEST_BIAS_V = BIAS_PER_VOLT * DAC_VOLT
LONGEST_RING_BYTES = 2 << 30
Time = Annotated[float, Quantity("s", above=0.0, high=86400.0)]


class Listen(Table):
    """Where the frames come to: an address of this machine and a UDP port."""

    host: Annotated[str, Field(min_length=1)] = "0.0.0.0"  # noqa: S104  # the camera's network is not ours to know
    port: Annotated[int, Field(ge=1, le=65535)] = 61649


class Refresh(Table):
    """Bias refresh against polarisation: each ``interval`` the bias is ``bias`` for ``time``; it settles."""

    interval_s: Time = Field(alias="interval")
    time_s: Time = Field(alias="time")
    bias_v: Annotated[float, Quantity("V", low=LOWEST_BIAS_V, high=0.0)] = Field(alias="bias", default=0.0)


class CameraScale(Table):
    """Nominal calibration of all pixels: energy = offset + gain * (ADU - dark)."""

    gain_kev: Annotated[float, Quantity("keV", above=0.0, high=10.0)] = Field(alias="gain")
    offset_kev: Annotated[float, Quantity("keV", low=-100.0, high=100.0)] = Field(alias="offset", default=0.0)


class Hexitec(Device):
    """Photon-counting camera."""

    plays: ClassVar[frozenset[str]] = frozenset({"compton"})
    line_kinds: ClassVar[tuple[str, ...]] = ("serial", "tcp")
    begins_with: ClassVar[Mapping[str, tuple[str, ...]]] = {"": ("energy",)}

    driver: Literal["hexitec"]
    listen: Listen = Listen()
    rows: Annotated[int, Field(ge=1, le=480)] = 80
    columns: Annotated[int, Field(ge=4, le=480)] = 80
    header: Literal["short", "extended"] = "short"
    packet_bytes: Annotated[int, Field(ge=64, le=65000)] = 8000
    interleaved: bool = True  # the four read-out blocks take turns in each row
    frame_rate_hz: Annotated[float, Quantity("Hz", above=0.0, high=50_000.0)] = Field(alias="frame_rate")
    buffer_s: Annotated[float, Quantity("s", low=0.1, high=60.0)] = Field(alias="buffer", default=4.0)
    bias_v: Annotated[float, Quantity("V", low=LOWEST_BIAS_V, high=0.0)] = Field(alias="bias")
    settle_s: Annotated[float, Quantity("s", low=0.1, high=600.0)] = Field(alias="settle", default=2.0)
    refresh: Refresh | None = None
    energy: CameraScale | None = None
    calibration: str | None = None  # a .npz file with gain and offset of each pixel
    threshold_kev: Annotated[float, Quantity("keV", above=0.0, high=1000.0)] = Field(alias="threshold")
    sharing: Literal["discriminate", "add"] = "discriminate"
    neighbours: Literal[1, 2] = 1
    whole_frames_bytes: Annotated[int, Field(ge=0)] = 0  # on the disk in one run, at most

    @field_validator("columns")
    @classmethod
    def _whole_blocks(cls, value: int) -> int:
        if value % 4:
            raise refuse("must be a multiple of 4: the camera has four read-out blocks")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Hexitec:
        with rules() as rule:
            if (self.energy is None) == (self.calibration is None):
                rule.broken("energy", "or calibration is needed, one of them: what makes energies of ADU")
            if self.rows * self.columns >= 1 << 16:
                rule.broken("rows", "and columns make more than 65535 pixels", "65535")
            if self.packet_bytes % 2:
                rule.broken("packet_bytes", "must be even: a sample has two bytes")
            if self.ring_frames * 2 * self.rows * self.columns > LONGEST_RING_BYTES:
                rule.broken("buffer", "is more than 2 GiB of frames in memory", "2 GiB")
        return self

    @property
    def ring_frames(self) -> int:
        """Frames in the ring between the acquire process and the reduction."""
        return math.ceil(self.buffer_s * self.frame_rate_hz)

    @property
    def is_fast(self) -> bool:
        """Whether its frames need the receive buffer that ``check`` and ``doctor`` demand."""
        return 2 * self.rows * self.columns * self.frame_rate_hz > FAST_BYTES_PER_S

    @property
    def acquire(self) -> list[str]:
        """Arguments of its acquire process."""
        return [
            "--host", self.listen.host, "--port", str(self.listen.port), "--rows", str(self.rows),
            "--columns", str(self.columns), "--packet-bytes", str(self.packet_bytes), "--header", self.header,
            "--slots", str(self.ring_frames),
        ]  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """Return the settings for the driver."""
        found: dict[str, Any] = {
            key: getattr(self, key)
            for key in (
                "rows", "columns", "header", "packet_bytes", "interleaved", "frame_rate_hz", "bias_v",
                "settle_s", "threshold_kev", "sharing", "neighbours", "ring_frames", "period_s",
            )
        }  # fmt: skip
        found |= {"listen_port": self.listen.port, "whole_frames_bytes": self.whole_frames_bytes}
        if self.refresh is not None:
            found |= {
                "refresh_interval_s": self.refresh.interval_s, "refresh_s": self.refresh.time_s,
                "refresh_bias_v": self.refresh.bias_v,
            }  # fmt: skip
        if self.energy is not None:
            found |= {"gain_kev": self.energy.gain_kev, "offset_kev": self.energy.offset_kev}
        if self.calibration is not None:
            found["calibration"] = self.calibration
        return found
