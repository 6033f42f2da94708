"""Figures of gamma spectra."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.interpolate import CubicSpline

from controller.offline.gamma import GammaReport
from controller.offline.plot_style import (
    DATA,
    FILL,
    FIT,
    INK,
    LINE,
    MAX_LINES,
    PALETTE,
    SOFT,
    WARM,
    counts_text,
    grid_lines,
    new_figure,
    saved,
)
from controller.offline.values import pm
from edge.gamma import GammaResult, MeasuredLine
from edge.gamma_be7 import Be7Result
from edge.gamma_broad import BroadResult


def germanium_spectrum(report: GammaReport, result: GammaResult) -> Figure:
    """Draw the whole spectrum with its lines named."""
    figure = new_figure(9.6, 4.3)
    axes = figure.subplots()
    y = report.spectrum.counts
    energy = result.corrected.scale.energy_kev(np.arange(y.size))
    axes.step(energy, np.maximum(y, 0.4), where="mid", color=DATA, linewidth=0.55)
    axes.set_yscale("log")
    top = float(y.max())
    end = min(float(energy[-1]), 1.06 * max(m.line.energy_kev for m in result.lines if m.found))
    axes.set_xlim(0, end)
    axes.set_ylim(0.4, top * 60)
    last = -1e9
    for m in sorted((m for m in result.lines if m.found), key=lambda m: m.energy_kev):
        place = max(m.energy_kev, last + 0.0155 * end)
        last = place
        height = float(y[max(0, round(m.channel) - 2) : round(m.channel) + 3].max())
        axes.plot(
            [m.energy_kev, m.energy_kev, place],
            [height * 1.3, top * 1.6, top * 2.3],
            color=LINE,
            linewidth=0.6,
            alpha=0.65,
        )
        axes.text(
            place, top * 2.6, m.line.name, rotation=90, ha="center", va="bottom", fontsize=6.8, color=LINE
        )
    unknown = [one for one in report.residual.lines if one.energy_kev < end] if report.residual else []
    for k, one in enumerate(unknown):
        height = float(y[max(0, round(one.channel) - 2) : round(one.channel) + 3].max())
        label = "no nuclide of the analysis has it" if k == 0 else None
        axes.plot([one.energy_kev], [height * 1.6], "v", ms=4, color=WARM, label=label)
    if unknown:
        axes.legend(loc="lower left", fontsize=7.5)
    width = float(result.corrected.scale.gain_kev(y.size / 2))
    axes.set_xlabel("energy / keV (corrected)")
    axes.set_ylabel(f"counts per channel of {width:.3f} keV")
    axes.set_title(
        f"{report.data['file']}   {counts_text(int(y.sum()))}, live {report.data['live_s']:g} s", pad=8
    )
    grid_lines(axes)
    return figure


def line_fits(report: GammaReport, result: GammaResult) -> Figure:
    """Draw the most significant lines with their fits and residuals."""
    strongest = sorted((m for m in result.lines if m.found), key=lambda m: -m.significance)[:MAX_LINES]
    lines = sorted(strongest, key=lambda m: m.line.energy_kev)
    columns = min(4, len(lines))
    rows = math.ceil(len(lines) / columns)
    figure = new_figure(2.9 * columns, 2.75 * rows)
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=[3.2, 1] * rows, hspace=0.02)
    for k, m in enumerate(lines):
        row, column = divmod(k, columns)
        above = figure.add_subplot(grid[2 * row, column])
        below = figure.add_subplot(grid[2 * row + 1, column], sharex=above)
        _one_fit(above, below, report, result, m)
        if column == 0:
            above.set_ylabel("counts")
            below.set_ylabel("pull")
        if row == rows - 1:
            below.set_xlabel("energy / keV")
    figure.suptitle(f"{report.data['file']}: lines, fits and residuals", x=0.01, ha="left", fontweight="bold")
    return figure


def _one_fit(above: Axes, below: Axes, report: GammaReport, result: GammaResult, m: MeasuredLine) -> None:
    channels = np.arange(m.fit.first, m.fit.first + m.fit.model.size)
    energy = result.corrected.scale.energy_kev(channels)
    y = report.spectrum.counts[channels]
    above.errorbar(energy, y, np.sqrt(np.maximum(y, 1)), fmt="o", ms=1.9, lw=0.7, color=DATA, zorder=3)
    fine = np.linspace(float(energy[0]), float(energy[-1]), 400)
    model, base = CubicSpline(energy, m.fit.model)(fine), np.interp(fine, energy, m.fit.background)
    above.plot(fine, model, color=FIT, lw=1.3, zorder=4)
    above.fill_between(fine, base, model, color=FIT, alpha=0.12, lw=0)
    above.plot(energy, m.fit.background, color=SOFT, lw=1.0, ls="--")
    above.set_title(m.line.name, fontsize=8.8, pad=3)
    text = f"{pm(m.area, m.area_sigma_stat, m.area_sigma_sys, digits=0)}\nFWHM {m.fwhm_kev:.2f} keV"
    above.text(0.98, 0.97, text, transform=above.transAxes, ha="right", va="top", fontsize=6.6)
    above.set_ylim(0, 1.32 * float(y.max()))
    above.tick_params(labelbottom=False, labelsize=7)
    below.axhline(0, color=SOFT, lw=0.8)
    below.plot(energy, m.fit.residuals, "o", ms=1.6, color=DATA)
    reach = max(4.0, 1.15 * float(np.abs(m.fit.residuals).max()))
    below.set_ylim(-reach, reach)
    below.tick_params(labelsize=7)
    for axes in (above, below):
        grid_lines(axes)


def calibration(report: GammaReport, result: GammaResult) -> Figure:
    """Draw how far the lines are off, before and after the correction."""
    figure = new_figure(6.8, 3.7)
    axes = figure.subplots()
    known = np.array([m.line.energy_kev for m in result.calibration])
    before = np.array([m.recorded_kev for m in result.calibration]) - known
    after = np.array([m.energy_kev for m in result.calibration]) - known
    own = [math.hypot(m.centroid_sigma_kev, m.centroid_sigma_sys_kev) for m in result.calibration]
    axes.axhspan(-0.1, 0.1, color=FILL, lw=0, alpha=0.7)
    axes.axhline(0, color=SOFT, lw=0.9)
    axes.errorbar(
        known, before, own, fmt="s", ms=5, mfc="white", color=WARM, lw=1, label="calibration of the file"
    )
    axes.errorbar(known, after, own, fmt="o", ms=5, color=LINE, lw=1, label="corrected with these lines")
    axes.set_xlabel("known energy / keV")
    axes.set_ylabel("measured less known / keV")
    reach = float(max(np.abs(before).max(), 0.15))
    axes.set_ylim(-1.15 * reach, 1.45 * reach)
    axes.set_xlim(0, 1.06 * float(known.max()))
    axes.legend(loc="upper left", ncols=2, borderaxespad=0.2)
    axes.text(0.01, 0.02, "band: ±0.1 keV", transform=axes.transAxes, color=LINE, fontsize=8)
    axes.set_title(f"{report.data['file']}: energy of {len(known)} {result.source} lines")
    grid_lines(axes)
    return figure


def be7_region(report: GammaReport, r: Be7Result) -> Figure:
    """Draw the 477.6 keV region with everything that was fitted or subtracted."""
    figure = new_figure(7.4, 5.0)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
    total = r.continuum + r.neighbours + r.line
    fine = np.linspace(float(r.energies_kev[0]), float(r.energies_kev[-1]), 600)

    def curve(values: Any) -> Any:
        return CubicSpline(r.energies_kev, values)(fine)

    above.errorbar(
        r.energies_kev,
        r.counts,
        np.sqrt(np.maximum(r.counts, 1)),
        fmt="o",
        ms=3.2,
        lw=0.9,
        color=DATA,
        label="data ± √N",
        zorder=4,
    )
    above.plot(fine, curve(total), color=FIT, lw=1.6, label="fit", zorder=5)
    above.fill_between(
        fine,
        curve(r.continuum),
        curve(r.continuum + r.neighbours),
        color="#2f855a",
        alpha=0.45,
        lw=0,
        label="neighbours, predicted",
    )
    above.fill_between(
        fine,
        curve(r.continuum + r.neighbours),
        curve(total),
        color=LINE,
        alpha=0.35,
        lw=0,
        label="⁷Be 477.60 keV",
    )
    above.plot(fine, curve(r.continuum), color=SOFT, lw=1.1, ls="--", label="continuum, both sides")
    low, high = float(min(r.counts.min(), r.continuum.min())), float(max(r.counts.max(), total.max()))
    span = high - low
    above.set_ylim(max(0.0, low - 0.22 * span), high + 0.62 * span)
    for share in r.shares:
        if r.energies_kev[0] < share.line.energy_kev < r.energies_kev[-1] and share.area > 20:
            at = max(0.0, low - 0.2 * span)
            above.text(share.line.energy_kev, at, share.line.name, ha="center", fontsize=7, color="#276749")
    above.text(0.015, 0.975, _verdict(r), transform=above.transAxes, va="top", fontsize=8.5, linespacing=1.45)
    above.legend(loc="upper right", ncols=1)
    above.set_ylabel(f"counts per {float(np.diff(r.energies_kev).mean()):.3f} keV")
    above.set_title(f"{report.data['file']}: the 477.6 keV line")
    pulls = (r.counts - total) / np.sqrt(np.maximum(total, 0.05))
    below.axhspan(-1, 1, color=FILL, lw=0, alpha=0.7)
    below.axhline(0, color=SOFT, lw=0.9)
    below.plot(r.energies_kev, pulls, "o", ms=3, color=DATA)
    below.set_ylim(-max(3.5, 1.1 * float(np.abs(pulls).max())), max(3.5, 1.1 * float(np.abs(pulls).max())))
    below.set_ylabel("pull / σ")
    below.set_xlabel(f"energy / keV (corrected)        χ² = {r.chi2:.1f} for {r.ndf} degrees of freedom")
    for axes in (above, below):
        grid_lines(axes)
    return figure


def _verdict(r: Be7Result) -> str:
    d = r.decision
    verdict = "detected" if d.detected else "not claimed"
    return (
        f"{verdict}\nnet {pm(d.value, d.sigma_stat, d.sigma_sys, digits=0)} counts (stat, sys)\n"
        f"threshold {d.threshold:.0f}   detection limit {d.detection_limit:.0f}\n"
        f"upper limit {d.upper_limit:.0f} (95 %)"
    )


def efficiency(report: GammaReport, r: Be7Result) -> Figure:
    """Draw the relative efficiency and the lines that it comes from."""
    figure = new_figure(6.8, 3.9)
    axes = figure.subplots()
    e = r.efficiency
    energies = np.array([m.line.energy_kev for m in e.lines])
    x = np.log(np.linspace(280, 1280, 200) / 600)
    curve = np.exp(e.b * x + e.c * x * x)
    spread = np.sqrt(e.covariance[0, 0] * x**2 + 2 * e.covariance[0, 1] * x**3 + e.covariance[1, 1] * x**4)
    axes.fill_between(600 * np.exp(x), curve * np.exp(-spread), curve * np.exp(spread), color=FILL, lw=0)
    axes.plot(600 * np.exp(x), curve, color=INK, lw=1.2)
    marks = dict(zip(sorted({m.line.nuclide for m in e.lines}), "osD^vP", strict=False))
    for k, (nuclide, mark) in enumerate(marks.items()):
        chosen = np.array([m.line.nuclide == nuclide for m in e.lines])
        at = np.log(energies[chosen] / 600)
        value = np.exp(e.b * at + e.c * at * at + e.residuals[chosen])
        axes.errorbar(
            energies[chosen],
            value,
            value * np.hypot(e.sigma[chosen], e.scatter),
            fmt=mark,
            ms=5,
            lw=1,
            color=PALETTE[k],
            label=nuclide,
        )
    axes.axvline(478.33, color=SOFT, lw=0.8, ls=":")
    axes.axvline(911.2, color=SOFT, lw=0.8, ls=":")
    ratio = pm(e.ratio(478.33, 911.204)[0], e.ratio_sigma(478.33, 911.204), digits=3)
    axes.text(
        0.02, 0.05, f"eff(478.3 keV) / eff(911.2 keV) = {ratio}", transform=axes.transAxes, fontsize=8.5
    )
    axes.set_xlabel("energy / keV")
    axes.set_ylabel("relative efficiency (600 keV = 1)")
    axes.legend(loc="upper right", ncols=4)
    axes.set_ylim(0, 1.25 * float(curve.max()))
    axes.set_title(f"{report.data['file']}: efficiency from its own lines")
    grid_lines(axes)
    return figure


def broad_spectrum(report: GammaReport, r: BroadResult) -> Figure:
    """Draw a scintillator spectrum with the lines that were recognised."""
    figure = new_figure(8.4, 4.2)
    axes = figure.subplots()
    y = report.spectrum.counts
    channels = np.arange(y.size)
    axes.step(channels, np.maximum(y, 0.4), where="mid", color=DATA, lw=0.6)
    axes.set_yscale("log")
    top = float(y.max())
    axes.set_ylim(0.4, 12 * top)
    axes.set_xlim(0, 1.15 * max(c.channel for c in r.candidates))
    for one in r.lines:
        place = np.arange(one.fit.first, one.fit.first + one.fit.model.size)
        axes.plot(place, one.fit.model, color=FIT, lw=1.6)
        axes.plot(place, one.fit.background, color=SOFT, lw=1.0, ls="--")
        height = float(one.fit.model.max())
        text = f"{one.line.name}\n→ {one.energy_kev:.0f} keV"
        axes.annotate(
            text,
            (one.channel, height),
            xytext=(0, 16),
            textcoords="offset points",
            ha="left" if one.channel < 0.06 * axes.get_xlim()[1] else "center",
            fontsize=8,
            color=LINE,
            arrowprops={"arrowstyle": "-", "color": LINE, "lw": 0.7},
        )
    scale, energies = r.scale.scale, r.scale.scale.energy_kev(channels)

    def back(energy: Any) -> Any:
        return np.interp(energy, energies, channels)

    second = axes.secondary_xaxis("top", functions=(scale.energy_kev, back))
    second.set_xlabel("energy / keV")
    low, high = (float(scale.energy_kev(min(max(c, 0), y.size - 1))) for c in axes.get_xlim())
    step = 250 if high < 2500 else 500
    second.set_xticks([e for e in range(0, 10_000, step) if low + 0.02 * high < e < 0.99 * high])
    axes.set_xlabel("channel")
    axes.set_ylabel("counts per channel")
    axes.set_title(f"{report.data['file']}   {counts_text(int(y.sum()))}, recognised as {r.source}", pad=10)
    grid_lines(axes)
    return figure


def draw(report: GammaReport, fmt: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, picture) of each figure of a report."""
    if report.germanium:
        yield "spectrum", saved(germanium_spectrum(report, report.germanium), fmt)
        yield "lines", saved(line_fits(report, report.germanium), fmt)
        yield "calibration", saved(calibration(report, report.germanium), fmt)
        if report.be7:
            yield "477keV", saved(be7_region(report, report.be7), fmt)
            yield "efficiency", saved(efficiency(report, report.be7), fmt)
    elif report.broad:
        yield "spectrum", saved(broad_spectrum(report, report.broad), fmt)
