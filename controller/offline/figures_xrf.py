"""Figures of X-ray fluorescence spectra and maps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from controller.offline.plot_style import (
    DATA,
    FILL,
    FIT,
    LEVELS,
    MAX_LINES,
    PALETTE,
    WARM,
    counts_text,
    grid_lines,
    new_figure,
    saved,
)
from controller.offline.xrf import ElementMap, XrfReport
from edge.xrf_reduce import XrfResult

MIN_SHOWN_COUNTS = 4.0  # per displayed cell, on average
MIN_SHOWN_CELLS = 48  # a map is not made coarser than this


def xrf_spectrum(report: XrfReport, result: XrfResult, detector: int) -> Figure:
    """Draw one X-ray spectrum with its fit, component by component."""
    figure = new_figure(9.6, 5.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.6, 1])
    fit = result.fit
    energy = fit.scale.energy_kev(np.arange(fit.first, fit.first + fit.counts.size))
    floor = max(1.0, 0.3 * float(np.percentile(fit.counts, 3)))
    above.step(energy, np.maximum(fit.counts, floor), where="mid", color=DATA, lw=0.8, label="data")
    above.plot(energy, np.maximum(fit.model, floor), color=FIT, lw=1.2, label="fit")
    above.fill_between(
        energy,
        floor,
        np.maximum(fit.components["continuum"], floor),
        color="#e5e8ec",
        lw=0,
        label="continuum",
    )
    if "pile-up" in fit.components:
        above.plot(
            energy, np.maximum(fit.components["pile-up"], floor), color=WARM, lw=0.9, ls=":", label="pile-up"
        )
    ordered = sorted(fit.areas, key=lambda a: a.group.mean_kev)
    elements = list(dict.fromkeys(a.group.element for a in ordered))
    last = -1e9
    for k, element in enumerate(elements):
        color = PALETTE[k % len(PALETTE)]
        groups = [a for a in fit.areas if a.group.element == element]
        shape = np.sum([fit.components[a.group.name] for a in groups], axis=0)
        above.fill_between(energy, floor, np.maximum(shape, floor), color=color, alpha=0.28, lw=0)
        main = groups[0].group
        place = max(main.mean_kev, last + 0.012 * float(energy[-1] - energy[0]))
        last = place
        peak = float(np.interp(main.mean_kev, energy, fit.model))
        above.annotate(
            element,
            (place, max(peak, floor)),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            color=color,
            fontweight="bold",
        )
    above.set_yscale("log")
    above.set_ylim(floor, 6 * float(fit.counts.max()))
    above.set_xlim(float(energy[0]), float(energy[-1]))
    above.set_ylabel(f"counts per {1000 * float(fit.scale.gain_kev(energy.size / 2)):.1f} eV")
    above.legend(loc="upper right", ncols=4)
    total = counts_text(int(report.spectra[detector].counts.sum()))
    above.set_title(f"{report.data['file']}, detector {detector}   {total}")
    pulls = (fit.counts - fit.model) / np.sqrt(np.maximum(fit.model, 1.0))
    below.axhspan(-3, 3, color=FILL, lw=0, alpha=0.7)
    below.plot(energy, pulls, color=DATA, lw=0.7)
    below.set_ylabel("pull / σ")
    below.set_xlabel("energy / keV")
    for axes in (above, below):
        grid_lines(axes)
    return figure


def element_maps(report: XrfReport) -> Figure:
    """Draw the fitted maps of the elements found."""
    recorded = report.recorded_map
    if recorded is None:
        raise ValueError("the report holds no map")
    chosen = [
        m for m in report.maps if m.name.endswith(("Ka", "L3")) and m.fitted.sum() > 8 * _total_sigma(m.sigma)
    ]
    names = list(dict.fromkeys(m.name for m in chosen))[:MAX_LINES]
    columns = min(
        4 if recorded.n_detectors == 1 else 2 * recorded.n_detectors,
        max(1, len(names) * recorded.n_detectors),
    )
    panels = [
        next(m for m in report.maps if m.name == n and m.detector == d)
        for n in names
        for d in range(recorded.n_detectors)
    ]
    rows = math.ceil(len(panels) / columns)
    wide, high = recorded.width_um or recorded.nx, recorded.height_um or recorded.ny
    unit = "µm" if recorded.width_um and recorded.height_um else "pixels"
    figure = new_figure(2.75 * columns, (1.95 * high / wide + 0.5) * rows + 0.7)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    factor = _display_factor(panels)
    for axes, m in zip(grid.flat, panels, strict=False):
        shown = _binned(m.fitted, factor)
        low = min(0.0, float(np.percentile(shown, 1)))
        image = axes.imshow(
            shown, cmap=LEVELS, origin="upper", extent=(0, wide, high, 0), interpolation="nearest", vmin=low
        )
        which = f", detector {m.detector}" if recorded.n_detectors > 1 else ""
        axes.set_title(f"{m.name}{which}", fontsize=8.8, pad=3)
        bar = figure.colorbar(image, ax=axes, fraction=0.046 * min(1.0, high / wide) + 0.01, pad=0.02)
        bar.ax.tick_params(labelsize=6.5)
        bar.outline.set_visible(False)
        axes.tick_params(labelsize=7)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel(f"x / {unit}")
    for axes in grid[:, 0]:
        axes.set_ylabel(f"y / {unit}")
    per = "per pixel" if factor == 1 else f"per {factor} × {factor} pixels"
    figure.suptitle(f"{report.data['file']}: fitted counts {per}", x=0.01, ha="left", fontweight="bold")
    return figure


def _display_factor(panels: list[ElementMap]) -> int:
    """Return how many pixels are added up per displayed one, so that a cell holds a few counts."""
    mean = float(np.median([m.fitted.mean() for m in panels]))
    side, factor = min(panels[0].fitted.shape), 1
    while mean * factor**2 < MIN_SHOWN_COUNTS and side // (2 * factor) >= MIN_SHOWN_CELLS:
        factor *= 2
    return factor


def _binned(image: Any, factor: int) -> Any:
    """Add up factor x factor pixels; a rest at the edges is added to incomplete cells."""
    ny, nx = image.shape
    padded = np.pad(image, ((0, -ny % factor), (0, -nx % factor)))
    return padded.reshape(padded.shape[0] // factor, factor, -1, factor).sum(axis=(1, 3))


def _total_sigma(sigma: Any) -> float:
    return float(np.sqrt(np.sum(np.asarray(sigma) ** 2)))


def draw(report: XrfReport, fmt: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, picture) of each figure of a report."""
    for result, spectrum in zip(report.results, report.spectra, strict=True):
        yield f"spectrum-{spectrum.detector}", saved(xrf_spectrum(report, result, spectrum.detector), fmt)
    if report.maps:
        yield "maps", saved(element_maps(report), fmt)
