"""Maps from others: HDF5, TIFF, npz, imzML and vendor files; any damage is a FileError."""

from __future__ import annotations

import io
import sys

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.files import foreign_maps, imzml, vendor_maps
from drivers.files.errors import FileError
from drivers.files.recordings import RecordedMap
from drivers.files.recordings_images import RecordedImages, RecordedMassMap
from tests.data_sets import GPL, need
from tests.drivers.files.makers_images import hdf5, npz, nxdata
from tests.drivers.files.makers_images import imzml as write_imzml

COUNTS = np.random.default_rng(3).poisson(0.4, (3, 4, 16)).astype("u2")
NEXUS = nxdata(COUNTS, 0.5 + 0.01 * np.arange(16))
SPECTRA = {(x, y): [(7.016, x + 1), (41.04, 3), (27.0, y)] for y in (1, 2) for x in (1, 2, 3)}


def consumed(found: foreign_maps.ForeignMap) -> float:
    """Read everything and return the sum."""
    if isinstance(found, RecordedMap):
        return sum(int(block.counts.sum()) for block in found.blocks())
    if isinstance(found, RecordedImages):
        return float(sum(np.asarray(found.plane(k), np.float64).sum() for k in range(len(found.names))))
    return float(sum(spectrum.intensity.sum() for spectrum in found.spectra()))


def tiff(planes: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, planes, **options)
    return buffer.getvalue()


IMAGEJ = tiff(
    np.arange(24, dtype="u2").reshape(2, 3, 4), imagej=True, resolution=(0.5, 0.25),
    metadata={"Labels": ["Li7", "C3H5"], "unit": "um", "axes": "ZYX"},
)  # fmt: skip
PAGES = tiff(np.arange(24, dtype="f4").reshape(2, 3, 4), photometric="minisblack", compression="zlib")


def test_nexus_map(put):
    found = foreign_maps.read(put(NEXUS))
    assert isinstance(found, RecordedMap)
    assert (found.ny, found.nx, found.n_channels) == (3, 4, 16)
    assert found.energy_kev == pytest.approx((0.5, 0.01))
    assert np.array_equal(found.cube()[:, :, 0], COUNTS)


def test_plain_datasets_in_any_order_of_axes(put):
    path = put(hdf5(a__cube=COUNTS.transpose(2, 0, 1), a__sheet=np.ones((3, 4))))
    cube = foreign_maps.read(path, "/a/cube", "cyx")
    assert isinstance(cube, RecordedMap)
    assert np.array_equal(cube.cube()[:, :, 0], COUNTS)
    assert cube.energy_kev is None
    sheet = foreign_maps.read(path, "a/sheet")
    assert isinstance(sheet, RecordedImages)
    assert (sheet.names, sheet.plane(0).shape) == (("sheet",), (3, 4))
    four = foreign_maps.read(put(hdf5(d=COUNTS.reshape(3, 2, 2, 16)), "four.h5"), "d")
    assert isinstance(four, RecordedMap)
    assert (four.n_detectors, consumed(four)) == (2, COUNTS.sum())
    floats = foreign_maps.read(put(hdf5(d=COUNTS.astype("f4")), "floats.h5"), "d", "xyc")
    assert isinstance(floats, RecordedImages)
    assert np.array_equal(floats.plane(5), COUNTS[..., 5].T)


def test_uneven_energy_axis_is_not_used(put):
    found = foreign_maps.read(put(nxdata(COUNTS, np.arange(16.0) ** 2)))
    assert isinstance(found, RecordedMap)
    assert found.energy_kev is None
    assert "not even" in found.notes[0]


def test_stacks(put):
    stack = foreign_maps.read(put(IMAGEJ, "a.tif"))
    assert isinstance(stack, RecordedImages)
    assert stack.names == ("Li7", "C3H5")
    assert stack.pitch_um == pytest.approx((4.0, 2.0))
    assert np.array_equal(stack.plane(1), np.arange(12, 24).reshape(3, 4))
    pages = foreign_maps.read(put(PAGES, "b.tif"))
    assert isinstance(pages, RecordedImages)
    assert (pages.names, pages.pitch_um) == (("0", "1"), None)
    assert consumed(pages) == np.arange(24).sum()
    images = foreign_maps.read(put(npz(Li=np.ones((3, 4), "u4"), O=np.zeros((3, 4), "u4"))))
    assert isinstance(images, RecordedImages)
    assert (images.names, consumed(images)) == (("Li", "O"), 12)


