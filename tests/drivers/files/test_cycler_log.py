"""Cycling logs of Maccor, Neware and in Battery Data Format: measured ones, and wrong ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.files import cycler_log
from drivers.files.errors import FileError
from tests.data_sets import need, reference

HEAD = (
    "Today's Date:\t14 December 2020\tDate of Test:\t11 December 2020",
    "    Filename:\tcell 7\tTester Channel:\t1",
    "Rec# Cyc# Step TestTime StepTime Amp-hr Watt-hr Amps Volts State ES".replace(" ", "\t")
    + "\tDPt Time\tAux #1\t Units",
)
ROWS = (
    "1|0|1|  0d 00:00:0|  0d 00:00:0|0.00000|0.00000|0.00000|3.46250|R|0|12/11/2020 12:22:12|-2501.7| C  ",
    "2|0|2|  1d 02:00:5.5|  0d 00:00:0.05|0.1|0.2|0.50401|3.41627|D|0|12/12/2020 14:22:17|-2501.8| C",
    "3|1|3|  1d 02:01:0|  0d 00:00:10|0.30000|0.4|1.5|3.5|C|0|12/12/2020 14:23:12|-2501.8| C",
)
MACCOR = "".join(line + "\r\n" for line in (*HEAD, *(row.replace("|", "\t") for row in ROWS))).encode()
NEWARE = (
    b"DataPoint,Cycle Index,Step Index,Step Type,Time,Cumulative Time,"
    b"Current(mA),Voltage(V),Capacity(mAh),Date"
    b"\n1,1,1,Rest,00:00:00,00:00:00,0.0,2.9170,0,2022-05-18 16:27:52\n"
    b"2,1,2,CC DChg,00:01:00,144:02:18,-0.25,2.8,0.004,2022-05-18 16:28:52\n"
    b"3,1,3,CCCV_Chg,00:01:00,144:03:18,0.25,2.9,0.005,2022-05-18 16:29:52\n"
)
BDF = (
    b"Test Time / s,Voltage / V,Current / A,Cycle Count / 1,Step Index / 1,Surface Temperature T1 / degC\n"
    b"0,3.5,0,1,1,25.0\n1.5,3.6,0.5,1,2,\n3,3.4,-0.5,1,3,25.5\n"
)
PLAIN = b"time_s,current_A,voltage_V,Amp-hr,step,state\n0,0,3.4625,0,1,R\n5.05,-0.50401,3.41627,0,2,D\n"


def test_maccor_states_make_the_sign_and_days_count(put):
    log = cycler_log.read(put(MACCOR, "cell.txt"))
    assert (log.program, log.title, log.n) == ("Maccor", "cell 7", 3)
    assert log.current_a.tolist() == [0.0, -0.50401, 1.5]
    assert log.time_s.tolist() == [0.0, 93605.5, 93660.0]
    assert log.state.tolist() == [0, -1, 1]
    assert log.counter_ah is not None
    assert log.counter_ah.tolist() == [0.0, 0.1, 0.3]
    assert log.sensors["Aux #1 / C"].tolist() == [-2501.7, -2501.8, -2501.8]  # as recorded; judged in edge
    assert log.clock_s is not None
    assert np.diff(log.clock_s).tolist() == [93605.0, 55.0]
    assert log.current_resolution_a == pytest.approx(1e-5)


def test_neware_units_in_brackets_and_hours_beyond_a_day(put):
    log = cycler_log.read(put(NEWARE, "cell.csv"))
    assert log.program == "Neware"
    assert log.current_a.tolist() == [0.0, -0.25e-3, 0.25e-3]
    assert log.time_s.tolist() == [0.0, 518538.0, 518598.0]
    assert log.state.tolist() == [0, -1, 1]
    assert [log.controls[k] for k in log.control] == ["", "CC", "CCCV"]
    assert log.counter_ah is not None
    assert log.counter_ah.tolist() == pytest.approx([0.0, 4e-6, 5e-6])


@pytest.mark.parametrize(
    "names", [None, "test_time_second,voltage_volt,current_ampere,cycle_count,step_index,x"]
)
def test_battery_data_format_by_label_and_by_machine_name(put, names):
    data = BDF if names is None else names.encode() + b"\n" + BDF.split(b"\n", 1)[1]
    log = cycler_log.read(put(data, "cell.csv"))
    assert log.program == "Battery Data Format"
    assert log.current_a.tolist() == [0.0, 0.5, -0.5]
    assert log.state.tolist() == [0, 1, -1]
    assert log.step.tolist() == [1, 2, 3]
    if names is None:
        assert np.isnan(log.sensors["Surface Temperature T1 / degC"][1])


def test_the_plain_table(put):
    log = cycler_log.read(put(PLAIN, "cell.csv"))
    assert log.state.tolist() == [0, -1]
    assert log.counter_ah is not None


def test_the_measured_maccor_log_and_its_converted_table_agree():
    text = cycler_log.read(need("cycling/lg_m50_maccor_steps_1_to_6.txt", "first CC-CV charge"))
    table = cycler_log.read(need("cycling/lg_m50_0degC_rates.csv", "LG M50 capacities"))
    n = text.n
    assert n == 1347
    assert table.n == reference("cycling")["lg_m50_0degC_rates_maccor.txt"]["records"]
    assert np.allclose(text.time_s, table.time_s[:n], atol=0.006)
    assert np.array_equal(text.current_a, table.current_a[:n])
    assert np.array_equal(text.voltage_v, table.voltage_v[:n])
    assert np.array_equal(text.state, table.state[:n])


def test_the_whole_maccor_log():
    log = cycler_log.read(need("cycling/lg_m50_0degC_rates_maccor.txt", "whole Maccor log"))
    assert log.n == reference("cycling")["lg_m50_0degC_rates_maccor.txt"]["records"] == 6704
    assert len(log.sensors) == 16
    assert log.title == "M50_Validation_0deg_01"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"nothing known\n1,2,3\n", "a log of Maccor"),
        (MACCOR.replace(b"\tAmps\t", b"\tOther\t"), "columns Amps"),
        (MACCOR.replace(b"\tD\t0", b"\tX\t0"), "state C, D or R where a current flows, found 'X'"),
        (MACCOR.replace(b"0.50401", b"0.5O401"), "line 5: expected Amps, a number"),
        (MACCOR.replace(b"1.5\t3.5\tC", b"1.5"), "line 6: expected at least"),
        (b"\n".join(MACCOR.split(b"\n")[:3]) + b"\n", "at least one record"),
        (NEWARE.replace(b"2.8,", b"nan,"), "a finite number"),
        (NEWARE.replace(b"Voltage(V)", b"Other(V)"), "columns Voltage"),
        (NEWARE.replace(b",2,CC", b",2.5,CC"), "a whole number"),
        (BDF.replace(b"3.6", b""), "Voltage / V, a number"),
        (BDF.replace(b"3.6", b"3\0"), "a NUL byte"),
        (PLAIN + b"1," * 40_000 + b"\n", "at most 65536 characters"),
        (PLAIN + b"1," * 600 + b"\n", "at most 512 fields"),
    ],
)
def test_what_cannot_be_read_says_where(put, data, expected):
    with pytest.raises(FileError, match=expected):
        cycler_log.read(put(data, "wrong"))


@pytest.mark.parametrize("good", [MACCOR, NEWARE, BDF, PLAIN], ids=["maccor", "neware", "bdf", "plain"])
@given(data=st.data())
def test_any_damage_is_a_file_error_or_a_log(put, good, data):
    raw = bytearray(good)
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(raw)), st.integers(1, len(raw))))
    try:
        log = cycler_log.read(put(bytes(raw[:cut])))
    except FileError:
        return
    assert log.n == log.current_a.size == log.voltage_v.size == log.state.size > 0
    assert np.all(np.isfinite(log.current_a))
    assert np.all(np.isfinite(log.time_s))
