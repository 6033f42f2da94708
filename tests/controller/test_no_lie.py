"""No stale value is good: each source goes wrong in each way, and every consumer says that it does not know.

The tasks, the recorder, the stamps and the desk are the host's own; the instruments are lists of readings.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from controller.beamline import Beamline
from controller.cycling import ChargeError, Cycling
from controller.desk import Desk
from controller.display import one_line, unanswered
from controller.guard import Guard
from controller.heating import Heating
from controller.record import Recorder
from controller.stamps import Stamps
from controller.steps.cell import _ends
from drivers.roles import CellSample, HeaterReading, IoReading
from tests.controller.test_guard import RULES

AMPERE, VOLT, KELVIN, BEAM_A = 10e-6, 3.9, 333.0, 24e-12


class Journal:
    """Keeps what would be published, the newest state of every topic and every document."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, Any]] = {}
        self.rows: list[tuple[str, str, dict[str, Any]]] = []

    def post(self, kind: str, module: str, body: dict[str, Any], **more: Any) -> None:
        self.rows.append((kind, module, json.loads(json.dumps(body))))
        if kind == "state":
            self.states[str(more["topic"]).removeprefix("state/")] = body


class World:
    """Everything between the instruments and whoever looks, with time that only this test moves."""

    speed = 1.0

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.s = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.s)
        self.journal = Journal()
        self.documents: list[tuple[str, dict[str, Any]]] = []
        self.recorder = Recorder(self.journal, self, "run", lambda _: None)  # type: ignore[arg-type]
        self.recorder.documents._open = True
        self.recorder.documents._post = lambda stream, data: self.documents.append((stream, data))  # type: ignore[method-assign]
        self.guard = Guard(RULES, self, lambda _: None, monotonic=lambda: self.s)
        self.heating = Heating(None, None, self.guard, self, self.recorder, period_s=0.25)  # type: ignore[arg-type]
        self.cycling = Cycling(None, self.guard, self, self.recorder, error=ChargeError())  # type: ignore[arg-type]
        self.cycling.now.holds_s = 3.0  # a program with a package a second runs
        self.beam_low: list[float | None] = []
        scanning: Any = SimpleNamespace(see_beam=self.beam_low.append)
        self.beamline = Beamline(
            None, self.guard, self, self.recorder, scanning, period_s=0.1, watchdog_s=3.0  # type: ignore[arg-type]
        )  # fmt: skip
        sample: Any = SimpleNamespace(soc=0.0, capacity_coulomb=0.07, capacity_error=0.05, leakage_a=0.0)
        self.experiment: Any = SimpleNamespace(sample=sample)
        self.stamps = Stamps(self.experiment, self, self.heating, self.cycling)
        host: Any = SimpleNamespace(
            cycling=self.cycling, heating=self.heating, beamline=self.beamline, clock=self, began_s=0.0,
            run_id="run",
            sequence=SimpleNamespace(
                state="running", paused=False, where=lambda: None, estimate_s=0.0, scan_status=lambda: None
            ),
            products={"progress": {}}, guard=self.guard, health=SimpleNamespace(now=dict),
            questions=SimpleNamespace(open=list), outlook=SimpleNamespace(now=dict),
        )  # fmt: skip
        self.desk = Desk(host)

    def now_s(self) -> float:
        return self.s

    async def sleep(self, lab_s: float) -> None:
        self.s += lab_s

    def wall_timeout_s(self, lab_deadline_s: float) -> float:
        return lab_deadline_s

    def live(self, seconds: float, **wrong: Callable[[], None] | None) -> None:
        """Let all sources speak for a time; ``wrong`` says what one of them does instead."""
        for tick in range(round(seconds / 0.25)):
            self.s += 0.25
            speak: dict[str, Callable[[], None]] = {
                "heater": self.heater, "io": self.io, "cell": self.cell if tick % 4 == 0 else lambda: None,
            }  # fmt: skip
            for source, says in speak.items():
                what = wrong.get(source, says)
                if what is not None:
                    what()

    def heater(self, temperature_k: float | None = KELVIN, *, ok: bool = True) -> None:
        self.heating._take(HeaterReading(self.s, temperature_k, 333.0, 0.1, ok, 0))

    def cell(self, volt: float | None = VOLT, *, valid: bool = True) -> None:
        self.cycling._take(CellSample(self.s, self.s - 1000.0, "cc", volt, AMPERE, valid=valid))

    def io(self, beam_a: float | None = BEAM_A) -> None:
        self.beamline.take(IoReading(self.s, beam_a, True, False, False, True))


