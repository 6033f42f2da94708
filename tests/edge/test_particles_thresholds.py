"""Thresholds against the tables of their sources, scipy, and a published table of drawn values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import poisson

from edge.particles_thresholds import (
    KINDS,
    Threshold,
    compound_level,
    currie,
    poisson_level,
    single_ion,
)

# MARLAP (EPA 402-B-04-001C, 2004) table 20.3, column "Formula A": S_D for alpha = beta = 0.05, paired.
MARLAP_SD = {0: 2.706, 1: 7.358, 2: 9.285, 5: 13.109, 10: 17.418, 20: 23.511}


def test_currie_1968_table_2_and_worked_examples():
    """Table II: 2.33 sqrt(B), 2.71 + 4.65 sqrt(B); page 592: B = 308, L_C = 40.8; MARLAP 20.10: 4.65."""
    critical, limit = currie([0.0, 1.0, 308.0, 4.0], epsilon=0.0)
    assert critical == pytest.approx([0.0, 2.33, 40.8, 4.65], abs=0.03)
    assert limit[:2] == pytest.approx([2.71, 7.36], abs=0.01)
    assert currie(list(MARLAP_SD), epsilon=0.0)[1] == pytest.approx(list(MARLAP_SD.values()), abs=1e-3)


def test_currie_with_epsilon_and_a_known_background_by_hand():
    assert currie(3.5, epsilon=0.5, eta=1.0)[0] == pytest.approx(1.6449 * 2.0, abs=1e-3)
    assert Threshold("currie", alpha=0.05).level(3.5) == pytest.approx(3.5 + 3.2897, abs=1e-3)


@pytest.mark.parametrize("alpha", [0.05, 1e-3, 1e-6, 1e-9])
def test_the_exact_level_is_the_quantile_of_scipy(alpha: float):
    means = np.array([0.001, 0.05, 0.17, 0.8, 3.0, 20.0, 100.0, 1e4])
    assert poisson_level(means, alpha).tolist() == np.maximum(poisson.isf(alpha, means), 0).tolist()
    assert np.isnan(poisson_level(np.nan, alpha))


def test_the_gaussian_rule_claims_far_too_often_where_counts_are_few():
    """mean + 3 sigma at 0.17 counts is exceeded more than five times as often as 3 sigma promise."""
    b = 0.17
    gauss = b + 3 * math.sqrt(b)
    assert poisson.sf(math.floor(gauss), b) > 5 * 0.00135
    assert poisson.sf(poisson_level(b, 0.00135), b) <= 0.00135
    assert Threshold("poisson", alpha=1e-3).false_rate(b) <= 1e-3


# Quantiles that Lockwood et al. (J. Anal. At. Spectrom. 2025, doi 10.1039/D5JA00230C) publish with their
# program, from 1e10 draws each: mean ions, sigma, quantile of the draws that are not zero, value. The
# error of a drawn value at 1e-7 is a few per mille.
DRAWN = [
    (0.02682695795279726, 0.45, 0.9999990001009543, 7.7936964),
    (1.0, 0.45, 0.9999990001009543, 11.590609),
    (10.0, 0.45, 0.9999900020999556, 29.040348),
    (10.0, 0.65, 0.9999998999999999, 45.07968),
    (31.622776601683793, 0.55, 0.9999990001009543, 69.41309),
    (100.0, 0.45, 0.9999990001009543, 157.88652),
]


@pytest.mark.parametrize(("ions", "sigma", "quantile", "value"), DRAWN)
def test_the_compound_level_equals_the_published_draws(
    ions: float, sigma: float, quantile: float, value: float
):
    alpha = (1 - quantile) * -math.expm1(-ions)  # theirs leaves the zeros out
    assert compound_level(ions, sigma, alpha) == pytest.approx(value, rel=4e-3)


def test_the_compound_level_equals_our_own_draws_and_the_poisson_level_when_ions_are_alike():
    rng = np.random.default_rng(20)
    n = rng.poisson(3.0, 400_000)
    draws = np.bincount(
        np.repeat(np.arange(n.size), n), rng.lognormal(-0.5 * 0.4**2, 0.4, n.sum()), minlength=n.size
    )
    level = compound_level(3.0, 0.4, 1e-2)
    above = np.count_nonzero(draws > level)
    assert abs(above - 4000) < 4 * math.sqrt(4000)
    assert abs(compound_level(20.0, 0.05, 1e-4) - float(poisson_level(20.0, 1e-4))) < 0.6
    # at very many ions: Gaussian of variance lambda exp(sigma^2)
    assert compound_level(1e6, 0.45, 1e-3) == pytest.approx(
        1e6 + 3.0902 * math.sqrt(1e6 * math.exp(0.2025)), rel=1e-5
    )
    grid, series = compound_level(5000.0, 0.45, 1e-6), compound_level(5000.01, 0.45, 1e-6)
    assert grid == pytest.approx(series, rel=1e-5)
    assert compound_level(1e-9, 0.45, 1e-6) == 0.0


def test_single_ion_signals_are_recovered():
    rng = np.random.default_rng(4)
    n = rng.poisson(0.3, 300_000)
    x = np.bincount(
        np.repeat(np.arange(n.size), n), 2.0 * rng.lognormal(-0.5 * 0.45**2, 0.45, n.sum()), minlength=n.size
    )
    ions, mean, sigma = single_ion(x)
    assert ions == pytest.approx(0.3, abs=0.005)
    assert mean == pytest.approx(2.0, rel=0.01)
    assert sigma == pytest.approx(0.45, abs=0.01)
    with pytest.raises(ValueError, match="zero"):
        single_ion(np.ones(10))
    with pytest.raises(ValueError, match="scatter less"):
        single_ion(np.tile([0.0, 1.0], 50))


@pytest.mark.parametrize("kind", KINDS)
def test_levels_rise_with_the_background(kind: str):
    rule = Threshold(kind)  # type: ignore[arg-type]
    levels = [rule.level(b) for b in (0.0, 0.1, 1.0, 10.0)]
    assert levels == sorted(levels)
    assert levels[3] > 10
    assert rule.false_rate(1.0) < 1e-2


def test_wrong_arguments_are_refused():
    for call in (
        lambda: Threshold("gauss"),  # type: ignore[arg-type]
        lambda: Threshold(alpha=0.7),
        lambda: currie(-1.0),
        lambda: currie(1.0, alpha=0.6),
        lambda: compound_level(1.0, 2.0, 1e-3),
        lambda: compound_level(0.0, 0.4, 1e-3),
        lambda: compound_level(1.0, 0.4, 1e-15),
    ):
        with pytest.raises(ValueError, match=r"not|must"):
            call()
