import itertools

import numpy as np
import pytest

from edge.deadtime import (
    DeadTime,
    check_counters,
    expected_fast,
    fit_dead_time,
    live_fraction,
    pile_up_fraction,
    smooth_rate_hz,
    true_rate_hz,
)
from edge.drift import Centroid, Gain, Marker, centroid, follow, markers, measured_gain, misplaced
from edge.events import TALLIES, PassCounts, Segmentation, warm
from edge.lines import lithium_window, xray_window
from edge.settings import Detector
from edge.uncertainty import pulls

SDD = Detector("pixe", "sdd", 2048, 0.0, 0.010, 0.145, 4e-7)
HPGE = Detector("pige", "hpge", 8192, 0.0, 0.25, 2.0, 4e-7)
PIXE = Segmentation.of(SDD, [xray_window("Co", None, 0.145), xray_window("P", None, 0.145)])
PIGE = Segmentation.of(HPGE, [lithium_window(481.0, 6.0)])
NX, NY = 5, 4


def counted(segmentation, channel, frame, gain=1.0, nx=NX, ny=NY):
    counts = PassCounts.empty(nx, ny, segmentation, gain)
    counts.add(np.array(channel, np.uint16), np.array(frame, np.int64))
    return counts


def tally(counts, name):
    return int(counts.tallies[TALLIES.index(name)])


# --- segments ------------------------------------------------------------------------------------------


def test_windows_that_overlap_are_cut_into_disjoint_segments():
    low, high = xray_window("P", "Ka", 0.145), xray_window("Zr", "La", 0.145)
    segmentation = Segmentation.of(SDD, [low, high])
    edges = segmentation.edges_kev
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(edges))
    channels = segmentation.tables(1.0).channels_in
    for window in (low, high):
        members = segmentation.members(window.low_kev, window.high_kev)
        width = channels[members].sum() * SDD.gain_kev
        assert width == pytest.approx(window.width_kev, abs=2 * SDD.gain_kev)


def test_every_event_is_in_exactly_one_segment():
    rng = np.random.default_rng(5)
    frame = np.sort(rng.integers(1, NY * (NX + 1) + 1, 4_000))
    counts = counted(PIXE, rng.integers(0, 2048, 4_000), frame)
    assert counts.segments.sum() == 4_000


def test_the_lithium_window_and_its_band():
    assert PIGE.edges_kev == ((475.0, 487.0), (490.0, 505.0))
    assert list(PIGE.tables(1.0).channels_in[1:]) == [48, 60]  # 12 and 15 keV at 0.25 keV


# --- where events go -----------------------------------------------------------------------------------


def test_frames_of_the_contract():
    """Line = (f-1) // (nx+1), column = (f-1) % (nx+1), the last one of a line is the parked beam."""
    cobalt = 693
    counts = counted(PIXE, [cobalt] * 6, [0, 1, 5, 6, 7, 24])
    window = PIXE.members(PIXE.windows[0].low_kev, PIXE.windows[0].high_kev)
    per_pixel = counts.segments[:, window].sum(axis=1)
    assert list(np.flatnonzero(per_pixel[:-1])) == [0, 4, 5]  # pixel 0, pixel 4 of line 0, pixel 0 of line 1
    assert per_pixel[-1] == 3  # before the first pulse, parked after line 0, parked after line 3
    assert (tally(counts, "on"), tally(counts, "before"), tally(counts, "parked")) == (3, 1, 2)


def test_an_event_beyond_the_raster_is_tallied_and_counted_nowhere():
    counts = counted(PIXE, [693, 693], [24, 25])
    assert tally(counts, "outside") == 1
    assert tally(counts, "received") == 2
    assert counts.segments.sum() == 1


