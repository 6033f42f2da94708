"""npz maps: the measured ones, and archives that are wrong, hostile or far too large."""

from __future__ import annotations

import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.files import npz_map
from drivers.files.errors import FileError
from tests.data_sets import GPL, need


def npz(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in members.items():
            out.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def npy(header: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + body


CUBE = np.arange(2 * 3 * 2 * 8).reshape(2, 3, 2, 8).astype(np.uint16)
GOOD = npz(counts=CUBE, energy_offset_keV=-0.5, energy_gain_keV=0.01)


def test_the_measured_maps():
    xfm = npz_map.read(need("xrf/xfm_20x10_2det.npz", "micro-XRF map"))
    assert xfm.cube().sum(axis=(0, 1, 3)).tolist() == [832_210, 944_790]
    assert xfm.energy_kev is None


def test_the_measured_event_table():
    recorded = npz_map.read(need("xrf/jeol_stem_512_events.npz", "electron microscope event table", GPL))
    assert sum(int(block.counts.sum()) for block in recorded.blocks()) == 308_261
    assert (recorded.nx, recorded.ny) == (512, 512)


def test_dense_counts_with_and_without_a_detector_axis(put):
    recorded = npz_map.read(put(GOOD))
    assert np.array_equal(recorded.cube(), CUBE)
    assert recorded.energy_kev == (-0.5, 0.01)
    assert npz_map.read(put(npz(counts=CUBE[:, :, 0]))).cube().shape == (2, 3, 1, 8)


def test_an_event_table(put):
    y, x, channel = np.array([0, 1, 1]), np.array([2, 0, 0]), np.array([5, 7, 7])
    recorded = npz_map.read(put(npz(y=y, x=x, channel=channel)))
    cube = recorded.cube()
    assert cube.shape == (2, 3, 1, 8)
    assert (cube[0, 2, 0, 5], cube[1, 0, 0, 7]) == (1, 2)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"PK\x03\x04 no archive", "a whole .npz archive"),
        (GOOD[:-30], "a whole .npz archive"),
        (npz(other=CUBE), "expected an array counts, or arrays y, x and channel, found other.npy"),
        (npz(counts=CUBE.astype(float)), "counts: expected integers, found float64"),
        (npz(counts=CUBE.astype(np.int32) - 1), "counts: expected values from 0"),
        (npz(counts=CUBE[0, 0, 0]), "counts: expected axes y, x, (detector,) channel"),
        (npz(counts=np.zeros((0, 3, 2, 8), int)), "none empty"),
        (npz(counts=np.asfortranarray(CUBE)), "expected an array in C order"),
        (npz(counts=np.array([[[{}]]], dtype=object)), "expected an array of numbers, found object"),
        (npz(counts=np.array([[["a"]]])), "expected an array of numbers"),
        (npz(counts=CUBE, energy_offset_keV=0.0, energy_gain_keV=-1.0), "expected a positive gain in keV"),
        (npz(counts=CUBE, energy_offset_keV=np.nan, energy_gain_keV=1.0), "expected one finite number"),
        (npz(counts=CUBE, energy_offset_keV=0.0, energy_gain_keV=[1.0, 2.0]), "expected one finite number"),
        (npz(y=[0, 1], x=[0], channel=[1, 1]), "expected three columns of one length"),
        (npz(y=[60_000], x=[60_000], channel=[1]), "y, x: expected at most 16777216 pixels"),
        (npz(y=[0], x=[0], channel=[1 << 20]), "channel: expected values from 0 to 65535"),
        (archive(counts=b"not numpy"), "counts.npy: expected a numpy array"),
        (
            archive(counts=npy("{'descr': '<u2', 'fortran_order': False, 'shape': (1 << 60, 1)}")),
            "a numpy array",
        ),
        (
            archive(counts=npy("{'descr': '<u2', 'fortran_order': False, 'shape': (99999999999, 9, 9, 9)}")),
            "counts.npy: expected 72899999999271 cells of uint16, found 0 bytes",
        ),
        (
            archive(counts=npy("{'descr': '<u2', 'fortran_order': False, 'shape': (-1, -1, 1, 1)}", b"ab")),
            "counts.npy: expected 1 cells of uint16, found 2 bytes",
        ),
        (archive(**{f"a{k}": b"" for k in range(70)}), "expected at most 64 different arrays"),
    ],
)
def test_wrong_files_are_one_clear_error(put, data: bytes, expected: str):
    path = put(data)
    with pytest.raises(FileError) as caught:
        npz_map.read(path)
    assert str(caught.value).startswith(str(path))
    assert expected in str(caught.value)


def test_nothing_is_unpickled(put, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    with pytest.raises(FileError, match="numbers"):
        npz_map.read(put(npz(counts=np.array([[[Trap()]]], dtype=object))))
    assert not (tmp_path / "sprung").exists()


def test_a_bomb_is_refused_before_it_is_unpacked(put):
    """1 GiB of zeros in 1 MB: the directory tells the size, and nothing is decompressed."""
    data = archive(counts=b"\0" * (300 << 20))
    assert len(data) < 1 << 20
    path = put(data)
    tracemalloc.start()
    with pytest.raises(FileError, match="at most 268435456 bytes"):
        npz_map.read(path)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_a_bomb_that_lies_about_its_size_is_stopped(put):
    data = bytearray(archive(counts=b"\0" * (40 << 20)))
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = (1000).to_bytes(4, "little")  # size it unpacks to, as declared
    path = put(bytes(data))
    tracemalloc.start()
    with pytest.raises(FileError):
        npz_map.read(path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@given(where=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255), cut=st.integers(0, len(GOOD)))
def test_one_wrong_byte_or_a_cut_never_crashes(put, where: int, byte: int, cut: int):
    for data in (GOOD[:where] + bytes([byte]) + GOOD[where + 1 :], GOOD[:cut]):
        try:
            assert npz_map.read(put(data)).n_channels >= 1
        except FileError:
            continue


@given(data=st.binary(max_size=200), header=st.text(max_size=80))
def test_any_array_header_is_read_or_refused(put, data: bytes, header: str):
    for member in (data, npy(header, data)):
        with pytest.raises(FileError):
            npz_map.read(put(archive(counts=member)))
