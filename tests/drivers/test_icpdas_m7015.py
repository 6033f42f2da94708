"""The RTD module: frames of its sheet, what is no temperature, wrong settings, then its twin on a wire."""

import pytest
from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer
from pymodbus.simulator import DataType, SimData, SimDevice

from drivers import modbus, pt100
from drivers.errors import BadReply, NoReply, OutOfRange, Refused
from drivers.icpdas_m7015 import IcpDasM7015
from drivers.line import Line
from drivers.modbus import ModbusRtu
from drivers.port_serial import SerialPort
from drivers.roles import Role, Thermometer
from hil_tests.sim.clock import LabClock
from hil_tests.sim.icpdas_m7015 import M7015Twin

# Frames of the sheet (unit 2)
READ_SIX = "02 04 00 00 00 06 70 3b"
READ_FLAGS = "02 02 00 80 00 06 f9 d3"
READ_NAME = "02 46 00 e2 60"
RAW_25_C = 0x2000  # type code 0x20, -100 to 100 degC: 8192 counts of 3.05 mK

SETTINGS = {"unit_id": 2, "channel": 0, "type_code": 0x20, "data_format": "raw", "period_s": 0.5}


def frame(text):
    """Append the checksum, computed bit by bit as the standard says."""
    data = bytes.fromhex(text)
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return data + value.to_bytes(2, "little")


class Script:
    def __init__(self, port):
        self.port = port

    def talk(self, request, *replies):
        self.port.expect(frame(request), *(frame(reply) for reply in replies))
        return self

    def value(self, word, *, flag=0, channel=0):
        self.talk(f"02 04 {channel:04x} 0001", f"02 04 02 {word:04x}")
        return self.talk(f"02 02 {0x80 + channel:04x} 0001", f"02 02 01 {flag:02x}")

    def who(self, name="00 70 15 00"):
        return self.talk("02 46 00", f"02 46 00 {name}").talk("02 46 20", "02 46 20 01 07 00")

    def settings(self, *, code=0x20, engineering=0, enabled=0x3F):
        self.talk("02 03 0100 0001", f"02 03 02 {code:04x}")
        self.talk("02 01 010c 0001", f"02 01 01 {engineering:02x}")
        return self.talk("02 03 01e9 0001", f"02 03 02 {enabled:04x}")


@pytest.fixture
def script(port):
    return Script(port)


def module(line, clock, **settings):
    return IcpDasM7015(line, name="plate", clock=clock, settings={**SETTINGS, **settings})


def test_worked_frames_of_the_sheet_are_what_our_codec_makes():
    def request(pdu):
        return modbus.rtu_request(pdu, 2).frame.hex(" ")

    assert request(modbus.read_request(0, 6, 4)) == READ_SIX
    assert request(modbus.read_bits_request(0x80, 6, 2)) == READ_FLAGS


async def test_worked_frame_of_the_name(port, line, clock):
    port.expect(bytes.fromhex(READ_NAME), frame("02 46 00 00 70 15 00"))
    port.expect(frame("02 46 20"), frame("02 46 20 01 07 00"))
    identity = await module(line, clock).identify()
    assert (identity.manufacturer, identity.model, identity.firmware) == ("ICP DAS", "M-7015", "1.7.0")


async def test_bits_are_read_and_written_as_the_standard_says(port, line):
    unit = ModbusRtu(line, 1)
    # Modbus Application Protocol V1.1b3, 6.1, 6.2 and 6.5: the examples' addresses and data
    port.expect(frame("01 01 0013 0013"), frame("01 01 03 cd 6b 05"))
    port.expect(frame("01 02 00c4 0016"), frame("01 02 03 ac db 35"))
    port.expect(frame("01 05 00ac ff00"), frame("01 05 00ac ff00"))
    port.expect(frame("01 05 00ac 0000"), frame("01 05 00ac ff00"))
    coils = await unit.read_bits(0x13, 19)
    assert "".join("01"[bit] for bit in coils) == "1011001111010110101"  # CD 6B 05, lowest bit first
    inputs = await unit.read_bits(0xC4, 22, function=2)
    assert (inputs[0], inputs[2], inputs[21], len(inputs)) == (False, True, True, 22)
    await unit.write_coil(0xAC, on=True)
    with pytest.raises(BadReply, match="echo differs"):
        await unit.write_coil(0xAC, on=False)


async def test_a_reply_with_too_few_bits_is_refused(port, line):
    port.expect(frame("01 01 0013 0013"), frame("01 01 02 cd 6b"))
    with pytest.raises(BadReply, match="2 bytes instead of 3"):
        await ModbusRtu(line, 1).read_bits(0x13, 19)


