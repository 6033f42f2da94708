"""The digital lines of a LabJack T7: latch, direction, and what is wired to them.

FIO0..7 are bits 0..7, EIO0..7 bits 8..15, CIO0..3 bits 16..19, MIO0..2 bits 20..22. A line is an input after
power-up. Reading or writing one line by its own register (FIO3, say) also sets its direction; the registers
for whole ports do not (ljm_constants.json). What pulls an undriven line is the wiring's affair: lines that
the bench uses are pulled to their safe side, the others high, as the device's own 100 kOhm do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hil_tests.sim.labjack_registers import Register, RegisterMap

LINES = 23
ALL = (1 << LINES) - 1


@dataclass(frozen=True)
class Port:
    """Lines that one register holds: first line, how many, and whether the upper 8 bits are inhibits."""

    first: int
    count: int
    inhibits: bool

    @property
    def mask(self) -> int:
        """The bits of the lines."""
        return ((1 << self.count) - 1) << self.first

    def affected(self, value: int) -> int:
        """Return which lines a value written to this port changes."""
        if not self.inhibits:
            return self.mask
        return (~(value >> 8) & ((1 << self.count) - 1)) << self.first


STATE_PORTS = {
    2500: Port(0, 8, inhibits=True),  # FIO_STATE
    2501: Port(8, 8, inhibits=True),  # EIO_STATE
    2502: Port(16, 4, inhibits=True),  # CIO_STATE
    2503: Port(20, 3, inhibits=True),  # MIO_STATE
    2580: Port(0, 16, inhibits=False),  # FIO_EIO_STATE
    2581: Port(8, 12, inhibits=False),  # EIO_CIO_STATE
    2582: Port(16, 7, inhibits=False),  # CIO_MIO_STATE
}
DIRECTION_OFFSET = 100  # FIO_DIRECTION is 2600, FIO_EIO_DIRECTION 2680, ...
DIO_STATE, DIO_DIRECTION, DIO_ANALOG_ENABLE, DIO_INHIBIT = 2800, 2850, 2880, 2900


class DigitalLines:
    """The lines.

    Args:
        pulled: level of an undriven line, by number; others are pulled high.
        inputs: what drives a line from outside while it is an input.
        changed: called after the latch or a direction may have changed.
    """

    def __init__(
        self,
        pulled: Mapping[int, bool],
        inputs: Mapping[int, Callable[[], bool]],
        changed: Callable[[], None],
    ) -> None:
        self.latch = 0
        self.direction = 0
        self.inhibit = 0
        self._pull_up = ALL
        for line, high in pulled.items():
            self._pull_up = self._pull_up | 1 << line if high else self._pull_up & ~(1 << line)
        self._inputs = dict(inputs)
        self._changed = changed

    def power_up(self) -> None:
        """Reach the state after power-up: every line an input."""
        self.latch = self.direction = self.inhibit = 0
        self._changed()

    def levels(self) -> int:
        """Return the levels on the terminals."""
        return (self.latch & self.direction) | self._undriven()

    def levels_of(self, latches: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the levels that each of these latches makes."""
        return (latches & self.direction) | self._undriven()

    def high(self, line: int) -> bool:
        """Return the level of one line."""
        return bool(self.levels() >> line & 1)

    def write_state(self, value: int, affected: int) -> None:
        """Write the latch of the affected lines."""
        self.latch = (self.latch & ~affected | value & affected) & ALL
        self._changed()

    def write_direction(self, value: int, affected: int) -> None:
        """Write the direction of the affected lines."""
        self.direction = (self.direction & ~affected | value & affected) & ALL
        self._changed()

    def write(self, state: int, direction: int, affected: int) -> None:
        """Write latch and direction of the affected lines at once."""
        self.latch = (self.latch & ~affected | state & affected) & ALL
        self.write_direction(direction, affected)

    def after(self, port: Port, values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the latch after each of ``values`` would have been written to a port, one by one."""
        if not values.size:
            return values
        if not port.inhibits or not ((values ^ values[0]) >> 8).any():  # the usual case: the same lines
            mask = port.affected(int(values[0]))
            return ((self.latch & ~mask) | (values << port.first & mask)) & ALL
        latches = np.empty_like(values)
        latch = self.latch
        for i, value in enumerate(values):
            mask = port.affected(int(value))
            latch = latch & ~mask | (int(value) << port.first) & mask
            latches[i] = latch
        return latches & ALL

    def streamed(self, outputs: Mapping[int, npt.NDArray[np.int64]], count: int) -> npt.NDArray[np.int64]:
        """Return the latch before ``count`` scans and after each, for values by port register."""
        latch = np.full(count + 1, self.latch, dtype=np.int64)
        for target, values in outputs.items():
            if port := STATE_PORTS.get(target):
                latch[1:] = latch[1:] & ~port.mask | self.after(port, values) & port.mask
        return latch

    def add_registers(self, registers: RegisterMap) -> None:
        """Add all registers of the digital lines."""
        for line in range(LINES):
            registers.add(2000 + line, self._one_line(line))
        for address, port in STATE_PORTS.items():
            registers.add(address, self._state_port(port))
            registers.add(address + DIRECTION_OFFSET, self._direction_port(port))
        registers.add(
            DIO_STATE,
            Register("U32", self.levels, lambda value: self.write_state(int(value), ALL & ~self.inhibit)),
        )
        registers.add(
            DIO_DIRECTION,
            Register(
                "U32",
                lambda: self.direction,
                lambda value: self.write_direction(int(value), ALL & ~self.inhibit),
            ),
        )
        registers.add(DIO_ANALOG_ENABLE, Register("U32", lambda: 0, lambda _value: None))
        registers.add(DIO_INHIBIT, Register("U32", lambda: self.inhibit, self._set_inhibit))

    def _undriven(self) -> int:
        """Levels of the inputs, zero for outputs."""
        outside = self._pull_up
        for line, source in self._inputs.items():
            outside = outside | 1 << line if source() else outside & ~(1 << line)
        return outside & ~self.direction & ALL

    def _one_line(self, line: int) -> Register:
        bit = 1 << line

        def read() -> float:
            self.write_direction(0, bit)
            return self.levels() >> line & 1

        def write(value: float) -> None:
            self.latch = self.latch & ~bit | (bit if value else 0)
            self.write_direction(bit, bit)

        return Register("U16", read, write)

    def _state_port(self, port: Port) -> Register:
        return Register(
            "U16",
            lambda: (self.levels() & port.mask) >> port.first,
            lambda value: self.write_state(int(value) << port.first, port.affected(int(value))),
        )

    def _direction_port(self, port: Port) -> Register:
        return Register(
            "U16",
            lambda: (self.direction & port.mask) >> port.first,
            lambda value: self.write_direction(int(value) << port.first, port.affected(int(value))),
        )

    def _set_inhibit(self, value: float) -> None:
        self.inhibit = int(value) & ALL
