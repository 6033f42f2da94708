"""The guard: a second opinion on every sample, able to act alone.

It is fed every reading as it arrives, keeps its own counters, and shares no state with PID, cycling or the
sequence. It decides; ``controller.safety`` carries out. No I/O, no asyncio: time comes in by argument or by
the clock it was given, so every rule can be tested without waiting.

Deadlines follow the lab-clock rule of the clock (``wall_timeout_s``), measured with the monotonic clock.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from drivers.clock import Clock
from drivers.roles import CellSample, HeaterReading, IoReading

STALE_PERIODS = 3
INVALID_COUNT = 3  # consecutive bad temperature readings, as 3-D printers do with a MAX31865
CELL_INVALID_COUNT = 2  # NaN or overload in two consecutive packages, protocol sheet 04
LIMIT_COUNT = 2  # consecutive readings beyond a hard limit
RATE_WINDOW_S = 20.0  # lab seconds over which a temperature rate is taken: 1 K noise must not trip it
RATE_MARGIN_K = 2.0  # a rate counts only when the rise over the window exceeds the limit by this much


class Action(StrEnum):
    """What a trip asks for."""

    HOLD = "hold"
    OPEN_CIRCUIT = "open_circuit"
    HEATER_OFF = "heater_off"
    BLANK = "blank"
    SHUTTER = "shutter"
    SAFE = "safe"


@dataclass(frozen=True)
class Trip:
    """One protective decision; ``text`` names channel, value, limit and time in plain words."""

    id: str
    channel: str
    value: float | str | None
    limit: float | str | None
    unit: str
    action: Action
    text: str
    lab_s: float
    wall_s: float
    latch: bool = True


@dataclass(frozen=True)
class GuardRules:
    """Hard limits of the station, in SI, and the period of every guarded device in lab seconds."""

    temperature_low_k: float
    temperature_high_k: float
    temperature_rate_k_per_s: float
    voltage_low_v: float
    voltage_high_v: float
    current_a: float
    charge_coulomb: float
    period_s: Mapping[str, float]  # keys heater, io, cell


class Condition(Protocol):
    """An interlock row's condition, parsed from the station file."""

    def holds(self, values: Mapping[str, float | bool | None]) -> bool | None:
        """Return whether the row is met, None when an input is unknown."""
        ...


@dataclass(frozen=True)
class InterlockRow:
    """One row of the interlock matrix."""

    name: str
    text: str
    condition: Condition
    grace_s: float
    action: Action
    latch: bool


