"""Faults of the bench that no wire shows: sensors that lie, a cell that heats itself, a wrong potential."""

import math
import statistics

import numpy as np
import pytest

from hil_tests.emstat_host import emstat_bench
from hil_tests.sim.clock import ManualClock
from hil_tests.sim.eurotherm_3200 import EurothermTwin
from hil_tests.sim.labjack_t7 import LabJackT7Twin
from hil_tests.sim.physics.beam import Beam, BeamParameters, Stretches
from hil_tests.sim.physics.cell import Cell
from hil_tests.sim.physics.holder import Holder, HolderParameters
from hil_tests.sim.physics.pt100 import Sensor
from hil_tests.sim.physics.runaway import SelfHeating

ROOM_K = 298.15


def heater(**settings) -> EurothermTwin:
    parameters = HolderParameters(ambient_k=ROOM_K)
    return EurothermTwin(Holder(parameters, start_k=ROOM_K), ManualClock(), 1, lambda: True, settings)


# --- thermometer -------------------------------------------------------------------------------------------


def test_a_sensor_is_displaced_drifts_and_is_noisy():
    sensor = Sensor(seed=1)
    sensor.offset_k = -4.0
    assert sensor.reading_k(330.0) == 326.0
    sensor.drift_k_per_s = 0.01
    for _ in range(400):
        sensor.process(0.25)
    assert sensor.reading_k(330.0) == pytest.approx(327.0)
    sensor.noise_k = 2.0
    readings = [sensor.reading_k(330.0) for _ in range(4000)]
    assert statistics.fmean(readings) == pytest.approx(327.0, abs=0.15)
    assert statistics.stdev(readings) == pytest.approx(2.0, rel=0.05)
    sensor.mend()
    assert sensor.reading_k(330.0) == 330.0


def test_a_sensor_that_reads_4_k_low_makes_the_plate_4_k_too_hot():
    device = heater(setpoint_1_c=45.0)
    device.advance(3000.0)
    assert device.holder.plate_k == pytest.approx(273.15 + 45.0, abs=0.2)
    device.inject({"kind": "sensor", "state": "displaced", "offset_k": -4.0})
    device.advance(6000.0)
    assert device.loop.measured_c == pytest.approx(45.0, abs=0.2)
    assert device.holder.plate_k == pytest.approx(273.15 + 49.0, abs=0.2)
    device.inject({"kind": "sensor", "state": "good"})
    device.advance(6010.0)
    assert device.loop.measured_c > 47.0


# --- heat --------------------------------------------------------------------------------------------------


def test_a_dead_heater_gives_no_heat_whatever_the_output_says():
    device = heater(setpoint_1_c=60.0)
    device.inject({"kind": "stuck_output", "fraction": 0.0})
    device.advance(60.0)
    assert device.loop.output_percent == 100.0
    assert device.holder.heater_joule == 0.0


def test_self_heating_follows_arrhenius_until_its_heat_is_spent():
    source = SelfHeating()
    assert source.process(1.0, 400.0) == 0.0
    source.begin(0.5, reference_k=330.0, ev=1.2, joule=math.inf)
    hotter = 0.5 * math.exp(1.2 / 8.617333e-5 * (1 / 330.0 - 1 / 350.0))
    assert source.process(1.0, 330.0) == pytest.approx(0.5)
    assert source.process(1.0, 350.0) == pytest.approx(hotter, rel=1e-6)
    source.begin(2.0, reference_k=330.0, ev=0.0, joule=100.0)
    released = sum(source.process(0.5, 330.0) * 0.5 for _ in range(10_000))
    assert released == pytest.approx(100.0, rel=0.01)
    for wrong in ({"ev": -1.0}, {"joule": 0.0}, {"reference_k": 0.0}):
        with pytest.raises(ValueError, match="no such heating"):
            source.begin(1.0, **{"reference_k": 330.0, "ev": 1.0, "joule": 1.0, **wrong})


@pytest.mark.parametrize(("room_k", "runs_away"), [(300.0, False), (340.0, True)])
def test_a_cell_runs_away_only_above_the_temperature_that_its_cooling_decides(room_k, runs_away):
    holder = Holder(HolderParameters(ambient_k=room_k), start_k=room_k)
    device = EurothermTwin(holder, ManualClock(), 1, lambda: False, {})
    device.inject({"kind": "runaway", "watt": 1.0, "ev": 1.2, "reference_k": 340.0})
    device.advance(1800.0)
    assert (holder.cell_k > room_k + 100.0) is runs_away
    assert runs_away or holder.cell_k < room_k + 3.0


