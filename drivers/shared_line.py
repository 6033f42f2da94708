"""A line that several Modbus units share: the rules of ``sharing`` on the discipline of ``line``.

Replies on such a line name their unit, so a late one of another unit can spoil a reply but never pass for it:
after an exchange that another unit left unanswered, ``quiet_s`` of silence is enough. A unit's own late reply
is waited for in full, as on any line.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from drivers.line import Line
from drivers.port import Port
from drivers.sharing import Sharing
from drivers.turn import Turn

GUEST_PATIENCE_S = 0.02  # a guest does not wait longer for a noisy line to fall silent


class SharedLine(Line):
    """A line with one instrument that goes first, and guests; arguments as for ``Line``."""

    def __init__(self, name: str, port: Port, **arguments: Any) -> None:
        super().__init__(name, port, **arguments)
        self.sharing = Sharing(self._now, self._quiet_s, port.character_s)
        self._guests = Turn()  # they wait for a gap in the order of coming

    def first(self, device: str, period_s: float) -> None:
        """Let ``device``, which polls every ``period_s`` wall seconds, go before all others."""
        self.sharing.first(device, period_s)

    @asynccontextmanager
    async def _place(
        self, device: str, request: bytes, timeout_s: float, *, urgent: bool, silence_s: float
    ) -> AsyncIterator[float]:
        """Wait for the turn by the rules of sharing; yield the time-out that fits.

        Raises:
            NoReply: a guest that has been silent for long is not asked now.
        """
        if urgent or not self.sharing.active:
            async with self._exchange(device, request, urgent=urgent):
                yield timeout_s
        elif self.sharing.is_first(device):
            asked_s = self.sharing.asks(device)
            try:
                async with self._exchange(device, request, urgent=False, first=True):
                    self.sharing.has_line(asked_s)
                    yield timeout_s
            finally:
                self.sharing.ends(device)
        else:
            async with self._guest(device, request, timeout_s, silence_s) as fits_s:
                yield fits_s

    @asynccontextmanager
    async def _guest(
        self, device: str, request: bytes, timeout_s: float, silence_s: float
    ) -> AsyncIterator[float]:
        self.sharing.check(device)
        async with self._guests.taken():
            since_s = self._now()
            while True:
                async with self._exchange(device, request, urgent=False):
                    silent_s = self._last_byte_s + self._silence_s(device, silence_s, urgent=False)
                    wait_s, fits_s = self.sharing.slot(
                        device, timeout_s, since_s=since_s, ready_s=max(silent_s - self._now(), 0.0)
                    )
                    if wait_s <= 0.0:
                        yield fits_s
                        return
                await asyncio.sleep(wait_s)

    def _heard(self, device: str, took_s: float | None) -> None:
        """Remember who answers, and who does not."""
        if not self.sharing.active or self.sharing.is_first(device):
            return
        if took_s is None:
            self.sharing.silent(device)
        else:
            self.sharing.answered(device, took_s)

    def _silence_s(self, device: str, silence_s: float, *, urgent: bool) -> float:
        """What another unit still owes needs a short silence only."""
        foreign = self.sharing.active and self._asker != device
        return super()._silence_s(device, silence_s, urgent=urgent or foreign)

    def _patience_s(self, device: str, *, urgent: bool) -> tuple[float, bool]:
        """The first one speaks over a noisy line; a guest leaves it alone soon."""
        if urgent or not self.sharing.active:
            return super()._patience_s(device, urgent=urgent)
        return (self._quiet_s, True) if self.sharing.is_first(device) else (GUEST_PATIENCE_S, False)
