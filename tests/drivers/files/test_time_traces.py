"""Time traces: the measured ones, gaps, plain tables with two lines, and files that are wrong or hostile."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.files import time_traces, time_traces_npz
from drivers.files.errors import FileError
from drivers.files.time_traces import RecordedTrace
from tests.data_sets import GPL, need, reference

REFERENCE = reference("spicp")
AGILENT = (
    b"Batch au.d\r\nIntensity Vs Time,Counts\r\nAcquired : today\r\nTime [Sec],Au197\r\n"
    b"0.0210,1.00\r\n0.0211,29.32\r\n0.0212,3.00\r\n\r\n\r\n          Printed:today\r\n"
)
TOFWERK = b"Index,timestamp (s),[197Au]+ (cts)\n0,0,0.5\n1,0.001,0\n4,0.004,3.25\n5,0.005,0\n"
PLAIN = b"time_ms,Li,Mn\n0.0,3,7\n0.1,4,\n0.2,nan,9\n0.3,1,2\n0.7,5,6\n"


def samples(trace: RecordedTrace) -> tuple[list[int], np.ndarray]:
    blocks = list(trace.blocks())
    numbers = [block.first + k for block in blocks for k in range(block.samples.shape[1])]
    return numbers, np.concatenate([block.samples for block in blocks], axis=1)


@pytest.mark.parametrize("name", [n for n in REFERENCE if n.endswith(".csv")])
def test_the_measured_csv_traces(name: str):
    theirs = REFERENCE[name]
    trace = time_traces.read(need(f"spicp/{name}", "samples, gaps", GPL))
    numbers, values = samples(trace)
    assert len(numbers) == theirs["samples"]
    if "dwell_s" in theirs:
        assert trace.dwell_s == pytest.approx(theirs["dwell_s"], rel=2e-4)
    if "missing_indices" in theirs:
        assert sorted(set(range(numbers[-1])) - set(numbers)) == theirs["missing_indices"]
        assert float(values.mean()) == pytest.approx(theirs["mean_counts"], abs=1e-4)
        assert float(values.max()) == pytest.approx(theirs["max_counts"], abs=1e-3)
    else:
        assert numbers == list(range(len(numbers)))


def test_the_measured_archive():
    trace = time_traces_npz.read(need("spicp/au50nm_long.npz", "samples", GPL))
    assert len(samples(trace)[0]) == REFERENCE["au50nm_long.npz"]["samples"]
    assert trace.dwell_s is None


def test_agilent_names_dwell_and_the_remark_at_the_end(put):
    trace = time_traces.read(put(AGILENT))
    assert trace.lines == ("Au197",)
    assert trace.dwell_s == pytest.approx(1e-4)
    numbers, values = samples(trace)
    assert numbers == [0, 1, 2]
    assert values.tolist() == [[1.0, 29.32, 3.0]]
    assert any("rounded" in note for note in trace.notes)


def test_a_missing_index_is_a_gap_and_never_a_zero(put):
    trace = time_traces.read(put(TOFWERK))
    assert trace.lines == ("[197Au]+",)
    assert samples(trace)[0] == [0, 1, 4, 5]


def test_two_lines_gaps_in_time_and_missing_cells(put):
    trace = time_traces.read(put(PLAIN))
    assert trace.lines == ("Li", "Mn")
    numbers, values = samples(trace)
    assert numbers == [0, 1, 2, 3, 7]
    assert np.isnan(values[1, 1])
    assert np.isnan(values[0, 2])
    assert values[0, 4] == 5


def test_stamps_coarser_than_the_dwell_time(put):
    """0.05 ms written with four decimals: every other step is zero."""
    rows = "".join(f"{k * 5e-5:.4f},1\n" for k in range(60))
    trace = time_traces.read(put(("Time [Sec],Li\n" + rows).encode()))
    assert trace.dwell_s == pytest.approx(5e-5, rel=0.02)
    assert samples(trace)[0] == list(range(60))


def test_one_column_without_header_and_other_delimiters(put):
    assert samples(time_traces.read(put(b"1\n2\n3\n")))[1].tolist() == [[1, 2, 3]]
    assert time_traces.read(put(b"Li;Mn\n1;2\n3;4\n")).lines == ("Li", "Mn")
    assert time_traces.read(put(b"Li\tMn\n1\t2\n3\t4\n")).lines == ("Li", "Mn")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"hello\nworld\n", "rows of numbers"),
        (b"a,b\n1,2\n3\n", "2 columns"),
        (b"a,b\n1,2\n3,x\n", "a number"),
        (b"a,b\n1,2\n3,inf\n", "finite"),
        (b"a,b\n1,2\n3,1e13\n", "a sample below"),
        (b"Li,Li\n1,2\n", "different lines"),
        (b"Index,Li\n3,1\n2,1\n", "rising whole index"),
        (b"Index,Li\n0.5,1\n1,1\n", "rising whole index"),
        (b"time (s),Li\n0,1\n1,1\n2,1\n0.5,1\n", "rising time"),
        (b"a\n1\n\x002\n", "NUL"),
        (b"1," * 3000 + b"1\n", "characters"),
        (b",".join([b"1"] * 70) + b"\n", "at most 64 columns"),
    ],
)
def test_wrong_files_are_named(put, data: bytes, expected: str):
    path = put(data)
    with pytest.raises(FileError, match="expected") as caught:
        list(time_traces.read(path).blocks())
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)


def test_a_folder_is_no_trace(tmp_path):
    with pytest.raises(FileError, match="regular file"):
        time_traces.read(tmp_path)


def test_a_line_without_end_does_not_fill_the_memory(put):
    path = put(b"Li\n1\n2\n" + b"7" * (40 << 20))
    tracemalloc.start()
    with pytest.raises(FileError, match="characters"):
        list(time_traces.read(path).blocks())
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_blocks_stay_small(put):
    path = put(b"Li\n" + b"1\n" * 200_000)
    blocks = [block.samples.shape[1] for block in time_traces.read(path).blocks()]
    assert sum(blocks) == 200_000
    assert max(blocks) <= time_traces.BLOCK_ROWS


@pytest.mark.parametrize("good", [AGILENT, TOFWERK, PLAIN])
@given(data=st.data())
def test_one_wrong_byte_or_a_cut_never_crashes(put, good: bytes, data):
    where, byte = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    for changed in (good[:where] + bytes([byte]) + good[where + 1 :], good[:cut]):
        try:
            numbers, values = samples(time_traces.read(put(changed)))
        except FileError:
            continue
        assert len(numbers) == values.shape[1]
        assert np.all(np.diff(numbers) > 0)


@given(text=st.text(max_size=300))
def test_any_text_is_read_or_refused(put, text: str):
    try:
        numbers, _ = samples(time_traces.read(put(text.encode("utf-8"))))
    except FileError:
        return
    assert np.all(np.diff(numbers) > 0)


def npz(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


GOOD = npz(Li=np.array([1, 2, 3], np.uint16), Mn=np.array([4.0, np.nan, 6.0]), dwell_s=1e-4)


def test_an_archive_of_two_lines(put):
    trace = time_traces_npz.read(put(GOOD))
    assert (trace.lines, trace.dwell_s) == (("Li", "Mn"), 1e-4)
    assert np.isnan(samples(trace)[1][1, 1])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (npz(Li=np.zeros((2, 2))), "one column"),
        (npz(Li=np.zeros(2), Mn=np.zeros(3)), "one length"),
        (npz(dwell_s=1.0), "one length"),
        (npz(Li=np.zeros(2), dwell_s=-1.0), "dwell time"),
        (npz(Li=np.array([np.inf, 1.0])), "samples below"),
        (npz(Li=np.array(["a"])), "numbers"),
        (b"PK\x03\x04", "archive"),
    ],
)
def test_wrong_archives_are_named(put, data: bytes, expected: str):
    with pytest.raises(FileError) as caught:
        time_traces_npz.read(put(data))
    assert expected in str(caught.value)


@given(where=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255), cut=st.integers(0, len(GOOD)))
def test_a_damaged_archive_never_crashes(put, where: int, byte: int, cut: int):
    for data in (GOOD[:where] + bytes([byte]) + GOOD[where + 1 :], GOOD[:cut]):
        try:
            assert time_traces_npz.read(put(data)).lines
        except FileError:
            continue
