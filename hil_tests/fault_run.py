"""Carries out one row of the fault catalogue in one condition, against the whole system, and times it.

The condition says who is left to act: the guard in control; only the supervisor, because control is frozen
for ten seconds or for good; or only the watchdog of the I/O box, because every process of the host is dead.
What is reached is asked of the bench, never of the host.
"""
# ruff: noqa: S101  # tests only: an assert is what this file is for

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from hil_tests import fault_stages
from hil_tests.fault_going_on import (
    AFTER,
    Sign,
    ended,
    only_late,
    start_calmly,
    start_charging,
    start_scanning,
    well_again,
)
from hil_tests.fault_rows import Row
from hil_tests.fault_settings import SETTINGS
from hil_tests.fault_strikes import STRIKES, signalled, wire_struck
from hil_tests.harness import HOST, ROLES, Outputs, Run, World, eventually, processes_of, start_energised

LOADED_S = 1.5  # wall seconds that a busy machine with two cores may add to any bound
GIVEN_UP_S = 30.0  # wall seconds beyond what is allowed: a late answer is still measured
BLOCKED_S = 10.0  # wall
ROOM_K, SAME_ROOM_K = 328.0, 9.0  # of the warm scenario; a plate at 335 K is no surprise to the next row
SUPERVISOR_S = 8.0  # wall: silence until control is taken for dead, then the off path
WATCHDOG_S, WATCHDOG_WALL_S = 3.0, 0.5  # of the I/O box: lab seconds, and never less of the wall
SEEN_S = 0.5  # wall: until the bench was asked again

REACHED: dict[str, Callable[[Outputs], bool]] = {
    "all off": lambda now: now.off,
    "beam and heat off": lambda now: now.beam_and_heat_off,
    "cell open": lambda now: not now.cell_on,
    "beam blanked": lambda now: now.blanked,
    "shutter closed": lambda now: not now.shutter_open,
    "no heat, the rest off": lambda now: (
        now.output_percent == 0.0 and not now.cell_on and now.blanked and not now.shutter_open
    ),
    "beam blanked, heat and cell off": lambda now: now.blanked and not now.relay_closed and not now.cell_on,
    "beam blanked, heat off": lambda now: now.blanked and not now.relay_closed,
}
WITHOUT_HOST = {  # what nothing but the I/O box can reach of it
    "all off": "beam and heat off",
    "beam blanked, heat and cell off": "beam blanked, heat off",
}


@dataclass
class Scene:
    """Where a row plays. A strike of ``fault_strikes`` gets it with its own table."""

    row: Row
    world: World
    run: Run
    folder: Path
    later: list[Callable[[], None]] = field(default_factory=list)  # called when the row is over
    things: dict[str, Any] = field(default_factory=dict)  # what a setting has made: a broker, a recorder


class NotStruck(AssertionError):
    """The run did not come to where the fault strikes: nothing is known of the row."""


@dataclass(frozen=True)
class Measured:
    """What was seen."""

    reached_wall_s: float
    allowed_wall_s: float
    exit: int | None
    trips: tuple[str, ...]


STAGES: dict[str, Callable[[World, Path], Run]] = {
    "everything on": start_energised,
    "scanning": start_scanning,
    "charging": start_charging,
    "everything on, read calmly": start_calmly,
    **fault_stages.STAGES,
}


def strike(scene: Scene, table: Mapping[str, Any]) -> Sign | None:
    """Let one thing go wrong; return what tells that it is over, if it passes."""
    more = dict(table)
    if "target" in table:
        sign = wire_struck(scene, table)
        scene.world.fault(more.pop("target"), more.pop("kind"), **more)
        return sign
    if "set" in table:
        scene.world.put(table["set"], table["value"])
        if "back" in table:
            scene.later.append(lambda: scene.world.put(table["set"], table["back"]))
        return None
    if "process" in table:
        return signalled(scene, table)
    return {**STRIKES, **fault_stages.STRIKES}[table["do"]](scene, more)


def allowed_s(row: Row, condition: str) -> float:
    """Return the wall seconds a row has in a condition, without those for a busy machine."""
    usual = row.wall_s + row.lab_s / row.speed
    if condition == "guard" or row.reach == "cell open":  # there, the script in the instrument ends it
        return usual
    if condition == "host killed":
        return max(WATCHDOG_S / row.speed, WATCHDOG_WALL_S) + SEEN_S
    return SUPERVISOR_S


def play(row: Row, condition: str, world: World, folder: Path) -> Measured:
    """Play a row to its end and check everything. Raises AssertionError, NotStruck before the strike."""
    later: list[Callable[[], None]] = []
    things: dict[str, Any] = {}
    run: Run | None = None
    bench = world
    try:
        if row.setting:
            world = {**SETTINGS, **fault_stages.SETTINGS}[row.setting](world, folder, things, later)
        before = world.outputs()
        try:
            run = STAGES[row.when](world, folder)
        except AssertionError as error:
            raise NotStruck(str(error)) from error
        scene = Scene(row, world, run, folder, later, things)
        world.put("beam.longest_stay_s", 0.0)
        since_s = time.monotonic()
        _take_away(scene, condition)
        signs = [sign for part in row.strike if (sign := strike(scene, part)) is not None]
        if row.reach == "goes on":
            reached_s = well_again(scene, signs, since_s)
            assert reached_s <= allowed_s(row, condition) + LOADED_S, f"well again after {reached_s:.2f} s"
        elif row.reach == "refused":
            reached_s = _refused(scene, before, since_s)
        else:
            reached_s = _wait(scene, condition, since_s)
        if condition == "host killed":
            _check_stay(scene)
            return Measured(reached_s, allowed_s(row, condition), None, ())
        code = _ended(row, run)
        measured = Measured(reached_s, allowed_s(row, condition), code, tuple(_trips(run)))
        _check(scene, condition, measured)
        return measured
    finally:
        for undo in reversed(later):
            undo()
        if run is not None:
            run.kill_all()
        bench.spent = bench.spent or world.spent or _hot(bench)


