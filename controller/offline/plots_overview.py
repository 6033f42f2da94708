"""The mosaics of a run in its report: counts of each element and the dose, place by place."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from controller.offline.overview import Overview
from controller.offline.plot_style import LEVELS
from controller.offline.svg import GRID, TICK, WIDTH

ACROSS = 3
AROUND = 1.05  # inches beside a map: its axis and its colour bar
ABOVE = 0.95  # inches above and below it
HIGHEST = 3.2
UNITS = {"1/cm2": "protons per cm²", "counts": "counts per pixel", "pC": "pC per pixel"}
LEFT_OUT = ("pile_up", "live", "charge")  # what is drawn says less of the sample than what stands there


def shown(found: Sequence[Overview]) -> list[Overview]:
    """Return the overviews that are drawn: of the elements and of the dose."""
    return [one for one in found if not one.what.startswith(LEFT_OUT)]


def overviews(found: Sequence[Overview]) -> Figure:
    """Draw each overview with its own scale of colours; where no tile was scanned nothing is drawn.

    Args:
        found: at least one, as ``shown`` returns them.
    """
    first = found[0]
    wide, high = (float(abs(axis[-1] - axis[0])) or 1.0 for axis in (first.x_um, first.y_um))
    across = min(ACROSS, len(found))
    width = min((WIDTH - across * AROUND) / across, HIGHEST * wide / high)
    height = width * high / wide
    rows = math.ceil(len(found) / across)
    figure = Figure(figsize=(across * (width + AROUND), rows * (height + ABOVE)), layout="constrained")
    for number, one in enumerate(found):
        axes = figure.add_subplot(rows, across, number + 1)
        known = one.values[np.isfinite(one.values)]
        norm = mpl.colors.PowerNorm(0.5, 0.0, max(float(known.max(initial=0.0)), 1e-30), clip=True)
        pitch_x, pitch_y = ((axis[-1] - axis[0]) / max(axis.size - 1, 1) for axis in (one.x_um, one.y_um))
        edges = (
            one.x_um[0] - pitch_x / 2, one.x_um[-1] + pitch_x / 2,
            one.y_um[0] - pitch_y / 2, one.y_um[-1] + pitch_y / 2,
        )  # fmt: skip
        axes.set_facecolor(GRID)
        image = axes.imshow(
            np.ma.masked_invalid(one.values), LEVELS, norm, origin="lower", extent=edges, aspect="equal",
            interpolation="nearest",
        )  # fmt: skip
        tiles = "" if one.tiles == one.of else f"\n{one.tiles} of {one.of} tiles"
        axes.set_title(f"“{one.name}”, {one.what}{tiles}", fontsize=10, fontweight="bold", loc="left")
        axes.set_xlabel("x on the sample / µm")
        axes.set_ylabel("y / µm")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        bar = figure.colorbar(image, ax=axes, shrink=0.85)
        bar.outline.set_visible(False)
        bar.locator = MaxNLocator(4)
        bar.set_label(UNITS.get(one.unit, one.unit), color=TICK, fontsize=8.5)
    return figure
