"""Builds the instruments of a station: lines, drivers, roles. Used by host, check and the off path."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from controller.config.instruments.base import Composite
from controller.host_pid import HostPid
from controller.safety import Outputs
from drivers.errors import Refused
from drivers.ports import open_line
from drivers.registry import driver_class
from drivers.shared_line import SharedLine

if TYPE_CHECKING:
    from controller.config.limits import CellWindow
    from controller.config.station import Station
    from drivers.clock import Clock
    from drivers.line import Line, Trace
    from drivers.roles import (
        BeamlineIo,
        BeamScanner,
        Device,
        EventDetector,
        FrameDetector,
        Identity,
        Potentiostat,
        Stage,
        TemperatureController,
    )

# Devices made of others, by the name of their driver.
COMPOSED: dict[str, Callable[..., Device]] = {"host_pid": HostPid}


@dataclass(frozen=True)
class Bench:
    """The open instruments of one station, by the roles the controller knows; None for what it has not."""

    lines: dict[str, Line]
    devices: dict[str, Device]
    heater: TemperatureController | None
    cell: Potentiostat | None
    io: BeamlineIo | None
    scanner: BeamScanner | None
    detectors: dict[str, EventDetector]
    stage: Stage | None = None
    frames: dict[str, FrameDetector] = field(default_factory=dict)  # by role: compton, radiography
    others: dict[str, Device] = field(default_factory=dict)  # monitors, stage, cameras: safe states, too

    @property
    def outputs(self) -> Outputs:
        """Everything that can energise something."""
        return Outputs(self.heater, self.cell, self.io, self.scanner, self.others)

    async def close(self) -> None:
        """Release every line."""
        await asyncio.gather(*(device.close() for device in self.devices.values()), return_exceptions=True)
        await asyncio.gather(*(line.close() for line in self.lines.values()), return_exceptions=True)


async def introduce(device: Device) -> tuple[Identity, list[str]]:
    """Identify an instrument and bring it into its safe state; return who it is and what ``prepare`` notes.

    One that is still busy with what an earlier host had started (a power cut does not stop the potentiostat's
    script) refuses to say who it is until that has been ended.
    """
    try:
        identity = await device.identify()
    except Refused:
        await device.prepare()
        identity = await device.identify()
    return identity, await device.prepare()


def build(
    station: Station, clock: Clock, *, only: Iterable[str] | None = None,
    trace: Callable[[str], Trace] | None = None,
    limits: CellWindow | None = None,
) -> Bench:  # fmt: skip
    """Return the instruments of a station, their ports not yet opened.

    Args:
        station: a validated station file.
        clock: lab time, for the drivers that wait in it.
        only: device names to build; default all.
        limits: tighter ones than the station's, of the chemistry and the sample.
        trace: returns for a line what it calls with direction, bytes and time of everything on its wire.
    """
    wanted = set(station.devices if only is None else only)
    wanted |= {part for name in wanted for part in station.drives(name)}
    lines: dict[str, Line] = {}
    devices: dict[str, Any] = {}
    users = Counter(getattr(station.devices[name], "line", "") for name in wanted)
    for name, table in sorted(station.devices.items(), key=lambda item: isinstance(item[1], Composite)):
        if name not in wanted:
            continue
        settings = {**table.settings(), **table.hard_limits(station.limits, limits)}
        if isinstance(table, Composite):
            parts = {key: devices[getattr(table, key)] for key in table.parts}
            devices[name] = COMPOSED[table.driver](parts, name=name, clock=clock, settings=settings)
            continue
        if table.line not in lines:
            lines[table.line] = open_line(
                table.line, station.lines[table.line].model_dump(),
                trace=trace(table.line) if trace is not None else None,
                shared=users[table.line] > 1,
            )  # fmt: skip
        line = lines[table.line]
        if isinstance(line, SharedLine) and (unit := settings.get("unit_id")) is not None:
            line.of_unit(name, int(unit))
        driver = driver_class(table.driver)
        devices[name] = driver(line, name=name, clock=clock, settings=settings)
    roles = station.roles
    _heater_first(station, clock, lines)
    detectors = {
        role: cast("EventDetector", devices[name])
        for role, name in roles.named()
        if role in ("pixe", "pige") and name in devices
    }
    frames = {
        role: cast("FrameDetector", devices[name])
        for role, name in roles.named()
        if role in ("compton", "radiography") and name in devices
    }
    seen = {getattr(roles, role) for role in frames}
    io, scanner = devices.get(station.io_name or ""), devices.get(roles.scanner or "")
    return Bench(
        lines, devices, devices.get(roles.heater or ""), devices.get(roles.cell or ""),
        cast("BeamlineIo | None", io), cast("BeamScanner | None", scanner), detectors,
        devices.get(roles.stage or ""), frames,
        {name: device for name, device in devices.items() if name in station.monitors or name in seen},
    )  # fmt: skip


def _heater_first(station: Station, clock: Clock, lines: Mapping[str, Line]) -> None:
    """On a line that several share, the heater, or what its loop is made of, goes before the others."""
    heater = station.roles.heater
    if heater is None:
        return
    period_s = station.devices[heater].period_s / clock.speed
    for name in (heater, *station.drives(heater)):
        line = lines.get(getattr(station.devices[name], "line", ""))
        if isinstance(line, SharedLine):
            line.first(name, period_s)
