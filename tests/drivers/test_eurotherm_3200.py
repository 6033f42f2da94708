"""The temperature controller: frames of its sheet, every refusal and every error path, then its twin."""

import asyncio
import math
import struct

import pytest

from drivers import eurotherm_registers as reg
from drivers import modbus
from drivers.errors import BadReply, NoReply, OutOfRange, Refused
from drivers.eurotherm_3200 import Eurotherm3200
from drivers.line import Interrupted, Line
from drivers.port_serial import SerialPort
from drivers.roles import Role, TemperatureController

CONFIRMED = {
    "setting": "latching",
    "safe_output_fraction": 0.0,
    "confirmed_by": "A. Person",
    "confirmed_on": "2026-01-01",
}
SETTINGS = {"unit_id": 1, "period_s": 0.25, "sensor_break": CONFIRMED}

# Worked frames of the sheet
READ_FIVE_WORDS = "01 03 00 01 00 05 d4 09"
FIVE_WORDS = "01 03 0a 00 fb 01 2c 00 00 00 7b 01 2c 0f d8"  # PV 25.1, SP 30.0, manual 0, OP 12.3 %, wSP 30.0
WRITE_LOCAL_45 = "01 06 00 02 01 c2 a8 0b"
WRITE_REMOTE_45 = "01 06 00 1a 01 c2 28 0c"
SELECT_REMOTE = "01 06 01 14 00 01 09 f2"
READ_STATUS = "01 03 00 4b 00 01 f4 1c"
SENSOR_BREAK = "01 03 02 00 20 b9 9c"
ILLEGAL_ADDRESS = "01 83 02 c0 f1"
ILLEGAL_VALUE = "01 86 03 02 61"
READ_FLOAT_PV = "01 03 80 02 00 02 4c 0b"
FLOAT_PV = "01 03 04 41 c9 0a 3d f9 40"  # 25.13
READ_FIVE = "01 03 80 02 00 0a 4d cd"


def frame(text):
    """Append the checksum, computed bit by bit as the standard says."""
    data = bytes.fromhex(text)
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return data + value.to_bytes(2, "little")


def floats(*values):
    return frame(f"01 03 {4 * len(values):02x} {struct.pack(f'>{len(values)}f', *values).hex()}")


def words(*values):
    return frame(f"01 03 {2 * len(values):02x} {struct.pack(f'>{len(values)}H', *values).hex()}")


def read(register, count=1):
    return frame(f"01 03 {register:04x} {count:04x}")


def read_float(register, count=1):
    return frame(f"01 03 {0x8000 + 2 * register:04x} {2 * count:04x}")


class Script:
    """What the driver is expected to ask, in order, and what is answered."""

    def __init__(self, port):
        self.port = port

    def talk(self, request, *replies):
        replies = [bytes.fromhex(reply) if isinstance(reply, str) else reply for reply in replies]
        self.port.expect(request, *replies)
        return self

    def five(self, process_c=25.13, target_c=30.0, manual=0.0, percent=12.3, working_c=30.0):
        return self.talk(READ_FIVE, floats(process_c, target_c, manual, percent, working_c))

    def status(self, bits=0):
        return self.talk(READ_STATUS, words(bits))

    def set_float(self, register, value, got=None):
        where = f"{0x8000 + 2 * register:04x} 0002"
        self.talk(frame(f"01 10 {where} 04 {struct.pack('>f', value).hex()}"), frame(f"01 10 {where}"))
        return self.talk(read_float(register), floats(value if got is None else got))

    def set_word(self, register, value, got=None):
        echo = frame(f"01 06 {register:04x} {value:04x}")
        return self.talk(echo, echo).talk(read(register), words(value if got is None else got))

    def setpoint_limits(self, low_c=0.0, high_c=200.0):
        return self.talk(read_float(111, 2), floats(high_c, low_c))

    def setpoint_down(self, low_c=0.0):
        return self.set_float(26, low_c).set_word(276, 1).set_float(35, 0.0)

    def off(self, low_c=0.0):
        return self.setpoint_down(low_c).five(percent=0.0, target_c=low_c, working_c=low_c)


