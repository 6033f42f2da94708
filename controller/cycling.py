"""The cycling task: runs one cell program at a time and counts the charge.

Limits are inside the instrument's script; this task watches the samples, ends a program when a condition of
the experiment is met, and keeps the charge with its error. An invalid sample is counted, never integrated.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from controller.guard import Action
from drivers.errors import BadReply, NoReply, Refused
from drivers.roles import CellEvent, CellEventKind, CellSample, Ocv

if TYPE_CHECKING:
    from controller.guard import Guard
    from controller.record import Recorder
    from drivers.clock import Clock
    from drivers.roles import CellLimits, CellProgram, Potentiostat

PROTECTIONS = ("limit", "invalid", "open-circuit voltage outside")  # how a program says why it gave up
SILENCE_PERIODS = 3
IDLE_S = 0.1
BEYOND_V = 0.01  # a program may end a little beyond the voltage it ends at
DRIVEN = ("cc", "cv", "eis", "geis")  # phases in which current flows: a sweep has a bias, too
LEASE_MARGIN_S = 10.0  # for the answer to the start of a program; of the wall, when lab time runs fast


@dataclass(frozen=True)
class ChargeError:
    """How well the potentiostat measures charge: gain (relative) and current offset, one sigma each."""

    gain: float = 0.002
    offset_a: float = 10e-9


@dataclass
class CellState:
    """What is known of the cell now; None where the last package was invalid or there is none."""

    state: str = "open circuit"  # open circuit, ocv, cc, cv, eis, geis
    voltage_v: float | None = None
    current_a: float | None = None
    at_lab_s: float = -math.inf
    holds_s: float = 0.0  # lab seconds for which a package is the present state of the cell
    charge_coulomb: float = 0.0  # since the start of the run, positive when charging
    charged_s: float = 0.0  # lab seconds with current flowing, for the offset error
    throughput_coulomb: float = 0.0
    step_charge_coulomb: float = 0.0
    step_s: float = 0.0
    invalid: int = 0
    unmeasured_s: float = 0.0  # from a last reading to the opened circuit, summed over the run
    missed_coulomb: float = 0.0  # what is taken to have flowed then: counted, with an error of its size

    def charge_sigma_coulomb(self, error: ChargeError) -> float:
        """Return the one-sigma error of the charge since the start of the run."""
        measured = math.hypot(error.gain * self.throughput_coulomb, error.offset_a * self.charged_s)
        return math.hypot(measured, self.missed_coulomb)


class Cycling:
    """Owner of the cell: nobody else starts programs on the potentiostat. Without one no charge is known."""

    def __init__(
        self,
        cell: Potentiostat | None,
        guard: Guard,
        clock: Clock,
        recorder: Recorder,
        *,
        error: ChargeError,
        base_charge_coulomb: float = 0.0,
    ) -> None:
        self._cell = cell
        self._guard = guard
        self._clock = clock
        self._recorder = recorder
        self.error = error
        self.now = CellState(charge_coulomb=base_charge_coulomb)
        self._drives = False  # whether the program that runs needs a lease
        self._lease_s = 0.0  # 0: a program that drives nothing needs none
        self._limits: CellLimits | None = None  # of the program that runs
        self._previous: tuple[float, float] | None = None
        self._previous_charge: float | None = None

    async def run(
        self,
        program: CellProgram,
        until: Callable[[CellState], str | None],
        *,
        interval_s: float | Sequence[float],
    ) -> str:
        """Run a program to its end; return why it ended. The circuit is open when this returns or raises.

        Args:
            program: what to run.
            until: asked after each valid sample; a text ends the program.
            interval_s: lab seconds between two samples; of a sweep, those that each of its points may take.

        Raises:
            Refused: while the guard has anything latched (an open-circuit measurement is always allowed).
            NoReply: when the instrument falls silent for three sample intervals.
        """
        cell = self._needed()
        await self._recorder.cell_program(program, self.now)  # on disk before anything is energised
        refusal = self._guard.refuses()
        if refusal and not isinstance(program, Ocv):
            raise Refused(f"energising the cell is refused: {refusal}", device="cell")
        self._limits = getattr(program, "limits", None)
        self._previous = self._previous_charge = None
        self.now.step_charge_coulomb = self.now.step_s = 0.0
        pace = [interval_s] if isinstance(interval_s, int | float) else list(interval_s)
        self._drives = not isinstance(program, Ocv)
        self._expect(pace[0])
        try:
            await cell.start(program)
            self._guard.expect_cell(True, pace[0])
            return await self._follow(cell, until, pace)
        finally:
            self._guard.expect_cell(False)
            if cell.running:
                began_s = self._clock.now_s()
                await asyncio.shield(asyncio.ensure_future(cell.stop()))
                self._went_on((began_s + self._clock.now_s()) / 2)
            self._guard.release("cell")  # open by now
            self.now.state = "open circuit"
            self.now.voltage_v = self.now.current_a = None  # nobody measures it now
            self._recorder.cell_opened(self.now)

    def measured(self) -> tuple[float | None, float | None]:
        """Return voltage (V) and current (A) as measured now; None when unknown or no longer fresh."""
        if self._clock.now_s() - self.now.at_lab_s > self.now.holds_s:
            return None, None
        return self.now.voltage_v, self.now.current_a

    @property
    def present(self) -> bool:
        """Whether the station has a cell: without one its state of charge is not known."""
        return self._cell is not None

    def _needed(self) -> Potentiostat:
        if self._cell is None:
            raise Refused("this station has no cell", device="cell")
        return self._cell

    def _expect(self, interval_s: float) -> None:
        """The next sample is to come within this time: the lease, and how long a sample holds, follow."""
        self._lease_s = 0.0
        if self._drives:
            self._lease_s = SILENCE_PERIODS * interval_s + LEASE_MARGIN_S
            if self._clock.speed > 1.0:
                self._lease_s = max(self._lease_s, LEASE_MARGIN_S * self._clock.speed)
        self._renew()
        self.now.holds_s = self._clock.wall_timeout_s(SILENCE_PERIODS * interval_s) * self._clock.speed

    def _renew(self) -> None:
        if self._lease_s:
            self._guard.lease("cell", self._lease_s, Action.OPEN_CIRCUIT)

    async def _follow(
        self, cell: Potentiostat, until: Callable[[CellState], str | None], pace: Sequence[float]
    ) -> str:
        samples = 0
        silent_since = time.monotonic()
        while True:
            interval_s = pace[min(samples, len(pace) - 1)]
            timeout_s = max(self._clock.wall_timeout_s(SILENCE_PERIODS * interval_s), IDLE_S)
            try:
                heard = await cell.next(timeout_s)
            except NoReply:
                if time.monotonic() - silent_since > 2 * timeout_s:
                    raise
                await asyncio.sleep(IDLE_S)  # a lost link says so at once, again and again
                continue
            except BadReply as error:  # one spoilt package: counted, never integrated, the next ones go on
                self.now.invalid += 1
                self._recorder.fault("cell", str(error))
                continue
            silent_since = time.monotonic()
            self._renew()
            if isinstance(heard, CellEvent):
                self._recorder.cell_event(heard)
                if heard.kind is CellEventKind.FINISHED:
                    self._check_ending(heard.detail)
                    return heard.detail or heard.kind.value
                if heard.kind is CellEventKind.ABORTED:
                    raise Refused(f"the cell program was ended from outside: {heard.detail}", device="cell")
                if heard.kind is CellEventKind.RUNTIME_ERROR:
                    raise Refused(f"the cell program ended in an error: {heard.detail}", device="cell")
                continue
            self._take(heard)
            samples += 1
            if len(pace) > 1:  # a sweep: each point has a time of its own, beyond which silence is a fault
                interval_s = pace[min(samples, len(pace) - 1)]
                self._expect(interval_s)
                self._guard.pace_cell(interval_s)
            reason = until(self.now) if heard.valid else None
            if reason:
                return reason

    def _check_ending(self, detail: str) -> None:
        """Trip when the instrument ended a program to protect the cell: that is no end of a step.

        The script acts at the first reading beyond a limit and the guard at the second, so that the guard
        would never see the other one.
        """
        voltage_v, limits = self.now.voltage_v, self._limits
        beyond = (
            limits is not None
            and voltage_v is not None
            and not limits.voltage_low_v - BEYOND_V <= voltage_v <= limits.voltage_high_v + BEYOND_V
        )
        if beyond or detail.startswith(PROTECTIONS):
            self.gave_up(f"{detail}, at {voltage_v:.3f} V" if beyond else detail)

    def gave_up(self, detail: str) -> NoReturn:
        """Trip: the instrument opened the circuit for the cell's sake, not because the step was done."""
        text = f"the potentiostat opened the circuit by itself: {detail}"
        self._guard.interlock_only("cell-program", text, Action.OPEN_CIRCUIT)
        raise Refused(text, device="cell")

    def _went_on(self, until_s: float) -> None:
        """Count the charge between the last reading and the opened circuit as if nothing had changed."""
        now = self.now
        if now.state not in DRIVEN:
            return
        open_s = max(0.0, until_s - now.at_lab_s)
        missed = (now.current_a or 0.0) * open_s
        now.unmeasured_s += open_s
        now.missed_coulomb += abs(missed)
        now.charge_coulomb += missed
        now.step_charge_coulomb += missed
        now.throughput_coulomb += abs(missed)
        now.charged_s += open_s

    def _take(self, sample: CellSample) -> None:
        now = self.now
        self._guard.cell(sample)
        now.state = sample.phase
        now.at_lab_s = self._clock.now_s()
        valid = sample.valid and sample.voltage_v is not None
        now.voltage_v = sample.voltage_v if valid else None
        now.current_a = sample.current_a if valid else None
        if not valid:
            now.invalid += 1
        else:
            self._integrate(sample)
        now.step_s = sample.elapsed_s
        self._recorder.cell(sample, now)

    def _integrate(self, sample: CellSample) -> None:
        """Add the charge since the last valid sample: the instrument's own integral where it keeps one."""
        now = self.now
        current_a = sample.current_a if sample.current_a is not None else 0.0
        if self._previous is None:
            step_s, mean_a = sample.elapsed_s, current_a
        else:
            step_s = sample.elapsed_s - self._previous[0]
            mean_a = 0.5 * (current_a + self._previous[1])
        if sample.charge_coulomb is not None:
            charge = sample.charge_coulomb - (self._previous_charge or 0.0)
            self._previous_charge = sample.charge_coulomb
        else:
            charge = mean_a * step_s
        self._previous = (sample.elapsed_s, current_a)
        if sample.phase not in DRIVEN:
            return
        now.charge_coulomb += charge
        now.step_charge_coulomb += charge
        now.throughput_coulomb += abs(charge)
        now.charged_s += step_s
