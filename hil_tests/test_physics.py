"""Holder and cell against closed forms: step responses, balances, and coulombs that add up."""

import math
from dataclasses import replace

import numpy as np
import pytest

from hil_tests.sim.physics.cell import (
    ELEMENTARY_COULOMB,
    OCV_POINTS_V,
    Cell,
    CellParameters,
    open_circuit_slope_v,
    open_circuit_v,
)
from hil_tests.sim.physics.holder import Holder, HolderParameters

WARM_K, COLD_K = 333.15, 298.15
IDEAL = CellParameters(leak_ohm=1e15, side_a_at_4v=1e-30, start_x=0.8)


# --- holder ----------------------------------------------------------------------------------------------


def test_plate_alone_warms_as_one_exponential():
    """Joint cut: one heat capacity C, one conductance G, time constant C/G, end P/G above ambient."""
    alone = HolderParameters(
        joint_w_per_k=1e-12, cell_loss_w_per_k=1e-12, plate_loss_w_per_k=0.1, plate_j_per_k=60.0
    )
    holder = Holder(alone, start_k=296.0)
    holder.set_duty(0.25)  # 10 W
    for at_s in (60.0, 600.0, 6000.0):
        while at_s - holder.heater_joule / 10.0 > 1e-9:
            holder.process(60.0)
        assert holder.plate_k == pytest.approx(296.0 + 100.0 * (1.0 - math.exp(-at_s / 600.0)), abs=1e-6)


def test_steady_state_of_the_whole_holder():
    """At rest: P = G_p dT_p + G_c dT_c and G_j (T_p - T_c) = G_c dT_c; solved by hand for 10 W."""
    holder = Holder(HolderParameters(), start_k=296.0)
    holder.set_duty(0.25)
    holder.process(1e6)
    # dT_c = 1.2/(1.2+0.04) dT_p ; 10 = 0.1 dT_p + 0.04 dT_c  ->  dT_p = 10/(0.1 + 0.048/1.24)
    plate = 10.0 / (0.1 + 0.048 / 1.24)
    assert holder.plate_k - 296.0 == pytest.approx(plate, rel=1e-9)
    assert holder.cell_k - 296.0 == pytest.approx(plate * 1.2 / 1.24, rel=1e-9)
    assert holder.pt100_k == pytest.approx(holder.plate_k, rel=1e-9)


def test_sensor_lags_as_first_order():
    slow = HolderParameters(sensor_lag_s=5.0, plate_j_per_k=1e12, joint_w_per_k=1e-9, plate_loss_w_per_k=1e-9)
    holder = Holder(slow, start_k=300.0)
    holder._kelvin[2] = 290.0
    holder.process(5.0)
    assert holder.pt100_k == pytest.approx(300.0 - 10.0 * math.exp(-1.0), abs=1e-6)


@pytest.mark.parametrize("parts", [1, 7, 100])
def test_any_step_gives_what_runge_kutta_gives(parts):
    """The same three equations integrated by another method in steps of 50 ms."""
    p = HolderParameters()

    def rates(kelvin):
        plate, cell, sensor = kelvin
        return np.array(
            [
                (40.0 - p.joint_w_per_k * (plate - cell) - p.plate_loss_w_per_k * (plate - 296.0))
                / p.plate_j_per_k,
                (p.joint_w_per_k * (plate - cell) - p.cell_loss_w_per_k * (cell - 296.0)) / p.cell_j_per_k,
                (plate - sensor) / p.sensor_lag_s,
            ]
        )

    kelvin, step = np.full(3, 296.0), 0.05
    for _ in range(round(300.0 / step)):
        k1 = rates(kelvin)
        k2 = rates(kelvin + step / 2 * k1)
        k3 = rates(kelvin + step / 2 * k2)
        k4 = rates(kelvin + step * k3)
        kelvin = kelvin + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    holder = Holder(p, start_k=296.0)
    holder.set_duty(1.0)
    for _ in range(parts):
        holder.process(300.0 / parts)
    assert [holder.plate_k, holder.cell_k, holder.pt100_k] == pytest.approx(kelvin.tolist(), abs=1e-6)


