import math

import numpy as np
import pytest

from edge.events import Segmentation
from edge.geometry import Grid, Pose
from edge.line_counts import (
    coefficients,
    continuum_slope,
    fit_net,
    placement_error,
    window_net,
    window_share,
)
from edge.lines import elements_of, lithium_window, overlaps, silicon_fwhm_kev, xray_window
from edge.maps import label_sums, labels_at, net_map, profile, quadtree
from edge.settings import Detector
from edge.uncertainty import garwood_interval, pulls

HPGE = Detector("pige", "hpge", 8192, 0.0, 0.25, 2.0, 4e-7)
SDD = Detector("pixe", "sdd", 2048, 0.0, 0.010, 0.145, 4e-7)
LITHIUM = lithium_window(481.0, 6.0)
COBALT = xray_window("Co", None, 0.145)
PIGE, PIXE = Segmentation.of(HPGE, [LITHIUM]), Segmentation.of(SDD, [COBALT])


# --- windows -------------------------------------------------------------------------------------------


def test_lithium_window_from_the_measured_line():
    assert (LITHIUM.low_kev, LITHIUM.high_kev) == (475.0, 487.0)
    assert LITHIUM.bands_kev == ((490.0, 505.0),)  # above the line, below 505 keV
    assert LITHIUM.one_sided
    assert window_share(LITHIUM) == pytest.approx(0.9815, abs=2e-4)  # +-2.355 sigma of a Gaussian


@pytest.mark.parametrize(
    ("centroid", "fwhm", "why"), [(511.0, 3.0, "at most 4.7 keV"), (481.0, 15.0, "FWHM 15.0 keV is outside")]
)
def test_a_line_that_cannot_be_lithium(centroid, fwhm, why):
    with pytest.raises(ValueError, match=why):
        lithium_window(centroid, fwhm)


def test_silicon_resolution():
    assert silicon_fwhm_kev(5.895, 0.145) == pytest.approx(0.145)
    assert silicon_fwhm_kev(15.75, 0.145) == pytest.approx(
        0.2097, abs=5e-4
    )  # 145^2 + 2.334 (15750 - 5895) eV^2
    with pytest.raises(ValueError, match="Fano"):
        silicon_fwhm_kev(1.0, 0.1)


def test_phosphorus_and_zirconium_do_not_separate():
    phosphorus = xray_window("P", None, 0.145)
    found = overlaps([phosphorus], ["P", "Zr"], 0.145)
    assert found == ["Zr La (2.042 keV) lies on P Ka (2.013 keV): 29 eV apart, resolution 145 eV"]
    assert overlaps([phosphorus, COBALT], ["P", "Co", "O"], 0.145) == []


def test_elements_of_materials():
    assert elements_of("LiCoO2") == ("Li", "Co", "O")
    assert "Zr" in elements_of("LLZO")
    assert elements_of("binder") == ()


def test_an_unknown_line_lists_the_known():
    with pytest.raises(ValueError, match=r"no X-ray line Co Lb; known: .*Co Ka"):
        xray_window("Co", "Lb", 0.145)


# --- net counts ----------------------------------------------------------------------------------------


def test_two_sided_background_is_interpolated():
    channels = PIXE.tables(1.0).channels_in
    c = coefficients(PIXE, COBALT, channels)
    energy = np.arange(2048) * 0.01
    slanted = 50.0 - 4.0 * energy  # a linear background leaves nothing
    segments = np.bincount(PIXE.tables(1.0).segment_of, slanted, minlength=PIXE.size)
    net, _ = window_net(segments, segments, c)
    assert float(net) == pytest.approx(0.0, abs=0.02 * 38)


def test_one_sided_background_follows_its_slope():
    tables = PIGE.tables(1.0)
    energy = np.arange(8192) * 0.25
    slope = -0.003
    density = 7.0 * (1 + slope * (energy - 497.5))
    segments = np.bincount(tables.segment_of, density, minlength=PIGE.size)
    right = coefficients(PIGE, LITHIUM, tables.channels_in, slope)
    flat = coefficients(PIGE, LITHIUM, tables.channels_in, 0.0)
    assert float(window_net(segments, segments, right)[0]) == pytest.approx(0.0, abs=0.2)
    missed = 7.0 * 48 * slope * (481.0 - 497.5)
    assert float(window_net(segments, segments, flat)[0]) == pytest.approx(missed, rel=0.02)


