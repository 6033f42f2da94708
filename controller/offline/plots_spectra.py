"""Summed spectra with the windows, the background bands and the fitted lithium line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from controller.offline.plot_style import DATA, FIT, INK, LINE, SOFT
from controller.offline.plots_maps import scan_colours
from controller.offline.svg import TICK, WIDTH, quiet_grid
from controller.offline.view import Floats, SpectrumView, Window

MARGIN_KEV = 14.0
LETTERS = {"Ka": "Kα", "Kb": "Kβ", "La": "Lα", "Lb": "Lβ", "gamma": "γ"}
ORDER = ("pige", "pixe")
DETECTORS = {"pige": "PIGE, HPGe", "pixe": "PIXE, silicon drift detector"}
POINTS = 600


def whole_spectra(views: Sequence[SpectrumView]) -> Figure:
    """Draw every detector's whole spectrum on a logarithmic scale, one line per scan."""
    colours = scan_colours([(view.scan, view.purpose) for view in views])
    detectors = sorted({view.detector for view in views}, key=lambda d: (*ORDER, d).index(d))
    figure = Figure(figsize=(WIDTH, 0.4 + 2.7 * len(detectors)), layout="constrained")
    axes = np.atleast_1d(np.asarray(figure.subplots(len(detectors), 1), dtype=object))
    for one, detector in zip(axes, detectors, strict=True):
        chosen = [view for view in views if view.detector == detector]
        for view in chosen:
            rate, label = _rate(view)
            energy, values = _grouped(view.energy_kev, rate, POINTS)
            colour = colours[view.scan]
            one.step(
                energy,
                np.where(values > 0, values, np.nan),
                where="mid",
                color=colour,
                lw=0.9,
                label=view.scan,
            )
        one.set_yscale("log")
        lowest, highest = one.get_ylim()
        one.set_ylim(lowest, highest * (highest / lowest) ** 0.16)  # room for the names of the lines
        low, high = _visible(chosen)
        one.set_xlim(low, high)
        for window in chosen[0].windows:
            _window(one, window, label=True)
        one.set_title(DETECTORS.get(detector, detector))
        one.set_ylabel(label)
        one.set_xlabel("energy / keV")
        quiet_grid(one)
        one.legend(loc="upper right", ncols=len(chosen))
    return figure


def line_regions(views: Sequence[SpectrumView], element: str = "Li") -> Figure | None:
    """Draw one line in every scan: counts with errors, window, background bands and the fit."""
    chosen = [view for view in views if any(window.element == element for window in view.windows)]
    chosen = [view for view in chosen if view.counts.sum() > 0]
    if not chosen:
        return None
    columns = len(chosen)
    figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
    axes = np.atleast_1d(np.asarray(figure.subplots(1, columns, sharey=False), dtype=object))
    for one, view in zip(axes, chosen, strict=True):
        window = next(w for w in view.windows if w.element == element)
        _region(one, view, window)
        one.set_title(view.scan, fontsize=9.5)
        one.set_xlabel("energy / keV")
    step = float(np.median(np.diff(chosen[0].energy_kev)))
    axes[0].set_ylabel(f"counts per {_joined(chosen[0])[1] * step:.2g} keV")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _region(axes: Axes, view: SpectrumView, window: Window) -> None:
    low = min(window.low_kev, *(a for a, _ in window.bands_kev)) - MARGIN_KEV
    high = max(window.high_kev, *(b for _, b in window.bands_kev)) + 0.8 * MARGIN_KEV
    inside = (view.energy_kev >= low) & (view.energy_kev <= high)
    energy, group = view.energy_kev[inside], _joined(view)[1]
    counts = _sums(view.counts[inside], group)
    places = _means(energy, group)
    axes.errorbar(
        places, counts, np.sqrt(np.maximum(counts, 1.0)), fmt="o", ms=2.4, lw=0.8, color=DATA, zorder=3,
        label="counts ± √N",
    )  # fmt: skip
    _window(axes, window, label=False)
    fit = view.fits.get(window.element)
    if fit is not None:
        e, model, base = fit
        axes.fill_between(e, group * base, group * model, color=FIT, alpha=0.22, lw=0, zorder=4)
        axes.plot(e, group * model, color=FIT, lw=1.6, zorder=5, label="fitted line")
        axes.plot(e, group * base, color=INK, lw=1.1, ls=(0, (4, 2)), zorder=5, label="continuum")
    axes.set_xlim(low, high)
    near = counts[(places > window.low_kev - 3) & (places < window.bands_kev[-1][1])]
    if near.size:
        top = float(near.max())
        axes.set_ylim(max(0.0, 0.72 * float(near.min())), top + 0.22 * top)
    quiet_grid(axes)


def _window(axes: Axes, window: Window, *, label: bool) -> None:
    """Shade where a line is counted and where its background is taken."""
    shade = axes.axvspan(window.low_kev, window.high_kev, color=LINE, alpha=0.14, lw=0, zorder=0)
    bands = [
        axes.axvspan(low, high, color=SOFT, alpha=0.28, lw=0, zorder=0) for low, high in window.bands_kev
    ]
    if not label:
        shade.set_label("window")
        bands[0].set_label("background band")
    if label:
        name = f"{window.element} {LETTERS.get(window.line, window.line)}".strip()
        axes.annotate(
            name, (0.5 * (window.low_kev + window.high_kev), 1.0),
            xycoords=("data", "axes fraction"), xytext=(0, -3), textcoords="offset points", ha="center",
            va="top", fontsize=8.5, color=TICK,
        )  # fmt: skip


def _rate(view: SpectrumView) -> tuple[Floats, str]:
    """Return the spectrum per second where the live time is known, so that scans can be compared."""
    if view.live_s:
        return view.counts / view.live_s, "counts per s and channel"
    return view.counts, "counts per channel"


def _visible(views: Sequence[SpectrumView]) -> tuple[float, float]:
    """Return from where to where there is anything to see."""
    energy = views[0].energy_kev
    total = np.sum([view.counts for view in views if view.counts.size == energy.size], axis=0)
    used = np.flatnonzero(total > 0)
    if not used.size:
        return float(energy[0]), float(energy[-1])
    far = np.searchsorted(np.cumsum(total), 0.9998 * total.sum())
    return max(float(energy[used[0]]), 0.0), float(energy[min(int(far) + 1, energy.size - 1)])


def _grouped(energy: Floats, values: Floats, points: int) -> tuple[Floats, Floats]:
    """Return mean values over groups of channels, so that no more than so many points are drawn."""
    group = max(1, energy.size // points)
    return _means(energy, group), _means(values, group)


def _joined(view: SpectrumView) -> tuple[float, int]:
    """Return how many channels to join so that a bin is about 0.5 keV."""
    step = float(np.median(np.diff(view.energy_kev)))
    return step, max(1, round(0.5 / step))


def _sums(values: Floats, group: int) -> Floats:
    whole = values.size // group * group
    result: Floats = values[:whole].reshape(-1, group).sum(axis=1)
    return result


def _means(values: Floats, group: int) -> Floats:
    return _sums(values, group) / group
