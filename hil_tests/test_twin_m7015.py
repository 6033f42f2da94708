"""The RTD module's twin: worked frames of the sheet, foreign clients, what a broken wire looks like."""

import asyncio

import minimalmodbus
import pytest
from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient

from hil_tests.sim.clock import LabClock, ManualClock
from hil_tests.sim.icpdas_m7015 import M7015Twin
from hil_tests.sim.physics.platinum import celsius, ohm
from hil_tests.sim.wire.modbus_rtu import checksum


def twin(*kelvin, unit=2, **settings):
    return M7015Twin([lambda one=one: one for one in kelvin], ManualClock(), unit, settings)


def reply(device, frame_hex):
    answer = device.answer(bytes.fromhex(frame_hex))
    return None if answer is None else answer.hex(" ")


@pytest.mark.parametrize(
    ("temperature_c", "resistance_ohm"),
    [(-200, 18.5201), (-100, 60.2558), (-50, 80.3063), (0, 100.0), (60, 123.2419), (850, 390.4811)],
)
def test_element_of_the_sheet(temperature_c, resistance_ohm):
    assert ohm(273.15 + temperature_c) == pytest.approx(resistance_ohm, abs=5e-5)
    assert celsius(resistance_ohm) == pytest.approx(temperature_c, abs=2e-4)


# Frames of the sheet, typed in from there (unit 2).


def test_worked_frame_six_channels():
    device = twin(298.15)
    assert reply(device, "02 04 00 00 00 06 70 3b").startswith("02 04 0c 20 00 7f ff 7f ff")


def test_worked_frame_range_flags():
    body = bytes.fromhex("02 02 01 3e")  # channel 0 measures, five are open
    assert reply(twin(298.15), "02 02 00 80 00 06 f9 d3") == (body + checksum(body)).hex(" ")


def test_worked_frame_name_and_an_unknown_subfunction():
    body = bytes.fromhex("02 46 00 00 70 15 00")
    assert reply(twin(298.15), "02 46 00 e2 60") == (body + checksum(body)).hex(" ")
    ask = bytes.fromhex("02 46 77")
    assert twin(298.15).answer(ask + checksum(ask))[:3] == bytes.fromhex("02 c6 02")


def test_full_scale_open_and_short_are_not_told_apart_by_the_value():
    for state, word in (("open", 0x7FFF), ("short", 0x8000)):
        device = twin(298.15)
        device.inject({"kind": "sensor", "state": state})
        device.advance(0.0)
        assert (device.channels[0].word, device.channels[0].out_of_range) == (word, True)
    hot = twin(273.15 + 100.0)
    hot.advance(0.0)
    assert (hot.channels[0].word, hot.channels[0].out_of_range) == (0x7FFF, False)


def test_leads_of_the_sheet_read_one_kelvin_high():
    device = twin(333.15, engineering=True, lead_ohm=0.4)
    device.advance(0.0)
    assert device.channels[0].word == 610  # 61.04 degC in tenths


def test_values_stand_still_between_two_scans():
    kelvin = [300.0]
    device = M7015Twin([lambda: kelvin[0]], ManualClock(), 2)
    device.advance(0.0)
    first = device.channels[0].word
    kelvin[0] = 310.0
    device.advance(0.4)
    assert device.channels[0].word == first
    device.advance(0.5)
    assert device.channels[0].word > first


def test_silent_while_it_boots_and_first_read_after_it():
    device = twin(300.0)
    device.inject({"kind": "reset", "boot_s": 1.0})
    assert reply(device, "02 04 00 00 00 06 70 3b") is None
    with pytest.raises(ValueError, match="no such fault"):
        device.inject({"kind": "earthquake"})
    with pytest.raises(ValueError, match="no such state"):
        device.inject({"kind": "sensor", "state": "melted"})
    with pytest.raises(ValueError, match="unknown settings"):
        twin(300.0, colour="red")


# Foreign clients over the pty


@pytest.fixture
async def online():
    device = M7015Twin([lambda: 333.15, lambda: 263.15], LabClock(speed=50.0), 2)
    yield device, await device.start()
    await device.stop()


async def test_minimalmodbus(online):
    device, port = online

    def talk():
        instrument = minimalmodbus.Instrument(port, 2, close_port_after_each_call=True)
        instrument.serial.baudrate, instrument.serial.timeout = 9600, 0.5
        instrument.clear_buffers_before_each_transaction = True
        values = [instrument.read_register(channel, functioncode=4, signed=True) for channel in (0, 1)]
        flags = instrument.read_bits(128, 6, functioncode=2)
        instrument.write_bit(268, 1)  # engineering
        with pytest.raises(minimalmodbus.IllegalRequestError):
            instrument.read_register(1000)
        return values, flags, instrument.read_bit(268, functioncode=1), instrument.read_register(256)

    values, flags, engineering, code = await asyncio.to_thread(talk)
    assert [value * 100.0 / 32768.0 for value in values] == pytest.approx([60.0, -10.0], abs=0.002)
    assert flags == [0, 0, 1, 1, 1, 1]
    assert (engineering, code) == (1, 0x20)
    assert device.counters()["writes"] == 1


async def test_pymodbus(online):
    _, port = online
    client = AsyncModbusSerialClient(port, framer=FramerType.RTU, baudrate=9600, timeout=0.5, retries=0)
    await client.connect()
    registers = (await client.read_input_registers(0, count=2, device_id=2)).registers
    assert client.convert_from_registers(registers[:1], client.DATATYPE.INT16) == 19661
    assert (await client.read_discrete_inputs(128, count=6, device_id=2)).bits[:6] == [False] * 2 + [True] * 4
    client.close()
