"""Camera images in TIFF and FITS files: one exposure per page or plane, whole ADU.

tifffile (BSD) reads the structure of a TIFF; the pixels are read here block by block (strip or tile), so that
a block which unpacks to more than it declares is refused instead of filling the memory. Plain, zlib- and,
with the extra ``lzw``, LZW-packed blocks, 8, 16 or 32 bits, and 32-bit floats that hold whole numbers (as
ImageJ saves sums). FITS is read in ``fits_images``.
"""

from __future__ import annotations

import importlib
import json
import logging
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray

from drivers.files.bounded import file_size
from drivers.files.errors import FileError

MAX_BYTES = 16 << 30
MAX_PAGES = 1 << 16
MAX_SIDE = 1 << 15
MAX_PIXELS = 1 << 26  # 8192 x 8192
MAX_DESCRIPTION = 1 << 16
PLAIN, ZLIB, LZW = (1,), (8, 32946), (5,)
FITS_MARK = b"SIMPLE  ="
logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # one FileError, not a page of log
Image = NDArray[np.int64] | NDArray[np.int32] | NDArray[np.uint32] | NDArray[np.uint16] | NDArray[np.uint8]


@dataclass(frozen=True)
class RecordedImages:
    """A file of exposures. ``frames()`` reads them once more, one at a time."""

    path: Path
    ny: int
    nx: int
    n_frames: int
    frames: Callable[[], Iterator[Image]]
    full_adu: int  # largest value that the file's numbers can hold
    description: str = ""


@dataclass(frozen=True)
class _Form:
    """What all pages of a file have in common."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    block: tuple[int, int]  # rows and columns of a strip or tile
    tiled: bool

    @property
    def blocks(self) -> tuple[int, int]:
        """How many blocks lie below each other and side by side."""
        return -(-self.shape[0] // self.block[0]), -(-self.shape[1] // self.block[1])


@dataclass(frozen=True)
class _Page:
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    compression: int
    predictor: bool


def read(path: Path) -> RecordedImages:
    """Read the structure of a TIFF or FITS file and check every page. Raises FileError."""
    size = file_size(path, MAX_BYTES)
    try:
        with path.open("rb") as start:
            fits = start.read(len(FITS_MARK)) == FITS_MARK
    except OSError as error:
        raise FileError(path, "", f"a readable file ({error.strerror})") from error
    if fits:
        from drivers.files import fits_images  # which hands over what is declared here

        return fits_images.read(path)
    try:
        with tifffile.TiffFile(path) as file:
            return _checked(path, size, _pages(path, file), file.byteorder)
    except FileError:
        raise
    except Exception as error:  # hostile structures raise whatever the library's parsing meets
        raise FileError(
            path, "", "a whole TIFF file (or FITS)", f"{type(error).__name__}: {error}"
        ) from error


def read_mask(path: Path) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Read a mask written by ``write_mask`` (or any 8-bit TIFF): bits per pixel, and its settings."""
    recorded = read(path)
    if recorded.n_frames != 1 or recorded.full_adu != 255:
        raise FileError(
            path, "", "one 8-bit page (a mask)", f"{recorded.n_frames} pages to {recorded.full_adu}"
        )
    bits = next(recorded.frames()).astype(np.uint8)
    try:
        settings = json.loads(recorded.description) if recorded.description.startswith("{") else {}
    except (ValueError, RecursionError) as error:
        raise FileError(path, "description", "JSON", type(error).__name__) from error
    return bits, settings


