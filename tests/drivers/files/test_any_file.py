"""The reader is chosen by what is in the file."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.files import any_file
from drivers.files.errors import FileError
from drivers.files.recordings import RecordedEvents, RecordedMap
from tests.data_sets import need
from tests.drivers.files import makers


def test_names_do_not_matter(put, tmp_path):
    assert any_file.read(put(makers.spe([1, 2]), "a.mca"))[0].counts.tolist() == [1, 2]
    assert len(any_file.read(put(makers.mca([[1], [2]]), "b.spe"))) == 2
    assert isinstance(any_file.read(put(makers.lis([makers.event(1, 1)]), "c.txt")), RecordedEvents)
    size = {"nx": 2, "ny": 2, "dets": 1}
    assert isinstance(any_file.read(put(makers.geopixe(makers.full_map(**size), **size), "d")), RecordedMap)
    shutil.copy(need("xrf/xfm_20x10_2det.npz", "micro-XRF map"), tmp_path / "e.Lis")
    assert isinstance(any_file.read(tmp_path / "e.Lis"), RecordedMap)


@pytest.mark.parametrize("data", [b"", b"%PDF-1.4", b"\x7fELF", b"<html>", b"\0" * 100])
def test_foreign_files_are_refused_with_the_list_of_formats(put, data: bytes):
    with pytest.raises(FileError) as caught:
        any_file.read(put(data))
    assert not data or ".GeoPIXE" in str(caught.value)


def test_what_was_found_is_shown_short_and_printable(put):
    with pytest.raises(FileError) as caught:
        any_file.read(put(b"\x1b[31m" + b"A" * 500))
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


@given(data=st.binary(max_size=600))
def test_any_bytes_are_read_or_refused(put, data: bytes):
    for head in (b"", b"PK\x03\x04", b"\xf3\xff\xff\xff", b"$", b"VERSION:", b"\x10\x00{"):
        with pytest.raises(FileError):
            any_file.read(put(head + data))
