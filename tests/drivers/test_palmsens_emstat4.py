"""The potentiostat: transcripts of its protocol sheet, every error path, and the way to an open circuit."""

import asyncio
import time

import pytest

from drivers import palmsens_emstat4
from drivers.errors import BadReply, NoReply, OutOfRange, Refused
from drivers.palmsens_abilities import probes
from drivers.palmsens_emstat4 import EmStat4
from drivers.port import PortLost
from drivers.roles import (
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
CHARGE = ConstantCurrent(13e-6, 4.0, LIMITS)

OFF = b"""e
var p
var t
set_pgstat_chan 0
set_pgstat_mode 2
set_max_bandwidth 40
set_range ab 6
cell_off
timer_start
send_string "phase ocv"
meas_loop_ocp p 100m 100m
timer_get t
pck_start
pck_add t
pck_add p
pck_end
if t >= 100m
breakloop
endif
endloop
send_string "end time"
on_finished:
cell_off

"""
OFF_DONE = b"e\nTphase ocv\nM000B\nPebDF5E100n;ab83FBF68u\n*\nTend time\n\n"  # 0.1 s, 4.177768 V
SYNC = b"\nZ\n"
WHO = [b"tes4_hr1301#Jan 10 2023 10:51:41\nR*\n", b"iES4HR20B0008\n", b"v01.08.00\n"]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(palmsens_emstat4, "PAUSE_AFTER_ERROR_S", 0.0)


@pytest.fixture
def device(line, clock):
    return EmStat4(line, name="cell", clock=clock, settings={"model": "es4_hr"})


@pytest.fixture
async def ready(device, port):
    port.expect(SYNC, b"Z!0006\n").expect(OFF, OFF_DONE)
    await device.prepare()
    return device


@pytest.fixture
async def charging(ready, port):
    await begin(ready, port)
    return ready


async def begin(device, port, answer=b"e\n"):
    script = palmsens_emstat4.write_script(CHARGE, device.model)
    port.expect(b"e\n" + script.encode() + b"\n\n", answer)
    await device.start(CHARGE)
    assert (await device.next(1.0)).kind is CellEventKind.STARTED


def test_is_a_potentiostat(device):
    assert isinstance(device, Potentiostat)
    assert device.roles == {Role.POTENTIOSTAT}


def test_unknown_model_is_refused(line, clock):
    with pytest.raises(ValueError, match="es9"):
        EmStat4(line, name="cell", clock=clock, settings={"model": "es9"})


# --- who is there ----------------------------------------------------------------------------------------


async def test_identify(device, port):
    for request, reply in zip((b"t\n", b"i\n", b"v\n"), WHO, strict=True):
        port.expect(request, reply)
    who = await device.identify()
    assert (who.manufacturer, who.model, who.serial) == ("PalmSens", "EmStat4 HR", "ES4HR20B0008")
    assert who.firmware == "1301, MethodSCRIPT 01.08.00"


async def test_identify_ignores_flow_control_characters_of_power_up(device, port):
    port.arrive(b"\x11")
    port.expect(b"t\n", b"\x11tes4_hr1301#x\n\x13R*\n").expect(b"i\n", WHO[1]).expect(b"v\n", WHO[2])
    assert (await device.identify()).model == "EmStat4 HR"


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        (b"KEITHLEY INSTRUMENTS INC.,MODEL 2400,1234567,C30\n", "KEITHLEY"),
        (b"KEITHLEY INSTRUMENTS INC.,MODEL 2400,1234567,C30\r", "KEITHLEY"),
        (b"tespico1600#Sep 30 2025 12:00:00\nR*\n", "station file says EmStat4 HR"),
        (b"tespbl0100#x\nR*\n", "station file says EmStat4 HR"),
        (b"tnexus11100#x\nR*\n", "station file says EmStat4 HR"),
        (b"tsomething else\nR*\n", "not a MethodSCRIPT instrument"),
        (b"tes4_hr1301#x\nsomething\n", "not a MethodSCRIPT instrument"),
        (b"t!0003\n", "unknown command"),
    ],
)
async def test_identify_says_what_it_saw(device, port, reply, what):
    port.expect(b"t\n", reply)
    with pytest.raises((BadReply, Refused), match=what):
        await device.identify()


