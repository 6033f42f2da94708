"""Our driver and its scripts against the twin: every way a program may end, and what the cell then is.

The limits are those inside the script: nothing here stops a program but the instrument, unless it says so.
"""

import asyncio
import cmath
import contextlib
import math

import pytest

from drivers import palmsens_emstat4
from drivers.clock import RealClock
from drivers.errors import BadReply, NoReply, Refused
from drivers.palmsens_emstat4 import EmStat4
from drivers.ports import open_line
from drivers.roles import (
    CcCv,
    CellEvent,
    CellEventKind,
    CellLimits,
    CellSample,
    ConstantCurrent,
    ConstantVoltage,
    Eis,
    Geis,
    Ocv,
)
from hil_tests.sim.clock import LabClock
from hil_tests.sim.palmsens_emstat4 import EmStatTwin
from hil_tests.sim.physics.cell import Cell, CellParameters

WARM_K, COLD_K = 333.15, 298.15


def bounds(**changes):
    wide = {
        "voltage_low_v": 2.5,
        "voltage_high_v": 4.05,
        "current_a": 40e-6,
        "charge_coulomb": 3.6,
        "duration_s": 7200.0,
    }
    return CellLimits(**{**wide, **changes})


class Rig:
    """A twin and our driver on the two ends of a pseudo-terminal."""

    def __init__(self, speed, kelvin, settings):
        self.kelvin = kelvin
        parameters = CellParameters(start_x=settings.pop("start_x", 0.8))
        self.cell = Cell(parameters, temperature_k=lambda: self.kelvin)
        quiet = {"voltage_noise_v": 0.0, "current_noise": 0.0}
        self.twin = EmStatTwin(self.cell, LabClock(speed=speed), {**quiet, **settings})

    async def open(self):
        port = await self.twin.start()
        self.line = open_line("cell", {"kind": "serial", "port": port, "baud": 921600})
        await self.line.open()
        self.driver = EmStat4(self.line, name="cell", clock=RealClock(), settings={"model": "es4_hr"})
        await self.driver.prepare()
        return self

    async def close(self):
        await self.driver.close()
        await self.twin.stop()

    async def run(self, program):
        """Run to the end; return samples, phases and the last event."""
        await self.driver.start(program)
        samples, phases = [], []
        while True:
            what = await self.driver.next(2.0)
            if isinstance(what, CellSample):
                samples.append(what)
            elif what.kind is CellEventKind.PHASE:
                phases.append(what.detail)
            elif what.kind is not CellEventKind.STARTED:
                return samples, phases, what


async def until_silence(driver):
    """Read until nothing comes any more."""
    heard = 0
    with contextlib.suppress(NoReply):
        for heard in range(10_000):  # noqa: B007
            await driver.next(0.3)
    assert heard < 9_999


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(palmsens_emstat4, "PAUSE_AFTER_ERROR_S", 0.005)


@pytest.fixture
async def rig():
    made = []

    async def make(*, speed=5000.0, kelvin=WARM_K, **settings):
        made.append(await Rig(speed, kelvin, settings).open())
        return made[-1]

    yield make
    for one in made:
        await one.close()


async def test_identify(rig):
    one = await rig()
    who = await one.driver.identify()
    assert (who.manufacturer, who.model, who.serial) == ("PalmSens", "EmStat4 HR", "ES4HR20B0008")


async def test_another_model_is_found_out(rig):
    one = await rig(model="es4_lr")
    with pytest.raises(BadReply, match='says EmStat4 HR; if this is the right one, write model = "es4_lr"'):
        await one.driver.identify()


async def test_open_circuit(rig):
    one = await rig()
    assert await one.driver.read_ocv() == pytest.approx(one.cell.voltage_v, abs=1e-6)
    samples, phases, end = await one.run(Ocv(30.0, 5.0))
    assert [sample.elapsed_s for sample in samples] == [5.0, 10.0, 15.0, 20.0, 25.0, 30.0]
    assert (phases, end.kind, end.detail) == (["ocv"], CellEventKind.FINISHED, "time")
    assert all(sample.current_a is None and sample.valid for sample in samples)
    assert one.cell.charge.terminals == 0.0


