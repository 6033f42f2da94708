"""HEXITEC files: what they hold, and files that are wrong, hostile, cut off or far too large."""

from __future__ import annotations

import contextlib
import gzip
import io
import struct
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.files import hexitec_calibration, hexitec_frames, hexitec_hits, hexitec_hxt
from drivers.files.errors import FileError
from tests.data_sets import need, reference

STREAM = need("hexitec/raw_80x80_first_frames.dat", "decoding").read_bytes()


def frame_words(number: int, adu: np.ndarray) -> np.ndarray:
    """One frame of the flight stream, as described in the README of the data."""
    rows = np.zeros((80, 89), "<u4")
    rows[:, 0] = np.arange(80) | 0x100
    rows[:, 1:9] = np.tile([63, 16383], 4)
    rows[:, 9:] = adu
    return np.concatenate([[0xFE6B, 0, 0, number], rows.ravel(), [0xFADE]]).astype("<u4")


def hxt(counts: np.ndarray, *, version: int = 3, low: float = 0.0, width: float = 0.25) -> bytes:
    """Write a histogram file by the layout of the control software."""
    (ny, nx, bins), prefix = counts.shape, b"run7"
    head = b"HEXITECH" + struct.pack("<Q9ii", version, *range(9), len(prefix))
    if version == 3:
        head += prefix.ljust(100, b"\0") + b"120102_1303".ljust(16, b"\0")
    else:
        head += prefix + b"120102_130301"
    edges = low + width * np.arange(bins)
    return (
        head
        + struct.pack("<3I", ny, nx, bins)
        + edges.astype("<f8").tobytes()
        + counts.astype("<f8").tobytes()
    )


def hdf5(**datasets: object) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, values in datasets.items():
            file[name] = values
    return buffer.getvalue()


def npz(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


COUNTS = np.random.default_rng(1).poisson(2.0, (3, 4, 5))
HXT = hxt(COUNTS)
ADU = np.random.default_rng(2).integers(0, 65536, (7, 6, 5)).astype(np.uint16)
HDF5 = hdf5(raw_frames=ADU)
CALIBRATION = npz(gain_keV_per_ADU=np.array([[0.02, 0.0], [0.03, 0.027]]), offset_keV=np.ones((2, 2)))
YAML = b"""--- #frame data
meta_data:
  npixels_x: 4
  npixels_y: 3
frame_data:
  - [[1, 22], [5, 18.5], [
    11, 3]]

  - []
  - [[0, 7]]
... #end
"""


def all_frames(recording: hexitec_frames.FrameRecording) -> np.ndarray:
    blocks = list(recording.blocks(0, None))
    assert [first for first, _ in blocks] == list(np.cumsum([0] + [b.shape[0] for _, b in blocks])[:-1])
    return np.concatenate([frames for _, frames in blocks])


def test_the_first_measured_frames(put):
    recording = hexitec_frames.read(put(STREAM))
    assert (recording.kind, recording.n_frames, recording.ny, recording.nx) == ("flight stream", 6, 80, 80)
    assert recording.notes == ("a last frame of 8700 of 28500 bytes was left out",)
    words = np.frombuffer(STREAM, "<u4")
    assert reference("hexitec")["raw_80x80_stream_hits.dat"]["words_per_frame"] == hexitec_frames.STREAM_WORDS
    by_hand = words[: 6 * 7125].reshape(6, 7125)[:, 4:-1].reshape(6, 80, 89)[:, :, 9:]
    assert np.array_equal(all_frames(recording), by_hand)


def test_a_stream_written_from_its_description(put):
    adu = np.random.default_rng(3).integers(0, 65536, (2, 80, 80))
    words = np.concatenate([frame_words(k, adu[k]) for k in range(2)])
    assert np.array_equal(all_frames(hexitec_frames.read(put(words.tobytes()))), adu)


def test_raw_frames_in_blocks_and_parts(put, monkeypatch):
    monkeypatch.setattr(hexitec_frames, "BLOCK_BYTES", 2 * 60)
    recording = hexitec_frames.read(put(ADU.astype("<u2").tobytes()), (6, 5))
    assert np.array_equal(all_frames(recording), ADU)
    assert len(list(recording.blocks(0, None))) == 4
    parts = [block for start, stop in ((0, 3), (3, 7)) for block in recording.blocks(start, stop)]
    assert np.array_equal(np.concatenate([b for _, b in parts]), ADU)
    assert [first for first, _ in parts] == [0, 2, 3, 5]


def test_hdf5_frames_by_name_or_by_form(put):
    assert np.array_equal(all_frames(hexitec_frames.read(put(HDF5))), ADU)
    assert np.array_equal(all_frames(hexitec_frames.read(put(hdf5(other=ADU, dark=ADU[0])))), ADU)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "a recording, found an empty file"),
        (b"123456789", "whole frames of 80 x 80 uint16 (12800 bytes each), found 9 bytes"),
        (STREAM[:20_000], "at least one frame of 28500 bytes, found 20000 bytes"),
        (HDF5[:700], "a whole HDF5 file"),
        (hdf5(a=ADU, b=ADU), "one dataset (frames, rows, columns) of uint16, found 2 of them"),
        (hdf5(raw_frames=ADU.astype(float)), "found 0 of them"),
        (hdf5(raw_frames=np.zeros((0, 4, 4), np.uint16)), "frames of 1 to 4096 rows and columns"),
    ],
)
def test_wrong_frames(put, data, expected):
    with pytest.raises(FileError) as failure:
        all_frames(hexitec_frames.read(put(data)))
    assert expected in str(failure.value)


