"""Calibration tables and the numbers of Moeller et al., Batteries 7 (2021) 41: ours and the printed ones."""

import numpy as np
import pytest

from edge.calibration_tables import A2_LITHIUM_MOL_CM3, A2_RELATIVE_CONCENTRATION, LCO_LLZO, CalibrationTable
from edge.constants import AVOGADRO_PER_MOL, FARADAY_COULOMB_PER_MOL
from edge.detectability import (
    counts_needed,
    hours_needed,
    mean_slope,
    relative_error,
    smallest_detectable_delta_soc,
)
from edge.stopping import LCO, LLZO, atomic_stopping_kev_cm2, molar_mass_g_mol, relative_lithium_yield

MEEP_FRACTIONS = {"LiCoO2": 0.85, "C": 0.05, "MEEP-LiBOB": 0.05, "PVdF": 0.05}
STEPS = np.array([1.0, 0.9, 0.8, 0.7, 0.6, 0.5])


# --- table A1 ------------------------------------------------------------------------------------------


def test_a1_molar_masses():
    half = {**LCO, "Li": 0.5}
    assert molar_mass_g_mol(LCO) == pytest.approx(97.87, abs=0.005)  # printed 97.9
    assert molar_mass_g_mol(half) == pytest.approx(94.40, abs=0.005)  # printed 94.4
    without_al = {"Li": 6.6, "La": 3, "Zr": 1.6, "Ta": 0.4, "O": 12}
    assert molar_mass_g_mol(without_al) == pytest.approx(872.85, abs=0.05)  # printed 873.6285: not reproduced
    assert molar_mass_g_mol(LLZO) == pytest.approx(873.46, abs=0.05)  # neither formula gives it


def test_a1_lithium_is_in_mol_not_atoms():
    lco = 5.05 / molar_mass_g_mol(LCO)
    assert lco == pytest.approx(0.0516, abs=5e-5)  # printed as Li atoms/cm3: it is mol/cm3
    assert lco * 6.02214076e23 == pytest.approx(3.11e22, rel=2e-3)
    half = 0.5 * 4.87 / 94.40
    assert half == pytest.approx(0.0258, abs=5e-5)
    llzo = 5.4 / 873.63
    # printed 0.0399 needs 6.45 Li per formula; the two formulas of the text give
    assert (6.3 * llzo, 6.6 * llzo) == pytest.approx((0.0389, 0.0408), abs=6e-5)


# --- table A2 ------------------------------------------------------------------------------------------


def test_a2_concentrations():
    mixed = 0.516 * 0.0516 * STEPS + 0.484 * 0.0399
    assert mixed == pytest.approx(A2_LITHIUM_MOL_CM3, abs=6e-5)
    split = (1 / 5.05) / (1 / 5.05 + 1 / 5.4)
    assert split == pytest.approx(0.517, abs=5e-4)  # printed 51.7 and 0.516
    relative = (split * 0.0516 * STEPS + (1 - split) * 0.0399) / (split * 0.0516 + (1 - split) * 0.0399)
    assert relative == pytest.approx(A2_RELATIVE_CONCENTRATION, abs=1.5e-4)


def test_a2_signal_is_linear_and_drops_by_28_percent():
    slope, offset = np.polyfit(LCO_LLZO.x, LCO_LLZO.signal, 1)
    residual = LCO_LLZO.signal - (slope * LCO_LLZO.x + offset)
    r2 = 1 - np.sum(residual**2) / np.sum((LCO_LLZO.signal - LCO_LLZO.signal.mean()) ** 2)
    assert (slope, offset, r2) == pytest.approx((0.5615, 0.4406, 0.9992), abs=1e-4)
    assert 1 - LCO_LLZO.signal[-1] == pytest.approx(0.282, abs=5e-4)  # printed 28 %
    assert np.abs(residual).max() / slope <= 1.01 * LCO_LLZO.sigma_x  # the stated error of the table


# --- table 1 -------------------------------------------------------------------------------------------