@pytest.mark.parametrize(
    ("settings", "word", "celsius"),
    [
        ({}, RAW_25_C, 25.0),
        ({}, 0xE000, -25.0),
        ({}, 0x4CCD, 60.0006103515625),  # 19661 counts of 100/32768 K
        ({"data_format": "engineering"}, 601, 60.1),
        ({"data_format": "engineering"}, 0xFFFF, -0.1),
        ({"type_code": 0x80}, 0x0CCD, 60.003662109375),  # -200 to 600 degC: 18.3 mK
    ],
)
async def test_formats(script, line, clock, settings, word, celsius):
    script.value(word)
    reading = await module(line, clock, **settings).read()
    assert reading.temperature_k == pytest.approx(celsius + 273.15, abs=1e-9)
    assert reading.sensor_ok
    assert reading.problems == ()


@pytest.mark.parametrize(
    ("settings", "word", "flag", "words"),
    [
        ({}, 0x7FFF, 1, "open wire"),
        ({}, 0x7FFF, 0, "open wire"),  # also without the flag
        ({}, 0x8000, 1, "short circuit"),
        ({}, 0x8000, 0, "short circuit"),
        ({}, RAW_25_C, 1, "flags 25.0 degC"),  # also with a value that looks good
        ({"type_code": 0x21}, 0xFF00, 0, "outside the range"),  # 0 to 100 degC, and the module says -0.8
        ({"data_format": "engineering"}, 0x7FFF, 1, "open wire"),
        ({"data_format": "engineering"}, 1001, 0, "outside the range"),
        ({"data_format": "engineering"}, 0x8000, 0, "short circuit"),
    ],
)
async def test_what_is_no_temperature(script, line, clock, settings, word, flag, words):
    script.value(word, flag=flag)
    reading = await module(line, clock, **settings).read()
    assert reading.temperature_k is None
    assert not reading.sensor_ok
    assert words in reading.problems[0]


async def test_another_channel(script, line, clock):
    script.value(RAW_25_C, channel=5)
    assert (await module(line, clock, channel=5).read()).temperature_k == pytest.approx(298.15)


async def test_leads_and_r0_are_put_right_in_ohm(script, line, clock):
    """0.4 ohm of leads read 1.04 K high at 60 degC (the sheet): 61.04 shown are 60.00."""
    script.value(round(61.04 / 100.0 * 32768.0))
    shown = await module(line, clock, lead_ohm=0.4).read()
    assert shown.temperature_k == pytest.approx(333.15, abs=0.01)
    script.value(round(60.0 / 100.0 * 32768.0))
    r0 = 100.2
    reading = await module(line, clock, r0_ohm=r0).read()
    assert pt100.resistance_ohm(reading.temperature_k - 273.15, r0) == pytest.approx(123.2419, abs=1e-3)


async def test_a_correction_that_leaves_iec_60751_is_no_temperature(script, line, clock):
    script.value(0xFFFF - 6553, flag=0)  # about -120 degC on a range to -600
    reading = await module(line, clock, type_code=0x80, lead_ohm=60.0).read()
    assert reading.temperature_k is None
    assert "no temperature after the correction" in reading.problems[0]


async def test_preparing_says_what_nothing_guards(script, line, clock):
    script.who().settings().value(RAW_25_C)
    notes = await module(line, clock, tolerance_class="A").prepare()
    text = "\n".join(notes)
    assert all(note.startswith("plate: ") for note in notes)
    assert "-100 to 100 degC in steps of 3.05 mK" in text
    assert "it protects no heater" in text
    assert "class A: +-0.27 K at 60 degC" in text


async def test_preparing_speaks_of_a_sensor_that_is_broken_already(script, line, clock):
    script.who().settings().value(0x7FFF, flag=1)
    assert "plate: over range: open wire, or hotter than the range" in await module(line, clock).prepare()


@pytest.mark.parametrize(
    ("code", "engineering", "enabled", "words"),
    [
        (0x23, None, None, "type code 0x23 and the station file says 0x20"),
        (0x20, 1, None, "wrong by a factor"),
        (0x20, 0, 0x3E, "channel 0 is switched off"),
    ],
)
async def test_other_settings_than_the_station_file_are_refused(
    script, line, clock, code, engineering, enabled, words
):
    script.who().talk("02 03 0100 0001", f"02 03 02 {code:04x}")
    if engineering is not None:
        script.talk("02 01 010c 0001", f"02 01 01 {engineering:02x}")
    if enabled is not None:
        script.talk("02 03 01e9 0001", f"02 03 02 {enabled:04x}")
    with pytest.raises(BadReply, match=words):
        await module(line, clock).prepare()


