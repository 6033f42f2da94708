"""A manual step in the real host, in virtual time: who may command, within what, and what is left of it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.config import (
    ConfigErrors,
    check_against,
    effective_limits,
    experiment_from,
    from_text,
    station_from,
)
from drivers.clock import RealClock
from tests.controller.small_world import World
from tests.controller.test_any_order import FILES, PLANT, STEPS, TestedHost, in_virtual_time
from tests.controller.virtual_time import VirtualLoop

REFERENCE = STEPS.partition('[[step]]\ndo = "heat"')[0]
TABLES = """
heater = { low = "295 K", high = "310 K", ramp = "20 K/min" }
cell = { low = "3 V", high = "3.9 V", current = "15 uA", charge = "2 mC" }
scan = { raster = { pixels = [8, 8], size = ["100 um", "300 um"], dwell = "30 ms" }, passes = 3 }
"""


def manual(
    tables: str = TABLES, *, gone: str = "hold", timeout: str = "20 min", then: str = "continue"
) -> str:
    keys = f'gone = "{gone}"\nsilence = "5 s"\ntimeout = "{timeout}"\non_timeout = "{then}"'
    return f'[[step]]\ndo = "manual"\n{keys}\n{tables}\n'


class Bench:
    """A run of the real host whose second step is a manual one."""

    def __init__(self, steps: str) -> None:
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        place = Path(self.folder.name)
        self.place = place
        text = (
            (FILES / "station.toml").read_text().replace("[device.heater]\n", f"[device.heater]\n{PLANT}\n")
        )
        station = station_from(from_text(text, "station.toml"))
        text = (FILES / "experiment.toml").read_text().partition("[[step]]")[0] + REFERENCE + steps
        experiment = experiment_from(from_text(text, "experiment.toml"))
        assert check_against(station, experiment) == []
        self.world = World(self.loop.time, effective_limits(station, experiment).temperature_high_k)
        self.patches = contextlib.ExitStack()
        self.patches.enter_context(in_virtual_time(self.world, self.loop))
        args = argparse.Namespace(
            state=place / "state", run_dir=place / "run", resume=False, heartbeat=None, estimate_s=1.0
        )
        args.run_dir.mkdir()
        self.session = ""

        async def begin() -> asyncio.Task[int]:
            self.host = TestedHost(args, station, experiment, RealClock())
            return asyncio.get_running_loop().create_task(self.host.run())

        self.task = self.loop.run_until_complete(begin())
        self.looking = self.loop.create_task(self._look())
        while not hasattr(self.host, "sequence"):
            self.passes(0.1)

    async def _look(self) -> None:
        while True:
            self.world.look()
            await asyncio.sleep(0.1)

    def passes(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def until(self, met: Callable[[], Any], *, seconds: float = 600.0, alive: bool = True) -> Any:
        """Let time pass until something is so; the client in charge says meanwhile that it is there."""
        end = self.loop.time() + seconds
        while not (answer := met()):
            assert self.loop.time() < end, f"not within {seconds:g} s: {self.host.recorder.counters}"
            assert not self.task.done() or alive is None, self.task
            if alive and self.session:
                self.ask("alive")
            self.passes(0.2)
        return answer

    def ask(self, verb: str, **more: Any) -> dict[str, Any]:
        request = {"do": "manual", "verb": verb, "by": "the test", "session": self.session, **more}
        reply: dict[str, Any] = self.loop.run_until_complete(self.host.desk.handle(request))
        if verb == "take" and reply["ok"]:
            self.session = reply["session"]
        return reply

    def refused(self, verb: str, **more: Any) -> str:
        reply = self.ask(verb, **more)
        assert reply["ok"] is False, reply
        return str(reply["error"])

    def taken(self) -> dict[str, Any]:
        """Wait for the manual step and take it."""
        self.until(lambda: self.host.sequence.context.manual is not None)
        return self.ask("take")

    def rows(self, kind: str) -> list[dict[str, Any]]:
        self.passes(0.5)
        base = sqlite3.connect(f"file:{self.place}/state/journal.sqlite?mode=ro", uri=True)
        with contextlib.closing(base):
            found = base.execute("SELECT body FROM events WHERE kind = ? ORDER BY seq", (kind,)).fetchall()
        return [json.loads(body) for (body,) in found]

    def end(self) -> int:
        """Let the run come to its end; return its exit code."""
        end = self.loop.time() + 3000.0
        while not self.task.done() and self.loop.time() < end:
            self.passes(0.5)
        return self.task.result()

    def close(self) -> None:
        self.looking.cancel()
        if not self.task.done():
            self.host.abort("the test")
            self.end()
        self.loop.run_until_complete(asyncio.gather(self.looking, return_exceptions=True))
        self.patches.close()
        self.loop.close()
        asyncio.set_event_loop(None)
        self.folder.cleanup()


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(getattr(request, "param", None) or manual())
    yield made
    assert made.world.worst.get("current through a cell that cannot be measured", 0.0) == 0.0
    made.close()


def test_nobody_commands_without_a_manual_step_or_without_having_taken_it(bench: Bench) -> None:
    assert "no manual step is running" in bench.refused("take")
    bench.until(lambda: bench.host.sequence.context.manual is not None)
    assert "in the hands of nobody" in bench.refused("heat", to_k=300.0)
    assert bench.ask("take", by="first")["allowed"]["heater"]["high_k"] == 310.0
    mine, bench.session = bench.session, "x" * 32
    assert "in the hands of first" in bench.refused("take", by="second")
    assert "in the hands of first" in bench.refused("heat", to_k=300.0)
    bench.session = mine
    assert bench.world.setpoint_k < 290.0  # nothing of this has reached the heater


def test_a_step_by_hand_from_the_first_command_to_the_last_and_all_of_it_in_the_journal(bench: Bench) -> None:
    bench.taken()
    assert bench.ask("heat", to_k=305.0)["target_k"] == 305.0
    bench.until(lambda: abs(bench.world.temperature_k - 305.0) < 1.0)
    job = bench.ask("charge", current_a=13e-6, duration_s=30.0)["job"]
    bench.until(lambda: bench.world.cell_on)
    told = bench.until(lambda: not (now := bench.ask("status")["cell"])["busy"] and now)
    assert told["job"] == job
    left = told["left_coulomb"]
    assert left["discharge"] - left["charge"] == pytest.approx(2 * 13e-6 * 30.0, rel=0.1)
    bench.ask("scan", passes=2)
    assert "busy" in bench.refused("scan", passes=1)
    done = bench.until(lambda: not (now := bench.ask("status")["scan"])["busy"] and now)
    assert (done["ended"], done["left_passes"]) == ("2 passes", 1)
    bench.ask("done")
    assert bench.end() == 0
    assert bench.world.all_off()
    verbs = [(row["verb"], row["by"]) for row in bench.rows("manual")]
    assert verbs == [(verb, "the test") for verb in ("take", "heat", "charge", "scan", "done")]
    opened = [row for row in bench.rows("cell_event") if row["event"] == "opened"]
    assert opened[-1]["charge_coulomb"] == pytest.approx(3.9e-4, rel=0.1)
    assert [row["reason"] for row in bench.rows("step") if row.get("do") == "manual" and "reason" in row] == [
        "done, said the test"
    ]


@pytest.mark.parametrize(
    ("verb", "arguments", "said"),
    [
        ("heat", {"to_k": 311.0}, "heat 311 K is refused: the step allows 295 K to 310 K"),
        ("heat", {"to_k": 300.0, "ramp_k_per_s": 1.0}, "ramp 60 K/min is refused: the step allows 0 K/min"),
        ("heat", {"to_k": float("nan")}, "no finite number"),
        ("heat", {"to_k": "300 K"}, "no finite number"),
        ("heat", {}, "heat needs to_k"),
        ("charge", {"current_a": 16e-6}, "charge current 16 uA is refused: the step allows 0 A to 15 uA"),
        ("charge", {"current_a": -1e-6}, "is refused"),
        ("charge", {"current_a": 1e-6, "voltage_v": 4.0}, "4 V is refused: the step allows 3 V to 3.9 V"),
        ("discharge", {"current_a": 1e-6, "charge_coulomb": 3e-3}, "0.555556 uAh are left"),
        ("charge", {"current_a": 1e-6, "duration_s": 1e6}, "duration"),
        ("scan", {"passes": 4}, "scan of 4 passes is refused: the step allows 3, 3 are left"),
        ("scan", {"passes": 1.5}, "whole number"),
        ("move", {"position_um": [0, 0]}, "no stage table"),
        ("clear", {"id": "permit"}, "there is no 'clear'"),
    ],
)  # fmt: skip
def test_what_is_beyond_a_limit_is_refused_by_value_and_limit_and_journalled(
    verb: str, arguments: dict[str, Any], said: str, refusing: Bench
) -> None:
    assert said in refusing.refused(verb, **arguments).replace("µ", "u")
    assert not refusing.world.cell_on
    assert refusing.world.setpoint_k < 290.0


@pytest.fixture(scope="module")
def refusing() -> Iterator[Bench]:
    made = Bench(manual(timeout="10 h"))
    made.taken()
    yield made
    refusals = made.rows("manual_refused")
    assert all(row["by"] == "the test" for row in refusals)
    assert any("311 K" in row["reason"] for row in refusals)
    made.close()


@pytest.mark.parametrize(
    ("bench", "stays"), [(manual(gone="hold"), True), (manual(gone="off"), False)], indirect=["bench"],
    ids=["hold", "off"],
)  # fmt: skip
def test_a_client_that_vanishes_leaves_what_the_step_declares(bench: Bench, stays: bool) -> None:
    bench.taken()
    bench.ask("heat", to_k=305.0)
    bench.until(lambda: abs(bench.world.temperature_k - 305.0) < 1.0)
    bench.ask("charge", current_a=13e-6)
    bench.until(lambda: bench.world.cell_on)
    vanished_s = bench.loop.time()
    bench.until(lambda: not bench.world.cell_on, alive=False)
    assert bench.loop.time() - vanished_s < 8.0  # 5 s of silence, a sample and the way off
    bench.passes(2.0)
    assert bench.world.heating is stays
    assert bench.host.heating.target_k == (305.0 if stays else None)
    assert "in the hands of nobody" in bench.refused("heat", to_k=300.0)
    assert bench.rows("manual")[-1]["verb"] == "gone"
    assert bench.ask("take", by="another")["ok"]  # the step goes on, for whoever comes next
    assert bench.ask("done")["ok"]


def test_hold_keeps_the_set_point_where_the_ramp_is_and_never_a_measured_value(bench: Bench) -> None:
    bench.taken()
    bench.ask("heat", to_k=309.0, ramp_k_per_s=0.1)
    bench.until(lambda: bench.world.working_k > 300.0)
    bench.world.temperature_k += 1.5  # what is measured is elsewhere
    held = bench.ask("hold")["target_k"]
    assert held == pytest.approx(bench.world.working_k, abs=0.1)
    assert held < 309.0
    for _ in range(5):
        bench.ask("alive")
        bench.passes(3.0)
    assert bench.world.working_k == pytest.approx(held, abs=0.1)
    assert bench.ask("hold")["target_k"] == held  # a second one changes nothing


@pytest.mark.parametrize("bench", [manual(TABLES.replace("295 K", "305 K"))], indirect=True)
def test_hold_stays_inside_the_window_of_the_step_where_a_ramp_begins_below_it(bench: Bench) -> None:
    bench.taken()
    bench.ask("heat", to_k=309.0, ramp_k_per_s=0.02)
    assert bench.world.working_k < 300.0
    assert bench.ask("hold")["target_k"] == 305.0


def test_a_trip_ends_a_step_by_hand_like_any_other(bench: Bench) -> None:
    bench.taken()
    bench.ask("heat", to_k=305.0)
    bench.ask("charge", current_a=13e-6)
    bench.until(lambda: bench.world.cell_on)
    bench.world.permit = False
    tripped_s = bench.loop.time()
    while not bench.world.all_off():
        assert bench.loop.time() - tripped_s < 2.0
        bench.passes(0.05)
    assert bench.end() == 4


def test_a_pause_opens_the_circuit_and_refuses_what_is_asked_meanwhile(bench: Bench) -> None:
    bench.taken()
    bench.ask("charge", current_a=13e-6)
    bench.until(lambda: bench.world.cell_on)
    bench.loop.run_until_complete(bench.host.desk.handle({"do": "pause"}))
    bench.until(lambda: not bench.world.cell_on)
    assert "the run is paused" in bench.refused("charge", current_a=13e-6)
    bench.loop.run_until_complete(bench.host.desk.handle({"do": "proceed"}))
    assert bench.ask("status")["cell"]["ended"] == "ended by a pause"
    assert bench.ask("charge", current_a=13e-6)["ok"]


@pytest.mark.parametrize("bench", [manual(timeout="2 min")], indirect=True)
def test_when_its_time_is_over_the_circuit_is_open_and_the_run_goes_on(bench: Bench) -> None:
    bench.taken()
    bench.ask("charge", current_a=13e-6)
    bench.until(lambda: bench.world.cell_on)
    bench.until(lambda: bench.host.sequence.context.manual is None, seconds=150.0)
    assert not bench.world.cell_on
    assert "no manual step is running" in bench.refused("heat", to_k=300.0)
    assert bench.end() == 0


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ("", "allows nothing"),
        ('heater = { low = "295 K", high = "500 K", ramp = "1 K/min" }', "above"),
        ('heater = { low = "295 K", high = "310 K", ramp = "500 K/min" }', "above the station limit"),
        ('cell = { low = "1 V", high = "3.9 V", current = "15 uA", charge = "2 mC" }', "below"),
        ('cell = { low = "3 V", high = "3.9 V", current = "15 mA", charge = "2 mC" }', "above"),
        ('stage = { low = ["0 um", "0 um"], high = ["1 um", "1 um"] }', "needs a stage"),
    ],
)
def test_a_step_that_would_allow_too_much_is_refused_beforehand(tables: str, said: str) -> None:
    station = station_from(from_text((FILES / "station.toml").read_text(), "station.toml"))
    text = (FILES / "experiment.toml").read_text().partition("[[step]]")[0] + REFERENCE + manual(tables)
    try:
        problems = check_against(station, experiment_from(from_text(text, "experiment.toml")))
    except ConfigErrors as error:
        problems = error.problems
    assert any(said in problem.message for problem in problems), [problem.message for problem in problems]


def test_a_manual_step_comes_after_the_reference_scan_and_never_beside_others() -> None:
    head = (FILES / "experiment.toml").read_text().partition("[[step]]")[0]
    inside = manual().replace("[[step]]", "[[step.step]]")
    rest = '[[step.step]]\ndo = "rest"\nduration = "1 min"\n'
    with pytest.raises(ConfigErrors, match="before it was seen as prepared"):
        experiment_from(from_text(head + manual() + REFERENCE, "experiment.toml"))
    with pytest.raises(ConfigErrors, match="cannot run beside others"):
        experiment_from(
            from_text(head + REFERENCE + '[[step]]\ndo = "parallel"\n' + inside + rest, "experiment.toml")
        )
