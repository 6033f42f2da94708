"""Commands of a HEXITEC camera on its serial line (also behind TCP): bytes, registers, conversions. Pure.

``23 90 CC hh.. 0D``: start, module address, command, upper-case hexadecimal digits, end. The reply is ``2A 90
hh.. 0D``; its length says what it is, for no command is echoed.

Sources: esrf-bliss/Lima-camera-hexitec (HexitecApi.cpp): commands, lengths, conversions. The first byte of a
reply is stfc-aeg/hexitec-detector's, for a camera of the same family.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from drivers.errors import BadReply

START, REPLY, MODULE, END = 0x23, 0x2A, 0x90, 0x0D
WRITE, READ, HIGH_VOLTAGE, ENVIRONMENT, OPERATING = 0x40, 0x41, 0x56, 0x52, 0x50
STATE_MACHINE, CUSTOMER, PROJECT, VERSION, WIDTH, HEIGHT = 0x01, 0x80, 0x81, 0x82, 0x83, 0x84
DAC_FULL, DAC_VOLT = 4095, 3.0
BIAS_PER_VOLT = -250.0  # bias over voltage of its DAC: 0 to -750 V
HV_SLOPE, HV_ZERO = 1621.65, -1043.22  # volts at the detector over volts at the monitor
INTERNAL_VOLT = 2.048  # reference of the monitors
NTC_B, NTC_K = 3988.0, 298.15
KELVIN = 273.15
FIELDS = {ENVIRONMENT: 6, OPERATING: 12, HIGH_VOLTAGE: 1}  # of four digits, in a reply


def command(code: int, digits: str = "") -> bytes:
    """Return the bytes of a command."""
    return bytes([START, MODULE, code]) + digits.encode("ascii") + bytes([END])


def read_register(register: int) -> bytes:
    """Return the command that reads a register."""
    return command(READ, f"{register:02X}")


def write_register(register: int, value: int) -> bytes:
    """Return the command that writes a register."""
    return command(WRITE, f"{register:02X}{value:02X}")


def set_bias(bias_v: float) -> bytes:
    """Return the command that sets the bias. Raises ValueError outside 0 to -750 V."""
    return command(HIGH_VOLTAGE, f"{bias_code(bias_v):04X}")


def bias_code(bias_v: float) -> int:
    """Return the DAC code of a bias. Raises ValueError outside 0 to -750 V."""
    if not BIAS_PER_VOLT * DAC_VOLT <= bias_v <= 0.0:
        raise ValueError(f"a bias of {bias_v:g} V: 0 to {BIAS_PER_VOLT * DAC_VOLT:g} V can be set")
    return round(bias_v / BIAS_PER_VOLT / DAC_VOLT * DAC_FULL)


def bias_of(code: int) -> float:
    """Return the bias, V, of a DAC code."""
    return code / DAC_FULL * DAC_VOLT * BIAS_PER_VOLT


def digits(buffer: bytes, count: int) -> str | None:
    """Return the ``count`` digits of a reply, None while it is not whole. Raises BadReply."""
    if len(buffer) < count + 3:
        return None
    if buffer[:2] != bytes([REPLY, MODULE]) or buffer[count + 2] != END or len(buffer) > count + 3:
        raise BadReply(f"not a reply of {count} digits", reply=buffer)
    text = buffer[2 : count + 2].decode("ascii", "replace")
    if any(letter not in "0123456789ABCDEFabcdef" for letter in text):
        raise BadReply("not hexadecimal digits", reply=buffer)
    return text


def register_value(buffer: bytes) -> int | None:
    """Return the byte of a register, None while the reply is not whole. Raises BadReply."""
    text = digits(buffer, 2)
    return None if text is None else int(text, 16)


def written(buffer: bytes, register: int, value: int) -> bool | None:
    """Return True when a write was confirmed: register and value come back. Raises BadReply."""
    text = digits(buffer, 4)
    if text is None:
        return None
    if text.upper() != f"{register:02X}{value:02X}":
        raise BadReply(f"register {register:02X} = {value:02X} was not confirmed", reply=buffer)
    return True


def values(buffer: bytes, code: int) -> list[int] | None:
    """Return the fields of the reply to ``code``, None while it is not whole. Raises BadReply."""
    text = digits(buffer, 4 * FIELDS[code])
    return None if text is None else [int(text[at : at + 4], 16) for at in range(0, len(text), 4)]


@dataclass(frozen=True)
class Environment:
    """What the camera says of its surroundings; K, and a fraction for the humidity."""

    ambient_k: float
    humidity: float
    asic_k: float
    adc_k: float
    sensor_k: float  # of the thermistor at the detector; NaN when it is open or shorted

    @property
    def dew_point_k(self) -> float:
        """Temperature at which water condenses (Magnus formula, -45 to 60 degC)."""
        celsius = self.ambient_k - KELVIN
        g = math.log(max(self.humidity, 1e-3)) + 17.62 * celsius / (243.12 + celsius)
        return 243.12 * g / (17.62 - g) + KELVIN


def environment(fields: list[int]) -> Environment:
    """Return the meaning of the six fields: ambient, humidity, ASIC, ADC, reference, thermistor."""
    ambient, humidity, asic, adc, reference, thermistor = fields
    return Environment(
        ambient * 175.72 / 65535 - 46.85 + KELVIN, (humidity * 125.0 / 65535 - 6.0) / 100.0,
        asic * 0.0625 + KELVIN, adc * 0.0625 + KELVIN, thermistor_k(thermistor, reference),
    )  # fmt: skip


def thermistor_k(code: int, reference: int) -> float:
    """Return the temperature of the thermistor, K; NaN for a code that no temperature has."""
    volt = reference / DAC_FULL * INTERNAL_VOLT / DAC_FULL * code
    if not 0.0 < volt < DAC_VOLT:
        return math.nan
    per_k = math.log(volt / (DAC_VOLT - volt)) / NTC_B + 1.0 / NTC_K
    return 1.0 / per_k if per_k > 0.0 else math.nan


def measured_bias_v(fields: list[int]) -> float:
    """Return the bias that the monitor sees, V, from the twelve operating values."""
    reference = fields[9] / DAC_FULL * INTERNAL_VOLT
    return fields[0] / DAC_FULL * reference * HV_SLOPE + HV_ZERO
