"""The relay test and the rules that make gains of what it finds."""

from __future__ import annotations

import math
import random

import pytest

from controller import pid
from controller.autotune import (
    RelayResult,
    RelayTest,
    TuneFailed,
    gains_from_plant,
    gains_from_relay,
)
from hil_tests.sim.physics.holder import Holder, HolderParameters

AT_K, RATE = 333.0, 20.0 / 60.0


def driven(
    parameters: HolderParameters, cap_w: float = 30.0, period_s: float = 0.5
) -> tuple[RelayTest, list[tuple[float, float]]]:
    """Let the law drive a holder until it is done; return it with temperatures and powers."""
    holder, rng = Holder(parameters, start_k=298.0), random.Random(4)
    law = RelayTest(at_k=AT_K, swing_k=1.5, cap_w=cap_w, rate_k_per_s=RATE)
    rows = []
    for _ in range(40_000):
        power_w = law(holder.pt100_k + rng.gauss(0.0, 0.005), period_s)
        rows.append((holder.pt100_k, power_w))
        if law.done:
            return law, rows
        holder.set_duty(power_w / parameters.max_power_w)
        holder.process(period_s)
    raise AssertionError(f"not done in {40_000 * period_s:.0f} s, still {law.phase}")


SMALL = HolderParameters(plate_j_per_k=12.0, cell_j_per_k=3.0, joint_w_per_k=0.5, plate_loss_w_per_k=0.05)
LARGE = HolderParameters(plate_j_per_k=500.0, cell_j_per_k=60.0, plate_loss_w_per_k=0.4, sensor_lag_s=5.0)


@pytest.mark.parametrize("parameters", [HolderParameters(), SMALL, LARGE], ids=["holder", "small", "large"])
def test_the_swing_is_small_the_cap_is_kept_and_the_rate_of_the_station_as_well(parameters):
    law, rows = driven(parameters)
    swings = [cycle.swing_k for cycle in law.cycles[2:]]
    assert all(0.9 < swing < 2.1 for swing in swings), swings
    assert max(power for _, power in rows) <= 30.0
    assert max(k for k, _ in rows) < AT_K + 2.0
    span = int(20.0 / 0.5)  # the guard's window, with its margin of 2 K
    assert max(b[0] - a[0] for a, b in zip(rows, rows[span:], strict=False)) < RATE * 20.0 + 2.0


def test_what_the_relay_says_of_a_delay_and_a_time_constant_is_what_they_are():
    # C dT/dt = u - G T with a delay L. Ultimate: atan(w C/G) + w L = pi, gain sqrt(G^2 + (w C)^2).
    capacity, loss, delay_s, dt_s = 50.0, 0.2, 8.0, 0.1
    omega = math.pi / (2.0 * delay_s)
    for _ in range(50):
        omega = (math.pi - math.atan(omega * capacity / loss)) / delay_s
    law = RelayTest(at_k=330.0, swing_k=2.0, cap_w=30.0, rate_k_per_s=0.1)
    law.band_k = 0.01  # an ideal relay
    temperature_k, late = 300.0, [0.0] * int(delay_s / dt_s)
    while not law.done:
        late.append(law(temperature_k, dt_s))
        temperature_k += (late.pop(0) - loss * (temperature_k - 300.0)) * dt_s / capacity
    found = law.result()
    assert found is not None
    assert found.ultimate_period_s == pytest.approx(2.0 * math.pi / omega, rel=0.15)
    true_gain = math.hypot(loss, omega * capacity)  # the relay sees the first harmonic of a triangle
    assert found.ultimate_gain_w_per_k == pytest.approx(true_gain * 8.0 / math.pi**2, rel=0.15)


def test_tuned_gains_hold_a_plant_that_is_a_third_off():
    gains = gains_from_plant(capacity_j_per_k=60.0, loss_w_per_k=0.14, lag_s=2.0, dead_s=0.5, period_s=0.5)
    for off in (0.67, 1.0, 1.5):
        holder = Holder(HolderParameters(plate_j_per_k=60.0 * off, cell_j_per_k=25.0 * off), start_k=330.0)
        memory, errors = pid.Memory(), []
        for _ in range(2400):
            power_w, memory = pid.step(
                gains, memory, target_k=333.0, now_k=holder.pt100_k, dt_s=0.5, high_w=40.0
            )
            holder.set_duty(power_w / 40.0)
            holder.process(0.5)
            errors.append(holder.pt100_k - 333.0)
        assert max(errors) < 1.0
        assert max(abs(one) for one in errors[-200:]) < 0.01


def test_rules_by_their_own_numbers():
    gains = gains_from_plant(
        capacity_j_per_k=60.0, loss_w_per_k=0.14, lag_s=2.0, dead_s=0.5, period_s=0.5, robust=1.0
    )
    assert gains.kp_w_per_k == pytest.approx(60.0 / 4.0)  # C / (closed + delay), both 0.5 + 0.5 + 1 s
    assert gains.ti_s == pytest.approx(16.0)  # 4 (closed + delay)
    assert gains.td_s == 2.0
    relay = gains_from_relay(RelayResult(32.0, 20.0, 1.5, 5.0, 4))
    assert (relay.kp_w_per_k, relay.ti_s) == (pytest.approx(10.0), pytest.approx(44.0))


def test_what_is_no_test_for_a_cell_is_refused():
    for swing_k in (0.5, 2.5, math.nan):
        with pytest.raises(ValueError, match="swing"):
            RelayTest(at_k=AT_K, swing_k=swing_k, cap_w=20.0, rate_k_per_s=RATE)
    for cap_w in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="cap"):
            RelayTest(at_k=AT_K, swing_k=1.5, cap_w=cap_w, rate_k_per_s=RATE)


def test_a_temperature_that_does_not_turn_ends_it():
    law = RelayTest(at_k=AT_K, swing_k=1.5, cap_w=20.0, rate_k_per_s=RATE)
    law(AT_K, 1.0)
    law(AT_K, 1795.0)
    with pytest.raises(TuneFailed, match="do not turn"):
        law(AT_K, 10.0)
