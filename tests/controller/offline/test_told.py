"""What a report says of how a run was done: plan, limits, people, calibrations, files, commands."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from controller.config import from_text, station_from
from controller.journal_rows import Record
from controller.journal_store import Journal
from controller.offline import report
from controller.offline.finish import Finish
from controller.offline.report import margins, page, write_report
from controller.offline.run_files import RunFiles
from controller.offline.told import CHECKSUMS, calibrations, tell
from controller.stamps import energy_scales
from tests.controller.config.conftest import changed
from tests.controller.offline.make_run import LAB, WALL, make_run
from tests.controller.offline.test_report import Reader

LIMITS = {"temperature_low_k": 263.0, "temperature_high_k": 343.0, "current_a": 4e-5, "dose_per_cm2": 1e17}
QUESTION = {
    "id": "q1", "text": "The cell is warmer than planned. Go on?", "choices": ["continue", "abort"],
    "default": "abort", "expires": WALL + 600.0,
}  # fmt: skip


def add(folder: Path, *rows: tuple[str, str, dict[str, Any], float]) -> None:
    """Put more events into the journal of a run; its extract is made again."""
    (folder / "journal.sqlite").unlink()
    with Journal.open(folder / "state" / "journal.sqlite", station="bench") as journal:
        journal.boot("more")
        journal.record_many(
            [
                Record(kind, module, body, run=folder.name, lab_s=LAB + at_s, wall_s=WALL + at_s)
                for kind, module, body, at_s in rows
            ]
        )
        journal.extract(folder.name, folder / "journal.sqlite")


def summary_of(folder: Path) -> dict[str, Any]:
    finish = Finish(folder)
    finish._read()
    return finish.summary()


def words_of(folder: Path) -> str:
    summary = summary_of(folder)
    return " ".join(" ".join(Reader(page(summary, {}, tell(RunFiles(folder), summary))).words).split())


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """A run that was aborted in the middle of its first scan's successor."""
    return make_run(tmp_path, until_s=1000.0)


def test_steps_that_were_not_reached_are_told(cut: Path) -> None:
    told = tell(RunFiles(cut), summary_of(cut))
    reached = {one.title: one.reached for one in told.plan}
    assert reached['scan "as prepared"']
    assert reached["heat to 333.0 K"]
    assert not reached['scan "after"']
    assert words_of(cut).count("not reached") == sum(not one.reached for one in told.plan) == 7


def test_without_the_station_file_no_duration_is_made_up(cut: Path) -> None:
    told = tell(RunFiles(cut), summary_of(cut))
    assert {one.expected_s for one in told.plan} == {None}


def test_what_was_done_without_being_planned_is_told_too(cut: Path) -> None:
    summary = summary_of(cut)
    summary["steps"].append(
        {"path": [9, 9], "do": "rest", "title": "rest by hand", "begun_lab_s": LAB + 990.0,
         "ended_lab_s": None, "reason": ""}
    )  # fmt: skip
    text = " ".join(Reader(page(summary, {}, tell(RunFiles(cut), summary))).words)
    assert "rest by hand" in text
    assert "never ended" in text


def test_limits_questions_and_answers_are_told(cut: Path) -> None:
    add(
        cut,
        ("describe", "host", {"limits": LIMITS}, 1.0),
        ("question", "sequence", QUESTION, 940.0),
        ("answer", "sequence", {"id": "q1", "choice": "continue", "by": "grace"}, 960.0),
    )
    told = tell(RunFiles(cut), summary_of(cut))
    assert next((one.what, one.low, one.high) for one in told.limits) == ("temperature", 263.0, 343.0)
    assert ("cell current, either way", 40.0) in [(one.what, round(one.high or 0, 6)) for one in told.limits]
    assert [one["who"] for one in told.talk] == ["question", "grace"]
    text = words_of(cut)
    assert "“The cell is warmer than planned. Go on?” (continue, abort)" in text
    assert "grace: answered “continue” to “The cell is warmer than planned. Go on?”" in text


