"""IEC 60751 against the table of the specification sheet (the values any Pt100 table prints)."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import pt100

TABLE = [  # degC, ohm
    (-200, 18.5201),
    (-100, 60.2558),
    (-50, 80.3063),
    (0, 100.0000),
    (25, 109.7347),
    (30, 111.6729),
    (45, 117.4704),
    (60, 123.2419),
    (80, 130.8968),
    (100, 138.5055),
    (200, 175.8560),
    (400, 247.0920),
    (600, 313.7080),
    (850, 390.4811),
]


@pytest.mark.parametrize(("t_c", "r_ohm"), TABLE)
def test_resistance_of_the_table(t_c, r_ohm):
    assert pt100.resistance_ohm(t_c) == pytest.approx(r_ohm, abs=5.1e-5)


@pytest.mark.parametrize(("t_c", "r_ohm"), [row for row in TABLE if row[0] not in (-200, 850)])
def test_temperature_of_the_table(t_c, r_ohm):
    # half of the last digit printed, at the smallest slope of the range, 0.29 ohm/K
    assert pt100.temperature_c(r_ohm) == pytest.approx(t_c, abs=5e-5 / 0.29)


def test_inverse_of_the_sheet():
    assert pt100.temperature_c(109.7347) == pytest.approx(25.0001, abs=1e-4)


@given(st.floats(-200.0, 850.0))
def test_the_two_directions_are_inverses(t_c):
    assert pt100.temperature_c(pt100.resistance_ohm(t_c)) == pytest.approx(t_c, abs=1e-8)


@given(st.floats(-200.0, 850.0), st.floats(10.0, 1000.0))
def test_r0_scales(t_c, r0_ohm):
    r_ohm = pt100.resistance_ohm(t_c, r0_ohm)
    assert r_ohm == pytest.approx(pt100.resistance_ohm(t_c) * r0_ohm / 100.0)
    inside_ohm = min(max(r_ohm, r0_ohm * 0.18521), r0_ohm * 3.9048)
    assert pt100.temperature_c(inside_ohm, r0_ohm) == pytest.approx(t_c, abs=1e-2)


def test_the_c_term_matters_only_below_zero():
    # by hand: 100 ohm * C (t - 100) t^3 = 100 * -4.183e-12 * -200 * -1e6 = -0.08366 ohm at -100 degC
    quadratic = 100.0 * (1.0 + 3.9083e-3 * -100.0 - 5.775e-7 * 1e4)
    assert quadratic - pt100.resistance_ohm(-100.0) == pytest.approx(0.08366, abs=1e-5)
    assert pt100.resistance_ohm(60.0) == pytest.approx(100.0 * (1.0 + 3.9083e-3 * 60.0 - 5.775e-7 * 3600.0))


@pytest.mark.parametrize(("t_c", "slope"), [(0.0, 0.3908), (60.0, 0.3839)])
def test_slope_of_the_sheet(t_c, slope):
    assert pt100.slope_ohm_per_k(t_c) == pytest.approx(slope, abs=5.1e-5)


@pytest.mark.parametrize("t_c", [-199.0, -120.0, -1.0, 1.0, 800.0])
def test_slope_is_the_derivative(t_c):
    numeric = (pt100.resistance_ohm(t_c + 0.01) - pt100.resistance_ohm(t_c - 0.01)) / 0.02
    assert pt100.slope_ohm_per_k(t_c) == pytest.approx(numeric, rel=1e-7)


def test_two_wire_lead_of_the_sheet():
    assert pt100.temperature_c(123.2419 + 0.4) - 60.0 == pytest.approx(1.04, abs=0.005)


@pytest.mark.parametrize(("kind", "at_60_k"), [("AA", 0.202), ("A", 0.27), ("B", 0.60)])
def test_tolerance_of_the_sheet(kind, at_60_k):
    assert pt100.tolerance_k(60.0, kind) == pytest.approx(at_60_k)
    assert pt100.tolerance_k(0.0, "C") == 0.6
    assert pt100.tolerance_k(-50.0, kind) == pt100.tolerance_k(50.0, kind)


@pytest.mark.parametrize(
    ("kind", "t_c"), [("AA", -51.0), ("AA", 251.0), ("A", -101.0), ("A", 451.0), ("B", -197.0), ("B", 601.0)]
)
def test_tolerance_outside_its_class(kind, t_c):
    with pytest.raises(ValueError, match=f"class {kind} is defined from"):
        pt100.tolerance_k(t_c, kind)


def test_unknown_tolerance_class():
    with pytest.raises(ValueError, match="'D' is none of AA, A, B, C"):
        pt100.tolerance_k(0.0, "D")


@pytest.mark.parametrize("t_c", [-200.01, 850.01, math.nan, math.inf])
def test_temperature_outside_the_standard(t_c):
    for function in (pt100.resistance_ohm, pt100.slope_ohm_per_k):
        with pytest.raises(ValueError, match="outside IEC 60751"):
            function(t_c)


@pytest.mark.parametrize("r_ohm", [0.0, -1.0, 18.51, 390.49, 1e6, math.nan, math.inf])
def test_open_and_short_circuit(r_ohm):
    with pytest.raises(ValueError, match="outside IEC 60751"):
        pt100.temperature_c(r_ohm)


@pytest.mark.parametrize("r0_ohm", [0.0, -100.0, math.nan, math.inf])
def test_impossible_r0(r0_ohm):
    with pytest.raises(ValueError, match="r0"):
        pt100.resistance_ohm(0.0, r0_ohm)
    with pytest.raises(ValueError, match="r0"):
        pt100.temperature_c(100.0, r0_ohm)