def test_mass_spectra(tmp_path):
    found = foreign_maps.read(write_imzml(tmp_path / "map.imzML", SPECTRA))
    assert isinstance(found, RecordedMassMap)
    assert (found.nx, found.ny, found.n_spectra, found.n_values) == (3, 2, 6, 18)
    assert found.pitch_um == (5.0, 5.0)
    spectra = list(found.spectra())
    assert [s.pixel for s in spectra] == [0, 1, 2, 3, 4, 5]
    assert spectra[4].mass.tolist() == [7.016, 41.04, 27.0]
    assert spectra[4].intensity.tolist() == [3.0, 3.0, 2.0]


def test_what_pyimzml_wrote():
    """The file's README says what is in it."""
    found = imzml.read(need("maps/pyimzml.imzML", "imzML of another program"))
    assert (found.nx, found.ny) == (3, 2)
    for spectrum in found.spectra():
        y, x = divmod(spectrum.pixel, 3)
        assert spectrum.mass.tolist() == [7.016, 27.0, 41.04]
        assert spectrum.intensity.tolist() == [x + 2, y + 1, 3]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"<run", b"<!DOCTYPE a [<!ENTITY b 'c'>]><run", "without a document type"),
        (b'value="16"', b'value="999999"', "truncated"),
        (b'value="16"', b'value="-16"', "at places in the .ibd file"),
        (b'name="external array length" value="3"', b'name="external array length" value="2"', "as many m/z"),
        (b'name="position x" value="2"', b'name="position x" value="1"', "one spectrum per pixel"),
        (b'name="position x" value="3"', b'name="position x" value="900000"', "at most"),
        (b'name="position x" value="3"', b'name="position x" value="three"', "a whole imzML file"),
        (b'name="position x" value="3"', b'name="position x" value="9' + b"9" * 40 + b'"', "64 bits"),
        (b"MS:1000523", b"MS:1000999", "number formats"),
        (b"</spectrumList>", b"", "a whole imzML file"),
        (b"<spectrum ", b"<spectre ", "a whole imzML file"),
    ],
)
def test_wrong_mass_spectra(tmp_path, old: bytes, new: bytes, expected: str):
    path = write_imzml(tmp_path / "map.imzML", SPECTRA)
    text = path.read_bytes()
    assert old in text
    path.write_bytes(
        text.replace(old, new, 1).replace(b"64-bit float", b"other" if b"0999" in new else b"64-bit float")
    )
    with pytest.raises(FileError, match=expected):
        imzml.read(path)


def test_mass_spectra_without_their_binary_file(tmp_path):
    path = write_imzml(tmp_path / "map.imzML", SPECTRA)
    path.with_suffix(".ibd").write_bytes(b"\0" * 20)
    with pytest.raises(FileError, match="truncated"):
        imzml.read(path)
    path.with_suffix(".ibd").unlink()
    with pytest.raises(FileError, match=r"the binary file map\.ibd"):
        imzml.read(path)


@pytest.mark.parametrize(
    ("data", "options", "expected"),
    [
        (b"", {}, "an empty file"),
        (b"nothing known", {}, "a map"),
        (hdf5(a=COUNTS), {}, "give --dataset"),
        (hdf5(a=COUNTS), {"dataset": "b"}, "found nothing"),
        (hdf5(a=COUNTS), {"dataset": "a", "axes": "yxz"}, "an axis order"),
        (hdf5(a=COUNTS), {"dataset": "a", "axes": "yx"}, "an axis order"),
        (hdf5(a=np.ones((2, 2), "S3")), {"dataset": "a"}, "expected numbers"),
        (hdf5(a=COUNTS.astype("i4") - 5), {"dataset": "a"}, "counts from 0"),
        (npz(a=np.ones((2, 2)), b=np.ones((2, 3))), {}, "maps of one shape"),
        (NEXUS[:700], {}, "a whole HDF5 file"),
        (IMAGEJ[:60], {}, "TIFF"),
        (tiff(np.zeros((4, 4, 3), "u1"), photometric="rgb"), {}, "grey images"),
        (npz(counts=COUNTS), {"dataset": "a"}, "an HDF5 file"),
    ],
)
def test_wrong_maps_are_one_clear_error(put, data: bytes, options: dict, expected: str):
    with pytest.raises(FileError, match=expected):
        consumed(foreign_maps.read(put(data), **options))


