"""Figures of a run that was reduced again: maps with the residual image, profiles, the unexplained lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from controller.offline.ion_beam_residual import Residuals
from controller.offline.plot_style import (
    DATA,
    FIT,
    LEVELS,
    LINE,
    PALETTE,
    SOFT,
    grid_lines,
    new_figure,
    saved,
)
from controller.reduce import pictures
from controller.reduce.spectra import spectra
from edge.ion_beam import IonBeamReducer
from edge.placement import Placement
from edge.scan_data import ScanData

SHOWN_COUNTS = 9.0  # per displayed cell, so that a map is more than noise
FEWEST_CELLS = 24


def draw(reducer: IonBeamReducer, residuals: Residuals, fmt: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, picture): maps and profiles of the last scan, the spectrum with what is not explained.

    Args:
        reducer: after its result.
        residuals: images by (scan, detector).
        fmt: png or svg.
    """
    drawn = [scan for scan in reducer.scans.values() if scan.start.grid is not None and scan.blocks]
    if not drawn:
        return
    reference = reducer.last_analysis.reference
    after = [s for s in drawn if s is not reference and s.start.purpose not in ("overview", "calibrate")]
    scan = (after or drawn)[-1]
    yield "maps", saved(_maps(reducer, scan, residuals), fmt)
    placement = reducer.last_analysis.placement(scan)
    if isinstance(placement, Placement):
        yield "profiles", saved(_profiles(reducer, scan, placement), fmt)
    for name, detector in reducer.settings.detectors.items():
        if detector.kind == "sdd" and (scan.start.scan, name) in residuals:
            yield f"{name}-unexplained", saved(_spectrum(reducer, scan, name), fmt)


def _maps(reducer: IonBeamReducer, scan: ScanData, residuals: Residuals) -> Figure:
    """Draw net counts of every line and the residual image, pixels added up until they say something."""
    found: dict[str, Mapping[str, Any]] = dict(pictures.element_maps(reducer.last_analysis, scan))
    methods = {line.element: line.method for line in reducer.settings.lines}
    shown = {f"{name}, by {methods[name]}": np.asarray(entry["values"]) for name, entry in found.items()}
    for (number, _), image in residuals.items():
        if number == scan.start.scan:
            names = [f.names[0].split()[0] if f.names else f"{f.energy_kev:.2f} keV" for f in image.features]
            what = "not explained: " + (", ".join(names[:3]) if names else "nothing")
            shown[what] = image.counts
    place = pictures.axes(scan)
    x, y = np.asarray(place["x_um"]), np.asarray(place["y_um"])
    figure = new_figure(2.6 * len(shown) + 0.6, 4.4)
    for axes, (title, values) in zip(
        figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True
    ):
        cells, by = _joined(values.reshape(place["shape"]))
        extent = (*_ends(x), *_ends(y))
        top = max(float(np.percentile(cells, 99.5)), 1.0)
        image_ = axes.imshow(
            cells, origin="lower", extent=extent, cmap=LEVELS, vmin=0.0, vmax=top, aspect="auto",
            interpolation="nearest",
        )  # fmt: skip
        figure.colorbar(image_, ax=axes, orientation="horizontal", pad=0.02).set_label(
            f"net counts per {by} × {by} pixels" if by > 1 else "net counts per pixel"
        )
        axes.set_title(title)
        axes.set_xlabel("x / µm")
    figure.axes[0].set_ylabel("y / µm")
    figure.suptitle(f"{scan.start.name}: {len(scan.passes)} passes", x=0.01, ha="left")
    return figure


