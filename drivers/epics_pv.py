"""Signals of the beamline that EPICS serves: ring current, front-end and hutch shutters, as monitors.

Channel Access (caproto, pure Python) or PVAccess (p4p), polled by a process of its own (``epics_worker``).
Whatever is disconnected, invalid, too old or without a living heartbeat is not known, and a row of interlocks
about it counts as met.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from drivers.clock import Clock
from drivers.errors import NoReply, Refused
from drivers.line import Line
from drivers.roles import Identity, Role

SHORTEST_S = 0.1  # wall: no PV is polled more often, however fast lab time runs
SILENT_S = 3.0  # wall: the process is as good as dead
START_S = 15.0  # wall: a fresh interpreter on a busy machine
AGAIN_S = 5.0  # wall: a process that died is not started more often
GONE_S = 1.0
LINE_BYTES = 1 << 20
HEARTBEAT = "heartbeat"
PACKAGES = {"ca": "caproto", "pva": "p4p"}


def channels(settings: Mapping[str, Any]) -> Mapping[str, str | None]:
    """Return name and unit of each channel, from the table ``channels`` of the device."""
    found: dict[str, str | None] = {}
    for name, told in settings.get("channels", {}).items():
        found[name] = None if told.get("switch") else str(told.get("unit") or "")
    return found


class _Pulse:
    """Whether something has changed of late, by our own clock: clocks of others may be wrong."""

    def __init__(self, within_s: float) -> None:
        self.within_s = within_s
        self._last: Any = None
        self._changed_s = time.monotonic()

    def take(self, value: Any) -> None:
        if value != self._last:
            self._last, self._changed_s = value, time.monotonic()

    def late(self) -> bool:
        return time.monotonic() - self._changed_s > self.within_s


class EpicsPv:
    """PVs as a monitor.

    Args:
        line: where PVs are searched for; nothing is sent over it from here.
        name: for messages, as in the station file.
        clock: lab time, in which periods pass.
        settings: ``protocol`` (ca or pva), ``period_s``, ``channels`` (name -> ``pv``, ``unit`` or
            ``switch``, ``within_s`` for one whose time stamp must move on), ``heartbeat`` (``pv``,
            ``within_s``).
    """

    channels = staticmethod(channels)
    roles = frozenset({Role.MONITOR})

    def __init__(self, line: Line, *, name: str, clock: Clock, settings: Mapping[str, Any]) -> None:
        self.name = name
        self._line = line
        self._clock = clock
        self._settings = dict(settings)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._now: dict[str, Any] = {}
        self._heard = asyncio.Event()
        self._heard_s = self._spawned_s = -1e9
        self._error = ""
        told: Mapping[str, Any] = self._settings["channels"]
        self._pulses = {
            channel: _Pulse(one["within_s"]) for channel, one in told.items() if one.get("within_s")
        }  # fmt: skip
        beat = self._settings.get(HEARTBEAT)
        self._beat = _Pulse(beat["within_s"]) if beat else None

    async def identify(self) -> Identity:
        """Say where the PVs come from."""
        return Identity("EPICS", f"{self._settings['protocol']} {self._line.where}")

    async def prepare(self) -> list[str]:
        """Start the process and hear of every PV once.

        Returns:
            What is not known yet, in words: a shutter may well be disconnected when a run begins.

        Raises:
            Refused: the package for the protocol is not there.
            NoReply: the process says nothing.
        """
        package = PACKAGES[self._settings["protocol"]]
        if find_spec(package) is None:
            raise Refused(f"needs the package {package}: pip install operando[epics]", device=self.name)
        await self._end()
        self._heard.clear()
        await self._spawn()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                await self._heard.wait()
        if not self._heard.is_set():
            raise NoReply(f"nothing was heard of its process for {START_S:g} s", device=self.name)
        unit = [name for name, one in self._settings["channels"].items() if not one.get("within_s")]
        notes = [f"{self.name}: {told['why']}" for told in self._now.values() if told.get("why")]
        if self._beat is None and unit:
            names = ", ".join(unit)
            notes.append(f"{self.name}: no heartbeat: nobody notices a gateway that repeats old {names}")
        return notes

    async def read_values(self) -> Mapping[str, float | bool | None]:
        """Return what is known now. Raises NoReply when the process that reads has died or hangs."""
        if self._process is None or self._process.returncode is not None:
            if time.monotonic() - self._spawned_s > AGAIN_S:
                await self._spawn()
            raise NoReply("the process that reads its PVs has ended", device=self.name)
        silent_s = time.monotonic() - self._heard_s
        if silent_s > SILENT_S + self._period_s:
            raise NoReply(f"nothing was heard of its process for {silent_s:.0f} s", device=self.name)
        alive = self._beat is None or not self._beat.late()
        return {name: self._value(name) if alive else None for name in self._settings["channels"]}

    async def off(self) -> None:
        """Nothing to switch off: this device only listens."""

    async def close(self) -> None:
        """End the process."""
        await self._end()
        await self._line.close()

    # --- inside ------------------------------------------------------------------------------------------

    @property
    def _period_s(self) -> float:
        return max(float(self._settings["period_s"]) / self._clock.speed, SHORTEST_S)

    def _value(self, name: str) -> float | bool | None:
        """Return a channel's value, None when it is not known."""
        told, about = self._now.get(name, {}), self._settings["channels"][name]
        pulse = self._pulses.get(name)
        if "v" not in told or (pulse is not None and pulse.late()):
            return None
        value = told["v"]
        if isinstance(value, str):
            return None
        return bool(value) if about.get("switch") else float(value)

    def _take(self, told: dict[str, Any]) -> None:
        self._now, self._heard_s = told, time.monotonic()
        for name, pulse in self._pulses.items():
            if told.get(name, {}).get("stamp") is not None:
                pulse.take(told[name]["stamp"])
        beat = told.get(HEARTBEAT, {})
        if self._beat is not None and "v" in beat:
            self._beat.take(beat["v"])
        self._heard.set()

    async def _spawn(self) -> None:
        host, _, port = self._line.where.removeprefix("epics://").rpartition(":")
        wanted = {name: one["pv"] for name, one in self._settings["channels"].items()}
        if self._beat is not None:
            wanted[HEARTBEAT] = self._settings[HEARTBEAT]["pv"]
        told = {
            "protocol": self._settings["protocol"], "host": host, "port": int(port),
            "period_s": self._period_s, "channels": wanted,
        }  # fmt: skip
        env = {key: value for key, value in os.environ.items() if not key.startswith("EPICS_")}
        env |= {"EPICS_CA_ADDR_LIST": f"{host}:{port}", "EPICS_CA_AUTO_ADDR_LIST": "NO"}
        self._spawned_s = time.monotonic()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "drivers.epics_worker", json.dumps(told), env=env,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE_BYTES,
        )  # fmt: skip
        self._heard_s = time.monotonic()
        self._now = {}
        if self._reader is not None:
            self._reader.cancel()
        self._reader = asyncio.create_task(self._listen(self._process))

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            return
        with contextlib.suppress(ValueError, ConnectionError):  # a line that is no process of ours
            while line := await process.stdout.readline():
                self._take(json.loads(line))

    async def _end(self) -> None:
        process, self._process = self._process, None
        reader, self._reader = self._reader, None
        if process is not None and process.returncode is None:
            if process.stdin is not None:
                process.stdin.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), GONE_S)
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if reader is not None:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
