"""The guard on its own: every rule with a clock that moves only when told."""

from __future__ import annotations

import pytest

from controller.config.conditions import parse_condition
from controller.guard import Action, Guard, GuardRules, InterlockRow, Trip
from drivers.roles import CellSample, HeaterReading, IoReading


class Time:
    """Monotonic wall time and lab time at one speed."""

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self.wall_s = 1000.0

    def monotonic(self) -> float:
        return self.wall_s

    def now_s(self) -> float:
        return self.wall_s * self.speed

    async def sleep(self, lab_s: float) -> None:
        self.wall_s += lab_s / self.speed

    def wall_timeout_s(self, lab_deadline_s: float) -> float:
        if self.speed == 1.0:
            return lab_deadline_s
        return max(lab_deadline_s / self.speed, min(lab_deadline_s, 0.5))


RULES = GuardRules(
    temperature_low_k=263.0,
    temperature_high_k=343.0,
    temperature_rate_k_per_s=20.0 / 60.0,
    voltage_low_v=2.5,
    voltage_high_v=4.05,
    current_a=40e-6,
    charge_coulomb=0.1,
    period_s={"heater": 0.25, "io": 0.1, "cell": 1.0},
)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def trips() -> list[Trip]:
    return []


def make(time: Time, trips: list[Trip], **more: object) -> Guard:
    return Guard(RULES, time, trips.append, monotonic=time.monotonic, wall=lambda: 0.0, **more)  # type: ignore[arg-type]


@pytest.fixture
def guard(time: Time, trips: list[Trip]) -> Guard:
    return make(time, trips)


def heater(time: Time, temperature_k: float | None, *, ok: bool = True) -> HeaterReading:
    return HeaterReading(time.wall_s, temperature_k, 333.0, 0.5, ok, 0, () if ok else ("sensor break",))


def io(
    time: Time, *, permit: bool = True, beam_a: float | None = 24e-12, relay: bool = False,
    shutter: bool | None = False, blanked: bool = True, **switches: bool,
) -> IoReading:  # fmt: skip
    return IoReading(time.wall_s, beam_a, permit, relay, shutter, blanked, switches=switches)


def cell(
    time: Time, elapsed_s: float, voltage_v: float | None, current_a: float | None = 26e-6
) -> CellSample:
    return CellSample(time.wall_s, elapsed_s, "cc", voltage_v, current_a, valid=voltage_v is not None)


def ids(trips: list[Trip]) -> list[str]:
    return [trip.id for trip in trips]


def test_one_reading_above_the_limit_is_noise_two_are_a_trip(
    guard: Guard, time: Time, trips: list[Trip]
) -> None:
    guard.heater(heater(time, 343.1))
    assert trips == []
    guard.heater(heater(time, 343.2))
    assert [(t.id, t.value, t.limit, t.action) for t in trips] == [
        ("heater-temperature", 343.2, 343.0, Action.SAFE)
    ]
    assert "343.2 K is above the hard limit 343 K" in trips[0].text


def test_a_reading_inside_the_limit_starts_the_count_anew(
    guard: Guard, time: Time, trips: list[Trip]
) -> None:
    for temperature_k in (343.1, 342.0, 343.1, 342.0):
        guard.heater(heater(time, temperature_k))
    assert trips == []


def test_three_invalid_readings_in_a_row_trip_and_name_the_reason(
    guard: Guard, time: Time, trips: list[Trip]
) -> None:
    for _ in range(2):
        guard.heater(heater(time, None, ok=False))
    assert trips == []
    assert guard.values["heater.temperature"] is None
    guard.heater(heater(time, None, ok=False))
    assert ids(trips) == ["heater-sensor"]
    assert "sensor break" in trips[0].text


def test_a_value_with_a_broken_sensor_is_not_a_value(guard: Guard, time: Time) -> None:
    guard.heater(heater(time, 300.0, ok=False))
    assert guard.values["heater.temperature"] is None


def test_temperature_rate_over_the_limit_trips(guard: Guard, time: Time, trips: list[Trip]) -> None:
    # 30 K/min against a limit of 20 K/min; 1 K/s would be noise if looked at over one second
    for second in range(31):
        time.wall_s = 1000.0 + second
        guard.heater(heater(time, 298.0 + 0.5 * second))
    assert "heater-rate" in ids(trips)
    assert trips[0].limit == pytest.approx(20.0)


