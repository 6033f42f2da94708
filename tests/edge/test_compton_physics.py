"""Scattering: angles, momenta, cross-sections, windows of S, fits, lithium, unmixing; with pulls."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, optimize

from edge import compton, compton_profile
from edge.compton_checks import checks
from edge.compton_fit import fit, shape
from edge.compton_frames import EnergyBins
from edge.compton_lithium import (
    ROUNDING,
    TABLE_2,
    Mixing,
    calibrate,
    huang_2024,
    stoichiometry,
    table_2,
    unmix_spectra,
    unmix_sums,
)  # fmt: skip
from edge.compton_physics import (
    Pinhole,
    energy_of_momentum_kev,
    klein_nishina_cm2,
    momentum_au,
    polarised_klein_nishina_cm2,
    relative_electron_density,
    scattered_energy_kev,
    window_edges_kev,
)  # fmt: skip
from edge.compton_profile import profile, s_interval, s_of_sums, s_values
from edge.uncertainty import pulls
from tests.edge import compton_model as model

DRAWS = 3200
RIGHT = math.pi / 2
BINS = EnergyBins(0.2, 220, 70.0)


def j(p: np.ndarray | float, valence: float = 0.35) -> np.ndarray:
    """A profile like that of an oxide: a narrow valence part on a broad core part (area 1)."""
    p = np.asarray(p, float)
    return valence * np.exp(-0.5 * (p / 0.9) ** 2) / (0.9 * math.sqrt(2 * math.pi)) + (1 - valence) * np.exp(
        -0.5 * (p / 3.0) ** 2
    ) / (3.0 * math.sqrt(2 * math.pi))


def true_s(valence: float = 0.35) -> float:
    core = integrate.quad(j, -1, 1, args=(valence,))[0]
    return core / (integrate.quad(j, -5, 5, args=(valence,))[0] - core)


def expected(
    theta: np.ndarray | float, valence: float = 0.35, gain: float = 0.0, offset: float = 0.0
) -> np.ndarray:
    """Counts per bin of a spectrum of one count, recorded with a wrong gain and offset."""
    true = (BINS.edges_kev() - offset) / (1 + gain)
    from scipy.special import ndtr

    p = model.momentum(np.maximum(true, 1.0), np.asarray(theta)[..., None])
    whole = valence * ndtr(p / 0.9) + (1 - valence) * ndtr(p / 3.0)
    return np.diff(whole, axis=-1)


def test_the_numbers_of_the_papers_from_their_formulas():
    """edge.md 4.2: peak 93.874, shift 21.13, windows 89.53 92.99 94.76 98.38 keV, 0.2 keV = 0.226 a.u."""
    assert scattered_energy_kev(115.0, RIGHT) == pytest.approx(93.874, abs=5e-4)
    assert 115.0 - scattered_energy_kev(115.0, RIGHT) == pytest.approx(21.13, abs=5e-3)
    edges = window_edges_kev(115.0, np.array([RIGHT]))[0]
    assert edges == pytest.approx([89.53, 92.99, 94.76, 98.38], abs=5e-3)
    assert (edges[2] - edges[1]) / 0.2 == pytest.approx(8.8, abs=0.05)
    assert 0.2 * np.diff(momentum_au(115.0, np.array([93.374, 94.374]), RIGHT))[0] == pytest.approx(
        0.226, abs=1e-3
    )
    angles = Pinhole().angles_rad(80, 80)
    assert np.degrees(np.abs(angles - RIGHT).max()) == pytest.approx(3.8, abs=0.05)
    ends = scattered_energy_kev(115.0, np.array([RIGHT - math.atan(10 / 150), RIGHT + math.atan(10 / 150)]))
    assert sorted(ends) == pytest.approx([92.74, 95.03], abs=0.01)
    assert Pinhole().pixel_mm == pytest.approx(0.267, abs=5e-4)


def test_every_misprint_is_listed_with_our_value_beside_it():
    rows = {c.what: c for c in checks()}
    assert rows["Compton peak at 90 deg (keV)"].ours == "93.874"
    assert rows["edges of the S windows (keV)"].ours == "89.53 92.99 94.76 98.38"
    assert rows["wings of S (2022, text)"].printed == "|pz| > 5"
    assert rows["gradient of 1-x, region 1 to 2"].ours == "3.9%"
    assert rows["gradient of 1-x, region 2 to 3"].ours == "16.4%"
    assert rows["4.5e6 frames at 9 kHz"].ours == "500 s, 57.6 GB"
    assert "0.43306 S -0.28154" in rows["Table 2: 1-x"].ours


def test_momentum_and_its_inverse():
    for theta in (0.3, 1.2, RIGHT, 2.8):
        energies = np.linspace(70.0, 110.0, 41)
        ours = momentum_au(115.0, energies, theta)
        assert ours == pytest.approx(model.momentum(energies, theta), rel=1e-4, abs=1e-4)
        for p in (-5.0, -1.0, 0.3, 5.0):
            root = optimize.brentq(lambda e, p=p, t=theta: float(momentum_au(115.0, e, t)) - p, 20.0, 300.0)
            assert energy_of_momentum_kev(115.0, p, theta) == pytest.approx(root, rel=1e-9)
    assert momentum_au(115.0, scattered_energy_kev(115.0, 1.1), 1.1) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("beam", "angle"), [("+x", 90.0), ("-x", 70.0), ("+y", 110.0), ("-y", 90.0)])
def test_angles_by_drawing_the_rays(beam, angle):
    """Pixel, pinhole and the point on the sheet where their line ends, in space."""
    pinhole = Pinhole(angle_deg=angle, beam=beam)
    ours = pinhole.angles_rad(8, 12)
    alpha, hole = math.radians(angle), np.array([0.0, 0.0, 160.0])
    unit = {"+x": (1, 0), "-x": (-1, 0), "+y": (0, 1), "-y": (0, -1)}[beam]
    direction = np.array([unit[0] * math.sin(alpha), unit[1] * math.sin(alpha), math.cos(alpha)])
    for row in range(8):
        for column in range(12):
            pixel = np.array([(column - 5.5) * 0.25, (row - 3.5) * 0.25, 310.0])
            flight = pixel - hole
            point = hole - flight * 160.0 / 150.0
            assert point[2] == pytest.approx(0.0, abs=1e-12)
            scattered = hole - point
            cosine = scattered @ direction / np.linalg.norm(scattered)
            assert ours[row, column] == pytest.approx(math.acos(cosine), abs=1e-12)


def test_klein_nishina_adds_up_to_the_total_cross_section():
    """Total (Klein and Nishina): sigma_T 3/4 {...}; at 511 keV 0.4307 of Thomson's 6.6524e-25 cm2."""
    for energy in (115.0, 510.999):
        angles = np.linspace(0, math.pi, 20_001)
        ring = klein_nishina_cm2(energy, angles) * 2 * math.pi * np.sin(angles)
        k = energy / 510.99895
        total = (1 + k) / k**2 * (2 * (1 + k) / (1 + 2 * k) - math.log(1 + 2 * k) / k)
        total += math.log(1 + 2 * k) / (2 * k) - (1 + 3 * k) / (1 + 2 * k) ** 2
        assert integrate.trapezoid(ring, angles) == pytest.approx(
            2 * math.pi * 2.8179403e-13**2 * total, rel=1e-6
        )
    assert 2 * math.pi * 2.8179403e-13**2 * total == pytest.approx(0.4307 * 6.6524e-25, rel=1e-3)
    phi = np.linspace(0, 2 * math.pi, 721)
    mean = integrate.trapezoid(polarised_klein_nishina_cm2(115.0, 1.3, phi), phi) / (2 * math.pi)
    assert mean == pytest.approx(float(klein_nishina_cm2(115.0, 1.3)), rel=1e-9)


