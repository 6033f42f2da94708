"""The error of a mean over correlated voxels.

The voxels of a porous body are not independent, so sqrt(p(1-p)/n) is far too small. The error follows from
the correlation function of the body itself, summed over the lags where there is any: what a block bootstrap
tends to with many draws and blocks longer than the correlation, without the drawing and without the choice
of a block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

WINDOW = 4.0  # lags summed, in ranges of the correlation (Sokal's window)
MAX_CELLS = 1 << 20  # of the grid the correlation is computed on; finer fields are added up in cells of 2^d
MIN_CELLS_ACROSS = 8  # but never fewer than this along an axis


@dataclass(frozen=True)
class CorrelatedMean:
    """A mean over a region, with the error that correlation makes."""

    mean: float
    sigma: float  # NaN where the correlation reaches through the whole region
    range_voxels: float  # integral range of the correlation along an axis: 1 = white
    independent: float  # how many independent voxels would have this error
    voxels: int


def correlated_mean(values: ArrayLike, inside: Mask | None = None) -> CorrelatedMean:
    """Return the mean of a field over a region, and its one-sigma error as an estimate for the material.

    sigma^2 = S / (V^2 - M),  S = sum over |lag_i| <= W of sum_x d(x) d(x + lag),  d = value - mean inside, 0
    outside, V voxels, M the number of pairs in S. Dividing by V^2 - M, not V^2, returns what subtracting the
    region's own mean took away: E[S] = (V^2 - M) sigma^2 for a correlation that ends before W. W is the
    smallest number of cells with W >= 4 r(W), r = 1/2 + sum rho(k) over k = 1..W, rho averaged over the
    axes (Sokal, in Functional Integration (1997) 131, section 3).

    Args:
        values: the field, one to three dimensions; booleans or numbers.
        inside: which cells take part, same shape; None for all.

    Returns:
        Sigma is NaN when no window is short against the region, 0 when all values are equal.

    Raises:
        ValueError: if no cell takes part, shapes differ or a value is not finite.
    """
    field = np.asarray(values)
    part = np.ones(field.shape, bool) if inside is None else np.asarray(inside, bool)
    if part.shape != field.shape or not part.any() or not np.isfinite(field[part]).all():
        raise ValueError("a mean needs finite values and a region of the same shape with cells inside")
    voxels = int(part.sum())
    if field.dtype == np.bool_:  # small integers until the grid is coarse: a large volume stays small
        sums, count = field & part, part
        mean = int(sums.sum()) / voxels
        variance = mean * (1.0 - mean)
    else:
        sums, count = np.where(part, field, 0).astype(np.float64), part
        mean = float(sums.sum() / voxels)
        variance = float((np.where(part, sums - mean, 0.0) ** 2).sum() / voxels)
    if variance == 0.0:
        return CorrelatedMean(mean, 0.0, 1.0, float(voxels), voxels)
    edge = 1
    while sums.size > MAX_CELLS and min(sums.shape) >= 2 * MIN_CELLS_ACROSS:
        sums, count, edge = _coarser(sums), _coarser(count), 2 * edge
    departure = sums - mean * count
    sigma, reach = _summed(departure, count.astype(np.float64), float(voxels))
    independent = variance / sigma**2 if sigma > 0.0 else float("nan")
    return CorrelatedMean(mean, sigma, 2.0 * reach * edge, independent, voxels)


def _coarser(array: NDArray[Any]) -> NDArray[Any]:
    """Add up pairs of cells along every axis; an odd rest is a cell of its own."""
    padded = np.pad(array, [(0, n % 2) for n in array.shape])
    for axis in range(array.ndim):
        shape = (*padded.shape[:axis], padded.shape[axis] // 2, 2, *padded.shape[axis + 1 :])
        whole = np.uint32 if padded.dtype.kind in "bu" else None
        padded = padded.reshape(shape).sum(axis=axis + 1, dtype=whole)
    return padded


def _summed(departure: Floats, count: Floats, voxels: float) -> tuple[float, float]:
    """Return sigma of the mean and half the integral range, in cells."""
    products, pairs = _autocorrelation(departure), _autocorrelation(count)
    reach, window = _window(products, pairs)
    if window is None:
        return float("nan"), reach
    lags = tuple(
        np.r_[0 : min(window, n - 1) + 1, products.shape[axis] - min(window, n - 1) : products.shape[axis]]
        for axis, n in enumerate(departure.shape)
    )
    box = np.ix_(*lags)
    total, number = float(products[box].sum()), float(pairs[box].sum())
    rest = voxels**2 - number
    if total <= 0.0 or rest <= 0.25 * voxels**2:
        return float("nan"), reach
    return math.sqrt(total / rest), reach


def _autocorrelation(field: Floats) -> Floats:
    """Return sum over x of f(x) f(x + lag) for every lag, without wrapping; negative lags last."""
    shape = [2 * n for n in field.shape]
    axes = tuple(range(field.ndim))
    spectrum = np.fft.rfftn(field, shape, axes)
    return np.asarray(np.fft.irfftn(np.abs(spectrum) ** 2, shape, axes))


def _window(products: Floats, pairs: Floats) -> tuple[float, int | None]:
    """Return half the integral range and the window in cells, None if the field is too small for one."""
    d = products.ndim
    scale = products.flat[0] / pairs.flat[0]
    reach = 0.5
    for lag in range(1, max(n // 2 for n in products.shape)):
        rho = []
        for axis in range(d):
            if lag < products.shape[axis] // 2:
                place = tuple(lag if k == axis else 0 for k in range(d))
                if pairs[place] > 0.5:
                    rho.append(products[place] / pairs[place] / scale)
        if not rho:
            return reach, None
        if lag >= WINDOW * reach:
            return reach, lag
        reach += float(np.mean(rho))
    return reach, None