def test_energy_is_kept():
    holder = Holder(HolderParameters(), start_k=296.0)
    before = holder.stored_joule
    for duty, seconds in ((1.0, 100.0), (0.3, 1000.0), (0.0, 33.3)):
        holder.set_duty(duty)
        holder.process(seconds)
    assert holder.heater_joule == pytest.approx(40.0 * 100.0 + 12.0 * 1000.0)
    assert holder.stored_joule - before == pytest.approx(holder.heater_joule - holder.lost_joule, rel=1e-9)


def test_power_is_limited_and_faults_add_to_it():
    holder = Holder()
    holder.set_duty(7.0)
    assert holder.power_w == 40.0
    holder.set_duty(-1.0)
    assert holder.power_w == 0.0
    holder.stuck_power_w = 5.0
    holder.process(2.0)
    assert holder.heater_joule == 10.0
    holder.cell_power_w = 3.0
    warm = holder.cell_k
    holder.process(1.0)
    assert holder.cell_k > warm + 0.1
    with pytest.raises(ValueError, match="negative"):
        holder.process(-1.0)


# --- cell: open circuit ----------------------------------------------------------------------------------


def test_open_circuit_points_are_the_cited_fit():
    """Ramadass 2004 / Torchio 2016, typed in again from the literature."""
    for x, volt in OCV_POINTS_V:
        top = -4.656 + 88.669 * x**2 - 401.119 * x**4 + 342.909 * x**6 - 462.471 * x**8 + 433.434 * x**10
        bottom = -1.0 + 18.933 * x**2 - 79.532 * x**4 + 37.311 * x**6 - 73.083 * x**8 + 95.96 * x**10
        assert volt == pytest.approx(top / bottom, abs=1e-4)
        assert open_circuit_v(x) == pytest.approx(volt, abs=1e-12)


def test_open_circuit_falls_with_lithium_everywhere():
    xs = np.linspace(0.3, 1.05, 751)
    volts = [open_circuit_v(x) for x in xs]
    assert np.all(np.diff(volts) < 0.0)
    assert all(open_circuit_slope_v(x) < 0.0 for x in xs)
    assert open_circuit_v(1.0) == pytest.approx(2.905, abs=1e-3)  # the last line, continued


# --- cell: currents --------------------------------------------------------------------------------------


def settled_ohm(p):
    """All resistances of the circuit."""
    return p.ohmic_ohm + p.transfer_ohm + p.diffusion_ohm


@pytest.mark.parametrize("current_a", [5e-6, -5e-6])
def test_step_of_current_ohm_then_exponentials(current_a):
    cell = Cell(IDEAL, temperature_k=lambda: WARM_K)
    rest = cell.voltage_v
    cell.galvanostat(current_a)
    assert cell.voltage_v - rest == pytest.approx(current_a * IDEAL.ohmic_ohm, rel=1e-9)  # at once
    cell.process(0.001)
    transfer = 1.0 - math.exp(-0.001 / (IDEAL.transfer_ohm * IDEAL.double_layer_f))
    assert cell.voltage_v - rest == pytest.approx(
        current_a * (IDEAL.ohmic_ohm + IDEAL.transfer_ohm * transfer), rel=1e-3
    )
    cell.process(3000.0)
    there = open_circuit_v(cell.x) + current_a * settled_ohm(IDEAL)
    assert cell.voltage_v == pytest.approx(there, abs=2e-5)


def test_coulombs_move_lithium_by_faradays_law():
    cell = Cell(IDEAL, temperature_k=lambda: WARM_K)
    cell.galvanostat(10e-6)
    cell.process(1000.0)
    assert cell.charge.terminals == pytest.approx(0.01, rel=1e-12)
    assert cell.x == pytest.approx(0.8 - 0.5 * 0.01 / IDEAL.capacity_coulomb, rel=1e-9)
    assert cell.lithium_atoms_out == pytest.approx(0.01 / ELEMENTARY_COULOMB, rel=1e-9)
    cell.galvanostat(-10e-6)
    cell.process(1000.0)
    assert cell.x == pytest.approx(0.8, abs=1e-9)
    assert (cell.charge.passed_charge, cell.charge.passed_discharge) == pytest.approx((0.01, 0.01), rel=1e-12)


