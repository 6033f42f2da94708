"""Tortuosity: steady diffusion through the pores, solved until the flux is the same through every plane.

div grad c = 0 in the pores, c = 1 and 0 on two opposite faces of the volume, no flux anywhere else. Voxels
are cells, neighbours are joined by their common face; the two faces of the volume lie half a voxel from the
first and last cells. As TauFactor does (Cooper et al., SoftwareX 5 (2016) 203).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.sparse import coo_array

from edge.uncertainty import Estimate

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

FLUX_MISMATCH = 0.01  # (largest - smallest flux through a plane) / mean
AFTERWARDS = 100  # more iterations once the flux agrees
EVERY = 25  # iterations between two looks at the flux
MAX_ITERATIONS = 50_000
MAX_CELLS = 6_000_000  # pore voxels: about 200 B each while solving


@dataclass(frozen=True)
class Transport:
    """Diffusion along one axis.

    Attributes:
        axis: of the array.
        diffusivity: D_eff / D of the free liquid.
        tortuosity: porosity / diffusivity, with the porosity of pores that lead through.
        porosity: of pores that lead through.
        total_porosity: of all pores.
        flux_mismatch: what is left of it; the systematic error of both.
        iterations: of the solver.
    """

    axis: int
    diffusivity: Estimate
    tortuosity: Estimate
    porosity: float
    total_porosity: float
    flux_mismatch: float
    iterations: int


def tortuosity(pores: Mask, axis: int, mismatch: float = FLUX_MISMATCH) -> Transport | None:
    """Return the diffusion along an axis through pores joined by faces, None if no pore leads through.

    tau = eps / (D_eff / D), D_eff / D = J L / A, J the mean flux, L and A length and cross-section of the
    volume in voxels. Solved by conjugate gradients with the diagonal as preconditioner; it stops 100
    iterations after the flux through all planes agrees within ``mismatch``. sigma_stat is NaN: one volume
    gives one value; sigma_sys is the remaining mismatch.

    Raises:
        ValueError: if the volume is too large or the solver does not get there.
    """
    volume = np.moveaxis(pores, axis, 0)
    through = _percolating(volume)
    if not through.any():
        return None
    cells = int(through.sum())
    if cells > MAX_CELLS:
        raise ValueError(f"{cells} pore voxels are too many to solve for ({MAX_CELLS}): bin the volume")
    length, area = volume.shape[0], volume.shape[1] * volume.shape[2]
    flux, left, iterations = _solve(through, mismatch)
    conductance = flux * length / area
    porosity = cells / through.size
    nan = float("nan")
    tau = porosity / conductance
    return Transport(
        axis, Estimate(conductance, nan, conductance * left, "1"), Estimate(tau, nan, tau * left, "1"),
        porosity, float(pores.mean()), left, iterations,
    )  # fmt: skip


def directional_diffusion(free: Estimate, porosity: Estimate, tau: Estimate) -> Estimate:
    """Return D_dir = D eps / tau with its errors (independent, in quadrature), in the unit of D.

    Raises:
        ValueError: if the tortuosity is not positive.
    """
    if tau.value <= 0.0:
        raise ValueError(f"tortuosity must be positive, got {tau.value}")
    value = free.value * porosity.value / tau.value
    parts = (free, porosity, tau)
    stat, sys = (
        abs(value) * float(np.sqrt(sum((getattr(e, kind) / e.value) ** 2 for e in parts if e.value)))
        for kind in ("sigma_stat", "sigma_sys")
    )
    return Estimate(value, stat, sys, free.unit)


def _dot(a: Floats, b: Floats) -> float:
    """Sum of products in one thread and always in the same order, unlike the dot of a threaded BLAS."""
    return float((a * b).sum())


def _percolating(volume: Mask) -> Mask:
    """Return the pores that reach both faces of the first axis."""
    labels, _ = label(volume)
    both = np.intersect1d(labels[0], labels[-1])
    return np.isin(labels, both[both > 0])


def _solve(through: Mask, mismatch: float) -> tuple[float, float, int]:
    """Return mean flux per plane, its mismatch and the iterations."""
    index = np.full(through.shape, -1, np.int32)
    n = int(through.sum())
    index[through] = np.arange(n, dtype=np.int32)
    rows, columns = [], []
    for axis in range(3):
        a = np.take(index, range(through.shape[axis] - 1), axis=axis).ravel()
        b = np.take(index, range(1, through.shape[axis]), axis=axis).ravel()
        both = (a >= 0) & (b >= 0)
        rows.append(a[both])
        columns.append(b[both])
    ahead, behind = rows[0], columns[0]  # pairs along the flux
    row, column = np.concatenate(rows), np.concatenate(columns)
    inlet, outlet = index[0][index[0] >= 0], index[-1][index[-1] >= 0]
    diagonal = (np.bincount(row, minlength=n) + np.bincount(column, minlength=n)).astype(np.float64)
    right = np.zeros(n)
    right[inlet] += 2.0
    diagonal[inlet] += 2.0
    diagonal[outlet] += 2.0
    joined = coo_array((np.ones(row.size), (row, column)), shape=(n, n)).tocsr()
    neighbours = joined + joined.T
    plane = np.nonzero(through)[0]
    between = plane[ahead]
    number = through.shape[0]

    def flux(c: Floats) -> Floats:
        inner = np.bincount(between, c[ahead] - c[behind], number)[: number - 1]
        return np.concatenate([[2.0 * (1.0 - c[inlet]).sum()], inner, [2.0 * c[outlet].sum()]])

    c = 1.0 - (plane + 0.5) / number  # straight down
    rest = right - (diagonal * c - neighbours @ c)
    direction = rest / diagonal
    scaled = _dot(rest, direction)
    until = MAX_ITERATIONS
    for iteration in range(1, MAX_ITERATIONS + 1):
        moved = diagonal * direction - neighbours @ direction
        curvature = _dot(direction, moved)
        if curvature > 0.0:
            step = scaled / curvature
            c += step * direction
            rest -= step * moved
        ready = rest / diagonal
        new = _dot(rest, ready)
        exact = new < 1e-28 * n or curvature <= 0.0
        if exact or iteration >= until or (until == MAX_ITERATIONS and iteration % EVERY == 0):
            through_planes = flux(c)
            mean = float(through_planes.mean())
            left = float(np.ptp(through_planes) / abs(mean)) if mean else np.inf
            if exact or iteration >= until:
                if left > mismatch:
                    break
                return mean, left, iteration
            if left < mismatch:
                until = min(iteration + AFTERWARDS, MAX_ITERATIONS)
        direction = ready + new / scaled * direction
        scaled = new
    raise ValueError(f"the flux did not agree within {mismatch:.1%} after {MAX_ITERATIONS} iterations")
