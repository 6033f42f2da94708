"""Diverging particles and lithium kept back: the paper's printed numbers, and drawn cells end to end."""

from __future__ import annotations

import numpy as np
import pytest

from edge.particles_events import ParticleReducer
from edge.particles_lithium import (
    NMC532_MAH_G,
    PAPER_DIVERGING,
    PAPER_INACTIVE_MAH_G,
    diverging,
    held_back,
    inactive,
    molar_mass_nmc,
    soc_from_capacity,
    theoretical_capacity_mah_g,
)
from edge.particles_pairs import event_ratio, null_sigma
from edge.particles_ratios import Frame, Line, fit_gaussian
from edge.particles_runs import EventRules, Events
from edge.uncertainty import Estimate
from tests.edge.particles_model import two_lines


def test_the_capacity_of_the_paper():
    """278 mAh/g for NMC532 of 96.55 g/mol (F / 3.6 M = 277.6)."""
    assert molar_mass_nmc(0.5, 0.3, 0.2) == pytest.approx(96.55, abs=0.005)
    assert pytest.approx(277.6, abs=0.05) == NMC532_MAH_G
    assert round(NMC532_MAH_G) == 278
    with pytest.raises(ValueError, match="positive"):
        theoretical_capacity_mah_g(0)


def test_preset_charge_is_not_the_measured_state_of_charge():
    """Preset 56, 111, 167, 222 mAh/g are 20.1 to 79.9 %; the paper measured 23 +- 2, 41, 61, 81 +- 1 %."""
    preset = [100 * soc_from_capacity(q, 278.0) for q in (56, 111, 167, 222)]
    assert preset == pytest.approx([20.1, 39.9, 60.1, 79.9], abs=0.05)
    for ours, (theirs, error) in zip(preset, ((23, 2), (41, 1), (61, 1), (81, 1)), strict=True):
        assert theirs > ours
        assert theirs - ours < 2 * error


@pytest.mark.parametrize("name", PAPER_DIVERGING)
def test_the_errors_of_the_paper_are_those_of_counting(name: str):
    """6 +- 1, 8 +- 1, 15 +- 2, 11 +- 1, 10 +- 1 %: the binomial errors of 300 to 1000 particles."""
    percent, error = PAPER_DIVERGING[name]
    n = round(percent * (100 - percent) / error**2)
    assert 300 < n < 1000
    hits = round(percent * n / 100)
    ratios = np.r_[np.full(n - hits, 0.3), np.full(hits, 0.9)]
    d = diverging(ratios, Frame("soc81", 0.3, 0.03, 1e-4, 1e-4))
    assert 100 * d.fraction.value == pytest.approx(percent, abs=0.2)
    assert 100 * d.fraction.sigma_stat == pytest.approx(error, rel=0.02)
    assert d.fraction.sigma_sys == 0
    assert d.interval[0] < d.fraction.value < d.interval[1]
    assert d.interval95[0] < d.interval[0]


def test_inactive_lithium_of_table_1():
    """4.5 +- 1.7 mAh/g is 1.6 % of all lithium: what both measurements must agree to within."""
    for value, error in PAPER_INACTIVE_MAH_G.values():
        active = Estimate(150.0, error * 0.6, 0.0, "mAh/g")
        dol = Estimate((150.0 + value) / NMC532_MAH_G, error * 0.8 / NMC532_MAH_G, 0.0, "")
        found = inactive(dol, active)
        assert found.value == pytest.approx(value)
        assert found.sigma_stat == pytest.approx(error)
        assert found.unit == "mAh/g"
    assert inactive(Estimate(0.5, 0, 0, ""), Estimate(150, 0, 0, "")).value < 0  # nothing is clipped


def test_what_the_particles_of_the_paper_could_hold_back():
    """8 % fully lithiated ones above cells at 31 % hold at most 15 mAh/g; table 1 has 4.5 +- 1.7."""
    line = Line(0.05, 0.75, np.diag([1e-8, 1e-8]), 1.0, 3)
    frame = Frame("soc81", 0.05 + 0.75 * 0.31, 1e-6, 0.0, 0.0)
    ratios = np.r_[np.full(920, frame.mean), np.full(80, 0.05 + 0.75)]
    found = held_back(ratios, frame, line)
    assert found.value == pytest.approx(0.08 * 0.69 * NMC532_MAH_G, rel=1e-3)
    assert found.sigma_stat == pytest.approx(found.value * np.sqrt(0.92 / 80), rel=0.01)


def test_expected_share_grows_with_the_counting_errors():
    frame = Frame("f", 0.3, 0.03, 0.0, 0.0, counting=0.02)
    ratios = np.full(100, 0.3)
    assert diverging(ratios, frame).expected == pytest.approx(0.02275, abs=1e-5)
    assert diverging(ratios, frame, np.full(100, 0.02)).expected == pytest.approx(0.02275, abs=1e-5)
    assert diverging(ratios, frame, np.full(100, 0.06)).expected > 0.15
    with pytest.raises(ValueError, match="no particles"):
        diverging([], frame)


def measured(lithiation: np.ndarray, seed: int, samples: int) -> Events:
    x, _ = two_lines(lithiation, seed, samples=samples)
    reducer = ParticleReducer(("Li", "Mn"), EventRules())
    reducer.add(0, x)
    events = reducer.result().events[1]
    return events.where(~events.cut)


def test_drawn_cells_end_to_end():
    """A cell at 31 % gives the frame; in another one 15 % of the particles kept more lithium."""
    rng = np.random.default_rng(51)
    n = 3000
    reference = measured(np.full(n, 0.31), 52, 6_000_000)
    fit = fit_gaussian(event_ratio(reference, 0, 1)[0])
    own = null_sigma(reference, 0, 1, float(fit.mean))
    frame = Frame.of("soc81", fit, float(np.median(own)))
    assert frame.mean == pytest.approx(0.05 + 0.75 * 0.31, abs=5 * frame.sigma_mean)
    kept = np.where(rng.random(n) < 0.15, rng.uniform(0.31, 1.0, n), 0.31)
    events = measured(kept, 53, 6_000_000)
    ratios = event_ratio(events, 0, 1)[0]
    d = diverging(ratios, frame, null_sigma(events, 0, 1, frame.mean))
    truth = float(np.mean(0.05 + 0.75 * kept > frame.high))
    none = diverging(event_ratio(reference, 0, 1)[0], frame, own)
    assert abs(none.excess.value) < 3 * none.excess.total  # the reference cell itself does not diverge
    assert abs(d.excess.value - truth) < 3 * d.excess.total
    assert d.fraction.value - truth > 3 * d.fraction.sigma_stat  # the bare fraction counts the tail too
    line = Line(0.05, 0.75, np.diag([1e-6, 1e-6]), 1.0, 3)
    held = held_back(ratios, frame, line)
    assert held.value == pytest.approx(NMC532_MAH_G * float(np.mean(kept - 0.31)), abs=3 * held.total)
