"""Stream data of a LabJack T7 read by command-response, and what they tell of the line that plays.

Register 4500 answers with the number of samples that follow, a backlog (bytes in one public reader, samples
in LabJack's own Lua scripts: not used here), a status, its additional information, then 16-bit samples. Each
scan has the beam current and the digital port, in this order, as the previous scan left the outputs. The
port's own pixel clock and blank bits say which pixel a current belongs to and when a line has ended, so
nothing depends on when the host started a line or how late it reads.

Sources: LabJack's premade Lua script "stream and log" (labjack_kipling); async_labjack, ``read_stream_cr``;
statuses: LabJack's stream.h for plain sockets; calibration: T-Series Datasheet 20.0.1. After a full buffer
the device skips scans and marks the place by a scan of 0xFFFF samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from drivers.errors import BadLine, BadReply, Refused
from drivers.labjack_raster import SCANS_PER_PIXEL, Plan
from drivers.roles import LineReport

HEADER_WORDS = 4
SAMPLES_PER_SCAN = 2
SAMPLES_PER_READ = 120  # with the header 124 of the 125 registers of one Modbus read
DUMMY = 0xFFFF  # also what an input beyond its range reads
AUTO_RECOVER, AUTO_RECOVER_END = 2940, 2941
STATUSES = {
    2942: "scan overlap: the scan rate is too high for this scan list",
    2943: "the counter of skipped scans overflowed",
    2944: "the stream ended by itself",
}


@dataclass(frozen=True)
class StreamReply:
    """One read of the stream."""

    samples: Sequence[int]
    status: int
    information: int

    @property
    def full(self) -> bool:
        """Whether there may be more to read at once."""
        return len(self.samples) >= SAMPLES_PER_READ

    @property
    def skipped_scans(self) -> int:
        """Scans that the device threw away because nobody read them."""
        return self.information if self.status == AUTO_RECOVER_END else 0


@dataclass(frozen=True)
class Calibration:
    """From 16-bit samples to volts; the defaults are LabJack's nominal constants for +-10 V."""

    positive_slope_v: float = 0.000315805780
    negative_slope_v: float = -0.000315805800
    centre: float = 33523.0

    @property
    def plausible(self) -> bool:
        """Whether it is within 10 % of nominal; erased or foreign memory is not."""
        return (
            2.84e-4 < self.positive_slope_v < 3.48e-4
            and -3.48e-4 < self.negative_slope_v < -2.84e-4
            and 30_000 < self.centre < 37_000
        )

    def volts(self, sample: int) -> float:
        """Return the voltage of a sample."""
        if sample < self.centre:
            return (self.centre - sample) * self.negative_slope_v
        return (sample - self.centre) * self.positive_slope_v


def parse_stream(words: Sequence[int]) -> StreamReply:
    """Take a read of register 4500 apart.

    Raises:
        BadReply: it claims more samples than it holds, or not whole scans.
        Refused: the stream has stopped, with the reason.
    """
    count, _, status, information = words[:HEADER_WORDS]
    if count > len(words) - HEADER_WORDS or count % SAMPLES_PER_SCAN:
        raise BadReply(f"{count} stream samples in a reply for {len(words) - HEADER_WORDS}")
    if status not in (0, AUTO_RECOVER, AUTO_RECOVER_END):
        raise Refused(f"the stream has stopped: {STATUSES.get(status, f'status {status}')}")
    return StreamReply(words[HEADER_WORDS : HEADER_WORDS + count], status, information)


@dataclass
class _Line:
    """A line that is expected or plays."""

    number: int
    not_before: int  # scan index
    edges: int = 0
    last_edge: int = 0
    pixel_coulomb: list[float] = field(default_factory=list)
    unblanked: int = 0
    missing: bool = False
    recovered: bool = False