def test_a_permitted_ramp_with_one_kelvin_of_noise_does_not_trip(
    guard: Guard, time: Time, trips: list[Trip]
) -> None:
    for second in range(120):
        time.wall_s = 1000.0 + second
        guard.heater(heater(time, 290.0 + 20.0 / 60.0 * second + (0.5 if second % 2 else -0.5)))
    assert trips == []


def test_silence_of_three_periods_trips_and_forgets_the_old_value(
    guard: Guard, time: Time, trips: list[Trip]
) -> None:
    guard.heater(heater(time, 300.0))
    guard.io(io(time))
    time.wall_s += 0.29
    guard.io(io(time))
    guard.tick()
    assert trips == []
    time.wall_s += 0.5
    guard.tick()
    assert sorted(ids(trips)) == ["heater-stale", "io-stale"]
    assert guard.values["heater.temperature"] is None


def test_fast_lab_time_never_squeezes_a_deadline_below_half_a_second(trips: list[Trip]) -> None:
    time = Time(speed=60.0)
    guard = make(time, trips)
    guard.heater(heater(time, 300.0))
    guard.io(io(time))
    time.wall_s += 0.29  # 17 lab seconds: far beyond three periods of lab time
    guard.tick()
    assert trips == []
    time.wall_s += 0.3
    guard.tick()
    assert "heater-stale" in ids(trips)


def test_the_cell_is_only_watched_while_a_program_runs(guard: Guard, time: Time, trips: list[Trip]) -> None:
    for _ in range(10):
        time.wall_s += 0.05
        guard.heater(heater(time, 300.0))
        guard.io(io(time))
    time.wall_s += 0.2
    guard.tick()
    assert trips == []
    guard.expect_cell(True)
    time.wall_s += 3.1
    guard.heater(heater(time, 300.0))
    guard.io(io(time))
    guard.tick()
    assert ids(trips) == ["cell-stale"]
    assert trips[0].action is Action.OPEN_CIRCUIT


def test_the_charge_of_an_interrupted_run_counts(guard: Guard, time: Time, trips: list[Trip]) -> None:
    guard.go_on_from(RULES.charge_coulomb - 1e-4)
    for elapsed_s in (1.0, 11.0, 21.0, 31.0):
        guard.cell(cell(time, elapsed_s, 3.9, 20e-6))
    assert "cell-charge" in ids(trips)


def test_a_program_with_rare_packages_is_watched_by_its_own_interval(
    guard: Guard, time: Time, trips: list[Trip]
) -> None:
    """Open circuit every 5 s (moeller2021) is not stale after three seconds."""
    guard.expect_cell(True, 5.0)
    for waited_s, expected in ((14.0, []), (1.5, ["cell-stale"])):
        time.wall_s += waited_s
        guard.heater(heater(time, 300.0))
        guard.io(io(time))
        guard.tick()
        assert ids(trips) == expected


@pytest.mark.parametrize(
    ("voltage_v", "current_a", "expected"),
    [
        (4.06, 26e-6, "cell-voltage"),
        (2.4, 26e-6, "cell-voltage"),
        (3.9, 41e-6, "cell-current"),
        (3.9, -41e-6, "cell-current"),
    ],
)
def test_cell_window(
    guard: Guard, time: Time, trips: list[Trip], voltage_v: float, current_a: float, expected: str
) -> None:
    guard.cell(cell(time, 1.0, voltage_v, current_a))
    guard.cell(cell(time, 2.0, voltage_v, current_a))
    assert ids(trips) == [expected]
    assert trips[0].action is Action.OPEN_CIRCUIT


def test_two_invalid_packages_open_the_circuit(guard: Guard, time: Time, trips: list[Trip]) -> None:
    guard.cell(cell(time, 1.0, None))
    guard.cell(cell(time, 2.0, 3.9))
    guard.cell(cell(time, 3.0, None))
    assert trips == []
    guard.cell(cell(time, 4.0, None))
    assert ids(trips) == ["cell-invalid"]


def test_the_guard_counts_charge_by_itself(guard: Guard, time: Time, trips: list[Trip]) -> None:
    # 40 uA for 2 600 s is 0.104 C, the limit is 0.1 C
    for second in range(0, 2601, 10):
        guard.cell(cell(time, float(second), 3.9 + 1e-5 * second, 40e-6))
    assert ids(trips) == ["cell-charge"]


