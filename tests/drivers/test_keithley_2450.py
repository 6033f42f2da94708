"""The 2450 on its socket: the bytes of its trigger model, and how a program ends without the host."""

import pytest

from drivers import keithley_2450
from drivers.errors import BadReply, OutOfRange, Refused
from drivers.keithley_2450 import Keithley2450
from drivers.roles import CcCv, CellEventKind, CellLimits, CellSample, ConstantCurrent, Eis

LIMITS = CellLimits(2.5, 4.05, 40e-6, 3.6, 60.0)
CHARGE = CcCv(13e-6, 4.0, 2e-6, LIMITS)
FINE = b'0,"No error;0,0,0"\n'
ASK = b":SYST:ERR?\n"
OFF = [
    (b":ABOR\n:OUTP:VOLT:SMOD HIMP\n:OUTP:CURR:SMOD HIMP\n:OUTP OFF\n:OUTP?\n", b"0\n"),
    (b":OUTP:VOLT:SMOD?\n", b"HIMP\n"),
    (b":OUTP:CURR:SMOD?\n", b"HIMP\n"),
    (ASK, FINE),
]
ON, LIMITED = 64 + 128 + 8, 32  # four-wire, output on, source read back


def group(*lines):
    return b"".join(line + b"\n" for line in lines) + ASK, FINE


AT_REST = [
    group(
        b":SOUR:FUNC CURR",
        b":SOUR:CURR:RANG 1E-08",
        b":SOUR:CURR 0",
        b":SOUR:CURR:VLIM 6",
        b':SENS:FUNC "VOLT"',
        b":SENS:VOLT:RANG 6",
    ),
    group(b":OUTP ON"),
    (b':READ? "defbuffer1",READ,SOUR,SOURSTAT,REL\n', b"3.913400E+00,0.000000E+00,200,0.000000000\n"),
    *OFF,
]
PREPARE = [
    *OFF,
    (b":SYST:LFR?\n", b"50\n"),
    (b"*LANG?\n", b"SCPI\n"),
    group(
        b"*CLS",
        b":FORM:DATA ASC",
        b":SENS:VOLT:RSEN ON",
        b":SENS:CURR:RSEN ON",
        b":SENS:VOLT:NPLC 1",
        b":SENS:CURR:NPLC 1",
        b":SENS:VOLT:AVER OFF",
        b":SENS:CURR:AVER OFF",
        b":SENS:COUN 1",
    ),
    group(b":SOUR:VOLT:READ:BACK ON", b":SOUR:CURR:READ:BACK ON"),
    (b":SENS:VOLT:RSEN?\n", b"1\n"),
    (b":SENS:CURR:RSEN?\n", b"1\n"),
    *AT_REST,
]
BEGIN = [
    group(
        b":SOUR:FUNC VOLT",
        b":SOUR:VOLT:RANG 4",
        b":SOUR:VOLT 4",
        b':SENS:FUNC "CURR"',
        b":SENS:CURR:RANG 0.0001",
        b":SOUR:VOLT:ILIM 1.3E-05",
    ),
    (b":SOUR:VOLT?\n", b"4.000000E+00\n"),
    (b":SOUR:VOLT:ILIM?\n", b"1.300000E-05\n"),
]
MODEL = group(
    b':TRIG:LOAD "EMPTY"',
    b':TRIG:BLOC:BUFF:CLE 1,"defbuffer1"',
    b":TRIG:BLOC:SOUR:STAT 2,ON",
    b":TRIG:BLOC:DEL:CONS 3,0.96",
    b':TRIG:BLOC:MEAS 4,"defbuffer1",1',
    b":TRIG:BLOC:BRAN:LIM:CONS 5,OUT,-1.43E-05,1.43E-05,13,4",
    b":TRIG:BLOC:BRAN:COUN 6,61,8",
    b":TRIG:BLOC:BRAN:ALW 7,13",
    b":TRIG:BLOC:BRAN:EVEN 8,COMM,11",
    b":TRIG:BLOC:BRAN:COUN 9,10,3",
    b":TRIG:BLOC:BRAN:ALW 10,13",
    b":TRIG:BLOC:BRAN:COUN:RES 11,9",
    b":TRIG:BLOC:BRAN:ALW 12,3",
    b":TRIG:BLOC:SOUR:STAT 13,OFF",
)


def play(port, *talks):
    for talk in talks:
        port.expect(*talk)


def look(end, *, taken=0, data=b"", state=b"RUNNING;RUNNING;4"):
    """One look at the instrument: renew, state, how many readings, and those that are new."""
    talks = [(b"*TRG\n:TRIG:STAT?\n", state + b"\n"), (b':TRAC:ACT:END? "defbuffer1"\n', b"%d\n" % end)]
    if end > taken:
        ask = b':TRAC:DATA? %d,%d,"defbuffer1",READ,SOUR,SOURSTAT,REL\n' % (taken + 1, end)
        talks.append((ask, data + b"\n"))
    return talks


def one(ampere, volt, time_s, status=ON | LIMITED):
    return b"%.6E,%.6E,%d,%.9f" % (ampere, volt, status, time_s)


@pytest.fixture
def device(line, clock):
    return Keithley2450(line, name="cell", clock=clock, settings={"lease_s": 10.0})


@pytest.fixture
async def running(device, port):
    play(port, *PREPARE, *AT_REST, *BEGIN, MODEL, group(b":INIT"))
    await device.prepare()
    await device.start(CHARGE)
    assert (await device.next(1.0)).kind is CellEventKind.STARTED
    return device


