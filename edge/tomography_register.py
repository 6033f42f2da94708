"""A fine volume onto a coarse map: down-sampling that conserves sums, and where the map lies, with its error.

The fine picture is never interpolated: a coarse pixel gets from every fine one the share of its area, so
sums are kept. The shift is found by down-sampling at trial shifts and comparing with the coarse map, whose
noise is known: a least-squares estimate with an error, not only a correlation maximum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.uncertainty import Estimate

Floats = NDArray[np.float64]
Model = Callable[[Floats], Floats]
Fit = Callable[[Floats], tuple[float, Floats, Floats]]

DERIVATIVE_STEP = 0.05  # coarse pixels
CONVERGED = 1e-3  # coarse pixels
ROUNDS = 40
CLEAR_SIGMA = 3.0  # chi2 this far above its expectation enlarges the errors
COARSE_SHARE = 0.35  # how far, of the map's size, the first look searches


@dataclass(frozen=True)
class Scale:
    """One axis of both pictures, in one unit (µm): pitches and, for the map, where its first pixel begins."""

    fine_pitch: float
    coarse_pitch: float
    coarse_pixels: int

    def __post_init__(self) -> None:
        if not (self.fine_pitch > 0.0 and self.coarse_pitch > 0.0 and self.coarse_pixels > 0):
            raise ValueError(f"pitches and pixels must be positive: {self}")


@dataclass(frozen=True)
class Registration:
    """Where the map lies: its first pixel begins at (y, x) from the beginning of the fine picture.

    map = offset + gain x (down-sampled picture).
    """

    y: Estimate
    x: Estimate
    gain: float
    offset: float
    chi2: float
    ndf: int
    correlation: float  # between map and model, weighted


def shares(pixels: int, scale: Scale, start: float) -> Floats:
    """Return the share of every fine pixel's length in every coarse pixel, shape (coarse, fine).

    Columns of fine pixels that lie wholly inside the map sum to 1.

    Args:
        pixels: fine ones.
        scale: of this axis.
        start: where the first coarse pixel begins, from the beginning of the first fine one.
    """
    low = start + scale.coarse_pitch * np.arange(scale.coarse_pixels)[:, None]
    fine = scale.fine_pitch * np.arange(pixels)[None, :]
    overlap = np.minimum(low + scale.coarse_pitch, fine + scale.fine_pitch) - np.maximum(low, fine)
    return np.asarray(np.clip(overlap, 0.0, None) / scale.fine_pitch)


def downsampled(picture: ArrayLike, y: Scale, x: Scale, start_y: float = 0.0, start_x: float = 0.0) -> Floats:
    """Return a picture (or every plane of a volume) summed onto coarse pixels by area.

    out = P_y picture P_x^T with the shares of both axes: the sum over the map equals the sum of the fine
    pixels under it.

    Args:
        picture: (..., ny, nx).
        y: scale of rows.
        x: scale of columns.
        start_y: where the map begins.
        start_x: where the map begins.

    Returns: (..., y.coarse_pixels, x.coarse_pixels).
    """
    fine = np.asarray(picture, np.float64)
    rows = shares(fine.shape[-2], y, start_y)
    columns = shares(fine.shape[-1], x, start_x)
    return np.asarray(rows @ fine @ columns.T)


def depth_maps(
    volume: NDArray[np.bool_],
    bounds: list[tuple[int, int]],
    y: Scale,
    x: Scale,
    start_y: float,
    start_x: float,
) -> Floats:
    """Return the volume of True voxels of each depth region under each map pixel, in fine voxels.

    Args:
        volume: (z, ny, nx).
        bounds: planes of the regions.
        y: as ``downsampled``.
        x: as ``downsampled``.
        start_y: as ``downsampled``.
        start_x: as ``downsampled``.
    """
    sums = np.stack([volume[first:last].sum(axis=0, dtype=np.int64) for first, last in bounds])
    return downsampled(sums, y, x, start_y, start_x)


def register(
    picture: ArrayLike,
    coarse: ArrayLike,
    sigma: ArrayLike,
    y: Scale,
    x: Scale,
    start: tuple[float, float],
    search: float = COARSE_SHARE,
) -> Registration:
    """Return the shift of the coarse map on the fine picture, by weighted least squares.

    chi2(s_y, s_x, gain, offset) = sum ((map - offset - gain D(s)) / sigma)^2 with D the picture
    down-sampled at s; gain and offset are linear. Gauss-Newton with derivatives over +- 0.05 coarse
    pixels, from the best of a grid of whole coarse pixels around ``start``. Errors are the inverse of
    the normal matrix, times chi2/ndf where that is
    3 sigma above 1 (what the model does not describe). Pixels whose
    sigma is not finite and positive are left out.

    Args:
        picture: (ny, nx), without noise against the map's.
        coarse: the map, (y.coarse_pixels, x.coarse_pixels).
        sigma: its one-sigma errors, same shape.
        y: scale of rows.
        x: scale of columns.
        start: first guess of where the map begins, in the unit of the scales.
        search: how far around it to look, as a share of the map; 0 = the guess is within a pixel.

    Raises:
        ValueError: if shapes differ, too few pixels are left, or the shift runs out of the picture.
    """
    fine, seen = np.asarray(picture, np.float64), np.asarray(coarse, np.float64)
    error = np.asarray(sigma, np.float64)
    if seen.shape != (y.coarse_pixels, x.coarse_pixels) or error.shape != seen.shape or fine.ndim != 2:
        raise ValueError(f"map {seen.shape}, errors {error.shape}, picture {fine.shape} do not fit")
    good = np.isfinite(seen) & np.isfinite(error) & (error > 0.0)
    if good.sum() < 8:
        raise ValueError(f"only {int(good.sum())} pixels of the map have a value with an error")
    weight, target = 1.0 / error[good], seen[good] / error[good]

    def model(place: Floats) -> Floats:
        return downsampled(fine, y, x, float(place[0]), float(place[1]))[good]

    def fitted(drawn: Floats) -> tuple[float, Floats, Floats]:
        design = np.stack([drawn * weight, weight], axis=1)
        best = np.asarray(np.linalg.lstsq(design, target, rcond=None)[0], np.float64)
        rest = target - design @ best
        return float((rest**2).sum()), best, rest

    pitch = np.array([y.coarse_pitch, x.coarse_pitch])
    place = _first_look(model, fitted, np.array(start, np.float64), pitch, seen.shape, search)
    for _ in range(ROUNDS):
        chi2, best, rest = fitted(model(place))
        step = DERIVATIVE_STEP * pitch
        slopes = [
            best[0] * weight * (model(place + step * axis) - model(place - step * axis)) / (2.0 * step[k])
            for k, axis in enumerate(np.eye(2))
        ]
        design = np.stack([*slopes, model(place) * weight, weight], axis=1)
        move = np.linalg.lstsq(design, rest, rcond=None)[0][:2]
        place = place + np.clip(move, -pitch, pitch)
        if np.all(np.abs(move) < CONVERGED * pitch):
            break
    else:
        raise ValueError("the shift did not settle: the pictures may not show the same")
    chi2, best, rest = fitted(model(place))
    normal = design.T @ design
    ndf = int(good.sum()) - 4
    worse = chi2 / ndf if chi2 > ndf + CLEAR_SIGMA * math.sqrt(2.0 * ndf) else 1.0
    covariance = np.linalg.pinv(normal) * worse
    drawn = model(place)
    correlation = float(np.corrcoef(drawn * weight, target)[0, 1]) if np.ptp(drawn) > 0.0 else 0.0
    found_y, found_x = (
        Estimate(float(place[k]), math.sqrt(float(covariance[k, k])), 0.0, "um") for k in (0, 1)
    )
    return Registration(found_y, found_x, float(best[0]), float(best[1]), chi2, ndf, correlation)


def _first_look(
    model: Model, fitted: Fit, start: Floats, pitch: Floats, shape: tuple[int, ...], search: float
) -> Floats:
    """Return the best of a grid of whole coarse pixels around the first guess."""
    down, right = (int(np.ceil(search * n)) for n in shape)
    steps = [np.array([i, j]) for i in range(-down, down + 1) for j in range(-right, right + 1)]
    return min((start + pitch * step for step in steps), key=lambda place: fitted(model(place))[0])
