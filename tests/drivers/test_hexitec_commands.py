"""Bytes of the camera's serial line, as the public sources have them."""

from __future__ import annotations

import math

import pytest

from drivers import hexitec_commands as wire
from drivers.errors import BadReply


def test_the_reply_of_the_public_driver() -> None:
    """stfc-aeg, aspect.py: resp = [42, 144, 48, 49, 13]."""
    assert wire.register_value(bytes([42, 144, 48, 49, 13])) == 1


def test_commands() -> None:
    assert wire.read_register(0x89) == bytes.fromhex("23 90 41 38 39 0d")  # the sheet: 23 90 cmd digits 0D
    assert wire.write_register(0x01, 1) == bytes.fromhex("23 90 40 30 31 30 31 0d")
    assert wire.command(wire.ENVIRONMENT) == bytes.fromhex("23 90 52 0d")
    assert wire.set_bias(-500.0) == bytes.fromhex("23 90 56 30 41 41 41 0d")  # 2.0 V of 3.0 V: 2730 of 4095


def test_bias_is_minus_250_times_the_dac() -> None:
    assert wire.bias_code(-750.0) == 4095
    assert wire.bias_of(2730) == pytest.approx(-500.0)
    for outside in (1.0, -751.0, math.nan):
        with pytest.raises(ValueError, match="can be set"):
            wire.bias_code(outside)


def test_conversions_of_the_sheet() -> None:
    found = wire.environment([0x6666, 0x6666, 0x0200, 0x0200, 4095, 2999])
    assert found.ambient_k - 273.15 == pytest.approx(23.44, abs=0.005)  # the sheet's worked number
    assert found.humidity == pytest.approx((26214 * 125 / 65535 - 6) / 100)
    assert found.asic_k - 273.15 == pytest.approx(32.0)
    assert found.sensor_k - 273.15 == pytest.approx(25.0, abs=0.02)  # 1.5 V of 3 V


def test_dew_point_of_a_table() -> None:
    """DWD's table: 20 degC and 50 % make 9.3 degC, 25 degC and 60 % make 16.7 degC."""
    for ambient, humidity, dew in ((20.0, 0.5, 9.3), (25.0, 0.6, 16.7)):
        found = wire.Environment(ambient + 273.15, humidity, 0.0, 0.0, 300.0)
        assert found.dew_point_k - 273.15 == pytest.approx(dew, abs=0.05)


def test_an_open_or_shorted_thermistor_is_no_temperature() -> None:
    assert math.isnan(wire.thermistor_k(0, 4095))
    assert math.isnan(wire.thermistor_k(4095, 8000))
    assert math.isnan(wire.thermistor_k(1, 1))  # the formula would have -1090 K


def test_a_reply_one_byte_at_a_time() -> None:
    reply = b"\x2a\x900AAA\x0d"
    for n in range(len(reply)):
        assert wire.values(reply[:n], wire.HIGH_VOLTAGE) is None
    assert wire.values(reply, wire.HIGH_VOLTAGE) == [2730]


@pytest.mark.parametrize(
    "reply",
    [b"\x23\x900AAA\x0d", b"\x2a\x910AAA\x0d", b"\x2a\x900AAAX", b"\x2a\x900AGA\x0d", b"\x2a\x900AAA\x0d0"],
)
def test_a_damaged_reply_is_bad(reply: bytes) -> None:
    with pytest.raises(BadReply):
        wire.values(reply, wire.HIGH_VOLTAGE)


def test_a_write_is_confirmed_by_register_and_value() -> None:
    assert wire.written(b"\x2a\x900101\x0d", 1, 1) is True
    with pytest.raises(BadReply, match="not confirmed"):
        wire.written(b"\x2a\x900100\x0d", 1, 1)
