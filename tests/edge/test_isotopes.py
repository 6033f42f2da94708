"""Lithium isotopes: cross-sections against a library, tables S1 to S4, diffusion, beam hardening."""

from __future__ import annotations

import math

import numpy as np
import periodictable
import pytest

from edge.constants import LITHIUM6_NATURAL_FRACTION
from edge.isotopes import (
    LITHIUM6_MASS_G_MOL,
    LithiumContent,
    areal_density_polychromatic,
    cylinder_volume_cm3,
    equilibrium_fraction6,
    faraday_mol,
    lithium6_cross_section,
    lithium_molar_mass,
    maxwell_spectrum,
    migration_diffusion,
    polychromatic_depth,
)
from edge.isotopes_tables import infinite_time_fraction6, paper_cell, paper_diffusion, perrenot_tables
from edge.uncertainty import pulls


def test_cross_section_at_2200_m_s_and_its_1_over_v():
    """Sears 1992: 940(4) b at 1.798 A."""
    sigma, error = lithium6_cross_section(1.798)
    assert float(sigma) == pytest.approx(940e-24)
    assert float(error) == pytest.approx(4e-24)
    assert float(lithium6_cross_section(3.596)[0]) == pytest.approx(1880e-24)


def test_cross_section_and_masses_against_periodictable():
    lithium6 = periodictable.Li[6]
    assert float(lithium6_cross_section(1.798)[0]) == pytest.approx(
        lithium6.neutron.absorption * 1e-24, rel=1e-3
    )
    assert pytest.approx(lithium6.mass, rel=1e-6) == LITHIUM6_MASS_G_MOL
    assert lithium_molar_mass(LITHIUM6_NATURAL_FRACTION) == pytest.approx(periodictable.Li.mass, abs=0.003)


@pytest.mark.parametrize("wavelength", [0.1, 25.0, math.nan])
def test_wavelengths_outside_the_1_over_v_range_are_refused(wavelength):
    with pytest.raises(ValueError, match="outside"):
        lithium6_cross_section(wavelength)


def test_the_rows_that_the_paper_has_right_come_out():
    rows = {(row.table, row.item): row for row in perrenot_tables()}
    right = [
        ("S1", "projected area of the composite electrode"), ("S1", "projected area of the separator"),
        ("S1", "projected area of the negative electrode"), ("S1", "height of the composite electrode"),
        ("S1", "height of the separator"), ("S1", "height of the negative electrode"),
        ("S1", "volume of the composite electrode"), ("S1", "volume of the separator"),
        ("S1", "volume of the negative electrode"), ("S1", "lithium in the composite electrode"),
        ("S1", "lithium in the separator"), ("S1", "Li density of the composite electrode"),
        ("S1", "Li density of the separator"), ("S1", "6Li density of the composite electrode"),
        ("S1", "6Li density of the separator"), ("S1", "7Li density of the composite electrode"),
        ("S1", "7Li density of the separator"), ("S2", "atoms of the delithiated electrode"),
        ("S2", "Li density, delithiated"), ("S2", "7Li density, delithiated"), ("S4", "migration flux"),
        ("S4", "apparent diffusion coefficient"),
    ]  # fmt: skip
    assert [key for key in right if not rows[key].agrees] == []


@pytest.mark.parametrize(
    ("item", "ours", "factor"),
    [  # edge.md 4.4: our values; printed / ours
        ("lithium in the negative electrode", 1.237e-4, 1010),
        ("6Li density of the negative electrode", 3.92e22, 1007),
        ("7Li density of the negative electrode", 2.06e21, 10.1),
        ("lithium of the delithiated electrode", 5.32e-5, 1e10),
        ("lithium of the relithiated electrode", 7.13e-5, 1.247e10),
        ("atoms of the relithiated electrode", 4.29e19, 1.247),
        ("Li density, relithiated", 2.68e22, 1.25),
        ("7Li density, relithiated", 2.48e22, 0.0935),
    ],
)
def test_the_misprints_are_kept_beside_our_values(item, ours, factor):
    row = next(row for row in perrenot_tables() if row.item == item)
    assert row.ours == pytest.approx(ours, rel=0.006)
    assert row.printed / row.ours == pytest.approx(factor, rel=0.01)
    assert not row.agrees
    assert row.remark


def test_750_g_would_be_417_g_per_cm3():
    volume = paper_cell().anode.volume_cm3
    assert 0.750 / volume == pytest.approx(417, rel=0.01)
    assert lithium_molar_mass(0.95) == pytest.approx(6.065, abs=0.005)  # the paper divides by 6.02


