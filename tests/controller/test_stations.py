"""Stations with fewer instruments: whole runs of the real host in virtual time, and what is refused."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from controller.config import (
    ConfigErrors,
    Experiment,
    Station,
    check_against,
    experiment_from,
    from_text,
    station_from,
)
from controller.devices import Bench
from controller.estimate import estimate
from controller.guard import Action
from controller.host import Host
from controller.rules import guard_rules
from controller.safety import carry_out
from drivers.clock import RealClock
from tests.controller.small_world import World
from tests.controller.test_any_order import PLANT, TestedHost, in_virtual_time
from tests.controller.virtual_time import VirtualLoop

FILES = Path(__file__).parent / "config"
HEAT = """
[[step]]
do = "heat"
to = "303 K"
within = "2 K"
ramp = "20 K/min"
stable = "5 s"
timeout = "30 min"
"""
CHARGE = """
[[step]]
do = "charge"
current = "13 uA"
until = { duration = "1 min" }
timeout = "3 h"
"""
SCAN = """
[[step]]
do = "scan"
name = "as prepared"
raster = { pixels = [8, 8], size = ["100 um", "300 um"], dwell = "30 ms" }
until = { passes = 1 }
timeout = "30 min"
"""


def station(*without: str) -> Station:
    """Return the usual station without some of its roles, and without what only they need."""
    text = (FILES / "station.toml").read_text().replace("[device.heater]\n", f"[device.heater]\n{PLANT}\n")
    for role in without:
        for kind in () if role == "scanner" else ("line", "device"):
            text = re.sub(rf"(?ms)^\[{kind}\.{role}\]\n.*?(?=^\[|\Z)", "", text)
        text = re.sub(rf"(?m)^{role} = \"\w+\"\n", "", text)
        text = re.sub(rf"(?ms)^\[\[interlock\]\]\n(?:(?!^\[).)*?{role}\..*?(?=^\[|\Z)", "", text)
    if "scanner" in without:
        text = re.sub(r"(?ms)^\[beam\].*?(?=^\[\w|\Z)", "", text)
        text = re.sub(r"(?m)^scanner = \{.*\n(?:[^=\[\n]*\}\n)?", "", text)
    return station_from(from_text(text, "station.toml"))


def experiment(steps: str, *, analysis: bool = False) -> Experiment:
    """Return an experiment with these steps; what is to be counted only where something is."""
    text = (FILES / "experiment.toml").read_text().partition("[[step]]")[0] + steps
    if not analysis:
        text = re.sub(r"(?ms)^\[\[?analysis.*?(?=^\[(?!\[?analysis)|\Z)", "", text)
    return experiment_from(from_text(text, "experiment.toml"))


def less(bench: Bench, station: Station) -> Bench:
    """Return the small world's instruments that a station has."""
    roles = station.roles
    kept = {"heater": roles.heater, "cell": roles.cell, "io": station.io_name}
    devices = {name: device for name, device in bench.devices.items() if kept[name]}
    return Bench(
        {name: line for name, line in bench.lines.items() if kept[name]}, devices,
        bench.heater if roles.heater else None, bench.cell if roles.cell else None, bench.io,
        bench.scanner if roles.scanner else None, {}, None, {},
    )  # fmt: skip


def run(place: Path, station: Station, experiment: Experiment) -> tuple[TestedHost, dict[str, Any], World]:
    """Run to the end; return the host, the record of the run and what was true."""
    loop = VirtualLoop()
    world = World(loop.time, 343.0)
    made = world.bench

    async def whole() -> TestedHost:
        args = argparse.Namespace(
            state=place / "state", run_dir=place / "run", resume=False, heartbeat=None, estimate_s=1.0
        )
        (place / "run").mkdir()
        host = TestedHost(args, station, experiment, RealClock())
        await host.run()
        return host

    world.bench = lambda: less(made(), station)  # type: ignore[method-assign]
    try:
        with in_virtual_time(world, loop):
            host = loop.run_until_complete(asyncio.wait_for(whole(), 3600.0))
            loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
        asyncio.set_event_loop(None)
    return host, json.loads((place / "run" / "record.json").read_text()), world


