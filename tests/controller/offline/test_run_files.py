from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from controller.offline.facts import facts_of
from controller.offline.recover import record_of, seeds_of, supervisor_log
from controller.offline.run_files import RunFiles, decode
from controller.reduce.products import encode
from tests.controller.offline.make_run import (
    HEIGHT,
    LAB,
    NX,
    NY,
    OFF,
    RUN,
    TRIP,
    WALL,
    WIDTH,
    make_run,
    stamp,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("crashed"), until_s=2000.0, record=False, reduced=False)


# --- products ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "values"),
    [  # RFC 8746, section 2.1: tag by kind, sign, byte order and length
        ("d8 40 43 01 02 ff", [1, 2, 255]),
        ("d8 41 44 00 02 01 00", [2, 256]),
        ("d8 45 44 02 00 00 01", [2, 256]),
        ("d8 4d 42 fe ff", [-2]),
        ("d8 51 44 3f c0 00 00", [1.5]),
        ("d8 55 44 00 00 c0 3f", [1.5]),
        ("d8 56 48 00 00 00 00 00 00 f8 bf", [-1.5]),
    ],
)
def test_typed_arrays(data: str, values: list[float]) -> None:
    found = decode(b"\xa1\x61v" + bytes.fromhex(data))["v"]
    assert found.tolist() == values


def test_the_two_dimensional_array_of_the_standard() -> None:
    example = bytes.fromhex("d828 82 82 02 03 d841 4c 000200040008000400100100")  # RFC 8746, figure 1
    assert decode(b"\xa1\x61v" + example)["v"].tolist() == [[2, 4, 8], [4, 16, 256]]


def test_a_map_has_its_shape(whole: Path) -> None:
    product = RunFiles(whole).find("map/Li", 3)
    assert product is not None
    fields = product.load()
    assert fields["values"].shape == fields["sigma"].shape == (NY, NX)
    assert fields["x_um"].shape == (NX,)
    assert fields["x_um"][1] - fields["x_um"][0] == pytest.approx(WIDTH / NX)
    assert fields["y_um"][0] == pytest.approx(-HEIGHT / 2 + HEIGHT / NY / 2)


def test_every_stream_of_every_scan_once_in_order(whole: Path) -> None:
    products = RunFiles(whole).products
    assert [p.scan for p in products] == sorted(p.scan or 0 for p in products)
    keys = [(p.scan, p.stream) for p in products]
    assert len(keys) == len(set(keys)) == 26  # 8 + 9 + 9: the reference has no local state of charge
    assert {p.kind for p in products} == {"map", "profile", "spectrum", "soc"}


def test_without_a_journal_the_files_tell_what_they_are(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "products").mkdir(parents=True)
    for path in (whole / "products").iterdir():
        (folder / "products" / path.name).write_bytes(path.read_bytes())
    (folder / "products" / "scan001_broken_0001.cbor").write_bytes(b"\xff")
    found = {(p.scan, p.stream) for p in RunFiles(folder).products}
    assert found == {(p.scan, p.stream) for p in RunFiles(whole).products}


def test_whole_passes_go_before_a_running_one(tmp_path: Path) -> None:
    (tmp_path / "products").mkdir()
    for name, partial in (("scan001_map_Li_0003", False), ("scan001_map_Li_0004p", True)):
        fields = {"scan": 1, "name": "a", "purpose": "reference", "element": "Li", "partial": partial}
        (tmp_path / "products" / f"{name}.cbor").write_bytes(encode(fields))
    found = RunFiles(tmp_path).find("map/Li")
    assert found is not None
    assert found.path.name == "scan001_map_Li_0003.cbor"


def test_a_damaged_product_is_one_clear_error(whole: Path, tmp_path: Path) -> None:
    product = RunFiles(whole).find("map/Li")
    assert product is not None
    (tmp_path / "cut.cbor").write_bytes(product.path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"product cut\.cbor cannot be read"):
        type(product)("map/Li", 1, "", tmp_path / "cut.cbor").load()


# --- journal and record --------------------------------------------------------------------------------


def test_events_bear_their_times(whole: Path) -> None:
    run = RunFiles(whole)
    passes = list(run.events("pass", "scan"))
    assert [(b["scan"], b["n"]) for b in passes][:5] == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1)]
    assert passes[0]["lab_s"] == LAB + 230.0
    assert passes[0]["wall_s"] == pytest.approx(WALL + 230.0 / 60.0)
    assert list(run.events("sample", "nobody")) == []


def test_a_folder_may_be_renamed(whole: Path, tmp_path: Path) -> None:
    moved = tmp_path / "the good one"
    moved.symlink_to(whole)
    run = RunFiles(moved)
    assert run.run == RUN
    assert len(list(run.events("pass"))) == 14


def test_the_record_is_taken_over_as_it_is(whole: Path) -> None:
    record, notes = record_of(RunFiles(whole))
    assert record == json.loads((whole / "record.json").read_text())
    assert notes == []


def test_after_a_crash_the_record_comes_from_the_stations_journal(crashed: Path) -> None:
    run = RunFiles(crashed)
    assert run.journal == crashed / "state" / "journal.sqlite"
    record, notes = record_of(run)
    assert record["run"] == RUN
    assert record["experiment"] == "quickstart"
    assert record["station"] == "bench"
    assert record["outcome"] == "the host ended without closing the run"
    assert record["exit_code"] is None
    assert record["began"] is not None
    assert record["lab_s"] == pytest.approx(1995.0)  # first and last reading
    assert any("did not write how the run ended" in note for note in notes)


