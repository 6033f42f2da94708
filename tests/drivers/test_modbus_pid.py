"""A controller known from the station file only: two real ones by their registers, and wrong files."""

import asyncio
import math
import struct

import pytest
from pydantic import ValidationError
from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from drivers.errors import BadReply, NoReply, OutOfRange, Refused
from drivers.line import Interrupted, Line
from drivers.modbus_pid import ModbusPid
from drivers.modbus_pid_points import Point, blocks, point
from drivers.port_serial import SerialPort
from drivers.port_tcp import TcpPort
from drivers.roles import Role, TemperatureController
from hil_tests.sim.clock import LabClock
from hil_tests.sim.modbus_pid import ModbusPidTwin
from hil_tests.sim.physics.holder import Holder, HolderParameters
from tests.drivers.described_controllers import DELTA, WATLOW, settings


def frame(text):
    """Append the checksum, computed bit by bit as the standard says."""
    data = bytes.fromhex(text)
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return data + value.to_bytes(2, "little")


def low_first(value):
    high, low = struct.unpack(">HH", struct.pack(">f", value))
    return f"{low:04x} {high:04x}"


class Watlow:
    """What is asked of the Watlow and answered, in order; 77 degF are 25 degC."""

    def __init__(self, port):
        self.port = port

    def talk(self, request, *replies):
        self.port.expect(frame(request), *(frame(reply) for reply in replies))
        return self

    def word(self, register, value):
        return self.talk(f"01 03 {register:04x} 0001", f"01 03 02 {value:04x}")

    def float(self, register, value):
        return self.talk(f"01 03 {register:04x} 0002", f"01 03 04 {low_first(value)}")

    def set_word(self, register, value, before, got=None):
        self.word(register, before)
        self.talk(f"01 06 {register:04x} {value:04x}", f"01 06 {register:04x} {value:04x}")
        return self.word(register, value if got is None else got)

    def set_float(self, register, value, before=0.0, got=None):
        self.float(register, before)
        self.talk(f"01 10 {register:04x} 0002 04 {low_first(value)}", f"01 10 {register:04x} 0002")
        return self.float(register, value if got is None else got)

    def poll(self, fahrenheit=77.0, error=61, mode=10, percent=12.5, target=86.0):
        self.word(1880, mode).float(1904, percent).float(2160, target)
        return self.talk(
            "01 03 0168 0003", f"01 03 06 {low_first(fahrenheit)} {error:04x}"
        )  # process value and its error stand side by side: one request

    def off(self, before=10):
        if before == 62:
            self.word(1880, 62)
        else:
            self.set_word(1880, 62, before)
        return self.float(1904, 0.0)


@pytest.fixture
def script(port):
    return Watlow(port)


def watlow(line, clock, **more):
    return ModbusPid(line, name="heater", clock=clock, settings=settings(WATLOW, **more))


def delta(line, clock, **more):
    return ModbusPid(line, name="heater", clock=clock, settings=settings(DELTA, **more))


# Numbers and words


@pytest.mark.parametrize(
    ("table", "words", "value"),
    [
        ({"address": 1, "scale": 0.1, "unit": "degC"}, [251], 298.25),
        ({"address": 1, "scale": 0.1, "unit": "degC"}, [0xFF9C], 263.15),
        ({"address": 1, "scale": 0.01, "unit": "K", "type": "uint16"}, [0x80E8], 330.00),
        ({"address": 1, "type": "float32", "unit": "degF"}, [0x429A, 0x0000], 298.15),
        ({"address": 1, "type": "float32", "unit": "degF", "word_order": "low first"}, [0, 0x429A], 298.15),
        ({"address": 1, "type": "int32", "scale": 0.001, "unit": "degC"}, [0xFFFF, 0xFC18], 272.15),
        ({"address": 1, "type": "uint32", "word_order": "low first"}, [0x0001, 0x0001], 65537.0),
        ({"address": 1, "scale": 0.1, "unit": "%"}, [125], 0.125),
        ({"address": 1, "scale": 0.5, "offset": -20.0, "unit": "degC"}, [100], 303.15),
        ({"address": 1, "scale": 0.1, "unit": "K/h"}, [600], 1.0),
    ],
)
def test_points_both_ways(table, words, value):
    one = point(table)
    assert one.value(words) == pytest.approx(value, abs=1e-4)
    assert one.coded(one.value(words)) == words