def test_gigantic_maps_are_refused_before_they_are_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", (5000, 5000, 100), "u2", chunks=(1, 100, 100))
        file.create_dataset("b", (3, 60_000, 65_000), "u2", chunks=(1, 100, 100))
    with pytest.raises(FileError, match="pixels"):
        foreign_maps.read(tmp_path / "a.h5", "a")
    with pytest.raises(FileError, match="numbers per line"):
        consumed(foreign_maps.read(tmp_path / "a.h5", "b"))


def damaged(data: bytes, where: int, byte: int, cut: int) -> tuple[bytes, bytes]:
    return data[: where % len(data)] + bytes([byte]) + data[where % len(data) + 1 :], data[: cut % len(data)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("data", "name"), [(NEXUS, "a.h5"), (IMAGEJ, "a.tif"), (PAGES, "b.tif")])
@settings(max_examples=80)
@given(where=st.integers(0, 1 << 20), byte=st.integers(0, 255), cut=st.integers(0, 1 << 20))
def test_one_wrong_byte_or_a_cut_never_crashes(put, data: bytes, name: str, where: int, byte: int, cut: int):
    for part in damaged(data, where, byte, cut):
        try:
            consumed(foreign_maps.read(put(part, name)))
        except FileError:
            continue


@settings(max_examples=80)
@given(
    where=st.integers(0, 1 << 20), byte=st.integers(0, 255), cut=st.integers(0, 1 << 20), binary=st.booleans()
)
def test_damaged_mass_spectra(tmp_path, where: int, byte: int, cut: int, binary: bool):
    path = write_imzml(tmp_path / "map.imzML", SPECTRA)
    target = path.with_suffix(".ibd") if binary else path
    good = target.read_bytes()
    for part in damaged(good, where, byte, cut):
        target.write_bytes(part)
        try:
            consumed(imzml.read(path))
        except FileError:
            continue


# --- vendor files (RosettaSciIO, GPL data) ---------------------------------------------------------------


def test_without_the_extra_it_is_named(put, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyimzml.ImzMLParser", None)
    monkeypatch.setattr(vendor_maps, "find_spec", lambda name: None)
    with pytest.raises(FileError, match=r"operando\[vendor-maps\]"):
        vendor_maps.read(put(b"AAMVHFSS" + b"\0" * 100, "a.bcf"))
    with pytest.raises(FileError, match=r"operando\[maps\]"):
        imzml.read(need("maps/pyimzml.imzML", "imzML of another program"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "total", "shape"),
    [("eds_p45_75x100.bcf", 165_941, (75, 100, 2048)), ("jeol_stem_512.pts", 308_261, (512, 512, 4096))],
)
def test_vendor_maps(name: str, total: int, shape: tuple[int, int, int]):
    found = vendor_maps.read(need(f"xrf/{name}", "vendor map", GPL))
    assert (found.ny, found.nx, found.n_channels) == shape
    assert consumed(found) == total


def test_damaged_vendor_maps(put):
    """The first one ends the decoder itself with a segmentation fault (RosettaSciIO 0.15.0)."""
    good = need("xrf/eds_p45_75x100.bcf", "damaged vendor map", GPL).read_bytes()
    wrong = bytearray(good)
    rng = np.random.default_rng(4)
    for place in rng.integers(8, len(good), 2000):
        wrong[place] = int(rng.integers(256))
    for part in (bytes(wrong), good[: len(good) // 2]):
        with pytest.raises(FileError, match=r"a whole \.bcf file"):
            consumed(vendor_maps.read(put(part, "a.bcf")))
