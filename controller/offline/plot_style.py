"""The look of every figure: one palette, one set of axes, saved as PNG or SVG."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, DATA, FIT, LINE, SOFT, WARM = "#1b1f24", "#5b6570", "#c2410c", "#0f6fb5", "#9aa4ae", "#b45309"
FILL = "#d6e6f2"
PALETTE = ("#0f6fb5", "#c2410c", "#2f855a", "#7c3aed", "#b7791f", "#be185d", "#0e7490", "#4d7c0f", "#6b7280")
STYLE: Any = {
    "font.size": 9.0, "font.family": "DejaVu Sans", "text.color": INK, "axes.edgecolor": "#8a939c",
    "axes.labelcolor": INK, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "axes.titlesize": 10.0, "axes.titlelocation": "left", "axes.titleweight": "bold", "axes.titlecolor": INK,
    "xtick.color": "#4a525a", "ytick.color": "#4a525a", "xtick.direction": "out", "ytick.direction": "out",
    "legend.frameon": False, "legend.fontsize": 8.5, "figure.facecolor": "white", "svg.fonttype": "none",
    "svg.hashsalt": "operando", "axes.axisbelow": True,
}  # fmt: skip
LEVELS = "cividis"
MAX_LINES = 12


def saved(figure: Figure, kind: str) -> bytes:
    """Return the figure as a file."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {}
    figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
    return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure; sizes in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def grid_lines(axes: Axes) -> None:
    """Draw quiet grid lines."""
    axes.grid(True, color="#e7eaee", linewidth=0.7)


def counts_text(counts: int) -> str:
    """Return "1 002 737 counts"."""
    return f"{counts:,}".replace(",", "\u202f") + " counts"
