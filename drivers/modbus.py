"""Modbus RTU and TCP: pymodbus' frames and messages, our line, our checks of every reply.

Only the framers and messages of pymodbus are used, never its clients: those send writes again after a timeout
and accept replies of another function or length (measured; the tests list twelve such behaviours).

A reply is checked in this order: checksum, unit (on TCP: header, transaction, unit), exception, function,
byte count, echo of what was written. Nothing that fails a check reaches the caller, and nothing is sent twice
but reads, once, if the client is told so.
"""

from __future__ import annotations

import math
import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU, ModbusPDU
from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest, WriteSingleCoilRequest
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadInputRegistersRequest,
    WriteMultipleRegistersRequest,
    WriteSingleRegisterRequest,
)

from drivers.errors import BadReply, NoReply, OutOfRange, Refused
from drivers.line import Interrupted, Line

READ_COILS, READ_DISCRETE, READ_HOLDING, READ_INPUT = 1, 2, 3, 4
WRITE_COIL, WRITE_ONE, WRITE_SEVERAL = 5, 6, 16
MOST_BITS = 2000  # in one read, Modbus Application Protocol V1.1b3, 6.1
MOST_READ = 125  # registers in one read, Modbus Application Protocol V1.1b3, 6.3
MOST_WRITTEN = 123  # registers in one write, the same, 6.12
FASTEST_SILENCE_S = 0.00175  # above 19200 baud, Modbus over Serial Line V1.02, 2.5.1.1
LONGEST_FRAME = 256  # bytes on a serial line (Modbus over serial line V1.02, section 2.2)
LONGEST_NOISE = 8  # bytes in front of a reply that are skipped if a good one follows
STALE_TRANSACTIONS = 1024  # a reply to one of so many earlier requests is late, any other is wrong

EXCEPTIONS = {  # Modbus Application Protocol V1.1b3, chapter 7
    1: "function not supported",
    2: "no such register",
    3: "value not allowed",
    4: "device failure",
    5: "accepted, takes long",
    6: "busy",
    8: "memory parity error",
    10: "gateway has no path",
    11: "gateway target does not answer",
}

_RTU = FramerRTU(DecodePDU(False))
_SOCKET = FramerSocket(DecodePDU(False))


class ModbusRefused(Refused):
    """An exception reply; ``code`` is the number that came."""

    def __init__(self, code: int, *, device: str, request: bytes, reply: bytes) -> None:
        self.code = code
        words = EXCEPTIONS.get(code, "unknown reason")
        super().__init__(f"exception {code}: {words}", device=device, request=request, reply=reply)


@dataclass(frozen=True)
class Request:
    """A message on its way: what was meant, and the bytes for it."""

    pdu: ModbusPDU
    frame: bytes
    device: str = ""

    def bad(self, what: str, reply: bytes) -> BadReply:
        """Return the error that says what is wrong with ``reply``."""
        return BadReply(what, device=self.device, request=self.frame, reply=reply)


def crc16(data: bytes) -> bytes:
    """Return the CRC-16/MODBUS of ``data`` as sent, low byte first."""
    return FramerRTU.compute_CRC(data).to_bytes(2, "big")


def silence_s(character_s: float) -> float:
    """Return the least silence between two RTU frames, s; 0 where characters take no time."""
    return max(3.5 * character_s, FASTEST_SILENCE_S) if character_s else 0.0


def read_request(register: int, count: int, function: int = READ_HOLDING) -> ModbusPDU:
    """Return the message that reads ``count`` registers. Raises OutOfRange if that cannot be asked."""
    _check_registers(register, count, MOST_READ)
    message = ReadInputRegistersRequest if function == READ_INPUT else ReadHoldingRegistersRequest
    return message(address=register, count=count)


def write_request(register: int, values: Sequence[int], function: int = WRITE_SEVERAL) -> ModbusPDU:
    """Return the message that writes ``values``. Raises OutOfRange if that cannot be asked."""
    _check_registers(register, len(values), 1 if function == WRITE_ONE else MOST_WRITTEN)
    for value in values:
        if not 0 <= value <= 0xFFFF:
            raise OutOfRange(f"register {register}: {value} does not fit into 16 bits")
    message = WriteSingleRegisterRequest if function == WRITE_ONE else WriteMultipleRegistersRequest
    return message(address=register, registers=list(values))


