"""The errors of an identification: the truth lies within them as often as it should.

The plants are integrated here by scipy's Runge-Kutta, not by the model under test; room, noise, length, step,
dead time and power of every record are drawn.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.stats import binom

from edge.thermal import Structure, ThermalFit, ThermalRecord, identify, identify_best
from edge.thermal_kernels import invert
from tests.data_sets import find, need
from tests.edge.test_thermal import BOX16, box, table

LOSS, LAG_S = 0.14, 2.0
ONE, TWO = (85.0, 1.0, 0.0), (60.0, 25.0, 1.2)  # J/K, J/K, W/K
NAMES = ("total_capacity", "loss", "ambient_k", "late_s", "time_constant_s")
LAID_S = 100.0  # beyond the end of a record its room goes on


def program(rng: np.random.Generator, span_s: float, step_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Return when the power changes, and what it is from there: a rest, an approach, swings, cooling."""
    begins = [0.0, *(rng.uniform(20.0, 40.0) + 0.05 * span_s * np.arange(7))]
    watts = [0.0, *(4.0 + 2.2 * np.arange(7))]
    while begins[-1] < 0.75 * span_s:
        begins.append(begins[-1] + rng.uniform(15.0, 35.0))
        watts.append(1.0 if len(begins) % 2 else 10.0)
    return np.round(np.array([*begins, span_s + 60.0]) / step_s) * step_s, np.array([*watts[:-1], 0.0])


