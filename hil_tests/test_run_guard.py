"""The guard against the real wire: each fault trips, by name, what is on goes off, and the latch holds.

Everything is on when the fault comes: plate, cell and beam. Ten lab seconds a second.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hil_tests.harness import (
    Listener,
    Run,
    World,
    ending,
    one_scan,
    operando,
    start_energised,
)

LOADED_S = 1.5  # wall seconds that a busy machine with two cores may add to any bound


@dataclass(frozen=True)
class Fault:
    """What goes wrong, what must come of it, and what can be confirmed with that instrument."""

    strike: Callable[[World], None]
    trips: tuple[str, ...]  # one of them must be there
    within_s: float  # wall seconds, from the fault to the outputs
    codes: tuple[int, ...] = (4,)
    unreachable: str = ""  # this output cannot confirm that it is off


def _fault(target: str, kind: str, **more: object) -> Callable[[World], None]:
    return lambda world: world.fault(target, kind, **more)


FAULTS = {
    "permit opened": Fault(_fault("io", "permit", given=False), ("permit",), 1.0),
    "Pt100 open": Fault(_fault("heater", "sensor", state="open"), ("heater-sensor",), 1.5),
    "Pt100 short": Fault(_fault("heater", "sensor", state="short"), ("heater-sensor",), 1.5),
    "heater silent": Fault(_fault("heater", "unplug"), ("heater-stale",), 1.5, unreachable="heater"),
    "I/O silent": Fault(_fault("io", "unplug"), ("io-stale",), 2.0, (3, 4), unreachable="io"),
    "cell silent": Fault(_fault("cell", "unplug"), ("cell-stale",), 3.0, (3, 4), unreachable="cell"),
    "cell shorted": Fault(_fault("cell", "short", ohm=100.0), ("cell-voltage", "cell-program"), 2.0),
    "cell overload": Fault(_fault("cell", "overload", count=1000), ("cell-invalid",), 2.0),
    # A switch that has welded: the controller says 0 %, and only the relay in series ends the heating.
    "plate too hot": Fault(_fault("heater", "stuck_output", fraction=0.35), ("heater-temperature",), 20.0),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_trips(world: World, tmp_path: Path, name: str, record_property) -> None:
    fault = FAULTS[name]
    with ending(start_energised(world, tmp_path)) as run:
        since_s = time.monotonic()
        fault.strike(world)
        without_cell = fault.unreachable == "cell"
        outputs = world.until(
            lambda now: now.beam_and_heat_off if without_cell else now.off, "off", seconds=30.0, run=run
        )
        record_property("off_after_wall_s", round(outputs.wall_s - since_s, 2))
        assert outputs.wall_s - since_s <= fault.within_s + LOADED_S
        assert run.ended() in fault.codes
        if not without_cell:
            world.stays_off()
        trips = {row["body"]["id"]: row for row in run.events("trip")}
        hit = [trip for trip in fault.trips if trip in trips]
        assert hit, (list(trips), run.lines())
        trip = trips[hit[0]]["body"]
        assert trip["latch"]
        assert trip["text"]
        assert trip["lab_s"] > 0
        assert hit[0] in [row[0] for row in run.rows("SELECT id FROM latches")]
        check_actions(run, hit[0], fault.unreachable)


def check_actions(run: Run, trip: str, unreachable: str) -> None:
    """Every output that can be reached has confirmed to be off, in the end; no other has."""
    (action,) = [row["body"] for row in run.events("action") if row["body"]["trip"] == trip]
    assert action["results"]
    for result in action["results"]:
        assert result["confirmed"] is (result["output"] != unreachable), result
    (last,) = [row["body"] for row in run.events("safe")]
    assert {result["output"] for result in last["results"] if result["confirmed"]} == (
        {"io", "cell", "heater"} - {unreachable}
    )


def test_a_latch_holds_until_a_person_clears_it(world: World, tmp_path: Path) -> None:
    """From the trip on the network to the clearing: the journal has it before anybody is told."""
    seen: list[tuple[dict, list]] = []

    def look(message) -> None:
        if "alarm/permit" in message.topic and message.payload:
            seen.append((json.loads(message.payload), run.events("trip")))

    with ending(start_energised(world, tmp_path)) as run:
        listener = Listener.of(run, look)
        world.fault("io", "permit", given=False)
        assert run.ended() == 4
        listener.stop()
    told, rows = seen[0]
    assert told["seq"] in [row["seq"] for row in rows]
    assert "permit" in told["text"]
    again = [one_scan(tmp_path / "scan.toml"), "--station", str(world.station)]
    # The station's own interlock row on the permit may see it too before the run is over.
    latched = [row[0] for row in run.rows("SELECT id FROM latches")]
    assert "permit" in latched
    with ending(Run.start(tmp_path / "second", *again, state=run.state)) as second:
        assert second.ended() == 4
        assert "a latch from before holds" in second.record["outcome"]
        assert "operando clear permit" in second.record["outcome"]
        assert not second.events("step")  # nothing was begun
    world.fault("io", "permit", given=True)
    for trip in latched:
        cleared = operando("clear", trip, "--state", str(run.state))
        assert cleared.returncode == 0, cleared
        assert f"{trip} cleared" in cleared.stdout
    once_more = operando("clear", "permit", "--state", str(run.state))
    assert (once_more.returncode, once_more.stderr) == (3, "clear: permit is not latched\n")
    with ending(Run.start(tmp_path / "third", *again, state=run.state)) as third:
        assert third.ended() == 0
        cleared_rows = [row for row in third.events(run_only=False) if row["kind"] == "trip_cleared"]
        assert [row["body"]["id"] for row in cleared_rows] == latched
        assert all(row["body"]["by"] for row in cleared_rows)


def test_a_cleared_cause_that_persists_trips_again(world: World, tmp_path: Path) -> None:
    world.fault("io", "permit", given=False)
    run_it = [one_scan(tmp_path / "scan.toml"), "--station", str(world.station)]
    with ending(Run.start(tmp_path, *run_it)) as run:
        assert run.ended() == 4
        assert "permit" in run.record["outcome"]
    for (trip,) in run.rows("SELECT id FROM latches"):
        assert operando("clear", trip, "--state", str(run.state)).returncode == 0
    with ending(Run.start(tmp_path / "second", *run_it, state=run.state)) as second:
        assert second.ended() == 4
        assert "permit" in second.record["outcome"]
        assert "from before" not in second.record["outcome"]
    assert world.outputs().off
