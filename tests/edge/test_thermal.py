"""Identification: real loops of others, plants that are known exactly, and errors that are true."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from edge.thermal import Structure, ThermalRecord, identify, identify_best, oscillation, simulate
from hil_tests.sim.physics.holder import Holder
from tests.data_sets import find, need, reference

KELVIN = 273.15
REFERENCE = reference("thermal")
BOX16 = "thermal/box_kp16_limit_cycle_1hz.csv"


def table(path: Path) -> np.ndarray:
    return np.genfromtxt(path, delimiter=",", names=True)


def box(rows: np.ndarray, power: np.ndarray) -> ThermalRecord:
    return ThermalRecord.of(
        rows["time_s"], rows["int_temp_c"] + KELVIN, power, rows["ext_temp_c"] + KELVIN, at_rest=False
    )


def chamber(rows: np.ndarray) -> ThermalRecord:
    return ThermalRecord.of(
        np.arange(rows.size), rows["oven_c"] + KELVIN, rows["output"], rows["ambient_c"] + KELVIN,
        at_rest=False,
    )  # fmt: skip


def steps(seconds: int = 1500, step_s: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return times and powers of a test: heat, change between two powers, cool."""
    t = np.arange(0.0, seconds, step_s)
    power = np.where(t < 150, 15.0, np.where(t < 900, np.where((t // 60) % 2 == 0, 9.0, 2.0), 0.0))
    return t, power


def test_a_measured_box_is_followed_to_its_noise():
    rows = table(find("thermal/box_kp4_1hz.csv"))
    fits = identify_best(box(rows, rows["amps"]))
    assert fits[0].structure is Structure.TWO
    assert fits[0].rms_k < 0.02  # free run over 26 minutes and 3.8 K; the sensor's own noise is 0.01 K
    assert fits[0].rms_k < 0.2 * next(fit.rms_k for fit in fits if fit.structure is Structure.ONE)
    assert 3.0 < fits[0].dead_s < 9.0
    assert fits[0].sigma["loss"] < 0.15 * fits[0].loss  # the same box in another record is 5 % off


@pytest.mark.parametrize("run", [3, 5])
def test_a_measured_chamber_is_followed_through_its_step(run):
    rows = table(find(f"thermal/tec_step_run{run}.csv"))
    expected = REFERENCE[f"tec_step_run{run}.csv"]
    fit = identify_best(chamber(rows))[0]
    assert fit.rms_k < 0.013
    predicted_c = fit.predicted_k - KELVIN
    at = expected["setpoint_step_index"]
    assert predicted_c[at:].max() == pytest.approx(expected["T_max_after_step"], abs=0.03)
    assert predicted_c[-1] == pytest.approx(expected["T_last"], abs=0.03)
    assert 1.0 < fit.lag_s + fit.dead_s < 4.0


def test_two_runs_of_one_chamber_give_one_plant_as_far_as_two_minutes_can_tell():
    fits = [identify_best(chamber(table(find(f"thermal/tec_step_run{run}.csv"))))[0] for run in (3, 5)]
    for name, within in (("capacity", 0.2), ("loss", 0.1), ("second_capacity", 0.15), ("joint", 0.35)):
        a, b = (getattr(fit, name) for fit in fits)
        assert a == pytest.approx(b, rel=within)


@pytest.mark.parametrize(
    ("first", "last", "within_k"), [pytest.param(0, 1600, 0.025, marks=pytest.mark.soak), (7073, 8600, 0.02)]
)
def test_a_limit_cycle_is_followed_from_its_start_and_in_its_middle(first, last, within_k):
    part = table(need(BOX16, "fit of a saturated loop"))[first:last]
    assert identify(box(part, part["amps"]), Structure.TWO).rms_k < within_k


def test_the_reference_values_of_the_loops():
    for name in ("box_kp4_1hz.csv", "box_kp16_limit_cycle_1hz.csv"):
        rows = table(need(f"thermal/{name}", "mean, deviation and period of the second half"))
        found = oscillation(rows["time_s"], rows["int_temp_c"])
        expected = REFERENCE[name]
        assert found.mean == pytest.approx(expected["second_half_mean_C"], abs=1e-3)
        assert found.deviation == pytest.approx(expected["second_half_std_C"], abs=1e-3)
        assert found.period_s == pytest.approx(expected["second_half_dominant_period_s"], rel=0.01)


def test_the_holder_of_the_bench_is_found_as_it_was_made():
    holder = Holder(start_k=296.0)
    t, power = steps()
    rng = np.random.default_rng(3)
    seen = []
    for watts in power:
        seen.append(holder.pt100_k + rng.normal(0.0, 0.01))
        holder.set_duty(watts / holder.parameters.max_power_w)
        holder.process(1.0)
    fit = identify_best(ThermalRecord.of(t, seen, power))[0]
    p = holder.parameters
    follows = p.joint_w_per_k / (p.joint_w_per_k + p.cell_loss_w_per_k)  # the cell, which loses heat as well
    assert fit.structure is Structure.TWO
    assert fit.total_capacity == pytest.approx(p.plate_j_per_k + p.cell_j_per_k * follows**2, rel=0.005)
    assert fit.loss == pytest.approx(p.plate_loss_w_per_k + p.cell_loss_w_per_k * follows, rel=0.01)
    assert fit.ambient_k == pytest.approx(p.ambient_k, abs=0.05)
    assert fit.lag_s + fit.dead_s == pytest.approx(p.sensor_lag_s, abs=0.1)
    assert fit.rms_k < 0.0105


def test_a_free_run_is_the_exact_solution():
    t = np.arange(0.0, 400.0, 0.5)
    power = np.where(t < 100.0, 8.0, 0.0)
    y = simulate(
        ThermalRecord(t, t, power), capacity=50.0, loss=0.2, ambient_k=300.0, start_k=(300.0,), dead_s=4.0
    )
    warm = 300.0 + 40.0 * (1.0 - math.exp(-(100.0 - 4.0) * 0.2 / 50.0))
    assert y[200] == pytest.approx(warm, abs=1e-9)  # at 100 s it sees 96 s of heat
    peak = 300.0 + 40.0 * (1.0 - math.exp(-100.0 * 0.2 / 50.0))
    assert y[300] == pytest.approx(300.0 + (peak - 300.0) * math.exp(-(150.0 - 104.0) * 0.2 / 50.0), abs=1e-9)


def test_uneven_times_lose_no_energy():
    rng = np.random.default_rng(8)
    t = np.cumsum(rng.uniform(0.5, 1.5, 1200))
    power = np.where((t // 100) % 2 == 0, 12.0, 3.0)
    truth = {"capacity": 80.0, "loss": 0.3, "ambient_k": 296.0, "lag_s": 6.0, "start_k": (296.0, 296.0)}
    fine = np.arange(t[0], t[-1] + 0.05, 0.05)
    held = power[np.clip(np.searchsorted(t, fine, side="right") - 1, 0, None)]
    y = np.interp(t, fine, simulate(ThermalRecord(fine, fine, held), **truth))
    fit = identify(ThermalRecord.of(t, y + rng.normal(0, 0.01, t.size), power), Structure.LAGGED)
    assert fit.capacity == pytest.approx(80.0, rel=0.01)
    assert fit.loss == pytest.approx(0.3, rel=0.01)


def pulls(draws: int) -> np.ndarray:
    """Return (estimate - truth) / sigma of capacity, loss and room of one body with white noise."""
    t, power = steps(900, 3.0)
    truth = {"capacity": 85.0, "loss": 0.14, "ambient_k": 296.0, "dead_s": 4.5, "start_k": (296.0,)}
    clean = simulate(ThermalRecord(t, t, power), **truth)
    rng = np.random.default_rng(17)
    rows = []
    for _ in range(draws):
        record = ThermalRecord.of(t, clean + rng.normal(0.0, 0.05, t.size), power)
        fit = identify(record, Structure.ONE)
        rows.append([
            (getattr(fit, name) - truth[name]) / fit.sigma[name] for name in ("capacity", "loss", "ambient_k")
        ])  # fmt: skip
    return np.array(rows)


def test_errors_are_true_few():
    found = pulls(30)
    assert np.all(np.abs(found.mean(axis=0)) < 0.8)
    assert np.all((found.std(axis=0) > 0.6) & (found.std(axis=0) < 1.45))


@pytest.mark.soak
def test_errors_are_true():
    """They may be a little too large: nobody tells the fit that there is nothing but noise."""
    found = pulls(1600)
    assert np.all(np.abs(found.mean(axis=0)) < 0.1)
    assert np.all((found.std(axis=0) > 0.7) & (found.std(axis=0) < 1.05))


def test_what_cannot_be_learnt_from_is_refused():
    t = np.arange(100.0)
    with pytest.raises(ValueError, match="nothing can be learnt"):
        identify(ThermalRecord.of(t, np.full(100, 300.0), np.zeros(100)), Structure.ONE)
    with pytest.raises(ValueError, match="do not rise"):
        ThermalRecord.of(t[::-1], t, t)
    with pytest.raises(ValueError, match="at least 30"):
        ThermalRecord.of(t, np.full(100, np.nan), t)
    with pytest.raises(ValueError, match="one length"):
        ThermalRecord.of(t, t[:-1], t)
    with pytest.raises(ValueError, match="no number"):
        ThermalRecord.of(t, t, np.full(100, np.inf))
    rng = np.random.default_rng(2)
    short = np.arange(40.0)
    with pytest.raises(ValueError, match="not determined"):
        identify_best(
            ThermalRecord.of(short, 300.0 + rng.normal(0.0, 1.0, 40), np.where(short > 30, 0.5, 0.0))
        )
