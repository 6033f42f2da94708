"""Modbus against the frames of the specification sheets, and against pymodbus' own server as a stranger.

``test_01_..`` to ``test_12_..`` are the twelve behaviours of pymodbus' clients that were measured and that
ours must not have.
"""

import asyncio
import logging
import struct

import pytest
from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from drivers import modbus
from drivers.errors import BadReply, NoReply, OutOfRange, Refused
from drivers.line import Interrupted, Line
from drivers.modbus import ModbusRefused, ModbusRtu, ModbusTcp
from drivers.port import PortLost
from drivers.port_serial import SerialPort
from drivers.port_tcp import TcpPort

READ_5 = "01 03 00 01 00 05 d4 09"
REPLY_5 = "01 03 0a 00 fb 01 2c 00 00 00 7b 01 2c 0f d8"
WRITE_1500 = "01 06 00 02 05 dc 2a c3"
WRITE_300_BY_16 = "01 10 00 02 00 01 02 01 2c a7 ff"
REPLY_16 = "01 10 00 02 00 01 a0 09"
READ_2 = "01 03 00 02 00 01"  # without checksum, see ``rtu``


def crc(data):
    """As the sheet says it, bit by bit."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return value.to_bytes(2, "little")


def rtu(text):
    data = bytes.fromhex(text)
    return data + crc(data)


@pytest.fixture
def unit(line):
    return ModbusRtu(line, 1, device="heater")


def test_crc_catalogue_value():
    assert modbus.crc16(b"123456789") == bytes.fromhex("37 4b")  # CRC-16/MODBUS check value
    assert crc(b"123456789") == bytes.fromhex("37 4b")


# Frames of the sheets, typed in


async def test_read_five_registers(port, unit):
    port.expect(READ_5, bytes.fromhex(REPLY_5))
    assert await unit.read_holding(1, 5) == [251, 300, 0, 123, 300]


async def test_write_one_register(port, unit):
    port.expect(WRITE_1500, bytes.fromhex(WRITE_1500))
    await unit.write_register(2, 1500)


async def test_write_several_registers(port, unit):
    port.expect(WRITE_300_BY_16, bytes.fromhex(REPLY_16))
    await unit.write_registers(2, [300])


@pytest.mark.parametrize(
    ("reply", "code", "words"),
    [
        ("01 83 02 c0 f1", 2, "exception 2: no such register"),
        ("01 83 06 c1 32", 6, "exception 6: busy"),
        (rtu("01 83 63"), 99, "exception 99: unknown reason"),
    ],
)
async def test_exception_reply_is_refused_in_words(port, unit, reply, code, words):
    port.expect(READ_5, bytes.fromhex(reply) if isinstance(reply, str) else reply)
    with pytest.raises(ModbusRefused, match=f"heater: {words}") as error:
        await unit.read_holding(1, 5)
    assert error.value.code == code
    assert isinstance(error.value, Refused)


async def test_exception_to_a_write(port, unit):
    port.expect(WRITE_1500, bytes.fromhex("01 86 03 02 61"))
    with pytest.raises(ModbusRefused, match="exception 3: value not allowed"):
        await unit.write_register(2, 1500)


async def test_reply_to_an_unknown_function_is_a_bad_reply(port, unit):
    port.expect(READ_5, bytes.fromhex("01 c1 01 b0 50"))
    with pytest.raises(BadReply, match="reply to function 193 instead of 3"):
        await unit.read_holding(1, 5)


async def test_echo_of_an_unknown_function_is_a_bad_reply(port, unit):
    port.expect(READ_5, bytes.fromhex("01 41 00 00 51 cc"))
    with pytest.raises(BadReply, match="reply to function 65 instead of 3"):
        await unit.read_holding(1, 5)


async def test_floats_high_word_first(port, unit):
    port.expect("01 03 80 02 00 02 4c 0b", bytes.fromhex("01 03 04 41 c9 0a 3d f9 40"))
    assert await unit.read_f32(0x8002) == [pytest.approx(25.13, abs=1e-6)]


async def test_sheet_frames_over_tcp(port, line):
    unit = ModbusTcp(line, 1)
    port.expect(
        "00 01 00 00 00 06 01 04 00 00 00 02", bytes.fromhex("00 01 00 00 00 07 01 04 04 40 6c cc cd")
    )
    port.expect(
        "00 02 00 00 00 0b 01 10 03 e8 00 02 04 40 20 00 00",
        bytes.fromhex("00 02 00 00 00 06 01 10 03 e8 00 02"),
    )
    port.expect(
        "00 03 00 00 00 06 01 03 d7 3c 00 02", bytes.fromhex("00 03 00 00 00 07 01 03 04 00 11 22 33")
    )
    assert modbus.floats(await unit.read_input(0, 2)) == [pytest.approx(3.7)]
    await unit.write_f32(1000, 2.5)
    assert await unit.read_u32(55100) == [0x00112233]


# Every check, in the order checksum, unit, exception, function, byte count, echo


def test_reply_one_byte_at_a_time_with_and_without_what_follows():
    request = modbus.rtu_request(modbus.read_request(1, 5), 1)
    reply = bytes.fromhex(REPLY_5)
    for n in range(len(reply)):
        assert modbus.parse_rtu(reply[:n], request) is None
    for rest in (b"", b"\0", b"\1", b"\1\0\3"):
        assert modbus.parse_rtu(reply + rest, request) == [251, 300, 0, 123, 300]


@pytest.mark.parametrize("reply", [REPLY_5, WRITE_1500, "01 83 02 c0 f1"])
def test_no_flipped_bit_is_accepted(reply):
    pdu = modbus.write_request(2, [1500], 6) if reply == WRITE_1500 else modbus.read_request(1, 5)
    request = modbus.rtu_request(pdu, 1)
    good = bytes.fromhex(reply)
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        try:
            assert modbus.parse_rtu(bytes(bad), request) is None
        except BadReply:
            pass
        except Refused:
            pytest.fail(f"bit {bit} of {reply}: a damaged refusal was believed")


async def test_wrong_checksum_comes_before_everything_else(port, unit):
    port.expect(READ_5, bytes.fromhex("02 83 02 00 00"))
    with pytest.raises(BadReply, match="heater: wrong checksum"):
        await unit.read_holding(1, 5)


async def test_reply_of_another_unit_even_if_it_is_an_exception(port, unit):
    port.expect(READ_5, rtu("02 83 02"))
    with pytest.raises(BadReply, match="reply of unit 2 instead of 1"):
        await unit.read_holding(1, 5)


async def test_exception_to_another_function(port, unit):
    port.expect(READ_5, rtu("01 86 02"))
    with pytest.raises(BadReply, match="reply to function 134 instead of 3"):
        await unit.read_holding(1, 5)


@pytest.mark.parametrize("echo", ["01 06 00 02 05 dd", "01 06 00 03 05 dc"])
async def test_echo_of_another_value_or_register(port, unit, echo):
    port.expect(WRITE_1500, rtu(echo))
    with pytest.raises(BadReply, match="echo differs"):
        await unit.write_register(2, 1500)


@pytest.mark.parametrize("echo", ["01 10 00 02 00 02", "01 10 00 01 00 01"])
async def test_echo_of_another_quantity_or_register(port, unit, echo):
    port.expect(WRITE_300_BY_16, rtu(echo))
    with pytest.raises(BadReply, match="echo differs"):
        await unit.write_registers(2, [300])


@pytest.fixture
def tcp(line):
    return ModbusTcp(line, 1, device="io")


ASK_TCP = "00 01 00 00 00 06 01 03 00 00 00 01"


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ("00 01 00 01 00 05 01 03 02 00 07", "not a Modbus TCP header"),
        ("00 01 00 00 00 00 01 03 02 00 07", "not a Modbus TCP header"),
        ("00 01 00 00 01 05 01 03 02 00 07", "not a Modbus TCP header"),
        ("00 02 00 00 00 05 01 03 02 00 07", "a transaction that was never asked"),
        ("00 01 00 00 00 05 02 03 02 00 07", "reply of unit 2 instead of 1"),
        ("00 01 00 00 00 05 01 04 02 00 07", "reply to function 4 instead of 3"),
        ("00 01 00 00 00 07 01 03 04 00 07 00 08", "4 bytes instead of 2"),
        ("00 01 00 00 00 05 01 03 04 00 07", "4 bytes instead of 2"),
        ("00 01 00 00 00 04 01 83 02 00", "reply to function 131 instead of 3"),
        ("00 01 00 00 00 06 01 03 02 00 07 00", "2 bytes instead of 2"),
        ("00 01 00 00 00 04 01 03 02 00", "2 bytes instead of 2"),
    ],
)
async def test_bad_tcp_replies(port, tcp, reply, error):
    port.expect(ASK_TCP, bytes.fromhex(reply))
    with pytest.raises(BadReply, match=error):
        await tcp.read_holding(0)


async def test_tcp_exception(port, tcp):
    port.expect(ASK_TCP, bytes.fromhex("00 01 00 00 00 03 01 83 02"))
    with pytest.raises(ModbusRefused, match="io: exception 2"):
        await tcp.read_holding(0)


async def test_tcp_reply_one_byte_at_a_time(port, tcp):
    reply = bytes.fromhex("00 01 00 00 00 05 01 03 02 00 07")
    port.expect(ASK_TCP, *((0.001 * n, reply[n : n + 1]) for n in range(len(reply))))
    assert await tcp.read_holding(0) == [7]


async def test_tcp_transaction_numbers_go_round_and_leave_out_zero(port, tcp):
    tcp._transaction = 0xFFFF - 1
    port.expect("ff ff 00 00 00 06 01 03 00 00 00 01", bytes.fromhex("ff ff 00 00 00 05 01 03 02 00 07"))
    stale = bytes.fromhex("ff ff 00 00 00 05 01 03 02 00 06")
    port.expect(ASK_TCP, stale + bytes.fromhex("00 01 00 00 00 05 01 03 02 00 08"))
    assert await tcp.read_holding(0) == [7]
    assert await tcp.read_holding(0) == [8]


async def test_tcp_goes_on_at_once_after_a_reply_that_never_comes(port, tcp, clock):
    port.expect(ASK_TCP)
    port.expect(
        "00 02 00 00 00 06 01 03 00 00 00 01", (0.01, bytes.fromhex("00 02 00 00 00 05 01 03 02 00 16"))
    )
    with pytest.raises(NoReply):
        await tcp.read_holding(0)
    assert await tcp.read_holding(0) == [22]
    assert clock.time_s == pytest.approx(1000.51)


async def test_tcp_late_reply_does_no_harm_and_costs_no_waiting(port, tcp, clock):
    port.expect(ASK_TCP, (0.501, bytes.fromhex("00 01 00 00 00 05 01 03 02 00 0b")))
    port.expect(
        "00 02 00 00 00 06 01 03 00 00 00 01", (0.01, bytes.fromhex("00 02 00 00 00 05 01 03 02 00 16"))
    )
    with pytest.raises(NoReply):
        await tcp.read_holding(0)
    assert await tcp.read_holding(0) == [22]
    assert clock.time_s == pytest.approx(1000.51)


# The twelve behaviours of pymodbus' clients


async def test_01_reply_with_another_byte_count_is_not_accepted(port, unit):
    port.expect(rtu(READ_2), rtu("01 03 04 00 0b 00 16"))
    with pytest.raises(BadReply, match="4 bytes instead of 2"):
        await unit.read_holding(2)


async def test_02_reply_with_another_function_code_is_not_accepted(port, unit):
    port.expect(rtu(READ_2), rtu("01 04 02 00 0b"))
    with pytest.raises(BadReply, match="reply to function 4 instead of 3"):
        await unit.read_holding(2)


async def test_03_late_reply_is_not_the_answer_to_the_next_request(port, unit, line):
    port.expect(rtu(READ_2), (0.7, rtu("01 03 02 00 0b")))  # 11
    port.expect(rtu(READ_2), rtu("01 03 02 00 16"))  # 22
    with pytest.raises(NoReply):
        await unit.read_holding(2)
    assert await unit.read_holding(2) == [22]
    assert line.stats.drained_bytes == 7


@pytest.mark.parametrize("noise", ["00", "ff", "01", "03", "01 03", "00 01 03", "5a a5 00 ff 01 02 03 04"])
async def test_04_noise_in_front_of_a_reply_does_not_cost_the_reply(port, unit, noise, clock):
    port.expect(rtu(READ_2), (0.01, bytes.fromhex(noise) + rtu("01 03 02 00 0b")))
    assert await unit.read_holding(2) == [11]
    assert clock.time_s == pytest.approx(1000.01)


async def test_04_noise_byte_by_byte(port, unit):
    reply = bytes.fromhex("00") + rtu("01 03 02 00 0b")
    port.expect(rtu(READ_2), *((0.001 * n, reply[n : n + 1]) for n in range(len(reply))))
    assert await unit.read_holding(2) == [11]


@pytest.mark.parametrize("late", ["01 03 02 00 0b", "01 83 06"])
async def test_03_two_replies_at_once_are_not_believed(port, unit, late):
    port.expect(rtu(READ_2), rtu(late) + rtu("01 03 02 00 16"))
    with pytest.raises(BadReply, match="two replies to one request"):
        await unit.read_holding(2)


async def test_04_noise_that_looks_like_a_shorter_frame(port, unit):
    reply = bytes.fromhex("00") + bytes.fromhex(REPLY_5)  # 00 01 03: as if eight bytes of unit 0
    port.expect(READ_5, *((0.001 * n, reply[n : n + 1]) for n in range(len(reply))))
    assert await unit.read_holding(1, 5) == [251, 300, 0, 123, 300]


async def test_04_damaged_reply_is_reported_at_once_and_trailing_noise_is_drained(port, unit, clock, line):
    port.expect(rtu(READ_2), (0.01, bytes.fromhex("01 03 02 00 0c") + crc(bytes.fromhex("01 03 02 00 0b"))))
    with pytest.raises(BadReply, match="wrong checksum"):
        await unit.read_holding(2)
    assert clock.time_s == pytest.approx(1000.01)
    port.expect(rtu(READ_2), rtu("01 03 02 00 0b") + b"\xff")
    port.expect(rtu(READ_2), rtu("01 03 02 00 16"))
    assert await unit.read_holding(2) == [11]
    assert await unit.read_holding(2) == [22]


async def test_05_a_silent_device_gets_a_write_once(port, unit):
    port.expect(WRITE_1500)
    with pytest.raises(NoReply):
        await unit.write_register(2, 1500)
    assert len(port.sent) == 1


async def test_05_writes_are_not_repeated_even_if_reads_are(port, line):
    unit = ModbusRtu(line, 1, read_again=True)
    port.expect(WRITE_1500)
    with pytest.raises(NoReply):
        await unit.write_register(2, 1500)
    assert len(port.sent) == 1


@pytest.mark.parametrize("first", [(), (rtu("01 03 02 00 0b")[:-1] + b"\0",)])
async def test_05_reads_are_repeated_once_if_told(port, line, first):
    unit = ModbusRtu(line, 1, read_again=True)
    port.expect(rtu(READ_2), *first)
    port.expect(rtu(READ_2), rtu("01 03 02 00 16"))
    assert await unit.read_holding(2) == [22]
    port.expect(rtu(READ_2))
    port.expect(rtu(READ_2))
    with pytest.raises(NoReply):
        await unit.read_holding(2)


async def test_05_an_interrupted_read_is_not_repeated(port, line):
    unit = ModbusRtu(line, 1, read_again=True)
    port.stuck = True
    port.expect(rtu(READ_2))
    task = asyncio.create_task(unit.read_holding(2))
    for _ in range(10):
        await asyncio.sleep(0)
    line.interrupt()
    with pytest.raises(Interrupted):
        await task
    assert len(port.sent) == 1


@pytest.mark.parametrize(
    ("character_s", "silence_ms"),
    # 3.5 characters of 10 or 11 bits at 9600 and 10 at 19200 baud, 1.75 ms above, nothing without characters
    [(10 / 9600, 3.6458), (11 / 9600, 4.0104), (10 / 19200, 1.8229), (10 / 38400, 1.75), (0.0, 0.0)],
)
async def test_06_frames_are_separated_by_silence(port, unit, character_s, silence_ms, clock):
    port.character_s = character_s
    for _ in range(2):
        port.expect(rtu(READ_2), (0.05, rtu("01 03 02 00 0b")))
    await unit.read_holding(2)
    reply_at_s = clock.time_s
    await unit.read_holding(2)
    assert (port.sent[1][0] - reply_at_s) * 1e3 == pytest.approx(silence_ms, abs=1e-3)


async def test_07_exception_reply_is_raised_not_returned(port, unit):
    port.expect(rtu(READ_2), rtu("01 83 02"))
    with pytest.raises(Refused):
        await unit.read_holding(2)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("read_holding", (0, 126), "126 registers in one message; 1 to 125"),
        ("read_holding", (0, 0), "0 registers"),
        ("read_f32", (0, 63), "126 registers"),
        ("read_holding", (65535, 2), "no register 65535 to 65536"),
        ("read_holding", (-1, 1), "no register -1"),
        ("write_registers", (0, [0] * 124), "124 registers in one message; 1 to 123"),
        ("write_registers", (0, []), "0 registers"),
        ("write_register", (0, 65536), "65536 does not fit into 16 bits"),
        ("write_register", (0, -1), "-1 does not fit"),
        ("write_u32", (0, 1 << 32), "does not fit into 32 bits"),
        ("write_f32", (0, float("nan")), "not a finite single"),
        ("write_f32", (0, 1e39), "not a finite single"),
    ],
)
async def test_08_impossible_requests_are_our_own_error_and_nothing_is_sent(
    port, unit, method, arguments, message
):
    with pytest.raises(OutOfRange, match=message):
        await getattr(unit, method)(*arguments)
    assert port.sent == []


async def test_09_repeated_silence_does_not_change_the_connection(port, unit):
    for _ in range(5):
        port.expect(rtu(READ_2))
        with pytest.raises(NoReply, match="no reply"):
            await unit.read_holding(2)
    port.expect(rtu(READ_2), rtu("01 03 02 00 0b"))
    assert await unit.read_holding(2) == [11]
    assert (port.openings, port.closings) == (1, 1)


async def test_10_hang_up_is_a_lost_link_and_repaired_by_a_later_request(port, unit, clock):
    clock.time_s += 10.0
    port.expect(rtu(READ_2), PortLost("/dev/fake: hang-up"))
    with pytest.raises(NoReply, match="heater: link lost: /dev/fake: hang-up"):
        await unit.read_holding(2)
    port.expect(rtu(READ_2), rtu("01 03 02 00 0b"))
    assert await unit.read_holding(2) == [11]


async def test_11_cancelled_request_does_not_answer_the_next_one(port, unit):
    port.stuck = True
    port.expect(rtu(READ_2))
    task = asyncio.create_task(unit.read_holding(2))
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    port.stuck = False
    port.arrive(rtu("01 03 02 00 0b"), 0.02)
    port.expect(rtu(READ_2), rtu("01 03 02 00 16"))
    assert await unit.read_holding(2) == [22]


async def test_12_trouble_is_raised_not_logged(port, unit, tcp, caplog):
    caplog.set_level(logging.DEBUG)
    for reply in (rtu("01 04 02 00 0b"), rtu("02 03 02 00 0b"), rtu("01 03 02 00 0b")[:-1] + b"\0"):
        port.expect(rtu(READ_2), reply)
        with pytest.raises(BadReply):
            await unit.read_holding(2)
    port.expect(ASK_TCP, bytes.fromhex("00 01 00 01 00 05 01 03 02 00 07"))
    with pytest.raises(BadReply):
        await tcp.read_holding(0)
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


# pymodbus' server on the other end


def bench_device():
    return SimDevice(
        id=1,
        simdata=[
            SimData(0, count=32, values=0, datatype=DataType.REGISTERS),
            SimData(100, values=[1.5, -2.25], datatype=DataType.FLOAT32),
        ],
    )


async def exercise(unit):
    await unit.write_register(2, 1500)
    await unit.write_registers(3, [7, 65535])
    assert await unit.read_holding(1, 5) == [0, 1500, 7, 65535, 0]
    assert await unit.read_input(2) == [1500]
    assert await unit.read_f32(100, 2) == [1.5, -2.25]
    await unit.write_f32(10, -273.15, 1e-9)
    await unit.write_u32(14, 0xDEADBEEF)
    assert await unit.read_f32(10, 2) == list(struct.unpack(">2f", struct.pack(">2f", -273.15, 1e-9)))
    assert await unit.read_u32(14) == [0xDEADBEEF]
    with pytest.raises(ModbusRefused, match="exception 2: no such register"):
        await unit.read_holding(5000)
    answers = await asyncio.gather(*(unit.read_holding(2 + n % 3) for n in range(12)))
    assert answers == [[1500], [7], [65535]] * 4


async def test_rtu_against_the_server_of_pymodbus_on_a_pseudo_terminal(pty_pair):
    server = ModbusSerialServer(bench_device(), framer=FramerType.RTU, port=pty_pair.theirs, baudrate=115200)
    await server.serve_forever(background=True)
    line = Line("heater", SerialPort(pty_pair.ours, 115200))
    await line.open()
    await exercise(ModbusRtu(line, 1, timeout_s=1.0))
    assert (line.stats.timeouts, line.stats.bad_replies, line.stats.drained_bytes) == (0, 0, 0)
    await line.close()
    await server.shutdown()


async def test_tcp_against_the_server_of_pymodbus(unused_tcp_port):
    server = ModbusTcpServer(bench_device(), framer=FramerType.SOCKET, address=("127.0.0.1", unused_tcp_port))
    await server.serve_forever(background=True)
    line = Line("io", TcpPort("127.0.0.1", unused_tcp_port))
    await line.open()
    await exercise(ModbusTcp(line, 1, timeout_s=1.0))
    assert (line.stats.timeouts, line.stats.bad_replies, line.stats.drained_bytes) == (0, 0, 0)
    await line.close()
    await server.shutdown()
