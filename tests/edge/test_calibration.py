"""Energy scales: exact recovery, covariance by simulation, the measured Eu-152 case."""

from __future__ import annotations

import numpy as np
import pytest

from edge.calibration import EnergyScale, fit_scale


def test_a_quadratic_scale_is_recovered_and_inverted():
    scale = EnergyScale((0.34, 0.183, 5.6e-9), centre=0.5)
    channels = np.array([664.4, 1882.6, 4259.4, 7697.3])
    fit = fit_scale(channels, 0.01, scale.energy_kev(channels), powers=(0, 1, 2), centre=0.5)
    assert fit.scale.coefficients == pytest.approx(scale.coefficients, rel=1e-4)
    assert np.abs(fit.residuals_kev).max() < 1e-9
    assert fit.excess_kev == 0.0
    assert scale.channel(float(scale.energy_kev(1234.5)), 8192) == pytest.approx(1234.5)


def test_energy_by_hand_with_and_without_the_half_channel():
    assert EnergyScale((1.0, 2.0), centre=0.5).energy_kev(10) == pytest.approx(22.0)
    assert EnergyScale((1.0, 2.0), centre=0.0).energy_kev(10) == pytest.approx(21.0)
    bent = EnergyScale((1.0, 2.0, 3.0), powers=(0.0, 1.0, 0.5))
    assert bent.energy_kev(4.0) == pytest.approx(1 + 8 + 6)
    assert bent.gain_kev(4.0) == pytest.approx(2 + 0.5 * 3 / 2)
    assert np.isfinite(bent.energy_kev(-3.0))


def test_the_covariance_is_the_scatter_of_repeated_fits():
    """The energy between and beyond the lines, 3200 draws: errors that hold, and are not wasteful.

    With five lines the excess that is fitted makes them up to a tenth larger than they had to be.
    """
    rng = np.random.default_rng(11)
    scale = EnergyScale((0.2, 0.38))
    channels = np.array([600.0, 1500.0, 2400.0, 3800.0, 6900.0])
    sigma = np.array([0.05, 0.02, 0.03, 0.02, 0.06])
    known = scale.energy_kev(channels)
    places = np.array([100.0, 1260.0, 8000.0])
    fits = [
        fit_scale(channels + rng.normal(0, sigma), sigma, known).scale for _ in range(3200)
    ]  # fmt: skip
    free = np.array([f.energy_kev(places) for f in fits])
    single = fit_scale(channels, sigma, known).scale.sigma_kev(places)
    assert free.std(axis=0) / single == pytest.approx(1.0, abs=0.08)
    pulls = (free - scale.energy_kev(places)) / np.array([f.sigma_kev(places) for f in fits])
    assert np.all(pulls.std(axis=0) < 1.05)
    assert np.all(pulls.std(axis=0) > 0.85)
    assert np.all(np.abs(pulls.mean(axis=0)) < 0.1)


def test_scatter_beyond_the_errors_enlarges_the_covariance():
    channels = np.arange(1.0, 9.0) * 1000
    off = np.array([0.05, -0.05, 0.05, -0.05, 0.05, -0.05, 0.05, -0.05])
    fit = fit_scale(channels, 0.001, 0.2 * channels + off)
    assert fit.chi2 == pytest.approx(fit.ndf)
    assert 0.04 < fit.excess_kev < 0.07
    assert fit.scale.sigma_kev(4000.0) > 0.015  # 0.05 / sqrt(8), not 0.0002 / sqrt(8)


def test_the_measured_eu152_lines_need_the_low_amplitude_term():
    """Centroids of eu152_7cm.Spe; a cubic leaves 0.11 keV, the square root keeps all below 0.1 keV."""
    channels = [664.40, 1338.55, 1882.64, 4259.36, 5271.01, 6079.68, 7697.34]
    known = [121.7817, 244.6974, 344.2785, 778.9045, 964.057, 1112.076, 1408.013]
    worst = {
        powers: np.abs(fit_scale(channels, 0.05, known, powers=powers, centre=0.5).residuals_kev).max()
        for powers in ((0, 1), (0, 1, 2), (0, 1, 2, 3), (0, 1, 2, 0.5))
    }
    assert worst[0, 1, 2, 0.5] < 0.1
    assert worst[0, 1] > worst[0, 1, 2] > worst[0, 1, 2, 3] > 0.1


def test_wrong_calls_are_refused():
    with pytest.raises(ValueError, match="do not match"):
        fit_scale([1.0, 2.0], 0.1, [1.0])
    with pytest.raises(ValueError, match="do not determine"):
        fit_scale([1.0], 0.1, [1.0])
    with pytest.raises(ValueError, match="do not determine"):
        fit_scale([1.0, 2.0, 3.0], 0.1, [1.0, 2.0, 3.0], powers=(1, 2))
    with pytest.raises(ValueError, match="finite"):
        fit_scale([1.0, np.nan], 0.1, [1.0, 2.0])
    with pytest.raises(ValueError, match="outside"):
        EnergyScale((0.0, 0.1)).channel(5000.0, 1000)
