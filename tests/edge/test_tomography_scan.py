"""A scan in parts, in any order, one by one: the same bits as in one piece; what is held is bounded."""

from __future__ import annotations

import itertools
import tracemalloc
from functools import cache

import numba
import numpy as np
import pytest

from drivers.files import tomo_hdf5
from edge import tomography
from edge.tomography_scan import (
    MAX_REFERENCES,
    Slab,
    SliceRules,
    TomographyReducer,
    centre_rows,
    rows_at_once,
)
from tests.data_sets import need

SHAPE = (40, 3, 24)  # projections, rows, columns
ROWS = (2, 5, 9)


@cache
def counts() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return projections, flats, darks as a camera gives them, and the angles."""
    rng = np.random.default_rng(5)
    flats = rng.poisson(30_000, (7, *SHAPE[1:])).astype(np.uint16)
    darks = rng.poisson(100, (5, *SHAPE[1:])).astype(np.uint16)
    return rng.poisson(9_000, SHAPE).astype(np.uint16), flats, darks, np.linspace(0.0, 180.0, SHAPE[0])


def part(projections: slice, flats: slice, darks: slice) -> TomographyReducer:
    images, open_beam, dark, angles = counts()
    reducer = TomographyReducer(ROWS, SHAPE[2])
    reducer.add(images[projections], angles[projections])
    reducer.add_flats(open_beam[flats])
    reducer.add_darks(dark[darks])
    return reducer


@cache
def whole() -> Slab:
    return part(slice(None), slice(None), slice(None)).result()


def same(one: Slab, other: Slab) -> bool:
    sinograms = [[slab.sinogram(row).transmission.tobytes() for row in ROWS] for slab in (one, other)]
    angles = one.angles_deg.tobytes() == other.angles_deg.tobytes()
    return angles and one.n_flats == other.n_flats and sinograms[0] == sinograms[1]


def test_parts_merged_in_any_order_give_the_same_bits():
    cuts = [
        (slice(0, 40, 3), slice(0, 4), slice(0, 0)),  # an interlaced scan: every third angle
        (slice(2, 40, 3), slice(4, 4), slice(0, 5)),
        (slice(1, 40, 3), slice(4, 7), slice(5, 5)),
    ]
    for order in itertools.permutations(cuts):
        total = TomographyReducer(ROWS, SHAPE[2])
        for cut in order:
            total.merge(part(*cut))
        assert same(total.result(), whole())
    right = part(*cuts[1])
    right.merge(part(*cuts[2]))
    left = part(*cuts[0])
    left.merge(right)  # (a + (b + c)) as ((a + b) + c)
    assert same(left.result(), whole())


def test_projections_that_arrive_one_by_one_in_any_order_are_the_scan():
    images, flats, darks, angles = counts()
    live = TomographyReducer(ROWS, SHAPE[2])
    buffer = np.empty(SHAPE[1:], np.uint16)  # a camera writes every image into the same one
    for k in np.random.default_rng(6).permutation(SHAPE[0]):
        buffer[:] = images[k]
        live.add(buffer, angles[k])
        if live.n_projections == 10:
            for image in flats[:4]:
                live.add_flats(image)
            live.add_darks(darks)
            early = live.result()  # at any time
            assert early.angles_deg.size == 10
    for image in flats[4:]:
        live.add_flats(image)
    assert same(live.result(), whole())
    assert early.angles_deg.size == 10  # and it stays what it was


def test_state_is_plain_and_goes_back():
    reducer = part(slice(None), slice(None), slice(None))
    state = reducer.state()
    assert {type(value) for value in state.values()} <= {int, np.ndarray}
    again = TomographyReducer.restored(state)
    assert same(again.result(), whole())
    assert again.held_bytes == reducer.held_bytes


def test_sinograms_and_slice_of_the_tooth_are_those_of_the_whole_file():
    recorded = tomo_hdf5.read(need("ct/tooth_row0.h5", "tooth, first row"))
    projections, flats, darks = (images[:, 0] for images in recorded.rows(0, 1))
    parts = [TomographyReducer((0,), recorded.n_columns) for _ in range(2)]
    for first in range(0, recorded.n_angles, 50):
        last = min(first + 50, recorded.n_angles)
        block = recorded.images("projections", first, last, (0,))
        parts[first // 50 % 2].add(block, recorded.angles_deg[first:last])
    parts[0].add_flats(recorded.images("flats", 0, recorded.n_flats, (0,)))
    parts[1].add_darks(recorded.images("darks", 0, recorded.n_darks, (0,)))
    parts[1].merge(parts[0])
    slab = parts[1].result()
    usual = tomography.sinogram(projections, flats, darks)
    ours = slab.sinogram(0)
    assert ours.transmission.tobytes() == usual.transmission.tobytes()
    assert ours.zingers == usual.zingers
    rules = SliceRules(centre_px=295.25, rings="none")
    centre = slab.centre(rules)
    image = slab.slice(ours, centre, rules)
    direct = tomography.reconstruct(usual.absorbance, recorded.angles_deg, 295.25)
    assert image.tobytes() == direct.tobytes()


def test_a_slice_is_the_same_every_time():
    """Algotom adds projections to one image from several threads; some were lost, others each time."""
    threads = numba.get_num_threads()
    rng = np.random.default_rng(3)
    absorbance = rng.uniform(0.5, 1.0, (360, 400)).astype(np.float32)
    angles = np.linspace(0.0, 180.0, 360)
    first, *others = (tomography.reconstruct(absorbance, angles, 199.5).tobytes() for _ in range(3))
    assert all(other == first for other in others)
    assert numba.get_num_threads() == threads


def test_flats_are_exact_whatever_their_order_and_whole_counts_to_the_last_bit():
    rng = np.random.default_rng(7)
    flats = rng.uniform(0.5, 60_000.0, (50, 3, 24)).astype(np.float32)
    means = []
    for order in (np.arange(50), rng.permutation(50)):
        reducer = TomographyReducer(ROWS, 24)
        reducer.add(counts()[0], counts()[3])
        for k in order:
            reducer.add_flats(flats[k])
        reducer.add_darks(np.zeros((3, 24), np.uint16))
        means.append(reducer.result().flat)
    assert means[0].tobytes() == means[1].tobytes()
    assert means[0] == pytest.approx(flats.mean(axis=0, dtype=np.float64), abs=2.0**-25)
    slab = whole()
    assert np.array_equal(slab.flat, counts()[1].mean(axis=0))
    assert np.array_equal(slab.dark, counts()[2].mean(axis=0))


def test_memory_is_what_is_stated():
    image = np.zeros((64, 512), np.uint16)
    reducer = TomographyReducer(range(64), 512)
    tracemalloc.start()
    for k in range(100):
        reducer.add(image, 10 + k)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reducer.held_bytes == 100 * image.nbytes
    assert held < 1.02 * reducer.held_bytes
    assert peak < 1.05 * reducer.held_bytes
    full = TomographyReducer(range(64), 512, limit_bytes=3 * image.nbytes)
    full.add(np.stack([image] * 3), [1, 2, 3])
    with pytest.raises(ValueError, match="ask for fewer rows"):
        full.add(image, 4.0)
    with pytest.raises(ValueError, match="ask for fewer rows"):
        full.merge(reducer)
    assert full.n_projections == 3
    assert rows_at_once(1800, 2560, 2, 256 << 20) == 29
    assert rows_at_once(1 << 16, 1 << 16, 4, 1 << 20) == 1
    assert centre_rows(range(4)) == (0, 1, 2, 3)
    assert len(centre_rows(range(16))) == 5


@pytest.mark.parametrize(
    ("images", "angles", "expected"),
    [
        (np.zeros((2, 3, 24), np.uint16), [1.0], "2 projections need as many angles, got 1"),
        (np.zeros((3, 24), np.uint16), np.nan, "as many angles"),
        (np.zeros((3, 23), np.uint16), 1.0, "do not fit 3 rows of 24"),
        (np.zeros((2, 3, 24), np.uint16), [1.0, 1.0], r"two projections at the same angle \(1 degrees\)"),
        (np.zeros((3, 24), np.uint16), 90.0, r"two projections at the same angle \(90 degrees\)"),
        (np.full((3, 24), np.inf), 1.0, "finite"),
        (np.zeros((3, 24), np.int64), 1.0, "not int64"),
        (np.zeros((3, 24), bool), 1.0, "not bool"),
    ],
)
def test_wrong_projections_are_refused_and_nothing_is_added(images, angles, expected):
    reducer = TomographyReducer(ROWS, 24)
    reducer.add(np.zeros((3, 24), np.uint16), 90.0)
    with pytest.raises(ValueError, match=expected):
        reducer.add(images, angles)
    assert reducer.n_projections == 1
    assert reducer.held_bytes == 144


def test_parts_that_do_not_belong_together_are_refused():
    reducer = part(slice(0, 5), slice(0, 0), slice(0, 0))
    with pytest.raises(ValueError, match="same rows and columns"):
        reducer.merge(TomographyReducer((2, 5), 24))
    with pytest.raises(ValueError, match=r"both have a projection at 18\.4615 degrees"):
        reducer.merge(part(slice(4, 9), slice(0, 3), slice(0, 0)))
    assert reducer.n_projections == 5
    with pytest.raises(ValueError, match="no flats and no darks"):
        reducer.result()
    with pytest.raises(ValueError, match="0 projections are no scan"):
        TomographyReducer((1,), 8).result()
    with pytest.raises(ValueError, match=f"more than {MAX_REFERENCES} flats or darks"):
        reducer.add_flats(np.zeros((MAX_REFERENCES + 1, 3, 24), np.uint8))
    with pytest.raises(ValueError, match="above 67108864 counts"):
        reducer.add_darks(np.full((3, 24), 1 << 30, np.uint32))
    with pytest.raises(ValueError, match="row 3 is not among"):
        whole().sinogram(3)
    for rows in ((), (3, 3), (-1, 2)):
        with pytest.raises(ValueError, match="rows that rise"):
            TomographyReducer(rows, 24)