def read_bits_request(address: int, count: int, function: int = READ_COILS) -> ModbusPDU:
    """Return the message that reads ``count`` coils or inputs. Raises OutOfRange if that cannot be asked."""
    _check_registers(address, count, MOST_BITS)
    message = ReadDiscreteInputsRequest if function == READ_DISCRETE else ReadCoilsRequest
    return message(address=address, count=count)


def write_coil_request(address: int, *, on: bool) -> ModbusPDU:
    """Return the message that writes one coil. Raises OutOfRange if that cannot be asked."""
    _check_registers(address, 1, 1)
    return WriteSingleCoilRequest(address=address, bits=[on])


def rtu_request(pdu: ModbusPDU, unit: int, device: str = "") -> Request:
    """Return ``pdu`` framed for ``unit`` on a serial line."""
    pdu.dev_id = unit
    return Request(pdu, _RTU.buildFrame(pdu), device)


def tcp_request(pdu: ModbusPDU, unit: int, transaction: int, device: str = "") -> Request:
    """Return ``pdu`` framed for TCP."""
    pdu.dev_id, pdu.transaction_id = unit, transaction
    return Request(pdu, _SOCKET.buildFrame(pdu), device)


def parse_rtu(buffer: bytes, request: Request) -> list[int] | None:
    """Return the registers of the reply in ``buffer``, or None while it is not complete.

    Up to eight bytes of noise in front are skipped if a frame follows whose checksum, unit and function are
    right. Noise behind it is left to the line, which drains it; a second reply is not: then the first one may
    be the late answer to an earlier request.
    """
    waiting = damaged = False
    for start in range(min(len(buffer), LONGEST_NOISE + 1)):
        rest = buffer[start:]
        if start and not _may_be_reply(rest, request):
            continue
        frame = _rtu_frame(rest)
        if frame is None:
            waiting = True
        elif crc16(frame[:-2]) == frame[-2:]:
            behind = rest[len(frame) :]
            if len(behind) >= 2 and _may_be_reply(behind, request):
                raise request.bad("two replies to one request", buffer)
            return _check_rtu(frame, request)
        else:
            damaged = True
    if damaged and not waiting:
        raise request.bad("wrong checksum", buffer)
    return None


def parse_tcp(buffer: bytes, request: Request) -> list[int] | None:
    """Return the registers of the reply in ``buffer``, or None while it is not complete.

    Late replies to earlier requests are skipped: they carry an older transaction number.
    """
    while len(buffer) >= 8:
        length = int.from_bytes(buffer[4:6], "big")
        if buffer[2:4] != b"\0\0" or not 3 <= length <= 254:
            raise request.bad("not a Modbus TCP header", buffer)
        if len(buffer) < 6 + length:
            return None
        frame, buffer = buffer[: 6 + length], buffer[6 + length :]
        late_by = (request.pdu.transaction_id - int.from_bytes(frame[:2], "big")) & 0xFFFF
        if late_by == 0:
            if frame[6] != request.pdu.dev_id:
                raise request.bad(f"reply of unit {frame[6]} instead of {request.pdu.dev_id}", frame)
            return _check_pdu(frame[7:], request)
        if late_by > STALE_TRANSACTIONS:
            raise request.bad("reply to a transaction that was never asked", frame)
    return None


def floats(registers: Sequence[int]) -> list[float]:
    """Return pairs of registers as IEEE 754 single precision, high word first."""
    return list(struct.unpack(f">{len(registers) // 2}f", struct.pack(f">{len(registers)}H", *registers)))


def float_registers(values: Sequence[float]) -> list[int]:
    """Return ``values`` as pairs of registers. Raises OutOfRange for what is not a finite single."""
    for value in values:
        if not math.isfinite(value) or abs(value) > 3.4028234e38:
            raise OutOfRange(f"{value} is not a finite single-precision number")
    return list(struct.unpack(f">{2 * len(values)}H", struct.pack(f">{len(values)}f", *values)))


