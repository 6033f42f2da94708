"""The desk: answers the local socket and knows what to say about a running host."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from controller.questions import CONTINUE
from controller.record import PT100_SIGMA_K

if TYPE_CHECKING:
    from controller.host import Host
    from controller.safety import ActionResult


def not_cleared(trip_id: str, acknowledge: str) -> dict[str, Any]:
    """Return the answer to a ``clear`` that did nothing."""
    if not acknowledge:
        return {"ok": False, "error": f"{trip_id} is not latched"}
    how = f'operando clear {trip_id} --acknowledge "..."'
    text = f"{trip_id} asks a person at the station: {acknowledge} Say what you found: {how}"
    return {"ok": False, "error": text}


class Desk:
    """Speaks for one host; decides nothing about safety itself."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._safe: asyncio.Task[list[ActionResult]] | None = None

    async def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one request of the local socket."""
        host = self._host
        verb, by = request.get("do"), str(request.get("by", "a person"))
        if verb in ("status", "watch"):
            return {"ok": True, "event": "status", **self.status()}
        if verb == "safe":  # outputs first: not even the journal comes before them
            if self._safe is None or self._safe.done():  # asked by several at once: it is one and the same
                self._safe = host.safe(by)
            host.recorder.post("command", "local", {"do": verb, "by": by})
            return {"ok": True, "text": "safe: taken"} if request.get("ack") else await self._results()
        if verb == "safe_results":
            return await self._results()
        if verb == "manual":  # journals for itself: a client that is only alive is no event
            if host.sequence.context.manual is None:
                return {
                    "ok": False,
                    "error": "refused: no manual step is running, so nobody else may command",
                }
            return await host.sequence.context.manual.handle(request)
        await host.recorder.event("command", "local", {"do": verb, "by": by})
        if verb == "pause":
            host.sequence.pause(f"paused by {by}")
        elif verb == "proceed":
            held = host.guard.holds()
            if held:
                return {"ok": False, "error": f"the pause must not end yet: {held}"}
            if not host.sequence.context.held_by() and host.questions.open():
                return await self._answer({"id": "", "choice": CONTINUE}, by)
            host.sequence.proceed()
        elif verb == "answer":
            return await self._answer(request, by)
        elif verb == "stop":
            host.sequence.finish_early()
        elif verb == "abort":
            host.abort(by)
        elif verb == "clear":
            return await self._clear(str(request.get("id", "")), str(request.get("acknowledge", "")), by)
        else:
            return {"ok": False, "error": f"unknown request {verb!r}"}
        return {"ok": True, "text": f"{verb}: accepted"}

    async def _clear(self, trip_id: str, found: str, by: str) -> dict[str, Any]:
        """Clear a latch; one that asks a person to look is cleared with what the person found."""
        host = self._host
        trip = host.guard.latched.get(trip_id)
        if not host.guard.clear(trip_id, found):
            return not_cleared(trip_id, trip.acknowledge if trip else "")
        await host.journal.clear_latch(trip_id, f"{by}: {found}" if found else by)
        return {"ok": True, "text": f"{trip_id} cleared"}

    async def _answer(self, request: dict[str, Any], by: str) -> dict[str, Any]:
        """Take an answer: to a question of the run, or what a person at the station found at a latch."""
        id_, choice = str(request.get("id", "")), str(request.get("choice", ""))
        if id_ in self._host.guard.latched:
            if request.get("remote"):
                return {"ok": False, "error": f"{id_} is cleared at the station only"}
            return await self._clear(id_, choice, by)
        try:
            return {"ok": True, "text": await self._host.questions.answer(id_, choice, by)}
        except ValueError as error:
            return {"ok": False, "error": str(error)}

    async def _results(self) -> dict[str, Any]:
        """Return what became of ``safe``."""
        if self._safe is None:
            return {"ok": False, "error": "safe was not asked for"}
        results = await asyncio.shield(self._safe)
        return {"ok": all(r.confirmed for r in results), "results": [r.as_dict() for r in results]}

    def _sigma(self) -> dict[str, float]:
        """Return one-sigma errors by the names of ``status``; what is not known is left out."""
        cycling, known = self._host.cycling, {}
        if self._host.heating.temperature_k() is not None:
            known["temperature_k"] = PT100_SIGMA_K
        if cycling.present:
            known["charge_coulomb"] = cycling.now.charge_sigma_coulomb(cycling.error)
        return known

    def status(self) -> dict[str, Any]:
        """Return what is known now; None where it is not known."""
        host = self._host
        cell = host.cycling.now
        voltage_v, current_a = host.cycling.measured()
        beam_a, blanked = host.beamline.now()
        scan = host.sequence.scan_status()
        return {
            "run": host.run_id, "lab_s": host.clock.now_s(), "elapsed_s": host.clock.now_s() - host.began_s,
            "t": time.time(), "speed": host.clock.speed,
            "state": host.sequence.state, "paused": host.sequence.paused, "step": host.sequence.where(),
            "estimate_s": host.sequence.estimate_s, "sigma": self._sigma(),
            "temperature_k": host.heating.temperature_k(),
            "target_k": host.heating.target_k, "voltage_v": voltage_v, "current_a": current_a,
            "cell_state": cell.state, "charge_coulomb": cell.charge_coulomb, "beam_a": beam_a,
            "blanked": blanked, "scan": scan,
            "quantities": host.products["progress"].get("quantities", {}),
            "counts": host.products["progress"].get("counts", {}),
            "appeared": host.products["progress"].get("appeared", {}),
            "alarms": [t.text for t in host.guard.latched.values()],
            "latched": list(host.guard.latched), "lines": host.health.now(),
            "questions": host.questions.open(), **host.outlook.now(),
        }  # fmt: skip
