"""Figures of a particle trace: trace and threshold, areas, ratios with frames, calibration, delays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from controller.offline.plot_style import (
    DATA,
    FILL,
    FIT,
    INK,
    LINE,
    PALETTE,
    SOFT,
    STYLE,
    grid_lines,
    new_figure,
    saved,
)  # fmt: skip
from controller.offline.values import pm
from edge.particles_ratios import GaussianFit

if TYPE_CHECKING:
    from controller.offline.particles import ParticleReport

Floats = NDArray[np.float64]
SHOWN_BINS = 1500  # the whole trace is shown as the highest sample of so many stretches
ZOOM_EVENTS = 4
MAX_ZOOM = 3000  # samples
FRAME_COLOURS = ("#2f855a", "#b7791f", "#7c3aed", "#be185d", "#0e7490")


def draw(report: ParticleReport, fmt: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, picture)."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        yield "trace", saved(trace(report), fmt)
        if report.ratios is not None and report.ratios.values.size:
            yield "ratio", saved(ratio(report), fmt)
            yield "delays", saved(delays(report), fmt)
        if any(fit is not None for fit in report.areas):
            yield "areas", saved(areas(report), fmt)
        if report.calibration is not None and report.calibration.line is not None:
            yield "calibration", saved(calibration(report), fmt)


def trace(report: ParticleReport) -> Figure:
    """Draw the whole trace above, a few events sample by sample below."""
    lines = report.result.lines
    figure = new_figure(9.6, 2.2 + 1.9 * len(lines))
    grid = figure.subplots(1 + len(lines), 1, height_ratios=[1.0, *[1.0] * len(lines)])
    unit, step = ("s", report.dwell_s) if report.dwell_s else ("samples", 1.0)
    zoom = _zoom(report)
    when, high, detail = _samples(report, zoom)
    top = grid[0]
    for k, name in enumerate(lines):
        top.plot(when * step, high[k], color=PALETTE[k], lw=0.6, alpha=0.8, label=name)
    for number, b in report.result.baselines[0]:
        low, end = report.result.reach(number)
        top.plot([low * step, end * step], [b.threshold] * 2, color=INK, lw=0.9)
    top.set_yscale("symlog", linthresh=10)
    top.set_ylim(bottom=0)
    counted = ", ".join(f"{len(e)} events of {n}" for n, e in zip(lines, report.result.events, strict=True))
    top.set_title(f"{report.name}: {counted}; highest sample per {SHOWN_BINS}th of the trace")
    top.set_xlabel(f"time / {unit}")
    top.set_ylabel("counts per sample")
    if len(lines) > 1:
        top.legend(loc="upper right", ncols=len(lines))
    for k, axes in enumerate(grid[1:]):
        _detail(axes, report, k, zoom, detail[k], unit, step)
    for axes in grid:
        grid_lines(axes)
    return figure


def _detail(
    axes: Axes, report: ParticleReport, k: int, zoom: tuple[int, int], samples: Floats, unit: str, step: float
) -> None:
    """Draw samples, threshold, background and the events of one line."""
    events, scale = report.result.events[k], 1e3 if unit == "s" else 1.0
    at = np.arange(*zoom) * step * scale
    axes.step(at, samples, where="mid", color=PALETTE[k], lw=0.9)
    inside = (events.stop > zoom[0]) & (events.start < zoom[1])
    for start, stop, area in zip(
        events.start[inside], events.stop[inside], events.area_counts[inside, k], strict=True
    ):
        own = slice(max(start - 1, zoom[0]) - zoom[0], min(stop + 1, zoom[1]) - zoom[0])
        axes.fill_between(at[own], samples[own], step="mid", color=PALETTE[k], alpha=0.22, lw=0)
        peak = np.nanmax(samples[own])
        axes.annotate(
            f"{area:.0f}", (float(at[own].mean()), peak), xytext=(0, 2), textcoords="offset points",
            ha="center", fontsize=7.5, color=INK,
        )  # fmt: skip
    baselines = report.result.baselines[k]
    here = (b for number, b in baselines if zoom[0] < report.result.reach(number)[1])
    b = next(here, baselines[-1][1])
    for level, color, name in ((b.threshold, INK, "threshold"), (b.mean_counts, DATA, "background")):
        axes.axhline(level, color=color, lw=0.9)
        axes.annotate(
            f"{name} {level:.3g}", (1, level), xycoords=("axes fraction", "data"), xytext=(2, 0),
            textcoords="offset points", fontsize=7.5, color=color, va="center",
        )  # fmt: skip
    axes.set_yscale("symlog", linthresh=max(10.0, 2 * b.threshold))
    axes.margins(y=0.2)  # before the lower end is set, or the numbers would run into the title
    axes.set_ylim(bottom=0)
    axes.set_xlim(at[0], at[-1])
    axes.set_title(f"{report.result.lines[k]}: single events, area in counts")
    axes.set_xlabel(f"time / {'ms' if unit == 's' else unit}")
    axes.set_ylabel("counts")


def _zoom(report: ParticleReport) -> tuple[int, int]:
    """Return a stretch of samples that shows a few events of the last line."""
    events = report.result.events[-1]
    if len(events) < 2:
        middle = (report.result.first + report.result.last) // 2
        return max(middle - 100, report.result.first), min(middle + 100, report.result.last + 1)
    together = min(ZOOM_EVENTS, len(events)) - 1  # so many events where they lie closest together
    span = events.stop[together:] - events.start[: len(events) - together]
    low = int(events.start[int(np.argmin(span))])
    high = low + int(span.min())
    if high - low > MAX_ZOOM:
        high = int(events.stop[int(np.argmin(span))])
    margin = max((high - low) // 10, 15)
    return max(low - margin, report.result.first), min(high + margin, report.result.last + 1)


def _samples(report: ParticleReport, zoom: tuple[int, int]) -> tuple[Floats, Floats, Floats]:
    """Read the trace once more: (sample numbers, highest samples per bin and line, samples of the zoom)."""
    from controller.offline.particles import columns_of

    first, last = report.result.first, report.result.last
    bins = min(SHOWN_BINS, last - first + 1)
    chosen, _ = columns_of(report.trace, report.options)
    high = np.full((len(chosen), bins), np.nan)
    detail = np.full((len(chosen), zoom[1] - zoom[0]), np.nan)
    for block in report.trace.blocks():
        x = block.samples[chosen]
        number = np.arange(block.first, block.first + x.shape[1])
        at = (number - first) * bins // (last - first + 1)
        head = np.flatnonzero(np.diff(at, prepend=-1))
        for k in range(len(chosen)):
            own = at[head]
            high[k, own] = np.fmax(high[k, own], np.fmax.reduceat(x[k], head))
        inside = (number >= zoom[0]) & (number < zoom[1])
        detail[:, number[inside] - zoom[0]] = x[:, inside]
    centre = first + (np.arange(bins) + 0.5) * (last - first + 1) / bins
    return centre, high, detail


def areas(report: ParticleReport) -> Figure:
    """Draw the areas of every line as a histogram with the fitted Gaussian."""
    shown = [k for k, fit in enumerate(report.areas) if fit is not None]
    figure = new_figure(4.9 * len(shown) + 0.4, 3.5)
    for axes, k in zip(np.atleast_1d(figure.subplots(1, len(shown))), shown, strict=True):
        events, fit = report.result.events[k], report.areas[k]
        values = events.area_counts[~events.cut, k]
        assert fit is not None  # noqa: S101  # chosen above
        edges = _edges(values)
        _histogram(axes, values, edges, PALETTE[k])
        _curve(axes, fit, edges)
        axes.set_title(f"{report.result.lines[k]}: area of {values.size} particles")
        axes.set_xlabel("area above background / counts")
        axes.set_ylabel("particles per bin")
        mean, width = float(fit.mean), float(fit.width)
        axes.annotate(
            f"Gaussian {pm(mean, float(fit.sigma[0]))} counts\n"
            f"width {pm(width, float(fit.sigma[1]))} counts\n"
            f"{pm(100 * float(fit.main), 100 * float(fit.sigma[2]))} % inside",
            (0.98, 0.95), xycoords="axes fraction", ha="right", va="top", fontsize=8.5, color=FIT,
        )  # fmt: skip
        grid_lines(axes)
    return figure


def ratio(report: ParticleReport) -> Figure:
    """Draw the ratios with their Gaussian; with a calibration the frames, and what lies above one."""
    r = report.ratios
    assert r is not None  # noqa: S101  # drawn only then
    names = [report.result.lines[k] for k in (r.numerator, r.denominator)]
    figure = new_figure(7.6, 4.0)
    axes = figure.subplots()
    edges = _edges(r.values)
    calibrated = report.calibration
    if calibrated is not None:
        edges = np.linspace(
            min(edges[0], min(f.low for f in calibrated.frames)),
            max(edges[-1], max(f.high for f in calibrated.frames)), len(edges),
        )  # fmt: skip
        for k, frame in enumerate(calibrated.frames):
            color = FRAME_COLOURS[k % len(FRAME_COLOURS)]
            axes.axvspan(frame.low, frame.high, color=color, alpha=0.13, lw=0)
            axes.annotate(
                f"{100 * calibrated.lithiation[k][0]:.0f} %", (frame.mean, 1.0),
                xycoords=("data", "axes fraction"), xytext=(0, -10), textcoords="offset points", ha="center",
                fontsize=8, color=color,
            )  # fmt: skip
    _histogram(axes, r.values, edges, DATA)
    if r.fit is not None and calibrated is None:
        _curve(axes, r.fit, edges)
    title = f"{names[0]}/{names[1]} of {r.values.size} particles"
    if report.diverging is not None and calibrated is not None:
        above = r.values[r.values > calibrated.frame.high]
        axes.hist(above, list(edges), color=FIT, alpha=0.75)
        d = report.diverging.fraction
        title += f": {100 * d.value:.1f} ± {100 * d.total:.1f} % above the frame of {calibrated.frame.name}"
        axes.annotate(
            "shaded: mean ± 2 widths of the calibration cells,\nwith their degree of lithiation", (0.98, 0.8),
            xycoords="axes fraction", ha="right", va="top", fontsize=8, color=SOFT,
        )  # fmt: skip
    axes.set_title(title)
    axes.set_xlabel(f"area {names[0]} / area {names[1]}")
    axes.set_ylabel("particles per bin")
    axes.set_xlim(edges[0], edges[-1])
    axes.margins(y=0.15)
    grid_lines(axes)
    return figure


def delays(report: ParticleReport) -> Figure:
    """Draw how far the peaks of two lines are apart: pairs in the middle, accidents as the floor."""
    r = report.ratios
    assert r is not None  # noqa: S101  # drawn only then
    a, b = report.result.events[r.numerator].peak, report.result.events[r.denominator].peak
    reach = 60
    low = np.searchsorted(b, a - reach)
    high = np.searchsorted(b, a + reach, side="right")
    distance = np.concatenate([a[i] - b[low[i] : high[i]] for i in range(a.size)] or [np.zeros(0, np.int64)])
    figure = new_figure(6.4, 3.2)
    axes = figure.subplots()
    axes.hist(distance, list(np.arange(-reach - 0.5, reach + 1.5)), color=LINE)
    expected = a.size * b.size / report.result.n_samples
    axes.axhline(expected, color=FIT, lw=1.0)
    axes.annotate(
        f"all pairs by accident: {expected:.2g}", (1, expected), xycoords=("axes fraction", "data"),
        ha="right",
        xytext=(0, 3), textcoords="offset points", fontsize=8, color=FIT,
    )  # fmt: skip
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    names = [report.result.lines[k] for k in (r.numerator, r.denominator)]
    axes.set_title(f"{len(r.pairs)} pairs, {r.pairs.accidental:.2g} of them by accident")
    axes.set_xlabel(f"peak of {names[0]} - peak of {names[1]} / samples")
    axes.set_ylabel("pairs of events")
    grid_lines(axes)
    return figure


def calibration(report: ParticleReport) -> Figure:
    """Draw the ratio of the calibration cells over their lithiation, the line with its band, the frames."""
    c = report.calibration
    assert c is not None  # noqa: S101  # drawn only then
    assert c.line is not None  # noqa: S101
    figure = new_figure(6.0, 4.0)
    axes = figure.subplots()
    x = np.array([one[0] for one in c.lithiation])
    span = np.linspace(min(x.min(), 0.0), max(x.max(), 1.0) * 1.03, 200)
    line = np.array([c.line.at(float(v)) for v in span])
    axes.fill_between(100 * span, line[:, 0] - 2 * line[:, 1], line[:, 0] + 2 * line[:, 1], color=FILL, lw=0)
    axes.plot(100 * span, line[:, 0], color=LINE, lw=1.2)
    for k, frame in enumerate(c.frames):
        color = FRAME_COLOURS[k % len(FRAME_COLOURS)]
        axes.plot(
            [100 * x[k]] * 2, [frame.low, frame.high], color=color, lw=7, alpha=0.25, solid_capstyle="butt"
        )
    axes.errorbar(
        100 * x, [f.mean for f in c.frames], xerr=[100 * one[1] for one in c.lithiation],
        yerr=[f.sigma_mean for f in c.frames], fmt="o", color=INK, ms=4, lw=1.0, capsize=2,
    )  # fmt: skip
    axes.annotate("bars: mean ± 2 widths of the single particles", (0.98, 0.04),
                  xycoords="axes fraction", ha="right", fontsize=8, color=SOFT)  # fmt: skip
    axes.annotate(
        "band: line ± 2 sigma", (0.98, 0.1), xycoords="axes fraction", ha="right", fontsize=8, color=LINE
    )
    axes.set_title(f"Calibration: chi2 {c.line.chi2:.2g} for {c.line.ndf} degrees of freedom")
    axes.set_xlabel("degree of lithiation / %")
    axes.set_ylabel("ratio of areas")
    axes.set_ylim(bottom=0)
    grid_lines(axes)
    return figure


def _edges(values: Floats) -> Floats:
    """Return bin edges: Freedman-Diaconis over the inner 99 %, 15 to 80 bins."""
    low, high = np.quantile(values, [0.005, 0.995])
    quarter = np.subtract(*np.quantile(values, [0.75, 0.25]))
    width = 2 * quarter / len(values) ** (1 / 3) if quarter > 0 else (high - low) / 20
    n = int(np.clip((high - low) / max(width, 1e-12), 15, 80))
    pad = 0.04 * (high - low)
    return np.linspace(low - pad, high + pad, n + 1)


def _histogram(axes: Axes, values: Floats, edges: Floats, color: str) -> None:
    counts, _ = np.histogram(values, edges)
    axes.stairs(counts, edges, fill=True, color=color, alpha=0.35)
    axes.stairs(counts, edges, color=color, lw=0.9)


def _curve(axes: Axes, fit: GaussianFit, edges: Floats) -> None:
    x = np.linspace(edges[0], edges[-1], 400)
    mean, width, main = float(fit.mean), float(fit.width), float(fit.main)
    peak = fit.n * main * (edges[1] - edges[0]) / (width * np.sqrt(2 * np.pi))
    axes.plot(x, peak * np.exp(-0.5 * ((x - mean) / width) ** 2), color=FIT, lw=1.4)
