"""The cell in whole runs: how a charge ends, what a pause does to it, and whose coulombs are counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hil_tests.harness import Run, World, a_bench, ending, experiment, scan_step

REFERENCE = scan_step("as prepared", (8, 12), 10.0, "until = { passes = 1 }")
MICRO = 1e-6


def charge(current_ua: float, volt: float, until: str, name: str) -> str:
    return f"""[[step]]
do = "charge"
name = "{name}"
current = "{current_ua:g} uA"
voltage = "{volt:g} V"
until = {{ {until} }}
timeout = "30 min"

"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[World]:
    with a_bench(tmp_path / "bench", speed=20.0, seed=5) as world:
        yield world


def step_of(run: Run, name: str) -> dict[str, Any]:
    (step,) = [step for step in run.record["steps"] if step["title"].endswith(f'"{name}"')]
    return step


def test_a_charge_ends_at_the_first_of_its_conditions(bench: World, tmp_path: Path) -> None:
    """And its coulombs are those that truly passed, within the stated error."""
    steps = (
        REFERENCE
        + charge(10.0, 4.0, 'duration = "20 s", charge = "1 uAh", current_below = "1 uA"', "by time")
        + charge(20.0, 4.0, 'duration = "10 min", charge = "0.1 uAh", current_below = "1 uA"', "by charge")
        + charge(30.0, 3.75, 'duration = "20 min", charge = "5 uAh", current_below = "20 uA"', "by current")
    )
    path = experiment(tmp_path / "charges.toml", steps)
    with ending(Run.start(tmp_path / "run", path, "--station", str(bench.station))) as run:
        assert run.ended(seconds=120.0) == 0
    truth = bench.truth()["charge_coulomb"]["terminals"]

    by_time, by_charge, by_current = (step_of(run, f"by {name}") for name in ("time", "charge", "current"))
    assert by_time["reason"] in ("duration", "time")
    lasted_s = by_time["ended_lab_s"] - by_time["begun_lab_s"]
    assert 20.0 <= lasted_s < 45.0  # opening the circuit takes wall time: a busy machine adds up to a second
    assert by_charge["reason"] == "charge reached"
    assert by_current["reason"] in ("current below its limit", "current reached")

    samples = {
        name: [row["body"] for row in run.events("sample") if row["module"] == "cell" and inside(row, step)]
        for name, step in (("time", by_time), ("charge", by_charge), ("current", by_current))
    }
    passed = {name: bodies[-1]["charge_coulomb"] for name, bodies in samples.items()}
    assert passed["time"] == pytest.approx(10.0 * MICRO * 20.0, rel=0.06)
    assert passed["charge"] - passed["time"] == pytest.approx(0.1 * MICRO * 3600.0, rel=0.06)
    phases = [body["phase"] for body in samples["current"]]
    assert phases == sorted(phases)  # constant current, then constant voltage, never back
    assert set(phases) == {"cc", "cv"}
    held = [body["voltage_v"] for body in samples["current"] if body["phase"] == "cv"]
    assert held == pytest.approx([3.75] * len(held), abs=2e-3)
    assert max(body["voltage_v"] for body in samples["current"]) < 3.76
    assert abs(samples["current"][-1]["current_a"]) <= 20.0 * MICRO

    counted = run.record["charge"]
    assert (
        counted["sigma"] < 0.05 * truth
    )  # less on a quiet machine: what flows while the circuit opens is in it
    assert counted["coulomb"] == pytest.approx(truth, abs=4.0 * counted["sigma"])
    assert counted["invalid_samples"] == 0


def inside(row: dict[str, Any], step: dict[str, Any]) -> bool:
    return bool(step["begun_lab_s"] <= row["lab_s"] <= step["ended_lab_s"] + 0.5)


def test_a_pause_opens_the_circuit_and_the_charge_goes_on_to_its_total(bench: World, tmp_path: Path) -> None:
    total = 0.4 * MICRO * 3600.0
    steps = REFERENCE + charge(20.0, 4.0, 'duration = "10 min", charge = "0.4 uAh"', "in parts")
    path = experiment(tmp_path / "pause.toml", steps)
    before = bench.truth()["charge_coulomb"]["terminals"]
    with ending(Run.start(tmp_path / "run", path, "--station", str(bench.station))) as run:
        run.until(lambda status: (status["charge_coulomb"] or 0.0) > 0.2 * total, "a part of the charge")
        assert run.operando("pause").returncode == 0
        bench.until(lambda outputs: not outputs.cell_on, "the circuit is open", run=run)
        assert run.status()["paused"]
        held = bench.truth()
        bench.until(lambda outputs: outputs.lab_s > held["lab_s"] + 20.0, "20 s of pause", run=run)
        assert bench.truth()["charge_coulomb"]["terminals"] == held["charge_coulomb"]["terminals"]
        assert run.operando("proceed").returncode == 0
        bench.until(lambda outputs: outputs.cell_on, "the charge goes on", run=run)
        assert run.ended() == 0
    passed = bench.truth()["charge_coulomb"]["terminals"] - before
    assert step_of(run, "in parts")["reason"] == "charge reached"
    assert passed == pytest.approx(total, rel=0.06)
    counted = run.record["charge"]
    assert counted["coulomb"] == pytest.approx(passed, abs=4.0 * counted["sigma"])
