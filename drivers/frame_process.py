"""The host's side of a camera: starts the process that reads it, tells it when, and hears of its images.

Whatever that process does, nothing here waits for it for long: it is spoken to through pipes, its silence is
a problem in plain words, and one that does not end is left to the kernel and replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from drivers.clock import Clock
from drivers.errors import NoReply, Refused
from drivers.line import Line
from drivers.roles import FrameStatus, Identity, ImageRecord, Role

ANSWER_S = 10.0  # wall: a fresh interpreter on a busy machine; folders are read in it, not here
STOP_S = 2.0
SILENT_S = 5.0  # wall: a process that says nothing for so long hangs, with its file system mostly
GONE_S = 0.5
MOST_WAITING = 10_000  # images that nobody has asked about
LINE_BYTES = 1 << 20
SHORTEST_S = 0.05  # wall: no folder is listed more often, however fast lab time runs
COUNTERS = ("frames", "lost", "repeated", "held", "incomplete")


class FrameProcess:
    """A camera that another process reads; drivers say what it is told.

    Args:
        line: names the place; nothing is sent over it.
        name: for messages, as in the station file.
        clock: lab time: exposures and delays pass in it.
        settings: ``pixels`` (columns, rows), ``exposure_s``, ``period_s`` and the driver's own.
    """

    def __init__(self, line: Line, *, name: str, clock: Clock, settings: Mapping[str, Any]) -> None:
        self.name = name
        self._line = line
        self._clock = clock
        self._settings = dict(settings)
        self._folder: str | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._images: deque[ImageRecord] = deque()
        self._counters: dict[str, Any] = {}
        self._heard_s = time.monotonic()
        self._answers: dict[str, asyncio.Event] = {}
        self._running = False
        self._trouble = ""
        self._restarts = 0
        self._last: int | None = None  # number of the newest image
        self._before: dict[str, int] = {}  # of processes that died within this exposure

    @property
    def roles(self) -> frozenset[Role]:
        """A detector of frames."""
        return frozenset({Role.FRAME_DETECTOR})

    @property
    def source(self) -> Mapping[str, Any]:
        """What the reduction must know of the images."""
        columns, rows = self._settings["pixels"]
        return {"kind": "images", "shape": [rows, columns], "exposure_s": self._settings["exposure_s"]}

    def told(self) -> dict[str, Any]:
        """Return what the process is told; wall seconds."""
        columns, rows = self._settings["pixels"]
        return {"shape": [rows, columns], "period_s": self.wall_s(self._settings["period_s"])}

    def wall_s(self, lab_s: float) -> float:
        """Return how long a time of the camera takes on the wall."""
        return max(lab_s / self._clock.speed, SHORTEST_S)

    # --- who it is ---------------------------------------------------------------------------------------

    async def identify(self) -> Identity:
        """Say where the images come from: files tell no maker and no serial number."""
        return Identity(self._settings.get("maker", "camera"), self._line.where)

    async def prepare(self) -> list[str]:
        """Start the process afresh and hear whether it can see its images.

        Raises:
            NoReply: it says nothing; a file system that hangs, mostly.
            Refused: the place cannot be read; the text says why.
        """
        await self._end()
        event = self._answers["ready"] = asyncio.Event()
        try:
            await self._spawn()
            async with asyncio.timeout(ANSWER_S):
                await event.wait()
        except TimeoutError:
            await self._end()
            text = f"{self._line.where}: nothing was heard for {ANSWER_S:g} s: does its file system hang?"
            raise NoReply(text, device=self.name) from None
        finally:
            self._answers.pop("ready", None)
        if self._trouble:
            raise Refused(f"cannot see its images: {self._trouble}", device=self.name)
        return []

    async def off(self) -> None:
        """Stop counting; a camera energises nothing."""
        await self.stop()

    async def close(self) -> None:
        """End the process."""
        await self._end()
        await self._line.close()

    # --- images ------------------------------------------------------------------------------------------

    def keep_in(self, folder: str) -> None:
        """Say where the images of this exposure go."""
        self._folder = folder

    async def start(self) -> None:
        """Begin to count, from zero. Raises Refused without a folder, NoReply when nothing answers."""
        if self._folder is None:
            raise Refused("has no folder for its images", device=self.name)
        if self._process is None or self._process.returncode is not None:
            await self._spawn()
        self._images.clear()
        self._before, self._counters, self._restarts, self._last = {}, {}, 0, None
        self._running = True
        try:
            await self._ask({"do": "start", "folder": self._folder}, "started", ANSWER_S)
        except NoReply:
            self._running = False
            await self._end()
            raise

    async def stop(self) -> None:
        """End counting. One that does not answer hangs: it is left behind, what it had told counts."""
        if not self._running:
            return
        self._running = False
        try:
            await self._ask({"do": "stop"}, "stopped", STOP_S)
        except NoReply:
            self._counters["problems"] = [self._silence() or "it did not answer when it was told to stop"]
            await self._end()

    async def status(self) -> FrameStatus:
        """Return the counters; never waits."""
        await self._revive()
        counted = {name: int(self._counters.get(name, 0)) + self._before.get(name, 0) for name in COUNTERS}
        problems = [*self._counters.get("problems", ())]
        if silence := self._silence():
            problems.append(silence)
        if self._restarts:
            problems.append(f"the process that reads it died and was started again {self._restarts} times")
        columns, rows = self._settings["pixels"]
        return FrameStatus(
            monotonic_s=time.monotonic(), running=self._running, problems=tuple(problems),
            reading=f"{columns} x {rows} pixels from {self._line.where}", **counted,
        )  # fmt: skip

    async def next_images(self) -> list[ImageRecord]:
        """Return the images that have come since the last call."""
        await self._revive()
        found = list(self._images)
        self._images.clear()
        return found

    # --- inside ------------------------------------------------------------------------------------------

    def _silence(self) -> str:
        age_s = time.monotonic() - self._heard_s
        if not self._running or age_s < SILENT_S:
            return ""
        return f"nothing was heard of {self._line.where} for {age_s:.0f} s: does its file system hang?"

    async def _spawn(self) -> None:
        told = json.dumps(self.told())
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "drivers.frame_worker", told,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE_BYTES,
        )  # fmt: skip
        self._heard_s = time.monotonic()
        self._reader = asyncio.create_task(self._listen(self._process))

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            return
        with contextlib.suppress(ValueError, ConnectionError):  # a line without end: no process of ours
            while line := await process.stdout.readline():
                self._take(json.loads(line))

    def _take(self, message: Mapping[str, Any]) -> None:
        self._heard_s = time.monotonic()
        kind = str(message["k"])
        if kind == "ready":
            self._trouble = "; ".join(message["problems"])
        if self._running or kind == "stopped":
            self._counters = {name: message[name] for name in (*COUNTERS, "problems")}
        if kind == "image" and len(self._images) < MOST_WAITING:
            said = message["image"]
            self._last = int(said["number"])
            self._images.append(ImageRecord(
                int(said["number"]), str(said["path"]), int(said["nbytes"]), str(said["sha256"]),
                str(said["origin"]), said["time_s"], float(said["seen_s"]),
                float(self._settings["exposure_s"]),
            ))  # fmt: skip
        if kind in self._answers:
            self._answers[kind].set()

    async def _ask(self, command: Mapping[str, Any], answer: str, patience_s: float) -> None:
        process, event = self._process, asyncio.Event()
        self._answers[answer] = event
        try:
            if process is None or process.stdin is None or process.returncode is not None:
                raise NoReply("the process that reads it has ended", device=self.name)
            process.stdin.write(json.dumps(command).encode() + b"\n")  # a few bytes: the pipe holds them
            async with asyncio.timeout(patience_s):
                await event.wait()
        except (TimeoutError, ConnectionError) as error:
            text = f"{self._line.where}: no answer within {patience_s:g} s"
            raise NoReply(text, device=self.name) from error
        finally:
            self._answers.pop(answer, None)

    async def _revive(self) -> None:
        """Start the process again when it has died; its counts are kept, what it missed is not known."""
        if not self._running or self._process is None or self._process.returncode is None:
            return
        for name in COUNTERS:
            self._before[name] = self._before.get(name, 0) + int(self._counters.get(name, 0))
        self._counters = {}
        self._restarts += 1
        await self._spawn()
        if self._process.stdin is not None:
            again = {"do": "start", "folder": self._folder, "after": self._last}
            self._process.stdin.write(json.dumps(again).encode() + b"\n")

    async def _end(self) -> None:
        """End the process; one that hangs in the kernel dies when the kernel lets it."""
        process, self._process = self._process, None
        reader, self._reader = self._reader, None
        if process is not None and process.returncode is None:
            if process.stdin is not None:
                process.stdin.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), GONE_S)
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), GONE_S)
        if reader is not None:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
