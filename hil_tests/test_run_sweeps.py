"""Impedance sweeps and pulses in whole runs: measured, counted, reduced, and after a crash nothing twice.

The truth is the twin's own: the resistances of its cell at the temperature that its holder has, by Arrhenius'
law written out here, and the coulombs that went through its terminals.
"""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hil_tests.harness import EXPERIMENTS, Run, World, a_bench, ending, eventually, operando

pytestmark = pytest.mark.soak  # the same chain in one process is test_sweep_chain.py, in make test

HEAD = (EXPERIMENTS / "impedance.toml").read_text().partition("[[step]]")[0]
CIRCUIT = "R0-p(R1,C1)-W2"
CELL_ONLY = ("--with", "pixe=none", "--with", "pige=none", "--with", "heater=none")
BOLTZMANN_EV_PER_K = 8.617333262e-5
CHARGE_A, PULSE_A, PULSE_S, PULSES = 15e-6, 15e-6, 12.0, 3


def steps(stop_hz: float, points: int, bias_ua: float = 0.0) -> str:
    """Charge, rest, EIS, pulses, GEIS, rest."""
    sweep = f'start = "10 kHz"\nstop = "{stop_hz:g} Hz"\npoints = {points}\ncircuit = "{CIRCUIT}"\n'
    return f"""[[step]]
do = "charge"
current = "15 uA"
until = {{ duration = "30 s" }}
timeout = "1 min"

[[step]]
do = "rest"
duration = "30 s"
interval = "2 s"

[[step]]
do = "eis"
name = "at rest"
amplitude = "10 mV"
timeout = "20 min"
{sweep}
[[step]]
do = "pulse"
name = "titration"
direction = "charge"
current = "15 uA"
on = "12 s"
rest = "12 s"
times = {PULSES}

[[step]]
do = "eis"
name = "about a current"
mode = "galvanostatic"
current_amplitude = "2 uA"
current = "{bias_ua:g} uA"
timeout = "20 min"
{sweep}
[[step]]
do = "rest"
duration = "5 s"
"""


def written(path: Path, text: str) -> Path:
    path.write_text(HEAD + text)
    return path


def resistances_ohm(world: World) -> tuple[float, float]:
    """R_s and R_ct of the twin's cell: 2500 and 2000 ohm at 333.15 K, with 1.3 eV."""
    kelvin = world.truth()["temperature_k"]["cell"]
    factor = math.exp(1.3 / BOLTZMANN_EV_PER_K * (1.0 / kelvin - 1.0 / 333.15))
    return 2500.0 * factor, 2000.0 * factor


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[World]:
    with a_bench(tmp_path / "bench", speed=10.0, seed=11, more=CELL_ONLY) as world:
        yield world


def sweeps_in(run: Run) -> list[dict[str, Any]]:
    summary = json.loads((run.run_dir / "summary.json").read_text())
    found: list[dict[str, Any]] = summary["impedance"]
    return found


def test_sweeps_and_pulses_between_charge_and_rest(bench: World, tmp_path: Path) -> None:
    path = written(tmp_path / "sweeps.toml", steps(1.0, 17, bias_ua=3.0))
    with ending(Run.start(tmp_path / "run", path, "--station", str(bench.station))) as run:
        assert run.ended(seconds=240.0) == 0
    r_s, r_ct = resistances_ohm(bench)

    # reduced: both sweeps see the same cell, which is the twin's
    eis, geis = sweeps_in(run)
    assert [one["mode"] for one in (eis, geis)] == ["potentiostatic", "galvanostatic"]
    for one in (eis, geis):
        assert one["complete"]
        assert one["points"] == 17
        assert one["kramers_kronig"]["passed"]
        assert one["quantities"]["r_s"]["value"] == pytest.approx(r_s, rel=0.02)
        assert one["quantities"]["r_ct"]["value"] == pytest.approx(r_ct, rel=0.04)
    assert geis["soc"] > eis["soc"] > 0.0
    report = (run.run_dir / "report.html").read_text()
    assert 'id="impedance"' in report
    assert "(galvanostatic)" in report

    # recorded: journal, documents, file
    points = [row["body"] for row in run.events("sample") if row["body"].get("frequency_hz") is not None]
    assert len(points) == 34
    documents = [row["body"] for row in run.events("doc/event")]
    assert sum("z_real" in body["data"] for body in documents) == 34
    assert len((run.run_dir / "impedance.csv").read_text().splitlines()) == 1 + 34
    assert operando("reduce", "impedance", str(run.run_dir / "impedance.csv")).returncode == 0

    # counted: charge, pulses and the bias of the galvanostatic sweep, within the stated error
    truth = bench.truth()["charge_coulomb"]["terminals"]
    counted = run.record["charge"]
    assert counted["coulomb"] == pytest.approx(truth, abs=4.0 * counted["sigma"])
    in_geis = [p["charge_coulomb"] for p in points if p["phase"] == "geis"]
    assert in_geis[-1] - in_geis[0] > 3e-6 * 3.0  # a few seconds of 3 uA at least
    window = [p for p in points if p["voltage_v"] is not None]
    assert all(p["voltage_v"] - p["swing"][0] > 2.5 and p["voltage_v"] + p["swing"][0] < 4.05 for p in window)


def test_a_sweep_and_a_pulse_train_that_were_cut_off(bench: World, tmp_path: Path) -> None:
    """Killed in the first sweep, resumed, killed in the second pulse, resumed: no pulse twice."""
    path = written(tmp_path / "cut.toml", steps(1.0, 17))
    with ending(Run.start(tmp_path / "run", path, "--station", str(bench.station))) as run:
        run.until_line("phase eis", seconds=120.0)
        run.until(lambda _: _points(run) >= 5, "five points of the sweep")
        run.signal("control", signal.SIGKILL)
        opened(bench)
        assert run.ended() == 4
    with ending(Run.resume(run)) as again:
        again.until(lambda _: _pulses(again) >= 2, "the second pulse", seconds=120.0)
        again.signal("control", signal.SIGKILL)
        opened(bench)
        assert again.ended() == 4
    with ending(Run.resume(again)) as last:
        assert last.ended(seconds=240.0) == 6  # finished, and the interruptions are gaps that are named

    found = sweeps_in(last)
    assert [one["complete"] for one in found] == [False, True, True]
    assert "broken off" in found[0]["why_not"]
    truth = bench.truth()["charge_coulomb"]["terminals"]
    counted = last.record["charge"]
    assert counted["coulomb"] == pytest.approx(truth, abs=4.0 * counted["sigma"])
    planned = CHARGE_A * 30.0 + PULSE_A * PULSE_S * PULSES
    assert truth == pytest.approx(planned, rel=0.12)  # a pulse done twice would be 18 % more


def opened(bench: World) -> None:
    """Wait until the supervisor has opened the circuit of a bench that has little else."""
    eventually(
        lambda: not bench.ask("counters")["twins"]["cell"]["cell_on"], "the circuit is open", seconds=20.0
    )


def _points(run: Run) -> int:
    return sum(row["body"].get("frequency_hz") is not None for row in run.events("sample"))


def _pulses(run: Run) -> int:
    """Pulses begun, of this run and of what it took up."""
    programs = [row["body"] for row in run.events("cell_event") if row["body"].get("event") == "program"]
    return [body["detail"] for body in programs].count("ConstantCurrent") - 1  # the first one is the charge