def test_table_1_does_not_follow_from_table_a2():
    signal = np.array([847.0, 818.0, 710.0]) / 904.0
    assert signal == pytest.approx([0.937, 0.905, 0.785], abs=5e-4)  # as printed
    ours = LCO_LLZO.x_of([0.937, 0.905, 0.785])
    assert ours == pytest.approx([0.882, 0.829, 0.610], abs=1e-3)
    printed = np.array([0.865, 0.783, 0.540])
    assert np.all(np.abs(ours - printed) > 0.015)  # print both, never force agreement
    assert (1 - ours) / 0.5 == pytest.approx([0.236, 0.342, 0.780], abs=2e-3)
    assert (1 - printed) / 0.5 == pytest.approx([0.270, 0.434, 0.920])  # printed 28, 43.4, 92 %
    second = (ours[0] - ours[1]) / (ours[0] - ours[2])
    assert second == pytest.approx(0.195, abs=2e-3)
    printed_second = (printed[0] - printed[1]) / (printed[0] - printed[2])
    assert printed_second == pytest.approx(0.252, abs=5e-4)  # printed 24 %


def test_capacity_of_lco():
    mah_per_g = 0.5 * FARADAY_COULOMB_PER_MOL / 3.6 / molar_mass_g_mol(LCO)
    assert mah_per_g == pytest.approx(136.9, abs=0.1)  # printed 137
    utilisation = 101 / 129
    assert utilisation == pytest.approx(0.783, abs=5e-4)  # printed 78 +- 6 %
    error = utilisation * np.hypot(5 / 101, 5 / 129)
    assert error == pytest.approx(0.049, abs=5e-4)


# --- our table for the polymer cell --------------------------------------------------------------------


def test_lco_in_meep_follows_bragg():
    table = CalibrationTable.named("lco-meep-2.91MeV")
    assert table.signal == pytest.approx([1, 0.907, 0.812, 0.716, 0.619, 0.520], abs=6e-4)


def test_bragg_reproduces_simnra_for_the_other_matrix():
    """The same derivation for LCO + LLZO agrees with SimNRA's printed signals within their own scatter."""
    ours = relative_lithium_yield({"host": (LCO, 0.5), "llzo": (LLZO, 0.5)}, STEPS, 2911.0)
    assert ours == pytest.approx(LCO_LLZO.signal, abs=0.0095)


def test_the_yield_hardly_depends_on_the_cross_section():
    parts = {"host": (LCO, 0.85), "carbon": ({"C": 1.0}, 0.15)}
    flat = relative_lithium_yield(parts, STEPS, 2911.0)
    steep = relative_lithium_yield(parts, STEPS, 2911.0, lowest_kev=2500.0, exponent=2.0)
    assert flat == pytest.approx(steep, abs=1e-3)


def water_mev_cm2_g(energy_kev):
    water = {"H": 2, "O": 1}
    per_molecule = sum(n * float(atomic_stopping_kev_cm2(e, np.array(energy_kev))) for e, n in water.items())
    return per_molecule * AVOGADRO_PER_MOL / molar_mass_g_mol(water) / 1000.0


@pytest.mark.parametrize(("energy_kev", "pstar"), [(2000.0, 158.6), (2500.0, 134.4), (3000.0, 117.2)])
def test_stopping_against_pstar(energy_kev, pstar):
    """NIST PSTAR (ICRU 49), protons in liquid water, MeV cm2/g: without binding and shells 5 % too much."""
    assert water_mev_cm2_g(energy_kev) == pytest.approx(pstar, rel=0.05)


def test_the_energy_dependence_of_stopping_is_right_to_a_per_cent():
    assert water_mev_cm2_g(3000.0) / water_mev_cm2_g(2000.0) == pytest.approx(117.2 / 158.6, rel=0.01)


def test_stopping_is_refused_where_bethe_does_not_hold():
    with pytest.raises(ValueError, match="500 keV"):
        atomic_stopping_kev_cm2("Co", np.array([300.0, 900.0]))


# --- refusing another matrix ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mass_fractions": {"LiCoO2": 0.5, "LLZO": 0.5}}, "LiCoO2 is 0.5 instead of 0.85.*LLZO is 0.5"),
        ({"mass_fractions": {**MEEP_FRACTIONS, "C": 0.10, "PVdF": 0.0}}, "C is 0.1 instead of 0.05"),
        ({"energy_kev": 3020.0}, "3020 keV instead of 2911 keV"),
        ({"angle_deg": 90.0}, "angle 90 deg instead of 0 deg"),
        ({"host": "LiNiO2"}, "host LiNiO2 instead of LiCoO2"),
    ],
)
def test_another_composition_energy_or_angle_is_refused(change, message):
    table = CalibrationTable.named("lco-meep-2.91MeV")
    given = {"host": "LiCoO2", "mass_fractions": MEEP_FRACTIONS, "energy_kev": 2911.0, "angle_deg": 0.0}
    table.check(**given)
    with pytest.raises(ValueError, match=message):
        table.check(**{**given, **change})


