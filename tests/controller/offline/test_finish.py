from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from controller.offline import finish, ion_beam, report
from controller.offline.files_out import replacing, write_json
from controller.summary import SCHEMA
from tests.controller.offline.make_run import RASTER, RUN, make_run, result

ALL = {"summary.json", "report.html", "run.nxs", "cell.bdf.csv", "profiles.csv"}


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report without its figures, which take most of the time and have tests of their own."""
    monkeypatch.setattr(report, "draw", lambda view: ({}, []))


def summary_of(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    errors = [error.message for error in Draft202012Validator(SCHEMA).iter_errors(told)]
    assert errors == []
    return told


def made(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} & ALL


def test_a_complete_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path)
    assert finish.main([str(folder)]) == 0
    told = summary_of(folder)
    assert made(folder) == ALL
    assert told["problems"] == []
    assert told["exit_code"] == 0
    assert {"report", "nexus", "cell", "profiles", "journal", "experiment", "raw"} <= set(told["files"])
    for name in told["files"].values():
        assert not Path(name).is_absolute()
        assert (folder / name).is_file()
    said = capsys.readouterr()
    assert str(folder / "report.html") in said.out
    assert said.err == ""


def test_numbers_are_those_of_the_result(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    finish.Finish(folder).all("export")
    found = json.loads((folder / "result.json").read_text())
    told = summary_of(folder)
    for layer, given in zip(told["layers"], found["layers"], strict=True):
        assert layer["quantities"] == given["quantities"]
        for key in ("z", "agree", "interval", "verdict", "budget"):
            assert layer[key] == given[key]
    assert told["calibration"]["name"] == "lco-meep-2.91MeV"
    assert told["reference"] == "as prepared"
    assert told["counters"]["invalid_cell_readings"] == 1
    assert "lines" not in told["counters"]


def test_versions_say_what_made_it(tmp_path: Path) -> None:
    found = finish.versions()
    assert {"python", "operando", "numpy", "scipy", "h5py"} <= set(found)
    assert found["python"] == ".".join(str(part) for part in sys.version_info[:3])


@pytest.mark.usefixtures("no_figures")
def test_a_tripped_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path, until_s=2010.0, trip=True)
    assert finish.main([str(folder)]) == 0
    told = summary_of(folder)
    assert (told["exit_code"], [trip["id"] for trip in told["trips"]]) == (4, ["temperature"])
    assert made(folder) == ALL


@pytest.mark.usefixtures("no_figures")
def test_an_aborted_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path, until_s=500.0)
    assert finish.main([str(folder)]) == 0
    told = summary_of(folder)
    assert (told["exit_code"], told["outcome"]) == (5, "aborted by SIGTERM")
    assert made(folder) == ALL - {"cell.bdf.csv"}  # the potentiostat had not been asked yet


def test_a_run_that_crashed_before_any_scan(tmp_path: Path) -> None:
    folder = make_run(tmp_path, until_s=3.0, record=False, reduced=False)
    assert finish.main([str(folder)]) == 0
    told = summary_of(folder)
    assert told["exit_code"] is None
    assert told["layers"] == []
    assert any("did not write how the run ended" in text for text in told["problems"])
    assert made(folder) == {"summary.json", "report.html", "run.nxs"}


@pytest.mark.usefixtures("no_figures")
def test_a_run_that_crashed_while_charging(tmp_path: Path) -> None:
    folder = make_run(tmp_path, until_s=2000.0, record=False, reduced=False)
    assert finish.main([str(folder)]) == 0
    told = summary_of(folder)
    assert made(folder) == ALL
    assert [scan["name"] for scan in told["scans"]] == ["as prepared", "charging"]
    assert told["charge"]["coulomb"] == pytest.approx(14e-6 * 805.0)
    assert told["instruments"]["cell"]["identity"]["model"] == "EmStat4 HR"


def test_a_run_that_was_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "experiment.toml").write_text("nonsense")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "control.log").write_text("experiment.toml: not TOML\n")
    assert finish.main([str(tmp_path)]) == 0
    assert made(tmp_path) == {"summary.json"}
    assert summary_of(tmp_path)["problems"] == ["log: experiment.toml: not TOML"]


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert finish.main([str(tmp_path)]) == 2
    assert finish.main([str(tmp_path / "gone")]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "function", "name"),
    [
        (finish, "write_nexus", "run.nxs"),
        (finish, "write_bdf", "cell.bdf.csv"),
        (finish, "write_profiles", "profiles.csv"),
        (report, "write_report", "report.html"),
    ],
)
@pytest.mark.usefixtures("no_figures")
def test_a_part_that_fails_hides_none_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: Any,
    function: str, name: str,
) -> None:  # fmt: skip
    folder = make_run(tmp_path, until_s=1000.0)

    def fail(*_: Any) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(module, function, fail)
    assert finish.main([str(folder)]) == 6
    assert made(folder) == ALL - {name}
    told = summary_of(folder)
    assert told["problems"] == [f"{name} could not be made: the disk is full"]
    assert name not in told["files"].values()
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    assert "the disk is full" in said.err
    assert "RuntimeError: the disk is full" in (folder / "logs" / "finish.log").read_text()


@pytest.mark.usefixtures("no_figures")
def test_a_damaged_journal_is_said_and_the_rest_is_made(tmp_path: Path) -> None:
    folder = make_run(tmp_path, until_s=1000.0)
    (folder / "journal.sqlite").write_bytes(b"not a database")
    assert finish.main([str(folder)]) == 6
    told = summary_of(folder)
    assert told["exit_code"] == 5
    assert told["layers"]
    assert any("journal" in text for text in told["problems"])


def test_the_summary_is_there_before_anything_else_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path, until_s=1000.0)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(finish, "write_nexus", killed)
    with pytest.raises(KeyboardInterrupt):
        finish.Finish(folder).all()
    assert summary_of(folder)["exit_code"] == 5


@pytest.mark.parametrize(
    ("only", "files"),
    [("report", {"report.html"}), ("export", {"run.nxs", "cell.bdf.csv", "profiles.csv"})],
)
@pytest.mark.usefixtures("no_figures")
def test_one_kind_alone(tmp_path: Path, only: str, files: set[str]) -> None:
    folder = make_run(tmp_path, until_s=1000.0)
    assert finish.main([str(folder), "--only", only]) == 0
    assert made(folder) == files | {"summary.json"}


@pytest.mark.usefixtures("no_figures")
def test_one_kind_alone_keeps_what_is_known_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path, until_s=1000.0)

    def fail(*_: Any) -> None:
        raise RuntimeError("no HDF5")

    with monkeypatch.context() as patched:
        patched.setattr(finish, "write_nexus", fail)
        finish.main([str(folder)])
    finish.main([str(folder), "--only", "report"])
    assert summary_of(folder)["problems"] == ["run.nxs could not be made: no HDF5"]
    finish.main([str(folder), "--only", "export"])
    assert summary_of(folder)["problems"] == []


@pytest.mark.usefixtures("no_figures")
def test_a_run_without_a_result_is_reduced_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path, until_s=1000.0, reduced=False)
    with (folder / "raw" / "index.jsonl").open("a") as index:
        index.write(json.dumps({"k": "pass_end", "scan": 1, "n": 1}) + "\n")
    seen = []

    def again(run_dir: Path, *, products: Path) -> dict[str, Any]:
        seen.append((run_dir, products))
        return {**result({1: 4}), "run": RUN}

    monkeypatch.setattr(ion_beam, "reduce_run", again)
    assert finish.main([str(folder)]) == 0
    assert seen == [(folder, folder / "products")]
    told = summary_of(folder)
    assert told["layers"]
    assert any("reduced again" in text for text in told["problems"])


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(("passes", "again"), [([1, 2, 3, 4], False), ([1, 2, 3, 4, 5], True)])
def test_a_result_from_before_a_resume_is_not_mistaken_for_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: list[int], again: bool
) -> None:
    folder = make_run(tmp_path, until_s=1000.0)  # its result knows four passes of scan 1
    with (folder / "raw" / "index.jsonl").open("a") as index:
        for n in passes:
            index.write(json.dumps({"k": "pass_end", "scan": 1, "n": n}) + "\n")
    calls = []

    def reduce_run(run_dir: Path, *, products: Path) -> dict[str, Any]:
        calls.append(run_dir)
        return {**result({1: 4}), "run": RUN}

    monkeypatch.setattr(ion_beam, "reduce_run", reduce_run)
    finish.main([str(folder)])
    assert bool(calls) is again
    assert any("passes were missing" in text for text in summary_of(folder)["problems"]) is again


def test_what_was_done_before_an_interruption_is_in_the_report(tmp_path: Path) -> None:
    """Control writes down its own part alone; what the others did stands in the journal."""
    folder = make_run(tmp_path)
    whole = json.loads((folder / "record.json").read_text())
    apart_s = 1500.0 / whole["speed"]
    with sqlite3.connect(folder / "journal.sqlite") as journal:
        (seq,) = journal.execute("SELECT max(seq) FROM events WHERE kind = 'step'").fetchone()
        journal.execute("UPDATE events SET kind = 'interrupted', body = '{}' WHERE seq = ?", (seq,))
        (began,) = journal.execute("SELECT started_wall_s FROM runs").fetchone()
    last = whole["steps"][-1]
    own = {**whole, "steps": [last], "gaps": [], "began": began + apart_s, "lab_s": whole["lab_s"] - 1500.0}
    (folder / "record.json").write_text(json.dumps(own))
    assert finish.main([str(folder), "--only", "export", "--format", "bdf"]) == 0
    told = summary_of(folder)
    assert [step["title"] for step in told["steps"]] == [step["title"] for step in whole["steps"]]
    assert {gap["text"] for gap in told["gaps"]} == {gap["text"] for gap in whole["gaps"]}
    assert told["durations"]["lab_s"] == pytest.approx(whole["lab_s"])
    assert told["began"] == began


@pytest.mark.usefixtures("no_figures")
def test_a_reduction_that_fails_is_said(tmp_path: Path) -> None:
    folder = make_run(tmp_path, until_s=1000.0, reduced=False)
    with (folder / "raw" / "index.jsonl").open("a") as index:
        index.write(json.dumps({"k": "pass_end", "scan": 1, "n": 1, "raster": RASTER}) + "\n")
    assert finish.main([str(folder)]) == 6
    told = summary_of(folder)
    assert told["layers"] == []
    assert told["problems"][0].startswith("the reduction of the raw events could not be made")


def test_nothing_is_half_written(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def half() -> None:
        with replacing(path) as scratch:
            scratch.write_text("ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]
    with replacing(path) as scratch:
        assert scratch.parent == tmp_path  # the same file system: renaming is one step
        scratch.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_as_the_supervisor_calls_it(tmp_path: Path) -> None:
    folder = make_run(tmp_path, until_s=1000.0)
    command = [sys.executable, "-m", "controller.offline.finish", str(folder), "--only", "export"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert summary_of(folder)["files"]["nexus"] == "run.nxs"
