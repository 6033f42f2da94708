"""Element maps and profiles: reference, charging and after side by side, on one scale per element."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from controller.offline.plot_style import FIT, INK, LEVELS, LINE, SOFT
from controller.offline.plots_change import relative_profiles
from controller.offline.svg import GREEN, GRID, TICK, VIOLET, WIDTH, quiet_grid
from controller.offline.view import Floats, Geometry, MapView, ProfileView

BAR_STEPS_UM = (1, 2, 5, 10, 20, 50, 100, 200, 500)
ROLE_COLOURS = {"reference": "#5b6570", "charging": FIT, "discharging": FIT, "after": LINE}
DARK, BRIGHT = "#0b0f14", "#fcfcfc"  # on a map, whatever the page's colours
SPARE = (GREEN, VIOLET, "#b45309")
NARROWEST_PANEL = 0.85  # inches: below, the names of the scans run into each other
CELL_PX = 4.4  # a smaller cell of a map cannot be seen on the page
TALL = 1.6  # maps higher than this times their width stand in one row
WIDEST, WIDEST_PANEL, HIGHEST_PANEL, SOC_PANEL = WIDTH, 2.8, 2.8, 2.6  # inches
HEAD_TEXT = 0.30  # inches above the maps: names of the scans below it
UNIT_LETTER = 0.068  # inches: mean width of a letter of a unit
AXIS, GAP, BAR_GAP, BAR, BAR_TEXT, HEAD, FOOT = 0.62, 0.07, 0.09, 0.11, 0.52, 0.62, 0.12
PER_EXPOSURE = {"1/nC": "counts per nC", "1/s": "counts per s"}


def element_maps(views: Sequence[MapView]) -> Figure:
    """Draw net counts: one group per element with its own scale of colours, one panel per scan.

    Whole pixels are added up until a cell can be seen on the page; counts are per pass, so that scans of
    different length compare. Colours follow the square root: then noise looks alike at every level.
    """
    across = _layout(views, HIGHEST_PANEL).width * 96.0 / CELL_PX
    cells = [joined(view, across) for view in views]
    norms = {
        element: mpl.colors.PowerNorm(0.5, 0.0, _top([c for c in cells if c.element == element]), clip=True)
        for element in dict.fromkeys(cell.element for cell in cells)
    }
    return _groups(cells, norms, HIGHEST_PANEL)


def soc_maps(views: Sequence[MapView]) -> Figure:
    """Draw the local state of charge in percent: 0 to 100 in every scan, further where it lies outside."""
    values = np.concatenate([view.values[np.isfinite(view.values)].ravel() for view in views])
    low = 25.0 * math.floor(min(0.0, float(values.min(initial=0.0))) / 25.0)
    high = 25.0 * math.ceil(max(100.0, float(values.max(initial=0.0))) / 25.0)
    return _groups(views, {view.element: mpl.colors.Normalize(low, high) for view in views}, SOC_PANEL)


def joined(view: MapView, across: float) -> MapView:
    """Return a map with whole pixels added up to cells that can be seen, in counts per cell and pass.

    Args:
        view: net counts per pixel.
        across: how many cells side by side can be told apart.
    """
    left, right, bottom, top = view.extent_um
    rows, columns = view.values.shape
    pitch_x, pitch_y = (right - left) / columns, (top - bottom) / rows
    cell = max(pitch_x, pitch_y, (right - left) / across)
    by, bx = _divisor(rows, cell / pitch_y), _divisor(columns, cell / pitch_x)
    sums = view.values.reshape(rows // by, by, columns // bx, bx).sum(axis=(1, 3)) / max(view.passes, 1)
    unit = f"net counts per {bx * pitch_x:.2g} × {by * pitch_y:.2g} µm² and pass"
    return replace(view, values=sums, unit=unit)


def _divisor(size: int, wanted: float) -> int:
    """Return the smallest divisor of a size that is about what is wanted, or more."""
    return next(d for d in range(1, size + 1) if size % d == 0 and (d >= 0.9 * wanted or d == size))


@dataclass(frozen=True)
class _Layout:
    """Sizes of a figure of maps, in inches."""

    elements: list[str]
    in_row: int  # groups side by side
    width: float  # of a panel
    height: float
    group_width: float
    size: tuple[float, float]


def _layout(views: Sequence[MapView], highest: float) -> _Layout:
    """Return where the panels go: groups of tall maps side by side, of others below each other."""
    elements = list(dict.fromkeys(view.element for view in views))
    left, right, bottom, top = views[0].extent_um
    ratio = (top - bottom) / (right - left)
    panels = max(sum(view.element == element for view in views) for element in elements)
    in_row, width = 0, 0.0
    for in_row in range(len(elements) if ratio >= TALL else 1, 0, -1):
        around = AXIS + in_row * (BAR_GAP + BAR + BAR_TEXT + (panels - 1) * GAP)
        width = min((WIDEST - around) / (in_row * panels), WIDEST_PANEL, highest / ratio)
        if width >= NARROWEST_PANEL:
            break
    rows = -(-len(elements) // in_row)
    group_width = panels * width + (panels - 1) * GAP + BAR_GAP + BAR + BAR_TEXT
    size = (AXIS + in_row * group_width, rows * (HEAD + width * ratio + FOOT))
    return _Layout(elements, in_row, width, width * ratio, group_width, size)


def _groups(views: Sequence[MapView], norms: Mapping[str, mpl.colors.Normalize], highest: float) -> Figure:
    """Draw one group of panels per element, each with its colour bar, placed by hand in inches."""
    plan = _layout(views, highest)
    size, width, height, group_width = plan.size, plan.width, plan.height, plan.group_width
    figure = Figure(figsize=size)
    for index, element in enumerate(plan.elements):
        row, column = divmod(index, plan.in_row)
        chosen = [view for view in views if view.element == element]
        norm = norms[element]
        x, y = AXIS + column * group_width, size[1] - row * (HEAD + height + FOOT) - HEAD - height
        for number, view in enumerate(chosen):
            place = (x + number * (width + GAP), y, width, height)
            _map(figure.add_axes(_part(place, size)), view, norm, first=column == 0 and number == 0)
        bar = figure.add_axes(_part((x + group_width - BAR_TEXT - BAR, y, BAR, height), size))
        colours = figure.colorbar(mpl.cm.ScalarMappable(norm, LEVELS), cax=bar)
        colours.outline.set_visible(False)
        ticks = MaxNLocator(4).tick_values(norm.vmin or 0.0, norm.vmax or 1.0)
        colours.set_ticks([tick for tick in ticks if (norm.vmin or 0.0) <= tick <= (norm.vmax or 1.0)])
        bar.tick_params(labelsize=8.5, length=3)
        sigma = max((view.sigma for view in chosen if view.sigma is not None), default=None)
        unit = " or ".join(dict.fromkeys(view.unit for view in chosen))
        unit = unit if sigma is None else f"{unit}, error of a region ± {sigma:.0f}"
        _head(figure, element, unit, (x, y + height + HEAD_TEXT), group_width, size)
    return figure


def _head(
    figure: Figure,
    element: str,
    unit: str,
    place: tuple[float, float],
    room: float,
    size: tuple[float, float],
) -> None:
    """Write the name of a group and, behind it, its unit: no further than to the next group."""
    x, y = place
    figure.text(x / size[0], y / size[1], element, fontsize=11.5, fontweight="bold", va="bottom")
    begin = x + 0.12 + 0.1 * len(element)
    letters = int((x + room - begin) / UNIT_LETTER)
    lines = textwrap.wrap(unit.replace(" µm²", "\u00a0µm²"), max(letters, 12))
    figure.text(
        begin / size[0],
        y / size[1],
        "\n".join(lines),
        fontsize=8.5,
        color=TICK,
        va="bottom",
        linespacing=1.15,
    )


def _part(
    place: tuple[float, float, float, float], size: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Return a place in inches as parts of the figure."""
    x, y, width, height = place
    return x / size[0], y / size[1], width / size[0], height / size[1]


