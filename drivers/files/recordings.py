"""What a reader hands over: plain records of what the file says, with nothing computed.

Channel i of a spectrum is the count in ADC bin i. ``energy_kev`` are polynomial coefficients c0, c1, c2 ...
as recorded, to be evaluated at ``channel + centre``: programs differ in whether the polynomial holds at the
lower edge of a bin (centre = 0.5 then gives the middle of the bin) or at its number (centre = 0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RecordedSpectrum:
    """One energy spectrum of one detector."""

    path: Path
    counts: NDArray[np.int64]  # (n_channels,)
    detector: int = 0
    live_s: float | None = None
    real_s: float | None = None
    started: datetime | None = None  # as written in the file: local time of that laboratory, no zone known
    energy_kev: tuple[float, ...] | None = None
    centre: float = 0.0
    title: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """Some counts of a map: entry j adds ``counts[j]`` to (pixel[j], detector[j], channel[j])."""

    pixel: NDArray[np.int64]  # y * nx + x
    detector: NDArray[np.int64]
    channel: NDArray[np.int64]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class RecordedMap:
    """Spectra on a raster. ``blocks()`` reads the file once more, in pieces of bounded size."""

    path: Path
    nx: int
    ny: int
    n_detectors: int
    n_channels: int
    blocks: Callable[[], Iterator[Block]]
    energy_kev: tuple[float, ...] | None = None
    centre: float = 0.0
    width_um: float | None = None
    height_um: float | None = None
    dwell_s: float | None = None
    dead_fraction: NDArray[np.float32] | None = None  # (ny, nx, n_detectors) as the file says, NaN = not told
    title: str = ""
    notes: tuple[str, ...] = ()

    def cube(self, limit_bytes: int = 256 << 20) -> NDArray[np.int64]:
        """Return all counts as (ny, nx, n_detectors, n_channels). Raises ValueError above ``limit_bytes``."""
        shape = (self.ny * self.nx, self.n_detectors, self.n_channels)
        size = 8 * shape[0] * shape[1] * shape[2]
        if size > limit_bytes:
            raise ValueError(f"{self.path}: the dense cube needs {size} bytes, above the limit {limit_bytes}")
        cube = np.zeros(shape, np.int64)
        for block in self.blocks():
            np.add.at(cube, (block.pixel, block.detector, block.channel), block.counts)
        return cube.reshape(self.ny, self.nx, self.n_detectors, self.n_channels)


@dataclass(frozen=True)
class EventBlock:
    """Some events of a list-mode recording, in time order."""

    channel: NDArray[np.uint16]
    time_ticks: NDArray[np.int64]


@dataclass(frozen=True)
class RecordedEvents:
    """A list-mode recording. ``blocks()`` reads the file once more, in pieces of bounded size."""

    path: Path
    n_channels: int
    tick_s: float
    blocks: Callable[[], Iterator[EventBlock]]
    n_events: int
    live_s: float | None = None
    real_s: float | None = None
    started: datetime | None = None
    energy_kev: tuple[float, ...] | None = None
    centre: float = 0.0
    title: str = ""
    notes: tuple[str, ...] = field(default=())

    def spectrum(self) -> RecordedSpectrum:
        """Return the events as a spectrum (counts per ADC channel)."""
        counts = np.zeros(self.n_channels, np.int64)
        for block in self.blocks():
            counts += np.bincount(block.channel, minlength=self.n_channels)[: self.n_channels]
        return RecordedSpectrum(
            path=self.path, counts=counts, live_s=self.live_s, real_s=self.real_s, started=self.started,
            energy_kev=self.energy_kev, centre=self.centre, title=self.title, notes=self.notes,
        )  # fmt: skip


Recording = list[RecordedSpectrum] | RecordedMap | RecordedEvents
