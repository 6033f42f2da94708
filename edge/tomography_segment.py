"""Volumes to pores: median, opening, threshold, components, porosity per depth region with its error.

Slab by slab with the overlap that each filter needs, so that the floats of a volume are never in memory at
once; a segmented volume is one byte per voxel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, label, median_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from edge.tomography_blocks import CorrelatedMean, correlated_mean
from edge.uncertainty import Estimate

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Reader = Callable[[int, int], NDArray[Any]]

SLAB_VOXELS = 1 << 24
LEVELS = 1024  # of the histogram that the threshold is taken from
MEDIAN_SIDE = 3


@dataclass(frozen=True)
class Threshold:
    """Where the two classes part.

    Attributes:
        value: voxels below are pore.
        sigma: prior, one sigma.
        dark: mean of the voxels below.
        bright: mean of the voxels above.
    """

    value: float
    sigma: float
    dark: float
    bright: float


def slabs(shape: tuple[int, int, int], margin: int = 0) -> Iterator[tuple[int, int, int, int]]:
    """Yield (first, last, with margin from, with margin to) planes; a slab holds about ``SLAB_VOXELS``."""
    depth = max(1, SLAB_VOXELS // (shape[1] * shape[2]))
    for first in range(0, shape[0], depth):
        last = min(first + depth, shape[0])
        yield first, last, max(0, first - margin), min(shape[0], last + margin)


def smoothed(read: Reader, shape: tuple[int, int, int]) -> Reader:
    """Return a reader of the volume after a median filter of 3 x 3 x 3 voxels (edge planes repeated)."""

    def reader(first: int, last: int) -> NDArray[Any]:
        low, high = max(0, first - 1), min(shape[0], last + 1)
        part = median_filter(read(low, high), MEDIAN_SIDE, mode="nearest")
        return np.asarray(part[first - low : part.shape[0] - (high - last)])

    return reader


def grey_histogram(read: Reader, shape: tuple[int, int, int]) -> tuple[NDArray[np.int64], Floats]:
    """Return counts and edges of ``LEVELS`` bins over the whole range. Raises ValueError for NaN."""
    low, high = np.inf, -np.inf
    for first, last, *_ in slabs(shape):
        part = read(first, last)
        if not np.isfinite(part).all():
            raise ValueError("the volume holds values that are not finite")
        low, high = min(low, float(part.min())), max(high, float(part.max()))
    if not low < high:
        raise ValueError("all voxels are equal: there is nothing to segment")
    edges = np.linspace(low, high, LEVELS + 1)
    counts = np.zeros(LEVELS, np.int64)
    for first, last, *_ in slabs(shape):
        counts += np.histogram(read(first, last), edges)[0]
    return counts, edges


def otsu(counts: NDArray[np.int64], edges: Floats, share: float = 0.05) -> Threshold:
    """Return Otsu's threshold: it maximises the variance between the classes (IEEE Trans. SMC 9 (1979) 62).

    Its error is a prior: ``share`` of the distance between the class means, one sigma.
    """
    middle = 0.5 * (edges[:-1] + edges[1:])
    below = np.cumsum(counts).astype(np.float64)
    above = below[-1] - below
    sums = np.cumsum(counts * middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    best = int(np.nanargmax(between[:-1]))
    return given(float(middle[best]), counts, edges, share)


def given(value: float, counts: NDArray[np.int64], edges: Floats, share: float = 0.05) -> Threshold:
    """Return a threshold set by a person. Raises ValueError if one class is empty."""
    middle = 0.5 * (edges[:-1] + edges[1:])
    dark = middle <= value
    if not counts[dark].sum() or not counts[~dark].sum():
        raise ValueError(f"threshold {value:g} leaves one class empty ({edges[0]:g} to {edges[-1]:g})")
    means = [float(np.average(middle[part], weights=counts[part])) for part in (dark, ~dark)]
    return Threshold(value, share * (means[1] - means[0]), means[0], means[1])


def opened(solid: Mask, radius: float) -> Mask:
    """Return the opening with a ball: what a ball of this radius (voxels) reaches inside the solid.

    Erosion and dilation by exact Euclidean distances, so the cost does not grow with the radius. The border
    of the array counts as solid.
    """
    if radius <= 0.0 or not solid.any() or solid.all():
        return solid.copy()
    pad = int(np.ceil(radius)) + 1
    wide = np.pad(solid, pad, mode="edge")
    core = distance_transform_edt(wide) > radius
    if not core.any():
        return np.zeros_like(solid)
    near = distance_transform_edt(~core) <= radius
    return np.asarray(near[(slice(pad, -pad),) * solid.ndim], np.bool_)


def components(mask: Mask) -> tuple[Reader, NDArray[np.int64]]:
    """Label what hangs together by faces, slab by slab; return a reader of labels and the sizes.

    Label 0 is outside the mask; sizes[k] is the number of voxels of label k, sizes[0] = 0. Labels are
    numbered by size, largest first. Only one slab of labels is in memory.
    """
    links: list[NDArray[np.int64]] = []
    starts, sizes = {}, [np.zeros(1, np.int64)]
    above: NDArray[np.int64] | None = None
    total = 0
    shape = (mask.shape[0], mask.shape[1], mask.shape[2])
    for first, last, *_ in slabs(shape):
        part, found = label(mask[first:last])
        starts[first] = total
        numbered = np.where(part > 0, part.astype(np.int64) + total, 0)
        sizes.append(np.bincount(part.ravel(), minlength=found + 1)[1:])
        if above is not None:
            touch = (above > 0) & (numbered[0] > 0)
            links.append(np.unique(np.stack([above[touch], numbered[0][touch]]), axis=1))
        above, total = numbered[-1], total + found
    size = np.concatenate(sizes)
    pairs = np.concatenate(links, axis=1) if links else np.zeros((2, 0), np.int64)
    graph = coo_array((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=(total + 1, total + 1))
    number, root = connected_components(graph, directed=False)
    joined = np.bincount(root, size, number).astype(np.int64)
    joined[root[0]] = -1  # the outside comes first
    order = np.concatenate([[root[0]], [k for k in np.argsort(-joined, kind="stable") if k != root[0]]])
    rank = np.empty(number, np.int64)
    rank[order] = np.arange(number)
    final = rank[root]
    joined[root[0]] = 0

    def reader(first: int, last: int) -> NDArray[Any]:
        parts = []
        for low, high, *_ in slabs(shape):
            if low < last and high > first:
                part, _ = label(mask[low:high])
                own = starts[low] + 1
                table = np.append(0, final[own : own + int(part.max(initial=0))])
                parts.append(table[part][max(first - low, 0) : last - low])
        return np.concatenate(parts)

    return reader, joined[order]


def largest(mask: Mask) -> tuple[Mask, int]:
    """Return the largest component of a mask and its size in voxels."""
    read, sizes = components(mask)
    if sizes.size < 2:
        return np.zeros_like(mask), 0
    found = np.concatenate([read(first, last) == 1 for first, last, *_ in slabs(mask.shape)])
    return found, int(sizes[1])


def face_count(pores: Mask) -> int:
    """Return how many faces lie between a pore voxel and a solid one."""
    total = 0
    for axis in range(pores.ndim):
        ahead = [slice(None)] * pores.ndim
        behind = [slice(None)] * pores.ndim
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        total += int(np.count_nonzero(pores[tuple(ahead)] != pores[tuple(behind)]))
    return total


def bounds(length: int, parts: int | Sequence[float]) -> list[tuple[int, int]]:
    """Return (first, last) planes of equal parts, or of parts between the given places (planes, rising).

    Raises:
        ValueError: if a part would be empty or a place lies outside.
    """
    if isinstance(parts, int):
        edges = [round(length * k / parts) for k in range(parts + 1)] if parts > 0 else [0]
    else:
        edges = [round(float(place)) for place in parts]
    if len(edges) < 2 or edges[0] < 0 or edges[-1] > length or any(b <= a for a, b in pairwise(edges)):
        raise ValueError(f"depth regions {edges} do not divide {length} planes")
    return list(pairwise(edges))


@dataclass(frozen=True)
class Region:
    """The porosity of one depth region: pore voxels / all voxels of the electrode in it."""

    first: int
    last: int  # planes, the last one not included
    porosity: Estimate
    correlation: CorrelatedMean


def region_porosity(pores: Mask, inside: Mask | None, first: int, last: int, softer: float = 0.0) -> Region:
    """Return the porosity of planes first to last - 1.

    sigma_stat: of the region as a sample of its material, correlated voxels (``correlated_mean``).

    Args:
        pores: (z, y, x); depth is the first axis.
        inside: the filled volume of the electrode, or None for everything.
        first: plane.
        last: plane, not included.
        softer: systematic error: change of the porosity with the threshold by one sigma.

    Raises:
        ValueError: if the region is empty.
    """
    part = None if inside is None else inside[first:last]
    found = correlated_mean(pores[first:last], part)
    return Region(first, last, Estimate(found.mean, found.sigma, softer, "1"), found)


def porosity_profile(pores: Mask, inside: Mask | None = None) -> Floats:
    """Return the porosity of every plane, NaN where the electrode is not."""
    axes = tuple(range(1, pores.ndim))
    if inside is None:
        return np.asarray(pores.mean(axis=axes))
    total = inside.sum(axis=axes)
    return np.asarray((pores & inside).sum(axis=axes) / np.where(total > 0, total, np.nan))
