"""What a reduced file leaves behind, as plain values: the same whether it was made here or on a cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cbor2
import numpy as np

from controller.offline.technique import Array, Axis, Report

ARRAY = "__array__"


@dataclass(frozen=True)
class Product:
    """A report without anything that only lives in one process.

    Attributes:
        data: after a round trip through JSON, so that it is the same on both sides of a wire.
        text: tables for people.
        figures: (name, picture); empty unless they were asked for.
        arrays: for result.h5; empty unless figures were asked for.
    """

    data: dict[str, Any]
    text: str
    figures: tuple[tuple[str, bytes], ...] = ()
    arrays: tuple[Array, ...] = ()


def produce(report: Report, figures: str | None) -> Product:
    """Return the product of a report, with figures and arrays where a format of figures is given."""
    data = json.loads(json.dumps(report.data, allow_nan=False))
    if figures is None:
        return Product(data, report.text)
    import matplotlib as mpl  # loaded only when figures are wanted

    from controller.offline.plot_style import STYLE

    with mpl.rc_context(STYLE):
        return Product(data, report.text, tuple(report.figures(figures)), tuple(report.arrays()))


def pack(value: object) -> bytes:
    """Return plain values, numpy arrays among them, as CBOR."""
    return cbor2.dumps(value, default=_encoded)


def unpack(data: bytes) -> Any:
    """Return what ``pack`` has packed; arrays come back with their type, shape and every bit."""
    return cbor2.loads(data, object_hook=_decoded)


def pack_product(product: Product) -> bytes:
    """Return a product as CBOR."""
    return pack({
        "data": json.dumps(product.data), "text": product.text,
        "figures": [list(figure) for figure in product.figures],
        "arrays": [
            {
                "name": a.name, "values": a.values, "unit": a.unit, "sigma": a.sigma, "title": a.title,
                "axes": [[axis.name, np.asarray(axis.values), axis.unit] for axis in a.axes],
            }
            for a in product.arrays
        ],
    })  # fmt: skip


def unpack_product(data: bytes) -> Product:
    """Return the product that ``pack_product`` has packed."""
    found = unpack(data)
    arrays = tuple(
        Array(
            a["name"],
            a["values"],
            a["unit"],
            a["sigma"],
            tuple(Axis(*axis) for axis in a["axes"]),
            a["title"],
        )
        for a in found["arrays"]
    )
    figures = tuple((name, picture) for name, picture in found["figures"])
    return Product(json.loads(found["data"]), found["text"], figures, arrays)


def _encoded(encoder: Any, value: object) -> None:
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError("an array of objects has no plain form")
        encoder.encode({ARRAY: [value.dtype.str, list(value.shape), np.ascontiguousarray(value).tobytes()]})
    elif isinstance(value, np.generic):
        encoder.encode(value.item())
    else:
        raise TypeError(f"{type(value).__name__} has no plain form")


def _decoded(*given: Any) -> Any:
    """Restore an array; cbor2 5 calls with (decoder, table), cbor2 6 with (table, immutable)."""
    table = next(one for one in given if isinstance(one, Mapping))
    if table.keys() != {ARRAY}:
        return table
    kind, shape, raw = table[ARRAY]
    return np.frombuffer(raw, np.dtype(kind)).reshape(shape)
