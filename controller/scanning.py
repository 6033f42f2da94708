"""The scanning task: passes of the raster with both detectors, checked before they count.

Per pass: beam blanked, counters read with the MCA stopped, lines played, beam blanked, MCA stopped, FIFO
emptied, counters read again. A pass counts only when both detectors advanced by exactly the pulses that the
scanner made and every counted event arrived; otherwise it is quarantined, reported and repeated.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from controller.clock import Ticker
from controller.guard import Action
from controller.shutter import Shutter
from drivers.amptek_listmode import UNKNOWN_FRAME, ListModeDecoder, first_frame
from drivers.errors import BadLine, BadReply, DriverError, NoReply, Refused

if TYPE_CHECKING:
    from controller.guard import Guard
    from controller.rawfile import RawWriter
    from controller.record import Recorder
    from controller.reduction import Reduction
    from drivers.clock import Clock
    from drivers.roles import BeamlineIo, BeamScanner, DetectorStatus, EventDetector, LineReport, Raster

BEAM_GONE = 0.2  # fraction of the nominal current below which the beam counts as lost
BEAM_BACK = 0.5
BEAM_LOST_S = 1.0  # lab seconds below the limit before a scan pauses
DRAIN_READS = 64
LEASE_LINES = 3  # lines that the beam lease covers; every line that was played renews it
LEASE_MARGIN_S = 10.0
BENCH_LEASE_WALL_S = 10.0  # a computer too slow for fast lab time plays fewer lines: no reason to trip
COUNTER_MODULUS = 1 << 32


@dataclass
class Feed:
    """One detector's stream: FIFO to raw file, frame counter and reduce process."""

    name: str
    detector: EventDetector
    raw: RawWriter
    decoder: ListModeDecoder = field(default_factory=ListModeDecoder)
    events: int = 0
    chunk: int = 0
    frame0: int | None = None  # frame number before the first pulse of the pass; None while unknown
    problems: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """Reset the counters of one pass; the frame number goes on, the time starts anew."""
        self.events = self.chunk = 0
        self.problems = []
        self.decoder.restart_time()
        frame = self.decoder.last_frame
        self.frame0 = None if frame == UNKNOWN_FRAME else frame

    def advanced(self) -> int:
        """Return by how many pixels the detector has advanced in this pass."""
        return 0 if self.frame0 is None else self.decoder.last_frame - self.frame0


@dataclass
class PassOutcome:
    """What is known of a pass when it has ended."""

    n: int
    good: bool
    why: str
    lines_done: int
    whole: bool
    missed_refills: int
    events: dict[str, int]
    lost: dict[str, int]
    charge_coulomb: float
    live_s: float


