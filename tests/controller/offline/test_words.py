from __future__ import annotations

from typing import Any

import pytest

from controller.offline import words


def quantity(value: float | None, stat: float | None, sys: float | None, unit: str = "1") -> dict[str, Any]:
    return {"value": value, "sigma_stat": stat, "sigma_sys": sys, "unit": unit}


@pytest.mark.parametrize(
    ("name", "given", "shown"),
    [  # two digits of the total error, all parts alike
        ("x", quantity(0.73852, 0.0125, 0.0124), ("0.739", "0.013", "0.012", "0.018", "")),
        ("soc_beam", quantity(0.523, 0.025, 0.0248), ("52.3", "2.5", "2.5", "3.5", "%")),
        ("li_counts", quantity(8e4, 291.0, 120.0, "counts"), ("80\u202f000", "290", "120", "310", "counts")),
        ("li_per_charge", quantity(61.2, 1.15, 0.71, "1/nC"), ("61.2", "1.1", "0.7", "1.4", "1/nC")),
        ("li_relative", quantity(-0.0321, 0.3, 0.4), ("−0.03", "0.30", "0.40", "0.50", "")),
        ("x", quantity(0.7, 0.0996, 0.0), ("0.70", "0.10", "0.00", "0.10", "")),  # 0.0996 rounds up a digit
        ("p_counts", quantity(-0.001, 1.0, 0.0, "counts"), ("0.0", "1.0", "0.0", "1.0", "counts")),  # no -0.0
    ],
)  # fmt: skip
def test_a_quantity_is_rounded_to_its_error(name: str, given: dict[str, Any], shown: tuple[str, ...]) -> None:
    cells = words.cells(name, given)
    assert (cells.value, cells.stat, cells.sys, cells.total, cells.unit) == shown


@pytest.mark.parametrize("given", [quantity(None, None, None), {}])
def test_what_is_missing_is_a_dash_everywhere(given: dict[str, Any]) -> None:
    cells = words.cells("x", given)
    assert {cells.value, cells.stat, cells.sys, cells.total, cells.short} == {words.MISSING}


def test_short_has_value_error_and_unit() -> None:
    assert words.cells("soc_charge", quantity(0.4902, 0.0011, 0.0245)).short == "49.0 ± 2.5 %"
    assert words.cells("x", quantity(0.75, 0.03, 0.04)).short == "0.750 ± 0.050"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "—"), (0.4, "0 s"), (119.0, "119 s"), (125.0, "2 min 5 s"), (3599.4, "59 min 59 s"),
        (5085.0, "1 h 24 min"),
    ],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert words.seconds(seconds) == text


def test_charge_in_microampere_hours_with_its_error() -> None:
    assert words.charge(0.0353088, 0.000108) == "9.808 ± 0.030 µAh"  # 3.6 mC are 1 uAh
    assert words.charge(None, None) == "—"
    assert words.charge(0.0036, None) == "1.000 µAh (error not known)"


def test_powers_of_ten() -> None:
    assert words.powers(1.94e15) == "1.9 × 10¹⁵"
    assert words.powers(2.0e-3) == "2.0 × 10⁻³"


@pytest.mark.parametrize(
    ("code", "outcome", "told"),
    [
        (0, "done", ("done", "")),
        (4, "heater 344 K is above 343 K", ("stopped by the guard", "heater 344 K is above 343 K")),
        (5, "aborted by Ctrl-C of ada", ("aborted by Ctrl-C of ada", "")),
        (6, "finished, but with gaps: no beam: 2 min", ("finished, but with gaps", "no beam: 2 min")),
        (None, "the host ended", ("ended without a record", "the host ended")),
    ],
)
def test_how_it_ended(code: int | None, outcome: str, told: tuple[str, str]) -> None:
    assert words.ending({"exit_code": code, "outcome": outcome}) == told


def test_what_a_result_is_made_of() -> None:
    interval = {
        "scan": "after", "passes": [1, 4], "soc_charge": [0.5, 0.5], "temperature_k": [303.16, 333.0],
        "voltage_v": None,
    }  # fmt: skip
    assert words.made_of(interval) == "scan “after”, passes 1 to 4, SoC by charge 50.0 %, 303.2 to 333.0 K"
    assert words.made_of({"scan": "after", "passes": [3, 3]}) == "scan “after”, pass 3"
    assert words.made_of(None) == "—"


def test_names_are_those_of_the_sample() -> None:
    sample = {"layers": {"cathode": {"host": "LiCoO2", "normaliser": "Co"}}}
    assert words.name_of("x", "cathode", sample) == "x in LiₓCoO₂"
    assert words.name_of("li_relative", "cathode", sample) == "lithium per Co, relative to the reference"
    assert words.name_of("co_counts", "cathode", sample) == "Co, net counts"
    assert words.name_of("li_per_normaliser", "cathode", sample) == "Li per Co"
    assert words.name_of("soc_beam", "cathode", None) == "state of charge from the beam"


def test_agreement() -> None:
    assert words.agreement({"z": -0.254, "agree": True}) == "beam and charge agree (z = −0.25)"
    assert words.agreement({"z": 11.3, "agree": False}) == "beam and charge DISAGREE (z = 11.30)"
    assert words.agreement({"z": None, "agree": None}) == "not compared"


def test_what_is_not_detected_is_said_or_has_a_limit() -> None:
    nothing = {**quantity(None, None, None), "flags": ["Li not detected in the reference"]}
    said = words.cells("li_relative", {**nothing, "upper_limit": None})
    assert (said.value, said.total, said.short) == (nothing["flags"][0], words.MISSING, nothing["flags"][0])
    assert words.cells("li_relative", {**nothing, "upper_limit": 0.4321}).short == "< 0.43"


def test_a_quantity_with_both_errors() -> None:
    quantity = {"value": 5.0502e20, "sigma_stat": 8.6e17, "sigma_sys": 2.15e18, "unit": "1/cm2"}
    assert words.triple(quantity) == "(5.0502 ± 0.0086 ± 0.0215) × 10²⁰ 1/cm²"
    quantity = {"value": -0.0312, "sigma_stat": 0.0042, "sigma_sys": 0.012, "unit": "1"}
    assert words.triple(quantity) == "\u22120.0312 ± 0.0042 ± 0.0120"
    assert words.triple({**quantity, "value": float("nan")}) == words.MISSING


def test_a_run_that_is_done_tells_of_a_trip_after_its_last_step() -> None:
    trip = {"text": "no reading of heater for 0.52 s (allowed 0.50 s)"}
    assert words.ending({"exit_code": 0, "outcome": "done", "trips": [trip]}) == (
        "done", "the guard tripped: no reading of heater for 0.52 s (allowed 0.50 s)",
    )  # fmt: skip
    assert words.ending({"exit_code": 0, "outcome": "done", "trips": []}) == ("done", "")