# What goes wrong with each source: it is silent, it says that it does not know, it fails.
WRONG: dict[str, tuple[str, Callable[[World], Callable[[], None] | None]]] = {
    "heater silent": ("heater", lambda _: None),
    "Pt100 broken": ("heater", lambda world: lambda: world.heater(None, ok=False)),
    "Pt100 broken, with a number": ("heater", lambda world: lambda: world.heater(KELVIN, ok=False)),
    "cell silent": ("cell", lambda _: None),
    "cell overloaded": ("cell", lambda world: lambda: world.cell(valid=False)),
    "cell not a number": ("cell", lambda world: lambda: world.cell(None)),
    "I/O silent": ("io", lambda _: None),
    "beam unknown": ("io", lambda world: lambda: world.io(None)),
    "I/O fails": ("io", lambda world: world.beamline.unknown),
}
CONSUMERS: dict[str, dict[str, Callable[[World], object]]] = {
    "heater": {
        "live view": lambda world: world.desk.status()["temperature_k"],
        "line of the terminal": lambda world: None if "T -" in one_line(world.desk.status()) else "a number",
        "stamp of a pass": lambda world: world.stamps.now()["temperature_k"],
        "heating, before it heats": lambda world: world.heating.temperature_k(),
        "step that waits for it": lambda world: world.heating.stable(KELVIN, 2.0, 1.0) or None,
    },
    "cell": {
        "live view": lambda world: world.desk.status()["voltage_v"],
        "live view, current": lambda world: world.desk.status()["current_a"],
        "line of the terminal": lambda world: None if "E -" in one_line(world.desk.status()) else "a number",
        "stamp of a pass": lambda world: world.stamps.now()["voltage_v"],
        "stamp of a pass, current": lambda world: world.stamps.now()["current_a"],
    },
    "io": {
        "live view": lambda world: world.desk.status()["beam_a"],
    },
}


@pytest.mark.parametrize("name", WRONG)
def test_every_consumer_says_that_it_does_not_know(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.live(60.0)
    source, wrong = WRONG[name]
    for what, look in CONSUMERS[source].items():
        assert look(world) is not None, what  # it knew
    world.live(4.0, **{source: wrong(world)})
    for what, look in CONSUMERS[source].items():
        assert look(world) is None, what
    others = [
        look for other, consumers in CONSUMERS.items() if other != source for look in consumers.values()
    ]
    assert all(look(world) is not None for look in others)


PUBLISHED = {
    "Pt100 broken": ("heater/temperature", "thermal", "temperature"),
    "Pt100 broken, with a number": ("heater/temperature", "thermal", "temperature"),
    "cell overloaded": ("cell/voltage", "echem", "voltage"),
    "cell not a number": ("cell/voltage", "echem", "voltage"),
    "beam unknown": ("beam/current", "", ""),
    "I/O fails": ("beam/current", "", ""),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_published_and_recorded_says_so_at_the_next_word(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(monkeypatch)
    topic, stream, field = PUBLISHED[name]
    world.live(10.0)
    assert (world.journal.states[topic]["q"], world.journal.states[topic]["v"] is None) == ("good", False)
    source, wrong = WRONG[name]
    world.live(2.0, **{source: wrong(world)})
    assert (world.journal.states[topic]["q"], world.journal.states[topic]["v"]) == ("bad", None)
    if stream:
        assert [data[field] for written, data in world.documents if written == stream][-1] is None
        rows = [body for kind, module, body in world.journal.rows if (kind, module) == ("sample", source)]
        assert next(value for key, value in rows[-1].items() if key.startswith(field)) is None


def test_an_invalid_reading_of_the_cell_ends_no_step_and_passes_no_charge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    world.live(10.0)
    charged = world.cycling.now.charge_coulomb
    until: Any = SimpleNamespace(
        charge_coulomb=charged / 2, soc=None, duration_s=None, current_below_a=None, voltage_v=None
    )
    step: Any = SimpleNamespace(until=until)
    context: Any = SimpleNamespace(host=world, finishing=False, paused=False)
    condition = _ends(context, step, 1.0, 0.0, 0.0)
    assert condition(world.cycling.now) == "charge reached"  # from what was measured
    world.live(5.0, cell=lambda: world.cell(None))
    assert world.cycling.now.charge_coulomb == charged
    assert world.cycling.now.invalid > 0


def test_a_gap_in_the_readings_is_not_a_stable_time(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.live(20.0)
    assert world.heating.stable(KELVIN, 2.0, 15.0)
    world.live(5.0, heater=None)
    world.live(2.0)
    assert not world.heating.stable(KELVIN, 2.0, 15.0)
    assert not world.heating.stable(KELVIN, 1.9, 15.0)  # nor when it is looked up in what is remembered


def test_the_guard_forgets_what_it_has_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.live(5.0)
    world.guard.expect_cell(True)
    world.live(1.0)
    known = {channel for channel, value in world.guard.values.items() if value is not None}
    assert {"heater.temperature", "cell.voltage", "io.beam_current", "io.relay"} <= known
    world.s += 4.0
    world.guard.tick()
    assert all(value is None for value in world.guard.values.values())


def test_a_view_of_a_host_that_does_not_answer_shows_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.live(5.0)
    shown = one_line(unanswered(world.desk.status(), 12.0))
    assert "T -" in shown
    assert "E -" in shown
    assert "I -" in shown
    assert "ALARM the host has not answered for 12 s" in shown
