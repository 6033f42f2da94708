from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from controller.summary import SCHEMA, change, finite, summarise, total

RECORD: dict[str, Any] = {
    "run": "r1", "experiment": "quickstart", "exit_code": 0, "station": "bench", "outcome": "done",
    "speed": 60.0, "lab_s": 5085.0, "wall_s": 92.0, "began": 1767268800.0, "gaps": [], "trips": [],
    "steps": [{"path": [0], "do": "scan", "title": "scan", "begun_lab_s": 1.0}],
    "counters": {"ticks": 3, "lines": {"heater": {}}}, "instruments": {},
    "charge": {"coulomb": 0.035, "sigma": 0.0001}, "confirmed_by_person": [],
}  # fmt: skip


def quantity(value: float | None, stat: float | None, sys_: float | None) -> dict[str, Any]:
    return {"value": value, "sigma_stat": stat, "sigma_sys": sys_, "unit": "1"}


def layer(verdict: str = "", **quantities: dict[str, Any]) -> dict[str, Any]:
    return {"name": "cathode", "kind": "host", "quantities": quantities, "verdict": verdict}


def errors(summary: dict[str, Any]) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(summary)]


@pytest.fixture
def summary() -> dict[str, Any]:
    result = {"layers": [layer("change resolved", x=quantity(0.75, 0.02, 0.01))]}
    return summarise(RECORD, result, files={"report": "report.html"}, seeds={"bench": 1})


def test_the_schema_is_one_and_a_summary_follows_it(summary: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert errors(summary) == []
    json.dumps(summary, allow_nan=False)


@pytest.mark.parametrize("key", ["sigma_stat", "sigma_sys", "unit"])
def test_the_schema_refuses_a_quantity_without_uncertainty(summary: dict[str, Any], key: str) -> None:
    del summary["layers"][0]["quantities"]["x"][key]
    assert errors(summary)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sigma_stat": None}, {"sigma_sys": None}, {"value": None}, {"sigma_stat": -0.1},
        {"sigma_sys": "0.1"}, {"unit": None}, {"value": "0.75"},
    ],
)  # fmt: skip
def test_the_schema_refuses_half_a_quantity(summary: dict[str, Any], wrong: dict[str, Any]) -> None:
    summary["layers"][0]["quantities"]["x"].update(wrong)
    assert errors(summary)


def test_the_schema_takes_a_quantity_that_was_not_measured(summary: dict[str, Any]) -> None:
    summary["layers"][0]["quantities"]["x"] = quantity(None, None, None)
    assert errors(summary) == []


@pytest.mark.parametrize("missing", ["outcome", "exit_code", "layers", "versions", "seeds", "gaps", "dose"])
def test_the_schema_demands_what_the_design_promises(summary: dict[str, Any], missing: str) -> None:
    del summary[missing]
    assert errors(summary)


@pytest.mark.parametrize(("code", "good"), [(0, True), (6, True), (None, True), (1, False), (7, False)])
def test_only_the_documented_exit_codes(summary: dict[str, Any], code: int | None, good: bool) -> None:
    summary["exit_code"] = code
    assert (errors(summary) == []) is good


def test_a_value_without_its_error_is_not_passed_on_and_said() -> None:
    half = {"value": 0.75, "sigma_stat": 0.02, "unit": "1"}
    told = summarise(RECORD, {"layers": [layer(x=half, soc_beam=quantity(0.5, 0.04, 0.03))]})
    assert list(told["layers"][0]["quantities"]) == ["soc_beam"]
    assert told["problems"] == ["cathode: x came without its error and is left out"]
    assert errors(told) == []


def test_what_is_not_a_number_becomes_missing() -> None:
    told = summarise(RECORD, {"layers": [layer(x=quantity(math.nan, 0.02, 0.01))]})
    assert told["layers"][0]["quantities"]["x"] == quantity(None, None, None)
    assert errors(told) == []


def test_values_are_taken_over_as_they_are() -> None:
    given = {"value": 0.7549999999, "sigma_stat": 0.0123456789, "sigma_sys": 0.0, "unit": "1"}
    told = summarise(RECORD, {"layers": [layer(x=given)]})
    assert told["layers"][0]["quantities"]["x"] == given
    assert told["charge"] == RECORD["charge"]
    assert told["durations"] == {"lab_s": 5085.0, "wall_s": 92.0, "speed": 60.0}


