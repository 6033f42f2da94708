"""Maps and profiles for people to look at: net counts per pixel, adaptive regions, profiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.geometry import Bins, Floats, Grid, Pose, profile_bins
from edge.scan_data import Counts

Labels = NDArray[np.int32]
Box = tuple[int, int, int, int]  # top, bottom, left, right


@dataclass(frozen=True)
class NetMap:
    """Counts of one line per pixel, shape (pixels,)."""

    gross: Floats
    background: Floats
    net: Floats
    sigma: Floats


@dataclass(frozen=True)
class Profile:
    """A line along the interface normal."""

    position_um: Floats  # middle of each bin, from the interface
    gross: Floats  # counts in the window
    background: Floats  # expected counts of the background in the window
    exposure: Floats  # live beam charge (C) or live time (s)
    value: Floats  # net per exposure, NaN without exposure
    sigma_stat: Floats
    sigma_sys: Floats  # from the error of the place of each bin
    sigma_position_um: Floats


def net_map(segments: ArrayLike, coefficients: Floats) -> NetMap:
    """Return gross, background and net counts of every pixel.

    net = c . S as for a layer. sigma^2 = max(gross, 1) + sum over bands of c^2 S: a pixel without counts has
    the error of one. At such counts gross and background are what an exact interval is made from.

    Args:
        segments: counts, shape (pixels, segments).
        coefficients: c, shape (segments,).
    """
    counts = np.asarray(segments, np.float64)
    signal = np.where(coefficients > 0.0, coefficients, 0.0)
    bands = np.where(coefficients < 0.0, -coefficients, 0.0)
    gross, background = counts @ signal, counts @ bands
    sigma = np.sqrt(np.maximum(gross, 1.0) + counts @ bands**2)
    return NetMap(gross, background, gross - background, sigma)


def quadtree(counts: ArrayLike, inside: NDArray[np.bool_], minimum: float) -> Labels:
    """Divide a map into rectangles that each hold enough counts; independent, because nothing overlaps.

    A rectangle is halved across its longer side (in pixels) as long as both halves hold at least ``minimum``
    counts among the pixels inside.

    Args:
        counts: net or gross counts, shape (ny, nx).
        inside: pixels that take part, same shape.
        minimum: counts per rectangle, positive.

    Returns:
        Labels 0, 1, ... per pixel, -1 outside, shape (ny, nx).

    Raises:
        ValueError: if the shapes differ or the minimum is not positive.
    """
    number = np.where(inside, np.asarray(counts, np.float64), 0.0)
    if number.shape != inside.shape or number.ndim != 2 or minimum <= 0.0:
        raise ValueError(f"counts {number.shape}, inside {inside.shape}, minimum {minimum}")
    labels = np.full(number.shape, -1, dtype=np.int32)
    waiting = [(0, number.shape[0], 0, number.shape[1])]
    label = 0
    while waiting:
        top, bottom, left, right = waiting.pop()
        halves = halves_of((top, bottom, left, right))
        if halves and all(number[t:b, x:r].sum() >= minimum for t, b, x, r in halves):
            waiting += halves
            continue
        part = inside[top:bottom, left:right]
        if part.any():
            labels[top:bottom, left:right][part] = label
            label += 1
    return labels


def label_sums(labels: Labels, values: ArrayLike) -> Floats:
    """Return the sum over every label, shape (labels, ...) for values of shape (pixels, ...)."""
    flat = labels.ravel()
    used = flat >= 0
    array = np.asarray(values, np.float64)
    result = np.zeros((int(flat.max(initial=-1)) + 1, *array.shape[1:]))
    np.add.at(result, flat[used], array[used])
    return result


def labels_at(labels: Labels, grid: Grid, pose: Pose, other: Grid, other_pose: Pose) -> Labels:
    """Return the labels of the material under each pixel of another raster; nothing is interpolated.

    A place keeps its distance from the interface and its x; the pixel of ``grid`` that contains it lends its
    label, -1 outside.

    Args:
        labels: of ``grid``, shape (ny, nx).
        grid: the labelled raster, with its interface ``pose``.
        pose: see ``grid``.
        other: the raster asked for, with its interface ``other_pose``.
        other_pose: see ``other``.
    """
    x, y = other.positions_um()
    distance = other_pose.distance_um(x, y)
    level = distance + pose.position_um + (x - pose.pivot_x_um) * np.sin(pose.angle_rad)
    place_y = level / np.cos(pose.angle_rad)
    column = np.floor((x - grid.centre_x_um + 0.5 * grid.width_um) / grid.pitch_x_um).astype(np.int64)
    row = np.floor((place_y - grid.centre_y_um + 0.5 * grid.height_um) / grid.pitch_y_um).astype(np.int64)
    good = (column >= 0) & (column < grid.nx) & (row >= 0) & (row < grid.ny)
    result = np.full(x.size, -1, dtype=np.int32)
    result[good] = labels[row[good], column[good]]
    return result.reshape(other.ny, other.nx)


def profile(
    grid: Grid,
    parts: Sequence[tuple[Pose, Counts, Floats]],
    coefficients: Floats,
    projected: Sequence[NDArray[Any]] = (),
    net: Callable[[Floats], tuple[Floats, Floats]] | None = None,
) -> Profile:
    """Return net counts per exposure along the interface normal, passes moved onto each other by their poses.

    Every pixel counts whole in the bin that its centre is in, so the bins are independent. The error of their
    place, sqrt(sigma_position^2 + (mean |x - pivot| sigma_angle)^2), is carried into the value by the slope
    of the profile. By windows net and variance are those of ``net_map``; of a line that is projected they
    come from the projected sums of each bin, and ``background`` is what makes up the counts in the window.

    Args:
        grid: the raster.
        parts: per block of passes: pose, counts (pixels, segments), exposure (pixels,).
        coefficients: of the line, shape (segments,).
        projected: per block the projected sums, shape (pixels, columns), of a line that is projected.
        net: what makes net counts and variance of them, of shapes (bins, columns) to (bins,).
    """
    edges = profile_bins(grid, parts[0][0]).edges_um
    size = edges.size - 1
    signal, bands = np.maximum(coefficients, 0.0), np.maximum(-coefficients, 0.0)
    sums, exposure = np.zeros((size, coefficients.size)), np.zeros(size)
    columns = np.zeros((size, projected[0].shape[1])) if projected else np.zeros((size, 0))
    for k, (pose, segments, spent) in enumerate(parts):
        bins = profile_bins(grid, pose, edges)
        sums += _in_bins(bins, segments)
        exposure += bins.sum(spent)
        if projected:
            columns += _in_bins(bins, projected[k])
    gross, background = sums @ signal, sums @ bands
    counted, variance = gross - background, np.maximum(gross, 1.0) + sums @ bands**2
    if net is not None:
        counted, variance = net(columns)
        background = gross - counted
    full = exposure > 0.2 * exposure.max(initial=0.0)  # corners of a tilted raster say little
    safe = np.where(full, exposure, np.nan)
    value, sigma = counted / safe, np.sqrt(variance) / safe
    pose = parts[0][0]
    arm_um = 0.25 * grid.width_um + abs(grid.centre_x_um - pose.pivot_x_um)
    place = np.full(size, np.hypot(pose.sigma_position_um, arm_um * pose.sigma_angle_rad))
    centres = 0.5 * (edges[:-1] + edges[1:])
    slope = np.gradient(np.nan_to_num(value), centres) if size > 1 else np.zeros(size)
    return Profile(centres, gross, background, exposure, value, sigma, np.abs(slope) * place, place)


def _in_bins(bins: Bins, columns: NDArray[Any]) -> Floats:
    """Return the sum of every column over the pixels of each bin, shape (bins, columns)."""
    return np.stack([bins.sum(column) for column in columns.T], axis=1)


def halves_of(box: Box) -> list[Box]:
    """Halve a box across its longer side; a single pixel has no halves."""
    top, bottom, left, right = box
    if bottom - top >= right - left and bottom - top > 1:
        middle = (top + bottom) // 2
        return [(top, middle, left, right), (middle, bottom, left, right)]
    if right - left > 1:
        middle = (left + right) // 2
        return [(top, bottom, left, middle), (top, bottom, middle, right)]
    return []
