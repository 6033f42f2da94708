"""What the controller knows of an instrument: roles with their readings, not brands.

Quantities are SI with the unit in the name. A field that could not be measured is None or flagged invalid;
it never carries an older value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable


class Role(StrEnum):
    """Names used in station files and in ``describe``."""

    TEMPERATURE_CONTROLLER = "temperature_controller"
    THERMOMETER = "thermometer"
    HEATER_POWER = "heater_power"
    POTENTIOSTAT = "potentiostat"
    BEAM_SCANNER = "beam_scanner"
    STAGE = "stage"
    EVENT_DETECTOR = "event_detector"
    FRAME_DETECTOR = "frame_detector"
    BEAM_MONITOR = "beam_monitor"
    SHUTTER = "shutter"
    RELAY = "relay"
    PERMIT = "permit"
    MONITOR = "monitor"


@dataclass(frozen=True)
class Identity:
    """Who answered: as told by the instrument itself, None where it does not tell."""

    manufacturer: str
    model: str
    serial: str | None = None
    firmware: str | None = None


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


class CellEventKind(StrEnum):
    """What a running cell program reports besides samples."""

    STARTED = "started"
    PHASE = "phase"
    FINISHED = "finished"
    ABORTED = "aborted"
    RUNTIME_ERROR = "runtime_error"


@dataclass(frozen=True)
class CellEvent:
    """A change of state of the running cell program."""

    monotonic_s: float
    kind: CellEventKind
    detail: str = ""  # for FINISHED: the reason the script gave; for PHASE: cc, cv, ocv, eis, geis


@dataclass(frozen=True)
class CellSample:
    """One data package of the potentiostat."""

    monotonic_s: float
    elapsed_s: float  # instrument time since the program began
    phase: str  # ocv, cc, cv, eis, geis
    voltage_v: float | None
    current_a: float | None
    charge_coulomb: float | None = None  # as integrated by the instrument's own script, where it does
    valid: bool = True  # False: NaN, overload or timing status
    problems: tuple[str, ...] = ()
    frequency_hz: float | None = None
    z_real_ohm: float | None = None
    z_imag_ohm: float | None = None
    swing_v: float = 0.0  # peak of the sine about voltage_v and current_a while this was measured
    swing_a: float = 0.0


@dataclass(frozen=True)
class CellLimits:
    """Limits written into every script, whatever the program asks for."""

    voltage_low_v: float
    voltage_high_v: float
    current_a: float  # largest magnitude
    charge_coulomb: float  # largest magnitude in this program
    duration_s: float

    def __post_init__(self) -> None:
        values = (
            self.voltage_low_v,
            self.voltage_high_v,
            self.current_a,
            self.charge_coulomb,
            self.duration_s,
        )
        if not all(math.isfinite(value) for value in values):
            raise ValueError(f"every cell limit must be finite, got {self}")


@dataclass(frozen=True)
class Ocv:
    """Open circuit: measure the voltage with the cell disconnected."""

    duration_s: float
    interval_s: float = 1.0


@dataclass(frozen=True)
class ConstantCurrent:
    """Constant current (positive charges) until the voltage is reached or a limit strikes."""

    current_a: float
    until_voltage_v: float
    limits: CellLimits
    interval_s: float = 1.0


@dataclass(frozen=True)
class ConstantVoltage:
    """Hold a voltage until the current has fallen or a limit strikes."""

    voltage_v: float
    until_current_a: float
    limits: CellLimits
    interval_s: float = 1.0


@dataclass(frozen=True)
class CcCv:
    """Constant current to a voltage, then hold it: one script, limits in both loops."""

    current_a: float
    voltage_v: float
    until_current_a: float
    limits: CellLimits
    interval_s: float = 1.0


@dataclass(frozen=True)
class Eis:
    """Potentiostatic impedance sweep: a sine of voltage about a held voltage."""

    amplitude_v: float  # rms, as instruments have it; the peak is sqrt(2) of it
    start_hz: float
    stop_hz: float
    points: int
    limits: CellLimits
    voltage_v: float | None = None  # held meanwhile; None: the open-circuit voltage at the start


@dataclass(frozen=True)
class Geis:
    """Galvanostatic impedance sweep: a sine of current about a direct current (positive charges)."""

    amplitude_a: float  # rms
    start_hz: float
    stop_hz: float
    points: int
    limits: CellLimits
    bias_a: float = 0.0


CellProgram = Ocv | ConstantCurrent | ConstantVoltage | CcCv | Eis | Geis


@dataclass(frozen=True)
class SweepAbility:
    """Which impedance sweeps an instrument can do; amplitudes are rms, V or A."""

    slowest_hz: float
    fastest_hz: float
    least: float
    most: float


@dataclass(frozen=True)
class CellAbilities:
    """What an instrument can do to a cell, before anything is asked of it; None where it cannot at all."""

    name: str  # for messages
    low_v: float
    high_v: float
    most_a: float
    galvanostat: bool = True
    eis: SweepAbility | None = None
    geis: SweepAbility | None = None


@runtime_checkable
class Device(Protocol):
    """What every driver offers."""

    name: str

    @property
    def roles(self) -> frozenset[Role]:
        """The roles this instrument plays."""
        ...

    async def identify(self) -> Identity:
        """Ask the instrument who it is; raise BadReply when it is something else."""
        ...

    async def prepare(self) -> list[str]:
        """Resynchronise, reach the safe state, verify it; return notes in plain words for ``check``."""
        ...

    async def off(self) -> None:
        """Reach this device's safe state; bounded in time, harmless when repeated."""
        ...

    async def close(self) -> None:
        """Release the line."""
        ...


