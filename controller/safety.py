"""Carrying out: drive outputs off concurrently, each with its own time limit, and say what was confirmed.

The same code runs in control and, when control cannot answer, in the supervisor: it needs only drivers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from controller.guard import Action
from drivers.errors import BadReply
from drivers.line import Interrupted
from drivers.roles import BeamlineIo, BeamScanner, Device, Potentiostat, Role, TemperatureController

OFF_TIMEOUT_S = 2.0  # wall seconds per device; the slowest answer is the potentiostat's abort
READ_BACK_S, READ_BACK_POLL_S = 1.2, 0.05  # a shutter takes its time to move


@dataclass(frozen=True)
class Outputs:
    """Every device that can energise something; None for what a station does not have."""

    heater: TemperatureController | None
    cell: Potentiostat | None
    io: BeamlineIo | None
    scanner: BeamScanner | None
    others: Mapping[str, Device] = field(default_factory=dict)  # whatever else there is, by name


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


async def drive_all_off(
    outputs: Outputs, wires: Mapping[str, Sequence[asyncio.Task[None]]] | None = None
) -> list[ActionResult]:
    """Drive every output off at the same time; ``wires`` are what each has to wait for, by output."""
    jobs: dict[str, Awaitable[None]] = {}
    if outputs.io is not None:  # first: it holds the relay, the blank and the shutter
        jobs["io"] = _io_off(outputs.io)
    if outputs.cell is not None:
        jobs["cell"] = outputs.cell.off()
    if outputs.heater is not None:
        jobs["heater"] = outputs.heater.off()
    jobs |= {name: device.off() for name, device in outputs.others.items()}
    waits = wires or {}
    return list(await asyncio.gather(*(_one(name, job, waits.get(name, ())) for name, job in jobs.items())))


async def carry_out(outputs: Outputs, action: Action) -> list[ActionResult]:
    """Do what a trip asks for; never raises, never waits longer than ``OFF_TIMEOUT_S``."""
    if action is Action.SAFE:
        return await drive_all_off(outputs)
    io, scanner = outputs.io, outputs.scanner
    jobs: dict[str, Awaitable[None]] = {}
    if action is Action.HEATER_OFF:
        if io is not None and _has(io, Role.RELAY):
            jobs["relay"] = io.set_relay(closed=False)
        if outputs.heater is not None:
            jobs["heater"] = outputs.heater.off()
    elif action is Action.OPEN_CIRCUIT and outputs.cell is not None:
        jobs["cell"] = outputs.cell.off()
    elif action in (Action.BLANK, Action.SHUTTER):
        if scanner is not None:
            jobs["beam"] = scanner.blank()
        if action is Action.SHUTTER and io is not None and _has(io, Role.SHUTTER):
            jobs["shutter"] = _shutter_off(io)
    return list(await asyncio.gather(*(_one(name, job) for name, job in jobs.items())))


async def _io_off(io: BeamlineIo) -> None:
    """Everything of the box off; confirmed only when its own read-back says so."""
    await io.off()
    await _seen_off(io)


async def _shutter_off(io: BeamlineIo) -> None:
    await io.set_shutter(open_=False)
    await _seen_off(io, only_shutter=True)


async def _seen_off(io: BeamlineIo, *, only_shutter: bool = False) -> None:
    """Wait until the box reads back what was asked for. Raises BadReply when the shutter does not close."""
    deadline = time.monotonic() + READ_BACK_S
    while True:
        try:
            reading = await io.read()
        except Interrupted:  # by another off command, which is as good
            await asyncio.sleep(READ_BACK_POLL_S)
            continue
        closed = reading.shutter_open is False or not _has(io, Role.SHUTTER)
        wrong = [] if closed else ["the shutter is not closed"]
        if not only_shutter:
            wrong += ["the relay is closed"] if reading.relay_closed else []
            wrong += [] if reading.blanked else ["the beam is not blanked"]
        if not wrong:
            return
        if time.monotonic() > deadline:
            raise BadReply(f"was switched off, and by its read-back {', '.join(wrong)}", device="io")
        await asyncio.sleep(READ_BACK_POLL_S)


def _has(io: BeamlineIo, role: Role) -> bool:
    return role in getattr(io, "roles", frozenset())


async def _one(name: str, job: Awaitable[None], wires: Sequence[asyncio.Task[None]] = ()) -> ActionResult:
    began = time.monotonic()
    try:
        for wire in wires:
            await wire
        await asyncio.wait_for(job, OFF_TIMEOUT_S)
    except Exception as error:  # whatever happened, the other outputs must still go off
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return ActionResult(name, confirmed=False, seconds=time.monotonic() - began, error=text)
    return ActionResult(name, confirmed=True, seconds=time.monotonic() - began)