async def test_identify_hears_nothing(device, port):
    port.expect(b"t\n")
    with pytest.raises(NoReply):
        await device.identify()


async def test_identify_while_an_old_script_runs(device, port):
    port.expect(b"t\n", b"Peb80F4240u;ab83FBF68u;ba8002710u,10,218\nt!0006\n")
    with pytest.raises(Refused, match="not possible in this state"):
        await device.identify()


# --- prepare ---------------------------------------------------------------------------------------------


async def test_prepare_with_an_idle_instrument(ready, device):
    assert not device.running
    with pytest.raises(Refused, match="no program"):
        await device.next(0.1)


async def test_prepare_ends_a_script_that_somebody_else_left_running(device, port):
    port.arrive(b"70000u,10,2")  # the rest of a line
    port.expect(SYNC, b"00\nPeb80F4240u;ab83FBF68u\n", b"Z\n*\n", (0.3, b"\n")).expect(OFF, OFF_DONE)
    notes = await device.prepare()
    assert not device.running
    assert any("no host watchdog" in note for note in notes)
    assert any("4.1778 V" in note for note in notes)


async def test_prepare_when_the_circuit_does_not_open(device, port):
    port.expect(SYNC, b"Z!0006\n").expect(OFF, b"e\nTphase ocv\n!0014: Line 11\n")
    with pytest.raises(Refused, match="circuit not open: open-circuit measurement with the cell on"):
        await device.prepare()


async def test_prepare_tries_once_more_after_noise(device, port):
    port.expect(SYNC, b"\xff\xfe\n").expect(SYNC, b"Z!0006\n").expect(OFF, OFF_DONE)
    assert await device.prepare()


async def test_prepare_gives_up_on_a_dead_line(device, port):
    port.expect(SYNC).expect(SYNC)
    with pytest.raises(NoReply):
        await device.prepare()


async def test_read_ocv(ready, port):
    port.expect(OFF, OFF_DONE)
    assert await ready.read_ocv() == pytest.approx(4.177768)


async def test_read_ocv_without_a_voltage(ready, port):
    port.expect(OFF, b"e\nM000B\n*\n\n")
    with pytest.raises(BadReply, match="no voltage"):
        await ready.read_ocv()


# --- start -----------------------------------------------------------------------------------------------


async def test_start_needs_prepare(device, port):
    with pytest.raises(Refused, match="prepare first"):
        await device.start(CHARGE)
    assert port.sent == []


async def test_start_needs_prepare_again_after_the_line_was_opened_again(ready, port, line):
    await line.close()
    await line.open()
    with pytest.raises(Refused, match="prepare first"):
        await ready.start(CHARGE)


async def test_start_sends_nothing_that_is_out_of_range(ready, port):
    sent = len(port.sent)
    with pytest.raises(OutOfRange):
        await ready.start(ConstantCurrent(1.0, 4.0, LIMITS))
    assert len(port.sent) == sent
    assert not ready.running


async def test_start_twice_is_refused(charging, port):
    with pytest.raises(Refused, match="a program is running"):
        await charging.start(CHARGE)
    with pytest.raises(Refused, match="a program is running"):
        await charging.read_ocv()


async def test_a_script_that_is_not_accepted_does_not_run(ready, port):
    script = palmsens_emstat4.write_script(CHARGE, ready.model)
    port.expect(b"e\n" + script.encode() + b"\n\n", b"e!4001: Line 11, Col 29\n")
    with pytest.raises(Refused, match=r"unknown script command \(4001\) at line 11, col 29"):
        await ready.start(CHARGE)
    assert not ready.running


@pytest.mark.parametrize("answer", [b"", b"something\n"])
async def test_without_a_proper_answer_the_script_may_be_running(ready, port, answer):
    script = palmsens_emstat4.write_script(CHARGE, ready.model)
    port.expect(b"e\n" + script.encode() + b"\n\n", answer)
    with pytest.raises((NoReply, BadReply)):
        await ready.start(CHARGE)
    assert ready.running
    port.expect(SYNC, b"Z\n*\n\n").expect(OFF, OFF_DONE)
    await ready.stop()
    assert not ready.running


