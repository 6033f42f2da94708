"""Where the layers of one scan lie: levelled, registered to the reference, followed from block to block."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge.events import Segmentation
from edge.geometry import Floats, Grid, Pose, Registration, register, visible_range_um
from edge.levelling import REACH_UM, ElementMap, Interface, find_layers, fit_interface, layer_end_um
from edge.scan_data import Block, ScanData
from edge.settings import Settings

FOLLOW_PITCHES = 0.5  # a block's own position is used when its error is below this many row spacings


@dataclass(frozen=True)
class Placement:
    """The interface in one scan, and the layers as distances from it.

    ``bounds_um`` are the pure parts of the layers: free of the blur at every boundary, cut at the end of a
    layer but not at the end of the raster. A layer that the raster does not show has upper <= lower.
    """

    pose: Pose
    interface: Interface
    bounds_um: tuple[tuple[float, float], ...]
    block_um: Mapping[int, float] = field(default_factory=dict)  # position of the interface per block
    registration: Registration | None = None

    def pose_of(self, block: int) -> Pose:
        """Return the pose during one block of passes."""
        position = self.block_um.get(block, self.pose.position_um)
        return self.pose.moved(position_um=position - self.pose.position_um)

    def visible_bounds_um(self, ranges: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
        """Return the layers cut to what every given range shows."""
        low, high = max(r[0] for r in ranges), min(r[1] for r in ranges)
        return tuple((max(a, low), min(b, high)) for a, b in self.bounds_um)


def normaliser_maps(
    settings: Settings, segmentations: Mapping[str, Segmentation], blocks: Sequence[Block]
) -> list[ElementMap]:
    """Return the window counts of every normaliser per pixel, summed over blocks, with their exposure.

    Gross counts: the level on either side of an edge is fitted, background included. Exposure is the beam
    charge, or the dwell time where the charge is not known.
    """
    exposure = exposure_of(blocks)
    found = []
    for element in dict.fromkeys(layer.normaliser for layer in settings.layers if layer.normaliser):
        line = settings.line(element)
        if line is None:
            continue
        members = segmentations[line.detector].members(line.window.low_kev, line.window.high_kev)
        counts = sum(
            block.detectors[line.detector].segments[:-1][:, members].sum(axis=1, dtype=np.float64)
            for block in blocks
        )
        found.append(ElementMap(element, np.asarray(counts, np.float64), exposure))
    return found


def exposure_of(blocks: Sequence[Block]) -> Floats:
    """Return charge per pixel in units of its mean, or time where a block has no charge."""
    known = all(block.charge_known for block in blocks)
    total = np.sum([block.charge_coulomb if known else block.time_s for block in blocks], axis=0)
    mean = float(total.mean())
    result: Floats = total / mean if mean > 0.0 else np.asarray(total, np.float64)
    return result


def place_reference(
    settings: Settings, segmentations: Mapping[str, Segmentation], scan: ScanData
) -> Placement:
    """Find the layers, level the interface, and measure every other boundary from it.

    Raises:
        ValueError: if the layers are not seen or the interface cannot be fitted.
    """
    grid = _grid(scan)
    blocks = [scan.blocks[key] for key in sorted(scan.blocks)]
    maps = normaliser_maps(settings, segmentations, blocks)
    normalisers = [layer.normaliser for layer in settings.layers]
    needed = settings.layer_index(settings.interface[0]), settings.layer_index(settings.interface[1])
    found = find_layers(grid, maps, normalisers, needed)
    first, places = found.first_layer, list(found.boundaries_um)
    main = needed[0] - first
    interface = _fit(grid, maps, found.angle_rad, places, main)
    borders: list[tuple[float, float]] = []  # distance from the interface, half-width to keep away
    for index, place in enumerate(places):
        if index == main:
            borders.append((0.0, interface.resolved_um))
            continue
        start = Pose(interface.pose.angle_rad, place, grid.centre_x_um)
        try:
            other = fit_interface(grid, maps, start, _reach(places, index), fixed_angle=True)
        except ValueError:
            borders.append((place - interface.pose.position_um, interface.resolved_um + grid.pitch_y_um))
            continue
        borders.append((other.pose.position_um - interface.pose.position_um, other.resolved_um))
    bounds = _bounds(settings, grid, maps, interface.pose, first, borders)
    placement = Placement(interface.pose, interface, bounds)
    return _followed(placement, settings, segmentations, scan)


def place_scan(
    settings: Settings, segmentations: Mapping[str, Segmentation], scan: ScanData, reference: Placement
) -> Placement:
    """Level a scan and register it to the reference; its layers are those of the reference, moved along.

    Raises:
        ValueError: if the interface cannot be fitted.
    """
    grid = _grid(scan)
    blocks = [scan.blocks[key] for key in sorted(scan.blocks)]
    maps = normaliser_maps(settings, segmentations, blocks)
    normalisers = [layer.normaliser for layer in settings.layers]
    needed = settings.layer_index(settings.interface[0]), settings.layer_index(settings.interface[1])
    try:
        found = find_layers(grid, maps, normalisers, needed)
        main = needed[0] - found.first_layer
        blur_um = reference.interface.width_um
        interface = _fit(grid, maps, found.angle_rad, found.boundaries_um, main, blur_um)
    except ValueError:
        pose = reference.pose
        start = Pose(pose.angle_rad, pose.position_at_um(grid.centre_x_um), grid.centre_x_um)
        interface = fit_interface(grid, maps, start, known_blur_um=reference.interface.width_um)
    placement = Placement(
        interface.pose,
        interface,
        reference.bounds_um,
        registration=register(interface.pose, reference.pose),
    )
    return _followed(placement, settings, segmentations, scan)


def visible(scan: ScanData, placement: Placement) -> tuple[float, float]:
    """Return the distances from the interface that every block of a scan shows over the full width."""
    ranges = [visible_range_um(_grid(scan), placement.pose_of(key)) for key in scan.blocks]
    return max(low for low, _ in ranges), min(high for _, high in ranges)


def _followed(
    placement: Placement, settings: Settings, segmentations: Mapping[str, Segmentation], scan: ScanData
) -> Placement:
    """Fit the place of the interface in every block where its counts allow, at the angle of the scan."""
    if len(scan.blocks) < 2:
        return placement
    grid = _grid(scan)
    places: dict[int, float] = {}
    blur_um = placement.interface.width_um
    for key in sorted(scan.blocks):
        maps = normaliser_maps(settings, segmentations, [scan.blocks[key]])
        try:
            fit = fit_interface(
                grid, maps, placement.pose, width_um=blur_um, known_blur_um=blur_um, fixed_angle=True
            )
        except ValueError:
            continue
        if fit.pose.sigma_position_um < FOLLOW_PITCHES * grid.pitch_y_um:
            places[key] = fit.pose.position_um
    return Placement(placement.pose, placement.interface, placement.bounds_um, places, placement.registration)


def _fit(
    grid: Grid,
    maps: Sequence[ElementMap],
    angle_rad: float,
    places: Sequence[float],
    main: int,
    known_blur_um: float = 0.0,
) -> Interface:
    start = Pose(angle_rad, places[main], grid.centre_x_um)
    return fit_interface(grid, maps, start, _reach(places, main), known_blur_um=known_blur_um)


def _reach(places: Sequence[float], index: int) -> tuple[float, float]:
    """Return how far to fit below and above a boundary without meeting the next one."""
    below = places[index] - places[index - 1] if index > 0 else math.inf
    above = places[index + 1] - places[index] if index + 1 < len(places) else math.inf
    return min(0.7 * below, REACH_UM), min(0.7 * above, REACH_UM)


def _bounds(
    settings: Settings,
    grid: Grid,
    maps: Sequence[ElementMap],
    pose: Pose,
    first: int,
    borders: Sequence[tuple[float, float]],
) -> tuple[tuple[float, float], ...]:
    """Return the pure part of each layer; open ends are infinite unless the layer ends inside the raster."""
    by_element = {m.element: m for m in maps}
    count, spacing = len(settings.layers), 0.5 * grid.pitch_y_um
    bounds = [(0.0, 0.0)] * count
    last = first + len(borders)
    for index in range(first, last + 1):
        low, high = -math.inf, math.inf
        if index > first:
            place, margin = borders[index - first - 1]
            low = place + margin + spacing
        if index < last:
            place, margin = borders[index - first]
            high = place - margin - spacing
        normaliser = by_element.get(settings.layers[index].normaliser or "")
        if normaliser is not None and index == last:
            end = layer_end_um(grid, normaliser, pose, low, upwards=True)
            high = high if end is None else end - grid.pitch_y_um
        if normaliser is not None and index == first:
            end = layer_end_um(grid, normaliser, pose, high, upwards=False)
            low = low if end is None else end + grid.pitch_y_um
        bounds[index] = (low, high)
    return tuple(bounds)


def _grid(scan: ScanData) -> Grid:
    if scan.start.grid is None or not scan.blocks:
        raise ValueError(f"scan {scan.start.name}: no good pass with a raster")
    return scan.start.grid
