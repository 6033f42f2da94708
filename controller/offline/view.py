"""What the report draws, as plain values in the units of its axes; ``gather`` fills it from a run's files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from controller.offline.overview import Overview
    from controller.offline.sweeps import Reduced

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Trace:
    """A reading in time, NaN where it was invalid."""

    minutes: Floats
    value: Floats


@dataclass(frozen=True)
class Bar:
    """A step of the experiment, minutes since the start, in the lane of what it works with."""

    title: str
    kind: str  # scan, charge, heat ...
    begin: float
    end: float | None
    lane: str  # beam, cell or heater


@dataclass(frozen=True)
class Mark:
    """Something that happened at one moment."""

    minutes: float
    kind: str  # pass, quarantined, trip, gap, switch, command
    text: str


@dataclass(frozen=True)
class Timeline:
    """The whole run on one axis of time, in minutes since it began."""

    bars: list[Bar]
    marks: list[Mark]
    gaps: list[tuple[float, float]]
    temperature_k: Trace
    target_k: Trace
    voltage_v: Trace
    current_ua: Trace
    charge_uah: Trace
    charge_sigma_uah: Trace
    end: float
    planned: tuple[Bar, ...] = ()  # as the experiment file expected it


@dataclass(frozen=True)
class Geometry:
    """Where the layers lie in a scan: the line y cos a - (x - pivot) sin a = d, for each boundary's d."""

    angle_rad: float
    pivot_x_um: float
    interface_um: float
    boundaries_um: tuple[float, ...]  # distances from the interface
    layers: tuple[tuple[str, float, float], ...]  # name, from, to: what counts as pure, distances


@dataclass(frozen=True)
class MapView:
    """One element in one scan."""

    element: str
    scan: str
    purpose: str
    values: Floats  # (ny, nx), row 0 at the lowest y
    unit: str
    extent_um: tuple[float, float, float, float]  # left, right, bottom, top
    passes: int
    geometry: Geometry | None
    sigma: float | None = None  # median error of a region, where that is worth saying


@dataclass(frozen=True)
class ProfileView:
    """One element of one scan along the interface normal."""

    element: str
    scan: str
    purpose: str
    position_um: Floats
    value: Floats
    sigma: Floats  # statistical
    sigma_sys: Floats
    unit: str


@dataclass(frozen=True)
class Window:
    """Where a line is counted and where its background is taken."""

    element: str
    line: str
    low_kev: float
    high_kev: float
    bands_kev: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class SpectrumView:
    """Counts of one detector per energy, over a whole scan."""

    detector: str
    scan: str
    purpose: str
    energy_kev: Floats
    counts: Floats
    live_s: float | None
    windows: tuple[Window, ...]
    fits: dict[str, tuple[Floats, Floats, Floats]] = field(default_factory=dict)  # element: keV, all, base


@dataclass(frozen=True)
class Point:
    """State of charge of one host layer over one group of passes, from both sides; in percent."""

    layer: str
    scan: str
    purpose: str
    passes: tuple[int, int]
    minutes: tuple[float, float] | None
    beam: float
    beam_stat: float
    beam_total: float
    charge: float | None
    charge_total: float | None


@dataclass(frozen=True)
class View:
    """Everything that is drawn."""

    timeline: Timeline | None
    maps: list[MapView]
    profiles: list[ProfileView]
    spectra: list[SpectrumView]
    points: list[Point]
    hosts: list[str]
    soc_maps: list[MapView] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    sweeps: list[Reduced] = field(default_factory=list)
    overviews: list[Overview] = field(default_factory=list)  # of mosaics
    radiographs: list[dict[str, Any]] = field(default_factory=list)  # states, as reduce told them
