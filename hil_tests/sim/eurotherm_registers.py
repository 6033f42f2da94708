"""Registers of the temperature controller: the 16-bit and the IEEE view of the same values.

16-bit view: signed, scaled by the configured decimals (per cent always with one). IEEE view: address
0x8000 + 2 x register, two words, big-endian float with the high word first; integers stand in the first word,
the second is filler 0x8000; times are int32 milliseconds.

What the manual leaves open is decided here and said so: an unknown register or the second half of a float
answers exception 2, a write to a read-only register exception 2, a value outside its limits exception 3,
function 6 in the IEEE region exception 3.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from hil_tests.sim.eurotherm_loop import Loop, LoopSettings
from hil_tests.sim.wire.modbus_rtu import ILLEGAL_ADDRESS, ILLEGAL_VALUE, ModbusError

IEEE_REGION = 0x8000
IEEE_FILLER = 0x8000
Kind = Literal["temperature", "percent", "integer", "seconds"]


class ControllerMap(Protocol):
    """Registers of a temperature controller, with what its twin counts and breaks."""

    eeprom_writes: int
    writes: int
    power_failed: bool
    deaf: bool

    def read(self, register: int, count: int) -> Sequence[int]:
        """Return words. Raises ModbusError."""
        ...

    def write(self, register: int, words: Sequence[int], *, single: bool) -> None:
        """Take words. Raises ModbusError."""
        ...

    def by_hand(self, percent: float | None) -> None:
        """Be taken out of automatic at the front panel with an output in per cent; None: back."""
        ...


@dataclass(frozen=True)
class Parameter:
    """One register: how it is read, how it is written, what it looks like on the wire."""

    read: Callable[[], float]
    write: Callable[[float], None] | None = None
    kind: Kind = "temperature"
    eeprom: bool = False  # every write wears the non-volatile memory


class RegisterMap:
    """The parameters of a loop behind Modbus words.

    Args:
        loop: the controller.
        decimals: digits behind the point in the 16-bit view of temperatures.
    """

    def __init__(self, loop: Loop, decimals: int) -> None:
        self.eeprom_writes = 0
        self.writes = 0
        self.power_failed = False  # bit 7 of register 87, until alarms are acknowledged
        self.deaf = False  # by fault: writes are acknowledged and not taken
        self._loop = loop
        self._scale = 10.0**decimals
        self._parameters = self._table(loop, loop.settings)

    def read(self, register: int, count: int) -> list[int]:
        """Return words of either view."""
        words: list[int] = []
        while len(words) < count:
            address = register + len(words)
            words += self._words(address)
        if len(words) != count:
            raise ModbusError(ILLEGAL_ADDRESS)
        return words

    def write(self, register: int, words: Sequence[int], *, single: bool) -> None:
        """Take words into either view; all must be known and writable before the first is stored."""
        ieee = register >= IEEE_REGION
        if ieee and (single or len(words) % 2 or register % 2):
            raise ModbusError(ILLEGAL_VALUE)
        width = 2 if ieee else 1
        todo: list[tuple[Callable[[float], None], float, bool]] = []
        for offset in range(0, len(words), width):
            number = (register - IEEE_REGION + offset) // 2 if ieee else register + offset
            parameter = self._parameter(number)
            if parameter.write is None:
                raise ModbusError(ILLEGAL_ADDRESS)
            value = self._from_words(parameter.kind, words[offset : offset + width])
            if not math.isfinite(value):
                raise ModbusError(ILLEGAL_VALUE)
            todo.append((parameter.write, value, parameter.eeprom))
        if self.deaf:
            return
        for write, value, eeprom in todo:
            write(value)
            self.writes += 1
            self.eeprom_writes += eeprom

    def _parameter(self, number: int) -> Parameter:
        parameter = self._parameters.get(number)
        if parameter is None:
            raise ModbusError(ILLEGAL_ADDRESS)
        return parameter

    def _words(self, address: int) -> list[int]:
        if address < IEEE_REGION:
            parameter = self._parameter(address)
            return [self._to_int16(parameter.kind, parameter.read())]
        if address % 2:
            raise ModbusError(ILLEGAL_ADDRESS)
        parameter = self._parameter((address - IEEE_REGION) // 2)
        value = parameter.read()
        if parameter.kind == "integer":
            return [int(value) & 0xFFFF, IEEE_FILLER]
        if parameter.kind == "seconds":
            return list(struct.unpack(">HH", struct.pack(">i", round(value * 1000.0))))
        return list(struct.unpack(">HH", struct.pack(">f", value)))

    def _to_int16(self, kind: Kind, value: float) -> int:
        scaled = round(value * self._factor(kind))
        if kind == "integer":
            return scaled & 0xFFFF
        return min(max(scaled, -0x8000), 0x7FFF) & 0xFFFF

    def _from_words(self, kind: Kind, words: Sequence[int]) -> float:
        if len(words) == 1:
            return int(struct.unpack(">h", struct.pack(">H", words[0]))[0]) / self._factor(kind)
        packed = struct.pack(">HH", *words)
        if kind == "integer":
            return float(words[0])
        if kind == "seconds":
            return int(struct.unpack(">i", packed)[0]) / 1000.0
        return float(struct.unpack(">f", packed)[0])

    def _factor(self, kind: Kind) -> float:
        return {"temperature": self._scale, "percent": 10.0, "integer": 1.0, "seconds": 1.0}[kind]

    def _table(self, loop: Loop, s: LoopSettings) -> dict[int, Parameter]:
        def setting(name: str, kind: Kind = "temperature", low: float = 0.0, high: float = 1e6) -> Parameter:
            def write(value: float) -> None:
                if not low <= value <= high:
                    raise ModbusError(ILLEGAL_VALUE)
                setattr(s, name, value)

            return Parameter(lambda: float(getattr(s, name)), write, kind)

        def switch(name: str) -> Parameter:
            def write(value: float) -> None:
                if value not in (0.0, 1.0):
                    raise ModbusError(ILLEGAL_VALUE)
                setattr(s, name, bool(value))

            return Parameter(lambda: float(getattr(s, name)), write, "integer")

        def constant(read: Callable[[], float], kind: Kind = "temperature") -> Parameter:
            return Parameter(read, None, kind)

        return {
            1: constant(lambda: loop.measured_c),
            2: Parameter(lambda: loop.target_c, self._write_local, eeprom=True),
            3: setting("manual_percent", "percent", 0.0, 100.0),
            4: constant(lambda: loop.output_percent, "percent"),
            5: constant(lambda: loop.working_setpoint_c),
            6: setting("proportional_band_c", low=0.1),
            7: constant(lambda: 0.0, "integer"),  # reverse: heats
            8: setting("integral_s", "seconds"),
            9: setting("derivative_s", "seconds"),
            11: constant(lambda: s.range_low_c),
            12: constant(lambda: s.range_high_c),
            15: switch("use_setpoint_2"),
            24: Parameter(lambda: s.setpoint_1_c, self._write_setpoint_1, eeprom=True),
            25: Parameter(lambda: s.setpoint_2_c, self._write_setpoint_2, eeprom=True),
            26: Parameter(lambda: s.remote_c, self._write_remote),
            30: setting("output_high_percent", "percent", 0.0, 100.0),
            35: setting("rate"),
            39: constant(lambda: loop.measured_c - loop.working_setpoint_c),
            75: constant(lambda: loop.status_word, "integer"),
            76: constant(lambda: ~loop.status_word & 0xFFFF, "integer"),
            83: setting("loop_break_s", "seconds"),
            87: constant(lambda: 0x80 if self.power_failed else 0, "integer"),
            111: setting("setpoint_high_c", low=s.range_low_c, high=s.range_high_c),
            112: setting("setpoint_low_c", low=s.range_low_c, high=s.range_high_c),
            258: constant(lambda: loop.broken, "integer"),
            273: Parameter(lambda: float(s.manual), self._write_manual, "integer"),
            274: Parameter(lambda: 0.0, self._acknowledge, "integer"),
            276: switch("remote"),
            531: setting("rate_unit", "integer", 0.0, 2.0),
        }

    def _checked(self, value: float) -> float:
        s = self._loop.settings
        if not s.setpoint_low_c <= value <= s.setpoint_high_c:
            raise ModbusError(ILLEGAL_VALUE)
        return value

    def _write_local(self, value: float) -> None:
        if self._loop.settings.use_setpoint_2:
            self._write_setpoint_2(value)
        else:
            self._write_setpoint_1(value)

    def _write_setpoint_1(self, value: float) -> None:
        self._loop.settings.setpoint_1_c = self._checked(value)

    def _write_setpoint_2(self, value: float) -> None:
        self._loop.settings.setpoint_2_c = self._checked(value)

    def _write_remote(self, value: float) -> None:
        self._loop.settings.remote_c = self._checked(value)
        self._loop.remote_age_s = 0.0

    def _write_manual(self, value: float) -> None:
        """Manual mode takes over the present output: no bump."""
        if value not in (0.0, 1.0):
            raise ModbusError(ILLEGAL_VALUE)
        s = self._loop.settings
        if value and not s.manual:
            s.manual_percent = self._loop.output_percent
        s.manual = bool(value)

    def by_hand(self, percent: float | None) -> None:
        """Be taken into manual mode at the front panel with this output; None: back to automatic."""
        s = self._loop.settings
        s.manual, s.manual_percent = percent is not None, percent or 0.0

    def _acknowledge(self, value: float) -> None:
        if value == 1.0:
            self._loop.acknowledge()
            self.power_failed = False
