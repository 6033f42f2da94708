"""Radiographs: exact sums, the noise curve, masks, scattered fields."""

from __future__ import annotations

import itertools
import tracemalloc
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from edge.radiography import (
    Exposure,
    ImageSums,
    Noise,
    choose_noise,
    dark_variance,
    photon_transfer,
)
from edge.radiography_mask import (
    PixelMask,
    Reason,
    bright_spots,
    combine,
    dark_defects,
    saturated,
    spots_expected,
)
from edge.radiography_scatter import find_bodies, grid_transmission, scatter_field

GAIN, READ, DARK = 12.0, 8.0, 300.0


def camera(rng: np.random.Generator, neutrons: np.ndarray, blur_px: float = 0.0) -> np.ndarray:
    """Return one exposure: every neutron gives GAIN ADU, spread by a Gaussian; read-out noise; whole ADU."""
    light = GAIN * rng.poisson(neutrons).astype(float)
    if blur_px:
        light = ndimage.gaussian_filter(light, blur_px, mode="wrap")
    return np.maximum(np.rint(DARK + light + rng.normal(0, READ, neutrons.shape)), 0).astype(np.uint16)


def summed(images: list[np.ndarray]) -> ImageSums:
    sums = ImageSums(*images[0].shape)
    for image in images:
        sums.add(image)
    return sums


def test_sums_are_those_of_numpy():
    rng = np.random.default_rng(1)
    stack = [rng.integers(0, 65536, (70, 43), dtype=np.uint16) for _ in range(7)]
    result = summed(stack).result()
    cube = np.stack(stack).astype(float)
    assert np.allclose(result.mean, cube.mean(axis=0), rtol=1e-14)
    assert result.variance is not None
    assert np.allclose(result.variance, cube.var(axis=0, ddof=1), rtol=1e-9)
    assert result.halves is not None
    assert np.allclose(result.halves[0], cube[::2].mean(axis=0))
    assert np.allclose(result.halves[1], cube[1::2].mean(axis=0))


def test_merging_is_exact():
    rng = np.random.default_rng(2)
    stack = [rng.integers(0, 65536, (33, 20), dtype=np.uint16) for _ in range(9)]
    whole = summed(stack).result()
    for cuts in ((0, 3, 4, 9), (0, 1, 2, 9), (0, 4, 9, 9)):
        parts = []
        for first, last in itertools.pairwise(cuts):
            part = ImageSums(33, 20, first)
            for image in stack[first:last]:
                part.add(image)
            parts.append((first, part))
        for order in itertools.permutations(parts):
            merged = ImageSums(33, 20)
            for first, part in order:
                merged.merge(part)
                alone = part.state() | {"runs": [[a - first, b - first] for a, b in part.state()["runs"]]}
                alone |= {"even": alone["odd"], "odd": alone["even"]} if first % 2 else {}
                again = ImageSums.restored(alone, first)  # a part that did not know where it belongs
                assert again.state()["runs"] == part.state()["runs"]
                assert all(np.array_equal(a, b) for a, b in zip(again.halves, part.halves, strict=True))
            result = merged.result()
            assert (result.n_frames, result.largest) == (9, whole.largest)
            assert result.half_frames == whole.half_frames == (5, 4)
            assert np.array_equal(result.mean, whole.mean)
            assert np.array_equal(result.variance, whole.variance)
            assert np.array_equal(result.halves, whole.halves)
    odd_first = ImageSums(33, 20, 1)
    for image in stack[1:4]:
        odd_first.add(image)
    alone = odd_first.result()  # frames 1 and 3 are odd, 2 is even
    assert alone.half_frames == (1, 2)
    assert np.array_equal(alone.halves[0], stack[2])
    assert np.allclose(alone.halves[1], (stack[1].astype(float) + stack[3]) / 2)
    with pytest.raises(ValueError, match="frame 4 is in both"):
        merged.merge(ImageSums.restored(parts[1][1].state()))


def test_memory_does_not_grow_with_frames():
    sums, image = ImageSums(512, 512), np.full((512, 512), 60000, np.uint16)
    sums.add(image)
    tracemalloc.start()
    for _ in range(20):
        sums.add(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 512 * 512 * 2  # less than one exposure


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.zeros((3, 4), np.uint16), "does not fit"),
        (np.zeros((4, 4)), "whole ADU"),
        (np.full((4, 4), -1), "outside 0"),
        (np.full((4, 4), 1 << 21), "outside 0"),
    ],
)
def test_what_is_no_exposure_is_refused(image, expected):
    with pytest.raises(ValueError, match=expected):
        ImageSums(4, 4).add(image)


