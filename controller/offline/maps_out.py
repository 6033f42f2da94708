"""Maps of a run for other programs: OME-TIFF pictures and CSV tables, values with their errors.

Every map of every scan becomes ``maps/scan001_Li.ome.tif`` and ``maps/scan001_Li.csv``. A picture has one
channel per quantity (value, statistical error, systematic error, as far as they are known), every pixel as
reduced.
"""

from __future__ import annotations

import csv
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from controller.offline.files_out import replacing
from controller.offline.run_files import Product, RunFiles

KINDS = ("map", "soc")
CHANNELS = {"values": "value", "sigma": "sigma statistical", "sigma_sys": "sigma systematic"}
UM_PER_CM = 1e4
SPACING = 1e-3  # of a pixel: by so much the pitch of a raster may vary

Image = npt.NDArray[Any]


@dataclass(frozen=True)
class Map:
    """One map: quantities over y (first index, upwards) and x."""

    name: str  # of its files
    title: str
    unit: str
    x_um: npt.NDArray[np.float64]
    y_um: npt.NDArray[np.float64]
    channels: dict[str, Image]
    stage_um: tuple[float, ...] | None
    identity: str  # the same for the same map: then its file is the same, byte for byte


def write_maps(run: RunFiles, folder: Path) -> list[str]:
    """Write every map as TIFF and CSV; return in words what could not be read.

    Args:
        run: the run's files.
        folder: where to; made only if there is anything to write.
    """
    missing: list[str] = []
    for one in maps(run, missing):
        folder.mkdir(exist_ok=True)
        write_tiff(one, folder / f"{one.name}.ome.tif")
        write_csv(one, folder / f"{one.name}.csv")
    return missing


def maps(run: RunFiles, missing: list[str]) -> Iterator[Map]:
    """Yield every map; one that is damaged is named under ``missing``."""
    stood = {body["scan"]: (body.get("stamp") or {}).get("stage_um") for body in run.events("pass", "scan")}
    for product in run.products:
        if product.kind in KINDS:
            try:
                yield _map(product, product.load(), stood.get(product.scan))
            except (ValueError, KeyError) as error:
                missing.append(f"{product.path.name}: {error}")


def write_tiff(one: Map, path: Path) -> None:
    """Write one map as an OME-TIFF: pixel size, unit, channel names; the top row is the one of the highest y.

    Pixel size stands in the OME description in um and in the resolution tags in pixels per cm, so that
    programs without OME (ImageJ's own reader) have the scale too.

    Raises:
        ValueError: the raster is not even: a picture would distort it.
    """
    pitch_x, pitch_y = _pitch(one.x_um), _pitch(one.y_um)
    up = one.y_um.size < 2 or one.y_um[1] > one.y_um[0]
    pixels = np.stack([channel[::-1] if up else channel for channel in one.channels.values()])
    count = len(one.channels)
    highest, lowest = float(one.y_um.max()), float(one.x_um.min())
    told: dict[str, Any] = {
        "axes": "CYX", "Name": one.title, "UUID": str(uuid.uuid5(uuid.NAMESPACE_OID, one.identity)),
        "Description": f"{one.title}, unit {one.unit or '1'}; rows from the highest y = {highest:g} um "
        f"downwards, columns from x = {lowest:g} um",
        "PhysicalSizeX": pitch_x, "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": pitch_y, "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": list(one.channels)},
    }  # fmt: skip
    if one.stage_um is not None:
        told["Plane"] = {
            f"Position{axis}{end}": [value] * count
            for axis, at in zip("XYZ", one.stage_um, strict=False)
            for end, value in (("", at), ("Unit", "µm"))
        }
    with replacing(path) as scratch:
        tifffile.imwrite(
            scratch, pixels, ome=True, photometric="minisblack", metadata=told,
            resolution=(UM_PER_CM / pitch_x, UM_PER_CM / pitch_y), resolutionunit="CENTIMETER",
        )  # fmt: skip


def write_csv(one: Map, path: Path) -> None:
    """Write one map as a table: a row per pixel with its place, um; empty where there is no number."""
    unit = one.unit or "1"
    y, x = np.meshgrid(one.y_um, one.x_um, indexing="ij")
    columns = [x.ravel(), y.ravel(), *(channel.ravel() for channel in one.channels.values())]
    with replacing(path) as scratch, scratch.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(("x / um", "y / um", *(f"{name} / {unit}" for name in one.channels)))
        table.writerows([_number(value) for value in row] for row in zip(*columns, strict=True))


def _map(product: Product, fields: Mapping[str, Any], stage_um: Any) -> Map:
    unit = str(fields.get("unit", ""))
    what = product.what or product.kind
    name = str(fields.get("name", product.name))
    kind, number = product.place
    return Map(
        f"{kind}{number or 0:03d}_{what}", f"{what}, {kind} {name}", "" if unit == "1" else unit,
        np.asarray(fields["x_um"], float), np.asarray(fields["y_um"], float),
        {told: np.asarray(fields[key]) for key, told in CHANNELS.items() if key in fields},
        tuple(float(v) for v in stage_um) if stage_um else None,
        f"operando:{fields.get('run')}/{kind}_{number}/{what}/{fields.get('passes')}",
    )  # fmt: skip


def _pitch(centres_um: npt.NDArray[np.float64]) -> float:
    """Return the distance of neighbouring pixels, um."""
    if centres_um.size < 2:
        return 1.0
    steps = np.abs(np.diff(centres_um))
    pitch = float(steps.mean())
    if pitch <= 0.0 or float(np.ptp(steps)) > SPACING * pitch + 1e-4:
        raise ValueError("the raster is not even: it has no pixel size")
    return pitch


def _number(value: float) -> str:
    """Return a number with all digits that a 32-bit float has; empty when it is not one."""
    return f"{value:.9g}" if np.isfinite(value) else ""
