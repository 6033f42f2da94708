"""Adaptive binning: a map is divided into regions that each reach a number of counts or a relative error.

Whole pixels only, so the sums of regions are exact, independent of each other and add up to the map. Both
ways are deterministic: the same map gives the same regions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from edge.maps import Box, Labels, halves_of, label_sums

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

ROUNDS = 12  # of moving the seeds to the middle of their regions


@dataclass(frozen=True)
class Goal:
    """What a region must reach: counts, a relative error, or both.

    Attributes:
        minimum: summed value, 0 for none.
        relative: largest sigma / value, infinity for none.

    Raises:
        ValueError: if neither is asked for, or one is impossible.
    """

    minimum: float = 0.0
    relative: float = math.inf

    def __post_init__(self) -> None:
        if not (self.minimum >= 0.0 and math.isfinite(self.minimum)):
            raise ValueError(f"minimum {self.minimum} must be a number of counts")
        if not self.relative > 0.0:
            raise ValueError(f"relative error {self.relative} must be positive")
        if self.minimum == 0.0 and math.isinf(self.relative):
            raise ValueError("a minimum of counts or a relative error is needed")

    def reached(self, value: ArrayLike, variance: ArrayLike) -> Mask:
        """Return where value >= minimum and sqrt(variance) <= relative x value, with value positive."""
        v, s2 = np.asarray(value, np.float64), np.asarray(variance, np.float64)
        good = (v >= self.minimum) & (v > 0.0)
        if math.isfinite(self.relative):
            good &= s2 <= (self.relative * v) ** 2
        return np.asarray(good, np.bool_)


@dataclass(frozen=True)
class Regions:
    """A divided map."""

    labels: Labels  # (ny, nx), 0, 1, ... per region, -1 outside
    value: Floats  # (regions,) sum of the map that decided
    variance: Floats  # (regions,)
    pixels: NDArray[np.int64]  # (regions,)
    reached: Mask  # (regions,) False only where the whole map, or an island, does not hold enough

    @property
    def sigma(self) -> Floats:
        """One sigma of ``value``."""
        return np.asarray(np.sqrt(self.variance), np.float64)


def quadtree(value: ArrayLike, variance: ArrayLike, inside: Mask, goal: Goal) -> Regions:
    """Divide into rectangles: a rectangle is halved across its longer side while both halves reach the goal.

    With ``variance = value`` and only a minimum, these are the rectangles of ``edge.maps.quadtree``.

    Args:
        value: of each pixel, shape (ny, nx): counts, or net counts (which may be negative).
        variance: of each pixel, same shape, not negative.
        inside: pixels that take part, same shape.
        goal: what each region must reach.

    Returns:
        Regions; one that does not reach the goal is the whole map.

    Raises:
        ValueError: if shapes differ, a value is not finite, a variance is negative, or no pixel takes part.
    """
    v, s2 = _checked(value, variance, inside)
    labels = np.full(v.shape, -1, dtype=np.int32)
    waiting: list[Box] = [(0, v.shape[0], 0, v.shape[1])]
    label = 0
    while waiting:
        box = waiting.pop()
        halves = halves_of(box)
        sums = [(v[t:b, x:r].sum(), s2[t:b, x:r].sum()) for t, b, x, r in halves]
        if halves and all(goal.reached(*pair) for pair in sums):
            waiting += halves
            continue
        top, bottom, left, right = box
        part = inside[top:bottom, left:right]
        if part.any():
            labels[top:bottom, left:right][part] = label
            label += 1
    return _regions(labels, v, s2, goal)


def voronoi(value: ArrayLike, variance: ArrayLike, inside: Mask, goal: Goal) -> Regions:
    """Divide into compact cells of about equal content: a centroidal Voronoi tessellation, then mended.

    Seeds are the centres of the quadtree's rectangles. A pixel belongs to the nearest seed, a seed moves to
    the middle of its pixels weighted with content^2 (equal content per cell), several times; then, smallest
    first, every cell that misses the goal is joined to the nearest cell. (After Cappellari & Copin, MNRAS
    342 (2003) 345 and Diehl & Statler, MNRAS 368 (2006) 497; theirs start from the brightest pixel.)

    Args, Returns, Raises: as ``quadtree``.
    """
    start = quadtree(value, variance, inside, goal)
    v, s2 = _checked(value, variance, inside)
    places = np.argwhere(inside).astype(np.float64)
    flat = start.labels[inside]
    content = np.maximum(v[inside], 0.0) ** 2 + 1e-12
    for _ in range(ROUNDS):
        seeds = _centres(flat, places, content)
        moved = np.asarray(cKDTree(seeds).query(places)[1], np.int64)
        _, moved = np.unique(moved, return_inverse=True)  # cells that lost every pixel are gone
        if np.array_equal(moved, flat):
            break
        flat = moved.astype(np.int32)
    flat = _mended(flat, places, v[inside], s2[inside], goal)
    labels = np.full(v.shape, -1, dtype=np.int32)
    labels[inside] = flat
    return _regions(labels, v, s2, goal)


def region_sums(labels: Labels, planes: ArrayLike) -> Floats:
    """Return sums over regions, (n, regions) for planes of shape (n, ny, nx); exact for integers < 2^53.

    Raises:
        ValueError: if the planes are not of the shape of the labels.
    """
    stack = np.asarray(planes, np.float64)
    if stack.ndim != 3 or stack.shape[1:] != labels.shape:
        raise ValueError(f"planes {stack.shape} are not (n, {labels.shape[0]}, {labels.shape[1]})")
    return np.stack([label_sums(labels, plane.ravel()) for plane in stack])


def painted(labels: Labels, values: ArrayLike) -> Floats:
    """Return a map in which each pixel has its region's value, NaN outside."""
    table = np.append(np.asarray(values, np.float64), np.nan)
    return np.asarray(table[labels], np.float64)  # -1 takes the last one


