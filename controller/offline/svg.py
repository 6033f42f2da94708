"""Figures as SVG that lives inside an HTML page: its colours are those of the page, light or dark.

Every colour of ``plot_style`` becomes a CSS variable of the page; text stays text, in the page's letters;
names inside the figure are made unique, so that many figures may stand on one page.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from controller.offline import plot_style

GRID, TICK, EDGE, PAPER, GREEN, VIOLET = "#e7eaee", "#4a525a", "#8a939c", "#fefefe", "#2f855a", "#7c3aed"
VARIABLES = {
    plot_style.INK: "ink", plot_style.DATA: "data", plot_style.FIT: "orange", plot_style.LINE: "blue",
    plot_style.SOFT: "soft", plot_style.WARM: "amber", plot_style.FILL: "fill", GRID: "grid", TICK: "tick",
    EDGE: "edge", PAPER: "paper", GREEN: "green", VIOLET: "violet",
}  # fmt: skip
ON_PAGE = {
    **plot_style.STYLE, "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
    "font.size": 10.0, "axes.titlesize": 10.5, "legend.fontsize": 9.0, "axes.labelsize": 9.5,
    "xtick.labelsize": 9.0, "ytick.labelsize": 9.0, "axes.titlepad": 7.0, "path.simplify_threshold": 0.4,
    "lines.solid_capstyle": "round", "axes.unicode_minus": True,
}  # fmt: skip

WIDTH = 8.8  # inches: of every figure that fills the page

_PREAMBLE = re.compile(r"^.*?(?=<svg)|<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL)
_SIZE = re.compile(r'<svg[^>]*?width="([\d.]+)pt"[^>]*?viewBox="([^"]+)"[^>]*>', re.DOTALL)
_NAME = re.compile(r'(\bid="|\burl\(#|\bhref="#)([\w.-]+)')
_IMAGE_NAME = re.compile(r' id="image\w+"')
_FONT = re.compile(r"font-family: [^;\"]+;?")
_POINT_PX = 4.0 / 3.0


@dataclass(frozen=True)
class Picture:
    """One figure of the report."""

    name: str  # short, unique on the page
    title: str
    caption: str
    svg: str


@contextmanager
def page_style() -> Iterator[None]:
    """Draw in the style of the page while this is open."""
    with mpl.rc_context(ON_PAGE):
        yield


def picture(figure: Figure, name: str, title: str, caption: str, said: str = "") -> Picture:
    """Return a figure as a picture for the page; ``said`` is what it shows, for those who cannot see it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, dpi=144)
    label = f"{title}. {said}" if said else title
    return Picture(name, title, caption, inline(buffer.getvalue(), name, label))


def inline(svg: str, name: str, title: str) -> str:
    """Return an SVG of matplotlib as part of a page.

    Args:
        svg: the whole document.
        name: put before every name inside it.
        title: read out by programs that read pages to people.

    Raises:
        ValueError: the document has no size.
    """
    body = _PREAMBLE.sub("", svg)
    size = _SIZE.search(body)
    if size is None:
        raise ValueError(f"figure {name} has no size")
    head = (
        f'<svg role="img" aria-label="{html.escape(title)}" viewBox="{size[2]}" '
        f'style="--width: {float(size[1]) * _POINT_PX:.0f}px" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    body = head + body[size.end() :]
    body = _IMAGE_NAME.sub("", body)  # made from what it shows: two alike would bear one name
    body = _NAME.sub(lambda m: f"{m[1]}{name}-{m[2]}", body)
    body = _FONT.sub("", body)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    return body.strip()


def quiet_grid(axes: Axes, which: str = "both") -> None:
    """Draw grid lines that do not compete with the data."""
    axes.grid(True, axis=which, color=GRID, linewidth=0.7)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def note(axes: Axes, text: str) -> None:
    """Write into empty axes why they are empty."""
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=plot_style.SOFT,
        fontsize=9, wrap=True,
    )  # fmt: skip