@pytest.fixture
def script(port):
    return Script(port)


@pytest.fixture
def heater(line, clock):
    return Eurotherm3200(line, name="heater", clock=clock, settings=SETTINGS)


@pytest.fixture
async def limited(script, heater):
    """A heater that knows its set-point limits, 0 to 200 degC."""
    script.setpoint_limits()
    await heater._setpoint_limits_c()
    return heater


def test_every_worked_frame_of_the_sheet_is_what_our_codec_makes():
    def request(pdu):
        return modbus.rtu_request(pdu, 1).frame.hex(" ")

    assert request(modbus.read_request(1, 5)) == READ_FIVE_WORDS
    assert request(modbus.write_request(2, [450], 6)) == WRITE_LOCAL_45
    assert request(modbus.write_request(26, [450], 6)) == WRITE_REMOTE_45
    assert request(modbus.write_request(276, [1], 6)) == SELECT_REMOTE
    assert request(modbus.read_request(75, 1)) == READ_STATUS
    assert request(modbus.read_request(reg.ieee(1), 2)) == READ_FLOAT_PV
    assert request(modbus.read_request(reg.ieee(1), 10)) == READ_FIVE


def test_every_worked_reply_of_the_sheet_is_understood():
    def parse(reply, pdu):
        return modbus.parse_rtu(bytes.fromhex(reply), modbus.rtu_request(pdu, 1))

    assert parse(FIVE_WORDS, modbus.read_request(1, 5)) == [251, 300, 0, 123, 300]
    assert parse(WRITE_LOCAL_45, modbus.write_request(2, [450], 6)) == [450]
    assert parse(SENSOR_BREAK, modbus.read_request(75, 1)) == [0x20]
    assert modbus.floats(parse(FLOAT_PV, modbus.read_request(0x8002, 2)) or []) == [pytest.approx(25.13)]
    with pytest.raises(Refused, match="no such register"):
        parse(ILLEGAL_ADDRESS, modbus.read_request(1, 1))
    with pytest.raises(Refused, match="value not allowed"):
        parse(ILLEGAL_VALUE, modbus.write_request(26, [450], 6))


def test_it_plays_its_roles(heater):
    assert isinstance(heater, TemperatureController)
    assert heater.roles == {Role.TEMPERATURE_CONTROLLER, Role.THERMOMETER}


# Reading


async def test_a_good_reading(script, heater):
    script.five(process_c=25.13, percent=12.3, working_c=30.0).status(1 << 13)
    reading = await heater.read()
    assert reading.temperature_k == pytest.approx(298.28, abs=1e-4)
    assert reading.working_setpoint_k == pytest.approx(303.15)
    assert reading.output_fraction == pytest.approx(0.123)
    assert (reading.sensor_ok, reading.status_word, reading.problems) == (True, 0x2000, ())


async def test_sensor_break_of_the_sheet_is_no_temperature(script, heater):
    script.five(process_c=400.0).talk(READ_STATUS, SENSOR_BREAK)
    reading = await heater.read()
    assert (reading.temperature_k, reading.sensor_ok) == (None, False)
    assert reading.problems == ("sensor break",)


@pytest.mark.parametrize(
    ("bit", "word"),
    [
        (0, "alarm 1"),
        (1, "alarm 2"),
        (2, "alarm 3"),
        (3, "alarm 4"),
        (4, "manual mode"),
        (6, "loop break"),
        (7, "heater current too low"),
        (8, "leakage"),
        (9, "program ended"),
        (11, "overcurrent"),
        (14, "remote set-point failed"),
        (15, "autotune running"),
    ],
)
async def test_status_bits_in_plain_words(script, heater, bit, word):
    script.five().status(1 << bit)
    reading = await heater.read()
    assert len(reading.problems) == 1
    assert word in reading.problems[0]
    assert reading.temperature_k is not None


async def test_out_of_range_bit_is_no_temperature(script, heater):
    script.five().status(1 << 10)
    assert (await heater.read()).temperature_k is None


