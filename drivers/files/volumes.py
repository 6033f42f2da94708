"""Volumes: numpy ``.npy``/``.npz``, TIFF stacks, HDF5 datasets.

A segmented volume is boolean, or integers that are only 0 and 1 (checked slab by slab when it is used).
Nothing is unpickled; declared sizes are checked before anything is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.files import hdf5_safe, tiff_stack
from drivers.files.bounded import file_size
from drivers.files.errors import FileError
from drivers.files.npz_arrays import arrays_of
from drivers.files.recordings_images import RecordedVolume

MAX_SIDE = 1 << 16
HEAD_BYTES = 8
FORMATS = ".npz (one array of three dimensions), .tif stack, HDF5 dataset"


def read(path: Path, dataset: str | None = None) -> RecordedVolume:
    """Read a volume of any known format by its mark; ``dataset`` names the one of an HDF5 file."""
    file_size(path, hdf5_safe.MAX_BYTES)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head == hdf5_safe.MARK:
        return _hdf5(path, dataset)
    if head[:4] == b"PK\x03\x04":
        return _npz(path)
    if head[:4] in tiff_stack.MARKS:
        return _tiff(path)
    raise FileError(path, "byte 0", f"a volume: {FORMATS}", token=head)


def _npz(path: Path) -> RecordedVolume:
    found = {name: array for name, array in arrays_of(path).items() if array.ndim == 3}
    if len(found) != 1:
        raise FileError(path, "", "exactly one array of three dimensions", f"{len(found)}")
    (array,) = found.values()
    shape = _shape(path, array.shape)
    return RecordedVolume(path, shape, array.dtype, lambda first, last: array[first:last])


def _tiff(path: Path) -> RecordedVolume:
    stack = tiff_stack.read(path)
    shape = _shape(path, (len(stack.names), stack.ny, stack.nx))

    def slab(first: int, last: int) -> NDArray[Any]:
        return np.stack([stack.plane(k) for k in range(first, last)])

    pitch = stack.pitch_um
    voxel = pitch[0] if pitch and abs(pitch[0] - pitch[1]) < 1e-3 * pitch[0] else None
    return RecordedVolume(path, shape, stack.dtype, slab, voxel, stack.notes)


def _hdf5(path: Path, name: str | None) -> RecordedVolume:
    if not name:
        raise FileError(path, "", "the path of its dataset: give --dataset /group/name")
    place = name
    with hdf5_safe.opened(path) as file:
        found = hdf5_safe.dataset(path, file, place, (3,))
        shape, dtype = _shape(path, found.shape), found.dtype

    def slab(first: int, last: int) -> NDArray[Any]:
        with hdf5_safe.opened(path) as file:
            return np.asarray(hdf5_safe.dataset(path, file, place, (3,))[first:last])

    return RecordedVolume(path, shape, dtype, slab)


def _shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    if 0 in shape or max(shape) > MAX_SIDE:
        raise FileError(path, "", f"1 to {MAX_SIDE} voxels along each axis", shape)
    z, y, x = shape
    return z, y, x
