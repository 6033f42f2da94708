"""Passes of the scanner against detectors that lose, add or wrap: what counts and what is quarantined.

List-mode words are packed here from the sheet: event = amplitude << 16 | low time; frame word = 11 in the top
bits, frame << 14 | upper time.
"""

from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.rawfile import RawWriter
from controller.scanning import Feed, Scanning
from drivers.errors import BadLine, BadReply, DriverError, NoReply, Refused
from drivers.roles import DetectorStatus, LineReport, ListChunk, PassReport, Raster
from tests.controller.fakes import FakeGuard, FakeRecorder, SteppedClock

RASTER = Raster(nx=4, ny=3, width_um=40.0, height_um=30.0, dwell_s=0.01)
PULSES = 15  # 3 lines of 4 pixels and a parking pulse


def frame_word(frame: int) -> bytes:
    return struct.pack(">I", 0xC000_0000 | (frame & 0xFFFF) << 14)


def event_word(channel: int) -> bytes:
    return struct.pack(">I", channel << 16 | 1)


class FakeDetector:
    """Counts one event per pixel pulse; faults are set by the test."""

    def __init__(self, name: str, *, frame: int = 0) -> None:
        self.name = name
        self.frame = frame
        self.slow = 0xFFFF_FFF0  # the counter wraps in the first pass
        self.enabled = False
        self.words = b""
        self.skip_pulse = -1
        self.drop_event = -1
        self.overflow = False
        self.fail = 0
        self.pulses = 0
        self.rebooted = False

    def pulse(self) -> None:
        self.pulses += 1
        if not self.enabled or self.pulses == self.skip_pulse:
            return
        self.frame += 1
        self.words += frame_word(self.frame)
        self.slow = (self.slow + 1) & 0xFFFF_FFFF
        if self.pulses != self.drop_event:
            self.words += event_word(500)

    async def start(self) -> None:
        self.enabled = True

    async def stop(self) -> None:
        self.enabled = False

    async def clear(self) -> None:
        pass

    async def prepare(self) -> list[str]:
        self.rebooted = False
        self.slow = 0
        self.frame = 0
        self.words = frame_word(0)
        return []

    async def status(self) -> DetectorStatus:
        return DetectorStatus(0.0, self.slow, self.slow, 0.0, 0.0, self.enabled, True, self.rebooted, True)

    async def read_words(self) -> ListChunk:
        if self.fail:
            self.fail -= 1
            raise NoReply("a datagram was lost", device=self.name)
        words, self.words = self.words, b""
        return ListChunk(words, self.overflow)


class FakeScanner:
    """Plays lines at once, telling both detectors of every pulse."""

    name = "io"

    def __init__(self, detectors: list[FakeDetector], clock: SteppedClock) -> None:
        self.detectors = detectors
        self.clock = clock
        self.blanked = 0
        self.at_line: Callable[[], object] = bool

    async def blank(self) -> None:
        self.blanked += 1

    async def run_lines(
        self,
        raster: Raster,
        first_line: int,
        *,
        on_line: Callable[[LineReport], None],
        should_stop: Callable[[], bool],
    ) -> PassReport:
        done = 0
        for line in range(first_line, raster.ny):
            if should_stop():
                break
            self.at_line()
            for _ in range(raster.nx + 1):
                for detector in self.detectors:
                    detector.pulse()
            await self.clock.sleep(raster.nx * raster.dwell_s)
            on_line(LineReport(line, 0.0, 0.04, 1e-12, (2.5e-13,) * raster.nx))
            done += 1
        return PassReport(first_line, done, done * (raster.nx + 1), 0, first_line + done < raster.ny)


class FakeReduction:
    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> bool:
        self.messages.append(message)
        return True

    async def sync(self) -> None:
        pass

    def send_events(self, message: dict[str, Any]) -> bool:
        return self.send(message)


class Setup:
    def __init__(self, folder: Path, *, frame: int = 0) -> None:
        self.clock = SteppedClock()
        self.pixe, self.pige = FakeDetector("pixe", frame=frame), FakeDetector("pige", frame=frame)
        self.reduction = FakeReduction()
        self.recorder = FakeRecorder()
        self.guard = FakeGuard()
        self.is_paused = False
        feeds = {d.name: Feed(d.name, d, RawWriter(folder, d.name)) for d in (self.pixe, self.pige)}  # type: ignore[arg-type]
        self.scanner = FakeScanner([self.pixe, self.pige], self.clock)
        self.scanning = Scanning(
            self.scanner, None, feeds, self.guard, self.clock, self.recorder, self.reduction,  # type: ignore[arg-type]
            nominal_current_a=24e-12, read_period_s=0.05, stamp=dict, paused=lambda: self.is_paused,
            monotonic=self.clock.now_s,
        )  # fmt: skip
        self.scanning.see_beam(24e-12)
        self.scanning.begin_scan(1, "as prepared", "reference", RASTER)

    async def run(self, n: int = 1) -> Any:
        return await self.scanning.run_pass(RASTER, n, should_end=lambda: False)


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    made = Setup(tmp_path)
    yield made
    made.scanning.close()


