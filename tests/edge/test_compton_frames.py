"""Frames to spectra: clusters against scipy's labels, dark level, acceptance, exact merging, real frames."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from drivers.files import hexitec_calibration, hexitec_frames, hexitec_hits
from edge.compton_frames import (
    Compton,
    Counts,
    Dark,
    EnergyBins,
    PixelScale,
    accidental_chance,
)  # fmt: skip
from tests.data_sets import GPL, need, reference
from tests.edge import compton_model as model

REFERENCE = reference("hexitec")
MAPS = ("spectra", "underflow", "overflow", "hits", "singles", "doubles", "discarded", "near")


def scale_of(shape, dark=1000.0, gain=0.027, offset=0.0, usable=None) -> PixelScale:
    flat = np.zeros(shape)
    good = np.ones(shape, bool) if usable is None else usable
    return PixelScale(flat + dark, flat, flat + gain, flat + offset, good)


def same(a: Counts, b: Counts) -> bool:
    return a.frames == b.frames and all(np.array_equal(getattr(a, k), getattr(b, k)) for k in MAPS)


@pytest.mark.parametrize(
    ("shape", "rate", "add", "ring"),
    [(shape, rate, add, ring)
     for shape, rate in (((80, 80), 0.02), ((7, 130), 0.12), ((13, 19), 0.3), ((5, 64), 0.2))
     for add, ring in itertools.product((False, True), (1, 2))],
)  # fmt: skip
def test_clusters_are_those_of_scipys_labels(shape, rate, add, ring):
    adu = model.frames(np.random.default_rng(4), 12, *shape, rate).adu
    bins = EnergyBins(0.2, 500)
    tables = scale_of(shape, gain=0.0271828).tables(3.0, bins)
    ours = Compton(tables, add_pairs=add, ring=ring, dither=False)
    ours.add(adu)
    got = ours.result()
    theirs = model.by_labels(
        adu, np.full(shape, 1000 + 110), lambda _, a: (a - 1000.0) * 0.0271828, 0.2, 500, add, ring
    )
    assert np.array_equal(got.hits, theirs.hits)
    assert np.array_equal(got.near, theirs.near)
    assert np.array_equal(got.discarded, theirs.discarded)
    assert np.array_equal(got.singles + got.doubles, theirs.singles + theirs.doubles)
    assert np.array_equal(got.doubles, theirs.doubles)
    assert np.array_equal(got.underflow, theirs.under)
    assert np.array_equal(got.overflow, theirs.over)
    assert got.overflow.sum() > 0  # 120 keV photons above 100 keV: counted apart, not in the last bin
    assert np.array_equal(got.spectra, theirs.spectra)


def test_the_threshold_is_the_smallest_adu_that_reaches_the_energy_and_leaves_the_noise():
    scale = PixelScale(*(np.array([[a]]) for a in (1000.25, 8.0, 0.027, 0.0)), np.array([[True]]))
    assert scale.tables(3.0).threshold[0, 0] == 1111  # 1000.25 + 111.1 = 1111.4: 1112 is the first hit
    tables = scale.tables(0.5)  # 18.5 ADU, inside 5 x 8 ADU of noise
    assert tables.threshold[0, 0] == 1040  # 1040.25: 1041 is the first
    assert tables.noisy == 1


def test_masked_pixels_never_hit_and_have_no_acceptance():
    usable = np.ones((10, 20), bool)
    usable[3, 4] = False
    gain = np.full((10, 20), 0.027)
    gain[7, 7] = np.nan
    scale = PixelScale(np.full((10, 20), 1000.0), np.zeros((10, 20)), gain, np.zeros((10, 20)), usable)
    ours = Compton(scale.tables(3.0))
    ours.add(np.full((3, 10, 20), 40_000, np.uint16))
    got = ours.result()
    assert got.hits[3, 4] == got.hits[7, 7] == 0
    assert got.hits.sum() == 3 * 198
    assert np.isnan(got.acceptance[3, 4])
    assert np.isnan(got.acceptance[7, 7])


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 60), max_size=4), st.booleans(), st.randoms())
def test_any_chunks_merged_in_any_order_give_the_same_integers(cuts, add, random):
    adu = model.frames(np.random.default_rng(8), 60, 9, 33, 0.1).adu
    tables = scale_of((9, 33)).tables(3.0)
    whole = Compton(tables, add_pairs=add)
    whole.add(adu)
    places = [0, *sorted(cuts), 60]
    parts = []
    for start, stop in itertools.pairwise(places):
        part = Compton(tables, add_pairs=add)
        part.add(adu[start:stop], start)
        parts.append(part)
    random.shuffle(parts)
    total = parts[0]
    for part in parts[1:]:
        total.merge(part)
    assert same(total.result(), whole.result())
    again = Compton(tables, add_pairs=add)
    again.restore(whole.state())
    assert same(again.result(), whole.result())


def test_more_frames_than_a_bit_sliced_counter_holds():
    adu = np.full((2100, 4, 16), 1000, np.uint16)
    adu[:, 1, 5] = 5000
    adu[:, 3, 9:11] = 4000, 3000
    ours = Compton(scale_of((4, 16)).tables(3.0), add_pairs=True)
    ours.add(adu[:3])  # not a whole group of frames
    ours.add(adu[3:])
    got = ours.result()
    assert got.hits[1, 5] == got.hits[3, 9] == got.hits[3, 10] == 2100
    assert (got.singles[1, 5], got.doubles[3, 9], got.doubles[3, 10]) == (2100, 2100, 0)
    assert got.near[0, 4] == got.near[2, 6] == 2100
    assert got.discarded.sum() == 0


@pytest.mark.parametrize("settled", [False, True])
def test_more_counts_in_one_bin_than_sixteen_bits_hold(settled):
    frames = np.full((35_000, 1, 4), 1000, np.uint16)
    frames[:, 0, 0] = 3000
    reducer = Compton(scale_of((1, 4)).tables(3.0, EnergyBins(0.2, 900)), dither=False)
    for _ in range(4):
        reducer.add(frames)
        if settled:
            reducer.result()
    counts = reducer.result()
    assert counts.spectra.sum() == counts.spectra[0, 0].max() == 140_000
    again = Compton(reducer.tables, dither=False)
    again.restore(reducer.state())
    again.merge(reducer)
    assert again.result().spectra[0, 0].max() == 280_000


@pytest.mark.parametrize("shape", [(1, 1), (9, 1), (7, 2), (1, 70), (3, 63), (4, 128), (33, 65)])
@pytest.mark.parametrize("ring", [1, 2])
def test_narrow_and_odd_detectors_with_empty_frames_between(shape, ring):
    adu = model.frames(np.random.default_rng(5), 40, *shape, 0.15).adu
    adu[3:5] = adu[20:33] = 1000
    ours = Compton(scale_of(shape).tables(3.0), add_pairs=True, ring=ring, dither=False)
    for start, stop in itertools.pairwise((0, 1, 4, 19, 21, 40)):
        ours.add(adu[start:stop])
    got = ours.result()
    theirs = model.by_labels(
        adu, np.full(shape, 1000 + 111), lambda _, a: (a - 1000.0) * 0.027, 0.2, 900, True, ring
    )
    for ours_, theirs_ in (
        (got.hits, theirs.hits), (got.near, theirs.near), (got.discarded, theirs.discarded),
        (got.singles, theirs.singles), (got.doubles, theirs.doubles),
    ):  # fmt: skip
        assert np.array_equal(ours_, theirs_)


def test_the_pattern_between_whole_adu_makes_bins_even():
    """0.2 keV is 7.4 ADU: without the pattern bins hold 7 or 8 ADU values, a ripple of 7 %."""
    rng = np.random.default_rng(2)
    adu = rng.integers(2000, 4001, (3000, 8, 16)).astype(np.uint16)
    adu[:, ::2] = adu[:, :, ::2] = 1000  # every hit alone
    even = {}
    for dither in (False, True):
        ours = Compton(scale_of((8, 16)).tables(3.0), dither=dither)
        ours.add(adu)
        sums = ours.result().spectra.sum(axis=(0, 1))
        inside = sums[150:400]
        even[dither] = float(np.std(inside) / np.sqrt(inside.mean()))
    assert even[False] > 1.5
    assert 0.85 < even[True] < 1.15


def test_parts_of_different_rules_are_not_merged():
    tables = scale_of((4, 4)).tables(3.0)
    with pytest.raises(ValueError, match="different tables or rules"):
        Compton(tables).merge(Compton(tables, add_pairs=True))
    with pytest.raises(ValueError, match="different tables or rules"):
        Compton(tables).merge(Compton(scale_of((4, 4)).tables(4.0)))
    with pytest.raises(ValueError, match="1 or 2 rings"):
        Compton(tables, ring=3)
    with pytest.raises(ValueError, match="uint16 and shape"):
        Compton(tables).add(np.zeros((1, 4, 5), np.uint16))


def test_the_accidental_chances_of_the_note():
    """9 and 1 pixels at 1, 5, 10 % occupancy, 35 % shared: 6.4, 28, 49 % and 0.7, 3.6, 7.1 %."""
    for pixels, expected in ((9, (6.4, 28.0, 49.0)), (1, (0.7, 3.6, 7.1))):
        got = [100 * accidental_chance(o, 0.35, pixels) for o in (0.01, 0.05, 0.1)]
        assert got == pytest.approx(expected, abs=0.5)


@pytest.mark.parametrize("rate", [0.002, 0.03, 0.08])
def test_means_over_pixels_scatter_within_their_errors(rate):
    """Neighbours see the same photons: errors of single pixels in quadrature would be far too small."""
    rng = np.random.default_rng(12)
    tables = scale_of((16, 16)).tables(3.0)
    found = []
    for _ in range(300):
        one = Compton(tables)
        one.add(model.frames(rng, 40, 16, 16, np.full((16, 16), rate), shared=0.35).adu)
        counts = one.result()
        mean, occupancy = counts.mean_acceptance(), counts.occupancy()
        alone = float(np.sqrt(np.sum(counts.acceptance_sigma**2))) / 256
        found.append((mean.value, mean.sigma_stat, occupancy.value, occupancy.sigma_stat, alone))
    acceptance, sigma, occupancies, of_occupancy, alone = np.array(found).T
    assert 0.4 * sigma.mean() < acceptance.std() < 1.05 * sigma.mean()  # they are bounds
    assert 0.4 * of_occupancy.mean() < occupancies.std() < 1.05 * of_occupancy.mean()
    assert acceptance.std() > 1.5 * alone.mean()


@pytest.mark.parametrize("shared", [0.0, 0.35])
def test_the_acceptance_map_is_the_chance_that_a_photon_stays_alone(shared):
    """Uneven light: a photon planted in frames of others survives as often as the map says."""
    rng = np.random.default_rng(11)
    n, ny, nx = 6000, 8, 16
    rate = np.linspace(0.002, 0.08, nx) * np.ones((ny, 1))
    adu = model.frames(rng, n, ny, nx, rate, shared=shared).adu
    tables = scale_of((ny, nx)).tables(3.0)
    ours = Compton(tables)
    ours.add(adu)
    acceptance = ours.result().acceptance
    beta = stats.beta(n * acceptance + 1, n * (1 - acceptance) + 1)  # of scipy
    assert np.abs(ours.result().acceptance_sigma / beta.std() - 1).max() < 1e-9
    other = model.frames(rng, n, ny, nx, rate, shared=shared).adu
    for y, x in ((0, 0), (4, 3), (4, 14)):
        planted = Compton(tables)
        frames = other.copy()
        frames[:, y, x] = np.maximum(frames[:, y, x], 3500)
        planted.add(frames)
        kept = planted.result().singles[y, x] / n
        alone = 1 - rate[y, x]  # the planted photon may fall on another one in its pixel and still count
        error = np.sqrt(kept * (1 - kept) / n)
        inside = acceptance[y, x] / alone if shared == 0.0 else None
        if inside is not None:
            assert abs(kept - inside) < 4.5 * error
        assert acceptance[y, x] < kept + 4.5 * error < acceptance[y, x] / (alone - 0.09) + 9 * error


def test_dark_level_and_noise_of_a_drawn_detector_with_photons_in_it():
    rng = np.random.default_rng(3)
    level, noise = rng.normal(1005, 25, (20, 20)), rng.uniform(6, 12, (20, 20))
    adu = rng.normal(level, noise, (4000, 20, 20))
    adu[rng.random(adu.shape) < 0.01] += 3000
    adu = np.rint(adu).astype(np.uint16)
    dark = Dark(adu[:50])
    half = Dark(adu[:50])
    dark.add(adu[:1000])
    half.add(adu[1000:])
    dark.merge(half)
    got = dark.result()
    assert np.std((got.mean_adu - level) / (noise / np.sqrt(4000 * 0.99))) == pytest.approx(1.0, abs=0.15)
    assert np.mean(got.noise_adu / np.sqrt(noise**2 + 1 / 12)) == pytest.approx(1.0, abs=0.003)
    assert got.level.value == pytest.approx(level.mean(), abs=4 * got.level.sigma_stat)
    assert got.level.sigma_stat == pytest.approx(
        np.sqrt(np.mean(noise**2)) / np.sqrt(level.size * 4000), rel=0.02
    )
    assert got.outside == np.count_nonzero(adu > 2000)
    with pytest.raises(ValueError, match="different windows"):
        dark.merge(Dark(adu[50:90] + np.uint16(9)))
    with pytest.raises(ValueError, match="without frames"):
        Dark(adu[:2]).result()


def test_a_pixel_that_jumps_out_of_its_window_has_no_dark_level():
    adu = np.full((100, 2, 2), 1000, np.uint16)
    dark = Dark(adu[:3])
    adu[:70, 1, 1] = 9000
    dark.add(adu)
    assert np.isnan(dark.result().mean_adu).tolist() == [[False, False], [False, True]]


def test_the_measured_stream():
    values = REFERENCE["raw_80x80_stream_hits.dat"]
    recording = hexitec_frames.read(need("hexitec/raw_80x80_stream_hits.dat", "pedestal and noise"))
    assert recording.n_frames == values["complete_frames"]
    assert "8700 of 28500 bytes" in recording.notes[0]  # the truncated frame
    ((_, adu),) = recording.blocks(0, None)
    dark = Dark(adu)
    dark.add(adu)
    got = dark.result()
    assert np.mean(got.median_adu) == pytest.approx(values["pedestal_mean_ADU"], abs=0.1)
    assert np.std(got.median_adu) == pytest.approx(values["pedestal_pixel_std_ADU"], abs=0.05)
    assert got.pooled_noise_adu == pytest.approx(values["noise_MAD_sigma_ADU"], abs=0.005)
    assert np.median(got.noise_adu) == pytest.approx(values["noise_MAD_sigma_ADU"], rel=0.02)
    assert (adu > 1500).sum() == values["samples_over_1500_ADU"]
    assert adu.max() == values["max_ADU"]
    flat = np.zeros((80, 80))
    tables = PixelScale(got.mean_adu, got.noise_adu, flat + 0.027, flat, flat == 0).tables(
        13.4
    )  # about 496 ADU
    ours = Compton(tables, add_pairs=True)
    ours.add(adu)
    assert ours.result().hits.sum() == values["samples_over_1500_ADU"]


def test_the_measured_pulses():
    values = REFERENCE["vcal_160x160_30frames.h5"]
    recording = hexitec_frames.read(need("hexitec/vcal_160x160_30frames.h5", "calibration pulses"))
    ((_, adu),) = recording.blocks(0, None)
    assert list(adu.shape) == values["shape"]
    assert [adu.min(), adu.max()] == [values["min"], values["max"]]
    high = (adu > 3500).sum(axis=(1, 2))
    assert np.flatnonzero(high > 100).tolist() == values["pulse_frames"]
    pulses = adu[values["pulse_frames"][1:]].astype(float)  # the first one is contaminated
    mean = pulses.mean(axis=0)
    pulsed = mean > 3500
    assert pulsed.sum() == values["pulsed_pixels_mean_over_3500"]
    assert mean[pulsed].mean() == pytest.approx(values["pulsed_mean_ADU"], abs=0.01)
    assert mean[pulsed].std() == pytest.approx(values["pulsed_pixel_to_pixel_std_ADU"], abs=0.05)
    frame_to_frame = np.median(pulses.std(axis=0)[pulsed])
    assert frame_to_frame == pytest.approx(values["median_frame_to_frame_std_per_pixel_ADU"], abs=0.01)
    quiet = np.setdiff1d(
        np.arange(4, 30), values["pulse_frames"]
    )  # the first pulse and what is about it left out
    rest = adu[quiet].astype(float)
    assert rest.mean() == pytest.approx(values["quiet_frames_mean_ADU"], abs=0.005)
    assert np.sqrt(np.mean(rest**2)) == pytest.approx(values["quiet_frames_rms_ADU"], abs=0.0005)
    flat = np.zeros((160, 160))
    ours = Compton(PixelScale(flat, flat, flat + 1.0, flat, flat == 0).tables(3500.0, EnergyBins(10.0, 500)))
    ours.add(adu[values["pulse_frames"][1:]])
    got = ours.result()
    assert np.array_equal(got.hits, (adu[values["pulse_frames"][1:]] >= 3500).sum(axis=0))
    assert ((got.hits == 9) & pulsed).sum() == (np.all(pulses >= 3500, axis=0) & pulsed).sum()
    assert got.singles.sum() + got.discarded.sum() == got.hits.sum()


def test_the_measured_calibration():
    values = REFERENCE["pixel_calibration_a.npz"]
    gain, offset = hexitec_calibration.read_npz(need("hexitec/pixel_calibration_a.npz", "pixel calibration"))
    assert list(gain.shape) == values["shape"]
    assert np.isfinite(gain).sum() == values["pixels_with_calibration"]
    assert np.nanmedian(gain) == pytest.approx(values["gain_median_keV_per_ADU"], abs=5e-6)
    assert np.nanstd(gain) == pytest.approx(values["gain_std"], abs=1e-6)
    assert np.nanmedian(offset) == pytest.approx(values["offset_median_keV"], abs=1e-4)
    energies = np.nanpercentile(1000 * gain + offset, [5, 50, 95])
    assert energies == pytest.approx(values["energy_of_1000_ADU_keV_p5_p50_p95"], abs=1e-3)
    zeros = np.zeros(gain.shape)
    tables = PixelScale(zeros, zeros, gain, offset, zeros == 0).tables(32.5)
    assert tables.usable.sum() == values["pixels_with_calibration"]
    one = np.full((1, *gain.shape), 1000, np.uint16)
    ours = Compton(tables)
    ours.add(one)
    assert ours.result().hits.sum() == np.count_nonzero(1000 * gain + offset >= 32.5)


def test_the_measured_particle_clusters():
    """Timepix on granite: photon-like and particle clusters; ours by bits, theirs by scipy's labels."""
    values = REFERENCE["timepix_BlackForestStone.yml.gz"]
    path = need("hexitec/timepix_BlackForestStone.yml.gz", "clusters of particles in Timepix frames", GPL)
    ny, nx, frames = hexitec_hits.read(path)
    assert len(frames) == values["frames"]
    assert sum(e.sum() for _, e in frames) == values["total_energy_keV"]
    flat = np.zeros((ny, nx))
    bins = EnergyBins(1.0, 4000)
    scale = PixelScale(flat, flat, flat + 1.0, flat, flat == 0)
    ours = Compton(scale.tables(0.5, bins), add_pairs=True, dither=False)
    sizes, energies = [], []
    block = np.zeros((50, ny, nx), np.uint16)
    for first in range(0, len(frames), 50):
        block[:] = 0
        for k, (pixels, energy) in enumerate(frames[first : first + 50]):
            block[k].reshape(-1)[pixels] = energy
        ours.add(block)
        within = np.zeros((3, 3, 3))
        within[1] = 1  # neighbours in a frame, never from frame to frame
        labels, _ = ndimage.label(block, within)
        at = np.flatnonzero(labels)
        sizes.append(np.bincount(labels.ravel()[at])[1:])
        energies.append(np.bincount(labels.ravel()[at], block.ravel()[at])[1:])
    size, energy = np.concatenate(sizes), np.concatenate(energies)
    assert size.size == values["clusters_8_connected"]
    assert np.median(size) == values["median_cluster_size_px"]
    assert size.mean() == pytest.approx(values["mean_cluster_size_px"], abs=1e-4)
    assert np.median(energy) == values["median_cluster_energy_keV"]
    got = ours.result()
    assert got.singles.sum() == values["single_pixel_clusters"]
    assert got.doubles.sum() == (size == 2).sum()
    assert got.discarded.sum() == size[size > 2].sum()
    spectrum = np.bincount(energy[size <= 2].astype(int), minlength=4000)[:4000]
    assert np.array_equal(got.spectra.sum(axis=(0, 1)), spectrum)
