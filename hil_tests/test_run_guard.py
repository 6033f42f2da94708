"""Latches of the guard against the real wire: they hold, and only a person clears them.

That each fault trips is the catalogue's: ``test_faults.py``. Everything is on when the fault comes: plate,
cell and beam. Ten lab seconds a second.
"""

from __future__ import annotations

import json
from pathlib import Path

from hil_tests.harness import (
    Listener,
    Run,
    World,
    ending,
    one_scan,
    operando,
    start_energised,
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
