"""A run that was cut off goes on: finished steps stay finished, no coulomb is counted twice."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from hil_tests.harness import Run, World, a_bench, ending, experiment, operando, scan_step

TOTAL_COULOMB = 0.3e-6 * 3600.0
CHARGE = 'charge 10.0 uA to 4.00 V "in parts"'
STEPS = (
    scan_step("as prepared", (8, 12), 10.0, "until = { passes = 2 }")
    + """[[step]]
do = "charge"
name = "in parts"
current = "10 uA"
voltage = "4.0 V"
until = { duration = "10 min", charge = "0.3 uAh" }
timeout = "12 min"

"""
    + scan_step("after", (8, 12), 10.0, "until = { passes = 1 }")
)


def test_control_is_killed_in_mid_charge_and_the_run_resumed(tmp_path: Path) -> None:
    with a_bench(tmp_path / "bench", speed=10.0, seed=9) as bench:
        kill_and_resume(bench, tmp_path)


def kill_and_resume(bench: World, tmp_path: Path) -> None:
    path = experiment(tmp_path / "resume.toml", STEPS)
    with ending(Run.start(tmp_path / "run", path, "--station", str(bench.station))) as run:
        run.until(
            lambda now: (now["charge_coulomb"] or 0.0) > 0.4 * TOTAL_COULOMB, "a good part of the charge"
        )
        run.signal("control", signal.SIGKILL)
        bench.until(lambda outputs: outputs.off, "the supervisor makes it safe", seconds=20.0)
        assert run.ended() == 4
    between = bench.truth()["charge_coulomb"]["terminals"]
    first_uid = run.events("doc/start")[0]["body"]["uid"]
    assert [row["body"]["n"] for row in run.events("pass")] == [1, 2]

    with ending(Run.resume(run)) as again:
        assert again.ended() == 6  # finished, and the interruption is a gap that is named
    assert "resume" in again.record["outcome"]

    # The finished scan was not repeated, the charge went on, the last step was done.
    begun = [row["body"]["title"] for row in again.events("step") if row["body"]["state"] == "begun"]
    assert begun == ['scan "as prepared"', CHARGE, CHARGE, 'scan "after"']
    assert [row["body"]["n"] for row in again.events("pass")] == [1, 2, 1]

    # Coulombs: what is counted is what truly passed, what flowed after the last reading on disk included.
    truth = bench.truth()["charge_coulomb"]["terminals"]
    assert truth > between
    counted = again.record["charge"]
    assert counted["coulomb"] == pytest.approx(truth, abs=4.0 * counted["sigma"])
    assert 0.0 < counted["sigma"] < 0.25 * truth
    assert 0.0 < counted["uncounted_s"] < 60.0
    assert truth == pytest.approx(TOTAL_COULOMB, rel=0.1)

    # The documents: an abort with its reason, then a new start that names the old one.
    stops = [row["body"] for row in again.events("doc/stop")]
    starts = [row["body"] for row in again.events("doc/start")]
    assert [stop["exit_status"] for stop in stops] == ["abort", "success"]
    assert stops[0]["run_start"] == first_uid == starts[0]["uid"]
    assert starts[1]["resumed_from"] == first_uid
    assert stops[1]["run_start"] == starts[1]["uid"]

    # And what is finished cannot be resumed.
    refused = operando("resume", str(run.run_dir))
    assert refused.returncode == 2
    assert "not an interrupted run" in refused.stderr
