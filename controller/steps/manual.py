"""The desk of a ``manual`` step: what local programs ask for, within limits, and what becomes of it.

Requests come over the local socket of control (``{"do": "manual", "verb": ...}``). Whoever wants to command
takes the step with ``take`` and is given a session; each request with it, ``alive`` too, says that its owner
is there. Everything goes to the owners (heating, cycling, scanning, staging) and so past the guard, as a step
of the file would. What is accepted is journalled before it is done, with who asked; a refusal names value and
limit.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from controller.command_refusals import Refusals
from controller.config import effective_limits
from controller.config.quantities import show
from controller.steps.manual_work import CellWork, ScanWork, Works
from drivers.errors import DriverError

if TYPE_CHECKING:
    from controller.config.manual import Manual
    from controller.steps.context import Context

SAME = 1e-9  # relative: limits are inclusive
SETTLED_K = 0.05  # a ramp that is nearer to its end than this has arrived
LONGEST_NAME = 60

Arguments = Mapping[str, Any]
T = TypeVar("T")


class NotAllowed(Exception):
    """A request that is not carried out; the text says why, with value and limit."""


class ManualDesk:
    """One manual step: who is in charge, what runs, and when it ends."""

    def __init__(
        self, context: Context, step: Manual, *, monotonic: Callable[[], float] | None = None
    ) -> None:
        self._context = context
        self._step = step
        self._monotonic = monotonic or time.monotonic
        self._limits = effective_limits(context.host.station, context.host.experiment)
        self._session = ""
        self._by = ""
        self._heard_s = -math.inf
        self._done_by = ""
        self._left_s = step.timeout_s
        self._turn = asyncio.Lock()  # one request at a time: two must not pass the same limit together
        self._refusals = Refusals(self._note_refusal)
        self.works = Works(
            CellWork(context, step, self._limits) if step.cell is not None else None,
            ScanWork(context, step) if step.scan is not None else None,
        )
        self._verbs: dict[str, Callable[[Arguments], Awaitable[dict[str, Any]]]] = {
            "heat": self._heat, "hold": self._hold, "off": self._off, "ocv": self._ocv,
            "charge": self._charge, "discharge": self._charge, "open": self._open, "scan": self._scan,
            "end_scan": self._end_scan, "move": self._move, "stop": self._stop, "done": self._done,
            "alive": self._alive, "release": self._release,
        }  # fmt: skip

    # --- the step ----------------------------------------------------------------------------------------

    async def run(self) -> str:
        """Serve until somebody says ``done``, the run is to end, or the time is over."""
        context, clock = self._context, self._context.clock
        context.manual = self
        try:
            while not self._done_by and not context.finishing:
                before = clock.now_s()
                await clock.sleep(min(0.5, 0.02 * clock.speed + 0.05))
                self.works.raise_failures()
                if self._silent():
                    await self._gone(f"{self._by} was not heard for {self._step.silence_s:g} s")
                if not context.paused:
                    self._left_s -= clock.now_s() - before
                if self._left_s <= 0:
                    break
            await self.works.end()
        finally:
            context.manual = None
            await self.works.cut_off()
            await self._refusals.close()
        if context.finishing:
            return "stopped early"
        if self._done_by:
            return f"done, said {self._done_by}"
        return await context.host.sequence.timed_out(
            self._step, f"manual: not done after {self._step.timeout_s:g} s"
        )

    def _silent(self) -> bool:
        """Whether the one in charge was not heard for too long; who waits for an answer is there."""
        silent_s = self._monotonic() - self._heard_s
        return bool(self._session) and not self._turn.locked() and silent_s > self._step.silence_s

    async def _gone(self, why: str) -> None:
        """Nobody is in charge any more: do what the step says."""
        self._session, by, self._by = "", self._by, ""
        self._context.recorder.line(f"manual: {why} -> {self._step.gone}")
        body = {"verb": "gone", "by": by, "then": self._step.gone, "why": why}
        await self._context.recorder.event("manual", "manual", body)
        async with self._turn:
            await self._calm(off=self._step.gone == "off")

    async def _calm(self, *, off: bool = False) -> None:
        """Circuit open, scan ended after its line, set-point held, or the heater off."""
        self.works.stop()
        if self._step.heater is None:
            return
        try:
            if off:
                await self._context.heating.off()
            else:
                await self._hold_heater()
        except DriverError as error:  # the guard judges the heater by its own readings
            self._context.recorder.fault("heater", str(error))

    # --- requests ----------------------------------------------------------------------------------------

    async def handle(self, request: Arguments) -> dict[str, Any]:
        """Answer one request; a refusal is an answer, too."""
        verb, by = str(request.get("verb", "")), _name(request.get("by"))
        try:
            if verb == "status":
                return {"ok": True, **self.status()}
            if verb == "take":
                return await self._take(by)
            act = self._act(verb, request)
            self._heard_s = self._monotonic()
            if verb == "alive":  # also while something long is being done
                return {"ok": True}
            return await self._do(act, request)
        except (NotAllowed, DriverError) as error:
            body = {"verb": verb[:32], "by": self._by or by, "reason": str(error)}
            await self._refusals.take(body)
            return {"ok": False, "error": str(error)}

    async def _do(
        self, act: Callable[[Arguments], Awaitable[dict[str, Any]]], request: Arguments
    ) -> dict[str, Any]:
        async with self._turn:
            reply = await act(request)
            self._heard_s = self._monotonic()  # it was there, waiting
        return {"ok": True, "text": f"{request['verb']}: accepted", **reply}

    def _act(self, verb: str, request: Arguments) -> Callable[[Arguments], Awaitable[dict[str, Any]]]:
        """Return what carries a verb out, for who is in charge."""
        if verb not in self._verbs:
            raise NotAllowed(f"there is no {verb!r}: {', '.join(('take', 'status', *self._verbs))}")
        if not self._session or request.get("session") != self._session:
            hands = self._by or "nobody"
            raise NotAllowed(f"{verb} is refused: the step is in the hands of {hands}; take it first")
        return self._verbs[verb]

    async def _take(self, by: str) -> dict[str, Any]:
        if self._session:
            raise NotAllowed(f"take is refused: the step is in the hands of {self._by}")
        self._session, self._by = secrets.token_hex(16), by
        self._heard_s = self._monotonic()
        await self._accepted("take", {})
        self._context.recorder.line(f"manual: in the hands of {by}")
        return {"ok": True, "session": self._session, "silence_s": self._step.silence_s, **self.status()}

    async def _alive(self, _: Arguments) -> dict[str, Any]:
        return {}

    async def _release(self, _: Arguments) -> dict[str, Any]:
        by, self._session, self._by = self._by, "", ""
        body = {"verb": "release", "by": by, "then": self._step.gone}
        await self._context.recorder.event("manual", "manual", body)
        self._context.recorder.line(f"manual: given back by {by} -> {self._step.gone}")
        await self._calm(off=self._step.gone == "off")
        return {}

    async def _done(self, _: Arguments) -> dict[str, Any]:
        await self._accepted("done", {})
        self._done_by = self._by
        return {}

    async def _stop(self, _: Arguments) -> dict[str, Any]:
        """Hold: the set-point stays where it is, the circuit opens, the scan ends after its line."""
        await self._accepted("stop", {})
        await self._calm()
        return {}

    # --- heater ------------------------------------------------------------------------------------------

    async def _heat(self, request: Arguments) -> dict[str, Any]:
        allowed = self._given("heat", "heater", self._step.heater)
        self._ready("heat")
        to_k = _number(request, "to_k")
        ramp = _number(request, "ramp_k_per_s", allowed.ramp_k_per_s)
        _within("heat", to_k, allowed.low_k, allowed.high_k, "K")
        _within("ramp", ramp, 0.0, allowed.ramp_k_per_s, "K/s")
        if ramp <= 0.0:
            raise NotAllowed("ramp 0 K/s is refused: it would never arrive")
        await self._accepted("heat", {"to_k": to_k, "ramp_k_per_s": ramp})
        await self._context.heating.heat(to_k, ramp_k_per_s=ramp)
        return {"target_k": to_k}

    async def _hold(self, _: Arguments) -> dict[str, Any]:
        self._given("hold", "heater", self._step.heater)
        await self._accepted("hold", {})
        return {"target_k": await self._hold_heater()}

    async def _hold_heater(self) -> float | None:
        """Keep the set-point where it is now: a ramp ends there, and never at a measured value."""
        heating = self._context.heating
        target_k, reading = heating.target_k, heating.reading
        now_k = None if reading is None else reading.working_setpoint_k
        if target_k is None or now_k is None or abs(now_k - target_k) <= SETTLED_K:
            return target_k
        allowed = self._given("hold", "heater", self._step.heater)
        hold_k = min(
            max(now_k, allowed.low_k), allowed.high_k
        )  # a ramp may begin far below the step's window
        await heating.heat(hold_k, ramp_k_per_s=allowed.ramp_k_per_s)
        return hold_k

    async def _off(self, _: Arguments) -> dict[str, Any]:
        self._given("off", "heater", self._step.heater)
        await self._accepted("off", {})
        await self._context.heating.off()
        return {"target_k": None}

    # --- cell --------------------------------------------------------------------------------------------

    async def _ocv(self, request: Arguments) -> dict[str, Any]:
        work = self._given("ocv", "cell", self.works.cell)
        self._ready("ocv")
        duration_s = self._duration(request)
        self._idle("ocv", work.busy, "the cell")
        await self._accepted("ocv", {"duration_s": duration_s})
        return {"job": work.rest(duration_s, _interval(request))}

    async def _charge(self, request: Arguments) -> dict[str, Any]:
        verb = str(request["verb"])
        work, allowed = self._given(verb, "cell", self.works.cell), self._given(verb, "cell", self._step.cell)
        self._ready(verb)
        sign = 1.0 if verb == "charge" else -1.0
        current_a, duration_s = _number(request, "current_a"), self._duration(request)
        edge_v = allowed.high_v if sign > 0 else allowed.low_v
        voltage_v = _number(request, "voltage_v", edge_v)
        below_a = _number(request, "current_below_a", 0.0)
        _within(f"{verb} current", current_a, 0.0, allowed.current_a, "A")
        _within(f"{verb} voltage", voltage_v, allowed.low_v, allowed.high_v, "V")
        _within(f"{verb} current_below", below_a, 0.0, current_a, "A")
        if current_a <= 0.0:
            raise NotAllowed(f"{verb} current 0 A is refused: it must be more, and is written positive")
        left_coulomb = work.left_coulomb(sign)
        charge = _number(request, "charge_coulomb", left_coulomb)
        if charge > left_coulomb * (1 + SAME) or left_coulomb <= 0.0:
            raise NotAllowed(
                f"{verb} of {show(charge, 'C')} is refused: the step allows "
                f"{show(allowed.charge_coulomb, 'C')} away from where it began, "
                f"{show(left_coulomb, 'C')} are left"
            )
        self._idle(verb, work.busy, "the cell")
        told = {
            "current_a": current_a, "voltage_v": voltage_v, "charge_coulomb": charge,
            "duration_s": duration_s, "current_below_a": below_a,
        }  # fmt: skip
        await self._accepted(verb, told)
        return {"job": work.drive(sign, **told, interval_s=_interval(request))}

    async def _open(self, _: Arguments) -> dict[str, Any]:
        work = self._given("open", "cell", self.works.cell)
        await self._accepted("open", {})
        work.stop()
        return {}

    def _duration(self, request: Arguments) -> float:
        duration_s = _number(request, "duration_s", self._left_s)
        _within("duration", duration_s, 0.0, self._left_s, "s")
        return duration_s

    # --- beam and stage ----------------------------------------------------------------------------------

    async def _scan(self, request: Arguments) -> dict[str, Any]:
        work = self._given("scan", "scan", self.works.scan)
        self._ready("scan")
        passes = _number(request, "passes", 1)
        if passes != int(passes) or passes < 1:
            raise NotAllowed(f"scan of {passes:g} passes is refused: it is a whole number from 1")
        if passes > work.left:
            raise NotAllowed(
                f"scan of {passes:g} passes is refused: the step allows {work.allowed}, {work.left} are left"
            )
        self._idle("scan", work.busy, "the beam")
        await self._accepted("scan", {"passes": int(passes)})
        return {"job": work.begin(int(passes))}

    async def _end_scan(self, _: Arguments) -> dict[str, Any]:
        work = self._given("end_scan", "scan", self.works.scan)
        await self._accepted("end_scan", {})
        work.stop()
        return {}

    async def _move(self, request: Arguments) -> dict[str, Any]:
        allowed = self._given("move", "stage", self._step.stage)
        self._ready("move")
        place = request.get("position_um")
        if not isinstance(place, list) or len(place) != len(allowed.low_um):
            raise NotAllowed(f"move needs position_um with {len(allowed.low_um)} numbers, um")
        position = tuple(_number({"position_um": value}, "position_um") for value in place)
        for axis, value, low, high in zip("xyz", position, allowed.low_um, allowed.high_um, strict=False):
            _within(f"move {axis}", value, low, high, "um")
        if self.works.scan is not None:
            self._idle("move", self.works.scan.busy, "the beam")
        await self._accepted("move", {"position_um": list(position)})
        await self._context.host.staging.go(position)
        self._context.stage_um = position
        return {"position_um": list(self._context.host.staging.at_um or ())}

    # --- inside ------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return who is in charge, what is allowed, what runs and how it ended; SI units in the names."""
        step, staging = self._step, self._context.host.staging
        tables = {
            name: table.model_dump() for name in ("heater", "cell", "stage")
            if (table := getattr(step, name)) is not None
        }  # fmt: skip
        if step.scan is not None:
            tables["scan"] = {"passes": step.scan.passes, "pixels": list(step.scan.raster.pixels)}
        return {
            "by": self._by or None, "left_s": self._left_s, "gone": step.gone, "silence_s": step.silence_s,
            "allowed": tables, "paused": self._context.paused, "stage_um": list(staging.at_um or ()),
            **self.works.status(),
        }  # fmt: skip

    def _given(self, verb: str, table: str, allowed: T | None) -> T:
        if allowed is None:
            raise NotAllowed(f"{verb} is refused: this manual step has no {table} table")
        return allowed

    def _ready(self, verb: str) -> None:
        if self._context.paused:
            raise NotAllowed(f"{verb} is refused: the run is paused")
        if refusal := self._context.host.guard.refuses():
            raise NotAllowed(f"{verb} is refused: {refusal}")

    def _idle(self, verb: str, busy: bool, what: str) -> None:
        if busy:
            raise NotAllowed(f"{verb} is refused: {what} is busy with what was asked for before")

    async def _accepted(self, verb: str, arguments: Mapping[str, Any]) -> None:
        body = {"verb": verb, "by": self._by, **arguments}
        await self._context.recorder.event("manual", "manual", body)

    async def _note_refusal(self, body: dict[str, Any]) -> None:
        self._context.recorder.post("manual_refused", "manual", body)


def _number(request: Arguments, key: str, default: float | None = None) -> float:
    """Return a number of a request. Raises NotAllowed when it is none, or not finite."""
    value = request.get(key, default)
    if value is None:
        raise NotAllowed(f"{request.get('verb', 'this')} needs {key}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise NotAllowed(f"{key} = {str(value)[:40]} is refused: it is no finite number")
    return float(value)


def _interval(request: Arguments) -> float:
    interval_s = _number(request, "interval_s", 1.0)
    _within("interval", interval_s, 0.1, 60.0, "s")
    return interval_s


def _within(what: str, value: float, low: float, high: float, unit: str) -> None:
    """Refuse what lies outside; the text names value and limits."""
    if not low - SAME * abs(low) <= value <= high + SAME * abs(high):
        raise NotAllowed(
            f"{what} {show(value, unit)} is refused: the step allows {show(low, unit)} to {show(high, unit)}"
        )


def _name(value: object) -> str:
    """Return who asks, fit for a line."""
    text = "".join(c for c in str(value or "a local program") if c.isprintable())
    return text[:LONGEST_NAME]


async def manual(context: Context, step: Manual) -> str:
    """Serve local programs within the limits of the step."""
    return await ManualDesk(context, step).run()
