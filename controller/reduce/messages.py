"""Messages of control as values of edge; every wrong shape is a ValueError that names the field."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.geometry import Grid
from edge.scan_data import Counters, PassEnd, ScanStart, Stamp

BEAM_OFF_PURPOSES = ("background",)


def number(message: Mapping[str, Any], key: str) -> int:
    """Return a whole number that is not negative.

    Raises:
        ValueError: if it is missing or something else.
    """
    value = message.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{message.get('k')}.{key}: a whole number is needed, got {value!r}")
    return value


def scan_start(message: Mapping[str, Any]) -> ScanStart:
    """Read a ``scan`` message."""
    raster = message.get("raster")
    grid = None
    if raster is not None:
        if not isinstance(raster, Mapping):
            raise ValueError(f"scan.raster: a map is needed, got {raster!r}")
        needed = {key: _finite(raster, key) for key in ("width_um", "height_um", "dwell_s")}
        centre = {key: _finite({key: 0.0, **raster}, key) for key in ("centre_x_um", "centre_y_um")}
        nx, ny = (number({"k": "scan.raster", **raster}, key) for key in ("nx", "ny"))
        grid = Grid(nx=nx, ny=ny, **needed, **centre)
    purpose = str(message.get("purpose", ""))
    if grid is None and purpose not in BEAM_OFF_PURPOSES:
        raise ValueError(f"scan {message.get('name')!r} of purpose {purpose!r} has no raster")
    return ScanStart(number(message, "scan"), str(message.get("name", "")), purpose, grid)


def pass_end(message: Mapping[str, Any], start: Mapping[str, Any], grid: Grid | None) -> PassEnd:
    """Read a ``pass_end`` message; ``start`` is the stamp of its ``pass`` message."""
    lines = message.get("lines") or []
    numbers = tuple(int(line[0]) for line in lines)
    charge = _charge(message.get("pixel_charge"), lines, grid) if grid is not None else None
    counters = message.get("counters") or {}
    return PassEnd(
        good=message.get("good") is True,
        why=str(message.get("why") or ""),
        lines=numbers,
        charge_coulomb=charge,
        counters={str(name): _counters(entry) for name, entry in counters.items()},
        start=Stamp.from_dict(start),
        end=Stamp.from_dict(message.get("stamp")),
    )


def _counters(entry: Mapping[str, Any]) -> Counters:
    return Counters(
        int(entry["slow"]), int(entry["fast"]), float(entry["accumulation_s"]), float(entry["real_s"])
    )


def _charge(
    pixels: bytes | Sequence[Sequence[float]] | None, lines: Sequence[Sequence[Any]], grid: Grid
) -> NDArray[np.float64] | None:
    """Return beam charge per pixel, shape (ny * nx,), or None where the monitor left a gap.

    Given either as 32-bit floats for the whole raster, little endian, or as one list per line in ``lines``; a
    line with a total but no pixels is spread evenly.
    """
    size = grid.nx * grid.ny
    if isinstance(pixels, bytes):
        if len(pixels) != 4 * size:
            raise ValueError(f"pass_end.pixel_charge: {len(pixels)} bytes for {grid.nx} x {grid.ny} pixels")
        return np.frombuffer(pixels, dtype="<f4").astype(np.float64)
    charge = np.zeros((grid.ny, grid.nx))
    for index, line in enumerate(lines):
        row = int(line[0])
        if not 0 <= row < grid.ny:
            raise ValueError(f"pass_end.lines: line {row} of {grid.ny}")
        given = pixels[index] if pixels is not None and index < len(pixels) else ()
        total = line[3] if len(line) > 3 else None
        if len(given) == grid.nx:
            charge[row] = given
        elif total is not None:
            charge[row] = float(total) / grid.nx
        else:
            return None
    return charge.ravel() if lines else None


def _finite(table: Mapping[str, Any], key: str) -> float:
    value = table.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"scan.raster.{key}: a number is needed, got {value!r}")
    return float(value)
