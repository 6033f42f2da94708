"""Plays raster lines on a LabJack T7 through stream-out, one line per buffer, the next preloaded meanwhile.

The stream runs for the whole call; it begins, stands between lines, and ends on a blanked sample that
repeats. A line is started by SET_LOOP 2, 2, 3 (all three outputs together), and only when the samples show
that the line before has come to its blanked end. Nothing here unblanks the beam but that one write.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from drivers import labjack_registers as t7
from drivers.clock import Clock
from drivers.errors import BadReply, DriverError, Refused
from drivers.labjack_raster import SCAN_LIST_ENTRIES, LineBuffers, Plan
from drivers.labjack_settings import BeamCurrent
from drivers.labjack_stream import HEADER_WORDS, SAMPLES_PER_READ, Calibration, Tracker, parse_stream
from drivers.modbus import MOST_WRITTEN, Modbus, float_registers
from drivers.roles import LineReport, PassReport

X_OUT, Y_OUT, BITS_OUT = 0, 1, 2  # stream-outs
POLL_S = 0.05  # lab time between reads of the stream while a line plays
SHORTEST_POLL_WALL_S = 0.01  # so often at most, however fast the lab time runs
SHORTEST_SLEEP_WALL_S = 0.0005
OVERDUE_S = 2.0  # a line that ends later than this after its time has failed
RATE_TOLERANCE = 0.01
SAMPLES_PER_PACKET = 25  # means nothing in command-response mode, but must be allowed


class LinePlayer:
    """Plays one pass, or what is left of it.

    Args:
        io: the box.
        plan: the raster, checked.
        monitor: the beam current input.
        calibration: of that input.
        clock: lab time.
        name: for messages.
        may_go_on: raises when somebody has blanked the beam since the pass began.
        meanwhile: called before each line and while it plays (renews the watchdog when it is due).
    """

    def __init__(
        self,
        io: Modbus,
        plan: Plan,
        monitor: BeamCurrent,
        calibration: Calibration,
        *,
        clock: Clock,
        name: str,
        may_go_on: Callable[[], None],
        meanwhile: Callable[[], Awaitable[None]],
    ) -> None:
        self._io = io
        self._plan = plan
        self._monitor = monitor
        self._calibration = calibration
        self._clock = clock
        self._name = name
        self._may_go_on = may_go_on
        self._meanwhile = meanwhile
        self._poll_s = max(POLL_S, SHORTEST_POLL_WALL_S * clock.speed)
        self._scan_s = 1.0 / plan.scan_rate_hz
        self.current: tuple[float | None, float] = (None, time.monotonic())  # A and when it arrived

    async def play(
        self,
        first_line: int,
        *,
        on_line: Callable[[LineReport], None],
        should_stop: Callable[[], bool],
    ) -> PassReport:
        """Play the lines ``first_line``..ny-1; the stream is left running, on a blanked sample."""
        await self._configure(first_line)
        tracker = await self._start()
        done: list[LineReport] = []
        stopped = False
        await self._load(self._plan.buffers(first_line))
        for number in range(first_line, self._plan.raster.ny):
            await self._meanwhile()  # a line that begins on a hungry watchdog would be cut off in its middle
            if should_stop():
                stopped = True
                break
            self._may_go_on()
            tracker.expect(number)
            await self._io.write_u32(
                t7.STREAM_OUT_SET_LOOP, t7.SET_LOOP_WAIT, t7.SET_LOOP_WAIT, t7.SET_LOOP_SYNCH
            )
            if number + 1 < self._plan.raster.ny:
                await self._load(self._plan.buffers(number + 1))
            await self._follow(tracker)
            done.append(tracker.report())
            on_line(done[-1])
        return PassReport(
            first_line=first_line,
            lines_done=len(done),
            pulses=len(done) * (self._plan.raster.nx + 1),
            missed_refills=sum(report.late for report in done),
            stopped=stopped,
            lines=tuple(done),
        )

    async def _configure(self, first_line: int) -> None:
        """Set up outputs and stream, with one blanked sample in the buffers."""
        scanner, buffer_bytes = self._plan.scanner, self._plan.buffer_bytes
        await self._io.write_u32(t7.STREAM_OUT_ENABLE, 0, 0, 0)
        await self._io.write_u32(
            t7.STREAM_OUT_TARGET, t7.DAC + 2 * scanner.x_dac, t7.DAC + 2 * scanner.y_dac, t7.FIO_STATE
        )
        await self._io.write_u32(t7.STREAM_OUT_BYTES, buffer_bytes, t7.STREAM_OUT_LEAST_BYTES, buffer_bytes)
        await self._io.write_u32(t7.STREAM_OUT_ENABLE, 1, 1, 1)
        await self._load(self._plan.parked(first_line))
        await self._io.write_u32(t7.STREAM_OUT_SET_LOOP, *[t7.SET_LOOP_NOW] * 3)
        words = [
            *float_registers([self._plan.scan_rate_hz]),
            0, SCAN_LIST_ENTRIES,
            0, SAMPLES_PER_PACKET,
            0, 0,  # settling: automatic
            0, 0,  # resolution index: the fastest
            0, t7.STREAM_BUFFER_BYTES,
        ]  # fmt: skip
        await self._io.write_registers(t7.STREAM_SCAN_RATE, words)
        await self._io.write_u32(t7.STREAM_CLOCK_SOURCE, 0)
        await self._io.write_u32(t7.STREAM_TARGET, t7.COMMAND_RESPONSE, 0, 0)  # data type 0, without end
        await self._io.write_u32(t7.STREAM_TRIGGER, 0)
        inputs = (t7.AIN + 2 * self._monitor.ain, t7.FIO_STATE)
        outputs = (t7.STREAM_OUT + X_OUT, t7.STREAM_OUT + Y_OUT, t7.STREAM_OUT + BITS_OUT)
        await self._io.write_u32(t7.STREAM_SCAN_LIST, *inputs, *outputs)
        actual_hz = (await self._io.read_f32(t7.STREAM_SCAN_RATE))[0]
        if not abs(actual_hz / self._plan.scan_rate_hz - 1.0) <= RATE_TOLERANCE:
            wanted = f"{self._plan.scan_rate_hz:g} scans/s"
            raise Refused(f"the stream would run at {actual_hz:g} instead of {wanted}", device=self._name)
        self._scan_s = 1.0 / actual_hz

    async def _start(self) -> Tracker:
        self._may_go_on()
        before_s = self._clock.now_s()
        await self._io.write_u32(t7.STREAM_ENABLE, 1)
        return Tracker(
            self._plan,
            self._calibration,
            scale_a_per_v=self._monitor.scale_a_per_v,
            scan_s=self._scan_s,
            started_s=(before_s + self._clock.now_s()) / 2,
            allowed_gap_s=self._allowed_s(self._plan.scanner.allowed_gap_s),
        )

    async def _load(self, buffers: LineBuffers) -> None:
        """Write a line into the buffers; it waits there for SET_LOOP."""
        await self._io.write_u32(t7.STREAM_OUT_LOOP_VALUES, 1, 1, 1)
        await self._write_all(t7.STREAM_OUT_F32 + 2 * X_OUT, float_registers(buffers.x_v))
        await self._write_all(t7.STREAM_OUT_F32 + 2 * Y_OUT, float_registers(buffers.y_v))
        await self._write_all(t7.STREAM_OUT_U16 + BITS_OUT, list(buffers.bits))

    async def _write_all(self, register: int, words: list[int]) -> None:
        most = MOST_WRITTEN // 2 * 2  # floats stay whole
        for start in range(0, len(words), most):
            await self._io.write_registers(register, words[start : start + most])

    async def _follow(self, tracker: Tracker) -> None:
        """Read the stream until the line has come to its blanked end."""
        line_s = self._plan.line_scans * self._scan_s
        deadline_s = self._clock.now_s() + line_s + self._allowed_s(OVERDUE_S)
        while True:
            await self._read(tracker)
            if tracker.ended:
                return
            self._may_go_on()
            if self._clock.now_s() > deadline_s:
                raise BadReply("a line did not come to its end in time", device=self._name)
            await self._meanwhile()
            shortest_s = SHORTEST_SLEEP_WALL_S * self._clock.speed
            await self._clock.sleep(max(shortest_s, min(self._poll_s, tracker.remaining_s)))

    async def _read(self, tracker: Tracker) -> None:
        """Take all that the stream has."""
        full = True
        while full:
            words = await self._io.read_holding(t7.STREAM_DATA, HEADER_WORDS + SAMPLES_PER_READ)
            reply = parse_stream(words)
            tracker.feed(reply)
            if reply.samples:
                self.current = (tracker.current_a, time.monotonic())
            full = reply.full

    def _allowed_s(self, deadline_s: float) -> float:
        """Lab time that a deadline allows at this speed."""
        return self._clock.wall_timeout_s(deadline_s) * self._clock.speed


async def to_its_end(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run to the end, however often this task is cancelled meanwhile; then be cancelled."""
    task = asyncio.ensure_future(coroutine)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except DriverError:
            break
    task.result()
    if cancelled is not None:
        raise cancelled
