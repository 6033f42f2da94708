"""Figures of maps from others: native and adaptive maps, ratios with their errors, the spectrum."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from controller.offline.maps_reduce import CLEAR_SIGMA, MapReport
from controller.offline.plot_style import (
    DATA,
    INK,
    LEVELS,
    PALETTE,
    SOFT,
    counts_text,
    grid_lines,
    new_figure,
    saved,
)
from controller.offline.values import pm
from edge.binning import painted

Floats = NDArray[np.float64]
SHOWN_LINES = 6
DIVERGING = "PuOr_r"


def draw(report: MapReport, fmt: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, picture) of every figure."""
    yield "maps", saved(maps(report), fmt)
    if report.options.ratios:
        yield "ratios", saved(ratios(report), fmt)
    if report.counted.spectrum is not None:
        yield "spectrum", saved(spectrum(report), fmt)


def maps(report: MapReport) -> Figure:
    """Draw every line twice: as counted, and as the mean of regions that reach the wanted error."""
    lines = report.counted.lines[:SHOWN_LINES]
    high, wide, unit = _size(report)
    ratio = min(max(high / wide, 0.35), 1.6)
    width = max(6.4, 2.05 * len(lines) + 0.9)
    figure = new_figure(
        width, 2 * (((min(width, 2.05 * len(lines) + 2.0) - 0.7) / len(lines) - 0.55) * ratio + 0.28) + 0.95
    )
    grid = figure.subplots(2, len(lines), squeeze=False, sharex=True, sharey=True)
    pixels = report.table.regions.pixels
    for k, line in enumerate(lines):
        mean = painted(report.table.labels, report.table.net[k] / pixels)
        top = float(np.nanmax(mean))
        raw = np.where(report.table.labels >= 0, line.net, np.nan)
        limit = max(float(np.nanpercentile(raw, 99.5)), top)
        _picture(figure, grid[0, k], raw, (high, wide), 0.0, limit)
        _picture(figure, grid[1, k], mean, (high, wide), min(0.0, float(np.nanmin(mean))), top)
        net = float(line.net.sum())
        error = math.hypot(math.sqrt(float(line.variance.sum())), line.sigma_sys)
        title = f"{line.name}   {pm(net, error, digits=0)}"
        grid[0, k].set_title(title, fontsize=8.6, pad=3)
        grid[1, k].set_xlabel(f"x / {unit}")
    grid[0, 0].set_ylabel(f"per pixel\ny / {unit}")
    grid[1, 0].set_ylabel(f"{pixels.size} regions\ny / {unit}")
    r = report.data["regions"]
    goal = (
        f"{100 * r['wanted_relative']:g} % error"
        if r["wanted_relative"]
        else f"{r['wanted_counts']:g} counts"
    )
    title = f"{report.data['file']}: net counts per pixel; below in regions of {goal} in {report.guide}"
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=9.5)
    return figure


def ratios(report: MapReport) -> Figure:
    """Draw each ratio of regions, its relative error, and its regions in order against one value."""
    pairs = report.options.ratios[:4]
    high, wide, unit = _size(report)
    ratio = min(max(high / wide, 0.35), 1.4)
    figure = new_figure(10.6, len(pairs) * (2.5 * ratio + 0.75) + 0.3)
    grid = figure.subplots(len(pairs), 3, squeeze=False, width_ratios=[1, 1, 1.25])
    for row, (a, b) in zip(grid, pairs, strict=True):
        value, sigma = report.table.ratio(a, b)
        index = report.table.names.index(b)
        known = np.isfinite(value) & (report.table.net[index] > CLEAR_SIGMA * report.table.sigma[index])
        if not known.any():
            continue
        value = np.where(known, value, np.nan)
        low, top = np.percentile(value[known], [1, 99])
        _picture(figure, row[0], painted(report.table.labels, value), (high, wide), float(low), float(top))
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = 100 * np.abs(sigma / value)
        limit = float(np.nanpercentile(relative, 98))
        _picture(figure, row[1], painted(report.table.labels, relative), (high, wide), 0.0, limit, "magma_r")
        row[0].set_title(f"{a}/{b}", pad=3)
        row[1].set_title(f"relative error of {a}/{b} / %", pad=3)
        for axes in row[:2]:
            axes.set_xlabel(f"x / {unit}")
        row[0].set_ylabel(f"y / {unit}")
        _ordered(row[2], value[known], sigma[known], report.data["ratios"][pairs.index((a, b))])
    title = f"{report.data['file']}: ratios of {report.table.regions.pixels.size} regions"
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=9.5)
    return figure


