"""The short host of ``operando tune``: in virtual time, on the bench's holder, with and without trouble."""

from __future__ import annotations

import asyncio
import functools
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from controller import cli, tune, tune_host
from controller.devices import Bench
from controller.guard import Guard
from controller.tune_host import EXIT_ABORTED, EXIT_GUARD, Stopped, TuneHost, Wanted
from drivers.line_stats import LineStats
from drivers.roles import IoReading, Role
from edge.thermal import ThermalRecord, identify_best
from tests.controller.config.test_host_pid_station import station
from tests.controller.heated_bench import FakeDevice, LoopClock, Rig, virtually
from tests.edge import test_thermal_errors as plants

WANTED = Wanted(at_k=330.0, swing_k=1.5, cap_w=20.0, full_w=None)


def now_s() -> float:
    """Return the time of the loop: everything in this process believes it."""
    return asyncio.get_running_loop().time()


class FakeIo(FakeDevice):
    """The box with the relay in series."""

    roles = frozenset({Role.RELAY, Role.PERMIT})

    def __init__(self, world: Any) -> None:
        super().__init__(world, "io")
        self.permit = True
        self.fed = 0
        self.world.relay = False

    async def read(self) -> IoReading:
        await self._answer()
        now_s = asyncio.get_running_loop().time()
        switches = dict.fromkeys(("vacuum", "window", "hall"), True)
        return IoReading(now_s, 2e-11, self.permit, self.world.relay, False, True, switches=switches)

    async def feed_watchdog(self) -> None:
        self.fed += 1

    async def set_relay(self, *, closed: bool) -> None:
        await self._answer()
        self.world.relay = closed

    async def off(self) -> None:
        await self.set_relay(closed=False)


class Journal:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.held: list[Any] = []
        self.rows: list[tuple[str, str]] = []

    async def latches(self) -> list[Any]:
        return self.held

    async def latch(self, id_: str, body: Any) -> None:
        self.rows.append(("latch", id_))

    async def record(self, kind: str, module: str, body: Any) -> None:
        self.rows.append((kind, module))


