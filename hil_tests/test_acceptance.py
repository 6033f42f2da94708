"""The acceptance test itself: instruments that fail, no leave to energise, and what its report is worth.

The same tests on a bench without faults are those of ``acceptance/``, collected with all others.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hil_tests.acceptance.report import Report, Row, data_of, page_of, write
from hil_tests.acceptance.subject import Asked, Measure
from hil_tests.harness import REPOSITORY, World, a_bench, edited_station

DUMMY = "100 kohm, 0.25 W, 1 %"


def accept(*arguments: str | Path) -> int:
    """Do what ``pytest hil_tests ...`` does, in this process; return its exit code."""
    usual = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts="]
    usual += ["-c", str(REPOSITORY / "pyproject.toml")]
    return int(pytest.main([str(REPOSITORY / "hil_tests"), *usual, *map(str, arguments)]))


def accepted(world: World, report: Path, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """Accept the station of a bench; return exit code and data of the report."""
    told = "--station", world.station, "--report", report, "--operator", "A. <Tester>"
    code = accept(*told, *arguments)
    return code, data_of(report.read_text())


def test_instruments_that_fail_give_a_failing_report(world: World, tmp_path: Path) -> None:
    world.put("cell.dummy_ohm", 100e3)
    world.fault("cell", "contact", ohm=3000.0)
    world.fault("io", "shutter", stuck="closed")
    world.fault("heater", "sensor", state="displaced", offset_k=40.0)
    try:
        code, data = accepted(
            world, tmp_path / "report.html", "--allow-energise", "--dummy", DUMMY, "--trace-wire",
            tmp_path / "wire", "-k", "test_shutter or test_ohms_law or test_reading",
        )  # fmt: skip
    finally:
        world.put("cell.dummy_ohm", 0.0)
    assert code == 1
    assert (data["verdict"], data["operator"]) == ("failed", "A. <Tester>")
    failed = {(row["device"], row["what"]) for row in data["rows"] if row["verdict"] == "fail"}
    assert failed == {
        ("cell", "resistance from both"),
        ("io", "open, read back"),
        ("heater", "temperature"),
    }
    [ohm] = [row["value"] for row in data["rows"] if row["what"] == "resistance from both"]
    assert ohm == pytest.approx(103e3, rel=0.005)
    serials = {one["device"]: one["serial"] for one in data["instruments"]}
    assert serials == {"heater": None, "cell": "ES4HR20B0008", "io": "470012345"}
    assert data["lines"]["cell"]["requests"] > 0
    assert world.outputs().off
    assert (tmp_path / "wire").read_text().startswith("# operando-wire-trace 1")


def test_nothing_is_energised_without_leave(world: World, tmp_path: Path) -> None:
    before = world.outputs()
    skipped = "relay", "shutter", "watchdog", "scanner", "ohms_law", "cc_cv", "small_step"
    tests = " or ".join(f"test_{name}" for name in skipped)
    code, data = accepted(world, tmp_path / "report.html", "-k", tests)
    assert code == 0
    assert (data["verdict"], data["energised"]) == ("failed", False)  # nothing was measured: no pass
    [left_out, *rows] = data["rows"]
    assert (left_out["test"], left_out["verdict"]) == ("Not chosen", "skip")
    assert len(rows) == len(skipped)
    reasons = {row["reason"].partition(":")[0].partition(" (")[0] for row in rows}
    assert reasons == {"energises", "no dummy load"}
    after = world.outputs()
    assert (after.pulses, after.heater_joule) == (before.pulses, before.heater_joule)


def test_a_battery_in_place_of_the_dummy_gets_no_current(world: World, tmp_path: Path) -> None:
    before = world.ask("counters")["twins"]["cell"]["terminal_coulomb"]
    leave = "--allow-energise", "--dummy", DUMMY
    code, data = accepted(world, tmp_path / "report.html", *leave, "-k", "test_ohms_law")
    assert code == 1
    assert "this is no resistor, nothing was sent" in data["rows"][1]["reason"]
    assert world.ask("counters")["twins"]["cell"]["terminal_coulomb"] == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--station", "none.toml"), "is not there"),
        (("--station", "station.toml"), "is missing"),
        (("--station", "station.toml", "--dummy", "100 kohm"), "is not like"),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_is_opened(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    says: str,
) -> None:
    (tmp_path / "station.toml").write_text('[station]\nname = "x"\n')
    monkeypatch.chdir(tmp_path)
    assert accept(*arguments) == 4
    told = "".join(capfd.readouterr())
    assert says in told
    assert "Traceback" not in told


def a_report(*verdicts: str) -> Report:
    rows = [Row("t", "w", verdict, value=1.0, unit="V", low=0.0) for verdict in verdicts]  # type: ignore[arg-type]
    return Report(station="lab", began="now", ended="then", operator="<b>me</b>", rows=rows)


@pytest.mark.parametrize(
    ("verdicts", "verdict"),
    [
        (("pass", "told"), "passed"),
        (("pass", "skip"), "incomplete"),
        (("pass", "skip", "fail"), "failed"),
        (("skip",), "failed"),
        ((), "failed"),
    ],
)
def test_the_verdict_of_all(verdicts: tuple[str, ...], verdict: str) -> None:
    assert a_report(*verdicts).verdict == verdict


def test_a_report_that_was_changed_is_told(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    data = write(a_report("pass", "skip"), path)
    page = path.read_text()
    assert data_of(page) == data
    assert "<b>me</b>" not in page.partition("<script")[0]
    with pytest.raises(ValueError, match="changed after it was written"):
        data_of(page.replace('"value": 1.0', '"value": 2.0'))
    with pytest.raises(ValueError, match="does not show its data"):
        data_of(page.replace("<td>1 V</td>", "<td>2 V</td>", 1))
    forged = json.loads(json.dumps(data))
    forged["rows"][1]["verdict"] = "pass"
    with pytest.raises(ValueError, match="changed"):
        data_of(page_of(forged))
    with pytest.raises(ValueError, match="no acceptance report"):
        data_of("<html></html>")


def test_a_person_is_asked(tmp_path: Path) -> None:
    def asked(answer: str, *, there: bool = True) -> Asked:
        def ask(question: str) -> str:
            assert "lamp" in question
            return answer

        return Asked(tmp_path, False, None, "Ada", False, interactive=there, ask=ask)

    asked("yes").confirm("Is the lamp on?")
    with pytest.raises(pytest.fail.Exception, match="Ada says no: Is the lamp on"):
        asked("n").confirm("Is the lamp on?")
    for unsaid in (asked("skip"), asked("yes", there=False)):
        with pytest.raises(pytest.skip.Exception):
            unsaid.confirm("Is the lamp on?")


@pytest.mark.parametrize(
    ("value", "limits", "verdict"),
    [
        (1.0, {"low": 1.0, "high": 1.0}, "pass"),
        (1.1, {"high": 1.0}, "fail"),
        (0.9, {"low": 1.0}, "fail"),
        (float("nan"), {"low": 0.0, "high": 1.0}, "fail"),
        (None, {"low": 0.0}, "fail"),
        (None, {}, "fail"),
        (0.0, {"low": 0.0}, "pass"),
        (True, {"good": False}, "fail"),
        ("x", {}, "told"),
    ],
)
def test_limits(value: Any, limits: dict[str, Any], verdict: str) -> None:
    measure = Measure(Report(), "t")
    measure("w", value, **limits)
    assert [row.verdict for row in measure.rows] == [verdict]


LEAVE = """
[acceptance]
stage = { distance = "0.5 mm", home = true, confirmed_by = "A. Tester", confirmed_on = 2026-11-22 }
"""
MOVING = "test_moving or test_limits or test_homing"


@pytest.mark.slow
def test_a_stage_moves_by_leave_alone(tmp_path: Path) -> None:
    """Without leave of the station file, or of the command line, it stands where it stood."""
    more = ("--with", "stage=zaber_ascii", "--with", "pixe=none", "--with", "pige=none")
    with a_bench(tmp_path / "bench", warm=False, speed=5.0, seed=1, more=more) as bench:
        may = edited_station(bench, tmp_path / "may.toml", lambda text: text + LEAVE)

        def stood() -> dict[str, Any]:
            return dict(bench.ask("counters")["twins"]["stage"])

        before = stood()
        for station, words, why in (
            (bench.station, ("--allow-energise",), "moves: not without leave in the station file"),
            (may, (), "energises (the motors of the stage): not without --allow-energise"),
        ):
            told = "--station", station, "--report", tmp_path / "no.html", "-k", MOVING, *words
            assert accept(*told) == 0
            rows = data_of((tmp_path / "no.html").read_text())["rows"][1:]
            assert len(rows) == 3
            assert all(row["verdict"] == "skip" and row["reason"].startswith(why) for row in rows), rows
        assert stood()["position_um"] == before["position_um"]
        assert stood()["moves"] == before["moves"]

        path = tmp_path / "yes.html"
        assert accept("--station", may, "--report", path, "--allow-energise", "-k", MOVING) == 0
        after = stood()
    data = data_of(path.read_text())
    (stage,) = [one for one in data["instruments"] if one["role"] == "stage"]
    assert stage["serial"]
    assert stage["firmware"]
    rows = data["rows"][1:]
    assert {row["verdict"] for row in rows} <= {"pass", "told"}, rows
    told = {row["what"]: row["value"] for row in rows}
    assert (told["serial number"], told["firmware"]) == (stage["serial"], stage["firmware"])
    assert told["moved by leave of"] == "A. Tester"
    for what in ("axis x there, off by", "axis y and back, off by", "axis x to 49.010 mm is refused"):
        assert what in told, sorted(told)
    assert after["moves"] > before["moves"]
    assert data["energised"]
