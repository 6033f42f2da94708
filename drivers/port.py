"""What a port is: bytes out, bytes in, and one way of being lost, whatever lies behind it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol, runtime_checkable

MAX_UNREAD_BYTES = 4 << 20  # a line that nobody reads must not fill the memory of a small board


class PortLost(OSError):
    """The port is gone: unplugged, hung up, reset, refused. Only ``Line`` catches it."""


class Port(Protocol):
    """One end of a wire. Every method raises PortLost, and nothing else, when the wire is gone."""

    @property
    def where(self) -> str:
        """Name of the port for messages: a device path, ``host:port``."""
        ...

    @property
    def character_s(self) -> float:
        """Time of one character on the wire, s; 0 where there are no characters (networks, fakes)."""
        ...

    async def open(self) -> None:
        """Open; harmless if it is open already."""
        ...

    async def close(self) -> None:
        """Close; harmless if it is closed already."""
        ...

    async def write(self, data: bytes) -> None:
        """Hand ``data`` over as a whole."""
        ...

    async def read(self, timeout_s: float) -> bytes:
        """Return what has arrived (one datagram, on a datagram port), or b"" after ``timeout_s``.

        May be cancelled at any moment without losing a byte.
        """
        ...

    def discard(self) -> bytes:
        """Take out, and return, everything that has arrived and was not read."""
        ...


@runtime_checkable
class Reopenable(Protocol):
    """A port that can leave late replies behind by taking a fresh socket."""

    async def reopen(self) -> None:
        """Change to a fresh socket; what is still on its way to the old one is lost."""
        ...


@runtime_checkable
class Connected(Protocol):
    """A port whose connection may be gone at the other end and look whole here (half-open TCP)."""

    may_be_half_open: bool


class Inbox(asyncio.Protocol, asyncio.DatagramProtocol):
    """Collects what a transport delivers; one reader at a time.

    Args:
        where: the port's name for messages.
        datagrams: keep the boundaries, so that ``read`` returns one datagram at a time.
    """

    def __init__(self, where: str, *, datagrams: bool = False) -> None:
        self._where = where
        self._datagrams = datagrams
        self._chunks: deque[bytes] = deque()
        self._unread_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self.lost: PortLost | None = None
        self.gone = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        """Called by a stream transport."""
        self._chunks.append(bytes(data))
        self._unread_bytes += len(data)
        if self._unread_bytes > MAX_UNREAD_BYTES:
            self.lose(f"more than {MAX_UNREAD_BYTES} bytes arrived that nobody read")
        self._wake()

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Called by a datagram transport, once for each datagram."""
        self.data_received(data)

    def error_received(self, exc: Exception) -> None:
        """Called by a datagram transport, for instance when nobody listens on the other port."""
        self.lose(str(exc))

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by every transport once, at its end."""
        self.lose(str(exc) if exc else "closed by the other end")
        self.gone.set()

    def lose(self, why: str) -> None:
        """From now on reading raises PortLost, after what had arrived before."""
        if self.lost is None:
            self.lost = PortLost(f"{self._where}: {why}")
        self._wake()

    async def read(self, timeout_s: float) -> bytes:
        """Return one datagram, or all the bytes that are here, or b"" after ``timeout_s``."""
        if not self._chunks and self.lost is None and timeout_s > 0:
            await self._wait(timeout_s)
        if self._chunks:
            return self._take_one() if self._datagrams else self.discard()
        if self.lost is not None:
            raise PortLost(*self.lost.args)
        return b""

    def discard(self) -> bytes:
        """Take everything out."""
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._unread_bytes = 0
        return data

    def _take_one(self) -> bytes:
        data = self._chunks.popleft()
        self._unread_bytes -= len(data)
        return data

    async def _wait(self, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        alarm = loop.call_later(timeout_s, self._wake)
        try:
            await self._waiter
        finally:
            alarm.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