def test_an_open_permit_makes_everything_safe_and_stays_latched(
    guard: Guard, time: Time, trips: list[Trip]
) -> None:
    guard.io(io(time, permit=False))
    guard.io(io(time, permit=True))
    assert ids(trips) == ["permit"]
    assert trips[0].action is Action.SAFE
    assert "permit" in (guard.refuses() or "")
    assert guard.clear("permit")
    assert guard.refuses() is None


def test_a_latch_whose_cause_persists_trips_again(guard: Guard, time: Time, trips: list[Trip]) -> None:
    guard.io(io(time, permit=False))
    guard.clear("permit")
    guard.io(io(time, permit=False))
    assert ids(trips) == ["permit", "permit"]


def test_a_lease_that_nobody_renews_switches_off(guard: Guard, time: Time, trips: list[Trip]) -> None:
    guard.lease("heater", 3.0, Action.HEATER_OFF)
    for _ in range(40):
        time.wall_s += 0.1
        guard.heater(heater(time, 300.0))
        guard.io(io(time, relay=True))
        guard.tick()
    assert ids(trips) == ["heater-lease"]
    assert trips[0].action is Action.HEATER_OFF


def test_a_released_or_renewed_lease_does_nothing(guard: Guard, time: Time, trips: list[Trip]) -> None:
    guard.lease("beam", 3.0, Action.BLANK)
    for _ in range(60):
        time.wall_s += 0.1
        guard.lease("heater", 3.0, Action.HEATER_OFF)
        if _ == 10:
            guard.release("beam")
        guard.heater(heater(time, 300.0))
        guard.io(io(time, relay=True))
        guard.tick()
    assert trips == []


def row(text: str, *, grace_s: float = 0.0, latch: bool = True) -> InterlockRow:
    condition = parse_condition(text, {"io": "io", "heater": "heater"})
    return InterlockRow("warm", text, condition, grace_s, Action.OPEN_CIRCUIT, latch)


def test_an_interlock_row_waits_for_its_grace(time: Time, trips: list[Trip]) -> None:
    guard = make(time, trips, interlocks=[row("heater.temperature > 340 K", grace_s=2.0)])
    for tenth in range(40):
        time.wall_s = 1000.0 + tenth / 10
        guard.heater(heater(time, 341.0 if tenth != 10 else 339.0))
        guard.io(io(time))
        guard.tick()
        if tenth < 30:
            assert trips == []
    assert ids(trips) == ["interlock-warm"]


def test_an_interlock_whose_input_vanishes_counts_as_tripped(time: Time, trips: list[Trip]) -> None:
    guard = make(time, trips, interlocks=[row("io.beam_current < 1 pA")])
    for _ in range(60):
        time.wall_s += 0.1
        guard.heater(heater(time, 300.0))
        guard.io(io(time, beam_a=None))
        guard.tick()
    assert ids(trips) == ["interlock-warm"]
    assert "no valid value" in trips[0].text


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), None])
def test_what_is_no_number_is_no_reading(
    guard: Guard, time: Time, trips: list[Trip], wrong: float | None
) -> None:
    for second in range(3):
        guard.heater(heater(time, wrong))
        guard.cell(CellSample(time.wall_s, float(second), "cc", 3.9, wrong))
    assert ids(trips) == ["cell-invalid", "heater-sensor"]
    assert guard.values["heater.temperature"] is guard.values["cell.current"] is None


def test_a_sensor_that_comes_and_goes_is_a_broken_sensor(guard: Guard, time: Time, trips: list[Trip]) -> None:
    for number in range(30):  # never three in a row
        time.wall_s += 0.25
        guard.heater(heater(time, 300.0, ok=number % 3 == 0))
    assert ids(trips) == ["heater-sensor"]
    assert "10 times of 15" in trips[0].text


def test_a_value_that_comes_and_goes_beyond_its_limit_is_beyond_it(
    guard: Guard, time: Time, trips: list[Trip]
) -> None:
    for second in range(10):  # never two in a row
        guard.cell(cell(time, float(second), 4.2 if second % 2 else 3.9))
    assert ids(trips) == ["cell-voltage"]


def test_a_cell_outside_its_window_at_rest_is_not_heated_either(
    guard: Guard, time: Time, trips: list[Trip]
) -> None:
    for second in range(2):
        guard.cell(CellSample(time.wall_s, float(second), "ocv", 1.2, None))
    assert [(trip.id, trip.action) for trip in trips] == [("cell-voltage", Action.SAFE)]


