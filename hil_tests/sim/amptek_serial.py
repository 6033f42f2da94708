"""Twin of an Amptek processor on RS-232: the same instrument as ``amptek_dp5``, packets in a stream of bytes.

A request may come in pieces, with noise in front of its sync bytes; a reply leaves at the speed of the line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hil_tests.sim.amptek_dp5 import AmptekTwin
from hil_tests.sim.amptek_fw6 import SYNC
from hil_tests.sim.clock import BenchClock
from hil_tests.sim.physics.photons import PulseSource
from hil_tests.sim.wire.serial_pty import SerialPty

BAUD = 115_200
PIECE_BYTES = 512  # handed over as they leave the wire: a pseudo-terminal holds a few kB only
LONGEST_REQUEST_BYTES = 8 + 512
HOST = ("serial", 0)


class AmptekSerialTwin(AmptekTwin):
    """As ``AmptekTwin``, on a pseudo-terminal."""

    def __init__(
        self, source: PulseSource, clock: BenchClock, settings: Mapping[str, Any] | None = None, *,
        upstream: Callable[[float], None] = lambda _now_s: None, name: str = "dp5", baud: int = BAUD,
    ) -> None:  # fmt: skip
        super().__init__(source, clock, settings, upstream=upstream)
        self._pty = SerialPty(self._receive, name=name, baud=baud, speed=clock.speed)
        self._waiting = b""

    async def start(self) -> str:
        """Open the port; return its name."""
        return self._pty.open()

    async def stop(self) -> None:
        """Close the port."""
        self._pty.close()

    def inject(self, fault: Mapping[str, Any]) -> None:
        """Make something go wrong; wire faults strike whole replies, ``unplug`` hangs up."""
        kind = fault.get("kind")
        if kind == "unplug":
            self._waiting = b""
            self._pty.unplug()
        elif kind == "replug":
            self._pty.replug()
        else:
            super().inject(fault)

    def counters(self) -> dict[str, Any]:
        """Return what happened so far."""
        return {**super().counters(), "sent_bytes": self._pty.sent_bytes, "lost_bytes": self._pty.lost_bytes}

    def _receive(self, data: bytes) -> None:
        self._waiting += data
        while self._waiting:
            start = self._waiting.find(SYNC)
            if start < 0:
                self._waiting = self._waiting[-1:] if self._waiting.endswith(SYNC[:1]) else b""
                return
            self._waiting = self._waiting[start:]
            if len(self._waiting) < 6:
                return
            end = 8 + int.from_bytes(self._waiting[4:6], "big")
            if end > LONGEST_REQUEST_BYTES:  # no request is so long: these were no sync bytes
                self._waiting = self._waiting[len(SYNC) :]
                continue
            if len(self._waiting) < end:
                return
            request, self._waiting = self._waiting[:end], self._waiting[end:]
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        reply = b"".join(self._datagram(request, HOST))
        if not reply:
            return
        for extra_s, whole in self.faults.outgoing(reply):
            delay_s = float(self.settings["response_s"]) + extra_s
            for at in range(0, len(whole), PIECE_BYTES):
                self._pty.send(whole[at : at + PIECE_BYTES], delay_s if at == 0 else 0.0)
