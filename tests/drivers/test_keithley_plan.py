"""What a program means for a source of voltage with a current limit, and when it ends."""

import pytest

from drivers.errors import OutOfRange, Refused
from drivers.keithley_plan import Ending, Judge, plan
from drivers.keithley_scpi import Reading
from drivers.roles import CcCv, CellLimits, ConstantCurrent, ConstantVoltage, Eis, Geis, Ocv

LIMITS = CellLimits(2.5, 4.05, 40e-6, 3.6, 7200.0)
STATION = {"low_v": 2.5, "high_v": 4.2, "most_a": 1e-3}


def made(program):
    return plan(program, **STATION)


def reading(volt, ampere, *, limited, time_s=0.0, problems=()):
    return Reading(volt, ampere, time_s, limited, remote_sense=True, problems=problems)


def judged(program, *readings):
    """Return what each reading, one second apart, led to; and the judge."""
    judge = Judge(made(program))
    return [judge.take(one, k + 1.0) for k, one in enumerate(readings)], judge


def test_charge_and_discharge_both_source_the_voltage_they_end_at():
    charge = made(CcCv(13e-6, 4.0, 2e-6, LIMITS))
    assert (charge.level_v, charge.compliance_a, charge.direction) == (4.0, 13e-6, 1.0)
    discharge = made(ConstantCurrent(-13e-6, 3.0, LIMITS))
    assert (discharge.level_v, discharge.compliance_a, discharge.direction) == (3.0, 13e-6, -1.0)
    hold = made(ConstantVoltage(3.9, 1e-6, LIMITS))
    assert (hold.level_v, hold.compliance_a) == (3.9, 40e-6)


@pytest.mark.parametrize(("ampere", "full"), [(0.9e-6, 1e-6), (1e-6, 1e-6), (1.1e-6, 1e-5), (40e-6, 1e-4)])
def test_the_measure_range_never_clamps_the_source(ampere, full):
    assert made(ConstantCurrent(ampere, 4.0, LIMITS)).range_a == pytest.approx(full)


@pytest.mark.parametrize("program", [Eis(0.01, 1e3, 1.0, 10, LIMITS), Geis(1e-6, 1e3, 1.0, 10, LIMITS)])
def test_no_sweeps(program):
    with pytest.raises(Refused, match="no impedance sweeps"):
        made(program)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (ConstantCurrent(41e-6, 4.0, LIMITS), "current"),
        (ConstantCurrent(1e-10, 4.0, LIMITS), "current"),
        (ConstantCurrent(13e-6, 4.06, LIMITS), "voltage to be reached"),
        (CcCv(13e-6, 4.05, 1e-6, LIMITS), "leaves no room"),
        (CcCv(13e-6, 4.0, 41e-6, LIMITS), "current to fall to"),
        (ConstantVoltage(2.5, 1e-6, LIMITS), "leaves no room"),
        (ConstantCurrent(13e-6, 4.0, LIMITS, interval_s=0.1), "interval"),
        (ConstantCurrent(13e-6, 4.0, CellLimits(2.5, 4.3, 40e-6, 3.6, 60.0)), "voltage limit"),
        (ConstantCurrent(13e-6, 4.0, CellLimits(2.0, 4.0, 40e-6, 3.6, 60.0)), "voltage limit"),
        (ConstantCurrent(13e-6, 4.0, CellLimits(2.5, 4.0, 2e-3, 3.6, 60.0)), "current limit"),
        (ConstantCurrent(13e-6, 4.0, CellLimits(4.0, 2.5, 40e-6, 3.6, 60.0)), "no room"),
        (Ocv(2e6), "duration"),
    ],
)
def test_what_is_refused(program, why):
    with pytest.raises(OutOfRange, match=why):
        made(program)


def test_constant_current_ends_where_the_voltage_regulates():
    ends, _ = judged(
        ConstantCurrent(13e-6, 4.0, LIMITS),
        reading(3.9, 13e-6, limited=True),
        reading(4.0, 12.9e-6, limited=False),
    )
    assert ends == [None, Ending.VOLTAGE]


