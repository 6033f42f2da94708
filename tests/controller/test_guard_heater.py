"""The guard's rules of the heater, against a holder and a controller that live as long as the test says.

Lab time only: a healthy loop must never trip, whatever is known of the plant; each fault must trip by name,
soon enough that the plate has not become much hotter than it should be.
"""

from __future__ import annotations

import asyncio
import csv
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from controller.guard_heater import MODEL_MARGIN_K, HeaterCheck
from controller.guard_types import UNKNOWN_PLANT, GuardRules, Plant
from hil_tests.sim.eurotherm_loop import KELVIN_AT_0_C, Loop, LoopSettings
from hil_tests.sim.physics.holder import Holder, HolderParameters
from tests.controller.heated_bench import PLANT, virtually
from tests.controller.heated_bench import Rig as HostRig
from tests.data_sets import need

ROOM_K = 298.15
DT_S = 0.5


def known(ambient_k: float = ROOM_K, *, wrong_by: float = 1.0) -> Plant:
    return Plant.identified(
        power_w=40.0, capacity_j_per_k=85.0 * wrong_by, loss_w_per_k=0.1387, ambient_k=ambient_k,
        ambient_within_k=0.5, tolerance=0.05, lag_s=15.0, source="a test",
    )  # fmt: skip


def rules(plant: Plant, *, noise_k: float | None = None, period_s: float = DT_S) -> GuardRules:
    return GuardRules(
        263.0, 373.0, 20.0 / 60.0, 2.5, 4.05, 40e-6, 0.1, {"heater": period_s, "io": 0.1, "cell": 1.0},
        plant=plant, heater_noise_k=noise_k,
    )  # fmt: skip


@dataclass
class Rig:
    """A holder with its controller, the sensor between them, and the guard's check."""

    plant: Plant
    ambient_k: float = ROOM_K
    target_k: float = 333.15
    noise_k: float = 0.0
    known_noise_k: float | None = None
    skip: int = 1  # the guard sees every so many readings
    time_s: float = 0.0
    offset_k: float = 0.0
    drift_k_per_s: float = 0.0
    frozen_c: float | None = None
    automatic: bool = True
    contact: Callable[[float], float] = lambda fraction: fraction  # from what is put out to what flows
    found: dict[str, tuple[float, float]] = field(default_factory=dict)  # id -> time, plate

    def __post_init__(self) -> None:
        self.holder = Holder(HolderParameters(ambient_k=self.ambient_k))
        self.loop = Loop(LoopSettings(rate=15.0))
        self.loop.restart(self.holder.pt100_k - KELVIN_AT_0_C)
        self.loop.settings.remote = True
        self.check = HeaterCheck(rules(self.plant, noise_k=self.known_noise_k, period_s=self.skip * DT_S))
        self.ask(self.target_k)
        self.random = random.Random(1)
        self.texts: dict[str, str] = {}

    def ask(self, target_k: float) -> None:
        self.loop.settings.remote_c = target_k - KELVIN_AT_0_C
        self.check.obeyed.ask(target_k)

    def sensed_c(self) -> float:
        if self.frozen_c is not None:
            return self.frozen_c
        self.offset_k += self.drift_k_per_s * DT_S
        noise = self.random.gauss(0.0, self.noise_k) if self.noise_k else 0.0
        return self.holder.pt100_k - KELVIN_AT_0_C + self.offset_k + noise

    def live(self, seconds: float) -> Rig:
        for step in range(round(seconds / DT_S)):
            self.time_s += DT_S
            sensed_c = self.sensed_c()
            self.loop.cycle(sensed_c, DT_S)
            fraction = self.loop.output_percent / 100.0
            self.holder.set_duty(self.contact(fraction))
            self.holder.process(DT_S)
            if step % self.skip:
                continue
            reading_k = struct.unpack("f", struct.pack("f", sensed_c))[0] + KELVIN_AT_0_C
            setpoint_k = self.loop.working_setpoint_c + KELVIN_AT_0_C
            _, found = self.check.reading(
                self.time_s, reading_k, setpoint_k, fraction, True, automatic=self.automatic
            )
            for one in found:
                self.found.setdefault(one.id, (self.time_s, self.holder.plate_k))
                self.texts.setdefault(one.id, one.text)
        return self


