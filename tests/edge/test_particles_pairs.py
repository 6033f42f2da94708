"""Pairs of two lines, accidents among them, ratios and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from edge.particles_events import ParticleReducer
from edge.particles_pairs import (
    binomial_interval,
    coincidences,
    event_ratio,
    null_sigma,
    ratio_interval,
    wilson_interval,
)
from edge.particles_runs import EventRules, Events
from edge.uncertainty import ONE_SIGMA, TWO_SIGMA
from tests.edge.particles_model import spaced, two_lines


def events_at(peaks: np.ndarray, length: int = 10) -> Events:
    n = peaks.size
    zero, table = np.zeros(n), np.ones((n, 2))
    return Events(
        peaks - 4,
        peaks - 4 + length,
        peaks,
        np.full(n, 5),
        zero,
        table,
        table,
        table,
        table,
        np.zeros(n, bool),
    )


def test_the_nearest_partner_is_taken_once():
    a, b = np.array([100, 200, 205, 400]), np.array([101, 203, 390, 500])
    pairs = coincidences(events_at(a), events_at(b), 5, 1000)
    assert list(zip(pairs.first, pairs.second, strict=True)) == [(0, 0), (2, 1)]
    assert pairs.ambiguous.tolist() == [False, True]
    assert len(coincidences(events_at(a), events_at(b), 10, 1000)) == 3
    assert len(coincidences(events_at(a), events_at(b[:0]), 10, 1000)) == 0
    with pytest.raises(ValueError, match="window"):
        coincidences(events_at(a), events_at(b), -1, 1000)


def test_unrelated_lines_pair_as_often_as_predicted():
    """Two independent Poisson processes: the formula, and the delayed count, against what is found."""
    rng = np.random.default_rng(31)
    n, found, predicted, delayed = 400_000, [], [], []
    for _ in range(100):
        a, b = (np.sort(rng.choice(n, rng.poisson(600), replace=False)) for _ in range(2))
        pairs = coincidences(events_at(a), events_at(b), 3, n)
        found.append(len(pairs))
        predicted.append(pairs.accidental)
        delayed.append(pairs.accidental_delayed.value)
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(predicted) == pytest.approx(np.mean(found), abs=3 * error + 0.02 * np.mean(found))
    assert np.mean(delayed) == pytest.approx(np.mean(found), abs=3 * error)


def test_accidents_among_true_pairs_follow_from_the_events_without_a_partner():
    """1000 true pairs, and 500 and 700 single ones: only the single ones make accidental pairs."""
    rng = np.random.default_rng(32)
    n, extra, predicted = 1_000_000, [], []
    for _ in range(40):
        both, a, b = (np.sort(rng.choice(n, k, replace=False)) for k in (1000, 500, 700))
        pairs = coincidences(
            events_at(np.unique(np.r_[both, a])), events_at(np.unique(np.r_[both, b])), 20, n
        )
        extra.append(len(pairs) - 1000)
        predicted.append(pairs.accidental)
    assert np.mean(predicted) == pytest.approx(np.mean(extra), rel=0.15)


def test_pile_up_is_the_chance_of_a_second_particle():
    events = events_at(np.arange(1000) * 1000, length=12)
    assert coincidences(events, events, 2, 1_000_000).pile_up == pytest.approx(1 - np.exp(-0.012))


@pytest.mark.parametrize(("mn", "ratio"), [(2000.0, 0.8), (600.0, 0.28)])
def test_pulls_of_single_ratios(mn: float, ratio: float):
    """3300 particles; lithium is summed over the samples of the manganese event."""
    x = np.stack([spaced(mn * ratio, 0.9, 3300, 33), spaced(mn, 0.5, 3300, 33)])
    reducer = ParticleReducer(("Li", "Mn"), EventRules())
    reducer.add(0, x)
    events = reducer.result().events[1]
    assert len(events) == 3300
    value, sigma = event_ratio(events, 0, 1)
    pull = (value - ratio) / sigma
    assert abs(pull.mean()) < 0.1
    assert 0.95 < pull.std() < 1.05
    null = (value - ratio) / null_sigma(events, 0, 1, ratio)
    assert abs(null.mean()) < 0.1
    assert 0.95 < null.std() < 1.05


def test_particles_without_lithium_are_counted_and_not_lost():
    """Deciding by manganese keeps those whose lithium line shows nothing; deciding by both would not."""
    x, _ = two_lines(np.zeros(300), 34, samples=400_000, intercept=0.0)
    reducer = ParticleReducer(("Li", "Mn"), EventRules())
    reducer.add(0, x)
    result = reducer.result()
    assert len(result.events[0]) == 0
    value, sigma = event_ratio(result.events[1], 0, 1)
    assert value.size > 280
    assert abs(np.mean(value / sigma)) < 3 / np.sqrt(value.size) + 0.1


def test_intervals_of_fractions_equal_scipy():
    for k, n in ((0, 20), (1, 20), (7, 50), (50, 50), (88, 900)):
        for level in (ONE_SIGMA, TWO_SIGMA):
            exact = binomtest(k, n).proportion_ci(level, "exact")
            assert binomial_interval(k, n, level) == pytest.approx((exact.low, exact.high), abs=1e-12)
        score = binomtest(k, n).proportion_ci(ONE_SIGMA, "wilson")
        assert wilson_interval(k, n) == pytest.approx((score.low, score.high), abs=1e-9)
    with pytest.raises(ValueError, match="hits"):
        binomial_interval(5, 4)


@pytest.mark.parametrize(("mu", "ratio"), [(3.0, 0.3), (8.0, 0.8), (40.0, 0.3)])
def test_coverage_of_the_ratio_interval_at_few_counts(mu: float, ratio: float):
    rng = np.random.default_rng(35)
    a, b = rng.poisson(mu * ratio, 20_000), rng.poisson(mu, 20_000)
    counted = a + b > 0
    for level in (ONE_SIGMA, TWO_SIGMA):
        low, high = ratio_interval(a[counted], b[counted], level)
        assert np.mean((low <= ratio) & (ratio <= high)) > level - 0.005
    assert ratio_interval(0, 5)[0] == 0
    assert ratio_interval(5, 0)[1] == np.inf
    low, high = ratio_interval(40_000, 50_000)
    assert (high - low) / 2 == pytest.approx(0.8 * np.sqrt(1 / 40_000 + 1 / 50_000), rel=0.01)
    assert norm.cdf(1) - norm.cdf(-1) == pytest.approx(ONE_SIGMA)
