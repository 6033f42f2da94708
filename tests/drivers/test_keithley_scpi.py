"""Numbers and words of the two instruments, from their sheet."""

import pytest

from drivers import keithley_scpi as scpi
from drivers.errors import BadReply

SHEET_READING = "+3.700000E+00,+1.000000E-03,+1.234500E+02,+2.150800E+04"  # without the resistance


def test_reading_of_the_sheet():
    reading = scpi.reading_2400(SHEET_READING)
    assert (reading.voltage_v, reading.current_a, reading.time_s) == (3.7, 1e-3, 123.45)
    assert not reading.limited  # 21508 = bits 2, 10, 12, 14
    assert not reading.remote_sense
    assert reading.valid


@pytest.mark.parametrize(
    ("status", "limited", "sense", "problems"),
    [
        (38924, True, False, ()),  # the sheet's: I source, front, V and I measured, in compliance
        (38924 | 1 << 22, True, True, ()),
        (1 << 16, False, False, ("range compliance: the measure range clamps the source",)),
        (1, False, False, ("overflow",)),
        (1 << 4, False, False, ("overvoltage protection active",)),
    ],
)
def test_status_word(status, limited, sense, problems):
    reading = scpi.reading_2400(f"+3.7E+00,+1E-03,+1.0E+00,{status:+.6E}")
    assert (reading.limited, reading.remote_sense, reading.problems) == (limited, sense, problems)
    assert reading.valid is not bool(problems)


@pytest.mark.parametrize("text", ["+9.900000E+37", "+9.910000E+37", "-9.900000E+37", "nan", "inf"])
def test_what_stands_for_no_number_never_becomes_one(text):
    assert scpi.number(text) is None
    volt = scpi.reading_2400(f"{text},+1.0E-03,+1.0E+00,+0.0E+00")
    ampere = scpi.reading_2400(f"+3.7E+00,{text},+1.0E+00,+0.0E+00")
    assert volt.voltage_v is None
    assert ampere.current_a is None
    assert not volt.valid
    assert not ampere.valid


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "a,1,1,1", "1,1,9.9E37,1", "1,1,1,-1", "1,1,1,1.5"]
)
def test_no_reading(text):
    with pytest.raises(BadReply):
        scpi.reading_2400(text)


def test_readings_of_the_2450_say_what_was_sourced():
    text = "1.300000E-05,3.987654E+00,232,0.000000000,1.200000E-05,4.000000E+00,200,1.000000000"
    first, second = scpi.readings_2450(text, sources="VOLT")  # 232 = 8 + 32 + 64 + 128
    assert (first.voltage_v, first.current_a, first.time_s) == (3.987654, 13e-6, 0.0)
    assert first.limited
    assert not second.limited
    assert first.remote_sense
    assert first.output_on
    (rest,) = scpi.readings_2450("3.9E+00,1.0E-12,72,5.0", sources="CURR")
    assert (rest.voltage_v, rest.current_a, rest.output_on) == (3.9, 1e-12, False)
    with pytest.raises(BadReply, match="four elements"):
        scpi.readings_2450("1,2,3", sources="VOLT")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('0,"No error"', (0, "No error")),
        ('0,"No error;0,0,0"', (0, "No error")),
        ('-113,"Undefined header"', (-113, "Undefined header")),
        ('+803,"Not permitted with OUTPUT off"', (803, "Not permitted with OUTPUT off")),
    ],
)
def test_error_queue(text, found):
    assert scpi.error_of(text) == found


@pytest.mark.parametrize("text", ["", "0", "1,", 'x,"No error"', "+1.0E+00,+2.0E+00"])
def test_no_entry_of_the_error_queue(text):
    with pytest.raises(BadReply):
        scpi.error_of(text)


def test_a_line_may_come_in_pieces_but_not_in_twos():
    reply = b'0,"No error"\r\n'
    assert all(scpi.line_of(reply[:n]) is None for n in range(len(reply)))
    assert scpi.line_of(reply) == '0,"No error"'
    assert scpi.line_of(b"\r\n1\n") == "1"  # the end of a line whose ends are LF CR
    with pytest.raises(BadReply, match="more than one line"):
        scpi.line_of(b"1\n0\n")
    with pytest.raises(BadReply, match="not text"):
        scpi.line_of(b"\xff1\n")


def test_numbers_are_written_with_all_the_digits_that_count():
    assert [scpi.argument(value) for value in (1e-3, 4.2, 1.3e-5, 4.123456)] == [
        "0.001",
        "4.2",
        "1.3E-05",
        "4.123456",
    ]
