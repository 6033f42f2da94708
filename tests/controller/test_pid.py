"""The control law: each term by numbers from its own definition, and what it must never do."""

from __future__ import annotations

import math

import pytest

from controller.pid import Gains, Memory, ramped, scheduled, step, take_over

P = Gains(2.0)
PI = Gains(2.0, ti_s=10.0)


def test_proportional_alone_is_gain_times_error():
    assert step(P, Memory(), target_k=303.0, now_k=300.0, dt_s=1.0, high_w=40.0)[0] == pytest.approx(6.0)


def test_integral_grows_by_the_measured_time():
    output, memory = step(PI, Memory(), target_k=301.0, now_k=300.0, dt_s=1.0, high_w=40.0)
    assert output == pytest.approx(2.0 + 0.2)
    output, _ = step(PI, memory, target_k=301.0, now_k=300.0, dt_s=3.0, high_w=40.0)
    assert output == pytest.approx(2.0 + 0.2 + 0.6)


def test_a_new_set_point_does_not_reach_the_derivative():
    gains = Gains(2.0, td_s=5.0)
    _, memory = step(gains, Memory(), target_k=300.0, now_k=300.0, dt_s=1.0, high_w=40.0)
    assert step(gains, memory, target_k=305.0, now_k=300.0, dt_s=1.0, high_w=40.0)[0] == pytest.approx(10.0)


def test_the_derivative_acts_against_a_rise_of_the_measurement_behind_its_filter():
    gains = Gains(2.0, td_s=5.0, filter_s=3.0)
    _, memory = step(gains, Memory(), target_k=310.0, now_k=300.0, dt_s=1.0, high_w=99.0)
    output, memory = step(gains, memory, target_k=310.0, now_k=300.4, dt_s=1.0, high_w=99.0)
    assert memory.slope_k_per_s == pytest.approx(0.1)  # 0.4 K/s, of which 1 s / (3 s + 1 s)
    assert output == pytest.approx(2.0 * 9.6 - 2.0 * 5.0 * 0.1)


def test_nothing_winds_up_while_the_output_is_clipped():
    memory = Memory()
    for _ in range(600):
        output, memory = step(PI, memory, target_k=400.0, now_k=300.0, dt_s=1.0, high_w=40.0)
        assert output == 40.0
    assert memory.integral_w == 0.0
    assert step(PI, memory, target_k=300.0, now_k=300.5, dt_s=1.0, high_w=40.0)[0] == 0.0


def test_what_had_wound_up_goes_down_although_the_output_is_clipped():
    _, memory = step(PI, Memory(60.0), target_k=300.0, now_k=301.0, dt_s=1.0, high_w=40.0)
    assert memory.integral_w < 60.0


def test_the_integral_itself_stops_where_the_output_is_clipped():
    memory = Memory(39.0)
    for _ in range(100):
        output, memory = step(PI, memory, target_k=300.2, now_k=300.0, dt_s=1.0, high_w=40.0)
    assert output == 40.0
    assert memory.integral_w <= 40.0 - 2.0 * 0.2 + 1e-9


@pytest.mark.parametrize("now_k", [None, math.nan, math.inf, -math.inf])
def test_without_a_measurement_there_is_no_power_whatever_the_integral_and_the_lower_limit(now_k):
    memory = Memory(30.0, 300.0, 0.1, 2.0)
    output, after = step(PI, memory, target_k=333.0, now_k=now_k, dt_s=1.0, low_w=5.0, high_w=40.0)
    assert output == 0.0
    assert after.measured_k is None
    assert after.slope_k_per_s == 0.0


@pytest.mark.parametrize("dt_s", [0.0, -1.0, math.nan, math.inf])
def test_a_clock_that_has_not_moved_is_refused(dt_s):
    with pytest.raises(ValueError, match="dt_s"):
        step(PI, Memory(), target_k=300.0, now_k=300.0, dt_s=dt_s, high_w=40.0)


@pytest.mark.parametrize(
    "wrong", [{"target_k": math.nan}, {"feed_w": math.inf}, {"high_w": math.nan}, {"low_w": 41.0}]
)
def test_numbers_that_are_none_are_refused(wrong):
    good = {"target_k": 300.0, "now_k": 300.0, "dt_s": 1.0, "high_w": 40.0}
    with pytest.raises(ValueError, match=r"limits|set-point"):
        step(PI, Memory(), **{**good, **wrong})


@pytest.mark.parametrize(
    "wrong", [(0.0,), (-1.0,), (math.nan,), (1.0, 0.0), (1.0, 1.0, -1.0), (1.0, 1.0, 1.0, math.nan)]
)
def test_gains_that_cannot_control_are_refused(wrong):
    with pytest.raises(ValueError, match=r"kp|ti|td|filter"):
        Gains(*wrong)


def test_other_gains_make_no_bump():
    before = Gains(8.0, ti_s=1e9)
    output, memory = step(before, Memory(5.0), target_k=301.0, now_k=300.0, dt_s=1.0, high_w=40.0)
    after, _ = step(Gains(2.0, ti_s=1e9), memory, target_k=301.0, now_k=300.0, dt_s=1.0, high_w=40.0)
    assert after == pytest.approx(output)


def test_taking_over_goes_on_from_the_power_that_was():
    gains = Gains(4.0, ti_s=1e9, td_s=3.0)
    memory = take_over(gains, Memory(), output_w=7.5, target_k=320.0, now_k=310.0, feed_w=2.0)
    output, _ = step(gains, memory, target_k=320.0, now_k=310.0, dt_s=1.0, high_w=40.0, feed_w=2.0)
    assert output == pytest.approx(7.5)


def test_the_ramp_never_passes_its_target_and_zero_means_at_once():
    assert ramped(300.0, 333.0, 0.5, 2.0) == 301.0
    assert ramped(332.9, 333.0, 0.5, 2.0) == 333.0
    assert ramped(340.0, 333.0, 0.5, 2.0) == 339.0
    assert ramped(300.0, 333.0, 0.0, 2.0) == 333.0
    for rate in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="ramp"):
            ramped(300.0, 333.0, rate, 1.0)


def test_a_schedule_is_linear_between_its_rows_in_gain_and_in_integral_rate():
    rows = [(300.0, Gains(2.0, 20.0, 1.0)), (340.0, Gains(6.0, 60.0, 3.0))]
    middle = scheduled(rows, 320.0)
    assert (middle.kp_w_per_k, middle.td_s) == (4.0, 2.0)
    assert middle.ti_s == pytest.approx(30.0)  # 1 / mean(1/20, 1/60)
    assert scheduled(rows, 250.0) == rows[0][1]
    assert scheduled(rows, 400.0) == rows[1][1]
    for wrong in ([], rows[::-1]):
        with pytest.raises(ValueError, match="schedule"):
            scheduled(wrong, 300.0)
