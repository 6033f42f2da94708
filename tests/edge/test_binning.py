"""Adaptive regions: exact sums, determinism, the goal, and unbiased values with right errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import maps
from edge.binning import Goal, Regions, painted, quadtree, region_sums, voronoi
from edge.uncertainty import pulls

WAYS = [quadtree, voronoi]


def everything(counts: np.ndarray) -> np.ndarray:
    return np.ones(counts.shape, bool)


@pytest.mark.parametrize("way", WAYS)
def test_every_region_reaches_the_goal_and_every_count_is_in_one(way):
    rng = np.random.default_rng(6)
    counts = rng.poisson(3.0, (40, 24))
    inside = np.zeros((40, 24), bool)
    inside[10:37, 2:] = True
    found: Regions = way(counts, counts, inside, Goal(relative=0.1))
    assert found.reached.all()
    assert np.array_equal(found.labels >= 0, inside)
    assert found.value.sum() == counts[inside].sum()  # exact: sums of integers
    assert found.pixels.sum() == inside.sum()
    assert found.value.min() >= 100.0  # 10 % of N counts needs N >= 100
    assert found.value.size > 8
    again: Regions = way(counts, counts, inside, Goal(relative=0.1))
    assert np.array_equal(found.labels, again.labels)


def test_rectangles_of_a_minimum_are_those_of_the_ion_beam_reduction():
    counts = np.random.default_rng(7).poisson(1.3, (60, 44))
    inside = everything(counts)
    inside[:5] = False
    ours = quadtree(counts, counts, inside, Goal(minimum=100.0))
    assert np.array_equal(ours.labels, maps.quadtree(counts, inside, 100.0))


@pytest.mark.parametrize("way", WAYS)
def test_a_map_with_too_few_counts_is_one_region_and_says_so(way):
    found = way(np.ones((8, 8)), np.ones((8, 8)), np.ones((8, 8), bool), Goal(minimum=1e6))
    assert found.value.tolist() == [64.0]
    assert not found.reached.any()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("level", [0.4, 4.0, 60.0])
def test_values_of_regions_are_unbiased_though_the_data_shaped_them(way, level: float):
    """More than 3 200 regions at few, medium and many counts per pixel: pulls against the true sums."""
    rng = np.random.default_rng(12)
    n = 64 if level < 5 else 32
    y, x = np.mgrid[:n, :n]
    mean = level * (1.0 + 0.6 * np.sin(x / 9.0) * np.cos(y / 7.0))
    relative = 0.12 if level < 1 else 0.06
    values, truths, sigmas = [], [], []
    while sum(v.size for v in values) < 3_200:
        counts = rng.poisson(mean)
        found = way(counts, counts, everything(counts), Goal(relative=relative))
        values.append(found.value)
        sigmas.append(found.sigma)
        truths.append(maps.label_sums(found.labels, mean.ravel()))
    average, std = pulls(np.concatenate(values), np.concatenate(truths), np.concatenate(sigmas))
    assert abs(average) < 0.1
    assert 0.95 < std < 1.05


def test_net_counts_with_background_carry_its_variance():
    """A line of 2 counts on a background of 3, estimated from a band of 6: the error needs both."""
    rng = np.random.default_rng(3)
    values, sigmas, number = [], [], []
    while sum(number) < 3_200:
        gross, band = rng.poisson(5.0, (64, 64)), rng.poisson(6.0, (64, 64))
        found = quadtree(gross - 0.5 * band, gross + 0.25 * band, everything(gross), Goal(minimum=150.0))
        values.append(found.value - 2.0 * found.pixels)
        sigmas.append(found.sigma)
        number.append(found.value.size)
    average, std = pulls(np.concatenate(values), 0.0, np.concatenate(sigmas))
    assert abs(average) < 0.1
    assert 0.95 < std < 1.05


def test_sums_and_paint():
    labels = np.array([[0, 0, 1], [-1, 1, 1]], np.int32)
    planes = np.arange(12).reshape(2, 2, 3)
    assert region_sums(labels, planes).tolist() == [[1.0, 11.0], [13.0, 29.0]]
    assert np.array_equal(painted(labels, [5.0, 7.0]), [[5, 5, 7], [math.nan, 7, 7]], equal_nan=True)
    with pytest.raises(ValueError, match="planes"):
        region_sums(labels, np.zeros((2, 3, 3)))


@pytest.mark.parametrize(
    ("arguments", "why"), [({}, "is needed"), ({"minimum": -1.0}, "minimum"), ({"relative": 0.0}, "positive"),
                           ({"minimum": math.inf}, "minimum"), ({"relative": math.nan}, "positive")],
)  # fmt: skip
def test_a_goal_that_makes_no_sense(arguments, why: str):
    with pytest.raises(ValueError, match=why):
        Goal(**arguments)


@pytest.mark.parametrize("way", WAYS)
def test_wrong_maps(way):
    good = np.ones((4, 4))
    for value, variance, inside in (
        (good, np.ones((4, 5)), good > 0), (good, -good, good > 0), (good * np.nan, good, good > 0),
        (good, good, good < 0),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="map"):
            way(value, variance, inside, Goal(minimum=1.0))


@settings(max_examples=60, deadline=None)
@given(
    ny=st.integers(1, 14), nx=st.integers(1, 14), seed=st.integers(0, 9), level=st.floats(0.05, 30.0),
    goal=st.floats(0.05, 2.0),
)  # fmt: skip
def test_any_map_is_divided_completely(ny: int, nx: int, seed: int, level: float, goal: float):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(level, (ny, nx))
    inside = rng.random((ny, nx)) < 0.8
    inside[0, 0] = True
    for way in WAYS:
        found = way(counts, counts, inside, Goal(relative=goal))
        assert np.array_equal(found.labels >= 0, inside)
        assert np.array_equal(np.unique(found.labels[inside]), np.arange(found.value.size))
        assert found.value.sum() == counts[inside].sum()
        if way is voronoi and found.value.size > 1:
            assert found.reached.all()
