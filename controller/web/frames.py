"""Binary frames to the page: a JSON header and raw little-endian arrays, as the README here says."""

from __future__ import annotations

import json
import math
import struct
from array import array
from collections.abc import Mapping
from typing import Any

import cbor2

# RFC 8746, section 2.1: tag -> type and bytes of an element
TAGS = {
    64: ("u1", 1), 69: ("u2", 2), 70: ("u4", 4), 71: ("u8", 8), 72: ("i1", 1), 77: ("i2", 2), 78: ("i4", 4),
    79: ("i8", 8), 85: ("f4", 4), 86: ("f8", 8),
}  # fmt: skip
ALIGNED = 8
ENVELOPE = ("boot", "seq", "prev", "schema", "stream")


class FrameError(ValueError):
    """A product that cannot be shown."""


def frame(header: Mapping[str, Any], arrays: Mapping[str, tuple[str, list[int], bytes]]) -> bytes:
    """Return one frame.

    Args:
        header: entries besides ``arrays``.
        arrays: by name, type (``f4``), shape and bytes of each.
    """
    told, pieces, at = {}, [], 0
    for name, (dtype, shape, data) in arrays.items():
        told[name] = {"dtype": dtype, "shape": shape, "offset": at, "bytes": len(data)}
        gap = -len(data) % ALIGNED
        pieces += [data, bytes(gap)]
        at += len(data) + gap
    text = json.dumps({**header, "arrays": told}, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-(4 + len(text)) % ALIGNED)
    return b"".join([struct.pack("<I", len(text)), text, *pieces])


def product(stream: str, body: Mapping[str, Any]) -> bytes:
    """Return the frame of a decoded data product.

    Raises:
        FrameError: an array's bytes do not fit its type.
    """
    shape = [int(n) for n in body.get("shape") or ()]
    size = math.prod(shape) if shape else -1
    header: dict[str, Any] = {"k": "product", "stream": stream}
    arrays = {}
    for key, value in body.items():
        if isinstance(value, cbor2.CBORTag):
            dtype, width = TAGS.get(value.tag, ("", 0))
            if not dtype or not isinstance(value.value, bytes) or len(value.value) % width:
                raise FrameError(f"{stream}: {key} is no typed array")
            count = len(value.value) // width
            arrays[key] = (dtype, shape if count == size else [count], value.value)
        elif key not in ENVELOPE:
            header[key] = plain(value)
    return frame(header, arrays)


def series(
    name: str, unit: str, why: str, columns: tuple[array[float], ...], errors: array[float] | None
) -> bytes:
    """Return the frame of one series: columns t (f8), v, lo, hi (f4), and e where there are errors."""
    names = ("t", "v", "lo", "hi")
    arrays = {
        key: ("f8" if key == "t" else "f4", [len(column)], column.tobytes())
        for key, column in zip(names, columns, strict=True)
    }
    if errors is not None:
        arrays["e"] = ("f4", [len(errors)], errors.tobytes())
    return frame({"k": "series", "name": name, "unit": unit, "why": why}, arrays)


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: what is no finite number is null, what is bytes is left out."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None
