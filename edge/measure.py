"""From the sums of a scan to ``Measured``: layers, live charge, beam-off counts, spectra per layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge.deadtime import DeadTime, fit_dead_time, live_fraction, smooth_rate_hz
from edge.events import Segmentation
from edge.geometry import Floats, Grid, Pose, layer_weights, sums_in_layers
from edge.line_counts import fit_net
from edge.lithium import Measured
from edge.placement import Placement
from edge.scan_data import MICRO, Block, DetectorBlock, ScanData
from edge.settings import Settings

Bounds = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class BeamOff:
    """What one detector counted with the beam off."""

    counts: Floats  # (segments,)
    live_s: float
    projected: Floats | None = None  # (columns,) of the lines that are projected


def observed_rates_hz(scan: ScanData, detector: str) -> tuple[Floats, Floats]:
    """Return the smoothed observed rate and the dwell time of every pixel, each (pixels + 1,).

    The last entry is the beam-off time: what the counters ran beyond the dwell on pixels.
    """
    total = scan.detector_sum(detector)
    grid = scan.start.grid
    if total is None:
        return np.zeros(1), np.zeros(1)
    number = total.segments.sum(axis=1, dtype=np.float64)
    off_s = beam_off_time_s(scan, total)
    off_hz = number[-1] / off_s if off_s > 0.0 else 0.0
    if grid is None:
        return np.array([off_hz]), np.array([off_s])
    time_s = np.sum([block.time_s for block in scan.blocks.values()], axis=0)
    return pixel_rates_hz(grid, number, time_s, off_s)


def pixel_rates_hz(grid: Grid, number: Floats, time_s: Floats, off_s: float) -> tuple[Floats, Floats]:
    """Return smoothed rates and times, beam-off last, each (pixels + 1,).

    Args:
        grid: the raster.
        number: recorded events per pixel, beam-off last, shape (pixels + 1,).
        time_s: dwell per pixel, shape (pixels,).
        off_s: beam-off time.
    """
    shape = (grid.ny, grid.nx)
    rate = smooth_rate_hz(number[:-1].reshape(shape), time_s.reshape(shape)).ravel()
    off_hz = number[-1] / off_s if off_s > 0.0 else 0.0
    return np.append(rate, off_hz), np.append(time_s, off_s)


def beam_off_time_s(scan: ScanData, total: DetectorBlock) -> float:
    """Return how long a detector counted without beam on a pixel: accumulation time minus dwell."""
    on_us = sum(int(block.time_us.sum()) for block in scan.blocks.values())
    return max(total.accumulation_us - on_us, 0) / MICRO if total.counted else 0.0


def scan_dead_time(settings: Settings, scan: ScanData, detector: str) -> DeadTime | None:
    """Return the dead time per pulse from the counters of one scan, None without counters."""
    total = scan.detector_sum(detector) if scan.blocks else None
    if total is None or total.counted == 0 or total.fast == 0 or total.received == 0:
        return None
    rate, time_s = observed_rates_hz(scan, detector)
    fast_dead_s = settings.detectors[detector].fast_dead_s
    return fit_dead_time(float(total.slow), float(total.fast), rate, time_s, fast_dead_s)


def combined_dead_time(found: Sequence[DeadTime | None], prior: float) -> DeadTime:
    """Return the mean by inverse variance, with a relative prior as additional error.

    Without any the dead time is 0 +- 10 us.
    """
    known = [d for d in found if d is not None]
    if not known:
        return DeadTime(0.0, 1e-5)
    weights = np.array([d.sigma_s**-2 for d in known])
    tau_s = float(np.sum(weights * [d.tau_s for d in known]) / np.sum(weights))
    return DeadTime(tau_s, float(np.hypot(np.sum(weights) ** -0.5, prior * tau_s)))


def beam_off(scans: Sequence[ScanData], detector: str, segments: int) -> BeamOff:
    """Return the beam-off counts and live time of one detector, summed over scans."""
    counts, live_s = np.zeros(segments), 0.0
    projected: Floats | None = None
    for scan in scans:
        total = scan.detector_sum(detector) if scan.blocks else None
        if total is None:
            continue
        seconds = beam_off_time_s(scan, total)
        if seconds > 0.0:
            counts += total.segments[-1]
            live_s += seconds
            if total.projected is not None:
                projected = total.projected[-1] + (0.0 if projected is None else projected)
    return BeamOff(counts, live_s, projected)


def measured(
    settings: Settings,
    segmentations: Mapping[str, Segmentation],
    scan: ScanData,
    parts: Sequence[tuple[Block, Pose]],
    bounds: Bounds,
    dead_s: Mapping[str, float],
    off: Mapping[str, BeamOff],
) -> Measured:
    """Return what a scan, or some blocks of it, counted in each layer.

    Args:
        settings: of the run.
        segmentations: per detector.
        scan: the scan that the blocks belong to; its rates give the live fractions.
        parts: blocks, each with the pose of the interface during it.
        bounds: layers as distances from the interface.
        dead_s: dead time per pulse of each detector.
        off: beam-off counts of each detector.
    """
    grid = scan.start.grid
    if grid is None:
        raise ValueError(f"scan {scan.start.name} has no raster")
    live = {
        name: live_fraction(observed_rates_hz(scan, name)[0][:-1], dead_s[name]) for name in segmentations
    }
    sums: dict[str, Floats] = {}
    variances: dict[str, Floats] = {}
    charge: dict[str, Floats] = {}
    seconds: dict[str, Floats] = {}
    channels = {name: np.zeros(s.size) for name, s in segmentations.items()}
    projected: dict[str, tuple[Floats, Floats]] = {}
    passes, known = 0, all(block.charge_known for block, _ in parts)
    for block, pose in parts:
        weights = layer_weights(grid, pose, bounds)
        passes += len(block.passes)
        exposure = block.charge_coulomb if known else block.time_s
        for name in segmentations:
            detector = block.detectors[name]
            s, v = sums_in_layers(weights, detector.segments[:-1])
            sums[name] = sums.get(name, 0.0) + s
            variances[name] = variances.get(name, 0.0) + v
            charge[name] = charge.get(name, 0.0) + weights.T @ (exposure * live[name])
            seconds[name] = seconds.get(name, 0.0) + weights.T @ (block.time_s * live[name])
            channels[name] += detector.channels_in
            if detector.projected is not None:
                s, v = sums_in_layers(weights, detector.projected[:-1])
                before = projected.get(name, (np.zeros_like(s), np.zeros_like(v)))
                projected[name] = before[0] + s, before[1] + v
    return Measured(
        sums=sums,
        variances=variances,
        live_charge=charge,
        live_time_s=seconds,
        beam_off={name: off[name].counts for name in segmentations},
        beam_off_live_s={name: off[name].live_s for name in segmentations},
        channels_in={name: channels[name] / max(passes, 1) for name in segmentations},
        projected=projected,
        beam_off_projected={name: off[name].projected for name in segmentations},
        charge_known=known,
    )


def whole(scan: ScanData) -> Block:
    """Return the sum of all blocks of a scan."""
    keys = sorted(scan.blocks)
    total = scan.blocks[keys[0]]
    for key in keys[1:]:
        total = total.merged(scan.blocks[key])
    return total


def layer_spectra(
    scan: ScanData, placement: Placement, bounds: Bounds, detector: str
) -> tuple[Floats, Floats, Floats]:
    """Return the beam-on spectrum of each layer, its variance, and the mean channels per energy bin.

    Rows are weighted by the share of their pixels inside the layer, averaged over the blocks.
    """
    grid = scan.start.grid
    if grid is None:
        raise ValueError(f"scan {scan.start.name} has no raster")
    rows = _row_weights(grid, scan, placement, bounds)
    spectra = scan.spectra[detector]
    s, v = sums_in_layers(rows, spectra.rows)
    return s, v, spectra.bin_channels / max(len(scan.passes), 1)


def fitted_lines(
    settings: Settings,
    segmentations: Mapping[str, Segmentation],
    scan: ScanData,
    placement: Placement,
    bounds: Bounds,
    slope: float,
    elements: Sequence[str],
) -> dict[str, tuple[Floats, Floats]]:
    """Return net counts and variance per layer by the linear fit, by element; NaN where it fails."""
    found: dict[str, tuple[Floats, Floats]] = {}
    for line in settings.lines:
        if line.element not in elements:
            continue
        spectra, variances, channels = layer_spectra(scan, placement, bounds, line.detector)
        try:
            found[line.element] = fit_net(
                spectra, variances, segmentations[line.detector], line.window, channels, slope
            )
        except ValueError:
            found[line.element] = np.full(len(spectra), np.nan), np.full(len(spectra), np.nan)
    return found


def _row_weights(grid: Grid, scan: ScanData, placement: Placement, bounds: Bounds) -> Floats:
    """Return the mean share of each row inside each layer, shape (ny, layers)."""
    total = np.zeros((grid.ny, len(bounds)))
    passes = 0
    for key, block in scan.blocks.items():
        weights = layer_weights(grid, placement.pose_of(key), bounds)
        total += len(block.passes) * weights.reshape(grid.ny, grid.nx, len(bounds)).mean(axis=1)
        passes += len(block.passes)
    return total / max(passes, 1)
