"""Figures of cycling logs: voltage against charge, dQ/dV, capacity and efficiency per cycle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from controller.offline.plot_style import (
    DATA,
    FILL,
    FIT,
    LEVELS,
    LINE,
    SOFT,
    STYLE,
    WARM,
    grid_lines,
    new_figure,
    saved,
)

if TYPE_CHECKING:
    from controller.offline.cycling import Curve, CyclingReport

Floats = NDArray[np.float64]
MAX_CURVES = 24
WORDS = {1: "charge", -1: "discharge"}


def draw(report: CyclingReport, fmt: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, picture)."""
    with mpl.rc_context(STYLE):
        yield "curves", saved(curves(report), fmt)
        if any(one.incremental is not None for one in report.curves):
            yield "incremental", saved(incremental(report), fmt)
        if report.cycles:
            yield "cycles", saved(cycles(report), fmt)


def _amperes(value: float) -> str:
    return f"{value:.3g} A" if abs(value) >= 0.1 else f"{1e3 * value:.3g} mA"


def _unit(report: CyclingReport) -> tuple[float, str]:
    largest = max(float(one.charge_ah[-1]) for one in report.curves)
    return (1.0, "Ah") if largest > 0.5 else (1e3, "mAh")


def _halves(report: CyclingReport) -> list[tuple[int, list[Curve]]]:
    """Return the curves of each half cycle, in order, at most ``MAX_CURVES`` half cycles."""
    halves = [*report.lead]
    for one in report.cycles:
        halves += [one.into, *([one.out] if one.out else [])]
    groups = [(h.state, [c for c in report.curves if c.step in h.steps]) for h in halves]
    return groups[:: max(1, -(-len(groups) // MAX_CURVES))]


def curves(report: CyclingReport) -> Figure:
    """Draw voltage against charge; constant voltage dashed, the switch marked."""
    figure = new_figure(7.4, 4.6)
    axes = figure.subplots()
    scale, unit = _unit(report)
    groups = _halves(report)
    n = {state: sum(s == state for s, _ in groups) for state in (1, -1)}
    seen = {1: 0, -1: 0}
    maps = {1: mpl.colormaps["Blues"], -1: mpl.colormaps["Oranges"]}
    for state, group in groups:
        color = maps[state](0.95 - 0.5 * seen[state] / max(1, n[state]))
        passed = 0.0
        for k, one in enumerate(group):
            q = scale * (passed + one.charge_ah)
            end = one.step.switch.record if one.step.switch else (0 if one.step.control == "CV" else q.size)
            label = None
            if k == 0:
                number = seen[state] + 1
                label = f"{WORDS[state]} {number}: {_amperes(abs(one.step.current_a))}"
            axes.plot(q[: end + 1], one.voltage_v[: end + 1], color=color, lw=1.3, label=label)
            if end < q.size:
                axes.plot(q[end:], one.voltage_v[end:], color=color, lw=1.3, ls=(0, (3, 1.5)))
                axes.plot(q[end], one.voltage_v[end], "o", ms=4.5, color=WARM, zorder=4)
            passed += float(one.step.capacity.value)
        seen[state] += 1
    marked = any(one.step.switch or one.step.control == "CV" for _, group in groups for one in group)
    axes.set_xlabel(f"charge passed in the half cycle / {unit}")
    axes.set_ylabel("voltage / V")
    grid_lines(axes)
    if len(groups) <= 12:
        figure.legend(fontsize=7.5, loc="outside right center")
    told = "; dots: constant voltage takes over, dashed" if marked else ""
    axes.set_title(f"{report.log.path.name}{told}")
    return figure


def incremental(report: CyclingReport) -> Figure:
    """Draw dQ/dV with its errors: charge up, discharge down."""
    figure = new_figure(7.4, 4.8)
    axes = figure.subplots()
    scale, unit = _unit(report)
    shown = sorted(
        (one for one in report.curves if one.incremental is not None),
        key=lambda one: -one.step.capacity.value,
    )[:8]
    tops: list[float] = []
    wide: list[Floats] = []
    for k, one in enumerate(sorted(shown, key=lambda c: c.step.start_s)):
        found = one.incremental
        if found is None:
            continue
        color = mpl.colormaps[LEVELS](0.85 * k / max(1, len(shown) - 1))
        sign = one.step.state * scale
        sigma = scale * np.hypot(found.sigma_stat, found.sigma_smooth)
        v, y = found.voltage_v, sign * found.value
        axes.fill_between(v, y - sigma, y + sigma, color=color, alpha=0.3, lw=0)
        number = report.steps.index(one.step) + 1
        axes.plot(v, y, color=color, lw=1.0, label=f"step {number}: {_amperes(one.step.current_a)}")
        tops.append(np.nanpercentile(np.abs(y), 92))
        wide.append(v[np.abs(y) > 0.05 * tops[-1]])
    top = 1.5 * max(tops)
    axes.set_xlim(min(w.min() for w in wide if w.size) - 0.02, max(w.max() for w in wide if w.size) + 0.02)
    axes.set_ylim(
        -top if any(c.step.state < 0 for c in shown) else 0,
        top if any(c.step.state > 0 for c in shown) else 0,
    )
    axes.axhline(0, color=SOFT, lw=0.8)
    axes.set_xlabel("voltage / V")
    axes.set_ylabel(f"dQ/dV / ({unit}/V), discharge downward")
    figure.legend(fontsize=7.5, loc="outside right center")
    grid_lines(axes)
    width = 1e3 * report.options.window_v
    beyond = any(np.nanmax(np.abs(scale * c.incremental.value)) > top for c in shown if c.incremental)
    told = "; peaks go on beyond the axis" if beyond else ""
    axes.set_title(f"Incremental capacity in windows of {width:g} mV; bands: one sigma{told}")
    return figure


def cycles(report: CyclingReport) -> Figure:
    """Draw capacities with their CC and CV parts, and the efficiencies, per cycle."""
    figure = new_figure(7.4, 4.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1.7, 1])
    scale, unit = _unit(report)
    x = np.array([one.number for one in report.cycles], np.float64)
    into = WORDS[report.first]
    cc = scale * np.array([one.into.cc.value for one in report.cycles])
    cv = scale * np.array([one.into.cv.value for one in report.cycles])
    out = scale * np.array([one.out.capacity.value if one.out else np.nan for one in report.cycles])
    above.bar(x - 0.19, cc, 0.36, color=LINE, label=f"{into}, constant current")
    if np.any(cv > 0):
        above.bar(
            x - 0.19, cv, 0.36, bottom=cc, color=FILL, ec=LINE, lw=0.6, label=f"{into}, constant voltage"
        )
    above.bar(x + 0.19, out, 0.36, color=FIT, label=WORDS[-report.first])
    above.set_ylabel(f"capacity / {unit}")
    above.set_ylim(0, 1.35 * float(np.nanmax([cc + cv, out])))
    above.legend(ncols=3, fontsize=8)
    for pick, color, marker, label in (
        ("coulombic", DATA, "o", "coulombic"), ("energetic", WARM, "s", "energy (discharge / charge)"),
    ):  # fmt: skip
        found = [getattr(one, pick) for one in report.cycles]
        y = np.array([100 * e.value if e else np.nan for e in found])
        error = np.array([100 * e.total if e else np.nan for e in found])
        if report.unfinished:
            y[-1] = np.nan
        below.errorbar(x, y, error, fmt=marker + "-", color=color, ms=5, lw=1.0, capsize=2, label=label)
    below.set_ylabel("efficiency / %")
    below.set_xlabel("cycle")
    below.set_xticks(x if x.size <= 20 else x[:: max(1, x.size // 10)])
    below.legend(fontsize=8)
    grid_lines(below)
    note = " (the last is not complete)" if report.unfinished else ""
    above.set_title(f"{report.log.path.name}: capacity and efficiency per cycle{note}")
    return figure