HEALTHY = {
    "identified": {},
    "heat capacity wrong by a tenth": {"plant": known(wrong_by=0.9)},
    "nothing is known of the plant": {"plant": UNKNOWN_PLANT},
    "a noisy sensor": {"noise_k": 0.3},
    "read once in three seconds": {"skip": 6},
    "a warm room": {"ambient_k": 328.15, "plant": known(328.15), "target_k": 335.0},
    "noise that is known": {"noise_k": 0.05, "known_noise_k": 0.05},
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_loop_heats_holds_and_cools_without_a_trip(name: str) -> None:
    rig = Rig(**{"plant": known(), **HEALTHY[name]}).live(1500.0)  # type: ignore[arg-type]
    assert abs(rig.holder.plate_k - rig.target_k) < 1.0
    rig.ask(293.15)
    rig.live(600.0)
    assert rig.found == {}, rig.texts


@dataclass(frozen=True)
class Fault:
    """What goes wrong, what names it, how long it may take, and how far the plate may have gone by then."""

    strike: Callable[[Rig], object]
    trips: tuple[str, ...]
    within_s: float
    hotter_k: float = 6.0  # than the set-point
    known: bool = True  # needs an identified plant
    warming: bool = False  # strikes while it warms up, else when it holds


def _set(name: str, value: object) -> Callable[[Rig], object]:
    return lambda rig: setattr(rig, name, value)


FAULTS = {
    "heater dead": Fault(_set("contact", lambda _: 0.0), ("heater-power",), 60.0),
    "heater dead, plant not known": Fault(
        _set("contact", lambda _: 0.0), ("heater-stalled",), 130.0, known=False
    ),
    "heater dead while warming": Fault(
        _set("contact", lambda _: 0.0), ("heater-stalled",), 130.0, known=False, warming=True
    ),
    "switch stuck on": Fault(_set("contact", lambda _: 1.0), ("heater-off-warming",), 20.0),
    "switch stuck on, plant not known": Fault(
        _set("contact", lambda _: 1.0), ("heater-off-warming",), 20.0, known=False
    ),
    "switch half stuck": Fault(_set("contact", lambda _: 0.35), ("heater-off-warming", "heater-power"), 60.0),
    "cell makes 10 W": Fault(lambda rig: setattr(rig.holder, "cell_power_w", 10.0), ("heater-power",), 90.0),
    "cell makes 2 W": Fault(lambda rig: setattr(rig.holder, "cell_power_w", 2.0), ("heater-power",), 300.0),
    "sensor 4 K low": Fault(_set("offset_k", -4.0), ("heater-jump",), 3.0),
    "sensor drifts by 1 K/min": Fault(_set("drift_k_per_s", -1.0 / 60.0), ("heater-power",), 300.0),
    "sensor drifts upwards": Fault(_set("drift_k_per_s", 1.0 / 60.0), ("heater-power",), 300.0),
    "sensor comes off": Fault(_set("frozen_c", 25.013), ("heater-jump",), 3.0),
    "sensor frozen while warming": Fault(
        lambda rig: setattr(rig, "frozen_c", rig.sensed_c()), ("heater-frozen",), 20.0, warming=True
    ),
    "sensor frozen, plant not known": Fault(
        lambda rig: setattr(rig, "frozen_c", rig.sensed_c()), ("heater-frozen",), 20.0, known=False,
        warming=True,
    ),
    "controller reset": Fault(
        lambda rig: setattr(rig.loop.settings, "remote_c", 0.0), ("heater-setpoint",), 8.0
    ),
    "controller reset while warming": Fault(
        lambda rig: setattr(rig.loop.settings, "remote_c", 0.0), ("heater-setpoint",), 8.0, warming=True
    ),
    "turned up by hand": Fault(
        lambda rig: setattr(rig.loop.settings, "remote_c", 66.0), ("heater-setpoint",), 8.0, known=False
    ),
    "taken out of automatic": Fault(_set("automatic", False), ("heater-setpoint",), 2.0, known=False),
    "sensor noisy": Fault(_set("noise_k", 3.0), ("heater-noise", "heater-jump"), 20.0),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_trips_by_name_and_in_time(name: str) -> None:
    fault = FAULTS[name]
    rig = Rig(known() if fault.known else UNKNOWN_PLANT).live(60.0 if fault.warming else 1500.0)
    assert rig.found == {}
    since_s = rig.time_s
    fault.strike(rig)
    rig.live(fault.within_s + 5.0)
    hit = [trip for trip in fault.trips if trip in rig.found]
    assert hit, rig.texts
    at_s, plate_k = rig.found[hit[0]]
    assert at_s - since_s <= fault.within_s
    assert plate_k - rig.target_k < fault.hotter_k


def test_a_constant_error_is_seen_from_the_size_that_the_documents_name() -> None:
    """Beyond margin, knowledge of the room and tolerance of the plant; below it nothing can be said."""
    over_k = 333.15 - ROOM_K
    smallest_k = MODEL_MARGIN_K + 0.5 + 0.05 * over_k
    assert smallest_k < 4.0
    for low_k, seen in ((4.2, True), (0.5 * smallest_k, False)):
        rig = Rig(known())
        rig.offset_k = -low_k  # from the start: no jump to be seen
        rig.live(2400.0)
        assert ("heater-power" in rig.found) is seen, (low_k, rig.texts)


def test_frozen_at_the_set_point_is_seen_where_the_noise_is_known() -> None:
    rig = Rig(known(), noise_k=0.05, known_noise_k=0.05).live(1500.0)
    rig.frozen_c = rig.sensed_c()
    rig.live(30.0)
    assert "heater-frozen" in rig.found
    assert "noise is never below 0.05 K" in rig.texts["heater-frozen"]


def test_a_quiet_reading_in_steps_of_a_tenth_is_not_frozen() -> None:
    """A display with one decimal, at a set-point that is reached: the same value for minutes."""
    rig = Rig(known(), known_noise_k=0.01)
    sensed = rig.sensed_c
    rig.sensed_c = lambda: round(sensed(), 1)  # type: ignore[method-assign]
    rig.live(2400.0)
    assert rig.found == {}, rig.texts


def test_the_message_names_the_plant_and_who_identified_it() -> None:
    rig = Rig(known()).live(1500.0)
    rig.contact = lambda _: 0.0
    rig.live(70.0)
    text = rig.texts["heater-power"]
    assert "a test: 40 W, 80.75 to 89.25 J/K" in text
    assert "ambient 297.6 to 298.6 K" in text


def test_a_single_impossible_reading_is_no_reading_three_are_a_fault() -> None:
    check = HeaterCheck(rules(known()))
    told = [check.reading(t * 0.5, k, 300.0, 0.0, False) for t, k in enumerate((300.0, 340.0, 300.1))]
    assert [believed for believed, _ in told] == [300.0, None, 300.1]
    assert not any(found for _, found in told)
    for t in (3, 4, 5):
        believed, found = check.reading(t * 0.5, 340.0, 300.0, 0.0, False)
    assert believed is None
    assert [one.id for one in found] == ["heater-jump"]
    assert check.reading(3.0, 340.0, 300.0, 0.0, False)[0] == 340.0  # it is what it reads now; the trip holds


def test_a_long_gap_in_the_readings_is_no_evidence() -> None:
    """Whatever power flowed meanwhile is possible: a late host must not trip for it."""
    rig = Rig(known()).live(60.0)
    for _ in range(40):  # 20 s at full power that the guard does not see
        rig.holder.set_duty(1.0)
        rig.holder.process(DT_S)
        rig.time_s += DT_S
    rig.loop.restart(rig.holder.pt100_k - KELVIN_AT_0_C)
    rig.loop.settings.remote_c = rig.target_k - KELVIN_AT_0_C
    rig.live(30.0)
    assert "heater-power" not in rig.found, rig.texts


RECORDS = {
    "thermal/box_kp16_limit_cycle_1hz.csv": ("int_temp_c", "amps", 1.9, 30.0),
    "thermal/box_kp4_1hz.csv": ("int_temp_c", "amps", 2.0, 30.0),
    "thermal/tec_step_run3.csv": ("oven_c", "output", 100.0, None),
    "thermal/tec_step_run5.csv": ("oven_c", "output", 100.0, None),
}


@pytest.mark.parametrize("name", RECORDS)
def test_measured_loops_of_others_do_not_trip(name: str) -> None:
    """Slow, saturated, with a steady offset, quantised: nothing of that is a fault."""
    column, power, full, target_c = RECORDS[name]
    check = HeaterCheck(rules(UNKNOWN_PLANT, period_s=1.0))
    with need(name, "no false trip on a measured loop").open() as stream:
        for second, row in enumerate(csv.DictReader(stream)):
            set_c = float(row["set_c"]) if target_c is None else target_c
            reading_k, setpoint_k = float(row[column]) + KELVIN_AT_0_C, set_c + KELVIN_AT_0_C
            fraction = float(row[power]) / full
            _, found = check.reading(float(second), reading_k, setpoint_k, fraction, True)
            assert found == [], (second, [one.text for one in found])


@pytest.mark.parametrize("warming", [False, True])
@pytest.mark.parametrize(
    ("name", "value", "trips"),
    [("relay", False, {"heater-short"}), ("line_share", 0.7, {"heater-short"}), ("line_share", 0.9, set())],
)
def test_measured_power_that_stays_behind_what_was_asked_for_trips_and_a_sag_does_not(
    name: str, value: object, trips: set[str], warming: bool
) -> None:
    """With a loop in the host the power is measured: with none of it a cold heater is what is expected."""
    check = HeaterCheck(rules(known(296.0)))
    found: dict[str, float] = {}

    def watch(rig: HostRig) -> None:
        for one in rig.readings:
            _, wrong = check.reading(
                one.monotonic_s, one.temperature_k, one.working_setpoint_k, one.output_fraction, True,
                one.asked_fraction,
            )  # fmt: skip
            for finding in wrong:
                found.setdefault(finding.id, one.monotonic_s)
        rig.readings.clear()

    async def go() -> float:
        rig = HostRig(plant=PLANT)
        await rig.pid.set_ramp_k_per_min(15.0)
        await rig.pid.set_target_k(333.15)
        await rig.run(60.0 if warming else 900.0)
        watch(rig)
        assert found == {}
        struck_s = asyncio.get_running_loop().time()
        setattr(rig.world, name, value)
        await rig.run(300.0)
        watch(rig)
        return struck_s

    struck_s = virtually(go())
    assert trips <= set(found)
    if trips:
        assert found["heater-short"] - struck_s < (15.0 if name == "relay" else 120.0)
    else:
        assert found == {}