def test_an_unknown_table_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"lco-llzo-2\.91MeV, lco-meep-2\.91MeV"):
        CalibrationTable.named("lco")


def test_a_table_of_ones_own():
    data = {
        "name": "mine", "host": "LiCoO2", "mass_fractions": {"LiCoO2": 1.0}, "energy_kev": 2911.0,
        "angle_deg": 0.0, "x": [0.5, 1.0], "signal": [0.52, 1.0], "sigma_x": 0.01, "source": "a note",
    }  # fmt: skip
    table = CalibrationTable.from_dict(data)
    assert float(table.x_of(0.76)) == pytest.approx(0.75)
    with pytest.raises(ValueError, match=r"missing \['source'\], unknown \['sauce'\]"):
        CalibrationTable.from_dict({"sauce" if k == "source" else k: v for k, v in data.items()})
    with pytest.raises(ValueError, match="must begin at x = 1"):
        CalibrationTable.from_dict({**data, "signal": [0.52, 0.99]})
    with pytest.raises(ValueError, match="must both fall"):
        CalibrationTable.from_dict({**data, "signal": [1.0, 1.0]})


def test_x_is_never_clipped():
    table = CalibrationTable.named("lco-meep-2.91MeV")
    assert float(table.x_of(1.05)) == pytest.approx(1.0 + 0.05 * 0.1 / 0.0930, rel=2e-3)
    assert float(table.x_of(0.40)) < 0.4
    for signal in (1.05, 0.9, 0.6, 0.4):  # the two directions are inverses, outside the table too
        assert float(table.signal_of(table.x_of(signal))) == pytest.approx(signal)


# --- what counts can show --------------------------------------------------------------------------------


def test_a_three_sigma_proof_of_the_operando_charge_needs_about_150_000_counts():
    table = CalibrationTable.named("lco-meep-2.91MeV")
    assert counts_needed(29.7 / 950.0, table) == pytest.approx(150_000, rel=0.10)
    assert smallest_detectable_delta_soc(150_000, 150_000, table) == pytest.approx(0.031, rel=0.06)
    again = counts_needed(smallest_detectable_delta_soc(7_000, 7_000, table), table)
    assert again == pytest.approx(7_000)


def test_the_operando_scan_of_the_paper_sees_four_percent():
    table = CalibrationTable.named("lco-meep-2.91MeV")
    sigma = smallest_detectable_delta_soc(
        4600, 4600, table, 1.0, normaliser_reference=13.1 * 4600, normaliser_now=13.3 * 4600
    )
    assert sigma == pytest.approx(0.04, abs=0.006)  # "3 +- 4 %"


def test_relative_error_of_a_double_ratio():
    # sigma = 2/sqrt(N): 2.0 to 1.4 % for the paper's 10 000 to 20 000 counts
    assert relative_error(10_000, 10_000) == pytest.approx(0.020)
    assert relative_error(20_000, 20_000) == pytest.approx(0.0141, abs=1e-4)
    assert relative_error(100, 400, 50, 200, background_per_count=1.5) ** 2 == pytest.approx(
        4 * (1 / 100 + 1 / 400) + 1 / 50 + 1 / 200
    )
    with pytest.raises(ValueError, match="positive"):
        relative_error(0, 100)


def test_hours_follow_from_the_rate():
    table = LCO_LLZO
    needed = counts_needed(0.2, table)
    assert hours_needed(0.2, table, 3.0) == pytest.approx(needed / 3.0 / 3600.0)
    assert mean_slope(table) == pytest.approx(0.2823 / 0.5)
    with pytest.raises(ValueError, match="rate"):
        hours_needed(0.2, table, 0.0)
    with pytest.raises(ValueError, match="zero"):
        counts_needed(0.0, table)


def test_systematic_errors_set_a_floor():
    table = CalibrationTable.named("lco-meep-2.91MeV")
    floor = smallest_detectable_delta_soc(1e12, 1e12, table, sigma_sys=0.02)
    assert floor == pytest.approx(3 * 0.02 / (0.96 * 0.5), rel=1e-2)
