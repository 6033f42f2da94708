"""The stage's owner: nobody else moves it, and it never moves while the beam could be on.

Before a move the beam is blanked and the shutter closed, and both are read back; afterwards the position is
read, and the guard is told where the stage has to stay. Whatever goes wrong leaves the position unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.shutter import until_read_back
from drivers.errors import DriverError, Refused
from drivers.roles import Role

if TYPE_CHECKING:
    from controller.guard import Guard
    from controller.record import Recorder
    from drivers.clock import Clock
    from drivers.readings import IoReading
    from drivers.roles import BeamlineIo, BeamScanner, Stage


class Staging:
    """Moves the stage, and knows where it stands: ``at_um`` is None until it has been read."""

    def __init__(
        self, stage: Stage | None, io: BeamlineIo | None, scanner: BeamScanner | None, guard: Guard,
        clock: Clock, recorder: Recorder,
    ) -> None:  # fmt: skip
        self._stage = stage
        self._io = io
        self._scanner = scanner
        self._guard = guard
        self._clock = clock
        self._recorder = recorder
        self.at_um: tuple[float, ...] | None = None
        self._asked_um: tuple[float, ...] | None = None  # as the file says; the stage knows whole microsteps
        self.moves = 0

    @property
    def present(self) -> bool:
        """Whether the station has a stage."""
        return self._stage is not None

    async def look(self) -> tuple[float, ...] | None:
        """Read where the stage stands before anything has moved it, for the stamps of the first scans."""
        if self._stage is not None and self.at_um is None:
            self.at_um = (await self._stage.read()).position_um
        return self.at_um

    async def home(self) -> None:
        """Find the reference of every axis. Raises Refused, BadReply, NoReply."""
        stage = self._given()
        await self._dark()
        await self._moving(stage.home())
        self._recorder.line(f"stage homed, at {self.described()}")

    async def go(self, position_um: tuple[float, ...]) -> None:
        """Move to a position and stay there. Raises Refused, OutOfRange, BadReply, NoReply."""
        stage = self._given()
        if self.at_um is not None and self._asked_um == position_um:
            return
        await self._dark()
        await self._moving(stage.move_to_um(position_um))
        self._asked_um = position_um

    def described(self) -> str:
        """Return where it stands, in words."""
        if self.at_um is None:
            return "an unknown place"
        return ", ".join(f"{1e-3 * value:.4f}" for value in self.at_um) + " mm"

    # --- inside ----------------------------------------------------------------------------------------

    def _given(self) -> Stage:
        if self._stage is None:
            raise Refused("the station has no stage", device="stage")
        refusal = self._guard.refuses()
        if refusal:
            raise Refused(f"the stage stays where it is: {refusal}", device="stage")
        return self._stage

    async def _moving(self, motion: object) -> None:
        """Await one motion, the guard watching; the position is what is read afterwards."""
        assert self._stage is not None  # noqa: S101  # for the type checker; _given has seen it
        self.at_um = self._asked_um = None
        self._guard.stage_leaves()
        try:
            await motion  # type: ignore[misc]
            reading = await self._stage.read()
        except DriverError as error:
            await self._recorder.event("stage", "stage", {"error": str(error), "position_um": None})
            raise
        if reading.position_um is None or reading.moving:
            raise Refused(f"is not at rest at a known place: {'; '.join(reading.problems)}", device="stage")
        self.at_um = reading.position_um
        self.moves += 1
        self._guard.stage_stays(reading.position_um)
        await self._recorder.event("stage", "stage", {"position_um": list(reading.position_um)})

    async def _dark(self) -> None:
        """Blank and close, and believe neither until it is read back."""
        if self._scanner is not None:
            await self._scanner.blank()
        io = self._io
        if io is None:
            return
        shutter = Role.SHUTTER in getattr(io, "roles", frozenset())
        if shutter:
            await io.set_shutter(open_=False)

        def dark(reading: IoReading) -> bool:
            blanked = reading.blanked or self._scanner is None
            return blanked and (reading.shutter_open is False or not shutter)

        if not await until_read_back(io, self._guard, self._clock, dark):
            raise Refused("the stage does not move: the beam is not seen blanked and shut", device="stage")
