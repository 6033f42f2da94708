"""Figures of radiographs: transmission, what the scattering correction changes, profiles, noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from scipy import ndimage

from controller.offline.plot_style import (
    DATA,
    FIT,
    INK,
    LEVELS,
    LINE,
    MAX_LINES,
    SOFT,
    STYLE,
    grid_lines,
    new_figure,
    saved,
)
from controller.offline.radiography_lithium import lithium
from edge.radiography_depth import RegionDepth

if TYPE_CHECKING:
    from controller.offline.radiography import RadiographyReport

Floats = NDArray[np.float64]
SHOWN_PX = 400  # a map is averaged to about this width for display


def draw(report: RadiographyReport, fmt: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, picture)."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        yield "transmission", saved(transmission(report), fmt)
        if any(one.region.thickness_mm is not None for one in report.states[0].regions):
            yield "thickness", saved(thickness(report), fmt)
        if report.states[0].depth.size:
            yield "profile", saved(profiles(report), fmt)
        if report.options.wavelength_angstrom or report.options.maxwell_k:
            yield "lithium", saved(areal(report), fmt)
        yield "noise", saved(noise(report), fmt)


def transmission(report: RadiographyReport) -> Figure:
    """Draw the transmission of the first state with its regions, and the map of its error."""
    t, sigma = report.maps(0)
    options, one = report.options, report.states[0]
    figure = new_figure(11.2, 3.6)
    left, right = figure.subplots(1, 2)
    step = (options.pixel_um or 0) / 1000 or 1.0
    unit = "mm" if options.pixel_um else "px"
    for axes, image, title, top in (
        (left, t, f"{one.label}: transmission", 1.15),
        (right, np.abs(sigma / t), "relative error of a pixel (counting)", None),
    ):
        small, factor = _smaller(image)
        extent = (0.0, step * t.shape[1], step * t.shape[0], 0.0)
        high = top or float(np.nanpercentile(small, 98))
        shown = axes.imshow(small, cmap=LEVELS, vmin=0, vmax=high, extent=extent, interpolation="nearest")
        figure.colorbar(shown, ax=axes, shrink=0.85, label="T" if top else "sigma(T) / T")
        axes.set_title(title + (f" (averaged {factor} x {factor})" if factor > 1 else ""))
        axes.set_xlabel(f"x / {unit}")
        axes.set_ylabel(f"y / {unit}")
    for place, color in [(options.air, "white"), *((r.region, FIT) for r in one.regions)]:
        corner = step * place.columns.start, step * place.rows.start
        width = step * (place.columns.stop - place.columns.start)
        height = step * (place.rows.stop - place.rows.start)
        left.add_patch(Rectangle(corner, width, height, fill=False, ec=color, lw=1.0))
        if place is options.air:
            left.annotate(
                "air", corner, xytext=(0, -16), textcoords="offset points", color="white", fontsize=8
            )
    return figure


def areal(report: RadiographyReport) -> Figure:
    """Draw 6Li per area (per volume with a path) of the first state."""
    t, _ = report.maps(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = -np.log(_smaller(t)[0])
    depth[~np.isfinite(depth)] = np.nan
    found = lithium(report.options, depth, np.zeros(depth.shape), np.zeros(depth.shape))
    figure = new_figure(6.4, 4.4)
    axes = figure.subplots()
    if found is None:
        return figure
    step = (report.options.pixel_um or 0) / 1000 or 1.0
    unit = "mm" if report.options.pixel_um else "px"
    extent = (0.0, step * t.shape[1], step * t.shape[0], 0.0)
    low, high = np.nanpercentile(found.values, (1, 99))
    shown = axes.imshow(
        found.values, cmap=LEVELS, vmin=low, vmax=high, extent=extent, interpolation="nearest"
    )
    written = {"1/cm2": "atoms / cm²", "1/cm3": "atoms / cm³"}[found.unit]
    figure.colorbar(shown, ax=axes, shrink=0.85, label=f"6Li, {written}")
    axes.set_title(f"{report.states[0].label}: 6Li if nothing else absorbs")
    axes.set_xlabel(f"x / {unit}")
    axes.set_ylabel(f"y / {unit}")
    return figure


def thickness(report: RadiographyReport) -> Figure:
    """Draw -ln T against known thickness, before and after the scattering correction."""
    from controller.offline.radiography_summary import slopes

    one = report.states[0]
    figure = new_figure(6.4, 4.8)
    axes = figure.subplots()
    corrected = one.regions is not one.regions_plain
    groups: list[tuple[tuple[RegionDepth, ...], str, str, str]] = [
        (one.regions_plain, DATA, "as recorded", "o")
    ]
    if corrected:
        groups.append((one.regions, LINE, "scattering subtracted", "s"))
    for regions, color, label, marker in groups:
        known = [r for r in regions if r.region.thickness_mm is not None]
        x = np.array([r.region.thickness_mm for r in known], np.float64)
        y = np.array([r.depth.value for r in known])
        error = [r.depth.total for r in known]
        axes.errorbar(x, y, error, fmt=marker, color=color, ms=5, capsize=2, lw=1.0, label=label)
        for name, line in slopes(regions).items():
            mine = np.array([r.region.thickness_mm for r in known if r.region.name.split()[0] == name])
            ends = np.array([mine.min() - 0.15, mine.max() + 0.15])
            axes.plot(ends, line.offset + line.slope * ends, color=color, lw=1.0, alpha=0.8)
            axes.annotate(
                f"{name} {line.slope:.3f} /mm", (ends[1], line.offset + line.slope * ends[1]),
                xytext=(4, -10), textcoords="offset points", color=color, fontsize=8.5, ha="left",
            )  # fmt: skip
    axes.set_xlim(0, None)
    axes.set_ylim(0, None)
    axes.margins(x=0.2)
    axes.set_xlabel("known thickness / mm")
    axes.set_ylabel("optical depth, -ln T")
    axes.legend(loc="upper left")
    grid_lines(axes)
    axes.set_title(f"{one.label}: error bars counting and scattered field")
    return figure


def profiles(report: RadiographyReport) -> Figure:
    """Draw the profile along the cell of every state: bands are counting errors."""
    import matplotlib as mpl

    figure = new_figure(7.6, 4.6)
    axes = figure.subplots()
    step = (report.options.pixel_um or 0) / 1000 or 1.0
    states = report.states[:: max(1, -(-len(report.states) // MAX_LINES))]
    shades: Colormap = mpl.colormaps[LEVELS]
    for k, one in enumerate(states):
        color = LINE if len(states) == 1 else shades(k / max(1, len(states) - 1) * 0.9)
        y, stat = one.depth, one.sigma_stat
        common = one.sigma_common
        label, power = "optical depth, -ln T", 1.0
        if one.lithium is not None:
            power = 10.0 ** np.floor(np.log10(np.nanmax(np.abs(one.lithium.values))))
            y, stat = one.lithium.values / power, one.lithium.sigma_stat / power
            common = one.lithium.sigma_common / power
            label = f"6Li / 10^{round(np.log10(power))} {one.lithium.unit.replace('1/', '')}^-1".replace(
                "cm3^-1", "cm^-3"
            ).replace("cm2^-1", "cm^-2")
        x = one.centre_px * step
        axes.fill_between(x, y - stat, y + stat, color=color, alpha=0.35, lw=0)
        axes.plot(x, y, color=color, lw=1.1, label=one.label)
        if k == 0:
            where = int(np.nanargmax(np.where(np.isfinite(y), x, np.nan)))
            axes.errorbar(
                [x[where] + 0.03 * np.ptp(x)], [y[where]], [common[where]], color=SOFT, capsize=3, lw=1.2
            )
            axes.annotate(
                "common error\n(dose, scattering)", (x[where] + 0.03 * np.ptp(x), y[where]), xytext=(6, 0),
                textcoords="offset points", fontsize=8, color=INK, va="center",
            )  # fmt: skip
    axes.set_xlabel("along the cell / " + ("mm" if report.options.pixel_um else "px"))
    axes.set_ylabel(label)
    axes.margins(x=0.16)
    grid_lines(axes)
    axes.set_title("Profile along the cell; bands: counting, one sigma")
    if len(states) > 1:
        axes.legend(ncols=2)
    return figure


def noise(report: RadiographyReport) -> Figure:
    """Draw the noise curve: variance per signal against the width of a patch."""
    curve = report.run.noise
    figure = new_figure(5.6, 3.8)
    axes = figure.subplots()
    axes.errorbar(
        curve.scales_px, curve.gains_adu, curve.gain_sigmas_adu, fmt="o-", color=LINE, capsize=2, ms=5
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(curve.scales_px, [str(s) for s in curve.scales_px])
    axes.set_ylim(0, None)
    axes.set_xlabel("width of a patch / px")
    axes.set_ylabel("variance / signal, ADU")
    axes.set_title("Photon transfer: neighbouring pixels share their neutrons")
    grid_lines(axes)
    return figure


def _smaller(image: Floats) -> tuple[Floats, int]:
    """Average and fill masked pixels from their neighbours, for display only."""
    factor = max(1, image.shape[1] // SHOWN_PX)
    ny, nx = (n // factor * factor for n in image.shape)
    blocks = image[:ny, :nx].reshape(ny // factor, factor, nx // factor, factor)
    good = np.isfinite(blocks)
    total = np.where(good, blocks, 0.0).sum(axis=(1, 3))
    n = good.sum(axis=(1, 3))
    small = np.where(n > 0, total / np.maximum(n, 1), np.nan)
    near = ndimage.uniform_filter(np.where(n > 0, small, 0.0), 5)
    share = ndimage.uniform_filter((n > 0).astype(np.float64), 5)
    filled = np.where(share > 0.2, near / np.maximum(share, 0.2), np.nan)  # masked spots, for the eye
    return np.where(n > 0, small, filled), factor
