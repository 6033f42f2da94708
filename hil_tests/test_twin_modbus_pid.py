"""Twins of two controllers by their published registers: foreign clients, and what each does with a fault."""

import asyncio
import struct

import minimalmodbus
import pytest
from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient

from hil_tests.sim.clock import LabClock, ManualClock
from hil_tests.sim.modbus_pid import ModbusPidTwin
from hil_tests.sim.physics.holder import Holder, HolderParameters
from hil_tests.sim.wire.modbus_rtu import ModbusError


def twin(face, start_k=298.15, **settings):
    return ModbusPidTwin(
        Holder(HolderParameters(), start_k=start_k), ManualClock(), 1, settings={"face": face, **settings}
    )


def watlow_float(device, register):
    low, high = device.registers.read(register, 2)
    return struct.unpack(">f", struct.pack(">HH", high, low))[0]


def test_watlow_shows_fahrenheit_with_the_low_word_first():
    assert watlow_float(twin("watlow_pm"), 360) == pytest.approx(77.0, abs=1e-4)
    assert watlow_float(twin("watlow_pm", fahrenheit=False), 360) == pytest.approx(25.0, abs=1e-4)


def test_delta_shows_tenths_and_codes():
    device = twin("delta_dtb")
    assert device.registers.read(0x1000, 1) == [250]
    for state, code in (("open", 0x8003), ("short", 0x8003), ("out of range", 0x8004)):
        device.inject({"kind": "sensor", "state": state})
        assert device.registers.read(0x1000, 1) == [code]


def test_watlow_input_error():
    device = twin("watlow_pm")
    assert device.registers.read(362, 1) == [61]
    for state, code in (("open", 65), ("short", 127), ("out of range", 32)):
        device.inject({"kind": "sensor", "state": state})
        assert device.registers.read(362, 1) == [code]


def test_modes_and_ramp_of_the_watlow():
    device = twin("watlow_pm")
    map_ = device.registers
    high, low = struct.unpack(">HH", struct.pack(">f", 18.0))
    map_.write(2192, [low, high], single=False)
    map_.write(2186, [1647], single=True)
    assert device.loop.settings.rate == pytest.approx(10.0)  # K/min
    map_.write(1880, [62], single=True)
    device.advance(1.0)
    assert device.loop.output_percent == 0.0
    map_.write(2162, [0, 0x4248], single=False)  # 50 %
    map_.write(1880, [54], single=True)
    device.advance(2.0)
    assert device.loop.output_percent == 50.0
    for register, words, single in ((1880, [11], True), (360, [0, 0], False), (2160, [0, 0x4500], False)):
        with pytest.raises(ModbusError):  # no such mode; read-only; 2048 degF
            map_.write(register, words, single=single)


def test_run_and_write_protection_of_the_delta():
    device = twin("delta_dtb")
    map_ = device.registers
    map_.write(0x1001, [600], single=True)
    device.advance(1.0)
    assert device.loop.output_percent > 90.0
    map_.write_coil(0x0814, on=False)
    device.advance(2.0)
    assert device.loop.output_percent == 0.0
    map_.write_coil(0x0810, on=False)
    with pytest.raises(ModbusError):
        map_.write(0x1001, [700], single=True)
    with pytest.raises(ModbusError):
        map_.write_coil(0x0814, on=True)
    with pytest.raises(ModbusError):
        map_.read(0x1000, 9)  # eight words at most
    with pytest.raises(ValueError, match="no such controller"):
        twin("acme")


@pytest.fixture
async def online(request):
    device = ModbusPidTwin(
        Holder(HolderParameters(), start_k=298.15), LabClock(speed=50.0), 1, settings={"face": request.param}
    )
    yield device, await device.start()
    await device.stop()


@pytest.mark.parametrize("online", ["delta_dtb"], indirect=True)
async def test_minimalmodbus_and_the_delta(online):
    device, port = online

    def talk():
        instrument = minimalmodbus.Instrument(port, 1, close_port_after_each_call=True)
        instrument.serial.baudrate, instrument.serial.timeout = 9600, 0.5
        instrument.write_register(0x1001, 60.0, 1, functioncode=6, signed=True)
        instrument.write_bit(0x0814, 0)
        return (
            instrument.read_register(0x1000, 1, signed=True),
            instrument.read_register(0x1001, 1),
            instrument.read_bit(0x0814, functioncode=2),
        )

    process, target, running = await asyncio.to_thread(talk)
    assert process == pytest.approx(25.0, abs=1.0)
    assert (target, running) == (60.0, 0)
    assert device.loop.settings.setpoint_1_c == 60.0


@pytest.mark.parametrize("online", ["watlow_pm"], indirect=True)
async def test_pymodbus_and_the_watlow(online):
    device, port = online
    client = AsyncModbusSerialClient(port, framer=FramerType.RTU, baudrate=9600, timeout=0.5, retries=0)
    await client.connect()
    words = client.convert_to_registers(140.0, client.DATATYPE.FLOAT32, word_order="little")
    await client.write_registers(2160, words, device_id=1)
    back = (await client.read_holding_registers(2160, count=2, device_id=1)).registers
    assert client.convert_from_registers(back, client.DATATYPE.FLOAT32, word_order="little") == 140.0
    assert device.loop.settings.setpoint_1_c == pytest.approx(60.0)
    assert (await client.read_holding_registers(9999, count=1, device_id=1)).isError()
    client.close()
