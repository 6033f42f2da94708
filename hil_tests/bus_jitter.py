"""How punctually a heater is read on a pair that it shares: on pseudo-terminals, at 9600 baud, in real time.

    python -m hil_tests.bus_jitter --seconds 30

One line for each pair: how long from the moment a poll was due until it was complete (two exchanges of the
temperature controller), and how often the others were asked. The twins add the time on the wire; everything
else is this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics

from drivers.errors import DriverError
from drivers.line import Line
from drivers.modbus import ModbusRtu
from drivers.port_serial import SerialPort
from drivers.shared_line import SharedLine
from hil_tests.sim.eurotherm_3200 import Neighbour
from hil_tests.sim.wire.modbus_rtu import GapFramer, RtuSlave, gap_s
from hil_tests.sim.wire.serial_pty import SerialPty

BAUD, BITS = 9600, 10
PERIOD_S = 0.25
ANSWERS_S = 0.01
CASES = {  # guests that answer, that are dead, and how far apart somebody babbles
    "alone": (0, 0, 0.0),
    "1 that answers": (1, 0, 0.0),
    "1 dead": (0, 1, 0.0),
    "4, 2 of them dead": (2, 2, 0.0),
    "8, 4 of them dead": (4, 4, 0.0),
    "8 dead": (0, 8, 0.0),
    "4, one babbles 8 bytes a second": (4, 0, 1.0),
}


class Pair:
    """Several units on one pseudo-terminal."""

    def __init__(self, lively: int, babbles_s: float) -> None:
        self.slaves = [RtuSlave(number, Neighbour()) for number in range(1, 2 + lively)]
        self._framer = GapFramer(self._frame, gap_s(BAUD, BITS))
        self.port = SerialPty(self._framer.feed, baud=BAUD, bits=BITS)
        self._babbles_s = babbles_s
        self._random = random.Random(1)  # noqa: S311

    def _frame(self, frame: bytes) -> None:
        for slave in self.slaves:
            reply = slave.answer(frame)
            if reply is not None:
                self.port.send(reply, ANSWERS_S)

    async def babble(self) -> None:
        """Talk unasked for ever."""
        while self._babbles_s > 0.0:
            await asyncio.sleep(self._random.expovariate(1.0 / self._babbles_s))
            self.port.send(self._random.randbytes(8))


async def guest(line: Line, number: int, asked: list[int]) -> None:
    """Ask one unit again and again, as fast as it may."""
    unit = ModbusRtu(line, number, device=f"guest {number}", timeout_s=0.3)
    while True:
        with contextlib.suppress(DriverError):
            await unit.read_holding(number)
            asked[0] += 1
        await asyncio.sleep(0.05)


async def measure(name: str, seconds: float, *, rules: bool) -> str:
    """Return one line of the table."""
    lively, dead, babbles_s = CASES[name]
    pair = Pair(lively, babbles_s)
    kind = SharedLine if rules else Line
    line = kind("bus", SerialPort(pair.port.open(), BAUD))
    if isinstance(line, SharedLine):
        line.first("heater", PERIOD_S)
    await line.open()
    asked = [0]
    others = [asyncio.create_task(guest(line, number, asked)) for number in range(2, 2 + lively + dead)]
    others.append(asyncio.create_task(pair.babble()))
    took_s, failed, missed = await polls(line, seconds)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await line.close()
    pair.port.close()
    took_s.sort()
    ms = [
        1000.0 * value for value in (statistics.median(took_s), took_s[int(0.99 * len(took_s))], took_s[-1])
    ]
    return (
        f"| {name} | {'yes' if rules else 'no'} | {ms[0]:.0f} | {ms[1]:.0f} | {ms[2]:.0f} | {missed} of "
        f"{len(took_s) + failed + missed} | {failed} | {asked[0] / seconds:.1f} |"
    )


async def polls(line: Line, seconds: float) -> tuple[list[float], int, int]:
    """Poll as the heater's driver does; return the times from due to complete, failures, missed periods."""
    heater = ModbusRtu(line, 1, device="heater", timeout_s=0.15, read_again=True)
    loop = asyncio.get_running_loop()
    due_s, end_s = loop.time() + PERIOD_S, loop.time() + seconds
    took_s, failed, missed = [], 0, 0
    while due_s < end_s:
        await asyncio.sleep(max(due_s - loop.time(), 0.0))
        try:
            await heater.read_holding(1, 10)
            await heater.read_holding(75)
            took_s.append(loop.time() - due_s)
        except DriverError:
            failed += 1
        due_s += PERIOD_S
        while due_s <= loop.time() - PERIOD_S:
            due_s += PERIOD_S
            missed += 1
    return took_s, failed, missed


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="for each line of the table")
    seconds = parser.parse_args().seconds
    print("| others on the pair | rules | median ms | 99 % | worst | periods missed | failed | answers /s |")
    print("|---|---|---|---|---|---|---|---|")
    for name in CASES:
        for rules in (False, True):
            print(await measure(name, seconds, rules=rules), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
