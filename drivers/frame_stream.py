"""Images of a camera as ZeroMQ messages of two parts: a JSON header of type ``array-1.0``, then the pixels.

This is what the areaDetector plug-in NDPluginZMQ (ADZMQ, Paul Scherrer Institute) sends for any camera that
EPICS drives: ``htype``, ``type``, ``shape``, ``frame`` (the camera's unique id), ``timeStamp``, ``encoding``,
``ndattr``. Before its release 1.4.0 (2022) ``htype`` was a list and ``shape`` (columns, rows); both are read.
A publisher drops what a slow reader does not take: numbers show it. At most ``QUEUED`` messages wait here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from drivers.frame_watch import MOST_AT_ONCE, MOST_NUMBER, Taken, Tally

QUEUED = 4
HEADER_BYTES = 1 << 16
TYPES = {
    name: np.dtype(name).newbyteorder("<") for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32")
}
EPICS_EPOCH_S = 631_152_000.0  # 1990-01-01 in Unix time
BEFORE_UNIX_S = 1.4e9  # what is less counts from 1990: Unix time was this in 2014
LATEST_S = 1e11  # no clock of a camera counts further
DRAIN_MS = 50


class BadMessage(ValueError):
    """A message that is no image of this camera; the text says why."""


class Stream:
    """One subscription.

    Args:
        told: ``host``, ``port``, ``socket`` (sub or pull), ``hold_s``.
        shape: rows and columns that the camera has.
    """

    def __init__(self, told: Mapping[str, Any], shape: tuple[int, int]) -> None:
        import zmq  # of the extra "live"

        self.tally = Tally()
        self._shape = shape
        self._hold_s = float(told["hold_s"])
        self._name = f"tcp://{told['host']}:{told['port']}"
        self._started_s = 0.0
        self._again: type[Exception] = zmq.Again
        kind = zmq.SUB if told["socket"] == "sub" else zmq.PULL
        self._socket: Any = zmq.Context.instance().socket(kind)
        self._socket.setsockopt(zmq.RCVHWM, QUEUED)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, HEADER_BYTES + 4 * shape[0] * shape[1])
        if kind == zmq.SUB:
            self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._flags = int(zmq.NOBLOCK)
        self._socket.connect(self._name)

    def probe(self) -> None:
        """Nothing to look at: a stream is silent until something is sent."""

    def start(self, now_s: float) -> None:
        """Count from zero; what waits is older."""
        while self._socket.poll(DRAIN_MS):
            if self._next() is None:
                break
        self.tally = Tally()
        self._started_s = now_s

    def look(self, now_s: float) -> Iterator[Taken]:
        """Yield the images that wait."""
        for _ in range(MOST_AT_ONCE):
            parts = self._next()
            if parts is None:
                return
            try:
                number, image, time_s = image_of(parts, self._shape)
            except BadMessage as error:
                self.tally.refuse_message(str(error))
                continue
            if now_s - self._started_s < self._hold_s:
                self.tally.held += 1
                continue
            content = hashlib.sha256(image.tobytes()).digest()
            if self.tally.admit(number, content):
                yield Taken(number, image, self._name, image.nbytes, content.hex(), time_s)

    def _next(self) -> list[bytes] | None:
        try:
            parts: list[bytes] = self._socket.recv_multipart(self._flags)
        except self._again:
            return None
        return parts


def image_of(parts: list[bytes], shape: tuple[int, int]) -> tuple[int, np.ndarray[Any, Any], float | None]:
    """Return number, pixels and time (Unix, s) of one message. Raises BadMessage."""
    if len(parts) != 2 or len(parts[0]) > HEADER_BYTES:
        raise BadMessage(f"{len(parts)} parts: a header and its pixels are 2")
    try:
        header = json.loads(parts[0])
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"its header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise BadMessage("its header is no JSON object")
    htype = header.get("htype")
    listed = isinstance(htype, list)
    if htype not in ("array-1.0", ["array-1.0"]):
        raise BadMessage(f"htype {htype!r} instead of array-1.0")
    if header.get("encoding") not in (None, ""):
        raise BadMessage(f"compressed by {header['encoding']!r}: switch the codec off")
    dtype = TYPES.get(str(header.get("type")))
    if dtype is None:
        raise BadMessage(f"pixels of type {header.get('type')!r}: whole ADU are needed")
    wanted = list(shape)[::-1] if listed else list(shape)
    if header.get("shape") != wanted:
        raise BadMessage(f"shape {header.get('shape')} instead of {wanted}")
    number = header.get("frame")
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= MOST_NUMBER:
        raise BadMessage(f"frame {number!r} is no number of a frame")
    if len(parts[1]) != dtype.itemsize * shape[0] * shape[1]:
        raise BadMessage(f"{len(parts[1])} bytes of pixels instead of {dtype.itemsize * shape[0] * shape[1]}")
    image = np.frombuffer(parts[1], dtype).reshape(shape)
    return number, image.astype(dtype.newbyteorder("=")), _time_s(header.get("timeStamp"))


def _time_s(told: object) -> float | None:
    if isinstance(told, bool) or not isinstance(told, int | float) or not 0 < told < LATEST_S:
        return None
    return told if told >= BEFORE_UNIX_S else told + EPICS_EPOCH_S