def write_mask(path: Path, bits: NDArray[np.uint8], settings: dict[str, Any]) -> None:
    """Write a mask as an 8-bit TIFF with its settings in the description, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    text = json.dumps(settings, sort_keys=True)
    tifffile.imwrite(part, bits, compression="zlib", description=text, metadata=None)
    part.replace(path)


def _pages(path: Path, file: Any) -> list[Any]:
    """Return the pages, one after another: asking for their number would follow the chain without a limit."""
    pages: list[Any] = []
    places: set[int] = set()
    while len(pages) <= MAX_PAGES:
        try:
            page = file.pages[len(pages)]
        except IndexError:
            return pages
        if page.offset in places:
            raise FileError(path, f"page {len(pages)}", "a page of its own", "a chain of pages in a circle")
        places.add(page.offset)
        pages.append(page)
    raise FileError(path, "", f"at most {MAX_PAGES} pages")


def _checked(path: Path, size: int, pages: list[Any], order: Literal["<", ">"]) -> RecordedImages:
    form, layout = _form(path, 0, pages[0]), []
    for number, page in enumerate(pages):
        here = _form(path, number, page)
        if (here.shape, here.dtype) != (form.shape, form.dtype):
            what = f"{form.shape[0]} x {form.shape[1]} pixels {form.dtype} as on page 0"
            raise FileError(path, f"page {number}", what)
        if here != form:
            raise FileError(path, f"page {number}", "strips or tiles of the size that page 0 has")
        layout.append(_layout(path, number, page, form, size))
    kind = form.dtype.newbyteorder(order)
    full = int(np.iinfo(form.dtype).max) if form.dtype.kind in "iu" else 1 << 24

    def frames() -> Iterator[Image]:
        for number, page in enumerate(layout):
            yield _pixels(path, number, page, form, kind)

    text = str(pages[0].description or "")[:MAX_DESCRIPTION]
    return RecordedImages(path, form.shape[0], form.shape[1], len(pages), frames, full, text)


def _layout(path: Path, number: int, page: Any, form: _Form, size: int) -> _Page:
    """Return where the blocks of a page lie."""
    offsets, counts = tuple(map(int, page.dataoffsets)), tuple(map(int, page.databytecounts))
    down, across = form.blocks
    if len(offsets) != down * across or len(counts) != len(offsets):
        what = f"{len(offsets)} blocks of {form.block[0]} x {form.block[1]}"
        raise FileError(path, f"page {number}", "whole strips of rows, or whole tiles", what)
    if any(o < 0 or c < 0 or o + c > size for o, c in zip(offsets, counts, strict=True)):
        raise FileError(path, f"page {number}", "strips inside the file", "a cut-off file")
    compression = int(page.compression)
    if compression in LZW:
        _lzw(path)  # said before anything is read
    return _Page(offsets, counts, compression, int(page.predictor) == 2)


def _form(path: Path, number: int, page: Any) -> _Form:
    place = f"page {number}"
    shape = tuple(int(n) for n in page.shape)
    if len(shape) != 2 or page.samplesperpixel != 1:
        raise FileError(path, place, "one grey image per page", f"an array of {shape}")
    if min(shape) < 1 or max(shape) > MAX_SIDE or shape[0] * shape[1] > MAX_PIXELS:
        raise FileError(path, place, f"at most {MAX_PIXELS} pixels", f"{shape[0]} x {shape[1]}")
    if int(page.compression) not in PLAIN + ZLIB + LZW or int(page.predictor) not in (1, 2):
        what = f"compression {int(page.compression)}, predictor {int(page.predictor)}"
        raise FileError(path, place, "plain, zlib or LZW: save it again without compression", what)
    dtype = page.dtype
    if dtype is None or dtype.str[1:] not in ("u1", "u2", "u4", "i2", "i4", "f4") or int(page.fillorder) != 1:
        raise FileError(path, place, "8, 16 or 32 bit whole numbers", str(dtype))
    if dtype.kind == "f" and int(page.predictor) == 2:
        raise FileError(path, place, "floats without predictor", "predictor 2")
    tiled = bool(page.is_tiled)
    block = (min(int(page.rowsperstrip), shape[0]), shape[1])
    if tiled:
        block = (int(page.tilelength), int(page.tilewidth))
    if min(block) < 1 or max(block) > MAX_SIDE or block[0] * block[1] > MAX_PIXELS:
        what = f"{block[0]} x {block[1]} pixels"
        raise FileError(path, place, "whole strips of rows, or tiles no larger than an image may be", what)
    return _Form((shape[0], shape[1]), np.dtype(dtype), block, tiled)


def _pixels(path: Path, number: int, page: _Page, form: _Form, kind: np.dtype[Any]) -> Image:
    image = np.empty(form.shape, kind.newbyteorder("="))
    (height, width), across = form.block, form.blocks[1]
    try:
        with path.open("rb") as file:
            for k, (offset, count) in enumerate(zip(page.offsets, page.counts, strict=True)):
                row, column = k // across * height, k % across * width
                part = image[row : row + height, column : column + width]
                stored = (height if form.tiled else part.shape[0], width)  # tiles are whole, strips are not
                file.seek(offset)
                wanted = stored[0] * stored[1] * kind.itemsize
                raw = _unpacked(path, file.read(count), page.compression, wanted)
                if len(raw) != wanted:
                    place = f"page {number}, {'tile' if form.tiled else 'strip'} {k}"
                    raise FileError(path, place, f"{wanted} bytes of pixels", f"{len(raw)}")
                block = np.frombuffer(raw, kind).reshape(stored)
                if page.predictor:  # differences along a row of a block, modulo the word as TIFF wants
                    block = np.cumsum(block.astype(image.dtype), axis=1, dtype=image.dtype)
                part[:] = block[: part.shape[0], : part.shape[1]]
    except (OSError, zlib.error) as error:
        raise FileError(path, f"page {number}", "readable pixels", str(error)) from error
    return whole_adu(path, f"page {number}", image)


def whole_adu(path: Path, place: str, image: NDArray[Any]) -> Image:
    """Return integers as they are, and floats that hold whole numbers as integers. Raises FileError."""
    if image.dtype.kind != "f":
        return image
    if not np.all(np.isfinite(image)) or np.any(np.abs(image) > 1 << 24) or np.any(image != np.rint(image)):
        raise FileError(path, place, "whole ADU: give the exposures, not their average", "fractions")
    return image.astype(np.int32)


def _unpacked(path: Path, raw: bytes, compression: int, size: int) -> bytes:
    """Unpack a block, never to more than one byte beyond ``size``."""
    if compression in ZLIB:
        return zlib.decompressobj().decompress(raw, size + 1)
    if compression in LZW:
        try:
            return bytes(_lzw(path).lzw_decode(raw, out=size + 1))
        except (RuntimeError, ValueError) as error:  # the codec's own error is a RuntimeError
            raise FileError(path, "", "LZW-packed pixels", f"{type(error).__name__}: {error}") from error
    return raw


def _lzw(path: Path) -> Any:
    try:
        return importlib.import_module("imagecodecs")
    except ImportError as error:
        what = "the package imagecodecs for LZW (pip install operando[lzw]), or no compression"
        raise FileError(path, "", what) from error
