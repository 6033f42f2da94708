"""Element maps and profiles: reference, charging and after side by side, on one scale per element."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.patheffects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from controller.offline.plot_style import FIT, INK, LEVELS, LINE, SOFT
from controller.offline.svg import GREEN, PAPER, TICK, VIOLET, quiet_grid
from controller.offline.view import Floats, Geometry, MapView, ProfileView

BAR_STEPS_UM = (1, 2, 5, 10, 20, 50, 100, 200, 500)
ROLE_COLOURS = {"reference": "#5b6570", "charging": FIT, "discharging": FIT, "after": LINE}
SPARE = (VIOLET, GREEN)
TALL = 1.6  # maps higher than this times their width stand in one row
WIDEST, WIDEST_PANEL, HIGHEST_PANEL = 10.6, 2.8, 4.4  # inches
AXIS, GAP, BAR_GAP, BAR, BAR_TEXT, HEAD, FOOT = 0.5, 0.07, 0.09, 0.11, 0.52, 0.62, 0.12
PER_EXPOSURE = {"1/nC": "counts per nC", "1/s": "counts per s"}


def element_maps(views: Sequence[MapView], levels: tuple[float, float] | None = None) -> Figure:
    """Draw the maps: one group per element with its own scale of colours, one panel per scan.

    Args:
        views: at least one map.
        levels: ends of the scale of colours; default from zero to what nearly all pixels stay below.
    """
    elements = list(dict.fromkeys(view.element for view in views))
    left, right, bottom, top = views[0].extent_um
    ratio = (top - bottom) / (right - left)
    panels = max(sum(view.element == element for view in views) for element in elements)
    in_row = len(elements) if ratio >= TALL else 1
    rows = -(-len(elements) // in_row)
    around = AXIS + in_row * (BAR_GAP + BAR + BAR_TEXT + (panels - 1) * GAP)
    width = min((WIDEST - around) / (in_row * panels), WIDEST_PANEL, HIGHEST_PANEL / ratio)
    height = width * ratio
    group_width = panels * width + (panels - 1) * GAP + BAR_GAP + BAR + BAR_TEXT
    size = (AXIS + in_row * group_width, rows * (HEAD + height + FOOT))
    figure = Figure(figsize=size)
    for index, element in enumerate(elements):
        row, column = divmod(index, in_row)
        chosen = [view for view in views if view.element == element]
        norm = mpl.colors.Normalize(*(levels or _levels(chosen)))
        x, y = AXIS + column * group_width, size[1] - row * (HEAD + height + FOOT) - HEAD - height
        for number, view in enumerate(chosen):
            place = (x + number * (width + GAP), y, width, height)
            _map(figure.add_axes(_part(place, size)), view, norm, first=column == 0 and number == 0)
        bar = figure.add_axes(_part((x + group_width - BAR_TEXT - BAR, y, BAR, height), size))
        colours = figure.colorbar(mpl.cm.ScalarMappable(norm, LEVELS), cax=bar)
        colours.outline.set_visible(False)
        bar.tick_params(labelsize=8.5, length=3)
        head = (y + height + 0.34) / size[1]
        figure.text(x / size[0], head, element, fontsize=11.5, fontweight="bold", va="bottom")
        figure.text(
            (x + 0.12 + 0.1 * len(element)) / size[0],
            head,
            chosen[0].unit,
            fontsize=9,
            color=TICK,
            va="bottom",
        )
    return figure


def _part(
    place: tuple[float, float, float, float], size: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Return a place in inches as parts of the figure."""
    x, y, width, height = place
    return x / size[0], y / size[1], width / size[0], height / size[1]


def profiles(views: Sequence[ProfileView], geometry: Geometry | None) -> Figure:
    """Draw every element along the interface normal: each scan against the reference, with error bands."""
    elements = list(dict.fromkeys(view.element for view in views))
    figure = Figure(figsize=(WIDEST, 0.7 + 2.0 * len(elements)), layout="constrained")
    axes = np.atleast_1d(np.asarray(figure.subplots(len(elements), 1, sharex=True), dtype=object))
    for one, element in zip(axes, elements, strict=True):
        chosen = [view for view in views if view.element == element]
        spare = iter(SPARE)
        for view in chosen:
            colour = ROLE_COLOURS.get(view.purpose) or next(spare, SOFT)
            _profile(one, view, colour)
        one.axhline(0.0, color=SOFT, lw=0.8)
        one.set_ylabel(f"{element}, {PER_EXPOSURE.get(chosen[0].unit, chosen[0].unit)}")
        quiet_grid(one)
        if geometry is not None:
            _layers(one, geometry, named=one is axes[0])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
    axes[-1].set_xlabel("distance from the interface along its normal / µm")
    axes[-1].margins(x=0.01)
    return figure


