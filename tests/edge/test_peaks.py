"""Peak search and areas: known shapes, pulls of the area estimator, and what data weights would have done."""

from __future__ import annotations

import numpy as np
import pytest

from edge.peaks import find_peaks, fit_peaks, fit_templates, gaussian

DRAWS = 3200
X = np.arange(41.0)


def truth(area: float, level: float, slope: float = 0.0) -> np.ndarray:
    return area * gaussian(X, 20.3, 4.0) + level + slope * (X - 20)


def pulls_are_good(pulls: np.ndarray) -> None:
    assert np.isfinite(pulls).all()
    assert 0.95 < pulls.std() < 1.05
    assert abs(pulls.mean()) < 0.1


def test_gaussian_has_unit_area_and_the_height_that_tables_give():
    x = np.arange(-200, 201) / 10
    assert np.sum(gaussian(x, 0.13, 2.0)) / 10 == pytest.approx(1.0, abs=1e-9)
    assert gaussian(0.0, 0.0, 2.0) == pytest.approx(0.93943728 / 2.0)  # 2 sqrt(ln2 / pi) / FWHM
    assert gaussian(1.0, 0.0, 2.0) / gaussian(0.0, 0.0, 2.0) == pytest.approx(0.5)  # half height at FWHM / 2


def test_a_noise_free_peak_is_recovered_exactly():
    fit = fit_peaks(truth(500.0, 30.0, 0.4), 21.0, 5.0, first=0, last=40)
    peak = fit.peaks[0]
    assert fit.converged
    assert (peak.centroid, peak.fwhm, peak.area) == pytest.approx((20.3, 4.0, 500.0), rel=1e-6)
    assert fit.chi2 == pytest.approx(0.0, abs=1e-6)
    assert fit.ndf == 41 - 5


def test_linked_peaks_keep_their_distance_and_share_the_width():
    y = truth(500.0, 30.0) + 200 * gaussian(X, 28.3, 4.0)
    fit = fit_peaks(y, [21.0, 29.0], 5.0, first=0, last=40, linked=True)
    first, second = fit.peaks
    assert second.centroid - first.centroid == pytest.approx(8.0)
    assert (first.area, second.area) == pytest.approx((500.0, 200.0), rel=1e-6)


@pytest.mark.parametrize(("area", "level"), [(2000.0, 50.0), (300.0, 5.0), (120.0, 2.0)])
def test_pulls_of_the_area_with_position_and_width_free(area: float, level: float):
    rng = np.random.default_rng(20261121)
    mu = truth(area, level, 0.02 * level)
    pulls = []
    for _ in range(DRAWS):
        fit = fit_peaks(rng.poisson(mu), 20.0, 4.4, first=0, last=40)
        peak = fit.peaks[0]
        pulls.append((peak.area - area) / peak.area_sigma)
    pulls_are_good(np.array(pulls))


@pytest.mark.parametrize(
    ("area", "level"), [(300.0, 20.0), (60.0, 2.0), (30.0, 2.0), (0.0, 20.0), (40.0, 0.5)]
)
def test_pulls_of_the_area_of_a_known_shape_down_to_few_counts(area: float, level: float):
    rng = np.random.default_rng(477)
    mu = truth(area, level, 0.01 * level)
    shapes = np.stack([gaussian(X, 20.3, 4.0), np.ones_like(X), X - 20])
    pulls = []
    for _ in range(DRAWS):
        fit = fit_templates(rng.poisson(mu), shapes)
        pulls.append((fit.amplitudes[0] - area) / np.sqrt(fit.covariance[0, 0]))
    pulls_are_good(np.array(pulls))


