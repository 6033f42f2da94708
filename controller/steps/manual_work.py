"""What takes its time in a ``manual`` step: programs of the cell, and passes of the beam."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from controller.steps import beam
from drivers.roles import CcCv, CellLimits, ConstantCurrent, Ocv

if TYPE_CHECKING:
    from controller.config import CellWindow
    from controller.config.manual import Manual
    from controller.config.scans import Calibrate, Scan
    from controller.cycling import CellState
    from controller.steps.context import Context

CHARGE_MARGIN = 1.01  # the script's own charge limit lies behind the host's
CURRENT_MARGIN = 1.5
STOPPED = "stopped by hand"


class Work:
    """One thing at a time, each with a number; how the last one ended is remembered."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.job = 0
        self.ended = ""
        self.stopping = False
        self._task: asyncio.Task[str] | None = None

    @property
    def busy(self) -> bool:
        """Whether it is still at it."""
        return self._task is not None and not self._task.done()

    def start(self, work: Coroutine[Any, Any, str]) -> int:
        """Begin; return the number of the job."""
        self.job += 1
        self.ended, self.stopping = "", False
        self._task = asyncio.get_running_loop().create_task(self._do(work))
        return self.job

    async def _do(self, work: Coroutine[Any, Any, str]) -> str:
        self.ended = await work
        return self.ended

    def stop(self) -> None:
        """End what runs: the cell at its next sample, a scan after its line."""
        self.stopping = True

    def raise_failure(self) -> None:
        """Raise what made it fail, once: it ends the run as it would in a step of its own."""
        task = self._task
        if task is not None and task.done() and not task.cancelled() and task.exception() is not None:
            self._task = None
            raise task.exception()  # type: ignore[misc]  # it is not None

    async def finish(self) -> None:
        """Stop, and wait for the end."""
        self.stop()
        if self._task is not None:
            await asyncio.wait({self._task})
            self.raise_failure()

    async def cut_off(self) -> None:
        """Cut it off: the step was cancelled, and its owners make safe what they had begun."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def status(self) -> dict[str, Any]:
        """Return number, whether it runs, and how it ended."""
        return {"job": self.job, "busy": self.busy, "ended": self.ended}


class CellWork(Work):
    """Programs of the cell, within a window and a charge either way from where the step found it."""

    def __init__(self, context: Context, step: Manual, limits: CellWindow) -> None:
        super().__init__(context)
        if step.cell is None:
            raise ValueError("this step has no cell table")
        self._allowed, self._limits = step.cell, limits
        self._net_coulomb, self._seconds = context.take_carried()
        context.part = (self._net_coulomb, self._seconds)

    def left_coulomb(self, sign: float) -> float:
        """Return how much charge may still pass in this direction, C."""
        return max(0.0, self._allowed.charge_coulomb - sign * self._net_coulomb)

    def rest(self, duration_s: float, interval_s: float) -> int:
        """Measure the open-circuit voltage; return the number of the job."""
        return self.start(self._run(Ocv(duration_s=duration_s, interval_s=interval_s), interval_s))

    def drive(
        self, sign: float, *, current_a: float, voltage_v: float, charge_coulomb: float, duration_s: float,
        current_below_a: float, interval_s: float,
    ) -> int:  # fmt: skip
        """Drive a current to a voltage, then hold that until ``current_below_a`` if it is given."""
        limits = CellLimits(
            voltage_low_v=max(self._allowed.low_v, self._limits.voltage_low_v),
            voltage_high_v=min(self._allowed.high_v, self._limits.voltage_high_v),
            current_a=min(CURRENT_MARGIN * current_a, self._limits.current_a),
            charge_coulomb=min(CHARGE_MARGIN * charge_coulomb, self._limits.charge_coulomb),
            duration_s=duration_s,
        )
        program: CcCv | ConstantCurrent
        if current_below_a > 0.0:
            program = CcCv(
                current_a=sign * current_a, voltage_v=voltage_v, until_current_a=current_below_a,
                limits=limits, interval_s=interval_s,
            )  # fmt: skip
        else:
            program = ConstantCurrent(
                current_a=sign * current_a, until_voltage_v=voltage_v, limits=limits, interval_s=interval_s
            )
        return self.start(self._run(program, interval_s, charge_coulomb, current_below_a))

    async def _run(
        self, program: Ocv | CcCv | ConstantCurrent, interval_s: float, most_coulomb: float | None = None,
        below_a: float = 0.0,
    ) -> str:  # fmt: skip
        context = self.context

        def ends(now: CellState) -> str | None:
            if self.stopping or context.finishing:
                return STOPPED
            if context.paused:
                return "ended by a pause"
            if most_coulomb is not None and abs(now.step_charge_coulomb) >= most_coulomb:
                return "charge reached"
            if now.state == "cv" and now.current_a is not None and abs(now.current_a) <= below_a:
                return "current below its limit"
            return None

        try:
            return await context.cycling.run(program, ends, interval_s=interval_s)
        finally:
            if not isinstance(program, Ocv):
                now = context.cycling.now
                self._net_coulomb += now.step_charge_coulomb
                self._seconds += now.step_s
                context.part = (self._net_coulomb, self._seconds)

    def status(self) -> dict[str, Any]:
        """Return the job, and how much charge may still pass either way."""
        left = {"charge": self.left_coulomb(1.0), "discharge": self.left_coulomb(-1.0)}
        return {**super().status(), "left_coulomb": left}


class ScanWork(Work):
    """Passes over the raster of the step."""

    def __init__(self, context: Context, step: Manual) -> None:
        super().__init__(context)
        if step.scan is None:
            raise ValueError("this step has no scan table")
        self._step = step
        self.allowed = step.scan.passes
        self.left = self.allowed

    def begin(self, passes: int) -> int:
        """Scan so many passes; return the number of the job. What was begun counts as spent."""
        self.left -= passes
        step = self._step.scan_step(passes, f"by hand {self.job + 1}")
        return self.start(self._scan(step))

    async def _scan(self, step: Scan) -> str:
        context = self.context
        return await beam.one_scan(
            context, step, step.name, step.raster.scan(context.origin_um),
            lambda: beam.stage_stands(context),
            goal_of=lambda context, step, name: _HandGoal(self, context, step, name),
        )  # fmt: skip

    def status(self) -> dict[str, Any]:
        """Return the job, and how many passes are left."""
        return {**super().status(), "left_passes": self.left}


class _HandGoal(beam.Goal):
    """Ends a scan also when it is told to by hand."""

    def __init__(self, work: ScanWork, context: Context, step: Scan | Calibrate, name: str) -> None:
        super().__init__(context, step, name)
        self._work = work

    def cut_short(self) -> bool:
        return self._work.stopping or super().cut_short()

    def reached(self, good_passes: int, dose_per_cm2: float) -> str | None:
        return STOPPED if self._work.stopping else super().reached(good_passes, dose_per_cm2)


class Works:
    """What may run in the background of a manual step."""

    def __init__(self, cell: CellWork | None, scan: ScanWork | None) -> None:
        self.cell, self.scan = cell, scan

    def _all(self) -> list[Work]:
        return [work for work in (self.cell, self.scan) if work is not None]

    def stop(self) -> None:
        """End everything in order."""
        for work in self._all():
            work.stop()

    def raise_failures(self) -> None:
        """Raise what made one of them fail."""
        for work in self._all():
            work.raise_failure()

    async def end(self) -> None:
        """End everything in order, and wait for it."""
        self.stop()
        for work in self._all():
            await work.finish()

    async def cut_off(self) -> None:
        """Cut everything off, and wait for the circuit to be open."""
        await asyncio.gather(*(work.cut_off() for work in self._all()))

    def status(self) -> dict[str, Any]:
        """Return what runs, and how it ended."""
        told = {"cell": self.cell, "scan": self.scan}
        return {name: work.status() for name, work in told.items() if work is not None}
