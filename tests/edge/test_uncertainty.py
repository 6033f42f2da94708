import numpy as np
import pytest

from edge.uncertainty import (
    ONE_SIGMA,
    Estimate,
    difference_z,
    feldman_cousins_interval,
    garwood_interval,
    pulls,
    ratio,
)

# Gehrels, ApJ 303 (1986) 336, tables 1 and 2, single-sided 0.8413 (two-sided 0.6827)
GEHRELS = {
    0: (0.0, 1.841),
    1: (0.173, 3.300),
    2: (0.708, 4.638),
    3: (1.367, 5.918),
    5: (2.840, 8.382),
    10: (6.891, 14.27),
    20: (15.57, 25.55),
}


@pytest.mark.parametrize(("n", "bounds"), GEHRELS.items())
def test_garwood_against_gehrels(n, bounds):
    lower, upper = garwood_interval(n)
    assert float(lower) == pytest.approx(bounds[0], abs=0.006)
    assert float(upper) == pytest.approx(bounds[1], abs=0.006)


def test_garwood_95_percent():
    # Garwood 1936 / any chi-square table: 10 counts, 95 %: chi2(0.025, 20)/2 and chi2(0.975, 22)/2
    lower, upper = garwood_interval(10, 0.95)
    assert (float(lower), float(upper)) == pytest.approx((4.795, 18.390), abs=0.001)


# Feldman and Cousins, Phys. Rev. D 57 (1998) 3873: (n, background, level) -> interval, tables II, IV, VI
FELDMAN_COUSINS = {
    (0, 0.0, 0.6827): (0.00, 1.29),
    (1, 0.0, 0.6827): (0.37, 2.75),
    (3, 0.0, 0.6827): (1.10, 5.30),
    (6, 0.0, 0.6827): (3.82, 9.28),
    (0, 0.0, 0.90): (0.00, 2.44),
    (3, 0.0, 0.90): (1.10, 7.42),
    (3, 3.0, 0.90): (0.00, 4.42),
    (6, 3.0, 0.90): (0.15, 8.47),
    (0, 0.0, 0.95): (0.00, 3.09),
    (5, 0.0, 0.95): (1.84, 11.26),
}


@pytest.mark.parametrize(("asked", "interval"), FELDMAN_COUSINS.items())
def test_feldman_cousins_tables(asked, interval):
    assert feldman_cousins_interval(*asked) == pytest.approx(interval, abs=0.011)


@pytest.mark.parametrize("level", [ONE_SIGMA, 0.9545])
@pytest.mark.parametrize("mean", [0.4, 1.3, 2.7, 4.1, 9.6])
def test_coverage_at_a_few_counts(level, mean):
    """An exact interval covers at least its level; the excess of a discrete one is known to be limited."""
    counts = np.random.default_rng(20260101).poisson(mean, 20_000)
    lower, upper = garwood_interval(counts, level)
    covered = np.mean((lower <= mean) & (mean <= upper))
    assert covered >= level - 3.0 * np.sqrt(level * (1 - level) / counts.size)
    assert covered < 1.0 - (1.0 - level) * 0.15


@pytest.mark.parametrize("mean", [0.5, 1.8, 3.3])
def test_feldman_cousins_coverage_above_a_background(mean):
    background, level = 1.5, 0.90
    counts = np.random.default_rng(3).poisson(mean + background, 4_000)
    intervals = {int(n): feldman_cousins_interval(int(n), background, level) for n in np.unique(counts)}
    covered = np.mean([intervals[int(n)][0] <= mean <= intervals[int(n)][1] for n in counts])
    assert covered > level - 0.015


def test_counts_and_levels_that_make_no_sense():
    with pytest.raises(ValueError, match="negative"):
        garwood_interval([3, -1])
    with pytest.raises(ValueError, match="level"):
        garwood_interval(3, 1.0)
    with pytest.raises(ValueError, match="negative"):
        feldman_cousins_interval(2, -0.1)


def test_ratio_is_the_gum_one():
    # GUM 5.1.2 for 200 +- 14 over 50 +- 5: 4 * sqrt(0.07^2 + 0.1^2)
    value, sigma = ratio(200.0, 14.0, 50.0, 5.0)
    assert float(value) == 4.0
    assert float(sigma) == pytest.approx(4 * 0.0149**0.5)
    assert np.isnan(ratio(1.0, 1.0, 0.0, 1.0)[0])


def test_pulls_need_finite_values():
    assert pulls([1.0, 3.0], [0.0, 0.0], [1.0, 1.0]) == pytest.approx((2.0, 2.0**0.5))
    with pytest.raises(ValueError, match="1 pulls"):
        pulls([1.0, np.nan], [0.0, 0.0], [1.0, 1.0])


def test_difference_counts_both_errors_of_both():
    a, b = Estimate(0.50, 0.03, 0.04, "1"), Estimate(0.37, 0.0, 0.12, "1")
    assert difference_z(a, b) == pytest.approx(1.0)  # 0.13 over 0.05 (+) 0.12
