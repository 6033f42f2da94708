"""ORTEC ASCII spectra: the measured files, and files that are wrong in every way."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.files import ortec_spe
from drivers.files.errors import FileError
from tests.data_sets import need, reference
from tests.drivers.files import makers

GOOD = makers.spe([0, 5, 7, 0])


@pytest.mark.parametrize("file", [name for name in reference("gamma") if name.lower().endswith(".spe")])
def test_measured_files(file: str):
    entry = reference("gamma")[file]
    spectrum = ortec_spe.read(need(f"gamma/{file}", "totals and times"))
    assert spectrum.counts.size == entry["channels"]
    assert spectrum.counts.sum() == entry["total_counts"]
    assert (spectrum.live_s, spectrum.real_s) == (entry["live_time_s"], entry["real_time_s"])
    assert spectrum.started == datetime.fromisoformat(entry["start"])


def test_eight_counts_per_line_with_decimal_points_and_no_times():
    spectrum = ortec_spe.read(need("xrf/steel.spe", "steel"))
    assert (spectrum.counts.size, int(spectrum.counts.sum())) == (2048, 5_607_017)
    assert spectrum.counts[:4].tolist() == [0, 9, 5, 5]
    assert spectrum.live_s is spectrum.energy_kev is spectrum.started is None


def test_every_field_of_a_small_file(put):
    spectrum = ortec_spe.read(put(GOOD))
    assert spectrum.counts.tolist() == [0, 5, 7, 0]
    assert (spectrum.live_s, spectrum.real_s, spectrum.centre) == (100.0, 101.0, 0.5)
    assert spectrum.energy_kev == (0.2, 0.38, 0.0)
    assert spectrum.title == "test"


def test_data_that_do_not_start_at_channel_zero(put):
    assert ortec_spe.read(put(b"$DATA:\n2 3\n4\n5\n")).counts.tolist() == [0, 0, 4, 5]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "expected a recording, found an empty file"),
        (b"\n\n", "expected sections such as"),
        (b"hello\n" + GOOD, "line 1: expected a section such as $SPEC_ID:, found 'hello'"),
        (b"$SPEC_ID:\nno data\n", "expected a $DATA: section"),
        (GOOD.replace(b"       7", b"     7.5"), "line 11: expected a count between 0 and"),
        (GOOD.replace(b"       7", b"      -7"), "line 11: expected a count between 0 and"),
        (GOOD.replace(b"       7", b"     nan"), "line 11: expected a count"),
        (GOOD.replace(b"       7", b"9" * 30), "line 11: expected a count"),
        (GOOD.replace(b"       7\r\n", b""), "$DATA: expected 4 counts, found 3 (a truncated file)"),
        (GOOD.replace(b"       7", b"  7 8 9"), "line 11: expected the end of the data after channel 3"),
        (GOOD.replace(b"0 3", b"3 0"), "line 8: expected an integer from 3 to 65535"),
        (GOOD.replace(b"0 3", b"0 99999999999"), "line 8: expected an integer from 0 to 65535"),
        (GOOD.replace(b"0 3", b"0"), "line 8: expected first and last channel"),
        (GOOD.replace(b"100 101", b"100"), "line 6: expected live and real time"),
        (GOOD.replace(b"100 101", b"200 101"), "line 6: expected 0 <= live time <= real time"),
        (GOOD.replace(b"100 101", b"inf 101"), "line 6: expected a time in s, a finite number"),
        (GOOD.replace(b"0.2 0.38 0.0 keV", b"0.2 0.38"), "expected 3 coefficients and the unit keV"),
        (GOOD.replace(b"keV", b"furlongs"), "expected 3 coefficients and the unit keV"),
        (GOOD.replace(b"0.38", b"1_0"), "expected an energy coefficient, a finite number"),
        (GOOD.replace(b"$MCA_CAL", b"$SPEC_ID"), "expected a section name that has not been used before"),
        (GOOD[:40] + b"\0" + GOOD[40:], "byte 40: expected text, found a NUL byte"),
    ],
)
def test_wrong_files_are_one_clear_error(put, data: bytes, expected: str):
    path = put(data)
    with pytest.raises(FileError) as caught:
        ortec_spe.read(path)
    assert str(caught.value).startswith(str(path))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_files(tmp_path):
    for path in (tmp_path, tmp_path / "missing.spe", tmp_path / "a\0b"):
        with pytest.raises(FileError, match="file"):
            ortec_spe.read(path)


def test_a_gigantic_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "huge.spe"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: a terabyte that takes no room
    with pytest.raises(FileError, match="at most 16777216 bytes"):
        ortec_spe.read(path)


def test_an_odd_date_is_a_note_and_a_calibration_of_zeros_is_none(put):
    spectrum = ortec_spe.read(put(GOOD.replace(b"04/18/2014", b"18.4.2014 ").replace(b"0.38", b"0.00")))
    assert spectrum.started is None
    assert "was not used" in spectrum.notes[0]
    assert spectrum.energy_kev is None


@given(counts=st.lists(st.integers(0, 1 << 40), min_size=1, max_size=60))
def test_what_was_written_is_read(put, counts: list[int]):
    assert ortec_spe.read(put(makers.spe(counts))).counts.tolist() == counts


@given(data=st.binary(max_size=400))
def test_anything_after_a_mark_is_read_or_refused(put, data: bytes):
    for head in (b"", b"$DATA:\n", b"$DATA:\n0 3\n", b"$MEAS_TIM:\n"):
        try:
            spectrum = ortec_spe.read(put(head + data))
        except FileError:
            continue
        assert spectrum.counts.dtype == np.int64


@given(where=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255), cut=st.integers(0, len(GOOD)))
def test_one_wrong_byte_or_a_cut_never_crashes(put, where: int, byte: int, cut: int):
    for data in (GOOD[:where] + bytes([byte]) + GOOD[where + 1 :], GOOD[:cut]):
        try:
            assert ortec_spe.read(put(data)).counts.min() >= 0
        except FileError:
            continue
