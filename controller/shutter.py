"""The shutter: opened under a lease, closed again, and neither believed before it is read back.

It takes its time to travel. What is counted while it still moves is neither dark nor lit: frames of a dark
image, taken as it closes, would be subtracted from every later one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from controller.guard import Action
from drivers.errors import DriverError, Refused
from drivers.roles import Role

if TYPE_CHECKING:
    from controller.guard import Guard
    from drivers.clock import Clock
    from drivers.readings import IoReading
    from drivers.roles import BeamlineIo

LEASE_S = 60.0  # longer than a pass takes to be closed and the next one to be opened
LOOK_S, LOOKS = 0.05, 200  # wall seconds between two looks; in all longer than the guard is patient


async def until_read_back(
    io: BeamlineIo, guard: Guard, clock: Clock, holds: Callable[[IoReading], bool]
) -> bool:
    """Read the box until what was commanded is seen; return whether it was. The guard sees every reading.

    A lost reply is read again: the guard decides when the box has been silent for too long, and then, or
    after any other trip, nothing is waited for.
    """
    for look in range(LOOKS):
        if look and guard.refuses() is not None:
            break
        if look:
            await clock.sleep(LOOK_S * clock.speed)
        with contextlib.suppress(DriverError):
            reading = await io.read()
            guard.io(reading)  # its last one may be of the moment before
            if holds(reading):
                return True
    return False


class Shutter:
    """The shutter of a station; without one, nothing is moved and nothing waited for.

    Args:
        io: the box that moves it, if there is a box.
        guard: holds its lease, and refuses to open it after a trip.
        clock: lab time.
    """

    def __init__(self, io: BeamlineIo | None, guard: Guard, clock: Clock) -> None:
        self._io = io if io is not None and Role.SHUTTER in io.roles else None
        self._guard = guard
        self._clock = clock

    async def open(self) -> None:
        """Open it under a lease that lines, waits and passes renew; return when it is seen open.

        Raises:
            Refused: after a trip, or it does not open.
            NoReply, BadReply: from the box.
        """
        self._may_open()
        if self._io is None:
            return
        self.keep()
        await self._io.set_shutter(open_=True)
        if not await self._seen(self._io, open_=True):
            self._may_open()
            raise Refused("the shutter was told to open and is not seen open", device="io")

    def keep(self) -> None:
        """Renew the lease: whoever needs it open is alive."""
        if self._io is not None:
            self._guard.lease("shutter", LEASE_S * max(1.0, self._clock.speed), Action.SHUTTER)

    async def close(self) -> None:
        """Close it and give its lease back; return when it is seen closed, at once after a trip.

        Raises:
            Refused: it does not close.
            NoReply, BadReply: from the box.
        """
        if self._io is None:
            return
        try:
            await self._io.set_shutter(open_=False)
        finally:
            self._guard.release("shutter")
        if not await self._seen(self._io, open_=False) and self._guard.refuses() is None:
            raise Refused("the shutter was told to close and is not seen closed", device="io")

    def _may_open(self) -> None:
        if refusal := self._guard.refuses():
            raise Refused(f"the shutter stays closed: {refusal}", device="io")

    async def _seen(self, io: BeamlineIo, *, open_: bool) -> bool:
        return await until_read_back(
            io, self._guard, self._clock, lambda reading: reading.shutter_open is open_
        )
