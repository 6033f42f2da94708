"""What happened, written down and told: journal rows, retained states, lines for people.

Values keep their quality: what is invalid is published as bad without a value, never as the last good one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from controller.journal import JournalError
from controller.payloads import state, tele
from controller.questions import of_latch
from controller.run_documents import RunStreams
from controller.shown import pass_told
from drivers.roles import Eis, Geis

if TYPE_CHECKING:
    from controller.cycling import CellState
    from controller.guard import Trip
    from controller.journal import AsyncJournal
    from controller.safety import ActionResult
    from controller.scanning import PassOutcome
    from drivers.clock import Clock
    from drivers.roles import CellEvent, CellProgram, CellSample, HeaterReading, IoReading

STATE_PERIOD_S = 0.5  # wall seconds between two publications of the same state
IO_PERIOD_S = 0.2
TELE_PERIOD_S = 1.0
LEVEL_PERIOD_S = 10.0  # of what changes rarely: between two publications while it does not
FAULT_PERIOD_S = 5.0  # the same fault text is not repeated more often
STANDS_PERIODS = 3.0  # a value that was not renewed for this many of its device's periods is stale
STANDS_MARGIN_S = 2.0  # for the way to the broker
PT100_SIGMA_K = 1.0  # accuracy of the sensor in the holder (Moeller 2021, section 4.3)


class Recorder:
    """One per run. Safety events are awaited (committed before anyone acts on them); samples are grouped."""

    def __init__(
        self, journal: AsyncJournal, clock: Clock, run: str, broadcast: Callable[[dict[str, Any]], None]
    ) -> None:
        self._journal = journal
        self._clock = clock
        self.run = run
        self.documents = RunStreams(journal, run, clock)
        self._broadcast = broadcast
        self._began_s = clock.now_s()
        self._said: dict[str, float] = {}
        self._samples: dict[str, list[tuple[float, float | None]]] = {}
        self.gaps: list[dict[str, Any]] = []
        self.trips: list[dict[str, Any]] = []
        self.counters: dict[str, int] = {}
        self.periods_s: dict[str, float] = {}  # lab seconds between two polls, by module
        self.passed: Callable[[dict[str, Any]], None] = lambda told: None  # told of every pass that has ended
        self._levels: dict[tuple[str, str], Any] = {}
        self._last_io: IoReading | None = None

    # --- safety and run events: committed before return --------------------------------------------------

    async def event(self, kind: str, module: str, body: Mapping[str, Any], **more: Any) -> int:
        """Commit one event and return its sequence number."""
        return await self._journal.record(
            kind, module, dict(body), run=self.run, lab_s=self._clock.now_s(), **more
        )

    async def trip(self, trip: Trip) -> None:
        """Commit a trip with its alarm, and the latch, before anything is published."""
        body = {
            "id": trip.id, "channel": trip.channel, "value": trip.value, "limit": trip.limit,
            "unit": trip.unit, "action": trip.action.value, "text": trip.text, "lab_s": trip.lab_s,
            "t": trip.wall_s, "latch": trip.latch,
            **({"acknowledge": trip.acknowledge} if trip.acknowledge else {}),
        }  # fmt: skip
        self.trips.append(body)
        if trip.latch:
            await self._journal.latch(trip.id, body, run=self.run)
            if trip.acknowledge:
                asks = of_latch(trip.id, trip.text, trip.acknowledge)
                await self.event("question", "guard", asks, topic=f"question/{trip.id}", retain=True)
        else:
            await self.event("trip", "guard", body, topic=f"alarm/{trip.id}")
        await self.documents.interlock(trip)
        self.line(f"GUARD: {trip.text} -> {trip.action.value}", "trip")

    async def actions(self, trip_id: str, results: list[ActionResult]) -> None:
        """Commit what became of the off commands of a trip."""
        await self.event("action", "guard", {"trip": trip_id, "results": [r.as_dict() for r in results]})
        for result in results:
            if not result.confirmed:
                self.line(f"GUARD: {result.output} did not confirm off: {result.error}")

    async def publish(self, kind: str, module: str, body: Mapping[str, Any], **more: Any) -> None:
        """Commit an event with its message at once; a journal that cannot take it is counted, not raised."""
        try:
            await self.event(kind, module, body, **more)
        except JournalError as error:
            self.count("unpublished")
            self.line(str(error))

    # --- samples: grouped commits ------------------------------------------------------------------------

    def heater(self, reading: HeaterReading, target_k: float | None) -> None:
        """One poll of the temperature controller."""
        good = reading.sensor_ok and reading.temperature_k is not None
        body = {
            "temperature_k": reading.temperature_k if good else None, "target_k": target_k,
            "setpoint_k": reading.working_setpoint_k, "output": reading.output_fraction,
            "problems": list(reading.problems),
        }  # fmt: skip
        self.post("sample", "heater", body)
        self.sample("heater/temperature", reading.temperature_k if good else None)
        self.sample("heater/target", target_k)
        self.sample("heater/output", reading.output_fraction)
        self.documents.thermal(reading, reading.temperature_k if good else None, target_k)
        self.state("heater", "temperature", reading.temperature_k if good else None, "K", error=PT100_SIGMA_K)
        self.state("heater", "output", reading.output_fraction, "1")
        self.level("heater", "target", target_k, "K")
        self.level("heater", "problems", ", ".join(reading.problems))

    def io(self, reading: IoReading) -> None:
        """One poll of the beam-line I/O."""
        self._last_io = reading
        if not self._due("io", IO_PERIOD_S):
            return
        body = {
            "beam_a": reading.beam_current_a, "permit": reading.permit, "relay": reading.relay_closed,
            "shutter": reading.shutter_open, "blanked": reading.blanked, "problems": list(reading.problems),
        }  # fmt: skip
        self.post("sample", "io", body)
        self.sample("beam/current", reading.beam_current_a)
        self.state("beam", "current", reading.beam_current_a, "A")
        self.state("beam", "blanked", reading.blanked, "")
        self.level("beam", "permit", reading.permit)
        self.level("beam", "relay", reading.relay_closed)
        self.level("beam", "shutter", reading.shutter_open)
        for name, closed in reading.switches.items():
            self.level("beam", name, closed)

    def settle(self) -> None:
        """Tell how the beam was left: what it does changes faster than it is told."""
        if self._last_io is not None:
            for key in [key for key in self._said if key == "io" or key.startswith("state beam ")]:
                del self._said[key]
            self.io(self._last_io)

    def monitor(
        self, name: str, values: Mapping[str, float | bool | None], units: Mapping[str, str | None],
        problems: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """One poll of a further device: every value with its unit, None for what is not known."""
        body = {
            "values": dict(values), "units": {channel: units.get(channel) for channel in values},
            "problems": list(problems),
        }  # fmt: skip
        self.post("monitor", name, body)
        for channel, value in values.items():
            if not isinstance(value, bool) and units.get(channel) is not None:
                self.sample(f"{name}/{channel}", value)
            self.state(name, channel, value, units.get(channel) or "")
        self.documents.monitor(name, values)

    def cell(self, sample: CellSample, now: CellState) -> None:
        """One data package of the potentiostat."""
        body = {
            "elapsed_s": sample.elapsed_s, "phase": sample.phase, "voltage_v": now.voltage_v,
            "current_a": now.current_a, "charge_coulomb": now.charge_coulomb, "valid": sample.valid,
            "problems": list(sample.problems),
        }  # fmt: skip
        if sample.frequency_hz is not None:
            body["frequency_hz"] = sample.frequency_hz
            body["z_ohm"] = [sample.z_real_ohm, sample.z_imag_ohm]
            body["swing"] = [sample.swing_v, sample.swing_a]
            self.documents.impedance(sample, now)
        self.post("sample", "cell", body)
        self.sample("cell/voltage", now.voltage_v)
        self.sample("cell/current", now.current_a)
        self.sample("cell/charge", now.charge_coulomb)
        self.documents.echem(now)
        self.cell_state(now)

    def cell_state(self, now: CellState) -> None:
        """Publish what is known of the cell."""
        opened = now.state == "open circuit"  # nobody measures, and the charge stays what it is
        self.periods_s["cell"] = 0.0 if opened else now.holds_s / STANDS_PERIODS
        self.state("cell", "voltage", now.voltage_v, "V", at_once=opened)
        self.state("cell", "current", now.current_a, "A", at_once=opened)
        self.state("cell", "charge", now.charge_coulomb, "C", at_once=opened)
        self.level("cell", "phase", now.state)

    async def cell_program(self, program: CellProgram, now: CellState) -> None:
        """Commit what the cell is about to be asked for: after a crash this bounds what it may have done."""
        limits = getattr(program, "limits", None)
        sweeps = isinstance(program, Eis | Geis)
        body = {
            "event": "program", "detail": type(program).__name__, "charge_coulomb": now.charge_coulomb,
            "current_a": getattr(program, "bias_a" if sweeps else "current_a", None),
            "limits": None if limits is None else asdict(limits),
            "interval_s": getattr(program, "interval_s", None),
        }  # fmt: skip
        if sweeps:
            body["sweep"] = {key: value for key, value in asdict(program).items() if key != "limits"}
        await self.event("cell_event", "cell", body)

    def cell_opened(self, now: CellState) -> None:
        """The circuit is open again, and what is counted until then."""
        body = {
            "event": "opened", "charge_coulomb": now.charge_coulomb, "charged_s": now.charged_s,
            "unmeasured_s": now.unmeasured_s, "missed_coulomb": now.missed_coulomb,
        }  # fmt: skip
        self.post("cell_event", "cell", body)
        self.cell_state(now)

    def cell_event(self, event: CellEvent) -> None:
        """A change of the running cell program (started, CC to CV, finished)."""
        self.post("cell_event", "cell", {"event": event.kind.value, "detail": event.detail})
        self.line(f"cell: {event.kind.value} {event.detail}".rstrip(), "cell")

    def scan_pass(self, scan: int, outcome: PassOutcome, message: Mapping[str, Any]) -> None:
        """A pass that has ended, good or quarantined."""
        keep = {key: message[key] for key in ("good", "why", "frame0", "counters", "stamp", "raw")}
        body = {
            "scan": scan, "name": message.get("name", ""), "n": outcome.n, **keep,
            "lines_done": outcome.lines_done, "events": outcome.events,
            "lost": outcome.lost, "charge_coulomb": outcome.charge_coulomb, "live_s": outcome.live_s,
            "missed_refills": outcome.missed_refills,
        }  # fmt: skip
        self.post("pass", "scan", body)
        self.passed(pass_told(body, time.time()))
        self.documents.scan_pass(scan, outcome, message["stamp"])
        self.count("missed_refills", outcome.missed_refills)
        self.count("lost_events", sum(outcome.lost.values()))
        if not outcome.good:
            self.count("quarantined_passes")
            self.line(f"scan pass {outcome.n} is quarantined: {outcome.why}", "pass")

    # --- things to tell ----------------------------------------------------------------------------------

    def fault(self, module: str, text: str) -> None:
        """A device error that the guard, not this line, decides about."""
        self.count(f"{module}_errors")
        if self._due(f"fault {module} {text[:40]}", FAULT_PERIOD_S):
            self.post("fault", module, {"text": text})
            self.line(text, "fault")

    def gap(self, module: str, text: str, lab_s: float, *, end: bool = False) -> None:
        """A stretch without data, for the journal and the summary."""
        body = {"module": module, "text": text, "lab_s": lab_s, "end": end}
        self.gaps.append(body)
        self.post("gap", module, body)
        self.line(text, "gap")

    def line(self, text: str, kind: str = "log") -> None:
        """One line for people; ``kind`` says of what: trip, cell, pass, fault, gap, or anything (log)."""
        body = {"text": text, "kind": kind}
        told = json.dumps(state(body), separators=(",", ":")).encode()
        self.post("log", "host", body, topic="state/run/said", retain=True, payload=told)
        elapsed_s = self._clock.now_s() - self._began_s
        self._broadcast({"event": "line", "text": text, "elapsed_s": elapsed_s, "t": time.time()})

    def count(self, name: str, by: int = 1) -> None:
        """Count something for the summary."""
        if by:
            self.counters[name] = self.counters.get(name, 0) + by

    def post(self, kind: str, module: str, body: Mapping[str, Any], **more: Any) -> None:
        """Queue one event for the next group commit."""
        self._journal.post(kind, module, dict(body), run=self.run, lab_s=self._clock.now_s(), **more)

    def state(
        self, module: str, name: str, value: float | bool | None, unit: str, *, error: float | None = None,
        at_once: bool = False,
    ) -> None:  # fmt: skip
        """Publish a retained state; None is published as bad, without a value.

        It says for how long it stands unless it is renewed, if its device is polled.
        """
        if not self._due(f"state {module} {name} {value is None}", 0.0 if at_once else STATE_PERIOD_S):
            return
        period_s = self.periods_s.get(module) if value is not None else None
        stands_s = None
        if period_s:
            stands_s = STANDS_PERIODS * max(STATE_PERIOD_S, period_s / self._clock.speed) + STANDS_MARGIN_S
        body = state(value, e=error, unit=unit or None, stands_s=stands_s)
        self.post("state", module, body, topic=f"state/{module}/{name}", retain=True)

    def level(self, module: str, name: str, value: float | bool | str | None, unit: str = "") -> None:
        """Publish what changes rarely: at once when it has changed, and every 10 s."""
        known = self._levels.get((module, name), self)
        if value == known and not self._due(f"level {module} {name}", LEVEL_PERIOD_S):
            return
        self._levels[module, name] = value
        self._said[f"level {module} {name}"] = time.monotonic()
        stands_s = STANDS_PERIODS * LEVEL_PERIOD_S if self.periods_s.get(module) else None
        body = state(value, q="good" if value is None else None, unit=unit or None, stands_s=stands_s)
        self.post("state", module, body, topic=f"state/{module}/{name}", retain=True)

    def unknown(self, module: str, units: Mapping[str, str]) -> None:
        """Publish that these parameters of a module are not known, by name and unit."""
        for name, unit in units.items():
            self.state(module, name, None, unit)
        for known, name in list(self._levels):
            if known == module and isinstance(self._levels[known, name], bool):
                del self._levels[known, name]
                body = state(None)
                self.post("state", module, body, topic=f"state/{module}/{name}", retain=True)

    def flush_tele(self) -> None:
        """Publish the samples of the last second in one message; the journal has each of them."""
        if self._samples and self._due("tele", TELE_PERIOD_S):
            self.post("tele", "host", tele(self._samples), topic="tele", qos=0)
            self._samples = {}

    def sample(self, name: str, value: float | None) -> None:
        """Add a sample to the next batch."""
        self._samples.setdefault(name, []).append((time.time(), value))

    def _due(self, key: str, period_s: float) -> bool:
        now = time.monotonic()
        if now - self._said.get(key, -period_s) < period_s:
            return False
        self._said[key] = now
        return True
