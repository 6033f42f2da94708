"""The instrument's end of a TCP socket that carries text lines, on 127.0.0.1."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from hil_tests.sim.wire.faults import WireFaults
from hil_tests.sim.wire.text import LineReceiver

AT_ONCE_S = 0.0005  # the event loop cannot wait for less than about a millisecond


class TcpText:
    """Listens, hands lines to the instrument, sends back what it answers, in order.

    Args:
        respond: a line -> [(delay in lab s, answer without its LF)].
        faults: applied to each answer.
        speed: lab seconds per wall second.
    """

    def __init__(
        self, respond: Callable[[str], list[tuple[float, str]]], *, faults: WireFaults, speed: float
    ) -> None:
        self.respond = respond
        self.faults = faults
        self.speed = speed
        self.port = 0
        self.silent = False  # the cable is out: whatever comes is lost
        self.open_for_clients = True
        self._server: asyncio.Server | None = None
        self._clients: set[_Client] = set()

    async def start(self) -> int:
        """Listen; return the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Client(self), "127.0.0.1", self.port)
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
        """Drop every client, as a reset of the device does."""
        for client in list(self._clients):
            client.abort()

    def abandon(self) -> None:
        """Forget every client without a word to it: new ones are heard."""
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


class _Client(asyncio.Protocol):
    def __init__(self, server: TcpText) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._lines = LineReceiver(longest=4096)
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
            return
        for line, _too_long in self._lines.feed(data):
            for delay_s, answer in self._server.respond(line):
                self._reply(delay_s, answer.encode("ascii") + b"\n")

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _reply(self, delay_s: float, reply: bytes) -> None:
        loop = asyncio.get_running_loop()
        for extra_s, piece in self._server.faults.outgoing(reply):
            due = max(loop.time() + (delay_s + extra_s) / self._server.speed, self._free_at)
            self._free_at = due
            if due - loop.time() < AT_ONCE_S:
                self._send(piece)
            else:
                loop.call_at(due, self._send, piece)

    def _send(self, data: bytes) -> None:
        with contextlib.suppress(RuntimeError):
            gone = self._transport is None or self._transport.is_closing() or self._server.silent
            if self._transport is not None and not gone and not self.deaf:
                self._transport.write(data)
