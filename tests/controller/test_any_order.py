"""Random sequences of commands, faults and time against a whole host: what must hold in every one of them.

The host is the real one with its journal, guard, steps and socket; the instruments are those of
``small_world``, time is virtual. ``OPERANDO_EXAMPLES`` sets how many sequences are tried.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from controller import host as host_module
from controller import host_setup
from controller.config import effective_limits, experiment_from, from_text, station_from
from controller.guard import Guard, Trip
from controller.host import Host
from controller.journal import AsyncJournal
from controller.reduction import Reduction
from controller.scanning import Scanning
from drivers.clock import RealClock
from tests.controller.small_world import (
    AMBIENT_K,
    CAPACITY_J_PER_K,
    HEATER_W,
    LOSS_W_PER_K,
    WATCHDOG_S,
    World,
)
from tests.controller.virtual_time import CountingQueue, VirtualLoop

FILES = Path(__file__).parent / "config"
EXAMPLES = int(os.environ.get("OPERANDO_EXAMPLES", "5"))
ALLOWED_S = 8.0  # from the cause to the output, in every case: debounce, off commands, the box's watchdog
LONGEST_BLOCK_S = 4.0
PLANT = (
    f'plant = {{ power = "{HEATER_W} W", capacity = "{CAPACITY_J_PER_K} J/K", '
    f'loss = "{LOSS_W_PER_K} W/K", ambient = "{AMBIENT_K} K", lag = "1 s", ambient_within = "0.5 K", '
    'identified_by = "the test", identified_on = 2026-01-01 }'
)
ENERGISED = ("heating", "cell_on", "beam_on")
FAULTS = (
    "sensor open", "output stuck", "runaway", "relay stuck", "heater silent", "cell silent", "io silent",
    "cell invalid", "cell off", "permit", "beam",
)  # fmt: skip
STEPS = """
[[step]]
do = "scan"
name = "as prepared"
raster = { pixels = [8, 8], size = ["100 um", "300 um"], dwell = "30 ms" }
until = { passes = 1 }
timeout = "30 min"
[[step]]
do = "heat"
to = "303 K"
within = "2 K"
ramp = "20 K/min"
stable = "5 s"
timeout = "30 min"
[[step]]
do = "parallel"
[[step.step]]
do = "charge"
current = "13 uA"
until = { duration = "1 min" }
timeout = "3 h"
[[step.step]]
do = "scan"
name = "charging"
raster = { pixels = [8, 8], size = ["100 um", "300 um"], dwell = "30 ms" }
[[step]]
do = "rest"
duration = "20 s"
"""


class TestedHost(Host):
    """The real host on the small world; every trip is also kept here."""

    __test__ = False

    def __init__(self, *args: Any) -> None:
        self.trips: list[Trip] = []
        super().__init__(*args)

    def _on_trip(self, trip: Trip) -> None:
        self.trips.append(trip)
        super()._on_trip(trip)

    async def _sequence(self) -> None:
        self.reduction.ready.set()
        await super()._sequence()


@contextlib.contextmanager
def in_virtual_time(world: World, loop: VirtualLoop) -> Iterator[None]:
    """Let everything in this process believe the loop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", loop.time)
        patch.setattr("controller.journal.SimpleQueue", CountingQueue)
        opened = AsyncJournal.open

        async def opening(*args: Any, **more: Any) -> AsyncJournal:
            with loop.standing_still():
                return await opened(*args, **more)

        patch.setattr(AsyncJournal, "open", opening)
        patch.setattr(host_module, "Guard", functools.partial(Guard, monotonic=loop.time))
        patch.setattr(host_setup, "Scanning", functools.partial(Scanning, monotonic=loop.time))
        patch.setattr(host_setup, "build", lambda *_, **__: world.bench())
        send = Reduction.send

        def answered(self: Reduction, message: dict[str, Any]) -> bool:
            if message["k"] == "finish":
                self._take({"k": "result", "result": {}})
            return send(self, message)

        patch.setattr(Reduction, "send", answered)
        yield


