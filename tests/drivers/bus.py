"""An RS-485 pair in virtual time: units that answer, that are dead, that babble, behind one port.

Bytes take their time at 9600 baud. What several send at the same moment is mixed, as on a real pair.
"""

import asyncio
import contextlib
import random
import statistics
from dataclasses import dataclass, field

from drivers.errors import DriverError
from drivers.modbus import ModbusRtu, crc16

CHARACTER_S = 10 / 9600


@dataclass
class Unit:
    """One instrument: ``answers_s`` after the last bit it replies, unless it is dead."""

    number: int
    answers_s: float = 0.010
    dead: bool = False
    garbage: bool = False  # answers with nonsense
    asked: list = field(default_factory=list)  # when


class Bus:
    """The port; register n of every unit holds n."""

    where = "/dev/bus"
    character_s = CHARACTER_S
    notes = ()

    def __init__(self, units, seed=1):
        self.units = {unit.number: unit for unit in units}
        self.random = random.Random(seed)
        self._loop = asyncio.get_running_loop()
        self._came = asyncio.Event()
        self._coming = []  # (when its last bit is here, piece)
        self._babble = None

    async def open(self):
        pass

    async def close(self):
        if self._babble is not None:
            self._babble.cancel()

    async def write(self, data):
        end_s = self._loop.time() + len(data) * CHARACTER_S
        unit = self.units.get(data[0])
        if unit is None or crc16(data[:-2]) != data[-2:]:
            return
        unit.asked.append(end_s)
        if unit.dead:
            return
        register, count = int.from_bytes(data[2:4], "big"), int.from_bytes(data[4:6], "big")
        words = b"".join((register + n).to_bytes(2, "big") for n in range(count))
        reply = bytes((data[0], data[1], 2 * count)) + words
        reply += crc16(reply)
        if unit.garbage:
            reply = bytes(self.random.randrange(256) for _ in range(30))
        self.arrives(reply, end_s + unit.answers_s)

    def arrives(self, data, when_s):
        """Let ``data`` begin at ``when_s``; what falls into another piece spoils both."""
        end_s = when_s + len(data) * CHARACTER_S
        for place, (other_end_s, other) in enumerate(self._coming):
            if when_s < other_end_s and end_s > other_end_s - len(other) * CHARACTER_S:
                self._coming[place] = (other_end_s, bytes(byte ^ 0x55 for byte in other))
                data = bytes(byte ^ 0x33 for byte in data)
        self._coming.append((end_s, data))
        self._coming.sort(key=lambda item: item[0])
        self._came.set()

    def babble(self, every_s, size):
        """Let one of them talk unasked, on average so often."""

        async def talk():
            while True:
                await asyncio.sleep(self.random.expovariate(1.0 / every_s))
                noise = bytes(self.random.randrange(256) for _ in range(size))
                self.arrives(noise, self._loop.time())

        self._babble = asyncio.create_task(talk())

    async def read(self, timeout_s):
        end_s = self._loop.time() + timeout_s
        while True:
            if here := self.discard():
                return here
            now_s = self._loop.time()
            if now_s >= end_s:
                return b""
            until_s = min(end_s, self._coming[0][0]) if self._coming else end_s
            self._came.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(until_s - now_s, 1e-6)):
                    await self._came.wait()

    def discard(self):
        now_s = self._loop.time() + 1e-9
        here = [piece for when_s, piece in self._coming if when_s <= now_s]
        del self._coming[: len(here)]
        return b"".join(here)


@dataclass
class Polls:
    """When each poll of the heater was due, began on the line, and was complete."""

    late_s: list = field(default_factory=list)  # from due to complete
    failed: int = 0

    @property
    def worst_s(self):
        return max(self.late_s)

    @property
    def jitter_s(self):
        return statistics.pstdev(self.late_s)


async def heat(line, *, period_s, for_s, unit=1, timeout_s=0.15):
    """Poll as the heater's driver does: two exchanges, each repeated once if it fails."""
    modbus, polls = ModbusRtu(line, unit, device="heater", timeout_s=timeout_s, read_again=True), Polls()
    loop = asyncio.get_running_loop()
    due_s, end_s = loop.time() + period_s, loop.time() + for_s
    while due_s < end_s:
        await asyncio.sleep(max(due_s - loop.time(), 0.0))
        try:
            assert await modbus.read_holding(1, 10) == list(range(1, 11))
            assert await modbus.read_holding(75) == [75]
            polls.late_s.append(loop.time() - due_s)
        except DriverError:
            polls.failed += 1
        due_s += period_s * max(1, -int((due_s - loop.time()) // period_s))
    return polls


async def guest(line, number, *, every_s, timeout_s=0.3):
    """Ask one register again and again, as fast as it may."""
    modbus = ModbusRtu(line, number, device=f"guest {number}", timeout_s=timeout_s)
    while True:
        with contextlib.suppress(DriverError):
            await modbus.read_holding(number)
        await asyncio.sleep(every_s)