# --- the stream ------------------------------------------------------------------------------------------


async def test_samples_phases_and_the_reason_of_the_end(charging, port):
    before = time.monotonic()
    port.arrive(b"Tphase cc\nM000A\n")
    port.arrive(b"Peb80F4240u;ab83FBF68u;ba8002710u,10,218;ja80003E8u\n*\nTend voltage reached\n\n", 1.0)
    phase = await charging.next(2.0)
    assert (phase.kind, phase.detail) == (CellEventKind.PHASE, "cc")
    sample = await charging.next(2.0)
    assert isinstance(sample, CellSample)
    assert before <= sample.monotonic_s <= time.monotonic()  # wall time: the guard measures staleness with it
    assert (sample.elapsed_s, sample.phase, sample.voltage_v, sample.current_a) == (1.0, "cc", 4.177768, 0.01)
    assert sample.charge_coulomb == pytest.approx(1e-3)
    assert sample.valid
    assert charging.running
    end = await charging.next(2.0)
    assert (end.kind, end.detail) == (CellEventKind.FINISHED, "voltage reached")
    assert not charging.running


@pytest.mark.parametrize(
    ("text", "current_a", "valid", "problems"),
    [
        (b"Peb80F4240u;ab83FBF68u;ba     nan,12,218", None, False, ("ba: overload", "ba: not a number")),
        (b"Peb80F4240u;ab83FBF68u;ba8002710u,12,218", 0.01, False, ("ba: overload",)),
        (b"Peb80F4240u;ab83FBF68u;ba8002710u,11,218", 0.01, False, ("ba: timing not met",)),
        (b"Peb80F4240u;ab83FBF68u;ba8002710u,14,218", 0.01, True, ("ba: underload",)),
    ],
)
async def test_nan_and_status_make_a_sample_invalid(charging, port, text, current_a, valid, problems):
    port.arrive(text + b"\n")
    sample = await charging.next(2.0)
    assert (sample.current_a, sample.valid, sample.problems) == (current_a, valid, problems)
    assert sample.voltage_v == 4.177768


async def test_impedance_samples(charging, port):
    port.arrive(b"Peb80F4240u;ab83FBF68u;ba8002710u,10,218;dc80186A0 ;cc8000C81m,10,214;cd7FFF1F0m,10,202\n")
    sample = await charging.next(2.0)
    assert (sample.frequency_hz, sample.z_real_ohm, sample.z_imag_ohm) == (100e3, 3.201, -3.600)
    assert (sample.voltage_v, sample.current_a) == (4.177768, 0.01)


@pytest.mark.parametrize(
    "text", [b"Peb80F4240u;ab83FB\n", b"\xfe\xff\n", b"Q\n", b"Pab83FBF68u\n", b"Peb     nan\n", b"G!0006\n"]
)
async def test_a_spoilt_line_is_told_and_the_stream_goes_on(charging, port, text):
    port.arrive(text + b"Peb81E8480u;ab83FBF68u\n")
    with pytest.raises(BadReply):
        await charging.next(1.0)
    assert (await charging.next(1.0)).elapsed_s == 2.0


async def test_a_doubled_line_is_not_a_second_sample(charging, port):
    port.arrive(b"Peb80F4240u;ab83FBF68u\n" * 2)
    assert (await charging.next(1.0)).elapsed_s == 1.0
    with pytest.raises(BadReply, match="time did not go on"):
        await charging.next(1.0)


async def test_a_slow_interval_is_no_end(charging, port):
    with pytest.raises(NoReply):
        await charging.next(0.5)
    assert charging.running
    port.arrive(b"Peb80F4240u;ab83FBF68u\n")
    assert (await charging.next(0.5)).elapsed_s == 1.0


async def test_other_text_and_loops_are_passed_over(charging, port):
    port.arrive(b"Tsomething\nL\n+\nC0001\n-\nPeb80F4240u;ab83FBF68u\n")
    assert isinstance(await charging.next(1.0), CellSample)