def test_what_does_not_fit_is_refused():
    tenths = point({"address": 1, "scale": 0.1, "unit": "degC"})
    with pytest.raises(OutOfRange, match="does not fit into register 1"):
        tenths.coded(4000.0 + 273.15)
    with pytest.raises(OutOfRange, match="outside the limits 0 to 200"):
        point({"address": 1, "unit": "degC", "low": 0, "high": 200}).coded(474.0)


@pytest.mark.parametrize(
    "table",
    [
        {"address": 1, "type": "int24"},
        {"address": 1, "unit": "furlong"},
        {"address": 1, "function": 5},
        {"address": 1, "function": 2},
        {"address": 1, "type": "bit"},
        {"address": 1, "type": "float32", "write": 6},
        {"address": 1, "write": 5},
        {"address": 1, "scale": 0.0},
        {"address": 1, "low": 2.0, "high": 1.0},
    ],
)
def test_impossible_points(table):
    with pytest.raises(OutOfRange):
        point(table)


def test_neighbours_are_read_together_and_nothing_that_is_not_described():
    a, b, c, d = (
        Point(n, type=t) for n, t in ((360, "float32"), (362, "uint16"), (364, "uint16"), (10, "int16"))
    )
    assert blocks([c, b, a, d]) == [[d], [a, b], [c]]
    assert blocks([Point(1), Point(2, function=4)]) == [[Point(1)], [Point(2, function=4)]]


# Reading


async def test_a_poll(script, line, clock):
    script.poll()
    reading = await watlow(line, clock).read()
    assert reading.temperature_k == pytest.approx(298.15, abs=1e-4)
    assert reading.working_setpoint_k == pytest.approx(303.15, abs=1e-4)
    assert reading.output_fraction == pytest.approx(0.125)
    assert (reading.sensor_ok, reading.problems, reading.status_word) == (True, (), 0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"error": 65}, "sensor error"),
        ({"fahrenheit": 2000.0}, "outside its range"),
        ({"fahrenheit": -200.0}, "outside its range"),
        ({"fahrenheit": math.nan}, "has no value"),
        ({"fahrenheit": math.inf}, "has no value"),
    ],
)
async def test_what_is_no_temperature(script, line, clock, wrong, words):
    script.poll(**wrong)
    reading = await watlow(line, clock).read()
    assert (reading.temperature_k, reading.sensor_ok) == (None, False)
    assert any(words in problem for problem in reading.problems)


@pytest.mark.parametrize("wrong", [{"percent": 150.0}, {"percent": math.nan}, {"target": math.nan}])
async def test_a_description_that_does_not_fit_is_no_reading(script, line, clock, wrong):
    script.poll(**wrong)
    with pytest.raises(BadReply, match="the description does not fit"):
        await watlow(line, clock).read()


async def test_codes_in_place_of_a_value(port, line, clock):
    for code in (0x8003, 0x8002):
        port.expect(frame("01 02 0814 0001"), frame("01 02 01 01"))
        port.expect(frame("01 03 1000 0002"), frame(f"01 03 04 {code:04x} 0258"))
        port.expect(frame("01 03 1012 0001"), frame("01 03 02 0000"))
        port.expect(frame("01 03 102a 0001"), frame("01 03 02 0091"))
        reading = await delta(line, clock).read()
        assert reading.temperature_k is None
        assert reading.problems[:2] == ("an alarm output is on", "autotune is running")
        assert reading.status_word == 0b11
        assert f"{code:#06x}" in reading.problems[2]


async def test_somebody_changed_the_set_point_or_the_mode(script, line, clock):
    device = watlow(line, clock)
    script.set_float(2160, 140.0).word(1880, 10).poll(target=140.0).poll(target=86.0).poll(
        target=140.0, mode=54
    )
    await device.set_target_k(333.15)
    assert (await device.read()).problems == ()
    assert "follows 30.0 degC instead of 60.0" in (await device.read()).problems[0]
    assert "not in automatic mode" in (await device.read()).problems[0]


