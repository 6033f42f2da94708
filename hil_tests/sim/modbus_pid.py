"""Twins of two temperature controllers that the project has no driver for, by their published registers.

``watlow_pm``: Watlow EZ-ZONE PM, Modbus map 1 (user's guide 0600-0059): every parameter takes two registers,
floats with the low word first, choices as numbers of a list, temperatures in degF unless set otherwise.
``delta_dtb``: Delta DTB (the maker's DTB manual, RS-485 section): tenths in 16 bits at 0x1000, written one by
one, error codes in place of the process value, switches as bits at 0x0810.

What the manuals leave open is decided here and said so: an unknown register answers exception 2, a value
outside its limits exception 3; half a float of the Watlow can be read; its set-point and the Delta's wear out
no memory that the twin counts; in mode off the output is 0 % and the loop begins anew afterwards.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hil_tests.sim.clock import BenchClock
from hil_tests.sim.eurotherm_3200 import EurothermTwin
from hil_tests.sim.eurotherm_loop import Loop
from hil_tests.sim.eurotherm_registers import ControllerMap
from hil_tests.sim.physics.holder import Holder
from hil_tests.sim.wire.modbus_rtu import ILLEGAL_ADDRESS, ILLEGAL_VALUE, READ_DISCRETE, ModbusError

WATLOW_OFF, WATLOW_AUTO, WATLOW_MANUAL = 62, 10, 54
WATLOW_NONE, WATLOW_OPEN, WATLOW_SHORTED, WATLOW_FAIL = 61, 65, 127, 32
WATLOW_SETPOINT_RAMP, WATLOW_MINUTES = 1647, 57
DELTA_NO_SENSOR, DELTA_INPUT_ERROR = 0x8003, 0x8004
DELTA_MOST_READ = 8
DELTA_WRITE_ENABLED, DELTA_RUN = 0x0810, 0x0814


class WatlowMap:
    """EZ-ZONE PM registers."""

    def __init__(self, loop: Loop, *, fahrenheit: bool = True) -> None:
        self.eeprom_writes = self.writes = 0
        self.power_failed = self.deaf = False
        self._loop = loop
        self._fahrenheit = fahrenheit
        self._mode = WATLOW_AUTO
        self._manual_percent = 0.0
        self._ramp_action = WATLOW_OFF
        self._ramp_rate = 0.0  # shown, per minute

    def read(self, register: int, count: int) -> list[int]:
        """Return words; each parameter is two of them, low word first."""
        words: list[int] = []
        start = register - register % 2
        while len(words) < count + register % 2:
            words += self._parameter(start + len(words))
        return words[register % 2 : register % 2 + count]

    def write(self, register: int, words: Sequence[int], *, single: bool) -> None:
        """Take choices by either function, floats whole by function 16 only."""
        if register in (2160, 2162, 2192):
            if len(words) != 2:
                raise ModbusError(ILLEGAL_VALUE)
            (value,) = struct.unpack(">f", struct.pack(">HH", words[1], words[0]))
            self._take_float(register, float(value))
        elif register in (1880, 2186, 2188) and words and not any(words[1:]):
            self._take_choice(register, words[0])
        else:
            raise ModbusError(ILLEGAL_ADDRESS)
        self.writes += 1

    def _parameter(self, register: int) -> list[int]:
        loop = self._loop
        floats: dict[int, Callable[[], float]] = {
            360: lambda: self._shown(loop.measured_c),
            1904: lambda: loop.output_percent,
            2160: lambda: self._shown(loop.settings.setpoint_1_c),
            2162: lambda: self._manual_percent,
            2192: lambda: self._ramp_rate,
        }
        choices: dict[int, Callable[[], int]] = {
            362: self._input_error,
            1880: lambda: self._mode,
            1882: lambda: self._mode,
            2186: lambda: self._ramp_action,
            2188: lambda: WATLOW_MINUTES,
        }
        if register in floats:
            high, low = struct.unpack(">HH", struct.pack(">f", floats[register]()))
            return [low, high]
        if register in choices:
            return [choices[register](), 0]
        raise ModbusError(ILLEGAL_ADDRESS)

    def _take_float(self, register: int, value: float) -> None:
        s = self._loop.settings
        if register == 2160:
            celsius = (value - 32.0) / 1.8 if self._fahrenheit else value
            if not s.setpoint_low_c - 1e-3 <= celsius <= s.setpoint_high_c + 1e-3:
                raise ModbusError(ILLEGAL_VALUE)
            if not self.deaf:
                s.setpoint_1_c = celsius
        elif register == 2162:
            if not -100.0 <= value <= 100.0:
                raise ModbusError(ILLEGAL_VALUE)
            if not self.deaf:
                self._manual_percent = value
        elif not self.deaf:
            self._ramp_rate = value
        self.apply()

    def _take_choice(self, register: int, choice: int) -> None:
        known = {
            1880: (WATLOW_OFF, WATLOW_AUTO, WATLOW_MANUAL),
            2186: (WATLOW_OFF, WATLOW_SETPOINT_RAMP),
            2188: (WATLOW_MINUTES,),
        }
        if choice not in known[register]:
            raise ModbusError(ILLEGAL_VALUE)
        if not self.deaf and register == 1880:
            self._mode = choice
        elif not self.deaf and register == 2186:
            self._ramp_action = choice
        self.apply()

    def by_hand(self, percent: float | None) -> None:
        """Be taken out of automatic at the front panel, or back; null is back."""
        self._mode = WATLOW_AUTO if percent is None else WATLOW_MANUAL
        self._manual_percent = percent or 0.0
        self.apply()

    def apply(self) -> None:
        """Let the loop follow mode, switches and ramp, also after it has restarted."""
        s = self._loop.settings
        s.manual = self._mode != WATLOW_AUTO
        s.manual_percent = max(self._manual_percent, 0.0) if self._mode == WATLOW_MANUAL else 0.0
        s.rate = 0.0
        if self._ramp_action == WATLOW_SETPOINT_RAMP:
            s.rate = self._ramp_rate / 1.8 if self._fahrenheit else self._ramp_rate

    def _shown(self, celsius: float) -> float:
        return celsius * 1.8 + 32.0 if self._fahrenheit else celsius

    def _input_error(self) -> int:
        states = {"open": WATLOW_OPEN, "short": WATLOW_SHORTED, "out of range": WATLOW_FAIL}
        return states.get(self._loop.sensor, WATLOW_NONE)


class DeltaMap:
    """DTB registers and bits."""

    def __init__(self, loop: Loop) -> None:
        self.eeprom_writes = self.writes = 0
        self.power_failed = self.deaf = False
        self._loop = loop
        self._bits = {DELTA_WRITE_ENABLED: True, 0x0811: True, 0x0812: True, 0x0813: False, DELTA_RUN: True}
        self._manual = False
        self._manual_percent = 0.0

    def read(self, register: int, count: int) -> list[int]:
        """Return words, eight at most."""
        if count > DELTA_MOST_READ:
            raise ModbusError(ILLEGAL_VALUE)
        return [self._word(register + offset) for offset in range(count)]

    def _word(self, register: int) -> int:
        loop, s = self._loop, self._loop.settings
        values: dict[int, Callable[[], int]] = {
            0x1000: self._process,
            0x1001: lambda: round(s.setpoint_1_c * 10.0),
            0x1002: lambda: round(s.setpoint_high_c * 10.0),
            0x1003: lambda: round(s.setpoint_low_c * 10.0),
            0x1004: lambda: 12,  # Pt100
            0x1005: lambda: 2 if self._manual else 0,
            0x1006: lambda: 0,  # heats
            0x1012: lambda: round(loop.output_percent * 10.0),
            0x102A: lambda: 0x08 | 0x40 * (loop.output_percent > 0.0),
            0x102F: lambda: 0x0160,  # V1.60
        }
        if register not in values:
            raise ModbusError(ILLEGAL_ADDRESS)
        return values[register]() & 0xFFFF

    def _process(self) -> int:
        if self._loop.broken:
            return DELTA_NO_SENSOR
        if self._loop.sensor == "out of range":
            return DELTA_INPUT_ERROR
        return round(self._loop.measured_c * 10.0)

    def write(self, register: int, words: Sequence[int], *, single: bool) -> None:
        """Take one word by function 6, if writing is enabled."""
        if not single or not self._bits[DELTA_WRITE_ENABLED]:
            raise ModbusError(ILLEGAL_ADDRESS)
        s, word = self._loop.settings, words[0]
        value = (word - 0x10000 if word & 0x8000 else word) / 10.0
        if register == 0x1001 and not s.setpoint_low_c <= value <= s.setpoint_high_c:
            raise ModbusError(ILLEGAL_VALUE)
        if register == 0x1005 and word not in (0, 2):
            raise ModbusError(ILLEGAL_VALUE)
        if register not in (0x1001, 0x1005, 0x1012):
            raise ModbusError(ILLEGAL_ADDRESS)
        self.writes += 1
        if self.deaf:
            return
        if register == 0x1001:
            s.setpoint_1_c = value
        elif register == 0x1005:
            self._manual, self._manual_percent = word == 2, self._loop.output_percent
        elif self._manual:
            self._manual_percent = value
        self.apply()

    def read_bits(self, function: int, address: int, count: int) -> list[bool]:
        """Return switches, with function 2 only."""
        if function != READ_DISCRETE or any(address + offset not in self._bits for offset in range(count)):
            raise ModbusError(ILLEGAL_ADDRESS)
        return [self._bits[address + offset] for offset in range(count)]

    def write_coil(self, address: int, *, on: bool) -> None:
        """Take a switch."""
        if address not in self._bits or not (
            self._bits[DELTA_WRITE_ENABLED] or address == DELTA_WRITE_ENABLED
        ):
            raise ModbusError(ILLEGAL_ADDRESS)
        self.writes += 1
        if not self.deaf:
            self._bits[address] = on
            self.apply()

    def by_hand(self, percent: float | None) -> None:
        """Be taken out of automatic at the front panel, or back; null is back."""
        self._manual, self._manual_percent = percent is not None, percent or 0.0
        self.apply()

    def apply(self) -> None:
        """Let the loop follow mode, switches and ramp, also after it has restarted."""
        s = self._loop.settings
        s.manual = self._manual or not self._bits[DELTA_RUN]
        s.manual_percent = self._manual_percent if self._manual and self._bits[DELTA_RUN] else 0.0


class ModbusPidTwin(EurothermTwin):
    """The loop, the faults and the wire of ``EurothermTwin``, behind other registers.

    Args:
        holder, clock, unit_id, relay_closed: as there.
        settings: as there, and ``face``: watlow_pm (with ``fahrenheit`` true) or delta_dtb.
    """

    def __init__(
        self,
        holder: Holder,
        clock: BenchClock,
        unit_id: int = 1,
        relay_closed: Callable[[], bool] = lambda: True,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        given = dict(settings or {})
        self._face = str(given.pop("face", "watlow_pm"))
        self._fahrenheit = bool(given.pop("fahrenheit", True))
        if self._face not in ("watlow_pm", "delta_dtb"):
            raise ValueError(f"no such controller: {self._face!r}")
        super().__init__(holder, clock, unit_id, relay_closed, given)

    def _map(self, decimals: int) -> ControllerMap:
        """Return the registers of the chosen controller."""
        self.face: WatlowMap | DeltaMap
        if self._face == "delta_dtb":
            self.face = DeltaMap(self.loop)
        else:
            self.face = WatlowMap(self.loop, fahrenheit=self._fahrenheit)
        return self.face

    def _reset(self, boot_s: float, *, cleared: bool) -> None:
        """Mode, switches and set-point survive a power failure, as in the real ones."""
        super()._reset(boot_s, cleared=cleared)
        self.face.apply()
