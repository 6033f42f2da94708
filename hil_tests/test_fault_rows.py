"""The fault catalogue as data: what is no row is refused, and results become a page that tells the truth."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import Mock

import pytest

from hil_tests import fault_results, fault_stages
from hil_tests.fault_results import chosen, digest, read, shortened, to_play
from hil_tests.fault_rows import CONDITIONS, Row, RowError, load
from hil_tests.fault_run import REACHED, STAGES, WITHOUT_HOST, Measured, NotStruck, allowed_s
from hil_tests.fault_settings import SETTINGS
from hil_tests.fault_strikes import STRIKES
from hil_tests.fault_table import page
from hil_tests.soak.catalogue import unexpected

GOOD = 'name = "a"\nstrike = { target = "io", kind = "permit" }\nreach = "all off"\nwall_s = 1.0\n'


def rows_of(folder: Path, *tables: str) -> list[Row]:
    folder.mkdir(exist_ok=True)
    (folder / "beam.toml").write_text("".join(f"[[fault]]\n{table}" for table in tables))
    return load(folder)


def result(row: Row, condition: str, **more: object) -> dict[str, object]:
    usual = {
        "group": row.group, "name": row.name, "condition": condition, "met": True, "reached_wall_s": 0.31,
        "allowed_wall_s": 1.0, "exit": 4, "trips": ["permit"], "row": digest(row), "tree": "abc",
        "machine": "m", "load": 0.5, "speed": 10.0, "date": "2026-01-01 10:00",
    }  # fmt: skip
    return {**usual, **more}


def test_every_row_names_things_that_exist() -> None:
    rows = load()
    assert {"temperature", "cell", "beam"} <= {row.group for row in rows}
    for row in rows:
        assert row.when in STAGES, row.name
        assert not row.setting or row.setting in {**SETTINGS, **fault_stages.SETTINGS}, row.name
        assert row.reach in {*REACHED, "goes on", "refused"}, row.name
        for part in row.strike:
            assert "do" not in part or part["do"] in {**STRIKES, **fault_stages.STRIKES}, row.name
        if "host killed" in row.conditions and row.reach != "goes on":
            assert WITHOUT_HOST.get(row.reach, row.reach) in REACHED, row.name


def test_every_guard_row_that_trips_is_also_played_without_control() -> None:
    """The supervisor alone must suffice for every row in which something has to be switched off."""
    alone = {"control blocked", "control stopped"}
    lacking = [
        row.name for row in load()
        if row.group in ("temperature", "cell", "beam") and row.reach not in ("goes on", "refused")
        and "guard" in row.conditions and not any("process" in part for part in row.strike)
        and not alone & set(row.conditions)
    ]  # fmt: skip
    assert lacking == []


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        (GOOD + 'colour = "red"\n', "no such key: colour"),
        ('name = "a"\nreach = "all off"\n', "missing: strike, wall_s"),
        (GOOD.replace("all off", "nearly off"), "reach is one of"),
        (GOOD + 'conditions = ["at night"]\n', "conditions are of"),
        (GOOD.replace("wall_s = 1.0", "wall_s = 0.0"), "wall_s is above 0"),
        (GOOD.replace('target = "io", kind', "kind"), "a strike has one of"),
        (GOOD + 'told = "("\n', "told: "),
    ],
)
def test_what_is_no_row_is_refused(tmp_path: Path, table: str, complaint: str) -> None:
    with pytest.raises(RowError, match=complaint):
        rows_of(tmp_path, table)


def test_a_name_is_given_once(tmp_path: Path) -> None:
    with pytest.raises(RowError, match="more than one row of this name: a"):
        rows_of(tmp_path, GOOD, GOOD)


def test_what_is_allowed_depends_on_who_is_left(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, GOOD + "lab_s = 20\n")
    assert allowed_s(row, "guard") == 1.0 + 20 / row.speed
    assert allowed_s(row, "host killed") < allowed_s(row, "control stopped")


def test_only_what_has_no_result_is_played(tmp_path: Path) -> None:
    asked = GOOD + 'conditions = ["guard", "host killed"]\n'
    (row,) = rows_of(tmp_path, asked)
    path = tmp_path / "results.jsonl"
    assert [condition for _, condition in to_play([row], CONDITIONS, read(path))] == ["guard", "host killed"]
    path.write_text(json.dumps(result(row, "guard")) + "\n")
    assert [condition for _, condition in to_play([row], CONDITIONS, read(path))] == ["host killed"]
    (stricter,) = rows_of(tmp_path, asked.replace("wall_s = 1.0", "wall_s = 0.5"))
    assert len(list(to_play([stricter], CONDITIONS, read(path)))) == 2
    (marked,) = rows_of(tmp_path, asked + 'open = "no rule yet"\n')
    assert digest(marked) == digest(row)


def test_the_newest_result_counts(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, GOOD)
    path = tmp_path / "results.jsonl"
    lines = [result(row, "guard"), result(row, "guard", met=False, error="too late")]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read(path)["a", "guard"]["met"] is False


def test_the_page_shows_times_failures_and_what_was_not_played(tmp_path: Path) -> None:
    both = 'conditions = ["guard", "control stopped", "host killed"]\n'
    (row,) = rows_of(tmp_path, GOOD + both)
    found = {
        ("a", "guard"): result(row, "guard"),
        ("a", "control stopped"): result(row, "control stopped", met=False, error="off after 9.9 s"),
        ("gone", "guard"): result(row, "guard", name="gone"),
    }
    text = page([row], found)
    assert "| a | everything on | all off | 0.31 of 1 s |  | **not met** | not played | permit; 4 |" in text
    assert "1 rows, 3 plays asked for; 2 played, 1 met, 1 not met." in text
    assert "- a (control stopped): off after 9.9 s" in text
    assert "gone" not in text
    assert "Nothing." in page([row], {})
    (stricter,) = rows_of(tmp_path, GOOD.replace("wall_s = 1.0", "wall_s = 0.1"))
    assert "1 rows; none has been played." in page([stricter], found)


def test_a_failure_is_told_with_the_last_lines_of_the_run() -> None:
    said = "AssertionError: off: not within 3 s\n--- cli.err\nx\n--- lines\none\ntwo\n--- left over: []"
    assert shortened(said) == "AssertionError: off: not within 3 s / one / two"
    quoted = "AssertionError: (6, '--- cli.err\\nx\\n--- lines\\none\\n--- left over: []')"
    assert shortened(quoted) == "AssertionError: (6, '--- cli.err / one"


def test_an_open_row_that_is_met_must_be_marked_as_met(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, GOOD)
    (marked,) = rows_of(tmp_path, GOOD + 'open = "no rule yet"\n')
    met, failed = result(row, "guard"), result(row, "guard", met=False, error="late")
    assert unexpected([row], [met]) == []
    assert unexpected([row], [failed]) == ["not met: a (guard)"]
    assert unexpected([marked], [failed]) == []
    assert unexpected([marked], [met]) == ["met, although it is marked open: a"]


def test_a_group_or_row_that_does_not_exist_is_refused() -> None:
    assert [row.name for row in chosen("", ["Pt100 open"])] == ["Pt100 open"]
    assert {row.group for row in chosen("cell", [])} == {"cell"}
    with pytest.raises(ValueError, match="no such group or row: nowhere"):
        chosen("nowhere", [])


def test_a_row_that_was_not_struck_has_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of(tmp_path, GOOD, GOOD.replace('"a"', '"b"'))
    played: list[str] = []

    def play(row: Row, condition: str, *_: object) -> Measured:
        played.append(row.name)
        if row.name == "a":
            raise NotStruck("charge and scan: not within 60 s")
        return Measured(0.2, 1.0, 4, ("permit",))

    monkeypatch.setattr(fault_results, "play", play)
    monkeypatch.setattr(fault_results, "play_together", lambda *_, **__: iter(()))
    monkeypatch.setattr(fault_results, "Benches", lambda folder: Mock())
    path = tmp_path / "results.jsonl"
    (new,) = fault_results.play_all(rows, CONDITIONS, path)
    assert (new["name"], new["met"], new["reached_wall_s"]) == ("b", True, 0.2)
    assert played == ["a"] * fault_results.ATTEMPTS + ["b"]
    assert "a (guard): not struck: charge and scan" in capsys.readouterr().out
    assert [row.name for row, _ in to_play(rows, CONDITIONS, read(path))] == ["a"]
