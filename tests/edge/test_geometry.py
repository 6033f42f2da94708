import math

import numpy as np
import pytest

from edge.geometry import (
    Grid,
    Pose,
    area_below,
    layer_weights,
    profile_bins,
    register,
    sums_in_layers,
    visible_range_um,
)
from edge.levelling import ElementMap, find_layers, fit_interface, layer_end_um
from edge.uncertainty import pulls

GRID = Grid(48, 48, 100.0, 240.0)
NORMALISERS = [None, "P", "Co"]


def step(t):
    return 0.5 * (1 + np.vectorize(math.erf)(t / math.sqrt(2)))


def draw(rng, angle_rad=0.0, place=0.0, blur=4.0, anode=-70.0, top=1e9, scale=1.0, grid=GRID, grain=0.0):
    """Maps of P and Co of a separator between ``anode`` and 0 and a cathode above, um from the interface."""
    x, y = grid.positions_um()
    d = y * math.cos(angle_rad) - x * math.sin(angle_rad) - place
    upper, lower = step(d / blur), step((d - anode) / blur)
    cathode = upper * (1 - step((d - top) / blur))
    rough = 1 + grain * rng.standard_normal(d.size)
    exposure = np.full(d.size, scale)
    phosphorus = rng.poisson(exposure * (0.3 + 3.0 * lower * (1 - upper) + 0.2 * cathode))
    cobalt = rng.poisson(np.maximum(exposure * (0.1 + 5.0 * cathode * rough), 0))
    return [
        ElementMap("P", phosphorus.astype(float), exposure),
        ElementMap("Co", cobalt.astype(float), exposure),
    ]


# --- areas ---------------------------------------------------------------------------------------------


def test_level_pixels_are_cut_as_rectangles():
    grid = Grid(1, 2, 10.0, 20.0)  # two pixels of 10 x 10 um, centres at y = -5 and 5
    assert area_below(grid, Pose(0.0, 0.0), 2.5) == pytest.approx([1.0, 0.25])
    assert area_below(grid, Pose(0.0, 1.0), 2.5) == pytest.approx([1.0, 0.35])  # the layer moves with it


def test_a_pixel_cut_through_its_corner():
    grid = Grid(1, 1, 10.0, 10.0)
    tilted = Pose(math.radians(45), 0.0)
    assert area_below(grid, tilted, 0.0)[0] == pytest.approx(0.5)
    # a triangle of height h above the corner of a square turned by 45 degrees has the area h^2
    corner = 10.0 / math.sqrt(2)
    assert area_below(grid, tilted, -corner + 2.0)[0] == pytest.approx(4.0 / 100.0)
    assert area_below(grid, tilted, corner)[0] == pytest.approx(1.0)


@pytest.mark.parametrize("angle_deg", [-7.0, 0.0, 0.03, 3.0, 30.0])
def test_area_against_many_points(angle_deg):
    grid = Grid(3, 4, 30.0, 20.0, 5.0, -3.0)
    pose = Pose(math.radians(angle_deg), 1.3, 5.0)
    rng = np.random.default_rng(6)
    x, y = grid.positions_um()
    dx = rng.uniform(-0.5, 0.5, (40_000, 1)) * grid.pitch_x_um
    dy = rng.uniform(-0.5, 0.5, (40_000, 1)) * grid.pitch_y_um
    below = (pose.distance_um(x + dx, y + dy) < -2.2).mean(axis=0)
    assert area_below(grid, pose, -2.2) == pytest.approx(below, abs=0.012)


def test_layers_share_every_pixel_completely():
    pose = Pose(math.radians(4.0), 3.0)
    weights = layer_weights(GRID, pose, [(-math.inf, -30.0), (-30.0, 0.0), (0.0, math.inf), (5.0, 5.0)])
    assert weights[:, :3].sum(axis=1) == pytest.approx(np.ones(48 * 48))
    assert not weights[:, 3].any()
    assert weights[:, 1].sum() * GRID.pitch_x_um * GRID.pitch_y_um == pytest.approx(30.0 * 100.0 / math.cos(
        math.radians(4.0)), rel=1e-3)  # fmt: skip


def test_counts_are_weighted_never_resampled():
    weights = np.array([[1.0, 0.0], [0.25, 0.75], [0.0, 1.0]])
    counts = np.array([[8], [4], [2]])
    value, variance = sums_in_layers(weights, counts)
    assert value.ravel() == pytest.approx([9.0, 5.0])
    assert variance.ravel() == pytest.approx([8 + 4 * 0.0625, 4 * 0.5625 + 2])
    many = np.broadcast_to(counts, (7, 3, 1))
    assert sums_in_layers(weights, many)[0].shape == (7, 2, 1)
    with pytest.raises(ValueError, match="2 pixels of counts, 3 of weights"):
        sums_in_layers(weights, counts[:2])


