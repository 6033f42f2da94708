"""Small valid files and messages for the fuzzers to start from, written from the published descriptions."""

from __future__ import annotations

import gzip
import io
import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from hil_tests.soak.runner import ROOT

DATA = ROOT / "tests" / "data"


def spe() -> list[bytes]:
    """ORTEC ASCII spectra: one value per line, and several."""
    head = ["$SPEC_ID:", "x", "$DATE_MEA:", "04/18/2014 12:08:01", "$MEAS_TIM:", "100 101", "$DATA:", "0 3"]
    tail = ["$MCA_CAL:", "3", "0.2 0.38 0.0 keV", "$ENER_FIT:", "0.0 0.38", "$ROI:", "0", ""]
    return ["\r\n".join([*head, "5", "0", "12", "7", *tail]).encode(), b"$DATA:\n0 3\n5. 0. 12. 7.\n"]


def lis() -> list[bytes]:
    """ORTEC list mode with an event, real and live time."""
    head = bytearray(256)
    struct.pack_into("<iid", head, 0, -13, 2, 45195.5)
    struct.pack_into("<B4sfff", head, 201, 1, b"keV", 0.0, 0.3657, 0.0)
    struct.pack_into("<i", head, 231, 8192)
    struct.pack_into("<ff", head, 239, 317.14, 300.0)
    words = (3 << 30 | 100 << 16 | 7, 2 << 30 | 2, 3 << 30 | 101 << 16 | 5, 1 << 30 | 3)
    return [bytes(head) + struct.pack("<4I", *words)]


def mca() -> list[bytes]:
    """APS text with two detectors."""
    lines = [
        "VERSION: 3.1", "ELEMENTS: 2", "DATE: Jan 30, 2013 15:25:17.766", "CHANNELS: 3",
        "REAL_TIME: 120.0 120.0", "LIVE_TIME: 96.5 96.5", "CAL_OFFSET: -0.01 -0.01",
        "CAL_SLOPE: 0.0146 0.0146", "CAL_QUAD: 0.0 0.0", 'ENVIRONMENT: x="1"', "DATA:",
        "0 1", "2 3", "4 5", "",
    ]  # fmt: skip
    return ["\n".join(lines).encode()]


def geopixe() -> list[bytes]:
    """Sparse pixel records of a map of 2 x 1 pixels."""
    table = {
        "Timestamp": "10/26/2022 at 10:55 am", "Dwell (mS)": 100.0, "Xres": 2, "Yres": 1, "Width (mm)": 0.57,
        "Height (mm)": 0.28, "Dets": 1, "Chan": 64, "Gain (eV)": 10.0,
    }  # fmt: skip
    text = json.dumps({"File Header": table}, indent="\t").encode()
    body = b"".join(
        struct.pack("<2sIHHHf", b"DP", 20, x, 0, 0, 10.0) + struct.pack("<HH", 5 + x, 2) for x in range(2)
    )
    return [struct.pack("<H", len(text)) + text + body]


