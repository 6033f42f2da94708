"""Maps, profiles and spectra of a scan as product fields."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.analysis import Analysis
from edge.constants import ELEMENTARY_CHARGE_COULOMB
from edge.deadtime import PILE_UP_FLAG, pile_up_fraction
from edge.events import PassCounts
from edge.geometry import layer_weights
from edge.line_counts import coefficients, window_net
from edge.lithium import x_of
from edge.maps import NetMap, label_sums, labels_at, net_map, profile, quadtree
from edge.measure import observed_rates_hz, whole
from edge.placement import Placement, visible
from edge.scan_data import ATTO, Block, ScanData
from edge.settings import AnalysisLine

LOCAL_COUNTS = 400.0  # lithium counts wanted in each region of the map of the local state of charge
NANO, UM2_PER_CM2 = 1e9, 1e8
Fields = dict[str, Any]


def common(scan: ScanData, passes: list[int], *, partial: bool = False) -> Fields:
    """Return what every product of a scan says of itself."""
    return {
        "scan": scan.start.scan,
        "name": scan.start.name,
        "purpose": scan.start.purpose,
        "passes": passes,
        "partial": partial,
    }


def axes(scan: ScanData) -> Fields:
    """Return the shape of a map and the positions of its columns and lines."""
    grid = scan.start.grid
    if grid is None:
        return {}
    x, y = grid.positions_um()
    return {
        "shape": [grid.ny, grid.nx],
        "x_um": x[: grid.nx].astype(np.float32),
        "y_um": y[:: grid.nx].astype(np.float32),
    }


def element_maps(
    analysis: Analysis, scan: ScanData, running: Mapping[str, PassCounts] | None = None
) -> dict[str, Fields]:
    """Return net counts per pixel of every line, all good passes of a scan and the running one together."""
    found = {}
    passes = len(scan.passes)
    for line in analysis.settings.lines:
        segmentation = analysis.segmentations[line.detector]
        total = scan.detector_sum(line.detector) if scan.blocks else None
        pieces = [] if total is None else [(total.segments, total.channels_in)]
        if running is not None and line.detector in running:
            part = running[line.detector]
            pieces.append((part.segments, part.tables.channels_in))
        if not pieces:
            continue
        counts = np.sum([segments[:-1] for segments, _ in pieces], axis=0, dtype=np.float64)
        channels = np.sum([inside for _, inside in pieces], axis=0, dtype=np.float64)
        parts = passes + (1 if running is not None else 0)
        c = coefficients(segmentation, line.window, channels / max(parts, 1), analysis.slope.value)
        picture = net_map(counts, c)
        images = _projected(analysis, scan, line, None if running is None else running.get(line.detector))
        if images is not None:
            picture = NetMap(picture.gross, picture.gross - images[0], *images)
        found[line.element] = {
            "element": line.element,
            "unit": "counts",
            "values": picture.net.astype(np.float32),
            "sigma": picture.sigma.astype(np.float32),
            "gross": picture.gross.astype(np.uint32),
            "background": picture.background.astype(np.float32),
        }
    return found


def _projected(
    analysis: Analysis, scan: ScanData, line: AnalysisLine, running: PassCounts | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return counts and error per pixel of a line that is projected, None for other methods."""
    table = analysis.segmentations[line.detector].projection
    if line.method != "projection" or table is None:
        return None
    total = scan.detector_sum(line.detector) if scan.blocks else None
    parts = [
        part.projected[:-1] for part in (total, running) if part is not None and part.projected is not None
    ]
    net, variance = _projected_net(analysis, line, np.sum(parts, axis=0))
    return net, np.sqrt(variance)


def exposure_maps(analysis: Analysis, scan: ScanData) -> dict[str, Fields]:
    """Return beam charge and protons per area, and live time and pile-up per pixel of every detector."""
    block = whole(scan)
    found: dict[str, Fields] = {
        "charge": {
            "element": "charge",
            "unit": "pC",
            "known": block.charge_known,
            "values": (block.charge / (ATTO / 1e12)).astype(np.float32),
        }
    }
    grid = scan.start.grid
    if grid is not None and block.charge_known:
        area_cm2 = grid.pitch_x_um * grid.pitch_y_um / UM2_PER_CM2
        found["dose"] = {
            "element": "dose",
            "unit": "1/cm2",
            "values": (block.charge_coulomb / ELEMENTARY_CHARGE_COULOMB / area_cm2).astype(np.float32),
        }
    for name in analysis.segmentations:
        rate, time_s = observed_rates_hz(scan, name)
        tau_s = analysis.dead[name].tau_s
        live = time_s[:-1] * (1.0 - np.minimum(rate[:-1] * tau_s, 1.0))
        found[f"live_{name}"] = {
            "element": f"live_{name}",
            "unit": "s",
            "values": live.astype(np.float32),
        }
        fraction = pile_up_fraction(rate[:-1], tau_s, analysis.settings.detectors[name].fast_dead_s)
        found[f"pile_up_{name}"] = {
            "element": f"pile_up_{name}",
            "unit": "1",
            "flagged_above": PILE_UP_FLAG,
            "values": fraction.astype(np.float32),
        }
    return found


