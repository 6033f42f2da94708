"""The instrument's end of a TCP socket that carries text lines, on 127.0.0.1."""

from __future__ import annotations

from collections.abc import Callable

from hil_tests.sim.wire.faults import WireFaults
from hil_tests.sim.wire.tcp import Client, Listener
from hil_tests.sim.wire.text import LineReceiver


class TcpText(Listener):
    """Hands lines to the instrument, sends back what it answers, in order.

    Args:
        respond: a line -> [(delay in lab s, answer without its LF)].
        faults: applied to each answer.
        speed: lab seconds per wall second.
    """

    def __init__(
        self, respond: Callable[[str], list[tuple[float, str]]], *, faults: WireFaults, speed: float
    ) -> None:
        super().__init__(faults=faults, speed=speed)
        self.respond = respond

    def client(self) -> Client:
        """Return the instrument's end of a new connection."""
        return _Client(self)


class _Client(Client):
    def __init__(self, server: TcpText) -> None:
        super().__init__(server)
        self._server = server
        self._lines = LineReceiver(longest=4096)

    def data_received(self, data: bytes) -> None:
        if self._server.silent or self.deaf:
            return
        for line, _too_long in self._lines.feed(data):
            for delay_s, answer in self._server.respond(line):
                self.reply(delay_s, answer.encode("ascii") + b"\n")

    def send(self, data: bytes) -> None:
        if not self._server.silent:
            super().send(data)
