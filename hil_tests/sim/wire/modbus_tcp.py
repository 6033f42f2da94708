"""Modbus TCP as a slave: MBAP frames in and out, functions 3, 4, 6 and 16, exceptions.

``transaction(2) protocol(2) = 0 length(2) unit(1) function data``, big-endian, written from the Modbus
Messaging on TCP/IP Implementation Guide V1.0b and the Application Protocol V1.1b3. What a register means is
the device's business: it hands in an object that reads and writes them and raises ``ModbusException``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

from hil_tests.sim.wire.faults import WireFaults

HEADER_BYTES = 7
LONGEST_FRAME_BYTES = 1040  # the device's packet size on Ethernet
READ_LIMIT = 125
WRITE_LIMIT = 123
READ_HOLDING, READ_INPUT, WRITE_ONE, WRITE_MANY = 3, 4, 6, 16
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, DEVICE_FAILURE = 1, 2, 3, 4
AT_ONCE_S = 0.0005  # the event loop cannot wait for less than about a millisecond


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


class ModbusTcpServer:
    """Listens on 127.0.0.1 and answers every client in the order of its requests.

    Args:
        respond: function and data of a request -> those of the reply.
        faults: applied to each reply.
        speed: lab seconds per wall second; delays are lab time.
        delay_s: from request to reply.
    """

    def __init__(
        self, respond: Callable[[bytes], bytes], *, faults: WireFaults, speed: float, delay_s: float
    ) -> None:
        self.respond = respond
        self.faults = faults
        self.requests = 0
        self.bad_frames = 0
        self.open_for_clients = True
        self.silent = False  # the cable is out: whatever comes is lost
        self._speed = speed
        self._delay_s = delay_s
        self._server: asyncio.Server | None = None
        self._port = 0
        self._clients: set[_Client] = set()

    @property
    def port(self) -> int:
        """The TCP port; the same after ``unplug`` and ``replug``."""
        return self._port

    @property
    def clients(self) -> int:
        """How many are connected."""
        return len(self._clients)

    async def start(self) -> int:
        """Listen; return the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Client(self), "127.0.0.1", self._port)
        self._port = int(self._server.sockets[0].getsockname()[1])
        return self._port

    async def stop(self) -> None:
        """Stop listening and drop every client."""
        if self._server is not None:
            self._server.close()
            self.drop()
            await self._server.wait_closed()
            self._server = None

    def drop(self) -> None:
        """Drop every client, as a reset of the device or a pulled cable does."""
        for client in list(self._clients):
            client.abort()

    def abandon(self) -> None:
        """Forget every client without a word to it, as a router that restarted does: new ones are heard."""
        for client in self._clients:
            client.deaf = True

    def connected(self, client: _Client) -> bool:
        """Note a new client; False: it is not wanted now."""
        if self.open_for_clients:
            self._clients.add(client)
        return self.open_for_clients

    def disconnected(self, client: _Client) -> None:
        """Forget a client."""
        self._clients.discard(client)

    def wait_wall_s(self, extra_lab_s: float) -> float:
        """Return the wall time until a reply with this extra delay goes out."""
        return (self._delay_s + extra_lab_s) / self._speed


class _Client(asyncio.Protocol):
    def __init__(self, server: ModbusTcpServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._free_at = 0.0
        self.deaf = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # a TCP server makes no other
        self._transport = transport
        if not self._server.connected(self):
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.disconnected(self)
        self._transport = None

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
            self._reply(frame(transaction, unit, self._server.respond(pdu)))

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _reply(self, reply: bytes) -> None:
        loop = asyncio.get_running_loop()
        for extra_s, piece in self._server.faults.outgoing(reply):
            due = max(loop.time() + self._server.wait_wall_s(extra_s), self._free_at)
            self._free_at = due
            if due - loop.time() < AT_ONCE_S:
                self._send(piece)
            else:
                loop.call_at(due, self._send, piece)

    def _send(self, data: bytes) -> None:
        with contextlib.suppress(RuntimeError):
            if self._transport is not None and not self._transport.is_closing() and not self.deaf:
                self._transport.write(data)