def test_the_input_is_not_changed() -> None:
    record, result = copy.deepcopy(RECORD), {"layers": [layer(x=quantity(0.7, 0.1, 0.1))]}
    before = copy.deepcopy((record, result))
    summarise(record, result)
    assert (record, result) == before


def test_an_exposure_says_what_was_counted_and_lost_and_follows_the_schema() -> None:
    told = {
        "n": 1, "role": "compton", "name": "a", "purpose": "sample", "frames": 90, "hits": 70, "unread": 2,
        "unrecorded": 0, "counters": {"frames": 92, "missing": 3, "incomplete": 1, "held": 0}, "photons": 60,
        "s": {"value": 0.8, "sigma_stat": 0.01, "sigma_sys": 0.002, "unit": "1"}, "ok": True, "why": "",
        "began_lab_s": 3.0, "ended_lab_s": 9.0,
    }  # fmt: skip
    summary = summarise({**RECORD, "exposures": [told, {"n": 2, "role": "compton"}]}, None)
    first, second = summary["exposures"]
    assert (first["frames"], first["lost"], first["s"]["value"]) == (90, 6, 0.8)
    assert (second["frames"], second["lost"], second["ok"]) == (0, 0, False)
    assert not errors(summary)
    bare = {**told, "s": {"value": 0.8, "sigma_stat": None, "sigma_sys": 0.002, "unit": "1"}}
    summary = summarise({**RECORD, "exposures": [bare]}, None)
    assert summary["exposures"][0]["s"]["value"] is None
    assert not errors(summary)


def test_without_a_result_there_are_no_layers() -> None:
    told = summarise(RECORD, None, problems=["there is no final result"])
    assert told["layers"] == []
    assert told["problems"] == ["there is no final result"]
    assert errors(told) == []


def test_both_errors_in_quadrature() -> None:
    assert total(quantity(1.0, 0.3, 0.4)) == pytest.approx(0.5)
    assert total(quantity(None, None, None)) is None
    assert total({}) is None


def test_a_change_that_is_seen() -> None:
    told = change(layer("change resolved", li_relative=quantity(0.7, 0.03, 0.04)))
    assert told["seen"] is True
    assert told["sigmas"] == pytest.approx(6.0)  # 0.3 / hypot(0.03, 0.04)
    assert told["text"] == "the change is seen: 6.0 sigma"


def test_a_change_that_is_not_resolved_says_what_would_have_been() -> None:
    given = layer(
        "no change resolved", li_relative=quantity(0.985, 0.018, 0.008), soc_beam=quantity(0.03, 0.032, 0.024)
    )
    told = change(given)
    assert told["seen"] is False
    assert told["smallest_soc"] == pytest.approx(0.12)  # 3 hypot(0.032, 0.024)
    assert told["text"] == "no change resolved: 3 ± 4 %, smallest detectable 12 %"


@pytest.mark.parametrize(
    ("soc", "text"),
    [
        ((0.274, 0.089, 0.039), "27 ± 10 %, smallest detectable 29 %"),
        ((0.0123, 0.003, 0.004), "1.2 ± 0.5 %, smallest detectable 1.5 %"),
        ((-0.02, 0.05, 0.0), "−2 ± 5 %, smallest detectable 15 %"),
    ],
)
def test_value_and_limit_are_rounded_alike(soc: tuple[float, float, float], text: str) -> None:
    given = layer("no change resolved", li_relative=quantity(0.99, 0.05, 0.0), soc_beam=quantity(*soc))
    assert change(given)["text"] == f"no change resolved: {text}"


def test_lithium_that_grew_is_a_change_as_well() -> None:
    assert (
        change(layer(li_relative_charge=quantity(1.5, 0.1, 0.0)))["text"] == "the change is seen: 5.0 sigma"
    )


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (layer("reference", li_relative=quantity(1.0, 0.1, 0.1)), "this is the reference scan"),
        (layer(), "not measured"),
        (layer(li_relative=quantity(None, None, None)), "not measured"),
        (layer(li_relative=quantity(0.9, 0.0, 0.0)), "not measured"),
        (layer(li_relative=quantity(0.9, 0.1, 0.0)), "no change resolved (1.0 sigma)"),
    ],
)
def test_what_cannot_be_said_is_not_said(given: dict[str, Any], text: str) -> None:
    assert change(given)["text"] == text


