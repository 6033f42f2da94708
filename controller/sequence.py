"""The run engine: steps in order, pause, early end, timeouts, checkpoints. The steps are in ``steps/``."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from controller.config.steps import CONTAINERS
from controller.questions import ABORT, PAUSE, STOP, USUAL
from controller.resume_policy import warm_again
from controller.steps import handler_of, title_of
from controller.steps.context import Context, Ended, StepTimeout

if TYPE_CHECKING:
    from controller.config.steps import Step
    from controller.host import Host

BEAM = ("scan", "calibrate", "background")
STANDING = ("heat", "hold", "cool")  # what they reached is gone after an interruption: they are done again


@dataclass(frozen=True)
class Outcome:
    """How the steps ended."""

    complete: bool
    text: str


class Sequencer:
    """Runs the steps of one experiment."""

    def __init__(self, host: Host, *, estimate_s: float = 0.0) -> None:
        self._host = host
        self._done = 0  # top-level steps that are finished, also those of an interrupted run
        self._inner: set[tuple[int, ...]] = set()  # finished steps inside the top-level one that runs
        self.estimate_s = estimate_s
        self.timeline: list[dict[str, Any]] = []
        self.state = "starting"
        self.context = Context(host)
        self._current: list[tuple[tuple[int, ...], str]] = []
        self._places: dict[int, tuple[int, ...]] = {}  # of the steps that run, by identity

    @property
    def done(self) -> int:
        """Top-level steps that are finished, also those of an interrupted run."""
        return self._done

    @property
    def paused(self) -> bool:
        """Whether a person or an interlock holds the run."""
        return self.context.paused

    def pause(self, why: str) -> None:
        """Hold: beam blanked, circuit open, temperature kept."""
        self._host.recorder.line(f"pause: {why}")
        self.context.hold()

    def proceed(self) -> None:
        """Go on after a pause."""
        self._host.recorder.line("proceed")
        self.context.release()

    def finish_early(self) -> None:
        """End after the line the scanner is on, with a result."""
        self._host.recorder.line("stop: the run ends early, with a result")
        self.context.finishing = True
        self.context.release()  # a step that is held sees that it is to end

    def place_of(self, step: Step) -> tuple[int, ...]:
        """Return where in the experiment a running step stands, turns of a repeat included."""
        return self._places.get(id(step), ())

    def where(self) -> dict[str, Any] | None:
        """Return the step that runs: number, of how many, title."""
        if not self._current:
            return None
        return {
            "number": self._current[0][0][0] + 1,
            "of": len(self._host.experiment.steps),
            "title": " | ".join(title for _, title in self._current if title),
        }

    def scan_status(self) -> dict[str, Any] | None:
        """Return what the scan is doing, None when none runs."""
        if self.context.scan is None:
            return None
        return {**self.context.scan, "line": self._host.scanning.line}

    async def run(self) -> Outcome:
        """Run every step; a step that times out does what its file says."""
        self.state = "running"
        steps = self._host.experiment.steps
        try:
            if (warm := warm_again(steps, self._done)) is not None:
                self._host.recorder.line(f"resume: {title_of(warm[1])} again, the heater was off")
                await self.step(warm[1], (warm[0],))
            for index, step in enumerate(steps):
                if index < self._done:
                    continue
                await self.step(step, (index,))
                if self.context.finishing:  # this step, too, was cut short
                    return Outcome(False, "stopped early by a person")
                self._done = index + 1
                self.context.scans_done = self.context.scans
                self._inner.clear()
                await self.checkpoint()
        except Ended as ended:
            return Outcome(False, str(ended))
        finally:
            self.state = "ended"
        return Outcome(True, "every step is done")

    async def step(self, step: Step, path: tuple[int, ...]) -> None:
        """Run one step with its bookkeeping."""
        title = title_of(step)
        leaf = step.do not in CONTAINERS
        if path in self._inner:
            self._host.recorder.line(f"{title}: done before the run was interrupted")
            return
        entry = (path, title if leaf else "")
        self._current.append(entry)
        self._places[id(step)] = path
        begun = self._host.clock.now_s()
        record: dict[str, Any] = {"path": list(path), "do": step.do, "title": title, "begun_lab_s": begun}
        self.timeline.append(record)
        await self._host.recorder.event("step", "sequence", {**record, "state": "begun"})
        if leaf:
            self._host.recorder.line(title)
        try:
            if leaf:
                await self.context.running()  # a pause between two steps holds the next one
            ending = leaf and self.context.finishing
            record["reason"] = "stopped early" if ending else await self._within_time(step, path)
        except asyncio.CancelledError:
            record["reason"] = "cut short"
            raise
        except Exception as error:
            record |= {"reason": str(error) or type(error).__name__, "failed": True}
            raise
        finally:
            record["ended_lab_s"] = self._host.clock.now_s()
            self._current.remove(entry)
        await self._host.recorder.event("step", "sequence", {**record, "state": "ended"})
        if leaf and len(path) > 1 and step.do not in STANDING and not self.context.finishing:
            self._inner.add(path)
            if step.do in BEAM:
                self.context.scans_done = self.context.scans
            await self.checkpoint()

    async def _within_time(self, step: Step, path: tuple[int, ...]) -> str:
        """Run a step under its timeout; pausing stops that clock."""
        timeout_s = getattr(step, "timeout_s", None)
        if step.do in ("scan", "calibrate", "expose", "manual") or timeout_s is None:
            return await self._handle(step, path)  # a scan ends itself, between lines
        work = asyncio.ensure_future(self._handle(step, path))
        try:
            left_s = timeout_s
            while True:
                before = self._host.clock.now_s()
                done, _ = await asyncio.wait({work}, timeout=min(1.0, left_s / self._host.clock.speed))
                if done:
                    return work.result()
                if not self.paused:
                    left_s -= self._host.clock.now_s() - before
                if left_s <= 0:
                    break
        finally:
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
        return await self.timed_out(step, f"{title_of(step)}: not done after {timeout_s:g} s")

    async def timed_out(self, step: Step, text: str) -> str:
        """Do what the step says about its timeout; ``ask`` asks a person, and aborts if nobody answers."""
        then: str = step.on_timeout
        self._host.recorder.line(f"{text} -> {then}")
        if then == "ask":
            asked = await self._host.questions.ask(
                f"{text}. Go on with the next step?", USUAL, default=ABORT, timeout_s=step.answer_within_s
            )
            then = asked.choice
            text = f"{text} -> {then} ({asked.by})"
        if then == ABORT:
            raise StepTimeout(text)
        self._host.recorder.gap("sequence", text, self._host.clock.now_s())
        self.follow(then, text)
        return text

    def follow(self, choice: str, why: str) -> None:
        """Do what an answer says: pause, stop or abort; any other only goes on."""
        if choice == PAUSE:
            self.pause(why)
        elif choice == STOP and not self.context.finishing:
            self.finish_early()
        elif choice == ABORT:
            raise StepTimeout(why)

    async def _handle(self, step: Step, path: tuple[int, ...]) -> str:
        if step.do == "parallel":
            return await self._parallel(step.steps, path)
        if step.do == "repeat":
            for turn in range(step.times):
                for index, inner in enumerate(step.steps):
                    await self.step(inner, (*path, turn, index))
            return f"{step.times} times"
        return await handler_of(step)(self.context, step)

    async def _parallel(self, steps: tuple[Step, ...], path: tuple[int, ...]) -> str:
        """Run steps at the same time; scans without an end of their own follow the others."""
        followers = {i for i, s in enumerate(steps) if s.do in ("scan", "calibrate") and s.until is None}
        self.context.others_done = asyncio.Event()
        if len(followers) == len(steps):
            raise Ended("every scan of a parallel step waits for the others: give one of them an end")
        async with asyncio.TaskGroup() as tasks:
            running = {
                index: tasks.create_task(self.step(step, (*path, index))) for index, step in enumerate(steps)
            }
            leaders = [task for index, task in running.items() if index not in followers]
            await asyncio.wait(leaders)
            self.context.others_done.set()
        return "all have ended"

    async def checkpoint(self) -> None:
        """Write how far the run is: steps, charge, the part of a charge step, scans, origin."""
        cell = self._host.cycling.now
        body = {
            "done": self._done, "inner": sorted(map(list, self._inner)),
            "charge_coulomb": cell.charge_coulomb, "charged_s": cell.charged_s,
            "throughput_coulomb": cell.throughput_coulomb, "part": list(self.context.spent()),
            "unmeasured_s": cell.unmeasured_s, "missed_coulomb": cell.missed_coulomb,
            "scans": self.context.scans_done, "origin_um": list(self.context.origin_um),
            "stage_um": None if self.context.stage_um is None else list(self.context.stage_um),
            "exposing": self._host.exposing.received(),
        }  # fmt: skip
        await self._host.journal.checkpoint(self._host.run_id, "sequence", body)

    def go_on_from(self, body: dict[str, Any]) -> None:
        """Continue an interrupted run from its last checkpoint."""
        self._done = int(body["done"])
        self._inner = {tuple(path) for path in body.get("inner", ())}
        self.context.scans = self.context.scans_done = int(body["scans"])
        self.context.origin_um = tuple(body["origin_um"])
        self.context.stage_um = None if body.get("stage_um") is None else tuple(body["stage_um"])
        self.context.carried = tuple(body["part"])
        cell = self._host.cycling.now
        cell.charge_coulomb = float(body["charge_coulomb"])
        self._host.guard.go_on_from(cell.charge_coulomb)
        cell.charged_s = float(body["charged_s"])
        cell.throughput_coulomb = float(body["throughput_coulomb"])
        cell.unmeasured_s = float(body["unmeasured_s"])
        cell.missed_coulomb = float(body["missed_coulomb"])
