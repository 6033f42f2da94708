"""The Amptek driver over RS-232: the same frames in a stream of bytes, in pieces, with noise, and slowly."""

import struct

import pytest

from drivers import amptek_packets as packets
from drivers.amptek_dp5 import AmptekDp5
from drivers.errors import BadReply, NoReply, Refused
from drivers.roles import EventDetector

CHARACTER_S = 10 / 115_200
SETTINGS = {"detector": "sdd", "channels": 256, "list_clock_s": 1e-6}
# Worked frames of the sheet
STATUS = "f5 fa 01 01 00 00 fe 0f"
SPECTRUM_AND_STATUS = "f5 fa 02 03 00 00 fe 0c"
DISABLE, ACK_OK = "f5 fa f0 03 00 00 fd 1e", "f5 fa ff 00 00 00 fd 12"
LIST_DATA = "f5 fa 03 09 00 00 fe 05"
PX5_STATUS = bytes.fromhex(
    "f5 fa 80 01 00 40 39 30 00 00 e0 2e 00 00 00 00 00 00 39 64 00 00 00 00 00 00 76 27 00 00 68 61 67 12 00"
    "00 fc 18 08 98 26 20 00 05 00 01" + "00" * 24 + "f7 5d"
)


def packet(pid1, pid2, data=b""):
    body = bytes([0xF5, 0xFA, pid1, pid2, len(data) >> 8, len(data) & 255]) + data
    return body + (-sum(body) % 65536).to_bytes(2, "big")


def status_bytes(list_option=True, slow=100):
    data = bytearray(64)
    data[0:8] = struct.pack("<II", slow + 1, slow)
    data[39], data[43] = 1, 3 | 4 | 8 * list_option
    return bytes(data)


@pytest.fixture
def serial(port, line):
    port.character_s = CHARACTER_S
    return line


@pytest.fixture
def driver(serial, clock):
    return AmptekDp5(serial, name="pixe", clock=clock, settings=SETTINGS)


def test_it_is_the_same_instrument(driver):
    assert isinstance(driver, EventDetector)


async def test_the_worked_status_of_the_sheet_in_pieces_behind_noise(port, driver):
    pieces = [(0.01 * n, PX5_STATUS[n : n + 1]) for n in range(len(PX5_STATUS))]
    port.expect(STATUS, (0.0, b"\x00\xff\xf5"), *pieces)
    who = await driver.identify()
    assert (who.model, who.firmware) == ("PX5", "6.8.5 (FPGA 6.1)")
    port.expect(STATUS, PX5_STATUS)
    status = await driver.status()
    assert (status.fast_counts, status.slow_counts, status.high_voltage_v) == (12345, 12000, -500.0)
    assert (status.accumulation_s, status.real_s, status.temperature_k) == (10.057, 10.102, 220.0)


@pytest.mark.parametrize("noise", [b"\x00" * 9, b"\xf5" * 12, b"hello, world"])
async def test_much_noise_is_no_reply(port, driver, noise):
    for _ in range(3):
        port.expect(STATUS, noise + packet(0x80, 0x01, status_bytes()))
    with pytest.raises(BadReply, match="without its sync bytes"):
        await driver.status()


def test_noise_is_skipped_only_in_front_of_sync_bytes():
    good = packet(0xFF, 0x00)
    assert packets.from_sync(b"\x00\x01" + good) == good
    assert packets.from_sync(b"\x00" * 8 + good) == good
    assert packets.from_sync(b"\x00" * 3) == b""
    assert packets.from_sync(b"\x00" * 9) == b"\x00" * 9


async def test_a_spectrum_takes_its_time_and_its_status_is_of_the_same_moment(port, driver, clock):
    counts = b"".join(n.to_bytes(3, "little") for n in range(256))
    reply = packet(0x81, 0x02, counts + status_bytes(slow=32640))
    assert len(reply) == 840
    port.expect(SPECTRUM_AND_STATUS, (1.2, reply[:400]), (2.4, reply[400:]))
    found, status = await driver.spectrum()
    assert found == list(range(256))
    assert status.slow_counts == sum(found)


async def test_a_damaged_spectrum_is_asked_for_again_and_nothing_is_cleared(port, driver):
    reply = bytearray(packet(0x81, 0x02, bytes(768) + status_bytes()))
    reply[100] ^= 1
    port.expect(SPECTRUM_AND_STATUS, bytes(reply))
    port.expect(SPECTRUM_AND_STATUS, packet(0x81, 0x02, bytes(768) + status_bytes()))
    assert (await driver.spectrum())[0] == [0] * 256


async def test_a_list_whose_reply_is_cut_off_is_not_asked_for_again(port, driver):
    port.expect(LIST_DATA, packet(0x82, 0x0A, bytes(400))[:-1])
    with pytest.raises(NoReply, match="list-mode words may be lost"):
        await driver.read_words()


async def test_off_does_not_wait_as_long_as_a_spectrum_may_take(port, driver, clock):
    for _ in range(3):
        port.expect(DISABLE)
    before_s = clock.now_s()
    with pytest.raises(NoReply):
        await driver.off()
    assert clock.now_s() - before_s < 3.3
    port.expect(DISABLE, ACK_OK)
    await driver.off()


async def test_without_the_list_mode_option_prepare_says_so(port, driver):
    told = packet(0x80, 0x01, status_bytes(list_option=False))
    port.expect(STATUS, told).expect(packet(0xF0, 0x21), ACK_OK).expect(DISABLE, ACK_OK).expect(STATUS, told)
    port.expect(packet(0x20, 0x02, b"MCAC=256;"), ACK_OK)
    port.expect(packet(0x20, 0x03, b"MCAC=?;"), packet(0x82, 0x07, b"MCAC=256;"))
    port.expect(STATUS, told)
    with pytest.raises(Refused, match="pixe: is a PX5 without the list-mode option"):
        await driver.prepare()


def test_the_notes_say_what_the_line_carries(driver):
    (note,) = driver._serial_notes()
    assert "carries 2880 list words a second" in note
    assert "takes 0.07 s" in note