def test_electron_density_of_an_even_sheet_is_even():
    pinhole = Pinhole()
    rng = np.random.default_rng(1)
    weight = klein_nishina_cm2(115.0, pinhole.angles_rad(80, 80)) * pinhole.throughput(80, 80)
    counts = rng.poisson(5e4 * weight / weight.max())
    density, sigma = relative_electron_density(counts, np.sqrt(counts), weight)
    good = counts > 200
    mean, std = pulls(density[good], np.ones(good.sum()), sigma[good])
    assert abs(mean) < 0.1
    assert 0.95 < std < 1.05
    assert pinhole.throughput(81, 81)[40, 40] == pytest.approx(1.0)


def test_window_sums_are_those_of_explicit_weights():
    """Weights from the piecewise linear density, written out as a matrix."""
    rng = np.random.default_rng(5)
    spectra = rng.poisson(20.0, (50, 220))
    edges_kev = np.sort(rng.uniform(88.0, 100.0, (50, 4)), axis=1) + np.array([0.0, 0.7, 1.4, 2.1])
    got = s_values(spectra, edges_kev, BINS)
    for n, limits, sums in zip(spectra, (edges_kev - 70.0) / 0.2, got.sums, strict=True):
        below = np.array([cumulative(limit, 220) for limit in limits])
        core, wings = below[2] - below[1], below[1] - below[0] + below[3] - below[2]
        wanted = [core @ n, wings @ n, core**2 @ n, wings**2 @ n, (core * wings) @ n]
        assert sums == pytest.approx(wanted, rel=1e-12)


