"""The errors of an identification: true where readings and powers are late, where heat wanders.

The records are made here by steps of a matrix exponential, not by the model under test.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import expm

from edge.thermal import Structure, ThermalRecord, identify
from edge.thermal_rest import plateau
from tests.data_sets import find, need
from tests.edge.test_thermal import BOX16, box, table

STEP_S, PERIOD_S = 0.1, 1.0
CAPACITY, LOSS, LAG_S, ROOM_K = 85.0, 0.14, 2.0, 298.15
NAMES = ("capacity", "loss", "ambient_k")
TRUTH = (CAPACITY, LOSS, ROOM_K)
REST_S, END_S = 60.0, 780.0


def program() -> list[tuple[float, float]]:
    """Return times and powers as ``operando tune`` has them: a plateau, an approach, swings, cooling."""
    rows = [(REST_S + 20.0 * n, 5.0 + 1.2 * n) for n in range(8)]
    rows += [(REST_S + 160.0 + 18.0 * n, 0.0 if n % 2 else 12.0 - 0.3 * n) for n in range(14)]
    return [*rows, (REST_S + 420.0, 0.0)]


def record(
    rng: np.random.Generator, *, noise_k: float, late_s: float = 0.0, power_late_s: float = 0.0,
    heat: float = 0.0, rounding_k: float = 0.0,
) -> ThermalRecord:  # fmt: skip
    """Return a record of one body and its sensor, disturbed as a real one is."""
    steps = round(END_S / STEP_S)
    power = np.zeros(steps)
    for at_s, watts in program():
        power[round((at_s + rng.exponential(power_late_s)) / STEP_S) :] = watts
    power_true = power + rng.normal(0.0, heat / math.sqrt(STEP_S), steps)
    rates = np.zeros((3, 3))
    rates[0] = -LOSS / CAPACITY, 0.0, 1.0 / CAPACITY
    rates[1] = 1.0 / LAG_S, -1.0 / LAG_S, 0.0
    step = expm(rates * STEP_S)
    state, sensor = np.zeros(2), np.zeros(steps + 1)
    for n, watts in enumerate(power_true):
        state = step[:2, :2] @ state + step[:2, 2] * watts
        sensor[n + 1] = state[1]
    t = np.arange(0.0, END_S, PERIOD_S)
    seen_s = np.maximum(t - rng.exponential(late_s, t.size), 0.0)
    y = ROOM_K + np.interp(seen_s, STEP_S * np.arange(steps + 1), sensor) + rng.normal(0.0, noise_k, t.size)
    if rounding_k:
        y = np.round(y / rounding_k) * rounding_k
    told = np.zeros(t.size)
    for at_s, watts in program():
        told[t >= at_s] = watts
    return ThermalRecord.of(t, y, told)


def pulls(draws: int, *, disturbed: bool) -> np.ndarray:
    """Return (estimate - truth) / sigma of capacity, loss and room; every disturbance from its own prior."""
    rng = np.random.default_rng(2026)
    rows = []
    for _ in range(draws):
        sizes = {"noise_k": 0.01}
        if disturbed:
            sizes = {
                "noise_k": rng.uniform(0.003, 0.01), "late_s": rng.uniform(0.05, 0.3),
                "power_late_s": rng.uniform(0.05, 0.4), "heat": rng.uniform(0.05, 0.3), "rounding_k": 0.003,
            }  # fmt: skip
        fit = identify(record(rng, **sizes), Structure.LAGGED)
        rows.append([
            (getattr(fit, name) - true) / fit.sigma[name] for name, true in zip(NAMES, TRUTH, strict=True)
        ])  # fmt: skip
    return np.array(rows)


def test_errors_are_true_few():
    """A dozen and a half: enough to see errors that are several times too small."""
    found = pulls(16, disturbed=True)
    assert np.all(np.abs(found.mean(axis=0)) < 1.0)
    assert np.all((found.std(axis=0) > 0.45) & (found.std(axis=0) < 1.7))


@pytest.mark.soak
@pytest.mark.parametrize("disturbed", [False, True])
def test_errors_are_true(disturbed):
    """With the nuisances off they may be a little too large: each disturbance has a size to be found."""
    found = pulls(3200, disturbed=disturbed)
    assert np.all(np.abs(found.mean(axis=0)) < 0.1)
    assert np.all((found.std(axis=0) > (0.9 if disturbed else 0.75)) & (found.std(axis=0) < 1.05))


def test_the_room_is_known_from_the_plateau():
    """Without a plateau, a warmer room and a smaller loss cannot be told from each other."""
    one = record(np.random.default_rng(5), noise_k=0.005, late_s=0.2, power_late_s=0.3, heat=0.1)
    later = one.time_s > REST_S + 1.0
    cut = ThermalRecord.of(one.time_s[later], one.temperature_k[later], one.power[later])
    whole, without = (identify(each, Structure.LAGGED) for each in (one, cut))
    assert whole.sigma["ambient_k"] < 0.4 * without.sigma["ambient_k"]
    assert whole.sigma["loss"] < 0.6 * without.sigma["loss"]
    assert abs(whole.ambient_k - ROOM_K) < 3.0 * whole.sigma["ambient_k"]


def test_what_disturbs_is_found():
    rng = np.random.default_rng(7)
    late = identify(record(rng, noise_k=0.003, late_s=0.25), Structure.LAGGED).disturbances
    assert late.late_s == pytest.approx(0.25, rel=0.3)
    quiet = identify(record(rng, noise_k=0.01), Structure.LAGGED).disturbances
    assert quiet.noise_k == pytest.approx(0.01, rel=0.2)
    assert quiet.late_s < 0.1
    draughty = identify(record(rng, noise_k=0.003, heat=0.3), Structure.LAGGED).disturbances
    assert draughty.heat_w_root_s == pytest.approx(0.3, rel=0.4)


def test_one_box_in_two_records_is_one_box():
    """Errors from the curvature alone were 0.5 %, and the two losses 5 % apart."""
    first = table(find("thermal/box_kp4_1hz.csv"))
    second = table(need(BOX16, "the same box under another law"))[7073:8600]
    a, b = (identify(box(rows, rows["amps"]), Structure.TWO) for rows in (first, second))
    apart = math.hypot(a.sigma["loss"], b.sigma["loss"])
    assert abs(a.loss - b.loss) < 2.0 * apart
    assert a.sigma["loss"] < 0.2 * a.loss


def test_a_plateau_in_steps_hides_what_rounding_hides():
    t = np.arange(0.0, 62.0)
    power = np.append(np.zeros(60), [5.0, 5.0])
    still = plateau(ThermalRecord.of(t, np.append(np.full(61, 298.15), 298.2), power), 0.0)
    assert still is not None
    room_k, sigma_k = still.room_k(600.0, 10.0)
    assert room_k == pytest.approx(298.15, abs=1e-6)
    assert sigma_k > 600.0 * 0.05 / (60.0 * math.sqrt(3.0))
    cooling = plateau(ThermalRecord.of(t, 300.0 - 0.002 * t, power), 0.0)
    assert cooling is not None
    assert cooling.room_k(600.0, 10.0)[0] == pytest.approx(300.0 - 0.06 - 1.2, abs=0.001)
    assert plateau(ThermalRecord.of(t, t, np.ones(62)), 0.0) is None
