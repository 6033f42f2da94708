"""The owner of the frame detectors: begins and ends exposures, and knows what was counted of them.

Frames never come here. A detector says where they are (``source``), reduce reads them there, and what both
counted is compared at the end of each exposure.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from controller.rawfile import read_index
from drivers.errors import DriverError, NoReply
from drivers.roles import ImageDetector

if TYPE_CHECKING:
    from controller.exposures_resumed import Resumed
    from controller.record import Recorder
    from drivers.clock import Clock
    from drivers.roles import FrameDetector, FrameStatus

Message = dict[str, Any]
KINDS = ("exposure_progress", "exposure_checked", "exposure_refused", "hits")
CHECKED_S = 60.0  # wall; a reduce that was started again counts everything from the record first
RECOUNTED_S = 600.0  # wall; the same after a resume, shutter closed: an hour of hits, on a busy machine


@runtime_checkable
class Counting(Protocol):
    """A frame detector whose frames lie in a ring."""

    @property
    def position(self) -> int:
        """Position behind the last frame."""
        ...

    def counts(self) -> dict[str, int]:
        """All counters of this exposure."""
        ...


class Sender(Protocol):
    """What is needed of ``Reduction``."""

    def send(self, message: Message) -> bool:
        """Write into the index, and queue."""
        ...

    async def sync(self) -> None:
        """Return when the index is on the disk."""
        ...


class Exposing:
    """One exposure of each detector at a time.

    Args:
        frames: detectors by role.
        reduction: takes messages.
        recorder: of the run.
        clock: lab time, for gaps.
        raw: folder of raw data: its index knows which numbers are taken.
        stamp: the state of the cell now, for images.
    """

    def __init__(
        self,
        frames: Mapping[str, FrameDetector],
        reduction: Sender,
        recorder: Recorder,
        clock: Clock,
        raw: Path,
        stamp: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self.frames = frames
        self._reduction, self._recorder, self._clock = reduction, recorder, clock
        self._raw, self._stamp = raw, stamp
        self.n = 0
        if frames:
            with contextlib.suppress(OSError):
                told = (m.get("n") for m in read_index(raw) if m.get("k") == "exposure")
                self.n = max((n for n in told if isinstance(n, int)), default=0)
        self.progress: dict[int, Message] = {}
        self.results: list[Message] = _earlier(raw, self.n) if self.n else []
        self._known: set[tuple[int, str]] = set()  # parts of hit lists that have their row
        self._running: dict[str, int] = {}
        self._ended: dict[int, asyncio.Event] = {}
        self._began_s: dict[int, float] = {}
        self._interrupted: dict[int, str] = {}  # role by number: of before a resume, not yet counted
        self._said: set[str] = set()

    def take_up(self, before: Resumed, rows: Container[tuple[int, int]]) -> None:
        """End what an interruption has cut off, with every image that lies on the disk.

        Args:
            before: what index and images tell.
            rows: number of exposure and of image of every row in the journal.
        """
        for role, line in before.indexed:
            if (line["n"], line["number"]) not in rows:  # the row was not written any more
                self._recorder.post("image", role, _row(line))
        for one in before.unfinished:
            self._interrupted[one.n] = one.role
            for message in one.messages:
                self._reduction.send(message)
                if message["k"] == "image" and (one.n, message["number"]) not in rows:
                    self._recorder.post("image", one.role, _row(message))
            self._recorder.line(f'resume: exposure "{one.name}" had {one.frames} images')

    def end_rings(
        self, cut_off: Mapping[int, Message], seen: Mapping[int, int], rows: Iterable[tuple[int, str]]
    ) -> None:
        """End the exposures in a ring that died with their host: the parts on the disk are what counts.

        To be called before any reduce is told of them.

        Args:
            cut_off: their beginnings in the index, by number.
            seen: frames that had come, by the last checkpoint.
            rows: number of exposure and file of every part that has its row in the journal.
        """
        self._known = set(rows)
        for n, begun in cut_off.items():
            self._interrupted[n] = str(begun["role"])
            had = {"seen": seen[n]} if n in seen else {}
            self._reduction.send({"k": "exposure_end", "n": n, "position": 0, "interrupted": True, **had})

    async def counted(self, numbers: Collection[int]) -> list[Message]:
        """Return what came of earlier exposures, when reduce has counted their record again."""
        until_s = time.monotonic() + (RECOUNTED_S if numbers else 0.0)
        while True:
            found = [one for one in self.results if one["n"] in numbers]
            refused = {n for n in numbers if self.progress.get(n, {}).get("k") == "exposure_refused"}
            if len(found) + len(refused) >= len(numbers):
                return found
            if time.monotonic() > until_s:
                text = f"what was exposed before is not counted after {RECOUNTED_S:g} s: all is exposed again"
                self._recorder.gap("reduce", text, self._clock.now_s())
                return []
            await asyncio.sleep(0.1)

    def received(self) -> list[list[int]]:
        """Return number and frames so far of each exposure in a ring, for a checkpoint."""
        found = []
        for role, n in self._running.items():
            detector = self.frames[role]
            if isinstance(detector, Counting):
                with contextlib.suppress(NoReply):
                    found.append([n, detector.position - int(detector.source.get("first", 0))])
        return found

    async def begin(self, role: str, name: str, purpose: str, keep: int, step: tuple[int, ...] = ()) -> int:
        """Start a detector; return the number of the exposure. Raises DriverError."""
        detector = self.frames[role]
        self.n += 1
        n = self.n
        self._ended[n], self._said = asyncio.Event(), set()
        self._began_s[n] = self._clock.now_s()
        if isinstance(detector, ImageDetector):
            detector.keep_in(str(self._raw / f"{role}_{n:04d}"))
        await detector.start()
        self._reduction.send({
            "k": "exposure", "n": n, "role": role, "name": name, "purpose": purpose, "keep": keep,
            "source": dict(detector.source), "step": list(step),
        })  # fmt: skip
        await self._reduction.sync()  # its number is never used again, whatever happens to this computer
        self._running[role] = n
        body = {"n": n, "role": role, "name": name, "purpose": purpose}
        self._recorder.post("exposure", role, {**body, "state": "begun"})
        return n

    async def look(self, role: str) -> FrameStatus:
        """Return the state of a detector; what is wrong is told once. Raises DriverError."""
        status = await self.frames[role].status()
        await self._hand_on(role)
        for text in status.problems:
            key = re.sub(r"[0-9.]+", "#", text)
            if key not in self._said:
                self._said.add(key)
                self._recorder.fault(role, f"{role}: {text}")
        self._recorder.state(role, "frames", float(status.frames), "")
        self._recorder.state(role, "lost", float(status.lost + status.incomplete), "")
        return status

    async def end(self, role: str, n: int) -> Message:
        """Stop a detector, let reduce count the rest, compare; return what came of the exposure."""
        detector = self.frames[role]
        self._running.pop(role, None)
        try:
            await detector.stop()
        except DriverError as error:
            self._recorder.gap(role, f"{role}: {error}", self._clock.now_s())
        counts, position = self._counted(role, detector)
        if isinstance(detector, ImageDetector):
            await self._hand_on(role)
            counts = _counts(await detector.status())
        self._reduction.send({"k": "exposure_end", "n": n, "position": position, "counters": counts})
        ended_s = self._clock.now_s()
        await self._reduction.sync()
        found = await self._checked(role, n)
        found |= {"began_lab_s": self._began_s.get(n), "ended_lab_s": ended_s}
        self._recorder.post("exposure", role, {**found, "state": "ended"})
        self.results.append(found)
        self._tell_losses(role, found, counts)
        return found

    async def _hand_on(self, role: str) -> None:
        """Tell reduce and the journal of the images that have come; their pixels lie on the disk."""
        detector = self.frames[role]
        if not isinstance(detector, ImageDetector):
            return
        for image in await detector.next_images():
            told = {**asdict(image), "n": self.n, "file": os.path.relpath(image.path, self._raw)}
            del told["path"]
            self._reduction.send({"k": "image", **told, "stamp": self._stamp()})
            self._recorder.post("image", role, told)

    def _counted(self, role: str, detector: FrameDetector) -> tuple[dict[str, int], int]:
        """Return all counters of the exposure, and the position in the ring behind its last frame."""
        if not isinstance(detector, Counting):
            return {}, 0
        try:
            return detector.counts(), detector.position
        except NoReply as error:
            self._recorder.gap(role, f"{role}: {error}", self._clock.now_s())
            return {}, 0

    async def _checked(self, role: str, n: int) -> Message:
        """Wait for what reduce makes of it."""
        until_s = time.monotonic() + CHECKED_S
        while not self._ended[n].is_set() and time.monotonic() < until_s:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended[n].wait(), 0.5)
        found = self.progress.get(n, {"n": n, "role": role})
        if not self._ended[n].is_set():
            text = f"{role}: reduce has not counted exposure {n} to its end; its hits can be reduced again"
            self._recorder.gap(role, text, self._clock.now_s())
        return {key: value for key, value in found.items() if key != "k"}

    def _tell_losses(self, role: str, found: Message, counts: Mapping[str, int]) -> None:
        """Say what is missing; what the data themselves cannot show is a gap."""
        lost = counts.get("missing", 0) + counts.get("incomplete", 0)
        self._recorder.count(f"{role}_frames", counts.get("frames", 0))
        self._recorder.count(f"{role}_frames_lost", lost)
        self._recorder.count(f"{role}_frames_held", counts.get("held", 0))
        unread, unrecorded = int(found.get("unread", 0)), int(found.get("unrecorded", 0))
        self._recorder.count(f"{role}_frames_unread", unread)
        self._recorder.count(f"{role}_frames_unrecorded", unrecorded)
        restarts = counts.get("restarts", 0)
        gaps = []
        if restarts:
            gaps.append(f"its acquire process was started again {restarts} times, {lost} frames are missing")
        if unread:
            gaps.append(f"{unread} frames were overwritten before they were counted")
        if unrecorded:
            gaps.append(f"{unrecorded} frames are counted and not in the raw record")
        if found.get("why"):
            gaps.append(str(found["why"]))
        for text in gaps:
            self._recorder.gap(role, f"{role}: {text}", self._clock.now_s())

    def take(self, message: Message) -> None:
        """Take a message of reduce about an exposure."""
        n = int(message.get("n", 0))
        if message["k"] == "hits":
            part = (n, str(message.get("path")))
            if part not in self._known:
                self._known.add(part)
                self._recorder.post("hits", "reduce", message)
            return
        self.progress[n] = message
        if message["k"] != "exposure_progress" and n in self._ended:
            self._ended[n].set()
        if message["k"] == "exposure_checked" and (role := self._of_before(n, message)):
            cut_off = {"interrupted": True} if self._interrupted.pop(n, None) else {}
            found = {key: value for key, value in message.items() if key != "k"} | cut_off
            self.results = sorted([*self.results, found], key=lambda one: int(one["n"]))
            self._recorder.post("exposure", role, {**found, "state": "ended"})
            if "lost_with_host" in found:
                self._tell_cut_off(role, found)

    def _of_before(self, n: int, message: Message) -> str | None:
        """Return the detector of an exposure that an earlier host had no result of; None of any other."""
        if n in self._ended or any(one["n"] == n for one in self.results):
            return None
        role = message.get("role")
        return self._interrupted.get(n) or (str(role) if role in self.frames else None)

    def _tell_cut_off(self, role: str, found: Message) -> None:
        """Say what an exposure in a ring has left, and what the sample was exposed to for nothing."""
        dark = found.get("purpose") == "dark"
        kept = "nothing of it is kept" if dark else f"{found['frames']} frames are on the disk and count"
        text = f'{role}: exposure "{found.get("name", "")}" was cut off with the host: {kept}'
        if found["lost_with_host"]:
            lost = f"{found['lost_with_host_s']:.1f} s{'' if dark else ' under the open shutter'}"
            text += f", {found['lost_with_host']} more ({lost}) are lost and made again"
        self._recorder.gap(role, text, self._clock.now_s())


def _earlier(raw: Path, last: int) -> list[Message]:
    """Return what came of the exposures before a run was taken up, as reduce left it beside their data."""
    found: list[Message] = []
    for path in sorted(raw.glob("*_[0-9][0-9][0-9][0-9].json")):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            told = json.loads(path.read_text())
            if 0 < int(told["n"]) <= last:
                found.append({**told, "ok": not told.get("problem") and not told.get("why")})
    return sorted(found, key=lambda one: int(one["n"]))


def _row(line: Message) -> Message:
    """Return the journal's row of an image from its line in the index."""
    return {key: value for key, value in line.items() if key not in ("k", "stamp")}


def _counts(status: FrameStatus) -> dict[str, int]:
    """Return what a camera counted, under the names that a ring has."""
    return {
        "frames": status.frames, "missing": status.lost, "incomplete": status.incomplete,
        "held": status.held, "repeated": status.repeated,
    }  # fmt: skip