def scale_bar_um(width_um: float) -> int:
    """Return the length of a scale bar: at most half of the width, a round number."""
    fitting = [step for step in BAR_STEPS_UM if step <= 0.5 * width_um]
    return fitting[-1] if fitting else BAR_STEPS_UM[0]


def boundary(geometry: Geometry, distance_um: float, extent: tuple[float, float, float, float]) -> Floats:
    """Return the ends of a boundary of layers across a map: [[x0, x1], [y0, y1]] in um.

    y = (d + (x - pivot) sin a) / cos a, d being the distance from the scan's zero along the normal.
    """
    x = np.array(extent[:2])
    along = geometry.interface_um + distance_um + (x - geometry.pivot_x_um) * math.sin(geometry.angle_rad)
    return np.stack([x, along / math.cos(geometry.angle_rad)])


def _levels(views: Sequence[MapView]) -> tuple[float, float]:
    """Return one scale for all scans of an element: from zero to what 99.5 % of the pixels stay below."""
    values = np.concatenate([view.values[np.isfinite(view.values)].ravel() for view in views])
    if not values.size:
        return 0.0, 1.0
    high = float(np.percentile(values, 99.5))
    return 0.0, high if high > 0.0 else 1.0


def _map(axes: Axes, view: MapView, norm: mpl.colors.Normalize, *, first: bool) -> None:
    """Draw one map with a scale bar and the boundaries of its layers."""
    colours = mpl.colormaps[LEVELS].with_extremes(bad=(0, 0, 0, 0))
    axes.imshow(
        view.values, cmap=colours, norm=norm, origin="lower", extent=view.extent_um, interpolation="none",
        aspect="equal",
    )  # fmt: skip
    left, right, bottom, top = view.extent_um
    title = view.scan if view.sigma is None else f"{view.scan}, ± {view.sigma:.0f} {view.unit} each"
    axes.set_title(title, fontsize=9, fontweight="normal", loc="left", color=TICK, pad=4)
    axes.set_xticks([])
    axes.tick_params(labelsize=8.5, length=3)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if first:
        axes.set_ylabel("y / µm", labelpad=1)
    else:
        axes.set_yticks([])
    if view.geometry is not None:
        for distance in view.geometry.boundaries_um:
            x, y = boundary(view.geometry, distance, view.extent_um)
            for colour, width in ((INK, 2.6), (PAPER, 1.2)):
                axes.plot(x, y, color=colour, lw=width, ls="-" if colour == INK else (0, (3, 2)), alpha=0.9)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    length = scale_bar_um(right - left)
    start, level = left + 0.07 * (right - left), bottom + 0.035 * (top - bottom)
    for colour, width in ((INK, 5.0), (PAPER, 2.6)):
        axes.plot([start, start + length], [level] * 2, color=colour, lw=width, solid_capstyle="butt")
    text = axes.text(
        start, level + 0.022 * (top - bottom), f"{length} µm", color=PAPER, fontsize=8, va="bottom"
    )
    text.set_path_effects([mpl.patheffects.withStroke(linewidth=2.0, foreground=INK)])


def _profile(axes: Axes, view: ProfileView, colour: str) -> None:
    """Draw a profile: the inner band is the statistical error, the outer one both in quadrature."""
    whole = np.hypot(view.sigma, np.nan_to_num(view.sigma_sys))
    for sigma, alpha in ((whole, 0.13), (view.sigma, 0.22)):
        axes.fill_between(
            view.position_um, view.value - sigma, view.value + sigma, step="mid", color=colour, alpha=alpha,
            lw=0,
        )  # fmt: skip
    axes.step(view.position_um, view.value, where="mid", color=colour, lw=1.5, label=view.scan)


def _layers(axes: Axes, geometry: Geometry, *, named: bool) -> None:
    """Mark the boundaries and what of each layer counts as pure; name the layers once."""
    for distance in geometry.boundaries_um:
        axes.axvline(distance, color=INK, lw=1.0, ls=(0, (3, 2)), zorder=1)
    low, high = axes.get_xlim()
    for name, start, end in geometry.layers:
        a, b = max(start, low), min(end, high)
        if b <= a:
            continue
        axes.axvspan(a, b, ymin=0.0, ymax=0.025, color=INK, alpha=0.35, lw=0)
        if named:
            axes.annotate(
                name, (0.5 * (a + b), 1.0), xycoords=("data", "axes fraction"), xytext=(0, 4),
                textcoords="offset points", ha="center", va="bottom", fontsize=9, color=TICK,
            )  # fmt: skip
    axes.set_xlim(low, high)
