"""Figures of a Compton reduction: hits and acceptance, spectrum, profile, S map with its error, depth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from controller.offline.plot_style import (
    DATA,
    FILL,
    FIT,
    INK,
    LEVELS,
    LINE,
    PALETTE,
    SOFT,
    STYLE,
    WARM,
    counts_text,
    grid_lines,
    new_figure,
    saved,
)  # fmt: skip
from controller.offline.values import percent
from edge.compton_physics import window_edges_kev

if TYPE_CHECKING:
    from controller.offline.compton import ComptonReport
    from controller.offline.compton_read import Recorded
    from edge.compton import Analysis
    from edge.compton_frames import Counts

LOG_FROM_COUNTS = 50  # in the highest bin: fewer are clearer on a linear scale
KEV_AROUND = 14.0


def draw(report: ComptonReport, fmt: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, picture)."""
    import matplotlib as mpl

    several = len(report.names) > 1
    with mpl.rc_context(STYLE):
        for name, recorded, a in zip(report.names, report.recorded, report.analyses, strict=True):
            prefix = name.replace(" ", "-") + "-" if several else ""
            if recorded.counts is not None:
                yield f"{prefix}counts", saved(_counts(recorded.counts, recorded, a), fmt)
            yield f"{prefix}spectrum", saved(_spectrum(name, recorded, a), fmt)
            if a.profile is not None:
                yield f"{prefix}profile", saved(_profile(name, a), fmt)
            if np.isfinite(a.map.s).any():
                yield f"{prefix}s-map", saved(_s_map(name, a), fmt)
        if report.depth is not None:
            yield "depth", saved(_depth(report), fmt)


def _extent(a: Analysis) -> tuple[float, float, float, float]:
    ny, nx = a.mask.shape
    side = a.setup.pinhole.pixel_mm
    return -nx * side / 2, nx * side / 2, ny * side / 2, -ny * side / 2


def _image(
    figure: Figure, axes: Axes, values: Any, a: Analysis, title: str, label: str, **limits: Any
) -> None:
    shown = axes.imshow(values, extent=_extent(a), cmap=LEVELS, interpolation="nearest", **limits)
    axes.set_facecolor("#e5e8ec")
    axes.set_title(title)
    axes.set_xlabel("column, at the sheet of beam / mm")
    figure.colorbar(shown, ax=axes, label=label, shrink=0.86, pad=0.02)


def _counts(c: Counts, recorded: Recorded, a: Analysis) -> Figure:
    figure = new_figure(10.4, 4.4)
    left, right = figure.subplots(1, 2)
    masked = np.where(recorded.mask, 1.0, np.nan)
    photons = (c.singles + c.doubles) * masked
    total = int(np.nansum(photons))
    _image(figure, left, photons, a, f"{counts_text(total)} in {c.frames} frames", "photons per pixel",
           vmin=0, vmax=_top(photons))  # fmt: skip
    left.set_ylabel("row / mm")
    mean = c.mean_acceptance(recorded.mask)
    _image(figure, right, 100 * c.acceptance * masked, a,
           f"Acceptance: a photon stays alone with {percent(mean)}", "acceptance / %")  # fmt: skip
    return figure


def _top(values: Any) -> float:
    good = values[np.isfinite(values)]
    return max(1.0, float(np.percentile(good, 99.5))) if good.size else 1.0


