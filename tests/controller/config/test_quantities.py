import contextlib
import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.config.quantities import KINDS, QuantityError, is_c_rate, parse, parse_current, show


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("333 K", "K", 333.0),
        ("60 degC", "K", 333.15),
        ("60 °C", "K", 333.15),
        ("-10 degC", "K", 263.15),
        ("2 K", "delta K", 2.0),
        ("2 degC", "delta K", 2.0),  # a difference has no offset
        ("9 delta_degF", "delta K", 5.0),
        ("10 K/min", "K/s", 1.0 / 6.0),
        ("10 degC/min", "K/s", 1.0 / 6.0),
        ("1.5 h", "s", 5400.0),
        ("30ms", "s", 0.03),
        ("90 min", "s", 5400.0),
        ("26 uA", "A", 26e-6),
        ("26 µA", "A", 26e-6),  # micro sign
        ("26 μA", "A", 26e-6),  # Greek mu
        ("24 pA", "A", 24e-12),
        ("4.05 V", "V", 4.05),
        ("0.95 mAh", "C", 3.42),  # 0.95e-3 A * 3600 s
        ("10 uAh", "C", 0.036),
        ("36 mC", "C", 0.036),
        ("5 %", "1", 0.05),
        ("1e17 /cm2", "1/cm2", 1e17),
        ("1e17 cm-2", "1/cm2", 1e17),
        ("1e21 /m²", "1/cm2", 1e17),
        ("100 um/V", "um/V", 100.0),
        ("0.1 mm/V", "um/V", 100.0),
        ("10 pA/V", "A/V", 1e-11),
        ("0.25 keV", "keV", 0.25),
        ("10 eV", "keV", 0.01),
        ("3.02 MeV", "keV", 3020.0),
        ("600 /s", "1/s", 600.0),
        ("0.6 kHz", "1/s", 600.0),
        ("100 kHz", "Hz", 1e5),
        ("45 deg", "deg", 45.0),
        ("0.3 mm", "um", 300.0),
        ("-5 um", "um", -5.0),
        (" 5  um ", "um", 5.0),
        (".5 V", "V", 0.5),
        ("+5. V", "V", 5.0),
    ],
)
def test_what_people_write(text, unit, value):
    assert parse(text, unit) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "unit", "message"),
    [
        (333, "K", 'has no unit: a temperature is needed, such as "333 K" or "60 degC"'),
        (0.05, "1", 'has no unit: a percentage is needed, such as "5 %"'),
        ("333", "K", 'has no unit: a temperature is needed, such as "333 K" or "60 degC"'),
        (True, "s", 'is not a time: write a number with its unit, such as "30 s" or "1.5 h"'),
        (["3 s"], "s", 'is not a time: write a number with its unit, such as "30 s" or "1.5 h"'),
        ("", "s", 'is not a time: write a number with its unit, such as "30 s" or "1.5 h"'),
        ("soon", "s", 'is not a time: write a number with its unit, such as "30 s" or "1.5 h"'),
        ("nan s", "s", 'is not a time: write a number with its unit, such as "30 s" or "1.5 h"'),
        ("1e999 s", "s", "is not a finite number"),
        ("1,5 h", "s", 'has a decimal comma: write a point, "1.5 h"'),
        ("5 um", "V", 'is a length, but a voltage is needed, such as "4.0 V"'),
        ("3 h", "A", 'is a time, but a current is needed, such as "26 uA"'),
        ("3 foo", "s", 'has the unknown unit "foo": a time is needed, such as "30 s" or "1.5 h"'),
        ("5 s s", "s", 'has the unit "s s", but a time is needed, such as "30 s" or "1.5 h"'),
        ("5 rad", "1", 'is an angle, but a percentage is needed, such as "5 %"'),
        ("5 %", "deg", 'is a percentage, but an angle is needed, such as "45 deg"'),
        ("-1 K", "K", "is below absolute zero"),
        ("-300 degC", "K", "is below absolute zero"),
        ("5 count", "V", 'is a pure number, but a voltage is needed, such as "4.0 V"'),
        # the case of a letter, and names that are something else in SI
        ("333 k", "K", 'a temperature is needed, such as "333 K" or "60 degC"; did you mean "333 K"?'),
        ("60 C", "K", 'is an electric charge, but a temperature is needed, such as "333 K" or "60 degC"; '
         'did you mean "60 degC"?'),
        ("26 ua", "A", 'did you mean "26 uA"?'),
        ("26 amps", "A", 'did you mean "26 A"?'),
        ("100 KHz", "Hz", 'did you mean "100 kHz"?'),
        ("4 v", "V", 'did you mean "4 V"?'),
        ("x" * 100, "s", "is too long for a time"),
    ],
)  # fmt: skip
def test_what_is_refused_and_how(text, unit, message):
    with pytest.raises(QuantityError) as caught:
        parse(text, unit)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text", ["5 s; import os", "__import__('os').system('x') s", "5 s()", "5 [s]", "2**9**9 s"]
)
def test_text_is_never_evaluated(text):
    with pytest.raises(QuantityError):
        parse(text, "s")


@pytest.mark.parametrize(
    ("text", "ampere"),
    [
        ("C/20", 1e-6),  # 20 uAh in 20 h
        ("C / 20", 1e-6),
        ("2C", 40e-6),
        ("0.05 C", 1e-6),
        ("2C/5", 8e-6),
        ("C", 20e-6),
        ("26 uA", 26e-6),
    ],
)
def test_c_rates_of_a_20_uah_cell(text, ampere):
    assert parse_current(text, 20e-6 * 3600.0) == pytest.approx(ampere, rel=1e-12)


def test_c_rate_without_a_capacity():
    with pytest.raises(QuantityError, match=r"is a C-rate, which needs a valid sample\.capacity"):
        parse_current("C/20", None)
    with pytest.raises(QuantityError, match="divides by zero"):
        parse_current("C/0", 0.072)
    assert not is_c_rate("20 uA")
    assert not is_c_rate(20)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(KINDS)),
    st.floats(min_value=1e-15, max_value=1e22, allow_nan=False),
    st.booleans(),
)
def test_written_back_and_read_again(unit, magnitude, negative):
    value = -magnitude if negative and unit != "K" else magnitude
    assert parse(show(value, unit, digits=17), unit) == pytest.approx(value, rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=70))
def test_any_text_is_a_number_or_a_refusal(text):
    with contextlib.suppress(QuantityError):
        assert math.isfinite(parse(text, "um"))


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (4.05, "V", "4.05 V"),
        (26e-6, "A", "26 uA"),
        (40e-6, "A", "40 uA"),
        (0.0, "V", "0 V"),
        (7200.0, "s", "2 h"),
        (0.03, "s", "30 ms"),
        (1e17, "1/cm2", "1e+17 /cm2"),
        (3.42, "C", "950 uAh"),
        (3.6, "C", "1 mAh"),
        (20.0 / 60.0, "K/s", "20 K/min"),
        (0.05, "1", "5 %"),
        (2.911e3, "keV", "2.911 MeV"),
    ],
)
def test_numbers_in_messages(value, unit, text):
    assert show(value, unit) == text


def test_pint_is_not_loaded_before_it_is_needed():
    code = "import sys, controller.config.quantities; sys.exit('pint' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
