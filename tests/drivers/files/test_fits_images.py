"""FITS images: what astropy wrote, all forms that are read by hand-made files, and wrong or hostile ones."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from drivers.files import fits_images, images
from drivers.files.errors import FileError
from tests.data_sets import need

IMAGE = np.arange(5 * 7).reshape(5, 7)
KINDS = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


def hdu(
    stored: np.ndarray | None = None, bitpix: int = 16, first: str = "SIMPLE  = T", **cards: object
) -> bytes:
    """Return one HDU as the standard has it: cards of 80 characters, blocks of 2880 bytes."""
    lines = [first, f"BITPIX  = {bitpix}"]
    shape = () if stored is None else stored.shape[::-1]
    lines += [f"NAXIS   = {len(shape)}"] + [f"NAXIS{k + 1}  = {n}" for k, n in enumerate(shape)]
    lines = [line for line in lines if line.split()[0] not in cards]
    lines += [f"{key:8}= {value} / a comment" for key, value in cards.items()] + ["END"]
    header = "".join(line.ljust(80) for line in lines).encode()
    data = b"" if stored is None else stored.astype(KINDS[bitpix]).tobytes()
    return header.ljust(-(-len(header) // 2880) * 2880) + data.ljust(-(-len(data) // 2880) * 2880, b"\0")


def all_frames(path) -> list[np.ndarray]:
    return list(images.read(path).frames())


def test_what_astropy_wrote():
    """Two exposures of unsigned numbers, in the primary array and in an extension, a table between them."""
    recorded = images.read(need("fits/astropy_two_exposures.fits", "FITS of another program"))
    first, second = recorded.frames()
    assert (recorded.ny, recorded.nx, recorded.n_frames, recorded.full_adu) == (6, 10, 2, 65535)
    wanted = (np.arange(60).reshape(6, 10) * 1100 + 5).astype(np.uint16)
    assert first.dtype == second.dtype == np.uint16
    assert np.array_equal(first, wanted)
    assert np.array_equal(second, wanted[::-1, ::-1])


@pytest.mark.parametrize("bitpix", KINDS)
def test_every_word_length(put, bitpix):
    values = IMAGE - (0 if bitpix == 8 else 17)
    (frame,) = all_frames(put(hdu(values, bitpix)))
    assert np.array_equal(frame, values)
    assert np.issubdtype(frame.dtype, np.integer)
    assert frame.dtype.isnative


@pytest.mark.parametrize(
    ("bitpix", "zero", "full"), [(16, "32768", 65535), (32, "2147483648.", 2**32 - 1), (8, "-128", 127)]
)
def test_a_zero_level_is_added(put, bitpix, zero, full):
    path = put(hdu(IMAGE, bitpix, BZERO=zero, BSCALE="1.0D0"))
    (frame,) = all_frames(path)
    assert np.array_equal(frame.astype(np.int64), IMAGE + int(float(zero)))
    assert images.read(path).full_adu == full


def test_planes_and_extensions_are_exposures(put):
    cube = np.stack([IMAGE, IMAGE + 1])
    extension = hdu(IMAGE + 2, first="XTENSION= 'IMAGE   '", PCOUNT=0, GCOUNT=1)
    frames = all_frames(put(hdu(cube) + extension))
    assert [int(frame[0, 0]) for frame in frames] == [0, 1, 2]
    assert [int(f[0, 0]) for f in all_frames(put(hdu() + extension + b"\0" * 2880))] == [2]  # padded files


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (hdu(IMAGE)[:2940], "a cut-off file"),
        (hdu(IMAGE)[:1000], "a header of whole blocks"),
        (hdu(IMAGE, NAXIS2=10**9), "a cut-off file"),
        (hdu(IMAGE, NAXIS1=-3), "axes that are not negative"),
        (hdu(IMAGE, NAXIS=10**6), "0 to 999"),
        (hdu(IMAGE, NAXIS="two"), "a whole number"),
        (hdu(IMAGE, NAXIS1="1e400"), "a whole number"),
        (hdu(IMAGE, BITPIX=12), "8, 16, 32, 64, -32 or -64"),
        (hdu(IMAGE, BSCALE=0.5), "a whole number"),
        (hdu(IMAGE, BSCALE=2), r"1 \(whole ADU\)"),
        (hdu(IMAGE, BZERO=0.5), "a whole number"),
        (hdu(IMAGE, BLANK=3), "a value in every pixel"),
        (hdu(IMAGE * 0.5, -32), "not their average"),
        (hdu(np.full((2, 2), np.nan), -64), "not their average"),
        (hdu(), "an image of two or three axes, found none"),
        (hdu(np.zeros((2, 2, 2, 2))), "two or three axes"),
        (hdu(np.zeros(4)), "two or three axes"),
        (hdu(IMAGE) + hdu(IMAGE[:-1], first="XTENSION= 'IMAGE   '", PCOUNT=0, GCOUNT=1), "like the first"),
        (hdu(IMAGE) + b"rubbish".ljust(2880), "SIMPLE or XTENSION"),
        (hdu(IMAGE, GROUPS="T"), "random groups"),
        (hdu() + hdu(IMAGE, 8, "XTENSION= 'BINTABLE'", ZIMAGE="T", PCOUNT=0, GCOUNT=1), "funpack"),
        (hdu() + hdu(IMAGE, first="XTENSION= 'IMAGE   '", PCOUNT=-9, GCOUNT=1), "not negative"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_so(put, data, expected):
    with pytest.raises(FileError, match=expected):
        all_frames(put(data, "wrong.fits"))


def test_a_header_without_end_and_a_file_of_headers_are_bounded(put, monkeypatch):
    endless = b"SIMPLE  = T".ljust(80) + b"COMMENT".ljust(80) * (36 * 300)
    with pytest.raises(FileError, match="at most 256 blocks"):
        images.read(put(endless.ljust(-(-len(endless) // 2880) * 2880)))
    monkeypatch.setattr(fits_images, "MAX_HDUS", 3)
    with pytest.raises(FileError, match="at most 3 headers"):
        images.read(put(hdu() + hdu(first="XTENSION= 'IMAGE   '") * 3))


def test_one_exposure_at_a_time_is_in_memory(put):
    path = put(hdu(np.zeros((40, 256, 256))))
    tracemalloc.start()
    for frame in images.read(path).frames():
        assert frame.shape == (256, 256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 256 * 256 * 2
