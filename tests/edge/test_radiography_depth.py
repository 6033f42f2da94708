"""Optical depth, profiles, intervals: closed forms, pulls at high, medium and few counts, step wedges."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from drivers.files import images
from edge.radiography import Exposure, ImageSums, Noise, dark_variance, photon_transfer
from edge.radiography_depth import (
    Beam,
    Region,
    Setting,
    beam,
    chord_cm,
    dose,
    fit_hardening,
    mean_chord_cm,
    profile,
    region_depth,
    straight_line,
    transmission_interval,
    transmission_map,
)
from edge.radiography_mask import PixelMask
from edge.radiography_scatter import ScatterField
from edge.uncertainty import pulls
from tests.data_sets import need, reference

DRAWS = 3200
GAIN, READ, DARK = 12.0, 6.0, 300.0
SHAPE = (20, 48)
REGION, AIR = Region("sample", slice(2, 18), slice(2, 18)), Region("air", slice(2, 9), slice(26, 46))
CLEAN = PixelMask(np.zeros(SHAPE, np.uint8))
NOISE = Noise((1, 2), (GAIN, GAIN), (0.1, 0.1), READ**2 + 1 / 12)
SETTING = Setting(NOISE, AIR, 4)


def exposure(rng: np.random.Generator, neutrons: np.ndarray, frames: int = 1) -> Exposure:
    light = GAIN * rng.poisson(neutrons * frames) / frames
    return Exposure(
        DARK + light + rng.normal(0, math.sqrt(NOISE.read_variance / frames), neutrons.shape), frames
    )


def scene(level: float, t: float, dose_of_sample: float = 1.3) -> tuple[np.ndarray, np.ndarray]:
    reference_image = np.full(SHAPE, level)
    sample = reference_image * dose_of_sample
    sample[:, :22] *= t
    return sample, reference_image


# --- uncertainty -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "t"), [(2000.0, 0.4), (20.0, 0.4), (0.6, 0.5)], ids=["high", "medium", "few counts"]
)
def test_region_depth_pulls_and_transmission(level, t):
    """Nuisances off: region of 256 pixels; at 0.6 neutrons per pixel the sample sum holds about 100."""
    rng = np.random.default_rng(20260)
    found = []
    for _ in range(DRAWS):
        dark = Exposure(DARK + rng.normal(0, math.sqrt(NOISE.read_variance / 4), SHAPE), 4)
        a, b = (beam(exposure(rng, image), dark, CLEAN) for image in scene(level, t))
        one = region_depth(a, b, SETTING, REGION)
        cut = (REGION.rows, REGION.columns)
        with np.errstate(invalid="ignore", divide="ignore"):
            logs = np.nanmean(-np.log(a.signal[cut] / b.signal[cut])) if level == 20.0 else 0.0
        scale = math.log(dose(a, SETTING).value / dose(b, SETTING).value) if level == 20.0 else 0.0
        median = one.median_depth
        found.append((one.depth.value, one.depth.sigma_stat, logs + scale, median.value, median.sigma_stat))
    value, sigma, of_pixels, medians, of_medians = np.array(found).T
    mean, std = pulls(value, -math.log(t), sigma)
    assert abs(mean) < 0.1
    assert 0.95 < std < 1.05
    if level > 1.0:  # below, a pixel may hold nothing: its ratio is none
        mean, std = pulls(medians, -math.log(t), of_medians)
        assert abs(mean) < (0.1 if level > 100.0 else 0.3)  # of 10 neutrons the median is a third less
        assert 0.95 < std < 1.05
    if (
        level == 20.0
    ):  # the mean of the logarithms of pixels is biased: (1/10.4 - 1/20) / 2 = 0.023 and the third order
        assert np.mean(of_pixels) + math.log(t) == pytest.approx(0.028, abs=0.005)
        assert pulls(of_pixels, -math.log(t), sigma)[0] > 0.5


def test_all_nuisances_drawn_against_sigma_total():
    """Scattering in sample and reference, known to 60 and 40 ADU, differently wrong in region and air."""
    rng = np.random.default_rng(20261)
    t, level = 0.4, 200.0
    true_scatter = {"sample": 500.0, "reference": 300.0}
    sigma = {"sample": 60.0, "reference": 40.0}
    found = []
    for _ in range(DRAWS):
        dark = Exposure(DARK + rng.normal(0, math.sqrt(NOISE.read_variance / 4), SHAPE), 4)
        beams = []
        for name, image in zip(("sample", "reference"), scene(level, t), strict=True):
            one = exposure(rng, image + true_scatter[name] / GAIN)
            field = np.full(SHAPE, true_scatter[name])
            field[:, :22] += rng.normal(0, sigma[name])
            field[:, 22:] += rng.normal(0, sigma[name])
            empty = np.zeros(0)
            fitted = ScatterField(field, sigma[name], empty, empty, empty, empty, 1.0, 0.0)
            beams.append(beam(one, dark, CLEAN, fitted))
        depth = region_depth(beams[0], beams[1], SETTING, REGION).depth
        found.append((depth.value, depth.total, depth.sigma_stat))
    value, total, stat = np.array(found).T
    mean, std = pulls(value, -math.log(t), total)
    assert abs(mean) < 0.1
    assert 0.95 < std < 1.05
    assert pulls(value, -math.log(t), stat)[1] > 2  # without the systematic part it would be wrong


def test_blurred_light_needs_the_noise_of_the_patch_not_of_the_pixel():
    """Noise measured by photon transfer from two images of the same camera, used on 3200 others."""
    rng = np.random.default_rng(20262)

    def shot(neutrons: np.ndarray) -> np.ndarray:
        light = ndimage.gaussian_filter(GAIN * rng.poisson(neutrons).astype(float), 1.2, mode="nearest")
        return light + rng.normal(0, READ, neutrons.shape)

    noise = photon_transfer(shot(np.full((512, 640), 100.0)), shot(np.full((512, 640), 100.0)), READ**2)
    assert noise is not None
    pixel = Noise((1, 2), (noise.gains_adu[0],) * 2, (0.1, 0.1), READ**2)
    sample, open_beam = scene(100.0, 0.5)
    none = Exposure(np.zeros(SHAPE), 1000)
    found = {"patch": [], "pixel": []}
    for _ in range(DRAWS):
        a, b = (beam(Exposure(shot(image), 1), none, CLEAN) for image in (sample, open_beam))
        for name, curve in (("patch", noise), ("pixel", pixel)):
            depth = region_depth(a, b, Setting(curve, AIR, 1000), REGION).depth
            found[name].append((depth.value, depth.sigma_stat))
    value, sigma = np.array(found["patch"]).T
    mean, std = pulls(value, math.log(2), sigma)
    assert abs(mean) < 0.1
    assert 0.9 < std < 1.1  # the measured curve itself is good to 5 % in sigma
    value, sigma = np.array(found["pixel"]).T
    assert pulls(value, math.log(2), sigma)[1] > 2.5


@pytest.mark.parametrize(
    ("level", "bin_px"), [(500.0, 2), (30.0, 2), (0.8, 8)], ids=["high", "medium", "few"]
)
def test_profile_pulls(level, bin_px):
    """Every bin of every draw, independent: 400 draws of 8 bins (or 1600 of two); doses taken as exact."""
    rng = np.random.default_rng(20263)
    sample, open_beam = scene(level, 0.5, 1.0)
    far = Setting(Noise(NOISE.scales_px, NOISE.gains_adu, (0.1, 0.1), NOISE.read_variance), AIR, 10**6)
    dark = Exposure(np.full(SHAPE, DARK), 10**6)
    values, sigmas = [], []
    for _ in range(DRAWS * bin_px // 16):
        a, b = exposure(rng, sample), exposure(rng, open_beam)
        for one, image in ((a, sample), (b, open_beam)):
            one.mean[:, 22:] = DARK + GAIN * image[:, 22:]  # exact air
        found = profile(beam(a, dark, CLEAN), beam(b, dark, CLEAN), far, REGION, bin_px=bin_px)
        values.append(found.depth)
        sigmas.append(found.sigma_stat)
    mean, std = pulls(np.concatenate(values), math.log(2), np.concatenate(sigmas))
    assert np.concatenate(values).size >= DRAWS
    assert abs(mean) < 0.1
    assert 0.95 < std < 1.05


def test_map_pulls():
    rng = np.random.default_rng(20264)
    sample, open_beam = scene(400.0, 0.6)
    dark = Exposure(DARK + rng.normal(0, READ / 2, SHAPE), 4)
    values = []
    for _ in range(20):
        a, b = beam(exposure(rng, sample, 2), dark, CLEAN), beam(exposure(rng, open_beam, 3), dark, CLEAN)
        t, sigma = transmission_map(a, b, SETTING)
        factor = dose(b, SETTING).value / dose(a, SETTING).value
        values.append(((t - 0.6 * 1.3 * factor) / sigma)[:, :20])
    flat = np.concatenate([v.ravel() for v in values])
    assert flat.size >= DRAWS
    assert abs(flat.mean()) < 0.1
    assert 0.95 < flat.std() < 1.05


@pytest.mark.parametrize("level", [0.6827, 0.9545])
@pytest.mark.parametrize(("open_mean", "t", "ratio"), [(3.0, 0.7, 1.0), (6.0, 0.4, 2.0), (25.0, 0.3, 0.5)])
def test_interval_coverage_at_a_few_counts(level, open_mean, t, ratio):
    rng = np.random.default_rng(20265)
    counts = np.stack([rng.poisson(open_mean * ratio * t, DRAWS), rng.poisson(open_mean, DRAWS)], axis=1)
    pairs, n = np.unique(counts, axis=0, return_counts=True)
    inside = 0
    for (s, o), k in zip(pairs, n, strict=True):
        low, high = transmission_interval(int(s), int(o), ratio, level)
        inside += k * (low <= t <= high)
    covered = inside / DRAWS
    assert covered >= level - 3 * math.sqrt(level * (1 - level) / DRAWS)
    assert covered < 1 - (1 - level) * 0.15


def test_interval_by_hand():
    """No count in the sample, 3 in the reference: the table of Clopper and Pearson."""
    low, high = transmission_interval(0, 3, 1.0, 0.95)
    assert low == 0.0
    assert high == pytest.approx(0.7076 / (1 - 0.7076), rel=1e-3)  # binomial 0 of 3: upper 0.7076
    assert transmission_interval(2, 0)[1] == math.inf
    with pytest.raises(ValueError, match="negative"):
        transmission_interval(-1, 3)


# --- closed forms ----------------------------------------------------------------------------------------


def test_every_term_of_the_depth_by_hand():
    """Region of 4 pixels, all numbers different: T = (60/90) / (120/80) = 4/9."""
    setting = Setting(Noise((1, 2), (2.0, 2.0), (0, 0), 9.0), Region("air", slice(0, 2), slice(2, 4)), 3)
    region = Region("r", slice(0, 2), slice(0, 2))
    sample, ref = np.full((2, 4), 90.0), np.full((2, 4), 80.0)
    sample[:, :2], ref[:, :2] = 60.0, 120.0
    one = region_depth(Beam(sample, sample, 1), Beam(ref, ref, 2), setting, region)
    v = [(2 * 4 * s + 36) / n / (4 * s) ** 2 for s, n in ((60, 1), (90, 1), (120, 2), (80, 2))]
    bias = (v[0] - v[1] - v[2] + v[3]) / 2
    assert one.depth.value == pytest.approx(-math.log(4 / 9) - bias)
    shared = 4 * 9 / 3 * ((1 / 240 - 1 / 480) ** 2 + (1 / 360 - 1 / 320) ** 2)
    assert one.depth.sigma_stat == pytest.approx(math.sqrt(sum(v) + shared))
    assert one.depth.sigma_sys == 0.0
    assert one.median_depth.value == pytest.approx(-math.log(4 / 9))
    assert one.transmission.sigma_stat == pytest.approx(one.transmission.value * one.depth.sigma_stat)


def test_a_cylinder_is_averaged_in_depth_and_not_in_transmission():
    """Absorber of 2 /cm in a cylinder of 1 cm: mean chord pi/4, and -ln of the mean transmission is less."""
    x = (np.arange(400) + 0.5) / 400 - 0.5
    t = np.exp(-2.0 * chord_cm(x, 1.0))
    sample, ref = np.full((40, 480), 1e6), np.full((40, 480), 1e6)
    sample[:, :400] *= t
    setting = Setting(Noise((1, 2), (1.0, 1.0), (0, 0), 1.0), Region("air", slice(0, 40), slice(410, 470)), 1)
    region = Region("cell", slice(0, 40), slice(0, 400))
    a, b = Beam(sample, sample, 1), Beam(ref, ref, 1)
    many = profile(a, b, setting, region, bin_px=4, strips=40)
    one = profile(a, b, setting, region, bin_px=4, strips=1)
    assert many.depth == pytest.approx(2.0 * mean_chord_cm(1.0), rel=2e-3)
    assert np.all(one.depth < 0.97 * many.depth)
    assert many.centre_px.tolist() == [1.5 + 4 * k for k in range(10)]
    assert mean_chord_cm(0.3) == pytest.approx(0.2356, abs=1e-4)


def test_masked_and_dark_places_become_nan_and_count():
    sample, ref = np.full((20, 40), 50.0), np.full((20, 40), 100.0)
    sample[3:5, 2:10] = np.nan
    sample[7, 2:10] = 0.0
    setting = Setting(NOISE, Region("air", slice(0, 20), slice(20, 40)), 1)
    found = profile(
        Beam(sample, sample, 1), Beam(ref, ref, 1), setting, Region("r", slice(2, 12), slice(2, 10))
    )
    assert np.flatnonzero(np.isnan(found.depth)).tolist() == [1, 2, 5]
    with pytest.raises(ValueError, match="good pixels"):
        region_depth(
            Beam(sample, sample, 1), Beam(ref, ref, 1), setting, Region("r", slice(3, 5), slice(2, 10))
        )
    with pytest.raises(ValueError, match="no signal"):
        region_depth(
            Beam(sample, sample, 1), Beam(ref, ref, 1), setting, Region("r", slice(7, 8), slice(2, 10))
        )
    with pytest.raises(ValueError, match="not inside"):
        region_depth(
            Beam(sample, sample, 1), Beam(ref, ref, 1), setting, Region("r", slice(3, 50), slice(2, 10))
        )


def test_lines_and_hardening_against_numpy():
    x = np.array([0.5, 1.0, 1.5, 2.0, 3.0])
    y = 0.4 * x - 0.02 * x**2 + np.array([0.001, -0.002, 0.001, 0.0, -0.001])
    line = straight_line(x, y, 0.05 * x)
    (slope, offset), covariance = np.polyfit(x, y, 1, cov=True)
    assert (line.slope, line.offset) == pytest.approx((slope, offset))
    assert (line.slope_sigma, line.offset_sigma) == pytest.approx(tuple(np.sqrt(np.diag(covariance))))
    assert line.slope_sys == pytest.approx(0.05)
    curve = fit_hardening(x, y)
    assert (curve.mu_per_mm, curve.q_per_mm2) == pytest.approx((0.4, -0.02), abs=0.003)
    assert curve.thickness_mm(y) == pytest.approx(x, abs=0.02)
    assert np.isnan(curve.thickness_mm(100.0))
    with pytest.raises(ValueError, match="at least two"):
        straight_line(x[:1], y[:1])
    with pytest.raises(ValueError, match="three different"):
        fit_hardening(x[:2], y[:2])


# --- the measured step wedges ----------------------------------------------------------------------------


@cache
def measured(folder: str) -> dict[str, Exposure]:
    found = {}
    for name in ("dc", "ob", "empty", "h2o"):
        path = need(f"neutron/{folder}_{name}.tif", "step wedge, optical depths")
        recorded = images.read(path)
        sums = ImageSums(recorded.ny, recorded.nx)
        for frame in recorded.frames():
            sums.add(frame)
        found[name] = sums.result()
    return found


def region_of(step: dict, top: int, left: int) -> Region:
    rows, columns = step["rows"], step["cols"]
    return Region("step", slice(rows[0] - top, rows[1] - top), slice(columns[0] - left, columns[1] - left))


@pytest.mark.parametrize(("folder", "top", "left"), [("crop", 20, 690), ("stepwedge_20s", 0, 0)])
def test_doses_transmissions_and_depths_of_the_reference(folder, top, left):
    """The reference takes medians of pixels without a mask; so do we here (and get the same within 0.002)."""
    one, entry = measured(folder), reference("neutron")["stepwedge_20s"]
    clean = PixelMask(np.zeros(one["dc"].mean.shape, np.uint8))
    beams = {name: beam(one[name], one["dc"], clean) for name in ("ob", "empty", "h2o")}
    r0, r1, c0, c1 = entry["open_field_roi_rows_cols"]
    air = Region("air", slice(r0 - top, r1 - top), slice(c0 - left, c1 - left))
    noise = photon_transfer(beams["ob"].gross, beams["empty"].gross, dark_variance(one["dc"]))
    assert noise is not None
    setting = Setting(noise, air, 1)
    for name, value in entry["mean_in_roi_minus_dark"].items():
        assert dose(beams[name], setting).value == pytest.approx(value, rel=1e-9)
    done = 0
    for step in entry["steps"]:
        region = region_of(step, top, left)
        if region.rows.stop > clean.bits.shape[0] or region.columns.start < 0:
            continue
        done += 1
        water = region_depth(beams["h2o"], beams["empty"], setting, region)
        assert water.median_depth.value == pytest.approx(step["minus_ln_T_water"], abs=0.0018)
        for name, key in (("empty", "T_empty_container"), ("h2o", "T_with_water")):  # over the dose alone,
            net = beams[name].gross[region.rows, region.columns]  # not over the open beam at the place
            assert np.median(net) / dose(beams[name], setting).value == pytest.approx(step[key], abs=6e-4)
    assert done == (2 if folder == "crop" else 10)
