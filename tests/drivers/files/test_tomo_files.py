"""Tomograms and volumes: what is read, what is refused, and nothing else than FileError for any damage."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.files import tomo_hdf5, volumes
from drivers.files.errors import FileError
from drivers.files.hdf5_safe import opened
from tests.drivers.files.makers_images import hdf5, npz, tomogram

GOOD = tomogram()
VOLUME = npz(im=np.arange(60).reshape(3, 4, 5) % 2 == 0)


def test_projections_by_rows(put):
    found = tomo_hdf5.read(put(GOOD))
    assert (found.n_angles, found.n_rows, found.n_columns, found.n_flats, found.n_darks) == (5, 2, 6, 3, 2)
    assert found.angles_deg.tolist() == [0, 36, 72, 108, 144]
    data, flats, darks = found.rows(1, 2)
    assert data.shape == (5, 1, 6)
    assert (flats.mean(), darks.mean()) == (1000.0, 50.0)
    assert np.array_equal(data, found.rows(0, 2)[0][:, 1:])
    with pytest.raises(ValueError, match="not inside"):
        found.rows(1, 3)


def test_angles_in_radians_and_none(put, tmp_path):
    path = put(tomogram(exchange__theta=np.linspace(0.0, 3.0, 5)))
    with h5py.File(path, "a") as file:
        file["exchange/theta"].attrs["units"] = "radians"
    assert tomo_hdf5.read(path).angles_deg[-1] == pytest.approx(np.rad2deg(3.0))
    none = tomo_hdf5.read(put(tomogram(exchange__theta=None), "none.h5"))
    assert none.angles_deg.tolist() == [0, 36, 72, 108, 144]
    assert "no theta" in none.notes[0]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "an empty file"),
        (GOOD[:500], "a whole HDF5 file"),
        (hdf5(other=[1]), "/exchange/data: expected a dataset"),
        (tomogram(exchange__data_white=None), "/exchange/data_white: expected a dataset"),
        (tomogram(exchange__data_dark=np.ones((2, 3, 6))), "images of 2 x 6"),
        (tomogram(exchange__data=np.ones((5, 12))), "3 dimensions"),
        (tomogram(exchange__data=np.ones((1, 2, 6))), "2 to 65536 angles"),
        (tomogram(exchange__theta=np.arange(4.0)), "5 angles"),
        (tomogram(exchange__theta=np.array([0, 1, 1, 2, 3.0])), "rise or fall"),
        (tomogram(exchange__theta=np.array([0, 1, np.nan, 2, 3.0])), "finite angles"),
        (hdf5(exchange__data="text"), "expected numbers"),
    ],
)
def test_wrong_tomograms_are_one_clear_error(put, data: bytes, expected: str):
    path = put(data)
    with pytest.raises(FileError) as caught:
        tomo_hdf5.read(path)
    assert str(caught.value).startswith(str(path))
    assert expected in str(caught.value)


def test_nan_is_found_when_it_is_read(put):
    data = np.ones((5, 2, 6), np.float32)
    data[2, 1, 3] = np.nan
    found = tomo_hdf5.read(put(tomogram(exchange__data=data)))
    found.rows(0, 1)
    with pytest.raises(FileError, match="finite counts"):
        found.rows(1, 2)


def test_nothing_outside_the_file_is_opened(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["data"] = np.ones((5, 2, 6))
    path = tmp_path / "linked.h5"
    with h5py.File(path, "w") as file:
        file["exchange/data"] = h5py.ExternalLink("other.h5", "/data")
    with pytest.raises(FileError, match="inside this file"):
        tomo_hdf5.read(path)
    virtual = tmp_path / "virtual.h5"
    layout = h5py.VirtualLayout((5, 2, 6), "f8")
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "data", (5, 2, 6))
    with h5py.File(virtual, "w") as file:
        file.create_virtual_dataset("exchange/data", layout)
    with pytest.raises(FileError, match="stored in other files"):
        tomo_hdf5.read(virtual)
    raw = tmp_path / "external.h5"
    with h5py.File(raw, "w") as file:
        file.create_dataset("exchange/data", (5, 2, 6), "f4", external=[("secret.bin", 0, 240)])
    with pytest.raises(FileError, match="stored in other files"):
        tomo_hdf5.read(raw)


def test_a_gigantic_tomogram_costs_nothing_until_it_is_read(tmp_path):
    path = tmp_path / "huge.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("exchange/data", (3600, 60_000, 60_000), "u2", chunks=(1, 64, 1024))
        for name in ("data_white", "data_dark"):
            file.create_dataset(f"exchange/{name}", (4, 60_000, 60_000), "u2", chunks=(1, 64, 1024))
    found = tomo_hdf5.read(path)
    with pytest.raises(FileError, match="at a time"):
        found.rows(0, 60_000)
    with h5py.File(path, "w") as file:
        file.create_dataset("exchange/data", (3, 40_000, 40_000), "u2", chunks=(1, 40_000, 40_000))
    with pytest.raises(FileError, match="chunks of at most"):
        tomo_hdf5.read(path)


@given(where=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255), cut=st.integers(0, len(GOOD)))
def test_one_wrong_byte_or_a_cut_never_crashes_a_tomogram(put, where: int, byte: int, cut: int):
    for data in (GOOD[:where] + bytes([byte]) + GOOD[where + 1 :], GOOD[:cut]):
        try:
            found = tomo_hdf5.read(put(data))
            found.rows(0, found.n_rows)
        except FileError:
            continue


def test_volumes(put):
    found = volumes.read(put(VOLUME))
    assert (found.shape, found.segmented) == ((3, 4, 5), True)
    assert found.slab(1, 2).shape == (1, 4, 5)
    grey = volumes.read(put(hdf5(a__b=np.ones((3, 4, 5), "u2"))), "a/b")
    assert (grey.segmented, grey.slab(0, 3).sum()) == (False, 60)


@pytest.mark.parametrize(
    ("data", "dataset", "expected"),
    [
        (b"plain", None, "a volume"),
        (npz(a=np.ones((2, 2))), None, "exactly one array of three dimensions, found 0"),
        (npz(a=np.ones((2, 2, 2)), b=np.ones((2, 2, 2))), None, "found 2"),
        (npz(a=np.array(["x"])), None, "expected numbers"),
        (npz(a=np.ones((0, 2, 2))), None, "1 to 65536"),
        (hdf5(a=np.ones((2, 2, 2))), None, "give --dataset"),
        (hdf5(a=np.ones((2, 2))), "a", "3 dimensions"),
        (hdf5(a=np.ones((2, 2))), "b", "found nothing"),
        (VOLUME[:-30], None, "a whole .npz archive"),
    ],
)
def test_wrong_volumes(put, data: bytes, dataset: str | None, expected: str):
    with pytest.raises(FileError, match=expected):
        volumes.read(put(data), dataset)


@given(where=st.integers(0, len(VOLUME) - 1), byte=st.integers(0, 255), cut=st.integers(0, len(VOLUME)))
def test_one_wrong_byte_or_a_cut_never_crashes_a_volume(put, where: int, byte: int, cut: int):
    for data in (VOLUME[:where] + bytes([byte]) + VOLUME[where + 1 :], VOLUME[:cut]):
        try:
            found = volumes.read(put(data))
            found.slab(0, found.shape[0])
        except FileError:
            continue


def test_whatever_hdf5_raises_is_a_file_error(put):
    with pytest.raises(FileError, match="a whole HDF5 file"), opened(put(GOOD)) as file:
        file["nowhere"]
