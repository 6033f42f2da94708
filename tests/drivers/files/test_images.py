"""TIFF images: the measured ones, all forms that are read, and wrong, hostile or far too large ones."""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from drivers.files import images
from drivers.files.errors import FileError
from hil_tests.soak.fuzz_seeds import LZW_PIXELS
from tests.data_sets import need, reference

IMAGE = np.arange(12 * 17, dtype=np.uint16).reshape(12, 17) * 300


def tif(*pages: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as out:
        for page in pages:
            out.write(page, metadata=None, contiguous=False, **options)
    return buffer.getvalue()


def all_frames(path) -> list[np.ndarray]:
    return list(images.read(path).frames())


def test_the_measured_crop():
    recorded = images.read(need("neutron/crop_dc.tif", "dark"))
    (frame,) = recorded.frames()
    assert (recorded.ny, recorded.nx, recorded.n_frames, recorded.full_adu) == (290, 550, 1, 65535)
    assert np.median(frame) == reference("neutron")["stepwedge_20s"]["dark_median"]


def test_the_measured_dark():
    (frame,) = images.read(need("neutron/stepwedge_20s_dc.tif", "dark of the whole image")).frames()
    entry = reference("neutron")["stepwedge_20s"]
    assert list(frame.shape) == entry["image_shape"]
    assert np.median(frame) == entry["dark_median"]


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i2", "i4", "f4"])
@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zlib"}, {"rowsperstrip": 5}, {"rowsperstrip": 5, "compression": "zlib"},
     {"byteorder": ">"}],
)  # fmt: skip
def test_forms_that_are_read(put, dtype, options):
    image = (IMAGE % 251).astype(dtype)
    options = dict(options)
    order = options.pop("byteorder", "<")
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, byteorder=order) as out:
        out.write(image, metadata=None, **options)
    (frame,) = all_frames(put(buffer.getvalue()))
    assert np.array_equal(frame, image)
    assert np.issubdtype(frame.dtype, np.integer)


def test_pages_are_exposures(put):
    path = put(tif(IMAGE, IMAGE + 1, IMAGE + 2))
    assert images.read(path).n_frames == 3
    assert [int(frame[0, 0]) for frame in all_frames(path)] == [0, 1, 2]


def test_the_horizontal_predictor(put):
    """A file made by hand: differences of neighbouring pixels, modulo 2^16 (TIFF 6.0, section 14)."""
    wanted = np.array([[5, 3, 65535], [7, 7, 8]], np.uint16)
    stored = wanted.copy()
    stored[:, 1:] = wanted[:, 1:] - wanted[:, :-1]
    data = zlib.compress(stored.astype("<u2").tobytes())
    tags = [(256, 4, 3), (257, 4, 2), (258, 3, 16), (259, 3, 8), (262, 3, 1), (273, 4, 8), (277, 3, 1),
            (278, 4, 2), (279, 4, len(data)), (317, 3, 2)]  # fmt: skip
    ifd = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in tags)
    file = b"II*\0" + struct.pack("<I", 8 + len(data)) + data + ifd + b"\0\0\0\0"
    (frame,) = all_frames(put(file))
    assert np.array_equal(frame, wanted)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"no tiff at all", "a whole TIFF file"),
        (tif(IMAGE)[:-100], "strips inside the file"),
        (tif(np.zeros((4, 5, 3), np.uint8), photometric="rgb"), "one grey image per page"),
        (tif(IMAGE.astype(np.float64)), "8, 16 or 32 bit whole numbers"),
        (tif(IMAGE, IMAGE[:-1]), "12 x 17 pixels uint16 as on page 0"),
    ],
)
def test_what_cannot_be_read_says_so(put, data, expected):
    with pytest.raises(FileError, match=expected):
        all_frames(put(data, "wrong.tif"))


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "f4"])
@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"predictor": 2, "compression": "zlib"}, {"byteorder": ">"}]
)
def test_tiles_are_put_together(put, dtype, options):
    """12 x 17 pixels are one tile and a bit: what a tile holds beyond the image is left out."""
    if dtype == "f4" and "predictor" in options:
        options = options | {"predictor": 1}
    image = (np.arange(35 * 50).reshape(35, 50) * 7 % 251).astype(dtype)
    buffer, options = io.BytesIO(), dict(options)
    with tifffile.TiffWriter(buffer, byteorder=options.pop("byteorder", "<")) as out:
        for page in (image, image[::-1]):
            out.write(page, metadata=None, contiguous=False, tile=(16, 32), **options)
    first, second = all_frames(put(buffer.getvalue()))
    assert np.array_equal(first, image)
    assert np.array_equal(second, image[::-1])


