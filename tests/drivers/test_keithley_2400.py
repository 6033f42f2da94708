"""The 2400 on its serial line: the bytes of its set-up, every error path, the way to an open relay."""

import asyncio

import pytest

from drivers.errors import BadReply, NoReply, OutOfRange, Refused
from drivers.keithley_2400 import Keithley2400
from drivers.roles import (
    CcCv,
    CellEventKind,
    CellLimits,
    CellSample,
    ConstantCurrent,
    Eis,
    Ocv,
    Potentiostat,
    Role,
)

LIMITS = CellLimits(2.5, 4.05, 40e-6, 3.6, 7200.0)
CHARGE = CcCv(13e-6, 4.0, 2e-6, LIMITS)
FINE = b'0,"No error"\n'
ASK = b":SYST:ERR?\n"
OFF = [(b"\x18\n:OUTP:SMOD HIMP\n:OUTP OFF\n:OUTP?\n", b"0\n"), (b":OUTP:SMOD?\n", b"HIMP\n"), (ASK, FINE)]
REMOTE = 1 << 22
READ = b":OUTP?\n:READ?\n"


def group(*lines):
    return b"".join(line + b"\n" for line in lines) + ASK, FINE


REST = [
    group(
        b":SOUR:FUNC CURR",
        b":SOUR:CURR:RANG 1E-06",
        b":SOUR:CURR:LEV 0",
        b":SENS:VOLT:RANG 6",
        b":SENS:VOLT:PROT 6",
    ),
    group(b":OUTP ON"),
]


def read(volt, ampere, time_s, status=REMOTE | 21508 & ~1024):
    return READ, f"1\n{volt:+.6E},{ampere:+.6E},{time_s:+.6E},{status:+.6E}\n".encode()


AT_REST = [*REST, read(3.9134, 1e-12, 0.04), *OFF]
PREPARE = [
    *OFF,
    (b":SYST:LFR?\n", b"50\n"),
    group(
        b"*CLS",
        b":SOUR:CLE:AUTO OFF",
        b":ARM:COUN 1",
        b":TRIG:COUN 1",
        b":SOUR:VOLT:MODE FIX",
        b":SOUR:CURR:MODE FIX",
        b":SOUR:DEL:AUTO ON",
    ),
    group(
        b":SENS:FUNC:CONC ON",
        b':SENS:FUNC "VOLT","CURR"',
        b":SENS:AVER OFF",
        b":CALC:STAT OFF",
        b":SENS:VOLT:NPLC 1",
        b":FORM:ELEM VOLT,CURR,TIME,STAT",
    ),
    group(b":SYST:RSEN ON", b":SYST:AZER ON"),
    (b":SYST:RSEN?\n", b"1\n"),
    (b":OUTP:INT:STAT?\n", b"0\n"),
    *AT_REST,
]
BEGIN = [
    group(
        b":SOUR:FUNC VOLT",
        b":SOUR:VOLT:RANG 4",
        b":SOUR:VOLT:LEV 4",
        b":SENS:CURR:RANG 0.0001",
        b":SENS:CURR:PROT 1.3E-05",
    ),
    (b":SOUR:VOLT:LEV?\n", b"+4.000000E+00\n"),
    (b":SENS:CURR:PROT?\n", b"+1.300000E-05\n"),
    group(b":OUTP ON"),
    (b":OUTP?\n", b"1\n"),
    group(b":SYST:TIME:RES"),
]
IN_COMPLIANCE = REMOTE | 8


def play(port, *talks):
    for talk in talks:
        port.expect(*talk)


@pytest.fixture
def device(line, clock):
    return Keithley2400(line, name="cell", clock=clock, settings={"voltage_high_v": 5.0})


@pytest.fixture
async def ready(device, port):
    play(port, *PREPARE)
    await device.prepare()
    return device


async def test_role(device):
    assert isinstance(device, Potentiostat)
    assert device.roles == {Role.POTENTIOSTAT}


