"""FW6 packets of Amptek's digital processors, the instrument's end: requests apart, replies together.

``F5 FA PID1 PID2 LENhi LENlo data CKhi CKlo``; the check word makes the 16-bit sum of all bytes zero. On
Ethernet a packet is cut into datagrams of at most 520 bytes, of which only the first has the header. Written
from the Digital Products Programmer's Guide (revisions A4, A7, B0) and the protocol sheet.
"""

from __future__ import annotations

from dataclasses import dataclass

SYNC = b"\xf5\xfa"
DATAGRAM_BYTES = 520
STATUS_BYTES = 64

Pid = tuple[int, int]

OK, NO_SYNC, BAD_PID, BAD_LENGTH, BAD_CHECKSUM, BAD_PARAMETER = 0x00, 0x01, 0x02, 0x03, 0x04, 0x05
BAD_COMMAND, SHARING_ASKED, BUSY = 0x07, 0x0C, 0x0D
SPECTRUM_PID2 = {256: 0x01, 512: 0x03, 1024: 0x05, 2048: 0x07, 4096: 0x09, 8192: 0x0B}


class Rejected(Exception):
    """The request is answered with this acknowledge code (and data)."""

    def __init__(self, code: int, data: bytes = b"") -> None:
        super().__init__(f"acknowledge {code:#04x}")
        self.code = code
        self.data = data


def packet(pid: Pid, data: bytes = b"") -> bytes:
    """Build a packet."""
    body = SYNC + bytes(pid) + len(data).to_bytes(2, "big") + data
    return body + (-sum(body) & 0xFFFF).to_bytes(2, "big")


def acknowledge(code: int, data: bytes = b"") -> bytes:
    """Build an acknowledge packet."""
    return packet((0xFF, code), data)


def datagrams(whole: bytes) -> list[bytes]:
    """Cut a packet into what Ethernet carries."""
    return [whole[i : i + DATAGRAM_BYTES] for i in range(0, len(whole), DATAGRAM_BYTES)]


def request(datagram: bytes) -> tuple[Pid, bytes]:
    """Take a request apart; noise before the sync bytes is skipped.

    Raises:
        Rejected: with the code that the instrument would answer.
    """
    start = datagram.find(SYNC)
    if start < 0:
        raise Rejected(NO_SYNC)
    body = datagram[start:]
    if len(body) < 8:
        raise Rejected(BAD_LENGTH)
    end = 6 + int.from_bytes(body[4:6], "big") + 2
    if len(body) < end:
        raise Rejected(BAD_LENGTH)
    if sum(body[: end - 2]) + int.from_bytes(body[end - 2 : end], "big") & 0xFFFF:
        raise Rejected(BAD_CHECKSUM)
    return (body[2], body[3]), body[6 : end - 2]


@dataclass(frozen=True)
class Status:
    """What the 64 status bytes say. Times in s, temperatures in K and degC."""

    fast: int = 0
    slow: int = 0
    general: int = 0
    accumulation_s: float = 0.0
    real_s: float = 0.0
    firmware: int = 0x68  # major and minor nibble
    fpga: int = 0x61
    build: int = 5
    serial: int = 0
    high_voltage_v: float = 0.0
    detector_k: float = 0.0
    board_c: int = 0
    flags: int = 0  # byte 35
    more_flags: int = 0  # byte 36
    device: int = 0  # byte 39: 0 DP5, 1 PX5
    option: int = 0  # byte 42
    list_mode: int = 0  # byte 43

    def encode(self) -> bytes:
        """Return the 64 bytes."""
        data = bytearray(STATUS_BYTES)
        data[0:4] = (self.fast & 0xFFFF_FFFF).to_bytes(4, "little")
        data[4:8] = (self.slow & 0xFFFF_FFFF).to_bytes(4, "little")
        data[8:12] = (self.general & 0xFFFF_FFFF).to_bytes(4, "little")
        milliseconds = round(self.accumulation_s * 1000.0)
        data[12] = milliseconds % 100
        data[13:16] = (milliseconds // 100 & 0xFF_FFFF).to_bytes(3, "little")
        data[20:24] = (round(self.real_s * 1000.0) & 0xFFFF_FFFF).to_bytes(4, "little")
        data[24], data[25] = self.firmware, self.fpga
        data[26:30] = self.serial.to_bytes(4, "little")
        data[30:32] = round(self.high_voltage_v * 2.0).to_bytes(2, "big", signed=True)
        data[32:34] = round(self.detector_k * 10.0).to_bytes(2, "big")
        data[34:35] = self.board_c.to_bytes(1, "big", signed=True)
        data[35], data[36], data[37] = self.flags, self.more_flags, self.build
        data[39], data[42], data[43] = self.device, self.option, self.list_mode
        return bytes(data)