def test_scans_of_control_and_of_reduce_are_joined_by_number() -> None:
    facts = {"scans": [{"scan": 2, "name": "after", "good_passes": 4}]}
    told = summarise(RECORD, {"scans": [{"scan": 2, "name": "after", "passes": [1, 2]}]}, facts=facts)
    assert told["scans"] == [{"scan": 2, "name": "after", "passes": [1, 2], "good_passes": 4}]


def test_dose_of_both_sides() -> None:
    facts = {"dose": {"protons_per_cm2": 2e15, "scans": {}}}
    told = summarise(RECORD, {"dose": {"protons_per_cm2_max": 3e15}}, facts=facts)
    assert told["dose"] == {"protons_per_cm2": 2e15, "scans": {}, "protons_per_cm2_max": 3e15}
    assert summarise(RECORD, None)["dose"] is None


def test_finite_reaches_everywhere() -> None:
    assert finite({"a": (1.0, math.inf), 2: [math.nan, "x", None, True]}) == {
        "a": [1.0, None], "2": [None, "x", None, True]
    }  # fmt: skip


def test_it_is_light_enough_for_the_command_line() -> None:
    code = "import sys, controller.summary; print(*{m.partition('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"numpy", "scipy", "numba", "matplotlib", "h5py", "edge", "pydantic"} & set(loaded.split())


def plated() -> dict[str, Any]:
    """A separator with lithium that its reference did not show."""
    counts = {**quantity(1474.4, 44.5, 48.6), "unit": "counts"}
    given = layer("appeared", li_relative=quantity(37.0, 20.0, 9.0), li_counts=counts)
    text = "lithium appeared: 1474 ± 66 counts, none in the reference; 24.4 sigma"
    one = {
        "counts": counts, "gained": {**quantity(1429.1, 50.0, 48.0), "unit": "counts"},
        "reference_below": 97.1, "threshold": 176.0, "sigmas": 24.4, "text": text,
        "first": {"scan": "charging", "passes": [1, 2]},
    }  # fmt: skip
    lost = {"li_relative": {"text": "Li not detected in the reference", "upper_limit": None}}
    return {**given, "name": "separator", "kind": "separator", "appeared": one, "undetected": lost}


def test_lithium_that_appeared_is_a_change_that_is_seen() -> None:
    made = summarise(RECORD, {"layers": [plated()]})
    assert errors(made) == []
    (one,) = made["layers"]
    assert (one["change"]["seen"], one["change"]["sigmas"]) == (True, 24.4)
    assert one["change"]["smallest_soc"] is None
    assert one["change"]["text"].startswith("lithium appeared: 1474 ± 66 counts")
    assert one["quantities"]["li_relative"]["value"] is None, "a ratio to nothing is no number"


def test_what_rests_on_an_undetected_line_is_no_number() -> None:
    given = layer("not detected", li_relative=quantity(37.0, 20.0, 9.0), li_counts=quantity(50.0, 9.0, 1.0))
    text = "Li not detected in the reference"
    given["undetected"] = {"li_relative": {"text": text, "upper_limit": None}}
    gone = layer("change resolved", li_relative=quantity(0.1, 0.1, 0.1))
    gone["undetected"] = {"li_relative": {"text": "Li not detected", "upper_limit": 0.43}}
    made = summarise(RECORD, {"layers": [given, gone]})
    assert errors(made) == []
    first, second = made["layers"]
    assert first["quantities"]["li_relative"]["value"] is None
    assert first["quantities"]["li_relative"]["flags"] == [text]
    assert first["change"] == {"seen": None, "sigmas": None, "smallest_soc": None, "text": text}
    assert first["quantities"]["li_counts"]["value"] == 50.0
    assert second["quantities"]["li_relative"]["upper_limit"] == 0.43
    assert second["change"]["seen"]