async def test_identify(device, port):
    port.expect(
        b"*IDN?\n", b"KEITHLEY INSTRUMENTS INC.,MODEL 2400,1234567,C32 Mar  4 2011 14:22:39/A02  /K/J\n"
    )
    who = await device.identify()
    assert (who.manufacturer, who.model, who.serial) == ("Keithley", "2400", "1234567")
    assert who.firmware.startswith("C32")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"KEITHLEY INSTRUMENTS,MODEL 2450,04012345,1.7.12b\n", "the station file says 2400"),
        (b"HEWLETT-PACKARD,34401A,0,7-5-2\n", "not a Keithley"),
        (b"0\n", "not a Keithley"),
    ],
)
async def test_somebody_else(device, port, answer, why):
    port.expect(b"*IDN?\n", answer)
    with pytest.raises(BadReply, match=why):
        await device.identify()


async def test_prepare_says_what_is_unbounded(device, port):
    play(port, *PREPARE)
    notes = await device.prepare()
    told = " ".join(notes)
    assert "no host watchdog: if the host dies, the output stays on" in told
    assert "high impedance" in told
    assert "at rest 3.9134 V" in told
    assert not device.running


async def test_another_off_state_is_refused(device, port):
    """With NORM the cell would be discharged by every off."""
    play(port, OFF[0], (b":OUTP:SMOD?\n", b"NORM\n"))
    with pytest.raises(Refused, match="would be discharged"):
        await device.prepare()


async def test_a_program_step_by_step(ready, port, clock):
    play(port, *AT_REST, *BEGIN)
    await ready.start(CHARGE)
    play(port, read(3.95, 13e-6, 1.0, IN_COMPLIANCE), read(4.0, 9e-6, 2.0), read(4.0, 1e-6, 3.0))
    play(port, read(4.0, 1e-6, 4.0), *OFF)
    heard = [await ready.next(5.0) for _ in range(8)]
    assert [type(one) is CellSample or (one.kind.value, one.detail) for one in heard] == [
        ("started", "CcCv"), ("phase", "cc"), True, ("phase", "cv"), True, True, True,
        ("finished", "current reached"),
    ]  # fmt: skip
    samples = [one for one in heard if isinstance(one, CellSample)]
    assert [(s.elapsed_s, s.voltage_v, s.current_a) for s in samples[:2]] == [
        (1.0, 3.95, 13e-6),
        (2.0, 4.0, 9e-6),
    ]
    assert not ready.running


async def test_overflow_never_becomes_a_number(ready, port):
    play(port, *AT_REST, *BEGIN)
    await ready.start(CHARGE)
    play(port, read(9.9e37, 9.91e37, 1.0), read(9.91e37, 13e-6, 2.0), *OFF)
    heard = [await ready.next(5.0) for _ in range(5)]
    bad = [one for one in heard if isinstance(one, CellSample)]
    assert [(s.voltage_v, s.valid) for s in bad] == [(None, False), (None, False)]
    assert bad[0].current_a is None
    assert "overflow" in bad[0].problems[0]
    assert (heard[-1].kind, heard[-1].detail) == (CellEventKind.FINISHED, "invalid readings")


async def test_a_reading_over_two_wires_is_invalid(ready, port):
    play(port, *AT_REST, *BEGIN)
    await ready.start(CHARGE)
    play(port, read(3.9, 13e-6, 1.0, 8))
    heard = [await ready.next(5.0) for _ in range(3)]
    assert not heard[-1].valid
    assert "2-wire" in heard[-1].problems[0]


async def test_the_clock_of_the_instrument_wraps(ready, port):
    play(port, *AT_REST, *BEGIN)
    await ready.start(CcCv(13e-6, 4.0, 2e-6, CellLimits(2.5, 4.05, 40e-6, 36.0, 1e6)))
    play(port, read(3.9, 13e-6, 99_999.0, IN_COMPLIANCE), read(3.9, 13e-6, 1.0, IN_COMPLIANCE))
    heard = [await ready.next(5.0) for _ in range(4)]
    assert [one.elapsed_s for one in heard[2:]] == [99_999.0, 100_001.0]


