"""Whole runs on benches with fewer instruments, and with a camera: what is not there is not missed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tifffile

from controller.verdict import EXIT_GUARD
from hil_tests.harness import EXPERIMENTS, Run, World, ending, one_scan, operando, warm_scenario

SAMPLE = """
[experiment]
name = "part"
[bench]
scenario = "SCENARIO"
[sample]
name = "polymer cell, 20 uAh"
chemistry = "lithium metal"
capacity = "20 uAh"
capacity_error = "5 %"
"""
HEAT = """
[[step]]
do = "heat"
to = "332 K"
within = "5 K"
ramp = "15 K/min"
timeout = "5 min"
"""
CHARGE = """
[[step]]
do = "charge"
current = "10 uA"
until = { duration = "20 s" }
timeout = "90 s"
"""
NO_BEAM = ("--with", "pixe=none", "--with", "pige=none")


def image_steps(*, frames: int = 4) -> str:
    told = """
[radiography]
air = { rows = [10, 150], columns = [4, 56] }
along = { rows = [0, 160], columns = [72, 184] }
bin = 4
wavelength = "0.1798 nm"
[[radiography.region]]
name = "cathode"
rows = [85, 155]
columns = [72, 184]
"""
    for name, purpose in (("dark", "dark"), ("open beam", "flat"), ("as prepared", "sample")):
        told += (
            f'[[step]]\ndo = "expose"\nname = "{name}"\ndetector = "radiography"\npurpose = "{purpose}"\n'
            f'until = {{ frames = {frames} }}\ntimeout = "5 min"\n'
        )
    return told


def run(folder: Path, text: str, *chosen: str, speed: float = 10.0) -> tuple[Run, dict[str, Any]]:
    """Run on a bench in a warm room to the end; return the run and its summary."""
    scenario = warm_scenario(folder / "warm.toml")
    experiment = folder / "part.toml"
    experiment.write_text(text.replace("SCENARIO", str(scenario)))
    with ending(Run.start(folder, experiment, "--bench", "--speed", f"{speed:g}", *chosen)) as started:
        code = started.ended()
        summary = json.loads((started.run_dir / "summary.json").read_text())
        assert code == 0, (summary["outcome"], started.tell())
    assert summary["problems"] == []
    assert all(one["confirmed"] for one in summary["outputs_off"])
    assert (started.run_dir / "report.html").is_file()
    return started, summary


def off(summary: dict[str, Any]) -> set[str]:
    return {str(one["output"]) for one in summary["outputs_off"]}


@pytest.mark.slow
def test_camera_cell_and_heater_without_a_scanner(tmp_path: Path) -> None:
    """Dark, open beam, the cell as prepared and while it is charged: 6Li with state of charge."""
    text = SAMPLE + image_steps() + HEAT + '[[step]]\ndo = "parallel"\n'
    text += CHARGE.replace("[[step]]", "[[step.step]]") + (
        '[[step.step]]\ndo = "expose"\nname = "charging"\ndetector = "radiography"\n'
        'until = { duration = "16 s" }\ntimeout = "90 s"\n'
    )
    started, summary = run(tmp_path, text, *NO_BEAM, "--with", "radiography=frame_folder")
    assert summary["roles"] == {"heater": "heater", "cell": "cell", "radiography": "radiography"}
    assert off(summary) == {"io", "cell", "heater", "radiography"}
    prepared, charging = summary["radiographs"]
    assert (prepared["name"], charging["name"]) == ("as prepared", "charging")
    assert charging["soc"]["high"] > prepared["soc"]["high"] == 0.0
    found = prepared["lithium6_of_regions"][0]
    assert found["value"] == pytest.approx(5.08e20, rel=0.03)  # the twin's own truth, see its counters
    kept = sorted((started.run_dir / "raw").glob("radiography_*/*.tif"))
    assert len(kept) == sum(one["frames"] for one in summary["exposures"])
    assert tifffile.imread(kept[0]).shape == (160, 256)
    rows = started.events("image")
    assert len(rows) == len(kept)
    assert all(row["body"]["sha256"] and row["body"]["number"] for row in rows)
    told = operando("reduce", "radiography", str(started.run_dir), "--json")  # from its images alone
    again = [one["states"][0] for one in json.loads(told.stdout)["files"]]
    assert [one["lithium6_of_regions"] for one in again] == [
        one["lithium6_of_regions"] for one in summary["radiographs"]
    ]


@pytest.mark.soak
def test_a_live_camera(tmp_path: Path) -> None:
    pytest.importorskip("zmq")
    _, summary = run(tmp_path, SAMPLE + image_steps(), *NO_BEAM, "--with", "radiography=frame_live")
    (prepared,) = summary["radiographs"]
    assert prepared["lithium6_of_regions"][0]["value"] == pytest.approx(5.08e20, rel=0.03)


@pytest.mark.soak
def test_cell_only(tmp_path: Path) -> None:
    _, summary = run(tmp_path, SAMPLE + CHARGE, *NO_BEAM, "--with", "heater=none")
    assert summary["roles"] == {"cell": "cell"}
    assert off(summary) == {"io", "cell"}
    assert summary["charge"]["coulomb"] == pytest.approx(10e-6 * 20.0, rel=0.1)
    assert (summary["layers"], summary["dose"]) == ([], None)


@pytest.mark.soak
def test_heater_and_cell(tmp_path: Path) -> None:
    _, summary = run(tmp_path, SAMPLE + HEAT + CHARGE, *NO_BEAM)
    assert summary["roles"] == {"heater": "heater", "cell": "cell"}
    assert [step["do"] for step in summary["steps"]] == ["heat", "charge"]


@pytest.mark.soak
def test_beam_only(tmp_path: Path) -> None:
    text = one_scan(tmp_path / "scan.toml").read_text()
    _, summary = run(tmp_path, text, "--with", "heater=none", "--with", "cell=none")
    assert set(summary["roles"]) == {"scanner", "pixe", "pige"}
    assert off(summary) == {"io"}
    assert summary["charge"]["coulomb"] is None
    assert [scan["name"] for scan in summary["scans"]] == ["as prepared"]


@pytest.mark.soak
def test_check_names_the_step_that_needs_more(tmp_path: Path) -> None:
    """``operando run --bench`` reads the experiment against the bench's own station file."""
    told = operando(
        "run", str(EXPERIMENTS / "quickstart.toml"), "--bench", "--speed", "10", "--with", "heater=none",
        "--out", str(tmp_path / "runs"),
    )  # fmt: skip
    assert told.returncode == 2
    assert 'do = "heat" needs a heater, and the station bench has none in [roles]' in told.stderr


@pytest.mark.soak
def test_a_shutter_that_sticks_ends_the_exposure(tmp_path: Path) -> None:
    """Its read-back contradicts the command: the guard, which has no scanner to blank, ends the run."""
    experiment = tmp_path / "part.toml"
    text = SAMPLE + image_steps()
    experiment.write_text(text.replace("SCENARIO", str(warm_scenario(tmp_path / "warm.toml"))))
    chosen = (*NO_BEAM, "--with", "radiography=frame_folder", "--speed", "5")
    with ending(Run.start(tmp_path, experiment, "--bench", *chosen)) as started:
        started.until_line('expose "dark"')
        bench = World(started.run_dir / "bench" / "station.toml")
        bench.fault("io", "shutter", stuck="closed")
        assert started.ended() == EXIT_GUARD
        summary = json.loads((started.run_dir / "summary.json").read_text())
    assert [trip["id"] for trip in summary["trips"]] == ["shutter-stuck"]
    assert all(one["confirmed"] for one in summary["outputs_off"])