DAMAGED = ((7125, 0xFE6C), (2 * 7125 - 1, 0), (7125 + 4 + 89, 7), (7125 + 20, 1 << 16))


@pytest.mark.parametrize(("at", "value"), DAMAGED)
def test_a_damaged_frame_is_named(put, at, value):
    words = np.frombuffer(STREAM, "<u4").copy()
    words[at] = value
    with pytest.raises(FileError, match=r"frame 1 \(byte 28500\)"):
        all_frames(hexitec_frames.read(put(words.tobytes())))


def test_a_large_file_is_read_in_little_memory(tmp_path):
    """200 000 frames of 80 x 80 (2.6 GB, sparse): the first blocks, and one from far inside."""
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        file.truncate(200_000 * 12_800)
    tracemalloc.start()
    recording = hexitec_frames.read(path)
    for count, (_, frames) in enumerate(recording.blocks(0, None)):
        assert not frames.any()
        if count == 20:
            break
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert recording.n_frames == 200_000
    assert peak < 20 << 20


@pytest.mark.parametrize("version", [2, 3])
def test_histograms(put, version):
    found = hexitec_hxt.read(put(hxt(COUNTS, version=version, low=1.0, width=0.5)))
    assert np.array_equal(found.counts, COUNTS)
    assert (found.low, found.width, found.prefix, found.version) == (1.0, 0.5, "run7", version)
    assert found.time_stamp.startswith("120102_1303")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"HEXITECX" + HXT[8:], "expected HEXITECH, found b'HEXITECX'"),
        (HXT[:40], "expected HEXITECH"),
        (hxt(COUNTS, version=4), "byte 8: expected version 2 or 3, found 4"),
        (HXT[:52] + struct.pack("<i", -1) + HXT[56:], "a prefix of 0 to 100 bytes, found -1"),
        (HXT[:-8], "bytes for 3 x 4 pixels of 5 bins"),
        (HXT + b"x", "bytes for 3 x 4 pixels of 5 bins"),
        (HXT[:172] + struct.pack("<3I", 1 << 31, 4, 5) + HXT[184:], "1 to 1024 rows and columns"),
        (hxt(COUNTS, width=-0.1), "finite edges at equal, ascending distances"),
        (hxt(COUNTS, low=np.nan), "finite edges at equal, ascending distances"),
        (hxt(COUNTS + 0.5), "row 0: expected whole counts, not negative"),
        (hxt(COUNTS - 9), "row 0: expected whole counts, not negative"),
    ],
)
def test_wrong_histograms(put, data, expected):
    with pytest.raises(FileError) as failure:
        hexitec_hxt.read(put(data))
    assert expected in str(failure.value)


