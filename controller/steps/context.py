"""What a running step may use of the host, and how it is paused or ended."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from controller.cycling import Cycling
    from controller.exposures_resumed import HadImages
    from controller.heating import Heating
    from controller.host import Host
    from controller.record import Recorder
    from controller.scanning import Scanning
    from controller.steps.manual import ManualDesk
    from drivers.clock import Clock


PAUSE = "pause"  # by a person or an interlock; an open question holds under its own id


class Ended(Exception):
    """The steps cannot go on; the text says why in plain words."""


class StepTimeout(Ended):
    """A step was not done in time and its file says abort."""


@dataclass(frozen=True)
class Had:
    """Passes that an interrupted run has on disk of a scan."""

    n: int = 0  # of the last one that was begun
    good: int = 0
    charge_coulomb: float = 0.0  # of all that were ended, for the dose


class Context:
    """Shared by all steps of a run."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.finishing = False
        self.others_done = asyncio.Event()
        self.others_done.set()
        self.scans = 0  # begun so far; each has its number
        self.scans_done = 0  # of these, in steps that have ended: for the checkpoint
        self.had: dict[int, Had] = {}  # what an interrupted run had of its scans, by number
        self.had_images: dict[tuple[int, ...], HadImages] = {}  # the same of exposures, by place of the step
        self.counted: dict[tuple[int, ...], tuple[int, ...]] = {}  # and numbers of those in a ring
        self.origin_um = (0.0, 0.0)
        self.stage_um: tuple[float, ...] | None = None  # where a step has sent the stage, None before that
        self.scan: dict[str, Any] | None = None
        self.part: tuple[float, float] = (0.0, 0.0)  # of the charge step that runs: coulombs, seconds
        self.carried: tuple[float, float] | None = None  # the same of an interrupted run, taken once
        self.manual: ManualDesk | None = None  # while a manual step runs
        self._running = asyncio.Event()
        self._running.set()
        self._holds: set[str] = set()  # why the run is held: a pause, and each open question

    @property
    def clock(self) -> Clock:
        """Lab time."""
        return self.host.clock

    @property
    def heating(self) -> Heating:
        """The heater's owner."""
        return self.host.heating

    @property
    def cycling(self) -> Cycling:
        """The cell's owner."""
        return self.host.cycling

    @property
    def scanning(self) -> Scanning:
        """The beam's owner."""
        return self.host.scanning

    @property
    def recorder(self) -> Recorder:
        """The run's record."""
        return self.host.recorder

    @property
    def paused(self) -> bool:
        """Whether the run is held."""
        return not self._running.is_set()

    def hold(self, why: str = PAUSE) -> None:
        """Hold every step at its next safe place."""
        self._holds.add(why)
        self._running.clear()

    def release(self, why: str = PAUSE) -> None:
        """Let the steps go on, unless something else holds them as well."""
        self._holds.discard(why)
        if not self._holds:
            self._running.set()

    def held_by(self, why: str = PAUSE) -> bool:
        """Whether this is one of the reasons for which the run is held."""
        return why in self._holds

    def take_carried(self) -> tuple[float, float]:
        """Return charge and time that the interrupted run had already spent in this charge step."""
        carried, self.carried = self.carried, None
        return carried or (0.0, 0.0)

    def spent(self) -> tuple[float, float]:
        """Return charge and time that the present charge step has spent so far, for the checkpoint."""
        if self.carried is not None:  # an interrupted charge whose turn has not come again yet
            return self.carried
        now = self.cycling.now
        if now.state not in ("cc", "cv"):
            return self.part
        return self.part[0] + now.step_charge_coulomb, self.part[1] + now.step_s

    async def running(self) -> None:
        """Wait while the run is held."""
        await self._running.wait()

    async def sleep(self, lab_s: float) -> None:
        """Wait in lab time; time spent paused does not count, an early end cuts it short."""
        left_s = lab_s
        while left_s > 0 and not self.finishing:
            await self.running()
            before = self.clock.now_s()
            await self.clock.sleep(min(left_s, 0.5, 0.02 * self.clock.speed + 0.05))
            if not self.paused:
                left_s -= self.clock.now_s() - before
