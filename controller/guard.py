"""The guard: a second opinion on every sample, able to act alone.

It is fed every reading as it arrives, keeps its own counters, and shares no state with PID, cycling or the
sequence. It decides; ``controller.safety`` carries out. No I/O, no asyncio: time comes in by argument or by
the clock it was given, so every rule can be tested without waiting. What concerns one instrument over time is
in ``guard_heater`` and ``guard_cell``; leases are in ``guard_leases``.

Deadlines follow the lab-clock rule of the clock (``wall_timeout_s``), measured with the monotonic clock.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controller.guard_cell import CellCheck
from controller.guard_heater import HeaterCheck
from controller.guard_leases import Leases
from controller.guard_stage import StageCheck
from controller.guard_types import Action as Action  # what others import from here
from controller.guard_types import Condition as Condition
from controller.guard_types import Finding
from controller.guard_types import GuardRules as GuardRules
from controller.guard_types import InterlockRow as InterlockRow
from controller.guard_types import Trip as Trip
from drivers.clock import Clock
from drivers.roles import CellSample, HeaterReading, IoReading

STALE_PERIODS = 3
INVALID_COUNT = 3  # consecutive bad temperature readings, as 3-D printers do with a MAX31865
CELL_INVALID_COUNT = 2  # NaN or overload in two consecutive packages, protocol sheet 04
LIMIT_COUNT = 2  # consecutive readings beyond a hard limit
RECENT, RECENT_INVALID, RECENT_BEYOND = 20, 10, 4  # of the last readings: what comes and goes counts, too
RATE_WINDOW_S = 20.0  # lab seconds over which a temperature rate is taken: 1 K noise must not trip it
RATE_MARGIN_K = 2.0  # a rate counts only when the rise over the window exceeds the limit by this much
SHUTTER_S, SHUTTER_WALL_S = 2.0, 1.0  # the read-back may contradict the command so long, twice its travel
DRIVEN = ("cc", "cv", "eis", "geis")  # phases in which the potentiostat drives the cell


@dataclass
class _Watch:
    """Freshness and debounce of one device."""

    deadline_s: float
    since_s: float
    expected: bool = True
    invalid: int = 0
    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT))
    beyond: dict[str, deque[bool]] = field(default_factory=dict)

    def bad(self, invalid: bool, allowed: int) -> str | None:
        """Count one reading; return in words when too many were invalid, in a row or coming and going."""
        self.invalid = self.invalid + 1 if invalid else 0
        self.recent.append(invalid)
        if self.invalid >= allowed:
            return f"{self.invalid} times in a row"
        flaps = sum(self.recent)
        return f"{flaps} times of {len(self.recent)}" if invalid and flaps >= RECENT_INVALID else None


class Guard:
    """Evaluates every sample; calls ``on_trip`` once per new trip and latches it."""

    def __init__(
        self,
        rules: GuardRules,
        clock: Clock,
        on_trip: Callable[[Trip], None],
        *,
        interlocks: Sequence[InterlockRow] = (),
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._clock = clock
        self._on_trip = on_trip
        self._interlocks = interlocks
        self._monotonic = monotonic
        self._wall = wall
        now = monotonic()
        self._watches = {
            name: _Watch(clock.wall_timeout_s(STALE_PERIODS * period), now, expected=name != "cell")
            for name, period in rules.period_s.items()
        }
        self._monitors = {
            name: _Watch(clock.wall_timeout_s(STALE_PERIODS * period), now)
            for name, period in rules.monitor_s.items()
        }
        self._leases = Leases(clock)
        self._heater = HeaterCheck(rules)
        self._cell = CellCheck(rules.current_a)
        self._stage = StageCheck(rules.stage, rules.stage_within_um)
        self._history: deque[tuple[float, float]] = deque()
        self._row_since: dict[str, float] = {}
        self._shutter_since: float | None = None
        self._charge_coulomb = 0.0
        self._last_cell: tuple[float, float] | None = None
        self.values: dict[str, float | bool | None] = {}
        self.latched: dict[str, Trip] = {}
        self._passing: dict[str, str] = {}
        self._ending = False

    # --- what the drivers report -----------------------------------------------------------------------

    def heater(self, reading: HeaterReading) -> None:
        """Take one poll of the temperature controller."""
        watch = self._fresh("heater", reading.monotonic_s)
        relay = self.values.get("io.relay")
        now_s = reading.monotonic_s * self._clock.speed
        temperature_k, found = self._heater.reading(
            now_s, reading.temperature_k if reading.sensor_ok else None, reading.working_setpoint_k,
            reading.output_fraction, None if relay is None else bool(relay), reading.asked_fraction,
            reading.automatic,
        )  # fmt: skip
        self.values["heater.temperature"] = temperature_k
        self.values["heater.output"] = reading.output_fraction
        self._report(found)
        invalid = watch.bad(temperature_k is None, INVALID_COUNT)
        if temperature_k is None:
            if invalid:
                why = ", ".join(reading.problems) or "no reason given"
                self._trip(
                    "heater-sensor", "heater.temperature", None, None, "K", Action.SAFE,
                    f"temperature sensor invalid {invalid} ({why})",
                )  # fmt: skip
            return
        rules = self._rules
        low_k, high_k = rules.temperature_low_k, rules.temperature_high_k
        self._limit(watch, "heater.temperature", temperature_k, low_k, high_k, "K", Action.SAFE)
        self._rate(now_s, temperature_k)

    def io(self, reading: IoReading) -> None:
        """Take one poll of the beam-line I/O."""
        self._fresh("io", reading.monotonic_s)
        self.values["io.permit"] = reading.permit
        self.values["io.beam_current"] = reading.beam_current_a
        self.values["io.relay"] = reading.relay_closed
        self.values["io.shutter"] = reading.shutter_open
        self.values["io.blanked"] = reading.blanked
        for name, good in reading.switches.items():
            self.values[f"io.{name}"] = good
        now = self._monotonic()
        on = {"heater": reading.relay_closed, "beam": not reading.blanked, "shutter": reading.shutter_open}
        self._report(self._leases.seen(now, {name: bool(state) for name, state in on.items()}))
        self._report(self._leases.relay(now, reading.relay_closed))
        self._report(self._stage.beam(reading.blanked))
        self._shutter(now, reading)
        if not reading.permit:
            self._trip(
                "permit", "io.permit", "absent", "present", "", Action.SAFE,
                "the physical permit (emergency stop) is open",
            )  # fmt: skip

    def cell(self, sample: CellSample) -> None:
        """Take one data package of the potentiostat."""
        watch = self._fresh("cell", sample.monotonic_s)
        self._report(self._leases.seen(self._monotonic(), {"cell": sample.phase in DRIVEN}))
        voltage_v, current_a = sample.voltage_v, sample.current_a
        good = sample.valid and _number(voltage_v) and (_number(current_a) or sample.phase not in DRIVEN)
        self.values["cell.voltage"] = voltage_v if good else None
        self.values["cell.current"] = current_a if good and _number(current_a) else None
        invalid = watch.bad(not good, CELL_INVALID_COUNT)
        if not good or voltage_v is None:
            if invalid:
                why = ", ".join(sample.problems) or "not a number"
                self._trip(
                    "cell-invalid", "cell.voltage", None, None, "V", Action.OPEN_CIRCUIT,
                    f"cell reading invalid {invalid} ({why})",
                )  # fmt: skip
            return
        self._cell_limits(watch, sample, voltage_v, current_a if current_a is not None else 0.0)

    def monitor(
        self, name: str, values: Mapping[str, float | bool | None], begun_s: float = math.inf
    ) -> None:
        """Take what a further device has measured; only interlock rows look at it, and the rules of a stage.

        What is not a finite number is unknown. A device that is silent for three periods is forgotten.
        ``begun_s`` is when the device was asked, monotonic.
        """
        self._fresh_monitor(name)
        for channel, value in values.items():
            good = isinstance(value, bool) or _number(value)
            self.values[f"{name}.{channel}"] = value if good else None
        if name == self._rules.stage:
            self._report(self._stage.reading(values, self.values.get("io.blanked"), begun_s))

    def stage_leaves(self) -> None:
        """The stage is about to move: from here on the beam may not be on."""
        self._stage.leaves()

    def stage_stays(self, position_um: Sequence[float]) -> None:
        """The stage has arrived, and stays here until it is said to leave."""
        self._stage.stays(position_um, self._monotonic())

    def _fresh_monitor(self, name: str) -> None:
        if name in self._monitors:
            self._monitors[name].since_s = self._monotonic()

    def _cell_limits(self, watch: _Watch, sample: CellSample, voltage_v: float, current_a: float) -> None:
        rules = self._rules
        # At rest the circuit is open already: a cell outside its window then must not be heated either.
        action = Action.SAFE if sample.phase == "ocv" else Action.OPEN_CIRCUIT
        low_v, high_v = rules.voltage_low_v, rules.voltage_high_v
        farthest_v = _farthest(voltage_v, sample.swing_v, low_v, high_v)
        self._limit(watch, "cell.voltage", farthest_v, low_v, high_v, "V", action)
        most_a = rules.current_a
        farthest_a = _farthest(current_a, sample.swing_a, -most_a, most_a)
        self._limit(watch, "cell.current", farthest_a, -most_a, most_a, "A", Action.OPEN_CIRCUIT)
        if sample.phase in DRIVEN:
            then_s, then_a = self._last_cell or (0.0, current_a)
            self._charge_coulomb += 0.5 * (current_a + then_a) * max(0.0, sample.elapsed_s - then_s)
            self._last_cell = (max(then_s, sample.elapsed_s), current_a)
        self._limit(
            watch, "cell.charge", self._charge_coulomb, -rules.charge_coulomb, rules.charge_coulomb, "C",
            Action.OPEN_CIRCUIT,
        )  # fmt: skip
        temperature_k = self.values.get("heater.temperature")
        found = self._cell.package(sample.elapsed_s, sample.phase, voltage_v, current_a, temperature_k)
        self._report(found)

    def begin(self) -> None:
        """Start watching: polling begins now, every device has one deadline to be heard first."""
        for watch in (*self._watches.values(), *self._monitors.values()):
            watch.since_s = self._monotonic()

    def heater_asked(self, target_k: float | None) -> None:
        """Say what the heater was asked for; None when off, and while a command is under way."""
        self._heater.obeyed.ask(target_k)

    def expect_cell(self, running: bool, interval_s: float = 0.0) -> None:
        """Say whether the potentiostat should be sending packages (a program runs) or not.

        Args:
            running: whether it should.
            interval_s: lab seconds between the packages of this program, if longer than the period.
        """
        watch = self._watches["cell"]
        watch.expected = running
        period_s = max(self._rules.period_s["cell"], interval_s)
        watch.deadline_s = self._clock.wall_timeout_s(STALE_PERIODS * period_s)
        watch.since_s = self._monotonic()
        watch.invalid = 0
        self._last_cell = None
        self._cell.begin()
        self._forget("cell")

    def pace_cell(self, interval_s: float) -> None:
        """The next package of the running sweep is due within this many lab seconds."""
        watch = self._watches["cell"]
        watch.deadline_s = self._clock.wall_timeout_s(
            STALE_PERIODS * max(self._rules.period_s["cell"], interval_s)
        )

    def go_on_from(self, charge_coulomb: float) -> None:
        """Count the charge from what an interrupted run had passed: its limit holds for both together."""
        self._charge_coulomb = charge_coulomb

    def interlock_only(self, name: str, text: str, action: Action) -> None:
        """Trip on behalf of a part that found a fault which no single reading shows (a lost line, say)."""
        self._trip(name, name, None, None, "", action, text)

    # --- leases ----------------------------------------------------------------------------------------

    def lease(self, output: str, lifetime_s: float, action: Action) -> None:
        """Allow ``output`` to stay energised for ``lifetime_s`` lab seconds; renew by calling again.

        While anything is latched, leases are renewed, for the run is ending, but none is given anew.
        """
        if not self._ending and (not self.latched or self._leases.held(output)):
            self._leases.give(output, self._monotonic(), lifetime_s, action)

    def release(self, output: str) -> None:
        """The output is off by its owner's hand: the lease is no longer needed."""
        self._leases.end(output)

    # --- the guard's own tick --------------------------------------------------------------------------

    def tick(self) -> None:
        """Look at everything that shows itself by not happening: staleness, leases, interlock rows."""
        now = self._monotonic()
        for name, watch in self._watches.items():
            age = now - watch.since_s
            if watch.expected and age > watch.deadline_s:
                self._forget(name)
                action = Action.OPEN_CIRCUIT if name == "cell" else Action.SAFE
                self._trip(
                    f"{name}-stale", name, round(age, 3), round(watch.deadline_s, 3), "s", action,
                    f"no reading of {name} for {age:.2f} s (allowed {watch.deadline_s:.2f} s)",
                )  # fmt: skip
        for name, watch in self._monitors.items():
            if now - watch.since_s > watch.deadline_s:
                self._forget(name)
        self._report(self._leases.expired(now))
        for row in self._interlocks:
            self._evaluate(row, now)

    # --- latches ---------------------------------------------------------------------------------------

    def stand_down(self) -> None:
        """The run is ending and everything is being switched off: nothing may be on, or go on, from here."""
        self._ending = True
        self._leases.revoke(Action.SAFE)
        self._heater.obeyed.ask(None)

    def refuses(self) -> str | None:
        """Return why nothing may be energised now, or None."""
        if not self.latched:
            return "the run is ending" if self._ending else None
        return "; ".join(trip.text for trip in self.latched.values())

    def holds(self) -> str | None:
        """Return which causes without a latch are still there, or None: a pause must not end before."""
        return "; ".join(self._passing.values()) or None

    def refuses_target(self, target_k: float) -> str | None:
        """Return why this set-point is outside the limits of station, chemistry and sample, or None."""
        low_k, high_k = self._rules.temperature_low_k, self._rules.temperature_high_k
        if low_k <= target_k <= high_k:
            return None
        limits = f"{low_k:.1f} to {high_k:.1f} K"
        return f"{target_k:.1f} K is outside the limits {limits} of station, chemistry and sample"

    def clear(self, trip_id: str, found: str = "") -> bool:
        """Clear one latch (a local operator did this); it trips again at once if the cause persists.

        Args:
            trip_id: which.
            found: what the operator has looked at; needed where the trip asks for an acknowledgement.

        Returns: whether it was latched and is no longer.
        """
        trip = self.latched.get(trip_id)
        if trip is None or (trip.acknowledge and not found.strip()):
            return False
        del self.latched[trip_id]
        return True

    # --- inside ----------------------------------------------------------------------------------------

    def _fresh(self, name: str, monotonic_s: float) -> _Watch:
        watch = self._watches[name]
        watch.since_s = max(watch.since_s, monotonic_s)
        return watch

    def _forget(self, device: str) -> None:
        for channel in self.values:
            if channel.startswith(device + "."):
                self.values[channel] = None

    def _shutter(self, now: float, reading: IoReading) -> None:
        if not self._rules.watch_shutter or reading.shutter_open is not None:
            self._shutter_since = None
            return
        if self._shutter_since is None:
            self._shutter_since = now
        allowed_s = max(self._clock.wall_timeout_s(SHUTTER_S), SHUTTER_WALL_S)
        if now - self._shutter_since > allowed_s:
            why = "; ".join(reading.problems) or "its read-back contradicts the command"
            self._trip(
                "shutter-stuck", "io.shutter", None, None, "", Action.SHUTTER,
                f"the shutter is not where it was told to be for {now - self._shutter_since:.1f} s "
                f"(allowed {allowed_s:.1f} s): {why}; the beam is blanked",
            )  # fmt: skip

    def _limit(
        self, watch: _Watch, channel: str, value: float, low: float, high: float, unit: str, action: Action
    ) -> None:
        recent = watch.beyond.setdefault(channel, deque(maxlen=RECENT))
        beyond = not low <= value <= high
        recent.append(beyond)
        if not beyond:
            return
        in_a_row = len(recent) >= LIMIT_COUNT and all(list(recent)[-LIMIT_COUNT:])
        if in_a_row or sum(recent) >= RECENT_BEYOND:
            limit, word = (high, "above") if value > high else (low, "below")
            self._trip(
                channel.replace(".", "-"), channel, value, limit, unit, action,
                f"{channel} = {value:.6g} {unit} is {word} the hard limit {limit:.6g} {unit}",
            )  # fmt: skip

    def _rate(self, now: float, temperature_k: float) -> None:
        self._history.append((now, temperature_k))
        while self._history and now - self._history[0][0] > 1.5 * RATE_WINDOW_S:
            self._history.popleft()
        then, before_k = self._history[0]
        span_s = now - then
        if span_s < RATE_WINDOW_S:
            return
        limit = self._rules.temperature_rate_k_per_s
        if abs(temperature_k - before_k) > limit * span_s + RATE_MARGIN_K:
            rate = (temperature_k - before_k) / span_s * 60.0
            self._trip(
                "heater-rate", "heater.temperature_rate", rate, limit * 60.0, "K/min", Action.SAFE,
                f"temperature changes by {rate:.3g} K/min, the hard limit is {limit * 60.0:.3g} K/min",
            )  # fmt: skip

    def _evaluate(self, row: InterlockRow, now: float) -> None:
        met = row.condition.holds(self.values)
        devices = {channel.partition(".")[0] for channel in row.condition.channels}
        unknown = {c.partition(".")[0] for c in row.condition.channels if self.values.get(c) is None}
        if met is None and unknown == {"cell"} and not self._watches["cell"].expected:
            met = False  # the circuit is open and nobody measures it: nothing has vanished
        if met is False:
            self._row_since.pop(row.name, None)
            self._passing.pop(f"interlock-{row.name}", None)
            return
        since = self._row_since.setdefault(row.name, now)
        # An input that vanished counts as tripped; at start-up it has one staleness deadline to appear.
        grace = self._clock.wall_timeout_s(row.grace_s) if row.grace_s > 0 else 0.0
        if met is None:
            watches = {**self._monitors, **self._watches}
            watched = [watches[name].deadline_s for name in devices if name in watches]
            grace = max([grace, *watched])
        if now - since >= grace:
            why = row.text if met else f"{row.text}: an input has no valid value"
            self._trip(
                f"interlock-{row.name}", row.name, None, None, "", row.action, f"interlock {row.name}: {why}",
                latch=row.latch, acknowledge=row.acknowledge,
            )  # fmt: skip

    def _report(self, found: Iterable[Finding]) -> None:
        for one in found:
            self._trip(one.id, one.channel, one.value, one.limit, one.unit, one.action, one.text)

    def _trip(
        self, trip_id: str, channel: str, value: float | str | None, limit: float | str | None, unit: str,
        action: Action, text: str, *, latch: bool = True, acknowledge: str = "",
    ) -> None:  # fmt: skip
        if trip_id in self.latched or trip_id in self._passing:
            return
        trip = Trip(
            trip_id, channel, value, limit, unit, action, text, self._clock.now_s(), self._wall(), latch,
            acknowledge,
        )  # fmt: skip
        if latch:
            self.latched[trip_id] = trip
        else:
            self._passing[trip_id] = text  # acts once, and again only after its cause has gone
        self._leases.revoke(action)
        if action in (Action.SAFE, Action.HEATER_OFF):
            self._heater.obeyed.ask(None)  # what follows is our own doing
        self._on_trip(trip)


def _number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _farthest(bias: float, swing: float, low: float, high: float) -> float:
    """Return that peak of a sine about a bias which is nearer to its limit, or beyond it."""
    return bias + swing if high - bias < bias - low else bias - swing