class Place:
    """Everything around a tune host."""

    def __init__(self, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.station = station(tmp_path)
        self.rig = Rig(298.0, temperature_rate_k_per_s=1 / 3)
        self.io, self.journal, self.said = FakeIo(self.rig.world), Journal(), []
        devices = {
            "rtd": self.rig.rtd,
            "psu": self.rig.psu,
            "oven": self.rig.pid,
            self.station.io_name: self.io,
        }
        lines: dict[str, Any] = {
            name: SimpleNamespace(open=self._open, close=self._open, stats=LineStats())
            for name in self.station.lines
        }
        bench = Bench(lines, devices, self.rig.pid, None, self.io, None, {})
        monkeypatch.setattr(tune_host, "build", lambda *args, **kwargs: bench)
        monkeypatch.setattr("time.monotonic", now_s)
        monkeypatch.setattr(tune_host, "Guard", functools.partial(Guard, monotonic=now_s))
        self.state = SimpleNamespace(socket=lambda name: tmp_path / f"{name}.sock")

    async def _open(self) -> None:
        return

    def host(self, wanted: Wanted = WANTED) -> TuneHost:
        return TuneHost(self.station, None, LoopClock(), self.state, self.journal, wanted, self.said.append)


async def run(place: Place, wanted: Wanted = WANTED) -> Any:
    return await place.host(wanted).run()


@pytest.fixture
def place(tmp_path, monkeypatch):
    return Place(tmp_path, monkeypatch)


def test_an_experiment_gives_the_plant_and_leaves_everything_off(place):
    record = virtually(run(place))
    rows = np.array(record.rows, float)
    assert rows[:, 2].max() <= 20.5  # the cap
    assert record.relay is not None
    assert 1.0 < record.relay["swing_k"] < 2.0
    given = np.append(rows[1:, 2], 0.0)
    fit = identify_best(ThermalRecord.of(rows[:, 0] - rows[0, 0], rows[:, 1], given))[0]
    assert fit.total_capacity == pytest.approx(83.4, rel=0.02)
    assert fit.loss == pytest.approx(0.1387, rel=0.05)
    assert place.rig.world.watts == 0.0
    assert not place.rig.world.relay
    assert place.io.fed > 100


@pytest.mark.parametrize("trouble", ["sensor", "permit"])
def test_trouble_ends_it_latched_and_off(place, trouble):
    async def go():
        host = place.host()
        running = asyncio.create_task(host.run())
        await asyncio.sleep(120.0)
        assert place.rig.world.watts > 1.0
        if trouble == "sensor":
            place.rig.rtd.open = True
        else:
            place.io.permit = False
        await asyncio.sleep(3.0)
        assert place.rig.world.watts == 0.0
        assert not place.rig.world.relay
        await running

    with pytest.raises(Stopped) as stopped:
        virtually(go())
    assert stopped.value.code == EXIT_GUARD
    assert ("latch", {"sensor": "heater-sensor", "permit": "permit"}[trouble]) in place.journal.rows


def test_a_person_ends_it_and_a_latch_from_before_keeps_it_from_beginning(place):
    async def go():
        host = place.host()
        running = asyncio.create_task(host.run())
        await asyncio.sleep(60.0)
        reply = await host._answer({"do": "safe", "by": "me"})
        assert reply["ok"]
        assert place.rig.world.watts == 0.0
        await running

    with pytest.raises(Stopped) as stopped:
        virtually(go())
    assert stopped.value.code == EXIT_ABORTED
    place.journal.held.append(SimpleNamespace(id="permit", body={"text": "was open"}))
    with pytest.raises(Stopped, match="operando clear permit"):
        virtually(run(place))


def test_a_target_beyond_the_station_is_refused(place):
    with pytest.raises(Stopped):
        virtually(run(place, Wanted(at_k=500.0, swing_k=1.5, cap_w=20.0, full_w=None)))
    assert place.rig.world.watts == 0.0


ROOM = ["--room", "23.1 degC", "--room-within", "0.2 K"]


@pytest.fixture
def told(tmp_path, monkeypatch):
    """``operando tune``, whose experiment is over at once: what its second half finds."""
    one, _ = plants.record(np.random.default_rng(3), plants.ONE)
    given = np.append(0.0, one.power[:-1])
    rows = np.stack((one.time_s, one.temperature_k, given, np.full(given.size, 333.0)), axis=1).tolist()
    heated = []

    async def experiment(station, experiment, state, wanted):
        heated.append(wanted)
        return tune_host.Record(
            "lab", "oven", own_loop=False, at_k=333.0, full_w=40.0, period_s=0.5, lab_speed=1.0, rows=rows,
            room_k=wanted.room_k,
        )  # fmt: skip

    monkeypatch.setattr(tune, "_experiment", experiment)
    monkeypatch.setattr(tune, "load_files", lambda *files: (station(tmp_path), None))

    def run_it(*words: str):
        words = ("tune", "station.toml", "--at", "333 K", "--out", str(tmp_path / "out"), *words)
        code = cli.main([*words, "--state", str(tmp_path / "state")])
        path = tmp_path / "out" / "tune.json"
        return code, json.loads(path.read_text()) if path.exists() else None, heated

    return run_it


def test_the_host_keeps_the_room_in_its_record(place):
    async def kept():
        return place.host(replace(WANTED, room_k=(296.25, 0.2))).record.as_dict()["room_k"]

    assert virtually(kept()) == (296.25, 0.2)


def test_the_room_goes_from_the_command_line_to_the_plant(told):
    code, found, _ = told(*ROOM)
    assert code == 0
    assert found["record"]["room_k"] == [pytest.approx(296.25), 0.2]
    assert found["parameters"]["ambient_k"]["sigma"] <= 0.2
    assert any("296.25 +- 0.2 K" in text for text in found["remarks"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--room", "23"], "no unit"),
        (["--room", "23 K"], "no room is so cold"),
        (["--room", "296 K", "--room-within", "0 K"], "error above zero"),
        (["--room-within", "0.3 K"], "which is missing"),
    ],
)
def test_a_room_that_cannot_be_is_refused_before_anything_is_heated(told, capsys, words, said):
    code, found, heated = told(*words)
    assert (code, found, heated) == (2, None, [])
    assert said in capsys.readouterr().err