async def test_a_clock_that_stands_is_a_bad_reply(ready, port):
    play(port, *AT_REST, *BEGIN)
    await ready.start(CHARGE)
    play(port, read(3.9, 13e-6, 1.0, IN_COMPLIANCE), read(3.9, 13e-6, 1.0, IN_COMPLIANCE))
    for _ in range(3):
        await ready.next(5.0)
    with pytest.raises(BadReply, match="time did not go on"):
        await ready.next(5.0)
    assert ready.running


async def test_output_that_went_off_by_itself(ready, port):
    """A refused reading gets no answer; the state that is asked for before it says why, at once."""
    play(port, *AT_REST, *BEGIN)
    await ready.start(CHARGE)
    play(port, (READ, b"0\n"), *OFF[:2], (ASK, b'+803,"Not permitted with OUTPUT off"\n'), (ASK, FINE))
    heard = [await ready.next(5.0) for _ in range(2)]
    assert heard[-1].kind is CellEventKind.RUNTIME_ERROR
    assert "the output is off" in heard[-1].detail
    assert not ready.running


async def test_an_unknown_command_is_named(ready, port):
    """It gets no answer; the error queue, asked after the time-out, has the reason."""
    play(port, *OFF, (b":SYST:LFR?\n",), (b"\x18\n:SYST:ERR?\n", b'-113,"Undefined header"\n'), (ASK, FINE))
    with pytest.raises(Refused, match="-113 Undefined header"):
        await ready.prepare()


async def test_silence_leaves_the_program_in_doubt(ready, port):
    play(port, *AT_REST, *BEGIN)
    await ready.start(CHARGE)
    await ready.next(5.0)
    play(port, (READ,))
    with pytest.raises(NoReply):
        await ready.next(5.0)
    assert ready.running


async def test_a_setting_that_is_refused_energises_nothing(ready, port):
    play(port, *AT_REST)
    refused = (BEGIN[0][0], b'+822,"Too small for sense range"\n')
    play(port, refused, (ASK, FINE), *OFF)
    with pytest.raises(Refused, match="822 Too small"):
        await ready.start(CHARGE)
    assert not ready.running


async def test_a_compliance_that_was_not_taken(ready, port):
    play(port, *AT_REST, *BEGIN[:2], (b":SENS:CURR:PROT?\n", b"+1.050000E-04\n"), *OFF)
    with pytest.raises(Refused, match=r"1\.3e-05 was written"):
        await ready.start(CHARGE)


async def test_a_cell_outside_its_window_is_not_connected(ready, port):
    play(port, *REST, read(2.4, 0.0, 0.04), *OFF)
    await ready.start(CHARGE)
    heard = [await ready.next(1.0) for _ in range(2)]
    assert heard[-1].kind is CellEventKind.FINISHED
    assert heard[-1].detail.startswith("open-circuit voltage outside the limits")


async def test_sweeps_are_refused_before_anything_is_sent(ready):
    with pytest.raises(Refused, match="no impedance sweeps"):
        await ready.start(Eis(0.01, 1e3, 1.0, 10, LIMITS))


async def test_out_of_range_before_anything_is_sent(ready):
    with pytest.raises(OutOfRange, match="voltage limit"):
        await ready.start(ConstantCurrent(13e-6, 4.0, CellLimits(2.5, 5.5, 40e-6, 3.6, 60.0)))


async def test_prepare_first(device):
    with pytest.raises(Refused, match="prepare first"):
        await device.start(CHARGE)
    with pytest.raises(Refused, match="no program"):
        await device.next(0.1)


async def test_the_line_was_opened_again(ready, port, clock):
    port.lost = "gone"
    clock.time_s += 2.0  # a lost port is opened once a second
    play(port, *AT_REST)
    await ready.read_ocv()
    with pytest.raises(Refused, match="prepare first"):
        await ready.start(CHARGE)


async def test_stop_interrupts_a_reading(ready, port):
    play(port, *AT_REST, *BEGIN)
    await ready.start(CHARGE)
    await ready.next(5.0)
    port.stuck = True
    play(port, (READ,))
    waiting = asyncio.ensure_future(ready.next(30.0))
    for _ in range(20):
        await asyncio.sleep(0)
    port.stuck = False
    play(port, *OFF)
    await ready.stop()
    assert not ready.running
    try:
        heard = await waiting
    except NoReply:
        heard = await ready.next(1.0)
    assert heard.kind is CellEventKind.ABORTED


