"""For tests of the Keithley twins: our driver on the other end, in lab time that waits for nobody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from drivers.keithley_2400 import Keithley2400
from drivers.keithley_2450 import Keithley2450
from drivers.keithley_source import KeithleySource
from drivers.ports import open_line
from drivers.roles import CellEvent, CellEventKind, CellLimits, CellProgram, CellSample
from hil_tests.sim.keithley_2400 import Keithley2400Twin
from hil_tests.sim.keithley_2450 import Keithley2450Twin
from hil_tests.sim.physics.cell import Cell, CellParameters

WARM_K = 333.15
QUIET = {"voltage_noise_v": 0.0, "current_noise": 0.0}
STATION = {"voltage_low_v": 2.5, "voltage_high_v": 4.05, "current_limit_a": 40e-6}


def bounds(**changes: float) -> CellLimits:
    """Return limits wide enough for everything but what is changed."""
    wide = {"voltage_low_v": 2.5, "voltage_high_v": 4.05, "current_a": 40e-6, "charge_coulomb": 3.6}
    return CellLimits(**{**wide, "duration_s": 7200.0, **changes})


class JumpClock:
    """Lab time that moves when somebody waits for it, and then at once: a busy machine changes nothing."""

    speed = 1e6

    def __init__(self) -> None:
        self._now_s = 0.0

    def now_s(self) -> float:
        """Return lab time, s."""
        return self._now_s

    async def sleep(self, lab_s: float) -> None:
        """Let lab time pass."""
        self._now_s += max(lab_s, 0.0)
        await asyncio.sleep(0)

    def wall_timeout_s(self, lab_deadline_s: float) -> float:
        """Return the wall seconds of a deadline."""
        return lab_deadline_s / self.speed


class Rig:
    """A twin and our driver on the two ends of its wire."""

    def __init__(self, model: str, start_x: float, settings: dict[str, Any]) -> None:
        self.clock = JumpClock()
        self.cell = Cell(CellParameters(start_x=start_x), temperature_k=lambda: WARM_K)
        self.model = model
        twins = {"2400": Keithley2400Twin, "2450": Keithley2450Twin}
        self.twin = twins[model](self.cell, self.clock, {**QUIET, **settings})
        self.driver: KeithleySource

    async def open(self, **settings: Any) -> Rig:
        """Connect and prepare."""
        where = await self.twin.start()
        host, _, port = where.rpartition(":")
        table: dict[str, Any] = {"kind": "tcp", "host": host, "port": int(port)} if host else {}
        self.line = open_line("cell", table or {"kind": "serial", "port": where, "baud": 57600})
        await self.line.open()
        driver = {"2400": Keithley2400, "2450": Keithley2450}[self.model]
        self.driver = driver(self.line, name="cell", clock=self.clock, settings={**STATION, **settings})
        await self.driver.prepare()
        return self

    async def close(self) -> None:
        """Let go."""
        await self.driver.close()
        await self.twin.stop()

    def truth(self) -> dict[str, Any]:
        """Return what is true now."""
        self.twin.advance(self.clock.now_s())
        return self.twin.counters()

    async def run(self, program: CellProgram) -> tuple[list[CellSample], list[str], CellEvent]:
        """Run to the end; return samples, phases and the last event."""
        await self.driver.start(program)
        samples, phases = [], []
        while True:
            what = await self.driver.next(5.0)
            if isinstance(what, CellSample):
                samples.append(what)
            elif what.kind is CellEventKind.PHASE:
                phases.append(what.detail)
            elif what.kind is not CellEventKind.STARTED:
                return samples, phases, what


@contextlib.asynccontextmanager
async def a_rig(
    model: str, *, start_x: float = 0.8, driver: dict[str, Any] | None = None, **twin: Any
) -> AsyncIterator[Rig]:
    """Open a rig for a block."""
    rig = await Rig(model, start_x, twin).open(**(driver or {}))
    try:
        yield rig
    finally:
        await rig.close()
