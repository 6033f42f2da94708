"""What a row of the fault catalogue needs to be other than usual at its station.

A setting gets the bench, the folder of the row, a table for the things it makes, and a list of what is to be
undone; it returns the bench with the station file that the row runs with.
"""
# ruff: noqa: S101  # tests only: an assert is what this file is for

from __future__ import annotations

import contextlib
import copy
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hil_tests.fault_clock import ClockHook
from hil_tests.harness import World, a_bench, edited_station
from tests.controller.mosquitto import USERS, Mosquitto
from tests.controller.wire import Foreign

Undo = list[Callable[[], None]]
Setting = Callable[[World, Path, dict[str, Any], Undo], World]

SMALL_DISK = "size=24m"
MOUNT = ("mount", "-t", "tmpfs", "-o")
UNMOUNT = ("umount", "-l")
NEIGHBOUR_DRIVER = '''"""A second instrument on the heater's RS-485 pair, asked all the time."""

import asyncio

from drivers.errors import DriverError
from drivers.modbus import ModbusRtu
from drivers.roles import Identity


class Neighbour:
    roles = frozenset()

    def __init__(self, line, *, name, clock, settings):
        self.name = name
        self._line = line
        self._unit = ModbusRtu(line, int(settings["unit_id"]), device=name, timeout_s=0.3)
        self._asking = None

    async def identify(self):
        await self._unit.read_holding(1)
        return Identity("Elsewhere", "transmitter")

    async def prepare(self):
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        return []

    async def _ask(self):
        while True:
            try:
                await self._unit.read_holding(1)
            except DriverError:
                pass
            await asyncio.sleep(0.05)

    async def off(self):
        pass

    async def close(self):
        if self._asking is not None:
            self._asking.cancel()
        await self._line.close()
'''


def at(world: World, station: Path) -> World:
    """Return the same bench behind another station file."""
    other = copy.copy(world)
    other.station = station
    return other


def mosquitto(world: World, folder: Path, things: dict[str, Any], undo: Undo) -> World:
    """A broker of the station's own, and a subscriber that keeps its session."""
    broker = Mosquitto(folder / "mosquitto").start()
    undo.append(broker.stop)
    return _with_broker(world, folder, things, undo, broker)


def mosquitto_on_a_small_disk(world: World, folder: Path, things: dict[str, Any], undo: Undo) -> World:
    """The same, and what it keeps is on a disk of its own, a small one. Needs root."""
    place = folder / "mosquitto"
    place.mkdir(parents=True)
    mount(place, SMALL_DISK)
    undo.append(lambda: unmount(place))
    things["disk"] = place
    return mosquitto(world, folder, things, undo)


def _with_broker(world: World, folder: Path, things: dict[str, Any], undo: Undo, broker: Mosquitto) -> World:
    recorder = Foreign(
        broker.port, "viewer", USERS["viewer"], name="recorder", persistent=True,
        subscribe=["operando/v1/bench/#"],
    )  # fmt: skip
    undo.append(recorder.close)
    assert recorder.subscribed.wait(10.0)
    things.update(broker=broker, recorder=recorder)
    table = "\n".join(f'{key} = "{value}"' for key, value in broker.table.items())
    station = edited_station(
        world, folder / "station.toml", lambda text: text.replace('kind = "embedded"', table)
    )
    return at(world, station)


def ports_by_name(world: World, folder: Path, things: dict[str, Any], undo: Undo) -> World:
    """Serial ports under names that stay, as udev makes them below /dev/serial/by-id."""
    twins = world.ask("counters")["twins"]

    def by_name(text: str) -> str:
        for target in ("heater", "cell"):
            name = twins[target]["port"]
            text = text.replace(f'"{os.path.realpath(name)}"', f'"{name}"')
        return text

    station = edited_station(world, folder / "station.toml", by_name)
    assert station.read_text() != world.station.read_text()
    return at(world, station)


