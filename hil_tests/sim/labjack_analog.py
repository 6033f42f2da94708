"""Analogue inputs, DACs and the calibration in the flash memory of a LabJack T7.

Command-response readings are volts; stream data are 16-bit binary, for which the host needs the constants at
0x3C4000 of the internal flash: slope above and below the centre (V per LSB), centre, offset for each gain of
the high-speed and the high-resolution converter, then DACs, temperature sensor and current sources. Layout
and formula as in LabJack's t7_calibration example and in async_labjack.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from hil_tests.sim.labjack_registers import (
    COUNT_MUST_BE_EVEN,
    Buffer,
    DeviceError,
    Kind,
    Register,
    RegisterMap,
    Words,
)
from hil_tests.sim.labjack_stream_out import binary_to_volts, volts_to_binary
from hil_tests.sim.labjack_t7_stream import ACTIVE

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

AIN_CHANNELS = 14
BAD_RANGE = 2370
RANGES_V = (10.0, 1.0, 0.1, 0.01)
OVER_RANGE, UNDER_RANGE = 1.011, 1.058  # how far beyond the range the converter reaches
CALIBRATION_ADDRESS = 0x3C4000
DEVICE_K = 305.2
SETTINGS: dict[str, tuple[Kind, int, int, float]] = {  # first address, step, default
    "range": ("F32", 40000, 2, 10.0),
    "negative": ("U16", 41000, 1, 199.0),
    "resolution": ("U16", 41500, 1, 0.0),
    "settling": ("F32", 42000, 2, 0.0),
}
ALL_CHANNELS = {43900: "range", 43902: "negative", 43903: "resolution", 43904: "settling"}


class Analogue:
    """Inputs and outputs.

    Args:
        volts: returns the voltage at an input, ``count`` readings.
        streaming: whether a stream runs: it has the converter to itself.
    """

    def __init__(self, volts: Callable[[int, int], Floats], streaming: Callable[[], bool]) -> None:
        self.dac_v = [0.0, 0.0]
        self._volts = volts
        self._streaming = streaming
        self._flash_pointer = 0
        self._settings: dict[tuple[str, int], float] = {}
        self.power_up()

    def power_up(self) -> None:
        """Reach the state after power-up."""
        self.dac_v[:] = [0.0, 0.0]
        for name, (_, _, _, default) in SETTINGS.items():
            for channel in range(AIN_CHANNELS):
                self._settings[name, channel] = default

    def add_registers(self, registers: RegisterMap) -> None:
        """Add all registers of inputs, outputs and flash."""
        for channel in range(AIN_CHANNELS):
            registers.add(2 * channel, Register("F32", partial(self._read, channel)))
            for name, (kind, first, step, _) in SETTINGS.items():
                registers.add(
                    first + step * channel,
                    Register(
                        kind,
                        partial(self._settings.__getitem__, (name, channel)),
                        partial(self._set, name, [channel]),
                    ),
                )
        for address, name in ALL_CHANNELS.items():
            kind = SETTINGS[name][0]
            every = list(range(AIN_CHANNELS))
            registers.add(
                address, Register(kind, partial(self._common, name), partial(self._set, name, every))
            )
        for number in (0, 1):
            registers.add(
                1000 + 2 * number,
                Register("F32", partial(self.dac_v.__getitem__, number), partial(self.set_dac, number)),
            )
        registers.add(60052, Register("F32", self._device_k))
        registers.add(61810, Register("U32", lambda: self._flash_pointer, self._set_flash_pointer))
        registers.add(61812, Buffer("U32", self._read_flash))

    def set_dac(self, number: int, volts: float) -> None:
        """Set a DAC to the nearest voltage that it can make."""
        self.dac_v[number] = float(binary_to_volts(np.array([volts_to_binary(volts)]))[0])

    def binary(self, channel: int, count: int) -> Integers:
        """Return stream data of an input."""
        gain = RANGES_V.index(self._settings["range", channel])
        above, below, centre, _ = calibration(gain)
        volts = self._clipped(channel, count)
        raw = np.where(volts >= 0.0, centre + volts / above, centre - volts / below)
        return np.clip(np.rint(raw), 0, 0xFFFF).astype(np.int64)

    def _clipped(self, channel: int, count: int) -> Floats:
        full = self._settings["range", channel]
        clipped: Floats = np.clip(self._volts(channel, count), -UNDER_RANGE * full, OVER_RANGE * full)
        return clipped

    def _read(self, channel: int) -> float:
        self._check_free()
        return float(self._clipped(channel, 1)[0])

    def _device_k(self) -> float:
        self._check_free()
        return DEVICE_K

    def _check_free(self) -> None:
        if self._streaming():
            raise DeviceError(ACTIVE)

    def _set(self, name: str, channels: list[int], value: float) -> None:
        for channel in channels:
            self._settings[name, channel] = _checked_range(value) if name == "range" else value

    def _common(self, name: str) -> float:
        values = {self._settings[name, channel] for channel in range(AIN_CHANNELS)}
        mixed = -9999.0 if SETTINGS[name][0] == "F32" else 0xFFFF
        return values.pop() if len(values) == 1 else mixed

    def _set_flash_pointer(self, value: float) -> None:
        self._flash_pointer = int(value)

    def _read_flash(self, words: int) -> Words:
        if words % 2:
            raise DeviceError(COUNT_MUST_BE_EVEN)
        values: list[Any] = [number for gain in (0, 1, 2, 3) * 2 for number in calibration(gain)]
        values += [13_200.0, 0.0, 13_200.0, 0.0, -92.6, 467.6, 1e-5, 2e-4, 1.5e-8]
        content = b"".join(struct.pack(">f", value) for value in values)
        start = self._flash_pointer - CALIBRATION_ADDRESS
        data = content[start : start + 2 * words] if 0 <= start < len(content) else b""
        data = data.ljust(2 * words, b"\xff")
        return [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]


def calibration(gain: int) -> tuple[float, float, float, float]:
    """Return slope above and below the centre (V per LSB), centre and offset (V) of a range of this unit.

    Near the nominal constants in LabJack's Kipling (315.80578 uV, 33523, -10.586956522 V), but not equal.
    """
    scale = 10.0**-gain
    return 0.00031593 * scale, -0.00031590 * scale, 33_519.4, -10.589 * scale


def _checked_range(value: float) -> float:
    if value == 0.0:
        return RANGES_V[0]
    for known in RANGES_V:
        if abs(value - known) <= 1e-3 * known:
            return known
    raise DeviceError(BAD_RANGE)
