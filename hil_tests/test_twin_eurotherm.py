"""The temperature controller's twin: worked frames of the manuals, a foreign client, what must not happen."""

import asyncio
import termios

import minimalmodbus
import pytest

from hil_tests.sim.clock import LabClock, ManualClock
from hil_tests.sim.eurotherm_3200 import EurothermTwin
from hil_tests.sim.physics.holder import Holder, HolderParameters
from hil_tests.sim.wire.modbus_rtu import ModbusError, RtuSlave, checksum, gap_s

FAST = 50.0  # lab seconds per wall second: the wire's time shrinks with it


def twin(relay_closed=lambda: True, start_k=298.28, **settings):
    settings.setdefault("setpoint_1_c", 30.0)
    return EurothermTwin(
        Holder(HolderParameters(), start_k=start_k), ManualClock(), 1, relay_closed, settings
    )


def reply(device, frame_hex):
    answer = device.slave.answer(bytes.fromhex(frame_hex))
    return None if answer is None else answer.hex(" ")


# Frames of sheet 01 (PV 25.1 degC, SP 30.0, OP 12.3 %), typed in from there.


@pytest.fixture
def worked():
    device = twin(start_k=273.15 + 25.13)
    device.loop.output_percent = 12.3
    device.loop.measured_c = 25.13
    device.loop.working_setpoint_c = 30.0
    return device


def test_worked_frame_block_of_five(worked):
    assert reply(worked, "01 03 00 01 00 05 d4 09") == "01 03 0a 00 fb 01 2c 00 00 00 7b 01 2c 0f d8"


def test_worked_frame_write_local_setpoint_is_echoed_and_wears_the_eeprom(worked):
    assert reply(worked, "01 06 00 02 01 c2 a8 0b") == "01 06 00 02 01 c2 a8 0b"
    assert worked.loop.settings.setpoint_1_c == 45.0
    assert worked.counters()["eeprom_writes"] == 1


def test_worked_frames_remote_setpoint_does_not_wear_the_eeprom(worked):
    assert reply(worked, "01 06 00 1a 01 c2 28 0c") == "01 06 00 1a 01 c2 28 0c"
    assert reply(worked, "01 06 01 14 00 01 09 f2") == "01 06 01 14 00 01 09 f2"
    assert worked.loop.target_c == 45.0
    assert worked.counters()["eeprom_writes"] == 0


def test_worked_frame_sensor_break_in_the_status_word(worked):
    worked.loop.working_setpoint_c = worked.loop.target_c
    worked.inject({"kind": "sensor", "state": "open"})
    assert reply(worked, "01 03 00 4b 00 01 f4 1c") == "01 03 02 00 20 b9 9c"


def test_worked_frame_float_pv(worked):
    assert reply(worked, "01 03 80 02 00 02 4c 0b") == "01 03 04 41 c9 0a 3d f9 40"
    assert len(worked.slave.answer(bytes.fromhex("01 03 80 02 00 0a 4d cd"))) == 5 + 20


def test_worked_frame_exceptions(worked):
    ask = bytes.fromhex("01 03 00 63 00 01")  # register 99 does not exist
    assert worked.slave.answer(ask + checksum(ask)).hex(" ") == "01 83 02 c0 f1"
    too_hot = bytes.fromhex("01 06 00 02 7f ff")
    assert worked.slave.answer(too_hot + checksum(too_hot)).hex(" ") == "01 86 03 02 61"


# Frames of sheet 09, against a slave with a plain memory.


class Memory:
    def __init__(self):
        self.words = dict.fromkeys(range(10), 0)

    def read(self, register, count):
        if not all(register + k in self.words for k in range(count)):
            raise ModbusError(2)
        return [self.words[register + k] for k in range(count)]

    def write(self, register, words, *, single):
        for k, word in enumerate(words):
            self.words[register + k] = word


@pytest.fixture
def slave():
    return RtuSlave(1, Memory())


@pytest.mark.parametrize(
    ("request_hex", "answer_hex"),
    [
        ("01 06 00 02 05 dc 2a c3", "01 06 00 02 05 dc 2a c3"),
        ("01 10 00 02 00 01 02 01 2c a7 ff", "01 10 00 02 00 01 a0 09"),
        ("00 06 00 01 00 05 19 d8", None),  # broadcast: done, not answered
        ("01 41 00 00 51 cc", "01 c1 01 b0 50"),  # unknown function
        ("02 03 00 01 00 05 d4 3a", None),  # somebody else's
        ("01 03 00 01 00 05 d4 08", None),  # wrong checksum
        ("01 03 00", None),  # truncated
        ("01 03 00 01 00 7e 94 2a", "01 83 03 01 31"),  # 126 registers
    ],
)
def test_standard_frames(slave, request_hex, answer_hex):
    answer = slave.answer(bytes.fromhex(request_hex))
    assert (answer and answer.hex(" ")) == answer_hex


def test_broadcast_is_carried_out(slave):
    slave.answer(bytes.fromhex("00 06 00 01 00 05 19 d8"))
    assert slave.registers.words[1] == 5


def test_checksum_catalogue_value():
    assert checksum(b"123456789") == bytes.fromhex("37 4B")  # CRC-16/MODBUS


