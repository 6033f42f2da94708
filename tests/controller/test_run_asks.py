"""Runs that ask: the whole host with journal, guard, steps, desk, on the small world in virtual time."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from controller.announce import remote_commands
from controller.commands import sign
from controller.config import experiment_from, from_text
from controller.config.station import Remote
from controller.journal_read import JournalReader
from controller.journal_store import Journal
from controller.link_server import RemoteMessage
from drivers.clock import RealClock
from tests.controller.test_any_order import FILES, AnyOrder, TestedHost

SCAN = """
[[step]]
do = "scan"
name = "as prepared"
raster = { pixels = [8, 8], size = ["100 um", "300 um"], dwell = "30 ms" }
until = { passes = 1 }
timeout = "30 min"
"""
HEAT = """
[[step]]
do = "heat"
to = "303 K"
within = "2 K"
ramp = "20 K/min"
stable = "5 s"
timeout = "{timeout}"
on_timeout = "ask"
answer_within = "5 min"
"""
MESSAGE = """
[[step]]
do = "message"
text = "Which sample is in the holder?"
wait = true
choices = ["left", "right"]
timeout = "10 min"
"""


class Scene:
    """One host after the other at one station, and people who answer."""

    def __init__(self, machine: AnyOrder) -> None:
        self.machine = machine
        self.host: TestedHost
        self.task: asyncio.Task[int]

    def start(self, steps: str, *, resume: bool = False, more: str = "") -> None:
        head = (FILES / "experiment.toml").read_text().partition("[[step]]")[0]
        experiment = experiment_from(from_text(f"{head}{more}\n{steps}", "experiment.toml"))
        run_dir = self.machine.place / "run-1"
        run_dir.mkdir(exist_ok=True)
        args = argparse.Namespace(
            state=self.machine.place / "state", run_dir=run_dir, resume=resume, heartbeat=None, estimate_s=1.0
        )

        async def begin() -> None:
            self.host = TestedHost(args, self.machine.station, experiment, RealClock())
            self.task = asyncio.get_running_loop().create_task(self.host.run())

        self.machine.loop.run_until_complete(begin())
        self.machine.pass_time(0.5)

    def until_asked(self) -> dict[str, Any]:
        for _ in range(6000):
            if self.task.done() or self.host.questions.open():
                break
            self.machine.pass_time(0.1)
        assert not self.task.done(), self.task.result()
        (asked,) = self.host.questions.open()
        return asked

    def ask(self, **request: Any) -> dict[str, Any]:
        return self.machine.loop.run_until_complete(self.host.desk.handle({"by": "Ada", **request}))

    def end(self) -> int:
        self.machine.loop.run_until_complete(asyncio.wait({self.task}, timeout=7200.0))
        return self.task.result()

    def rows(self, kind: str) -> list[dict[str, Any]]:
        with JournalReader.open(self.machine.place / "state" / "journal.sqlite") as journal:
            return [row.body for row in journal.events(kind=kind)]

    def titles(self) -> list[str]:
        return [row["title"] for row in self.rows("step") if row["state"] == "begun"]


@pytest.fixture
def scene() -> Iterator[Scene]:
    machine = AnyOrder()
    yield Scene(machine)
    machine.patches.close()
    machine.looking.cancel()


def test_an_answer_and_a_wrong_one(scene: Scene) -> None:
    scene.start(MESSAGE + SCAN)
    asked = scene.until_asked()
    status = scene.ask(do="status")
    assert (status["paused"], [one["id"] for one in status["questions"]]) == (True, ["q1"])
    assert asked["default"] == "abort"
    wrong = scene.ask(do="answer", id="q1", choice="up")
    assert wrong == {"ok": False, "error": "'up' is not an answer; answers: left, right"}
    assert scene.ask(do="proceed")["error"] == "'continue' is not an answer; answers: left, right"
    assert scene.ask(do="answer", id="", choice="left") == {"ok": True, "text": "q1: left"}
    assert scene.ask(do="answer", id="q1", choice="right")["ok"] is False
    assert scene.end() == 0
    (answer,) = scene.rows("answer")
    assert answer == {"id": "q1", "choice": "left", "by": "Ada"}


def test_a_step_that_times_out_asks_with_everything_held(scene: Scene) -> None:
    """The plate stays warm, nothing else is on, and without an answer the run is aborted."""
    scene.start(SCAN + HEAT.format(timeout="6 s") + SCAN.replace("as prepared", "after"))
    asked = scene.until_asked()
    assert asked["text"].startswith("heat to 303.0 K: not done after 6 s")
    scene.machine.pass_time(30.0)
    world = scene.machine.world
    assert (world.heating, world.cell_on, world.beam_on) == (True, False, False)
    assert scene.end() == 6  # ended early, with a result
    assert scene.rows("answer")[-1]["by"] == "nobody: the time limit"
    assert scene.titles() == ['scan "as prepared"', "heat to 303.0 K"]
    assert world.all_off


def test_a_person_goes_on_after_a_time_limit(scene: Scene) -> None:
    scene.start(SCAN + HEAT.format(timeout="6 s") + SCAN.replace("as prepared", "after"))
    scene.until_asked()
    assert scene.ask(do="proceed") == {"ok": True, "text": "q1: continue"}
    assert scene.end() == 0
    assert scene.titles()[-1] == 'scan "after"'


def test_a_remote_answer_goes_the_way_of_a_command(scene: Scene) -> None:
    """Signed, allowed by the station, and expecting what is so; then it is one answer among others."""
    keys = scene.machine.place / "keys"
    keys.write_text(f"desk operator {'ab' * 32}\n")
    keys.chmod(0o600)
    station = scene.machine.station
    external = station.broker.model_copy(update={"kind": "external"})
    for allow, result in ((("safe",), "rejected"), (("safe", "answer"), "done")):
        remote = Remote(enabled=True, keys=str(keys), allow=allow)
        told = station.model_copy(update={"remote": remote, "broker": external})
        if result == "rejected":
            scene.start(MESSAGE + SCAN)
            scene.until_asked()
        handler = remote_commands(told, scene.host.journal, scene.host.desk.handle)
        assert handler is not None
        payload = sign(
            bytes.fromhex("ab" * 32), client="desk", station=station.name, verb="answer",
            args={"id": "q1", "choice": "right"}, expect={"run": "run-1", "state": "paused"},
        )  # fmt: skip
        scene.machine.loop.run_until_complete(handler(RemoteMessage("answer", payload, False)))
        answers = [row for row in scene.rows("remote_answer") if row["result"] != "accepted"]
        assert answers[-1]["result"] == result, answers
    assert scene.end() == 0
    assert scene.rows("answer")[-1] == {"id": "q1", "choice": "right", "by": "desk (remote)"}


def interrupted(scene: Scene) -> None:
    """Leave a run in the journal as a crash would: one step done, warm, in the middle of the next."""
    state = scene.machine.place / "state"
    body = {
        "done": 2, "inner": [], "charge_coulomb": 0.0, "charged_s": 0.0, "throughput_coulomb": 0.0,
        "part": [0.0, 0.0], "unmeasured_s": 0.0, "missed_coulomb": 0.0, "scans": 1, "origin_um": [0.0, 0.0],
        "stage_um": None,
    }  # fmt: skip
    state.mkdir(exist_ok=True)
    with Journal.open(state / "journal.sqlite", station=scene.machine.station.name) as journal:
        journal.boot("run")
        journal.start_run("run-1", experiment="x", directory=str(scene.machine.place / "run-1"))
        journal.record("step", "sequence", {"state": "begun", "title": "before"}, run="run-1")
        journal.record("sample", "heater", {"temperature_k": 303.0}, run="run-1")
        journal.record("question", "sequence", {"id": "q7"}, run="run-1", topic="question/q7", retain=True)
        journal.checkpoint("run-1", "sequence", body)


def test_an_interrupted_run_asks_is_left_and_goes_on_warm(scene: Scene) -> None:
    steps = SCAN + HEAT.format(timeout="30 min") + SCAN.replace("as prepared", "after")
    policy = '[resume]\nage = "1 ms"\nanswer_within = "5 min"\n'
    interrupted(scene)
    scene.start(steps, resume=True, more=policy)
    asked = scene.until_asked()
    assert asked["text"].startswith("The run was interrupted: for ")
    assert (asked["choices"], asked["default"]) == (["continue", "leave", "abort"], "leave")
    assert scene.machine.world.all_off
    assert [row["choice"] for row in scene.rows("answer")] == ["withdrawn"], "of the host that is gone"
    assert scene.end() == 5
    with JournalReader.open(scene.machine.place / "state" / "journal.sqlite") as journal:
        assert [run.run for run in journal.open_runs()] == ["run-1"], "it can be resumed later"

    scene.start(steps, resume=True, more=policy)
    scene.until_asked()
    assert scene.ask(do="answer", id="", choice="continue")["ok"]
    assert scene.end() == 6  # finished, and the interruption is a gap
    assert scene.titles()[1:] == ["heat to 303.0 K", 'scan "after"']


def test_within_the_policy_nobody_is_asked(scene: Scene) -> None:
    interrupted(scene)
    scene.start(SCAN + HEAT.format(timeout="30 min") + SCAN.replace("as prepared", "after"), resume=True)
    assert scene.end() == 6
    assert scene.rows("question") == [{"id": "q7"}]
    assert scene.titles()[1:] == ["heat to 303.0 K", 'scan "after"']