def test_calibration_texts(put):
    gain = put(b"0.027\t0.0271\n\n0.0269, 0\n", "m.txt")
    offset = put(b"5.3 5.2\r\n5.1 0\r\n", "c.txt")
    m, c = hexitec_calibration.read_text(gain, offset)
    assert m[0].tolist() == [0.027, 0.0271]
    assert np.isnan(m[1, 1])
    assert np.isnan(c[1, 1])
    m, _ = hexitec_calibration.read_npz(put(CALIBRATION))
    assert np.isnan(m).tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"1 2\n3\n", "line 2: expected 2 numbers, as in the lines before, found 1"),
        (b"1 x\n", "line 1: expected a coefficient, a number, found 'x'"),
        (b"nan 1\n", "a finite number"),
        (b"\n\n", "rows of numbers, found none"),
        (b"\0\1", "a NUL byte"),
    ],
)
def test_wrong_calibration_texts(put, data, expected):
    with pytest.raises(FileError) as failure:
        hexitec_calibration.read_matrix(put(data))
    assert expected in str(failure.value)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (CALIBRATION[:-20], "a whole .npz archive"),
        (npz(gain_keV_per_ADU=np.ones((2, 2))), "arrays gain_keV_per_ADU and offset_keV"),
        (npz(gain_keV_per_ADU=np.ones((2, 2)), offset_keV=np.ones((2, 3))), "of one shape"),
        (npz(gain_keV_per_ADU=np.zeros((2, 2)), offset_keV=np.ones((2, 2))), "at least one calibrated pixel"),
        (npz(gain_keV_per_ADU=-np.ones((2, 2)), offset_keV=np.ones((2, 2))), "gains not negative"),
    ],
)
def test_wrong_calibration_archives(put, data, expected):
    with pytest.raises(FileError) as failure:
        hexitec_calibration.read_npz(put(data))
    assert expected in str(failure.value)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_hit_lists(put, pack):
    ny, nx, frames = hexitec_hits.read(put(pack(YAML)))
    assert (ny, nx) == (3, 4)
    assert [(p.tolist(), e.tolist()) for p, e in frames] == [
        ([1, 5, 11], [22.0, 18.5, 3.0]), ([], []), ([0], [7.0]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"[0, 7]", b"[12, 7]", "pixels below 12, found 12"),
        (b"[0, 7]", b"[0, 7, 1]", "a frame: [[index, energy], ...]"),
        (b"[0, 7]", b"[0, !x]", "a frame: [[index, energy], ...]"),
        (b"[0, 7]", b"[0, 1e999]", "finite energies"),
        (b"[0, 7]", b"[0.5, 7]", "a frame: [[index, energy], ...]"),
        (b"[0, 7]", b"[0, 7], [0, 8]", "every pixel once"),
        (b"[[0, 7]]", b"[[0, 7]", "whole frames under frame_data"),
        (b"  - [[0, 7]]", b"  [[0, 7]]", "a frame that begins with '- [['"),
        (b"npixels_x: 4", b"npixels_x: 0", "1 to 4096 rows and columns"),
        (b"frame_data", b"frames", "whole frames under frame_data"),
    ],
)
def test_wrong_hit_lists(put, old, new, expected):
    with pytest.raises(FileError) as failure:
        hexitec_hits.read(put(YAML.replace(old, new)))
    assert expected in str(failure.value)


def test_a_gzip_bomb_is_refused_in_little_memory(put, monkeypatch):
    monkeypatch.setattr(hexitec_hits, "MAX_TEXT_BYTES", 1 << 20)
    bomb = put(gzip.compress(b"npixels_x: 4\n" + b"x" * (64 << 20)))
    tracemalloc.start()
    with pytest.raises(FileError, match="at most 1048576 bytes"):
        hexitec_hits.read(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 << 20


READERS = {
    "stream": (STREAM[: 2 * 28_500], lambda path: all_frames(hexitec_frames.read(path))),
    "hdf5": (HDF5, lambda path: all_frames(hexitec_frames.read(path))),
    "hxt": (HXT, hexitec_hxt.read),
    "npz": (CALIBRATION, hexitec_calibration.read_npz),
    "text": (b"0.027 0.028\n0.026 0.027\n", hexitec_calibration.read_matrix),
    "hits": (YAML, hexitec_hits.read),
    "packed hits": (gzip.compress(YAML, mtime=0), hexitec_hits.read),
}


@pytest.mark.parametrize("kind", READERS)
@given(data=st.data())
def test_any_mutation_is_read_or_refused_with_one_error(put, kind, data):
    good, read = READERS[kind]
    raw = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
        if not raw:
            break
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    with contextlib.suppress(FileError):
        read(put(bytes(raw)))


def test_an_archive_that_declares_too_much(put):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999, 99999), }".ljust(117) + b"\n"
        for name in ("gain_keV_per_ADU", "offset_keV"):
            out.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header)
    with pytest.raises(FileError, match="cells"):
        hexitec_calibration.read_npz(put(buffer.getvalue()))