class AnyOrder(RuleBasedStateMachine):
    """A person, a world that breaks, and a host in between."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        self.place = Path(self.folder.name)
        text = (
            (FILES / "station.toml").read_text().replace("[device.heater]\n", f"[device.heater]\n{PLANT}\n")
        )
        self.station = station_from(from_text(text, "station.toml"))
        text = (FILES / "experiment.toml").read_text().partition("[[step]]")[0] + STEPS
        self.experiment = experiment_from(from_text(text, "experiment.toml"))
        limits = effective_limits(self.station, self.experiment)
        self.world = World(self.loop.time, limits.temperature_high_k)
        self.patches = contextlib.ExitStack()
        self.patches.enter_context(in_virtual_time(self.world, self.loop))
        self.host: TestedHost | None = None
        self.task: asyncio.Task[int] | None = None
        self.runs = 0
        self.interfered = False  # a fault or a person: the run may end otherwise than done
        self.held = False  # a latch of an earlier run
        self.must_end_by: float | None = None
        self.looking = self.loop.create_task(self._look())

    async def _look(self) -> None:
        while True:
            self.world.look()
            await asyncio.sleep(0.1)

    def pass_time(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    # --- what may happen ---------------------------------------------------------------------------------

    @initialize()
    def first(self) -> None:
        """Begin with a run."""
        self.start()

    @rule()
    def start(self) -> None:
        """Type ``operando run``, unless one is there."""
        if self.task is not None:
            return
        self.runs += 1
        run_dir = self.place / f"run-{self.runs}"
        run_dir.mkdir()
        args = argparse.Namespace(
            state=self.place / "state", run_dir=run_dir, resume=False, heartbeat=None, estimate_s=1.0
        )

        async def begin() -> asyncio.Task[int]:
            self.host = TestedHost(args, self.station, self.experiment, RealClock())
            return asyncio.get_running_loop().create_task(self.host.run())

        self.interfered = self.held or self.world.broken()
        self.task = self.loop.run_until_complete(begin())
        self.pass_time(0.5)

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.0, 4.0, 12.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.pass_time(seconds)

    @rule(what=st.sampled_from(ENERGISED))
    def wait_until(self, what: str) -> None:
        """Let time pass until something is energised, if it comes to that."""
        for _ in range(400):
            if self.task is None or self.task.done() or getattr(self.world, what):
                return
            self.pass_time(0.1)

    @rule(
        what=st.sampled_from(ENERGISED), broken=st.sampled_from(FAULTS),
        before=st.sampled_from([0.1, 5.0]), after=st.sampled_from([0.2, 12.0, 12.0, 30.0]),
    )  # fmt: skip
    def begin_and_break(self, what: str, broken: str, before: float, after: float) -> None:
        """Repair, acknowledge, begin, break something once an output is on, and wait."""
        self.mend()
        self.clear()
        self.start()
        self.wait_until(what)
        self.pass_time(before)
        self.break_something(broken)
        self.pass_time(after)

    @rule(verb=st.sampled_from(["pause", "proceed", "proceed", "stop", "safe", "abort"]), twice=st.booleans())
    def command(self, verb: str, twice: bool) -> None:
        """Type a command, perhaps twice."""
        if self.task is None:
            return
        self.interfered = True

        async def ask() -> None:
            assert self.host is not None
            for _ in range(2 if twice else 1):
                with contextlib.suppress(Exception):  # the host may be ending
                    await asyncio.wait_for(self.host.desk.handle({"do": verb, "by": "a person"}), 10.0)

        self.loop.run_until_complete(ask())
        if verb in ("safe", "abort"):
            self.must_end_by = self.must_end_by or self.loop.time() + ALLOWED_S

    @rule(what=st.sampled_from(FAULTS))
    def break_something(self, what: str) -> None:
        """One more fault; not the two of which each takes away the other's off path."""
        world = self.world
        self.interfered = True
        match what:
            case "sensor open":
                world.sensor = "open"
            case "output stuck" if not world.relay_stuck:
                world.output_stuck = True
            case "runaway":
                world.runaway_w = 12.0
            case "relay stuck" if not (world.output_stuck or "heater" in world.silent):
                world.relay_stuck = True
            case "heater silent" if not world.relay_stuck:
                world.silent.add("heater")
            case "cell silent" if not (world.cell_invalid or world.cell_off_by_v):
                world.silent.add("cell")
            case "io silent":
                world.silent.add("io")
            case "cell invalid" if "cell" not in world.silent:
                world.cell_invalid = True
            case "cell off" if "cell" not in world.silent:
                world.cell_off_by_v = 1.5
            case "permit":
                world.permit = False
            case "beam":
                world.beam_lost = True

    @rule()
    def mend(self) -> None:
        """Everything is repaired."""
        self.world.mend()

    @rule(seconds=st.floats(0.2, LONGEST_BLOCK_S))
    def block(self, seconds: float) -> None:
        """The host's loop does not run for a while; the world does."""
        self.interfered = True
        self.loop.now_s += seconds
        self.pass_time(0.0)

    @rule()
    def clear(self) -> None:
        """Type ``operando clear`` for everything that holds, when no run is there."""

        async def clear() -> None:
            station = self.station.station.name
            async with await AsyncJournal.open(self.place / "state/journal.sqlite", station=station) as j:
                await j.boot("clear")
                for latch in await j.latches():
                    await j.clear_latch(latch.id, "a person")

        if self.task is None and (self.place / "state/journal.sqlite").is_file():
            self.loop.run_until_complete(clear())
            self.held = False

    # --- what must hold ----------------------------------------------------------------------------------

    @invariant()
    def nothing_unsafe_lasts(self) -> None:
        """Every output that must not be on has gone off in time."""
        worst = {what: round(s, 2) for what, s in self.world.worst.items() if s > ALLOWED_S}
        assert not worst, worst

    @invariant()
    def what_was_told_to_end_is_off(self) -> None:
        """After safe, abort or a latched trip nothing is on any more."""
        host = self.host
        latched = [t for t in host.trips if t.latch and t.id in host.guard.latched] if host else []
        if latched and self.must_end_by is None:
            self.must_end_by = self.loop.time() + ALLOWED_S
        if self.must_end_by is not None and self.loop.time() > self.must_end_by:
            assert self.reachably_off(), (self.world, [t.text for t in latched])

    def reachably_off(self) -> bool:
        """Whether everything is off, but what no command can reach."""
        world = self.world
        cell = world.cell_on and not world.cell_unheard
        return not (cell or world.power_w > 0 or world.unblanked or world.shutter)

    @invariant()
    def an_end_is_an_end(self) -> None:
        """Everything is off, and each trip is in the journal, and latched."""
        if self.task is None or self.host is None or not self.task.done():
            return
        code = self.task.result()
        if "io" in self.world.silent or self.loop.time() - self.world.io_back_s < WATCHDOG_S:
            self.pass_time(WATCHDOG_S + 0.2)  # it may not have heard: then the box does it alone
        assert self.reachably_off(), self.world
        if not self.interfered:
            assert code == 0, (code, [trip.text for trip in self.host.trips])
        rows = sqlite3.connect(f"file:{self.place / 'state/journal.sqlite'}?mode=ro", uri=True)
        with contextlib.closing(rows):
            told = {row[0] for row in rows.execute("SELECT json_extract(body, '$.id') FROM events "
                                                   "WHERE kind = 'trip'")}  # fmt: skip
            held = {row[0] for row in rows.execute("SELECT id FROM latches")}
        self.held = bool(held)
        for trip in self.host.trips:
            assert trip.id in told, (trip, told)
            if trip.latch:
                assert trip.id in held, (trip, held)
        if any(trip.latch for trip in self.host.trips):
            assert code != 0
            if not self.commanded():
                assert code in (3, 4), (code, self.host.trips)
        self.task = self.host = None
        self.must_end_by = None

    def commanded(self) -> bool:
        """Whether a person has ended this run."""
        return self.must_end_by is not None

    def teardown(self) -> None:
        """End the run as a person would, look at the end, and put time back."""
        try:
            if self.task is not None:
                if not self.task.done():
                    self.command("abort", False)
                self.loop.run_until_complete(asyncio.wait({self.task}, timeout=300.0))
                assert self.task.done(), "the host does not end"
                self.nothing_unsafe_lasts()
                self.an_end_is_an_end()
        finally:
            self.looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                self.loop.run_until_complete(self.looking)
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            asyncio.set_event_loop(None)
            self.patches.close()
            self.folder.cleanup()


AnyOrder.TestCase.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=8, deadline=None, suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)  # fmt: skip
TestAnyOrder = AnyOrder.TestCase


def test_an_undisturbed_run_ends_well() -> None:
    """Without a fault nothing trips: the world is one that the guard can live with."""
    machine = AnyOrder()
    machine.start()
    assert machine.task is not None
    assert machine.host is not None
    host, task = machine.host, machine.task
    machine.loop.run_until_complete(asyncio.wait({task}, timeout=3600.0))
    assert task.done()
    assert (task.result(), [trip.text for trip in host.trips]) == (0, [])
    assert machine.world.heat_j > 0
    machine.teardown()
