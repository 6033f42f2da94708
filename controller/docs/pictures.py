"""``python -m controller.docs.pictures`` draws the figures of how-it-works.md with the code that runs."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from controller.config.calibrations import BUILT_IN
from controller.guard_heater import Interval
from controller.guard_types import GuardRules, Plant
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
)
from drivers.labjack_raster import plan
from drivers.labjack_settings import Scanner
from drivers.roles import Raster

HERE = Path(__file__).parent / "figures"
SCANNER = Scanner(0, 1, 2.5, 100.0, 200.0, 0, 1, 2e-3, 0.1, 0.25)
PLANT = Plant.identified(
    power_w=40.0, capacity_j_per_k=85.0, loss_w_per_k=0.14, ambient_k=295.0, ambient_within_k=0.5,
    tolerance=0.05, lag_s=15.0, source="picture",
)  # fmt: skip
RULES = GuardRules(263.0, 343.0, 1 / 3, 2.5, 4.05, 4e-5, 3.6, {"heater": 0.25}, PLANT)


def main() -> None:
    """Draw all of them."""
    HERE.mkdir(exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, draw in (("pass", a_pass), ("guard", the_guard), ("soc", the_soc), ("cut", a_cut)):
            (HERE / f"{name}.png").write_bytes(saved(draw(), "png"))


def a_pass() -> Figure:
    """Three lines of a small raster as the buffers that the LabJack plays."""
    raster = Raster(
        nx=8, ny=3, width_um=100.0, height_um=90.0, dwell_s=0.02, centre_x_um=0.0, centre_y_um=0.0
    )
    planned = plan(raster, SCANNER)
    x_v: list[float] = []
    y_v: list[float] = []
    clock: list[float] = []
    blank: list[float] = []
    for line in range(raster.ny):
        one = planned.buffers(line)
        length = max(len(one.x_v), len(one.y_v), len(one.bits)) + 6  # and its last value, repeated
        for volts, into in ((one.x_v, x_v), (one.y_v, y_v)):
            into += [volts[min(n * len(volts) // (length - 6), len(volts) - 1)] for n in range(length)]
        bits = [one.bits[min(n, len(one.bits) - 1)] for n in range(length)]
        clock += [float(bit & 1) for bit in bits]
        blank += [float(bit >> 1 & 1) for bit in bits]
    time_s = np.arange(len(x_v) + 1) / planned.scan_rate_hz
    figure = new_figure(8.0, 4.6)
    lanes = figure.subplots(4, 1, sharex=True, height_ratios=(1.2, 0.9, 0.7, 0.7))
    named = (
        ("x deflection / V", x_v, LINE),
        ("y / V", y_v, PALETTE[2]),
        ("pixel clock", clock, DATA),
        ("blanked", blank, FIT),
    )
    dark = np.array(blank) > 0.5
    for axes, (label, values, colour) in zip(lanes, named, strict=True):
        axes.stairs(values, time_s, color=colour, linewidth=1.3, baseline=None)
        axes.set_ylabel(label, rotation=0, ha="right", va="center")
        for begin, end in _spans(dark):
            axes.axvspan(time_s[begin], time_s[end], color="#e9edf1", linewidth=0, zorder=0)
        if label in ("pixel clock", "blanked"):
            axes.set_yticks([0, 1])
            axes.set_ylim(-0.2, 1.2)
    lanes[0].set_title("Three lines of a pass, as the LabJack plays them: every line ends blanked (grey)")
    lanes[-1].set_xlabel("time / s")
    figure.align_ylabels()
    return figure


def _spans(dark: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], dark.astype(int), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def the_guard() -> Figure:
    """A ramp and a hold; the sensor comes off at 600 s. The band is the guard's own arithmetic."""
    interval, dt_s = Interval(RULES), 0.5
    true_k = read_k = 295.0
    now_s, offset_k, power = 0.0, 0.0, 0.0
    rows: list[tuple[float, float, float, float, float]] = []
    trip: tuple[float, float, str] | None = None
    rng = np.random.default_rng(7)
    while now_s < 900.0 and trip is None:
        target = min(295.0 + now_s * 15.0 / 60.0, 333.0)
        power = float(np.clip(0.09 * (target - read_k) + 0.14 * (target - 295.0) / 40.0, 0.0, 1.0))
        true_k += (40.0 * power - 0.14 * (true_k - 295.0)) / 85.0 * dt_s
        offset_k = 0.0 if now_s < 600.0 else offset_k - 0.05 * dt_s  # it slowly comes off
        read_k = true_k + offset_k + 0.05 * float(rng.standard_normal())
        interval.advance(dt_s, (power, power))
        for _ in interval.check(now_s, read_k):
            trip = (now_s, read_k, "heater-power")
        margin = 1.0 + PLANT.lag_s * interval._rate_k_per_s
        low, high = (interval.low_k or read_k) - margin, (interval.high_k or read_k) + margin
        rows.append((now_s, read_k, true_k, low, high))
        now_s += dt_s
    time_s, shown_k, inside_k, low_k, high_k = np.array(rows).T
    figure = new_figure(8.0, 3.8)
    axes = figure.subplots()
    axes.fill_between(
        time_s / 60, low_k, high_k, color=FILL, linewidth=0, label="what the power given explains"
    )
    axes.plot(time_s / 60, inside_k, color=SOFT, linewidth=1.2, linestyle="--", label="the cell, truly")
    axes.plot(time_s / 60, shown_k, color=LINE, linewidth=1.2, label="what the sensor says")
    if trip is not None:
        axes.plot(trip[0] / 60, trip[1], "o", color=FIT, markersize=7)
        text = f"{trip[2]}: everything off"
        axes.annotate(text, (trip[0] / 60, trip[1]), (-12, -34), color=FIT, ha="right",
                      textcoords="offset points", arrowprops={"arrowstyle": "-", "color": FIT})  # fmt: skip
    axes.axvline(10.0, color=SOFT, linewidth=0.8)
    text = "the sensor begins\nto come off"
    axes.annotate(text, (10.0, 300.0), (-6, 0), textcoords="offset points", ha="right",
                  color=DATA, fontsize=8.5)  # fmt: skip
    grid_lines(axes)
    axes.set_xlabel("time / min")
    axes.set_ylabel("temperature / K")
    axes.set_title("A sensor that reads low makes the loop heat more, and the guard sees it")
    axes.legend(loc="upper left")
    return figure


