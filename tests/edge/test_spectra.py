"""Window sums by hand, and accumulators that give the same numbers in any order and in any pieces."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from edge.calibration import EnergyScale
from edge.peaks import gaussian
from edge.spectra import MapSums, Projection, SpectrumSums, channels_within, window_sum


def test_region_takes_whole_channels_on_the_stored_axis():
    inside = channels_within(EnergyScale((0.0, 0.01)), 100, 0.5, 0.021)
    assert np.flatnonzero(inside).tolist() == [48, 49, 50, 51, 52]


def test_window_takes_edge_channels_in_part():
    """Channels 1.75 to 3.5 of [10, 20, 30, 40, 50]: 0.75 of channel 2 and all of channel 3."""
    total, sigma = window_sum([10, 20, 30, 40, 50], EnergyScale((0.0, 1.0)), 1.75, 3.5)
    assert total == pytest.approx(0.75 * 30 + 40)
    assert sigma**2 == pytest.approx(0.75**2 * 30 + 40)
    with pytest.raises(ValueError, match="empty"):
        window_sum([1, 2], EnergyScale((0.0, 1.0)), 1.0, 0.5)


def events(seed: int, n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, high, n) for high in (12, 2, 64)] + [rng.integers(1, 5, n)]


def windows() -> np.ndarray:
    masks = np.zeros((2, 2, 64), bool)
    masks[0, :, 10:20] = True
    masks[1, 0, 30:33] = True
    return masks


def test_sums_do_not_depend_on_order_or_pieces_and_lose_nothing():
    pixel, detector, channel, counts = events(1, 5000)
    whole = MapSums(12, 2, windows())
    whole.add(pixel, detector, channel, counts)
    left, right = MapSums(12, 2, windows()), MapSums(12, 2, windows())
    order = np.random.default_rng(2).permutation(5000)
    left.add(*(column[order[:1700]] for column in (pixel, detector, channel, counts)))
    right.add(*(column[order[1700:]] for column in (pixel, detector, channel, counts)))
    left.merge(right)
    for name in ("spectra", "maps", "totals"):
        assert np.array_equal(getattr(left, name), getattr(whole, name))
    assert whole.spectra.sum() == whole.totals.sum() == counts.sum()
    assert whole.maps[1].sum() == counts[(detector == 0) & (channel >= 30) & (channel < 33)].sum()
    assert whole.maps[1, 1].sum() == 0


def test_counts_outside_are_kept_apart_and_wrong_places_are_refused():
    sums = MapSums(12, 2, windows())
    one = np.array([0])
    sums.add(one, one, np.array([64]), np.array([7]))
    assert (sums.outside, int(sums.spectra.sum())) == (7, 0)
    with pytest.raises(ValueError, match="pixel"):
        sums.add(np.array([12]), one, one, one)
    with pytest.raises(ValueError, match="detector"):
        sums.add(one, np.array([2]), one, one)
    with pytest.raises(ValueError, match="merged"):
        sums.merge(MapSums(11, 2, windows()))
    with pytest.raises(ValueError, match="windows"):
        MapSums(12, 3, windows())


def test_projection_is_the_linear_fit_of_each_pixel_with_honest_errors():
    """3200 pixels of 90 counts on 2 per channel: pulls of the projected area, and exact merging."""
    rng = np.random.default_rng(9)
    x = np.arange(60.0)
    shapes = np.stack([gaussian(x, 25.0, 6.0), np.ones_like(x)])
    mean = 90 * shapes[0] + 2 * shapes[1]
    weight = 1 / mean
    gain = np.linalg.inv((shapes * weight) @ shapes.T) @ (shapes * weight)
    cube = rng.poisson(mean, (3200, 60))
    pixel, channel = np.nonzero(cube)
    detector, counts = np.zeros_like(pixel), cube[pixel, channel]
    whole = Projection(3200, gain[None])
    whole.add(pixel, detector, channel, counts)
    dealt = rng.integers(0, 3, pixel.size)
    for order in itertools.permutations(range(3)):
        total = Projection(3200, gain[None])
        for k in order:
            part = Projection(3200, gain[None])
            part.add(*(column[dealt == k][::-1] for column in (pixel, detector, channel, counts)))
            total.merge(part)
        assert total.amplitude.tobytes() == whole.amplitude.tobytes()
        assert total.variance.tobytes() == whole.variance.tobytes()
    assert whole.amplitude[0, 0] == pytest.approx(gain[0] @ cube.T, rel=1e-6)
    assert whole.variance[0, 0] == pytest.approx(gain[0] ** 2 @ cube.T, rel=1e-6)
    many = Projection(1, gain[None])  # more counts than floats add up exactly
    many.add(np.zeros(2, int), np.zeros(2, int), np.array([25, 40]), np.array([1 << 33, 3]))
    exact = (1 << 33) * gain[0, 25] + 3 * gain[0, 40]
    assert many.amplitude[0, 0, 0] == pytest.approx(exact, rel=1e-7)
    pulls = (whole.amplitude[0, 0] - 90) / np.sqrt(whole.variance[0, 0])
    assert 0.95 < pulls.std() < 1.05
    assert abs(pulls.mean()) < 0.1
    with pytest.raises(ValueError, match="same gain"):
        whole.merge(Projection(3200, 2 * gain[None]))


def test_spectra_of_one_measurement_add_up_exactly_in_any_order():
    rng = np.random.default_rng(4)
    spectra = [(rng.poisson(1e5, 64), float(t), float(1.1 * t)) for t in rng.uniform(0.1, 1e5, 5)]
    whole = SpectrumSums(64)
    for spectrum in spectra:
        whole.add(*spectrum)
    counts, live_s, real_s = whole.result()
    assert live_s == math.fsum(spectrum[1] for spectrum in spectra)
    for order in itertools.islice(itertools.permutations(range(5)), 0, 120, 17):
        left, right = SpectrumSums(64), SpectrumSums(64)
        for place, k in enumerate(order):
            (left, right)[place % 2].add(*spectra[k])
        right.merge(left)
        assert right.number == 5
        again = right.result()
        assert np.array_equal(again[0], counts)
        assert again[1:] == (live_s, real_s)
    whole.add(spectra[0][0], 3.0)
    assert whole.result()[1:] == (live_s + 3.0, None)
    with pytest.raises(ValueError, match="63 channels do not fit 64"):
        whole.add(np.zeros(63, np.int64))
    with pytest.raises(ValueError, match="63 channels do not fit 64"):
        whole.merge(SpectrumSums(63))
    with pytest.raises(ValueError, match="no spectrum"):
        SpectrumSums(8).result()