def test_what_the_cell_was_is_forgotten_when_nobody_measures_it(guard: Guard, time: Time) -> None:
    guard.expect_cell(True)
    guard.cell(cell(time, 1.0, 3.9))
    assert guard.values["cell.voltage"] == 3.9
    guard.expect_cell(False)
    assert guard.values["cell.voltage"] is guard.values["cell.current"] is None


def test_a_set_point_beyond_the_limits_is_refused_by_the_guard(guard: Guard) -> None:
    assert guard.refuses_target(333.0) is None
    assert "350.0 K is outside the limits 263.0 to 343.0 K" in (guard.refuses_target(350.0) or "")
    assert guard.refuses_target(float("nan")) is not None


def _asking() -> InterlockRow:
    condition = parse_condition("io.vacuum == false", {"io": "io"}, ("vacuum",))
    return InterlockRow(
        "vacuum", "io.vacuum == false", condition, 0.0, Action.SAFE, True, "look at the gauge"
    )


def test_a_trip_that_asks_for_an_answer_is_not_cleared_without(time: Time, trips: list[Trip]) -> None:
    guard = make(time, trips, interlocks=[_asking()])
    guard.io(io(time, vacuum=False))
    guard.tick()
    assert [(trip.id, trip.acknowledge) for trip in trips] == [("interlock-vacuum", "look at the gauge")]
    assert not guard.clear("interlock-vacuum")
    assert not guard.clear("interlock-vacuum", "  ")
    assert guard.refuses()
    assert guard.clear("interlock-vacuum", "valve was open, closed it")
    guard.tick()  # and its cause is still there
    assert ids(trips) == ["interlock-vacuum"] * 2


def test_a_switch_that_vanishes_counts_as_tripped(time: Time, trips: list[Trip]) -> None:
    guard = make(time, trips, interlocks=[_asking()])
    guard.io(io(time, vacuum=True))
    for _ in range(10):
        time.wall_s += 0.1
        guard.heater(heater(time, 300.0))
        guard.tick()
    assert "interlock-vacuum" in ids(trips)
    assert "no valid value" in next(trip for trip in trips if trip.id == "interlock-vacuum").text


def test_a_row_of_the_cell_sleeps_while_no_program_runs_and_not_longer(time: Time, trips: list[Trip]) -> None:
    condition = parse_condition("cell.voltage > 4 V", {"cell": "cell"})
    high = InterlockRow("high", "cell.voltage > 4 V", condition, 0.0, Action.OPEN_CIRCUIT, True)
    guard = make(time, trips, interlocks=[high])

    def wait(seconds: float) -> None:
        for _ in range(round(seconds / 0.1)):
            time.wall_s += 0.1
            guard.heater(heater(time, 300.0))
            guard.io(io(time))
            guard.tick()

    wait(10.0)
    assert trips == []
    guard.expect_cell(True)
    wait(2.8)
    assert trips == []
    wait(0.4)
    assert sorted(ids(trips)) == ["cell-stale", "interlock-high"]


def test_a_long_interval_of_the_cell_does_not_put_off_another_row(time: Time, trips: list[Trip]) -> None:
    """In an impedance sweep packages are minutes apart; the vacuum is still missed in a third of a second."""
    guard = make(time, trips, interlocks=[_asking()])
    guard.expect_cell(True, 60.0)
    for _ in range(5):
        time.wall_s += 0.1
        guard.heater(heater(time, 300.0))
        guard.io(io(time))  # without its switch
        guard.tick()
    assert ids(trips) == ["interlock-vacuum"]


def test_a_pause_must_not_end_while_its_cause_is_there(time: Time, trips: list[Trip]) -> None:
    guard = make(time, trips, interlocks=[row("heater.temperature > 340 K", latch=False)])
    guard.heater(heater(time, 341.0))
    guard.tick()
    assert guard.refuses() is None
    assert "interlock warm" in (guard.holds() or "")
    guard.heater(heater(time, 339.0))
    guard.tick()
    assert guard.holds() is None


def test_a_row_without_latch_acts_once_per_cause(time: Time, trips: list[Trip]) -> None:
    guard = make(time, trips, interlocks=[row("heater.temperature > 340 K", latch=False)])
    for temperature_k in (341.0, 341.0, 339.0, 341.0):
        time.wall_s += 0.1
        guard.heater(heater(time, temperature_k))
        guard.io(io(time))
        guard.tick()
    assert ids(trips) == ["interlock-warm", "interlock-warm"]
    assert guard.refuses() is None
