"""Sweeps of a run's journal: measured ones whose circuits others have fitted, and what must not be believed.

The points are those of ``tests/data/eis``; expected values are those of impedance.py 1.7.1 in reference.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from controller.journal_rows import Record
from controller.journal_store import Journal
from controller.offline.captions import CAPTIONS
from controller.offline.plots_sweeps import impedance
from controller.offline.report_sweeps import sweeps as table_of
from controller.offline.run_files import RunFiles
from controller.offline.sweeps import reduced, sweeps_of
from controller.summary import SCHEMA
from tests.controller.offline.test_impedance import EIS, REFERENCE

WALL = 1767268800.0
SWEEP_SCHEMA = {**SCHEMA["properties"]["impedance"], "$schema": SCHEMA["$schema"]}


def measured(name: str) -> list[tuple[float, complex]]:
    table = np.loadtxt(EIS / f"{name}_fz.csv", delimiter=",", skiprows=1)
    return [(float(f), complex(re, im)) for f, re, im in sorted(table.tolist(), reverse=True)]


class Journalled:
    """Writes what control would have."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Record] = []

    def row(self, kind: str, module: str, body: dict[str, Any]) -> None:
        s = float(len(self.rows))
        self.rows.append(Record(kind, module, body, run="r", lab_s=100.0 + s, wall_s=WALL + s))

    def sweep(self, title: str, points: list[tuple[float, complex]], *, planned: int | None = None) -> None:
        step = {"path": [9], "do": "eis", "title": title, "begun_lab_s": 0.0, "state": "begun"}
        self.row("step", "sequence", step)
        program = {"amplitude_v": 0.01, "points": planned or len(points), "voltage_v": None}
        self.row("cell_event", "cell", {"event": "program", "detail": "Eis", "sweep": program, "limits": {}})
        for k, (hertz, z) in enumerate(points):
            self.row("sample", "cell", point(hertz, z, float(k)))

    def run(self) -> RunFiles:
        with Journal.open(self.path / "journal.sqlite", station="bench") as journal:
            journal.boot("run")
            journal.start_run("r", experiment="x", directory="r")
            journal.record_many(self.rows)
        (self.path / "record.json").write_text('{"run": "r"}')
        return RunFiles(self.path)


def point(hertz: float, z: complex, elapsed_s: float, *, valid: bool = True) -> dict[str, Any]:
    return {
        "phase": "eis", "valid": valid, "voltage_v": 3.9, "current_a": 0.0, "charge_coulomb": 0.018,
        "elapsed_s": elapsed_s, "frequency_hz": hertz, "z_ohm": [z.real, z.imag] if valid else [None, None],
    }  # fmt: skip


@pytest.fixture
def journal(tmp_path: Path) -> Journalled:
    return Journalled(tmp_path)


def test_circuits_of_known_values_through_the_journal_of_a_run(journal: Journalled) -> None:
    """R_s and R_ct as others have found them; the Warburg element is not there, which is said."""
    for name in ("test_circuit_1", "test_circuit_2"):
        journal.sweep(name, measured(name))
    found = reduced(journal.run())
    assert [one.told["step"] for one in found] == ["test_circuit_1", "test_circuit_2"]
    jsonschema.validate([one.told for one in found], SWEEP_SCHEMA)
    for one in found:
        reference = REFERENCE[one.told["step"]]
        parameters, sigma = reference["fit"]["parameters"], reference["fit"]["parameter_std"]
        assert one.told["kramers_kronig"]["passed"]
        assert one.told["kramers_kronig"]["rms"] == pytest.approx(
            reference["lin_KK"]["rms_residual_percent"] / 100, abs=6e-6
        )
        for name, key, error in (("r_s", "R0", sigma[0]), ("r_ct", "R1", sigma[1])):
            got = one.told["quantities"][name]
            assert got["value"] == pytest.approx(parameters[key], abs=10 * error)  # with a CPE and a W more
            assert got["unit"] == "ohm"
        assert one.told["quantities"]["warburg"]["value"] is None or (
            one.told["quantities"]["warburg"]["value"] < 0.05 * parameters["R1"]
        )


def test_a_drifting_cell_is_rejected_and_gives_no_numbers(journal: Journalled) -> None:
    journal.sweep("drift", measured("gamry_example"))
    (one,) = reduced(journal.run())
    assert not one.told["kramers_kronig"]["passed"]
    assert one.told["quantities"] == {}
    assert one.told["why_not"].startswith("rejected by the Kramers-Kronig test")
    assert "REJECTED" in table_of({"impedance": [one.told]}).text


def test_a_sweep_that_was_broken_off_is_apart_from_the_one_taken_again(journal: Journalled) -> None:
    points = measured("test_circuit_1")
    journal.sweep("once", points[:20], planned=len(points))
    journal.sweep("once", points)
    first, second = reduced(journal.run())
    assert (first.told["complete"], second.told["complete"]) == (False, True)
    assert first.told["why_not"] == f"broken off after 20 of {len(points)} points"
    assert first.told["quantities"] == {}
    assert second.told["points"] == len(points)
    assert second.told["quantities"]["r_s"]["value"] == pytest.approx(29.144, rel=0.01)


def test_overloaded_points_are_left_out_and_counted(journal: Journalled) -> None:
    points = measured("test_circuit_1")
    journal.sweep("overload", points)
    bad = point(points[7][0], 1j, 7.0, valid=False)
    journal.rows[2 + 7] = Record("sample", "cell", bad, run="r", lab_s=107.0, wall_s=WALL + 9)
    (one,) = reduced(journal.run())
    assert (one.told["points"], one.told["points_left_out"]) == (len(points) - 1, 1)
    assert one.told["quantities"]["r_s"]["value"] == pytest.approx(29.144, rel=0.01)


def test_too_few_points_are_said_not_raised(journal: Journalled) -> None:
    journal.sweep("short", measured("test_circuit_1")[10:14])
    (one,) = reduced(journal.run())
    assert "only 4 of 4 points" in one.told["why_not"]


def test_the_figure_shows_every_sweep(journal: Journalled) -> None:
    points = measured("test_circuit_1")
    journal.sweep("whole", points)
    journal.sweep("part", points[:20], planned=len(points))
    figure = impedance(reduced(journal.run()))
    assert figure is not None
    nyquist, rest = figure.axes
    assert [line.get_label() for line in nyquist.lines if line.get_marker() != "None"] == [
        "1: whole",
        "2: part",
    ]
    assert len(rest.lines) == 2  # Re and Im of the one that was tested
    assert "impedance" in CAPTIONS


def test_a_run_without_sweeps_has_none(journal: Journalled) -> None:
    journal.row("sample", "cell", {"phase": "cc", "valid": True, "charge_coulomb": 0.0, "elapsed_s": 1.0})
    run = journal.run()
    assert sweeps_of(run) == []
    assert reduced(run) == ()
    assert impedance(()) is None
