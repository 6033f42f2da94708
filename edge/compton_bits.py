"""Machine operations that numba does not offer: compare many pixels at once, skip empty words, find a bit.

A frame becomes one bit per pixel (1 = above the pixel's threshold); everything about neighbours is then
logic on whole words instead of a loop over pixels.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _compare(lanes: int) -> Any:
    """Return an intrinsic that compares ``lanes`` pixels with their thresholds in one go."""

    def typed(_context: Any, frames: Any, start: Any, threshold: Any, pixel: Any) -> Any:
        signature = types.uint64(frames, types.intp, threshold, types.intp)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = ir.VectorType(ir.IntType(16), lanes)
            loaded = []
            for array, place in ((0, 1), (2, 3)):
                value = context.make_array(signature.args[array])(context, builder, arguments[array])
                bytes_on = builder.shl(arguments[place], ir.IntType(64)(1))
                where = cgutils.pointer_add(builder, value.data, bytes_on)  # type: ignore[no-untyped-call]
                loaded.append(builder.load(builder.bitcast(where, kind.as_pointer()), align=2, typ=kind))
            larger = builder.bitcast(builder.icmp_unsigned(">", *loaded), ir.IntType(lanes))
            return larger if lanes == 64 else builder.zext(larger, ir.IntType(64))

        return signature, generate

    return intrinsic(typed)


# bit k of the result is frames.flat[start + k] > threshold[pixel + k]; the caller guarantees that so many
# values follow both places
above_64, above_16 = _compare(64), _compare(16)


@intrinsic
def _lowest_bit(_context: Any, word: Any) -> Any:
    """Return the number of the lowest set bit of a uint64 (64 for 0)."""
    signature = types.uint64(types.uint64)

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.IntType(1)(0))

    return signature, generate


@intrinsic
def _not_zero_64(_context: Any, words: Any, start: Any) -> Any:
    """Return a uint64 whose bit k says whether words[start + k] is not 0; the caller guarantees 64 words."""
    signature = types.uint64(words, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.VectorType(ir.IntType(64), 64)
        value = context.make_array(signature.args[0])(context, builder, arguments[0])
        bytes_on = builder.shl(arguments[1], ir.IntType(64)(3))
        where = cgutils.pointer_add(builder, value.data, bytes_on)  # type: ignore[no-untyped-call]
        loaded = builder.load(builder.bitcast(where, kind.as_pointer()), align=8, typ=kind)
        return builder.bitcast(builder.icmp_unsigned("!=", loaded, kind(None)), ir.IntType(64))

    return signature, generate


lowest_bit: Any = _lowest_bit
not_zero_64: Any = _not_zero_64