def test_visible_range_of_a_tilted_raster():
    grid = Grid(10, 10, 100.0, 200.0)
    low, high = visible_range_um(grid, Pose(math.radians(2.0), 10.0))
    edge = 100.0 * math.cos(math.radians(2.0)) - 50.0 * math.sin(math.radians(2.0))
    assert (low, high) == pytest.approx((-edge - 10.0, edge - 10.0))


def test_a_raster_without_size_is_refused():
    with pytest.raises(ValueError, match="not positive"):
        Grid(0, 4, 1.0, 1.0)


# --- registration --------------------------------------------------------------------------------------


def test_another_raster_centre_is_not_a_shift():
    angle = math.radians(3.0)
    here = Pose(angle, 12.0, 0.0, 0.001, 0.2)
    there = Pose(angle, 12.0 + 40.0 * math.sin(angle), 40.0, 0.001, 0.2)  # the same line, seen from x = 40
    found = register(there, here)
    assert found.shift_um == pytest.approx(0.0, abs=1e-9)
    assert found.sigma_shift_um == pytest.approx(math.sqrt(0.2**2 + 0.04**2 + 0.2**2))


def test_shift_along_the_normal_and_turn():
    found = register(Pose(0.03, 15.0), Pose(0.02, 12.5))
    assert found.shift_um == pytest.approx(2.5)
    assert found.angle_deg == pytest.approx(math.degrees(0.01))


# --- levelling -----------------------------------------------------------------------------------------


def test_pulls_of_angle_and_position():
    rng = np.random.default_rng(100)
    angles, places, sigma_a, sigma_p, true_a, true_p = [], [], [], [], [], []
    for _ in range(250):
        angle, place = math.radians(rng.normal(0, 3.0)), rng.normal(0, 10.0)
        maps = draw(rng, angle, place)
        fit = fit_interface(GRID, maps, Pose(angle + 0.02, place + 3.0), (50.0, 60.0))
        angles.append(fit.pose.angle_rad)
        places.append(fit.pose.position_um)
        sigma_a.append(fit.pose.sigma_angle_rad)
        sigma_p.append(fit.pose.sigma_position_um)
        true_a.append(angle)
        true_p.append(place)
    for found, truth, sigma in ((angles, true_a, sigma_a), (places, true_p, sigma_p)):
        mean, std = pulls(found, truth, sigma)
        assert abs(mean) < 0.2
        assert 0.85 < std < 1.15
    assert np.mean(sigma_p) < 0.4  # um, with rows 5 um apart


def test_an_edge_sharper_than_the_rows_says_so():
    rng = np.random.default_rng(7)
    found, truth, sigma = [], [], []
    for _ in range(40):
        place = rng.uniform(-8.0, 8.0)
        fit = fit_interface(GRID, draw(rng, 0.0, place, blur=0.3), Pose(0.0, place + 2.0), (50.0, 60.0))
        found.append(fit.pose.position_um)
        truth.append(place)
        sigma.append(fit.pose.sigma_position_um)
    _, std = pulls(found, truth, sigma)
    assert std < 1.3
    assert np.median(sigma) > 1.4  # 5 um / sqrt(12)


def test_a_grainy_layer_enlarges_the_errors():
    rng = np.random.default_rng(12)
    smooth = fit_interface(GRID, draw(rng, scale=20.0), Pose(0.0, 2.0), (50.0, 60.0))
    grainy = fit_interface(GRID, draw(rng, scale=20.0, grain=0.3), Pose(0.0, 2.0), (50.0, 60.0))
    assert smooth.chi2_per_dof == pytest.approx(1.0, abs=0.1)
    assert grainy.chi2_per_dof > 2.0
    assert grainy.pose.sigma_position_um > 1.3 * smooth.pose.sigma_position_um


