"""The diagnostic cube: exact counts in 16 bits with carry, nothing folded into an edge."""

import numpy as np
import pytest

from edge.cube import MOST_BYTES, ROOM, Cube, bin_table, rebin_factor, warm


def records(pixel, channel):
    return np.asarray(channel).astype(np.uint64) | np.asarray(pixel).astype(np.uint64) << np.uint64(16)


def test_against_a_histogram():
    rng = np.random.default_rng(1)
    pixel, channel = rng.integers(0, 13, 50_000), rng.integers(0, 201, 50_000)  # pixel 12: beam off
    table = bin_table(200, np.arange(200) // 4 - 5, 40)  # the first five and the last five bins are nowhere
    cube = Cube(12, 40)
    for part in np.array_split(np.arange(50_000), 7):
        cube.add(records(pixel[part], channel[part]), table)
    bins = channel // 4 - 5
    inside = (pixel < 12) & (bins >= 0) & (bins < 40)
    known = np.zeros((12, 40))
    np.add.at(known, (pixel[inside], bins[inside]), 1)
    assert np.array_equal(cube.spectra(0, 12), known)
    assert np.array_equal(cube.spectra(3, 5), known[3:5])
    assert cube.outside == np.count_nonzero(~inside)


def test_counts_beyond_16_bits_are_carried():
    cube, table = Cube(2, 3), bin_table(3, np.arange(3), 3)
    cube.add(records(np.full(200_000, 1), np.full(200_000, 2)), table)
    cube.add(records(np.full(70_000, 5), np.zeros(70_000)), table)
    assert cube.spectra(0, 2)[1, 2] == 200_000
    assert cube.spectra(0, 2).sum() == 200_000
    assert cube.outside == 70_000


def test_more_cells_are_carried_at_once_than_one_call_takes():
    cells = ROOM + 5_000
    cube, table = Cube(cells // 4, 4), bin_table(4, np.arange(4), 4)
    cube.counts[:cells] = 65_535
    one_each = np.arange(cells)
    cube.add(records(one_each // 4, one_each % 4), table)
    assert (cube.spectra(0, cells // 4) == 65_536).all()
    assert cube.outside == 0


def test_merging_is_exact_in_any_order():
    rng = np.random.default_rng(2)
    pixel, channel = rng.integers(0, 2, 400_000), rng.integers(0, 3, 400_000)
    table = bin_table(3, np.arange(3), 3)
    whole, *parts = (Cube(2, 3) for _ in range(4))
    whole.add(records(pixel, channel), table)
    for number, part in enumerate(np.array_split(np.arange(400_000), 3)):
        parts[number].add(records(pixel[part], channel[part]), table)
    for order in ((2, 0, 1), (0, 1, 2)):
        total = Cube(2, 3)
        for number in order:
            total.merge(parts[number])
        assert np.array_equal(total.spectra(0, 2), whole.spectra(0, 2))
    with pytest.raises(ValueError, match="3 and 4 bins"):
        whole.merge(Cube(2, 4))


def test_spectra_of_regions_and_their_variances():
    rng = np.random.default_rng(3)
    cube = Cube(600, 5)
    pixel, channel = rng.integers(0, 600, 30_000), rng.integers(0, 5, 30_000)
    cube.add(records(pixel, channel), bin_table(5, np.arange(5), 5))
    weights = rng.random((600, 3))
    counts, variances = cube.regions(weights)
    assert np.allclose(counts, weights.T @ cube.spectra(0, 600))
    assert np.allclose(variances, weights.T**2 @ cube.spectra(0, 600))
    with pytest.raises(ValueError, match="600 pixels"):
        cube.regions(weights[:5])


@pytest.mark.parametrize(
    ("pixels", "channels", "factor"),
    [(128 * 128, 2048, 2), (128 * 128, 8192, 8), (64 * 64, 8192, 2), (512 * 512, 8192, 128)],
)
def test_it_never_exceeds_64_megabytes(pixels, channels, factor):
    assert rebin_factor(pixels, channels) == factor
    assert pixels * (channels // factor) * 2 <= MOST_BYTES


def test_refusals():
    with pytest.raises(ValueError, match="do not fit"):
        rebin_factor(1 << 26, 2048)
    with pytest.raises(ValueError, match="are no cube"):
        Cube(1 << 26, 4)
    warm()
