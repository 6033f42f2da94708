"""The verdict on a sweep, R_s, and series: the reference values, drawn sweeps, drift."""

from __future__ import annotations

import numpy as np
import pytest

from drivers.files import impedance_sweeps
from edge.impedance import ImpedanceRules, SweepSeries, real_axis_crossing, reduce_sweep
from edge.impedance_circuits import parse
from edge.impedance_kk import kramers_kronig
from edge.uncertainty import pulls
from tests.data_sets import CLONED, reference

REFERENCE = reference("eis")


def measured(name: str) -> tuple[np.ndarray, np.ndarray]:
    (sweep,) = impedance_sweeps.read(CLONED / "eis" / f"{name}_fz.csv")
    return sweep.frequency_hz, sweep.z_ohm


@pytest.mark.parametrize("name", REFERENCE)
def test_the_kramers_kronig_test_of_the_reference(name: str):
    theirs = REFERENCE[name]["lin_KK"]
    f, z = measured(name)
    used = z.imag < 0
    test = kramers_kronig(f[used], z[used])
    assert test.elements == theirs["M"]
    assert test.mu == pytest.approx(theirs["mu"], abs=1e-4)
    assert 100 * test.rms == pytest.approx(theirs["rms_residual_percent"], abs=1e-3)
    assert 100 * test.largest == pytest.approx(theirs["max_abs_residual_percent"], abs=1e-3)


def test_good_sweeps_pass_and_the_bad_one_is_rejected_with_a_reason():
    rules = ImpedanceRules(parse("R0-p(R1,C1)"))
    for name in ("liion_cell_example", "test_circuit_1", "test_circuit_2"):
        result = reduce_sweep(*measured(name), rules)
        assert result.test.passed
        assert result.fit is not None
        assert result.why_not == ""
    bad = reduce_sweep(*measured("gamry_example"), rules)
    assert not bad.test.passed
    assert bad.fit is None
    assert "4.7 % rms" in bad.why_not
    assert "drift" in bad.why_not
    forced = reduce_sweep(*measured("gamry_example"), ImpedanceRules(parse("R0-p(R1,C1)"), despite=True))
    assert forced.fit is not None
    assert "rejected" in forced.why_not


@pytest.mark.parametrize("name", ["liion_cell_example", "test_circuit_1"])
def test_the_real_axis_crossing(name: str):
    theirs = REFERENCE[name]
    f, z = measured(name)
    crossing = real_axis_crossing(f[::-1], z[::-1])  # any order
    assert crossing is not None
    assert crossing.resistance.value == pytest.approx(theirs["R_s_ohm_real_axis_crossing"], rel=1e-5)
    assert crossing.frequency.value == pytest.approx(theirs["crossing_frequency_Hz"], rel=1e-6)
    assert 0 < crossing.resistance.sigma_sys < 1e-3 * crossing.resistance.value


def test_no_crossing_where_the_highest_frequency_is_capacitive():
    """Circuit 2 turns positive only at 2 Hz, by noise: that is not its series resistance."""
    f, z = measured("test_circuit_2")
    assert np.any(z.imag > 0)
    assert real_axis_crossing(f, z) is None
    assert real_axis_crossing(f, z - 1000j) is None


def test_pulls_and_interpolation_error_of_the_crossing():
    circuit, f = parse("R0-p(R1,C1)-L2"), np.geomspace(1e5, 10.0, 41)
    truth = np.array([0.02, 0.03, 0.05, 2e-7])
    fine = np.geomspace(1e5, 10.0, 400_001)
    exact = real_axis_crossing(fine, circuit.impedance(truth, fine))
    z = circuit.impedance(truth, f)
    coarse = real_axis_crossing(f, z)
    assert exact is not None
    assert coarse is not None
    assert abs(coarse.resistance.value - exact.resistance.value) < 3 * coarse.resistance.sigma_sys
    assert abs(coarse.frequency.value - exact.frequency.value) < 3 * coarse.frequency.sigma_sys
    rng = np.random.default_rng(71)
    drawn = []
    for _ in range(3200):
        noisy = z + 1e-3 * np.abs(z) * (rng.normal(size=f.size) + 1j * rng.normal(size=f.size))
        found = real_axis_crossing(f, noisy, 1e-3)
        assert found is not None
        drawn.append(found)
    for name in ("resistance", "frequency"):
        off = [getattr(one, name).value - getattr(coarse, name).value for one in drawn]
        mean, std = pulls(off, 0.0, [getattr(one, name).sigma_stat for one in drawn])
        assert abs(mean) < 0.1, name
        assert 0.95 < std < 1.05, name