def test_checksums_are_those_of_the_files(cut: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "draw", lambda view: ({}, []))
    summary = summary_of(cut)
    write_report(RunFiles(cut), summary, cut / "report.html")
    done = subprocess.run(
        ["sha256sum", "-c", CHECKSUMS], cwd=cut, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "raw/index.jsonl: OK" in done.stdout
    whole = hashlib.sha256((cut / "experiment.toml").read_bytes()).hexdigest()
    assert f'<code title="{whole}">{whole[:16]}</code>' in (cut / "report.html").read_text()
    (cut / "experiment.toml").write_text("# another one\n")
    again = subprocess.run(
        ["sha256sum", "-c", CHECKSUMS], cwd=cut, capture_output=True, text=True, check=False
    )
    assert again.returncode != 0


def test_private_files_are_not_listed(cut: Path) -> None:
    (cut / "watch.txt").write_text("viewer\nsecret\n")
    (cut / "watch.txt").chmod(0o600)
    assert "watch.txt" not in words_of(cut)


def test_the_command_that_started_it_is_told(cut: Path) -> None:
    (cut / "start.json").write_text(
        json.dumps({"seeds": {"bench": 7}, "command": ["operando", "run", "my cell.toml", "--bench"]})
    )
    text = (page(summary_of(cut), {}, tell(RunFiles(cut), summary_of(cut)))).replace("&#x27;", "'")
    assert "operando run 'my cell.toml' --bench" in text
    assert "--bench --speed 60 --seed 7" in text


def test_the_head_of_a_printed_page_cannot_end_the_style(cut: Path) -> None:
    summary = summary_of(cut)
    summary["title"] = 'x"; } </style><script>alert(1)</script>'
    text = page(summary, {})
    assert "script" not in Reader(text).tags
    style = margins(summary)
    assert style.count("{") == style.count("}") == 5
    assert 'counter(page) " of " counter(pages)' in style


def heater_only(folder: Path) -> None:
    text = (folder / "experiment.toml").read_text()
    head = text[: text.index("[analysis]")]
    (folder / "experiment.toml").write_text(
        head + '[[step]]\ndo = "heat"\nto = "313 K"\nwithin = "2 K"\nstable = "30 s"\nramp = "10 K/min"\n'
        'timeout = "20 min"\n'
    )


def test_a_run_that_only_heats_says_nothing_of_beams(tmp_path: Path) -> None:
    folder = make_run(tmp_path, until_s=3.0, reduced=False)
    heater_only(folder)
    summary = summary_of(folder)
    summary["scans"] = []
    read = Reader(page(summary, {}, tell(RunFiles(folder), summary)))
    ids = {value for tag, name, value in read.attributes if (tag, name) == ("section", "id")}
    assert ids == {"run", "events", "instruments", "provenance"}
    assert "highest temperature" in read.words
    assert "297.0 K" in read.words


def test_exposures_are_a_table_with_what_was_lost(cut: Path) -> None:
    summary = summary_of(cut)
    summary["exposures"] = [
        {"n": 1, "role": "compton", "name": "cathode", "purpose": "sample", "frames": 1604712,
         "hits": 122157983, "unread": 19000, "counters": {"lost_packets": 3},
         "ok": False, "why": "the guard ended it",
         "s": {"value": 0.6494, "sigma_stat": 0.0011, "sigma_sys": 0.002, "unit": "1"}}
    ]  # fmt: skip
    text = " ".join(" ".join(Reader(page(summary, {})).words).split())
    assert "1 604 712" in text.replace("\u202f", " ")
    assert "overwritten before they were counted" in text
    assert "3 packets lost" in text
    assert "no: the guard ended it" in text
    assert "S = 0.6494 ± 0.0011 stat ± 0.0020 sys" in text


def test_an_exposure_that_lost_nothing_says_so(cut: Path) -> None:
    summary = summary_of(cut)
    summary["exposures"] = [
        {"n": 1, "role": "radiography", "name": "dark", "purpose": "dark", "frames": 4, "ok": True}
    ]
    words = Reader(page(summary, {})).words
    row = words[words.index("dark") :]
    assert [word for word in row if word][:7] == ["dark", "radiography", "dark", "4", "—", "—", "nothing"]


def test_an_energy_scale_that_was_measured_is_told_with_its_errors_and_source(cut: Path) -> None:
    """From the station file over the record of the run to the report: what ``operando calibrate`` found."""
    table = (
        'energy = { offset = "0.2 keV", gain = "0.25 keV", measured = { offset_error = "12 eV", '
        'gain_error = "9 meV", correlation = -0.71, lines = ["Eu-152 121.8", "Eu-152 344.3"], '
        f'on = 2026-03-04, source = "eu152.Spe", sha256 = "{"ab" * 32}" }} }}'
    )
    pair = ('energy = { offset = "0 keV", gain = "0.25 keV" }', table)
    scales = energy_scales(station_from(from_text(changed("station.toml", (pair,)), "station.toml")))
    assert list(scales) == ["pige"]
    run = RunFiles(cut)
    run.record["energy_scales"] = json.loads(json.dumps(scales))
    detectors = {
        "pixe": {"offset_kev": 0.0, "gain_kev": 0.01}, "pige": {"offset_kev": 0.2, "gain_kev": 0.25},
    }  # fmt: skip
    begun = {"k": "run", "settings": {"detectors": detectors}}
    run.index.insert(0, begun)
    told = {what: (value, source) for what, value, source in calibrations(run, summary_of(cut))}
    assert told["pige: energy scale, set"] == (
        "0.200 ± 0.012 keV + 250.0000 ± 0.0090 eV × channel, correlation -0.71",
        "measured on 2026-03-04 with 2 lines of eu152.Spe (sha256 abababababababab)",
    )
    assert told["pixe: energy scale, set"] == ("0 keV + 10 eV × channel", "station file")