def test_bands_on_one_side_are_joined():
    twice = xray_window("Co", None, 0.145)
    high = (twice.bands_kev[1], (7.40, 7.45))
    window = type(twice)(**{**twice.__dict__, "bands_kev": high})
    segmentation = Segmentation.of(SDD, [window])
    c = coefficients(segmentation, window, segmentation.tables(1.0).channels_in)
    assert c[2] == pytest.approx(c[3])  # one density over both
    two_sided = type(twice)(**{**twice.__dict__, "bands_kev": (*twice.bands_kev, (7.40, 7.45))})
    segmentation = Segmentation.of(SDD, [two_sided])
    channels = segmentation.tables(1.0).channels_in
    c = coefficients(segmentation, two_sided, channels)
    assert (c * channels).sum() == pytest.approx(0.0, abs=1e-9)  # a flat background vanishes


def test_window_and_fit_are_unbiased_and_know_their_errors():
    """3 200 spectra of about 25 lithium counts on 2.5 times as much continuum: pulls of both methods."""
    rng = np.random.default_rng(20210620)
    tables = PIGE.tables(1.0)
    energy = np.arange(8192) * 0.25
    near = slice(1800, 2100)
    shape = np.exp(-0.5 * ((energy[near] - 481.0) / (6.0 / 2.3548)) ** 2)
    expected = 25.0 * shape / shape.sum() / window_share(LITHIUM) + 1.3
    spectra = rng.poisson(expected, (3_200, expected.size))
    c = coefficients(PIGE, LITHIUM, tables.channels_in)
    nets, variances, fits, fit_variances = [], [], [], []
    for spectrum in spectra:
        full = np.zeros(8192)
        full[near] = spectrum
        segments = np.bincount(tables.segment_of, full, minlength=PIGE.size)
        net, variance = window_net(segments, segments, c)
        nets.append(net)
        variances.append(variance)
        binned = np.bincount(tables.bin_of, full, minlength=PIGE.row_bins)
        fit, fit_variance = fit_net(binned, binned, PIGE, LITHIUM, tables.bin_channels)
        fits.append(fit)
        fit_variances.append(fit_variance)
    for net, variance in ((nets, variances), (fits, fit_variances)):
        mean, std = pulls(net, 25.0, np.sqrt(variance))
        assert abs(mean) < 0.1
        assert 0.95 < std < 1.05
    assert np.std(fits) < np.std(nets)  # the shape knows more than a window


def test_a_fit_needs_bins():
    narrow = type(LITHIUM)(
        **{**LITHIUM.__dict__, "low_kev": 480.0, "bands_kev": ((482.0, 483.0),), "high_kev": 481.5}
    )
    with pytest.raises(ValueError, match="too few"):
        fit_net(np.ones(2049), np.ones(2049), PIGE, narrow, np.full(2049, 4.0))


def test_slope_of_a_continuum():
    rng = np.random.default_rng(2)
    energy = np.arange(8192) * 0.25
    inside = (energy >= 490) & (energy < 505)
    true = -0.004
    found = []
    for _ in range(400):
        spectrum = np.zeros(8192)
        spectrum[inside] = rng.poisson(500.0 * (1 + true * (energy[inside] - 497.4)))
        found.append(continuum_slope(spectrum, energy, (490.0, 505.0), 1.0))
    mean, std = pulls([s.value for s in found], true, [s.sigma for s in found])
    assert abs(mean) < 0.2
    assert 0.9 < std < 1.1


def test_without_counts_the_slope_is_the_prior():
    energy = np.arange(8192) * 0.25
    nothing = continuum_slope(np.zeros(8192), energy, (490.0, 505.0), 0.004)
    assert (nothing.value, nothing.sigma) == (0.0, 0.004)
    known = continuum_slope(np.ones(8192), energy, (490.0, 505.0), 0.0)
    assert (known.value, known.sigma) == (0.0, 0.0)


def test_a_displaced_line_loses_in_second_order():
    one, two = placement_error(LITHIUM, 0.25), placement_error(LITHIUM, 0.5)
    assert two / one == pytest.approx(4.0, rel=0.05)
    assert 0.0 < two < 0.005