def test_the_apparent_diffusion_coefficient_never_comes_alone():
    """edge.md 4.4: 2.42e-6 cm2/s; Nernst-Einstein 1.2e-8, 200 times less; 16 mV would make them agree."""
    d = paper_diffusion()
    assert d.flux.value == pytest.approx(5.88e16, rel=0.002)
    assert d.apparent.value == pytest.approx(2.42e-6, rel=0.002)
    assert d.nernst_einstein.value == pytest.approx(1.2e-8, rel=0.01)
    assert d.ratio.value == pytest.approx(200, rel=0.01)
    assert d.voltage_that_agrees.value == pytest.approx(16e-3, rel=0.02)


def test_diffusion_errors_by_pulls():
    true = {
        "conductivity_s_cm": 2e-3, "fraction6": 0.12, "voltage_v": 3.26, "length_cm": 0.083,
        "gradient_cm4": 2.43e22, "lithium_cm3": 2.66e22,
    }  # fmt: skip
    sigma = {
        name: value * r
        for (name, value), r in zip(true.items(), (0.05, 0.02, 0.001, 0.01, 0.04, 0.03), strict=True)
    }
    exact = migration_diffusion(**{name: (value, 0.0) for name, value in true.items()})
    rng = np.random.default_rng(4)
    found = {name: [] for name in ("flux", "apparent", "nernst_einstein", "ratio")}
    for _ in range(3200):
        drawn = {name: (rng.normal(value, sigma[name]), sigma[name]) for name, value in true.items()}
        d = migration_diffusion(**drawn)
        for name, values in found.items():
            one = getattr(d, name)
            values.append((one.value, one.sigma_stat))
    for name, values in found.items():
        value, error = np.array(values).T
        mean, std = pulls(value, getattr(exact, name).value, error)
        assert abs(mean) < 0.1, name
        assert 0.95 < std < 1.05, name


def test_faraday_and_geometry():
    assert faraday_mol(96485.33212) == pytest.approx(1.0, rel=1e-9)
    assert cylinder_volume_cm3(0.3, 0.3 * 0.083) == pytest.approx(math.pi * 0.15**2 * 0.083)


def test_isotopes_mix_to_the_mean_and_nothing_is_lost():
    cell = paper_cell()
    parts = [cell.cathode, cell.separator, cell.anode]
    mixed = equilibrium_fraction6(parts)
    assert mixed == infinite_time_fraction6()
    assert sum(p.mol for p in parts) * mixed == pytest.approx(sum(p.mol * p.fraction6 for p in parts))
    assert 0.0759 < mixed < 0.95


def test_contents_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="share"):
        LithiumContent("x", 1.0, 1.0, 1.2)
    with pytest.raises(ValueError, match="not a content"):
        LithiumContent("x", 1.0, 0.0)
    with pytest.raises(ValueError, match="does not exist"):
        cylinder_volume_cm3(0.0, 1.0)
    with pytest.raises(ValueError, match="no lithium"):
        equilibrium_fraction6([LithiumContent("x", 0.0, 1.0)])
    with pytest.raises(ValueError, match="must be positive"):
        migration_diffusion(
            conductivity_s_cm=(0, 0), fraction6=(0.1, 0), voltage_v=(1, 0), length_cm=(1, 0),
            gradient_cm4=(1, 0), lithium_cm3=(1, 0),
        )  # fmt: skip


def test_one_wavelength_is_beer_and_lambert():
    sigma = float(lithium6_cross_section(2.8)[0])
    areal = np.array([0.0, 1e20, 1e21])
    assert polychromatic_depth(areal, [2.8], [3.0]) == pytest.approx(areal * sigma)
    back, slope = areal_density_polychromatic(areal * sigma, [2.8], [3.0])
    assert back == pytest.approx(areal)
    assert slope == pytest.approx(1 / sigma)


def test_two_wavelengths_by_hand_and_back():
    """T = (exp(-N s1) + exp(-N s2)) / 2: the beam hardens, so the slope falls."""
    s1, s2 = (float(lithium6_cross_section(w)[0]) for w in (1.5, 5.0))
    areal = np.array([-1e19, 2e20, 2e21])
    depth = polychromatic_depth(areal, [1.5, 5.0], [1.0, 1.0])
    assert depth == pytest.approx(-np.log((np.exp(-areal * s1) + np.exp(-areal * s2)) / 2))
    back, slope = areal_density_polychromatic(depth, [1.5, 5.0], [1.0, 1.0])
    assert back == pytest.approx(areal, rel=1e-9)
    assert slope[2] > slope[1]
    with pytest.raises(ValueError, match="weights"):
        polychromatic_depth(areal, [1.5, 5.0], [0.0, 0.0])


def test_a_maxwell_beam_at_293_k_peaks_where_it_should():
    """Flux per wavelength times a 1/v detector peaks at lambda_T sqrt(2/4)."""
    wavelength, weight = maxwell_spectrum(293.0)
    density = weight / np.gradient(wavelength)
    assert wavelength[np.argmax(density)] == pytest.approx(30.81 / math.sqrt(293) / math.sqrt(2), rel=0.02)
    with pytest.raises(ValueError, match="moderator"):
        maxwell_spectrum(1.0)