def test_data_weights_would_have_biased_the_same_areas():
    """The test above can fail: weights 1 / max(y, 1) miss by far more than it allows."""
    rng = np.random.default_rng(477)
    mu = truth(60.0, 2.0)
    shapes = np.stack([gaussian(X, 20.3, 4.0), np.ones_like(X), X - 20])
    pulls = []
    for _ in range(500):
        y = rng.poisson(mu)
        weight = 1 / np.maximum(y, 1)
        covariance = np.linalg.inv((shapes * weight) @ shapes.T)
        pulls.append((covariance @ (shapes * weight) @ y - [60, 2, 0])[0] / np.sqrt(covariance[0, 0]))
    assert np.mean(pulls) < -0.3


@pytest.mark.parametrize(("area", "level"), [(8.0, 0.3), (0.0, 2.0)])
def test_a_handful_of_counts_is_covered_by_the_stated_error(area: float, level: float):
    """Where the peak holds about 8 counts the pull is skewed: no bias, and coverage of one and two sigma."""
    rng = np.random.default_rng(8)
    shapes = np.stack([gaussian(X, 20.3, 4.0), np.ones_like(X)])
    inside, values = np.zeros(2), []
    for _ in range(DRAWS):
        fit = fit_templates(rng.poisson(truth(area, level)), shapes)
        miss = abs(fit.amplitudes[0] - area) / np.sqrt(fit.covariance[0, 0])
        inside += [miss < 1, miss < 2]
        values.append(fit.amplitudes[0] - area)
    assert inside[0] / DRAWS == pytest.approx(0.683, abs=0.04)
    assert inside[1] / DRAWS == pytest.approx(0.954, abs=0.03)
    assert abs(np.mean(values)) < 3.5 * np.std(values) / np.sqrt(DRAWS)


def test_an_offset_is_subtracted_and_the_gain_matrix_reproduces_the_fit():
    rng = np.random.default_rng(1)
    known = 400 * gaussian(X, 23.5, 4.0)
    y = rng.poisson(truth(300.0, 20.0) + known)
    shapes = np.stack([gaussian(X, 20.3, 4.0), np.ones_like(X)])
    fit = fit_templates(y, shapes, offset=known)
    assert fit.gain @ (y - known) == pytest.approx(fit.amplitudes)
    assert abs(fit.amplitudes[0] - 300) < 4 * np.sqrt(fit.covariance[0, 0])
    assert fit_templates(y, shapes).amplitudes[0] > fit.amplitudes[0]  # without it the neighbour leaks in


def test_search_finds_the_peaks_that_are_there_and_no_others():
    rng = np.random.default_rng(3)
    x = np.arange(3000.0)
    mu = 400 * np.exp(-x / 900) + 20
    for place, area in ((300.0, 900.0), (1200.0, 500.0), (2500.0, 400.0)):
        mu = mu + area * gaussian(x, place, 6.0)
    found = find_peaks(rng.poisson(mu), 6.0, threshold=6.0)
    assert [round(candidate.channel / 10) for candidate in found] == [30, 120, 250]
    assert find_peaks(rng.poisson(400 * np.exp(-x / 900) + 20), 6.0, threshold=6.0) == []


def test_a_spectrum_without_room_or_with_negative_counts_is_refused():
    with pytest.raises(ValueError, match="cannot carry"):
        fit_peaks(np.ones(10), 5.0, 2.0, first=2, last=5)
    with pytest.raises(ValueError, match="cannot carry"):
        fit_peaks(np.ones(10), 5.0, 2.0, first=0, last=10)
    with pytest.raises(ValueError, match="negative"):
        fit_peaks(np.full(30, -1.0), 5.0, 2.0, first=0, last=29)
    with pytest.raises(ValueError, match="do not fit"):
        fit_templates(np.ones(5), np.ones((2, 6)))
    with pytest.raises(ValueError, match="dependent"):
        fit_templates(np.ones(5), np.ones((2, 5)))
    with pytest.raises(ValueError, match="negative"):
        find_peaks(np.array([1.0, -1.0]), 2.0)


def test_an_empty_region_gives_no_number_instead_of_a_crash():
    fit = fit_peaks(np.zeros(41), 20.0, 4.0, first=0, last=40)
    assert not fit.converged or abs(fit.peaks[0].area) < 1.0
