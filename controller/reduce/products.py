"""Product files: CBOR maps with typed arrays (RFC 8746), complete before they have their name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
from numpy.typing import NDArray

SCHEMA = "operando/product/1"
TAGS = {"u1": 64, "u2": 69, "u4": 70, "u8": 71, "i1": 72, "i2": 77, "i4": 78, "i8": 79, "f4": 85, "f8": 86}
"""RFC 8746 section 2.1: tags of little-endian arrays (single bytes have no order)."""


def typed(array: NDArray[Any]) -> cbor2.CBORTag:
    """Return an array, flattened row by row, as a tagged byte string.

    Raises:
        ValueError: if the type of the elements has no tag.
    """
    code = f"{array.dtype.kind}{array.dtype.itemsize}"
    if code not in TAGS:
        raise ValueError(f"no typed array for {array.dtype}")
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return cbor2.CBORTag(TAGS[code], little.tobytes())


def encode(fields: Mapping[str, Any]) -> bytes:
    """Return a product as CBOR; arrays become typed arrays, 2-D ones need a ``shape`` beside them."""
    plain = {key: typed(value) if isinstance(value, np.ndarray) else value for key, value in fields.items()}
    return cbor2.dumps({"schema": SCHEMA, **plain})


class ProductFolder:
    """Writes products into ``<run>/products``; nothing there is ever changed or half written."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def write(self, items: Mapping[str, tuple[str, bytes]]) -> list[dict[str, Any]]:
        """Write files and return {stream, path, sha256, bytes} of each, when all of them are on the disk.

        Args:
            items: file name (without ending) -> stream and content.
        """
        messages = []
        for name, (stream, content) in items.items():
            path = self.folder / f"{name}.cbor"
            scratch = path.with_suffix(".tmp")
            with scratch.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(path)
            messages.append(
                {
                    "k": "product",
                    "stream": stream,
                    "path": str(path),
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "bytes": len(content),
                }
            )
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        return messages
