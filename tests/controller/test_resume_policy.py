"""Whether an interrupted run goes on by itself, and with which temperature."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller.config.resume import Resume
from controller.config.steps import Parallel, Repeat
from controller.journal_store import Journal
from controller.resume_policy import Before, _before, beyond, warm_again


def policy(**keys: str) -> Resume:
    return Resume.model_validate(keys)


@pytest.mark.parametrize(
    ("keys", "age_s", "voltage_v", "temperature_k", "words"),
    [
        ({}, 60.0, None, None, []),
        ({}, 6 * 3600.0 + 60.0, 3.7, 300.0, ["for 6.02 h, more than 6 h"]),
        ({"age": "10 min"}, 700.0, 3.7, 300.0, ["for 11.7 min, more than 10 min"]),
        ({"voltage_change": "50 mV"}, 60.0, 3.92, 300.0, []),
        ({"voltage_change": "50 mV"}, 60.0, 3.7, 300.0,
         ["the voltage went from 3.900 to 3.700 V, more than 0.05 V"]),
        ({"voltage_change": "50 mV"}, 60.0, None, 300.0, ["the voltage is not known, which was 3.900 V"]),
        ({"temperature_change": "5 K"}, 60.0, 3.7, 300.0,
         ["the temperature went from 333.0 to 300.0 K, more than 5 K"]),
    ],
)  # fmt: skip
def test_what_is_beyond_the_policy(
    keys: dict[str, str], age_s: float, voltage_v: float | None, temperature_k: float | None, words: list[str]
) -> None:
    before = Before(0.0, 1, 3.9, 333.0)
    assert beyond(policy(**keys), before, age_s, voltage_v, temperature_k) == words


def test_what_was_known_before_is_from_before_this_start(tmp_path: Path) -> None:
    """And an interruption that was asked about, and left, is as old as it was."""
    with Journal.open(tmp_path / "journal.sqlite", station="bench") as journal:
        journal.boot("run")
        journal.record("step", "sequence", {"state": "begun"}, run="r")
        journal.record("sample", "cell", {"voltage_v": 3.9}, run="r")
        journal.record("sample", "heater", {"temperature_k": 333.0}, run="r")
        journal.boot("run")
        journal.record("sample", "heater", {"temperature_k": 300.0}, run="r")
        first = _before(journal, "r")
        assert first is not None
        assert (first.voltage_v, first.temperature_k) == (3.9, 333.0)
        journal.record("interrupted", "host", {"since": first.wall_s, "upto": first.upto}, run="r")
        journal.boot("run")
        assert _before(journal, "r") == first
        # It went on, was interrupted anew: now that counts.
        journal.record("step", "sequence", {"state": "begun"}, run="r")
        journal.record("sample", "heater", {"temperature_k": 310.0}, run="r")
        journal.boot("run")
        again = _before(journal, "r")
        assert again is not None
        assert (again.voltage_v, again.temperature_k) == (3.9, 310.0)
        assert again.wall_s > first.wall_s
        assert _before(journal, "another") is None


def step(do: str, **more: Any) -> Any:
    return SimpleNamespace(do=do, ramp_k_per_s=None, **more)


HEAT, CHARGE, COOL, SCAN = step("heat"), step("charge"), step("cool"), step("scan")


@pytest.mark.parametrize(
    ("steps", "done", "expected"),
    [
        ([SCAN, HEAT, CHARGE, COOL], 2, 1),  # in mid-charge: heated again
        ([SCAN, HEAT, CHARGE, COOL], 3, None),  # cooling comes next
        ([SCAN, HEAT, CHARGE, COOL, SCAN], 4, None),  # the heater was off
        ([HEAT, CHARGE, HEAT, CHARGE], 2, None),  # heating comes next
        ([SCAN, CHARGE], 1, None),
        ([HEAT], 1, None),  # everything is done
        ([HEAT, CHARGE], 0, None),
    ],
)
def test_which_step_had_set_the_temperature(steps: list[Any], done: int, expected: int | None) -> None:
    found = warm_again(steps, done)
    assert (None if found is None else found[0]) == expected


def test_a_step_inside_a_repetition_counts() -> None:
    inside = Repeat.model_construct(do="repeat", steps=(COOL, HEAT), times=2)
    beside = Parallel.model_construct(do="parallel", steps=(CHARGE, SCAN))
    assert warm_again([inside, beside], 1) == (0, HEAT)