@pytest.mark.parametrize("process_c", [math.nan, math.inf, -200.1, 850.1])
async def test_what_no_pt100_can_read_is_no_temperature(script, heater, process_c):
    script.five(process_c=process_c).status()
    reading = await heater.read()
    assert reading.temperature_k is None
    assert "no temperature of a Pt100" in reading.problems[0]


@pytest.mark.parametrize("process_c", [400.0, 399.96, -50.0, -49.96, 420.0])
async def test_the_end_of_the_range_is_a_broken_sensor_even_without_its_status_bit(script, heater, process_c):
    heater._range_c = (-50.0, 400.0)
    script.five(process_c=process_c).status()
    reading = await heater.read()
    assert reading.temperature_k is None
    assert "open or shorted sensor" in reading.problems[0]


@pytest.mark.parametrize("values", [{"percent": math.nan}, {"percent": 101.0}, {"working_c": math.nan}])
async def test_impossible_output_or_set_point_is_a_bad_reply(script, heater, values):
    script.five(**values).status()
    with pytest.raises(BadReply, match="heater: reports an output"):
        await heater.read()


async def test_a_damaged_reply_is_asked_for_once_more(script, heater):
    script.talk(READ_FIVE, floats(1, 2, 3, 4, 5)[:-1] + b"\0").five().status()
    assert (await heater.read()).temperature_k == pytest.approx(298.28, abs=1e-4)


async def test_a_silent_controller_is_asked_twice(script, heater):
    script.talk(READ_FIVE).talk(READ_FIVE)
    with pytest.raises(NoReply, match="heater: no reply"):
        await heater.read()


@pytest.mark.parametrize("period_s", [0.25, 0.5, 1.0, 10.0])
async def test_a_lost_reply_is_made_up_for_before_the_reading_counts_as_old(script, line, clock, period_s):
    """After three periods; the last reading was one period old when the reply was lost."""
    heater = Eurotherm3200(line, name="heater", clock=clock, settings={**SETTINGS, "period_s": period_s})
    script.talk(READ_FIVE).five().status()
    began_s = clock.time_s
    assert (await heater.read()).sensor_ok
    assert clock.time_s - began_s < 2 * period_s - 0.1  # what a slow converter or a busy host may add
    assert clock.time_s - began_s < 0.7


async def test_a_restarted_controller_is_noticed_by_its_set_point(script, limited):
    script.set_float(26, 60.0).set_word(276, 1).status()
    await limited.set_target_k(333.15)
    script.five(target_c=60.0).status()
    assert (await limited.read()).problems == ()
    script.five(target_c=20.0).status()
    assert "instead of 60.0: it has restarted" in (await limited.read()).problems[0]


# Set-point and ramp


async def test_set_point_is_volatile_remote_and_read_back(script, heater, port):
    script.setpoint_limits()
    script.talk(frame("01 10 80 34 00 02 04 42 34 00 00"), frame("01 10 80 34 00 02"))  # 45.0 = 42340000
    script.talk(read_float(26), floats(45.0))
    script.talk(SELECT_REMOTE, SELECT_REMOTE).talk(read(276), words(1)).status()
    await heater.set_target_k(45.0 + 273.15)


async def test_set_point_limits_are_read_once(script, limited):
    for target_c in (40.0, 50.0):
        script.set_float(26, target_c).set_word(276, 1).status()
        await limited.set_target_k(target_c + 273.15)


@pytest.mark.parametrize("target_c", [-0.1, 200.1])
async def test_set_point_outside_the_limits_of_the_instrument(limited, port, target_c):
    sent = len(port.sent)
    with pytest.raises(OutOfRange, match="outside 0 to 200 degC, the limits of the instrument"):
        await limited.set_target_k(target_c + 273.15)
    assert len(port.sent) == sent


@pytest.mark.parametrize("target_k", [262.9, 343.1, math.nan, math.inf])
async def test_set_point_outside_the_limits_of_the_settings(line, clock, port, target_k):
    limits = {"temperature_low_k": 263.0, "temperature_high_k": 343.0}
    heater = Eurotherm3200(line, name="heater", clock=clock, settings=SETTINGS | limits)
    with pytest.raises(OutOfRange, match="outside the limits 263 to 343 K"):
        await heater.set_target_k(target_k)
    assert port.sent == []


