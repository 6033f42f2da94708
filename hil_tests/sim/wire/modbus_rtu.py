"""A Modbus RTU slave, written from the standard (Modbus over Serial Line V1.02, Application Protocol V1.1b3).

A frame is what came between two silences. A wrong checksum, a foreign address and a broadcast are never
answered; an unknown function is answered with exception 1.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

ILLEGAL_FUNCTION = 1
ILLEGAL_ADDRESS = 2
ILLEGAL_VALUE = 3
BUSY = 6
READ_COILS, READ_DISCRETE, READ_HOLDING, READ_INPUT = 1, 2, 3, 4
WRITE_COIL, WRITE_ONE, WRITE_MANY = 5, 6, 16
MOST_READ, MOST_WRITTEN, MOST_BITS = 125, 123, 2000
COIL_VALUES = {0x0000: False, 0xFF00: True}
SHORTEST_GAP_S = 0.001  # the event loop cannot see a shorter silence
LONGEST_FRAME = 256


class ModbusError(Exception):
    """The slave answers with an exception code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exception {code}")
        self.code = code


class Registers(Protocol):
    """What stands behind the slave. Both methods raise ModbusError."""

    def read(self, register: int, count: int) -> Sequence[int]:
        """Return ``count`` 16-bit words."""
        ...

    def write(self, register: int, words: Sequence[int], *, single: bool) -> None:
        """Take words from function 6 (``single``) or 16."""
        ...


@runtime_checkable
class Bits(Protocol):
    """What stands behind functions 1, 2 and 5, where an instrument has them. Both raise ModbusError."""

    def read_bits(self, function: int, address: int, count: int) -> Sequence[bool]:
        """Return coils (function 1) or discrete inputs (function 2)."""
        ...

    def write_coil(self, address: int, *, on: bool) -> None:
        """Take one coil."""
        ...


@runtime_checkable
class Vendor(Protocol):
    """What stands behind functions of the vendor's own."""

    def vendor(self, function: int, body: bytes) -> bytes | None:
        """Return the body of the reply; None: no such function. Raises ModbusError."""
        ...


def checksum(data: bytes) -> bytes:
    """Return the CRC of the standard, low byte first."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
    return crc.to_bytes(2, "little")


class RtuSlave:
    """Answers frames for one unit; knows nothing of time or wires."""

    def __init__(self, unit_id: int, registers: Registers) -> None:
        self.unit_id = unit_id
        self.registers = registers
        self.counters = dict.fromkeys(
            ("frames", "bad_crc", "foreign", "broadcasts", "malformed", "exceptions", "replies"), 0
        )

    def answer(self, frame: bytes) -> bytes | None:
        """Return the reply to a frame, or None for silence."""
        self.counters["frames"] += 1
        if not 4 <= len(frame) <= LONGEST_FRAME or checksum(frame[:-2]) != frame[-2:]:
            self.counters["bad_crc"] += 1
            return None
        unit, function, body = frame[0], frame[1], frame[2:-2]
        if unit not in (0, self.unit_id):
            self.counters["foreign"] += 1
            return None
        try:
            reply = self._carry_out(function, body)
        except ModbusError as error:
            self.counters["exceptions"] += 1
            function, reply = function | 0x80, bytes([error.code])
        if reply is None:
            self.counters["malformed"] += 1
            return None
        if unit == 0:
            self.counters["broadcasts"] += 1
            return None
        self.counters["replies"] += 1
        message = bytes([unit, function]) + reply
        return message + checksum(message)

    def _carry_out(self, function: int, body: bytes) -> bytes | None:
        """Return the body of the reply; None if the frame has not the length its function asks for."""
        if function in (READ_HOLDING, READ_INPUT):
            return self._read(body)
        if function == WRITE_ONE:
            if len(body) != 4:
                return None
            register, value = struct.unpack(">HH", body)
            self.registers.write(register, [value], single=True)
            return body
        if function == WRITE_MANY:
            return self._write_many(body)
        if function in (READ_COILS, READ_DISCRETE, WRITE_COIL) and isinstance(self.registers, Bits):
            return self._bits(self.registers, function, body)
        if isinstance(self.registers, Vendor):
            reply = self.registers.vendor(function, body)
            if reply is not None:
                return reply
        raise ModbusError(ILLEGAL_FUNCTION)

    def _bits(self, bits: Bits, function: int, body: bytes) -> bytes | None:
        if len(body) != 4:
            return None
        address, number = struct.unpack(">HH", body)
        if function == WRITE_COIL:
            if number not in COIL_VALUES:
                raise ModbusError(ILLEGAL_VALUE)
            bits.write_coil(address, on=COIL_VALUES[number])
            return body
        if not 1 <= number <= MOST_BITS:
            raise ModbusError(ILLEGAL_VALUE)
        packed = bytearray((number + 7) // 8)
        for place, on in enumerate(bits.read_bits(function, address, number)):
            packed[place // 8] |= on << place % 8
        return bytes([len(packed)]) + bytes(packed)

    def _read(self, body: bytes) -> bytes | None:
        if len(body) != 4:
            return None
        register, count = struct.unpack(">HH", body)
        if not 1 <= count <= MOST_READ:
            raise ModbusError(ILLEGAL_VALUE)
        words = self.registers.read(register, count)
        return bytes([2 * count]) + struct.pack(f">{count}H", *words)

    def _write_many(self, body: bytes) -> bytes | None:
        if len(body) < 5 or len(body) != 5 + body[4]:
            return None
        register, count = struct.unpack(">HH", body[:4])
        if not 1 <= count <= MOST_WRITTEN or body[4] != 2 * count:
            raise ModbusError(ILLEGAL_VALUE)
        self.registers.write(register, struct.unpack(f">{count}H", body[5:]), single=False)
        return body[:4]


class GapFramer:
    """Cuts the stream of bytes into frames where it falls silent for 3.5 characters.

    Args:
        frame: called with each frame.
        gap_wall_s: the silence, in wall seconds.
    """

    def __init__(self, frame: Callable[[bytes], None], gap_wall_s: float) -> None:
        self._frame = frame
        self._gap_wall_s = max(gap_wall_s, SHORTEST_GAP_S)
        self._begun = bytearray()
        self._timer: asyncio.TimerHandle | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes as they come."""
        self._begun += data
        self._cancel()
        self._timer = asyncio.get_running_loop().call_later(self._gap_wall_s, self._silence)

    def clear(self) -> None:
        """Forget what has begun."""
        self._cancel()
        self._begun.clear()

    def _silence(self) -> None:
        self._timer = None
        frame = bytes(self._begun)
        self._begun.clear()
        self._frame(frame)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def gap_s(baud: int, bits: int) -> float:
    """Return the silence between frames, s: 3.5 characters, fixed above 19200 baud."""
    return 3.5 * bits / baud if baud <= 19200 else 0.00175