def profiles(analysis: Analysis, scan: ScanData, placement: Placement) -> dict[str, Fields]:
    """Return every line along the interface normal, by its own method: windows or projection.

    A line that is counted by fits has none: its fits exist per layer of whole scans (the result says so).
    """
    grid = scan.start.grid
    if grid is None:
        return {}
    keys = sorted(scan.blocks)
    known = all(scan.blocks[key].charge_known for key in keys)
    found = {}
    for line in analysis.settings.lines:
        total = scan.detector_sum(line.detector)
        if total is None or line.method == "fit":
            continue
        c = coefficients(
            analysis.segmentations[line.detector],
            line.window,
            total.channels_in / len(scan.passes),
            analysis.slope.value,
        )
        rate = observed_rates_hz(scan, line.detector)[0][:-1]
        live = 1.0 - np.minimum(rate * analysis.dead[line.detector].tau_s, 1.0)
        parts = [
            (
                placement.pose_of(key),
                scan.blocks[key].detectors[line.detector].segments[:-1],
                live * _exposure(scan.blocks[key], known=known),
            )
            for key in keys
        ]
        table = analysis.segmentations[line.detector].projection
        columns = [scan.blocks[key].detectors[line.detector].projected for key in keys]
        if line.method == "projection" and table is not None and all(one is not None for one in columns):
            sums = [one[:-1] for one in columns if one is not None]
            drawn = profile(grid, parts, c, sums, partial(_projected_net, analysis, line))
        else:
            drawn = profile(grid, parts, c)
        keep = np.isfinite(drawn.value)
        found[line.element] = {
            "element": line.element,
            "unit": "1/nC" if known else "1/s",
            "position_um": drawn.position_um[keep],
            "values": drawn.value[keep],
            "sigma": drawn.sigma_stat[keep],
            "sigma_sys": drawn.sigma_sys[keep],
            "sigma_position_um": drawn.sigma_position_um[keep],
            "gross": drawn.gross[keep],
            "background": drawn.background[keep],
            "exposure": drawn.exposure[keep],
            "angle_deg": math.degrees(placement.pose.angle_rad),
            "interface_um": placement.pose.position_um,
            "layers": [layer.name for layer in analysis.settings.layers],
            "layers_um": _finite(placement.visible_bounds_um([visible(scan, placement)])),
        }
    return found


def profiles_beside_reference(analysis: Analysis, scan: ScanData, placement: Placement) -> dict[str, Fields]:
    """Return the profiles of a scan, those of the reference beside them: moved so that the interfaces meet.

    Those of the reference itself, and of one whose layers are not found, stand alone.
    """
    drawn, reference = profiles(analysis, scan, placement), analysis.reference
    base = analysis.placement(reference) if reference is not None and reference is not scan else ""
    if reference is None or isinstance(base, str):
        return drawn
    for element, there in profiles(analysis, reference, base).items():
        if (here := drawn.get(element)) is not None:
            here |= {
                "reference_name": reference.start.name,
                "reference_position_um": there["position_um"] + here["interface_um"] - there["interface_um"],
                "reference_values": there["values"],
                "reference_sigma": there["sigma"],
            }
    return drawn