async def test_a_whole_pass_counts_with_slow_counter_and_frame_wrapping(tmp_path: Path) -> None:
    setup = Setup(tmp_path, frame=65530)  # the 16-bit frame wraps after six pixels
    first = await setup.run(1)
    second = await setup.run(2)
    assert (first.good, first.why) == (True, "")
    assert (second.good, second.why) == (True, "")
    assert first.events == {"pixe": PULSES, "pige": PULSES}
    assert first.lost == {"pixe": 0, "pige": 0}
    assert first.charge_coulomb == pytest.approx(3e-12)
    setup.scanning.close()


@pytest.mark.parametrize("pulse", [1, 7, 15])
async def test_a_detector_that_misses_one_pixel_voids_the_pass_and_is_named(setup: Setup, pulse: int) -> None:
    setup.pige.skip_pulse = pulse
    outcome = await setup.run()
    assert not outcome.good
    assert "pige advanced by 14 pixels, the scanner made 15" in outcome.why
    assert "pixe advanced" not in outcome.why


async def test_an_extra_pixel_pulse_in_one_detector_voids_the_pass(setup: Setup) -> None:
    original = setup.pixe.pulse

    def twice() -> None:
        original()
        if setup.pixe.pulses == 5:
            original()

    setup.pixe.pulse = twice  # type: ignore[method-assign]
    outcome = await setup.run()
    assert "pixe advanced by 16 pixels, the scanner made 15" in outcome.why


async def test_a_lost_event_is_found_by_the_slow_counter(setup: Setup) -> None:
    setup.pixe.drop_event = 4
    outcome = await setup.run()
    assert not outcome.good
    assert outcome.lost == {"pixe": 1, "pige": 0}
    assert "pixe counted 15 events, 14 arrived" in outcome.why


async def test_fifo_overflow_and_reboot_are_named(setup: Setup) -> None:
    setup.pixe.overflow = True
    setup.scanner.at_line = lambda: setattr(setup.pige, "rebooted", True)
    outcome = await setup.run()
    assert outcome.why.count("FIFO overflowed") == 1  # however often it was seen
    assert "times)" in outcome.why
    assert "pige rebooted" in outcome.why


async def test_a_detector_that_rebooted_is_prepared_again_before_the_next_pass(setup: Setup) -> None:
    assert (await setup.run()).good
    setup.pige.rebooted = True
    assert (await setup.run()).good
    assert not setup.pige.rebooted
    assert "pige: pige has rebooted: it is prepared again" in setup.recorder.lines