async def test_after_a_runtime_error_the_cell_is_switched_off_before_it_is_told(charging, port):
    port.arrive(b"!0032: Line 44\n")
    port.expect(OFF, OFF_DONE)
    event = await charging.next(5.0)
    assert (event.kind, event.detail) == (
        CellEventKind.RUNTIME_ERROR,
        "critical overload, measurement aborted (0032) at line 44",
    )
    assert not charging.running
    assert port.sent[-1][1] == OFF


async def test_a_runtime_error_whose_off_fails_leaves_it_in_doubt_until_stop(charging, port):
    port.arrive(b"!0032: Line 44\n")
    port.expect(OFF)
    with pytest.raises(NoReply):
        await charging.next(5.0)
    assert charging.running
    port.expect(SYNC, b"Z!0006\n").expect(OFF, OFF_DONE)
    await charging.stop()
    assert (await charging.next(1.0)).kind is CellEventKind.RUNTIME_ERROR
    assert not charging.running


# --- stop ------------------------------------------------------------------------------------------------


async def test_stop_keeps_what_still_came_and_tells_the_end(charging, port):
    port.expect(SYNC, b"Peb80F4240u;ab83FBF68u\nZ\n*\n", (0.1, b"\n")).expect(OFF, OFF_DONE)
    await charging.stop()
    assert not charging.running
    assert (await charging.next(1.0)).elapsed_s == 1.0
    event = await charging.next(1.0)
    assert (event.kind, event.detail) == (CellEventKind.ABORTED, "aborted")


async def test_stop_interrupts_whoever_waits_for_a_sample(charging, port):
    port.stuck = True
    waiting = asyncio.ensure_future(charging.next(60.0))
    await asyncio.sleep(0.01)
    port.expect(SYNC, b"Z\n*\n\n").expect(OFF, OFF_DONE)
    await charging.stop()
    assert (await waiting).kind is CellEventKind.ABORTED


async def test_stop_when_the_program_has_just_ended_by_itself(charging, port):
    port.expect(SYNC, b"*\nTend time\n\nZ!0006\n").expect(OFF, OFF_DONE)
    await charging.stop()
    event = await charging.next(1.0)
    assert (event.kind, event.detail) == (CellEventKind.FINISHED, "time")


async def test_stop_when_the_instrument_was_reset_meanwhile(charging, port):
    port.expect(SYNC, b"\x11Z!0006\n").expect(OFF, OFF_DONE)
    await charging.stop()
    assert (await charging.next(1.0)).detail == "the instrument was idle"


async def test_stop_after_a_runtime_error_that_nobody_has_read(charging, port):
    port.arrive(b"!0028: Line 9\n")
    port.expect(SYNC, b"Z!0006\n").expect(OFF, OFF_DONE)
    await charging.stop()
    event = await charging.next(1.0)
    assert (event.kind, event.detail) == (CellEventKind.RUNTIME_ERROR, "division by zero (0028) at line 9")


async def test_stop_and_off_when_idle_and_repeated(ready, port):
    for _ in range(2):
        port.expect(SYNC, b"Z!0006\n").expect(OFF, OFF_DONE)
    await ready.stop()
    await ready.off()
    assert not ready.running


async def test_two_stops_at_once_do_not_disturb_each_other(charging, port):
    port.expect(SYNC, b"Z\n*\n\n").expect(OFF, OFF_DONE).expect(SYNC, b"Z!0006\n").expect(OFF, OFF_DONE)
    await asyncio.gather(charging.stop(), charging.stop())
    assert not charging.running


async def test_stop_abort_is_repeated_once_when_its_answer_is_lost(charging, port):
    port.expect(SYNC).expect(SYNC, b"Z!0006\n").expect(OFF, OFF_DONE)
    await charging.stop()
    assert not charging.running


async def test_stop_that_cannot_prove_it_says_so(charging, port):
    port.expect(SYNC, b"Z\n*\n\n").expect(OFF, b"e\n!0014: Line 11\n")
    with pytest.raises(Refused, match="circuit not open"):
        await charging.stop()


async def test_stop_is_bounded(charging, port, monkeypatch):
    monkeypatch.setattr(palmsens_emstat4, "STOP_S", 0.02)
    port.expect(SYNC)
    port.stuck = True
    with pytest.raises(NoReply, match="not stopped within"):
        await charging.stop()


