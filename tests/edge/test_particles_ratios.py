"""Gaussian by likelihood, York's line, frames: published numbers, scipy, pulls."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from edge.particles_ratios import TWO_SIGMA_OUTSIDE, Frame, fit_gaussian, fit_line
from edge.uncertainty import ONE_SIGMA, pulls

# Pearson's data with York's weights; intercept, slope and their errors as printed by York et al. (2004).
PEARSON_X = [0.0, 0.9, 1.8, 2.6, 3.3, 4.4, 5.2, 6.1, 6.5, 7.4]
PEARSON_Y = [5.9, 5.4, 4.4, 4.6, 3.5, 3.7, 2.8, 2.8, 2.4, 1.5]
YORK_WX = [1000.0, 1000, 500, 800, 200, 80, 60, 20, 1.8, 1]
YORK_WY = [1.0, 1.8, 4, 8, 20, 20, 70, 70, 100, 500]


def test_the_line_of_pearson_and_york():
    line = fit_line(PEARSON_X, np.array(YORK_WX) ** -0.5, PEARSON_Y, np.array(YORK_WY) ** -0.5)
    assert line.intercept == pytest.approx(5.47991022, abs=1e-7)
    assert line.slope == pytest.approx(-0.48053341, abs=1e-7)
    assert line.chi2 / line.ndf == pytest.approx(1.4833, abs=1e-4)
    plain = np.sqrt(np.diag(line.covariance) / (line.chi2 / line.ndf))
    assert plain == pytest.approx([0.29497, 0.05798], abs=1e-4)


@pytest.mark.parametrize("level", [2.0])
def test_pulls_of_the_line(level: float):
    """3200 calibrations with five cells, errors in both coordinates; nothing scatters beyond them."""
    rng = np.random.default_rng(41)
    x = np.array([1.0, 0.77, 0.59, 0.40, 0.31])
    sx, sy = np.full(5, 0.005 * level), 0.002 * level * np.ones(5)
    off = []
    for _ in range(3200):
        line = fit_line(x + sx * rng.normal(size=5), sx, 0.05 + 0.75 * x + sy * rng.normal(size=5), sy)
        covariance = line.covariance / max(1.0, line.chi2 / line.ndf)  # the errors are known to be right here
        value = line.at(0.5)[0]
        sigma = np.sqrt(covariance[0, 0] + covariance[0, 1] + 0.25 * covariance[1, 1])
        slope = (line.slope - 0.75) / np.sqrt(covariance[1, 1])
        off.append([slope, (value - 0.425) / sigma])
    assert np.all(np.abs(np.mean(off, axis=0)) < 0.1)
    assert np.all((np.std(off, axis=0) > 0.95) & (np.std(off, axis=0) < 1.05))


def test_points_that_scatter_more_widen_the_line_and_it_can_be_inverted():
    x, y = np.array([0.0, 1, 2, 3]), np.array([0.0, 1.3, 1.7, 3.0])
    line = fit_line(x, np.full(4, 1e-9), y, np.full(4, 0.1))
    assert line.slope == pytest.approx(np.polyfit(x, y, 1)[0])
    assert line.covariance[1, 1] == pytest.approx(0.01 / 5 * line.chi2 / 2)
    value, sigma = line.inverse(line.at(1.5)[0], 0.1)
    assert value == pytest.approx(1.5)
    assert sigma > 0.1 / line.slope
    for wrong in (([1, 2], [1, 1], [1, 2], [1, 1]), ([1, 2, 3], [0, 0, 0], [1, 2, 3], [0, 1, 1])):
        with pytest.raises(ValueError, match="calibration line"):
            fit_line(*wrong)


def draw(n: int, outside: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(0.5, 0.05, (3200, n))
    away = rng.random((3200, n)) < outside
    return np.where(away, rng.uniform(0.2, 1.5, (3200, n)), values)


@pytest.mark.parametrize(("n", "outside"), [(200, 0.0), (600, 0.0), (300, 0.1), (300, 0.2)])
def test_pulls_of_mean_and_width(n: int, outside: float):
    """The width is a scale: its pull is that of its logarithm."""
    fit = fit_gaussian(draw(n, outside, 42), outliers=outside > 0)
    sigma = fit.sigma
    for mean, std in (
        pulls(fit.mean, 0.5, sigma[:, 0]),
        pulls(np.log(fit.width / 0.05), 0.0, sigma[:, 1] / fit.width),
    ):
        assert abs(mean) < 0.1
        assert 0.95 < std < 1.05
    if outside:
        mean, std = pulls(fit.main, 1 - outside, sigma[:, 2])
        assert abs(mean) < 0.1
        assert 0.95 < std < 1.05


@pytest.mark.parametrize("n", [12, 30])
def test_coverage_of_the_mean_with_few_particles(n: int):
    low, high = fit_gaussian(draw(n, 0.0, 43), outliers=False).mean_interval()
    assert np.mean((low < 0.5) & (high > 0.5)) == pytest.approx(ONE_SIGMA, abs=0.02)


def test_a_tail_does_not_pull_the_gaussian_as_it_pulls_the_mean():
    values = draw(400, 0.15, 44)[:800]
    fit = fit_gaussian(values)
    assert np.mean(fit.mean) == pytest.approx(0.5, abs=0.001)
    assert np.mean(values) > 0.53


def test_the_maximum_is_the_one_that_scipy_finds():
    r = draw(500, 0.1, 45)[0]
    fit = fit_gaussian(r)
    flat = 1 / np.ptp(r)

    def minus_log(p: np.ndarray) -> float:
        g = np.exp(-0.5 * ((r - p[0]) / p[1]) ** 2) / (p[1] * np.sqrt(2 * np.pi))
        return -float(np.log(p[2] * g + (1 - p[2]) * flat).sum())

    best = minimize(
        minus_log, [0.5, 0.06, 0.85], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-9}
    )
    held = float(fit.main) * 500
    assert [float(fit.mean), float(fit.width) * np.sqrt((held - 2) / held), float(fit.main)] == pytest.approx(
        best.x, rel=1e-4
    )
    assert float(fit.log_likelihood) == pytest.approx(-best.fun, abs=1e-6)
    step = 1e-4
    second = [
        (minus_log(best.x + d) - 2 * best.fun + minus_log(best.x - d)) / step**2 for d in step * np.eye(3)
    ]
    assert np.diag(np.linalg.inv(fit.covariance)) == pytest.approx(second, rel=1e-3)


def test_frames_and_what_a_gaussian_has_outside():
    fit = fit_gaussian(draw(500, 0.0, 46)[0], outliers=False)
    frame = Frame.of("soc81", fit, counting=0.03)
    assert (frame.high - frame.low) / 4 == pytest.approx(float(fit.width))
    assert frame.sigma_high == pytest.approx(0.05 / np.sqrt(500) * np.sqrt(1 + 4 / 2), rel=0.1)
    assert frame.material == pytest.approx(np.sqrt(float(fit.width) ** 2 - 0.03**2))
    assert pytest.approx(0.0455, abs=1e-4) == TWO_SIGMA_OUTSIDE
    with pytest.raises(ValueError, match="at least 10"):
        fit_gaussian(np.ones(3))
    with pytest.raises(ValueError, match="same"):
        fit_gaussian(np.ones(30))
