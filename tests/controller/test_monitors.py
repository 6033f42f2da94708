"""Further devices: what they measure goes to guard and record, what their drivers do wrong no further."""

import pytest

from controller.config.conditions import parse_condition
from controller.config.quantities import QuantityError, parse_as
from controller.monitors import Monitors, shown
from drivers.errors import NoReply
from drivers.roles import StageReading, ThermometerReading

GAUGE = {"pressure": "mbar", "filament": None}


class Anything:
    """The parts of a device that nobody asks here."""

    name = "device"
    roles = frozenset()

    async def identify(self): ...
    async def prepare(self): ...
    async def off(self): ...
    async def close(self): ...


class Gauge(Anything):
    channels = GAUGE

    def __init__(self, answer):
        self.answer = answer

    async def read_values(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Seen:
    """Guard and recorder in one."""

    def __init__(self):
        self.values, self.faults, self.recorded = [], [], []

    def monitor(self, name, values, *more):
        (self.values if len(more) == 1 else self.recorded).append((name, dict(values)))

    def fault(self, name, text):
        self.faults.append((name, text))


async def looked(device, channels=GAUGE):
    seen = Seen()
    monitors = Monitors({"gauge": device}, {"gauge": channels}, {"gauge": 1.0}, seen, None, seen)
    await monitors.look("gauge")
    assert seen.recorded == seen.values  # nobody is told anything else than the guard
    return seen


async def test_a_reading_goes_to_the_guard_and_to_the_record():
    seen = await looked(Gauge({"pressure": 1e-6, "filament": True, "secret": 3}))
    assert seen.values == [("gauge", {"pressure": 1e-6, "filament": True})]
    assert seen.faults == []


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), "high", None, [1.0]])
async def test_what_is_no_number_is_not_known(odd):
    seen = await looked(Gauge({"pressure": odd, "filament": False}))
    assert seen.values == [("gauge", {"pressure": None, "filament": False})]


@pytest.mark.parametrize("error", [NoReply("no reply", device="gauge"), KeyError("x"), ZeroDivisionError()])
async def test_whatever_a_driver_raises_is_a_fault_of_its_device_alone(error):
    seen = await looked(Gauge(error))
    assert seen.values == [("gauge", {"pressure": None, "filament": None})]
    ((name, text),) = seen.faults
    assert name == "gauge"
    assert "gauge" in text


async def test_a_thermometer_with_a_broken_sensor_has_no_temperature():
    class Pt100(Anything):
        async def read(self):
            return ThermometerReading(0.0, 300.0, sensor_ok=False, problems=("open",))

    seen = await looked(Pt100(), {"temperature": "K"})
    assert seen.values == [("gauge", {"temperature": None})]


async def test_a_stage_tells_where_it_is_only_if_it_knows():
    class Lost(Anything):
        async def home(self): ...
        async def move_to_um(self, position_um): ...
        async def stop(self): ...
        async def read(self):
            return StageReading(0.0, None, moving=False, problems=("axis x WR",))

    seen = await looked(Lost(), {"moving": None, "x": "um", "y": "um"})
    assert seen.values == [("gauge", {"moving": False, "x": None, "y": None})]


def test_words_for_check():
    values = {"pressure": 2e-6, "filament": True, "flow": None}
    assert shown(values, {**GAUGE, "flow": "m/s"}) == "pressure 2e-06 mbar, filament yes, flow unknown"


def test_a_row_about_a_further_device_compares_in_its_unit():
    (comparison,) = parse_condition(
        "gauge.pressure > 1 Pa", {"gauge": ""}, (), {"gauge": GAUGE}
    ).comparisons()
    assert (comparison.channel, comparison.value) == ("gauge.pressure", pytest.approx(0.01))
    assert comparison.holds({"gauge.pressure": 0.02}) is True
    assert str(comparison) == "gauge.pressure > 0.01 mbar"


@pytest.mark.parametrize(
    ("text", "unit"), [("1 K", "mbar"), ("1", "mbar"), ("1 mbar", ""), ("1 bogus", "bogus")]
)
def test_another_dimension_or_no_unit_is_refused(text, unit):
    with pytest.raises(QuantityError):
        parse_as(text, unit)