async def heard(device, count):
    return [await device.next(5.0) for _ in range(count)]


async def test_readings_come_from_the_buffer_each_once(running, port):
    play(port, *look(1, data=one(13e-6, 3.95, 0.0)))
    play(port, *look(3, taken=1, data=one(13e-6, 3.96, 1.0) + b"," + one(12e-6, 4.0, 2.0, ON)))
    got = await heard(running, 5)
    assert [x.detail if not isinstance(x, CellSample) else x.elapsed_s for x in got] == [
        "cc",
        1.0,
        2.0,
        "cv",
        3.0,
    ]
    assert (got[-1].voltage_v, got[-1].current_a) == (4.0, 12e-6)


@pytest.mark.parametrize(
    "second",
    [
        one(13e-6, 3.96, 1.0) + b"," + one(13e-6, 3.97, 0.5),  # the charge would be counted backwards
        one(13e-6, 3.96, 0.0) + b"," + one(13e-6, 3.97, 2.0),
        one(13e-6, 3.96, 1.0),
    ],
)
async def test_readings_that_do_not_go_on_are_asked_for_again(running, port, second):
    play(port, *look(1, data=one(13e-6, 3.95, 0.0)))
    await heard(running, 2)
    play(port, *look(3, taken=1, data=second))
    with pytest.raises(BadReply, match=r"time did not go on|1 readings instead of 2"):
        await running.next(5.0)
    play(port, *look(3, taken=1, data=one(13e-6, 3.96, 1.0) + b"," + one(13e-6, 3.97, 2.0)))
    assert [sample.elapsed_s for sample in await heard(running, 2)] == [2.0, 3.0]


async def test_a_buffer_that_holds_more_than_it_can(running, port):
    play(port, *look(0, state=b"RUNNING;RUNNING;4")[:1], (b':TRAC:ACT:END? "defbuffer1"\n', b"4194312\n"))
    with pytest.raises(BadReply, match="in a buffer of 100000"):
        await running.next(5.0)


async def test_a_host_that_was_away_for_long_takes_the_readings_in_pieces(running, port, monkeypatch):
    """Also when the instrument has ended meanwhile: nothing of it is thrown away."""
    monkeypatch.setattr(keithley_2450, "MOST_AT_ONCE", 2)
    ended = b"IDLE;IDLE;13"
    first, second = (b",".join(one(13e-6, 3.9, t) for t in times) for times in ((0.0, 1.0), (2.0,)))
    talks = look(3, taken=0, data=first, state=ended)
    play(port, *talks[:2], (talks[2][0].replace(b"1,3,", b"1,2,"), talks[2][1]))
    play(port, *look(3, taken=2, data=second, state=ended), *OFF)
    got = await heard(running, 5)
    assert [x.elapsed_s for x in got if isinstance(x, CellSample)] == [1.0, 2.0, 3.0]
    assert got[-1].kind is CellEventKind.FINISHED


async def test_another_command_set_is_named_with_what_to_do(device, port):
    play(port, *OFF, (b":SYST:LFR?\n", b"60\n"), (b"*LANG?\n", b"TSP\n"))
    with pytest.raises(Refused, match=r"\*LANG SCPI"):
        await device.prepare()


async def test_prepare_tells_of_the_lease(device, port):
    play(port, *PREPARE)
    notes = " ".join(await device.prepare())
    assert "has not renewed it for 10 s" in notes
    assert "charge are watched by the host alone" in notes


@pytest.mark.parametrize(
    ("data", "ending"),
    [
        (one(13e-6, 3.95, 0.0), "limit time without the host"),
        (one(15e-6, 3.95, 0.0), "limit current"),
        (one(9.9e37, 3.95, 0.0), "limit current"),
    ],
)
async def test_a_trigger_model_that_ended_by_itself(running, port, data, ending):
    play(port, *look(1, data=data, state=b"IDLE;IDLE;13"), *OFF)
    got = await heard(running, 3)
    assert (got[-1].kind, got[-1].detail) == (CellEventKind.FINISHED, ending)
    assert not running.running


async def test_a_reading_with_the_output_off_is_none(running, port):
    play(port, *look(1, data=one(0.0, 0.0, 0.0, 64)), *OFF)
    (got,) = await heard(running, 1)
    assert got.kind is CellEventKind.RUNTIME_ERROR
    assert "the output is off" in got.detail


async def test_an_instrument_that_has_forgotten_everything(running, port):
    play(port, *look(1, data=one(13e-6, 3.95, 0.0)))
    await heard(running, 2)
    play(port, *look(0, taken=1, state=b"EMPTY;EMPTY;0"), *OFF)
    (got,) = await heard(running, 1)
    assert got.kind is CellEventKind.RUNTIME_ERROR
    assert "forgotten" in got.detail


async def test_stop_aborts_the_model_and_opens_the_relay(running, port):
    play(port, *OFF)
    await running.stop()
    assert not running.running
    assert (await running.next(1.0)).kind is CellEventKind.ABORTED


async def test_too_many_readings_energise_nothing(device, port):
    play(port, *PREPARE, *AT_REST, *OFF)
    await device.prepare()
    limits = CellLimits(2.5, 4.05, 40e-6, 3.6, 200_000.0)
    with pytest.raises(OutOfRange, match="take a longer interval"):
        await device.start(ConstantCurrent(13e-6, 4.0, limits))
    assert not device.running


async def test_no_sweeps(device):
    with pytest.raises(Refused, match="no impedance sweeps"):
        await device.start(Eis(0.01, 1e3, 1.0, 10, LIMITS))