def local_soc(analysis: Analysis, scan: ScanData, placement: Placement) -> Fields | None:
    """Return the state of charge of host layers in regions with enough counts, relative to the reference.

    Regions are rectangles of whole pixels (quadtree); the reference gives the counts of the same material,
    whole pixels again. Counts of a region are by windows or by projection, as the lines ask. Statistical
    errors only. None without reference, table or host layer, and none where lithium or the normaliser is
    counted by fits, which exist per layer (the result says so).
    """
    reference, table, grid = analysis.reference, analysis.settings.table, scan.start.grid
    if reference is None or reference is scan or table is None or grid is None:
        return None
    other, base = reference.start.grid, analysis.placement(reference)
    if other is None or isinstance(base, str):
        return None
    bounds = placement.visible_bounds_um([visible(scan, placement), visible(reference, base)])
    values, sigma = np.full(grid.nx * grid.ny, np.nan), np.full(grid.nx * grid.ny, np.nan)
    for index, layer in enumerate(analysis.settings.layers):
        line = analysis.settings.line(layer.normaliser or "")
        if layer.kind != "host" or line is None or bounds[index][1] <= bounds[index][0]:
            continue
        lithium = analysis.settings.line("Li")
        if lithium is None or "fit" in (lithium.method, line.method):
            continue
        inside = layer_weights(grid, placement.pose, [bounds[index]])[:, 0] > 0.5
        shape = (grid.ny, grid.nx)
        fewest = np.minimum(element_maps(analysis, scan)["Li"]["values"], 1e9).reshape(shape)
        labels = quadtree(fewest, inside.reshape(shape), LOCAL_COUNTS)
        old = labels_at(labels, grid, placement.pose, other, base.pose)
        count = int(labels.max()) + 1
        pair = (lithium, line)
        signal = _ratio(analysis, scan, pair, labels, count) / _ratio(analysis, reference, pair, old, count)
        x, sigma_x = x_of(table, (signal[0], np.sqrt(signal[1])))
        used = labels.ravel() >= 0
        values[used] = ((1.0 - x) * 2.0)[labels.ravel()[used]]
        sigma[used] = (2.0 * sigma_x)[labels.ravel()[used]]
    if not np.isfinite(values).any():
        return None
    return {
        "element": "soc",
        "unit": "1",
        "values": values.astype(np.float32),
        "sigma": sigma.astype(np.float32),
        "minimum_counts": LOCAL_COUNTS,
    }


class _Signal:
    """A ratio per region with its relative variance; dividing adds relative variances."""

    def __init__(self, value: NDArray[np.float64], relative_variance: NDArray[np.float64]) -> None:
        self.value, self.relative = value, relative_variance

    def __truediv__(self, other: _Signal) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        value = self.value / other.value
        return value, value**2 * (self.relative + other.relative)


def _ratio(
    analysis: Analysis,
    scan: ScanData,
    lines: tuple[AnalysisLine, AnalysisLine],
    labels: NDArray[np.int32],
    count: int,
) -> _Signal:
    """Return the counts of the first line over those of the second in every region."""
    nets, relative = [], []
    for line in lines:
        net, variance = regions(analysis, scan, line, labels)
        short = np.full(count - len(net), np.nan)  # regions that this raster does not hold
        net, variance = np.append(net, short), np.append(variance, short)
        net = np.where(net > 0, net, np.nan)
        nets.append(net)
        relative.append(variance / net**2)
    return _Signal(nets[0] / nets[1], relative[0] + relative[1])


def regions(
    analysis: Analysis, scan: ScanData, line: AnalysisLine, labels: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return net counts and variance of a line in every region, by windows or by projection."""
    total = scan.detector_sum(line.detector)
    if total is None:
        return np.zeros(0), np.zeros(0)
    if line.method == "projection" and total.projected is not None:
        return _projected_net(analysis, line, label_sums(labels, total.projected[:-1]))
    segmentation, channels = analysis.segmentations[line.detector], total.channels_in / len(scan.passes)
    c = coefficients(segmentation, line.window, channels, analysis.slope.value)
    sums = label_sums(labels, total.segments[:-1])
    return window_net(sums, sums, c)


def _projected_net(
    analysis: Analysis, line: AnalysisLine, sums: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return net counts and variance from projected sums of whole pixels, shape (..., columns)."""
    table = analysis.segmentations[line.detector].projection
    if table is None:
        raise ValueError(f"{line.element} is not projected")
    net, variance = table.net(line.element, sums, sums, analysis.slope.value)
    return net, np.maximum(variance, table.least_variance(line.element))


def _exposure(block: Block, *, known: bool) -> NDArray[np.float64]:
    return block.charge_coulomb * NANO if known else block.time_s


def _finite(bounds: Any) -> list[list[float] | None]:
    return [[float(a), float(b)] if b > a and math.isfinite(b - a) else None for a, b in bounds]