async def test_impossible_limits_of_the_instrument(script, heater):
    script.setpoint_limits(low_c=200.0, high_c=0.0)
    with pytest.raises(BadReply, match="set-point limits 200 to 0"):
        await heater.set_target_k(300.0)


async def test_set_point_that_reads_back_differently(script, limited):
    script.set_float(26, 60.0, got=59.9)
    with pytest.raises(BadReply, match=r"register 26 was set to 60 and reads 59\.9"):
        await limited.set_target_k(333.15)


async def test_set_point_rounded_by_the_instrument_is_accepted(script, limited):
    script.set_float(26, 60.04, got=60.0).set_word(276, 1).status()
    await limited.set_target_k(333.19)


async def test_source_that_stays_local(script, limited):
    script.set_float(26, 60.0).set_word(276, 1, got=0)
    with pytest.raises(BadReply, match="register 276 was set to 1 and reads 0"):
        await limited.set_target_k(333.15)


async def test_source_that_is_refused(script, limited):
    script.set_float(26, 60.0).talk(SELECT_REMOTE, ILLEGAL_VALUE)
    with pytest.raises(Refused, match="heater: exception 3: value not allowed"):
        await limited.set_target_k(333.15)


async def test_set_point_takes_the_controller_back_to_automatic(script, limited):
    script.set_float(26, 60.0).set_word(276, 1).status(1 << 4).set_word(273, 0)
    await limited.set_target_k(333.15)


@pytest.mark.parametrize(("unit", "value"), [(0, 10.0), (1, 600.0), (2, 10.0 / 60.0)])
async def test_ramp_is_written_in_the_unit_of_the_instrument(script, heater, unit, value):
    single = struct.unpack(">f", struct.pack(">f", value))[0]
    script.talk(read(531), words(unit)).set_float(35, single)
    await heater.set_ramp_k_per_min(10.0)


async def test_ramp_rounded_away_is_not_accepted(script, heater):
    script.talk(read(531), words(2)).set_float(35, 0.25, got=0.2)
    with pytest.raises(BadReply, match=r"register 35 was set to 0\.25 and reads 0\.2"):
        await heater.set_ramp_k_per_min(15.0)


async def test_unknown_ramp_unit(script, heater):
    script.talk(read(531), words(3))
    with pytest.raises(BadReply, match="ramp unit 3"):
        await heater.set_ramp_k_per_min(10.0)


@pytest.mark.parametrize("rate", [-1.0, math.nan, math.inf])
async def test_impossible_ramp(heater, port, rate):
    with pytest.raises(OutOfRange, match="ramp of"):
        await heater.set_ramp_k_per_min(rate)
    assert port.sent == []


@pytest.mark.parametrize("rate", [20.1, 0.0])
async def test_ramp_faster_than_the_settings_allow(line, clock, port, rate):
    settings = SETTINGS | {"temperature_rate_k_per_s": 20.0 / 60.0}
    heater = Eurotherm3200(line, name="heater", clock=clock, settings=settings)
    with pytest.raises(OutOfRange, match="limit of 20 K/min"):
        await heater.set_ramp_k_per_min(rate)
    assert port.sent == []


async def test_ramp_cleared_by_off_is_written_again_before_the_next_set_point(script, limited):
    script.talk(read(531), words(0)).set_float(35, 10.0)
    await limited.set_ramp_k_per_min(10.0)
    script.off()
    await limited.off()
    script.talk(read(531), words(0)).set_float(35, 10.0).set_float(26, 60.0).set_word(276, 1).status()
    await limited.set_target_k(333.15)
    script.set_float(26, 50.0).set_word(276, 1).status()
    await limited.set_target_k(323.15)


# Off


async def test_off_without_any_preparation(script, heater):
    script.setpoint_limits(low_c=5.0).off(low_c=5.0)
    await heater.off()


async def test_off_is_harmless_when_repeated(script, limited):
    script.off().off()
    await limited.off()
    await limited.off()