def _ordered(axes: Axes, value: Floats, sigma: Floats, data: dict[str, Any]) -> None:
    order = np.argsort(value, kind="stable")
    place = np.arange(value.size)
    axes.errorbar(place, value[order], sigma[order], fmt=".", ms=2.5, lw=0.6, color=PALETTE[0], ecolor=SOFT)
    whole = data["sum"]["value"]
    axes.axhline(whole, color=PALETTE[1], lw=1.2)
    axes.annotate(
        f"of the sums {whole:.3g}", (0.02, whole), xycoords=("axes fraction", "data"), xytext=(0, 4),
        textcoords="offset points", color=PALETTE[1], fontsize=8,
    )  # fmt: skip
    axes.set_title(f"one value for all: χ² {data['chi2_uniform']:.0f} of {data['ndf']}", pad=3)
    axes.set_xlabel("region, in order of the ratio")
    axes.set_ylabel(data["name"])
    grid_lines(axes)


def spectrum(report: MapReport) -> Figure:
    """Draw the sum spectrum with windows and background bands."""
    shown = report.counted.spectrum
    if shown is None:
        raise ValueError("the report holds no spectrum")
    figure = new_figure(9.6, 3.9)
    axes = figure.subplots()
    lows = [w.low for w in shown.windows]
    highs = [w.high for w in shown.windows]
    margin = 0.12 * (max(highs) - min(lows)) + 4 * (highs[0] - lows[0])
    near = (shown.axis > min(lows) - margin) & (shown.axis < max(highs) + margin)
    x, y = shown.axis[near], shown.counts[near].astype(np.float64)
    floor = max(0.7, 0.5 * float(np.percentile(y, 2)))
    axes.step(x, np.maximum(y, floor), where="mid", color=DATA, lw=0.8)
    for k, window in enumerate(shown.windows):
        color = PALETTE[k % len(PALETTE)]
        inside = (x >= window.low) & (x <= window.high)
        axes.fill_between(
            x, floor, np.maximum(y, floor), where=inside, step="mid", color=color, alpha=0.45, lw=0
        )
        for low, high in window.bands:
            axes.axvspan(low, high, ymax=0.045, color=color, alpha=0.6, lw=0)
        peak = float(y[inside].max()) if inside.any() else floor
        axes.annotate(
            window.name, (window.centre, peak), xytext=(0, 6), textcoords="offset points", ha="center",
            color=color, fontweight="bold", fontsize=8.5,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(floor, 4 * float(y.max()))
    axes.set_xlim(float(x[0]), float(x[-1]))
    step = float(np.median(np.diff(shown.axis)))
    if shown.unit == "keV":
        axes.set_xlabel("energy / keV")
        axes.set_ylabel(f"counts per {1000 * step:.1f} eV")
    else:
        axes.set_xlabel("m/z / Da")
        axes.set_ylabel(f"counts per {1000 * step:.1f} mDa")
    total = counts_text(int(shown.counts.sum()))
    axes.set_title(f"{report.data['file']}: all pixels, {total}; windows filled, background bands below")
    grid_lines(axes)
    return figure


def _size(report: MapReport) -> tuple[float, float, str]:
    ny, nx = report.table.labels.shape
    if report.counted.size_um is None:
        return float(ny), float(nx), "pixels"
    return (*report.counted.size_um, "µm")


def _picture(
    figure: Figure, axes: Axes, values: Floats, size: tuple[float, float], low: float, high: float,
    colours: str = LEVELS,
) -> None:  # fmt: skip
    image = axes.imshow(
        values, cmap=colours, origin="upper", extent=(0.0, size[1], size[0], 0.0), interpolation="nearest",
        vmin=low, vmax=max(high, low + 1e-9),
    )  # fmt: skip
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    bar.ax.tick_params(labelsize=6.5, color=INK)
    bar.outline.set_visible(False)
    axes.tick_params(labelsize=7)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
