"""The picture of an energy calibration: the spectrum with its lines, and how far they lie off the scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controller.offline.plot_style import DATA, FILL, FIT, LINE, SOFT, STYLE, grid_lines, new_figure, saved
from edge.identify_lines import Calibrated


def draw(found: Calibrated, counts: NDArray[np.float64], source: str) -> bytes:
    """Return the figure as PNG. ``counts`` is the spectrum, counts per channel, shape (n,)."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        figure = new_figure(8.0, 5.2)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1.0))
        scale = found.fit.scale
        energy = scale.energy_kev(np.arange(counts.size))
        end = 1.12 * found.lines[-1].energy_kev
        shown = (energy > min(0.0, float(energy[0]))) & (energy < end)
        above.stairs(np.maximum(counts[shown], 0.5)[:-1], energy[shown], color=DATA, linewidth=0.7)
        above.set_yscale("log")
        above.set_ylabel("counts per channel")
        above.set_title(f"{source}: {len(found.lines)} known lines")
        top = float(counts[shown].max())
        floor = max(0.5, float(np.percentile(counts[shown], 2)) * 0.5)
        ceiling = top * (top / floor) ** 0.45  # room for the names
        above.set_ylim(floor, ceiling)
        for line, peak in zip(found.lines, found.peaks, strict=True):
            height = float(counts[max(0, round(peak.centroid) - 2) : round(peak.centroid) + 3].max())
            above.plot([line.energy_kev] * 2, [height * 1.3, top * 1.5], color=FIT, linewidth=0.7, alpha=0.6)
            above.annotate(line.name, (line.energy_kev, top * 1.7), rotation=90, ha="center", va="bottom",
                           fontsize=7.5, color=FIT)  # fmt: skip
        grid_lines(below)
        place = np.linspace(0.0, end, 200)
        channel = (place - scale.coefficients[0]) / scale.coefficients[1]
        band = 1000.0 * scale.sigma_kev(channel)
        below.fill_between(place, -band, band, color=FILL, label="the scale, one sigma", linewidth=0)
        below.axhline(0.0, color=SOFT, linewidth=0.8)
        below.errorbar(
            found.fit.energies_kev, 1000.0 * found.fit.residuals_kev,
            1000.0 * np.hypot(found.fit.sigma_kev, found.fit.excess_kev), fmt="o", markersize=4, color=LINE,
            linewidth=1.0, capsize=2.5, label="lines",
        )  # fmt: skip
        below.set_xlim(0.0, end)
        below.set_xlabel("energy / keV")
        below.set_ylabel("beside the scale / eV")
        below.legend(loc="best", ncols=2)
        figure.align_ylabels()
        return saved(figure, "png")