def walk(rng: np.random.Generator, span_s: float, k_per_root_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Return times, and how far the room is from its mean: it walks."""
    t = np.linspace(0.0, span_s + LAID_S, 200)
    away = np.cumsum(rng.normal(0.0, k_per_root_s * math.sqrt(t[1]), t.size))
    return t, away - away[t <= span_s].mean()


def record(
    rng: np.random.Generator, plant: tuple[float, float, float], *, correlated: bool = False,
    rounded_k: float = 0.0, walks: float = 0.0, known_within_k: float | None = None,
    dead_s: float | None = None,
) -> tuple[ThermalRecord, dict[str, float]]:  # fmt: skip
    """Return what was read of a plant, and the truth."""
    capacity, second, joint = plant
    step_s, span_s = float(rng.choice([0.5, 1.0, 2.0])), float(rng.uniform(500.0, 1500.0))
    room_k, noise_k = rng.uniform(288.0, 300.0), 10.0 ** rng.uniform(-2.5, -1.3)
    dead_s = rng.uniform(0.5, 3.0) if dead_s is None else dead_s
    start_k = room_k + rng.uniform(-1.0, 3.0)
    begins, watts = program(rng, span_s, step_s)
    at_s, away_k = walk(rng, span_s, walks)

    def rates(t: float, x: np.ndarray, power_w: float) -> list[float]:
        outside_k = room_k + (np.interp(t, at_s, away_k) if walks else 0.0)
        across = joint * (x[0] - x[1])
        return [
            (power_w - LOSS * (x[0] - outside_k) - across) / capacity,
            across / second,
            (x[0] - x[2]) / LAG_S,
        ]

    t = np.arange(0.0, span_s, step_s)
    y, state = np.full(t.size, start_k), np.full(3, start_k)
    for begin_s, end_s, power_w in zip(begins[:-1], begins[1:], watts, strict=True):
        part = solve_ivp(
            rates, (begin_s, end_s), state, args=(power_w,), rtol=1e-7, atol=1e-7, dense_output=True,
            max_step=5.0 if walks else np.inf,
        )  # fmt: skip
        seen = (t - dead_s >= begin_s) & (t - dead_s < end_s)
        y[seen], state = part.sol(t[seen] - dead_s)[2], part.y[:, -1]
    noise = rng.normal(0.0, noise_k, t.size)
    for n in range(1, t.size if correlated else 0):  # over 4.5 s
        stays = 0.8**step_s
        noise[n] = stays * noise[n - 1] + math.sqrt(1.0 - stays**2) * noise[n]
    y = y + noise
    if rounded_k:
        y = np.round(y / rounded_k) * rounded_k
    told = watts[np.searchsorted(begins, t + 1e-9, side="right") - 1]
    total = capacity + (second if joint else 0.0)
    truth = dict(zip(NAMES, (total, LOSS, room_k, LAG_S + dead_s, total / LOSS), strict=True))
    known = None if known_within_k is None else (room_k + rng.normal(0.0, known_within_k), known_within_k)
    return ThermalRecord.of(t, y, told, room_k=known), truth


CASES = {
    "white": (ONE, {}),
    "correlated, rounded": (ONE, {"correlated": True, "rounded_k": 0.01}),
    "a room that walks": (ONE, {"walks": 0.02}),
    "a room that walks, known": (ONE, {"walks": 0.02, "known_within_k": 0.2}),
    "two bodies, best of three": (TWO, {"rounded_k": 0.01}),
    "two bodies, a room that walks": (TWO, {"walks": 0.01, "correlated": True}),
}


def pulls(case: str, draws: int) -> np.ndarray:
    """Return (estimate - truth) / sigma, one row for every record."""
    plant, how = CASES[case]
    rows = []
    for draw in range(draws):
        one, truth = record(np.random.default_rng([6, draw]), plant, **how)
        fit = identify_best(one)[0] if plant is TWO else identify(one, Structure.LAGGED)
        rows.append([(getattr(fit, name) - true) / fit.sigma[name] for name, true in truth.items()])
    return np.array(rows)


def assert_true(found: np.ndarray, low: float, high: float) -> None:
    """Within one and two sigma as often as by chance, at least; no wider than they need to be."""
    count = found.shape[0]
    width = np.median(np.abs(found), axis=0) / 0.6745  # one record in fifty has a room that seems to stand
    assert np.all((width > low) & (width < high)), width
    for sigmas, share in ((1.0, 0.683), (1.96, 0.95)):
        inside = np.count_nonzero(np.abs(found) < sigmas, axis=0)
        assert np.all(inside >= binom.ppf(1e-3, count, share * SHORT)), (sigmas, inside / count)


SHORT = 0.95  # of the share that is claimed: a room that walks is not told from a steady one in every record


def test_errors_are_true_few():
    """A few of the hardest: errors that are twice too small, or too large, are seen."""
    assert_true(np.concatenate([pulls(case, 8) for case in list(CASES)[1:4]]), 0.5, 1.7)


@pytest.mark.soak
@pytest.mark.parametrize("case", CASES)
def test_errors_are_true(case):
    assert_true(pulls(case, 150), 0.6, 1.45)


def test_a_dead_time_of_nothing_moves_no_temperature():
    """At the end of what it may be it pulled the room and the beginning with it, by many kelvin."""
    for draw in range(3):
        one, truth = record(np.random.default_rng([7, draw]), ONE, dead_s=0.0)
        fit = identify(one, Structure.LAGGED)
        assert fit.ambient_k == pytest.approx(truth["ambient_k"], abs=max(4.0 * fit.sigma["ambient_k"], 0.02))
        assert fit.dead_s < 0.3


def cut(one: ThermalRecord, first_s: float, last_s: float, room_k: tuple[float, float] | None) -> ThermalFit:
    """Return the fit of a part that begins hot."""
    part = (one.time_s >= first_s) & (one.time_s < last_s)
    return identify(
        ThermalRecord.of(
            one.time_s[part], one.temperature_k[part], one.power[part], at_rest=False, room_k=room_k
        ),
        Structure.LAGGED,
    )


def test_what_is_known_of_the_room_tells_it_from_the_loss():
    one, truth = record(np.random.default_rng(3), ONE)
    middle_s = 0.5 * one.time_s[-1]
    alone = cut(one, middle_s, middle_s + 150.0, None)
    known = cut(one, middle_s, middle_s + 150.0, (truth["ambient_k"] + 0.2, 0.3))
    assert alone.sigma["ambient_k"] > 3.0
    assert known.sigma["ambient_k"] == pytest.approx(0.3, rel=0.1)
    assert known.sigma["loss"] < 0.3 * alone.sigma["loss"]
    for fit in (alone, known):
        assert abs(fit.loss - LOSS) < 3.0 * fit.sigma["loss"]
        assert abs(fit.ambient_k - truth["ambient_k"]) < 3.0 * fit.sigma["ambient_k"]


def test_a_plant_that_lacks_a_body_has_wide_errors_and_shows_it():
    one, _ = record(np.random.default_rng(4), TWO)
    lacking, right = identify(one, Structure.LAGGED), identify(one, Structure.TWO)
    assert lacking.lag_one > 0.5 > 0.2 > right.lag_one
    assert lacking.sigma["loss"] > 5.0 * right.sigma["loss"]


def test_one_box_in_two_records_is_one_box():
    """Errors from the curvature alone were 0.5 %, and the two losses 5 % apart."""
    first = table(find("thermal/box_kp4_1hz.csv"))
    second = table(need(BOX16, "the same box under another law"))[7073:8600]
    a, b = (identify(box(rows, rows["amps"]), Structure.TWO) for rows in (first, second))
    assert abs(a.loss - b.loss) < 2.0 * math.hypot(a.sigma["loss"], b.sigma["loss"])


def test_a_room_is_known_with_an_error():
    t = np.arange(100.0)
    with pytest.raises(ValueError, match="error above zero"):
        ThermalRecord.of(t, t, t, room_k=(296.0, 0.0))


def test_the_inverse_of_a_covariance():
    part = np.random.default_rng(1).normal(size=(40, 50))
    matrix = part @ part.T
    inverse = matrix.copy()
    assert invert(inverse) == pytest.approx(np.linalg.slogdet(matrix)[1], rel=1e-12)
    assert inverse @ matrix == pytest.approx(np.eye(40), abs=1e-10)
    assert math.isnan(invert(-matrix))
