"""What the controller knows of an instrument: roles, not brands.

What instruments tell is in ``readings``, what a cell is asked to do in ``cell_programs``; all of it can be
imported from here, and a driver made elsewhere needs no other module for its contract.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from drivers.cell_programs import (
    CcCv,
    CellAbilities,
    CellEvent,
    CellEventKind,
    CellLimits,
    CellProgram,
    CellSample,
    ConstantCurrent,
    ConstantVoltage,
    Eis,
    Geis,
    Ocv,
    SweepAbility,
)
from drivers.readings import (
    DetectorStatus,
    FrameStatus,
    HeaterReading,
    ImageRecord,
    IoReading,
    LineReport,
    ListChunk,
    PassReport,
    PowerReading,
    Raster,
    StageReading,
    ThermometerReading,
)

__all__ = [
    "BeamScanner",
    "BeamlineIo",
    "CcCv",
    "CellAbilities",
    "CellEvent",
    "CellEventKind",
    "CellLimits",
    "CellProgram",
    "CellSample",
    "ConstantCurrent",
    "ConstantVoltage",
    "DetectorStatus",
    "Device",
    "Eis",
    "EventDetector",
    "FrameDetector",
    "FrameStatus",
    "Geis",
    "HeaterPower",
    "HeaterReading",
    "Identity",
    "ImageDetector",
    "ImageRecord",
    "IoReading",
    "LineReport",
    "ListChunk",
    "Monitor",
    "Ocv",
    "PassReport",
    "Potentiostat",
    "PowerReading",
    "Raster",
    "Role",
    "Stage",
    "StageReading",
    "SweepAbility",
    "TemperatureController",
    "Thermometer",
    "ThermometerReading",
]


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
