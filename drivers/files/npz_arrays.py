"""All arrays of a numpy ``.npz`` archive, numbers and truth values only, with limits."""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.files import zip_safe
from drivers.files.errors import FileError
from drivers.files.npz_map import HEADER_ERRORS, MAX_MEMBERS

MAX_ALL_BYTES = 4 << 30  # of all arrays together, unpacked


def arrays_of(path: Path, max_bytes: int = MAX_ALL_BYTES) -> dict[str, NDArray[Any]]:
    """Return the arrays by name. Raises FileError; nothing is unpickled."""
    with zip_safe.opened(path) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if len(entries) > MAX_MEMBERS or len(set(names)) != len(names):
            raise FileError(path, "", f"at most {MAX_MEMBERS} different arrays", f"{len(entries)}")
        size = sum(entry.file_size for entry in entries)
        if size > max_bytes:
            raise FileError(path, "", f"at most {max_bytes} bytes", f"{size} bytes")
        return {e.filename.removesuffix(".npy"): _array(path, archive, e) for e in entries}


def _array(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    name = entry.filename
    with archive.open(entry) as member:
        raw = member.read(entry.file_size + 1)
    buffer = io.BytesIO(raw)
    try:
        with warnings.catch_warnings():  # numpy's parser warns of odd literals before it refuses them
            warnings.simplefilter("ignore")
            version = np.lib.format.read_magic(buffer)
            header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = header(buffer)
    except HEADER_ERRORS as error:
        raise FileError(path, name, "a numpy array", type(error).__name__) from error
    cells, start = math.prod(shape), buffer.tell()
    if dtype.hasobject or dtype.kind not in "buif" or min(shape, default=1) < 0:
        raise FileError(path, name, "numbers", str(dtype))
    if cells * dtype.itemsize != len(raw) - start:
        raise FileError(path, name, f"{cells} cells of {dtype}", f"{len(raw) - start} bytes")
    array = np.frombuffer(raw, dtype, cells, start) if cells else np.zeros(0, dtype)
    return array.reshape(shape, order="F" if fortran else "C")