async def test_cccv_passes_the_charge_that_it_says(rig):
    one = await rig()
    samples, phases, end = await one.run(CcCv(13e-6, 4.0, 2e-6, bounds(), interval_s=5.0))
    assert (phases, end.kind, end.detail) == (["cc", "cv"], CellEventKind.FINISHED, "current reached")
    assert {sample.phase for sample in samples} == {"cc", "cv"}
    assert samples[-1].current_a < 2e-6
    assert samples[-3].current_a > 2e-6
    assert samples[-1].voltage_v == pytest.approx(4.0, abs=1e-6)
    truth = one.twin.counters()
    assert not truth["cell_on"]
    assert samples[-1].charge_coulomb == pytest.approx(truth["terminal_coulomb"], rel=2e-3)
    assert truth["terminal_coulomb"] > 0.01
    assert one.driver._line.stats.bad_replies == 0


async def test_discharge_goes_the_other_way(rig):
    one = await rig(start_x=0.7)
    samples, _, end = await one.run(ConstantCurrent(-13e-6, 3.7, bounds(), interval_s=10.0))
    assert end.detail == "voltage reached"
    assert samples[-1].voltage_v <= 3.7 < samples[-2].voltage_v
    assert samples[-1].charge_coulomb == pytest.approx(-13e-6 * samples[-1].elapsed_s, rel=1e-3)
    assert one.cell.x > 0.7


@pytest.mark.parametrize(
    ("program", "detail"),
    [
        (ConstantCurrent(13e-6, 4.0, bounds(duration_s=100.0), 5.0), "time"),
        (CcCv(13e-6, 4.0, 1e-6, bounds(duration_s=100.0), 5.0), "time"),
        (ConstantCurrent(13e-6, 4.0, bounds(charge_coulomb=1e-3), 5.0), "limit charge"),
        (ConstantCurrent(-13e-6, 2.6, bounds(charge_coulomb=1e-3), 5.0), "limit charge"),
        (ConstantCurrent(-13e-6, 3.85, bounds(voltage_low_v=3.85), 5.0), "voltage reached"),
        (ConstantVoltage(4.0, 0.0, bounds(current_a=5e-6), 5.0), "limit current"),
        (ConstantVoltage(3.8, 0.0, bounds(current_a=10e-6), 5.0), "limit current"),
        (ConstantVoltage(3.6, 0.0, bounds(current_a=5e-6), 5.0), "invalid readings"),  # off the range
        (ConstantVoltage(4.0, 5e-6, bounds(), 5.0), "current reached"),
        (ConstantVoltage(4.0, 0.0, bounds(duration_s=200.0), 5.0), "time"),
        (ConstantVoltage(4.0, 0.0, bounds(charge_coulomb=1e-3), 5.0), "limit charge"),
        (
            ConstantCurrent(13e-6, 4.0, bounds(voltage_low_v=3.95), 5.0),
            "open-circuit voltage outside the limits",
        ),
        (
            ConstantCurrent(-13e-6, 2.6, bounds(voltage_high_v=3.9), 5.0),
            "open-circuit voltage outside the limits",
        ),
        (Eis(0.01, 1e3, 1.0, 4, bounds(voltage_low_v=3.91)), "open-circuit voltage outside the limits"),
    ],
)
async def test_every_ending_opens_the_circuit(rig, program, detail):
    one = await rig()
    samples, phases, end = await one.run(program)
    assert (end.kind, end.detail) == (CellEventKind.FINISHED, detail)
    assert "cv" not in phases or not isinstance(program, CcCv)
    assert not one.twin.counters()["cell_on"]
    if detail == "limit charge":
        assert abs(samples[-2].charge_coulomb) < 1e-3 <= abs(samples[-1].charge_coulomb)
    if detail.startswith("open-circuit"):
        assert samples == []
        assert one.cell.charge.passed_charge + one.cell.charge.passed_discharge == 0.0


async def test_voltage_limits_strike_in_the_hold_too(rig):
    """The front would have to fail for this: here the cell is moved to another potentiostat in mid-run."""
    one = await rig(speed=50.0)
    for volt, detail in ((4.2, "limit voltage high"), (2.0, "limit voltage low")):
        await one.driver.start(ConstantVoltage(3.95, 0.0, bounds(current_a=10e-3), 1.0))
        while not isinstance(await one.driver.next(2.0), CellSample):
            pass
        one.cell.potentiostat(volt)
        while isinstance(end := await one.driver.next(2.0), CellSample):
            pass
        assert end.detail == detail


async def test_high_and_low_voltage_limits_strike_at_constant_current(rig):
    one = await rig(kelvin=COLD_K)
    samples, _, end = await one.run(ConstantCurrent(13e-6, 4.05, bounds(), 1.0))
    assert (end.detail, len(samples)) == ("voltage reached", 1)  # a cold cell takes nothing
    one = await rig(start_x=0.99)
    samples, _, end = await one.run(ConstantCurrent(-13e-6, 2.6, bounds(voltage_low_v=2.6), 1.0))
    assert end.detail == "voltage reached"
    assert len(samples) > 1