async def test_off_that_is_not_off(ready, port):
    play(port, (OFF[0][0], b"1\n"))
    with pytest.raises(Refused, match="still on"):
        await ready.off()


async def test_off_reads_past_a_late_reading(ready, port):
    play(port, (OFF[0][0], b"+3.9E+00,+1.3E-05,+1.0E+00,+0.0E+00\n0\n"), *OFF[1:])
    await ready.off()


async def test_ocv_is_a_current_source_of_nothing(ready, port):
    play(port, *AT_REST, *REST, (b":OUTP?\n", b"1\n"), group(b":SYST:TIME:RES"))
    await ready.start(Ocv(2.0))
    play(port, read(3.9, 1e-12, 1.0), read(3.9, 1e-12, 2.0), *OFF)
    heard = [await ready.next(5.0) for _ in range(5)]
    assert [one.current_a for one in heard if isinstance(one, CellSample)] == [None, None]
    assert heard[-1].detail == "time"


SET_UP = PREPARE[: PREPARE.index((b":SYST:RSEN?\n", b"1\n")) + 1]


async def test_the_interlock_must_be_closed(line, clock, port):
    device = Keithley2400(line, name="cell", clock=clock, settings={"interlock": True})
    play(port, *SET_UP, (b":OUTP:INT:STAT?\n", b"0\n"))
    play(port, group(b":OUTP:INT:STAT ON"), (b":OUTP:INT:STAT?\n", b"1\n"), (b":OUTP:INT:TRIP?\n", b"0\n"))
    with pytest.raises(
        Refused, match=r"pin 8 of the digital I/O\) is not asserted.*Look at what should hold it[^;]*$"
    ):
        await device.prepare()


async def test_an_interlock_that_nobody_has_named_is_told_and_left_alone(device, port):
    """It may be somebody's safety: the requirement is not switched off from here."""
    play(port, *SET_UP, (b":OUTP:INT:STAT?\n", b"1\n"), (b":OUTP:INT:TRIP?\n", b"0\n"))
    with pytest.raises(Refused, match="the station file does not say that it is wired"):
        await device.prepare()
    play(port, *SET_UP, (b":OUTP:INT:STAT?\n", b"1\n"), (b":OUTP:INT:TRIP?\n", b"1\n"), *AT_REST)
    notes = await device.prepare()
    assert any("required by the instrument, and asserted now, but the station file" in one for one in notes)


async def test_a_blocked_output_is_told_in_words(device, port):
    play(
        port,
        *PREPARE[: -len(AT_REST)],
        REST[0],
        (b":OUTP ON\n" + ASK, b'802,"OUTPUT blocked by interlock"\n'),
    )
    play(port, (ASK, FINE), *OFF)
    with pytest.raises(Refused, match=r"pin 8 of the digital I/O\) is not asserted.*802 OUTPUT blocked"):
        await device.prepare()


async def test_a_line_that_opens_in_a_program_is_named(line, clock, port):
    device = Keithley2400(line, name="cell", clock=clock, settings={"interlock": True})
    required = (b":OUTP:INT:STAT?\n", b"1\n")
    play(port, *SET_UP, required, group(b":OUTP:INT:STAT ON"), required, (b":OUTP:INT:TRIP?\n", b"1\n"))
    play(port, *AT_REST)
    assert any("required, and asserted now" in note for note in await device.prepare())
    play(port, *AT_REST, *BEGIN)
    await device.start(CHARGE)
    play(port, (READ, b"0\n"), *OFF, (b":OUTP:INT:TRIP?\n", b"0\n"))
    heard = await device.next(5.0)
    while isinstance(heard, CellSample) or heard.kind is not CellEventKind.RUNTIME_ERROR:
        heard = await device.next(5.0)
    assert (
        "the output is off: the output-enable line (pin 8 of the digital I/O) is not asserted" in heard.detail
    )