class Modbus(ABC):
    """What RTU and TCP have in common. Every method raises NoReply, BadReply, Refused or OutOfRange.

    Args:
        line: the line to the instrument.
        unit: its address.
        device: its name for messages.
        timeout_s: from the request to the complete reply, wall seconds.
        read_again: repeat a read once after a missing or damaged reply. Writes are never repeated.
    """

    def __init__(
        self,
        line: Line,
        unit: int,
        *,
        device: str = "",
        timeout_s: float = 0.5,
        read_again: bool = False,
    ) -> None:
        self._line = line
        self._unit = unit
        self._device = device
        self._timeout_s = timeout_s
        self._read_again = read_again

    async def read_holding(self, register: int, count: int = 1, *, urgent: bool = False) -> list[int]:
        """Read holding registers (function 3)."""
        return await self._read(register, count, READ_HOLDING, urgent=urgent)

    async def read_input(self, register: int, count: int = 1, *, urgent: bool = False) -> list[int]:
        """Read input registers (function 4)."""
        return await self._read(register, count, READ_INPUT, urgent=urgent)

    async def read_bits(
        self, address: int, count: int = 1, *, function: int = READ_COILS, urgent: bool = False
    ) -> list[bool]:
        """Read coils (function 1) or discrete inputs (function 2)."""
        bits = await self._read(address, count, function, urgent=urgent)
        return [bool(bit) for bit in bits]

    async def write_coil(self, address: int, *, on: bool, urgent: bool = False) -> None:
        """Write one coil (function 5); the echo is compared."""
        await self._ask(write_coil_request(address, on=on), urgent=urgent)

    async def read_f32(self, register: int, count: int = 1, *, urgent: bool = False) -> list[float]:
        """Read ``count`` floats, high word first."""
        return floats(await self.read_holding(register, 2 * count, urgent=urgent))

    async def read_u32(self, register: int, count: int = 1, *, urgent: bool = False) -> list[int]:
        """Read ``count`` unsigned 32-bit integers, high word first."""
        words = await self.read_holding(register, 2 * count, urgent=urgent)
        return [high << 16 | low for high, low in zip(words[::2], words[1::2], strict=True)]

    async def write_register(self, register: int, value: int, *, urgent: bool = False) -> None:
        """Write one register (function 6); the echo is compared."""
        await self._ask(write_request(register, [value], WRITE_ONE), urgent=urgent)

    async def write_registers(self, register: int, values: Sequence[int], *, urgent: bool = False) -> None:
        """Write registers (function 16); address and quantity of the reply are compared."""
        await self._ask(write_request(register, values), urgent=urgent)

    async def write_f32(self, register: int, *values: float, urgent: bool = False) -> None:
        """Write floats, high word first, both words of each at once."""
        await self.write_registers(register, float_registers(values), urgent=urgent)

    async def write_u32(self, register: int, *values: int, urgent: bool = False) -> None:
        """Write unsigned 32-bit integers, high word first, both words of each at once."""
        for value in values:
            if not 0 <= value <= 0xFFFFFFFF:
                raise OutOfRange(f"register {register}: {value} does not fit into 32 bits")
        words = [word for value in values for word in (value >> 16, value & 0xFFFF)]
        await self.write_registers(register, words, urgent=urgent)

    async def _read(self, register: int, count: int, function: int, *, urgent: bool) -> list[int]:
        request = read_bits_request if function in (READ_COILS, READ_DISCRETE) else read_request
        try:
            return await self._ask(request(register, count, function), urgent=urgent)
        except Interrupted:
            raise
        except (NoReply, BadReply):
            if not self._read_again:
                raise
        return await self._ask(request(register, count, function), urgent=urgent)

    @abstractmethod
    async def _ask(self, pdu: ModbusPDU, *, urgent: bool) -> list[int]:
        """Send ``pdu`` and return the registers of its checked reply."""


class ModbusRtu(Modbus):
    """A unit on a serial line (address 1 to 254; address 0 is never answered)."""

    async def _ask(self, pdu: ModbusPDU, *, urgent: bool) -> list[int]:
        request = rtu_request(pdu, self._unit, self._device)
        return await self._line.ask(
            request.frame,
            lambda buffer: parse_rtu(buffer, request),
            timeout_s=self._timeout_s,
            device=self._device,
            urgent=urgent,
            silence_s=silence_s(self._line.character_s),
        )