def test_under_and_overflow_are_counted_apart_and_never_in_a_window():
    counts = counted(PIXE, [0, 2047, 2048, 16383], [1, 1, 1, 1])
    assert (tally(counts, "underflow"), tally(counts, "overflow")) == (1, 2)
    assert counts.segments[0, 0] == 4  # they made the detector busy
    assert counts.segments[:, 1:].sum() == 0
    assert counts.spectrum_on().sum() == 2  # the two that are in the spectrum


def test_without_raster_everything_is_beam_off():
    counts = PassCounts.empty(0, 0, PIGE, 1.0)
    counts.add(np.array([1910, 1924], np.uint16), np.array([3, -1], np.int64))
    assert counts.segments.shape == (1, 3)
    assert list(counts.segments[0]) == [0, 2, 0]  # 477.5 and 481 keV
    assert counts.spectrum_off[1910] == 1


def test_against_numpy():
    rng = np.random.default_rng(11)
    n = 20_000
    frame = np.sort(rng.integers(-3, NY * (NX + 1) + 9, n)).astype(np.int64)
    channel = rng.integers(0, 2500, n).astype(np.uint16)
    counts = counted(PIXE, channel, frame)
    inside = (frame >= 1) & (frame <= NY * (NX + 1))
    column = (frame - 1) % (NX + 1)
    on = inside & (column < NX) & (channel < 2048)
    pixel = (frame - 1) // (NX + 1) * NX + column
    lut = np.asarray(PIXE.tables(1.0).segment_of)
    expected = np.zeros((NX * NY, PIXE.size), int)
    np.add.at(expected, (pixel[on], lut[channel[on]]), 1)
    assert np.array_equal(counts.segments[:-1, 1:], expected[:, 1:])
    assert np.array_equal(counts.spectrum_on(), np.bincount(channel[on], minlength=2048))
    off = (frame < 1) | (inside & (column == NX))
    assert np.array_equal(counts.spectrum_off, np.bincount(channel[off & (channel < 2048)], minlength=2048))


def test_any_split_into_chunks_and_any_merge_is_the_same():
    rng = np.random.default_rng(2)
    frame = np.sort(rng.integers(0, NY * (NX + 1) + 3, 999)).astype(np.int64)
    channel = rng.integers(0, 2100, 999).astype(np.uint16)
    whole = counted(PIXE, channel, frame)
    parts = [PassCounts.empty(NX, NY, PIXE, 1.0) for _ in range(3)]
    for start in range(0, 999, 37):
        parts[start % 3].add(channel[start : start + 37], frame[start : start + 37])
    parts[2].merge(parts[0])
    parts[2].merge(parts[1])
    for name in ("segments", "rows", "spectrum_off", "tallies"):
        assert np.array_equal(getattr(parts[2], name), getattr(whole, name))


def test_parts_with_other_windows_do_not_merge():
    with pytest.raises(ValueError, match="different tables"):
        PassCounts.empty(NX, NY, PIXE, 1.0).merge(PassCounts.empty(NX, NY, PIXE, 1.001))
    with pytest.raises(ValueError, match="channels"):
        PassCounts.empty(NX, NY, PIXE, 1.0).add(np.zeros(2, np.uint16), np.zeros(3, np.int64))


def test_row_spectra_keep_every_count_at_every_gain():
    rng = np.random.default_rng(8)
    channel = rng.integers(0, 2048, 5_000).astype(np.uint16)
    frame = np.sort(rng.integers(1, NX + 1, 5_000)).astype(np.int64)
    for gain in (0.97, 1.0, 1.03):
        counts = counted(PIXE, channel, frame, gain)
        rows = counts.binned_rows(PIXE.row_bins)
        assert rows.sum() == 5_000
        assert rows[1:].sum() == 0
        energies = channel * SDD.gain_kev * gain
        middle = (energies >= 6.92) & (energies < 6.96)
        assert rows[0, 173] == middle.sum()  # bin of 40 eV from 6.92 keV


def test_warming_compiles_nothing_new():
    warm()


# --- gain --------------------------------------------------------------------------------------------------


