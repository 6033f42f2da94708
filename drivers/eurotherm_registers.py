"""Registers of the Eurotherm 3200 series, and how they are read and written: with read-back, repeated once.

Source: HA028651 unless said otherwise. A register number is the protocol address. Every value exists twice:
as a 16-bit number with the decimals that the instrument displays, and as an IEEE float of two words at
0x8000 + 2 x register, which can only be written whole. Repeating is harmless for everything here: reads, and
writes that set a value.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from drivers.errors import BadReply, NoReply
from drivers.line import Interrupted
from drivers.modbus import ModbusRtu

T = TypeVar("T")

PROCESS_VALUE = 1  # degC; then 2 target set-point, 3 manual output, 4 working output %, 5 working set-point
MANUAL_OUTPUT = 3  # %
RANGE_LOW = 11  # degC; then 12, range high
LOCAL_SETPOINT = 24  # degC, EEPROM: read only here
REMOTE_SETPOINT = 26  # degC, volatile
SETPOINT_RATE = 35  # degC per unit of register 531; 0 = no ramp
STATUS = 75  # bits below; then 76, its inverse
FIRMWARE = 107  # 0x0111 = V1.11; ACS 3216 operator's manual p. 25 (the same instrument under another name)
SETPOINT_HIGH = 111  # degC; then 112, set-point low
MANUAL_MODE = 273  # 1 manual, 0 automatic
SETPOINT_SOURCE = 276  # 1 remote, 0 local
RATE_UNIT = 531
RATE_UNIT_MIN = {0: 1.0, 1: 60.0, 2: 1.0 / 60.0}  # register 531 -> minutes

MANUAL_BIT, SENSOR_BREAK_BIT, OUT_OF_RANGE_BIT = 4, 5, 10
STATUS_WORDS = {  # register 75; 12 (new alarm) and 13 (timer or ramp running) are normal
    0: "alarm 1",
    1: "alarm 2",
    2: "alarm 3",
    3: "alarm 4",
    MANUAL_BIT: "manual mode: the set-point has no effect",
    SENSOR_BREAK_BIT: "sensor break",
    6: "loop break: full output does not move the temperature",
    7: "heater current too low",
    8: "heater leakage current",
    9: "program ended",
    OUT_OF_RANGE_BIT: "temperature out of range by more than 5 % of the span",
    11: "heater overcurrent",
    14: "remote set-point failed",
    15: "autotune running",
}
SAME_C = 0.05  # a value read back may be rounded to one decimal


class Registers:
    """The registers of one unit. Every method raises NoReply, BadReply or Refused."""

    def __init__(self, unit: ModbusRtu, name: str) -> None:
        self._unit = unit
        self._name = name

    async def words(self, register: int, count: int = 1, *, urgent: bool = False) -> list[int]:
        """Read 16-bit registers."""
        return await _twice(lambda: self._unit.read_holding(register, count, urgent=urgent))

    async def floats(self, register: int, count: int = 1, *, urgent: bool = False) -> list[float]:
        """Read IEEE registers."""
        return await _twice(lambda: self._unit.read_f32(ieee(register), count, urgent=urgent))

    async def write_float(
        self, register: int, value: float, *, same: float = SAME_C, urgent: bool = False
    ) -> None:
        """Write an IEEE register and read it back; it may differ by ``same``."""
        await _twice(lambda: self._unit.write_f32(ieee(register), value, urgent=urgent))
        (got,) = await self.floats(register, urgent=urgent)
        if not abs(got - value) <= same:
            raise BadReply(f"register {register} was set to {value:g} and reads {got:g}", device=self._name)

    async def write_word(self, register: int, value: int, *, urgent: bool = False) -> None:
        """Write a 16-bit register and read it back."""
        await _twice(lambda: self._unit.write_register(register, value, urgent=urgent))
        (got,) = await self.words(register, urgent=urgent)
        if got != value:
            raise BadReply(f"register {register} was set to {value} and reads {got}", device=self._name)


def ieee(register: int) -> int:
    """Return the address of a register's float."""
    return 0x8000 + 2 * register


def signed(word: int) -> int:
    """Return a 16-bit register as a signed number."""
    return word - 0x10000 if word & 0x8000 else word


def status_words(status: int) -> list[str]:
    """Return plain words for every bit that is not normal."""
    return [word for bit, word in STATUS_WORDS.items() if status & 1 << bit]


def decimals_shown(floats: list[float], words: list[int]) -> int | None:
    """Return with how many decimals ``words`` show ``floats``; None if they do not.

    The first value may have moved by one unit between the two reads. The 16-bit view ends at +-32767 counts.
    """
    for decimals in (0, 1, 2):
        scale = 10.0**decimals
        shown = [max(min(value * scale, 32767.0), -32768.0) for value in floats]
        slack = [scale] + [0.0] * (len(floats) - 1)
        if all(
            abs(one - signed(word)) <= 0.51 + more
            for one, word, more in zip(shown, words, slack, strict=True)
        ):
            return decimals
    return None


async def _twice(exchange: Callable[[], Awaitable[T]]) -> T:
    """Do an exchange; once more if the reply is missing or damaged, but not if it was interrupted."""
    try:
        return await exchange()
    except Interrupted:
        raise
    except (NoReply, BadReply):
        return await exchange()