def test_silence_between_frames_of_the_standard():
    assert gap_s(9600, 10) == pytest.approx(3.65e-3, rel=2e-3)
    assert gap_s(38400, 10) == 1.75e-3


# Over the pty, driven by minimalmodbus in a thread.


def client(port, timeout_s=0.5):
    instrument = minimalmodbus.Instrument(port, 1, close_port_after_each_call=False)
    instrument.serial.baudrate = 9600
    instrument.serial.timeout = timeout_s
    instrument.clear_buffers_before_each_transaction = True
    return instrument


@pytest.fixture
async def online():
    device = EurothermTwin(
        Holder(HolderParameters(), start_k=296.0), LabClock(speed=FAST), 1, lambda: True, {"decimals": 2}
    )
    port = await device.start()
    instrument = client(port)
    yield device, instrument
    instrument.serial.close()
    await device.stop()


async def test_foreign_client_reads_and_writes(online):
    device, instrument = online

    def talk():
        instrument.write_register(26, 45.0, 2, functioncode=6, signed=True)
        instrument.write_register(276, 1, functioncode=6)
        instrument.write_float(0x8000 + 2 * 26, 60.25)
        return (
            instrument.read_register(26, 2, signed=True),
            instrument.read_float(0x8000 + 2 * 26),
            instrument.read_float(0x8000 + 2 * 1, functioncode=4),
            instrument.read_registers(75, 2),
        )

    small, whole, pv, status = await asyncio.to_thread(talk)
    assert (small, whole) == (60.25, 60.25)
    assert 20.0 < pv < 45.0
    assert status[0] ^ status[1] == 0xFFFF
    assert device.loop.target_c == 60.25


async def test_foreign_client_sees_exceptions_silence_and_bad_frames(online):
    device, instrument = online
    instrument.serial.timeout = 0.05
    with pytest.raises(minimalmodbus.IllegalRequestError):
        await asyncio.to_thread(instrument.read_register, 99)
    device.inject({"kind": "silence"})
    with pytest.raises(minimalmodbus.NoResponseError):
        await asyncio.to_thread(instrument.read_register, 75)
    for fault in ({"kind": "flipped", "at": 3}, {"kind": "lost"}, {"kind": "noise", "hex": "ff"}):
        device.inject(fault)
        with pytest.raises((minimalmodbus.InvalidResponseError, minimalmodbus.NoResponseError)):
            await asyncio.to_thread(instrument.read_register, 75)
    instrument.address = 2
    with pytest.raises(minimalmodbus.NoResponseError):
        await asyncio.to_thread(instrument.read_register, 75)
    instrument.address = 1
    instrument.serial.timeout = 1.0
    assert await asyncio.to_thread(instrument.read_register, 276) == 0  # and recovers at once
    assert device.counters()["foreign"] == 1


async def test_late_reply_of_the_previous_request_comes_first(online):
    device, instrument = online
    instrument.serial.timeout = 0.05
    device.inject({"kind": "previous"})
    with pytest.raises(minimalmodbus.NoResponseError):
        await asyncio.to_thread(instrument.read_register, 75)
    instrument.serial.timeout = 0.5
    with pytest.raises(minimalmodbus.InvalidResponseError):  # five words are waiting behind one
        await asyncio.to_thread(instrument.read_registers, 1, 5)


async def test_unplugged_and_plugged_in_again_under_the_same_name(online):
    device, instrument = online
    port = instrument.serial.port
    device.inject({"kind": "unplug"})
    with pytest.raises((OSError, termios.error)):
        await asyncio.to_thread(instrument.read_register, 75)
    instrument.serial.close()
    device.inject({"kind": "replug"})
    again = minimalmodbus.Instrument(port, 1)
    again.serial.baudrate = 9600
    again.serial.timeout = 0.5
    try:
        assert await asyncio.to_thread(again.read_register, 276) == 0
    finally:
        again.serial.close()


async def test_reset_makes_it_silent_for_a_while_and_forgets_the_remote_setpoint():
    clock = ManualClock()
    device = EurothermTwin(Holder(), clock, settings={"setpoint_1_c": 25.0})
    device.loop.settings.remote_c = 60.0
    device.inject({"kind": "reset", "boot_s": 3.0})
    assert device.loop.settings.remote_c == 25.0
    assert device.registers.read(87, 1) == [0x80]
    device.loop.settings.manual, device.loop.settings.manual_percent = True, 50.0
    device.advance(2.75)
    assert device.holder.heater_joule == 0.0
    device.advance(4.0)
    assert device.holder.heater_joule > 0.0


# What the instrument does to the holder.


def test_heats_to_the_setpoint_with_the_ramp_asked_for():
    device = twin(rate=10.0, rate_unit=0, start_k=296.0)
    device.loop.settings.setpoint_1_c = 60.0
    device.advance(120.0)
    start_c = 296.0 - 273.15
    assert device.loop.working_setpoint_c == pytest.approx(start_c + 20.0, abs=0.1)  # 10 K/min for 2 min
    device.advance(3600.0)
    assert device.loop.measured_c == pytest.approx(60.0, abs=0.1)
    assert device.holder.cell_k == pytest.approx(333.15, abs=2.0)


