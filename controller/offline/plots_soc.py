"""The state of charge from the beam against that from the charge, per group of passes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from controller.offline.plot_style import FIT, INK, LINE, SOFT
from controller.offline.svg import WIDTH, quiet_grid
from controller.offline.view import Point

FACES = {"reference": "white", "charging": LINE, "after": LINE}


def state_of_charge(points: Sequence[Point]) -> Figure:
    """Draw beam and charge in time, and one against the other; bars and bands are one sigma."""
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    in_time, against = figure.subplots(1, 2, width_ratios=[1.5, 1])
    _in_time(in_time, [p for p in points if p.minutes is not None])
    _against(against, [p for p in points if p.charge is not None])
    entries: dict[str, Artist] = {}
    for axes in (in_time, against):
        quiet_grid(axes)
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=3)
    return figure


def _in_time(axes: Axes, points: Sequence[Point]) -> None:
    ordered = sorted(points, key=lambda p: sum(p.minutes or (0.0, 0.0)))
    charged = [p for p in ordered if p.charge is not None]
    if charged:
        t = np.array([_middle(p) for p in charged])
        value = np.array([p.charge for p in charged], float)
        sigma = np.array([p.charge_total or 0.0 for p in charged])
        axes.fill_between(t, value - sigma, value + sigma, color=FIT, alpha=0.22, lw=0)
        axes.plot(t, value, color=FIT, lw=1.6, label="from the charge passed")
    _beam(axes, ordered, [_middle(p) for p in ordered], [_half(p) for p in ordered])
    axes.set_xlabel("lab time since the run began / min")
    axes.set_ylabel("state of charge / %")
    axes.set_title("in time")


def _against(axes: Axes, points: Sequence[Point]) -> None:
    charge = [p.charge or 0.0 for p in points]
    reach = [0.0, *charge]
    low, high = min(reach), max(reach)
    pad = 0.08 * max(high - low, 1.0)
    line = np.array([low - pad, high + pad])
    axes.plot(line, line, color=INK, lw=1.0, ls=(0, (4, 2)), label="equal", zorder=1)
    if points:
        order = np.argsort(charge)
        x = np.array(charge)[order]
        sigma = np.array([p.charge_total or 0.0 for p in points])[order]
        axes.fill_between(x, x - sigma, x + sigma, color=FIT, alpha=0.22, lw=0, label="error of the charge")
    _beam(axes, points, charge, None)
    axes.set_xlim(*line)
    axes.set_xlabel("from the charge passed / %")
    axes.set_ylabel("from the beam / %")
    axes.set_title("beam against charge")


def _beam(axes: Axes, points: Sequence[Point], x: Sequence[float], x_error: Sequence[float] | None) -> None:
    """Draw the beam's points: thick bars are statistical errors, thin ones both kinds in quadrature."""
    if not points:
        axes.text(0.5, 0.5, "no point has both", transform=axes.transAxes, ha="center", color=SOFT)
        return
    y = [p.beam for p in points]
    axes.errorbar(x, y, [p.beam_total for p in points], xerr=x_error, fmt="none", color=LINE, lw=0.9)
    axes.errorbar(x, y, [p.beam_stat for p in points], fmt="none", color=LINE, lw=2.4)
    groups = [p for p in points if p.purpose == "charging"]
    for chosen, face, label in (
        (groups, LINE, "from the beam, groups of passes"),
        ([p for p in points if p not in groups], "white", "from the beam, whole scans"),
    ):
        if chosen:
            at = [x[list(points).index(p)] for p in chosen]
            axes.plot(
                at, [p.beam for p in chosen], "o", ms=6.5, mfc=face if face == LINE else "#fefefe", mec=LINE,
                mew=1.5, label=label, zorder=4,
            )  # fmt: skip


def _middle(point: Point) -> float:
    return sum(point.minutes or (0.0, 0.0)) / 2.0


def _half(point: Point) -> float:
    begin, end = point.minutes or (0.0, 0.0)
    return (end - begin) / 2.0
