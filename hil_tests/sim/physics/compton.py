"""Photons of a sheet of X-rays scattered into a pixel detector behind a pinhole, drawn one by one.

The Compton profile is a mixture of a narrow part (valence electrons, a parabola of a free-electron gas) and a
broad one (core electrons, a Gaussian). Its ratio S of core window to wings after the detector's resolution
follows the lithium by the straight line of the published table, 1 - x = 0.43306 S - 0.28154; the fraction of
the narrow part is set so that S comes out. Atomic units of momentum; one is 1/137.036 of mc.

Each photon has a pixel (all alike), a momentum and with it an energy by the angle of that pixel, and shares
its charge with a neighbour to the right, left, above or below with ``shared``. The noise is the detector's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

REST_KEV = 510.99895
FINE_STRUCTURE = 137.035999
GRID_AU = np.linspace(-12.0, 12.0, 4801)
FERMI_AU, CORE_SIGMA_AU = 1.1, 2.2
CORE_AU, WING_AU = 1.0, 5.0  # S: |p| < 1 over 1 < |p| < 5
SLOPE, INTERCEPT = 0.43306, -0.28154  # 1 - x over S
ANGLES = 128  # rows of the table of energies
QUANTILES = 8192


@dataclass(frozen=True)
class Geometry:
    """Beam and pinhole; the beam runs along the columns."""

    energy_kev: float = 115.0
    distance_mm: float = 150.0
    pitch_mm: float = 0.25
    rows: int = 80
    columns: int = 80

    def angles_rad(self) -> Floats:
        """Return the scattering angle of each pixel, (rows, columns), about 90 degrees in the middle."""
        v = (np.arange(self.rows) - (self.rows - 1) / 2) * self.pitch_mm
        u = (np.arange(self.columns) - (self.columns - 1) / 2) * self.pitch_mm
        length = np.sqrt(v[:, None] ** 2 + u[None, :] ** 2 + self.distance_mm**2)
        return np.asarray(np.arccos(u[None, :] / length), np.float64)


def momentum_au(energy_kev: Floats, incoming_kev: float, angle_rad: float) -> Floats:
    """Return the momentum along the scattering vector that gives a photon this energy."""
    cosine = math.cos(angle_rad)
    change = energy_kev - incoming_kev + incoming_kev * energy_kev / REST_KEV * (1.0 - cosine)
    transfer = np.sqrt(incoming_kev**2 + energy_kev**2 - 2.0 * incoming_kev * energy_kev * cosine)
    return np.asarray(change / transfer * FINE_STRUCTURE, np.float64)


def parts() -> tuple[Floats, Floats]:
    """Return the narrow and the broad profile on the grid, each of area 1."""
    narrow = np.clip(1.0 - (GRID_AU / FERMI_AU) ** 2, 0.0, None)
    broad = np.exp(-0.5 * (GRID_AU / CORE_SIGMA_AU) ** 2)
    return narrow / narrow.sum(), broad / broad.sum()


def s_of(fraction: float, resolution_au: float) -> float:
    """Return S of a mixture after a Gaussian resolution (one sigma)."""
    narrow, broad = parts()
    blur = np.exp(-0.5 * (GRID_AU / resolution_au) ** 2)
    profile = np.convolve(fraction * narrow + (1.0 - fraction) * broad, blur / blur.sum(), mode="same")
    size = np.abs(GRID_AU)
    return float(profile[size < CORE_AU].sum() / profile[(size > CORE_AU) & (size < WING_AU)].sum())


def narrow_fraction(lithium_lost: float, resolution_au: float) -> float:
    """Return the fraction of narrow profile that gives the S of ``lithium_lost`` = 1 - x."""
    wanted = (lithium_lost - INTERCEPT) / SLOPE
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if s_of(middle, resolution_au) < wanted else (low, middle)
    return (low + high) / 2


class Photons:
    """Draws photons.

    Args:
        geometry: of beam and detector.
        rng: of this source alone.
        shared: fraction of photons that two pixels see.
        resolution_kev: one sigma of the electronics, for S.
    """

    def __init__(
        self,
        geometry: Geometry,
        rng: np.random.Generator,
        *,
        shared: float = 0.2,
        resolution_kev: float = 0.2,
    ) -> None:
        self._geometry, self._rng, self._shared = geometry, rng, shared
        self.resolution_au = resolution_kev / 0.886  # keV of one atomic unit at 90 degrees and 115 keV
        angles = geometry.angles_rad()
        low, high = float(angles.min()), float(angles.max())
        grid = np.linspace(low, high, ANGLES)
        self._row = np.rint((angles.ravel() - low) / (high - low) * (ANGLES - 1)).astype(np.int32)
        energies = np.linspace(50.0, geometry.energy_kev, 4000)
        self._energy_of = [
            (momentum_au(energies, geometry.energy_kev, float(angle)), energies) for angle in grid
        ]
        self._table = np.zeros((ANGLES, QUANTILES), np.float32)
        self.last_split = np.zeros(0, np.int64)
        self.set_lithium_lost(0.0)

    def set_lithium_lost(self, lithium_lost: float) -> None:
        """Take over how much of the lithium has left, 1 - x."""
        self.fraction = narrow_fraction(lithium_lost, self.resolution_au)
        narrow, broad = parts()
        total = np.cumsum(self.fraction * narrow + (1.0 - self.fraction) * broad)
        middle = (np.arange(QUANTILES) + 0.5) / QUANTILES
        momenta = np.interp(middle, total, GRID_AU + (GRID_AU[1] - GRID_AU[0]) / 2)
        for k, (momentum, energies) in enumerate(self._energy_of):
            self._table[k] = np.interp(momenta, momentum, energies)

    def draw(self, n: int) -> tuple[NDArray[np.int64], Floats, NDArray[np.int64], Floats]:
        """Return pixels and energies (keV) of n photons, then those of the charge that neighbours got."""
        rng, columns = self._rng, self._geometry.columns
        pixel = rng.integers(0, self._row.size, n)
        energy = self._table[self._row[pixel], rng.integers(0, QUANTILES, n)].astype(np.float64)
        split = np.flatnonzero(rng.random(n) < self._shared)
        direction = rng.integers(0, 4, split.size)
        y, x = np.divmod(pixel[split], columns)
        y = y + np.array([0, 0, 1, -1])[direction]
        x = x + np.array([1, -1, 0, 0])[direction]
        inside = (y >= 0) & (y < self._geometry.rows) & (x >= 0) & (x < columns)
        split, y, x = split[inside], y[inside], x[inside]
        self.last_split = split  # which of the photons they belong to
        part = rng.uniform(0.15, 0.5, split.size) * energy[split]
        energy[split] -= part
        return pixel, energy, y * columns + x, part