def _ended(row: Row, run: Run) -> int:
    """Wait for the end; a run that a fault ended does not wait for its report, which other tests look at."""
    if row.reach in ("goes on", "refused"):
        return ended(run, report=row.reach == "refused" or "a result" in row.after)
    return ended(run, report=False)


def _hot(world: World) -> bool:
    """Return whether the next row would find a plate or a cell that is not as warm as the room."""
    if world.process is None or world.process.poll() is not None:
        return True
    return any(abs(kelvin - ROOM_K) > SAME_ROOM_K for kelvin in world.truth()["temperature_k"].values())


def _take_away(scene: Scene, condition: str) -> None:
    """Leave only those who must suffice in this condition."""
    run = scene.run
    if condition == "host killed":
        pids = [pid for role in HOST for pid in processes_of(run.folder, ROLES[role])]
        for pid in [run.process.pid, *pids]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    elif condition != "guard":
        pid = run.pid("control")
        os.kill(pid, signal.SIGSTOP)
        if condition == "control blocked":
            timer = threading.Timer(BLOCKED_S, _wake, (pid,))
            timer.start()
            scene.later.append(timer.cancel)


def _wake(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def _wait(scene: Scene, condition: str, since_s: float) -> float:
    """Wait for the state of the row; return the wall seconds it took."""
    row, allowed = scene.row, allowed_s(scene.row, condition)
    reach = WITHOUT_HOST.get(row.reach, row.reach) if condition == "host killed" else row.reach
    met = REACHED[reach]
    found: Outputs = eventually(
        lambda: (now := scene.world.outputs()) and met(now) and now,
        f"{row.name}: {reach}",
        seconds=allowed + GIVEN_UP_S,
        tell=lambda: f"{scene.world.outputs()}\n{scene.run.tell()}",
    )
    took_s = found.wall_s - since_s
    assert took_s <= allowed + LOADED_S, f"{reach} after {took_s:.2f} s, allowed {allowed:g} s"
    return took_s


def _refused(scene: Scene, before: Outputs, since_s: float) -> float:
    """Wait for the end of the run; no heat may have come, and the circuit may not have been closed."""
    scene.run.process.wait(allowed_s(scene.row, "guard") + GIVEN_UP_S)
    took_s = time.monotonic() - since_s
    now = scene.world.outputs()
    assert now.off, now
    assert now.heater_joule == before.heater_joule, (before, now)
    assert took_s <= allowed_s(scene.row, "guard") + LOADED_S, f"refused after {took_s:.2f} s"
    return took_s


def _trips(run: Run) -> dict[str, dict[str, Any]]:
    return {row["body"]["id"]: row["body"] for row in run.events("trip")}


def _check(scene: Scene, condition: str, measured: Measured) -> None:
    """Check what is found after the end: off for good, exit code, journal, latch, text."""
    row, run = scene.row, scene.run
    if row.reach == "all off":
        scene.world.stays_off()
    _check_stay(scene)
    if condition != "guard":
        assert measured.exit == 4, (measured.exit, run.tell())
        return
    late = row.reach == "goes on" and measured.exit == 6 and only_late(run)
    assert measured.exit in row.exit or late, (measured.exit, run.tell())
    kinds = {event["kind"] for event in run.events()}
    assert set(row.journal) <= kinds, (row.journal, kinds)
    assert re.search(row.told, told(run)), (row.told, told(run))
    if row.trips:
        _check_trip(row, run)
    for name in row.after:
        {**AFTER, **fault_stages.AFTER}[name](scene)


def _check_stay(scene: Scene) -> None:
    """The beam stayed nowhere for longer than the row allows."""
    allowed = scene.row.stay_s
    stay_s = scene.world.ask("counters")["twins"]["io"]["longest_stay_s"]
    assert not allowed or stay_s <= allowed, f"the beam stayed {stay_s:.3f} s, allowed {allowed:g}"


def told(run: Run) -> str:
    """Return what a person could have read: lines, outcome, and what the command line printed."""
    record = run.run_dir / "record.json"
    outcome = str(run.record["outcome"]) if record.is_file() else ""
    return "\n".join((run.lines(), outcome, run.out, run.err))


def _check_trip(row: Row, run: Run) -> None:
    """One of the trips of the row is there, latched, and its action was confirmed where it can be."""
    trips = _trips(run)
    hit = [trip for trip in trips if any(fnmatch(trip, named) for named in row.trips)]
    assert hit, (list(trips), run.lines())
    trip = trips[hit[0]]
    assert trip["latch"]
    assert trip["text"]
    assert trip["lab_s"] > 0
    assert hit[0] in [latch for (latch,) in run.rows("SELECT id FROM latches")]
    (action,) = [event["body"] for event in run.events("action") if event["body"]["trip"] == hit[0]]
    assert action["results"]
    for result in action["results"]:
        assert result["confirmed"] is (result["output"] != row.unreachable), result
    (last,) = [event["body"] for event in run.events("safe")]
    confirmed = {result["output"] for result in last["results"] if result["confirmed"]}
    assert confirmed == {"io", "cell", "heater"} - {row.unreachable}