def cumulative(limit: float, bins: int) -> np.ndarray:
    """Weights of the counts below a limit: whole bins, and a line through the neighbours in the cut one."""
    k = int(limit)
    f = limit - k
    weights = (np.arange(bins) < k).astype(float)
    weights[k] = f
    weights[k + 1] -= f * (1 - f) / 4
    weights[k - 1] += f * (1 - f) / 4
    return weights


def test_narrow_windows_and_windows_outside():
    spectra = np.array([[4, 5, 6, 7, 8, 9]])
    bins = EnergyBins(1.0, 6)
    got = s_values(spectra, np.array([[1.25, 1.5, 1.75, 2.5]]), bins)  # three limits in one bin
    assert got.sums[0] == pytest.approx([1.25, 1.25 + 1.25 + 3.0, 0.0625 * 5, 0.25 * 5 + 0.25 * 6, 0.125 * 5])
    got = s_values(spectra, np.array([[0.0, 2.0, 4.0, 6.0]]), bins)
    assert got.sums[0, :2] == pytest.approx([13, 26])
    assert np.isnan(s_values(spectra, np.array([[1.0, 2.0, 4.0, 6.5]]), bins).s[0])
    assert np.isnan(s_values(spectra * 0, np.array([[1.0, 2.0, 4.0, 6.0]]), bins).s[0])


@pytest.mark.parametrize("counts", [3e6, 6000.0, 400.0])
def test_pulls_of_s(counts):
    """Each draw is a pixel at another angle, so window edges cut bins everywhere."""
    rng = np.random.default_rng(int(counts))
    angles = RIGHT + rng.uniform(-0.065, 0.065, DRAWS)
    spectra = rng.poisson(counts * expected(angles))
    got = s_values(spectra, window_edges_kev(115.0, angles), BINS)
    mean, std = pulls(got.s, np.full(DRAWS, true_s()), got.sigma)
    assert 0.95 < std < 1.05
    assert abs(mean) < 0.1
    if counts > 1e6:  # a bin spread evenly, as is usual, is biased
        even = spectra[:, None, :] * even_weights((window_edges_kev(115.0, angles) - 70.0) / 0.2)
        ratio = even[:, 0].sum(axis=1) / even[:, 1].sum(axis=1)
        assert np.mean((ratio - true_s()) / got.sigma) < -0.3