# --- maps ----------------------------------------------------------------------------------------------


def test_a_map_keeps_what_an_exact_interval_needs():
    c = np.array([0.0, 1.0, -0.8])
    picture = net_map(np.array([[5, 3, 2], [9, 0, 0]]), c)
    assert picture.net == pytest.approx([3 - 1.6, 0.0])
    assert picture.sigma == pytest.approx([math.sqrt(3 + 0.64 * 2), 1.0])  # no count is not no error
    assert (picture.gross[1], picture.background[0]) == (0.0, 1.6)


def test_coverage_of_a_map_at_a_few_counts():
    """Per pixel, 2 to 4 counts: the exact interval on the gross counts covers, whatever the pixel."""
    rng = np.random.default_rng(5)
    signal, background = rng.uniform(1.0, 4.0, 20_000), 1.1
    gross = rng.poisson(signal + background)
    for level in (0.6827, 0.9545):
        low, high = garwood_interval(gross, level)
        covered = np.mean((low - background <= signal) & (signal <= high - background))
        assert covered >= level


def test_quadtree_fills_every_region_and_misses_none():
    rng = np.random.default_rng(6)
    counts = rng.poisson(3.0, (40, 24))
    inside = np.zeros((40, 24), bool)
    inside[10:37, 2:] = True
    labels = quadtree(counts, inside, 100.0)
    assert np.array_equal(labels >= 0, inside)
    sums = label_sums(labels, counts.ravel())
    assert sums.min() >= 100.0
    assert sums.sum() == counts[inside].sum()
    assert len(sums) > 8
    with pytest.raises(ValueError, match="minimum 0"):
        quadtree(counts, inside, 0.0)


def test_a_map_with_too_few_counts_is_one_region():
    labels = quadtree(np.ones((8, 8)), np.ones((8, 8), bool), 1e6)
    assert not labels.any()
    assert label_sums(labels, np.ones((64, 2))).shape == (1, 2)


def test_labels_follow_the_material():
    grid = Grid(10, 10, 100.0, 100.0)
    labels = np.arange(100, dtype=np.int32).reshape(10, 10)
    same = labels_at(labels, grid, Pose(0.0, 5.0), grid, Pose(0.0, 5.0))
    assert np.array_equal(same, labels)
    moved = labels_at(labels, grid, Pose(0.0, 5.0), grid, Pose(0.0, 15.0))  # the sample moved up by one row
    assert np.array_equal(moved[1:], labels[:-1])
    assert (moved[0] == -1).all()


# --- profiles ------------------------------------------------------------------------------------------


def test_profile_of_passes_that_drifted():
    rng = np.random.default_rng(9)
    grid = Grid(40, 60, 100.0, 300.0)
    x, y = grid.positions_um()
    c = np.array([0.0, 1.0, -0.5])
    parts = []
    for drift in (0.0, 5.0, 10.0):
        pose = Pose(0.0, drift, 0.0, 0.001, 0.5)
        upper = pose.distance_um(x, y) > 0
        counts = np.stack(
            [np.zeros(2400), rng.poisson(2.0 + 6.0 * upper), rng.poisson(np.full(2400, 2.0))], axis=1
        )
        parts.append((pose, counts.astype(np.uint32), np.full(2400, 1e-3)))
    drawn = profile(grid, parts, c)
    below, above = drawn.position_um < -5.0, (drawn.position_um > 5.0) & np.isfinite(drawn.value)
    below &= np.isfinite(drawn.value)
    assert drawn.value[below].mean() == pytest.approx(1_000.0, rel=0.05)  # (2 - 1) / 1e-3
    assert drawn.value[above].mean() == pytest.approx(7_000.0, rel=0.02)
    _, std = pulls(drawn.value[above], 7_000.0, drawn.sigma_stat[above])
    assert 0.6 < std < 1.4
    edge = np.argmin(np.abs(drawn.position_um))
    assert drawn.sigma_sys[edge] > 5 * np.median(drawn.sigma_sys)  # the error of the place counts at the step
    assert drawn.sigma_position_um[0] == pytest.approx(math.hypot(0.5, 25.0 * 0.001))