def test_constant_current_ends_when_the_cell_is_already_beyond():
    """The source would then drive the other way, still in compliance."""
    ends, _ = judged(ConstantCurrent(13e-6, 4.0, LIMITS), reading(4.01, -13e-6, limited=True))
    assert ends == [Ending.VOLTAGE]


def test_constant_voltage_comes_after_constant_current_and_for_good():
    readings = [
        reading(3.9, 13e-6, limited=True),
        reading(4.0, 9e-6, limited=False),
        reading(3.99, 13e-6, limited=True),  # a dip of the cell: still the constant-voltage phase
        reading(4.0, 1.9e-6, limited=False),
        reading(4.0, 1.9e-6, limited=False),
    ]
    judge = Judge(made(CcCv(13e-6, 4.0, 2e-6, LIMITS)))
    phases = []
    for k, one in enumerate(readings):
        end = judge.take(one, k + 1.0)
        phases.append((judge.phase, end))
    assert phases == [("cc", None), ("cv", None), ("cv", None), ("cv", None), ("cv", Ending.CURRENT)]


@pytest.mark.parametrize(
    ("readings", "end"),
    [
        ([reading(4.05, 13e-6, limited=True)], Ending.VOLTAGE),
        ([reading(2.5, 13e-6, limited=True)], Ending.LIMIT_LOW),
        ([reading(3.9, 45e-6, limited=True)], Ending.LIMIT_CURRENT),
        ([reading(3.9, None, limited=True)] * 2, Ending.INVALID),
        ([reading(None, 13e-6, limited=True)] * 2, Ending.INVALID),
        ([reading(3.9, 13e-6, limited=True, problems=("2-wire",))] * 2, Ending.INVALID),
    ],
)
def test_what_ends_a_charge_early(readings, end):
    ends, _ = judged(ConstantCurrent(13e-6, 4.0, LIMITS), *readings)
    assert ends[:-1] == [None] * (len(readings) - 1)
    assert ends[-1] == end


def test_one_invalid_reading_is_no_end():
    good = reading(3.9, 13e-6, limited=True)
    ends, _ = judged(
        ConstantCurrent(13e-6, 4.0, LIMITS),
        reading(None, None, limited=True),
        good,
        reading(None, 1e-6, limited=True),
    )
    assert ends == [None, None, None]


def test_a_held_voltage_too_hungry_for_the_limit():
    """The compliance is the limit itself: two readings in compliance end it."""
    clamped = reading(3.8, 40e-6, limited=True)
    ends, _ = judged(ConstantVoltage(3.9, 1e-6, LIMITS), clamped, clamped)
    assert ends == [None, Ending.LIMIT_CURRENT]


def test_a_held_voltage_above_the_high_limit():
    ends, _ = judged(ConstantVoltage(3.9, 1e-6, LIMITS), reading(4.06, 5e-6, limited=False))
    assert ends == [Ending.LIMIT_HIGH]


def test_charge_is_counted_by_the_instruments_clock():
    limits = CellLimits(2.5, 4.05, 40e-6, 30e-6, 7200.0)
    ends, judge = judged(
        ConstantCurrent(-10e-6, 3.0, limits), *[reading(3.9, -10e-6, limited=True) for _ in range(3)]
    )
    assert judge.charge_coulomb == pytest.approx(-30e-6)
    assert ends == [None, None, Ending.LIMIT_CHARGE]


def test_time():
    limits = CellLimits(2.5, 4.05, 40e-6, 3.6, 2.0)
    good = reading(3.9, 13e-6, limited=True)
    ends, _ = judged(ConstantCurrent(13e-6, 4.0, limits), good, good)
    assert ends == [None, Ending.TIME]
    ends, _ = judged(Ocv(2.0), *[reading(3.9, 0.0, limited=False)] * 2)
    assert ends == [None, Ending.TIME]


@pytest.mark.parametrize(("volt", "outside"), [(2.5, True), (2.51, False), (4.04, False), (4.05, True)])
def test_a_cell_outside_its_window_is_not_connected(volt, outside):
    assert Judge(made(ConstantCurrent(13e-6, 4.0, LIMITS))).outside(volt) is outside