def even_weights(limits: np.ndarray) -> np.ndarray:
    """Weights of core and wings with the content of a bin spread evenly over it."""
    k = np.arange(220)
    below = np.clip(limits[:, :, None] - k, 0, 1)
    core = below[:, 2] - below[:, 1]
    return np.stack([core, below[:, 3] - below[:, 0] - core], axis=1)


def test_pulls_of_the_s_of_a_sum_of_few_count_pixels():
    rng = np.random.default_rng(17)
    angles = RIGHT + rng.uniform(-0.065, 0.065, 60)
    spectra = rng.poisson(12.0 * expected(angles), (DRAWS, 60, 220))
    got = s_values(spectra, np.broadcast_to(window_edges_kev(115.0, angles), (DRAWS, 60, 4)), BINS)
    total = s_of_sums(got.sums.sum(axis=1))
    mean, std = pulls(total.s, np.full(DRAWS, true_s()), total.sigma)
    assert 0.95 < std < 1.05
    assert abs(mean) < 0.1


@pytest.mark.parametrize("counts", [5.0, 12.0, 40.0])
@pytest.mark.parametrize("level", [0.6827, 0.9545])
def test_coverage_of_the_interval_at_few_counts(counts, level):
    rng = np.random.default_rng(23)
    fraction = true_s() / (1 + true_s())
    core = rng.poisson(counts * fraction, 20_000)
    wings = rng.poisson(counts * (1 - fraction), 20_000)
    low, high = s_interval(core, wings, level)
    covered = np.mean((low <= true_s()) & (true_s() <= high))
    assert covered > level - 4 * math.sqrt(level * (1 - level) / 20_000)
    assert covered < level + 0.2


def test_coverage_with_real_window_edges():
    """Counts of cut bins are not whole: the interval is approximate there."""
    rng = np.random.default_rng(29)
    angles = RIGHT + rng.uniform(-0.065, 0.065, 4000)
    spectra = rng.poisson(15.0 * expected(angles))
    sums = s_values(spectra, window_edges_kev(115.0, angles), BINS).sums
    for level in (0.6827, 0.9545):
        low, high = s_interval(np.maximum(sums[:, 0], 0), np.maximum(sums[:, 1], 0), level)
        assert np.mean((low <= true_s()) & (true_s() <= high)) > level - 0.02


def nuisance_draws(n: int, counts: float) -> tuple[np.ndarray, np.ndarray, compton.Setup]:
    """Regions of 4 x 4 pixels, each with its own gain, offset and angle error."""
    rng = np.random.default_rng(31)
    setup = compton.Setup(pinhole=Pinhole(pitch_mm=4.0), line=table_2())
    angles = setup.pinhole.angles_rad(4, 4)
    prior = setup.priors
    gain = rng.normal(0, prior.gain, n)
    offset = rng.normal(0, prior.offset_kev, n)
    tilt = np.radians(rng.normal(0, prior.angle_deg, n))
    estimates, sigmas = np.empty(n), np.empty(n)
    mask = np.ones((4, 4), bool)
    for k in range(n):
        rates = expected(angles + tilt[k], gain=gain[k], offset=offset[k])
        spectra = rng.poisson(counts / 16 * rates)
        found, budget = compton._with_nuisances(spectra[mask], BINS, setup, angles[mask])
        estimates[k] = found.s
        sigmas[k] = math.hypot(found.sigma, *budget.values())
    return estimates, sigmas, setup


def test_pulls_with_every_nuisance_drawn_from_its_prior():
    estimates, sigmas, _ = nuisance_draws(DRAWS, 2e5)
    mean, std = pulls(estimates, np.full(DRAWS, true_s()), sigmas)
    assert 0.95 < std < 1.05
    assert abs(mean) < 0.1


