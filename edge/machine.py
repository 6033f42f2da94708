"""Machine operations that numba lacks: several records at once, memory asked for, arrays borrowed."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

CHANNEL_BITS = 16  # of a record; what is above them is the pixel
LANES = 8


@intrinsic
def _one_pixel_16(_context: Any, records: Any, start: Any, first: Any) -> Any:
    """Tell whether the 16 records from ``start`` have the pixel of ``first``; the caller guarantees 16."""
    signature = types.boolean(records, types.uint64, types.uint64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, lane = ir.IntType(64), ir.IntType(32)
        kind = ir.VectorType(word, LANES)
        value = context.make_array(signature.args[0])(context, builder, arguments[0])
        nothing = ir.Constant(kind, ir.Undefined)
        one = builder.insert_element(nothing, arguments[2], lane(0))
        wanted = builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(lane, LANES), [0] * LANES))
        differ = None
        for offset in (0, LANES):
            bytes_on = builder.shl(builder.add(arguments[1], word(offset)), word(3))
            where = cgutils.pointer_add(builder, value.data, bytes_on)  # type: ignore[no-untyped-call]
            loaded = builder.load(builder.bitcast(where, kind.as_pointer()), align=8, typ=kind)
            part = builder.xor(loaded, wanted)
            differ = part if differ is None else builder.or_(differ, part)
        largest = ir.Constant(kind, [(1 << CHANNEL_BITS) - 1] * LANES)
        others = builder.bitcast(builder.icmp_unsigned(">", differ, largest), ir.IntType(LANES))
        return builder.icmp_unsigned("==", others, ir.IntType(LANES)(0))

    return signature, generate


def _place(context: Any, builder: Any, signature: Any, arguments: Any, array: int, index: Any) -> Any:
    """Return a pointer to an element of the argument that is an array."""
    value = context.make_array(signature.args[array])(context, builder, arguments[array])
    each = ir.IntType(64)(signature.args[array].dtype.bitwidth // 8)
    return cgutils.pointer_add(builder, value.data, builder.mul(index, each))  # type: ignore[no-untyped-call]


def _in_all_lanes(builder: Any, value: Any, lanes: int) -> Any:
    nothing = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    one = builder.insert_element(nothing, value, ir.IntType(32)(0))
    return builder.shuffle_vector(
        one, nothing, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    )


def _vector(
    context: Any, builder: Any, signature: Any, arguments: Any, array: int, at: int, lanes: int
) -> Any:
    """Return a pointer to so many elements of one argument, from the index that is another argument."""
    where = _place(context, builder, signature, arguments, array, arguments[at])
    kind = ir.VectorType(ir.IntType(signature.args[array].dtype.bitwidth), lanes)
    return builder.bitcast(where, kind.as_pointer())


def _load(builder: Any, where: Any) -> Any:
    kind = where.type.pointee
    return builder.load(where, align=kind.element.width // 8, typ=kind)


@intrinsic
def _pack_16(
    _context: Any,
    frame: Any,
    channel: Any,
    start: Any,
    wanted: Any,
    top: Any,
    high: Any,
    records: Any,
    to: Any,
) -> Any:
    """Write high | min(channel, top) of the 16 events from ``start`` to ``records``, from ``to`` on.

    Returns how many of them, from the first on, have the frame that is wanted; what is written beyond is
    of no use. The caller guarantees 16 events and room for 16 records.
    """
    index = types.uint64
    signature = types.int64(frame, channel, index, types.int64, types.uint16, index, records, index)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        frames, channels = (
            _load(builder, _vector(context, builder, signature, arguments, array, 2, 16)) for array in (0, 1)
        )
        largest = _in_all_lanes(builder, arguments[4], 16)
        channels = builder.select(builder.icmp_unsigned("<", channels, largest), channels, largest)
        low = builder.zext(channels, ir.VectorType(ir.IntType(64), 16))
        packed = builder.or_(low, _in_all_lanes(builder, arguments[5], 16))
        to = _vector(context, builder, signature, arguments, 6, 7, 16)
        builder.store(packed, to, align=8)
        differ = builder.icmp_unsigned("!=", frames, _in_all_lanes(builder, arguments[3], 16))
        bits = builder.zext(builder.bitcast(differ, ir.IntType(16)), ir.IntType(64))
        return builder.cttz(builder.or_(bits, ir.IntType(64)(1 << 16)), ir.IntType(1)(1))

    return signature, generate


@intrinsic
def _channels_16(_context: Any, records: Any, start: Any, first: Any, channels: Any, to: Any) -> Any:
    """Write the channels of the 16 records from ``start`` to ``channels``, from ``to`` on.

    Returns whether all have the pixel of ``first``; else what was written is of no use. The caller guarantees
    16 records and room for 16 channels.
    """
    signature = types.boolean(records, types.uint64, types.uint64, channels, types.uint64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        loaded = _load(builder, _vector(context, builder, signature, arguments, 0, 1, 16))
        short = builder.trunc(loaded, ir.VectorType(ir.IntType(16), 16))
        where = _vector(context, builder, signature, arguments, 3, 4, 16)
        builder.store(short, where, align=2)
        differ = builder.xor(loaded, _in_all_lanes(builder, arguments[2], 16))
        largest = ir.Constant(loaded.type, [(1 << CHANNEL_BITS) - 1] * 16)
        others = builder.bitcast(builder.icmp_unsigned(">", differ, largest), ir.IntType(16))
        return builder.icmp_unsigned("==", others, ir.IntType(16)(0))

    return signature, generate


@intrinsic
def _inside_64(_context: Any, channels: Any, start: Any, low: Any, width: Any) -> Any:
    """Return how many of the 64 channels from ``start`` are at least ``low`` and below ``low + width``."""
    signature = types.uint64(channels, types.uint64, types.uint16, types.uint16)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        loaded = _load(builder, _vector(context, builder, signature, arguments, 0, 1, 64))
        above = builder.sub(loaded, _in_all_lanes(builder, arguments[2], 64))
        inside = builder.icmp_unsigned("<", above, _in_all_lanes(builder, arguments[3], 64))
        return builder.ctpop(builder.bitcast(inside, ir.IntType(64)))

    return signature, generate


def _fetch(to_write: int) -> Any:
    """Return an intrinsic that asks for a cache line, to be read only or to be written to."""

    def typed(_context: Any, values: Any, place: Any) -> Any:
        signature = types.void(values, types.uint64)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value = context.make_array(signature.args[0])(context, builder, arguments[0])
            each = ir.IntType(64)(signature.args[0].dtype.bitwidth // 8)
            where = cgutils.pointer_add(builder, value.data, builder.mul(arguments[1], each))  # type: ignore[no-untyped-call]
            where = builder.bitcast(where, ir.IntType(8).as_pointer())
            flag = ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [where.type, flag, flag, flag])
            name = "llvm.prefetch.p0"
            ask = cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]
            builder.call(ask, [where, flag(to_write), flag(3), flag(1)])  # 3: keep it near; 1: data
            return context.get_dummy_value()

        return signature, generate

    return intrinsic(typed)


@intrinsic
def _borrowed(_context: Any, array: Any) -> Any:
    """Return the array without an owner: its slices count no references, which would be an atomic add each.

    The caller keeps the array alive for as long as anything made of the result is used.
    """
    signature = array(array)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = context.make_array(signature.args[0])(context, builder, arguments[0])
        value.meminfo = cgutils.get_null_value(value.meminfo.type)  # type: ignore[no-untyped-call]
        value.parent = cgutils.get_null_value(value.parent.type)  # type: ignore[no-untyped-call]
        return value._getvalue()

    return signature, generate


borrowed: Any = _borrowed
one_pixel_16: Any = _one_pixel_16
pack_16: Any = _pack_16
channels_16: Any = _channels_16
inside_64: Any = _inside_64
# ask for values[place] ahead of time; a place beyond the array does no harm
prefetch, prefetch_to_write = _fetch(0), _fetch(1)