async def test_two_readings_that_are_no_numbers_end_it_one_does_not(rig):
    one = await rig(speed=50.0)
    await one.driver.start(ConstantCurrent(13e-6, 4.0, bounds(), 1.0))
    while not isinstance(await one.driver.next(2.0), CellSample):
        pass
    one.twin.inject({"kind": "overload", "count": 1})
    while (sample := await one.driver.next(2.0)).valid:
        pass
    assert sample.current_a is None
    assert sample.problems == ("ba: overload", "ba: not a number")
    after = await one.driver.next(2.0)
    assert after.valid  # and the charge goes on with the last good current
    assert after.charge_coulomb == pytest.approx(13e-6 * after.elapsed_s, rel=1e-6)
    one.twin.inject({"kind": "overload", "count": 2})
    while isinstance(end := await one.driver.next(2.0), CellSample):
        pass
    assert (end.kind, end.detail) == (CellEventKind.FINISHED, "invalid readings")
    assert not one.twin.counters()["cell_on"]


async def test_impedance(rig):
    one = await rig()
    samples, phases, end = await one.run(Eis(0.01, 1e4, 1.0, 5, bounds()))
    assert (phases, end.detail) == (["eis"], "sweep done")
    assert [sample.frequency_hz for sample in samples] == pytest.approx([1e4, 1e3, 1e2, 10.0, 1.0], rel=1e-6)
    for sample in samples:
        expected = one.cell.impedance_ohm(sample.frequency_hz)
        assert sample.z_real_ohm == pytest.approx(expected.real, rel=1e-2)
        assert sample.z_imag_ohm == pytest.approx(expected.imag, rel=5e-2)
        assert sample.voltage_v == pytest.approx(3.9135, abs=2e-3)
        assert abs(sample.current_a) < 1e-6
    assert not one.twin.counters()["cell_on"]


CIRCUIT_HZ = (1e4, 1e3, 1e2, 10.0, 1.0)


def written_out_ohm(hertz):
    """The circuit with the twin's parameters: 2500 ohm, 2000 ohm || 2 uF, finite Warburg 1500 ohm, 300 s.

    The cathode's own capacitance: 28.3 mV for 0.05 of x above 0.8, and 0.5/0.072 of x per coulomb.
    """
    omega = 2.0 * math.pi * hertz
    root = cmath.sqrt(1j * omega * 300.0)
    slope = (3.9135 - 3.8852) / 0.05 * 0.5 / 0.072
    return 2500.0 + 2000.0 / (1 + 1j * omega * 4e-3) + 1500.0 * cmath.tanh(root) / root + slope / (1j * omega)


async def test_a_galvanostatic_sweep_measures_the_same_circuit(rig):
    """2 uA rms: the voltage swings by sqrt(2) 2 uA |Z|, which is told with each point."""
    one = await rig()
    samples, phases, end = await one.run(Geis(2e-6, 1e4, 1.0, 5, bounds()))
    assert (phases, end.detail) == (["geis"], "sweep done")
    assert [sample.frequency_hz for sample in samples] == pytest.approx(CIRCUIT_HZ, rel=1e-6)
    for sample in samples:
        expected = written_out_ohm(sample.frequency_hz)
        measured = complex(sample.z_real_ohm, sample.z_imag_ohm)
        assert abs(measured - expected) < 0.01 * abs(expected)
        assert sample.swing_a == pytest.approx(math.sqrt(2.0) * 2e-6)
        assert sample.swing_v == pytest.approx(math.sqrt(2.0) * 2e-6 * abs(expected), rel=0.01)
        assert sample.current_a == pytest.approx(0.0, abs=1e-9)
    assert not one.twin.counters()["cell_on"]


async def test_a_sweep_about_a_current_counts_its_charge(rig):
    one = await rig()
    samples, _, end = await one.run(Geis(1e-6, 1e3, 0.1, 9, bounds(), bias_a=5e-6))
    assert end.detail == "sweep done"
    assert samples[-1].current_a == pytest.approx(5e-6, rel=1e-6)
    truth = one.twin.counters()["terminal_coulomb"]
    assert truth > 5e-6 * 30.0  # the three periods of 0.1 Hz alone are half a minute
    assert samples[-1].charge_coulomb == pytest.approx(truth, rel=0.02)