class Scanning:
    """Owner of the scanner, the shutter and the detectors while a scan or a background runs."""

    def __init__(
        self,
        scanner: BeamScanner | None,
        io: BeamlineIo | None,
        feeds: dict[str, Feed],
        guard: Guard,
        clock: Clock,
        recorder: Recorder,
        reduction: Reduction,
        *,
        nominal_current_a: float | None,
        read_period_s: float,
        stamp: Callable[[], dict[str, Any]],
        paused: Callable[[], bool],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scanner = scanner
        self.shutter = Shutter(io, guard, clock)
        self.feeds = feeds
        self._guard = guard
        self._clock = clock
        self._recorder = recorder
        self._reduction = reduction
        self._nominal_a = nominal_current_a
        self._period_s = read_period_s
        self._stamp = stamp
        self._paused = paused
        self._low_since: float | None = None  # monotonic
        self._monotonic = monotonic
        self._reading = False
        self._no_room: OSError | None = None  # a full disk, usually
        self._lease_s = LEASE_MARGIN_S
        self._scan, self._name = -1, ""
        self._lines: list[LineReport] = []
        self.line = 0
        self.lines_total = 0

    def see_beam(self, current_a: float | None) -> None:
        """Take every reading of the beam monitor; remembers since when the beam has been low or unknown."""
        if self._nominal_a is None:  # no beam of ours
            return
        if current_a is not None and current_a >= BEAM_GONE * self._nominal_a:
            if self._low_since is None or current_a >= BEAM_BACK * self._nominal_a:
                self._low_since = None
        elif self._low_since is None:
            self._low_since = self._monotonic()

    def beam_lost(self) -> bool:
        """Return whether the beam has been low or unknown for longer than ``BEAM_LOST_S``."""
        if self._low_since is None:
            return False
        return self._monotonic() - self._low_since > self._clock.wall_timeout_s(BEAM_LOST_S)

    def begin_scan(self, scan: int, name: str, purpose: str, raster: Raster | None) -> None:
        """Tell reduce that the following passes belong to a new scan."""
        self._scan, self._name = scan, name
        shape = None
        if raster is not None:
            shape = asdict(raster)
        self._reduction.send({"k": "scan", "scan": scan, "name": name, "purpose": purpose, "raster": shape})

    def end_scan(self) -> None:
        """Tell reduce that no more passes follow."""
        self._reduction.send({"k": "scan_end", "scan": self._scan})

    async def run_pass(self, raster: Raster, n: int, *, should_end: Callable[[], bool]) -> PassOutcome:
        """Play one pass; pauses inside it on beam loss or request; ends between lines when told."""
        scanner = self._needed()
        self.shutter.keep()
        before = await self._open_pass(n)
        over = self._over(should_end)
        self._lines = []
        self.line, self.lines_total = 0, raster.ny
        self._lease_s = LEASE_LINES * raster.nx * raster.dwell_s + LEASE_MARGIN_S
        if self._clock.speed > 1.0:
            self._lease_s = max(self._lease_s, BENCH_LEASE_WALL_S * self._clock.speed)
        missed = pulses = 0
        first = 0
        broken = ""
        readers = self._start_readers(n)
        try:
            while first < raster.ny and not over():
                await self._wait_for_beam(over)
                if over():
                    break
                self._guard.lease("beam", self._lease_s, Action.BLANK)
                try:
                    report = await scanner.run_lines(
                        raster,
                        first,
                        on_line=self._on_line,
                        should_stop=lambda: self._interrupted(over),
                    )
                except Refused:
                    if self._guard.refuses() or not self._paused():
                        raise
                    break  # an interlock that only holds has blanked the beam in mid-line: this pass is void
                except (BadReply, NoReply) as error:
                    if not (error.request or isinstance(error, BadLine)) or self._guard.refuses():
                        raise  # a line that does not end, or an off command
                    broken = str(error)
                    break  # one failed exchange or line voids the pass; ``blank`` shows whether that is all
                finally:
                    self._guard.release("beam")  # blanked: a pause may last longer than any lease
                first = report.first_line + report.lines_done
                missed += report.missed_refills
                pulses += report.pulses
        finally:
            self._guard.release("beam")
            await self._end_readers(readers)
            self.shutter.keep()
        self._needs_room()
        if broken:
            self._recorder.fault("io", broken)
            await scanner.blank()
        return await self._close_pass(
            raster, n, before, pulses=pulses, lines_done=first, missed=missed, broken=broken
        )

    async def run_background(
        self, n: int, duration_s: float, *, should_end: Callable[[], bool]
    ) -> PassOutcome:
        """Count with the beam blanked and the shutter closed for ``duration_s`` lab seconds."""
        await self._needed().blank()
        await self.shutter.close()
        self.line, self.lines_total = 0, 0
        before = await self._open_pass(n)
        over = self._over(should_end)
        self._lines = []
        readers = self._start_readers(n)
        end_s = self._clock.now_s() + duration_s
        try:
            while self._clock.now_s() < end_s and not over():
                await self._clock.sleep(min(1.0, max(0.0, end_s - self._clock.now_s())))
        finally:
            await self._end_readers(readers)
        self._needs_room()
        return await self._close_pass(None, n, before, pulses=0, lines_done=0, missed=0)

    def close(self) -> None:
        """Put the raw files on the disk and close them."""
        for feed in self.feeds.values():
            feed.raw.close()

    # --- inside ----------------------------------------------------------------------------------------

    def _needed(self) -> BeamScanner:
        if self._scanner is None:
            raise Refused("this station has no scanner", device="scanner")
        return self._scanner

    def _over(self, should_end: Callable[[], bool]) -> Callable[[], bool]:
        """Return what says that a pass must end: told to, or its events cannot be written any more."""
        return lambda: should_end() or self._no_room is not None

    def _needs_room(self) -> None:
        """Raise what kept a reader from writing: events that are not kept are not worth their dose."""
        if self._no_room is not None:
            error, self._no_room = self._no_room, None
            raise OSError(error.errno, f"raw events cannot be written: {error.strerror}") from error

    def _interrupted(self, should_end: Callable[[], bool]) -> bool:
        return should_end() or self._paused() or self.beam_lost() or self._guard.refuses() is not None

    async def _wait_for_beam(self, should_end: Callable[[], bool]) -> None:
        """Hold a scan, blanked, while the beam is away or the run is paused: zero live time, zero charge."""
        said = False
        while (self._paused() or self.beam_lost()) and not should_end():
            if self.beam_lost() and not said:
                said = True
                self._recorder.gap("beam", "the beam is away: the scan waits, blanked", self._clock.now_s())
            self.shutter.keep()
            await self._clock.sleep(0.5)
        if said:
            self._recorder.gap("beam", "the beam is back: the scan goes on", self._clock.now_s(), end=True)
        refusal = self._guard.refuses()
        if refusal:
            raise Refused(f"the beam stays blanked: {refusal}", device="scanner")

    def _on_line(self, report: LineReport) -> None:
        self._lines.append(report)
        self.line = report.line + 1
        self.shutter.keep()
        self._guard.lease("beam", self._lease_s, Action.BLANK)

    async def _open_pass(self, n: int) -> dict[str, DetectorStatus]:
        """Beam is blanked: stop, empty the FIFOs into the void before, read the counters, start."""
        before: dict[str, DetectorStatus] = {}
        for feed in self.feeds.values():
            await feed.detector.stop()
            await self._drain(feed, n - 1, send=False)
            if (await feed.detector.status()).rebooted:
                await self._prepare_again(feed, n - 1)
            feed.begin()
            before[feed.name] = await feed.detector.status()
            feed.raw.begin_pass(self._scan, n)
        self._reduction.send(
            {
                "k": "pass", "scan": self._scan, "n": n, "stamp": self._stamp(),
                "frame0": {feed.name: feed.frame0 for feed in self.feeds.values()},
            }
        )  # fmt: skip
        for feed in self.feeds.values():
            await feed.detector.start()
        return before

    async def _prepare_again(self, feed: Feed, n: int) -> None:
        """Configure a detector that has lost its configuration; the pass it was lost in does not count."""
        self._recorder.fault(feed.name, f"{feed.name} has rebooted: it is prepared again")
        await feed.detector.prepare()
        await self._drain(feed, n, send=False)

    async def _close_pass(
        self, raster: Raster | None, n: int, before: dict[str, DetectorStatus], *,
        pulses: int, lines_done: int, missed: int, broken: str = "",
    ) -> PassOutcome:  # fmt: skip
        counters: dict[str, dict[str, float]] = {}
        raw: dict[str, dict[str, Any]] = {}
        lost: dict[str, int] = {}
        why: list[str] = [broken] if broken else []
        for name, feed in self.feeds.items():
            await feed.detector.stop()
            await self._drain(feed, n, send=True)
            after = await feed.detector.status()
            was = before[name]
            slow = (after.slow_counts - was.slow_counts) % COUNTER_MODULUS
            counters[name] = {
                "slow": slow, "fast": (after.fast_counts - was.fast_counts) % COUNTER_MODULUS,
                "accumulation_s": after.accumulation_s - was.accumulation_s,
                "real_s": after.real_s - was.real_s,
            }  # fmt: skip
            lost[name] = slow - feed.events
            why += self._faults(feed, pulses, lost[name])
            if after.rebooted:
                why.append(f"{name} rebooted: its configuration is gone")
            raw[name] = feed.raw.end_pass()
        good = not why
        charge = sum(line.charge_coulomb or 0.0 for line in self._lines)
        outcome = PassOutcome(
            n, good, "; ".join(why), lines_done, raster is None or lines_done == raster.ny, missed,
            {name: feed.events for name, feed in self.feeds.items()}, lost, charge,
            sum(line.end_s - line.start_s for line in self._lines),
        )  # fmt: skip
        message = {
            "k": "pass_end", "scan": self._scan, "name": self._name, "n": n, "good": good, "why": outcome.why,
            "frame0": {name: feed.frame0 for name, feed in self.feeds.items()},
            "lines": [[r.line, r.start_s, r.end_s, r.charge_coulomb] for r in self._lines],
            "pixel_charge": [list(r.pixel_charge_coulomb) for r in self._lines],
            "counters": counters, "stamp": self._stamp(), "raw": raw,
        }  # fmt: skip
        # Words, then the line that says where they are, then the row that says they count: each on the disk
        # before the next, or a power cut could leave a pass that counts and has no events.
        await asyncio.gather(*(asyncio.to_thread(feed.raw.sync) for feed in self.feeds.values()))
        self._reduction.send(message)
        await self._reduction.sync()
        self._recorder.scan_pass(self._scan, outcome, message)
        return outcome

    @staticmethod
    def _faults(feed: Feed, pulses: int, lost: int) -> list[str]:
        why = []
        for problem, times in Counter(feed.problems).items():
            why.append(f"{feed.name}: {problem}" + (f" ({times} times)" if times > 1 else ""))
        if feed.advanced() != pulses:
            why.append(f"{feed.name} advanced by {feed.advanced()} pixels, the scanner made {pulses}")
        if lost:
            why.append(f"{feed.name} counted {feed.events + lost} events, {feed.events} arrived")
        return why

    def _start_readers(self, n: int) -> list[asyncio.Task[None]]:
        self._reading = True
        return [asyncio.create_task(self._read(feed, n)) for feed in self.feeds.values()]

    async def _end_readers(self, readers: list[asyncio.Task[None]]) -> None:
        """Let every reader finish: a list-mode reply that is cut off is gone for ever."""
        self._reading = False
        await asyncio.gather(*readers, return_exceptions=True)

    async def _read(self, feed: Feed, n: int) -> None:
        async for _ in Ticker(self._clock, self._period_s):
            if not self._reading:
                return
            try:
                await self._read_once(feed, n, send=True)
            except OSError as error:
                self._no_room = error
                return
            except NoReply as error:
                feed.problems.append(str(error))
                self._recorder.fault(feed.name, str(error))
            except DriverError as error:
                feed.problems.append(str(error))
                self._recorder.fault(feed.name, str(error))
                return

    async def _drain(self, feed: Feed, n: int, *, send: bool) -> None:
        for _ in range(DRAIN_READS):
            try:
                if not await self._read_once(feed, n, send=send):
                    return
            except NoReply as error:
                feed.problems.append(str(error))
        feed.problems.append("the list-mode FIFO did not run empty with the MCA stopped")

    async def _read_once(self, feed: Feed, n: int, *, send: bool) -> bool:
        """Move one reply on; return whether it held anything."""
        chunk = await feed.detector.read_words()
        if chunk.overflow:
            feed.problems.append("the list-mode FIFO overflowed: events were lost")
        if not chunk.words:
            return False
        if feed.frame0 is None:
            first = first_frame(chunk.words)
            feed.frame0 = None if first is None else first - 1
        try:
            feed.events += len(feed.decoder.feed(chunk.words).channel)
        except BadReply as error:  # the pass is void; the raw file keeps the words as they came
            feed.problems.append(str(error))
            feed.decoder = ListModeDecoder()
            if not send:  # left over from before, up to where the counters were cleared
                feed.decoder.feed(_from_last_frame(chunk.words))
        if send:
            feed.raw.append(chunk.words)
            self._reduction.send_events(
                {
                    "k": "events",
                    "det": feed.name,
                    "scan": self._scan,
                    "n": n,
                    "i": feed.chunk,
                    "words": chunk.words,
                }
            )
            feed.chunk += 1
        return True


def _from_last_frame(words: bytes) -> bytes:
    """Return the words from the last frame word on: where the counter stands, whatever came before."""
    return words[next((at for at in range(len(words) - 4, -1, -4) if words[at] >= 0xC0), len(words)) :]
