"""Modbus TCP as a slave: MBAP frames in and out, functions 3, 4, 6 and 16, exceptions.

``transaction(2) protocol(2) = 0 length(2) unit(1) function data``, big-endian, written from the Modbus
Messaging on TCP/IP Implementation Guide V1.0b and the Application Protocol V1.1b3. What a register means is
the device's business: it hands in an object that reads and writes them and raises ``ModbusException``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from hil_tests.sim.wire.faults import WireFaults
from hil_tests.sim.wire.tcp import Client, Listener

HEADER_BYTES = 7
LONGEST_FRAME_BYTES = 1040  # the device's packet size on Ethernet
READ_LIMIT = 125
WRITE_LIMIT = 123
READ_HOLDING, READ_INPUT, WRITE_ONE, WRITE_MANY = 3, 4, 6, 16
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, DEVICE_FAILURE = 1, 2, 3, 4


class ModbusException(Exception):
    """Answered as an exception reply with ``code``."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exception {code}")
        self.code = code


class Registers(Protocol):
    """16-bit registers of a device."""

    def read(self, address: int, count: int) -> list[int]:
        """Return ``count`` registers."""
        ...

    def write(self, address: int, values: Sequence[int]) -> None:
        """Set registers."""
        ...


def split(buffer: bytes) -> tuple[list[tuple[int, int, bytes]], bytes]:
    """Take whole frames from a stream: [(transaction, unit, function and data)], what is left.

    Raises:
        ValueError: this is not Modbus TCP (protocol id, or an impossible length).
    """
    frames = []
    while len(buffer) >= HEADER_BYTES:
        length = int.from_bytes(buffer[4:6], "big")
        if buffer[2:4] != b"\0\0" or not 2 <= length <= LONGEST_FRAME_BYTES - 6:
            raise ValueError(f"not a Modbus TCP header: {buffer[:HEADER_BYTES].hex(' ')}")
        if len(buffer) < 6 + length:
            break
        frames.append((int.from_bytes(buffer[:2], "big"), buffer[6], buffer[HEADER_BYTES : 6 + length]))
        buffer = buffer[6 + length :]
    return frames, buffer


def frame(transaction: int, unit: int, pdu: bytes) -> bytes:
    """Build a frame."""
    return transaction.to_bytes(2, "big") + b"\0\0" + (len(pdu) + 1).to_bytes(2, "big") + bytes([unit]) + pdu


def answer(pdu: bytes, registers: Registers) -> bytes:
    """Answer one of the four functions; an exception reply for anything wrong."""
    handle = _HANDLERS.get(pdu[0])
    try:
        return _unknown() if handle is None else handle(pdu, registers)
    except ModbusException as exception:
        return bytes([pdu[0] | 0x80, exception.code])


def _unknown() -> bytes:
    raise ModbusException(ILLEGAL_FUNCTION)


def _read(pdu: bytes, registers: Registers) -> bytes:
    if len(pdu) != 5:
        raise ModbusException(ILLEGAL_VALUE)
    address, count = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
    if not 1 <= count <= READ_LIMIT:
        raise ModbusException(ILLEGAL_VALUE)
    values = registers.read(address, count)
    return bytes([pdu[0], 2 * count]) + b"".join(value.to_bytes(2, "big") for value in values)


def _write_one(pdu: bytes, registers: Registers) -> bytes:
    if len(pdu) != 5:
        raise ModbusException(ILLEGAL_VALUE)
    registers.write(int.from_bytes(pdu[1:3], "big"), [int.from_bytes(pdu[3:5], "big")])
    return pdu


def _write_many(pdu: bytes, registers: Registers) -> bytes:
    if len(pdu) < 6:
        raise ModbusException(ILLEGAL_VALUE)
    address, count = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
    if not 1 <= count <= WRITE_LIMIT or pdu[5] != 2 * count or len(pdu) != 6 + 2 * count:
        raise ModbusException(ILLEGAL_VALUE)
    registers.write(address, [int.from_bytes(pdu[i : i + 2], "big") for i in range(6, len(pdu), 2)])
    return pdu[:5]


_HANDLERS: dict[int, Callable[[bytes, Registers], bytes]] = {
    READ_HOLDING: _read,
    READ_INPUT: _read,
    WRITE_ONE: _write_one,
    WRITE_MANY: _write_many,
}


class ModbusTcpServer(Listener):
    """Answers every client in the order of its requests.

    Args:
        respond: function and data of a request -> those of the reply.
        faults: applied to each reply.
        speed: lab seconds per wall second; delays are lab time.
        delay_s: from request to reply.
    """

    def __init__(
        self, respond: Callable[[bytes], bytes], *, faults: WireFaults, speed: float, delay_s: float
    ) -> None:
        super().__init__(faults=faults, speed=speed)
        self.respond = respond
        self.requests = 0
        self.bad_frames = 0
        self.delay_s = delay_s

    def client(self) -> Client:
        """Return the instrument's end of a new connection."""
        return _Client(self)


class _Client(Client):
    def __init__(self, server: ModbusTcpServer) -> None:
        super().__init__(server)
        self._server = server
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        if self._server.silent or self.deaf:
            self._buffer = b""
            return
        try:
            frames, self._buffer = split(self._buffer + data)
        except ValueError:
            self._server.bad_frames += 1
            self.abort()
            return
        for transaction, unit, pdu in frames:
            if not self._server.open_for_clients:
                return
            self._server.requests += 1
            self.reply(self._server.delay_s, frame(transaction, unit, self._server.respond(pdu)))