def profiles(views: Sequence[ProfileView], geometry: Geometry | None, hosts: Sequence[str] = ()) -> Figure:
    """Draw every element along the interface normal: each scan against the reference, with error bands.

    Args:
        views: at least one profile.
        geometry: of the layers, to be marked.
        hosts: layers in which lithium is drawn once more, enlarged.
    """
    elements = list(dict.fromkeys(view.element for view in views))
    rows = [(element, None) for element in elements]
    inside = [] if geometry is None else [(a, b) for name, a, b in geometry.layers if name in hosts]
    reference = next((view for view in views if view.element == "Li" and view.purpose == "reference"), None)
    changed = [view for view in views if view.element == "Li" and view is not reference]
    if inside and "Li" in elements:
        rows.insert(elements.index("Li") + 1, ("Li", inside[0]))  # type: ignore[arg-type]
    relative = bool(inside and reference is not None and changed)
    colours = scan_colours([(view.scan, view.purpose) for view in views])
    number = len(rows) + relative
    figure = Figure(figsize=(WIDEST, 0.7 + 1.9 * number), layout="constrained")
    axes = np.atleast_1d(np.asarray(figure.subplots(number, 1, sharex=True), dtype=object))
    for one, (element, enlarged) in zip(axes, rows, strict=False):
        chosen = [view for view in views if view.element == element]
        for view in chosen:
            _profile(one, view, colours[view.scan])
        one.axhline(0.0, color=SOFT, lw=0.8)
        name = element if enlarged is None else f"{element}, enlarged"
        one.set_ylabel(f"{name}\n{PER_EXPOSURE.get(chosen[0].unit, chosen[0].unit)}")
        quiet_grid(one)
        if enlarged is not None:
            _enlarge(one, chosen, enlarged)
        if geometry is not None:
            _layers(one, geometry, named=one is axes[0])
    if relative and reference is not None and geometry is not None:
        relative_profiles(axes[-1], reference, changed, inside[0], colours)
        _layers(axes[-1], geometry, named=False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
    axes[-1].set_xlabel("distance from the interface along its normal / µm")
    axes[-1].margins(x=0.01)
    figure.align_ylabels(list(axes))
    return figure


def _enlarge(axes: Axes, views: Sequence[ProfileView], inside: tuple[float, float]) -> None:
    """Set the height of a panel to what lies within a layer."""
    seen = [
        np.array([view.value - view.sigma, view.value + view.sigma])[
            :, (view.position_um > inside[0]) & (view.position_um < inside[1])
        ]
        for view in views
    ]
    values = np.concatenate([part.ravel() for part in seen])
    if values.size:
        low, high = min(0.0, float(np.nanmin(values))), float(np.nanmax(values))
        axes.set_ylim(low, high + 0.12 * (high - low))


def scan_colours(scans: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return a colour for each scan, given as (name, purpose): that of its purpose for the first of them."""
    found: dict[str, str] = {}
    spare = iter(SPARE)
    for name, purpose in scans:
        own = ROLE_COLOURS.get(purpose)
        if name not in found:
            found[name] = own if own is not None and own not in found.values() else next(spare, SOFT)
    return found


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


def _top(views: Sequence[MapView]) -> float:
    """Return the top of one scale for all scans of an element: 99.5 % of the cells stay below."""
    values = np.concatenate([view.values[np.isfinite(view.values)].ravel() for view in views])
    high = float(np.percentile(values, 99.5)) if values.size else 1.0
    return high if high > 0.0 else 1.0


def _map(axes: Axes, view: MapView, norm: mpl.colors.Normalize, *, first: bool) -> None:
    """Draw one map with a scale bar and the boundaries of its layers."""
    colours = mpl.colormaps[LEVELS].with_extremes(bad=(0, 0, 0, 0))
    axes.imshow(
        view.values, cmap=colours, norm=norm, origin="lower", extent=view.extent_um, interpolation="none",
        aspect="equal",
    )  # fmt: skip
    left, right, bottom, top = view.extent_um
    axes.set_title(view.scan, fontsize=9, fontweight="normal", loc="left", color=TICK, pad=4)
    axes.set_xticks([])
    axes.tick_params(labelsize=8.5, length=3)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if first:
        axes.set_ylabel("y / µm", labelpad=1)
    else:
        axes.set_yticks([])
    pens = (
        ((DARK, 2.4, "-"), (BRIGHT, 1.1, (0, (3, 2)))) if view.sigma is None else ((INK, 1.1, (0, (3, 2))),)
    )
    axes.set_facecolor(GRID)
    if view.geometry is not None:
        for distance in view.geometry.boundaries_um:
            x, y = boundary(view.geometry, distance, view.extent_um)
            for colour, line, style in pens:
                axes.plot(x, y, color=colour, lw=line, ls=style, alpha=0.9)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    length = scale_bar_um(right - left)
    start, level = left + 0.07 * (right - left), bottom + 0.035 * (top - bottom)
    for colour, line in ((DARK, 4.6), (BRIGHT, 2.4)) if view.sigma is None else ((INK, 2.4),):
        axes.plot([start, start + length], [level] * 2, color=colour, lw=line, solid_capstyle="butt")
    text = axes.text(start, level + 0.025 * (top - bottom), f"{length} µm", fontsize=8, va="bottom")
    if view.sigma is None:
        text.set_color(BRIGHT)
        text.set_bbox({"facecolor": DARK, "alpha": 0.55, "lw": 0, "pad": 1.2})


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