def test_a_wavy_interface_has_no_exact_angle():
    rng = np.random.default_rng(20)
    angles, sigmas = [], []
    x, y = GRID.positions_um()
    for _ in range(60):
        phase = rng.uniform(0, 2 * math.pi, 2)
        wave = 2.5 * np.sin(x / 5.0 + phase[0]) + 2.5 * np.sin(x / 8.0 + phase[1])
        upper = step((y - wave) / 4.0)
        exposure = np.full(x.size, 10.0)
        cobalt = rng.poisson(exposure * (0.1 + 5.0 * upper)).astype(float)
        fit = fit_interface(GRID, [ElementMap("Co", cobalt, exposure)], Pose(0.0, 1.0))
        angles.append(fit.pose.angle_rad)
        sigmas.append(fit.pose.sigma_angle_rad)
        assert 0.5 < fit.waviness_um < 4.0
    _, std = pulls(angles, 0.0, sigmas)
    assert 0.5 < std < 1.4
    flat = [fit_interface(GRID, draw(rng), Pose(0.0, 1.0)).waviness_um for _ in range(40)]
    assert np.mean(np.array(flat) > 0) < 0.2


def test_the_layers_are_found_at_any_reasonable_tilt():
    rng = np.random.default_rng(13)
    for angle_deg in (-9.0, -2.0, 0.0, 5.0, 11.0):
        maps = draw(rng, math.radians(angle_deg), 8.0)
        found = find_layers(GRID, maps, NORMALISERS, (1, 2))
        assert found.first_layer == 0
        assert math.degrees(found.angle_rad) == pytest.approx(angle_deg, abs=2.0)
        assert found.boundaries_um == pytest.approx((-62.0, 8.0), abs=8.0)


def test_a_field_that_shows_two_layers_of_three():
    rng = np.random.default_rng(14)
    found = find_layers(GRID, draw(rng, anode=-500.0), NORMALISERS, (1, 2))
    assert found.first_layer == 1
    assert found.boundaries_um == pytest.approx((0.0,), abs=6.0)


def test_layers_upside_down_are_refused():
    maps = [
        ElementMap(m.element, m.counts.reshape(48, 48)[::-1].ravel(), m.exposure)
        for m in draw(np.random.default_rng(15))
    ]
    with pytest.raises(ValueError, match=r"by normaliser: none, P, Co.*not seen in this order"):
        find_layers(GRID, maps, NORMALISERS, (1, 2))


def test_nothing_to_fit_is_refused():
    maps = draw(np.random.default_rng(16), scale=0.001)
    with pytest.raises(ValueError, match="too few"):
        fit_interface(GRID, maps, Pose(0.0, 0.0))


def test_an_interface_that_was_not_reached_is_refused():
    """A pass that ended early: rows without beam say nothing, and one side alone nothing about an edge."""
    maps = draw(np.random.default_rng(18))
    y = GRID.positions_um()[1]
    cut = [ElementMap(m.element, m.counts * (y < -20), m.exposure * (y < -20)) for m in maps]
    with pytest.raises(ValueError, match="and 0 above are too few"):
        fit_interface(GRID, cut, Pose(0.0, 0.0))


def test_a_blur_known_from_elsewhere_tells_how_far_rows_inform():
    maps = draw(np.random.default_rng(19), blur=0.3)
    alone = fit_interface(GRID, maps, Pose(0.0, 1.0)).pose.sigma_position_um
    known = fit_interface(GRID, maps, Pose(0.0, 1.0), known_blur_um=3.0).pose.sigma_position_um
    assert known < 0.5 * alone


def test_the_end_of_a_layer_inside_the_field():
    rng = np.random.default_rng(17)
    ends = draw(rng, top=60.0)[1]
    assert layer_end_um(GRID, ends, Pose(0.0, 0.0), 10.0, upwards=True) == pytest.approx(60.0, abs=6.0)
    assert layer_end_um(GRID, draw(rng)[1], Pose(0.0, 0.0), 10.0, upwards=True) is None
    flipped = ElementMap("Co", ends.counts.reshape(48, 48)[::-1].ravel(), ends.exposure)
    assert layer_end_um(GRID, flipped, Pose(0.0, 0.0), -10.0, upwards=False) == pytest.approx(-60.0, abs=6.0)


# --- profiles ------------------------------------------------------------------------------------------


def test_every_pixel_is_in_one_bin_whole():
    bins = profile_bins(GRID, Pose(math.radians(3.0), 4.0))
    counts = np.random.default_rng(3).poisson(4.0, 48 * 48)
    assert bins.sum(counts).sum() == counts.sum()
    assert np.diff(bins.edges_um) == pytest.approx(np.full(bins.edges_um.size - 1, 5.0))
    assert 0.0 in bins.edges_um  # the interface itself
    narrow = profile_bins(GRID, Pose(0.0, 0.0), np.array([0.0, 10.0]))
    assert narrow.sum(np.ones(48 * 48)) == pytest.approx([2 * 48])
