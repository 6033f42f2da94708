"""The short host of ``operando tune``: one heater, its relay and its watchdog, guarded as in every run.

It builds only the heater and the I/O box. Guard, limits, leases, interlock rows and ways out are those of a
run; whatever happens, everything is off when it returns. It has no supervisor: if this process dies, the
watchdog of the I/O box opens the relay in series, as it does when the whole computer dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from controller.autotune import RelayTest, TuneFailed
from controller.beamline import Beamline
from controller.clock import Ticker
from controller.config import effective_limits
from controller.devices import build, introduce
from controller.guard import Action, Guard, Trip
from controller.heating import Heating
from controller.host_pid import HostPid
from controller.local import LocalServer
from controller.rules import guard_rules, interlock_rows
from controller.safety import ActionResult, carry_out
from drivers.errors import Refused

if TYPE_CHECKING:
    from controller.config import Experiment, Station
    from controller.journal import AsyncJournal
    from controller.paths import StateDir
    from controller.record import Recorder
    from controller.scanning import Scanning
    from drivers.clock import Clock
    from drivers.roles import HeaterReading, IoReading

EXIT_INSTRUMENT, EXIT_GUARD, EXIT_ABORTED = 3, 4, 5
GUARD_PERIOD_S = 0.1
WALL_FLOOR_S = 0.02  # as in a run
KNOWN_S = 10.0  # lab seconds until the first temperature
BEFORE_S = 20.0  # at rest, before anything is heated
SETTLED_K, SETTLED_S = 0.5, 60.0
HELD_S = 120.0
REST_S, REST_K = 900.0, 12.0  # afterwards, until it is so far below the set-point
LONGEST_S = 4 * 3600.0


class Stopped(Exception):
    """The experiment has ended early; the message says why."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass
class Record:
    """What was measured, and how: everything that the identification needs."""

    station: str
    device: str
    own_loop: bool  # of the instrument; its power cannot be commanded
    at_k: float
    full_w: float
    period_s: float
    lab_speed: float
    identity: dict[str, Any] = field(default_factory=dict)
    rows: list[tuple[float, float | None, float, float]] = field(default_factory=list)
    relay: dict[str, Any] | None = None
    swing_k: float | None = None
    cap_w: float | None = None
    room_k: tuple[float, float] | None = None  # as a person measured it, with its error (one sigma)

    def as_dict(self) -> dict[str, Any]:
        """Return it for a file; rows are time (s), temperature (K), power (W), set-point (K)."""
        return {"kind": "operando tune record", **asdict(self)}


class Book:
    """Stands where a run has its recorder: keeps the readings, says what happened, once each."""

    def __init__(self, clock: Clock, record: Record, say: Callable[[str], None]) -> None:
        self._clock = clock
        self._record = record
        self._say = say
        self._told: set[str] = set()

    def heater(self, reading: HeaterReading, target_k: float | None) -> None:
        """Keep one reading."""
        at_s = reading.monotonic_s * self._clock.speed
        if self._record.rows and at_s <= self._record.rows[-1][0]:
            return
        power_w = reading.output_fraction * self._record.full_w
        self._record.rows.append((at_s, reading.temperature_k, power_w, reading.working_setpoint_k))

    def io(self, reading: IoReading) -> None:
        """The guard has seen it; nothing is kept."""

    def fault(self, module: str, text: str) -> None:
        """Say what went wrong with an instrument."""
        if text[:60] not in self._told:
            self._told.add(text[:60])
            self._say(text)

    def unknown(self, module: str, units: dict[str, str]) -> None:
        """Nothing is published from here."""


class _NoScan:
    """In place of a scan: the beam is blanked all the time."""

    def see_beam(self, current_a: float | None) -> None:
        """Nobody wants to know."""


@dataclass(frozen=True)
class Wanted:
    """What the experiment is to do."""

    at_k: float
    swing_k: float
    cap_w: float | None
    full_w: float | None  # power at output 1 of an instrument with a loop of its own
    room_k: tuple[float, float] | None = None  # measured by a person, with its error; for the record only