# --- the link --------------------------------------------------------------------------------------------


async def test_a_lost_link_is_no_end_and_prepare_makes_it_safe(charging, port, line):
    port.arrive(PortLost("unplugged"))
    with pytest.raises(NoReply, match="unplugged"):
        await charging.next(1.0)
    assert charging.running
    await line.open()
    port.expect(SYNC, b"Peb80F4240u;ab83FBF68u\nZ\n*\n\n").expect(OFF, OFF_DONE)
    await charging.prepare()
    assert not charging.running
    assert (await charging.next(1.0)).kind is CellEventKind.ABORTED
    await begin(charging, port)


async def test_halt_is_never_used(charging, port):
    port.expect(SYNC, b"Z\n*\n\n").expect(OFF, OFF_DONE)
    await charging.stop()
    lines = b"".join(data for _, data in port.sent).split(b"\n")
    assert b"h" not in lines
    assert b"H" not in lines


async def test_close_closes_the_line(ready, port):
    await ready.close()
    assert port.closings > 0


async def test_ocv_program_needs_no_limits(ready, port):
    script = palmsens_emstat4.write_script(Ocv(30.0), ready.model)
    port.expect(b"e\n" + script.encode() + b"\n\n", b"e\n")
    await ready.start(Ocv(30.0))
    assert (await ready.next(1.0)).detail == "Ocv"


# --- what it lacks ---------------------------------------------------------------------------------------


async def test_probe_loads_scripts_and_runs_none(ready, port):
    """``l`` and never ``e``; the script that opens the circuit is the last one loaded."""
    answers = [b"l\n", b"l!4001: Line 38, Col 1\n", b"l!001F: Line 41, Col 1\n"]
    scripts = [palmsens_emstat4.write_script(p, ready.model) for _, _, p in probes(ready.model)]
    for script, answer in zip(scripts, answers, strict=True):
        port.expect(b"l\n" + script.encode() + b"\n\n", answer)
    port.expect(b"l" + OFF[1:], b"l\n")
    sent = len(port.sent)
    able, missing = await ready.probe()
    assert (able.galvanostat, able.eis, able.geis) == (True, None, None)
    assert [text.partition(":")[0] for text in missing] == [
        "no impedance (EIS) on this instrument",
        "no galvanostatic impedance (GEIS) on this instrument",
    ]
    assert "unknown script command (4001) at line 38, col 1; leave such steps out" in missing[0]
    assert "not licensed on this instrument (001F)" in missing[1]
    assert [data[:2] for _, data in port.sent[sent:]] == [b"l\n"] * 4
    assert not ready.running


async def test_probe_is_refused_while_a_program_runs(charging):
    with pytest.raises(Refused, match="a program is running"):
        await charging.probe()


@pytest.mark.parametrize("version", [b"v01.02.00\n", b"vx\n"])
async def test_a_firmware_that_is_too_old_is_told_with_what_to_do(device, port, version):
    port.expect(b"t\n", WHO[0]).expect(b"i\n", WHO[1]).expect(b"v\n", version)
    with pytest.raises(
        BadReply, match=r"our scripts need 1\.3 or newer: update it with PalmSens' own software"
    ):
        await device.identify()


async def test_a_point_of_a_sweep_says_how_far_its_sine_swings(ready, port):
    """The worked line of the sheet, Z = 3.201 - 3.600j ohm: |Z| = 4.8173 ohm; 10 mV rms peak at 14.142 mV."""
    program = Eis(0.01, 1e5, 1e4, 2, LIMITS)
    script = palmsens_emstat4.write_script(program, ready.model)
    port.expect(b"e\n" + script.encode() + b"\n\n", b"e\n")
    await ready.start(program)
    assert (await ready.next(1.0)).kind is CellEventKind.STARTED
    port.arrive(b"Peb80F4240u;ab83FBF68u;ba8002710u,10,218;dc80186A0 ;cc8000C81m,10,214;cd7FFF1F0m,10,202\n")
    sample = await ready.next(2.0)
    assert sample.swing_v == pytest.approx(14.142e-3, rel=1e-4)
    assert sample.swing_a == pytest.approx(14.142e-3 / 4.8173, rel=1e-4)
