"""Carrying out: drive outputs off concurrently, each with its own time limit, and say what was confirmed.

The same code runs in control and, when control cannot answer, in the supervisor: it needs only drivers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import asdict, dataclass

from controller.guard import Action
from drivers.roles import BeamlineIo, BeamScanner, Potentiostat, TemperatureController

OFF_TIMEOUT_S = 2.0  # wall seconds per device; the slowest answer is the potentiostat's abort


@dataclass(frozen=True)
class Outputs:
    """Every device that can energise something."""

    heater: TemperatureController
    cell: Potentiostat
    io: BeamlineIo
    scanner: BeamScanner


@dataclass(frozen=True)
class ActionResult:
    """What became of one off command."""

    output: str
    confirmed: bool
    seconds: float
    error: str = ""

    def as_dict(self) -> dict[str, object]:
        """Return the result as a plain dict for the journal."""
        return asdict(self)


async def carry_out(outputs: Outputs, action: Action) -> list[ActionResult]:
    """Do what a trip asks for; never raises, never waits longer than ``OFF_TIMEOUT_S``."""
    jobs: dict[str, Awaitable[None]] = {}
    if action is Action.SAFE:
        # The I/O box first in the dict, all at the same time: it holds the relay, the blank and the shutter.
        jobs["io"] = outputs.io.off()
        jobs["cell"] = outputs.cell.off()
        jobs["heater"] = outputs.heater.off()
    elif action is Action.HEATER_OFF:
        jobs["relay"] = outputs.io.set_relay(closed=False)
        jobs["heater"] = outputs.heater.off()
    elif action is Action.OPEN_CIRCUIT:
        jobs["cell"] = outputs.cell.off()
    elif action is Action.BLANK:
        jobs["beam"] = outputs.scanner.blank()
    elif action is Action.SHUTTER:
        jobs["beam"] = outputs.scanner.blank()
        jobs["shutter"] = outputs.io.set_shutter(open_=False)
    return list(await asyncio.gather(*(_one(name, job) for name, job in jobs.items())))


async def _one(name: str, job: Awaitable[None]) -> ActionResult:
    began = time.monotonic()
    try:
        await asyncio.wait_for(job, OFF_TIMEOUT_S)
    except Exception as error:  # whatever happened, the other outputs must still go off
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return ActionResult(name, confirmed=False, seconds=time.monotonic() - began, error=text)
    return ActionResult(name, confirmed=True, seconds=time.monotonic() - began)
