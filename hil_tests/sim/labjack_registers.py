"""The register map of a LabJack T7: types, whole access, buffer registers, feedback function, error numbers.

A 32-bit register takes two addresses, high word first, and can only be read or written whole. A *buffer*
register swallows or gives any number of words at one address. What went wrong last is in LAST_ERR_DETAIL
(55000) as a LabJack error number; the Modbus exception code itself says little.

Sources: ljm_constants.json (register types and error numbers); LabJack T-Series datasheet, chapter 3.1. Which
Modbus exception code goes with a LabJack error number is not documented: 2 for an address that does not exist
and 4 for everything else is assumed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from hil_tests.sim.wire import modbus_tcp

Kind = Literal["U16", "U32", "I32", "F32"]
Words = list[int]

INVALID_COUNT = 2313  # MODBUS_INVALID_NUM_REGISTERS
COUNT_MUST_BE_EVEN = 2315  # MODBUS_NUM_REGS_MUST_BE_EVEN
RESPONSE_TOO_LONG = 2300  # MODBUS_RSP_OVERFLOW
FEEDBACK = 76
FEEDBACK_READ, FEEDBACK_WRITE = 0, 1
LONGEST_REPLY_BYTES = 1033  # 1040 byte packets
LAST_ERR_DETAIL, LAST_MB_ERR = 55000, 55001
TEST = 55100  # the one 32-bit register whose words may be read alone


class DeviceError(Exception):
    """A LabJack error number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"LabJack error {number}")
        self.number = number


@dataclass(frozen=True)
class Register:
    """One register: functions to read and write its value, None where it cannot be."""

    kind: Kind
    read: Callable[[], float] | None = None
    write: Callable[[float], None] | None = None


@dataclass(frozen=True)
class Buffer:
    """A register behind which a stream of words stands. ``read`` gets how many words are wanted."""

    kind: Kind
    read: Callable[[int], Words] | None = None
    write: Callable[[Sequence[float]], None] | None = None


class RegisterMap:
    """All registers by address; implements the Modbus functions on them."""

    def __init__(self) -> None:
        self.last_error = 0
        self.last_modbus_error = 0
        self.errors: dict[int, int] = {}
        self._map: dict[int, Register | Buffer] = {}
        self.add(LAST_ERR_DETAIL, Register("U16", lambda: self.last_error))
        self.add(LAST_MB_ERR, Register("U16", lambda: self.last_modbus_error))

    def add(self, address: int, register: Register | Buffer) -> None:
        """Add one register."""
        self._map[address] = register

    def respond(self, pdu: bytes) -> bytes:
        """Answer a request."""
        if pdu[0] == FEEDBACK:
            try:
                reply = self._feedback(pdu)
            except modbus_tcp.ModbusException as exception:
                reply = bytes([FEEDBACK | 0x80, exception.code])
        else:
            reply = modbus_tcp.answer(pdu, self)
        if reply[0] & 0x80:
            self.last_modbus_error = reply[1]
        return reply

    def read(self, address: int, count: int) -> Words:
        """Read ``count`` words from ``address`` on."""
        words: Words = []
        if address in (TEST, TEST + 1) and count == 1:
            words = self.read(TEST, 2)
            return [words[address - TEST]]
        while len(words) < count:
            register = self._at(address, count - len(words))
            try:
                if isinstance(register, Buffer):
                    if register.read is None:
                        raise self._no_such_address()
                    words += register.read(count - len(words))
                else:
                    if register.read is None:
                        raise self._no_such_address()
                    words += to_words(register.kind, register.read())
                    address += size(register.kind)
            except DeviceError as error:
                raise self._failed(error.number) from error
        return words

    def write(self, address: int, values: Sequence[int]) -> None:
        """Write words from ``address`` on."""
        words = list(values)
        while words:
            register = self._at(address, len(words))
            if register.write is None:
                raise self._no_such_address()
            wide = size(register.kind)
            try:
                if isinstance(register, Buffer):
                    register.write(_values(register.kind, words))
                    return
                register.write(from_words(register.kind, words[:wide]))
            except DeviceError as error:
                raise self._failed(error.number) from error
            address += wide
            words = words[wide:]

    def _at(self, address: int, words_left: int) -> Register | Buffer:
        register = self._map.get(address)
        if register is None:
            before = self._map.get(address - 1)
            if before is not None and size(before.kind) == 2:
                raise self._failed(INVALID_COUNT)
            raise self._no_such_address()
        if words_left < size(register.kind) and not isinstance(register, Buffer):
            raise self._failed(COUNT_MUST_BE_EVEN)
        return register

    def _feedback(self, pdu: bytes) -> bytes:
        """Several reads and writes in one packet (function 76): type, address, count, data."""
        reply, at = bytes([FEEDBACK]), 1
        while at < len(pdu):
            if at + 4 > len(pdu):
                raise modbus_tcp.ModbusException(modbus_tcp.ILLEGAL_VALUE)
            kind, address, count = pdu[at], int.from_bytes(pdu[at + 1 : at + 3], "big"), pdu[at + 3]
            at += 4
            if kind == FEEDBACK_READ:
                reply += b"".join(word.to_bytes(2, "big") for word in self.read(address, count))
            elif kind == FEEDBACK_WRITE and at + 2 * count <= len(pdu):
                data = pdu[at : at + 2 * count]
                self.write(address, [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)])
                at += 2 * count
            else:
                raise modbus_tcp.ModbusException(modbus_tcp.ILLEGAL_VALUE)
        if len(reply) > LONGEST_REPLY_BYTES:
            raise self._failed(RESPONSE_TOO_LONG)
        return reply

    def _failed(self, number: int) -> modbus_tcp.ModbusException:
        self.last_error = number
        self.errors[number] = self.errors.get(number, 0) + 1
        return modbus_tcp.ModbusException(modbus_tcp.DEVICE_FAILURE)

    @staticmethod
    def _no_such_address() -> modbus_tcp.ModbusException:
        return modbus_tcp.ModbusException(modbus_tcp.ILLEGAL_ADDRESS)


def _values(kind: Kind, words: Words) -> list[float]:
    """Decode the words for a buffer register."""
    wide = size(kind)
    if len(words) % wide:
        raise DeviceError(COUNT_MUST_BE_EVEN)
    return [from_words(kind, words[i : i + wide]) for i in range(0, len(words), wide)]


def size(kind: Kind) -> int:
    """Return how many 16-bit words a value takes."""
    return 1 if kind == "U16" else 2


def to_words(kind: Kind, value: float) -> Words:
    """Encode a value, high word first."""
    if kind == "U16":
        return [int(value) & 0xFFFF]
    if kind == "F32":
        high, low = struct.unpack(">HH", struct.pack(">f", value))
        return [high, low]
    number = int(value) & 0xFFFF_FFFF
    return [number >> 16, number & 0xFFFF]


def from_words(kind: Kind, words: Sequence[int]) -> float:
    """Decode a value."""
    if kind == "U16":
        return words[0]
    data = struct.pack(">HH", *words)
    if kind == "F32":
        return float(struct.unpack(">f", data)[0])
    return int.from_bytes(data, "big", signed=kind == "I32")