# Set-points and ramps


async def test_a_set_point_is_read_back_and_makes_the_mode_automatic(script, line, clock):
    script.set_float(2160, 140.0).word(1880, 62).set_word(1880, 10, 62)
    await watlow(line, clock).set_target_k(333.15)


async def test_a_set_point_that_is_there_already_is_not_written_again(script, line, clock, port):
    script.float(2160, 140.0).word(1880, 10)
    await watlow(line, clock).set_target_k(333.15)
    assert [sent[1] for _, sent in port.sent] == [3, 3]


async def test_a_set_point_that_does_not_stay(script, line, clock):
    script.set_float(2160, 140.0, before=86.0, got=86.0)
    with pytest.raises(BadReply, match="register 2160 was set to 140 and reads 86"):
        await watlow(line, clock).set_target_k(333.15)


@pytest.mark.parametrize(
    ("target_k", "words"),
    [(343.2, "limits 263 to 343 K"), (262.0, "limits 263"), (math.nan, "nan K"), (270.0, "limits 32 to 392")],
)
async def test_set_points_beyond_station_or_description_are_not_sent(line, clock, port, target_k, words):
    with pytest.raises(OutOfRange, match=words):
        await watlow(line, clock).set_target_k(target_k)
    assert port.sent == []


async def test_a_ramp_is_written_and_switched_on_and_zero_switches_it_off(script, line, clock):
    device = watlow(line, clock)
    script.set_float(2192, 18.0).set_word(2186, 1647, 62).set_word(2186, 62, 1647)
    await device.set_ramp_k_per_min(10.0)
    await device.set_ramp_k_per_min(0.0)


async def test_ramps_beyond_the_limit_or_that_are_not_there(line, clock, port):
    limited = watlow(line, clock, temperature_rate_k_per_s=0.1)
    for rate in (6.1, 0.0, -1.0, math.nan):
        with pytest.raises(OutOfRange, match="ramp of"):
            await limited.set_ramp_k_per_min(rate)
    with pytest.raises(OutOfRange, match="no ramp is described"):
        await delta(line, clock).set_ramp_k_per_min(1.0)
    await delta(line, clock).set_ramp_k_per_min(0.0)
    assert port.sent == []


# Off


async def test_off_by_its_mode(script, line, clock):
    script.off().off(before=62)
    device = watlow(line, clock)
    await device.off()
    await device.off()


async def test_off_by_manual_mode_when_mode_off_does_not_help(script, line, clock):
    script.set_word(1880, 62, 10)
    for _ in range(6):
        script.float(1904, 55.0)
    script.set_word(1880, 54, 62).set_float(2162, 0.0, before=55.0).float(1904, 0.0)
    await watlow(line, clock).off()


async def test_off_by_the_set_point_when_the_mode_is_refused(script, line, clock):
    script.word(1880, 10).talk("01 06 0758 003e", "01 86 03")
    script.word(1880, 10).talk("01 06 0758 0036", "01 86 03")
    script.set_word(2186, 62, 1647).set_float(2160, 32.0, before=140.0).float(1904, 0.0)
    await watlow(line, clock).off()


async def test_off_that_is_not_reached_says_what_was_tried(script, line, clock):
    script.word(1880, 10).talk("01 06 0758 003e", "01 86 03")
    script.word(1880, 10).talk("01 06 0758 0036", "01 86 03")
    script.set_word(2186, 62, 1647).set_float(2160, 32.0, before=140.0)
    for _ in range(6):
        script.float(1904, 55.0)
    with pytest.raises(BadReply, match=r"is not off; its mode off: exception 3.*manual.*lowest set-point"):
        await watlow(line, clock).off()


async def test_off_revokes_what_is_in_flight(script, line, clock, port):
    device = watlow(line, clock)
    port.stuck = True
    script.talk("01 03 0870 0002")
    command = asyncio.create_task(device.set_target_k(333.15))
    for _ in range(10):
        await asyncio.sleep(0)
    port.stuck = False
    script.off()
    await device.off()
    with pytest.raises(Interrupted):
        await command


# Who it is