def _joined(image: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Return an image with squares of pixels added up until they hold counts, and the side of a square."""
    by = 1
    while image.sum() * by * by / image.size < SHOWN_COUNTS and min(image.shape) // (2 * by) >= FEWEST_CELLS:
        by *= 2
    ny, nx = image.shape[0] // by * by, image.shape[1] // by * by
    return image[:ny, :nx].reshape(ny // by, by, nx // by, by).sum(axis=(1, 3)), by


def _ends(centres: NDArray[Any]) -> tuple[float, float]:
    half = 0.5 * float(centres[1] - centres[0]) if centres.size > 1 else 0.5
    return float(centres[0]) - half, float(centres[-1]) + half


def _profiles(reducer: IonBeamReducer, scan: ScanData, placement: Placement) -> Figure:
    """Draw every line along the interface normal with its error, of this scan and of the reference."""
    analysis = reducer.last_analysis
    now = pictures.profiles(analysis, scan, placement)
    then: dict[str, Any] = {}
    reference = analysis.reference
    if reference is not None and reference is not scan:
        base = analysis.placement(reference)
        then = pictures.profiles(analysis, reference, base) if isinstance(base, Placement) else {}
    figure = new_figure(8.4, 1.9 * len(now) + 0.6)
    panels = figure.subplots(len(now), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (element, entry) in zip(panels, now.items(), strict=True):
        for lines, colour, label in (
            (then.get(element), SOFT, "" if reference is None else reference.start.name),
            (entry, LINE, scan.start.name),
        ):
            if lines is None:
                continue
            position, value = np.asarray(lines["position_um"]), np.asarray(lines["values"])
            sigma = np.hypot(lines["sigma"], lines["sigma_sys"])
            axes.fill_between(
                position, value - sigma, value + sigma, step="mid", color=colour, alpha=0.3, lw=0
            )
            axes.step(position, value, where="mid", color=colour, lw=1.3, label=label)
        axes.axvline(0.0, color=FIT, lw=0.9, ls=(0, (4, 2)))
        axes.set_ylabel(f"{element}\n{entry['unit']}")
        grid_lines(axes)
    figure.axes[0].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    figure.axes[0].set_title("along the interface normal; bands: one sigma, both kinds")
    figure.axes[-1].set_xlabel("distance from the interface / µm")
    return figure


def _spectrum(reducer: IonBeamReducer, scan: ScanData, name: str) -> Figure:
    """Draw the X-ray spectrum of a scan and mark the lines that no known element explains."""
    entry = spectra(reducer.last_analysis, scan)[name]
    energy, counts = np.asarray(entry["energy_kev"]), np.asarray(entry["values"], np.float64)
    use = (energy > 1.0) & (energy < 16.0)
    figure = new_figure(8.4, 3.6)
    axes: Axes = figure.subplots()
    axes.step(energy[use], np.maximum(counts[use], 0.5), where="mid", color=DATA, lw=0.7)
    axes.set_yscale("log")
    for line in reducer.settings.lines:
        if line.detector == name:
            axes.axvspan(line.window.low_kev, line.window.high_kev, color=PALETTE[0], alpha=0.18, lw=0)
            axes.text(line.window.centroid_kev, 0.98, line.element, transform=axes.get_xaxis_transform(),
                      ha="center", va="top", color=PALETTE[0])  # fmt: skip
    # the numbers of the result; the residual image has a fit of its own, in coarser bins
    for found in reducer.last_analysis.unexplained(scan).get(name, []):
        axes.axvline(found["energy_kev"], color=FIT, lw=0.9, ls=(0, (3, 2)))
        label = found["names"][0] if found["names"] else f"{found['energy_kev']:.2f} keV"
        axes.text(found["energy_kev"] + 0.05, 0.86, f"{label}?\n{found['counts']:.0f} ± {found['sigma']:.0f}",
                  transform=axes.get_xaxis_transform(), va="top", color=FIT, fontsize=8.0)  # fmt: skip
    axes.set_xlim(1.0, 16.0)
    axes.set_xlabel("energy / keV")
    axes.set_ylabel("counts per channel")
    axes.set_title(
        f"{scan.start.name}, {name}: windows of the analysis, and lines that nobody listed (dashed)"
    )
    return figure
