"""Maps in HDF5: NeXus NXdata, or any dataset by its path.

A spectral map has three dimensions y, x, channel or four, y, x, detector, channel (``axes`` says otherwise,
for example "cyx"); of NXdata, an axis called energy or channel_energy gives the scale, if it is even.
A dataset of two dimensions is one map. Integers become a spectral map, floats a stack of images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from drivers.files.bounded import MAX_CHANNELS, MAX_COUNT, MAX_DETECTORS
from drivers.files.errors import FileError
from drivers.files.hdf5_safe import check, dataset, opened, walk
from drivers.files.recordings import Block, RecordedMap
from drivers.files.recordings_images import RecordedImages

MAX_PIXELS = 1 << 24
MAX_SLAB_CELLS = 1 << 24
MAX_OBJECTS = 10_000
ENERGY_NAMES = ("energy", "channel_energy", "energies", "e")
KEV_PER_UNIT = {"ev": 1e-3, "kev": 1.0, "mev": 1e3}


def read(path: Path, name: str | None = None, axes: str | None = None) -> RecordedMap | RecordedImages:
    """Read the dataset ``name``, or the default NXdata. ``axes`` orders y, x, d, c. Raises FileError."""
    with opened(path) as file:
        place = name or _default(path, file)
        found = dataset(path, file, place, (2, 3, 4))
        order = axes or _order(found)
        if (
            sorted(order) not in (["x", "y"], ["c", "x", "y"], ["c", "d", "x", "y"])
            or len(order) != found.ndim
        ):
            raise FileError(
                path, place, f"an axis order of y, x, c, d for {found.ndim} dimensions", token=order
            )
        sizes = dict(zip(order, found.shape, strict=True))
        if sizes["y"] * sizes["x"] > MAX_PIXELS:
            raise FileError(path, place, f"at most {MAX_PIXELS} pixels", found.shape)
        if found.ndim == 2 or found.dtype.kind == "f":
            return _images(path, place, order, sizes, found.dtype)
        if sizes["c"] > MAX_CHANNELS or sizes.get("d", 1) > MAX_DETECTORS:
            raise FileError(
                path, place, f"at most {MAX_CHANNELS} channels, {MAX_DETECTORS} detectors", found.shape
            )
        energy, notes = _energy(path, file, found, sizes["c"])
    return RecordedMap(
        path, sizes["x"], sizes["y"], sizes.get("d", 1), sizes["c"],
        lambda: _blocks(path, place, order), energy, notes=notes,
    )  # fmt: skip


def _default(path: Path, file: h5py.File) -> str:
    """Follow the default attributes, else take the only NXdata of the file."""
    here: Any = file
    for _ in range(8):
        if "signal" in here.attrs:
            return f"{here.name}/{_text(here.attrs['signal'])}"
        inside = here.attrs.get("default")
        step = None if inside is None else walk(path, file, f"{here.name}/{_text(inside)}")
        if not isinstance(step, h5py.Group):
            break
        here = step
    found: list[str] = []
    seen = 0

    def visit(name: str, thing: Any) -> bool | None:
        nonlocal seen
        seen += 1
        if isinstance(thing, h5py.Group) and "signal" in thing.attrs:
            found.append(f"/{name}/{_text(thing.attrs['signal'])}")
        return True if seen > MAX_OBJECTS or len(found) > 1 else None

    file.visititems(visit)
    if len(found) == 1:
        return found[0]
    raise FileError(path, "", "one NXdata group with a signal, or the path of a dataset: give --dataset")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _order(found: h5py.Dataset) -> str:
    return {2: "yx", 3: "yxc", 4: "yxdc"}[found.ndim]


def _energy(
    path: Path, file: h5py.File, found: h5py.Dataset, n_channels: int
) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """Return offset and gain in keV from an energy axis beside the data, if it is even to a part in 1000."""
    group = found.parent
    for name in group:
        if name.lower() not in ENERGY_NAMES:
            continue
        axis = walk(path, file, f"{group.name}/{name}")
        if not isinstance(axis, h5py.Dataset):
            continue
        check(path, name, axis)
        unit = KEV_PER_UNIT.get(_text(axis.attrs.get("units", "")).lower())
        if axis.shape != (n_channels,) or n_channels < 2 or unit is None:
            return None, (f"{name}: no energy axis of {n_channels} values with a unit",)
        energy = axis[:].astype(np.float64) * unit
        gain = float(energy[-1] - energy[0]) / (n_channels - 1)
        line = energy[0] + gain * np.arange(n_channels)
        if (
            not np.isfinite(energy).all()
            or gain <= 0
            or np.abs(energy - line).max() > 1e-3 * gain * n_channels
        ):
            return None, (f"{name}: the energy axis is not even",)
        return (float(energy[0]), gain), ()
    return None, ()


def _images(
    path: Path, place: str, order: str, sizes: dict[str, int], dtype: np.dtype[Any]
) -> RecordedImages:
    others = [axis for axis in order if axis not in "yx"]
    shape = [sizes[axis] for axis in others]
    count = int(np.prod(shape)) if shape else 1
    if count > MAX_CHANNELS:
        raise FileError(path, place, f"at most {MAX_CHANNELS} images", count)

    def plane(number: int) -> NDArray[Any]:
        where = dict(zip(others, np.unravel_index(number, shape), strict=True)) if shape else {}
        with opened(path) as file:
            found = dataset(path, file, place, (2, 3, 4))
            part = np.asarray(found[tuple(where.get(axis, slice(None)) for axis in order)])
        return part if order.index("y") < order.index("x") else part.T

    names = tuple(str(k) for k in range(count)) if shape else (place.rsplit("/", 1)[-1],)
    return RecordedImages(path, names, sizes["y"], sizes["x"], dtype, plane)


def _blocks(path: Path, place: str, order: str) -> Iterator[Block]:
    """Yield counts row by row of the map; a slab of several rows where rows are short."""
    wanted = [axis for axis in "yxdc" if axis in order]
    with opened(path) as file:
        found = dataset(path, file, place, (3, 4))
        sizes = dict(zip(order, found.shape, strict=True))
        cells = int(np.prod(found.shape)) // sizes["y"]
        if cells > MAX_SLAB_CELLS:
            raise FileError(path, place, f"at most {MAX_SLAB_CELLS} numbers per line of the map", cells)
        step = max(1, MAX_SLAB_CELLS // (4 * cells))
        for first in range(0, sizes["y"], step):
            cut = tuple(slice(first, first + step) if axis == "y" else slice(None) for axis in order)
            part = np.asarray(found[cut]).transpose([order.index(axis) for axis in wanted])
            if "d" not in wanted:
                part = part[:, :, None, :]
            low, high = int(part.min()), int(part.max())
            if low < 0 or high > MAX_COUNT:
                raise FileError(path, place, f"counts from 0 to {MAX_COUNT}", (low, high))
            y, x, detector, channel = np.nonzero(part)
            counts = part[y, x, detector, channel].astype(np.int64)
            yield Block((y + first) * sizes["x"] + x, detector, channel, counts)
