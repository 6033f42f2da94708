"""Scattered neutrons and stray light: measured behind black bodies, interpolated, subtracted with an error.

Behind a body that stops the direct beam only scattered radiation arrives. A grid of such bodies samples the
scattered field; a thin-plate spline carries it to every pixel. Its error is what leaving one body out and
predicting it from the others gets wrong, and that is honest about structure between the bodies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import RBFInterpolator

Floats = NDArray[np.float64]

SHADOW = 0.35  # of the open beam: darker is a black body
MIN_AREA_PX = 300
SHRINK = 0.25  # of a body's half width is left at the rim (penumbra and blur)
MIN_BODIES = 6
GRID_PX = 8  # the smooth field is evaluated on a grid this wide and interpolated linearly


@dataclass(frozen=True)
class Body:
    """One black body as the open beam shows it."""

    row: float
    column: float
    rows: slice
    columns: slice
    inside: NDArray[np.bool_]  # of that cut: the part used


def find_bodies(blacked: Floats, open_beam: Floats) -> list[Body]:
    """Find the black bodies: compact areas where a grid image is below 0.35 of the open beam.

    Args:
        blacked: dark-corrected open beam with the grid, (ny, nx).
        open_beam: without the grid, same shape.

    Returns:
        Bodies, from top to bottom; those that touch the border or are longer than 3 times their width are no
        bodies.

    Raises:
        ValueError: if the shapes differ or fewer than 6 are found.
    """
    if blacked.shape != open_beam.shape:
        raise ValueError(f"images of {blacked.shape} and {open_beam.shape} pixels are not one scene")
    smooth = ndimage.uniform_filter(blacked, 5), ndimage.uniform_filter(open_beam, 5)
    lit = smooth[1] > 0.2 * float(np.median(smooth[1]))
    dark = ndimage.binary_opening(lit & (smooth[0] < SHADOW * smooth[1]), iterations=5)
    labels, _ = ndimage.label(dark)
    ny, nx = blacked.shape
    bodies = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        tall, wide = rows.stop - rows.start, columns.stop - columns.start
        touches = rows.start == 0 or columns.start == 0 or rows.stop == ny or columns.stop == nx
        area = labels[rows, columns] == number
        if touches or max(tall, wide) > 3 * min(tall, wide) or np.count_nonzero(area) < MIN_AREA_PX:
            continue
        rim = max(3, round(SHRINK * min(tall, wide) / 2))
        inside = ndimage.binary_erosion(area, iterations=rim)
        y, x = ndimage.center_of_mass(area)
        bodies.append(Body(rows.start + y, columns.start + x, rows, columns, inside))
    if len(bodies) < MIN_BODIES:
        raise ValueError(f"{len(bodies)} black bodies found, {MIN_BODIES} are needed for a field")
    return bodies


@dataclass(frozen=True)
class ScatterField:
    """The scattered part of an image, ADU per frame."""

    values: Floats  # (ny, nx)
    sigma: float  # ADU, one sigma, common to neighbouring pixels: interpolation and reading
    row: Floats  # (n_bodies,) where it was measured
    column: Floats
    measured: Floats  # (n_bodies,) ADU
    left_out: Floats  # (n_bodies,) ADU: predicted without this body, minus measured
    scale: float  # applied to what the grid image showed, for dose and blocked beam
    scale_sigma: float

    def at(self, rows: slice, columns: slice) -> float:
        """Return the mean of the field over a rectangle."""
        return float(self.values[rows, columns].mean())


def scatter_field(
    net: Floats, bodies: list[Body], scale: float = 1.0, scale_sigma: float = 0.0
) -> ScatterField:
    """Interpolate what is seen behind the bodies.

    Args:
        net: dark-corrected image with the grid, (ny, nx), NaN where masked.
        bodies: where they are.
        scale: dose of the image to correct / dose of this one, over the share of the beam that the grid lets
            pass (what the bodies stop cannot scatter either).
        scale_sigma: its one-sigma error.

    Returns:
        Field and error: sigma^2 = (rms of the leave-one-out differences)^2 + (scale_sigma / scale x mean)^2.

    Raises:
        ValueError: if a body has no good pixel.

    Source: Boillat et al., Opt. Express 26 (2018) 15769 (grid of black bodies).
    """
    values = []
    for body in bodies:
        seen = net[body.rows, body.columns][body.inside]
        seen = seen[np.isfinite(seen)]
        if seen.size == 0:
            raise ValueError(f"the black body at row {body.row:.0f}, column {body.column:.0f} is all masked")
        values.append(float(np.median(seen)))
    measured = scale * np.asarray(values)
    places = np.array([[body.row, body.column] for body in bodies])
    rest = _left_out(places, measured)
    field = _interpolated(places, measured, net.shape)
    sigma = math.hypot(float(np.sqrt(np.mean(rest**2))), scale_sigma / scale * float(measured.mean()))
    return ScatterField(field, sigma, places[:, 0], places[:, 1], measured, rest, scale, scale_sigma)


def grid_transmission(blacked: Floats, open_beam: Floats, dose_ratio: float) -> float:
    """Return the share of the beam that the grid lets pass: sums over the lit frame, at equal dose.

    Args:
        blacked: dark-corrected open beam with grid, NaN where masked.
        open_beam: without.
        dose_ratio: dose of ``blacked`` / dose of ``open_beam``.
    """
    good = np.isfinite(blacked) & np.isfinite(open_beam) & (open_beam > 0.2 * np.nanmedian(open_beam))
    return float(blacked[good].sum() / open_beam[good].sum() / dose_ratio)


def _left_out(places: Floats, values: Floats) -> Floats:
    """Return prediction minus measurement of every body (on the hull: extrapolated, an upper bound)."""
    everyone = np.arange(len(values))
    rest = np.array([
        _spline(places[everyone != k], values[everyone != k])(places[k : k + 1])[0] - values[k]
        for k in everyone
    ])  # fmt: skip
    return np.asarray(rest, np.float64)


def _spline(places: Floats, values: Floats) -> RBFInterpolator:
    return RBFInterpolator(places, values, kernel="thin_plate_spline", degree=1)


def _interpolated(places: Floats, values: Floats, shape: tuple[int, ...]) -> Floats:
    ny, nx = shape
    rows, columns = (np.unique(np.append(np.arange(0, n, GRID_PX), n - 1)).astype(float) for n in (ny, nx))
    knots = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    coarse = _spline(places, values)(knots).reshape(rows.size, columns.size)
    wide = np.empty((rows.size, nx))
    for k in range(rows.size):
        wide[k] = np.interp(np.arange(nx), columns, coarse[k])
    field = np.empty((ny, nx))
    for above, below in pairwise(range(rows.size)):
        first, last = int(rows[above]), int(rows[below])
        share = (np.arange(first, last + 1) - first)[:, None] / (last - first)
        field[first : last + 1] = (1 - share) * wide[above] + share * wide[below]
    return field