def test_pages_of_different_tiles_are_refused(put):
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as out:
        out.write(np.zeros((32, 32), np.uint16), metadata=None, contiguous=False, tile=(16, 16))
        out.write(np.zeros((32, 32), np.uint16), metadata=None, contiguous=False, tile=(16, 32))
    with pytest.raises(FileError, match="size that page 0 has"):
        images.read(put(buffer.getvalue()))


def lzw_page(packed: bytes, compression: int = 5) -> bytes:
    """Return a page of 2 x 2 pixels of 16 bits, in one LZW strip."""
    tags = [(256, 4, 2), (257, 4, 2), (258, 3, 16), (259, 3, compression), (262, 3, 1), (273, 4, 8),
            (277, 3, 1), (278, 4, 2), (279, 4, len(packed))]  # fmt: skip
    ifd = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + ifd + b"\0\0\0\0"


def test_lzw_without_its_package_names_the_extra(put, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(FileError, match=r"pip install operando\[lzw\]"):
        images.read(put(lzw_page(LZW_PIXELS)))


def test_another_compression_is_refused(put):
    with pytest.raises(FileError, match="plain, zlib or LZW"):
        images.read(put(lzw_page(bytes(8), compression=7)))


def test_lzw_with_its_package(put):
    pytest.importorskip("imagecodecs", reason="the extra lzw is not installed")
    (frame,) = all_frames(put(lzw_page(LZW_PIXELS)))
    assert np.array_equal(frame, np.frombuffer(bytes(range(8)), "<u2").reshape(2, 2))
    tiles = all_frames(put(tif(IMAGE, compression="lzw", predictor=2, tile=(16, 16))))
    assert np.array_equal(tiles[0], IMAGE)


def test_lzw_that_unpacks_to_more_or_to_nothing_is_refused(put):
    codecs = pytest.importorskip("imagecodecs", reason="the extra lzw is not installed")
    path = put(lzw_page(codecs.lzw_encode(bytes(64 << 20))))
    tracemalloc.start()
    with pytest.raises(FileError, match="8 bytes of pixels"):
        all_frames(path)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    for broken in (b"\x80", b"\xff" * 50, LZW_PIXELS[:4]):
        with pytest.raises(FileError, match="pixels"):
            all_frames(put(lzw_page(broken)))


def test_fractions_are_refused(put):
    with pytest.raises(FileError, match="not their average"):
        all_frames(put(tif(np.full((4, 4), 0.5, np.float32))))


def test_an_empty_file_and_a_folder(put, tmp_path):
    with pytest.raises(FileError, match="an empty file"):
        images.read(put(b""))
    with pytest.raises(FileError, match="a regular file"):
        images.read(tmp_path)


def test_a_strip_that_unpacks_to_more_than_it_says_does_not_fill_the_memory(put):
    bomb = zlib.compress(bytes(64 << 20), 9)  # 64 kB that become 64 MB
    tags = [(256, 4, 4), (257, 4, 4), (258, 3, 16), (259, 3, 8), (262, 3, 1), (273, 4, 8), (277, 3, 1),
            (278, 4, 4), (279, 4, len(bomb))]  # fmt: skip
    ifd = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in tags)
    path = put(b"II*\0" + struct.pack("<I", 8 + len(bomb)) + bomb + ifd + b"\0\0\0\0")
    images.read(path)
    tracemalloc.start()
    with pytest.raises(FileError, match="32 bytes of pixels"):
        all_frames(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_mask_comes_back(tmp_path):
    bits = (IMAGE % 4).astype(np.uint8)
    images.write_mask(tmp_path / "mask.tif", bits, {"spot_sigma": 6.0})
    again, settings = images.read_mask(tmp_path / "mask.tif")
    assert np.array_equal(again, bits)
    assert settings == {"spot_sigma": 6.0}


def test_an_image_is_no_mask(put):
    with pytest.raises(FileError, match="one 8-bit page"):
        images.read_mask(put(tif(IMAGE)))


GOOD = tif(IMAGE, IMAGE, compression="zlib", rowsperstrip=5)


@given(st.data())
def test_any_damage_is_a_file_error_or_an_image(put, data):
    raw = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(raw)), st.integers(1, len(raw))))
    path = put(bytes(raw[:cut]))
    try:
        for frame in all_frames(path):
            assert frame.ndim == 2
    except FileError:
        pass