def shared_bus(world: World, folder: Path, things: dict[str, Any], undo: Undo) -> World:
    """A second instrument, with a driver from elsewhere, on the RS-485 pair of the heater."""
    plug_in = folder / "plug-in"
    metadata = plug_in / "neighbour_operando-1.0.dist-info"
    metadata.mkdir(parents=True)
    (plug_in / "neighbour_operando.py").write_text(NEIGHBOUR_DRIVER)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: neighbour-operando\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[operando.drivers]\nneighbour = neighbour_operando:Neighbour\n"
    )
    extend_path(plug_in, undo)
    world.fault("heater", "neighbour", answers=True)
    table = '[device.neighbour]\ndriver = "neighbour"\nline = "heater"\nunit_id = 2\nperiod = "1 s"\n\n'
    station = edited_station(
        world, folder / "station.toml", lambda text: text.replace("[roles]", f"{table}[roles]")
    )
    return at(world, station)


def shared_bus_read_fast(world: World, folder: Path, things: dict[str, Any], undo: Undo) -> World:
    """The same, and the heater is read four times a second whatever the row makes calmer."""
    shared = shared_bus(world, folder, things, undo)
    station = edited_station(
        shared, folder / "fast.toml", lambda text: text.replace('period = "0.25 s"', 'period = "250 ms"')
    )
    return at(shared, station)


def clock_hook(world: World, folder: Path, things: dict[str, Any], undo: Undo) -> World:
    """The wall clock of every process of the host can be set; the kernel's own is left alone."""
    hook = ClockHook(folder / "clock")
    extend_path(hook.folder, undo)
    things["clock"] = hook
    return world


def clock_hook_and_mosquitto(world: World, folder: Path, things: dict[str, Any], undo: Undo) -> World:
    """Both."""
    return mosquitto(clock_hook(world, folder, things, undo), folder, things, undo)


def small_disk_for(name: str) -> Setting:
    """Return a setting that puts a folder of the run on a disk of its own, a small one. Needs root."""

    def setting(world: World, folder: Path, things: dict[str, Any], undo: Undo) -> World:
        place = folder / name
        place.mkdir(parents=True)
        mount(place, SMALL_DISK)
        undo.append(lambda: unmount(place))
        things["disk"] = place
        return world

    return setting


def bench_with(instrument: str) -> Setting:
    """Return a setting that has a bench of its own with other instruments, as ``--with`` has them."""

    def setting(world: World, folder: Path, things: dict[str, Any], undo: Undo) -> World:
        own = contextlib.ExitStack()
        undo.append(own.close)
        apart = own.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))  # no part of the run
        chosen = ("--with", instrument)
        return own.enter_context(a_bench(Path(apart), speed=world.speed, seed=11, more=chosen))

    return setting


def mount(place: Path, options: str) -> None:
    """Mount a file system in memory."""
    command = [*MOUNT, options, "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"a small disk needs the right to mount one: {done.stderr}"


def unmount(place: Path) -> None:
    """Take it away, also when somebody still has a file open there."""
    subprocess.run([*UNMOUNT, str(place)], capture_output=True, check=False)


def extend_path(folder: Path, undo: Undo) -> None:
    """Let the processes of the next run find modules in a folder."""
    before = os.environ.get("OPERANDO_TEST_PATH")
    os.environ["OPERANDO_TEST_PATH"] = os.pathsep.join(filter(None, (str(folder), before)))

    def restore() -> None:
        if before is None:
            os.environ.pop("OPERANDO_TEST_PATH", None)
        else:
            os.environ["OPERANDO_TEST_PATH"] = before

    undo.append(restore)


SETTINGS: dict[str, Setting] = {
    "mosquitto": mosquitto,
    "mosquitto on a small disk": mosquitto_on_a_small_disk,
    "keithley 2400": bench_with("cell=keithley_2400"),
    "keithley 2450": bench_with("cell=keithley_2450"),
    "host pid": bench_with("heater=host_pid"),
    "modbus pid": bench_with("heater=modbus_pid"),
    "ports by name": ports_by_name,
    "shared bus": shared_bus,
    "shared bus, read four times a second": shared_bus_read_fast,
    "clock": clock_hook,
    "clock and mosquitto": clock_hook_and_mosquitto,
    "small disk for the state": small_disk_for("state"),
    "small disk for the runs": small_disk_for("runs"),
}