@runtime_checkable
class TemperatureController(Device, Protocol):
    """Heater with its own control loop."""

    async def read(self) -> HeaterReading:
        """Poll once."""
        ...

    async def set_target_k(self, target_k: float) -> None:
        """Write the volatile set-point and verify it."""
        ...

    async def set_ramp_k_per_min(self, rate_k_per_min: float) -> None:
        """Limit the rate of the working set-point."""
        ...


@runtime_checkable
class Potentiostat(Device, Protocol):
    """Runs one cell program at a time inside the instrument."""

    @property
    def running(self) -> bool:
        """Whether a script is running in the instrument, as far as the host knows."""
        ...

    async def start(self, program: CellProgram) -> None:
        """Send and start a program; the cell is energised unless it is Ocv."""
        ...

    async def next(self, timeout_s: float) -> CellSample | CellEvent:
        """Return the next sample or event; NoReply after ``timeout_s`` wall seconds."""
        ...

    async def stop(self) -> None:
        """Abort the program and open the circuit; verified."""
        ...

    async def read_ocv(self) -> float:
        """Open the circuit and return the voltage, V; Refused while a program is running."""
        ...


@runtime_checkable
class BeamScanner(Device, Protocol):
    """Deflects and blanks the beam."""

    async def blank(self) -> None:
        """Blank the beam now."""
        ...

    async def run_lines(
        self,
        raster: Raster,
        first_line: int,
        *,
        on_line: Callable[[LineReport], None],
        should_stop: Callable[[], bool],
    ) -> PassReport:
        """Play the lines ``first_line``..ny-1; stop between lines when asked; end blanked."""
        ...


@runtime_checkable
class BeamlineIo(Device, Protocol):
    """Beam monitor, relay, shutter and permit on one box."""

    async def read(self) -> IoReading:
        """Poll once."""
        ...

    async def feed_watchdog(self) -> None:
        """Renew the lease of every output of this box."""
        ...

    async def set_relay(self, *, closed: bool) -> None:
        """Close or open the relay in series with the heater."""
        ...

    async def set_shutter(self, *, open_: bool) -> None:
        """Open or close the shutter."""
        ...


@runtime_checkable
class EventDetector(Device, Protocol):
    """A list-mode photon detector with frame words as pixel numbers."""

    async def status(self) -> DetectorStatus:
        """Read counters and state."""
        ...

    async def start(self) -> None:
        """Enable counting."""
        ...

    async def stop(self) -> None:
        """Disable counting."""
        ...

    async def clear(self) -> None:
        """Clear spectrum, counters and list-mode timer."""
        ...

    async def read_words(self) -> ListChunk:
        """Read and remove what the FIFO holds."""
        ...


@runtime_checkable
class Thermometer(Device, Protocol):
    """Measures a temperature."""

    async def read(self) -> ThermometerReading:
        """Poll once."""
        ...


@runtime_checkable
class Monitor(Device, Protocol):
    """Measures anything else: values by name, each in the unit that ``channels`` gives.

    ``channels`` belongs to the class, so that the names are known before anything is connected: a mapping
    from name to unit (None for a switch, "" for a plain number), or a static method that makes one of the
    device's own keys in the station file.
    """

    async def read_values(self) -> Mapping[str, float | bool | None]:
        """Poll once; None for what is not known now, never an older value."""
        ...


@runtime_checkable
class HeaterPower(Device, Protocol):
    """Gives a heater its power, up to a cap that it programs into the instrument."""

    async def set_power_w(self, power_w: float) -> None:
        """Give this power from now on; verified. Refused above the cap."""
        ...

    async def read(self) -> PowerReading:
        """Measure once."""
        ...


@runtime_checkable
class Stage(Device, Protocol):
    """Moves the sample; coarse, and never while the beam is on."""

    async def home(self) -> None:
        """Find the reference of every axis; bounded in time."""
        ...

    async def move_to_um(self, position_um: tuple[float, ...]) -> None:
        """Move and wait until it stands there; Refused outside the limits, BadReply when it stalls."""
        ...

    async def read(self) -> StageReading:
        """Poll once."""
        ...

    async def stop(self) -> None:
        """Stop every axis now."""
        ...


@runtime_checkable
class FrameDetector(Device, Protocol):
    """Sends frames faster, or larger, than control should touch: other processes take them."""

    @property
    def source(self) -> Mapping[str, Any]:
        """Where the reduce process finds the frames, and what it must know of them: plain values."""
        ...

    async def start(self) -> None:
        """Begin to count frames, from zero."""
        ...

    async def stop(self) -> None:
        """End counting; afterwards ``status`` does not change any more."""
        ...

    async def status(self) -> FrameStatus:
        """Read counters and state."""
        ...


@runtime_checkable
class ImageDetector(FrameDetector, Protocol):
    """A camera: few, large frames. Another process takes them and puts each on disk as an image."""

    def keep_in(self, folder: str) -> None:
        """Say where the images of this run go; before ``start``."""
        ...

    async def next_images(self) -> list[ImageRecord]:
        """Return the images that have come since the last call, in the order in which they were found."""
        ...
