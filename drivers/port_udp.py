"""A UDP endpoint as a port: datagrams keep their boundaries."""

from __future__ import annotations

import asyncio
import socket

from drivers.port import Inbox, PortLost

RECEIVE_BUFFER_BYTES = 1 << 20  # a long reply is a burst of many small datagrams, each with its overhead


class UdpPort:
    """A connected socket, so datagrams of strangers are dropped by the kernel.

    Every request leaves from the same socket until ``reopen``: a reply that comes late then finds a closed
    port instead of being taken for the answer to the next request.
    """

    character_s = 0.0

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._transport: asyncio.DatagramTransport | None = None
        self._inbox = Inbox(self.where, datagrams=True)
        self.notes: tuple[str, ...] = ()  # what a person should know of this port, once it is open

    @property
    def where(self) -> str:
        """``udp host:port``."""
        return f"udp {self._host}:{self._port}"

    @property
    def local_port(self) -> int | None:
        """Number of the present socket, None when closed."""
        return None if self._transport is None else self._transport.get_extra_info("sockname")[1]

    async def open(self) -> None:
        """Take a socket; nothing is sent, so this says nothing about the other end."""
        if self._transport is not None and self._inbox.lost is None:
            return
        await self.close()
        inbox = Inbox(self.where, datagrams=True)
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_datagram_endpoint(
                lambda: inbox, remote_addr=(self._host, self._port)
            )
        except OSError as error:
            raise PortLost(f"{self.where}: {error}") from error
        endpoint = transport.get_extra_info("socket")
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        given = endpoint.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # the kernel tells the double
        if given < RECEIVE_BUFFER_BYTES:
            self.notes = (
                f"the kernel gives {self.where} {given} bytes to receive into, not {RECEIVE_BUFFER_BYTES}: a "
                "busy host may lose datagrams; as root: sysctl -w "
                f"net.core.rmem_max={RECEIVE_BUFFER_BYTES}",
            )
        self._transport, self._inbox = transport, inbox

    async def reopen(self) -> None:
        """Leave the present socket, with all that is still on its way to it, and take a fresh one."""
        await self.close()
        await self.open()

    async def close(self) -> None:
        """Give the socket back."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
            await self._inbox.gone.wait()
        self._inbox.lose("closed")

    async def write(self, data: bytes) -> None:
        """Send ``data`` as one datagram."""
        if self._transport is None or self._transport.is_closing():
            raise PortLost(f"{self.where}: closed")
        self._transport.sendto(data)

    async def read(self, timeout_s: float) -> bytes:
        """Return the next datagram, or b"" after ``timeout_s``."""
        return await self._inbox.read(timeout_s)

    def discard(self) -> bytes:
        """Take out every datagram that has arrived."""
        return self._inbox.discard()