def test_hold_of_a_voltage_integral_of_the_current_is_the_charge_and_the_end_is_equilibrium():
    cell = Cell(IDEAL, temperature_k=lambda: WARM_K)
    cell.potentiostat(4.0)
    first = cell.current_a
    assert first == pytest.approx((4.0 - open_circuit_v(0.8)) / IDEAL.ohmic_ohm, rel=1e-9)
    summed = 0.0
    for _ in range(40_000):
        cell.process(1.0)
        summed += cell.current_a
    assert summed == pytest.approx(cell.charge.terminals, rel=1e-9)
    assert abs(cell.current_a) < 1e-3 * first
    assert open_circuit_v(cell.x) == pytest.approx(4.0, abs=1e-4)


def test_any_step_gives_the_same_charge():
    charges = []
    for step_s in (0.05, 0.5, 2.0, 600.0):
        cell = Cell(IDEAL, temperature_k=lambda: WARM_K)
        cell.potentiostat(4.0)
        for _ in range(round(600.0 / step_s)):
            cell.process(step_s)
        charges.append(cell.charge.terminals)
    assert charges == pytest.approx([charges[0]] * 4, rel=3e-3)


def test_at_open_circuit_nothing_passes_and_the_leak_discharges():
    cell = Cell(CellParameters(leak_ohm=1e6, side_a_at_4v=1e-30, start_x=0.8), temperature_k=lambda: WARM_K)
    cell.process(1000.0)
    assert cell.charge.terminals == 0.0
    assert cell.current_a == 0.0
    assert cell.charge.leak == pytest.approx(3.9 / 1e6 * 1000.0, rel=0.01)
    assert cell.charge.lithium == pytest.approx(-cell.charge.leak, rel=1e-6)
    assert cell.x > 0.8


def test_terminal_charge_is_lithium_and_leak_and_side_reaction():
    cell = Cell(CellParameters(start_x=0.7, side_a_at_4v=1e-6), temperature_k=lambda: WARM_K)
    cell.galvanostat(13e-6)
    cell.process(500.0)
    charge = cell.charge
    assert charge.terminals == pytest.approx(charge.lithium + charge.leak + charge.side, rel=1e-9)
    assert charge.side > 0.0


def test_side_reaction_holds_the_voltage_of_a_cold_cell():
    """A cell that takes none of 13 uA: the side reaction takes all, at 4 V + 0.15 V lg(13e-6/2e-9)."""
    cell = Cell(CellParameters(start_x=0.8), temperature_k=lambda: 250.0)
    cell.galvanostat(13e-6)
    cell.process(10.0)
    assert cell.voltage_v == pytest.approx(4.0 + 0.15 * math.log10(13e-6 / 2e-9), abs=0.01)


def test_cold_resistance_follows_arrhenius():
    ohm = {}
    for kelvin in (WARM_K, COLD_K):
        cell = Cell(IDEAL, temperature_k=lambda kelvin=kelvin: kelvin)
        cell.potentiostat(4.0)
        ohm[kelvin] = (4.0 - open_circuit_v(0.8)) / cell.current_a
    factor = math.exp(1.3 / 8.617333262e-5 * (1.0 / COLD_K - 1.0 / WARM_K))
    assert ohm[COLD_K] / ohm[WARM_K] == pytest.approx(factor, rel=1e-6)


def test_short_circuit_takes_the_cell_down_without_instability():
    cell = Cell(IDEAL, temperature_k=lambda: WARM_K)
    cell.short_ohm = 50.0
    for _ in range(100):
        cell.process(1.0)
        assert 0.0 < cell.voltage_v < 0.1
    assert cell.charge.lithium < 0.0