async def test_off_waits_for_the_output_to_fall(script, limited, clock):
    script.setpoint_down().five(percent=80.0).five(percent=0.0)
    started_s = clock.time_s
    await limited.off()
    assert 0.1 < clock.time_s - started_s < 0.2


async def test_off_goes_to_manual_if_the_output_does_not_fall(script, limited):
    script.setpoint_down()
    for _ in range(7):
        script.five(percent=20.0)
    script.set_word(273, 1).set_float(3, 0.0).five(percent=0.0)
    await limited.off()


@pytest.mark.parametrize("refusal", ["01 90 03 0c 01", frame("01 90 02")])
async def test_off_goes_to_manual_if_the_set_point_is_refused(script, limited, refusal):
    request = frame(f"01 10 8034 0002 04 {struct.pack('>f', 0.0).hex()}")
    script.talk(request, refusal).set_word(273, 1).set_float(3, 0.0).five(percent=0.0)
    await limited.off()


async def test_off_goes_to_manual_if_the_set_point_reads_back_differently(script, limited):
    script.set_float(26, 0.0, got=60.0).set_word(273, 1).set_float(3, 0.0).five(percent=0.0)
    await limited.off()


async def test_after_off_the_old_set_point_is_not_missed(script, limited):
    script.set_float(26, 60.0).set_word(276, 1).status().off()
    await limited.set_target_k(333.15)
    await limited.off()
    script.five(target_c=0.0).status()
    assert (await limited.read()).problems == ()


async def test_off_that_nothing_confirms(script, limited):
    script.setpoint_down()
    for _ in range(7):
        script.five(percent=20.0)
    script.set_word(273, 1).set_float(3, 0.0)
    for _ in range(7):
        script.five(percent=20.0)
    with pytest.raises(BadReply, match="heater: was switched off, and its output does not fall to zero"):
        await limited.off()


async def test_off_of_a_silent_controller(script, limited):
    request = frame(f"01 10 8034 0002 04 {struct.pack('>f', 0.0).hex()}")
    script.talk(request).talk(request)
    with pytest.raises(NoReply):
        await limited.off()


async def test_off_that_takes_too_long_is_given_up(limited, port, monkeypatch):
    monkeypatch.setattr(limited._going_off, "_limit_s", 0.02)
    port.stuck = True
    port.expect(frame(f"01 10 8034 0002 04 {struct.pack('>f', 0.0).hex()}"))
    with pytest.raises(NoReply, match=r"heater: off is not confirmed after 0\.02 s"):
        await limited.off()


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_off_interrupts_a_poll_in_flight(script, limited, port):
    port.stuck = True
    script.talk(READ_FIVE)
    poll = asyncio.create_task(limited.read())
    await settle()
    port.stuck = False
    script.off()
    await limited.off()
    with pytest.raises(Interrupted):
        await poll


async def test_off_revokes_a_set_point_in_flight_and_one_that_queues(script, limited, port):
    port.stuck = True
    script.talk(frame(f"01 10 8034 0002 04 {struct.pack('>f', 60.0).hex()}"))
    in_flight = asyncio.create_task(limited.set_target_k(333.15))
    queued = asyncio.create_task(limited.set_target_k(343.15))
    await settle()
    port.stuck = False
    script.off()
    await limited.off()
    results = await asyncio.gather(in_flight, queued, return_exceptions=True)
    assert [type(result) for result in results] == [Interrupted, Interrupted]
    script.five(target_c=0.0).status()
    assert (await limited.read()).problems == ()  # the revoked set-point is not expected any more


async def test_while_going_off_no_set_point_is_taken(script, limited):
    script.off()
    going = asyncio.create_task(limited.off())
    await asyncio.sleep(0)
    with pytest.raises(Refused, match="is being switched off"):
        await limited.set_target_k(333.15)
    await going


async def test_two_offs_at_once_are_one(script, limited):
    script.off()
    await asyncio.gather(limited.off(), limited.off())


async def test_off_goes_on_when_its_caller_gives_up(script, limited, port):
    script.off()
    caller = asyncio.create_task(limited.off())
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await limited._going_off._task
    assert not port.talks