async def test_a_full_disk_ends_the_pass_at_once(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """The beam does not go on over the sample for events that nobody keeps."""

    def full(words: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(setup.scanning.feeds["pige"].raw, "append", full)
    lines: list[int] = []
    setup.scanner.at_line = lambda: lines.append(1)
    with pytest.raises(OSError, match="raw events cannot be written: No space left on device"):
        await setup.scanning.run_pass(Raster(4, 300, 40.0, 30.0, 0.01), 1, should_end=lambda: False)
    assert len(lines) < 150


async def test_a_lost_datagram_voids_the_pass_but_the_next_one_counts(setup: Setup) -> None:
    setup.scanning.feeds["pixe"].detector.fail = 0  # type: ignore[attr-defined]
    original = setup.scanner.run_lines

    async def failing(*args: Any, **more: Any) -> PassReport:
        report = await original(*args, **more)
        setup.pige.fail = 1
        return report

    setup.scanner.run_lines = failing  # type: ignore[method-assign]
    outcome = await setup.run(1)
    assert not outcome.good
    assert "datagram was lost" in outcome.why
    setup.scanner.run_lines = original  # type: ignore[method-assign]
    assert (await setup.run(2)).good


async def test_beam_loss_pauses_between_lines_and_the_pass_is_completed_afterwards(setup: Setup) -> None:
    lost_at: list[float] = []
    leased_while_away: list[bool] = []
    original = setup.clock.sleep

    async def sleep(lab_s: float) -> None:
        if lost_at and setup.scanning.beam_lost() and lab_s == 0.5:  # the scan is waiting
            leased_while_away.append("beam" in setup.guard.leases)
        await original(lab_s)
        if setup.pixe.pulses == 5 and not lost_at:
            lost_at.append(setup.clock.s)
            setup.scanning.see_beam(0.0)
            setup.clock.s += 2.0
        elif lost_at and setup.clock.s > lost_at[0] + 30.0:
            setup.scanning.see_beam(23e-12)

    setup.clock.sleep = sleep  # type: ignore[method-assign]
    outcome = await setup.run()
    assert outcome.good
    assert outcome.lines_done == 3
    assert setup.clock.s > 30.0
    assert setup.recorder.gaps == [
        "the beam is away: the scan waits, blanked",
        "the beam is back: the scan goes on",
    ]
    assert leased_while_away
    assert not any(leased_while_away)  # blanked: the wait may last longer than any lease


async def test_an_interlock_that_only_holds_voids_the_pass_and_not_the_run(setup: Setup) -> None:
    original = setup.scanner.run_lines

    async def blanked_in_mid_line(raster: Raster, first_line: int, **more: Any) -> PassReport:
        await original(raster, first_line, **more)
        setup.is_paused = True
        raise Refused("was told to blank the beam while lines were playing", device="io")

    setup.scanner.run_lines = blanked_in_mid_line  # type: ignore[method-assign]
    outcome = await setup.run(1)
    assert not outcome.good
    assert "beam" not in setup.guard.leases
    setup.is_paused = False
    setup.scanner.run_lines = original  # type: ignore[method-assign]
    setup.guard.refusal = "permit is latched"
    with pytest.raises(Refused):  # that is no hold
        await setup.run(2)


@pytest.mark.parametrize(("error", "request_"), [(BadReply, b"\x02"), (NoReply, b"\x02"), (BadLine, b"")])
async def test_one_exchange_or_line_that_fails_voids_the_pass_and_not_the_run(
    setup: Setup, error: type[DriverError], request_: bytes
) -> None:
    lines = 0

    def at_line() -> None:
        nonlocal lines
        lines += 1
        if lines == 2:
            raise error("reply of unit 0 instead of 1", device="io", request=request_)

    setup.scanner.at_line = at_line
    first, second = await setup.run(1), await setup.run(2)
    assert not first.good
    assert "reply of unit 0" in first.why
    assert setup.scanner.blanked == 1
    assert "beam" not in setup.guard.leases
    assert second.good


async def test_a_scanner_that_stays_away_or_hangs_ends_the_run(setup: Setup) -> None:
    def gone() -> None:
        raise NoReply("silent", device="io", request=b"\x02")

    def hangs() -> None:
        raise BadReply("a line did not come to its end in time", device="io")

    async def no_blank() -> None:
        gone()

    setup.scanner.at_line = hangs
    with pytest.raises(BadReply):
        await setup.run(1)
    setup.scanner.at_line = gone
    setup.scanner.blank = no_blank  # type: ignore[method-assign]
    with pytest.raises(NoReply):
        await setup.run(2)


async def test_a_reply_in_flight_at_the_end_of_a_pass_is_not_cut_off(setup: Setup) -> None:
    original = setup.pige.read_words

    async def slow() -> ListChunk:
        chunk = await original()  # taken out of the instrument: whoever drops it now has lost it
        for _ in range(20):
            await asyncio.sleep(0)
        return chunk

    setup.pige.read_words = slow  # type: ignore[method-assign]
    for n in range(1, 6):
        outcome = await setup.run(n)
        assert outcome.good, outcome.why


async def test_an_unknown_beam_current_counts_as_lost(setup: Setup) -> None:
    setup.scanning.see_beam(None)
    setup.clock.s += 1.5
    assert setup.scanning.beam_lost()


async def test_the_raw_file_holds_every_word_and_the_message_names_the_range(
    setup: Setup, tmp_path: Path
) -> None:
    await setup.run(1)
    await setup.run(2)
    end = [m for m in setup.reduction.messages if m["k"] == "pass_end"][1]
    raw = (tmp_path / "pixe.words").read_bytes()
    entry = end["raw"]["pixe"]
    words = raw[entry["offset"] : entry["offset"] + 4 * entry["words"]]
    assert words == b"".join(frame_word(f) + event_word(500) for f in range(16, 31))
    assert end["frame0"] == {"pixe": 15, "pige": 15}


async def test_events_are_numbered_without_gaps(setup: Setup) -> None:
    await setup.run()
    for name in ("pixe", "pige"):
        numbers = [m["i"] for m in setup.reduction.messages if m["k"] == "events" and m["det"] == name]
        assert numbers == list(range(len(numbers)))


async def test_background_expects_no_pulses(setup: Setup) -> None:
    outcome = await setup.scanning.run_background(1, 10.0, should_end=lambda: False)
    assert outcome.good
    assert setup.scanner.blanked == 1
