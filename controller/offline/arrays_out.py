"""``result.h5``: the maps, profiles and spectra of reduced files as NeXus groups, written whole."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import h5py

from controller.offline.files_out import replacing
from controller.offline.technique import Array


def write_arrays(path: Path, arrays: Sequence[tuple[str, Sequence[Array]]]) -> None:
    """Write one NXentry per reduced file and one NXdata per array.

    Args:
        path: of the file; it appears whole or not at all.
        arrays: (name of the reduced file, its arrays).
    """
    with replacing(path) as scratch, h5py.File(scratch, "w") as file:
        file.attrs["NX_class"] = "NXroot"
        file.attrs["creator"] = "operando reduce"
        for name, found in arrays:
            if found:
                _entry(file, name, found)


def _entry(file: h5py.File, name: str, arrays: Sequence[Array]) -> None:
    entry = file.create_group(_free(file, name))
    entry.attrs["NX_class"] = "NXentry"
    entry["title"] = name
    for array in arrays:
        group = entry.create_group(_free(entry, array.name))
        group.attrs["NX_class"] = "NXdata"
        group.attrs["signal"] = "values"
        group.attrs["axes"] = [axis.name for axis in array.axes] + ["."] * (
            array.values.ndim - len(array.axes)
        )
        if array.title:
            group["title"] = array.title
        _dataset(group, "values", array.values, array.unit)
        if array.sigma is not None:
            _dataset(group, "values_errors", array.sigma, array.unit)
        for axis in array.axes:
            _dataset(group, axis.name, axis.values, axis.unit)
    entry.attrs["default"] = next(iter(key for key in entry if key != "title"))
    file.attrs.setdefault("default", entry.name.lstrip("/"))


def _dataset(group: h5py.Group, name: str, values: object, unit: str) -> None:
    large = getattr(values, "size", 0) > 1024
    options = {"compression": "gzip", "shuffle": True} if large else {}
    group.create_dataset(name, data=values, **options).attrs["units"] = unit


def _free(group: h5py.Group, name: str) -> str:
    """Return a valid NeXus name that is not taken."""
    base = re.sub(r"\W", "_", name, flags=re.ASCII) or "data"
    base = base if not base[0].isdigit() else f"_{base}"
    number, free = 1, base
    while free in group:
        number += 1
        free = f"{base}_{number}"
    return free
