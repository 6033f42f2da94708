"""Impedance sweeps: the measured ones against their neutral exports, own exports, and wrong files."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.offline.export import EIS_COLUMNS
from drivers.files import impedance_sweeps
from drivers.files.errors import FileError
from tests.data_sets import CLONED, reference

REFERENCE = reference("eis")
FILES = {
    "gamry_example": "gamry_example.DTA", "liion_cell_example": "liion_cell_example.csv",
    "test_circuit_1": "test_circuit_1.z", "test_circuit_2": "test_circuit_2.z",
}  # fmt: skip
GAMRY = (
    b"EXPLAIN\nTAG\tEISPOT\nNOTES\t-50mV \xd710\nZCURVE\tTABLE\n\tPt\tTime\tFreq\tZreal\tZimag\n"
    b"\t#\ts\tHz\tohm\tohm\n\t0\t1\t1000\t5.0\t-1.0\n\t1\t2\t100\t6\t-2\n\t2\t3\t10\t7\t-3\nEND\tX\n"
)
ZPLOT = b"ZPLOT2 ASCII\n  Date: today\nEnd Comments\n" + b"".join(
    b"%d 0.01 0 1.5 %d -3 0 0 4\n" % (f, r) for f, r in ((1000, 5), (100, 6), (10, 7))
)
CSV = b"frequency_Hz,Z_real_ohm,Z_imag_ohm\n1000,5,-1\n100,6,-2\n10,7,-3\n"


@pytest.mark.parametrize("name", FILES)
def test_the_measured_sweeps_equal_their_neutral_exports(name: str):
    (sweep,) = impedance_sweeps.read(CLONED / "eis" / FILES[name])
    neutral = np.loadtxt(CLONED / "eis" / f"{name}_fz.csv", delimiter=",", skiprows=1)
    assert sweep.frequency_hz == pytest.approx(neutral[:, 0], rel=1e-6)
    assert sweep.z_ohm.real == pytest.approx(neutral[:, 1], rel=1e-6)
    assert sweep.z_ohm.imag == pytest.approx(neutral[:, 2], rel=1e-6)
    theirs = REFERENCE[name]
    assert sweep.frequency_hz.size == theirs["points"]
    assert sweep.frequency_hz[[0, -1]] == pytest.approx([theirs["f_max_Hz"], theirs["f_min_Hz"]], rel=1e-5)
    assert sweep.z_ohm[0] == pytest.approx(complex(*theirs["Z_at_fmax"]), rel=1e-6)
    assert sweep.z_ohm[-1] == pytest.approx(complex(*theirs["Z_at_fmin"]), rel=1e-6)


@pytest.mark.parametrize("data", [GAMRY, ZPLOT, CSV, CSV.split(b"\n", 1)[1], CSV.replace(b",", b";")])
def test_every_format_in_small(put, data: bytes):
    (sweep,) = impedance_sweeps.read(put(data))
    assert sweep.frequency_hz.tolist() == [1000, 100, 10]
    assert sweep.z_ohm.real.tolist() == [5, 6, 7]


def test_the_impedance_of_our_own_runs_is_cut_into_sweeps(put):
    rows = [f"{t},{f},{5 + t / 1000},{-1 - t / 1000}" for t in (0, 1000) for f in (1e4, 1e3, 1e2, 10.0, 1.0)]
    text = "\n".join([",".join(EIS_COLUMNS), *rows])
    first, second = impedance_sweeps.read(put(text.encode()))
    assert (first.number, second.number) == (1, 2)
    assert (first.time_s, second.time_s) == (0.0, 1000.0)
    assert second.z_ohm.real.tolist() == [6.0] * 5
    rising = "\n".join([",".join(EIS_COLUMNS), *rows[4::-1], *rows[:4:-1]])
    assert len(impedance_sweeps.read(put(rising.encode()))) == 2


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"hello\n", "rows of numbers"),
        (GAMRY.replace(b"ZCURVE", b"OCV"), "ZCURVE"),
        (GAMRY.replace(b"Zreal", b"Z"), "Zreal"),
        (GAMRY.split(b"\t1\t2")[0], "3 to 100000 points"),
        (ZPLOT.replace(b"End", b""), "End Comments"),
        (CSV.replace(b"Z_imag", b"phase"), "columns frequency"),
        (CSV.replace(b"7,-3", b"7,x"), "a number"),
        (CSV.replace(b"7,-3", b"0,0"), "an impedance"),
        (CSV.replace(b"\n10,", b"\n-10,"), "a frequency"),
        (CSV + b"1,2\n", "3 columns"),
        (b"\0\0\0", "NUL"),
    ],
)
def test_wrong_files_are_named(put, data: bytes, expected: str):
    path = put(data)
    with pytest.raises(FileError) as caught:
        impedance_sweeps.read(path)
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize("good", [GAMRY, ZPLOT, CSV])
@given(data=st.data())
def test_one_wrong_byte_or_a_cut_never_crashes(put, good: bytes, data):
    where, byte = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    for changed in (good[:where] + bytes([byte]) + good[where + 1 :], good[:cut]):
        try:
            sweeps = impedance_sweeps.read(put(changed))
        except FileError:
            continue
        for sweep in sweeps:
            assert np.all(np.diff(sweep.frequency_hz) <= 0)
            assert np.isfinite(sweep.z_ohm).all()


@given(text=st.text(max_size=300))
def test_any_text_is_read_or_refused(put, text: str):
    with contextlib.suppress(FileError):
        assert impedance_sweeps.read(put(text.encode("utf-8")))
