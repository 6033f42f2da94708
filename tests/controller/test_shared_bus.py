"""Which instrument goes first on a line that several share; several devices that are parts of one unit."""

import pytest

from controller.config import ConfigErrors, from_text, load_station, station_from
from controller.devices import build
from controller.rules import interlock_rows
from drivers.clock import RealClock
from drivers.line import Line
from drivers.shared_line import SharedLine
from hil_tests.sim.clock import LabClock
from hil_tests.sim.icpdas_m7015 import M7015Twin
from tests.controller.config.conftest import HERE
from tests.controller.config.test_host_pid_station import station as host_pid_station

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


ROOM = """
[device.room]
driver = "icpdas_m7015"
line = "rtd"
channel = 1
period = "2 s"

[device.cell_top]
driver = "icpdas_m7015"
line = "rtd"
channel = 4
r0 = "100.06 ohm"
period = "2 s"

[[interlock]]
name = "room"
condition = "room.temperature > 310 K or cell_top.temperature > 350 K"
grace = "10 s"
action = "safe"
latch = true
"""


def with_room(tmp_path, more=ROOM, port="/dev/pts/77"):
    host_pid_station(tmp_path)
    text = (tmp_path / "station.toml").read_text() + more
    (tmp_path / "station.toml").write_text(text.replace("/dev/pts/77", port))
    return load_station(tmp_path / "station.toml")


async def test_channels_of_one_module_are_thermometers_of_their_own(tmp_path):
    """The plate's loop reads channel 0; room and cell are monitors, with rows of their own."""
    clock = LabClock(speed=20.0)
    kelvin = {"rtd": 333.15, "room": 296.4, "cell_top": 331.0}
    wired = [
        lambda: kelvin["rtd"],
        lambda: kelvin["room"],
        lambda: 0.0,
        lambda: 0.0,
        lambda: kelvin["cell_top"],
    ]
    twin = M7015Twin(wired, clock, 1)
    twin.channels[4].r0_ohm = 100.06
    found = with_room(tmp_path, port=await twin.start())
    assert {name: found.monitors[name] for name in ("room", "cell_top")} == {
        "room": {"temperature": "K"}, "cell_top": {"temperature": "K"},
    }  # fmt: skip
    (row,) = [row for row in interlock_rows(found) if row.name == "room"]
    assert set(row.condition.channels) == {"room.temperature", "cell_top.temperature"}
    bench = build(found, clock, only=["rtd", "psu", "oven", *kelvin])
    line = bench.lines["rtd"]
    assert isinstance(line, SharedLine)
    assert (line.sharing.is_first("rtd"), line.sharing.is_first("room")) == (True, False)
    await line.open()
    try:
        for name in kelvin:
            await bench.devices[name].prepare()
        for name, true_k in kelvin.items():
            assert (await bench.devices[name].read()).temperature_k == pytest.approx(true_k, abs=0.005)
        twin.inject(
            {"kind": "sensor", "channel": 1, "state": "open"}
        )  # the room's wire breaks, the plate's not
        assert (await bench.devices["room"].read()).temperature_k is None
        assert (await bench.devices["rtd"].read()).temperature_k == pytest.approx(333.15, abs=0.005)
    finally:
        await line.close()
        await twin.stop()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            ("channel = 1", "channel = 0"),
            "device.room.channel = 0 is the channel of device.rtd as well: give it",
        ),
        (("channel = 4", "channel = 1"), "device.cell_top.channel = 1 is the channel of device.room as well"),
    ],
)
def test_the_same_channel_twice_is_refused(tmp_path, change, complaint):
    with pytest.raises(ConfigErrors) as caught:
        with_room(tmp_path, ROOM.replace(*change))
    told = [problem.message.replace("station.toml: ", "") for problem in caught.value.problems]
    assert any(complaint in message for message in told), told
