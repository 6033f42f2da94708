"""GeoPIXE pixel records: the measured map equals its published decode, and wrong files are refused."""

from __future__ import annotations

import json
import tracemalloc
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.files import geopixe, npz_map
from drivers.files.errors import FileError
from tests.data_sets import need
from tests.drivers.files import makers

SIZE = {"nx": 3, "ny": 2, "dets": 2}
GOOD = makers.geopixe(makers.full_map(**SIZE), **SIZE)
WHY = "1.4 MB, too large for the clone"


def test_the_measured_map_is_identical_to_its_published_decode():
    path = need("xrf/xfm_20x10_2det.GeoPIXE", "micro-XRF map as the instrument wrote it", WHY)
    recorded = geopixe.read(path)
    assert (recorded.nx, recorded.ny, recorded.n_detectors, recorded.n_channels) == (20, 10, 2, 4096)
    decoded = npz_map.read(need("xrf/xfm_20x10_2det.npz", "micro-XRF map"))
    assert np.array_equal(recorded.cube(), decoded.cube())
    assert recorded.energy_kev == (0.0, 0.010)
    assert recorded.dwell_s == pytest.approx(0.1)
    assert recorded.width_um == pytest.approx(570.3125)
    assert recorded.dead_fraction is not None
    assert recorded.dead_fraction.shape == (10, 20, 2)
    assert recorded.title == "2022-10-26 10:55:00"


def test_the_decoded_map_written_as_records_comes_back(put):
    """So that a clone alone reads GeoPIXE records of real counts."""
    cube = npz_map.read(need("xrf/xfm_20x10_2det.npz", "micro-XRF map")).cube()
    records = [
        (x, y, d, 20.0, [(int(c), int(cube[y, x, d, c])) for c in np.flatnonzero(cube[y, x, d])])
        for y in range(10)
        for x in range(20)
        for d in range(2)
    ]
    assert sum(len(record[4]) for record in records) > 100_000
    path = put(makers.geopixe(records, nx=20, ny=10, dets=2, chan=4096))
    with mock.patch.object(geopixe, "PAIRS_PER_BLOCK", 5000):
        recorded = geopixe.read(path)
        assert len(list(recorded.blocks())) > 10
        assert np.array_equal(recorded.cube(), cube)


def test_every_field_of_a_small_map(put):
    recorded = geopixe.read(put(GOOD))
    cube = recorded.cube()
    assert cube.shape == (2, 3, 2, 64)
    assert cube[1, 2, 1, 3] == 2  # x + 1 = 3
    assert cube[1, 2, 1, 21] == 4  # y + 20 = 21, 3 + detector
    assert cube.sum() == sum(n for record in makers.full_map(**SIZE) for _, n in record[4])
    assert recorded.dead_fraction is not None
    assert recorded.dead_fraction[0, 0].tolist() == pytest.approx([0.0, 0.1])


def changed(**header: object) -> bytes:
    return makers.geopixe(makers.full_map(**SIZE), **(SIZE | header))  # type: ignore[arg-type]


def with_records(change) -> bytes:
    records = makers.full_map(**SIZE)
    change(records)
    return makers.geopixe(records, **SIZE)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x05\x00{", "byte 0: expected a JSON header of 5 bytes, found 1 bytes"),
        (b"\x04\x00nope" + GOOD, "byte 2: expected a JSON header"),
        (b"\x02\x00{}" + GOOD, 'a JSON header with "File Header"'),
        (changed(Xres=0), 'header "Xres": expected a positive number, found 0'),
        (changed(Xres=2.5), 'header "Xres": expected an integer from 1'),
        (changed(Xres="3"), 'header "Xres": expected a positive number'),
        (changed(Xres=True), 'header "Xres": expected a positive number'),
        (changed(Chan=1 << 20), 'header "Chan": expected an integer from 1 to 65536'),
        (changed(**{"Gain (eV)": float("nan")}), 'header "Gain (eV)": expected a positive number'),
        (changed(**{"Gain (eV)": 10**400}), 'header "Gain (eV)": expected a positive number'),
        (changed(Xres=60_000, Yres=60_000), "expected at most 16777216 pixel records"),
        (changed(Yres=3), "records: expected 18 records, found 12 (a truncated file)"),
        (changed(Xres=2), "expected x < 2, y < 2, detector < 2"),
        (changed(Chan=20), "rising channel numbers below 20"),
        (GOOD[:-1], "(a truncated file)"),
        (GOOD + b"D", "expected 16 bytes, found 1 (a truncated file)"),
        (GOOD.replace(b"DP", b"XY", 1), "expected the mark \"DP\""),
        (with_records(lambda r: r.append(r[0])), "expected a pixel that has not been written before"),
        (with_records(lambda r: r[0][4].reverse()), "expected rising channel numbers"),
        (with_records(lambda r: r.__setitem__(0, (0, 0, 0, 150.0, []))), "a dead time from 0 to 100 %"),
    ],
)  # fmt: skip
def test_wrong_files_are_one_clear_error(put, data: bytes, expected: str):
    path = put(data)
    with pytest.raises(FileError) as caught:
        geopixe.read(path)
    assert str(caught.value).startswith(str(path))
    assert expected in str(caught.value)


def test_a_record_that_lies_about_its_length_takes_no_memory(put):
    start = GOOD.index(b"DP")
    lying = GOOD[: start + 2] + b"\xff\xff\xff\x7f" + GOOD[start + 6 :]
    path = put(lying)
    tracemalloc.start()
    with pytest.raises(FileError, match="a length of 16 to"):
        geopixe.read(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_cube_that_does_not_fit_is_refused(put):
    recorded = geopixe.read(put(GOOD))
    with pytest.raises(ValueError, match="above the limit"):
        recorded.cube(limit_bytes=1000)


@given(where=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255), cut=st.integers(0, len(GOOD)))
def test_one_wrong_byte_or_a_cut_never_crashes(put, where: int, byte: int, cut: int):
    for data in (GOOD[:where] + bytes([byte]) + GOOD[where + 1 :], GOOD[:cut]):
        try:
            recorded = geopixe.read(put(data))
            for block in recorded.blocks():
                assert block.pixel.size == block.channel.size == block.counts.size
        except FileError:
            continue


@given(header=st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
))  # fmt: skip
def test_any_json_header_is_refused_in_plain_words(put, header: object):
    for value in (header, {"File Header": header}):
        text = json.dumps(value).encode()
        with pytest.raises(FileError):
            geopixe.read(put(len(text).to_bytes(2, "little") + text + GOOD[-100:]))
