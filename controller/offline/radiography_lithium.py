"""6Li from optical depth: per area, per volume, and what a gradient of it says about diffusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controller.offline.radiography_options import Options
from edge.isotopes import (
    LITHIUM6_ABSORPTION_BARN,
    LITHIUM6_ABSORPTION_SIGMA_BARN,
    Diffusion,
    areal_density_polychromatic,
    lithium6_cross_section,
    maxwell_spectrum,
    migration_diffusion,
)
from edge.radiography_depth import Profile, RegionDepth, straight_line
from edge.uncertainty import Estimate

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Lithium:
    """6Li along a profile."""

    values: Floats
    sigma_stat: Floats
    sigma_common: Floats  # doses, scattering, cross-section: moves all points together
    unit: str  # 1/cm2 or, with a path, 1/cm3
    mean: Estimate


def lithium(options: Options, depth: Floats, stat: Floats, common: Floats) -> Lithium | None:
    """Return 6Li from optical depths, or None if no wavelength was given.

    N = (depth - mu_matrix L) / sigma(6Li) per area; with the path L, N / L per volume. In a white beam the
    curve of the spectrum is inverted (beam hardening). Any shape; NaN stays NaN.
    """
    path = options.path_cm
    depth = depth - (options.matrix_per_cm * path if path else 0.0)
    if options.wavelength_angstrom is not None:
        sigma, _ = lithium6_cross_section(options.wavelength_angstrom)
        areal, slope = depth / float(sigma), np.full(depth.shape, 1.0 / float(sigma))
    elif options.maxwell_k is not None:
        good = np.isfinite(depth)
        areal, slope = np.full(depth.shape, np.nan), np.full(depth.shape, np.nan)
        areal[good], slope[good] = areal_density_polychromatic(
            depth[good], *maxwell_spectrum(options.maxwell_k)
        )
    else:
        return None
    relative = LITHIUM6_ABSORPTION_SIGMA_BARN / LITHIUM6_ABSORPTION_BARN
    scale, unit = (1.0 / path, "1/cm3") if path else (1.0, "1/cm2")
    stat = slope * stat * scale
    common = np.hypot(slope * common, relative * areal) * scale
    values = areal * scale
    good = np.isfinite(values)
    if not np.any(good):
        raise ValueError("no place has a transmission: sample and reference are dark there")
    n = int(np.count_nonzero(good))
    mean = Estimate(
        float(values[good].mean()),
        float(np.sqrt(np.sum(stat[good] ** 2)) / n),
        float(common[good].mean()),
        unit,
    )
    return Lithium(values, stat, common, unit, mean)


def lithium_of(options: Options, along: Profile) -> Lithium | None:
    """Return 6Li along a profile, or None if no wavelength was given."""
    return lithium(options, along.depth, along.sigma_stat, along.sigma_common)


def lithium_at(options: Options, regions: Sequence[RegionDepth]) -> tuple[Estimate, ...]:
    """Return 6Li of each region; empty if no wavelength was given."""
    if not regions:
        return ()
    depth, stat, sys = (
        np.array([getattr(one.depth, name) for one in regions])
        for name in ("value", "sigma_stat", "sigma_sys")
    )
    found = lithium(options, depth, stat, sys)
    if found is None:
        return ()
    return tuple(
        Estimate(float(v), float(a), float(b), found.unit)
        for v, a, b in zip(found.values, found.sigma_stat, found.sigma_common, strict=True)
    )


def transport_of(options: Options, along: Profile, found: Lithium) -> Diffusion | None:
    """Return the apparent diffusion coefficient with its Nernst-Einstein cross-check, if it was asked for.

    dC/dx is the slope of a straight line through the chosen rows; the mean 6Li there over all lithium is x6.
    """
    wanted, pixel = options.transport, options.pixel_um
    if wanted is None or pixel is None:
        return None
    inside = (
        (along.centre_px >= wanted.rows.start)
        & (along.centre_px < wanted.rows.stop)
        & np.isfinite(found.values)
    )
    if np.count_nonzero(inside) < 3:
        raise ValueError("--gradient: fewer than three points of the profile lie in these rows")
    x_cm = along.centre_px[inside] * pixel * 1e-4
    values = found.values[inside]
    line = straight_line(x_cm, values)
    if line.slope == 0:
        raise ValueError("--gradient: the 6Li density does not change in these rows")
    mean, n = float(values.mean()), values.size
    sigma = float(
        np.hypot(np.sqrt(np.sum(found.sigma_stat[inside] ** 2)) / n, found.sigma_common[inside].mean())
    )
    spread = float(np.sqrt(np.sum((x_cm - x_cm.mean()) ** 2)))
    slope_sigma = max(line.slope_sigma, float(np.sqrt(np.mean(found.sigma_stat[inside] ** 2))) / spread)
    return migration_diffusion(
        conductivity_s_cm=(wanted.conductivity_s_cm, 0.0),
        fraction6=(mean / wanted.lithium_cm3, sigma / wanted.lithium_cm3),
        voltage_v=(wanted.voltage_v, 0.0), length_cm=(wanted.length_cm, 0.0),
        gradient_cm4=(abs(line.slope), slope_sigma), lithium_cm3=(wanted.lithium_cm3, 0.0),
        temperature_k=wanted.temperature_k,
    )  # fmt: skip
