"""Polls every device that plays no role of the station: for the guard's rows, the record, whoever watches.

A driver of a third party is not trusted with more than its own readings: what it raises, or a poll that takes
too long, is a fault of that device, and its values are unknown from then on. It cannot hold up anything else,
as long as it does not block the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from controller.clock import Ticker
from drivers.errors import DriverError
from drivers.line import Interrupted
from drivers.roles import HeaterPower, Monitor, Stage, Thermometer

if TYPE_CHECKING:
    from controller.config.monitored import Channels
    from controller.guard import Guard
    from controller.record import Recorder
    from drivers.clock import Clock

LONGEST_POLL_S = 5.0  # wall seconds; whatever a line allows is shorter

Values = Mapping[str, float | bool | None]


async def values_of(device: object, channels: Channels) -> tuple[Values, tuple[str, ...]]:
    """Poll a device once; return its values by channel, and what it complains about.

    Raises:
        DriverError: as the device's driver does.
        TypeError: the device is none of the kinds that can be read so.
    """
    if isinstance(device, Monitor):
        found: Mapping[str, Any] = await device.read_values()
        return {channel: _plain(found.get(channel)) for channel in channels}, ()
    if isinstance(device, Stage):
        stage = await device.read()
        names = [channel for channel in channels if channel != "moving"]
        at = stage.position_um or (None,) * len(names)
        return {"moving": stage.moving, **dict(zip(names, at, strict=True))}, stage.problems
    if isinstance(device, HeaterPower):
        power = await device.read()
        supply = {"voltage": power.voltage_v, "current": power.current_a, "output": power.output_on}
        return {channel: supply.get(channel) for channel in channels}, power.problems
    if isinstance(device, Thermometer):
        reading = await device.read()
        return {"temperature": reading.temperature_k if reading.sensor_ok else None}, reading.problems
    raise TypeError(f"{device!r} is no monitor: it has no read_values, and its role no read")


def shown(values: Values, channels: Channels) -> str:
    """Return values in words, for ``check``."""
    told = []
    for name, value in values.items():
        unit = channels.get(name)
        if value is None:
            told.append(f"{name} unknown")
        elif isinstance(value, bool):
            told.append(f"{name} {'yes' if value else 'no'}")
        else:
            told.append(f"{name} {value:.5g} {unit or ''}".rstrip())
    return ", ".join(told)


class Monitors:
    """Owner of the polling of all further devices."""

    def __init__(
        self, devices: Mapping[str, object], channels: Mapping[str, Channels],
        periods_s: Mapping[str, float], guard: Guard, clock: Clock, recorder: Recorder,
    ) -> None:  # fmt: skip
        self._devices = devices
        self._channels = channels
        self._periods_s = periods_s
        self._guard = guard
        self._clock = clock
        self._recorder = recorder
        self.now: dict[str, Values] = {}  # the newest poll of each; what is not known is None

    async def poll(self) -> None:
        """Poll every device in its own period, for ever; ends only by cancellation."""
        if not self._channels:
            await asyncio.Event().wait()
        async with asyncio.TaskGroup() as tasks:
            for name in self._channels:
                tasks.create_task(self._poll(name))

    async def _poll(self, name: str) -> None:
        async for _ in Ticker(self._clock, self._periods_s[name]):
            await self.look(name)

    async def look(self, name: str) -> None:
        """Poll one device now."""
        channels, begun_s = self._channels[name], time.monotonic()
        try:
            async with asyncio.timeout(LONGEST_POLL_S):
                values, problems = await values_of(self._devices[name], channels)
        except Interrupted:  # something more urgent was said on its line; the next poll comes soon
            return
        except Exception as error:  # a driver of somebody else may let out anything
            own = isinstance(error, DriverError)
            text = str(error) if own else f"{name}: {type(error).__name__}: {error}"
            self._recorder.fault(name, text)
            self._take(name, dict.fromkeys(channels), (text,), begun_s)
            return
        self._take(name, values, problems, begun_s)

    def _take(self, name: str, values: Values, problems: tuple[str, ...], begun_s: float) -> None:
        self.now[name] = values
        self._guard.monitor(name, values, begun_s)
        self._recorder.monitor(name, values, self._channels[name], problems)


def _plain(value: Any) -> float | bool | None:
    """Return what a foreign driver gave as a plain value; what is neither number nor switch is unknown."""
    if value is None or isinstance(value, bool):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if number == number and abs(number) != float("inf") else None