def spectrum_with(line_kev, fwhm_kev, net, flat, detector, rng):
    energy = np.arange(detector.channels) * detector.gain_kev
    shape = np.exp(-0.5 * ((energy - line_kev) / (fwhm_kev / 2.3548)) ** 2)
    return rng.poisson(net * shape / shape.sum() + flat)


def test_centroid_pulls():
    rng = np.random.default_rng(17)
    marker = Marker("Co", 6.9253, 0.153, 0.001)
    true = 6.9253 * 1.002
    found = [centroid(spectrum_with(true, 0.153, 2_000, 8.0, SDD, rng), SDD, marker, 1.0) for _ in range(800)]
    assert all(found)
    mean, std = pulls([c.nominal_kev for c in found], true, [c.sigma_kev for c in found])
    assert abs(mean) < 0.15
    assert 0.85 < std < 1.15


def test_a_line_that_is_not_there_gives_no_centroid():
    rng = np.random.default_rng(1)
    marker = Marker("Co", 6.9253, 0.153, 0.001)
    assert centroid(rng.poisson(np.full(2048, 20.0)), SDD, marker, 1.0) is None
    assert centroid(np.zeros(2048, int), SDD, marker, 1.0) is None
    assert centroid(rng.poisson(np.full(2048, 20.0)), SDD, Marker("x", 20.4, 0.153, 0.0), 1.0) is None


def test_the_germanium_scale_follows_annihilation_and_lithium():
    found = markers(HPGE, [lithium_window(481.0, 6.0)], 0.3)
    assert [(m.name, round(m.energy_kev, 1)) for m in found] == [("511", 511.0), ("Li", 481.0)]


def test_gain_of_lines_that_agree_and_of_lines_that_do_not():
    marker = Marker("a", 500.0, 2.0, 0.0)
    value, sigma = measured_gain([Centroid(marker, 499.0, 0.1, 100.0, 10.0)] * 2)
    assert value == pytest.approx(500 / 499)
    assert sigma == pytest.approx(0.1 / 499 / 2**0.5)
    value, apart = measured_gain([Centroid(marker, kev, 0.1, 100.0, 10.0) for kev in (498.0, 500.0)])
    assert apart > 5 * sigma
    assert measured_gain([]) is None


def test_following_a_drift():
    gain = Gain()
    rng = np.random.default_rng(4)
    errors = []
    for n in range(60):
        true = 1.001 + 2e-5 * n
        gain = follow(gain, (true + 1e-4 * rng.normal(), 1e-4))
        errors.append((gain.value - true) / gain.sigma)
    assert gain.passes == 60
    assert np.std(errors[5:]) < 1.5
    lost = follow(gain, None)
    assert lost.value == gain.value
    assert lost.sigma > gain.sigma


def test_windows_are_laid_again_only_when_it_matters():
    windows = [lithium_window(481.0, 6.0)]  # 0.1 sigma of the line is 0.25 keV, 5.3e-4 of 481
    assert not misplaced(1.0, Gain(1.0004, 1e-5), windows)
    assert misplaced(1.0, Gain(1.0007, 1e-5), windows)
    assert not misplaced(1.0, Gain(1.0007, 5e-4), windows)


# --- dead time -----------------------------------------------------------------------------------------


def test_the_paralysable_rate_is_inverted():
    for rate, tau in ((300.0, 8e-6), (1_000.0, 3e-5), (9_000.0, 1e-4)):
        observed = rate * np.exp(-rate * tau)
        assert float(true_rate_hz(observed, tau)) == pytest.approx(rate, rel=1e-9)
    assert np.isnan(true_rate_hz(np.array([5_000.0]), 1e-4))[0]  # more than 1/(e tau): impossible
    assert true_rate_hz(np.array([123.0]), 0.0)[0] == 123.0


