"""The change of lithium along a layer: each scan over the reference scan, with its error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from controller.offline.plot_style import SOFT
from controller.offline.svg import quiet_grid
from controller.offline.view import Floats, ProfileView

MOST_BINS, REFERENCE_SIGMAS = 12, 8.0


def relative_profiles(
    axes: Axes,
    reference: ProfileView,
    views: Sequence[ProfileView],
    inside: tuple[float, float],
    colours: Mapping[str, str],
) -> None:
    """Draw lithium of a host layer relative to the reference scan: bands are the statistical error."""
    axes.axhline(1.0, color=SOFT, lw=0.8)
    for view in views:
        found = relative_change(reference, view, inside)
        if found is None:
            continue
        place, ratio, sigma = found
        colour = colours[view.scan]
        axes.fill_between(place, ratio - sigma, ratio + sigma, step="mid", color=colour, alpha=0.2, lw=0)
        axes.step(place, ratio, where="mid", color=colour, lw=1.5, label=view.scan)
    axes.set_ylabel("Li, relative to\n" + reference.scan)
    quiet_grid(axes)


def relative_change(
    reference: ProfileView, view: ProfileView, inside: tuple[float, float]
) -> tuple[Floats, Floats, Floats] | None:
    """Return place, ratio to the reference and its statistical error in a layer; None if too little is known.

    Bins are put together until each holds a reference of REFERENCE_SIGMAS of its error:
    sigma^2 = ratio^2 ((s1 / v1)^2 + (s0 / v0)^2), v being sums over the same places.
    """
    places = reference.position_um[
        (reference.position_um > inside[0]) & (reference.position_um < inside[1])
    ]  # fmt: skip
    for bins in range(min(MOST_BINS, places.size), 0, -1):
        edges = np.linspace(max(inside[0], places[0]), min(inside[1], places[-1]), bins + 1)
        before, after = (_summed(one, edges) for one in (reference, view))
        if np.all(before[0] > REFERENCE_SIGMAS * before[1]) and np.all(np.isfinite(after[0])):
            ratio = after[0] / before[0]
            sigma = np.hypot(after[1] / before[0], ratio * before[1] / before[0])
            middle = 0.5 * (edges[1:] + edges[:-1])
            return middle, ratio, sigma
    return None


def _summed(view: ProfileView, edges: Floats) -> tuple[Floats, Floats]:
    """Return means of a profile between edges, and their statistical errors."""
    number = np.digitize(view.position_um, edges) - 1
    good = np.isfinite(view.value) & np.isfinite(view.sigma)
    values, sigmas = [], []
    for index in range(edges.size - 1):
        chosen = good & (number == index)
        count = int(chosen.sum())
        values.append(float(view.value[chosen].sum()) / count if count else math.nan)
        sigmas.append(float(np.sqrt((view.sigma[chosen] ** 2).sum())) / count if count else math.nan)
    return np.array(values), np.array(sigmas)
