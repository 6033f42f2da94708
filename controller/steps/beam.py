"""Steps of the beam: scans, backgrounds, moves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from controller.steps.context import Ended, Had

if TYPE_CHECKING:
    from controller.config.scans import Calibrate, Mosaic, Scan, ScanUntil, Tile
    from controller.config.steps import Background, Move
    from controller.steps.context import Context
    from drivers.roles import Raster

ELEMENTARY_CHARGE_C = 1.602176634e-19  # exact, SI 2019
PAUSE_LOOK_S = 0.5  # lab seconds
REPEAT_LIMIT = 3  # quarantined passes in a row before a scan gives up


async def scan(context: Context, step: Scan | Calibrate) -> str:
    """Pass after pass until counts, uncertainty, dose, passes or time say enough; a mosaic tile by tile."""
    name = step.name or step.do
    raster = step.raster.scan(context.origin_um)
    if getattr(step, "mosaic", None) is not None:
        return await _mosaic(context, step, name, raster)  # type: ignore[arg-type]  # only a scan has one
    return await one_scan(context, step, name, raster, lambda: stage_stands(context))


async def _mosaic(context: Context, step: Scan, name: str, raster: Raster) -> str:
    """Scan tile after tile, each under a number of its own; one that was finished before is passed by.

    The stage then goes back to where the step before had left it, with the next scan.
    """
    host, mosaic, staging = context.host, _given(step.mosaic), context.host.staging
    stage = host.station.device("stage")
    context.stage_um = context.stage_um or await staging.look()
    for tile in mosaic.walk(step.raster):
        place_um = stage.beside_um(mosaic.centre_um, tile.shift_um)  # type: ignore[union-attr]  # by its rules

        async def begin(tile: Tile = tile, place_um: tuple[float, ...] = place_um) -> None:
            await staging.go(place_um)
            body = {
                "scan": context.scans, "name": name, "column": tile.column, "row": tile.row,
                "tiles": list(mosaic.tiles), "overlap": mosaic.overlap, "shift_um": list(tile.shift_um),
                "position_um": list(staging.at_um or ()),
            }  # fmt: skip
            await context.recorder.event("tile", "scan", body)

        reason = await one_scan(context, step, f"{name} {tile.column + 1}-{tile.row + 1}", raster, begin)
        if context.finishing:
            return reason
    return f"{mosaic.tiles[0]} x {mosaic.tiles[1]} tiles"


async def one_scan(
    context: Context, step: Scan | Calibrate, name: str, raster: Raster, begin: Callable[[], Awaitable[None]],
    *, goal_of: Callable[[Context, Scan | Calibrate, str], Goal] | None = None,
) -> str:  # fmt: skip
    """Scan one raster; ``begin`` brings the stage there, unless there is nothing left to be scanned.

    ``goal_of`` makes what decides when it has enough; default what the step says.
    """
    host = context.host
    context.scans += 1
    goal = (goal_of or Goal)(context, step, name)
    context.scanning.begin_scan(context.scans, name, _purpose(context, step), raster)
    had = context.had.get(context.scans, Had())  # an interrupted scan goes on under its number
    n, good, quarantined, bad_in_a_row = had.n, had.good, had.n - had.good, 0
    dose_per_cm2 = _dose_per_cm2(raster, had.charge_coulomb)
    try:
        if goal.reached(good, dose_per_cm2) is None:
            await begin()
            await context.scanning.shutter.open()
        while (reason := goal.reached(good, dose_per_cm2)) is None:
            if context.paused:
                context.scanning.shutter.keep()
                await context.clock.sleep(PAUSE_LOOK_S)
                continue  # it may have been told to end meanwhile
            n += 1
            context.scan = {
                "scan": context.scans, "name": name, "n": n, "line": 0, "lines": raster.ny,
                "quarantined": quarantined, "good": good, "dose_per_cm2": dose_per_cm2,
            }  # fmt: skip
            outcome = await context.scanning.run_pass(raster, n, should_end=goal.cut_short)
            dose_per_cm2 += _dose_per_cm2(raster, outcome.charge_coulomb)
            if outcome.good:
                good += 1
                bad_in_a_row = 0
                continue
            quarantined += 1
            bad_in_a_row += 1
            if bad_in_a_row >= REPEAT_LIMIT:
                raise Ended(
                    f"{REPEAT_LIMIT} passes in a row were quarantined, the last because {outcome.why}"
                )
    finally:
        context.scan = None
        context.scanning.end_scan()
        await context.scanning.shutter.close()
    if quarantined:
        host.recorder.line(f'scan "{name}": {quarantined} of {n} passes quarantined and repeated')
    if reason.startswith("time limit"):
        return await host.sequence.timed_out(step, f'scan "{name}": {reason}')
    return reason


async def background(context: Context, step: Background) -> str:
    """Spectra with the beam blanked and the shutter closed."""
    context.scans += 1
    context.scanning.begin_scan(context.scans, step.name or "background", "background", None)
    had = context.had.get(context.scans, Had())
    n = had.n + 1
    context.scan = {"name": "background", "n": n, "line": 0, "lines": 1, "quarantined": 0}
    try:
        if had.good:
            return "done before the run was interrupted"
        outcome = await context.scanning.run_background(
            n, step.duration_s, should_end=lambda: context.finishing
        )
    finally:
        context.scan = None
        context.scanning.end_scan()
    return "duration" if outcome.good else f"quarantined: {outcome.why}"


async def move(context: Context, step: Move) -> str:
    """Shift the origin of the rasters that follow, and move the stage, beam blanked and shutter closed."""
    staging = context.host.staging
    if step.home:
        await staging.home()
    if step.stage_um is not None:
        await staging.go(step.stage_um)
        context.stage_um = step.stage_um
    context.origin_um = (step.to_um[0], step.to_um[1])
    place = f", stage at {staging.described()}" if step.home or step.stage_um is not None else ""
    return f"origin at {step.to_um[0]:g}, {step.to_um[1]:g} um{place}"


def _given(mosaic: Mosaic | None) -> Mosaic:
    if mosaic is None:
        raise ValueError("a scan without a mosaic")
    return mosaic


async def stage_stands(context: Context) -> None:
    """Before a scan: the stage is read, and after an interruption it is brought back to where it had been."""
    staging = context.host.staging
    if context.stage_um is not None:
        await staging.go(context.stage_um)
    else:
        await staging.look()


def _dose_per_cm2(raster: Raster, charge_coulomb: float) -> float:
    """Return protons per cm2 of the field."""
    return charge_coulomb / ELEMENTARY_CHARGE_C / (raster.width_um * raster.height_um * 1e-8)


def _purpose(context: Context, step: Scan | Calibrate) -> str:
    """Return what a scan is for, by the experiment file."""
    experiment = context.host.experiment
    given = (experiment.purpose(placed) for placed in experiment.walk() if placed.step is step)
    return next(given, "overview")  # what is scanned by hand stands in no file


class Goal:
    """When a scan has enough."""

    def __init__(self, context: Context, step: Scan | Calibrate, name: str) -> None:
        self._context = context
        self._until: ScanUntil | None = step.until
        self._timeout_s = step.timeout_s
        self._looked_s = context.clock.now_s()
        self._was_paused = False
        self._elapsed_s = 0.0
        self._name = name
        self._scan = context.scans

    def cut_short(self) -> bool:
        """Whether the pass must end between two lines."""
        if self._context.finishing:
            return True
        if self._until is None:
            return self._context.others_done.is_set()
        elapsed_s = self._elapsed()
        over = self._until.duration_s is not None and elapsed_s >= self._until.duration_s
        return over or (self._timeout_s is not None and elapsed_s >= self._timeout_s)

    def _elapsed(self) -> float:
        """Return the lab seconds that count: a pause stops this clock, a lost beam does not."""
        now_s = self._context.clock.now_s()
        if not self._was_paused:
            self._elapsed_s += now_s - self._looked_s
        self._looked_s, self._was_paused = now_s, self._context.paused
        return self._elapsed_s

    def reached(self, good_passes: int, dose_per_cm2: float) -> str | None:
        """Return why the scan has enough, or None."""
        if self._context.finishing:
            return "stopped early"
        until = self._until
        if until is None:
            return "the other steps have ended" if self._context.others_done.is_set() else None
        elapsed_s = self._elapsed()
        if until.passes is not None and good_passes >= until.passes:
            return f"{good_passes} passes"
        if until.duration_s is not None and elapsed_s >= until.duration_s:
            return "duration"
        if until.dose_per_cm2 is not None and dose_per_cm2 >= until.dose_per_cm2:
            return "dose"
        reason = self._counted(until)
        if reason is None and self._timeout_s is not None and elapsed_s >= self._timeout_s:
            return f"time limit of {self._timeout_s:g} s"
        return reason

    def _counted(self, until: ScanUntil) -> str | None:
        """Return whether the newest progress of this scan meets the counting goals."""
        progress = self._context.host.products.get("progress") or {}
        if progress.get("scan") != self._scan:
            return None
        if until.counts is not None:
            goal = until.counts
            net = progress.get("counts", {}).get(goal.layer, {}).get(goal.element)
            if net is not None and net[0] >= goal.at_least:
                return f"{net[0]:.0f} {goal.element} counts in {goal.layer}"
        if until.uncertainty is not None:
            wanted = until.uncertainty
            found = progress.get("quantities", {}).get(f"{wanted.layer}.{wanted.quantity}")
            if found is not None:
                absolute = wanted.quantity in ("x", "soc_beam")
                sigma = found["sigma_stat"] / (1.0 if absolute else abs(found["value"]) or 1.0)
                if sigma <= wanted.below:
                    return f"uncertainty of {wanted.quantity} {sigma:.3g}"
        return None
