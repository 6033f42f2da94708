"""The whole run on one axis of time: steps and passes, temperature, voltage, current, charge."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from controller.offline.plot_style import FIT, INK, LINE, SOFT
from controller.offline.svg import GREEN, TICK, VIOLET, WIDTH, quiet_grid
from controller.offline.view import Bar, Floats, Mark, Timeline, Trace

KINDS = {
    "scan": LINE, "charge": FIT, "discharge": FIT, "pulse": FIT, "heat": "#b45309", "cool": "#b45309",
    "hold": SOFT, "ocv": SOFT, "rest": SOFT, "background": VIOLET, "eis": GREEN, "calibrate": LINE,
    "expose": LINE,
}  # fmt: skip
LANES = ("beam", "cell", "heater")
POINTS = 1500  # per trace: more cannot be told apart on a page
MOST_PLAN = 1.6  # a plan longer than this times the run is cut: what was measured would be a sliver
LETTER_MINUTES = 1 / 108  # width of a letter as a part of the whole axis
UNIT_FLOOR = {"voltage / V": 0.02, "temperature / K": 2.0, "current / µA": 0.5, "charge / µAh": 0.05}


def timeline(run: Timeline) -> Figure:
    """Draw what was planned, what was done, and what temperature and cell did meanwhile."""
    known = {bar.lane for bar in (*run.bars, *run.planned)} or {LANES[0]}
    lanes = [lane for lane in LANES if lane in known]
    rows = len(lanes) + bool(run.planned)
    traces = [one for one in _measured(run) if np.isfinite(one[0].value).any()]
    panels = len(traces)
    figure = Figure(
        figsize=(WIDTH, 1.0 + 0.34 * rows + 1.35 * panels),
        layout=ConstrainedLayoutEngine(h_pad=0.02, hspace=0.02),
    )
    heights = [0.34 * rows + 0.32, *(1.35,) * panels]
    axes = np.atleast_1d(
        np.asarray(figure.subplots(1 + panels, 1, sharex=True, height_ratios=heights), object)
    )
    planned = max((bar.end or bar.begin for bar in run.planned), default=0.0)
    end = max(run.end, min(planned, MOST_PLAN * run.end), 1e-3)
    _steps(axes[0], run, lanes, end)
    for one, (trace, colour, label, target, band) in zip(axes[1:], traces, strict=True):
        _trace(one, trace, colour, label, target, band)
        quiet_grid(one)
        one.margins(x=0)
        for low, high in run.gaps:
            one.axvspan(low, high, color=SOFT, alpha=0.18, lw=0)
        for mark in run.marks:
            if mark.kind in ("trip", "switch"):
                _line(one, mark)
        _passes(one, run)
        if label.startswith("voltage"):
            _switches(one, run)
    axes[-1].set_xlim(0.0, end)
    axes[-1].set_xlabel("lab time since the run began / min")
    figure.align_ylabels(list(axes))
    return figure


def _measured(run: Timeline) -> list[tuple[Trace, str, str, Trace | None, Trace | None]]:
    """Return every reading with its colour, label, target and band."""
    return [
        (run.temperature_k, "#b45309", "temperature / K", run.target_k, None),
        (run.voltage_v, INK, "voltage / V", None, None),
        (run.current_ua, FIT, "current / µA", None, None),
        (run.charge_uah, FIT, "charge / µAh", None, run.charge_sigma_uah),
    ]


def _passes(axes: Axes, run: Timeline) -> None:
    """Mark the end of every good pass at the foot of a panel: what was measured when."""
    for mark in run.marks:
        if mark.kind == "pass":
            axes.axvline(mark.minutes, ymax=0.05, color=LINE, lw=0.9, alpha=0.75, zorder=4)


def _switches(axes: Axes, run: Timeline) -> None:
    """Name the moments at which constant current became constant voltage."""
    for mark in run.marks:
        if mark.kind == "switch":
            axes.annotate(
                mark.text, (mark.minutes, 0.06), xycoords=("data", "axes fraction"), xytext=(4, 4),
                textcoords="offset points", va="bottom", fontsize=8.5, color=TICK,
            )  # fmt: skip


def _steps(axes: Axes, run: Timeline, lanes: list[str], end: float) -> None:
    """Draw steps as bars with their names, the plan below them, and every pass as a tick at its end."""
    for bar in run.bars:
        after = [b.begin for b in run.bars if b.lane == bar.lane and b.begin > bar.begin]
        _bar(axes, bar, lanes.index(bar.lane), end, run.end, min(after, default=end))
    for bar in run.planned:
        colour = KINDS.get(bar.kind, SOFT)
        height = 0.84 / len(lanes)
        top = len(lanes) - 0.42 + height * (lanes.index(bar.lane) + 0.5)
        length = max((bar.end or bar.begin) - bar.begin, 0.002 * end)
        axes.barh(top, length, left=bar.begin, height=height, fc="none", ec=colour, lw=0.9, zorder=2)
    for mark in run.marks:
        if mark.kind in ("pass", "quarantined") and "beam" in lanes:
            row = lanes.index("beam")
            axes.plot([mark.minutes] * 2, [row + 0.16, row + 0.42], color=INK, lw=0.9, alpha=0.6, zorder=4)
            if mark.kind == "quarantined":
                axes.plot(mark.minutes, row + 0.3, "x", color=FIT, ms=5.5, mew=1.8, zorder=5)
        elif mark.kind == "trip":
            _line(axes, mark)
            late = mark.minutes > 0.9 * end  # written towards the middle, or it would leave the figure
            axes.annotate(
                "trip", (mark.minutes, -0.62), xytext=(-3 if late else 3, 0), textcoords="offset points",
                fontsize=8.5, color=FIT, va="center", ha="right" if late else "left",
            )  # fmt: skip
        elif mark.kind == "command":
            axes.plot(mark.minutes, -0.6, "v", color=INK, ms=4)
    if max((bar.end or bar.begin for bar in run.planned), default=0.0) > end:
        axes.annotate(
            f"to {max(bar.end or bar.begin for bar in run.planned):.0f} min →", (1.0, len(lanes) + 0.42),
            xycoords=("axes fraction", "data"), fontsize=8.5, color=TICK, ha="right", va="top",
        )  # fmt: skip
    rows = [*lanes, "planned"] if run.planned else lanes
    axes.set_ylim(len(rows) - 0.45, -0.8)
    axes.set_yticks(range(len(rows)), rows)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)


def _bar(axes: Axes, bar: Bar, row: int, end: float, now: float, free_to: float) -> None:
    """Draw one step, with its name in it, or behind it up to ``free_to``, where there is room.

    Args:
        axes: the axes of the steps.
        bar: the step; one without an end lasts until ``now``.
        row: its lane.
        end: the end of the axis, minutes.
        now: the end of the run, minutes.
        free_to: where the next step of the lane begins, minutes.
    """
    last = now if bar.end is None else bar.end
    colour = KINDS.get(bar.kind, SOFT)
    length = max(last - bar.begin, 0.002 * end)
    axes.barh(row, length, left=bar.begin, height=0.84, color=colour, alpha=0.22, lw=0, zorder=2)
    axes.barh(row, min(0.0035 * end, length), left=bar.begin, height=0.84, color=colour, lw=0, zorder=3)
    needed = (len(bar.title) + 2) * LETTER_MINUTES * end
    if needed <= length:
        axes.text(bar.begin + 0.009 * end, row - 0.1, bar.title, fontsize=8.5, va="center", color=INK)
    elif bar.begin + length + needed <= free_to:
        axes.text(bar.begin + length + 0.006 * end, row, bar.title, fontsize=8.5, va="center", color=TICK)


def _trace(
    axes: Axes, trace: Trace, colour: str, label: str, target: Trace | None = None, band: Trace | None = None
) -> None:
    """Draw one reading; an invalid stretch stays open."""
    if target is not None and np.isfinite(target.value).any():
        t, v = thinned(target.minutes, target.value)
        axes.plot(t, v, color=SOFT, lw=1.2, ls=(0, (4, 2)), label="target", zorder=2)
    t, v = thinned(trace.minutes, trace.value)
    axes.plot(t, v, color=colour, lw=1.4, zorder=3)
    if band is not None and band.value.size:
        at = np.interp(t, band.minutes, np.nan_to_num(band.value))
        axes.fill_between(t, v - at, v + at, color=colour, alpha=0.25, lw=0, zorder=2)
    axes.set_ylabel(label)
    shown = v[np.isfinite(v)]
    if shown.size:
        low, high = float(shown.min()), float(shown.max())
        pad = max(0.08 * (high - low), UNIT_FLOOR.get(label, 0.0))
        axes.set_ylim(low - pad, high + 1.6 * pad)
    else:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color=SOFT)
        axes.set_yticks([])


def _line(axes: Axes, mark: Mark) -> None:
    colour, style = (FIT, "-") if mark.kind == "trip" else (TICK, (0, (2, 2)))
    axes.axvline(mark.minutes, color=colour, lw=1.0, ls=style, zorder=1)


def thinned(minutes: Floats, value: Floats, points: int = POINTS) -> tuple[Floats, Floats]:
    """Return fewer points that look the same: lowest and highest of every stretch, gaps kept.

    Args:
        minutes: times, shape (n,).
        value: readings, shape (n,), NaN where invalid.
        points: roughly how many to keep.
    """
    if value.size <= points:
        return minutes, value
    edges = np.linspace(0, value.size, points // 3 + 1).astype(int)
    keep: set[int] = {0, value.size - 1}
    for a, b in pairwise(edges):
        part = value[a:b]
        bad = np.flatnonzero(~np.isfinite(part))
        if bad.size < part.size:
            keep |= {a + int(np.nanargmin(part)), a + int(np.nanargmax(part))}
        if bad.size:
            keep.add(a + int(bad[0]))
    chosen = np.array(sorted(keep))
    return minutes[chosen], value[chosen]