def test_after_a_crash_a_step_that_never_ended_says_so(crashed: Path) -> None:
    record, _ = record_of(RunFiles(crashed))
    titles = {step["title"]: step for step in record["steps"]}
    assert titles["heat to 333.0 K"]["ended_lab_s"] == LAB + 1155.0
    assert titles["charge 14.0 uA"]["ended_lab_s"] is None
    assert titles["charge 14.0 uA"]["reason"] == "did not end"
    assert "background" not in titles


def test_after_a_crash_charge_and_its_error_are_those_of_the_last_reading(crashed: Path) -> None:
    record, _ = record_of(RunFiles(crashed))
    assert record["charge"]["coulomb"] == pytest.approx(14e-6 * (1995.0 - 1190.0))
    last_pass = stamp(1675.0)  # end of the only pass while charging
    assert record["charge"]["sigma"] == pytest.approx(last_pass["charge_sigma_coulomb"])


def test_what_the_supervisor_did_is_told(tmp_path: Path) -> None:
    path = make_run(tmp_path, until_s=2000.0, record=False, reduced=False)
    lines = [
        {
            "t": WALL,
            "what": "control ended with signal SIGKILL",
            "run": RUN,
            "results": OFF,
        },
        {"t": WALL, "what": "not this one", "run": "another"},
    ]
    text = "\n".join([json.dumps(line) for line in lines] + ["not json"])
    (path / "state" / "supervisor.jsonl").write_text(text)
    assert [e["what"] for e in supervisor_log(RunFiles(path))] == ["control ended with signal SIGKILL"]
    record, notes = record_of(RunFiles(path))
    assert record["exit_code"] == 4  # the supervisor's own exit code when it had to act
    assert record["outcome"] == "control ended with signal SIGKILL"
    assert "supervisor: control ended with signal SIGKILL" in notes
    assert facts_of(RunFiles(path))["safe"] == OFF


def test_a_run_that_never_started_shows_the_log(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "control.log").write_text("station.toml: limits is missing\n\n")
    record, notes = record_of(RunFiles(tmp_path))
    assert record["outcome"] == "the run did not start"
    assert notes == ["log: station.toml: limits is missing"]
    assert record["steps"] == record["trips"] == record["gaps"] == []


def test_trips_are_found_without_a_record(tmp_path: Path) -> None:
    path = make_run(tmp_path, until_s=2100.0, record=False, trip=True)
    record, _ = record_of(RunFiles(path))
    assert [trip["text"] for trip in record["trips"]] == [TRIP["text"]]


@pytest.mark.parametrize(
    ("start", "seeds"),
    [
        ({"bench": ["--scenario", "quickstart", "--seed", "7"]}, {"bench": 7}),
        ({"seeds": {"bench": 3}}, {"bench": 3}),
        ({"station": "s.toml"}, {}),
        ({"bench": ["--seed"]}, {}),
    ],
)
def test_seeds_as_they_were_given(tmp_path: Path, start: dict[str, object], seeds: dict[str, int]) -> None:
    (tmp_path / "start.json").write_text(json.dumps(start))
    assert seeds_of(RunFiles(tmp_path)) == seeds


def test_damaged_json_counts_as_missing(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"run": ')
    (tmp_path / "result.json").write_text("[1, 2]")
    run = RunFiles(tmp_path)
    assert run.record is None
    assert run.result is None


# --- facts ---------------------------------------------------------------------------------------------


def test_scans_with_their_passes(whole: Path) -> None:
    scans = {scan["name"]: scan for scan in facts_of(RunFiles(whole))["scans"]}
    charging = scans["charging"]
    assert (charging["good_passes"], charging["quarantined_passes"], charging["lines"]) == (5, 1, 6 * NY)
    assert charging["received"]["pixe"] == 5 * 100_000 + 1 + 2 + 4 + 5 + 6  # the third does not count
    assert charging["beam_coulomb"] == pytest.approx(6 * 5.2e-9)  # the beam was there all the same
    assert charging["voltage_v"] == pytest.approx([stamp(1675.0)["voltage_v"], 4.0])


def test_the_dose_is_charge_over_area(whole: Path) -> None:
    dose = facts_of(RunFiles(whole))["dose"]
    area_cm2 = 100e-4 * 300e-4
    expected = 14 * 5.2e-9 / 1.602176634e-19 / area_cm2
    assert dose["protons_per_cm2"] == pytest.approx(expected, rel=1e-9)
    assert math.fsum(dose["scans"].values()) == pytest.approx(dose["protons_per_cm2"])


def test_quarantined_passes_and_who_asked_for_what(whole: Path) -> None:
    facts = facts_of(RunFiles(whole))
    assert [(q["name"], q["n"]) for q in facts["quarantined"]] == [("charging", 3)]
    assert facts["quarantined"][0]["why"] == "pige advanced by 815 pixels, the scanner made 816"
    assert [(c["do"], c["by"]) for c in facts["commands"]] == [("pause", "ada"), ("proceed", "ada")]
    assert facts["reference"] == "as prepared"
    assert facts["sample"]["layers"]["cathode"]["normaliser"] == "Co"


def test_nothing_at_all_is_nothing(tmp_path: Path) -> None:
    facts = facts_of(RunFiles(tmp_path))
    assert facts["scans"] == facts["commands"] == []
    assert facts["dose"] is None
    assert facts["sample"] is None


def test_arrays_are_numbers_of_the_file(whole: Path) -> None:
    product = RunFiles(whole).find("map/Co", 1)
    assert product is not None
    values = product.load()["values"]
    assert values.dtype == np.dtype("<f4")
    assert np.array_equal(values + 1.0, product.load()["gross"])  # as the maker wrote it
