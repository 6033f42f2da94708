"""Camera images in TIFF files: one exposure per page, whole ADU.

tifffile (BSD) reads the structure; the pixels are read here strip by strip, so that a strip which unpacks
to more than it declares is refused instead of filling the memory. Plain and zlib-packed strips, 8, 16 or
32 bits, and 32-bit floats that hold whole numbers (as ImageJ saves sums).
"""

from __future__ import annotations

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
PLAIN, ZLIB = (1,), (8, 32946)
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
class _Page:
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    packed: bool
    predictor: bool


def read(path: Path) -> RecordedImages:
    """Read the structure of a TIFF file and check every page. Raises FileError."""
    size = file_size(path, MAX_BYTES)
    try:
        with tifffile.TiffFile(path) as file:
            return _checked(path, size, _pages(path, file), file.byteorder)
    except FileError:
        raise
    except Exception as error:  # hostile structures raise whatever the library's parsing meets
        raise FileError(path, "", "a whole TIFF file", f"{type(error).__name__}: {error}") from error


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
    first = pages[0]
    shape, dtype = _form(path, 0, first)
    layout = []
    for number, page in enumerate(pages):
        if _form(path, number, page) != (shape, dtype):
            raise FileError(path, f"page {number}", f"{shape[0]} x {shape[1]} pixels {dtype} as on page 0")
        offsets, counts = tuple(map(int, page.dataoffsets)), tuple(map(int, page.databytecounts))
        rows = int(page.rowsperstrip)
        if rows < 1 or len(offsets) != -(-shape[0] // min(rows, shape[0])) or len(counts) != len(offsets):
            raise FileError(
                path, f"page {number}", "whole strips of rows", f"{len(offsets)} strips of {rows} rows"
            )
        if any(o < 0 or c < 0 or o + c > size for o, c in zip(offsets, counts, strict=True)):
            raise FileError(path, f"page {number}", "strips inside the file", "a cut-off file")
        layout.append(_Page(offsets, counts, int(page.compression) in ZLIB, int(page.predictor) == 2))
    rows = min(int(first.rowsperstrip), shape[0])
    if any(min(int(page.rowsperstrip), shape[0]) != rows for page in pages):
        raise FileError(path, "", "pages with strips of equal height")
    kind = dtype.newbyteorder(order)
    full = int(np.iinfo(dtype).max) if dtype.kind in "iu" else 1 << 24

    def frames() -> Iterator[Image]:
        for number, page in enumerate(layout):
            yield _pixels(path, number, page, shape, kind, rows)

    text = str(first.description or "")[:MAX_DESCRIPTION]
    return RecordedImages(path, shape[0], shape[1], len(pages), frames, full, text)


def _form(path: Path, number: int, page: Any) -> tuple[tuple[int, int], np.dtype[Any]]:
    place = f"page {number}"
    shape = tuple(int(n) for n in page.shape)
    if len(shape) != 2 or page.samplesperpixel != 1:
        raise FileError(path, place, "one grey image per page", f"an array of {shape}")
    if min(shape) < 1 or max(shape) > MAX_SIDE or shape[0] * shape[1] > MAX_PIXELS:
        raise FileError(path, place, f"at most {MAX_PIXELS} pixels", f"{shape[0]} x {shape[1]}")
    if page.is_tiled or int(page.compression) not in PLAIN + ZLIB or int(page.predictor) not in (1, 2):
        what = f"compression {int(page.compression)}, predictor {int(page.predictor)}"
        raise FileError(path, place, "strips, plain or zlib-packed: save it again without compression", what)
    dtype = page.dtype
    if dtype is None or dtype.str[1:] not in ("u1", "u2", "u4", "i2", "i4", "f4") or int(page.fillorder) != 1:
        raise FileError(path, place, "8, 16 or 32 bit whole numbers", str(dtype))
    if dtype.kind == "f" and int(page.predictor) == 2:
        raise FileError(path, place, "floats without predictor", "predictor 2")
    return (shape[0], shape[1]), np.dtype(dtype)


def _pixels(
    path: Path, number: int, page: _Page, shape: tuple[int, int], kind: np.dtype[Any], rows: int
) -> Image:
    image = np.empty(shape, kind)
    try:
        with path.open("rb") as file:
            for strip, (offset, count) in enumerate(zip(page.offsets, page.counts, strict=True)):
                part = image[strip * rows : (strip + 1) * rows]
                file.seek(offset)
                raw = file.read(count)
                if page.packed:
                    raw = zlib.decompressobj().decompress(raw, part.nbytes + 1)
                if len(raw) != part.nbytes:
                    place = f"page {number}, strip {strip}"
                    raise FileError(path, place, f"{part.nbytes} bytes of pixels", f"{len(raw)}")
                part[:] = np.frombuffer(raw, kind).reshape(part.shape)
    except (OSError, zlib.error) as error:
        raise FileError(path, f"page {number}", "readable pixels", str(error)) from error
    native = image.astype(kind.newbyteorder("="), copy=False)
    if page.predictor:
        native = np.cumsum(native, axis=1, dtype=native.dtype)  # differences, modulo the word as TIFF wants
    if kind.kind != "f":
        return native
    if (
        not np.all(np.isfinite(native))
        or np.any(np.abs(native) > 1 << 24)
        or np.any(native != np.rint(native))
    ):
        raise FileError(
            path, f"page {number}", "whole ADU: give the exposures, not their average", "fractions"
        )
    return native.astype(np.int32)