async def test_another_instrument(port, line, clock):
    port.expect(frame("01 03 102f 0001"), frame("01 03 02 0100"))
    with pytest.raises(
        BadReply, match="is no Delta DTB4848 as described: register 4143 is 256 instead of 352"
    ):
        await delta(line, clock).identify()


async def test_preparing_says_what_is_not_known(script, line, clock):
    script.float(360, 77.0).off().poll(mode=62)
    text = "\n".join(await watlow(line, clock).prepare())
    assert "described by the station file alone" in text
    assert "measures 25.0 degC: compare with its display" in text
    assert "switched off by its mode off, else manual mode at 0 %, else its lowest set-point" in text
    assert "as confirmed by A. Person" in text
    assert "no register tells who it is" in text


async def test_unconfirmed_sensor_break(script, line, clock):
    script.float(360, 77.0).off()
    with pytest.raises(Refused, match="nobody has confirmed"):
        await watlow(line, clock, sensor_break={}).prepare()


async def test_silence_costs_one_repetition(port, line, clock):
    for _ in range(2):
        port.expect(frame("01 03 0758 0001"))
    with pytest.raises(NoReply):
        await watlow(line, clock).read()


async def test_it_plays_a_temperature_controller(line, clock):
    device = watlow(line, clock)
    assert isinstance(device, TemperatureController)
    assert Role.TEMPERATURE_CONTROLLER in device.roles


# Station files that describe no controller


@pytest.mark.parametrize(
    ("text", "old", "new", "words"),
    [
        (DELTA, 'unit = "degC", write = 6', 'unit = "degC"', "setpoint.write is missing"),
        (DELTA, 'unit = "%"', 'unit = "K"', "output.unit must be"),
        (DELTA, "process_value.low = -50\n", "", "process_value needs low and high"),
        (DELTA, "process_value.invalid", "#", "describe one"),
        (DELTA, "type = \"bit\", ", "", "bits have functions 1, 2 and 5"),
        (WATLOW, "setpoint.write = 16", "setpoint.write = 6", "function 6 writes one word"),
        (WATLOW, "unlike = [61], ", "", "one of mask, equals and unlike"),
        (WATLOW, "degF/min", "degF/h", "degF/min"),
        (WATLOW, "register = 360", "register = 70000", "65535"),
        (WATLOW, "sensor = true", "sensor = false", "tells a broken sensor"),
    ],
)  # fmt: skip
def test_wrong_descriptions_are_refused(text, old, new, words):
    assert old in text
    with pytest.raises(ValidationError) as caught:
        settings(text.replace(old, new, 1))
    errors = caught.value.errors()
    shown = str(errors) + "".join(
        f"{fault.key} {fault.complaint}"
        for error in errors
        for fault in error.get("ctx", {}).get("faults", ())
    )
    assert words in shown


# Against the twins, on a wire


FACES = {"watlow_pm": WATLOW, "delta_dtb": DELTA}


@pytest.fixture(params=FACES)
async def heated(request):
    clock = LabClock(speed=40.0)
    holder = Holder(HolderParameters(), start_k=297.0)
    twin = ModbusPidTwin(holder, clock, 1, lambda: True, {"face": request.param, "baud": 115200})
    line = Line("heater", SerialPort(await twin.start(), 115200))
    await line.open()
    yield twin, clock, ModbusPid(line, name="heater", clock=clock, settings=settings(FACES[request.param]))
    await line.close()
    await twin.stop()


async def test_the_twin_heats_and_goes_off(heated):
    twin, clock, device = heated
    await device.prepare()
    assert (await device.read()).temperature_k == pytest.approx(297.0, abs=0.2)
    await device.set_target_k(333.15)
    while (await device.read()).output_fraction < 0.9:
        await clock.sleep(0.5)
    assert twin.loop.settings.setpoint_1_c == pytest.approx(60.0, abs=1e-4)
    await device.off()
    assert twin.loop.output_percent == 0.0
    assert twin.loop.settings.manual
    await device.set_target_k(330.0)
    assert not twin.loop.settings.manual