# --- the controller itself ---------------------------------------------------------------------------------


def test_a_deaf_controller_acknowledges_and_does_nothing():
    device = heater(setpoint_1_c=30.0)
    device.inject({"kind": "deaf"})
    device.registers.write(26, [450], single=True)
    assert device.loop.settings.remote_c == 30.0
    device.inject({"kind": "deaf", "given": False})
    device.registers.write(26, [450], single=True)
    assert device.loop.settings.remote_c == 45.0


def test_a_cold_start_clears_limits_and_sensor_break():
    device = heater(setpoint_high_c=70.0, sensor_break="latching")
    device.inject({"kind": "reset", "boot_s": 0.0})
    assert device.loop.settings.setpoint_high_c == 70.0
    device.inject({"kind": "reset", "boot_s": 0.0, "cleared": True})
    assert device.loop.settings.setpoint_high_c == 400.0
    device.inject({"kind": "sensor", "state": "open"})
    device.loop.settings.setpoint_1_c = 30.0
    device.advance(1.0)
    assert device.loop.output_percent == 100.0  # full heat without a sensor, and no alarm
    assert not device.loop.status_word & 1 << 5


# --- cell --------------------------------------------------------------------------------------------------


def test_a_bad_contact_stands_in_series():
    cell = Cell(temperature_k=lambda: 333.15)
    cell.galvanostat(10e-6)
    cell.process(1.0)
    before_v = cell.voltage_v
    cell.contact_ohm = 200e3
    cell.process(1.0)
    assert cell.voltage_v - before_v == pytest.approx(2.0, abs=0.02)
    cell.potentiostat(4.0)
    cell.process(1.0)
    assert cell.voltage_v == pytest.approx(4.0, abs=1e-9)
    assert 0.0 < cell.current_a < 4.2e-6  # 200 kOhm and 0.83 V let no more through


async def test_readings_that_are_no_number_and_a_potential_that_is_wrong():
    async with emstat_bench() as make:
        twin, _ = await make()
        twin.inject({"kind": "nan", "count": 1})
        assert math.isnan(twin.front.measure_v().value)
        assert not math.isnan(twin.front.measure_v().value)
        twin.front._set_mode(2)
        twin.front.set_potential(3.9)
        twin.front.switch(on=True)
        twin.inject({"kind": "set_error", "volt": 0.3})
        assert twin.front.measure_v().value == pytest.approx(4.2, abs=1e-3)
        twin.inject({"kind": "set_error", "volt": 0.0})
        assert twin.front.measure_v().value == pytest.approx(3.9, abs=1e-3)


# --- beam --------------------------------------------------------------------------------------------------


def stretches(begin_s, x_um, on) -> Stretches:
    begin = np.array(begin_s[:-1])
    return Stretches(
        begin, np.array(begin_s[1:]), np.array(x_um), np.zeros(begin.size), np.array(on),
        np.full(begin.size, 24e-12), np.array([]),
    )  # fmt: skip


def test_the_longest_stay_of_the_beam_on_one_place():
    beam = Beam(BeamParameters(), np.random.default_rng(1), [])
    beam.push(stretches([0.0, 0.02, 0.04, 0.10], [0.0, 1.0, 2.0], [True, True, True]))
    assert beam.longest_stay_s == pytest.approx(0.06)
    beam.push(stretches([0.10, 0.13, 0.50], [2.0, 3.0], [True, False]))  # goes on where it was
    assert beam.longest_stay_s == pytest.approx(0.09)
    beam.push(stretches([0.50, 0.55], [3.0], [True]))
    assert beam.longest_stay_s == pytest.approx(0.09)


def test_a_beam_that_nobody_moves_stays_where_it_is():
    beam = Beam(BeamParameters(wander=0.0), np.random.default_rng(1), [])
    box = LabJackT7Twin(beam, ManualClock())
    box.dio.write(0b1000, 0b1010, 0b1010)  # not blanked, shutter open
    box.advance(1.0)
    assert box.counters()["longest_stay_s"] == pytest.approx(0.95, abs=0.01)  # the shutter takes 50 ms
