"""Every output that can be on: its lease runs out, and without a lease it must not be on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.guard import Action, Guard, Trip
from controller.guard_leases import ENDED_BY, WORDS
from drivers.roles import IoReading
from tests.controller.test_guard import RULES, Time, cell, heater, ids, io, make

# lease, and what the owners ask for when it runs out
OUTPUTS = {
    "heater": Action.HEATER_OFF,
    "beam": Action.BLANK,
    "shutter": Action.SHUTTER,
    "cell": Action.OPEN_CIRCUIT,
}
ON = {"heater": {"relay": True}, "beam": {"blanked": False}, "shutter": {"shutter": True}, "cell": {}}


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def trips() -> list[Trip]:
    return []


@pytest.fixture
def guard(time: Time, trips: list[Trip]) -> Guard:
    return make(time, trips)


def pass_by(guard: Guard, time: Time, seconds: float, output: str, *, on: bool = True) -> None:
    """Let time pass, every instrument heard, one output on."""
    state = ON[output] if on else {}
    for _ in range(round(seconds / 0.1)):
        time.wall_s += 0.1
        guard.heater(heater(time, 300.0))
        guard.io(io(time, **state))  # type: ignore[arg-type]
        if output == "cell" and on:
            guard.cell(cell(time, time.wall_s - 1000.0, 3.9 + 1e-6 * time.wall_s, 26e-6))
        guard.tick()


def test_every_output_is_here() -> None:
    assert set(OUTPUTS) == set(WORDS) == set(ENDED_BY[Action.SAFE])


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_lease_that_runs_out_switches_its_output_off(
    guard: Guard, time: Time, trips: list[Trip], output: str
) -> None:
    guard.lease(output, 3.0, OUTPUTS[output])
    pass_by(guard, time, 2.8, output)
    assert trips == []
    pass_by(guard, time, 0.4, output)
    assert ids(trips) == [f"{output}-lease"]
    assert trips[0].action is OUTPUTS[output]
    assert output in trips[0].text


@pytest.mark.parametrize("output", OUTPUTS)
def test_what_is_on_without_a_lease_is_a_fault(
    guard: Guard, time: Time, trips: list[Trip], output: str
) -> None:
    pass_by(guard, time, 1.8, output)
    assert trips == []
    pass_by(guard, time, 0.6, output)
    assert ids(trips) == [f"{output}-unleased"]
    assert trips[0].action is Action.SAFE
    assert WORDS[output] in trips[0].text


@pytest.mark.parametrize("output", OUTPUTS)
def test_released_and_off_in_time_is_no_fault(
    guard: Guard, time: Time, trips: list[Trip], output: str
) -> None:
    guard.lease(output, 60.0, OUTPUTS[output])
    pass_by(guard, time, 5.0, output)
    guard.release(output)
    pass_by(guard, time, 1.0, output)
    pass_by(guard, time, 5.0, output, on=False)
    assert trips == []


@pytest.mark.parametrize("output", OUTPUTS)
def test_an_off_command_that_did_nothing_is_noticed(
    guard: Guard, time: Time, trips: list[Trip], output: str
) -> None:
    """A trip takes the lease away: what is still on afterwards trips once more, whatever was confirmed."""
    guard.lease(output, 60.0, OUTPUTS[output])
    pass_by(guard, time, 1.0, output)
    guard.interlock_only("test", "something is wrong", OUTPUTS[output])
    pass_by(guard, time, 3.0, output)
    assert ids(trips) == ["test", f"{output}-unleased"]


def test_nothing_is_leased_anew_while_anything_is_latched(
    guard: Guard, time: Time, trips: list[Trip]
) -> None:
    guard.lease("heater", 3.0, Action.HEATER_OFF)
    guard.interlock_only("test", "something is wrong", Action.OPEN_CIRCUIT)
    guard.lease("beam", 60.0, Action.BLANK)
    for _ in range(40):  # the heater's lease goes on until the run has ended
        guard.lease("heater", 3.0, Action.HEATER_OFF)
        pass_by(guard, time, 0.1, "heater")
    assert ids(trips) == ["test"]
    pass_by(guard, time, 2.5, "beam")
    assert "beam-unleased" in ids(trips)


def test_a_run_that_ends_lets_nothing_be_on_or_go_on(guard: Guard, time: Time, trips: list[Trip]) -> None:
    """At an abort the steps may take their time to end: an open relay is no fault then, a closed one is."""
    guard.lease("heater", 60.0, Action.HEATER_OFF)
    pass_by(guard, time, 1.0, "heater")
    guard.stand_down()
    guard.lease("heater", 60.0, Action.HEATER_OFF)  # by a task that has not been told yet
    assert guard.refuses() == "the run is ending"
    pass_by(guard, time, 5.0, "heater", on=False)
    assert trips == []
    pass_by(guard, time, 2.5, "heater")
    assert ids(trips) == ["heater-unleased"]


def test_a_relay_that_opens_under_a_heated_plate_is_told(guard: Guard, time: Time, trips: list[Trip]) -> None:
    """The watchdog has acted, or the box has restarted: nobody asked for it."""
    guard.lease("heater", 60.0, Action.HEATER_OFF)
    pass_by(guard, time, 3.0, "heater")
    pass_by(guard, time, 2.5, "heater", on=False)
    assert ids(trips) == ["relay-open"]


def test_the_shutter_that_does_not_follow_is_told_and_the_beam_blanked(time: Time, trips: list[Trip]) -> None:
    guard = Guard(
        replace(RULES, watch_shutter=True), time, trips.append, monotonic=time.monotonic, wall=lambda: 0.0
    )

    def read(shutter: bool | None, seconds: float) -> None:
        for _ in range(round(seconds / 0.1)):
            time.wall_s += 0.1
            problems = () if shutter is not None else ("the shutter does not close",)
            guard.io(IoReading(time.wall_s, 24e-12, True, False, shutter, True, problems))

    read(None, 1.5)  # it moves
    read(False, 1.0)
    read(None, 1.9)
    assert trips == []
    read(None, 0.4)
    assert [(trip.id, trip.action) for trip in trips] == [("shutter-stuck", Action.SHUTTER)]
    assert "the shutter does not close" in trips[0].text
