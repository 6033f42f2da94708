"""Every way out of a run: what is truly off afterwards, how fast, the exit code, and what was written down.

All outputs are on when it happens: the plate is heated, the cell is charged, the beam scans. The bounds are
those of ``design.md`` at ten lab seconds a second, with what a loaded machine needs added.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hil_tests.harness import Run, World, ending, one_scan, operando, start_energised

LOADED_S = 1.5  # wall seconds that a busy machine with two cores may add to any bound


@pytest.fixture
def run(world: World, tmp_path: Path) -> Iterator[Run]:
    """A run with everything on."""
    with ending(start_energised(world, tmp_path)) as run:
        yield run


def off_within(world: World, since_s: float, seconds: float, record_property) -> None:
    """Assert that everything is truly off ``seconds`` of wall time after ``since_s``, and stays off."""
    outputs = world.until(lambda outputs: outputs.off, "everything off", seconds=20.0)
    took_s = outputs.wall_s - since_s
    record_property("off_after_wall_s", round(took_s, 2))
    assert took_s <= seconds + LOADED_S
    world.stays_off()


def ended_rows(run: Run) -> dict:
    (row,) = [row for row in run.events("run") if row["body"].get("state") == "ended"]
    return row["body"]


@pytest.mark.parametrize(
    "how", ["SIGINT to the command", "SIGTERM to the command", "SIGTERM to supervisor", "abort"]
)
def test_a_person_ends_it(run: Run, world: World, how: str, record_property) -> None:
    since_s = time.monotonic()
    if how == "abort":
        assert run.operando("abort").returncode == 0
    else:
        name, _, target = how.partition(" to ")
        run.signal("supervisor" if target == "supervisor" else "cli", getattr(signal, name))
    off_within(world, since_s, 2.0, record_property)
    assert run.ended() == 5
    assert run.record["exit_code"] == 5
    assert "abort" in ended_rows(run)["outcome"]


def test_safe(run: Run, world: World, record_property) -> None:
    since_s = time.monotonic()
    answer = run.operando("safe")
    off_within(world, since_s, 2.0, record_property)
    assert answer.returncode == 0
    assert "off, confirmed" in answer.stdout
    assert run.ended() == 5
    assert "safe" in ended_rows(run)["outcome"]


def test_stop_ends_between_lines_with_a_result(run: Run, world: World, record_property) -> None:
    since_s = time.monotonic()
    assert run.operando("stop").returncode == 0
    off_within(world, since_s, 5.0, record_property)
    assert run.ended() == 6
    assert "stopped early" in ended_rows(run)["outcome"]


def test_normal_end(world: World, tmp_path: Path, record_property) -> None:
    with ending(start_energised(world, tmp_path, charge_s=15.0)) as run:
        run.until(lambda status: not status["scan"] or status["state"] == "ended", "the last step ends")
        off_within(world, time.monotonic(), 10.0, record_property)
        assert run.ended() == 0
        assert run.record["outcome"] == "done"


def test_an_instrument_that_is_gone_for_good(run: Run, world: World, record_property) -> None:
    since_s = time.monotonic()
    world.fault("cell", "unplug")  # its circuit cannot be opened from here any more
    world.until(lambda outputs: outputs.beam_and_heat_off, "beam and heat off", seconds=10.0)
    assert run.ended() in (3, 4)
    actions = [row["body"] for row in run.events("action")] + [row["body"] for row in run.events("safe")]
    cells = [result for body in actions for result in body["results"] if result["output"] == "cell"]
    assert cells
    assert not any(result["confirmed"] for result in cells)  # nothing is claimed that was not seen
    world.fault("cell", "replug")
    assert time.monotonic() - since_s < 30.0


def test_control_is_killed(run: Run, world: World, record_property) -> None:
    since_s = time.monotonic()
    run.signal("control", signal.SIGKILL)
    off_within(world, since_s, 2.0, record_property)
    assert run.ended() == 4
    assert "SIGKILL" in (run.state / "supervisor.jsonl").read_text()
    later = Run.start(
        run.folder / "later",
        one_scan(run.folder / "scan.toml"),
        "--station", str(world.station), state=run.state,
    )  # fmt: skip
    with ending(later):
        assert later.ended() == 0
        rows = later.events(run_only=False)
        told = next(row for row in rows if row["kind"] == "supervisor")
        assert told["body"]["run"] == run.run_dir.name
        assert "SIGKILL" in told["body"]["what"]
        assert all(result["confirmed"] for result in told["body"]["results"])
        began = next(
            row["seq"] for row in rows if row["run"] == later.run_dir.name and row["kind"] == "instruments"
        )
        assert told["seq"] < began


def test_control_is_frozen(run: Run, world: World, record_property) -> None:
    since_s = time.monotonic()
    run.signal("control", signal.SIGSTOP)
    world.until(lambda outputs: outputs.beam_and_heat_off, "the watchdog acts", seconds=5.0)
    off_within(world, since_s, 8.0, record_property)
    assert run.ended() == 4
    assert "silent" in (run.state / "supervisor.jsonl").read_text()


def test_safe_of_a_frozen_control(run: Run, world: World, record_property) -> None:
    run.signal("control", signal.SIGSTOP)
    since_s = time.monotonic()
    assert run.operando("safe").returncode == 0
    off_within(world, since_s, 4.0, record_property)
    assert run.ended() == 4


def test_the_supervisor_is_killed(run: Run, world: World, record_property) -> None:
    since_s = time.monotonic()
    run.signal("supervisor", signal.SIGKILL)
    off_within(world, since_s, 5.0, record_property)
    assert run.ended() == 3
    assert "supervisor is gone" in ended_rows(run)["outcome"]


def test_the_whole_host_is_killed_at_once(world: World, tmp_path: Path, record_property) -> None:
    """Only the instruments are left: the watchdog of the I/O box, and the limits inside the cell's script."""
    with ending(start_energised(world, tmp_path, charge_s=40.0)) as run:
        began = world.outputs()
        pids = [run.pid(role) for role in ("supervisor", "control", "reduce", "link", "broker")]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        since_s = time.monotonic()
        outputs = world.until(lambda outputs: outputs.beam_and_heat_off, "the watchdog acts", seconds=10.0)
        record_property("watchdog_after_wall_s", round(outputs.wall_s - since_s, 2))
        assert outputs.wall_s - since_s <= 1.0 + LOADED_S
        outputs = world.until(lambda outputs: not outputs.cell_on, "the script ends", seconds=20.0)
        assert outputs.lab_s - began.lab_s <= 40.0 + 10.0
        world.stays_off()
        assert run.ended() == 3
    assert operando("status", "--state", str(run.state)).returncode == 3
