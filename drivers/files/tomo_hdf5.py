"""Projections in HDF5: the APS data exchange layout, ``/exchange/{data, data_white, data_dark, theta}``.

data: (angle, row, column); data_white, data_dark: any number of images of the same size; theta in degrees, or
in radians when its attribute ``units`` says so. Without theta the angles are 0 to 180 degrees, evenly spaced
with the last one left out, and a note says so. Layout: De Carlo et al., J. Synchrotron Rad. 21 (2014) 1224.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from drivers.files.errors import FileError
from drivers.files.hdf5_safe import HDF5_ERRORS, dataset, opened, walk
from drivers.files.recordings_images import RecordedProjections

ROOT = "/exchange"
NAMES = {"projections": "data", "flats": "data_white", "darks": "data_dark"}
MAX_ANGLES, MAX_SIDE, MAX_REFERENCES = 1 << 16, 1 << 16, 4096
MAX_PIECE_BYTES = 2 << 30  # what one call of rows() may read, as float32
MAX_ANGLE_DEG = 1e5


def is_tomogram(path: Path) -> bool:
    """Return whether the file has /exchange/data. Raises FileError for a file that is no HDF5."""
    with opened(path) as file:
        return isinstance(walk(path, file, f"{ROOT}/data"), h5py.Dataset)


def read(path: Path, *, part: bool = False) -> RecordedProjections:
    """Check shapes and angles; the projections stay in the file. Raises FileError.

    Args:
        path: the file.
        part: it is a part of a scan: flats, darks or both may be in another file.
    """
    with opened(path) as file:
        data = dataset(path, file, f"{ROOT}/data", (3,))
        (n_angles, n_rows, n_columns), dtype = data.shape, _kept(data.dtype)
        least = 1 if part else 2
        if n_angles > MAX_ANGLES or n_rows > MAX_SIDE or n_columns > MAX_SIDE or n_angles < least:
            limits = f"{least} to {MAX_ANGLES} angles, at most {MAX_SIDE} rows and columns"
            raise FileError(path, f"{ROOT}/data", limits, (n_angles, n_rows, n_columns))
        references = {}
        for name in ("data_white", "data_dark"):
            if part and walk(path, file, f"{ROOT}/{name}") is None:
                references[name] = 0
                continue
            shape = dataset(path, file, f"{ROOT}/{name}", (3,)).shape
            if shape[1:] != (n_rows, n_columns) or shape[0] > MAX_REFERENCES:
                expected = f"at most {MAX_REFERENCES} images of {n_rows} x {n_columns}"
                raise FileError(path, f"{ROOT}/{name}", expected, shape)
            references[name] = shape[0]
        angles, notes = _angles(path, file, n_angles, part=part)

    def images(kind: str, first: int, last: int, rows: Sequence[int]) -> NDArray[Any]:
        return _images(path, kind, first, last, rows)

    def rows(first: int, last: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        return _rows(path, first, last, n_rows)

    return RecordedProjections(
        path,
        n_angles,
        n_rows,
        n_columns,
        references["data_white"],
        references["data_dark"],
        angles,
        rows,
        images,
        dtype,
        notes,
    )


def _angles(
    path: Path, file: h5py.File, n_angles: int, *, part: bool
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    place = f"{ROOT}/theta"
    if walk(path, file, place) is None and not part:  # of a part nobody knows where it belongs
        even: NDArray[np.float64] = np.arange(n_angles, dtype=np.float64) * (180.0 / n_angles)
        return even, ("no theta: angles taken as 0 to 180 degrees, evenly spaced",)
    theta = dataset(path, file, place, (1,))
    if theta.shape != (n_angles,):
        raise FileError(path, place, f"{n_angles} angles", theta.shape)
    angles = theta[:].astype(np.float64)
    if "rad" in _text(theta.attrs.get("units", "")).lower():
        angles = np.asarray(np.rad2deg(angles), np.float64)
    steps = np.diff(angles)
    if not np.isfinite(angles).all() or np.abs(angles).max() > MAX_ANGLE_DEG:
        raise FileError(path, place, "finite angles in degrees")
    if not (np.all(steps > 0) or np.all(steps < 0)):
        raise FileError(path, place, "angles that rise or fall throughout")
    return angles, ()


def _kept(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return how a pixel is handed over: numbers of 64 bits, floats and booleans as float32."""
    return np.dtype(np.float32) if dtype.kind in "bf" or dtype.itemsize > 4 else dtype.newbyteorder("=")


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _rows(
    path: Path, first: int, last: int, n_rows: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Read detector rows. Raises ValueError for rows outside, FileError for a damaged file."""
    if not 0 <= first < last <= n_rows:
        raise ValueError(f"rows {first} to {last} are not inside 0 to {n_rows}")
    found = []
    with opened(path) as file:
        for name in ("data", "data_white", "data_dark"):
            place = f"{ROOT}/{name}"
            source = dataset(path, file, place, (3,))
            size = 4 * source.shape[0] * (last - first) * source.shape[2]
            if size > MAX_PIECE_BYTES:
                raise FileError(path, place, f"at most {MAX_PIECE_BYTES} bytes at a time", f"{size} bytes")
            try:
                piece = source[:, first:last].astype(np.float32)
            except HDF5_ERRORS as error:
                raise FileError(path, place, "readable data", str(error)) from error
            if not np.isfinite(piece).all():
                raise FileError(path, place, "finite counts", "NaN or infinity")
            found.append(piece)
    return found[0], found[1], found[2]


def _images(path: Path, kind: str, first: int, last: int, rows: Sequence[int]) -> NDArray[Any]:
    """Read some rows of some images. Raises FileError, ValueError for what is outside."""
    place = f"{ROOT}/{NAMES[kind]}"
    with opened(path) as file:
        source = dataset(path, file, place, (3,))
        if not 0 <= first < last <= source.shape[0] or not 0 <= rows[0] <= rows[-1] < source.shape[1]:
            raise ValueError(f"images {first} to {last}, rows {rows[0]} to {rows[-1]}: not in {source.shape}")
        size = source.dtype.itemsize * (last - first) * len(rows) * source.shape[2]
        if size > MAX_PIECE_BYTES:
            raise FileError(path, place, f"at most {MAX_PIECE_BYTES} bytes at a time", f"{size} bytes")
        steps = {b - a for a, b in pairwise(rows)}
        chosen = slice(rows[0], rows[-1] + 1, steps.pop() if steps else 1) if len(steps) < 2 else list(rows)
        try:
            piece = source[first:last, chosen]
        except HDF5_ERRORS as error:
            raise FileError(path, place, "readable data", str(error)) from error
        if piece.dtype.kind == "f" and not np.isfinite(piece).all():
            raise FileError(path, place, "finite counts", "NaN or infinity")
        return np.asarray(piece, _kept(piece.dtype))
