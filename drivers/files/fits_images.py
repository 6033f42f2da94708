"""Camera images in FITS files: every image of two axes, every plane of three, whole ADU.

Read here and not by astropy: what beamlines write is headers of 80-character cards and big-endian arrays, the
standard is frozen, and astropy would be 75 MB on a small board, with a header that it follows to the end of
whatever file. Primary array and IMAGE extensions, BITPIX 8, 16, 32, 64, -32, -64; BSCALE must be 1 and BZERO
whole (as for unsigned numbers). Rows come in the order of the file, the first one at the bottom of what FITS
viewers show. Tables are passed over; images packed into tables (fpack) and random groups are refused.
Source: FITS Standard 4.0 (IAU FITS Working Group, 2018), sections 3 to 5 and 7.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from drivers.files.bounded import file_size
from drivers.files.errors import FileError
from drivers.files.images import MAX_BYTES, MAX_PAGES, MAX_PIXELS, MAX_SIDE, Image, RecordedImages, whole_adu

BLOCK, CARD = 2880, 80
MAX_HEADER_BLOCKS = 256  # 9216 cards
MAX_HDUS = 4096
MAX_AXES = 999  # the standard's own limit
KINDS = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
UNSIGNED = {(16, 1 << 15): np.uint16, (32, 1 << 31): np.uint32}
MAX_ADU = 1 << 53


@dataclass(frozen=True)
class _Form:
    ny: int
    nx: int
    bitpix: int
    zero: int
    blank: int | None

    @property
    def full_adu(self) -> int:
        if self.bitpix < 0:
            return 1 << 24
        return min((256 if self.bitpix == 8 else 1 << (self.bitpix - 1)) - 1 + self.zero, MAX_ADU)


def read(path: Path) -> RecordedImages:
    """Read all headers of a FITS file. Raises FileError."""
    size = file_size(path, MAX_BYTES)
    places: list[int] = []
    form: _Form | None = None
    try:
        with path.open("rb") as file:
            for number in range(MAX_HDUS):
                header = _header(path, file, number)
                if header is None:
                    break
                start, length = file.tell(), _length(path, number, header)
                if start + length > size:
                    raise FileError(path, f"HDU {number}", f"{length} bytes of data", "a cut-off file")
                planes, here = _image(path, number, header)
                if planes and form is not None and here != form:
                    raise FileError(path, f"HDU {number}", "an image like the first one", str(here))
                if planes and len(places) + planes > MAX_PAGES:
                    raise FileError(path, f"HDU {number}", f"at most {MAX_PAGES} exposures")
                if here is not None and planes:
                    form = here
                    step = here.ny * here.nx * abs(here.bitpix) // 8
                    places += [start + k * step for k in range(planes)]
                file.seek(start + -(-length // BLOCK) * BLOCK)
            else:
                raise FileError(path, "", f"at most {MAX_HDUS} headers")
    except OSError as error:
        raise FileError(path, "", f"a readable file ({error.strerror})") from error
    if form is None:
        raise FileError(path, "", "an image of two or three axes", "none")
    known = form

    def frames() -> Iterator[Image]:
        for number, place in enumerate(places):
            yield _plane(path, number, place, known)

    return RecordedImages(path, known.ny, known.nx, len(places), frames, known.full_adu)


def _header(path: Path, file: BinaryIO, number: int) -> dict[str, str] | None:
    """Return the values of a header by keyword, as text; None at the end of the file."""
    cards: dict[str, str] = {}
    for block in range(MAX_HEADER_BLOCKS):
        data = file.read(BLOCK)
        if block == 0 and number and not data.strip(b"\0 "):
            return None  # the end, or padding behind it
        if len(data) < BLOCK:
            raise FileError(path, f"HDU {number}", "a header of whole blocks with END", "a cut-off file")
        for at in range(0, BLOCK, CARD):
            card = data[at : at + CARD].decode("latin-1")
            keyword = card[:8].rstrip()
            if keyword == "END" and not card[3:].strip():
                return cards
            if card[8:10] == "= ":
                cards.setdefault(keyword, _value(card[10:]))
        if block == 0 and not (cards.keys() & {"SIMPLE", "XTENSION"}):
            raise FileError(path, f"HDU {number}", "SIMPLE or XTENSION")
    raise FileError(path, f"HDU {number}", f"a header of at most {MAX_HEADER_BLOCKS} blocks")


def _value(text: str) -> str:
    """Return the value of a card without its comment; a string keeps its first quote."""
    text = text.strip()
    if text.startswith("'"):
        return "'" + text[1:].split("'", 1)[0].rstrip()
    return text.split("/", 1)[0].strip()


def _whole(path: Path, number: int, header: dict[str, str], key: str, default: int | None = None) -> int:
    """Return a whole number, also one that is written as 32768.0."""
    text = header.get(key, "")
    if not text and default is not None:
        return default
    try:
        value = float(text.replace("D", "E")) if len(text) < 32 and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value != int(value) or abs(value) > MAX_ADU:
        raise FileError(path, f"HDU {number}, {key}", "a whole number", token=text)
    return int(value)


def _axes(path: Path, number: int, header: dict[str, str]) -> list[int]:
    count = _whole(path, number, header, "NAXIS")
    if not 0 <= count <= MAX_AXES:
        raise FileError(path, f"HDU {number}, NAXIS", f"0 to {MAX_AXES}", str(count))
    axes = [_whole(path, number, header, f"NAXIS{k + 1}") for k in range(count)]
    if any(n < 0 for n in axes):
        raise FileError(path, f"HDU {number}", "axes that are not negative", str(axes))
    return axes


def _length(path: Path, number: int, header: dict[str, str]) -> int:
    """Return the bytes of data behind a header (equations 1 and 2 of the standard)."""
    if _whole(path, number, header, "BITPIX") not in KINDS:
        raise FileError(path, f"HDU {number}, BITPIX", "8, 16, 32, 64, -32 or -64", token=header["BITPIX"])
    axes = _axes(path, number, header)
    if header.get("GROUPS") == "T":
        raise FileError(path, f"HDU {number}", "images", "random groups")
    more = _whole(path, number, header, "PCOUNT", 0) if number else 0
    groups = _whole(path, number, header, "GCOUNT", 1) if number else 1
    if more < 0 or groups < 0:
        raise FileError(path, f"HDU {number}", "PCOUNT and GCOUNT that are not negative")
    elements = math.prod(axes) if axes else 0
    return abs(_whole(path, number, header, "BITPIX")) // 8 * groups * (more + elements)


def _image(path: Path, number: int, header: dict[str, str]) -> tuple[int, _Form | None]:
    """Return how many exposures an HDU holds, and their form."""
    if header.get("ZIMAGE") == "T":
        raise FileError(path, f"HDU {number}", "images as they are: unpack the file with funpack", "fpack")
    axes = _axes(path, number, header)
    if (number and header.get("XTENSION") != "'IMAGE") or not axes or 0 in axes:
        return 0, None
    while len(axes) > 2 and axes[-1] == 1:
        axes.pop()
    place = f"HDU {number}"
    if len(axes) not in (2, 3):
        raise FileError(path, place, "an image of two or three axes", f"{len(axes)}")
    nx, ny, planes = (*axes, 1)[:3]
    if max(nx, ny) > MAX_SIDE or nx * ny > MAX_PIXELS:
        raise FileError(path, place, f"at most {MAX_PIXELS} pixels", f"{ny} x {nx}")
    if planes > MAX_PAGES:
        raise FileError(path, place, f"at most {MAX_PAGES} exposures", str(planes))
    if _whole(path, number, header, "BSCALE", 1) != 1:
        raise FileError(path, f"{place}, BSCALE", "1 (whole ADU)", token=header["BSCALE"])
    bitpix = _whole(path, number, header, "BITPIX")
    blank = _whole(path, number, header, "BLANK") if "BLANK" in header and bitpix > 0 else None
    return planes, _Form(ny, nx, bitpix, _whole(path, number, header, "BZERO", 0), blank)


def _plane(path: Path, number: int, place: int, form: _Form) -> Image:
    """Read one exposure."""
    name = f"exposure {number}"
    kind: np.dtype[Any] = np.dtype(KINDS[form.bitpix])
    try:
        stored = np.fromfile(path, kind, form.ny * form.nx, offset=place)
    except OSError as error:
        raise FileError(path, name, "readable pixels", str(error)) from error
    if stored.size != form.ny * form.nx:
        raise FileError(path, name, f"{form.ny * form.nx} pixels", f"{stored.size}: the file was cut")
    image = stored.astype(kind.newbyteorder("=")).reshape(form.ny, form.nx)
    if form.blank is not None and np.any(image == form.blank):
        raise FileError(path, name, "a value in every pixel", f"BLANK ({form.blank})")
    if form.bitpix < 0:
        adu = whole_adu(path, name, image)
        return adu if form.zero == 0 else np.asarray(adu.astype(np.int64) + form.zero)
    if form.zero == 0 and form.bitpix < 64:
        return image
    unsigned = UNSIGNED.get((form.bitpix, form.zero))
    if unsigned is not None:
        return (image.astype(np.int64) + form.zero).astype(unsigned)
    if np.any(np.abs(image.astype(np.float64)) > MAX_ADU):
        raise FileError(path, name, f"values up to {MAX_ADU}", "larger ones")
    return np.asarray(image.astype(np.int64) + form.zero)