@pytest.mark.parametrize("noise", [1e-4, 1e-3, 4e-3])
def test_noise_passes_and_drift_does_not(noise: float):
    """A cell whose charge-transfer resistance rises by 60 % during the sweep is no stationary system."""
    circuit, f = parse("R0-p(R1,C1)-p(R2,CPE2)"), np.geomspace(1e4, 1e-2, 60)
    rng = np.random.default_rng(72)
    values = np.array([0.02, 0.01, 0.1, 0.03, 5.0, 0.85])
    z = circuit.impedance(values, f)
    dice = noise * (rng.normal(size=(50, 60)) + 1j * rng.normal(size=(50, 60)))
    passed = [kramers_kronig(f, z * (1 + d)).passed for d in dice]
    assert all(passed)
    seconds = np.cumsum(3 / f)
    grown = values * np.where(np.arange(6) == 3, 1 + 0.6 * (seconds / seconds[-1])[:, None], 1.0)
    drifting = np.array([circuit.impedance(v, f[k : k + 1])[0] for k, v in enumerate(grown)])
    test = kramers_kronig(f, drifting * (1 + dice[0]))
    assert not test.passed
    assert test.correlation > 0.5
    assert "drift" in test.reason
    jumps = kramers_kronig(f, z * (1 + 0.03 * (rng.normal(size=60) + 1j * rng.normal(size=60))))
    assert not jumps.passed
    assert "noise" in jumps.reason


def test_a_series_is_the_same_in_any_order_of_points_and_parts():
    circuit, f = parse("R0-p(R1,C1)"), np.geomspace(1e4, 1.0, 30)
    rules = ImpedanceRules(circuit)
    rng = np.random.default_rng(73)
    whole, left, right = (SweepSeries(rules) for _ in range(3))
    for soc in (0.1, 0.5, 0.9):
        z = circuit.impedance(np.array([0.02, 0.01 + 0.02 * soc, 0.05]), f)
        z = z * (1 + 1e-3 * (rng.normal(size=30) + 1j * rng.normal(size=30)))
        whole.add(soc, 1, f, z)
        order = rng.permutation(30)
        left.add(soc, 1, f[order[:17]], z[order[:17]])
        for k in order[17:]:
            right.add(soc, 1, f[k], z[k])
    right.merge(left)
    for a, b in zip(whole.result(), right.result(), strict=True):
        assert a.label == b.label
        assert a.fit is not None
        assert b.fit is not None
        assert a.fit.values.tobytes() == b.fit.values.tobytes()
        assert a.fit.values[1] == pytest.approx(0.01 + 0.02 * (a.label or 0), abs=4 * a.fit.sigma[1])
    with pytest.raises(ValueError, match="alike"):
        whole.merge(SweepSeries(ImpedanceRules()))
    with pytest.raises(ValueError, match="frequencies"):
        whole.add(0.1, 1, f, f[:3])


def test_a_sweep_with_the_wrong_sign_is_named():
    f, z = measured("test_circuit_1")
    with pytest.raises(ValueError, match="sign"):
        reduce_sweep(f, z.conj(), ImpedanceRules())
    with pytest.raises(ValueError, match="at least 5"):
        kramers_kronig(f[:3], z[:3])


def test_a_sharp_arc_is_not_taken_for_drift():
    """With few relaxations mu falls below its limit by chance while a third of the arc is left over."""
    circuit, f = parse("R0-p(R1,C1)"), np.geomspace(1e5, 1.0, 50)
    rng = np.random.default_rng(74)
    for tau in np.geomspace(1e-4, 1e-1, 20):
        z = circuit.impedance(np.array([1.0, 100.0, tau / 100]), f)
        z = z * (1 + 1e-3 * (rng.normal(size=50) + 1j * rng.normal(size=50)))
        assert kramers_kronig(f, z).rms < 0.003
