"""The FW6 codec against frames computed by hand from the Programmer's Guide (not by the code under test)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import amptek_packets as packets
from drivers.errors import BadReply, OutOfRange, Refused

REQUESTS = [
    (packets.STATUS, b"", "f5 fa 01 01 00 00 fe 0f"),
    (packets.SPECTRUM_AND_STATUS, b"", "f5 fa 02 03 00 00 fe 0c"),
    (packets.SPECTRUM_AND_STATUS_CLEAR, b"", "f5 fa 02 04 00 00 fe 0b"),
    (packets.LIST_DATA, b"", "f5 fa 03 09 00 00 fe 05"),
    (packets.DISCOVERY, b"", "f5 fa 03 07 00 00 fe 07"),  # printed in the guide
    (packets.CLEAR_SPECTRUM, b"", "f5 fa f0 01 00 00 fd 20"),
    (packets.ENABLE, b"", "f5 fa f0 02 00 00 fd 1f"),
    (packets.DISABLE, b"", "f5 fa f0 03 00 00 fd 1e"),
    (packets.CLEAR_LIST_TIMER, b"", "f5 fa f0 16 00 00 fd 0b"),
    (packets.REFUSE_SHARING, b"", "f5 fa f0 21 00 00 fd 00"),
    (
        packets.CONFIGURE,
        b"MCAC=1024;PRET=10.0;",
        "f5 fa 20 02 00 14 4d 43 41 43 3d 31 30 32 34 3b 50 52 45 54 3d 31 30 2e 30 3b f9 16",
    ),
]
ACK_OK = bytes.fromhex("f5 fa ff 00 00 00 fd 12")
ACK_CHECKSUM = bytes.fromhex("f5 fa ff 04 00 00 fd 0e")
ACK_UNKNOWN_TEXT = bytes.fromhex("f5 fa ff 07 00 07 41 42 43 44 3d 31 3b fb 51")  # answer to ABCD=1;
STATUS_PX5 = bytes.fromhex(
    "f5 fa 80 01 00 40 39 30 00 00 e0 2e 00 00 00 00 00 00 39 64 00 00 00 00 00 00 76 27 00 00 68 61"
    "67 12 00 00 fc 18 08 98 26 20 00 05 00 01" + "00" * 24 + "f7 5d"
)


def reply(pid: tuple[int, int], data: bytes) -> bytes:
    """A packet by the rule of the guide, written independently of the code under test."""
    body = bytes([0xF5, 0xFA, *pid, len(data) >> 8, len(data) & 255]) + data
    total = 0
    for byte in body:
        total = (total + byte) % 65536
    return body + ((65536 - total) % 65536).to_bytes(2, "big")


@pytest.mark.parametrize(("pid", "data", "frame"), REQUESTS)
def test_worked_requests(pid, data, frame):
    assert packets.request(pid, data) == bytes.fromhex(frame)


def test_a_request_must_fit_into_a_packet():
    with pytest.raises(OutOfRange):
        packets.request(packets.CONFIGURE, b"x" * 24_641)


def test_worked_status():
    status = packets.parse_status(STATUS_PX5)
    assert status is not None
    assert (status.fast_counts, status.slow_counts) == (12345, 12000)
    assert status.accumulation_s == pytest.approx(10.057)
    assert status.real_s == pytest.approx(10.102)
    assert (status.firmware, status.fpga, status.firmware_build) == ("6.8", "6.1", 5)
    assert status.serial == 4711
    assert status.high_voltage_v == -500.0
    assert status.detector_k == pytest.approx(220.0)
    assert status.board_c == 38.0
    assert status.mca_enabled
    assert status.model == "PX5"
    flags = (status.rebooted, status.hpge_supply, status.preset_time_reached, status.list_option)
    assert flags == (False, False, False, False)


@pytest.mark.parametrize(
    ("offset", "value", "field", "expected"),
    [
        (35, 0x80, "preset_time_reached", True),
        (35, 0x10, "preset_counts_reached", True),
        (35, 0x08, "gated_off", False),
        (35, 0x00, "gated_off", True),
        (35, 0x02, "configured", True),
        (35, 0x00, "mca_enabled", False),
        (36, 0x20, "rebooted", True),
        (34, 0xF6, "board_c", -10.0),
        (32, 0xF8, "detector_k", 220.0),  # only the low nibble belongs to the temperature
        (42, 0x21, "hpge_supply", True),
        (42, 0x22, "hpge_supply", False),
        (43, 0x07, "list_sync", 3),
        (43, 0x04, "list_clock_s", 1e-6),
        (43, 0x03, "list_clock_s", 1e-7),
        (43, 0x08, "list_option", True),
    ],
)
def test_status_bits(offset, value, field, expected):
    data = bytearray(STATUS_PX5[6:70])
    data[offset] = value
    status = packets.parse_status(reply((0x80, 0x01), bytes(data)))
    assert getattr(status, field) == pytest.approx(expected)


def test_accumulation_time_counts_its_high_bytes():
    data = bytearray(64)
    data[12:16] = bytes([99, 0x01, 0x02, 0x03])  # 99 ms + 0x030201 tenths of a second
    assert packets.decode_status(bytes(data)).accumulation_s == pytest.approx(19712.1 + 0.099 + 0.0)


def test_device_types_in_words():
    data = bytearray(64)
    names = []
    for number in range(7):
        data[39] = number
        names.append(packets.decode_status(bytes(data)).model)
    assert names == ["DP5", "PX5", "DP5G", "MCA8000D", "TB5", "DP5-X", "type 6"]
    data[39], data[42] = 1, 1
    assert packets.decode_status(bytes(data)).model == "PX5-HPGe"
    data[39] = 0  # the option nibble means this only on a PX5
    assert packets.decode_status(bytes(data)).model == "DP5"


@pytest.mark.parametrize("frame", [STATUS_PX5, ACK_OK, ACK_UNKNOWN_TEXT])
def test_one_byte_at_a_time(frame):
    for count in range(len(frame)):
        assert packets.parse_packet(frame[:count]) is None
    assert packets.parse_packet(frame) is not None
    assert packets.parse_packet(frame + b"\xf5\xfa\x00") == packets.parse_packet(frame)


@pytest.mark.parametrize("position", range(len(STATUS_PX5)))
def test_every_flipped_bit_is_noticed(position):
    broken = bytearray(STATUS_PX5)
    broken[position] ^= 0x04
    if position in (4, 5):  # another length: incomplete, impossible, or a wrong checksum
        broken += bytes(2000)
    with pytest.raises(BadReply):
        packets.parse_status(bytes(broken))


def test_a_continuation_without_its_head_is_refused_at_once():
    with pytest.raises(BadReply, match="sync"):
        packets.parse_packet(b"\x00\x01\x02")


def test_acknowledge():
    assert packets.parse_acknowledge(ACK_OK) == packets.Acknowledge(0, b"")
    asked = packets.parse_acknowledge(reply((0xFF, 0x0C), b""))
    assert asked is not None
    assert asked.code == packets.SHARING_ASKED
    with pytest.raises(Refused, match="checksum"):
        packets.parse_acknowledge(ACK_CHECKSUM)
    with pytest.raises(Refused, match=r"not recognised: 'ABCD=1;'"):
        packets.parse_acknowledge(ACK_UNKNOWN_TEXT)


@pytest.mark.parametrize("code", sorted(packets.ACK_REFUSED))
def test_every_refusal_has_words_and_strikes_every_reader(code):
    frame = reply((0xFF, code), b"")
    words = packets.ACK_REFUSED[code]
    for parse in (
        packets.parse_acknowledge,
        packets.parse_status,
        packets.parse_list_data,
        packets.parse_configuration,
        packets.parse_spectrum,
    ):
        with pytest.raises(Refused, match=words):
            parse(frame)


def test_unknown_code_is_a_refusal():
    with pytest.raises(Refused, match="unknown acknowledge"):
        packets.parse_acknowledge(reply((0xFF, 0x77), b""))


def test_the_wrong_kind_of_answer_is_not_taken():
    with pytest.raises(BadReply, match="expected a status"):
        packets.parse_status(ACK_OK)
    with pytest.raises(BadReply, match="expected an acknowledge"):
        packets.parse_acknowledge(STATUS_PX5)
    with pytest.raises(BadReply, match="expected list-mode data"):
        packets.parse_list_data(STATUS_PX5)
    with pytest.raises(BadReply, match="expected a spectrum"):
        packets.parse_spectrum(STATUS_PX5)


def test_list_data():
    words = bytes.fromhex("02a51234 80010000 c0004001")
    assert packets.parse_list_data(reply((0x82, 0x0A), words)) == (words, False)
    assert packets.parse_list_data(reply((0x82, 0x0B), words)) == (words, True)
    assert packets.parse_list_data(reply((0x82, 0x0A), b"")) == (b"", False)
    with pytest.raises(BadReply, match="whole"):
        packets.parse_list_data(reply((0x82, 0x0A), words[:-1]))


@pytest.mark.parametrize(
    ("pid2", "channels", "packet_bytes"),
    [(2, 256, 840), (4, 512, 1608), (6, 1024, 3144), (8, 2048, 6216), (10, 4096, 12360), (12, 8192, 24648)],
)
def test_spectra_have_the_sizes_of_the_guide(pid2, channels, packet_bytes):
    counts = bytes([0x01, 0x02, 0x03]) + bytes(3 * (channels - 2)) + b"\xff\xff\xff"
    with_status = reply((0x81, pid2), counts + STATUS_PX5[6:70])
    assert len(with_status) == packet_bytes
    spectrum = packets.parse_spectrum(with_status)
    assert spectrum is not None
    assert len(spectrum[0]) == channels
    assert (spectrum[0][0], spectrum[0][-1]) == (0x030201, 16_777_215)
    assert spectrum[1] == packets.parse_status(STATUS_PX5)
    alone = packets.parse_spectrum(reply((0x81, pid2 - 1), counts))
    assert alone == (spectrum[0], None)
    with pytest.raises(BadReply, match="spectrum of"):
        packets.parse_spectrum(reply((0x81, pid2), counts))


def test_configuration_texts():
    assert packets.encode_text([("MCAC", "1024"), ("PRET", "10.0")]) == [b"MCAC=1024;PRET=10.0;"]
    assert packets.decode_text(b"MCAC=1024;PRET=OFF;\r\n") == {"MCAC": "1024", "PRET": "OFF"}
    read_back = reply((0x82, 0x07), b"MCAC=1024;HVSE=-110;")
    assert packets.parse_configuration(read_back) == {"MCAC": "1024", "HVSE": "-110"}
    with pytest.raises(BadReply):
        packets.decode_text(b"MCAC 1024;")


def test_long_configurations_are_split_between_commands():
    commands = [(f"A{i:03d}", "1234567") for i in range(100)]  # 13 bytes each
    texts = packets.encode_text(commands)
    assert [len(text) for text in texts] == [507, 507, 286]
    assert dict(commands) == {k: v for text in texts for k, v in packets.decode_text(text).items()}


@pytest.mark.parametrize(
    ("name", "value"), [("MCA", "1"), ("mcac", "1"), ("MCAC", ""), ("MCAC", "1;HVSE=900"), ("MCAC", "=")]
)
def test_nothing_can_be_smuggled_into_a_command(name, value):
    with pytest.raises(OutOfRange):
        packets.encode_text([(name, value)])


@given(st.binary(max_size=200))
def test_noise_never_escapes_as_another_error(noise):
    with contextlib.suppress(BadReply):
        packets.parse_packet(noise)


@given(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=600))
def test_round_trip(pid1, pid2, data):
    packet = packets.parse_packet(packets.request((pid1, pid2), data))
    assert packet == packets.Packet((pid1, pid2), data)
    assert packets.request((pid1, pid2), data) == reply((pid1, pid2), data)