async def test_set_points_in_eeprom_are_never_written(script, limited, port):
    script.talk(read(531), words(0)).set_float(35, 10.0).set_float(26, 60.0).set_word(276, 1).status().off()
    await limited.set_ramp_k_per_min(10.0)
    await limited.set_target_k(333.15)
    await limited.off()
    written = {int.from_bytes(sent[2:4], "big") for _, sent in port.sent if sent[1] in (6, 16)}
    assert written == {0x8034, 0x8046, 276}  # 26, 35 and 276


# Who it is, and preparing


async def test_identity(script, heater):
    script.talk(read(75, 2), words(0x2000, 0xDFFF)).talk(read(107), words(0x0111))
    identity = await heater.identify()
    assert (identity.manufacturer, identity.model, identity.firmware) == ("Eurotherm", "3200 series", "1.11")


async def test_identity_without_a_firmware_register(script, heater):
    script.talk(read(75, 2), words(0, 0xFFFF)).talk(read(107), ILLEGAL_ADDRESS)
    assert (await heater.identify()).firmware is None


async def test_something_else_answers(script, heater):
    script.talk(read(75, 2), words(0, 0))
    with pytest.raises(BadReply, match="heater: is no Eurotherm 3200"):
        await heater.identify()


def prepared(script, *, status=0, shown=(251, 0, 0, 0, 0), limits=(2000, 0), range_c=(-50.0, 400.0)):
    script.talk(read(75, 2), words(status, status ^ 0xFFFF)).talk(read(107), ILLEGAL_ADDRESS)
    script.setpoint_limits().off()
    script.five(25.13, 0.0, 0.0, 0.0, 0.0).talk(READ_FIVE_WORDS, words(*shown))
    script.setpoint_limits().talk(read(111, 2), words(*limits))
    return script.talk(read_float(11, 2), floats(*range_c))


async def test_preparing_says_what_nothing_guards(script, heater):
    prepared(script).talk(read_float(24), floats(20.0)).status()
    notes = await heater.prepare()
    assert all(note.startswith("heater: ") for note in notes)
    text = "\n".join(notes)
    assert "latching with safe output 0 %, as confirmed by A. Person on 2026-01-01" in text
    assert "if the host dies it keeps the last set-point" in text
    assert "its local set-point, 20.0 degC" in text
    assert "from 0 to 200 degC" in text
    assert "1 decimals" in text
    assert len(notes) == 4


async def test_preparing_reports_alarms_and_manual_mode(script, heater):
    prepared(script).talk(read_float(24), floats(20.0)).status(1 << 4 | 1 << 0)
    notes = await heater.prepare()
    assert notes[4:] == [
        "heater: is in manual mode at 0 %; the first set-point takes it back to automatic",
        "heater: reports: alarm 1",
    ]


@pytest.mark.parametrize(
    ("shown", "limits", "decimals"),
    [((25, 0, 0, 0, 0), (200, 0), 0), ((252, 0, 0, 0, 0), (2000, 0), 1), ((2513, 0, 0, 0, 0), (20000, 0), 2)],
)
async def test_decimals_are_recognised(script, heater, shown, limits, decimals):
    prepared(script, shown=shown, limits=limits).talk(read_float(24), floats(20.0)).status()
    assert f"{decimals} decimals" in "\n".join(await heater.prepare())


async def test_per_cent_have_decimals_of_their_own(script, heater):
    script.talk(read(75, 2), words(0, 0xFFFF)).talk(read(107), ILLEGAL_ADDRESS).setpoint_limits().off()
    script.five(25.13, 0.0, 50.0, 0.0, 0.0).talk(READ_FIVE_WORDS, words(2513, 0, 500, 0, 0))
    script.setpoint_limits().talk(read(111, 2), words(20000, 0))
    script.talk(read_float(11, 2), floats(-50.0, 400.0)).talk(read_float(24), floats(20.0)).status()
    assert "2 decimals" in "\n".join(await heater.prepare())


