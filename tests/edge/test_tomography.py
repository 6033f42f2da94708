"""Projections to slices: the tooth's reference values, scikit-image as a peer, the axis and its error."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage import filters, transform

from drivers.files import tomo_hdf5
from edge import tomography
from edge.tomography_segment import otsu
from edge.uncertainty import pulls
from tests.data_sets import need, reference

TOOTH = reference("ct")["tooth.h5"]


@cache
def row() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    recorded = tomo_hdf5.read(need("ct/tooth_row0.h5", "tooth, first row"))
    return (*(part[:, 0] for part in recorded.rows(0, 1)), recorded.angles_deg)


@cache
def absorbance() -> np.ndarray:
    projections, flats, darks, _ = row()
    return tomography.sinogram(projections, flats, darks, zinger=0.0).absorbance


@cache
def peer() -> np.ndarray:
    """Return scikit-image's slice with the axis in the middle, at column 295 of 591."""
    return transform.iradon(absorbance()[:, :591].T.astype(float), theta=row()[3], filter_name="ramp")


def thresholded(image: np.ndarray) -> tuple[int, float]:
    counts, edges = np.histogram(image, 1024)
    inside = image > otsu(counts, edges).value
    return int(inside.sum()), float(image[inside].mean())


def test_whole_file_against_its_reference():
    recorded = tomo_hdf5.read(need("ct/tooth.h5", "tooth, both rows"))
    projections, flats, darks = recorded.rows(0, recorded.n_rows)
    assert list(projections.shape) == TOOTH["projections_rows_columns"]
    assert (list(flats.shape), list(darks.shape)) == (TOOTH["flats"], TOOTH["darks"])
    for name, part in (("projection", projections), ("flat", flats), ("dark", darks)):
        assert part.mean(dtype=np.float64) == pytest.approx(TOOTH[f"mean_{name}"], rel=1e-7)
    assert [recorded.angles_deg[0], recorded.angles_deg[-1]] == pytest.approx(TOOTH["angles_deg_first_last"])
    spans = [
        tomography.sinogram(projections[:, k], flats[:, k], darks[:, k], 0.0).transmission for k in (0, 1)
    ]
    assert np.min(spans) == pytest.approx(TOOTH["transmission_min_max"][0], abs=1e-4)
    assert np.max(spans) == pytest.approx(TOOTH["transmission_min_max"][1], abs=1e-4)


def test_the_sum_of_absorbance_is_the_same_at_every_angle():
    sums = absorbance().sum(axis=1, dtype=np.float64)
    assert sums.mean() == pytest.approx(TOOTH["sum_minus_lnT_row0_mean_over_angles"], abs=0.01)
    assert sums.std() == pytest.approx(TOOTH["sum_minus_lnT_row0_std_over_angles"], abs=0.001)


def test_the_axis_by_both_methods():
    """Reference: 295.0 by minimum negativity on a grid of 0.25, 295.5 from the pair at 0 and 179 degrees."""
    found = tomography.centre_of_half_turn([absorbance()], row()[3])
    assert found.methods["sinogram"] == pytest.approx(TOOTH["rotation_centre_px_row0"], abs=0.25)
    assert found.methods["pair"] == pytest.approx(295.5, abs=0.1)
    for theirs in (295.0, 295.5):
        assert abs(found.estimate.value - theirs) < found.estimate.total * 1.05


def test_the_slice_is_that_of_scikit_image():
    """The same filter and axis: attenuation to 0.2 % and the area of the tooth to 0.1 %."""
    image = tomography.reconstruct(absorbance(), row()[3], 295.0)
    area, mean = thresholded(image)
    their_area, their_mean = thresholded(peer())
    assert area == pytest.approx(their_area, rel=1e-3)
    assert mean == pytest.approx(their_mean, rel=2e-3)


def test_the_stored_slice_is_one_whose_axis_was_moved_by_interpolation():
    """Moved by 319.5 - 295 columns, half of them interpolated, which blurs the edge: 0.6 % more area."""
    moved = ndimage.shift(absorbance().astype(float), (0, 24.5), order=1)
    image = transform.iradon(moved.T, theta=row()[3], filter_name="ramp")
    inside = image > filters.threshold_otsu(image)
    assert inside.sum() == TOOTH["otsu_object_area_px"]
    assert image[inside].mean() == pytest.approx(TOOTH["mean_mu_inside_per_px"], abs=1e-6)


def test_a_worse_axis_is_seen():
    values = [
        tomography.sharpness(tomography.reconstruct(absorbance(), row()[3], c)) for c in (293, 295, 297)
    ]
    assert values[1] > max(values[0], values[2])


def test_direct_fourier_inversion_agrees():
    mean = thresholded(tomography.reconstruct(absorbance(), row()[3], 295.0, "dfi"))[1]
    assert mean == pytest.approx(thresholded(peer())[1], rel=0.006)


def phantom_rows(columns: int, angles_deg: np.ndarray, axis: float) -> np.ndarray:
    """Return the exact integrals of two discs of attenuation 0.02 and 0.03 per pixel."""
    x = np.arange(columns) - axis
    out = np.zeros((angles_deg.size, columns))
    for radius, mu, along, across in ((30.0, 0.02, 5.0, -8.0), (9.0, 0.03, -20.0, 40.0)):
        centre = along * np.cos(np.deg2rad(angles_deg)) + across * np.sin(np.deg2rad(angles_deg))
        chord = radius**2 - (x[None, :] - centre[:, None]) ** 2
        out += 2.0 * mu * np.sqrt(np.clip(chord, 0.0, None))
    return out