async def test_another_module_and_something_else_entirely(port, line, clock):
    port.expect(frame("02 46 00"), frame("02 46 00 00 70 18 00"))
    with pytest.raises(BadReply, match="is no M-7015: its name is 00 70 18 00"):
        await module(line, clock).identify()
    port.expect(frame("02 46 00"), frame("02 c6 01"))
    with pytest.raises(Refused, match="does not know function 0x46"):
        await module(line, clock).identify()
    port.expect(frame("02 46 00"), frame("03 46 00 00 70 15 00"))
    with pytest.raises(BadReply, match="reply to something else"):
        await module(line, clock).identify()
    port.expect(frame("02 46 00"), frame("02 46 00 00 70 15 00")[:-1] + b"\0")
    with pytest.raises(BadReply, match="wrong checksum"):
        await module(line, clock).identify()


async def test_silence_costs_one_repetition_and_is_told(port, line, clock):
    port.expect(frame("02 04 0000 0001"))
    port.expect(frame("02 04 0000 0001"))
    with pytest.raises(NoReply):
        await module(line, clock).read()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"channel": 6}, "channels 0 to 5"),
        ({"type_code": 0x28}, "type code 0x28 is none of"),
        ({"type_code": 0x2F, "lead_ohm": 0.1}, "IEC 60751 elements only"),
    ],
)
def test_impossible_settings(line, clock, wrong, words):
    with pytest.raises(OutOfRange, match=words):
        module(line, clock, **wrong)


async def test_it_plays_a_thermometer(line, clock):
    device = module(line, clock)
    assert isinstance(device, Thermometer)
    assert device.roles == {Role.THERMOMETER}
    await device.off()


# Against the twin, over a pseudo-terminal


@pytest.fixture
async def wired():
    clock = LabClock(speed=50.0)
    kelvin = [333.15]
    twin = M7015Twin([lambda: kelvin[0]], clock, 2, {"r0_ohm": 100.06, "lead_ohm": 0.4})
    line = Line("bus", SerialPort(await twin.start(), 9600))
    await line.open()
    yield twin, line, clock, kelvin
    await line.close()
    await twin.stop()


async def test_the_twin_through_its_faults(wired):
    twin, line, clock, kelvin = wired
    plain = module(line, clock)
    exact = module(line, clock, r0_ohm=100.06, lead_ohm=0.4)
    assert "M-7015" in (await plain.identify()).model
    await exact.prepare()
    assert (await exact.read()).temperature_k == pytest.approx(333.15, abs=0.002)
    assert (await plain.read()).temperature_k == pytest.approx(333.15 + 1.23, abs=0.02)
    for state in ("open", "short"):
        twin.inject({"kind": "sensor", "state": state})
        assert (await exact.read()).temperature_k is None
    twin.inject({"kind": "sensor", "state": "good"})
    kelvin[0] = 380.0  # above 100 degC
    twin.inject({"kind": "leads", "ohm": 0.4})
    assert (await exact.read()).temperature_k is None
    kelvin[0] = 300.0
    twin.inject({"kind": "noise", "hex": "00 ff"})
    twin.inject({"kind": "flipped", "at": 3, "skip": 1})
    await clock.sleep(0.6)
    assert (await exact.read()).temperature_k == pytest.approx(300.0, abs=0.003)


async def test_against_the_server_of_pymodbus(pty_pair, clock):
    """A stranger with this map: read-only values, flags, settings; it does not know function 0x46."""
    off = [False] * 8
    coils = [SimData(address, values=off, datatype=DataType.BITS) for address in (128, 268)]
    inputs = [SimData(128, values=off, datatype=DataType.BITS)]
    holding = [SimData(256, values=[0x20] * 6, datatype=DataType.REGISTERS)]
    values = [SimData(0, values=[RAW_25_C, 0x7FFF, 0, 0, 0, 0], datatype=DataType.REGISTERS)]
    unit = SimDevice(id=2, simdata=(coils, inputs, holding, values))
    server = ModbusSerialServer(unit, framer=FramerType.RTU, port=pty_pair.theirs, baudrate=9600)
    await server.serve_forever(background=True)
    line = Line("bus", SerialPort(pty_pair.ours, 115200))
    await line.open()
    assert (await module(line, clock).read()).temperature_k == pytest.approx(298.15)
    assert (await module(line, clock, channel=1).read()).temperature_k is None
    with pytest.raises(NoReply):
        await module(line, clock).identify()
    await line.close()
    await server.shutdown()
