"""Steps of the frame detectors: expose."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from controller.exposures_resumed import HadImages
from controller.steps.context import Context, Ended

if TYPE_CHECKING:
    from controller.config.exposures import Expose
    from drivers.roles import FrameStatus

LOOK_S = 0.25  # wall: frames come in real time
SILENT_EXPOSURES = 10
SILENT_ENDS_S = 15.0  # wall seconds without any new frame


async def expose(context: Context, step: Expose) -> str:
    """Count frames until there are enough. A pause ends one exposure and begins another."""
    exposing, role = context.host.exposing, step.detector
    place = context.host.sequence.place_of(step)
    goal = _Goal(context, step, context.had_images.get(place, HadImages()))
    for found in await exposing.counted(context.counted.get(place, ())):
        goal.had_part(found)
    reason = goal.reached()  # an interrupted one may have had enough
    while reason is None:
        if context.paused:
            await context.sleep(0.5)
            reason = goal.reached()
            continue
        keep = max(0, step.keep_frames - goal.frames)
        lit, shutter = step.purpose != "dark", context.scanning.shutter
        await (shutter.open() if lit else shutter.close())
        try:
            n = await exposing.begin(role, step.name, step.purpose, keep, place)
            try:
                while (reason := goal.reached()) is None and not context.paused:
                    if lit:
                        shutter.keep()
                    await asyncio.sleep(LOOK_S)
                    goal.take(await exposing.look(role), exposing.progress.get(n, {}))
            finally:
                found = await exposing.end(role, n)
        finally:
            await shutter.close()
        goal.next_part(found)
    context.recorder.line(goal.said())
    if reason.startswith("time limit"):
        return await context.host.sequence.timed_out(step, f'exposure "{step.name}": {reason}')
    return reason


class _Goal:
    """When an exposure, with all its parts, has enough."""

    def __init__(self, context: Context, step: Expose, had: HadImages) -> None:
        self._context, self._step = context, step
        self._before = {"frames": had.frames, "photons": 0}  # of parts that have ended
        self._now = {"frames": 0, "photons": 0}
        self._lost = 0
        self._s_before: list[tuple[float, float]] = []  # of parts that have ended: value, error
        self._s_now: dict[str, Any] = {}
        self._refused = ""
        told = context.host.exposing.frames[step.detector].source
        self._exposure_s = float(told.get("exposure_s", 0.0))  # of one frame, where they are long
        self._frame_s = float(told.get("frame_s", 0.0))  # where they are many
        self._looked_s = context.clock.now_s()
        self._elapsed_s = had.exposed_s
        self._grew = (0, time.monotonic())

    @property
    def frames(self) -> int:
        """Frames of all parts."""
        return self._before["frames"] + self._now["frames"]

    def take(self, status: FrameStatus, progress: dict[str, Any]) -> None:
        """Take the newest counts."""
        seen = status.frames + status.held
        if seen != self._grew[0]:
            self._grew = (seen, time.monotonic())
        self._now["frames"] = status.frames
        self._now["photons"] = int(progress.get("photons", self._now["photons"]))  # not in every message
        self._s_now = progress.get("s", self._s_now)
        self._refused = str(progress["why"]) if progress.get("k") == "exposure_refused" else ""

    def next_part(self, found: dict[str, Any]) -> None:
        """An exposure has ended: what follows is added to it."""
        counters = found.get("counters") or {}
        self._lost += int(counters.get("missing", 0)) + int(counters.get("incomplete", 0))
        self._before["frames"] += int(found.get("frames", 0))
        self._before["photons"] += int(found.get("photons", 0))
        value, sigma = _of_s(found.get("s", self._s_now))
        if value is not None and sigma:
            self._s_before.append((value, sigma))
        self._s_now = {}
        self._now = {"frames": 0, "photons": 0}
        self._grew = (0, time.monotonic())

    def had_part(self, found: dict[str, Any]) -> None:
        """Take what an interrupted run had exposed before: frames come in real time."""
        self.next_part(found)
        counters = found.get("counters") or {}
        frames = sum(int(counters.get(name, 0)) for name in ("frames", "missing", "incomplete"))
        self._elapsed_s += frames * self._frame_s * self._context.clock.speed

    def _s(self) -> tuple[float | None, float | None]:
        """Return S of all parts, weighted by their errors, and its statistical error."""
        value, sigma = _of_s(self._s_now)
        parts = [*self._s_before, *([(value, sigma)] if value is not None and sigma else [])]
        if not parts:
            return value, sigma
        weight = sum(sigma**-2 for _, sigma in parts)
        return sum(value * sigma**-2 for value, sigma in parts) / weight, weight**-0.5

    def reached(self) -> str | None:
        """Return why there is enough, or None."""
        context, until = self._context, self._step.until
        now_s = context.clock.now_s()
        if not context.paused:
            self._elapsed_s += now_s - self._looked_s
        self._looked_s = now_s
        photons = self._before["photons"] + self._now["photons"]
        if context.finishing:
            return "stopped early"
        if self._refused:
            raise Ended(f'exposure "{self._step.name}" cannot be counted: {self._refused}')
        if until.frames is not None and self.frames >= until.frames:
            return f"{self.frames} frames"
        if until.duration_s is not None and self._elapsed_s >= until.duration_s:
            return "duration"
        if until.counts is not None and photons >= until.counts:
            return f"{photons} photons"
        sigma = self._s()[1]
        if until.uncertainty is not None and sigma is not None and sigma <= until.uncertainty.below:
            return f"uncertainty of S {sigma:.3g}"
        if self._elapsed_s >= self._step.timeout_s:
            return f"time limit of {self._step.timeout_s:g} s"
        silent_s = max(SILENT_ENDS_S, SILENT_EXPOSURES * self._exposure_s / context.clock.speed)
        if not context.paused and time.monotonic() - self._grew[1] > silent_s:
            raise Ended(f"{self._step.detector}: no frame for {silent_s:g} s")
        return None

    def said(self) -> str:
        """Return one line about the exposure."""
        text = f'exposure "{self._step.name}": {self._before["frames"]} frames, {self._lost} lost'
        if self._before["photons"]:
            text += f", {self._before['photons']} photons"
        value, sigma = self._s()
        if value is not None:
            text += f", S = {value:.4f} +- {sigma or 0.0:.4f}"
        return text


def _of_s(told: dict[str, Any]) -> tuple[float | None, float | None]:
    return told.get("value"), told.get("sigma_stat")
