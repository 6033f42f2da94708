"""From the station file to the guard's rules: plant, switches, what asks for an acknowledgement."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.config import ConfigErrors, Experiment, Station, experiment_from, from_text, station_from
from controller.devices import build
from controller.guard_types import UNKNOWN_PLANT
from controller.rules import guard_rules, interlock_rows
from drivers.clock import RealClock

FILES = Path(__file__).parent / "config"
PLANT = (
    'plant = { power = "40 W", capacity = "85 J/K", loss = "139 mW/K", lag = "15 s", ambient = "25 degC", '
    'ambient_within = "0.5 K", tolerance = "5 %", noise = "0.02 K", identified_by = "A. Tester", '
    "identified_on = 2026-02-03 }\n"
)
ROW = """
[[interlock]]
name = "vacuum"
condition = "io.vacuum == false"
grace = "0 s"
action = "safe"
acknowledge = "the gauge"
"""


def station(*changes: tuple[str, str], more: str = "") -> Station:
    text = (FILES / "station.toml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return station_from(from_text(text + more, "station.toml"))


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return experiment_from(from_text((FILES / "experiment.toml").read_text(), "experiment.toml"))


SWITCHED = ("permit = { fio = 5 }", "permit = { fio = 5 }\nswitches = { vacuum = { fio = 6 } }")


def test_an_identified_plant_becomes_bands_that_name_who_found_them(experiment: Experiment) -> None:
    rules = guard_rules(station(("sensor_break =", PLANT + "sensor_break =")), experiment, 0.02)
    assert rules.plant.power_w == (40.0, 40.0)
    assert rules.plant.capacity_j_per_k == pytest.approx((80.75, 89.25))
    assert rules.plant.loss_w_per_k == pytest.approx((0.13205, 0.14595))
    assert rules.plant.ambient_k == pytest.approx((297.65, 298.65))
    assert "identified by A. Tester on 2026-02-03" in rules.plant.described()
    assert rules.heater_noise_k == pytest.approx(0.02)


def test_without_one_the_bands_are_wide(experiment: Experiment) -> None:
    rules = guard_rules(station(), experiment, 0.02)
    assert rules.plant is UNKNOWN_PLANT
    assert rules.heater_noise_k is None
    assert rules.watch_shutter


def test_a_row_looks_at_a_named_input_and_asks_for_an_answer() -> None:
    row = interlock_rows(station(SWITCHED, more=ROW))[-1]
    assert (row.name, row.acknowledge, row.condition.channels) == ("vacuum", "the gauge", {"io.vacuum"})
    assert row.condition.holds({"io.vacuum": False}) is True
    assert row.condition.holds({"io.vacuum": None}) is None


@pytest.mark.parametrize(
    ("changes", "more", "complaint"),
    [
        ((), ROW, 'names "io.vacuum", which the guard does not know'),
        (
            (("permit = { fio = 5 }", "permit = { fio = 5 }\nswitches = { vacuum = { fio = 2 } }"),), "",
            "is already used by relay.fio",
        ),
        ((SWITCHED,), ROW + "latch = false\n", "is never asked for: the row has latch = false"),
        ((("sensor_break =", PLANT.replace('"40 W"', "40") + "sensor_break ="),), "", "a power is needed"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused(changes: tuple[tuple[str, str], ...], more: str, complaint: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        station(*changes, more=more)
    assert any(complaint in problem.message for problem in caught.value.problems), caught.value


def test_the_controller_itself_gets_the_limits_of_chemistry_and_sample(experiment: Experiment) -> None:
    """The lowest layer that knows a limit holds it, whoever asks for a set-point."""
    from controller.config import effective_limits

    wide = station(('high = "343 K"', 'high = "473 K"'))
    limits = effective_limits(wide, experiment)
    assert limits.temperature_high_k < 453.7  # lithium metal, or what the sample says
    bench = build(wide, RealClock(), limits=limits)
    settings = bench.heater._settings  # type: ignore[attr-defined]
    assert settings["temperature_high_k"] == limits.temperature_high_k
