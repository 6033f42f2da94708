from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from controller.offline import show, words
from controller.offline.finish import Finish
from controller.summary import summarise
from tests.controller.offline.make_run import QUANTITIES, make_run
from tests.controller.test_summary import RECORD, plated


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_run(tmp_path_factory.mktemp("show"))
    finish = Finish(path)
    finish._read()
    finish._summary()
    return path


@pytest.fixture
def summary(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return told


def shown(summary: dict[str, Any], encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    show.print_result(summary, stream, Path("runs/r"))
    return raw.getvalue().decode(encoding)


def row(text: str, label: str) -> list[str]:
    line = next(line for line in text.splitlines() if label in line)
    return line.partition(label)[2].split()


def cathode(summary: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(layer for layer in summary["layers"] if layer["name"] == "cathode")
    return found


def test_lithium_that_appeared_is_said_first_and_without_a_ratio(summary: dict[str, Any]) -> None:
    summary["layers"].append(summarise(RECORD, {"layers": [plated()]})["layers"][0])
    text = shown(summary)
    assert "separator: lithium appeared: 1474 ± 66 counts, none in the reference; 24.4 sigma" in text
    told = " ".join(text.partition("24.4 sigma")[2].split())
    assert told.startswith(
        "1 429 ± 69 counts more than the reference for the same beam charge, which had fewer than 97; "
        "claimed above 176. Nothing to compare with: no relative signal, no state of charge. First seen in "
        "scan “charging”, passes 1 to 2"
    )
    assert "Li not detected in the reference" not in told


@pytest.mark.parametrize(
    ("name", "label", "scale"),
    [
        ("li_relative", "lithium per Co, relative to the reference", 1.0),
        ("li_relative_charge", "lithium per beam charge, relative to the reference", 1.0),
        ("x", "x in LiₓCoO₂", 1.0),
        ("soc_beam", "state of charge from the beam", 100.0),
        ("soc_charge", "state of charge from the charge passed", 100.0),
    ],
)
def test_numbers_are_those_of_the_file(summary: dict[str, Any], name: str, label: str, scale: float) -> None:
    value, stat, sys = (scale * part for part in QUANTITIES[name])
    cells = [float(cell) for cell in row(shown(summary), label) if cell != "%"]
    digit = 10.0 ** math.floor(math.log10(math.hypot(stat, sys))) / 10.0  # two digits of the total error
    assert cells == pytest.approx([value, stat, sys, math.hypot(stat, sys)], abs=0.51 * digit)


def test_no_quantity_is_ever_shown_without_its_errors(summary: dict[str, Any]) -> None:
    text = shown(summary)
    for layer in summary["layers"]:
        for name, quantity in layer["quantities"].items():
            if name in words.NAMES:
                cells = words.cells(name, quantity)
                label = words.name_of(name, layer["name"], summary["sample"])
                lines = [line for line in text.splitlines() if label in line]
                told = [[c for c in line.partition(label)[2].split() if c != "%"] for line in lines]
                assert [cells.value, cells.stat, cells.sys, cells.total] in told


def test_it_says_how_it_ended_what_changed_and_whether_both_agree(summary: dict[str, Any]) -> None:
    lines = shown(summary).splitlines()
    assert "done" in [line.strip() for line in lines]
    verdict = next(line for line in lines if line.strip().startswith("cathode (host)"))
    assert "the change is seen: 15.3 sigma" in verdict  # 0.2488 / hypot(0.0121, 0.0109)
    assert lines[lines.index(verdict) + 1].strip() == "beam and charge agree (z = 0.77)"


def test_it_names_the_interval(summary: dict[str, Any]) -> None:
    assert "scan “after”, passes 1 to 4, SoC by charge 49.0 %, 310.2 to 333.0 K" in shown(summary)


def test_disagreement_is_not_whispered(summary: dict[str, Any]) -> None:
    cathode(summary).update(z=-4.1, agree=False)
    assert "DISAGREE (z = −4.10)" in shown(summary)


def test_a_change_that_is_not_resolved(summary: dict[str, Any]) -> None:
    cathode(summary)["change"]["text"] = "no change resolved: 3 ± 4 %, smallest detectable 12 %"
    assert "no change resolved: 3 ± 4 %, smallest detectable 12 %" in shown(summary)


@pytest.mark.parametrize("how", ["null", "absent"])
def test_what_is_missing_is_shown_as_missing(summary: dict[str, Any], how: str) -> None:
    quantities = cathode(summary)["quantities"]
    if how == "null":
        quantities["x"] = {"value": None, "sigma_stat": None, "sigma_sys": None, "unit": "1"}
    else:
        del quantities["x"]
    assert row(shown(summary), "x in LiₓCoO₂") == ["—", "—", "—", "—"]


def test_everything_a_reader_must_know_is_said(summary: dict[str, Any]) -> None:
    summary["trips"] = [{"text": "permit is gone", "action": "safe", "lab_s": 160.0}]
    summary["problems"] = ["run.nxs could not be made: disk full"]
    summary["outputs_off"][0].update(confirmed=False, error="no answer in 0.5 s")
    text = shown(summary)
    assert "gap (minute 50): the beam is away: the scan waits, blanked" in text
    assert "scan “charging” pass 3 (minute 44) does not count: pige advanced by 815 pixels" in text
    assert "guard (minute 1): permit is gone → safe" in text
    assert "run.nxs could not be made: disk full" in text
    assert "io did not confirm off: no answer in 0.5 s" in text
    assert "charging: pixe pile-up reaches 1.2 % in a pixel" in text
    assert "by virtual bench on 2026-01-01 (no register" in text
    assert "calibration table lco-meep-2.91MeV" in text
    assert "9.808 ± 0.030 µAh passed" in text
    assert "as prepared 4, charging 5, after 4" in text


def test_nothing_to_know_is_not_a_heading(summary: dict[str, Any]) -> None:
    summary.update(gaps=[], quarantined=[], flags=[])
    assert "To know" not in shown(summary)


def test_where_the_files_are(summary: dict[str, Any]) -> None:
    summary["files"] |= {"report": "report.html", "nexus": "run.nxs"}
    text = shown(summary)
    assert "Files in runs/r" in text
    assert "report.html" in text
    assert "run.nxs" in text


def test_plain_letters_where_there_are_no_others(summary: dict[str, Any]) -> None:
    text = shown(summary, "ascii")
    assert text.isascii()
    assert "?" not in text
    assert "9.808 +- 0.030 uAh passed" in text
    assert "state of charge from the beam" in text


def test_a_pipe_gets_neither_colours_nor_trailing_blanks(summary: dict[str, Any]) -> None:
    text = shown(summary)
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in text.splitlines())
    assert max(len(line) for line in text.splitlines()) <= show.WIDTH


def test_a_run_without_a_result(summary: dict[str, Any]) -> None:
    summary.update(layers=[], problems=["there is no final result"], exit_code=4, outcome="permit is gone")
    text = shown(summary)
    assert "stopped by the guard: permit is gone" in text
    assert "No result" in text


EXPOSURE = {
    "n": 2, "role": "compton", "name": "charged", "purpose": "sample", "frames": 8192, "lost": 3,
    "photons": 51234, "s": {"value": 0.8123, "sigma_stat": 0.0041, "sigma_sys": 0.002, "unit": "1"},
    "ok": True,
}  # fmt: skip


def test_a_run_of_nothing_but_exposures_has_a_result(summary: dict[str, Any]) -> None:
    summary.update(layers=[], scans=[], exposures=[EXPOSURE])
    text = shown(summary)
    assert "No result" not in text
    (line,) = [line for line in text.splitlines() if "charged, compton" in line]
    assert "8 192 frames" in line.replace("\u202f", " ")
    assert "S = 0.8123 ± 0.0041 stat ± 0.0020 sys" in line
    assert "3 lost" in line
    summary["exposures"] = [{**EXPOSURE, "ok": False, "s": None, "why": "16 frames unread"}]
    assert "attention: 16 frames unread" in " ".join(shown(summary).split())


def test_scans_without_a_result_are_still_said(summary: dict[str, Any]) -> None:
    summary.update(layers=[], exposures=[EXPOSURE])
    assert summary["scans"]
    assert "No result" in shown(summary)


def test_a_run_that_never_started_is_three_lines(summary: dict[str, Any]) -> None:
    summary.update(layers=[], steps=[], problems=["log: x"], exit_code=None, outcome="the run did not start")
    summary.update(gaps=[], trips=[], quarantined=[], flags=[])
    text = shown(summary)
    assert "the run did not start" in text
    assert "log: x" in text
    assert "Files" not in text


def test_json_is_the_file_itself(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show.main([str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((folder / "summary.json").read_text())


def test_the_command_prints_for_people(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show.main([str(folder)]) == 0
    assert "the change is seen" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "{"])
def test_without_a_summary_it_says_what_to_do(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    assert show.main([str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"operando report {tmp_path}" in said.err