async def test_the_twin_with_a_broken_sensor_and_a_restart(heated):
    twin, clock, device = heated
    await device.prepare()
    twin.inject({"kind": "sensor", "state": "open"})
    await clock.sleep(1.0)
    reading = await device.read()
    assert (reading.temperature_k, reading.sensor_ok) == (None, False)
    twin.inject({"kind": "sensor", "state": "good"})
    await clock.sleep(1.0)
    assert (await device.read()).sensor_ok
    twin.inject({"kind": "deaf"})
    with pytest.raises(BadReply, match="was set to"):
        await device.set_target_k(320.0)
    twin.inject({"kind": "deaf", "given": False})
    twin.inject({"kind": "reset", "boot_s": 1.0})
    assert twin.loop.settings.manual  # off survives a power failure
    twin.inject({"kind": "stuck_output", "fraction": 0.5})
    await clock.sleep(3.0)
    await device.off()


# Against the server of pymodbus, a stranger with these maps


def watlow_server():
    words = DataType.REGISTERS
    tables = [
        SimData(360, values=[*_low(77.0), 61], datatype=words),
        SimData(1880, values=[10], datatype=words),
        SimData(1904, values=_low(0.0), datatype=words),
        SimData(2160, values=[*_low(86.0), *_low(0.0)], datatype=words),
        SimData(2186, values=[62], datatype=words),
        SimData(2192, values=_low(0.0), datatype=words),
    ]
    return SimDevice(id=1, simdata=tables)


def _low(value):
    high, low = struct.unpack(">HH", struct.pack(">f", value))
    return [low, high]


async def exercise(device):
    notes = await device.prepare()
    assert any("measures 25.0 degC" in note for note in notes)
    await device.set_ramp_k_per_min(5.0)
    await device.set_target_k(333.15)
    reading = await device.read()
    assert reading.working_setpoint_k == pytest.approx(333.15, abs=1e-3)
    assert reading.problems == ()
    await device.off()


async def test_watlow_map_behind_pymodbus_on_a_serial_line(pty_pair, clock):
    server = ModbusSerialServer(watlow_server(), framer=FramerType.RTU, port=pty_pair.theirs, baudrate=115200)
    await server.serve_forever(background=True)
    line = Line("heater", SerialPort(pty_pair.ours, 115200))
    await line.open()
    await exercise(watlow(line, clock, timeout_s=1.0))
    assert (line.stats.timeouts, line.stats.bad_replies) == (0, 0)
    await line.close()
    await server.shutdown()


async def test_watlow_map_behind_pymodbus_over_tcp(unused_tcp_port, clock):
    server = ModbusTcpServer(
        watlow_server(), framer=FramerType.SOCKET, address=("127.0.0.1", unused_tcp_port)
    )
    await server.serve_forever(background=True)
    line = Line("heater", TcpPort("127.0.0.1", unused_tcp_port))
    await line.open()
    await exercise(watlow(line, clock, timeout_s=1.0, framing="tcp"))
    await line.close()
    await server.shutdown()


async def test_delta_map_behind_pymodbus(pty_pair, clock):
    words, bits = DataType.REGISTERS, DataType.BITS
    switches = [SimData(0x0810, values=[True] * 8, datatype=bits)]
    registers = [
        SimData(0x1000, values=[250, 300], datatype=words),
        SimData(0x1012, values=[0], datatype=words),
        SimData(0x102A, values=[0x08], datatype=words),
        SimData(0x102F, values=[0x0160], datatype=words),
    ]
    stranger = SimDevice(id=1, simdata=(switches, switches, registers, registers))
    server = ModbusSerialServer(stranger, framer=FramerType.RTU, port=pty_pair.theirs, baudrate=115200)
    await server.serve_forever(background=True)
    line = Line("heater", SerialPort(pty_pair.ours, 115200))
    await line.open()
    device = delta(line, clock, timeout_s=1.0)
    assert (await device.identify()).manufacturer == "Delta"
    reading = await device.read()
    assert reading.temperature_k == pytest.approx(298.15)
    assert reading.working_setpoint_k == pytest.approx(303.15)
    await device.set_target_k(313.15)
    assert (await device.read()).working_setpoint_k == pytest.approx(313.15)
    await line.close()
    await server.shutdown()