def test_the_profile_is_j_with_its_errors_and_correlations():
    rng = np.random.default_rng(7)
    angles = RIGHT + np.linspace(-0.06, 0.06, 25)
    rates = 4e4 * expected(angles)
    draws = [profile(rng.poisson(rates), 115.0, angles, BINS, width_au=0.25) for _ in range(400)]
    values = np.array([d.j for d in draws])
    middle = draws[0].momentum_au
    truth = np.array([integrate.quad(j, p - 0.125, p + 0.125)[0] / 0.25 for p in middle])
    inside = np.abs(middle) < 6
    within = integrate.quad(j, -8, 8)[0]
    assert values.mean(axis=0)[inside] == pytest.approx(truth[inside] / within, rel=0.012)
    sigma = np.mean([d.sigma for d in draws], axis=0)
    assert (values.std(axis=0) / sigma)[inside].mean() == pytest.approx(1.0, abs=0.03)
    neighbours = [np.corrcoef(values[:, i], values[:, i + 1])[0, 1] for i in np.flatnonzero(inside)[:-1]]
    stated = draws[0].correlation[np.flatnonzero(inside)[:-1]]
    assert np.mean(neighbours) == pytest.approx(float(stated.mean()), abs=0.03)
    assert stated.mean() > 0.2  # shared bins matter
    with pytest.raises(ValueError, match="finer than the energy bins"):
        profile(rng.poisson(rates), 115.0, angles, BINS, width_au=0.1)


@pytest.mark.parametrize(("area", "level"), [(2e5, 100.0), (4000.0, 5.0)])
def test_pulls_of_the_gauss_lorentz_fit(area, level):
    rng = np.random.default_rng(13)
    energy = np.arange(85.1, 103.0, 0.2)
    truth = np.array([area, 93.87, 3.2, 0.4, level, 0.02 * level])
    rates, _ = shape(energy, 0.2, truth, float(energy.mean()))
    n = DRAWS
    fits = [fit(rng.poisson(rates), energy, start_kev=93.5) for _ in range(n)]
    assert sum(not f.converged for f in fits) <= 2
    for k in range(3):  # area, centre, width
        mean, std = pulls(
            [f.values[k] for f in fits], np.full(n, truth[k]), [f.covariance[k, k] ** 0.5 for f in fits]
        )
        assert 0.95 < std < 1.05, k
        assert abs(mean) < 0.1, k
    chi2 = np.mean([f.chi2 / f.ndf for f in fits])
    assert chi2 == pytest.approx(1.0, abs=0.02)


def test_the_fit_keeps_the_counts_and_weights_from_the_data_do_not():
    """A Poisson fit with a free level has the sum of the data; weights 1/max(y, 1) lose about chi2 counts."""
    rng = np.random.default_rng(19)
    energy = np.arange(85.1, 103.0, 0.2)
    middle = float(energy.mean())
    rates, _ = shape(energy, 0.2, np.array([3000.0, 93.87, 3.2, 0.4, 3.0, 0.0]), middle)

    def curve(e, *v):
        return shape(e, 0.2, np.array(v), middle)[0]

    ours, theirs = [], []
    for _ in range(60):
        counts = rng.poisson(rates)
        found = fit(counts, energy, start_kev=93.5)
        ours.append(found.model.sum() - counts.sum())
        start, sigma = found.values, np.sqrt(np.maximum(counts, 1))
        best, _ = optimize.curve_fit(curve, energy, counts, start, sigma=sigma, maxfev=4000)
        theirs.append(curve(energy, *best).sum() - counts.sum())
    assert np.abs(ours).max() < 0.5
    assert np.mean(theirs) < -50


def test_the_calibration_line_of_table_2():
    line = table_2()
    assert line.slope == pytest.approx(0.43306, abs=5e-6)
    assert line.intercept == pytest.approx(-0.28154, abs=5e-6)
    assert np.abs(line.residuals).max() == pytest.approx(0.0022, abs=5e-5)
    assert line.r_squared == pytest.approx(0.99999, abs=5e-6)
    found = stoichiometry([0.5, 1.0, 2.5], 0.1, 0.0, line)
    assert found.extrapolated.tolist() == [True, False, True]
    columns = np.array([row[2:] for row in TABLE_2]).T
    assert found.value == pytest.approx(np.polyval(np.polyfit(*columns, 1), [0.5, 1.0, 2.5]))
    with pytest.raises(ValueError, match=r"outside of 0\.65 to 2\.4"):
        stoichiometry(2.5, 0.1, 0.0, line, extrapolate=False)
    with pytest.raises(ValueError, match="three points"):
        calibrate([1.0, 1.0, 1.0], [0.1, 0.2, 0.3])