def off(record: dict[str, Any], host: Host) -> set[str]:
    return {output for output in ("io", "cell", "heater") if getattr(host.bench.outputs, output)}


def test_a_cell_alone_is_charged(tmp_path: Path) -> None:
    host, record, _ = run(tmp_path, station("heater", "scanner", "pixe", "pige"), experiment(CHARGE))
    assert (record["exit_code"], record["outcome"]) == (0, "done")
    assert record["charge"]["coulomb"] == pytest.approx(13e-6 * 60.0, rel=0.1)
    assert set(record["instruments"]) == {"cell", "io"}
    assert record["roles"] == {"cell": "cell"}
    assert off(record, host) == {"io", "cell"}
    assert "heater.temperature" not in host.guard.values


def test_heater_and_cell_without_a_beam(tmp_path: Path) -> None:
    host, record, world = run(tmp_path, station("scanner", "pixe", "pige"), experiment(HEAT + CHARGE))
    assert (record["exit_code"], record["outcome"]) == (0, "done")
    assert world.heat_j > 50.0
    assert host.guard.values["heater.temperature"] == pytest.approx(303.0, abs=2.0)
    assert record["roles"] == {"heater": "heater", "cell": "cell"}


def test_a_beam_without_cell_and_heater_knows_no_charge(tmp_path: Path) -> None:
    """Its detectors are the business of the runs against the bench; here the pass has none."""
    without = station("heater", "cell")
    host, record, _ = run(tmp_path, without, experiment(SCAN, analysis=True))
    assert (record["exit_code"], record["outcome"]) == (0, "done")
    assert record["charge"]["coulomb"] is None
    assert record["charge"]["soc"] is None
    assert [step["do"] for step in record["steps"]] == ["scan"]
    assert host.stamps.now()["soc"] is None
    assert record["roles"]["scanner"] == "io"


@pytest.mark.parametrize(
    ("missing", "steps", "told"),
    [
        (("heater",), HEAT, "step[0].do = \"heat\" needs a heater, and the station "),
        (("cell",), CHARGE, "step[0].do = \"charge\" needs a cell, and the station "),
        (("scanner", "pixe", "pige"), SCAN, "step[0].do = \"scan\" needs a scanner, and the station "),
    ],
)  # fmt: skip
def test_a_step_that_needs_more_is_refused_by_its_key(
    missing: tuple[str, ...], steps: str, told: str
) -> None:
    problems = check_against(station(*missing), experiment(steps, analysis="scan" in steps))
    assert [p.message for p in problems if told in p.message], [p.message for p in problems]


def test_what_belongs_to_scanning_is_asked_for_with_a_scanner_only() -> None:
    usual = (FILES / "station.toml").read_text()
    without_beam = re.sub(r"(?ms)^\[beam\].*?(?=^\[\w|\Z)", "", usual)
    with pytest.raises(ConfigErrors) as caught:
        station_from(from_text(without_beam, "station.toml"))
    assert [p.key for p in caught.value.problems] == ["beam"]
    with pytest.raises(ConfigErrors) as caught:
        experiment(SCAN)
    assert any(p.key == "analysis" and "scan needs to know" in p.message for p in caught.value.problems)


def test_the_guard_watches_only_what_exists() -> None:
    cell_only = station("heater", "scanner", "pixe", "pige")
    rules = guard_rules(cell_only, experiment(CHARGE), 0.0)
    assert set(rules.period_s) == {"cell", "io"}
    told = estimate(cell_only, experiment(CHARGE)).lines()
    assert not any("dose" in line or "lithium" in line for line in told), told


async def test_off_is_confirmed_for_what_exists() -> None:
    loop = asyncio.get_running_loop()
    world = World(loop.time, 343.0)
    world.shutter = world.relay = True
    results = await carry_out(less(world.bench(), station("heater", "cell")).outputs, Action.SAFE)
    assert [(r.output, r.confirmed) for r in results] == [("io", True)]
    assert not world.shutter
    assert not world.relay
    for action in (Action.HEATER_OFF, Action.OPEN_CIRCUIT, Action.SHUTTER, Action.BLANK):
        results = await carry_out(less(world.bench(), station("heater", "cell")).outputs, action)
        assert all(r.confirmed for r in results), results