async def test_a_sweep_about_a_held_voltage_counts_its_charge(rig):
    one = await rig()
    samples, _, end = await one.run(Eis(0.01, 1e3, 0.1, 9, bounds(), voltage_v=3.95))
    assert end.detail == "sweep done"
    truth = one.twin.counters()["terminal_coulomb"]
    assert truth > 1e-4
    assert samples[-1].voltage_v == pytest.approx(3.95, abs=1e-6)
    assert samples[-1].charge_coulomb == pytest.approx(truth, rel=0.1)


@pytest.mark.parametrize(
    ("program", "detail", "points"),
    [
        # |Z| is 2.5 kohm at 10 kHz, 4.5 kohm at 10 Hz: 14 uA peak swings by 36 and 64 mV. The cell is at
        # 3.9135 V; 0.1 V of room is enough for what is measured, not for ten times |Z| a decade below.
        (Geis(10e-6, 1e4, 1.0, 5, bounds(voltage_high_v=4.0135)), "limit voltage high: the sine", 1),
        (
            Geis(10e-6, 1e4, 1.0, 5, bounds(voltage_low_v=3.8135, voltage_high_v=4.5)),
            "limit voltage low: the sine",
            1,
        ),
        (Geis(10e-6, 1e4, 1.0, 41, bounds()), "sweep done", 41),
        (Eis(0.08, 1e4, 1.0, 5, bounds(current_a=40e-6)), "limit current: the sine", 1),  # 113 mV / 2.5 kohm
        (Eis(0.05, 1e4, 1.0, 5, bounds(current_a=40e-6)), "sweep done", 5),
    ],
)  # fmt: skip
async def test_a_sweep_ends_before_its_sine_leaves_the_window(rig, program, detail, points):
    one = await rig()
    samples, _, end = await one.run(program)
    assert end.kind is CellEventKind.FINISHED
    assert end.detail.startswith(detail)
    assert len(samples) == points
    assert not one.twin.counters()["cell_on"]


async def test_two_overloaded_points_end_a_sweep_one_does_not(rig):
    one = await rig(speed=100.0)
    one.twin.inject({"kind": "overload", "count": 1})
    samples, _, end = await one.run(Eis(0.01, 1e4, 1e2, 5, bounds()))
    assert end.detail == "sweep done"
    assert [sample.valid for sample in samples] == [False, True, True, True, True]
    assert samples[0].z_real_ohm is None
    assert "cc: overload" in samples[0].problems
    one.twin.inject({"kind": "stuck_range", "ampere": 1e-7})
    samples, _, end = await one.run(Eis(0.01, 1e4, 1e2, 5, bounds()))
    assert (end.detail, len(samples)) == ("invalid readings", 2)
    assert not one.twin.counters()["cell_on"]


async def test_probe_finds_what_is_not_licensed_and_energises_nothing(rig):
    one = await rig(unlicensed=("meas_loop_geis",))
    abilities, missing = await one.driver.probe()
    assert abilities.geis is None
    assert abilities.eis is not None
    assert abilities.galvanostat
    (text,) = missing
    assert text.startswith(
        "no galvanostatic impedance (GEIS) on this instrument: this technique is not licensed"
    )
    truth = one.twin.counters()
    assert (truth["scripts"], truth["cell_on"]) == (1, False)  # the one that prepared it
    with pytest.raises(Refused, match="not licensed"):
        await one.driver.start(Geis(2e-6, 1e4, 1.0, 5, bounds()))
    assert not one.driver.running


async def test_probe_of_a_whole_instrument_misses_nothing(rig):
    one = await rig()
    abilities, missing = await one.driver.probe()
    assert missing == []
    assert abilities == one.driver.model.abilities


async def test_an_old_firmware_is_told_with_what_to_do(rig):
    one = await rig(script="01.02.00")
    with pytest.raises(BadReply, match=r"MethodSCRIPT 01.02.00, our scripts need 1.3 or newer: update it"):
        await one.driver.identify()


async def test_current_limit_strikes_between_two_frequencies(rig):
    one = await rig(speed=100.0)
    await one.driver.start(Eis(0.01, 10.0, 1.0, 20, bounds()))
    while not isinstance(await one.driver.next(2.0), CellSample):
        pass
    one.twin.inject({"kind": "short", "ohm": 1e4})
    while isinstance(end := await one.driver.next(2.0), CellSample):
        pass
    assert end.detail in ("limit current", "invalid readings")
    assert not one.twin.counters()["cell_on"]


