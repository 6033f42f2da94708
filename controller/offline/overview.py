"""Overviews: the tiles of a mosaic stitched into one map of counts, charge and dose per place.

Tiles are a whole number of pixels apart, so stitching is counting: pixel (column, row) of a tile belongs to
pixel (column + tile * (pixels - overlap)) of the overview. Where tiles overlap, counts, charge and dose add:
the dose of a place is what it really got.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from controller.offline.run_files import Product, RunFiles

Floats = npt.NDArray[np.float64]
EXPOSURE = ("charge", "dose")  # maps that are no element; 0 where the beam never was


@dataclass(frozen=True)
class Overview:
    """One stitched map; NaN where no tile was scanned."""

    name: str  # of the scan
    what: str  # an element, charge or dose
    unit: str
    values: Floats  # (y, x)
    x_um: Floats  # on the sample, 0 where it lies in the undeflected beam with the stage at its centre
    y_um: Floats
    tiles: int  # that are in it
    of: int


def overviews(run: RunFiles) -> tuple[list[Overview], list[str]]:
    """Return every overview of a run, and in words what could not be read.

    Counts are the gross ones of each element's window: net counts need the fits of a scan that has enough.
    """
    tiles = {body["scan"]: body for body in run.events("tile", "scan")}
    found: list[Overview] = []
    missing: list[str] = []
    for name in dict.fromkeys(body["name"] for body in tiles.values()):
        mine = {scan: body for scan, body in tiles.items() if body["name"] == name}
        maps = [
            p for p in run.products if p.kind == "map" and p.scan in mine and not p.what.startswith("live")
        ]
        for what in dict.fromkeys(product.what for product in maps):
            try:
                found.append(_stitched(name, what, mine, [p for p in maps if p.what == what]))
            except (ValueError, KeyError) as error:
                missing.append(f"overview {name}, {what}: {error}")
    return found, missing


def _stitched(name: str, what: str, tiles: Mapping[int, Any], products: list[Product]) -> Overview:
    """Add up the tiles of one map."""
    first = next(iter(tiles.values()))
    (columns, rows), overlap = first["tiles"], first["overlap"]
    values: Floats | None = None
    x_um = y_um = np.zeros(0)
    unit = ""
    for product in products:
        fields, tile = product.load(), tiles[product.scan or 0]
        image = np.asarray(fields.get("gross", fields["values"]), float)
        ny, nx = image.shape
        step_x, step_y = nx - overlap, ny - overlap
        if values is None:
            unit = "counts" if "gross" in fields else str(fields.get("unit", ""))
            values = np.full((step_y * (rows - 1) + ny, step_x * (columns - 1) + nx), np.nan)
            x_um = _axis(fields["x_um"], tile["shift_um"][0], tile["column"] * step_x, values.shape[1])
            y_um = _axis(fields["y_um"], tile["shift_um"][1], tile["row"] * step_y, values.shape[0])
        left, low = tile["column"] * step_x, tile["row"] * step_y
        place = values[low : low + ny, left : left + nx]
        if place.shape != image.shape:
            raise ValueError(f"tile {tile['column'] + 1}, {tile['row'] + 1} has {nx} x {ny} pixels")
        place[...] = np.where(np.isnan(place), 0.0, place) + image
    if values is None:
        raise ValueError("no tile has a map")
    if what in EXPOSURE:
        values = np.nan_to_num(values, nan=0.0)
    return Overview(name, what, unit, values, x_um, y_um, len(products), columns * rows)


def _axis(centres_um: Any, shift_um: float, first: int, size: int) -> Floats:
    """Return the centres of all pixels along one axis, from those of one tile."""
    centres = np.asarray(centres_um, float)
    pitch = (centres[-1] - centres[0]) / (centres.size - 1)
    return np.asarray(centres[0] + shift_um + pitch * (np.arange(size) - first), float)


def write_overviews(entry: h5py.Group, run: RunFiles) -> list[str]:
    """Write every overview as NXdata; return what could not be read."""
    found, missing = overviews(run)
    for one in found:
        group = entry.create_group(
            "".join(c if c.isalnum() else "_" for c in f"overview_{one.name}_{one.what}")
        )
        group.attrs["NX_class"] = "NXdata"
        group.attrs["signal"] = "values"
        group.attrs["axes"] = ["y", "x"]
        group.attrs["operando_tiles"] = [one.tiles, one.of]
        group["title"] = f"overview {one.name}, {one.what}"
        for key, data, unit in (
            ("values", one.values, one.unit),
            ("x", one.x_um, "um"),
            ("y", one.y_um, "um"),
        ):
            group.create_dataset(key, data=data).attrs["units"] = unit
        group.attrs["x_indices"], group.attrs["y_indices"] = 1, 0
    return missing
