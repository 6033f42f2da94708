"""Volumes: the sandstone's reference values, PoreSpy as a peer, closed forms, errors of correlated voxels."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, uniform_filter
from scipy.stats import norm
from skimage import filters

from drivers.files import volumes
from edge import tomography_segment as segment
from edge.roughness import heights, relative_change, roughness
from edge.tomography_blocks import correlated_mean
from edge.tomography_register import Scale, depth_maps, downsampled, register, shares
from edge.tomography_transport import directional_diffusion, tortuosity
from edge.uncertainty import Estimate, pulls
from tests.data_sets import need, reference

SANDSTONE = reference("ct")["leopard_sandstone_100.npz"]
PORESPY = {0: 4.4754, 1: 13.2554, 2: 3.5706}  # PoreSpy 3.2.0 tortuosity_fd, planes fixed at the voxel centres


@cache
def sandstone() -> np.ndarray:
    recorded = volumes.read(need("ct/leopard_sandstone_100.npz", "sandstone"))
    assert recorded.segmented
    return recorded.slab(0, 100)


# --- counting voxels -----------------------------------------------------------------------------------


def test_porosity_faces_and_connection_of_the_sandstone():
    pores = sandstone()
    assert pores.mean() == SANDSTONE["porosity"]
    assert segment.face_count(pores) == SANDSTONE["pore_solid_faces"]
    part = segment.largest(pores)[1] / pores.sum()
    assert part == pytest.approx(SANDSTONE["largest_connected_pore_fraction"], abs=5e-6)
    profile = segment.porosity_profile(pores)
    assert [profile.min(), profile.max()] == pytest.approx(SANDSTONE["porosity_profile_axis0_min_max"])


def test_components_do_not_depend_on_the_slabs(monkeypatch):
    whole, size = segment.largest(sandstone())
    _, sizes = segment.components(sandstone())
    monkeypatch.setattr(segment, "SLAB_VOXELS", 70_000)  # seven planes at a time
    again, same = segment.largest(sandstone())
    assert (size, same) == (260_281, 260_281)
    assert np.array_equal(whole, again)
    assert np.array_equal(segment.components(sandstone())[1], sizes)
    monkeypatch.setattr(segment, "SLAB_VOXELS", 1)  # one plane at a time
    assert segment.largest(sandstone()[:20])[1] == segment.largest(sandstone()[:20].copy())[1]


def test_opening_with_a_ball():
    """A ball of radius 6 survives radius 4 and not radius 8; a wall three voxels thick goes."""
    z, y, x = np.mgrid[:40, :40, :40] - 20
    ball = z**2 + y**2 + x**2 <= 36
    solid = ball | (np.abs(z + 14) <= 1)
    small = segment.opened(solid, 4.0)
    assert small[20, 20, 20]
    assert not small[6].any()
    assert (small & ~ball).sum() == 0
    assert small.sum() > 0.75 * ball.sum()  # voxels of a sphere are not a sphere
    assert not segment.opened(ball, 8.0).any()
    assert np.array_equal(segment.opened(ball, 0.0), ball)


def test_a_grey_volume_is_parted_where_otsu_says():
    rng = np.random.default_rng(2)
    grey = np.where(sandstone()[:40], 20.0, 60.0) + 8.0 * rng.standard_normal((40, 100, 100))
    read = segment.smoothed(lambda a, b: grey[a:b], grey.shape)
    counts, edges = segment.grey_histogram(read, grey.shape)
    found = segment.otsu(counts, edges)
    smooth = np.concatenate([read(a, b) for a, b, *_ in segment.slabs(grey.shape)])
    assert found.value == pytest.approx(float(filters.threshold_otsu(smooth, nbins=1024)), abs=0.2)
    assert (smooth <= found.value).mean() == pytest.approx(sandstone()[:40].mean(), abs=0.005)
    assert found.sigma == pytest.approx(0.05 * (found.bright - found.dark))
    with pytest.raises(ValueError, match="one class empty"):
        segment.given(1e6, counts, edges)


def test_depth_regions():
    assert segment.bounds(100, 3) == [(0, 33), (33, 67), (67, 100)]
    assert segment.bounds(100, [10, 40.2, 90]) == [(10, 40), (40, 90)]
    for parts in (0, [5, 5], [-1, 5], [0, 101], [3]):
        with pytest.raises(ValueError, match="do not divide"):
            segment.bounds(100, parts)


# --- errors of means over correlated voxels ------------------------------------------------------------


def test_pulls_of_porosity_with_correlated_pixels():
    """3 200 fields of 64 x 64, correlated over three pixels; taken as independent the error is too small."""
    rng = np.random.default_rng(31)
    truth, found, naive = float(norm.sf(0.6)), [], []
    for _ in range(32):
        noise = uniform_filter(rng.standard_normal((100, 68, 68)), (0, 3, 3))[:, 2:66, 2:66] * 3.0
        for field in noise > 0.6:
            mean = correlated_mean(field)
            found.append((mean.mean, mean.sigma))
            naive.append(np.sqrt(mean.mean * (1 - mean.mean) / field.size))
    values, sigmas = np.array(found).T
    average, std = pulls(values, truth, sigmas)
    assert abs(average) < 0.1
    assert 0.95 < std < 1.05
    assert pulls(values, truth, naive)[1] > 2.0


def test_porosity_of_a_volume_with_a_mask():
    """300 volumes; fewer than a full test of pulls, whose kernel is the one above."""
    rng = np.random.default_rng(32)
    inside = np.ones((24, 24, 24), bool)
    inside[:, :4, :9] = False
    values = []
    for _ in range(300):
        noise = uniform_filter(rng.standard_normal((27, 27, 27)), 2)[2:26, 2:26, 2:26] * 2.0**1.5
        region = segment.region_porosity(noise > 0.6, inside, 0, 24, 0.01)
        assert region.porosity.sigma_sys == 0.01
        values.append((region.porosity.value - norm.sf(0.6)) / region.porosity.sigma_stat)
    assert abs(np.mean(values)) < 0.2
    assert 0.9 < np.std(values) < 1.15


def test_a_region_shorter_than_its_correlation_has_no_error():
    assert np.isnan(correlated_mean(sandstone()[67:]).sigma)
    assert correlated_mean(np.ones((4, 4))).sigma == 0.0
    with pytest.raises(ValueError, match="cells inside"):
        correlated_mean(np.ones(5), np.zeros(5, bool))


# --- diffusion -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [2])
def test_tortuosity_of_the_sandstone_against_porespy(axis: int):
    """Their planes are fixed at the centres of the first and last voxels, ours at the faces."""
    found = tortuosity(sandstone(), axis)
    assert found is not None
    assert found.tortuosity.value == pytest.approx(PORESPY[axis], rel=0.01)
    assert found.porosity == 0.260281  # PoreSpy's effective porosity, exactly
    assert found.flux_mismatch < 0.01


def test_closed_forms():
    """A straight channel has tau = 1; a wire with two bends has the square of its length over the height."""
    channel = np.zeros((12, 6, 6), bool)
    channel[:, 2:4, 3:5] = True
    straight = tortuosity(channel, 0)
    assert straight is not None
    assert straight.tortuosity.value == pytest.approx(1.0, abs=1e-9)
    assert straight.diffusivity.value == pytest.approx(4 / 36, abs=1e-9)
    assert tortuosity(channel, 1) is None
    bent = np.zeros((11, 9, 1), bool)  # down 5, across 8 cells, down: a wire of one voxel
    bent[:6, 0], bent[5, :], bent[5:, 8] = True, True, True
    wire = tortuosity(bent, 0)
    assert wire is not None
    assert wire.diffusivity.value == pytest.approx(11 / (9 * 19), rel=1e-6)  # 19 voxels long: 11 + 8
    assert wire.tortuosity.value == pytest.approx((19 / 11) ** 2, rel=1e-6)


def test_directional_diffusion_of_the_paper():
    """Huang 2022, table 1: D eps/tau of six rows, with the D0 = 1.39e-7 cm2/s that they share."""
    rows = (
        (33.3, 8.7, 5.3),
        (33.3, 1.1, 42.1),
        (23.2, 10.5, 3.1),
        (23.2, 2.3, 14.0),
        (9.6, 11.2, 1.2),
        (9.6, 2.8, 4.8),
    )
    free = Estimate(1.39e-7, 0.0, 0.0, "cm2/s")
    for eps, tau, printed in rows:
        ours = directional_diffusion(free, Estimate(eps / 100, 0.0, 0.0, "1"), Estimate(tau, 0.0, 0.0, "1"))
        assert ours.value * 1e9 == pytest.approx(printed, abs=0.051)
    assert np.mean([33.3, 23.2, 9.6]) == pytest.approx(22.0, abs=0.05)


def test_errors_of_directional_diffusion():
    rng = np.random.default_rng(4)
    parts = (
        Estimate(1.4e-7, 3e-9, 0.0, "cm2/s"),
        Estimate(0.3, 0.006, 0.0, "1"),
        Estimate(2.5, 0.05, 0.0, "1"),
    )
    d, e, t = (p.value + p.sigma_stat * rng.standard_normal(3_200) for p in parts)
    free = [Estimate(v, 3e-9, 0.0, "cm2/s") for v in d]
    porosity, tau = [Estimate(v, 0.006, 0.0, "1") for v in e], [Estimate(v, 0.05, 0.0, "1") for v in t]
    found = [directional_diffusion(*part) for part in zip(free, porosity, tau, strict=True)]
    average, std = pulls([f.value for f in found], 1.4e-7 * 0.3 / 2.5, [f.sigma_stat for f in found])
    assert abs(average) < 0.1
    assert 0.95 < std < 1.05


# --- roughness -----------------------------------------------------------------------------------------


def test_roughness_of_known_surfaces():
    y, x = np.mgrid[:200, :200] * 1.0
    plane = 3.0 + 0.2 * y - 0.1 * x
    wave = roughness(plane + 2.0 * np.cos(2 * np.pi * (x + 0.5) / 25), 1.0)
    assert wave.rq.value == pytest.approx(2.0 / np.sqrt(2.0), rel=2e-3)
    assert wave.ra.value == pytest.approx(4.0 / np.pi, rel=4e-3)
    assert wave.plane[1:] == pytest.approx((0.2, -0.1), abs=2e-3)
    flat = roughness(plane, 1.0, quantum=1.0)
    assert flat.rq.value == pytest.approx(0.0, abs=1e-9)
    assert flat.rq.sigma_sys == pytest.approx(1 / np.sqrt(12))


def test_pulls_of_roughness():
    """3 200 Gaussian surfaces with correlated heights on a tilted plane: R_a = R_q sqrt(2/pi)."""
    rng = np.random.default_rng(77)
    tilt = 0.3 * np.arange(48)[:, None]
    found = []
    for _ in range(32):
        noise = uniform_filter(rng.standard_normal((100, 50, 50)), (0, 2, 2))[:, 1:49, 1:49] * 2.0
        found += [roughness(1.5 * field + tilt, 1.0) for field in noise]
    truth = 1.5 * (1.0 - 1.5 * 4.0 / 48**2)  # the plane takes up three of 48^2 / 4 independent heights
    for values, expected in (
        ([f.rq for f in found], truth),
        ([f.ra for f in found], truth * (2 / np.pi) ** 0.5),
    ):
        average, std = pulls([v.value for v in values], expected, [v.sigma_stat for v in values])
        assert abs(average) < 0.1
        assert 0.95 < std < 1.05


def test_the_change_of_roughness_of_the_paper():
    """Huang 2024: 5.1, 5.4, 6.1 um; printed as 6 % and 13.5 %. The calculation gives 5.9 % and 13.0 %."""
    first, second, third = (Estimate(v, 0.05, 0.02, "um") for v in (5.1, 5.4, 6.1))
    assert 100 * relative_change(first, second).value == pytest.approx(5.88, abs=0.01)
    assert 100 * relative_change(second, third).value == pytest.approx(12.96, abs=0.01)
    assert relative_change(first, second).sigma_stat == pytest.approx(0.05 / 5.1 * np.hypot(1, 5.4 / 5.1))


def test_heights_of_a_volume():
    solid = np.zeros((6, 2, 2), bool)
    solid[2:, 0, 0], solid[1:4, 0, 1], solid[5, 1, 0] = True, True, True
    assert np.array_equal(heights(solid, 2.0), [[4, 2], [10, np.nan]], equal_nan=True)
    assert np.array_equal(heights(solid, 2.0, "bottom"), [[12, 8], [12, np.nan]], equal_nan=True)
    with pytest.raises(ValueError, match="side"):
        heights(solid, 1.0, "left")


# --- onto a coarse map ---------------------------------------------------------------------------------


def test_down_sampling_conserves_sums():
    rng = np.random.default_rng(9)
    picture = rng.random((50, 60))
    y, x = Scale(3.24, 26.7, 4), Scale(3.24, 26.7, 5)
    coarse = downsampled(picture, y, x, 11.3, 25.0)
    rows, columns = shares(50, y, 11.3), shares(60, x, 25.0)
    assert coarse.sum() == pytest.approx((rows.sum(axis=0) @ picture @ columns.sum(axis=0)), rel=1e-12)
    assert coarse.sum() == pytest.approx(picture.sum() * 4 * 5 * 26.7**2 / (50 * 60 * 3.24**2), rel=0.05)
    inside = rows.sum(axis=0)
    assert set(np.round(inside[(inside > 0.999)], 9)) == {1.0}
    volume = rng.random((6, 50, 60)) > 0.5
    maps = depth_maps(volume, [(0, 2), (2, 6)], y, x, 11.3, 25.0)
    assert maps.sum(axis=0) == pytest.approx(downsampled(volume.sum(axis=0), y, x, 11.3, 25.0))


def test_pulls_of_the_registration():
    """3 200 Poisson maps of a structured picture: the shift within a fraction of a pixel, with its error."""
    rng = np.random.default_rng(5)
    fine = (gaussian_filter(rng.standard_normal((40, 40)), 2.5) > 0).astype(float)
    y, x = Scale(10.0, 40.0, 6), Scale(10.0, 40.0, 6)
    truth = (47.0, 63.0)
    mean = 400.0 + 60.0 * downsampled(fine, y, x, *truth)
    found = [
        register(fine, m, np.sqrt(mean), y, x, (55.0, 70.0), 0.0) for m in rng.poisson(mean, (3_200, 6, 6))
    ]
    for k, name in enumerate("yx"):
        estimates = [getattr(f, name) for f in found]
        average, std = pulls([e.value for e in estimates], truth[k], [e.sigma_stat for e in estimates])
        assert abs(average) < 0.1
        assert 0.95 < std < 1.05


def test_a_registration_that_cannot_work():
    y = x = Scale(1.0, 4.0, 5)
    with pytest.raises(ValueError, match="do not fit"):
        register(np.ones((30, 30)), np.ones((4, 5)), np.ones((4, 5)), y, x, (0, 0))
    with pytest.raises(ValueError, match="only 0 pixels"):
        register(np.ones((30, 30)), np.ones((5, 5)), np.zeros((5, 5)), y, x, (0, 0))
    with pytest.raises(ValueError, match="positive"):
        Scale(0.0, 1.0, 3)


# --- the command ---------------------------------------------------------------------------------------


def test_the_command_on_the_sandstone(tmp_path: Path):
    from controller.offline.tomography import VolumeOptions, read
    from controller.offline.tomography_volume import reduce_volume

    recorded = read(need("ct/leopard_sandstone_100.npz", "sandstone"), None)
    solid = (~sandstone()[:50, :48, :48]).sum(axis=0)
    y, x = Scale(3.24, 13.0, 9), Scale(3.24, 13.0, 9)
    thickness = downsampled(solid, y, x, 10.0, 14.0)
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "map.npz", map=5 * thickness + rng.normal(0, 9, (9, 9)), sigma=np.full((9, 9), 9.0))
    options = VolumeOptions(
        3.24, regions=2, tortuosity=(2,), roughness="top", box=((0, 50), (0, 48), (0, 48)),
        diffusion=Estimate(1.39e-7, 0, 0, "cm2/s"), onto=tmp_path / "map.npz", onto_pitch_um=13.0,
    )  # fmt: skip
    report = reduce_volume(recorded, options)
    json.dumps(report.data, allow_nan=False)
    where = report.data["registration"]
    for name, truth in (("y", 10.0), ("x", 14.0)):
        assert abs(where[name]["value"] - truth) < 4 * where[name]["sigma_stat"]
    assert report.data["porosity"]["porosity"]["value"] == sandstone()[:50, :48, :48].mean()
    assert {array.name for array in report.arrays()} == {
        "porosity_profile",
        "height_about_plane",
        "solid_on_map",
    }
    pictures = dict(report.figures("png"))
    assert set(pictures) == {"porosity", "roughness", "registration"}