def test_one_count_off_is_not_the_same_value():
    assert reg.decimals_shown([25.0, 30.0], [250, 300]) == 1
    assert reg.decimals_shown([25.0, 30.0], [250, 301]) is None
    assert reg.decimals_shown([25.0, 30.0], [260, 300]) == 1  # the first may move by one unit
    assert reg.decimals_shown([25.0, 30.0], [261, 300]) is None


def test_two_decimals_end_at_the_range_of_16_bits():
    assert reg.decimals_shown([25.13, 400.0], [2513, 32767]) == 2
    assert reg.decimals_shown([-25.13, -400.0], [0x10000 - 2513, 0x8000]) == 2


@pytest.mark.parametrize(
    ("shown", "limits"),
    [((251, 0, 0, 0, 0), (200, 0)), ((400, 0, 0, 0, 0), (2000, 0)), ((251, 300, 0, 0, 0), (2000, 0))],
)
async def test_two_views_that_disagree(script, heater, port, shown, limits):
    prepared(script, shown=shown, limits=limits)
    with pytest.raises(BadReply, match="16-bit registers"):
        await heater.prepare()
    port.talks.clear()


async def test_a_working_set_point_that_still_ramps_down_is_no_disagreement(script, heater):
    """Off has just been asked for: it moved by 2.4 degC between the two reads, and a resumed run ended."""
    prepared(script, shown=(251, 0, 0, 0, 24), limits=(2000, 0)).talk(read_float(24), floats(20.0)).status()
    assert "1 decimals" in "\n".join(await heater.prepare())


async def test_impossible_range(script, heater):
    prepared(script, range_c=(400.0, -50.0))
    with pytest.raises(BadReply, match="range 400 to -50"):
        await heater.prepare()


@pytest.mark.parametrize(
    "known",
    [
        None,
        {},
        CONFIRMED | {"setting": "off"},
        CONFIRMED | {"safe_output_fraction": 0.1},
        CONFIRMED | {"confirmed_by": ""},
    ],
)
async def test_nobody_confirmed_what_a_broken_sensor_does_it_is_refused_and_off(script, line, clock, known):
    heater = Eurotherm3200(line, name="heater", clock=clock, settings={"sensor_break": known})
    script.talk(read(75, 2), words(0, 0xFFFF)).talk(read(107), ILLEGAL_ADDRESS).setpoint_limits().off()
    with pytest.raises(Refused, match="nobody has confirmed"):
        await heater.prepare()


async def test_close_releases_the_line(heater, port):
    await heater.close()
    with pytest.raises(NoReply, match="closed"):
        await heater.read()


# Its twin, over a pseudo-terminal


@pytest.fixture
async def twin():
    sim = pytest.importorskip("hil_tests.sim.eurotherm_3200")
    from hil_tests.sim.clock import ManualClock
    from hil_tests.sim.physics.holder import Holder, HolderParameters

    clock = ManualClock()
    holder = Holder(HolderParameters(), start_k=298.15)
    twin = sim.EurothermTwin(holder, clock, 1, lambda: True, {"response_s": 0.0, "baud": 115200})
    twin.port = await twin.start()
    yield twin
    await twin.stop()


async def test_the_driver_heats_and_switches_off_its_twin(twin, clock):
    line = Line("heater", SerialPort(twin.port, 115200))
    await line.open()
    heater = Eurotherm3200(line, name="heater", clock=clock, settings=SETTINGS)
    notes = await heater.prepare()
    assert any("1 decimals" in note for note in notes)
    await heater.set_ramp_k_per_min(20.0)
    await heater.set_target_k(333.15)
    twin.advance(120.0)
    reading = await heater.read()
    assert reading.sensor_ok
    assert reading.temperature_k == pytest.approx(twin.holder.pt100_k, abs=0.1)
    assert reading.temperature_k > 303.0
    assert reading.output_fraction > 0.0
    twin.inject({"kind": "sensor", "state": "open"})
    twin.advance(121.0)
    assert (await heater.read()).temperature_k is None
    await heater.off()
    assert twin.counters()["eeprom_writes"] == 0
    assert twin.counters()["output_percent"] == 0.0
    await heater.close()
