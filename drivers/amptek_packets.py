"""Packets of Amptek's FW6 processors (DP5, PX5, DP5G, MCA8000D, DP5-X): bytes in, bytes out, no I/O.

``F5 FA PID1 PID2 LENhi LENlo data... CKhi CKlo``; the check word makes the 16-bit sum of all bytes of the
packet zero. A long reply is split over datagrams of which only the first has a header, so every parser takes
what has arrived so far and returns None while it is not enough. The sum cannot see the order of datagrams.

Sources: Amptek, Digital Products Programmer's Guide, revisions A4, A7 and B0; Amptek's DP5Protocol.h and
DP5Status.cpp as published in the EPICS mca module and in pyAmptek.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from drivers.errors import BadReply, OutOfRange, Refused

SYNC = b"\xf5\xfa"
HEADER_BYTES = 6
CHECK_BYTES = 2
LARGEST_DATA_BYTES = 24_640  # 8192 channels of 3 bytes and a status: a packet of 24 648 bytes
CONFIGURATION_BYTES = 512  # at most, in one text configuration packet
STATUS_BYTES = 64
BYTES_PER_CHANNEL = 3
WORD_BYTES = 4  # of the list
LONGEST_NOISE_BYTES = 8  # in front of a reply on a serial line

Pid = tuple[int, int]

# requests
STATUS: Pid = (0x01, 0x01)
SPECTRUM_AND_STATUS: Pid = (0x02, 0x03)
SPECTRUM_AND_STATUS_CLEAR: Pid = (0x02, 0x04)
DISCOVERY: Pid = (0x03, 0x07)
LIST_DATA: Pid = (0x03, 0x09)
CONFIGURE: Pid = (0x20, 0x02)
CONFIGURATION: Pid = (0x20, 0x03)
CLEAR_SPECTRUM: Pid = (0xF0, 0x01)
ENABLE: Pid = (0xF0, 0x02)
DISABLE: Pid = (0xF0, 0x03)
CLEAR_LIST_TIMER: Pid = (0xF0, 0x16)
REFUSE_SHARING: Pid = (0xF0, 0x21)

# responses
STATUS_REPLY: Pid = (0x80, 0x01)
CONFIGURATION_REPLY: Pid = (0x82, 0x07)
LIST_REPLY: Pid = (0x82, 0x0A)
LIST_REPLY_OVERFLOWED: Pid = (0x82, 0x0B)
ACK = 0xFF
SPECTRUM = 0x81
CHANNELS = {0x01: 256, 0x03: 512, 0x05: 1024, 0x07: 2048, 0x09: 4096, 0x0B: 8192}

ACK_FINE = {0x00: "ok", 0x0C: "ok, but another interface asks for sharing", 0x0F: "ok, with FPGA address"}
ACK_REFUSED = {
    0x01: "the request arrived without its sync bytes",
    0x02: "unknown request",
    0x03: "the length of the request is wrong",
    0x04: "the request arrived with a wrong checksum",
    0x05: "bad parameter",
    0x06: "bad hexadecimal record",
    0x07: "text command not recognised",
    0x08: "the FPGA is not initialised",
    0x09: "no Ethernet",
    0x0A: "no oscilloscope trace is ready",
    0x0B: "the power supply board PC5 is missing",
    0x0D: "busy with another interface",
    0x0E: "error on the internal I2C bus",
    0x10: "this version does not support the request",
    0x11: "the calibration is missing",
}
SHARING_ASKED = 0x0C
DEVICE_TYPES = {0: "DP5", 1: "PX5", 2: "DP5G", 3: "MCA8000D", 4: "TB5", 5: "DP5-X"}
SYNC_MODES = {0: "internal", 1: "no time tags", 2: "external", 3: "frame"}


@dataclass(frozen=True)
class Packet:
    """One complete packet whose checksum was right."""

    pid: Pid
    data: bytes


@dataclass(frozen=True)
class Status:
    """The 64-byte status, in SI units. Counters are running totals since the last clear."""

    fast_counts: int
    slow_counts: int
    general_counts: int
    accumulation_s: float
    live_s: float  # MCA8000D only
    real_s: float
    firmware: str
    firmware_build: int
    fpga: str
    serial: int
    high_voltage_v: float
    detector_k: float
    board_c: float
    preset_time_reached: bool
    mca_enabled: bool
    preset_counts_reached: bool
    gated_off: bool
    configured: bool
    rebooted: bool
    device_type: int
    hpge_supply: bool
    list_sync: int
    list_clock_s: float
    list_option: bool

    @property
    def model(self) -> str:
        """Name of the device type, with the high-voltage option that decides which bias it may get."""
        name = DEVICE_TYPES.get(self.device_type, f"type {self.device_type}")
        return f"{name}-HPGe" if self.hpge_supply else name


@dataclass(frozen=True)
class Acknowledge:
    """An acknowledge packet: its code and what came with it."""

    code: int
    data: bytes

    @property
    def words(self) -> str:
        """The code in words; for an unrecognised text command with the offending text."""
        meaning = ACK_FINE.get(self.code) or ACK_REFUSED.get(self.code, "unknown acknowledge code")
        text = self.data.decode("ascii", "replace").strip("\0")
        return f"{meaning}: {text!r}" if text and self.code not in ACK_FINE else meaning


def request(pid: Pid, data: bytes = b"") -> bytes:
    """Build one packet."""
    if len(data) > LARGEST_DATA_BYTES:
        raise OutOfRange(f"{len(data)} bytes do not fit into one packet of at most {LARGEST_DATA_BYTES}")
    packet = SYNC + bytes(pid) + len(data).to_bytes(2, "big") + data
    return packet + checksum(packet).to_bytes(2, "big")


def checksum(packet: bytes) -> int:
    """Return the number that makes the 16-bit sum of ``packet`` and itself zero."""
    return -sum(packet) & 0xFFFF


def parse_packet(buffer: bytes) -> Packet | None:
    """Take the packet at the start of ``buffer``; None while it is incomplete; bytes behind it are ignored.

    Raises:
        BadReply: the buffer does not start with a header (a continuation whose first datagram was lost), the
            length is impossible, or the checksum is wrong.
    """
    if not SYNC.startswith(buffer[: len(SYNC)]):
        raise BadReply("a reply without its sync bytes", reply=buffer)
    if len(buffer) < HEADER_BYTES:
        return None
    length = int.from_bytes(buffer[4:6], "big")
    if length > LARGEST_DATA_BYTES:
        raise BadReply(f"a reply that claims {length} data bytes", reply=buffer)
    end = HEADER_BYTES + length + CHECK_BYTES
    if len(buffer) < end:
        return None
    if checksum(buffer[: end - CHECK_BYTES]) != int.from_bytes(buffer[end - CHECK_BYTES : end], "big"):
        raise BadReply("a reply with a wrong checksum", reply=buffer[:end])
    return Packet((buffer[2], buffer[3]), bytes(buffer[HEADER_BYTES : HEADER_BYTES + length]))


def from_sync(buffer: bytes) -> bytes:
    """Return what a serial line brought without the noise in front of the sync bytes.

    A few bytes at most, and only if sync bytes follow: behind that nothing is believed.
    """
    start = buffer.find(SYNC, 0, LONGEST_NOISE_BYTES + len(SYNC))
    if start > 0:
        return buffer[start:]
    if start < 0 and len(buffer) <= LONGEST_NOISE_BYTES:
        return b""  # the sync bytes may still come
    return buffer


def packet_bytes(data_bytes: int) -> int:
    """Return the length of a packet with so many data bytes."""
    return HEADER_BYTES + data_bytes + CHECK_BYTES


def parse_acknowledge(buffer: bytes) -> Acknowledge | None:
    """Expect an acknowledge that means yes. Raises Refused, in words, when it means no."""
    packet = parse_packet(buffer)
    if packet is None:
        return None
    if packet.pid[0] != ACK:
        raise _unexpected(packet, "an acknowledge")
    return _accepted(packet)


def parse_status(buffer: bytes) -> Status | None:
    """Expect the status packet."""
    packet = _expect(buffer, (STATUS_REPLY,), "a status")
    return None if packet is None else decode_status(packet.data)


def parse_list_data(buffer: bytes) -> tuple[bytes, bool] | None:
    """Expect list-mode data; return the raw words and whether the FIFO had overflowed."""
    packet = _expect(buffer, (LIST_REPLY, LIST_REPLY_OVERFLOWED), "list-mode data")
    if packet is None:
        return None
    if len(packet.data) % 4:
        raise BadReply(f"{len(packet.data)} bytes are not whole list-mode words", reply=buffer)
    return packet.data, packet.pid == LIST_REPLY_OVERFLOWED


def parse_configuration(buffer: bytes) -> dict[str, str] | None:
    """Expect a configuration read-back; return name -> value as the device writes it."""
    packet = _expect(buffer, (CONFIGURATION_REPLY,), "a configuration")
    return None if packet is None else decode_text(packet.data)


def parse_spectrum(buffer: bytes) -> tuple[list[int], Status | None] | None:
    """Expect a spectrum (3 bytes a channel, little-endian), with the status when it was asked for."""
    packet = parse_packet(buffer)
    if packet is None:
        return None
    if packet.pid[0] == ACK:
        _accepted(packet)
    with_status = packet.pid[1] % 2 == 0
    channels = CHANNELS.get(packet.pid[1] - with_status)
    if packet.pid[0] != SPECTRUM or channels is None:
        raise _unexpected(packet, "a spectrum")
    counts_bytes = channels * BYTES_PER_CHANNEL
    if len(packet.data) != counts_bytes + STATUS_BYTES * with_status:
        raise BadReply(f"{len(packet.data)} bytes are not a spectrum of {channels} channels", reply=buffer)
    counts = [int.from_bytes(packet.data[i : i + 3], "little") for i in range(0, counts_bytes, 3)]
    return counts, decode_status(packet.data[counts_bytes:]) if with_status else None


def decode_status(data: bytes) -> Status:
    """Decode the 64 data bytes of a status packet."""
    if len(data) != STATUS_BYTES:
        raise BadReply(f"a status of {len(data)} bytes instead of {STATUS_BYTES}", reply=data)

    def little(start: int, count: int) -> int:
        return int.from_bytes(data[start : start + count], "little")

    return Status(
        fast_counts=little(0, 4),
        slow_counts=little(4, 4),
        general_counts=little(8, 4),
        accumulation_s=(data[12] + 100 * little(13, 3)) / 1000,
        live_s=little(16, 4) / 1000,
        real_s=little(20, 4) / 1000,
        firmware=f"{data[24] >> 4}.{data[24] & 15}",
        firmware_build=data[37] & 15,
        fpga=f"{data[25] >> 4}.{data[25] & 15}",
        serial=little(26, 4),
        high_voltage_v=int.from_bytes(data[30:32], "big", signed=True) / 2,
        detector_k=((data[32] & 15) << 8 | data[33]) / 10,
        board_c=float(int.from_bytes(data[34:35], "big", signed=True)),
        preset_time_reached=bool(data[35] & 0x80),
        mca_enabled=bool(data[35] & 0x20),
        preset_counts_reached=bool(data[35] & 0x10),
        gated_off=not data[35] & 0x08,
        configured=bool(data[35] & 0x02),
        rebooted=bool(data[36] & 0x20),
        device_type=data[39],
        hpge_supply=data[39] == 1 and data[42] & 15 == 1,
        list_sync=data[43] & 3,
        list_clock_s=1e-6 if data[43] & 4 else 1e-7,
        list_option=bool(data[43] & 8),
    )


def encode_text(commands: Iterable[tuple[str, str]]) -> list[bytes]:
    """Write ``NAME=VALUE;`` texts, as few as possible, none longer than one packet takes.

    Raises:
        OutOfRange: a name that is not four letters or digits, or a value with a character that would end it.
    """
    texts = [b""]
    for name, value in commands:
        if len(name) != 4 or not name.isascii() or not name.isalnum() or name != name.upper():
            raise OutOfRange(f"{name!r} is not the name of a text command")
        if not value or not value.isascii() or not value.isprintable() or set(value) & set(";= "):
            raise OutOfRange(f"{value!r} is not a value for {name}")
        command = f"{name}={value};".encode("ascii")
        if len(texts[-1]) + len(command) > CONFIGURATION_BYTES:
            texts.append(b"")
        texts[-1] += command
    return [text for text in texts if text]


def decode_text(data: bytes) -> dict[str, str]:
    """Read ``NAME=VALUE;`` texts; raises BadReply when there is anything else."""
    values = {}
    for item in data.decode("ascii", "replace").strip("\0\r\n ").split(";"):
        name, equals, value = item.strip().partition("=")
        if not name and not equals:
            continue
        if not equals or len(name) != 4:
            raise BadReply(f"{item!r} is not a configuration value", reply=data)
        values[name] = value
    return values


def _expect(buffer: bytes, pids: tuple[Pid, ...], what: str) -> Packet | None:
    packet = parse_packet(buffer)
    if packet is None or packet.pid in pids:
        return packet
    if packet.pid[0] == ACK:
        _accepted(packet)  # says why not; an "ok" here is not an answer either
    raise _unexpected(packet, what)


def _accepted(packet: Packet) -> Acknowledge:
    acknowledge = Acknowledge(packet.pid[1], packet.data)
    if acknowledge.code not in ACK_FINE:
        raise Refused(acknowledge.words, reply=request(packet.pid, packet.data))
    return acknowledge


def _unexpected(packet: Packet, what: str) -> BadReply:
    pid = bytes(packet.pid).hex(" ")
    return BadReply(f"expected {what}, got a packet {pid}", reply=request(packet.pid, packet.data))