def _checked(value: ArrayLike, variance: ArrayLike, inside: Mask) -> tuple[Floats, Floats]:
    v, s2 = np.asarray(value, np.float64), np.asarray(variance, np.float64)
    if v.ndim != 2 or v.shape != s2.shape or v.shape != inside.shape:
        raise ValueError(f"value {v.shape}, variance {s2.shape} and inside {inside.shape} must be one map")
    v, s2 = np.where(inside, v, 0.0), np.where(inside, s2, 0.0)
    if not inside.any() or not (np.isfinite(v).all() and np.isfinite(s2).all()) or s2.min() < 0.0:
        raise ValueError("a map needs pixels inside, finite values and variances that are not negative")
    return v, s2


def _centres(flat: Labels, places: Floats, weight: Floats) -> Floats:
    total = np.bincount(flat, weight)
    return np.stack([np.bincount(flat, weight * places[:, k]) / total for k in (0, 1)], axis=1)


def _mended(flat: Labels, places: Floats, v: Floats, s2: Floats, goal: Goal) -> Labels:
    """Join every cell that misses the goal to the nearest cell, smallest value first."""
    n = int(flat.max()) + 1
    value, variance = np.bincount(flat, v, n), np.bincount(flat, s2, n)
    size = np.bincount(flat, minlength=n).astype(np.float64)
    middle = np.stack([np.bincount(flat, places[:, k], n) for k in (0, 1)], axis=1) / size[:, None]
    alive = np.ones(n, bool)
    joined = np.arange(n)
    while alive.sum() > 1:
        poor = np.flatnonzero(alive & ~goal.reached(value, variance))
        if not poor.size:
            break
        worst = poor[np.argmin(value[poor])]
        others = np.flatnonzero(alive & (np.arange(n) != worst))
        near = others[np.argmin(((middle[others] - middle[worst]) ** 2).sum(axis=1))]
        total = size[near] + size[worst]
        middle[near] = (middle[near] * size[near] + middle[worst] * size[worst]) / total
        for array in (value, variance, size):
            array[near] += array[worst]
        alive[worst] = False
        joined[joined == worst] = near
    _, labels = np.unique(joined[flat], return_inverse=True)
    return labels.astype(np.int32)


def _regions(labels: Labels, v: Floats, s2: Floats, goal: Goal) -> Regions:
    value, variance = label_sums(labels, v.ravel()), label_sums(labels, s2.ravel())
    pixels = np.bincount(labels[labels >= 0], minlength=value.size)
    return Regions(labels, value, variance, pixels, goal.reached(value, variance))