@pytest.mark.parametrize(
    ("bright_hz", "tau", "runs"), [(1_500.0, 2e-5, 300), (1e4, 4e-5, 30), (2.5e4, 2e-5, 30)]
)
def test_dead_time_from_counters_of_an_uneven_map(bright_hz, tau, runs):
    rng = np.random.default_rng(9)
    rate = np.where(np.arange(900) < 450, 200.0, bright_hz)
    time_s = np.full(900, 0.5)
    fast_dead = 4e-7
    found = []
    for _ in range(runs):
        photons = rng.poisson(rate * time_s)
        fast = rng.binomial(photons, np.exp(-rate * fast_dead))
        slow = rng.binomial(fast, np.exp(-rate * (tau - fast_dead)))
        observed = smooth_rate_hz(slow.reshape(30, 30), time_s.reshape(30, 30)).ravel()
        found.append(fit_dead_time(slow.sum(), fast.sum(), observed, time_s, fast_dead))
    if bright_hz > 2_000.0:  # up to half of all photons lost: found to a per cent, never another root
        assert np.array([f.tau_s for f in found]) == pytest.approx(tau, rel=0.02)
        return
    mean, std = pulls([f.tau_s for f in found], tau, [f.sigma_s for f in found])
    assert 0.85 < std < 1.15
    assert abs(mean) < 0.6  # smoothing across the step costs less than half a sigma


def test_counters_that_no_dead_time_explains_give_an_error_that_says_so():
    """More pulses than a paralysable channel can lose, and fewer than were recorded."""
    observed, time_s = np.full(100, 500.0), np.full(100, 1.0)
    for fast in (5e5, 4.9e4):
        found = fit_dead_time(5e4, fast, observed, time_s, 4e-7)
        off = fast - expected_fast(5e4, observed, time_s, found.tau_s, 4e-7)
        assert found.sigma_s >= abs(off) / np.sum(observed**2 * time_s)


def test_a_prior_is_combined():
    alone = fit_dead_time(10_000, 10_200, np.full(100, 500.0), np.full(100, 0.2), 4e-7)
    both = fit_dead_time(
        10_000, 10_200, np.full(100, 500.0), np.full(100, 0.2), 4e-7, DeadTime(3e-5, alone.sigma_s)
    )
    assert both.tau_s == pytest.approx(0.5 * (alone.tau_s + 3e-5))
    with pytest.raises(ValueError, match="no counts"):
        fit_dead_time(0.0, 0.0, np.zeros(1), np.zeros(1), 4e-7)


def test_smoothing_knows_borders_and_pixels_without_time():
    counts, time_s = np.full((6, 6), 50.0), np.full((6, 6), 0.1)
    time_s[3], counts[3] = 0.0, 0.0
    rate = smooth_rate_hz(counts, time_s)
    assert rate == pytest.approx(np.full((6, 6), 500.0))
    assert not smooth_rate_hz(np.zeros((2, 2)), np.zeros((2, 2))).any()


def test_live_and_pile_up_fractions():
    observed = 1_000.0 * np.exp(-1_000.0 * 3e-5)
    assert float(live_fraction(observed, 3e-5)) == pytest.approx(np.exp(-0.03))
    assert float(pile_up_fraction(observed, 3e-5, 4e-7)) == pytest.approx(1 - np.exp(-4e-4))


def test_counters_that_do_not_fit():
    rate, time_s = np.full(100, 600.0), np.full(100, 1.0)
    tau = 8e-6
    fast = expected_fast(60_000, rate, time_s, tau, 4e-7)
    fine = check_counters(60_000, 60_000, round(fast), rate, time_s, tau, 4e-7)
    assert (fine.lost, abs(fine.z) < 0.1) == (0, True)
    assert fine.dead_fraction == pytest.approx(600 * 8e-6, rel=0.01)
    lossy = check_counters(59_990, 60_000, round(fast), rate, time_s, tau, 4e-7)
    assert lossy.lost == 10
    stuck = check_counters(60_000, 60_000, 60_000, rate, time_s, tau, 4e-7)
    assert stuck.z < -10
