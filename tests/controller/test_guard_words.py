"""What people read of the guard: the same limits and the same conditions as it has itself."""

import pytest

from controller.config.conditions import parse_condition
from controller.guard import Action, InterlockRow
from controller.guard_types import GuardRules
from controller.guard_words import inputs_told, rules_told

RULES = GuardRules(
    263.0, 343.0, 0.5, 2.8, 4.2, 40e-6, 0.1, {"heater": 0.5, "io": 0.1, "cell": 1.0}, watch_shutter=True
)


def test_every_limit_is_told_with_the_state_that_shows_it():
    told = {one["id"]: one for one in rules_told(RULES, {"heater", "cell", "io"})}
    heater, cell = told["heater-temperature"], told["cell-voltage"]
    assert (heater["channel"], heater["low"], heater["high"]) == ("heater/temperature", 263.0, 343.0)
    assert (cell["channel"], cell["low"], cell["high"]) == ("cell/voltage", 2.8, 4.2)
    assert cell["action"] == "cell to open circuit"
    assert (told["cell-current"]["low"], told["cell-current"]["high"]) == (-40e-6, 40e-6)
    assert told["heater-stale"]["high"] == 1.5
    assert all(one["text"] and one["action"] for one in told.values())


def test_what_is_not_there_has_no_rule():
    told = {one["id"] for one in rules_told(RULES, {"io"})}
    assert "heater-temperature" not in told
    assert "cell-voltage" not in told


@pytest.mark.parametrize(("value", "met"), [(False, True), (True, False), (None, None)])
def test_a_row_is_met_as_the_guard_sees_it(value, met):
    condition = parse_condition("io.vacuum == false", {"io": "io"}, ("vacuum",))
    row = InterlockRow("vacuum", str(condition), condition, 2.0, Action.SAFE, True, "look at the gauge")
    (told,) = inputs_told([row], {"io.vacuum": value})
    assert (told["name"], told["met"], told["grace_s"]) == ("vacuum", met, 2.0)
    assert told["channels"] == ["beam/vacuum"]
