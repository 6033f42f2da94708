"""Figures of tomography: slices and axis, sinogram, porosity along the depth, roughness, registration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from controller.offline.plot_style import (
    DATA,
    FILL,
    FIT,
    LEVELS,
    LINE,
    PALETTE,
    SOFT,
    grid_lines,
    new_figure,
    saved,
)

if TYPE_CHECKING:
    from controller.offline.tomography_slices import SliceReport
    from controller.offline.tomography_volume import VolumeReport

__all__ = ["porosity", "registration", "saved", "sinogram", "slices", "surface"]
SHOWN = 4
GREY = "gray"
HEIGHTS = "RdBu_r"


def slices(report: SliceReport) -> Figure:
    """Draw up to four slices with the axis of rotation, and a histogram with the threshold."""
    chosen = np.unique(np.linspace(0, len(report.rows) - 1, min(SHOWN, len(report.rows))).round().astype(int))
    figure = new_figure(3.5 * len(chosen) + 3.6, 4.1)
    grid = figure.subplots(1, len(chosen) + 1, squeeze=False, width_ratios=[1.0] * len(chosen) + [0.95])[0]
    per, unit = (1.0, "µ / pixel⁻¹") if report.pixel_um is None else (1e4 / report.pixel_um, "µ / cm⁻¹")
    n = report.slices.shape[1]
    size, length = (n, "pixels") if report.pixel_um is None else (n * report.pixel_um / 1000.0, "mm")
    low, high = (float(v) for v in np.percentile(report.slices * per, [0.5, 99.8]))
    image = None
    for axes, k in zip(grid, chosen, strict=False):
        image = axes.imshow(
            report.slices[k] * per, cmap=GREY, vmin=min(low, 0.0), vmax=high, extent=(0, size, size, 0)
        )  # fmt: skip
        if not report.data["double_field"]:
            place = (report.centre.estimate.value + 0.5) * size / n
            axes.plot(place, place, "+", color=FIT, ms=9, mew=1.4)
        axes.set_title(f"row {report.rows[k]}", pad=3)
        axes.set_xlabel(f"x / {length}")
    grid[0].set_ylabel(f"y / {length}")
    if image is not None:
        bar = figure.colorbar(image, ax=list(grid[:-1]), fraction=0.03, pad=0.01, label=unit)
        bar.outline.set_visible(False)
    counts, edges = np.histogram(report.slices[chosen] * per, 240)
    grid[-1].stairs(np.maximum(counts, 0.7), edges, fill=True, color=FILL, ec=DATA)
    mark = report.data["otsu_per_pixel"]["value"] * per
    grid[-1].axvline(mark, color=FIT, lw=1.2)
    grid[-1].annotate(
        "Otsu", (mark, 0.97), xycoords=("data", "axes fraction"), xytext=(4, -8), textcoords="offset points",
        color=FIT, fontsize=8.5,
    )  # fmt: skip
    grid[-1].set_yscale("log")
    grid[-1].set_ylim(0.7, None)
    grid[-1].set_xlabel(unit)
    grid[-1].set_ylabel("voxels per bin")
    grid[-1].set_title("all shown slices", pad=3)
    grid_lines(grid[-1])
    c = report.centre.estimate
    total = np.hypot(c.sigma_stat, c.sigma_sys)
    title = f"{report.data['file']}: attenuation; axis of rotation (+) at {c.value:.2f} ± {total:.2f} px"
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def sinogram(report: SliceReport) -> Figure:
    """Draw a sinogram, opposite projections about the axis, and the sum over the columns."""
    figure = new_figure(11.2, 3.7)
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.15, 1.1, 1.0])
    sino, angles = report.sinogram, report.angles_deg
    columns = sino.shape[1]
    left.imshow(sino, cmap=GREY, aspect="auto", extent=(0, columns, float(angles[-1]), float(angles[0])))
    left.axvline(report.centre.estimate.value + 0.5, color=FIT, lw=1.0, ls="--")
    left.set_xlabel("column")
    left.set_ylabel("angle / degrees")
    left.set_title(f"−ln T of row {report.rows[0]}, with the axis", pad=3)
    x = np.arange(columns)
    half = sino.shape[0] // 2 if report.data["double_field"] else sino.shape[0] - 1
    middle.plot(x, sino[0], color=LINE, lw=1.0)
    mirrored = 2.0 * report.centre.estimate.value - x
    middle.plot(mirrored, sino[half], color=FIT, lw=1.0, ls="--")
    middle.set_xlim(0, columns)
    for at, text, color in ((0.22, f"{angles[0]:.1f}°", LINE), (0.14, f"{angles[half]:.1f}° mirrored", FIT)):
        middle.text(0.5, at, text, color=color, transform=middle.transAxes, fontsize=9, ha="center")
    middle.set_xlabel("column")
    middle.set_ylabel("−ln T")
    middle.set_title("opposite projections", pad=3)
    total = sino.sum(axis=1, dtype=np.float64)
    right.plot(angles, total, ".", color=LINE, ms=3)
    right.axhspan(total.mean() - total.std(), total.mean() + total.std(), color=FILL, lw=0)
    right.axhline(total.mean(), color=SOFT, lw=0.9)
    right.set_xlabel("angle / degrees")
    right.set_ylabel("sum of −ln T over the columns")
    right.set_title(f"the same at every angle: {total.mean():.1f} ± {total.std():.1f}", pad=3)
    for axes in (middle, right):
        grid_lines(axes)
    return figure


def porosity(report: VolumeReport) -> Figure:
    """Draw a cut, the porosity along the depth with its regions, and how far the pores are correlated."""
    figure = new_figure(11.0, 4.0)
    cut, profile, flow = figure.subplots(1, 3, width_ratios=[1.15, 1.2, 1.0])
    pitch, unit = (1.0, "voxels") if report.voxel_um is None else (report.voxel_um, "µm")
    pores = report.found.pores
    depth, across = pores.shape[0] * pitch, pores.shape[2] * pitch
    extent = (0.0, across, depth, 0.0)
    picture = pores[:, pores.shape[1] // 2]
    if report.found.middle is not None and report.found.middle.shape == picture.shape:
        cut.imshow(report.found.middle, cmap=GREY, extent=extent)
        cut.contour(picture, [0.5], colors=[PALETTE[1]], linewidths=0.5, extent=(0.0, across, 0.0, depth))
    else:
        cut.imshow(~picture, cmap=GREY, extent=extent, vmin=-0.35, vmax=1.1, interpolation="nearest")
    for first, _ in report.found.bounds[1:]:
        cut.axhline(first * pitch, color=FIT, lw=1.0, ls="--")
    cut.set_title("cut through the middle, pores dark", pad=3)
    cut.set_xlabel(f"across / {unit}")
    cut.set_ylabel(f"depth / {unit}")
    place = (np.arange(report.profile.size) + 0.5) * pitch
    profile.plot(report.profile, place, color=DATA, lw=0.9)
    for k, region in enumerate(report.regions):
        color, p = PALETTE[k % len(PALETTE)], region.porosity
        error = np.hypot(np.nan_to_num(p.sigma_stat), p.sigma_sys)
        low, high = region.first * pitch, region.last * pitch
        profile.add_patch(
            Rectangle((p.value - error, low), 2 * error, high - low, color=color, alpha=0.22, lw=0)
        )
        profile.plot([p.value, p.value], [low, high], color=color, lw=2.0)
        text = (
            f"{100 * p.value:.1f} ± {100 * error:.1f} %"
            if np.isfinite(p.sigma_stat)
            else f"{100 * p.value:.1f} %"
        )
        profile.annotate(
            text, (p.value, 0.5 * (low + high)), xytext=(6, 0), textcoords="offset points", color=color,
            fontsize=8.5, va="center", fontweight="bold",
        )  # fmt: skip
    profile.set_ylim(depth, 0.0)
    profile.set_xlim(0.0, min(1.0, 1.7 * float(np.nanmax(report.profile))))
    profile.set_xlabel("porosity")
    profile.set_title("porosity along the depth, ± 1 σ", pad=3)
    grid_lines(profile)
    _flow(flow, report.data["transport"], report.data["porosity"]["porosity"]["value"])
    size = " × ".join(str(n) for n in pores.shape)
    figure.suptitle(f"{report.data['file']}: {size} voxels", x=0.01, ha="left", fontweight="bold")
    return figure


def _flow(axes: Axes, entries: list[dict[str, Any]], porosity_all: float) -> None:
    """Draw D_eff/D of each region and axis against porosity, with the law for spheres as a guide."""
    eps = np.linspace(0.02, 1.0, 100)
    axes.plot(eps, eps**1.5, color=SOFT, lw=1.0, ls=":")
    axes.annotate(
        "ε$^{1.5}$ (Bruggeman)", (0.75, 0.75**1.5), xytext=(-8, 6), textcoords="offset points", color=SOFT,
        fontsize=8, ha="right",
    )  # fmt: skip
    solved = [e for e in entries if e["tortuosity"] is not None]
    names = list(dict.fromkeys(e["axis"] for e in solved))
    for k, name in enumerate(names):
        mine = [e for e in solved if e["axis"] == name]
        x = [e["porosity_through"] for e in mine]
        y = [e["diffusivity"]["value"] for e in mine]
        axes.plot(x[1:], y[1:], "o", color=PALETTE[k], ms=5, mfc="none")
        axes.plot(x[:1], y[:1], "o", color=PALETTE[k], ms=6)
        axes.annotate(
            f"along {name}: τ = {mine[0]['tortuosity']['value']:.2f}", (0.46, 0.05 + 0.075 * k),
            xycoords="axes fraction", color=PALETTE[k], fontsize=9,
        )  # fmt: skip
    if not solved:
        axes.axvline(porosity_all, color=PALETTE[0], lw=1.2)
        axes.text(0.04, 0.93, "no diffusion asked for (--tortuosity)", transform=axes.transAxes, color=SOFT)
    axes.set_yscale("log")
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(3e-3, 1.0)
    axes.set_xlabel("porosity of pores that lead through")
    axes.set_ylabel("D$_{eff}$ / D")
    axes.set_title("diffusion: ● all, ○ regions", pad=3)
    grid_lines(axes)


def surface(report: VolumeReport) -> Figure:
    """Draw the heights about the mean plane and their distribution with R_a and R_q."""
    found = report.surface
    if found is None:
        raise ValueError("the report holds no surface")
    figure = new_figure(8.6, 3.6)
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1.0])
    pitch, unit = (1.0, "voxels") if report.voxel_um is None else (report.voxel_um, "µm")
    ny, nx = found.residual.shape
    limit = float(np.nanpercentile(np.abs(found.residual), 99)) or 1.0
    extent = (0.0, nx * pitch, ny * pitch, 0.0)
    image = left.imshow(found.residual, cmap=HEIGHTS, vmin=-limit, vmax=limit, extent=extent)
    figure.colorbar(image, ax=left, label=f"Z / {unit}").outline.set_visible(False)
    left.set_xlabel(f"x / {unit}")
    left.set_ylabel(f"y / {unit}")
    left.set_title("height about the fitted plane", pad=3)
    z: NDArray[np.float64] = found.residual[np.isfinite(found.residual)]
    right.hist(z, 60, color=FILL, ec=DATA, lw=0.6)
    for value, name, color in ((found.ra, "R$_a$", LINE), (found.rq, "R$_q$", FIT)):
        for sign in (-1.0, 1.0):
            right.axvline(sign * value.value, color=color, lw=1.1, ls="--")
        total = np.hypot(np.nan_to_num(value.sigma_stat), value.sigma_sys)
        right.annotate(
            f"{name} = {value.value:.2f} ± {total:.2f} {unit}", (0.97, 0.9 if color == LINE else 0.81),
            xycoords="axes fraction", color=color, fontsize=10, ha="right",
        )  # fmt: skip
    right.set_xlabel(f"Z / {unit}")
    right.set_ylabel("columns")
    right.set_ylim(0, 1.25 * right.get_ylim()[1])
    right.set_title(f"{found.points} heights", pad=3)
    grid_lines(right)
    return figure


def registration(report: VolumeReport) -> Figure:
    """Draw the coarse map, the volume on the same pixels, and what is left in units of the error."""
    found = report.onto
    if found is None:
        raise ValueError("the report holds no registration")
    figure = new_figure(10.8, 3.5)
    grid = figure.subplots(1, 3)
    where = found.registration
    model = where.offset + where.gain * found.model
    pulls = (found.measured - model) / found.sigma
    extent = (0.0, found.measured.shape[1] * found.pitch_um, found.measured.shape[0] * found.pitch_um, 0.0)
    low, high = (float(v) for v in np.nanpercentile(found.measured, [1, 99]))
    titles = ("the map", "the volume on its pixels", "difference / σ")
    for axes, picture, title in zip(grid, (found.measured, model, pulls), titles, strict=True):
        limits = (-4.0, 4.0) if title == titles[2] else (low, high)
        colours = HEIGHTS if title == titles[2] else LEVELS
        image = axes.imshow(picture, cmap=colours, vmin=limits[0], vmax=limits[1], extent=extent)
        figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02).outline.set_visible(False)
        axes.set_title(title, pad=3)
        axes.set_xlabel("x / µm")
    grid[0].set_ylabel("y / µm")
    y, x = where.y, where.x
    place = f"y {y.value:.1f} ± {y.sigma_stat:.1f}, x {x.value:.1f} ± {x.sigma_stat:.1f} µm"
    title = f"{report.data['file']}: map begins at {place}; χ² {where.chi2:.0f} of {where.ndf}"
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure
