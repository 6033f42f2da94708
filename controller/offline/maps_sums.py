"""What a file of maps holds: counts in windows as plain integers, which add up exactly over frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.files.foreign_maps import ForeignMap
from drivers.files.recordings import RecordedMap
from drivers.files.recordings_images import RecordedImages, RecordedMassMap
from edge.foreign_maps import LineMap, MassSums, Window, channel_windows, line_map, make_window
from edge.spectra import MapSums

Floats = NDArray[np.float64]
DEFAULT_HALF = {"keV": 0.085, "Da": 0.05}
MAX_IMAGES = 12  # of a stack without --lines
MASS_BINS = 4000  # of the sum spectrum that is drawn, up to twice as many
LIVE_BITS = 40  # live times are added in 2^-40 s
Sums = Mapping[str, Any]
ALIKE = {
    "kind": "kinds of data",
    "ny": "rows",
    "nx": "columns",
    "channels": "channels",
    "detectors": "detectors",
    "names": "images",
    "size_um": "sizes",
    "energy_kev": "energy calibrations",
}
"""What frames must have in common: key of their sums, in words."""


@dataclass(frozen=True)
class LineAsked:
    """A line as a person names it; a centre is needed on a spectral axis, not for named images."""

    name: str
    centre: float | None
    unit: str | None


@dataclass(frozen=True)
class MapOptions:
    """What a person may choose."""

    lines: tuple[LineAsked, ...] = ()
    half: tuple[float, str] | None = None
    background: bool = True
    regions: str = "quadtree"
    relative: float | None = 0.05
    minimum: float | None = None
    guide: str | None = None
    ratios: tuple[tuple[str, str], ...] = ()
    rectangle: tuple[int, int, int, int] | None = None
    gain_kev: float | None = None
    offset_kev: float = 0.0


@dataclass(frozen=True)
class Spectrum:
    """The sum spectrum of a map, for the figure."""

    axis: Floats
    counts: NDArray[np.int64]
    unit: str
    windows: tuple[Window, ...]


@dataclass(frozen=True)
class Counted:
    """What was counted, whatever the file was."""

    lines: tuple[LineMap, ...]
    live_s: Floats | None
    spectrum: Spectrum | None
    size_um: tuple[float, float] | None  # height, width
    notes: tuple[str, ...]


def sums_of(recorded: ForeignMap, options: MapOptions) -> Sums:
    """Return what one file holds in the windows: integers in plain arrays. Raises ValueError."""
    made = (
        _images(recorded, options) if isinstance(recorded, RecordedImages)
        else _masses(recorded, options) if isinstance(recorded, RecordedMassMap)
        else _spectra(recorded, options)
    )  # fmt: skip
    return {"file": recorded.path.name, "notes": list(recorded.notes), **made}


def added(parts: Sequence[Sums]) -> Sums:
    """Return the sums of several frames of one raster. Raises ValueError if they are not alike."""
    first = parts[0]
    if len(parts) == 1:
        return first
    for one in parts[1:]:
        unlike = [what for name, what in ALIKE.items() if one.get(name) != first.get(name)]
        if unlike:
            raise ValueError(f"{one['file']} and {first['file']} have different {', '.join(unlike)}")
    total = dict(first) | {name: sum(one[name] for one in parts) for name in ("maps", "not_counts")}
    live = [one["live_units"] for one in parts]
    total["live_units"] = None if any(one is None for one in live) else sum(live)
    total["bins"], total["sum_spectrum"] = _common_bins(parts)
    said = f"{len(parts)} frames added: " + ", ".join(one["file"] for one in parts)
    total["notes"] = [*dict.fromkeys(note for one in parts for note in one["notes"]), said]
    return total


def _common_bins(parts: Sequence[Sums]) -> tuple[Any, Any]:
    """Return the sum spectra on common bins: those of masses are powers of two wide and coarsen exactly."""
    if parts[0]["kind"] != "masses":
        spectra = [one["sum_spectrum"] for one in parts]
        return parts[0]["bins"], None if spectra[0] is None else sum(spectra)
    power = max(one["bins"][0] for one in parts)
    places = [
        (one["bins"][1] + np.arange(one["sum_spectrum"].size)) >> (power - one["bins"][0]) for one in parts
    ]
    low, high = min(int(p[0]) for p in places), max(int(p[-1]) for p in places)
    total = np.zeros(high - low + 1, np.int64)
    for place, one in zip(places, parts, strict=True):
        np.add.at(total, place - low, one["sum_spectrum"])
    return [power, low], total


def counted(sums: Sums, options: MapOptions) -> Counted:
    """Return lines with background and variance from sums. Raises ValueError for what is not counted."""
    shape, maps, unit = (sums["ny"], sums["nx"]), sums["maps"], sums["unit"]
    size = None if sums["size_um"] is None else (float(sums["size_um"][0]), float(sums["size_um"][1]))
    if sums["kind"] == "images":
        lines = tuple(
            LineMap(name, gross, np.zeros(shape), gross.astype(np.float64), (0.0, 0.0))
            for name, gross in zip(sums["names"], maps, strict=True)
        )
        notes = (*sums["notes"], "maps as delivered: no background is subtracted")
        return Counted(lines, None, None, size, notes)
    if sums["not_counts"]:
        raise ValueError(
            f"{sums['not_counts']} of {sums['n_values']} intensities are no whole numbers: their error is "
            "not known (export counts, not normalised intensities)"
        )
    windows = _windows(options, unit)
    maps = maps.reshape(len(windows), 3, *shape)
    lines = tuple(line_map(w, maps[k], sums["widths"][k]) for k, w in enumerate(windows))
    live = None if sums["live_units"] is None else np.ldexp(sums["live_units"].astype(np.float64), -LIVE_BITS)
    spectrum = Spectrum(_axis(sums), sums["sum_spectrum"], unit, windows)
    return Counted(lines, live, spectrum, size, tuple(sums["notes"]))


def _axis(sums: Sums) -> Floats:
    """Return the middle of every bin of the sum spectrum."""
    n = sums["sum_spectrum"].size
    if sums["kind"] == "masses":
        power, first = sums["bins"]
        return np.asarray(np.ldexp(first + np.arange(n) + 0.5, power), np.float64)
    *energy, centre = sums["energy_kev"]
    return np.asarray(np.polynomial.polynomial.polyval(np.arange(n) + centre, energy), np.float64)


def _spectra(recorded: RecordedMap, options: MapOptions) -> Sums:
    energy = (options.offset_kev, options.gain_kev) if options.gain_kev is not None else recorded.energy_kev
    if energy is None:
        raise ValueError('the file has no energy calibration: give --gain "10 eV" (and --offset "0 eV")')
    place = np.arange(recorded.n_channels) + recorded.centre
    windows = _windows(options, "keV")
    inside = channel_windows(windows, np.polynomial.polynomial.polyval(place, energy))
    table = np.broadcast_to(inside[:, None, :], (inside.shape[0], recorded.n_detectors, recorded.n_channels))
    sums = MapSums(recorded.ny * recorded.nx, recorded.n_detectors, table)
    for block in recorded.blocks():
        sums.add(block.pixel, block.detector, block.channel, block.counts)
    live = None
    if recorded.dwell_s is not None and recorded.dead_fraction is not None:
        seconds = recorded.dwell_s * (1.0 - recorded.dead_fraction.astype(np.float64)).sum(axis=2)
        live = np.rint(np.ldexp(seconds, LIVE_BITS)).astype(np.int64)
    size = (recorded.height_um, recorded.width_um)
    return {
        "kind": "spectra", "unit": "keV", "ny": recorded.ny, "nx": recorded.nx,
        "maps": sums.maps.sum(axis=1), "widths": inside.sum(axis=1).reshape(len(windows), 3).tolist(),
        "sum_spectrum": sums.spectra.sum(axis=0), "bins": None,
        "energy_kev": [*map(float, energy), float(recorded.centre)],
        "channels": recorded.n_channels, "detectors": recorded.n_detectors, "live_units": live,
        "not_counts": 0, "size_um": [float(v) for v in size if v] if size[0] and size[1] else None,
    }  # fmt: skip


def _masses(recorded: RecordedMassMap, options: MapOptions) -> Sums:
    windows = _windows(options, "Da")
    low, high = math.inf, -math.inf
    for spectrum in recorded.spectra():
        if spectrum.mass.size:
            low, high = min(low, float(spectrum.mass.min())), max(high, float(spectrum.mass.max()))
    if not low < high:
        raise ValueError("the file holds no spectra")
    power = math.frexp((high - low) / MASS_BINS)[1]
    first, last = math.floor(math.ldexp(low, -power)), math.floor(math.ldexp(high, -power))
    sums = MassSums(recorded.nx * recorded.ny, windows, np.ldexp(np.arange(first, last + 2.0), power))
    for spectrum in recorded.spectra():
        sums.add(spectrum.pixel, spectrum.mass, spectrum.intensity)
    widths = []
    for w in windows:
        width = [w.high - w.low, 0.0, 0.0]
        for band in w.bands:
            width[1 if band[1] <= w.low else 2] = band[1] - band[0]
        widths.append(width)
    return {
        "kind": "masses", "unit": "Da", "ny": recorded.ny, "nx": recorded.nx, "maps": sums.maps,
        "widths": widths, "sum_spectrum": sums.spectrum, "bins": [power, first], "live_units": None,
        "not_counts": sums.not_counts, "n_values": recorded.n_values, "size_um": _size(recorded),
    }  # fmt: skip


def _images(recorded: RecordedImages, options: MapOptions) -> Sums:
    wanted = [line.name for line in options.lines] or list(recorded.names[:MAX_IMAGES])
    missing = [name for name in wanted if name not in recorded.names]
    if missing:
        known = ", ".join(recorded.names[:MAX_IMAGES])
        raise ValueError(f"no map named {', '.join(missing)}; the file holds {known}")
    maps = np.zeros((len(wanted), recorded.ny, recorded.nx), np.int64)
    for k, name in enumerate(wanted):
        counts = recorded.plane(recorded.names.index(name)).astype(np.float64)
        if not np.isfinite(counts).all() or (counts < 0).any() or (counts != np.floor(counts)).any():
            raise ValueError(
                f"map {name!r} holds values that are no counts: their counting error is not known"
            )
        maps[k] = counts
    return {
        "kind": "images", "unit": "", "ny": recorded.ny, "nx": recorded.nx, "names": wanted, "maps": maps,
        "bins": None, "sum_spectrum": None, "live_units": None, "not_counts": 0, "size_um": _size(recorded),
    }  # fmt: skip


def _size(recorded: RecordedMassMap | RecordedImages) -> list[float] | None:
    pitch = recorded.pitch_um
    return None if pitch is None else [pitch[0] * recorded.ny, pitch[1] * recorded.nx]


def _windows(options: MapOptions, unit: str) -> tuple[Window, ...]:
    wrong = [line.name for line in options.lines if line.centre is None or line.unit != unit]
    if wrong or not options.lines:
        what = f"no place in {unit} for {', '.join(wrong)}" if wrong else "the file holds spectra"
        raise ValueError(f'{what}: give --lines "NAME=VALUE {unit}, ..."')
    half, given = options.half or (DEFAULT_HALF[unit], unit)
    if given != unit:
        raise ValueError(f"the half-width is in {given}, the axis of this file in {unit}")
    centres = [line.centre for line in options.lines if line.centre is not None]
    return tuple(
        make_window(line.name, line.centre, half, centres, options.background)
        for line in options.lines
        if line.centre is not None
    )
