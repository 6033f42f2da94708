"""HEXITEC 80 x 80 camera: commands on a serial line (or TCP), frames as UDP packets to an acquire process.

This driver never touches a frame. It tells the acquire process when to count through the header of its ring,
and reads the counters there. Register table and conversions: ``hexitec_commands``; packets:
``hexitec_packets``. Times of the bias refresh are wall time: the camera's physics and its frames are.

**Bias refresh.** CdTe polarises under bias. Every ``refresh_interval_s`` the bias goes to ``refresh_bias_v``
for ``refresh_s`` and back, and settles for ``settle_s``; whole frames of that time are counted as held, never
used, so the live time is that of the good frames only.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from drivers import hexitec_commands as wire
from drivers.clock import Clock
from drivers.errors import DriverError, NoReply, OutOfRange, Refused
from drivers.frame_ring import Mode, Ring, RingError, Word, ring_path
from drivers.hexitec_packets import Layout
from drivers.line import Line
from drivers.roles import FrameStatus, Identity, Role

T = TypeVar("T")

REPLY_S = 1.0  # as the public driver has it
OFF_S = 0.3
RECEIVE_BUFFER_BYTES = 4 << 20  # 36 ms at 117 MB/s; with 212 992 bytes 0.14 % of the packets were lost
FAST_BYTES_PER_S = 20e6  # from here on that much is demanded
ANSWER_S = 2.0  # for the acquire process
SILENCES = 2  # the first may have been under way when the camera was stopped
BEAT_S = 1.0  # an acquire process that has not looked around for so long is dead or frozen
QUIET_S = 1.0  # no frame for so long while the camera should send
RATE_OFF = 0.02  # of the frame rate that is worth a word
RATE_AFTER_S = 5.0
DEW_MARGIN_K = 2.0
BIAS_OFF_V = 25.0  # the monitor may differ so much from what was set
RMEM = Path("/proc/sys/net/core/rmem_max")


class Hexitec:
    """One camera."""

    roles = frozenset({Role.FRAME_DETECTOR})

    def __init__(self, line: Line, *, name: str, clock: Clock, settings: Mapping[str, Any]) -> None:
        """See ``controller.config.instruments.hexitec`` for the settings."""
        self.name = name
        self._line, self._settings = line, settings
        self._layout = Layout(
            settings["rows"], settings["columns"], settings["packet_bytes"], settings["header"]
        )
        self._frame_s = 1.0 / settings["frame_rate_hz"]
        self._ring: Ring | None = None
        self._running = False
        self._biased = False
        self._refreshing: asyncio.Task[None] | None = None
        self._trouble = ""
        self._started_s = 0.0
        self._seen = (0, 0.0)  # frames at the last look, and when they last grew

    # --- who and what ------------------------------------------------------------------------------------

    async def identify(self) -> Identity:
        """Read the firmware and the size of the detector; Refused if it has another one."""
        numbers = [await self._register(register) for register in (wire.CUSTOMER, wire.PROJECT, wire.VERSION)]
        columns, rows = 4 * await self._register(wire.WIDTH), await self._register(wire.HEIGHT)
        if (rows, columns) != (self._layout.rows, self._layout.columns):
            raise Refused(
                f"this camera has {rows} x {columns} pixels, the station file says {self._layout.rows} x "
                f"{self._layout.columns}", device=self.name,
            )  # fmt: skip
        return Identity(
            "Quantum Detectors or STFC", f"HEXITEC {rows} x {columns}", None, ".".join(map(str, numbers))
        )

    async def prepare(self) -> list[str]:
        """Stop sending, take the bias off, look at the machine; Refused if frames would be lost here."""
        await self.off()
        self._demand_buffer()
        bias_v = self._settings["bias_v"]
        notes = [f"{self.name}: no watchdog: if this computer dies the bias of {bias_v:g} V stays on"]
        whole = self._settings["whole_frames_bytes"]
        notes.append(
            f"{self.name}: hits are recorded, 2.3 MB/s at 1 % occupancy; whole frames where a step keeps "
            f"them, {whole / 1e9:g} GB ({whole // self._layout.frame_bytes} frames) in a run at most"
        )
        if not self._settings.get("refresh_interval_s"):
            notes.append(f"{self.name}: no bias refresh: CdTe polarises, and energies drift within minutes")
        found = await self._environment()
        notes += [f"{self.name}: {text}" for text in self._dampness(found)]
        return notes

    def _demand_buffer(self) -> None:
        """Refuse a machine whose kernel holds too little of the frames while somebody else is busy."""
        rate = self._layout.frame_bytes / self._frame_s
        with contextlib.suppress(OSError, ValueError):
            most = int(RMEM.read_text())
            if rate > FAST_BYTES_PER_S and most < RECEIVE_BUFFER_BYTES:
                raise Refused(
                    f"{rate / 1e6:.0f} MB/s of frames need a receive buffer of {RECEIVE_BUFFER_BYTES} bytes, "
                    f"the kernel gives {most}; as root: sysctl -w net.core.rmem_max={RECEIVE_BUFFER_BYTES}",
                    device=self.name,
                )

    @property
    def source(self) -> Mapping[str, Any]:
        """Where the frames of this exposure are, and what makes photons of them."""
        settings = self._settings
        try:
            ring = self._open_ring()
        except NoReply:  # the acquire process is not there yet
            return {"kind": "ring"}
        found = {
            "kind": "ring", "path": str(ring.path), "slots": ring.slots, "rows": self._layout.rows,
            "columns": self._layout.columns, "interleaved": settings["interleaved"],
            "first": ring.words[Word.FIRST], "exposure": ring.words[Word.EXPOSURE], "frame_s": self._frame_s,
            "threshold_kev": settings["threshold_kev"], "sharing": settings["sharing"],
            "neighbours": settings["neighbours"], "whole_frames_bytes": settings["whole_frames_bytes"],
        }  # fmt: skip
        keys = ("calibration", "gain_kev", "offset_kev")
        return {**found, **{key: settings[key] for key in keys if key in settings}}

    @property
    def position(self) -> int:
        """Position in the ring behind the last frame."""
        return self._open_ring().words[Word.WRITTEN]

    # --- exposures ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bias on, counters to zero, frames on."""
        if not self._biased:
            await self._bias_on()
        ring = await self._find_ring()
        words = ring.words
        words[Word.MODE] = Mode.COUNT
        words[Word.EXPOSURE] += 1
        await self._answered(lambda: words[Word.SEEN] == words[Word.EXPOSURE])
        self._trouble, self._started_s = "", time.monotonic()
        self._seen = (0, self._started_s)
        await self._write(wire.STATE_MACHINE, 1)
        self._running = True
        if self._settings.get("refresh_interval_s"):
            self._refreshing = asyncio.create_task(self._refresh())

    async def stop(self) -> None:
        """Frames off; returns when nothing is on its way any more."""
        await self._end_refresh()
        try:
            await self._write(wire.STATE_MACHINE, 0)
        finally:
            self._running = False
            if self._ring is not None:
                await self._come_to_rest(self._ring)

    async def _come_to_rest(self, ring: Ring) -> None:
        words = ring.words
        words[Word.MODE] = Mode.ENDING
        before = words[Word.SILENT]
        try:
            await self._answered(lambda: words[Word.SILENT] >= before + SILENCES)
        finally:
            words[Word.MODE] = Mode.IDLE

    async def status(self) -> FrameStatus:
        """Return counters and environment; the counters of the last exposure while none runs."""
        found = await self._environment()
        now_s, counts = time.monotonic(), self.counts()
        frames = counts["frames"]
        live = frames - counts["held"]
        if frames != self._seen[0] or not self._running:
            self._seen = (frames, now_s)
        return FrameStatus(
            now_s, self._running, live, counts["missing"], counts["doubled"], counts["incomplete"],
            held=counts["held"], live_s=live * self._frame_s, reading=self._said(found),
            problems=(*self._dampness(found), *self._troubles(counts, now_s)),
        )  # fmt: skip

    def counts(self) -> dict[str, int]:
        """Return all counters of the acquire process for this exposure; zeros where there is none."""
        with contextlib.suppress(NoReply):
            return self._open_ring().counts()
        return dict.fromkeys(("frames", "held", "missing", "doubled", "incomplete", "restarts", "resets"), 0)

    def _troubles(self, counts: Mapping[str, int], now_s: float) -> list[str]:
        if not self._running or self._ring is None:
            return []
        found = [self._trouble] if self._trouble else []
        if self._ring.beat_age_s() > BEAT_S:
            found.append("the acquire process is dead or frozen")
        elif now_s - self._seen[1] > QUIET_S:
            found.append(f"no frame for {now_s - self._seen[1]:.0f} s")
        passed = now_s - self._started_s
        number = counts["frames"] + counts["missing"] + counts["incomplete"]
        if passed > RATE_AFTER_S and abs(number * self._frame_s / passed - 1.0) > RATE_OFF and not found:
            found.append(
                f"{number / passed:.0f} frames/s come, the station file says {1.0 / self._frame_s:.0f}"
            )
        if counts["restarts"]:
            found.append(f"the acquire process was started again {counts['restarts']} times")
        if counts["resets"]:
            found.append(f"the camera began to number anew {counts['resets']} times")
        return found

    # --- bias --------------------------------------------------------------------------------------------

    async def _bias_on(self) -> None:
        """Put the bias on, unless water could condense; wait until it has settled; compare the monitor."""
        damp = self._dampness(await self._environment())
        if damp:
            raise Refused("no bias: " + "; ".join(damp), device=self.name)
        await self._set_bias(self._settings["bias_v"])
        self._biased = True
        await asyncio.sleep(self._settings["settle_s"])
        fields = await self._fields(wire.OPERATING)
        seen = wire.measured_bias_v(fields)
        if abs(seen - self._settings["bias_v"]) > BIAS_OFF_V:
            await self.off()
            raise Refused(f"the bias is {seen:.0f} V, not {self._settings['bias_v']:g} V", device=self.name)

    async def _set_bias(self, bias_v: float, *, urgent: bool = False) -> None:
        try:
            request, code = wire.set_bias(bias_v), wire.bias_code(bias_v)
        except ValueError as error:
            raise OutOfRange(str(error), device=self.name) from None
        (got,) = await self._ask(
            request, lambda buffer: wire.values(buffer, wire.HIGH_VOLTAGE), OFF_S if urgent else REPLY_S,
            urgent=urgent,
        )  # fmt: skip
        if got != code:
            raise Refused(
                f"the bias was set to {wire.bias_of(got):.0f} V, not {bias_v:g} V", device=self.name
            )

    async def _refresh(self) -> None:
        """Refresh the bias for as long as the exposure runs."""
        s, ring = self._settings, self._open_ring()
        while True:
            await asyncio.sleep(s["refresh_interval_s"])
            ring.words[Word.MODE] = Mode.HOLD
            try:
                await self._set_bias(s["refresh_bias_v"])
                await asyncio.sleep(s["refresh_s"])
                await self._set_bias(s["bias_v"])
                await asyncio.sleep(s["settle_s"])
            except DriverError as error:  # frames stay held: without the bias they are worth nothing
                self._trouble = f"bias refresh failed: {error.message}"
                return
            ring.words[Word.MODE] = Mode.COUNT

    async def _end_refresh(self) -> None:
        task, self._refreshing = self._refreshing, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # --- ends --------------------------------------------------------------------------------------------

    async def off(self) -> None:
        """Frames off, bias off; bounded, and before everybody else on the line."""
        await self._end_refresh()
        self._running = self._biased = False
        self._line.interrupt()
        try:
            await self._write(wire.STATE_MACHINE, 0, urgent=True)
        finally:  # not before: what was sent until now is counted
            if self._ring is not None and self._ring.words[Word.MODE] != Mode.IDLE:
                self._ring.words[Word.MODE] = Mode.ENDING
        await self._set_bias(0.0, urgent=True)

    async def close(self) -> None:
        """Release line and ring."""
        await self._end_refresh()
        ring, self._ring = self._ring, None
        if ring is not None:
            ring.close()
        await self._line.close()

    # --- inside ------------------------------------------------------------------------------------------

    def _open_ring(self) -> Ring:
        if self._ring is None:
            port = self._settings["listen_port"]
            try:
                self._ring = Ring(ring_path(port), self._settings["ring_frames"], self._layout.frame_bytes)
            except RingError as error:
                raise NoReply(f"no acquire process for UDP port {port}: {error}", device=self.name) from error
        return self._ring

    async def _find_ring(self) -> Ring:
        """Return the ring of an acquire process that may be about to start. Raises NoReply."""
        until_s = time.monotonic() + ANSWER_S
        while True:
            try:
                return self._open_ring()
            except NoReply:
                if time.monotonic() > until_s:
                    raise
            await asyncio.sleep(0.05)

    async def _answered(self, done: Callable[[], bool]) -> None:
        """Wait until the acquire process has done something. Raises NoReply."""
        try:
            async with asyncio.timeout(ANSWER_S):
                while not done():
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise NoReply(
                f"the acquire process did not answer within {ANSWER_S:g} s", device=self.name
            ) from None

    def _dampness(self, found: wire.Environment) -> list[str]:
        if math.isnan(found.sensor_k):
            return ["its thermistor is open or shorted"]
        if found.sensor_k < found.dew_point_k + DEW_MARGIN_K:
            return [
                f"the sensor at {found.sensor_k:.1f} K is not {DEW_MARGIN_K:g} K above the dew point of "
                f"{found.dew_point_k:.1f} K: water would condense"
            ]
        return []

    def _said(self, found: wire.Environment) -> str:
        bias = f"{self._settings['bias_v']:g} V" if self._biased else "no bias"
        return (
            f"sensor {found.sensor_k:.1f} K, room {found.ambient_k:.1f} K with {found.humidity:.0%} "
            f"humidity, {bias}"
        )

    async def _environment(self) -> wire.Environment:
        return wire.environment(await self._fields(wire.ENVIRONMENT))

    async def _fields(self, code: int) -> list[int]:
        return await self._ask(wire.command(code), lambda buffer: wire.values(buffer, code))

    async def _register(self, register: int) -> int:
        return await self._ask(wire.read_register(register), wire.register_value)

    async def _write(self, register: int, value: int, *, urgent: bool = False) -> None:
        await self._ask(
            wire.write_register(register, value), lambda buffer: wire.written(buffer, register, value),
            OFF_S if urgent else REPLY_S, urgent=urgent,
        )  # fmt: skip

    async def _ask(
        self, request: bytes, parse: Callable[[bytes], T | None], timeout_s: float = REPLY_S, *,
        urgent: bool = False,
    ) -> T:  # fmt: skip
        return await self._line.ask(request, parse, timeout_s=timeout_s, device=self.name, urgent=urgent)
