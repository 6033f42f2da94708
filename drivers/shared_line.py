"""A line that several Modbus units share: the rules of ``sharing`` on the discipline of ``line``.

Replies on such a line name their unit, so a late one of another unit can spoil a reply but never pass for it:
after an exchange that another unit left unanswered, ``quiet_s`` of silence is enough. A unit's own late reply
is waited for in full, as on any line; so is that of another device of the same unit (two channels of one
module), for it names the unit alone and would pass for the answer to whoever asks next.
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
        self._units: dict[str, object] = {}  # of devices that name one; others are units of their own
        self._pending_s: dict[object, float] = {}  # until when a part of a unit may still answer
        self._wanted_s = 0.0  # the time-out of the last guest, before it was cut to a gap

    def first(self, device: str, period_s: float) -> None:
        """Let ``device``, which polls every ``period_s`` wall seconds, go before all others."""
        self.sharing.first(device, period_s)

    def of_unit(self, device: str, unit: int) -> None:
        """Say which Modbus unit a device is, or is a part of."""
        self._units[device] = unit

    @property
    def _part_of(self) -> object | None:
        """The unit that was asked last, if several devices are parts of it."""
        unit = self._units.get(self._asker)
        return unit if sum(one == unit for one in self._units.values()) > 1 else None

    def _same_unit(self, device: str, other: str) -> bool:
        return self._units.get(device, device) == self._units.get(other, other)

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
        self._wanted_s = timeout_s
        twice = any(self._same_unit(device, one) for one in self.sharing.first_ones)
        async with self._guests.taken():
            since_s = self._now()
            while True:
                async with self._exchange(device, request, urgent=False):
                    silent_s = self._last_byte_s + self._silence_s(device, silence_s, urgent=False)
                    wait_s, fits_s = self.sharing.slot(
                        device,
                        timeout_s,
                        since_s=since_s,
                        ready_s=max(silent_s - self._now(), 0.0),
                        costs=2.0 if twice else 1.0,
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
        foreign = self.sharing.active and not self._same_unit(self._asker, device)
        needed_s = super()._silence_s(device, silence_s, urgent=urgent or foreign)
        until_s = self._pending_s.get(self._units.get(device, device))
        return needed_s if urgent or until_s is None else max(needed_s, until_s - self._last_byte_s)

    def _give_up(self, *exchange: Any, **how: Any) -> None:
        """Remember until when a part of a unit may still answer, whoever asks another unit meanwhile."""
        super()._give_up(*exchange, **how)
        if self._owed is not None and self._part_of is not None:
            late_s = self._wanted_s + self._quiet_s if self._owed.parse is not None else 0.0
            self._pending_s[self._part_of] = self._now() + max(self._owed.silence_s, late_s)

    def _take_stale(self, data: bytes) -> None:
        """Forget it when the late answer is here."""
        super()._take_stale(data)
        if data and self._owed is None and self._part_of is not None:
            self._pending_s.pop(self._part_of, None)

    def _patience_s(self, device: str, *, urgent: bool) -> tuple[float, bool]:
        """The first one speaks over a noisy line; a guest leaves it alone soon."""
        if urgent or not self.sharing.active:
            return super()._patience_s(device, urgent=urgent)
        return (self._quiet_s, True) if self.sharing.is_first(device) else (GUEST_PATIENCE_S, False)
