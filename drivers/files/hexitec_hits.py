"""Hit lists of a pixel detector in YAML, one frame a line: ``- [[index, energy], ...]``; plain or gzip.

The form of mPIXdaq for Timepix detectors: a ``frame_data:`` list whose entries are lists of [pixel index =
row * columns + column, energy in keV]; ``npixels_x`` and ``npixels_y`` before it. Only this form is read, by
a parser of a few lines: nothing else of YAML (tags, anchors, objects) has any effect.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivers.files.bounded import file_size
from drivers.files.errors import FileError

MAX_BYTES = 32 << 20
MAX_TEXT_BYTES = 64 << 20  # after unpacking
MAX_SIDE = 4096
PIECE = 1 << 20
Hits = tuple[NDArray[np.int64], NDArray[np.float64]]
_TOKEN = re.compile(r"[\[\],]|[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?|\S")
_SIDE = re.compile(r"^\s*npixels_([xy]):\s*([0-9]{1,6})\s*$")


def read(path: Path) -> tuple[int, int, list[Hits]]:
    """Return (rows, columns, frames); a frame is (pixel indices, energies). Raises FileError."""
    file_size(path, MAX_BYTES)
    sides: dict[str, int] = {}
    frames: list[Hits] = []
    entry: list[str] = []
    depth, inside = 0, False
    for number, line in enumerate(_lines(path), 1):
        place = f"line {number}"
        if not inside:
            matched = _SIDE.match(line)
            if matched:
                sides[matched[1]] = int(matched[2])
            inside = line.strip() == "frame_data:"
            continue
        text = line.split("#", 1)[0].strip()
        if text in ("", "...", "---"):
            continue
        if depth == 0:
            if not text.startswith("- "):
                if not line[:1].isspace():  # a key of the next section
                    break
                raise FileError(path, place, "a frame that begins with '- [['", token=text)
            text = text[2:]
        entry.append(text)
        depth += text.count("[") - text.count("]")
        if depth < 0 or depth > 2:
            raise FileError(path, place, "lists of pairs", token=text)
        if depth == 0:
            frames.append(_frame(path, place, " ".join(entry)))
            entry = []
    if depth or not frames or set(sides) != {"x", "y"}:
        raise FileError(path, "", "npixels_x, npixels_y and whole frames under frame_data")
    ny, nx = sides["y"], sides["x"]
    if not (1 <= ny <= MAX_SIDE and 1 <= nx <= MAX_SIDE):
        raise FileError(path, "", f"1 to {MAX_SIDE} rows and columns", f"{ny} x {nx}")
    for index, (pixels, _) in enumerate(frames):
        if pixels.size and int(pixels.max()) >= ny * nx:
            raise FileError(path, f"frame {index}", f"pixels below {ny * nx}", int(pixels.max()))
        if np.unique(pixels).size != pixels.size:
            raise FileError(path, f"frame {index}", "every pixel once", "a pixel twice")
    return ny, nx, frames


def _frame(path: Path, place: str, text: str) -> Hits:
    tokens = _TOKEN.findall(text)
    if tokens == ["[", "]"]:
        return np.zeros(0, np.int64), np.zeros(0)
    inner = tokens[1:-1]
    n = (len(inner) + 1) // 6
    form = ["[", "", ",", "", "]", ","]
    good = len(inner) == 6 * n - 1 and tokens[0] == "[" and tokens[-1] == "]"
    good = good and all(set(inner[k::6]) <= {form[k]} for k in (0, 2, 4, 5))
    if not good:
        raise FileError(path, place, "a frame: [[index, energy], ...]", token=text)
    try:
        pixels = np.array(inner[1::6]).astype(np.int64)
        energies = np.array(inner[3::6]).astype(np.float64)
    except (ValueError, OverflowError):
        raise FileError(path, place, "a frame: [[index, energy], ...]", token=text) from None
    if not np.isfinite(energies).all():
        raise FileError(path, place, "finite energies", token=text)
    return pixels, energies


def _lines(path: Path) -> Iterator[str]:
    """Yield lines of bounded length and number of bytes, unpacked on the way."""
    total, rest = 0, b""
    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            with gzip.open(plain) if packed else plain as file:
                while piece := file.read(PIECE):
                    total += len(piece)
                    if total > MAX_TEXT_BYTES or len(rest) > PIECE:
                        raise FileError(path, "", f"at most {MAX_TEXT_BYTES} bytes in lines", "more")
                    *whole, rest = (rest + piece).split(b"\n")
                    yield from (line.decode("latin-1") for line in whole)
                yield rest.decode("latin-1")
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(path, "", "a whole text or gzip file", f"{type(error).__name__}: {error}") from error