def test_pulls_of_the_stoichiometry_with_a_calibration_drawn_from_its_errors():
    """Both columns of the table get rounding errors; S gets counting errors."""
    rng = np.random.default_rng(37)
    s = np.array([row[2] for row in TABLE_2])
    estimates, sigmas = np.empty(DRAWS), np.empty(DRAWS)
    truth = 0.43 * 1.6 - 0.28
    for k in range(DRAWS):
        x = 0.43 * s - 0.28 + rng.normal(0, ROUNDING, 6)
        line = calibrate(s + rng.normal(0, ROUNDING, 6), x)
        found = stoichiometry(1.6 + rng.normal(0, 0.002), 0.002, 0.0, line)
        estimates[k], sigmas[k] = found.value, math.hypot(float(found.sigma_stat), float(found.sigma_sys))
    mean, std = pulls(estimates, np.full(DRAWS, truth), sigmas)
    assert 0.95 < std < 1.05
    assert abs(mean) < 0.1


@pytest.mark.parametrize("counts", [1e6, 3e4])
def test_pulls_of_unmixed_regions(counts):
    """Thickness times density of the components of the 2024 cell, as three depth regions see them."""
    rng = np.random.default_rng(41)
    mixing = huang_2024()
    valences, density = np.array([0.25, 0.45, 0.6]), np.array([1.0, 1.3, 0.5])
    parts = (
        counts
        * (density * np.array([65.0, 30.0, 250.0]) / 250)[:, None]
        * np.array([expected(RIGHT, v) for v in valences])
    )
    rates = mixing.fractions @ parts
    spectra = rng.poisson(rates, (DRAWS, 3, 220))
    edges = np.broadcast_to(window_edges_kev(115.0, np.array(RIGHT)[None]), (DRAWS, 3, 4))
    sums = s_values(spectra, edges, BINS).sums
    found = [unmix_sums(one, mixing) for one in sums]
    for k, valence in enumerate(valences):
        mean, std = pulls(
            [f.s.s[k] for f in found], np.full(DRAWS, true_s(valence)), [f.s.sigma[k] for f in found]
        )
        assert 0.95 < std < 1.05, k
        assert abs(mean) < 0.1, k
    all_s = np.array([f.s.s for f in found])
    stated = np.mean([f.covariance for f in found], axis=0)
    assert np.cov(all_s.T) == pytest.approx(stated, rel=0.15, abs=0.02 * float(np.diag(stated).min()))
    window = integrate.quad(j, -5, 5, args=(0.25,))[0]
    volume = [f.counts[0] for f in found]
    mean, std = pulls(volume, np.full(DRAWS, counts / 250 * window), [f.counts_sigma[0] for f in found])
    assert 0.95 < std < 1.05
    assert abs(mean) < 0.1


def test_pulls_of_unmixed_regions_with_fractions_drawn_from_their_errors():
    rng = np.random.default_rng(43)
    mixing = huang_2024()
    rates = (
        2e6
        * np.array([65.0, 39.0, 125.0])[:, None]
        / 250
        * np.array([expected(RIGHT, v) for v in (0.25, 0.45, 0.6)])
    )
    edges = window_edges_kev(115.0, np.array([RIGHT] * 3))
    estimates, sigmas = np.empty(DRAWS), np.empty(DRAWS)
    for k in range(DRAWS):
        true = mixing.fractions + rng.normal(0, 1, (3, 3)) * mixing.sigma
        sums = s_values(rng.poisson(true @ rates), edges, BINS).sums
        got = unmix_sums(sums, mixing)
        estimates[k], sigmas[k] = got.s.s[0], math.hypot(got.s.sigma[0], got.sigma_sys[0])
    mean, std = pulls(estimates, np.full(DRAWS, true_s(0.25)), sigmas)
    assert 0.95 < std < 1.05
    assert abs(mean) < 0.1


