"""The loop in the host: 298 to 333 K, a supply that sags, a room that warms; gains as tuned."""

from __future__ import annotations

import importlib.util

import pytest

from hil_tests.sim.eurotherm_loop import LoopSettings
from tests.benchmarks import heating
from tests.benchmarks.heating import PAPER_K, SAG_S, SETTLED_K, SOUND_S, WARM_S


@pytest.fixture(scope="module")
def plant_and_gains():
    return heating.tuned()


@pytest.fixture(scope="module")
def course(plant_and_gains):
    fit, gains = plant_and_gains
    return heating.ours("ours", gains, fit)


def test_the_tuning_finds_the_holder(plant_and_gains):
    fit, gains = plant_and_gains
    assert fit.total_capacity == pytest.approx(83.4, rel=0.01)  # as in tests/edge/test_thermal.py
    assert fit.loss == pytest.approx(0.1387, rel=0.02)
    assert abs(fit.loss - 0.1387) < 3.0 * fit.sigma["loss"]
    assert abs(fit.ambient_k - 296.0) < 3.0 * fit.sigma["ambient_k"] < 0.5
    assert 3.0 < gains.kp_w_per_k < 15.0
    assert 15.0 < gains.ti_s < 120.0


def test_the_approach_at_20_k_per_min(course):
    assert course.overshoot_k() < 1.0
    assert course.within_s(PAPER_K) < 110.0  # the ramp alone takes 105 s, less the band
    assert course.within_s(SETTLED_K) < 200.0


def test_a_supply_that_sags_by_a_tenth_is_hardly_seen(course):
    assert course.worst_k(SAG_S, SOUND_S) < 0.2
    assert course.worst_k(SOUND_S, WARM_S) < 0.2  # and back again


def test_a_room_that_warms_by_5_k_is_hardly_seen(course):
    assert course.worst_k(WARM_S, heating.END_S) < 0.2
    assert course.worst_k(heating.END_S - 300.0, heating.END_S) < 0.03


def test_the_instrument_as_delivered_is_slower(course):
    other = heating.instrument("instrument", LoopSettings())
    assert other.overshoot_k() > 3.0 * course.overshoot_k()
    assert other.within_s(SETTLED_K) > 2.0 * course.within_s(SETTLED_K)


@pytest.mark.soak
@pytest.mark.skipif(not importlib.util.find_spec("simple_pid"), reason="the benchmarks extra is not there")
def test_simple_pid_with_the_same_gains_is_the_same_law_without_the_plant(plant_and_gains):
    _, gains = plant_and_gains
    own, peer = heating.ours("ours, gains alone", gains, None), heating.simple_pid(gains)
    assert peer.overshoot_k() == pytest.approx(own.overshoot_k(), abs=0.15)
    assert peer.worst_k(SAG_S, SOUND_S) == pytest.approx(own.worst_k(SAG_S, SOUND_S), abs=0.03)
