"""The picture of a mosaic: every element's counts, the charge and the dose of each place."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from controller.offline.overview import overviews

if TYPE_CHECKING:
    from controller.offline.run_files import RunFiles

COLUMNS = 3
WIDTH_IN = 4.2


def draw_overviews(run: RunFiles, folder: Path) -> list[Path]:
    """Draw one picture per mosaic; return the files. Nothing is loaded for a run without one."""
    found, _ = overviews(run)
    if not found:
        return []
    from matplotlib.figure import Figure

    made = []
    for name in dict.fromkeys(one.name for one in found):
        mine = [one for one in found if one.name == name]
        rows = math.ceil(len(mine) / COLUMNS)
        figure = Figure(figsize=(WIDTH_IN * min(COLUMNS, len(mine)), WIDTH_IN * rows), layout="constrained")
        for number, one in enumerate(mine):
            axes = figure.add_subplot(rows, min(COLUMNS, len(mine)), number + 1)
            edges = (one.x_um[0], one.x_um[-1], one.y_um[0], one.y_um[-1])
            image = axes.imshow(one.values, origin="lower", extent=edges, aspect="equal")
            axes.set_title(f"{one.what} ({one.unit}), {one.tiles} of {one.of} tiles", fontsize=9)
            axes.set_xlabel("x on the sample (µm)")
            axes.set_ylabel("y (µm)")
            figure.colorbar(image, ax=axes, shrink=0.8)
        path = folder / f"overview-{''.join(c if c.isalnum() else '-' for c in name)}.png"
        figure.savefig(path, dpi=120)
        made.append(path)
    return made
