"""APS multi-detector files: the measured one, and wrong ones."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.files import aps_mca
from drivers.files.errors import FileError
from tests.data_sets import need, reference
from tests.drivers.files import makers

GOOD = makers.mca([[1, 2, 3], [4, 5, 6]])


def test_the_measured_file():
    entry = reference("xrf")["srm1832_thin_glass_4det.mca"]
    spectra = aps_mca.read(need("xrf/srm1832_thin_glass_4det.mca", "SRM 1832"))
    assert len(spectra) == entry["detectors"] == 4
    assert [int(s.counts.sum()) for s in spectra] == entry["total_counts"]
    assert [s.live_s for s in spectra] == [float(v) for v in entry["live_time_s"]]
    assert [s.real_s for s in spectra] == [float(v) for v in entry["real_time_s"]]
    assert [s.energy_kev[0] for s in spectra] == [float(v) for v in entry["offset_keV"]]
    assert [s.energy_kev[1] for s in spectra] == [float(v) for v in entry["gain_keV"]]
    dead = [1 - s.live_s / s.real_s for s in spectra]
    assert min(dead) == pytest.approx(0.197, abs=0.002)  # "dead time 20 to 35 %"
    assert max(dead) == pytest.approx(0.355, abs=0.002)
    assert spectra[0].counts.size == 2048
    assert spectra[0].started == datetime(2013, 1, 30, 15, 25, 17, 766000)


def test_columns_are_detectors(put):
    first, second = aps_mca.read(put(GOOD))
    assert first.counts.tolist() == [1, 2, 3]
    assert second.counts.tolist() == [4, 5, 6]
    assert (second.detector, second.centre, second.energy_kev) == (1, 0.0, (-0.01, 0.0146, 0.0))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "an empty file"),
        (b"VERSION: 3.1\n", "expected a line DATA:, found none (a truncated file)"),
        (b"nonsense\n", "line 1: expected a line KEY: values"),
        (GOOD.replace(b"ELEMENTS: 2", b"ELEMENTS: 900"), "line 2: expected an integer from 1 to 512"),
        (GOOD.replace(b"ELEMENTS: 2", b"ELEMENTS: 3"), "expected 3"),
        (GOOD.replace(b"CHANNELS: 3", b"CHANNELS: 4"), "DATA: expected 4 lines, found 3 (a truncated file)"),
        (GOOD.replace(b"CHANNELS: 3", b"CHANNELS: 2"), "DATA: expected 2 lines, found 3"),
        (GOOD.replace(b"LIVE_TIME: 96.5", b"LIVE_TIME: 196.5"), "expected 0 < live time <= real time"),
        (GOOD.replace(b"LIVE_TIME", b"ALIVE"), "header: expected a line LIVE_TIME:"),
        (GOOD.replace(b"0.0146 0.0146", b"0.0146 -1"), "expected positive slopes"),
        (GOOD.replace(b"0.0146 0.0146", b"0.0146"), "expected 2 numbers, one per detector"),
        (GOOD.replace(b"2 5", b"2 x"), "line 12: expected a count"),
        (GOOD.replace(b"2 5", b"2"), "line 12: expected 2 counts, one per detector"),
        (GOOD.replace(b"CAL_QUAD", b"CAL_SLOPE"), "expected a key that has not been used before"),
    ],
)
def test_wrong_files_are_one_clear_error(put, data: bytes, expected: str):
    path = put(data)
    with pytest.raises(FileError) as caught:
        aps_mca.read(path)
    assert str(caught.value).startswith(str(path))
    assert expected in str(caught.value)


@given(table=st.lists(st.lists(st.integers(0, 1 << 40), min_size=5, max_size=5), min_size=1, max_size=6))
def test_what_was_written_is_read(put, table: list[list[int]]):
    assert [s.counts.tolist() for s in aps_mca.read(put(makers.mca(table)))] == table


@given(where=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255), cut=st.integers(0, len(GOOD)))
def test_one_wrong_byte_or_a_cut_never_crashes(put, where: int, byte: int, cut: int):
    for data in (GOOD[:where] + bytes([byte]) + GOOD[where + 1 :], GOOD[:cut]):
        try:
            assert all(s.counts.min() >= 0 for s in aps_mca.read(put(data)))
        except FileError:
            continue
