"""The guard's rules of the cell over time: internal shorts and instruments that repeat themselves."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from controller.guard import Action
from controller.guard_cell import CellCheck
from controller.guard_types import Finding

LIMIT_A = 40e-6
Curve = Callable[[float], float]


def play(
    phase: str, seconds: int, volt: Curve, ampere: Curve, kelvin: Curve | None = None, *, noise: bool = True
) -> list[tuple[int, Finding]]:
    """Feed a package every second; return what was found, with its second."""
    noisy = random.Random(3)
    check = CellCheck(LIMIT_A)
    found = []
    for second in range(seconds):
        wobble = noisy.gauss(0.0, 1e-4) if noise else 0.0
        package = volt(second) + wobble, ampere(second) * (1.0 + wobble)
        warmth = None if kelvin is None else kelvin(second)
        found += [(second, one) for one in check.package(float(second), phase, *package, warmth)]
    return found


def test_a_dendrite_while_charging_shows_as_a_falling_voltage() -> None:
    found = play(
        "cc", 300, lambda t: 3.8 + 1e-4 * t - (0.3 if t >= 200 else 0.0), lambda _: 10e-6, lambda _: 333.0
    )
    second, trip = found[0]
    assert (trip.id, trip.action, second) == (
        "cell-short",
        Action.SAFE,
        201,
    )  # one package is noise, two are not
    assert "while charging" in trip.text
    assert "allowed 0.2 V" in trip.text


def test_a_short_at_rest_shows_as_a_falling_voltage() -> None:
    found = play("ocv", 400, lambda t: 3.7 if t < 200 else 3.7 - 0.02 * (t - 200), lambda _: 0.0)
    assert found[0][1].id == "cell-short"
    assert "at rest" in found[0][1].text


def test_a_short_at_constant_voltage_shows_as_a_rising_current() -> None:
    found = play("cv", 400, lambda _: 4.0, lambda t: 10e-6 * 2.0 ** (-t / 100) + (20e-6 if t >= 300 else 0.0),
                 lambda _: 333.0)  # fmt: skip
    second, trip = found[0]
    assert (trip.id, trip.channel) == ("cell-short", "cell.current")
    assert second <= 302


HEALTHY: dict[str, tuple[str, Curve, Curve, Curve | None]] = {
    "relaxation after a charge": ("ocv", lambda t: 3.6 + 0.4 * 2.0 ** (-t / 15), lambda _: 0.0, None),
    "a peak as plating begins": ("cc", lambda t: 3.8 + (0.4 if t < 10 else 0.0), lambda _: 10e-6, None),
    "a resistance that falls with warmth": (
        "cc", lambda t: 4.0 - 0.5 * min(1.0, t / 100), lambda _: 10e-6,
        lambda t: 300.0 + 20.0 * min(1.0, t / 100),
    ),
    "a smaller current": ("cc", lambda t: 3.8 - 0.3 * (t > 200), lambda t: 20e-6 - 15e-6 * (t > 200), None),
    "a discharge to its end": ("cc", lambda t: 3.6 - (0.01 * max(0, t - 250)), lambda _: -20e-6, None),
    "a current that dies away": ("cv", lambda _: 4.0, lambda t: 30e-6 * 2.0 ** (-t / 60), None),
    "noise at the end of a CV": ("cv", lambda _: 4.0, lambda t: 0.5e-6 * (1 + t % 2), None),
    "an hour at rest": ("ocv", lambda _: 3.7, lambda _: 0.0, None),
    "impedance": ("eis", lambda t: 3.7 - (t % 7), lambda t: 1e-6 * (t % 5), None),
    "galvanostatic impedance": ("geis", lambda t: 3.7 - (t % 7), lambda _: 10e-6, None),
}  # fmt: skip


@pytest.mark.parametrize("name", HEALTHY)
def test_what_healthy_cells_do_is_no_fault(name: str) -> None:
    assert play(HEALTHY[name][0], 350, *HEALTHY[name][1:]) == []


def test_an_instrument_that_repeats_itself_to_the_last_bit_while_charge_flows() -> None:
    found = play("cc", 120, lambda _: 3.8, lambda _: 10e-6, noise=False)
    assert (found[0][1].id, found[0][0]) == ("cell-frozen", 60)
    assert "60 s while charge flows" in found[0][1].text


def test_a_voltage_at_rest_may_stand_still() -> None:
    assert play("ocv", 1000, lambda _: 3.712, lambda _: 0.0, noise=False) == []


def test_a_quiet_voltage_with_a_living_current_is_not_frozen() -> None:
    assert play("cc", 1000, lambda _: 3.712, lambda t: 10e-6 + 1e-12 * (t % 40), noise=False) == []


def test_the_next_program_begins_anew() -> None:
    check = CellCheck(LIMIT_A)
    for second in range(120):
        assert not list(check.package(float(second), "cc", 3.9 + 1e-4 * second, 10e-6, None))
    check.begin()
    for second in range(120):  # another charge of the same phase, from a lower voltage
        assert not list(check.package(float(second), "cc", 3.4 + 1e-4 * second, 10e-6, None))