def test_the_scale_is_right_for_any_range_of_angles():
    """Algotom's factor pi/(n - 1) alone would be off by 1 part in n."""
    for angles in (np.arange(0.0, 180.0, 2.0), np.linspace(0.0, 180.0, 91)):
        image = tomography.reconstruct(phantom_rows(161, angles, 80.0).astype(np.float32), angles, 80.0)
        assert image[70:78, 80:88].mean() == pytest.approx(0.02, rel=0.012)


def test_double_field_of_view():
    """A full turn with the axis near the edge of the field gives the slice of a field twice as wide."""
    angles = np.linspace(0.0, 360.0, 361)
    wide = phantom_rows(161, angles, 80.0)
    noise = 0.002 * np.random.default_rng(1).standard_normal(wide.shape)
    wide = wide + noise
    seen = np.exp(-wide[:, 65:]).astype(np.float32)  # 96 columns, the axis at 15
    assert tomography.is_double_field(angles)
    found = tomography.centre_of_full_turn([seen, seen], 20)
    assert found.estimate.value == pytest.approx(15.0, abs=0.3)
    joined, half, axis = tomography.joined(seen, angles, 15.0)
    image = tomography.reconstruct(-np.log(joined), half, axis)
    whole = tomography.reconstruct(wide[:181].astype(np.float32), angles[:181], 80.0)
    middle = round(axis)
    ours, theirs = (im[c - 30 : c + 30, c - 30 : c + 30] for im, c in ((image, middle), (whole, 80)))
    assert np.abs(ours - theirs).mean() < 0.1 * 0.02
    assert ours[20:28, 30:38].mean() == pytest.approx(theirs[20:28, 30:38].mean(), rel=0.01)


def test_pulls_of_the_pair():
    """3 200 noisy pairs of opposite projections with an axis between two pixels."""
    rng = np.random.default_rng(8)
    angles, truth = np.array([0.0, 180.0]), 63.3
    x = np.arange(128) - truth
    cos, sin = np.cos(np.deg2rad(angles)), np.sin(np.deg2rad(angles))
    blobs = ((1.2, 12.0, 15.0, 4.0), (0.7, 5.0, -22.0, 9.0))  # height, width, place
    clean = sum(h * np.exp(-0.5 * ((x - (u * cos + v * sin)[:, None]) / w) ** 2) for h, w, u, v in blobs)
    sigma = 0.01 * np.exp(0.5 * clean)  # as counting makes it
    drawn = clean + sigma * rng.standard_normal((3_200, *clean.shape))
    found = np.array([tomography.opposite_pair(first, last) for first, last in drawn])
    average, std = pulls(found[:, 0], truth, found[:, 1])
    assert abs(average) < 0.1
    assert 0.95 < std < 1.05


def test_zingers_go_and_edges_stay():
    projections, flats, darks, _ = (np.array(part) for part in row())
    clean = tomography.sinogram(projections, flats, darks)
    hit = projections.copy()
    for angle, column in ((20, 100), (90, 300), (150, 560)):
        hit[angle, column] += 40_000.0
    found = tomography.sinogram(hit, flats, darks)
    assert found.zingers >= 3
    assert np.abs(found.transmission - clean.transmission).max() < 0.12
    assert clean.zingers < 0.005 * projections.size
    assert np.abs(tomography.sinogram(hit, flats, darks, 0.0).transmission - clean.transmission).max() > 1.0


def test_rings_are_removed():
    striped = absorbance() + 0.05 * (np.arange(640) == 320)
    with_ring = striped.astype(np.float32)
    for method in ("all", "sorting"):
        clean, usual = (tomography.without_rings(rows, method) for rows in (with_ring, absorbance()))
        assert abs(float((clean - usual)[:, 320].mean())) < 0.005  # of the 0.05 that were added
    assert tomography.without_rings(with_ring, "none") is with_ring


def test_what_cannot_be_reduced_is_said():
    rows = absorbance()
    with pytest.raises(ValueError, match="no half turn"):
        tomography.centre_of_half_turn([rows], np.linspace(0, 90, rows.shape[0]))
    with pytest.raises(ValueError, match="evenly spaced"):
        tomography.reconstruct(rows, np.sort(np.random.default_rng(1).uniform(0, 180, 181)), 295.0)
    with pytest.raises(ValueError, match="outside the 640 columns"):
        tomography.reconstruct(rows, row()[3], 700.0)
    for tool, argument in ((tomography.without_rings, "some"),):
        with pytest.raises(ValueError, match="known are"):
            tool(rows, argument)
    with pytest.raises(ValueError, match="no light"):
        tomography.sinogram(
            np.ones((3, 4), np.float32), np.ones((2, 4), np.float32), np.ones((2, 4), np.float32)
        )
    with pytest.raises(ValueError, match="cannot be compared"):
        tomography.opposite_pair(np.ones(5), np.ones(5))


def test_the_command_on_the_tooth(tmp_path: Path):
    from controller.offline.tomography import SliceOptions, read
    from controller.offline.tomography_slices import reduce_projections

    recorded = read(need("ct/tooth_row0.h5", "tooth, first row"), None)
    report = reduce_projections(recorded, SliceOptions(rings="none", zinger=0.0, pixel_um=10.0))
    json.dumps(report.data, allow_nan=False)
    assert "axis of rotation 295.27 ± 0.04 ± 0.27 px (pair 295.55, sinogram 295.00)" in report.text
    assert next(iter(report.arrays())).unit == "1/cm"
    pictures = dict(report.figures("png"))
    assert set(pictures) == {"slices", "sinogram"}
    assert all(picture.startswith(b"\x89PNG") for picture in pictures.values())
