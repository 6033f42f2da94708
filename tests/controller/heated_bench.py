"""A thermometer and a supply on the bench's own holder, in virtual time: to test a loop in the host."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

from controller.host_pid import HostPid
from drivers.errors import DriverError, NoReply
from drivers.roles import Identity, PowerReading, Role, ThermometerReading
from hil_tests.sim.physics.holder import Holder
from tests.controller.virtual_time import VirtualLoop

T = TypeVar("T")
OHM = 20.0
FULL_W = 40.0
PERIOD_S = 0.5
GAINS = {"kp_w_per_k": 6.0, "ti_s": 60.0, "td_s": 2.0, "filter_s": 1.0}
PLANT = {"capacity_j_per_k": 85.0, "loss_w_per_k": 0.139, "ambient_k": 296.0}


class LoopClock:
    """Lab time is the loop's own, which is virtual in these tests."""

    speed = 1.0

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, lab_s: float) -> None:
        await asyncio.sleep(max(lab_s, 0.0))

    def wall_timeout_s(self, lab_deadline_s: float) -> float:
        return lab_deadline_s


class World:
    """The holder with its heater; time passes for it whenever somebody looks."""

    def __init__(self, start_k: float = 298.0) -> None:
        self.holder = Holder(start_k=start_k)
        self.relay = True
        self.line_share = 1.0  # of its voltage that the supply really gives
        self.stuck_v: float | None = None  # the output stays there, whatever is asked
        self._volts = 0.0
        self._then_s: float | None = None

    @property
    def volts(self) -> float:
        return self.stuck_v if self.stuck_v is not None else self._volts * self.line_share

    @property
    def watts(self) -> float:
        return self.volts**2 / OHM if self.relay else 0.0

    def set_volts(self, volts: float) -> None:
        self.advance()
        self._volts = volts

    def advance(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._then_s is not None:
            self.holder.set_duty(self.watts / self.holder.parameters.max_power_w)
            self.holder.process(now_s - self._then_s)
        self._then_s = now_s


class FakeDevice:
    """What is common to both: a name, a latency, and faults."""

    roles: frozenset[Role] = frozenset()

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.takes_s = 0.03
        self.fails: DriverError | None = None

    async def identify(self) -> Identity:
        return Identity("fake", self.name)

    async def prepare(self) -> list[str]:
        return []

    async def off(self) -> None:
        return

    async def close(self) -> None:
        return

    async def _answer(self) -> None:
        await asyncio.sleep(self.takes_s)
        self.world.advance()
        if self.fails is not None:
            raise self.fails


class FakeThermometer(FakeDevice):
    """Reads the holder's Pt100 to 0.01 K with 10 mK of noise."""

    roles = frozenset({Role.THERMOMETER})

    def __init__(self, world: World) -> None:
        super().__init__(world, "rtd")
        self.rng = random.Random(5)
        self.says: float | None = None  # in place of the truth
        self.open = False

    async def read(self) -> ThermometerReading:
        await self._answer()
        now_s = asyncio.get_running_loop().time()
        if self.open:
            return ThermometerReading(now_s, None, False, ("wire broken",))
        true_k = self.world.holder.pt100_k + self.rng.gauss(0.0, 0.01)
        return ThermometerReading(now_s, round(true_k, 2) if self.says is None else self.says, True)


class FakeSupply(FakeDevice):
    """Gives a voltage to the heater; keeps the last one if nobody asks."""

    roles = frozenset({Role.HEATER_POWER})

    def __init__(self, world: World) -> None:
        super().__init__(world, "psu")
        self.told: list[tuple[float, float]] = []
        self.offs: list[float] = []
        self.deaf = False

    async def set_power_w(self, power_w: float) -> None:
        await self._answer()
        self.told.append((asyncio.get_running_loop().time(), power_w))
        if not self.deaf:
            self.world.set_volts(math.sqrt(power_w * OHM))

    async def read(self) -> PowerReading:
        await self._answer()
        volts = self.world.volts
        amps = volts / OHM if self.world.relay else 0.0
        return PowerReading(asyncio.get_running_loop().time(), volts, amps, volts > 0.0)

    async def off(self) -> None:
        await self._answer()
        self.offs.append(asyncio.get_running_loop().time())
        self.world.set_volts(0.0)


class Rig:
    """One loop with its world, and the ticks that a heating task would make."""

    def __init__(self, start_k: float = 298.0, **settings: Any) -> None:
        self.world = World(start_k)
        self.rtd, self.psu = FakeThermometer(self.world), FakeSupply(self.world)
        self.pid = HostPid(
            {"thermometer": self.rtd, "supply": self.psu}, name="heater", clock=LoopClock(),
            settings={"period_s": PERIOD_S, "power_w": FULL_W, "gains": GAINS, **settings},
        )  # fmt: skip
        self.readings: list[Any] = []
        self.trace: list[tuple[float, float, float]] = []  # time, Pt100 as it is, watts
        self.errors: list[DriverError] = []

    async def run(self, seconds: float) -> None:
        """Tick as a heating task does: on a grid, errors told and gone on after."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + seconds
        due_s = loop.time()
        while due_s < end_s:
            try:
                self.readings.append(await self.pid.read())
            except DriverError as error:
                self.errors.append(error)
            self.world.advance()
            self.trace.append((loop.time(), self.world.holder.pt100_k, self.world.watts))
            due_s = max(due_s + PERIOD_S, loop.time())
            await asyncio.sleep(due_s - loop.time())


def virtually(work: Coroutine[Any, Any, T]) -> T:
    """Run in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


def gone() -> NoReply:
    """Return the error of a device that does not answer."""
    return NoReply("no reply within 0.3 s", device="rtd")
