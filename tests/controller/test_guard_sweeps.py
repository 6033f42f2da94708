"""The guard in impedance sweeps: the sine counts with its bias, a silence is judged by the frequency."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.guard_types import Action, Trip
from drivers.roles import CellSample
from tests.controller.test_guard import Time, cell, ids, make


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def trips() -> list[Trip]:
    return []


def point(time: Time, elapsed_s: float, voltage_v: float, current_a: float, **swing: float) -> CellSample:
    return replace(cell(time, elapsed_s, voltage_v, current_a), phase="geis", **swing)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("voltage_v", "current_a", "swing", "tripped"),
    [
        (4.00, 5e-6, {"swing_v": 0.049}, ""),
        (4.00, 5e-6, {"swing_v": 0.051}, "cell-voltage"),  # 4.051 V of 4.05 V, though the mean is 4 V
        (2.54, 5e-6, {"swing_v": 0.041}, "cell-voltage"),  # 2.499 V of 2.5 V
        (3.80, 20e-6, {"swing_a": 19e-6}, ""),
        (3.80, 20e-6, {"swing_a": 21e-6}, "cell-current"),  # 41 uA of 40 uA
        (3.80, -20e-6, {"swing_a": 21e-6}, "cell-current"),
    ],
)  # fmt: skip
def test_the_peak_of_the_sine_is_held_against_the_limits(
    time: Time, trips: list[Trip], voltage_v: float, current_a: float, swing: dict[str, float], tripped: str
) -> None:
    guard = make(time, trips)
    guard.expect_cell(True, 30.0)
    for k in (1, 2):
        guard.cell(point(time, float(k), voltage_v, current_a, **swing))
    assert ids(trips) == ([tripped] if tripped else [])


def test_the_charge_of_a_bias_is_counted_up_to_the_limit(time: Time, trips: list[Trip]) -> None:
    """20 uA: the limit of 0.1 C is there after 5000 s."""
    guard = make(time, trips)
    guard.expect_cell(True, 30.0)
    for k in range(1, 5):
        guard.cell(point(time, 1200.0 * k, 3.8, 20e-6))
    assert trips == []
    for k in (5, 6):
        guard.cell(point(time, 1200.0 * k, 3.8, 20e-6))
    assert ids(trips) == ["cell-charge"]


def test_silence_is_judged_by_the_frequency_that_is_measured(time: Time, trips: list[Trip]) -> None:
    """Ten seconds for a fast point, 1000 s for a slow one: three times that, each."""
    guard = make(time, trips)
    guard.expect_cell(True, 10.0)
    guard.pace_cell(1000.0)
    guard.lease("cell", 1e4, Action.OPEN_CIRCUIT)
    guard.cell(point(time, 1.0, 3.8, 1e-6))
    time.wall_s += 2900.0
    guard.cell(point(time, 2900.0, 3.8, 1e-6))
    assert trips == []
    guard.pace_cell(10.0)
    time.wall_s += 31.0
    guard.tick()
    assert "cell-stale" in ids(trips)
