"""Figures of impedance sweeps: Nyquist with the fit, residuals of test and fit, Bode, series over charge."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from controller.offline.plot_style import (
    DATA,
    FIT,
    INK,
    LEVELS,
    LINE,
    PALETTE,
    SOFT,
    STYLE,
    grid_lines,
    new_figure,
    saved,
)
from edge.impedance import SweepResult

if TYPE_CHECKING:
    from controller.offline.impedance import ImpedanceReport

MAX_SINGLE = 6  # more sweeps than that are only drawn together
PREFIX = {-9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G"}


def draw(report: ImpedanceReport, fmt: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, picture)."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        several = len(report.results) > 1
        for number, result in enumerate(report.results[:MAX_SINGLE], 1):
            yield f"sweep-{number}" if several else "sweep", saved(sweep(report, number - 1, result), fmt)
        if several:
            yield "series", saved(series(report), fmt)


def sweep(report: ImpedanceReport, number: int, result: SweepResult) -> Figure:
    """Draw one sweep: Nyquist, Bode, and what test and fit leave over."""
    figure = new_figure(10.4, 5.0)
    grid = figure.add_gridspec(2, 2, width_ratios=[1.15, 1.0], height_ratios=[1.15, 1.0])
    left = figure.add_subplot(grid[:, 0])
    bode, rest = figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
    scale, unit = _scale(result.z_ohm)
    _nyquist(left, result, scale, unit)
    _bode(bode, result, scale, unit)
    _residuals(rest, result)
    name = report.sweeps[number].path.name
    soc = f", {100 * result.label:g} %" if result.label is not None else ""
    verdict = "passes the Kramers-Kronig test" if result.test.passed else "fails the Kramers-Kronig test"
    figure.suptitle(f"{name}{soc}: {verdict}", x=0.01, ha="left", fontweight="bold", fontsize=10.5)
    return figure


def _nyquist(axes: Axes, result: SweepResult, scale: float, unit: str) -> None:
    from controller.offline.impedance import si

    z = result.z_ohm / scale
    axes.plot(z.real[result.used], -z.imag[result.used], "o", ms=4, mfc="white", mec=LINE, mew=1.1)
    axes.plot(z.real[~result.used], -z.imag[~result.used], "x", ms=4, color=SOFT)
    if result.fit is not None:
        f = np.geomspace(result.frequency_hz.min(), result.frequency_hz.max(), 600)
        model = result.fit.circuit.impedance(result.fit.values, f) / scale
        axes.plot(model.real, -model.imag, color=FIT, lw=1.3)
        said = [f"{result.fit.circuit.text}, {100 * float(result.fit.rms):.2g} % rms"]
        for name, e in result.fit.estimates().items():
            mark = " (not resolved)" if name in result.unresolved else ""
            said.append(f"{name} = {si(e, e.unit)}{mark}")
        axes.annotate(
            "\n".join(said), (0.03, 0.98), xycoords="axes fraction", va="top", fontsize=7.6, color=FIT
        )
    if result.crossing is not None and result.test.passed:
        r = result.crossing.resistance
        axes.plot(r.value / scale, 0, "|", ms=12, color=INK, mew=1.4)
        axes.annotate(
            f"R_s {r.value / scale:.5g} {unit}", (r.value / scale, 0), xytext=(6, -12),
            textcoords="offset points", fontsize=8, color=INK,
        )  # fmt: skip
    named: list[complex] = []
    for k in _decades(result.frequency_hz):
        axes.plot(z.real[k], -z.imag[k], "o", ms=4, color=LINE)
        if any(abs(z[k] - other) < 0.1 * np.ptp(z.real) for other in named):
            continue  # its label would lie on another one
        named.append(complex(z[k]))
        axes.annotate(
            _hertz(result.frequency_hz[k]), (z.real[k], -z.imag[k]), xytext=(4, -11),
            textcoords="offset points", fontsize=7.5, color=LINE,
        )  # fmt: skip
    axes.axhline(0, color="#c3c9d0", lw=0.8)
    axes.margins(x=0.08, y=0.3)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel(f"Re Z / {unit}")
    axes.set_ylabel(f"−Im Z / {unit}")
    axes.set_title("Nyquist" + ("; crosses: inductive, not used" if (~result.used).any() else ""))
    grid_lines(axes)


def _bode(axes: Axes, result: SweepResult, scale: float, unit: str) -> None:
    f, z = result.frequency_hz, result.z_ohm
    axes.loglog(f, np.abs(z) / scale, "o", ms=3, color=LINE)
    twin = axes.twinx()
    twin.semilogx(f, -np.degrees(np.angle(z)), "s", ms=2.6, color=PALETTE[2])
    if result.fit is not None:
        grid = np.geomspace(f.min(), f.max(), 400)
        model = result.fit.circuit.impedance(result.fit.values, grid)
        axes.loglog(grid, np.abs(model) / scale, color=FIT, lw=1.1)
        twin.semilogx(grid, -np.degrees(np.angle(model)), color=FIT, lw=1.1)
    for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        which(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.tick_params(axis="y", which="both", labelsize=7.5)
    axes.set_ylabel(f"|Z| / {unit}", color=LINE)
    twin.set_ylabel("−phase / degrees", color=PALETTE[2])
    twin.spines["right"].set_visible(True)
    axes.set_title("Bode")
    grid_lines(axes)


def _residuals(axes: Axes, result: SweepResult) -> None:
    test = result.test
    f = test.frequency_hz
    limit = 100 * max(test.rms, 1e-6)
    axes.semilogx(f, 100 * test.residual.real, "o-", ms=3, lw=0.8, color=LINE, label="test, Re")
    axes.semilogx(f, 100 * test.residual.imag, "s-", ms=2.6, lw=0.8, color=PALETTE[2], label="test, Im")
    if result.fit is not None:
        axes.semilogx(f, 100 * result.fit.residual.real, ":", lw=1.1, color=FIT, label="fit, Re")
        axes.semilogx(f, 100 * result.fit.residual.imag, "--", lw=1.0, color=FIT, label="fit, Im")
    axes.axhline(0, color=DATA, lw=0.8)
    axes.set_title(f"Kramers-Kronig: {limit:.2g} % rms left by {test.elements} relaxations")
    axes.set_xlabel("frequency / Hz")
    axes.set_ylabel("residual / % of |Z|")
    axes.margins(y=0.12)
    axes.legend(loc="best", ncols=2, fontsize=7.5)
    grid_lines(axes)


def series(report: ImpedanceReport) -> Figure:
    """Draw all sweeps in one Nyquist plot, and the resolved resistances over the state of charge."""
    figure = new_figure(10.4, 4.2)
    left, right = figure.subplots(1, 2)
    scale, unit = _scale(np.concatenate([r.z_ohm for r in report.results]))
    shades = colormaps[LEVELS](np.linspace(0.05, 0.9, len(report.results)))
    for color, one, result in zip(shades, report.sweeps, report.results, strict=True):
        label = f"{100 * result.label:g} %" if result.label is not None else f"{one.path.stem} {one.number}"
        z = result.z_ohm / scale
        style = "o-" if result.test.passed else "x:"
        left.plot(
            z.real,
            -z.imag,
            style,
            ms=3,
            lw=0.8,
            color=color,
            label=label + ("" if result.test.passed else " (rejected)"),
        )
    left.set_aspect("equal", adjustable="datalim")
    left.set_xlabel(f"Re Z / {unit}")
    left.set_ylabel(f"−Im Z / {unit}")
    left.set_title(f"{len(report.results)} sweeps, {report.data['rejected']} rejected")
    left.legend(fontsize=7.5)
    circuit = report.rules.circuit
    shown = [n for n, u in zip(circuit.names, circuit.units, strict=True) if u == "ohm"] if circuit else []
    for k, name in enumerate(shown):
        points = [
            (100 * r.label if r.label is not None else i, r.fit.estimates()[name])
            for i, r in enumerate(report.results)
            if r.fit is not None and r.test.passed and name not in r.unresolved
        ]
        right.errorbar(
            [p[0] for p in points], [p[1].value / scale for p in points],
            yerr=[p[1].sigma_stat / scale for p in points], fmt="o-", ms=4, lw=0.9, capsize=2,
            color=PALETTE[k % len(PALETTE)], label=name,
        )  # fmt: skip
    right.set_xlabel("state of charge / %" if report.results[0].label is not None else "sweep")
    right.set_ylabel(f"resistance / {unit}")
    right.set_title("resolved resistances")
    if shown:
        right.legend()
    for axes in (left, right):
        grid_lines(axes)
    return figure


def _scale(z: np.ndarray) -> tuple[float, str]:
    """Return the unit that the impedances are shown in."""
    power = 3 * math.floor(math.log10(max(float(np.median(np.abs(z))), 1e-9)) / 3)
    power = min(max(power, -9), 9)
    return 10.0**power, f"{PREFIX[power]}Ω"


def _decades(f: np.ndarray) -> list[int]:
    """Return the points nearest to the whole decades inside the sweep, at most five."""
    decades = np.arange(math.ceil(math.log10(f.min())), math.floor(math.log10(f.max())) + 1)
    step = max(1, math.ceil(len(decades) / 5))
    return [int(np.argmin(np.abs(np.log10(f) - d))) for d in decades[::step]]


def _hertz(f: float) -> str:
    power = 3 * math.floor(math.log10(f) / 3 + 1e-9)
    power = min(max(power, -9), 9)
    return f"{f / 10.0**power:.3g} {PREFIX[power]}Hz"