class Tracker:
    """Follows the lines of one stream through its samples.

    Args:
        plan: the raster.
        calibration: of the beam current input.
        scale_a_per_v: of the beam monitor.
        scan_s: actual time of one scan, lab s.
        started_s: lab time at which the stream was started.
        allowed_gap_s: blanked time between two lines beyond which a refill counts as late, lab s.
    """

    def __init__(
        self,
        plan: Plan,
        calibration: Calibration,
        *,
        scale_a_per_v: float,
        scan_s: float,
        started_s: float,
        allowed_gap_s: float,
    ) -> None:
        self._plan = plan
        self._calibration = calibration
        self._scale_a_per_v = scale_a_per_v
        self._scan_s = scan_s
        self._started_s = started_s
        self._allowed_gap_s = allowed_gap_s
        self._clock = 1 << plan.scanner.pixel_clock
        self._blank = 1 << plan.scanner.blank
        self._line: _Line | None = None
        self._parked_at: int | None = None  # scan in which the last line reached its repeating value
        self._high: bool | None = None  # the pixel clock in the last scan, None while unknown
        self._blanked = True
        self.scans = 0
        self.current_a: float | None = None  # of the last sample

    def expect(self, number: int) -> None:
        """Line ``number`` has been started: the next pulses are its own."""
        self._line = _Line(number, self.scans, pixel_coulomb=[0.0] * self._plan.raster.nx)

    def feed(self, reply: StreamReply) -> None:
        """Take the next samples."""
        self._skip(reply.skipped_scans)
        for at in range(0, len(reply.samples), SAMPLES_PER_SCAN):
            current, port = reply.samples[at : at + SAMPLES_PER_SCAN]
            self.scans += 1
            if current == port == DUMMY:
                self._lost()
            else:
                self._scan(current, port)

    @property
    def ended(self) -> bool:
        """Whether the expected line has come to its blanked end."""
        line = self._line
        if line is None:
            return True
        parked = self._blanked and self._high is False
        if line.recovered:  # pulses went unseen: wait for the time a line takes, and for the blanked end
            return parked and self.scans - line.not_before > self._plan.line_scans
        return parked and line.edges == self._plan.raster.nx + 1

    @property
    def remaining_s(self) -> float:
        """Lab time until the expected line should have ended, by the pulses seen; 0 when it has."""
        line = self._line
        if line is None or self.ended:
            return 0.0
        pixels = self._plan.raster.nx + 1 - line.edges
        lead = 0 if line.edges else max(0, self._plan.lead - (self.scans - line.not_before))
        return (lead + SCANS_PER_PIXEL * pixels + 1) * self._scan_s

    def report(self) -> LineReport:
        """Return the report of the line that has ended.

        Raises:
            BadLine: the digital port did not do what the buffer says.
        """
        line, nx = self._line, self._plan.raster.nx
        if line is None:
            raise BadReply("no line was played")
        if not line.recovered and line.unblanked != SCANS_PER_PIXEL * nx:
            wanted = SCANS_PER_PIXEL * nx
            raise BadLine(f"line {line.number} was unblanked for {line.unblanked} scans instead of {wanted}")
        complete = not (line.missing or line.recovered)
        last = self.scans - 1 if line.recovered else line.last_edge
        first = last - SCANS_PER_PIXEL * nx
        begun = first - self._plan.lead
        gap_s = 0.0 if self._parked_at is None else (begun - self._parked_at - 1) * self._scan_s
        self._parked_at = last + 1
        self._line = None
        return LineReport(
            line=line.number,
            start_s=self._started_s + (first - 1) * self._scan_s,
            end_s=self._started_s + (last - 1) * self._scan_s,
            charge_coulomb=sum(line.pixel_coulomb) if complete else None,
            pixel_charge_coulomb=tuple(line.pixel_coulomb) if complete else (),
            late=gap_s > self._allowed_gap_s,
        )

    def _scan(self, current: int, port: int) -> None:
        high, self._blanked = bool(port & self._clock), bool(port & self._blank)
        rising, self._high = high and self._high is False, high
        self.current_a = None
        if current != DUMMY:
            self.current_a = self._calibration.volts(current) * self._scale_a_per_v
        line = self._line
        if line is None:
            if rising or not self._blanked:
                raise BadLine("the pixel clock or the blank moved while no line was playing")
            return
        if rising:
            line.edges += 1
            line.last_edge = self.scans
        if not self._blanked:
            self._integrate(line)

    def _integrate(self, line: _Line) -> None:
        line.unblanked += 1
        if self.current_a is None:
            line.missing = True
        elif 1 <= line.edges <= len(line.pixel_coulomb):
            line.pixel_coulomb[line.edges - 1] += self.current_a * self._scan_s
        elif not line.recovered:
            raise BadLine(f"line {line.number} is unblanked at pulse {line.edges}")

    def _skip(self, scans: int) -> None:
        if scans:
            self.scans += scans
            self._lost()

    def _lost(self) -> None:
        """Scans are missing here: never taken for a current, and pulses may have gone unseen."""
        self.current_a = None
        self._high = None
        if self._line is not None:
            self._line.recovered = True
