"""Stacks of images in TIFF, as ImageJ and ToF-SIMS programs write them (tifffile).

One page is one map or one slice. Names come from ImageJ's slice labels, else "0", "1", ...; the pixel size
from resolution and unit where both are there. Pages of other sizes or with colours are refused.
Tiles, and strips packed with zlib or PackBits, are read by tifffile alone; LZW needs the extra ``lzw``.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from drivers.files.bounded import file_size
from drivers.files.errors import FileError
from drivers.files.recordings_images import RecordedImages

MAX_BYTES = 1 << 38
MAX_PAGES, MAX_SIDE = 1 << 16, 1 << 16
MAX_PAGE_BYTES = 1 << 30
MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
UM_PER_UNIT = {
    "um": 1.0,
    "µm": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
    "inch": 25400.0,
}
WITHOUT_CODECS = (1, 8, 32773, 32946)  # plain, zlib, PackBits: the rest needs imagecodecs
DECODER_ERRORS = (
    Exception,
)  # a decoder of others raises what its parts raise: zlib.error, struct.error, ...


def read(path: Path) -> RecordedImages:
    """Check every page's size; pixels stay in the file. Raises FileError."""
    file_size(path, MAX_BYTES)
    try:
        with tifffile.TiffFile(path) as tiff:
            return _checked(path, tiff)
    except FileError:
        raise
    except DECODER_ERRORS as error:
        raise FileError(path, "", "a whole TIFF file", f"{type(error).__name__}: {error}") from error


def _checked(path: Path, tiff: Any) -> RecordedImages:
    first = tiff.pages[0]
    meta = tiff.imagej_metadata or {}
    whole = meta and len(tiff.pages) == 1 and int(meta.get("images", 1)) > 1  # ImageJ: one page describes all
    count = int(meta["images"]) if whole else len(tiff.pages)
    dtype = first.dtype
    if count > MAX_PAGES or len(first.shape) != 2 or max(first.shape) > MAX_SIDE or 0 in first.shape:
        raise FileError(
            path, "page 1", f"at most {MAX_PAGES} grey images of two dimensions", (count, first.shape)
        )
    if dtype is None or dtype.kind not in "buif":
        raise FileError(path, "page 1", "numbers", str(dtype))
    ny, nx = first.shape
    size = ny * nx * dtype.itemsize
    if size > MAX_PAGE_BYTES:
        raise FileError(path, "page 1", f"at most {MAX_PAGE_BYTES} bytes per image", f"{size} bytes")
    if whole:
        offset = first.is_contiguous and first.dataoffsets[0]
        if not offset or offset + count * size > path.stat().st_size:
            raise FileError(
                path, "", f"{count} images of {size} bytes", f"a file of {path.stat().st_size} bytes"
            )
        order = tiff.byteorder + dtype.str[1:]
        planes = _Contiguous(path, int(offset), np.dtype(order), (ny, nx))
        return RecordedImages(path, _names(meta, count), ny, nx, dtype, planes, _pitch(first, meta))
    for number, page in enumerate(tiff.pages, 1):
        if int(page.compression) not in WITHOUT_CODECS and importlib.util.find_spec("imagecodecs") is None:
            what = "the package imagecodecs (pip install operando[lzw]), or no compression"
            raise FileError(path, f"page {number}", what, f"compression {int(page.compression)}")
        if page.shape != (ny, nx) or page.dtype != dtype:
            raise FileError(path, f"page {number}", f"{ny} x {nx} of {dtype}", (page.shape, str(page.dtype)))
    return RecordedImages(
        path, _names(meta, count), ny, nx, dtype, _Paged(path, (ny, nx)), _pitch(first, meta)
    )


class _Contiguous:
    """Planes that lie one after the other."""

    def __init__(self, path: Path, offset: int, dtype: np.dtype[Any], shape: tuple[int, int]) -> None:
        self.path, self.offset, self.dtype, self.shape = path, offset, dtype, shape

    def __call__(self, number: int) -> NDArray[Any]:
        size = self.dtype.itemsize * self.shape[0] * self.shape[1]
        with self.path.open("rb") as file:
            file.seek(self.offset + number * size)
            raw = file.read(size)
        if len(raw) != size:
            raise FileError(
                self.path, f"image {number + 1}", f"{size} bytes", f"{len(raw)} (a truncated file)"
            )
        return np.frombuffer(raw, self.dtype).reshape(self.shape)


class _Paged:
    """Planes that tifffile decodes."""

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self.path, self.shape = path, shape

    def __call__(self, number: int) -> NDArray[Any]:
        try:
            with tifffile.TiffFile(self.path) as tiff:
                plane = np.asarray(tiff.pages[number].asarray())
        except DECODER_ERRORS as error:
            place = f"page {number + 1}"
            raise FileError(self.path, place, "an image", f"{type(error).__name__}: {error}") from error
        if plane.shape != self.shape:
            raise FileError(self.path, f"page {number + 1}", f"{self.shape}", plane.shape)
        return plane


def _names(meta: dict[str, Any], count: int) -> tuple[str, ...]:
    labels = [str(label).strip().splitlines() for label in meta.get("Labels") or []]
    names = [lines[0][:40] if lines else "" for lines in labels]
    good = len(names) == count and all(names) and len(set(names)) == count
    return tuple(names) if good else tuple(str(k) for k in range(count))


def _pitch(page: Any, meta: dict[str, Any]) -> tuple[float, float] | None:
    """Return µm per pixel along y and x, or None where the file does not say both number and unit."""
    unit = UM_PER_UNIT.get(str(meta.get("unit", "")).replace("\\u00B5", "µ").lower())
    if unit is None:
        return None
    sizes = []
    for tag in ("YResolution", "XResolution"):
        value = page.tags[tag].value if tag in page.tags else (0, 1)
        per, of = value if isinstance(value, tuple) and len(value) == 2 else (value, 1)
        if not per or not of:
            return None
        sizes.append(float(unit * of / per))
    return (sizes[0], sizes[1]) if all(np.isfinite(sizes)) and min(sizes) > 0 else None
