"""The buffers of one raster line, computed: what the two DACs and the digital port do, sample by sample.

One stream scan is half a dwell. A line is ``lead`` blanked scans at its first pixel (settling), two scans
for each pixel, the first of which raises the pixel clock, then one parking pulse with the beam blanked and
one more blanked scan, the last value of the buffer, which repeats for ever after (loop of one value). A line
thus makes nx + 1 pulses, and a host that comes late or never leaves the beam blanked.

The digital values go to FIO_STATE: the high byte inhibits every line but the pixel clock and the blank, so a
stream can neither close the relay nor open the shutter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from drivers import labjack_registers as t7
from drivers.errors import OutOfRange
from drivers.labjack_settings import Scanner
from drivers.roles import Raster

SCANS_PER_PIXEL = 2
PARKING_SCANS = 2
SCAN_LIST_ENTRIES = 5  # beam current, digital port read, x, y, digital port written


@dataclass(frozen=True)
class LineBuffers:
    """Values of one line for the three stream-outs; each repeats its last value when it has ended."""

    x_v: tuple[float, ...]
    y_v: tuple[float, ...]
    bits: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """A raster translated for one scanner: nothing in it can be out of range any more."""

    raster: Raster
    scanner: Scanner
    lead: int  # blanked scans before the first pixel
    buffer_bytes: int

    @property
    def scan_rate_hz(self) -> float:
        """Scans per second."""
        return SCANS_PER_PIXEL / self.raster.dwell_s

    @property
    def line_scans(self) -> int:
        """Scans from the start of a line to its parked sample, that one included."""
        return self.lead + SCANS_PER_PIXEL * self.raster.nx + PARKING_SCANS

    def buffers(self, line: int) -> LineBuffers:
        """Return the buffers of line ``line`` (0 is the one with the lowest y in micrometres)."""
        scanner, raster = self.scanner, self.raster
        clock, blank = 1 << scanner.pixel_clock, 1 << scanner.blank
        keep = (~(clock | blank) & 0xFF) << 8
        x_v = [x_volts(raster, scanner, column) for column in range(raster.nx)]
        bits = [blank] * self.lead + [clock, 0] * raster.nx + [clock | blank, blank]
        return LineBuffers(
            x_v=(x_v[0],) * self.lead
            + tuple(value for value in x_v for _ in range(SCANS_PER_PIXEL))
            + (x_v[-1],) * PARKING_SCANS,
            y_v=(y_volts(raster, scanner, line),),
            bits=tuple(keep | value for value in bits),
        )

    def parked(self, line: int) -> LineBuffers:
        """Return one blanked sample at the first pixel of a line, to begin with."""
        first = self.buffers(line)
        return LineBuffers(first.x_v[:1], first.y_v, first.bits[-1:])


def plan(raster: Raster, scanner: Scanner, *, name: str = "") -> Plan:
    """Check a raster against the scanner and its limits.

    Raises:
        OutOfRange: no pixels, a dwell beyond the limit or too short to be streamed, a line too long for the
            buffer, or a point that needs a voltage outside 0 to 5 V.
    """
    if raster.nx < 1 or raster.ny < 1:
        raise OutOfRange(f"a raster of {raster.nx} x {raster.ny} pixels", device=name)
    if not 0 < raster.dwell_s <= scanner.dwell_limit_s:
        limit = f"more than 0 and at most {scanner.dwell_limit_s:g} s"
        raise OutOfRange(f"dwell {raster.dwell_s:g} s, allowed is {limit}", device=name)
    samples_hz = SCAN_LIST_ENTRIES * SCANS_PER_PIXEL / raster.dwell_s
    if samples_hz > t7.STREAM_HIGHEST_SAMPLES_HZ:
        highest = t7.STREAM_HIGHEST_SAMPLES_HZ
        raise OutOfRange(
            f"dwell {raster.dwell_s:g} s needs {samples_hz:g} of {highest:g} samples/s", device=name
        )
    lead = max(1, math.ceil(scanner.settle_s * SCANS_PER_PIXEL / raster.dwell_s - 1e-9))
    scans = lead + SCANS_PER_PIXEL * raster.nx + PARKING_SCANS
    checked = Plan(raster, scanner, lead, _buffer_bytes(scans, name))
    columns, lines = {0, raster.nx - 1}, {0, raster.ny - 1}  # between the ends the voltage is in between
    for axis, voltages in (
        ("x", [x_volts(raster, scanner, column) for column in columns]),
        ("y", [y_volts(raster, scanner, line) for line in lines]),
    ):
        for voltage in voltages:
            if not t7.DAC_LOW_V <= voltage <= t7.DAC_HIGH_V:
                raise OutOfRange(f"{axis} needs {voltage:.3f} V, the output has 0 to 5 V", device=name)
    return checked


def x_volts(raster: Raster, scanner: Scanner, column: int) -> float:
    """Return the x output for the centre of a column, V."""
    x_um = raster.centre_x_um + ((column + 0.5) / raster.nx - 0.5) * raster.width_um
    return scanner.centre_v + x_um / scanner.scale_x_um_per_v


def y_volts(raster: Raster, scanner: Scanner, line: int) -> float:
    """Return the y output for the centre of a line, V."""
    y_um = raster.centre_y_um + ((line + 0.5) / raster.ny - 0.5) * raster.height_um
    return scanner.centre_v + y_um / scanner.scale_y_um_per_v


def _buffer_bytes(scans: int, name: str) -> int:
    """Return the size for two lines and a parked sample: the next line is written while one plays."""
    needed = (2 * scans + 1) * t7.BYTES_PER_VALUE + t7.STREAM_OUT_RESERVED_BYTES
    size = max(t7.STREAM_OUT_LEAST_BYTES, 1 << (needed - 1).bit_length())
    if size > t7.STREAM_OUT_MOST_BYTES:
        raise OutOfRange(
            f"a line of {scans} scans needs a buffer of {needed} bytes, "
            f"the largest has {t7.STREAM_OUT_MOST_BYTES}",
            device=name,
        )
    return size