class TuneHost:
    """One identification experiment."""

    def __init__(
        self, station: Station, experiment: Experiment | None, clock: Clock, state: StateDir,
        journal: AsyncJournal, wanted: Wanted, say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._clock, self._journal, self._wanted, self._say = clock, journal, wanted, say
        self._names = {"heater": station.roles.heater or "", "io": station.io_name or ""}
        self._station = station
        limits = effective_limits(station, experiment)
        self._bench = build(station, clock, only=self._names.values(), limits=limits)
        heater, io = self._bench.heater, self._bench.io
        if heater is None or io is None:
            raise Stopped(2, "this station has no heater, or no I/O box with the relay in series with it")
        self._heater = heater
        rules = guard_rules(station, experiment, WALL_FLOOR_S * clock.speed)
        mine = {name: period for name, period in rules.period_s.items() if name in self._names}
        self._rate_k_per_s = rules.temperature_rate_k_per_s
        self.guard = Guard(
            replace(rules, period_s=mine), clock, self._on_trip, interlocks=list(self._rows_to_watch())
        )
        self.record = Record(
            station.name, self._names["heater"], not isinstance(heater, HostPid), wanted.at_k,
            self._full_w(), mine["heater"], clock.speed, room_k=wanted.room_k,
        )  # fmt: skip
        book = cast("Recorder", Book(clock, self.record, say))
        self._heating = Heating(heater, io, self.guard, clock, book, period_s=mine["heater"])
        self._beamline = Beamline(
            io, self.guard, clock, book, cast("Scanning", _NoScan()), period_s=mine["io"],
            watchdog_s=_watchdog_s(station),
        )  # fmt: skip
        self._local = LocalServer(state.socket("control"), self._answer)
        self._stop: Stopped | None = None
        self._ended = asyncio.Event()
        self._acting: set[asyncio.Task[Any]] = set()
        self._safe: asyncio.Task[list[ActionResult]] | None = None
        self.phase = "connecting"
        self.results: list[ActionResult] = []

    async def run(self) -> Record:
        """Do the experiment; everything is off when this returns or raises.

        Raises:
            Stopped: it ended early, with the exit code that belongs to the reason.
            DriverError: an instrument, while connecting.
        """
        await self._local.start()
        try:
            with _signals(lambda name: self.end(EXIT_ABORTED, f"ended by {name}")):
                await self._connect()
                await self._work()
        finally:
            self.results = await carry_out(self._bench.outputs, Action.SAFE)
            if self._acting:
                await asyncio.wait(self._acting, timeout=5.0)
            await self._bench.close()
            await self._local.stop()
        unconfirmed = [one for one in self.results if not one.confirmed]
        if unconfirmed:
            raise Stopped(EXIT_INSTRUMENT, "; ".join(f"{r.output} not off: {r.error}" for r in unconfirmed))
        return self.record

    def end(self, code: int, reason: str) -> None:
        """End from outside; the first reason counts."""
        if self._stop is None:
            self._stop = Stopped(code, reason)
            self._ended.set()

    # --- the experiment -----------------------------------------------------------------------------------

    async def _connect(self) -> None:
        for latch in await self._journal.latches():
            text = str(latch.body.get("text", latch.id))
            raise Stopped(EXIT_GUARD, f"a latch holds: {text} (operando clear {latch.id})")
        for name, device in self._bench.devices.items():
            for line in self._station.lines_of(name):
                await self._bench.lines[line].open()
            identity, _ = await introduce(device)
            self.record.identity[name] = asdict(identity)

    async def _work(self) -> None:
        self.guard.begin()
        services = [
            asyncio.create_task(work) for work in (self._heating.poll(), self._beamline.poll(), self._watch())
        ]
        doing = asyncio.create_task(self._experiment())
        ended = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait({doing, ended, *services}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.guard.stand_down()
            self._heating.stand_down()
            safe = asyncio.create_task(carry_out(self._bench.outputs, Action.SAFE))
            for task in (doing, ended, *services):
                task.cancel()
            results = await asyncio.gather(doing, ended, *services, return_exceptions=True)
            await safe
        if self._stop is not None:
            raise self._stop
        for result in results:
            if isinstance(result, (TuneFailed, Refused)):
                raise Stopped(EXIT_INSTRUMENT, str(result))
            if isinstance(result, Exception):
                raise result

    async def _experiment(self) -> None:
        async with asyncio.timeout(self._clock.wall_timeout_s(LONGEST_S)):
            await self._until(lambda: self._heating.temperature_k() is not None, KNOWN_S, "no temperature")
            await self._clock.sleep(BEFORE_S)
            if isinstance(self._heater, HostPid):
                await self._relay(self._heater)
            else:
                await self._step()
            self.phase = "rest"
            self._say("cooling, with the power off")
            await self._heating.off()
            began_s = self._clock.now_s()
            while self._clock.now_s() - began_s < REST_S:
                await self._clock.sleep(1.0)
                now_k = self._heating.temperature_k()
                if now_k is not None and now_k < self._wanted.at_k - REST_K:
                    break
        self.phase = "done"

    async def _relay(self, heater: HostPid) -> None:
        """Swing about the set-point, by a law in place of the PID."""
        cap_w = min(self._wanted.cap_w or heater.full_w, heater.full_w)
        law = RelayTest(
            at_k=self._wanted.at_k, swing_k=self._wanted.swing_k, cap_w=cap_w, rate_k_per_s=self._rate_k_per_s
        )
        self.record.swing_k, self.record.cap_w = self._wanted.swing_k, cap_w
        heater.drive_by(law)
        await self._heating.heat(self._wanted.at_k, ramp_k_per_s=self._rate_k_per_s)
        while not law.done:
            if law.phase != self.phase:
                self.phase = law.phase
                self._say(f"{law.phase}, up to {cap_w:g} W")
            await self._clock.sleep(1.0)
        result = law.result()
        self.record.relay = None if result is None else asdict(result)

    async def _step(self) -> None:
        """Let the instrument's own loop go to the set-point and hold it."""
        self.phase = "step"
        self._say(f"to {self._wanted.at_k:g} K by the instrument's own loop")
        await self._heating.heat(self._wanted.at_k, ramp_k_per_s=self._rate_k_per_s)
        await self._until(
            lambda: self._heating.stable(self._wanted.at_k, SETTLED_K, SETTLED_S), 3600.0,
            "it does not settle",
        )  # fmt: skip
        await self._clock.sleep(HELD_S)

    async def _until(self, true: Callable[[], bool], within_s: float, otherwise: str) -> None:
        began_s = self._clock.now_s()
        while not true():
            if self._clock.now_s() - began_s > within_s:
                raise TuneFailed(f"{otherwise} within {within_s:.0f} s")
            await self._clock.sleep(min(1.0, within_s / 10.0))

    # --- the guard ----------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        async for _ in Ticker(self._clock, max(GUARD_PERIOD_S, WALL_FLOOR_S * self._clock.speed)):
            self.guard.tick()

    def _on_trip(self, trip: Trip) -> None:
        task = asyncio.get_running_loop().create_task(self._act(trip))
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)

    async def _act(self, trip: Trip) -> None:
        """Outputs first, then the journal; every trip ends this experiment."""
        results = await carry_out(self._bench.outputs, Action.SAFE)
        body = {**asdict(trip), "action": trip.action.value, "t": trip.wall_s}
        if trip.latch:
            await self._journal.latch(trip.id, body)
        else:
            await self._journal.record("trip", "guard", body)
        done = {"trip": trip.id, "results": [one.as_dict() for one in results]}
        await self._journal.record("action", "guard", done)
        self.end(EXIT_GUARD, trip.text)

    def _rows_to_watch(self) -> Iterator[Any]:
        """Rows about heater and box hold here as well; those about the cell, which is not driven, do not.

        Raises:
            Stopped: a row looks at something else: without it the station's protection has a hole.
        """
        for row in interlock_rows(self._station):
            seen = {channel.partition(".")[0] for channel in row.condition.channels}
            if seen <= {"heater", "io"}:
                yield row
            elif "cell" not in seen:
                raise Stopped(
                    2, f"interlock {row.name} looks at {', '.join(sorted(seen))}, which is not read here"
                )

    # --- people -------------------------------------------------------------------------------------------

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer the local socket: status, abort, and safe at once."""
        verb, by = request.get("do"), str(request.get("by", "a person"))
        if verb == "status":
            now_k = self._heating.temperature_k()
            return {"ok": True, "event": "status", "state": f"tune: {self.phase}", "temperature_k": now_k}
        if verb in ("safe", "safe_results"):
            if self._safe is None:
                self.guard.stand_down()
                self._heating.stand_down()
                self._safe = asyncio.create_task(carry_out(self._bench.outputs, Action.SAFE))
                self.end(EXIT_ABORTED, f"safe, asked for by {by}")
            if request.get("ack"):
                return {"ok": True, "text": "safe: taken"}
            results = await asyncio.shield(self._safe)
            return {"ok": all(r.confirmed for r in results), "results": [r.as_dict() for r in results]}
        if verb == "abort":
            self.end(EXIT_ABORTED, f"aborted by {by}")
            return {"ok": True, "text": "abort: accepted"}
        return {"ok": False, "error": f"operando tune knows no {verb!r}"}

    def _full_w(self) -> float:
        if isinstance(self._heater, HostPid):
            return self._heater.full_w
        table = self._station.device("heater")
        plant = getattr(table, "plant", None)
        full_w = self._wanted.full_w or (plant.power_w if plant is not None else None)
        if full_w is None or not math.isfinite(full_w):
            raise Stopped(2, 'the power at full output is not known: say it, as --power "40 W"')
        return full_w


def _watchdog_s(station: Station) -> float:
    box = station.devices.get(station.io_name or "")
    watchdog = box.settings().get("watchdog") if box is not None else None
    return float((watchdog or {}).get("timeout_s", 1.0))


@contextlib.contextmanager
def _signals(end: Callable[[str], None]) -> Iterator[None]:
    """Make Ctrl-C, a hang-up and SIGTERM an orderly end."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, end, number.name)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