def test_sums_without_frames_or_of_other_sizes():
    with pytest.raises(ValueError, match="no exposure"):
        ImageSums(4, 4).result()
    with pytest.raises(ValueError, match="cannot be merged"):
        ImageSums(4, 4).merge(ImageSums(4, 5))
    with pytest.raises(ValueError, match="does not exist"):
        ImageSums(0, 4)


# --- noise -----------------------------------------------------------------------------------------------


def test_photon_transfer_finds_the_gain_behind_a_fixed_pattern():
    """A pattern of 8 % from pixel to pixel (grains of the screen) is in both images and cancels."""
    rng = np.random.default_rng(3)
    pattern = 200.0 * rng.normal(1.0, 0.08, (256, 320))
    first, second = (camera(rng, pattern) - DARK for _ in range(2))
    noise = photon_transfer(first, second, READ**2)
    assert noise is not None
    for gain, sigma in zip(noise.gains_adu[:4], noise.gain_sigmas_adu, strict=False):
        assert gain == pytest.approx(GAIN, abs=4 * sigma + 0.1)
    alone = np.var(first) / np.mean(first)  # what one image says, with the pattern
    assert alone > 1.5 * GAIN


def test_photon_transfer_with_different_doses_and_masked_spots():
    rng = np.random.default_rng(4)
    first, second = (
        camera(rng, np.full((256, 256), 300.0)) - DARK,
        camera(rng, np.full((256, 256), 90.0)) - DARK,
    )
    first[rng.random(first.shape) < 0.05] = np.nan
    noise = photon_transfer(first, second, READ**2)
    assert noise is not None
    assert noise.gains_adu[0] == pytest.approx(GAIN, rel=0.03)
    assert noise.gains_adu[2] == pytest.approx(GAIN, rel=0.06)


def test_blurred_light_hides_noise_in_pixels_and_shows_it_in_patches():
    """Gaussian blur s: the variance of a pixel falls by 1 / (4 pi s^2); wide patches keep all of it."""
    rng = np.random.default_rng(5)
    first, second = (camera(rng, np.full((384, 384), 400.0), 1.5) - DARK for _ in range(2))
    noise = photon_transfer(first, second, READ**2)
    assert noise is not None
    assert noise.gains_adu[0] == pytest.approx(GAIN / (4 * np.pi * 1.5**2), rel=0.15)
    assert noise.gains_adu[4] < 0.85 * GAIN
    assert noise.adu_per_neutron == pytest.approx(GAIN, rel=0.2)  # extrapolated
    assert np.all(np.diff(noise.gains_adu) > 0)
    assert noise.gains_adu[2] < noise.gain(6.0) < noise.gains_adu[3]


def test_halves_of_repeats_give_the_gain_and_not_the_flicker_of_the_beam():
    rng = np.random.default_rng(6)
    pattern = 150.0 * rng.normal(1.0, 0.03, (192, 256))
    one = summed([camera(rng, pattern * rng.normal(1.0, 0.02)) for _ in range(9)]).result()
    assert one.halves is not None
    noise = photon_transfer(one.halves[0] - DARK, one.halves[1] - DARK, READ**2, (5, 4))
    assert noise is not None
    assert noise.gains_adu[0] == pytest.approx(GAIN, rel=0.03)
    assert noise.gains_adu[3] == pytest.approx(GAIN, rel=0.12)  # flicker alone: 0.02^2 x 64 x 1800 = 46


def test_read_out_noise_of_a_dark():
    rng = np.random.default_rng(7)
    frames = [camera(rng, np.zeros((100, 100))) for _ in range(8)]
    frames[0][10, 10] = 6000  # a hot pixel
    expected = READ**2 + 1 / 12
    assert dark_variance(summed(frames[:1]).result()) == pytest.approx(expected, rel=0.06)
    assert dark_variance(summed(frames).result()) == pytest.approx(expected, rel=0.03)


def test_without_light_or_room_there_is_no_noise_curve():
    flat = np.full((512, 512), 2.0)
    assert photon_transfer(flat, flat, 100.0) is None
    assert photon_transfer(np.full((64, 64), 1e4), np.full((64, 64), 1e4), 1.0) is None
    with pytest.raises(ValueError, match="not one scene"):
        photon_transfer(flat, flat[:-1], 1.0)
    with pytest.raises(ValueError, match="cannot be measured"):
        choose_noise([None])


def test_the_quietest_pair_is_chosen():
    quiet, loud = (Noise((1, 2), (g, 2 * g), (0.1, 0.1), 1.0) for g in (3.0, 5.0))
    assert choose_noise([None, loud, quiet]) is quiet


# --- masks -----------------------------------------------------------------------------------------------


