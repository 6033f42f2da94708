"""A TCP connection as a port."""

from __future__ import annotations

import asyncio
import socket

from drivers.port import Inbox, PortLost

CONNECT_TIMEOUT_S = 2.0


class TcpPort:
    """A client connection that is opened again when asked to, never by itself."""

    character_s = 0.0
    may_be_half_open = True

    def __init__(self, host: str, port: int, *, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self._host = host
        self._port = port
        self._connect_timeout_s = connect_timeout_s
        self._transport: asyncio.Transport | None = None
        self._inbox = Inbox(self.where)

    @property
    def where(self) -> str:
        """``host:port``."""
        return f"{self._host}:{self._port}"

    async def open(self) -> None:
        """Connect; small requests leave at once (no Nagle delay)."""
        if self._transport is not None and self._inbox.lost is None:
            return
        await self.close()
        inbox = Inbox(self.where)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                transport, _ = await loop.create_connection(lambda: inbox, self._host, self._port)
        except OSError as error:  # TimeoutError is one too
            raise PortLost(f"{self.where}: {str(error) or 'no connection in time'}") from error
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._transport, self._inbox = transport, inbox

    async def close(self) -> None:
        """Close without waiting for the other end."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
            await self._inbox.gone.wait()
        self._inbox.lose("closed")

    async def write(self, data: bytes) -> None:
        """Send ``data``; requests are small, so the socket buffer takes them whole."""
        if self._transport is None or self._inbox.lost is not None or self._transport.is_closing():
            raise PortLost(f"{self.where}: not connected")
        self._transport.write(data)

    async def read(self, timeout_s: float) -> bytes:
        """Return the bytes that are here, or b"" after ``timeout_s``."""
        return await self._inbox.read(timeout_s)

    def discard(self) -> bytes:
        """Take out what has arrived."""
        return self._inbox.discard()
