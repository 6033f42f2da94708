"""What instruments tell: one poll, one pass, one image; and the raster that a scanner is given.

Quantities are SI with the unit in the name. A field that could not be measured is None or flagged invalid;
it never carries an older value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class HeaterReading:
    """One poll of a temperature controller."""

    monotonic_s: float  # host clock when the reply had arrived
    temperature_k: float | None  # None when the instrument reports a broken or out-of-range sensor
    working_setpoint_k: float
    output_fraction: float  # 0..1
    sensor_ok: bool
    status_word: int
    problems: tuple[str, ...] = ()  # plain words for every status bit that is not normal
    asked_fraction: float | None = None  # what it was to put out, where output_fraction is measured
    automatic: bool | None = None  # whether it follows its set-point; None where it does not tell


@dataclass(frozen=True)
class ThermometerReading:
    """One poll of a thermometer."""

    monotonic_s: float  # host clock when the reply had arrived
    temperature_k: float | None  # None when the sensor is broken or out of range
    sensor_ok: bool
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class PowerReading:
    """One poll of a heater supply: measured, not asked for."""

    monotonic_s: float
    voltage_v: float | None
    current_a: float | None
    output_on: bool
    problems: tuple[str, ...] = ()

    @property
    def power_w(self) -> float | None:
        """Measured power, W."""
        if self.voltage_v is None or self.current_a is None:
            return None
        return self.voltage_v * self.current_a


@dataclass(frozen=True)
class StageReading:
    """One poll of a stage."""

    monotonic_s: float
    position_um: tuple[float, ...] | None  # None while not homed, or after a stall
    moving: bool
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class FrameStatus:
    """Counters of a frame detector, from its last ``start`` on."""

    monotonic_s: float
    running: bool
    frames: int  # whole and in their place
    lost: int  # known to be missing
    repeated: int
    incomplete: int  # thrown away
    held: int = 0  # whole, but not used: taken while the detector could not measure (bias refresh)
    live_s: float | None = None  # time in which the good frames collected, where the detector tells it
    reading: str = ""  # its environment in plain words, for ``check``
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageRecord:
    """One whole image of a camera, on disk before anybody hears of it."""

    number: int  # as the camera counts
    path: str  # an uncompressed TIFF below the folder that was given to ``keep_in``
    nbytes: int  # of what came from the camera
    sha256: str  # of what came from the camera: a file, or the pixels of a message
    origin: str  # name of that file, or of the stream
    time_s: float | None  # end of the exposure as the camera tells it, wall clock; None if it does not
    seen_s: float  # when it was first seen here, wall clock
    exposure_s: float  # lab time


@dataclass(frozen=True)
class IoReading:
    """One poll of the beam-line I/O."""

    monotonic_s: float
    beam_current_a: float | None  # None while unknown (never an old value)
    permit: bool
    relay_closed: bool
    shutter_open: bool | None  # from the read-back line; None when it contradicts the command
    blanked: bool
    problems: tuple[str, ...] = ()
    switches: Mapping[str, bool] = field(default_factory=dict)  # named inputs for interlocks; true is good


@dataclass(frozen=True)
class Raster:
    """A rectangular scan in micrometres about a centre; one blanked parking pulse ends each line."""

    nx: int
    ny: int
    width_um: float
    height_um: float
    dwell_s: float
    centre_x_um: float = 0.0
    centre_y_um: float = 0.0

    @property
    def pulses(self) -> int:
        """Pixel-clock pulses of one whole pass, parking pulses included."""
        return self.ny * (self.nx + 1)

    @property
    def pass_s(self) -> float:
        """Beam-on time of one whole pass, s."""
        return self.nx * self.ny * self.dwell_s


@dataclass(frozen=True)
class LineReport:
    """One raster line that was played to its end."""

    line: int
    start_s: float  # lab time
    end_s: float
    charge_coulomb: float | None  # integrated beam current while unblanked; None if a sample is missing
    pixel_charge_coulomb: tuple[float, ...] = ()
    late: bool = False  # the refill came after the allowed gap; the beam was blanked meanwhile


@dataclass(frozen=True)
class PassReport:
    """What the scanner did in one call of ``run_lines``; the beam is blanked when it returns."""

    first_line: int
    lines_done: int
    pulses: int
    missed_refills: int
    stopped: bool  # ended early because ``should_stop`` said so
    lines: tuple[LineReport, ...] = ()


@dataclass(frozen=True)
class DetectorStatus:
    """Counters and state of a list-mode detector."""

    monotonic_s: float
    fast_counts: int
    slow_counts: int
    accumulation_s: float
    real_s: float
    mca_enabled: bool
    list_mode: bool
    rebooted: bool
    configured: bool
    temperature_k: float | None = None
    high_voltage_v: float | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class ListChunk:
    """One list-mode reply: raw big-endian 32-bit words as they came over the wire."""

    words: bytes
    overflow: bool
