"""Frames on the socket between control and reduce: 32-bit big-endian length, then one CBOR map."""

from __future__ import annotations

import socket
import struct
from typing import Any

import cbor2

FRAME_LIMIT_BYTES = 64 << 20
HEADER = struct.Struct(">I")

Message = dict[str, Any]


class FrameError(ValueError):
    """The stream of frames is broken and cannot be followed any more."""


def pack(message: Message) -> bytes:
    """Return a message as one frame."""
    body = cbor2.dumps(message)
    return HEADER.pack(len(body)) + body


def receive(connection: socket.socket) -> bytes | None:
    """Return the body of the next frame, None when the other end has closed.

    Raises:
        FrameError: the length is beyond ``FRAME_LIMIT_BYTES``, or the stream ends inside a frame.
    """
    header = _exactly(connection, HEADER.size)
    if header is None:
        return None
    (size,) = HEADER.unpack(header)
    if size > FRAME_LIMIT_BYTES:
        raise FrameError(f"a frame of {size} bytes is beyond {FRAME_LIMIT_BYTES}")
    body = _exactly(connection, size)
    if body is None:
        raise FrameError("the stream ends inside a frame")
    return body


def unpack(body: bytes) -> Message:
    """Return the message of a frame.

    Raises:
        ValueError: if it is not a CBOR map with a kind.
    """
    try:
        message = cbor2.loads(body)
    except (cbor2.CBORDecodeError, ValueError, RecursionError) as error:
        raise ValueError(f"not CBOR: {error}") from None
    if not isinstance(message, dict) or not isinstance(message.get("k"), str):
        raise ValueError(f"not a map with a kind k: {str(message)[:80]}")  # noqa: TRY004
    return message


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    """Read so many bytes; None if the stream ends before the first one."""
    parts: list[bytes] = []
    missing = size
    while missing:
        part = connection.recv(min(missing, 1 << 20))
        if not part:
            if parts:
                raise FrameError("the stream ends inside a frame")
            return None
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
