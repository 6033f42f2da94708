"""The instrument's end of a UDP link on 127.0.0.1: a request in, any number of datagrams out, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from hil_tests.sim.wire.faults import WireFaults

Address = tuple[str, int]
AT_ONCE_S = 0.0005  # the event loop cannot wait for less than about a millisecond


class UdpEndpoint(asyncio.DatagramProtocol):
    """Answers datagrams.

    Args:
        respond: the request and who sent it -> datagrams of the reply.
        faults: applied to each datagram of a reply.
        speed: lab seconds per wall second; delays are lab time.
        delay_s: from request to reply.
    """

    def __init__(
        self,
        respond: Callable[[bytes, Address], list[bytes]],
        *,
        faults: WireFaults,
        speed: float,
        delay_s: float,
    ) -> None:
        self.faults = faults
        self.silent = False  # the cable is out: whatever comes is lost
        self.received = 0
        self.sent = 0
        self._respond = respond
        self._speed = speed
        self._delay_s = delay_s
        self._transport: asyncio.DatagramTransport | None = None
        self._free_at = 0.0
        self._queue: deque[tuple[float, bytes, Address]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.port = 0

    async def start(self) -> int:
        """Bind to a free port; return it."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", self.port))
        self._transport = transport
        self.port = int(transport.get_extra_info("sockname")[1])
        return self.port

    def stop(self) -> None:
        """Close the socket."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._queue.clear()
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Answer one datagram."""
        if self.silent:
            return
        self.received += 1
        loop = asyncio.get_running_loop()
        for reply in self._respond(data, addr):
            for extra_s, piece in self.faults.outgoing(reply):
                due = max(loop.time() + (self._delay_s + extra_s) / self._speed, self._free_at)
                self._free_at = due
                self._queue.append((due, piece, addr))
        self._send_due()

    def _send_due(self) -> None:
        """Send what is due, strictly in order: timers of the same moment fire in any order."""
        loop = asyncio.get_running_loop()
        while self._queue and self._queue[0][0] - loop.time() < AT_ONCE_S:
            _, piece, addr = self._queue.popleft()
            self._send(piece, addr)
        if self._queue and self._timer is None:
            self._timer = loop.call_at(self._queue[0][0], self._timed)

    def _timed(self) -> None:
        self._timer = None
        self._send_due()

    def _send(self, data: bytes, addr: Address) -> None:
        if self._transport is not None and not self.silent:
            self._transport.sendto(data, addr)
            self.sent += 1