def test_unmixing_is_the_arithmetic_of_the_paper():
    """separator = region 2 - 0.89 region 3; cathode = region 1 - 0.64 region 3 - separator; per volume."""
    mixing = huang_2024()
    r1, r2, r3 = np.full(5, 900.0), np.full(5, 700.0), np.full(5, 500.0)
    spectra, sigma = unmix_spectra(np.stack([r1, r2, r3]), mixing)
    separator = 700 - 0.89 * 500
    assert spectra[:, 0] == pytest.approx([(900 - 0.64 * 500 - separator) / 65, separator / 30, 500 / 250])
    assert sigma[1, 0] == pytest.approx(math.sqrt(700 + 0.89**2 * 500) / 30)
    with pytest.raises(ValueError, match="singular"):
        Mixing(("a", "b"), ("c", "d"), np.ones((2, 2)), np.zeros((2, 2)), np.ones(2), np.zeros(2))


def test_a_pixel_with_few_photons_has_no_s_instead_of_an_error_of_nothing():
    """One photon in the bin that core and wings share would have S = 9 or so with sigma 0."""
    setup, spectra = compton.Setup(), np.zeros((8, 8, 220), np.int64)
    edges = compton.window_edges_kev(setup.energy_kev, setup.pinhole.angles_rad(8, 8))[..., 1]
    for (y, x), edge in np.ndenumerate(edges):
        spectra[y, x, int((edge - BINS.low_kev) / BINS.width_kev)] = 1
    found = compton.analyse(spectra, BINS, np.ones((8, 8), bool), setup)
    assert found.sums[0] > 1.0
    assert found.sums[1] > 1.0
    assert np.isnan(found.map.s).all()
    assert np.isnan(found.map.sigma).all()
    whole = compton.analyse(400 * spectra, BINS, np.ones((8, 8), bool), setup)
    assert np.isfinite(whole.map.s).any()


def test_analysis_of_a_map_gives_s_everywhere_and_nan_outside_the_mask():
    rng = np.random.default_rng(47)
    setup = compton.Setup(line=table_2())
    angles = setup.pinhole.angles_rad(80, 80)
    valence = np.where(np.arange(80) < 40, 0.3, 0.5) * np.ones((80, 1))
    rates = np.stack([expected(angles[:, :40], 0.3), expected(angles[:, 40:], 0.5)], axis=1).reshape(
        80, 80, 220
    )
    mask = np.ones((80, 80), bool)
    mask[:5] = False
    found = compton.analyse(rng.poisson(4000 * rates), BINS, mask, setup)
    assert np.isnan(found.map.s[:5]).all()
    assert abs(found.shift.value) < 5 * found.shift.sigma_stat < 0.01
    for value, part in ((0.3, found.map.s[5:, :40]), (0.5, found.map.s[5:, 40:])):
        assert np.mean(part) == pytest.approx(true_s(value), rel=0.005)
    pull = (found.map.s - np.where(valence < 0.4, true_s(0.3), true_s(0.5)))[mask] / found.map.sigma[mask]
    assert 0.95 < pull.std() < 1.05
    assert found.peak is not None
    assert found.peak.value("centre") == pytest.approx(93.87, abs=0.15)  # more valence at smaller angles
    assert found.profile is not None
    assert found.profile.width_au == 0.25
    assert found.lithium is not None
    with pytest.raises(ValueError, match="no pixel"):
        compton.analyse(rng.poisson(rates), BINS, mask & False, setup)


def test_warming_runs_every_kernel():
    compton_profile.warm()