def the_soc() -> Figure:
    """How a lithium signal becomes x and a state of charge, with its error."""
    table = BUILT_IN["lco-meep-2.91MeV"]
    x, signal = np.array(table.x), np.array(table.signal)
    value, sigma = 0.708, 0.042  # the quickstart's cathode, total error: README.md
    order = np.argsort(signal)
    found = float(np.interp(value, signal[order], x[order]))
    low, high = (float(np.interp(value + k * sigma, signal[order], x[order])) for k in (-1, 1))
    figure = new_figure(8.0, 4.0)
    axes = figure.subplots()
    axes.axhspan(value - sigma, value + sigma, color="#f7e4da", linewidth=0)
    axes.axvspan(low, high, color=FILL, linewidth=0)
    axes.plot(x, signal, "o-", color=INK, markersize=4.5, linewidth=1.2, label=f"calibration {table.name}")
    axes.plot([1.0, found], [value, value], color=FIT, linewidth=1.0)
    axes.plot([found, found], [0.45, value], color=LINE, linewidth=1.0)
    text = f"measured: lithium per cobalt,\n{value:.3f} ± {sigma:.3f} of the reference"
    axes.annotate(text, (0.985, value),
                  (0, 24), textcoords="offset points", color=FIT, fontsize=8.5)  # fmt: skip
    text = f"x = {found:.3f} ± {(high - low) / 2:.3f}\nSoC = {(1 - found) / 0.5:.0%}"
    axes.annotate(text, (found, 0.46), (8, 6),
                  textcoords="offset points", color=LINE, fontsize=9)  # fmt: skip
    axes.set_xlim(1.02, 0.48)
    axes.set_ylim(0.45, 1.05)
    axes.set_xlabel("x in Li$_x$CoO$_2$  (SoC 0 at x = 1, SoC 1 at x = 0.5)")
    axes.set_ylabel("lithium signal, relative")
    axes.set_title("From counts to a state of charge")
    grid_lines(axes)
    axes.legend(loc="upper right")
    return figure


def a_cut() -> Figure:
    """Who ends what after the computer has died: a line of 64 pixels of 20 ms, a watchdog of 3 s."""
    rows = (
        ("journal", 0.0, "what was acknowledged is on the disk; the rest never was"),
        ("beam", 64 * 0.02, "the line that plays ends blanked, and stays so"),
        ("heater", 3.0, "the box's strict watchdog opens the relay in series"),
        ("shutter", 3.0, "the same watchdog closes it"),
        ("cell", 10.0, "goes on until its own script ends it: window of voltage, current, or run time"),
    )
    figure = new_figure(8.0, 3.0)
    axes = figure.subplots()
    for place, (name, end_s, text) in enumerate(reversed(rows)):
        axes.barh(place, end_s, height=0.5, color=FIT if end_s > 9.0 else LINE, alpha=0.85)
        inside = end_s > 9.0
        begin_s = 0.0 if inside else end_s
        axes.annotate(text, (begin_s, place), (7, 0), textcoords="offset points", va="center",
                      fontsize=8.5, color="white" if inside else INK)  # fmt: skip
        axes.annotate(name, (0.0, place), (-8, 0), textcoords="offset points", va="center", ha="right")
    axes.axvline(0.0, color=INK, linewidth=1.2)
    axes.axvline(3.0, color=SOFT, linewidth=0.8, linestyle=":", zorder=0)
    axes.set_yticks([])
    axes.set_xlim(0.0, 10.0)
    axes.set_xlabel("time after the power of the computer has gone / s   (at the latest)")
    axes.set_title("Nobody is left to act: what is still on, and what ends it")
    axes.spines["left"].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
