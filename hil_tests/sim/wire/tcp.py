"""A TCP port of an instrument on 127.0.0.1: who is connected, and replies in order, late or in pieces.

What comes over it is the business of ``modbus_tcp`` and ``tcp_text``.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod

from hil_tests.sim.wire.faults import WireFaults

AT_ONCE_S = 0.0005  # the event loop cannot wait for less than about a millisecond


class Listener(ABC):
    """Listens, and knows its clients; ``client`` makes the end of a connection.

    Args:
        faults: applied to each reply.
        speed: lab seconds per wall second; delays are lab time.
    """

    def __init__(self, *, faults: WireFaults, speed: float) -> None:
        self.faults = faults
        self.speed = speed
        self.port = 0  # the same after the first start
        self.open_for_clients = True
        self.silent = False  # the cable is out: whatever comes is lost
        self._server: asyncio.Server | None = None
        self._clients: set[Client] = set()

    @abstractmethod
    def client(self) -> Client:
        """Return the instrument's end of a new connection."""

    @property
    def clients(self) -> int:
        """How many are connected."""
        return len(self._clients)

    async def start(self) -> int:
        """Listen; return the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self.client, "127.0.0.1", self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self.port

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

    def connected(self, client: Client) -> bool:
        """Note a new client; False: it is not wanted now."""
        if self.open_for_clients:
            self._clients.add(client)
        return self.open_for_clients

    def disconnected(self, client: Client) -> None:
        """Forget a client."""
        self._clients.discard(client)


class Client(asyncio.Protocol):
    """The instrument's end of one connection."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._free_at = 0.0
        self.deaf = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # a TCP server makes no other
        self._transport = transport
        if not self._listener.connected(self):
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._listener.disconnected(self)
        self._transport = None

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    def reply(self, delay_s: float, reply: bytes) -> None:
        """Send a reply after so many lab seconds, behind those that wait, with the wire's faults."""
        loop = asyncio.get_running_loop()
        for extra_s, piece in self._listener.faults.outgoing(reply):
            due = max(loop.time() + (delay_s + extra_s) / self._listener.speed, self._free_at)
            self._free_at = due
            if due - loop.time() < AT_ONCE_S:
                self.send(piece)
            else:
                loop.call_at(due, self.send, piece)

    def send(self, data: bytes) -> None:
        """Send now, if the connection is still there."""
        with contextlib.suppress(RuntimeError):
            if self._transport is not None and not self._transport.is_closing() and not self.deaf:
                self._transport.write(data)
