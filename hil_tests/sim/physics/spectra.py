"""Shapes of what a detector measures: each component of a spectrum as a table from which energies are drawn.

A table holds the inverse of the cumulated distribution at ``NODES`` equal steps of probability, detector
resolution included, so that drawing an energy is one random number and one linear interpolation.

* Silicon: FWHM^2 = noise^2 + 8 ln2 F eps E, F = 0.115, eps = 3.81 eV (77 K), 145 eV at Mn Ka.
* Germanium: the same with F = 0.13, eps = 2.96 eV, 2.0 keV at 477.6 keV.
* Lithium line: the recoiling 7Li decays in flight. In the centre-of-mass system it goes everywhere with speed
  v_r, while the centre of mass goes forward with v_cm; at 0 degrees the photon has E0 (1 + v_z / c): a box of
  half-width E0 v_r / c about E0 (1 + v_cm / c) for each proton energy, averaged over the slowing down. That
  is moved and stretched to the centroid and width that the station measured (slowing down of the recoil and
  angular distribution are in the measured line, not here).
* Compton continua: Klein and Nishina's distribution of the electron's energy for each of the lines above.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from hil_tests.sim.physics.stopping import PROTON_MEV, slowing_down
from hil_tests.sim.physics.yields import Densities, lithium_cross_section_cm2

Floats = npt.NDArray[np.float64]

NODES = 2049
TAIL_SIGMA = 4.5
FWHM_PER_SIGMA = math.sqrt(8.0 * math.log(2.0))
ELECTRON_KEV = 510.99895069  # CODATA 2022
LITHIUM_KEV = 477.6  # 7Li first excited state at rest (477.612, ENSDF)
ANNIHILATION_FWHM_KEV = 2.8  # detector and moving electrons
MASS_LITHIUM7_U = 7.016  # AME 2020
MASS_PROTON_U = 1.0073  # CODATA 2022


def silicon_fwhm_kev(energy_kev: float, *, at_mn_ka_kev: float = 0.145) -> float:
    """Return the resolution of a silicon detector."""
    statistical = FWHM_PER_SIGMA**2 * 0.115 * 0.00381
    return math.sqrt(at_mn_ka_kev**2 + statistical * (energy_kev - 5.895))


def germanium_fwhm_kev(energy_kev: float, *, at_lithium_kev: float = 2.0) -> float:
    """Return the resolution of a germanium detector."""
    statistical = FWHM_PER_SIGMA**2 * 0.13 * 0.00296
    return math.sqrt(at_lithium_kev**2 + statistical * (energy_kev - LITHIUM_KEV))


def line_table(energy_kev: float, fwhm_kev: float) -> Floats:
    """Return the table of a line broadened by a Gaussian."""
    sigma = fwhm_kev / FWHM_PER_SIGMA
    grid = np.linspace(energy_kev - TAIL_SIGMA * sigma, energy_kev + TAIL_SIGMA * sigma, 4001)
    return table_of(grid, np.exp(-0.5 * ((grid - energy_kev) / sigma) ** 2))


def doppler_table(densities: Densities, start_mev: float, centroid_kev: float, fwhm_kev: float) -> Floats:
    """Return the table of the lithium line of this material, moved and stretched to what was measured."""
    grid = np.linspace(LITHIUM_KEV - 30.0, LITHIUM_KEV + 40.0, 7001)
    natural = _doppler_shape(grid, densities, start_mev)
    resolution = germanium_fwhm_kev(LITHIUM_KEV) / FWHM_PER_SIGMA
    mean = float((grid * natural).sum() / natural.sum())
    low, high = 0.05, 5.0
    for _ in range(60):  # stretch until the width, with the detector's resolution, is the measured one
        stretch = 0.5 * (low + high)
        shape = _smeared(grid, np.interp((grid - centroid_kev) / stretch + mean, grid, natural), resolution)
        if _fwhm(grid, shape) > fwhm_kev:
            high = stretch
        else:
            low = stretch
    return table_of(grid, shape)


def compton_table(lines_kev: dict[float, float], *, low_kev: float, fwhm_kev: float) -> Floats:
    """Return the table of the Compton continua of lines given as energy -> weight, above ``low_kev``."""
    grid = np.arange(low_kev, 1.1 * max(lines_kev), 0.25)
    shape = np.zeros_like(grid)
    for energy, weight in lines_kev.items():
        shape += weight * _klein_nishina(grid, energy)
    return table_of(grid, _smeared(grid, shape, fwhm_kev / FWHM_PER_SIGMA))


def falling_table(low_kev: float, high_kev: float, parts: list[tuple[float, float]]) -> Floats:
    """Return the table of a sum of exponentials given as (weight, decay energy in keV)."""
    grid = np.linspace(low_kev, high_kev, 8001)
    shape = np.zeros_like(grid)
    for weight, decay in parts:
        shape += weight / decay * np.exp(-(grid - low_kev) / decay)
    return table_of(grid, shape)


def table_of(grid: Floats, shape: Floats) -> Floats:
    """Return the table of any distribution given on a grid."""
    if (shape < 0.0).any() or not shape.sum() > 0.0:
        raise ValueError("a distribution must not be negative, and not zero everywhere")
    there = np.flatnonzero(shape > 1e-7 * shape.max())
    grid, shape = grid[there[0] : there[-1] + 1], shape[there[0] : there[-1] + 1]
    cumulated = np.concatenate(([0.0], np.cumsum(0.5 * (shape[1:] + shape[:-1]) * np.diff(grid))))
    cumulated += np.linspace(0.0, 1e-9 * cumulated[-1], grid.size)  # strictly rising
    return np.interp(np.linspace(0.0, 1.0, NODES), cumulated / cumulated[-1], grid)


def draw(tables: npt.NDArray[np.float64], component: npt.NDArray[np.intp], uniform: Floats) -> Floats:
    """Return one energy for each event: row ``component`` of ``tables``, at probability ``uniform``."""
    position = uniform * (NODES - 1)
    node = position.astype(np.intp)
    fraction = position - node
    flat = tables.ravel()
    index = component * NODES + node
    below = flat[index]
    energy: Floats = below + (flat[index + 1] - below) * fraction
    return energy


def _doppler_shape(grid: Floats, densities: Densities, start_mev: float) -> Floats:
    energy, stopping, _ = slowing_down(densities, start_mev, points=200)
    weight = lithium_cross_section_cm2(energy) / stopping
    total_u = MASS_LITHIUM7_U + MASS_PROTON_U
    shape = np.zeros_like(grid)
    for proton_mev, height in zip(energy, weight, strict=True):
        available = proton_mev * MASS_LITHIUM7_U / total_u - LITHIUM_KEV / 1000.0
        if height <= 0.0 or available <= 0.0:
            continue
        speed = math.sqrt(2.0 * proton_mev / PROTON_MEV)
        forward = speed * MASS_PROTON_U / total_u
        recoil = forward * math.sqrt(available / (proton_mev * MASS_LITHIUM7_U / total_u))
        half = LITHIUM_KEV * recoil
        shape += height / half * (np.abs(grid - LITHIUM_KEV * (1.0 + forward)) <= half)
    return shape


def _klein_nishina(electron_kev: Floats, photon_kev: float) -> Floats:
    """Distribution of the energy given to the electron, up to the Compton edge."""
    k = photon_kev / ELECTRON_KEV
    edge = photon_kev * 2.0 * k / (1.0 + 2.0 * k)
    s = np.clip(electron_kev / photon_kev, 0.0, 0.999)
    shape = 2.0 + (s / (k * (1.0 - s))) ** 2 + s / (1.0 - s) * (s - 2.0 / k)
    norm = np.trapezoid(np.where(electron_kev <= edge, shape, 0.0), electron_kev)
    result: Floats = np.where(electron_kev <= edge, shape, 0.0) / norm
    return result


def _smeared(grid: Floats, shape: Floats, sigma: float) -> Floats:
    step = grid[1] - grid[0]
    reach = math.ceil(TAIL_SIGMA * sigma / step)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / sigma) ** 2)
    return np.convolve(shape, kernel / kernel.sum(), mode="same")


def _fwhm(grid: Floats, shape: Floats) -> float:
    above = np.flatnonzero(shape >= 0.5 * shape.max())
    return float(grid[above[-1]] - grid[above[0]])
