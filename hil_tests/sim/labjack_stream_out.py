"""One stream-out channel of a LabJack T7: values for a DAC or a digital port, one per scan.

* Data written to the buffer wait until STREAM_OUT#_SET_LOOP: 1 use them, 2 wait for synch, 3 synch: this one
  and all that wait start together (ljm_constants.json).
* Data being played are not interrupted: new data begin when "their loop is complete" (LabJack's example
  advanced_aperiodic_stream_out); the other reading, at once in mid-data, is ``interrupts``.
* BUFFER_STATUS is the free space in values: LabJack's examples and the EPICS LabJack module compare it with
  numbers of points, while the register list says "bytes left".
* Usable are the allocated bytes less one sample of two bytes; data beyond that are discarded (error 2613).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hil_tests.sim.labjack_dio import STATE_PORTS
from hil_tests.sim.labjack_registers import Buffer, DeviceError, Register, RegisterMap

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

OUT_FULL, OUT_TARGET, BUFFER_SIZE, OUT_NO_BUFFER = 2613, 2614, 2615, 2617
OUT_LOOP, OUT_MISMATCH, OUT_DISABLED = 2622, 2623, 2627
DAC_TARGETS = (1000, 1002)
LARGEST_OUT_BYTES = 16_384
BINARY_PER_VOLT = 13_200.0  # nominal calibration of a DAC


@dataclass
class _Set:
    """Data that wait to be played, or are."""

    values: Integers
    loop: int
    ready: bool


@dataclass
class StreamOut:
    """One stream-out channel: 16-bit values for a DAC (1 LSB = 1/13200 V) or a digital port."""

    interrupts: bool = False
    target: int = 0
    buffer_bytes: int = 0
    enabled: bool = False
    loop: int = 0
    _loading: list[int] = field(default_factory=list)
    _waiting: _Set | None = None
    _playing: _Set | None = None
    _position: int = 0
    _last: int | None = None

    @property
    def capacity(self) -> int:
        """Values that fit: one 16-bit sample less than the buffer."""
        return max(0, self.buffer_bytes // 2 - 1)

    @property
    def free(self) -> int:
        """Values that still fit."""
        used = len(self._loading) + (self._waiting.values.size if self._waiting else 0)
        if self._playing is not None:
            used += max(self._playing.values.size - self._position, self._playing.loop)
        return self.capacity - used

    def enable(self, value: float) -> None:
        """Write STREAM_OUT#_ENABLE; turning it off forgets every value."""
        if value:
            if self.target not in STATE_PORTS and self.target not in DAC_TARGETS:
                raise DeviceError(OUT_TARGET)
            if not self.buffer_bytes:
                raise DeviceError(OUT_NO_BUFFER)
        else:
            self.__init__(interrupts=self.interrupts, target=self.target)  # type: ignore[misc]  # as new
        self.enabled = bool(value)

    def allocate(self, value: float) -> None:
        """Write STREAM_OUT#_BUFFER_ALLOCATE_NUM_BYTES."""
        size = int(value)
        if size and (not 32 <= size <= LARGEST_OUT_BYTES or size & (size - 1)):
            raise DeviceError(BUFFER_SIZE)
        self.buffer_bytes = size

    def set_loop_size(self, value: float) -> None:
        """Write STREAM_OUT#_LOOP_NUM_VALUES."""
        self._check_enabled()
        if value > self.capacity:
            raise DeviceError(OUT_LOOP)
        self.loop = int(value)

    def load(self, values: Sequence[float], *, volts: bool) -> None:
        """Write data; what does not fit is discarded."""
        self._check_enabled()
        if volts != (self.target in DAC_TARGETS):
            raise DeviceError(OUT_MISMATCH)
        raw = [volts_to_binary(value) if volts else int(value) for value in values]
        room = self.free
        self._loading += raw[:room]
        if len(raw) > room:
            raise DeviceError(OUT_FULL)

    def stage(self, *, ready: bool) -> None:
        """Make the loaded data the next to be played, now or at a synch."""
        self._check_enabled()
        data = np.array(self._loading, dtype=np.int64)
        self._loading = []
        self._waiting = _Set(data, min(self.loop, data.size), ready)
        if ready and self.interrupts:
            self._switch()

    def synchronise(self) -> None:
        """Another channel has given the synch."""
        if self._waiting is not None:
            self._waiting.ready = True
            if self.interrupts:
                self._switch()

    def take(self, count: int) -> Integers | None:
        """Return the next ``count`` values; None while nothing has ever been played."""
        out = np.empty(count, dtype=np.int64)
        done = 0
        while done < count:
            playing = self._playing
            if playing is None or self._position >= playing.values.size:
                if self._waiting is not None and self._waiting.ready:
                    self._switch()
                    continue
                if playing is None or playing.loop == 0:
                    break
                if playing.loop == 1:  # the usual case: wait on one value
                    out[done:] = self._last = int(playing.values[-1])
                    return out
                self._position = playing.values.size - playing.loop
                continue
            step = min(count - done, playing.values.size - self._position)
            out[done : done + step] = playing.values[self._position : self._position + step]
            self._position += step
            done += step
            self._last = int(out[done - 1])
        if done < count:
            if self._last is None:
                return None
            out[done:] = self._last
        return out

    def _switch(self) -> None:
        self._playing, self._waiting, self._position = self._waiting, None, 0

    def _check_enabled(self) -> None:
        if not self.enabled:
            raise DeviceError(OUT_DISABLED)

    def add_registers(self, registers: RegisterMap, number: int, others: Sequence[StreamOut]) -> None:
        """Add the registers of this channel."""

        def target(value: float) -> None:
            if value not in STATE_PORTS and value not in DAC_TARGETS:
                raise DeviceError(OUT_TARGET)
            self.target = int(value)

        def set_loop(value: float) -> None:
            if value not in (1, 2, 3):
                raise DeviceError(OUT_LOOP)
            self.stage(ready=value != 2)
            if value == 3:
                for other in others:
                    other.synchronise()

        two = 2 * number
        registers.add(4040 + two, Register("U32", lambda: self.target, target))
        registers.add(4050 + two, Register("U32", lambda: self.buffer_bytes, self.allocate))
        registers.add(4060 + two, Register("U32", lambda: self.loop, self.set_loop_size))
        registers.add(4070 + two, Register("U32", None, set_loop))
        registers.add(4080 + two, Register("U32", lambda: max(0, self.free)))
        registers.add(4090 + two, Register("U32", lambda: self.enabled, self.enable))
        registers.add(4400 + two, Buffer("F32", None, lambda values: self.load(values, volts=True)))
        registers.add(4420 + number, Buffer("U16", None, lambda values: self.load(values, volts=False)))


def volts_to_binary(volts: float) -> int:
    """Return the 16-bit value of a DAC voltage with the nominal calibration."""
    return min(max(round(volts * BINARY_PER_VOLT), 0), 0xFFFF)


def binary_to_volts(binary: Integers) -> Floats:
    """Return the voltage that the 12-bit DAC makes of 16-bit values."""
    volts: Floats = (binary // 16 * 16) / BINARY_PER_VOLT
    return volts