def test_planted_spots_are_found_and_noise_is_not():
    rng = np.random.default_rng(8)
    image = camera(rng, np.full((300, 300), 300.0)).astype(float) - DARK
    places = rng.choice(300 * 300, 40, replace=False)
    image.flat[places] += 3000.0  # 16 sigma of a pixel
    bits = bright_spots(image, GAIN, READ**2, grow_px=0)
    assert np.all(bits.flat[places] == Reason.SPOT)
    assert np.count_nonzero(bits) <= 40 + 2
    assert spots_expected(6.0, image.size) < 0.001
    grown = bright_spots(image, GAIN, READ**2, grow_px=1)
    assert 300 < np.count_nonzero(grown) <= 40 * 9 + 18


def test_hot_and_saturated_pixels():
    rng = np.random.default_rng(9)
    dark = rng.normal(300, 8, (60, 60))
    dark[5, 6], dark[40, 41] = 900.0, 0.0
    assert np.argwhere(dark_defects(dark)).tolist() == [[5, 6], [40, 41]]
    image = np.full((4, 4), 1000.0)
    image[1, 2] = 65535
    assert np.argwhere(saturated(image)).tolist() == [[1, 2]]


def test_a_mask_is_data_with_a_name_of_its_own():
    bits = np.zeros((3, 4), np.uint8)
    bits[1, 2] = Reason.SPOT
    mask = combine([bits, np.zeros((3, 4), np.uint8)], {"spot_sigma": 6.0})
    assert mask.counts() == {"dark": 0, "spot": 1, "saturated": 0, "given": 0, "any": 1}
    assert mask.name == combine([bits], {"spot_sigma": 6.0}).name
    assert mask.name != combine([bits], {"spot_sigma": 7.0}).name
    image = mask.applied(np.ones((3, 4)))
    assert np.argwhere(np.isnan(image)).tolist() == [[1, 2]]
    with pytest.raises(ValueError, match="does not fit"):
        mask.applied(np.ones((4, 4)))
    with pytest.raises(ValueError, match="cannot be combined"):
        combine([bits, bits[:2]], {})
    with pytest.raises(ValueError, match="are masked"):
        combine([np.ones((3, 4), np.uint8)], {})


# --- scattering ------------------------------------------------------------------------------------------


@cache
def grid_scene() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return open beam, grid image, scattered field and shadow: 4 x 5 bodies of 15 px radius, field known."""
    y, x = np.mgrid[:400, :500].astype(float)
    field = 250 + 0.3 * x + 120 * np.exp(-((x - 260) ** 2 + (y - 190) ** 2) / 2 / 140**2)
    shadow = np.zeros((400, 500), bool)
    for row in (50, 150, 250, 350):
        for column in (50, 150, 250, 350, 450):
            shadow |= (y - row) ** 2 + (x - column) ** 2 < 15**2
    direct = np.full((400, 500), 4500.0)
    return direct + field, np.where(shadow, field, direct + field), field, shadow


def test_the_field_between_black_bodies_is_recovered_within_its_error():
    open_beam, grid, field, shadow = grid_scene()
    rng = np.random.default_rng(10)
    noisy = grid + rng.normal(0, np.sqrt(GAIN * grid))
    bodies = find_bodies(noisy, open_beam + rng.normal(0, np.sqrt(GAIN * open_beam)))
    assert len(bodies) == 20
    found = scatter_field(noisy, bodies)
    inside = found.values[50:350, 50:450] - field[50:350, 50:450]
    assert np.sqrt(np.mean(inside**2)) < found.sigma
    assert found.sigma < 0.2 * field.mean()
    assert grid_transmission(noisy, open_beam, 1.0) == pytest.approx(1 - 0.93 * shadow.mean(), abs=0.006)


def test_the_scale_of_the_field_and_its_error_go_through():
    open_beam, grid, _, _ = grid_scene()
    bodies = find_bodies(grid, open_beam)
    plain, scaled = scatter_field(grid, bodies), scatter_field(grid, bodies, 1.1, 0.05)
    assert np.allclose(scaled.values, 1.1 * plain.values)
    assert scaled.sigma**2 == pytest.approx((1.1 * plain.sigma) ** 2 + (0.05 * plain.measured.mean()) ** 2)


def test_borders_and_stripes_are_no_bodies():
    open_beam, grid, _, _ = grid_scene()
    cut = grid.copy()
    cut[380:, :] = 100.0  # a holder at the rim
    cut[195:205, 100:300] = 100.0  # a wire
    assert len(find_bodies(cut, open_beam)) == 20
    with pytest.raises(ValueError, match="black bodies found"):
        find_bodies(open_beam, open_beam)
    with pytest.raises(ValueError, match="all masked"):
        scatter_field(np.full(grid.shape, np.nan), find_bodies(grid, open_beam))


def test_an_exposure_is_plain_data():
    assert Exposure(np.zeros((2, 2)), 1).variance is None
    assert PixelMask(np.zeros((2, 2), np.uint8)).version == 1