# --- cell: impedance -------------------------------------------------------------------------------------


def test_impedance_limits():
    cell = Cell(IDEAL, temperature_k=lambda: WARM_K)
    assert cell.impedance_ohm(1e7) == pytest.approx(IDEAL.ohmic_ohm, rel=1e-4)
    # at the top of the semicircle omega R C = 1: half the resistance, minus half of it imaginary
    top_hz = 1.0 / (2.0 * math.pi * IDEAL.transfer_ohm * IDEAL.double_layer_f)
    top = cell.impedance_ohm(top_hz)
    assert top.real == pytest.approx(IDEAL.ohmic_ohm + IDEAL.transfer_ohm / 2.0, rel=0.01)
    assert top.imag == pytest.approx(-IDEAL.transfer_ohm / 2.0, rel=0.02)


def test_diffusion_terms_are_the_finite_warburg_element():
    many = CellParameters(
        leak_ohm=1e15, side_a_at_4v=1e-30, start_x=0.8, transfer_ohm=1e-9, ohmic_ohm=1e-9, diffusion_terms=400
    )
    cell = Cell(many, temperature_k=lambda: WARM_K)
    slope = -open_circuit_slope_v(0.8) * 0.5 / many.capacity_coulomb
    for hertz in (1e-4, 1e-3, 1e-2):
        omega = 2.0 * math.pi * hertz
        root = np.sqrt(1j * omega * many.diffusion_s)
        warburg = many.diffusion_ohm * np.tanh(root) / root + slope / (1j * omega)
        assert cell.impedance_ohm(hertz) == pytest.approx(complex(warburg), rel=2e-3)


def test_the_pairs_of_an_ordinary_cell_follow_the_warburg_element_over_eight_decades():
    """R tanh(s)/s, s = sqrt(j w tau), written out here: within 0.4 % of the whole at any frequency."""
    cell = Cell(IDEAL, temperature_k=lambda: WARM_K)
    slope = -open_circuit_slope_v(0.8) * 0.5 / IDEAL.capacity_coulomb
    for hertz in np.geomspace(1e-4, 1e4, 81):
        omega = 2.0 * math.pi * hertz
        root = np.sqrt(1j * omega * IDEAL.diffusion_s)
        transfer = IDEAL.transfer_ohm / (1.0 + 1j * omega * IDEAL.transfer_ohm * IDEAL.double_layer_f)
        warburg = IDEAL.diffusion_ohm * np.tanh(root) / root + slope / (1j * omega)
        expected = complex(IDEAL.ohmic_ohm + transfer + warburg)
        assert abs(cell.impedance_ohm(hertz) - expected) < 4e-3 * abs(expected)


def test_impedance_is_what_a_small_sine_of_current_does():
    """Drive the circuit with a sine in small steps and correlate: the time domain gives the same number."""
    cell = Cell(replace(IDEAL, start_x=0.825), temperature_k=lambda: WARM_K)  # between two points
    hertz, steps, amplitude = 0.01, 400, 1e-7
    expected = cell.impedance_ohm(hertz)
    total = 0j
    for k in range(20 * steps):
        cell.galvanostat(amplitude * math.sin(2.0 * math.pi * (k + 0.5) / steps))
        cell.process(1.0 / hertz / steps)
        if k >= 15 * steps:  # settled; what answers within a step is in phase with the current of that step
            phase = 2.0 * math.pi * (k + 0.5) / steps
            total += cell.voltage_v * (math.sin(phase) + 1j * math.cos(phase))
    measured = total * 2.0 / (5 * steps) / amplitude
    assert measured.real == pytest.approx(expected.real, rel=0.02)
    assert measured.imag == pytest.approx(expected.imag, rel=0.05)


def test_impossible_inputs():
    cell = Cell(IDEAL)
    with pytest.raises(ValueError, match="negative"):
        cell.process(-1.0)
    with pytest.raises(ValueError, match="not a number"):
        cell.potentiostat(math.nan)