@dataclass
class _Watch:
    """Freshness and debounce of one device."""

    deadline_s: float
    since_s: float
    expected: bool = True
    invalid: int = 0
    beyond: dict[str, int] = field(default_factory=dict)


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
        self._leases: dict[str, tuple[float, Action]] = {}
        self._history: deque[tuple[float, float]] = deque()
        self._row_since: dict[str, float] = {}
        self._charge_coulomb = 0.0
        self._last_cell: tuple[float, float] | None = None
        self.values: dict[str, float | bool | None] = {}
        self.latched: dict[str, Trip] = {}
        self._passing: set[str] = set()

    # --- what the drivers report -----------------------------------------------------------------------

    def heater(self, reading: HeaterReading) -> None:
        """Take one poll of the temperature controller."""
        watch = self._fresh("heater", reading.monotonic_s)
        temperature_k = reading.temperature_k if reading.sensor_ok else None
        self.values["heater.temperature"] = temperature_k
        self.values["heater.output"] = reading.output_fraction
        if temperature_k is None:
            watch.invalid += 1
            self._history.clear()
            if watch.invalid >= INVALID_COUNT:
                why = ", ".join(reading.problems) or "no reason given"
                self._trip(
                    "heater-sensor", "heater.temperature", None, None, "K", Action.SAFE,
                    f"temperature sensor invalid {watch.invalid} times in a row ({why})",
                )  # fmt: skip
            return
        watch.invalid = 0
        rules = self._rules
        low_k, high_k = rules.temperature_low_k, rules.temperature_high_k
        self._limit(watch, "heater.temperature", temperature_k, low_k, high_k, "K", Action.SAFE)
        self._rate(temperature_k)

    def io(self, reading: IoReading) -> None:
        """Take one poll of the beam-line I/O."""
        self._fresh("io", reading.monotonic_s)
        self.values["io.permit"] = reading.permit
        self.values["io.beam_current"] = reading.beam_current_a
        self.values["io.relay"] = reading.relay_closed
        self.values["io.shutter"] = reading.shutter_open
        self.values["io.blanked"] = reading.blanked
        if not reading.permit:
            self._trip(
                "permit", "io.permit", "absent", "present", "", Action.SAFE,
                "the physical permit (emergency stop) is open",
            )  # fmt: skip

    def cell(self, sample: CellSample) -> None:
        """Take one data package of the potentiostat."""
        watch = self._fresh("cell", sample.monotonic_s)
        good = sample.valid and sample.voltage_v is not None
        self.values["cell.voltage"] = sample.voltage_v if good else None
        self.values["cell.current"] = sample.current_a if good else None
        if not good:
            watch.invalid += 1
            if watch.invalid >= CELL_INVALID_COUNT:
                why = ", ".join(sample.problems) or "not a number"
                self._trip(
                    "cell-invalid", "cell.voltage", None, None, "V", Action.OPEN_CIRCUIT,
                    f"cell reading invalid {watch.invalid} times in a row ({why})",
                )  # fmt: skip
            return
        watch.invalid = 0
        rules = self._rules
        voltage_v = sample.voltage_v or 0.0
        current_a = sample.current_a or 0.0
        self._limit(
            watch,
            "cell.voltage",
            voltage_v,
            rules.voltage_low_v,
            rules.voltage_high_v,
            "V",
            Action.OPEN_CIRCUIT,
        )
        self._limit(
            watch, "cell.current", current_a, -rules.current_a, rules.current_a, "A", Action.OPEN_CIRCUIT
        )
        if self._last_cell is not None and sample.elapsed_s > self._last_cell[0]:
            step_s = sample.elapsed_s - self._last_cell[0]
            self._charge_coulomb += 0.5 * (current_a + self._last_cell[1]) * step_s
        self._last_cell = (sample.elapsed_s, current_a)
        self._limit(
            watch, "cell.charge", self._charge_coulomb, -rules.charge_coulomb, rules.charge_coulomb, "C",
            Action.OPEN_CIRCUIT,
        )  # fmt: skip

    def begin(self) -> None:
        """Start watching: polling begins now, every device has one deadline to be heard first."""
        for watch in self._watches.values():
            watch.since_s = self._monotonic()

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

    def go_on_from(self, charge_coulomb: float) -> None:
        """Count the charge from what an interrupted run had passed: its limit holds for both together."""
        self._charge_coulomb = charge_coulomb

    def interlock_only(self, name: str, text: str, action: Action) -> None:
        """Trip on behalf of a part that found a fault which no single reading shows (a lost line, say)."""
        self._trip(name, name, None, None, "", action, text)

    # --- leases ----------------------------------------------------------------------------------------

    def lease(self, output: str, lifetime_s: float, action: Action) -> None:
        """Allow ``output`` to stay energised for ``lifetime_s`` lab seconds; renew by calling again."""
        self._leases[output] = (self._monotonic() + self._clock.wall_timeout_s(lifetime_s), action)

    def release(self, output: str) -> None:
        """The output is off by its owner's hand: the lease is no longer needed."""
        self._leases.pop(output, None)

    # --- time ------------------------------------------------------------------------------------------

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
        for output, (expires, action) in list(self._leases.items()):
            if now > expires:
                del self._leases[output]
                self._trip(
                    f"{output}-lease", output, None, None, "s", action,
                    f"the lease of {output} ran out: whoever had switched it on stopped renewing it",
                )  # fmt: skip
        for row in self._interlocks:
            self._evaluate(row, now)

    # --- latches ---------------------------------------------------------------------------------------

    def refuses(self) -> str | None:
        """Return why nothing may be energised now, or None."""
        if not self.latched:
            return None
        return "; ".join(trip.text for trip in self.latched.values())

    def clear(self, trip_id: str) -> bool:
        """Clear one latch (a local operator did this); it trips again at once if the cause persists."""
        return self.latched.pop(trip_id, None) is not None

    # --- inside ----------------------------------------------------------------------------------------

    def _fresh(self, name: str, monotonic_s: float) -> _Watch:
        watch = self._watches[name]
        watch.since_s = max(watch.since_s, monotonic_s)
        return watch

    def _forget(self, device: str) -> None:
        for channel in self.values:
            if channel.startswith(device + "."):
                self.values[channel] = None

    def _limit(
        self, watch: _Watch, channel: str, value: float, low: float, high: float, unit: str, action: Action
    ) -> None:
        if low <= value <= high:
            watch.beyond[channel] = 0
            return
        watch.beyond[channel] = watch.beyond.get(channel, 0) + 1
        if watch.beyond[channel] >= LIMIT_COUNT:
            limit, word = (high, "above") if value > high else (low, "below")
            self._trip(
                channel.replace(".", "-"), channel, value, limit, unit, action,
                f"{channel} = {value:.6g} {unit} is {word} the hard limit {limit:.6g} {unit}",
            )  # fmt: skip

    def _rate(self, temperature_k: float) -> None:
        now = self._clock.now_s()
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
        if met is False:
            self._row_since.pop(row.name, None)
            self._passing.discard(f"interlock-{row.name}")
            return
        since = self._row_since.setdefault(row.name, now)
        # An input that vanished counts as tripped; at start-up it has one staleness deadline to appear.
        longest = max(watch.deadline_s for watch in self._watches.values())
        grace = self._clock.wall_timeout_s(row.grace_s) if row.grace_s > 0 else 0.0
        if met is None:
            grace = max(grace, longest)
        if now - since >= grace:
            why = row.text if met else f"{row.text}: an input has no valid value"
            self._trip(
                f"interlock-{row.name}", row.name, None, None, "", row.action, f"interlock {row.name}: {why}",
                latch=row.latch,
            )  # fmt: skip

    def _trip(
        self, trip_id: str, channel: str, value: float | str | None, limit: float | str | None, unit: str,
        action: Action, text: str, *, latch: bool = True,
    ) -> None:  # fmt: skip
        if trip_id in self.latched or trip_id in self._passing:
            return
        trip = Trip(
            trip_id, channel, value, limit, unit, action, text, self._clock.now_s(), self._wall(), latch
        )
        if latch:
            self.latched[trip_id] = trip
        else:
            self._passing.add(trip_id)  # acts once, and again only after its cause has gone
        self._on_trip(trip)