def test_no_power_while_the_relay_is_open():
    device = twin(relay_closed=lambda: False)
    device.loop.settings.setpoint_1_c = 100.0
    device.advance(60.0)
    assert device.loop.output_percent == 100.0
    assert device.holder.heater_joule == 0.0


@pytest.mark.parametrize(
    ("setting", "output", "alarm"), [("off", 100.0, 0), ("on", 0.0, 0x20), ("latching", 0.0, 0x20)]
)
def test_what_a_broken_sensor_does(setting, output, alarm):
    device = twin(sensor_break=setting)
    device.advance(10.0)
    device.inject({"kind": "sensor", "state": "open"})
    device.advance(20.0)
    assert device.loop.output_percent == output
    assert device.loop.status_word & 0x20 == alarm
    assert device.registers.read(258, 1) == [1]


def test_latched_break_waits_for_the_acknowledgement():
    device = twin(sensor_break="latching")
    device.inject({"kind": "sensor", "state": "short"})
    device.advance(1.0)
    device.registers.write(274, [1], single=True)
    assert device.loop.status_word & 0x20  # sensor still gone
    device.inject({"kind": "sensor", "state": "good"})
    device.advance(2.0)
    assert device.loop.status_word & 0x20
    assert device.loop.output_percent == 0.0
    device.registers.write(274, [1], single=True)
    device.advance(3.0)
    assert not device.loop.status_word & 0x20
    assert device.loop.output_percent > 0.0


def test_self_clearing_break_clears_itself():
    device = twin(sensor_break="on", safe_output_percent=7.0)
    device.inject({"kind": "sensor", "state": "open"})
    device.advance(1.0)
    assert device.loop.output_percent == 7.0
    device.inject({"kind": "sensor", "state": "good"})
    device.advance(2.0)
    assert not device.loop.status_word & 0x20


def test_broken_sensor_changes_nothing_in_manual():
    device = twin(sensor_break="latching", manual=True)
    device.loop.settings.manual, device.loop.settings.manual_percent = True, 33.0
    device.inject({"kind": "sensor", "state": "open"})
    device.advance(1.0)
    assert device.loop.output_percent == 33.0


def test_manual_mode_takes_over_the_present_output():
    device = twin(start_k=296.0)
    device.loop.settings.setpoint_1_c = 100.0
    device.advance(10.0)
    assert device.loop.output_percent == 100.0
    device.registers.write(273, [1], single=True)
    device.advance(20.0)
    assert device.loop.output_percent == 100.0
    device.registers.write(3, [125], single=True)  # 12.5 %
    device.advance(21.0)
    assert device.loop.output_percent == 12.5
    assert device.loop.status_word & 0x10
    with pytest.raises(ModbusError):
        device.registers.write(273, [2], single=True)


def test_loop_break_when_full_power_does_not_warm():
    device = twin(relay_closed=lambda: False, start_k=296.0, loop_break_s=60.0)
    device.loop.settings.setpoint_1_c = 100.0
    device.advance(59.0)
    assert not device.loop.status_word & 0x40
    device.advance(62.0)
    assert device.loop.status_word & 0x40


def test_frozen_sensor_keeps_its_value_while_the_plate_warms():
    device = twin(start_k=296.0)
    device.loop.settings.setpoint_1_c = 60.0
    device.advance(5.0)
    device.inject({"kind": "sensor", "state": "frozen"})
    before = device.loop.measured_c
    device.advance(300.0)
    assert device.loop.measured_c == pytest.approx(before, abs=1.0)
    assert device.holder.plate_k - 273.15 > before + 50.0


def test_remote_setpoint_fails_only_if_a_timeout_is_set():
    for timeout_s, failed in ((0.0, False), (5.0, True)):
        device = twin(remote_timeout_s=timeout_s)
        device.registers.write(26, [450], single=True)
        device.registers.write(276, [1], single=True)
        device.advance(4.0)
        assert device.loop.target_c == 45.0
        device.advance(6.0)
        assert bool(device.loop.status_word & 1 << 14) is failed
        assert device.loop.target_c == (30.0 if failed else 45.0)
        device.registers.write(26, [450], single=True)
        assert not device.loop.status_word & 1 << 14


def test_stuck_output_heats_whatever_the_setpoint_but_not_through_an_open_relay():
    closed = [True]
    device = twin(relay_closed=lambda: closed[0])
    device.loop.settings.setpoint_1_c = 0.0
    device.inject({"kind": "stuck_output"})
    device.advance(10.0)
    assert device.holder.heater_joule == pytest.approx(400.0)
    closed[0] = False
    device.advance(20.0)
    assert device.holder.heater_joule == pytest.approx(400.0)


def test_unknown_settings_and_faults_are_refused():
    with pytest.raises(ValueError, match="unknown settings"):
        twin(colour="red")
    with pytest.raises(ValueError, match="no such fault"):
        twin().inject({"kind": "earthquake"})
    with pytest.raises(ValueError, match="no such state"):
        twin().inject({"kind": "sensor", "state": "melted"})