def _spectrum(name: str, recorded: Recorded, a: Analysis) -> Figure:
    figure = new_figure(10.4, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    edges = a.bins.edges_kev()
    many = int(a.spectrum.max(initial=0)) >= LOG_FROM_COUNTS
    left.stairs(np.maximum(a.spectrum, 0.5) if many else a.spectrum, edges, color=DATA, lw=0.8, fill=False)
    left.set_yscale("log" if many else "linear")
    left.set_xlabel("energy / keV")
    left.set_ylabel(f"counts per {a.bins.width_kev:g} keV")
    left.set_title(f"{name}: {int(a.mask.sum())} pixels, {counts_text(int(a.spectrum.sum()))}")
    counts = recorded.counts
    if counts is not None:
        used = recorded.mask
        below, above = int(counts.underflow[used].sum()), int(counts.overflow[used].sum())
        left.text(0.98, 0.98, f"{below} below, {above} above the scale", transform=left.transAxes, ha="right",
                  va="top", color=SOFT, fontsize=8)  # fmt: skip
    grid_lines(left)
    _around_peak(right, a, edges)
    return figure


def _around_peak(axes: Axes, a: Analysis, edges: Any) -> None:
    angle = float(a.angles_rad[a.mask].mean())
    window = window_edges_kev(a.setup.energy_kev, np.array([angle]))[0]
    middle = float((window[1] + window[2]) / 2)
    axes.axvspan(window[1], window[2], color=FILL, lw=0)
    for low, high in ((window[0], window[1]), (window[2], window[3])):
        axes.axvspan(low, high, color="#f1f3f5", lw=0)
    axes.stairs(a.spectrum, edges, color=DATA, lw=1.0)
    near = (edges[:-1] > middle - KEV_AROUND) & (edges[1:] < middle + KEV_AROUND)
    top = float(a.spectrum[near].max(initial=1))
    axes.set_xlim(middle - KEV_AROUND, middle + KEV_AROUND)
    axes.set_ylim(0, 1.16 * top)
    axes.text((window[1] + window[2]) / 2, 1.12 * top, "core", ha="center", va="center", color=LINE)
    axes.text((window[0] + window[1]) / 2, 1.12 * top, "wing", ha="center", va="center", color=SOFT)
    axes.text((window[2] + window[3]) / 2, 1.12 * top, "wing", ha="center", va="center", color=SOFT)
    axes.set_xlabel("energy / keV")
    if a.peak is not None:
        n = a.peak.model.size
        x = edges[a.peak_first_bin : a.peak_first_bin + n] + a.bins.width_kev / 2
        axes.plot(x, a.peak.model, color=FIT, lw=1.3)
        centre, sigma = a.peak.value("centre"), a.peak.sigma("centre")
        axes.set_title(f"Gauss-Lorentz at {centre:.3f} ± {sigma:.3f} keV")
    else:
        axes.set_title("Windows of S at the mean angle")
    grid_lines(axes)


def _profile(name: str, a: Analysis) -> Figure:
    figure = new_figure(7.4, 4.6)
    axes = figure.subplots()
    p = a.profile
    if p is None:
        return figure
    axes.axvspan(-1, 1, color=FILL, lw=0)
    edges = np.append(p.momentum_au - p.width_au / 2, p.momentum_au[-1] + p.width_au / 2)
    axes.stairs(p.j + p.sigma, edges, baseline=p.j - p.sigma, fill=True, color=LINE, alpha=0.35, lw=0)
    axes.stairs(p.j, edges, color=LINE, lw=1.2)
    for edge in (-5, 5):
        axes.axvline(edge, color=SOFT, lw=0.8, ls=":")
    axes.set_xlabel("$p_z$ / a.u., every pixel at its own angle")
    axes.set_ylabel("$J(p_z)$ / a.u.$^{-1}$, area 1")
    axes.set_ylim(bottom=min(0.0, float((p.j - p.sigma).min())))
    axes.text(0, 0.02, "core", transform=axes.get_xaxis_transform(), ha="center", color=LINE)
    for place in (-3, 3):
        axes.text(place, 0.02, "wing", transform=axes.get_xaxis_transform(), ha="center", color=SOFT)
    s = ""
    if math.isfinite(a.s.value):
        s = f", S = {a.s.value:.4f} ± {a.s.sigma_stat:.4f} ± {a.s.sigma_sys:.4f}"
    axes.set_title(f"{name}: Compton profile{s}")
    grid_lines(axes)
    return figure


def _s_map(name: str, a: Analysis) -> Figure:
    lithium = a.lithium_map
    values, sigma, label = a.map.s, a.map.sigma, "S"
    if lithium is not None:
        values, sigma, label = lithium.value, lithium.sigma_stat, "1 − x"
    figure = new_figure(10.4, 4.4)
    left, right = figure.subplots(1, 2)
    low, high = np.nanpercentile(values, [2, 98])
    _image(figure, left, values, a, f"{name}: {label} per pixel", label, vmin=low, vmax=high)
    left.set_ylabel("row / mm")
    middle = float(np.nanmedian(sigma))
    _image(figure, right, sigma, a, f"its statistical error, median {middle:.3f}", f"σ({label})",
           vmin=0, vmax=float(np.nanpercentile(sigma, 98)))  # fmt: skip
    return figure


def _depth(report: ComptonReport) -> Figure:
    figure = new_figure(10.4, 4.4)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.5])
    mixing, depth = report.options.mixing, report.depth
    if mixing is None or depth is None:
        return figure
    u = depth.unmixed
    at = np.arange(len(mixing.components))
    total = np.hypot(u.s.sigma, u.sigma_sys)
    left.errorbar(at, u.s.s, total, fmt="none", ecolor=SOFT, elinewidth=1.0, capsize=4)
    left.errorbar(at, u.s.s, u.s.sigma, fmt="o", color=LINE, ecolor=LINE, elinewidth=2.0, capsize=0)
    measured = [one.s.value for one in report.analyses]
    left.plot(at, measured, "s", color=WARM, mfc="none", label="depth region as measured")
    left.plot([], [], "o", color=LINE, label="component unmixed")
    left.set_xticks(at, [f"{c}\n{r}" for c, r in zip(mixing.components, mixing.regions, strict=True)])
    left.set_xlim(-0.5, len(at) - 0.5)
    left.set_ylabel("S (thick: statistical, thin: total error)")
    left.set_title("S of each component")
    left.legend(loc="best")
    grid_lines(left)
    a = report.analyses[0]
    energy = a.bins.edges_kev()[:-1] + a.bins.width_kev / 2
    middle = float(np.mean(window_edges_kev(a.setup.energy_kev, a.angles_rad[a.mask])[:, 1:3]))
    near = np.abs(energy - middle) < KEV_AROUND
    for k, name in enumerate(mixing.components):
        color = PALETTE[k % len(PALETTE)]
        y, e = depth.spectra[k][near], depth.spectra_sigma[k][near]
        right.fill_between(energy[near], y - e, y + e, color=color, alpha=0.25, lw=0, step="mid")
        right.step(energy[near], y, where="mid", color=color, lw=1.1, label=name)
    right.axhline(0, color=INK, lw=0.6)
    right.set_xlabel("energy / keV")
    right.set_ylabel("counts per bin and volume")
    right.set_title("Spectra of the components, per volume")
    right.legend(loc="upper left")
    grid_lines(right)
    return figure