async def test_stop_in_mid_run(rig):
    one = await rig(speed=100.0)
    await one.driver.start(CcCv(13e-6, 4.0, 1e-6, bounds(), 1.0))
    while not isinstance(await one.driver.next(2.0), CellSample):
        pass
    waiting = asyncio.ensure_future(one.driver.next(5.0))
    await asyncio.sleep(0)
    await one.driver.stop()
    assert not one.driver.running
    assert not one.twin.counters()["cell_on"]
    event = await waiting
    while isinstance(event, CellSample):
        event = await one.driver.next(1.0)
    assert (event.kind, event.detail) == (CellEventKind.ABORTED, "aborted")
    with pytest.raises(Refused):
        await one.driver.next(0.1)
    await one.driver.off()


async def test_runtime_error_leaves_the_cell_on_and_the_driver_switches_it_off(rig):
    one = await rig(speed=100.0)
    await one.driver.start(ConstantCurrent(13e-6, 4.0, bounds(), 1.0))
    one.twin.inject({"kind": "runtime_error", "code": "0032"})
    while not isinstance(event := await one.driver.next(2.0), CellEvent) or event.kind in (
        CellEventKind.STARTED,
        CellEventKind.PHASE,
    ):
        pass
    assert event.kind is CellEventKind.RUNTIME_ERROR
    assert "critical overload" in event.detail
    assert not one.twin.counters()["cell_on"]
    assert not one.driver.running


async def test_pulled_cable_the_script_ends_by_its_own_limits(rig):
    one = await rig(speed=2000.0)
    await one.driver.start(CcCv(13e-6, 4.0, 2e-6, bounds(), 10.0))
    one.twin.inject({"kind": "unplug"})
    await until_silence(one.driver)
    assert one.driver.running  # as far as anybody knows
    for _ in range(200):
        await asyncio.sleep(0.02)
        if not one.twin.running:
            break
    truth = one.twin.counters()
    assert not truth["cell_on"]
    assert one.cell.voltage_v < 4.05
    assert 0.01 < truth["terminal_coulomb"] < 0.05
    one.twin.inject({"kind": "replug"})
    await one.line.open()
    await one.driver.prepare()
    assert not one.driver.running


async def test_pulled_and_plugged_cable_during_a_run_ends_safe(rig):
    one = await rig(speed=50.0)
    await one.driver.start(ConstantCurrent(13e-6, 4.0, bounds(), 1.0))
    while not isinstance(await one.driver.next(2.0), CellSample):
        pass
    one.twin.inject({"kind": "unplug"})
    await until_silence(one.driver)
    assert one.twin.counters()["cell_on"]
    one.twin.inject({"kind": "replug"})
    await one.line.open()
    notes = await one.driver.prepare()
    assert any("circuit open" in note for note in notes)
    assert not one.twin.counters()["cell_on"]
    assert not one.twin.running
    _, _, end = await one.run(Ocv(1.0, 0.5))
    assert end.kind is CellEventKind.FINISHED


@pytest.mark.parametrize(
    "fault", [{"kind": "flipped"}, {"kind": "lost"}, {"kind": "doubled"}, {"kind": "silence"}]
)
async def test_spoilt_lines_cost_samples_but_not_the_run(rig, fault):
    one = await rig(speed=200.0)
    await one.driver.start(ConstantCurrent(13e-6, 4.0, bounds(duration_s=20.0), 1.0))
    while not isinstance(await one.driver.next(2.0), CellSample):
        pass
    one.twin.inject(fault)
    good, bad = 1, 0
    while True:
        try:
            what = await one.driver.next(2.0)
        except BadReply:
            bad += 1
            continue
        if isinstance(what, CellEvent):
            break
        good += 1
    assert (what.kind, what.detail) == (CellEventKind.FINISHED, "time")
    assert good + bad in (19, 20, 21)
    assert good >= 19


async def test_a_lost_end_is_cleared_up_by_stop(rig):
    one = await rig(speed=200.0)
    await one.driver.start(ConstantCurrent(13e-6, 4.0, bounds(duration_s=5.0), 1.0))
    one.twin.inject({"kind": "silence", "skip": 9})  # e is out; T, M, five P, *, T, then the empty line
    await until_silence(one.driver)
    assert one.driver.running
    assert not one.twin.running
    await one.driver.stop()
    assert not one.driver.running
    assert (await one.driver.next(0.1)).kind is CellEventKind.ABORTED


async def test_cold_cell_takes_almost_no_charge(rig):
    charge = {}
    for kelvin in (WARM_K, COLD_K):
        one = await rig(kelvin=kelvin, start_x=0.9)
        samples, _, _ = await one.run(CcCv(13e-6, 4.0, 1e-7, bounds(), 10.0))
        charge[kelvin] = samples[-1].charge_coulomb
    assert charge[COLD_K] < 0.1 * charge[WARM_K]
    assert math.isfinite(charge[WARM_K])
