"""Which instrument goes first on a line that several share."""

from controller.config import from_text, station_from
from controller.devices import build
from drivers.clock import RealClock
from drivers.line import Line
from drivers.shared_line import SharedLine
from hil_tests.sim.clock import LabClock
from tests.controller.config.conftest import HERE

NEIGHBOUR = """
[device.plate]
driver = "icpdas_m7015"
line = "heater"
unit_id = 2
period = "1 s"

[roles]"""


def station(text):
    return station_from(from_text(text, "station.toml"))


def bench_of(text, clock):
    return build(station(text), clock)


def test_the_heater_goes_first_and_alone_it_needs_no_rules():
    text = (HERE / "station.toml").read_text()
    alone = bench_of(text, RealClock())
    assert type(alone.lines["heater"]) is Line
    shared = bench_of(text.replace("[roles]", NEIGHBOUR, 1), RealClock())
    line = shared.lines["heater"]
    assert isinstance(line, SharedLine)
    assert line.sharing.is_first("heater")
    assert not line.sharing.is_first("plate")
    assert line.sharing._first["heater"].period_s == 0.25
    assert type(shared.lines["cell"]) is Line


def test_the_period_is_wall_time_on_a_fast_bench():
    text = (HERE / "station.toml").read_text().replace("[roles]", NEIGHBOUR, 1)
    line = bench_of(text, LabClock(speed=10.0)).lines["heater"]
    assert line.sharing._first["heater"].period_s == 0.025
