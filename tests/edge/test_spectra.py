"""Window sums by hand, and accumulators that give the same numbers in any order and in any pieces."""

from __future__ import annotations

import numpy as np
import pytest

from edge.calibration import EnergyScale
from edge.peaks import gaussian
from edge.spectra import MapSums, Projection, channels_within, window_sum


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
    whole, parts = Projection(3200, gain[None]), [Projection(3200, gain[None]) for _ in range(2)]
    whole.add(pixel, detector, channel, counts)
    for part, chosen in zip(parts, (slice(0, 9000), slice(9000, None)), strict=True):
        part.add(pixel[chosen], detector[chosen], channel[chosen], counts[chosen])
    parts[0].merge(parts[1])
    assert parts[0].amplitude == pytest.approx(whole.amplitude)
    assert whole.amplitude[0, 0] == pytest.approx(gain[0] @ cube.T)
    pulls = (whole.amplitude[0, 0] - 90) / np.sqrt(whole.variance[0, 0])
    assert 0.95 < pulls.std() < 1.05
    assert abs(pulls.mean()) < 0.1
    with pytest.raises(ValueError, match="same gain"):
        whole.merge(Projection(3200, 2 * gain[None]))