def npz(**arrays: Any) -> bytes:
    """Return an archive."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def npz_maps() -> list[bytes]:
    """Return a dense map, events, and named planes."""
    counts = np.arange(2 * 2 * 3, dtype=np.uint16).reshape(2, 2, 3)
    column = np.array([0, 1, 1], np.uint16)
    return [
        npz(counts=counts), npz(y=column, x=column, channel=column), npz(Fe=np.ones((2, 2)), Cu=np.eye(2)),
        npz(volume=np.ones((2, 2, 2), np.uint8)),
    ]  # fmt: skip


def hexitec_frames() -> list[bytes]:
    """Return a raw frame, a flight stream of one frame, and frames in HDF5."""
    rows = b"".join(struct.pack("<89I", row, *[0] * 8, *range(80)) for row in range(80))
    stream = struct.pack("<4I", 0xFE6B, 0, 0, 0) + rows + struct.pack("<I", 0xFADE)
    frames = np.arange(2 * 4 * 4, dtype=np.uint16).reshape(2, 4, 4)
    return [stream, bytes(2 * 80 * 80), hdf5(raw_frames=frames)]


def hexitec_hxt() -> list[bytes]:
    """Return histograms of 1 x 2 pixels with 3 bins, versions 3 and 2."""
    table = struct.pack("<3I", 1, 2, 3) + struct.pack("<9d", 0.0, 0.5, 1.0, *range(6))
    head = struct.pack("<8sQ9ii", b"HEXITECH", 3, *[0] * 9, 4)
    old = struct.pack("<8sQ9ii", b"HEXITECH", 2, *[0] * 9, 4)
    return [
        head + b"abcd".ljust(100, b"\0") + b"2020010112000000" + table,
        old + b"abcd" + b"2020010112000" + table,
    ]


def volume() -> bytes:
    """Return a packed volume."""
    return npz(volume=np.ones((2, 2, 2), np.uint8))


def hexitec_npz() -> list[bytes]:
    """Return a calibration."""
    return [npz(**{"gain_keV_per_ADU": np.full((2, 2), 0.1), "offset_keV": np.zeros((2, 2))})]


def hit_lists() -> list[bytes]:
    """Parts of an exposure: one with five hits in three frames, one with nothing in it."""

    def part(frames: int, counts: list[int], pixels: list[int]) -> bytes:
        head = json.dumps({
            "exposure": "compton_0001_0001", "rows": 80, "columns": 80, "first": 0, "frames": frames,
            "hits": len(pixels),
        }).encode()  # fmt: skip
        arrays = struct.pack(f"<{frames}Q{frames}H", *range(7, 7 + frames), *counts)
        hits = struct.pack(f"<{2 * len(pixels)}H", *pixels, *(200 + p for p in range(len(pixels))))
        return b"OPHITS01" + struct.pack("<I", len(head)) + head + arrays + hits

    return [part(3, [2, 0, 3], [0, 81, 4, 5, 6399]), part(0, [], [])]


def hexitec_hits() -> list[bytes]:
    """Return a Timepix cluster list as YAML, packed and plain."""
    text = (
        b"npixels_x: 4\nnpixels_y: 4\nframe_data:\n  - [[5, 10.5], [6, 20]]\n  - [[1, 3.0],\n    [2, 4.0]]\n"
        b"next: 1\n"
    )
    return [gzip.compress(text, mtime=0), text]


def text_table(header: str, rows: Sequence[Sequence[float]], separator: str = ",") -> bytes:
    """Return a table with one row of names."""
    return "\n".join([header, *(separator.join(f"{v:g}" for v in row) for row in rows), ""]).encode()


def sweeps() -> list[bytes]:
    """Impedance: plain CSV, Gamry, ZPlot."""
    gamry = ["EXPLAIN", "TAG\tEISPOT", "ZCURVE\tTABLE"]
    gamry += ["\tPt\tTime\tFreq\tZreal\tZimag", "\t#\ts\tHz\tohm\tohm", "\t0\t1\t1000\t10.5\t-2.5"]
    gamry += ["\t1\t2\t100\t11\t-3", "\t2\t3\t10\t12\t-5"]
    zplot = [
        'ZPLOT2 ASCII, "1"',
        "Date: 1",
        "  End Comments",
        "1000,0,0,0,10,-2,0,0,0",
        "10,0,0,0,12,-5,0,0,0",
    ]
    rows = [(1000, 10, -2), (100, 11, -3), (10, 12, -5)]
    plain = text_table("frequency,real,imaginary", rows)
    return [plain, text_table("", rows).lstrip(), "\n".join(gamry).encode(), "\n".join(zplot).encode()]


def traces() -> list[bytes]:
    """Time traces of particle instruments."""
    rows = [(k * 1e-4, k % 3) for k in range(8)]
    numbered = [(k, *row) for k, row in enumerate(rows)]
    return [
        text_table("Time [Sec],Au197", rows), text_table("Index,timestamp (s),[197Au]+ (cts)", numbered)
    ]  # fmt: skip


def trace_npz() -> list[bytes]:
    """Return a packed time trace."""
    return [npz(counts=np.arange(5, dtype=np.uint16)), npz(Au197=np.arange(5.0), dwell_s=np.array(1e-4))]


def cycler() -> list[bytes]:
    """Cycler logs: Battery Data Format, Maccor, Neware."""
    records = [(0, 3.5, 0.1), (1, 3.6, 0.1), (2, 3.7, 0.0)]
    bdf = text_table("Test Time / s,Voltage / V,Current / A", records)
    maccor = (
        b"Today's Date\t01/01/2020\r\nRec#\tCyc#\tStep\tTest (Sec)\tStep (Sec)\tAmp-hr\tWatt-hr\tAmps\t"
        b"Volts\t"
        b"State\tES\tDPt Time\r\n1\t0\t1\t0.0\t0.0\t0\t0\t0\t3.5\tR\t1\t01/01/2020 10:00:00\r\n"
        b"2\t0\t2\t1.0\t1.0\t0.1\t0.1\t0.5\t3.6\tC\t1\t01/01/2020 10:00:01\r\n"
    )
    return [bdf, maccor]


def imzml() -> list[bytes]:
    """Return the XML of a raster of two spectra with three values each; ``IBD`` is the file beside it."""
    kinds = (("mzArray", "MS:1000514", "m/z array"), ("intensityArray", "MS:1000515", "intensity array"))
    groups = "".join(
        f'<referenceableParamGroup id="{name}">{_param(kind, text)}{_param("MS:1000521", "32-bit float")}'
        f"{_param('MS:1000576', 'no compression')}</referenceableParamGroup>"
        for name, kind, text in kinds
    )
    spectra = "".join(
        f'<spectrum id="s{k}" index="{k}"><scanList count="1"><scan>{_param("IMS:1000050", "x", k + 1)}'
        f'{_param("IMS:1000051", "y", 1)}</scan></scanList><binaryDataArrayList count="2">'
        f"{_array('mzArray', 16 + 24 * k)}{_array('intensityArray', 28 + 24 * k)}</binaryDataArrayList>"
        "</spectrum>"
        for k in range(2)
    )
    settings = f'<scanSettings id="a">{_param("IMS:1000046", "pixel size x", 50)}</scanSettings>'
    text = (
        '<?xml version="1.0"?><mzML xmlns="http://psi.hupo.org/ms/mzml" version="1.1"><fileDescription>'
        f"<fileContent>{_param('IMS:1000031', 'processed')}</fileContent></fileDescription>"
        f'<referenceableParamGroupList count="2">{groups}</referenceableParamGroupList>'
        f'<scanSettingsList count="1">{settings}</scanSettingsList><instrumentConfigurationList count="0"/>'
        f'<run id="r"><spectrumList count="2">{spectra}</spectrumList></run></mzML>'
    )
    return [text.encode()]


def _param(accession: str, name: str, value: object = "") -> str:
    return f'<cvParam cvRef="IMS" accession="{accession}" name="{name}" value="{value}"/>'


def _array(group: str, offset: int) -> str:
    place = _param("IMS:1000102", "offset", offset) + _param("IMS:1000103", "array length", 3)
    reference = f'<referenceableParamGroupRef ref="{group}"/>'
    return f'<binaryDataArray encodedLength="0">{reference}{place}</binaryDataArray>'


IBD = bytes(16) + struct.pack("<12f", *range(12))


def tiff() -> list[bytes]:
    """Return small stacks and pages, one tiled, one packed with LZW, written by hand (TIFF 6.0)."""
    return [_tiff(1), _tiff(2), _tiff(1, ">"), _tiff(1, tiled=True), _tiff(1, packed=LZW_PIXELS)]


def masks() -> list[bytes]:
    """Return a page of bytes with a description."""
    return [_tiff(1, bits=8)]


def _lzw(data: bytes) -> bytes:
    """Pack bytes as LZW without compressing them: 9-bit codes, clear 256 first, end 257 last."""
    bits = "".join(f"{code:09b}" for code in (256, *data, 257))
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


LZW_PIXELS = _lzw(bytes(range(8)))


def _tiff(pages: int, order: str = "<", bits: int = 16, *, tiled: bool = False, packed: bytes = b"") -> bytes:
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    side = 16 if tiled else 2  # a tile has at least 16 x 16 pixels
    pixels = packed or bytes(range(bits // 2)) if not tiled else bytes(side * side * bits // 8)
    for page in range(pages):
        entries = [
            (256, 4, 2),
            (257, 4, 2),
            (258, 3, bits),
            (259, 3, 5 if packed else 1),
            (262, 3, 1),
            (277, 3, 1),
        ]
        entries += [(322, 4, side), (323, 4, side)] if tiled else [(278, 4, 2)]
        at = len(out) + 2 + 12 * (len(entries) + 2) + 4
        entries += [(324 if tiled else 273, 4, at), (325 if tiled else 279, 4, len(pixels))]
        out += struct.pack(f"{order}H", len(entries))
        for tag, kind, value in sorted(entries):
            word = struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value)
            out += struct.pack(f"{order}HHI", tag, kind, 1) + word
        out += struct.pack(f"{order}I", at + len(pixels) if page + 1 < pages else 0)
        out += pixels
    return out


def fits() -> list[bytes]:
    """Return an image of unsigned numbers, one of three axes, and one in an extension (FITS 4.0)."""
    shape = ("BITPIX  =                   16", "NAXIS   =                    2",
             "NAXIS1  =                    3", "NAXIS2  =                    2")  # fmt: skip
    unsigned = ("BZERO   =                32768 / unsigned", "BSCALE  =                    1")
    cube = ("BITPIX  =                  -32", "NAXIS   =                    3",
            "NAXIS1  =                    2", "NAXIS2  =                    2",
            "NAXIS3  =                    2")  # fmt: skip
    plain, empty = "SIMPLE  =                    T", ("BITPIX  =                    8", "NAXIS   =      0")
    one = _hdu(struct.pack(">6h", *range(-3, 3)), plain, *shape, *unsigned)
    stack = _hdu(struct.pack(">8f", *range(8)), plain, *cube)
    extension = _hdu(
        bytes(12), "XTENSION= 'IMAGE   '           / image", *shape, "PCOUNT  = 0", "GCOUNT  = 1"
    )
    return [one, stack, _hdu(b"", plain, *empty, "EXTEND  = T") + extension]


def _hdu(data: bytes, *cards: str) -> bytes:
    header = "".join(card.ljust(80) for card in (*cards, "END")).encode()
    return header.ljust(-(-len(header) // 2880) * 2880) + data.ljust(-(-len(data) // 2880) * 2880, b"\0")


def hdf5(**datasets: Any) -> bytes:
    """Return an HDF5 file with datasets; a name may hold slashes."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, values in datasets.items():
            file.create_dataset(name.replace("__", "/"), data=values)
    return buffer.getvalue()


def hdf5_maps() -> list[bytes]:
    """Return a map as NeXus has it, tomograms, and frames."""
    import h5py

    buffer = io.BytesIO()
    cube = np.arange(8, dtype=np.uint16).reshape(2, 2, 2)
    tomogram = {
        "exchange__data": cube, "exchange__data_white": cube[:1], "exchange__data_dark": cube[:1] * 0,
        "exchange__theta": np.array([0.0, 90.0]),
    }  # fmt: skip
    with h5py.File(buffer, "w") as file:
        group = file.create_group("map")
        group.attrs["NX_class"], group.attrs["signal"] = "NXdata", "counts"
        group["counts"] = cube
        group["energy"] = np.array([1.0, 2.0])
    return [buffer.getvalue(), hdf5(**tomogram), hdf5(dataset=np.ones((3, 4, 4), np.uint16))]


def small_files(folder: str, *endings: str, most: int = 9000) -> list[bytes]:
    """Return the real measurements of a folder that are small enough to be changed byte by byte."""
    paths = sorted(path for path in (DATA / folder).glob("*") if path.suffix.lower() in endings)
    return [path.read_bytes() for path in paths if path.stat().st_size <= most]
