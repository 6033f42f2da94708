"""One host per station: whoever comes second is told who is first, and the first does not notice.

Ten lab seconds a second, the shared bench; the runs are one small scan each.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from controller.journal import Journal, Record
from hil_tests.harness import HOST, ROLES, Run, World, ending, eventually, one_scan, operando, processes_of

WEEK_S = 7 * 86400.0


def supervisor_of(run: Run) -> int:
    (pid,) = processes_of(run.state, ROLES["supervisor"])
    return pid


def refused(run: Run, world: World, experiment: Path) -> None:
    """Assert that a second run of the station is refused, and says by whom."""
    out = run.folder / "second"
    second = operando(
        "run", str(experiment), "--station", str(world.station), "--state", str(run.state), "--out", str(out)
    )
    assert second.returncode == 3
    assert second.stdout == ""
    (message,) = second.stderr.splitlines()
    assert f"(process {supervisor_of(run)})" in message
    assert run.run_dir.name in message
    assert not out.exists()


def test_one_host_per_station(world: World, tmp_path: Path) -> None:
    """One story: a first run, and a second that is refused; a next one, that is killed; and a last one."""
    path = one_scan(tmp_path / "scan.toml", passes=6, pixels=(16, 24))
    state = tmp_path / "state"
    old_telemetry(state / "journal.sqlite")
    start = (path, "--station", str(world.station))
    with ending(Run.start(tmp_path / "first", *start, state=state)) as run:
        the_second_is_refused_and_the_first_undisturbed(run, world, path)
    with ending(Run.start(tmp_path / "next", *start, state=state)) as following:
        following.until(lambda status: status["scan"] and status["scan"]["n"] >= 1, "a scan")
        for pid in [pid for role in HOST for pid in processes_of(state, ROLES[role])]:
            os.kill(pid, signal.SIGKILL)
        assert following.ended() == 3
    world.until(lambda outputs: outputs.off, "the watchdog acts")
    one = one_scan(tmp_path / "one.toml")
    with ending(Run.start(tmp_path / "last", one, "--station", str(world.station), state=state)) as last:
        assert last.ended() == 0
    ends = last.rows("SELECT exit_code FROM runs WHERE experiment = 'short' ORDER BY started_seq")
    assert ends == [(0,), (None,), (0,)]
    # What is old in the journal has left it, but not what belongs to a run that has not ended.
    assert [event["run"] for event in telemetry(last)] == ["unfinished"] * 3


def the_second_is_refused_and_the_first_undisturbed(run: Run, world: World, path: Path) -> None:
    """The terminal of the first hangs up meanwhile, too: that takes its view, not the run."""
    run.until(lambda status: status["scan"] and status["scan"]["n"] >= 1, "a scan")
    refused(run, world, path)
    run.ask("pause")  # or it could end before all this is tried, on a busy machine
    run.signal("cli", signal.SIGHUP)
    assert run.process.wait(20.0) == -signal.SIGHUP
    resumed = operando("resume", str(run.run_dir))
    assert resumed.returncode == 3
    assert f"(process {supervisor_of(run)})" in resumed.stderr
    refused(run, world, path)
    run.ask("proceed")
    eventually(lambda: not run.left_over(), "the run ends", tell=run.tell)
    assert run.record["outcome"] == "done"
    assert run.record["exit_code"] == 0
    assert not run.record["gaps"]
    assert (run.run_dir / "report.html").is_file()
    commands = [row["body"]["do"] for row in run.events("command")]
    assert commands == ["pause", "proceed"]  # the second has not even asked
    world.stays_off()


def old_telemetry(path: Path) -> None:
    """Write a journal of two weeks ago: delivered telemetry, and some of a run that has not ended."""
    then = time.time() - 2 * WEEK_S
    path.parent.mkdir(parents=True)
    with Journal.open(path, station="bench") as journal:
        journal.boot("then")
        journal.start_run("unfinished", experiment="e", directory="d")
        journal.record_many(
            Record("tele", "host", {"n": n}, "unfinished" if n % 2 else None, wall_s=then) for n in range(6)
        )


def telemetry(run: Run) -> list[dict]:
    """Return what there is of two weeks ago."""
    long_ago = time.time() - WEEK_S
    return [row for row in run.events("tele", run_only=False) if row["wall_s"] < long_ago]
