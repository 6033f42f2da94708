"""Where things are, in micrometres: raster, interface pose, fractional weights of pixels in layers, profiles.

Counts are never resampled. A layer is a band of distances from the interface and moves with it; a pixel that
its border cuts counts with the fraction of its area inside. A profile bin holds whole pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """A raster: pixel (column i, line j) is centred at the returned x and y; line 0 has the lowest y."""

    nx: int
    ny: int
    width_um: float
    height_um: float
    centre_x_um: float = 0.0
    centre_y_um: float = 0.0
    dwell_s: float = 0.0

    def __post_init__(self) -> None:
        if min(self.nx, self.ny) < 1 or min(self.width_um, self.height_um) <= 0.0:
            raise ValueError(
                f"raster {self.nx} x {self.ny}, {self.width_um} x {self.height_um} um: not positive"
            )

    @property
    def pitch_x_um(self) -> float:
        """Width of a pixel."""
        return self.width_um / self.nx

    @property
    def pitch_y_um(self) -> float:
        """Height of a pixel."""
        return self.height_um / self.ny

    def positions_um(self) -> tuple[Floats, Floats]:
        """Return x and y of all pixel centres, each of shape (ny * nx,), line by line."""
        x = self.centre_x_um + (np.arange(self.nx) + 0.5) * self.pitch_x_um - 0.5 * self.width_um
        y = self.centre_y_um + (np.arange(self.ny) + 0.5) * self.pitch_y_um - 0.5 * self.height_um
        return np.tile(x, self.ny), np.repeat(y, self.nx)


@dataclass(frozen=True)
class Pose:
    """The interface: the line y cos(angle) - (x - pivot) sin(angle) = position. Errors are one sigma."""

    angle_rad: float
    position_um: float
    pivot_x_um: float = 0.0
    sigma_angle_rad: float = 0.0
    sigma_position_um: float = 0.0

    def distance_um(self, x_um: ArrayLike, y_um: ArrayLike) -> Floats:
        """Return the signed distance of points from the interface, positive towards the upper layer."""
        x, y = np.asarray(x_um, np.float64), np.asarray(y_um, np.float64)
        along = y * math.cos(self.angle_rad) - (x - self.pivot_x_um) * math.sin(self.angle_rad)
        result: Floats = along - self.position_um
        return result

    def moved(self, angle_rad: float = 0.0, position_um: float = 0.0) -> Pose:
        """Return the pose turned about the pivot and shifted along the normal."""
        return Pose(
            self.angle_rad + angle_rad,
            self.position_um + position_um,
            self.pivot_x_um,
            self.sigma_angle_rad,
            self.sigma_position_um,
        )

    def position_at_um(self, pivot_x_um: float) -> float:
        """Return the position as seen from another pivot."""
        return self.position_um + (pivot_x_um - self.pivot_x_um) * math.sin(self.angle_rad)


@dataclass(frozen=True)
class Registration:
    """How far the interface of a scan lies from that of the reference; one-sigma errors."""

    shift_um: float
    sigma_shift_um: float
    angle_deg: float
    sigma_angle_deg: float


def register(scan: Pose, reference: Pose) -> Registration:
    """Return the shift along the normal and the turn that bring the reference onto the scan.

    Both positions are taken at the reference's pivot, so that a different raster centre is not a shift.
    """
    lever = scan.pivot_x_um - reference.pivot_x_um
    sigma = math.hypot(scan.sigma_position_um, lever * scan.sigma_angle_rad)
    return Registration(
        shift_um=scan.position_at_um(reference.pivot_x_um) - reference.position_um,
        sigma_shift_um=math.hypot(sigma, reference.sigma_position_um),
        angle_deg=math.degrees(scan.angle_rad - reference.angle_rad),
        sigma_angle_deg=math.degrees(math.hypot(scan.sigma_angle_rad, reference.sigma_angle_rad)),
    )


def area_below(grid: Grid, pose: Pose, limit_um: float) -> Floats:
    """Return the fraction of each pixel's area that is closer to the lower side than a distance.

    The projection of a rectangle onto the normal is the convolution of two boxes of widths
    a = pitch_y |cos|, b = pitch_x |sin|; its integral is
    F(t) = [r(t+(a+b)/2) - r(t+(a-b)/2) - r(t-(a-b)/2) + r(t-(a+b)/2)] / (2ab), r(u) = max(u, 0)^2, exact.

    Args:
        grid: the raster.
        pose: the interface.
        limit_um: distance from the interface; +-inf are allowed.

    Returns:
        Fractions, shape (ny * nx,).
    """
    t = limit_um - pose.distance_um(*grid.positions_um())
    if math.isinf(limit_um):
        return np.full(t.shape, 1.0 if limit_um > 0 else 0.0)
    a = grid.pitch_y_um * abs(math.cos(pose.angle_rad))
    b = grid.pitch_x_um * abs(math.sin(pose.angle_rad))
    if min(a, b) < 1e-4 * max(a, b):
        box: Floats = np.clip(t / max(a, b) + 0.5, 0.0, 1.0)
        return box

    def ramp(u: Floats) -> Floats:
        squared: Floats = np.maximum(u, 0.0) ** 2
        return squared

    wide, narrow = 0.5 * (a + b), 0.5 * (a - b)
    fraction: Floats = (ramp(t + wide) - ramp(t + narrow) - ramp(t - narrow) + ramp(t - wide)) / (2 * a * b)
    return np.clip(fraction, 0.0, 1.0)


def layer_weights(grid: Grid, pose: Pose, bounds_um: Sequence[tuple[float, float]]) -> Floats:
    """Return the share of each pixel's area inside each layer.

    Args:
        grid: the raster.
        pose: the interface.
        bounds_um: lower and upper distance from the interface, per layer; an empty layer has upper <= lower.

    Returns:
        Weights from 0 to 1, shape (ny * nx, layers).
    """
    columns = [
        area_below(grid, pose, high) - area_below(grid, pose, low)
        if high > low
        else np.zeros(grid.nx * grid.ny)
        for low, high in bounds_um
    ]
    return np.stack(columns, axis=1)


def visible_range_um(grid: Grid, pose: Pose) -> tuple[float, float]:
    """Return the distances from the interface over which the raster covers its full width."""
    half_x, half_y = 0.5 * grid.width_um, 0.5 * grid.height_um
    lower = pose.distance_um(
        [grid.centre_x_um - half_x, grid.centre_x_um + half_x], [grid.centre_y_um - half_y] * 2
    )
    upper = pose.distance_um(
        [grid.centre_x_um - half_x, grid.centre_x_um + half_x], [grid.centre_y_um + half_y] * 2
    )
    return float(lower.max()), float(upper.min())


def sums_in_layers(weights: Floats, counts: ArrayLike) -> tuple[Floats, Floats]:
    """Return weighted sums of counts per layer, and their Poisson variances.

    S = sum_p w_p n_p;  var = sum_p w_p^2 n_p.

    Args:
        weights: shape (pixels, layers).
        counts: shape (..., pixels, segments).

    Returns:
        (S, var), each of shape (..., layers, segments).

    Raises:
        ValueError: if the numbers of pixels differ.
    """
    number = np.asarray(counts)
    if number.shape[-2] != weights.shape[0]:
        raise ValueError(f"{number.shape[-2]} pixels of counts, {weights.shape[0]} of weights")
    turned = np.ascontiguousarray(weights.T)
    values = number.astype(np.float64, copy=False)
    return turned @ values, turned**2 @ values


@dataclass(frozen=True)
class Bins:
    """Bins along the normal; every pixel belongs to the bin that its centre is in, whole."""

    edges_um: Floats
    index: NDArray[np.intp]  # per pixel; -1 outside

    @property
    def centres_um(self) -> Floats:
        """Middle of each bin."""
        middle: Floats = 0.5 * (self.edges_um[:-1] + self.edges_um[1:])
        return middle

    def sum(self, values: ArrayLike) -> Floats:
        """Return the sum of a quantity per pixel in each bin, shape (bins,)."""
        inside = self.index >= 0
        weights = np.asarray(values, np.float64)[inside]
        total = np.bincount(self.index[inside], weights, minlength=self.edges_um.size - 1)
        return np.asarray(total, dtype=np.float64)


def profile_bins(grid: Grid, pose: Pose, edges_um: Floats | None = None) -> Bins:
    """Return bins along the interface normal in um from the interface, by default one pixel height wide.

    Whole pixels keep the bins independent and Poisson; what the tilt blurs is at most half a pixel.
    """
    distance = pose.distance_um(*grid.positions_um())
    pitch = grid.pitch_y_um
    first, last = math.floor(float(distance.min()) / pitch), math.ceil(float(distance.max()) / pitch)
    edges: Floats = pitch * np.arange(first, last + 1, dtype=np.float64) if edges_um is None else edges_um
    index = np.searchsorted(edges, distance, side="right").astype(np.intp) - 1
    index[(index < 0) | (index >= edges.size - 1)] = -1
    return Bins(edges, index)
