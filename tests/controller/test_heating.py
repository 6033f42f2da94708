"""When a temperature is stable: over any time that an experiment file may ask for."""

from __future__ import annotations

import pytest

from controller.heating import Heating
from drivers.roles import HeaterReading
from tests.controller.fakes import FakeGuard, FakeRecorder, SteppedClock


class Plate:
    """A heater task whose readings a test hands in."""

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.heating = Heating(None, None, FakeGuard(), self.clock, FakeRecorder(), period_s=10.0)  # type: ignore[arg-type]

    def read(self, temperature_k: float, times: int = 1, *, sensor_ok: bool = True) -> None:
        for _ in range(times):
            self.clock.s += 10.0
            reading = HeaterReading(
                monotonic_s=self.clock.s, temperature_k=temperature_k, working_setpoint_k=333.0,
                output_fraction=0.1, sensor_ok=sensor_ok, status_word=0,
            )  # fmt: skip
            self.heating._take(reading)


@pytest.fixture
def plate() -> Plate:
    return Plate()


def test_stable_for_longer_than_an_hour(plate: Plate) -> None:
    for _ in range(3 * 360):
        plate.read(333.5)
        plate.heating.stable(333.0, 2.0, 3 * 3600.0)
    assert not plate.heating.stable(333.0, 2.0, 3 * 3600.0)  # the first reading was at 10 s
    plate.read(333.5)
    assert plate.heating.stable(333.0, 2.0, 3 * 3600.0)


@pytest.mark.parametrize(("temperature_k", "sensor_ok"), [(335.1, True), (333.0, False)])
def test_one_reading_outside_or_invalid_begins_anew(
    plate: Plate, temperature_k: float, sensor_ok: bool
) -> None:
    plate.read(333.5, 7)
    assert plate.heating.stable(333.0, 2.0, 60.0)
    plate.read(temperature_k, sensor_ok=sensor_ok)
    plate.read(333.5, 6)
    assert not plate.heating.stable(333.0, 2.0, 60.0)
    plate.read(333.5)
    assert plate.heating.stable(333.0, 2.0, 60.0)


def test_another_band_is_judged_by_what_was_measured_before(plate: Plate) -> None:
    plate.read(333.5, 20)
    assert plate.heating.stable(333.0, 2.0, 120.0)
    assert not plate.heating.stable(333.0, 0.4, 60.0)
    assert plate.heating.stable(334.0, 1.0, 120.0)


def test_old_readings_are_no_readings(plate: Plate) -> None:
    plate.read(333.5, 20)
    plate.clock.s += 31.0
    assert not plate.heating.stable(333.0, 2.0, 60.0)
