"""Roughness of a buried interface: heights from a segmented volume, a fitted mean plane, R_a and R_q."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.tomography_blocks import correlated_mean
from edge.uncertainty import Estimate

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

SIDES = ("top", "bottom")


@dataclass(frozen=True)
class Roughness:
    """R_a and R_q about the mean plane.

    Attributes:
        ra: mean of |Z|.
        rq: root of the mean of Z^2.
        plane: height = c + gy y + gx x, with y and x in the unit of the pitch: (c, gy, gx).
        residual: Z, NaN where there is no surface.
        points: heights used.
        range_pixels: over which heights are correlated.
    """

    ra: Estimate
    rq: Estimate
    plane: tuple[float, float, float]
    residual: Floats
    points: int
    range_pixels: float


def heights(solid: Mask, voxel: float, side: str = "top") -> Floats:
    """Return the place of the first ("top") or last ("bottom") solid voxel along the first axis.

    The height is that of the voxel's outer face, in the unit of ``voxel`` and measured along rising planes;
    NaN where a column holds no solid.

    Raises:
        ValueError: for an unknown side or a volume that is not three-dimensional.
    """
    if side not in SIDES or solid.ndim != 3:
        raise ValueError(f"side {side!r}, {solid.ndim} dimensions: expected {' or '.join(SIDES)}, 3")
    any_solid = solid.any(axis=0)
    if side == "top":
        place = solid.argmax(axis=0).astype(np.float64)
    else:
        place = solid.shape[0] - solid[::-1].argmax(axis=0).astype(np.float64)
    return np.where(any_solid, place * voxel, np.nan)


def roughness(height: ArrayLike, pitch: float, quantum: float = 0.0, unit: str = "um") -> Roughness:
    """Return R_a = <|Z|> and R_q = sqrt(<Z^2>) about the plane that fits best.

    The plane is a least-squares fit along the height. sigma_stat: of <|Z|> and <Z^2> over correlated heights
    (``edge.tomography_blocks``), s(R_q) = s(<Z^2>) / (2 R_q). sigma_sys: heights in steps of ``quantum`` add
    quantum^2 / 12 to R_q^2 at most; the shift that would make is given, nothing is subtracted. (The plane
    takes up three heights: R_q is small by 1.5 of the number of independent ones, far below sigma_stat.)

    Args:
        height: (ny, nx), NaN where there is no surface.
        pitch: of the columns.
        quantum: step of the heights, usually one voxel; 0 for continuous ones.
        unit: of height, pitch and quantum.

    Raises:
        ValueError: if fewer than four heights are left or all lie on one line.

    Source: Huang et al., Cell Rep. Phys. Sci. 5 (2024), equations 6 and 7.
    """
    z = np.asarray(height, np.float64)
    good = np.isfinite(z)
    if z.ndim != 2 or good.sum() < 4:
        raise ValueError(f"{int(good.sum())} heights of shape {z.shape} have no roughness")
    row, column = np.nonzero(good)
    middle = (0.5 * (z.shape[0] - 1), 0.5 * (z.shape[1] - 1))
    y, x = (row - middle[0]) * pitch, (column - middle[1]) * pitch
    design = np.stack([np.ones(row.size), y, x], axis=1)
    plane, _, rank, _ = np.linalg.lstsq(design, z[good], rcond=None)
    if rank < 3:
        raise ValueError("the heights lie on one line: no plane fits")
    residual = np.full(z.shape, np.nan)
    residual[good] = z[good] - design @ plane
    size = correlated_mean(np.nan_to_num(np.abs(residual)), good)
    square = correlated_mean(np.nan_to_num(residual**2), good)
    rq = float(np.sqrt(square.mean))
    shift = float(np.hypot(rq, quantum / np.sqrt(12.0))) - rq
    sigma_q = square.sigma / (2.0 * rq) if rq > 0.0 else 0.0
    ratio = size.mean / rq if rq > 0.0 else 1.0
    ra = Estimate(size.mean, size.sigma, float(shift * ratio), unit)
    return Roughness(
        ra, Estimate(rq, sigma_q, float(shift), unit), (float(plane[0]), float(plane[1]), float(plane[2])),
        residual, int(good.sum()), square.range_voxels,
    )  # fmt: skip


def relative_change(before: Estimate, after: Estimate) -> Estimate:
    """Return (after - before) / before of two independent values; what quantises both is common and cancels.

    sigma_stat^2 = (s_a / b)^2 + (a s_b / b^2)^2; sigma_sys = |a s_b - b s_a| / b^2 (fully correlated).
    """
    a, b = after.value, before.value
    stat = float(np.hypot(after.sigma_stat / b, a * before.sigma_stat / b**2))
    return Estimate(a / b - 1.0, stat, abs(a * before.sigma_sys - b * after.sigma_sys) / b**2, "1")