class ModbusTcp(Modbus):
    """A unit behind a TCP connection; the transaction number tells late replies from the one asked for."""

    _transaction = 0

    async def _ask(self, pdu: ModbusPDU, *, urgent: bool) -> list[int]:
        self._transaction = self._transaction % 0xFFFF + 1
        request = tcp_request(pdu, self._unit, self._transaction, self._device)
        return await self._line.ask(
            request.frame,
            lambda buffer: parse_tcp(buffer, request),
            timeout_s=self._timeout_s,
            device=self._device,
            urgent=urgent,
            matched=True,
        )


def _check_registers(register: int, count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise OutOfRange(f"{count} registers in one message; 1 to {most} are possible")
    if not 0 <= register <= 0x10000 - count:
        raise OutOfRange(f"there is no register {register} to {register + count - 1}")


def _may_be_reply(data: bytes, request: Request) -> bool:
    """Return whether unit and function (as far as they are here) are those of the answer."""
    start = bytes((request.pdu.dev_id, request.pdu.function_code))
    refusal = bytes((request.pdu.dev_id, request.pdu.function_code | 0x80))
    return data[:2] in (start[: len(data[:2])], refusal[: len(data[:2])])


def _rtu_frame(data: bytes) -> bytes | None:
    """Return the frame at the start of ``data``, checksum included; None if it is not all here."""
    if len(data) < 3:
        return None
    function = data[1]
    if function & 0x80:
        size = 5
    elif function in (1, 2, 3, 4, 23):
        size = 5 + data[2]
    elif function in (5, 6, 15, 16):
        size = 8
    else:  # of unknown length: take what its checksum confirms
        longest = range(4, min(len(data), LONGEST_FRAME) + 1)
        sizes = (n for n in longest if crc16(data[: n - 2]) == data[n - 2 : n])
        size = next(sizes, LONGEST_FRAME)
    return data[:size] if len(data) >= size else None


def _check_rtu(frame: bytes, request: Request) -> list[int]:
    """Check a frame whose checksum is right."""
    if frame[0] != request.pdu.dev_id:
        raise request.bad(f"reply of unit {frame[0]} instead of {request.pdu.dev_id}", frame)
    return _check_pdu(frame[1:-2], request)


def _check_pdu(pdu: bytes, request: Request) -> list[int]:
    """Check a reply from its function code on; return the registers read or echoed."""
    asked = request.pdu
    if pdu[0] == asked.function_code | 0x80 and len(pdu) == 2:
        raise ModbusRefused(pdu[1], device=request.device, request=request.frame, reply=pdu)
    if pdu[0] != asked.function_code:
        raise request.bad(f"reply to function {pdu[0]} instead of {asked.function_code}", pdu)
    if asked.function_code in (READ_COILS, READ_DISCRETE):
        size = (asked.count + 7) // 8
        if len(pdu) != 2 + size or pdu[1] != size:
            raise request.bad(f"{pdu[1]} bytes instead of {size}", pdu)
        return [pdu[2 + bit // 8] >> bit % 8 & 1 for bit in range(asked.count)]
    if asked.function_code in (READ_HOLDING, READ_INPUT):
        if len(pdu) != 2 + 2 * asked.count or pdu[1] != 2 * asked.count:
            raise request.bad(f"{pdu[1]} bytes instead of {2 * asked.count}", pdu)
        reply = _RTU.decoder.decode(pdu)
        if reply is None:
            raise request.bad("undecodable reply", pdu)
        return list(reply.registers)
    if pdu != _expected_echo(asked):
        raise request.bad("echo differs from what was written", pdu)
    return list(asked.registers)


def _expected_echo(asked: ModbusPDU) -> bytes:
    if asked.function_code == WRITE_COIL:
        return struct.pack(">BHH", WRITE_COIL, asked.address, 0xFF00 if asked.bits[0] else 0)
    last = asked.registers[0] if asked.function_code == WRITE_ONE else asked.count
    return struct.pack(">BHH", asked.function_code, asked.address, last)
