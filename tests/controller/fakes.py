"""Fakes for the host's tasks: a clock that moves when slept on, and instruments that do what a test says."""

from __future__ import annotations

import asyncio
from typing import Any

from drivers.errors import NoReply
from drivers.roles import CellEvent, CellProgram, CellSample, HeaterReading


class SteppedClock:
    """Lab time that passes only by sleeping; every sleep yields once."""

    speed = 1.0

    def __init__(self) -> None:
        self.s = 0.0

    def now_s(self) -> float:
        return self.s

    async def sleep(self, lab_s: float) -> None:
        self.s += max(lab_s, 0.0)
        await asyncio.sleep(0)

    def wall_timeout_s(self, lab_deadline_s: float) -> float:
        return lab_deadline_s


class FakeRecorder:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.gaps: list[str] = []
        self.samples: list[Any] = []
        self.passes: list[Any] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def fault(self, module: str, text: str) -> None:
        self.lines.append(f"{module}: {text}")

    def gap(self, module: str, text: str, lab_s: float, *, end: bool = False) -> None:
        self.gaps.append(text)

    def heater(self, reading: HeaterReading, target_k: float | None) -> None:
        self.samples.append(reading)

    def cell(self, sample: CellSample, now: Any) -> None:
        self.samples.append(sample)

    def cell_event(self, event: CellEvent) -> None:
        self.lines.append(event.kind.value)

    async def cell_program(self, program: CellProgram, now: Any) -> None:
        pass

    def cell_opened(self, now: Any) -> None:
        pass

    def scan_pass(self, scan: int, outcome: Any, message: Any) -> None:
        self.passes.append((outcome, message))


class FakeGuard:
    """A guard that refuses only when told."""

    def __init__(self) -> None:
        self.refusal: str | None = None
        self.leases: dict[str, float] = {}
        self.released: list[str] = []
        self.cell_expected: list[bool] = []
        self.cell_paces: list[float] = []

    def refuses(self) -> str | None:
        return self.refusal

    def refuses_target(self, target_k: float) -> str | None:
        return None

    def heater(self, reading: HeaterReading) -> None:
        pass

    def heater_asked(self, target_k: float | None) -> None:
        pass

    def cell(self, sample: CellSample) -> None:
        pass

    def expect_cell(self, running: bool, interval_s: float = 0.0) -> None:
        self.cell_expected.append(running)

    def pace_cell(self, interval_s: float) -> None:
        self.cell_paces.append(interval_s)

    def lease(self, output: str, lifetime_s: float, action: Any) -> None:
        self.leases[output] = lifetime_s

    def release(self, output: str) -> None:
        self.leases.pop(output, None)
        self.released.append(output)


class FakeCell:
    """A potentiostat that plays a list of samples and events; then it is silent."""

    name = "cell"
    roles: frozenset[Any] = frozenset()

    def __init__(self, script: list[CellSample | CellEvent | Exception]) -> None:
        self.script = list(script)
        self.running = False
        self.started: list[CellProgram] = []
        self.stops = 0

    async def start(self, program: CellProgram) -> None:
        self.started.append(program)
        self.running = True

    async def next(self, timeout_s: float) -> CellSample | CellEvent:
        await asyncio.sleep(0)
        if not self.script:
            raise NoReply("silent", device="cell")
        heard = self.script.pop(0)
        if isinstance(heard, Exception):
            raise heard
        return heard

    async def stop(self) -> None:
        self.stops += 1
        self.running = False
