"""HDF5 with limits: nothing outside the file is opened, nothing is read before its size is known.

External links, external storage and virtual datasets point to other files; they are refused. A dataset is
read by hyperslabs, so a compressed bomb costs one chunk, and chunks have a limit too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from drivers.files.bounded import file_size
from drivers.files.errors import FileError
from drivers.files.hdf5_vet import vet

MAX_BYTES = 1 << 41
MAX_CHUNK_BYTES = 256 << 20
MARK = b"\x89HDF\r\n\x1a\n"
HDF5_ERRORS = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
)


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading; whatever goes wrong inside is a FileError."""
    file_size(path, MAX_BYTES)
    try:
        vet(path)
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except FileError:
        raise
    except HDF5_ERRORS as error:
        raise FileError(path, "", "a whole HDF5 file", f"{type(error).__name__}: {error}") from error


def dataset(path: Path, file: h5py.File, name: str, dimensions: tuple[int, ...]) -> h5py.Dataset:
    """Return a numeric dataset by its path, with a number of dimensions among those given.

    Raises FileError for what is absent, stored elsewhere, of another kind or empty.
    """
    found = walk(path, file, name)
    if not isinstance(found, h5py.Dataset):
        raise FileError(path, name, "a dataset", "nothing" if found is None else "a group")
    check(path, name, found)
    if len(found.shape) not in dimensions or 0 in found.shape:
        words = " or ".join(str(n) for n in dimensions)
        raise FileError(path, name, f"{words} dimensions, none empty", found.shape)
    return found


def walk(path: Path, file: h5py.File, name: str) -> Any:
    """Return the object behind a path such as /entry/data, or None; external links are refused."""
    here: Any = file
    for part in (part for part in name.split("/") if part):
        if not isinstance(here, h5py.Group):
            return None
        link = here.get(part, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise FileError(path, name, "data inside this file", f"a link to {getattr(link, 'path', '?')}")
        here = here[part]
    return here


def check(path: Path, name: str, found: h5py.Dataset) -> None:
    """Refuse what is not numbers, or lies outside the file, or has chunks too large to unpack."""
    if found.shape is None or found.dtype.kind not in "biuf" or found.dtype.itemsize > 8:
        raise FileError(path, name, "numbers", str(found.dtype))
    if found.is_virtual or found.external:
        raise FileError(path, name, "data inside this file", "data stored in other files")
    chunk = int(np.prod(found.chunks or (1,), dtype=object)) * found.dtype.itemsize
    if chunk > MAX_CHUNK_BYTES:
        raise FileError(path, name, f"chunks of at most {MAX_CHUNK_BYTES} bytes", f"{chunk} bytes")
