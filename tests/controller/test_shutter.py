"""The shutter is believed when it is read back, and not before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from controller.shutter import LOOK_S, LOOKS, Shutter
from drivers.errors import NoReply, Refused
from drivers.readings import IoReading
from drivers.roles import Role

TRAVEL_S = 0.4


class World:
    """A box whose shutter travels, its guard and a clock in one."""

    roles = frozenset({Role.SHUTTER})
    speed = 1.0

    def __init__(self, *, travel_s: float = TRAVEL_S) -> None:
        self.now = 0.0
        self.travel_s = travel_s
        self.told: bool | None = None
        self.moved_s = 0.0
        self.is_open = False
        self.refusal: str | None = None
        self.leases: list[str] = []
        self.lost = 0
        self.reads = 0
        self.trips_s = float("inf")

    async def set_shutter(self, *, open_: bool) -> None:
        self.told, self.moved_s = open_, self.now

    async def read(self) -> IoReading:
        self.reads += 1
        if self.lost:
            self.lost -= 1
            raise NoReply("no reply", device="io")
        if self.now - self.moved_s >= self.travel_s and self.told is not None:
            self.is_open = self.told
        seen = self.is_open if self.is_open == self.told else None
        return IoReading(self.now, 1e-12, True, False, seen, True)

    def io(self, reading: IoReading) -> None:
        if reading.monotonic_s >= self.trips_s:
            self.refusal = "tripped"

    def refuses(self) -> str | None:
        return self.refusal

    def lease(self, name: str, _s: float, _action: Any) -> None:
        self.leases.append(name)

    def release(self, name: str) -> None:
        self.leases.remove(name)

    async def sleep(self, lab_s: float) -> None:
        self.now += lab_s


def shutter(world: World) -> Shutter:
    return Shutter(world, world, world)  # type: ignore[arg-type]


async def test_opening_and_closing_end_when_the_read_back_says_so() -> None:
    world = World()
    one = shutter(world)
    await one.open()
    assert (world.is_open, world.leases) == (True, ["shutter"])
    assert world.now == pytest.approx(TRAVEL_S, abs=LOOK_S)
    await one.close()
    assert (world.is_open, world.leases) == (False, [])
    assert world.now == pytest.approx(2 * TRAVEL_S, abs=2 * LOOK_S)


async def test_a_lost_reply_is_read_again() -> None:
    world = World()
    world.lost = 5
    await shutter(world).open()
    assert world.is_open


async def test_one_that_does_not_move_is_named() -> None:
    world = World(travel_s=1e9)
    with pytest.raises(Refused, match="told to open and is not seen open"):
        await shutter(world).open()
    assert world.reads == LOOKS
    world.is_open = True
    with pytest.raises(Refused, match="told to close and is not seen closed"):
        await shutter(world).close()
    assert world.leases == []  # the guard is not to wait for it


async def test_after_a_trip_it_stays_closed_and_nothing_is_waited_for() -> None:
    world = World(travel_s=1e9)
    world.trips_s = 1.0
    with pytest.raises(Refused, match="stays closed: tripped"):
        await shutter(world).open()
    assert world.now == pytest.approx(1.0, abs=LOOK_S)
    await shutter(world).close()
    assert world.told is False
    assert world.now == pytest.approx(1.0, abs=LOOK_S)
    with pytest.raises(Refused, match="stays closed"):
        await shutter(world).open()
    assert world.told is False


async def test_a_station_without_one_waits_for_nothing() -> None:
    world = World()
    for io in (None, SimpleNamespace(roles=frozenset())):
        one = Shutter(io, world, world)  # type: ignore[arg-type]
        await one.open()
        await one.close()
        one.keep()
    assert (world.reads, world.leases, world.told) == (0, [], None)
