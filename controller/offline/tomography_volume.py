"""A volume to porosity, tortuosity, roughness and maps; the report of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.offline.technique import Array, Axis
from controller.offline.tomography import VolumeOptions
from controller.offline.tomography_words import volume_text
from controller.offline.values import finite, quantity
from drivers.files.npz_arrays import arrays_of
from drivers.files.recordings_images import RecordedVolume
from edge import roughness as rough
from edge import tomography_segment as segment
from edge.tomography_register import Registration, Scale, depth_maps, downsampled, register
from edge.tomography_segment import Region, Threshold
from edge.tomography_transport import Transport, directional_diffusion, tortuosity
from edge.uncertainty import Estimate

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
MAX_VOXELS = 1 << 31  # one byte each
NAMES = "zyx"


@dataclass(frozen=True)
class Pores:
    """A segmented volume, depth first."""

    pores: Mask
    inside: Mask | None
    softer: tuple[float, ...]  # change of the porosity of each region with the threshold, one sigma
    threshold: Threshold | None
    bounds: tuple[tuple[int, int], ...]
    middle: NDArray[Any] | None  # a grey cut through the middle, (depth, across), for the figure


@dataclass(frozen=True)
class Onto:
    """The volume on a coarse map."""

    measured: Floats
    sigma: Floats
    maps: Floats  # (regions, ny, nx): solid volume, in voxels
    model: Floats  # all regions together
    registration: Registration
    pitch_um: float


@dataclass(frozen=True)
class VolumeReport:
    """What a volume says."""

    data: dict[str, Any]
    text: str
    found: Pores
    regions: tuple[Region, ...]
    profile: Floats
    surface: rough.Roughness | None
    onto: Onto | None
    voxel_um: float | None

    def figures(self, fmt: str) -> Iterator[tuple[str, bytes]]:
        """Yield (name, picture) of each figure."""
        from controller.offline import figures_tomography as draw

        yield "porosity", draw.saved(draw.porosity(self), fmt)
        if self.surface is not None:
            yield "roughness", draw.saved(draw.surface(self), fmt)
        if self.onto is not None:
            yield "registration", draw.saved(draw.registration(self), fmt)

    def arrays(self) -> Iterator[Array]:
        """Yield the profile, heights and maps."""
        pitch, unit = (1.0, "voxel") if self.voxel_um is None else (self.voxel_um, "um")
        place = np.asarray((np.arange(self.profile.size) + 0.5) * pitch, np.float64)
        depth = Axis("depth", place, unit)
        yield Array("porosity_profile", self.profile, "1", None, (depth,), "porosity of every plane")
        if self.surface is not None:
            yield Array("height_about_plane", self.surface.residual, unit, None, (), "Z of R_a and R_q")
        if self.onto is not None:
            yield Array(
                "solid_on_map", self.onto.maps, "voxel", None, (), "solid per region under each map pixel"
            )


def reduce_volume(recorded: RecordedVolume, options: VolumeOptions) -> VolumeReport:
    """Reduce one volume. Raises ValueError for options that do not fit it."""
    voxel = options.voxel_um or recorded.voxel_um
    found = _pores(recorded, options)
    regions = tuple(
        segment.region_porosity(found.pores, found.inside, first, last, softer)
        for (first, last), softer in zip(found.bounds, found.softer[1:], strict=True)
    )
    whole = segment.region_porosity(found.pores, found.inside, 0, found.pores.shape[0], found.softer[0])
    _, sizes = segment.components(found.pores)
    total = int(found.pores.sum())
    profile = segment.porosity_profile(found.pores, found.inside)
    data: dict[str, Any] = {
        "file": recorded.path.name, "kind": "volume", "voxels": list(found.pores.shape), "voxel_um": voxel,
        "depth": NAMES[options.axis], "box": options.box,
        "threshold": None if found.threshold is None else quantity(
            found.threshold.value, 0.0, found.threshold.sigma, "grey"),
        "class_means": None if found.threshold is None else [found.threshold.dark, found.threshold.bright],
        "electrode_voxels": None if found.inside is None else int(found.inside.sum()),
        "porosity": _porosity(whole), "pore_voxels": total,
        "pore_solid_faces": segment.face_count(found.pores),
        "components": int(sizes.size - 1), "largest_component": int(sizes[1]) / total if total else None,
        "profile_min_max": [finite(float(np.nanmin(profile))), finite(float(np.nanmax(profile)))],
        "regions": [_porosity(region) for region in regions], "notes": list(recorded.notes),
    }  # fmt: skip
    data["transport"] = [
        _transport(found, region, axis, options)
        for axis in options.tortuosity
        for region in (whole, *(regions if len(regions) > 1 else ()))
    ]
    surface = _surface(found, options, voxel, data)
    onto = _onto(found, options, voxel, data)
    return VolumeReport(data, volume_text(data), found, regions, profile, surface, onto, voxel)


def _pores(recorded: RecordedVolume, options: VolumeOptions) -> Pores:
    """Segment slab by slab; only the yes-or-no volume is kept."""
    box = options.box or tuple((0, n) for n in recorded.shape)
    if any(last > n for (_, last), n in zip(box, recorded.shape, strict=True)):
        raise ValueError(f"the box ends outside the volume of {recorded.shape} voxels")
    (z0, z1), *plane = box
    shape = (z1 - z0, plane[0][1] - plane[0][0], plane[1][1] - plane[1][0])
    if math.prod(shape) > MAX_VOXELS:
        raise ValueError(f"{math.prod(shape)} voxels are more than {MAX_VOXELS}: give a --box")
    cut = tuple(slice(first, last) for first, last in plane)

    def raw(first: int, last: int) -> NDArray[Any]:
        return np.asarray(recorded.slab(z0 + first, z0 + last)[(slice(None), *cut)])

    threshold, middle = None, None
    read: segment.Reader = raw
    marks: tuple[float, ...] = (0.0,)
    if not _segmented(recorded, raw, shape):
        read = segment.smoothed(raw, shape) if options.median else raw
        counts, edges = segment.grey_histogram(read, shape)
        share = options.threshold_share
        threshold = (
            segment.otsu(counts, edges, share)
            if options.threshold is None
            else segment.given(options.threshold, counts, edges, share)
        )
        marks = (threshold.value, threshold.value - threshold.sigma, threshold.value + threshold.sigma)
        middle = _middle(read, shape, options.axis)
    volumes = [np.empty(shape, bool) for _ in marks]
    for first, last, *_ in segment.slabs(shape):
        part = read(first, last)
        for volume, mark in zip(volumes, marks, strict=True):
            dark = part <= mark
            volume[first:last] = dark if _pores_are_dark(options, threshold) else ~dark
    turned = [np.moveaxis(volume, options.axis, 0) for volume in volumes]
    pores = np.ascontiguousarray(turned[0])
    inside = _electrode(pores, options.opening) if options.opening > 0.0 else None
    bounds = segment.bounds(pores.shape[0], options.regions)
    softer = tuple(
        0.5 * abs(_share(turned[2], inside, *b) - _share(turned[1], inside, *b)) if threshold else 0.0
        for b in ((0, pores.shape[0]), *bounds)
    )
    return Pores(pores, inside, softer, threshold, tuple(bounds), middle)


def _pores_are_dark(options: VolumeOptions, threshold: Threshold | None) -> bool:
    if options.pore is None:
        return threshold is not None  # of a segmented volume, True is pore
    return options.pore == "dark"


def _segmented(recorded: RecordedVolume, read: segment.Reader, shape: tuple[int, int, int]) -> bool:
    """Return whether all voxels are 0 or 1."""
    if recorded.segmented:
        return True
    if recorded.dtype.kind not in "ui":
        return False
    return all(bool(np.isin(read(first, last), (0, 1)).all()) for first, last, *_ in segment.slabs(shape))


def _middle(read: segment.Reader, shape: tuple[int, int, int], axis: int) -> NDArray[Any]:
    """Return a grey cut with the depth along its first axis."""
    if axis == 0:
        return np.concatenate(
            [read(first, last)[:, shape[1] // 2] for first, last, *_ in segment.slabs(shape)]
        )
    plane = np.asarray(read(shape[0] // 2, shape[0] // 2 + 1)[0])
    return plane if axis == 1 else plane.T


def _electrode(pores: Mask, radius: float) -> Mask:
    """Return the filled electrode: narrow pores closed, thin parts opened, the largest part kept."""
    closed = ~segment.opened(pores, radius)
    found, size = segment.largest(segment.opened(closed, radius))
    if not size:
        raise ValueError(f"no part of the solid holds a ball of radius {radius:g} voxels: lower --opening")
    return found


def _share(pores: Mask, inside: Mask | None, first: int, last: int) -> float:
    part = pores[first:last]
    if inside is None:
        return float(part.mean())
    number = int(inside[first:last].sum())
    return float((part & inside[first:last]).sum() / number) if number else math.nan


def _porosity(region: Region) -> dict[str, Any]:
    p, c = region.porosity, region.correlation
    return {
        "planes": [region.first, region.last], "porosity": quantity(p.value, p.sigma_stat, p.sigma_sys, "1"),
        "voxels": c.voxels, "correlation_voxels": finite(c.range_voxels),
        "independent": finite(c.independent),
    }  # fmt: skip


def _transport(found: Pores, region: Region, axis: int, options: VolumeOptions) -> dict[str, Any]:
    """Solve for one region; ``axis`` is of the file, the volume is stored depth first."""
    order = [options.axis, *(k for k in range(3) if k != options.axis)]
    part = found.pores[region.first : region.last]
    if found.inside is not None:
        part = part & found.inside[region.first : region.last]
    solved = tortuosity(part, order.index(axis))
    entry: dict[str, Any] = {"axis": NAMES[axis], "planes": [region.first, region.last]}
    if solved is None:
        return entry | {"tortuosity": None, "why": "no pore leads through"}
    d, t = solved.diffusivity, solved.tortuosity
    entry |= {
        "diffusivity": quantity(d.value, d.sigma_stat, d.sigma_sys, "1"),
        "tortuosity": quantity(t.value, t.sigma_stat, t.sigma_sys, "1"), "porosity_through": solved.porosity,
        "flux_mismatch": solved.flux_mismatch, "iterations": solved.iterations,
    }  # fmt: skip
    if options.diffusion is not None:
        entry["directional_diffusion"] = _directional(options.diffusion, solved)
    return entry


def _directional(free: Estimate, solved: Transport) -> dict[str, Any]:
    """Return D eps / tau = D x diffusivity; the scatter of other volumes is not known from one."""
    tau = Estimate(solved.tortuosity.value, 0.0, solved.tortuosity.sigma_sys, "1")
    found = directional_diffusion(free, Estimate(solved.porosity, 0.0, 0.0, "1"), tau)
    return quantity(found.value, found.sigma_stat, found.sigma_sys, found.unit)


def _surface(
    found: Pores, options: VolumeOptions, voxel: float | None, data: dict[str, Any]
) -> rough.Roughness | None:
    if options.roughness is None:
        return None
    pitch, unit = (1.0, "voxel") if voxel is None else (voxel, "um")
    solid = ~found.pores if found.inside is None else found.inside
    surface = rough.roughness(rough.heights(solid, pitch, options.roughness), pitch, pitch, unit)
    data["roughness"] = {
        "side": options.roughness, "points": surface.points, "plane": list(surface.plane),
        "ra": quantity(surface.ra.value, surface.ra.sigma_stat, surface.ra.sigma_sys, unit),
        "rq": quantity(surface.rq.value, surface.rq.sigma_stat, surface.rq.sigma_sys, unit),
        "correlation_voxels": finite(surface.range_pixels),
    }  # fmt: skip
    return surface


def _onto(found: Pores, options: VolumeOptions, voxel: float | None, data: dict[str, Any]) -> Onto | None:
    if options.onto is None or options.onto_pitch_um is None:
        return None
    if voxel is None:
        raise ValueError("registration needs the size of a voxel: give --voxel")
    measured, sigma = _map(options.onto)
    pitch = options.onto_pitch_um
    y, x = (Scale(voxel, pitch, n) for n in measured.shape)
    solid = ~found.pores if found.inside is None else found.inside & ~found.pores
    thickness = solid.sum(axis=0, dtype=np.int64)
    where = register(thickness, measured, sigma, y, x, options.onto_start_um)
    place = (where.y.value, where.x.value)
    maps = depth_maps(solid, list(found.bounds), y, x, *place)
    data["registration"] = {
        "map": options.onto.name, "pitch_um": pitch,
        "y": quantity(where.y.value, where.y.sigma_stat, 0.0, "um"),
        "x": quantity(where.x.value, where.x.sigma_stat, 0.0, "um"),
        "chi2": where.chi2, "ndf": where.ndf, "correlation": where.correlation,
    }  # fmt: skip
    return Onto(measured, sigma, maps, downsampled(thickness, y, x, *place), where, pitch)


def _map(path: Path) -> tuple[Floats, Floats]:
    """Return a map and its errors: arrays map and sigma, or the only one as Poisson counts."""
    arrays = {name: array.astype(np.float64) for name, array in arrays_of(path).items() if array.ndim == 2}
    if {"map", "sigma"} <= set(arrays):
        return arrays["map"], arrays["sigma"]
    if len(arrays) != 1:
        raise ValueError(f"{path}: expected arrays map and sigma, or one array of counts")
    (counts,) = arrays.values()
    return counts, np.sqrt(np.maximum(counts, 1.0))
