"""The network fails in the middle of a run: the run does not notice, and everybody is told everything later.

Ten lab seconds a second, the fastest at which trip times are claimed: what dies here must not trip anything.
A run is a number of passes; when trouble takes longer than these, as on a busy machine, it is paused before
the last one until the trouble is over, so nothing depends on who is faster.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hil_tests.delivered import backlog, came_once_and_in_order, quiet
from hil_tests.exposure import given_away, in_processes, only_on_loopback, private
from hil_tests.harness import (
    HOST,
    ROLES,
    Listener,
    Run,
    World,
    edited_station,
    ending,
    eventually,
    one_scan,
    processes_of,
)
from tests.controller.mosquitto import USERS, Mosquitto, find
from tests.controller.wire import Foreign

PASSES = 8  # of about one second
PIXELS = (16, 24)
LATE_S = 5.0  # what is delivered later than this is flagged as history


class Trouble:
    """One run that goes on until the trouble is over."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.run.until(lambda status: status["scan"] and status["scan"]["n"] >= 1, "a scan")

    def until(self, probe: Callable[[], Any], what: str) -> Any:
        """Wait for something; hold the run before its last pass until then."""

        def look() -> Any:
            assert self.run.process.poll() is None, f"{what}: the run ended before\n{self.run.tell()}"
            status = self.run.status()
            if status and status["scan"] and status["scan"]["n"] >= PASSES - 1 and not status["paused"]:
                self.run.ask("pause")
            return probe()

        return eventually(look, what, tell=self.run.tell, poll_s=0.1)

    def restarted(self, role: str) -> int:
        """SIGKILL a process and wait for another one in its place; return its id."""
        before = self.run.pid(role)
        os.kill(before, signal.SIGKILL)
        found = self.until(lambda: set(self.processes(role)) - {before}, f"another {role}")
        return int(found.pop())

    def processes(self, role: str) -> list[int]:
        return processes_of(self.run.folder, ROLES[role])

    def grows(self, rows: int) -> None:
        """Wait until more messages wait than can be on their way."""
        self.until(lambda: backlog(self.run) >= rows, f"{rows} messages wait")

    def over(self) -> int:
        """Let the run go on to its end; return its exit code."""
        status = eventually(lambda: self.run.status() or self.run.process.poll() is not None, "a status")
        if status is not True and status["paused"]:
            self.run.ask("proceed")
        return self.run.ended()


def oldest_s(run: Run) -> float:
    """Return how long the first message has been waiting."""
    (oldest,) = run.rows("SELECT min(e.wall_s) FROM outbox o JOIN events e USING (seq)")[0]
    return 0.0 if oldest is None else time.time() - float(oldest)


def states(foreign: Foreign) -> list[str]:
    return [body["state"] for _, body, _ in foreign.bodies("status") if body]


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "mosquitto").start()
    yield broker
    broker.stop()


@pytest.fixture
def recorder(mosquitto: Mosquitto) -> Iterator[Foreign]:
    """A subscriber that keeps its session, and drops what it has seen under the same boot and seq."""
    foreign = Foreign(
        mosquitto.port, "viewer", USERS["viewer"], name="recorder", persistent=True,
        subscribe=["operando/v1/bench/#"],
    )  # fmt: skip
    assert foreign.subscribed.wait(10.0)
    yield foreign
    foreign.close()


def station_with(world: World, broker: Mosquitto, path: Path) -> Path:
    table = "\n".join(f'{key} = "{value}"' for key, value in broker.table.items())
    return edited_station(world, path, lambda text: text.replace('kind = "embedded"', table))


def test_link_and_broker_die_and_freeze_and_every_event_comes_once(
    world: World, tmp_path: Path, mosquitto: Mosquitto, recorder: Foreign, record_property
) -> None:
    """The broker is killed when it has delivered what it has acknowledged: for the rest it does not stand."""
    station = station_with(world, mosquitto, tmp_path / "station.toml")
    path = one_scan(tmp_path / "scan.toml", passes=PASSES, pixels=PIXELS)
    with ending(Run.start(tmp_path / "run", path, "--station", str(station))) as run:
        trouble = Trouble(run)
        trouble.restarted("link")
        trouble.until(lambda: states(recorder)[-2:] == ["lost", "ready"], "lost, then ready again")

        mosquitto.freeze()
        trouble.grows(60)
        mosquitto.thaw()
        trouble.until(lambda: backlog(run) < 20, "everything that waited has gone")

        link = run.pid("link")
        os.kill(link, signal.SIGSTOP)
        quiet(recorder)
        mosquitto.kill()
        os.kill(link, signal.SIGCONT)
        trouble.until(lambda: oldest_s(run) > LATE_S + 1.0, "what waits is late")
        mosquitto.start()
        trouble.until(lambda: backlog(run) < 20, "everything that waited has gone")
        assert run.pid("link") == link  # a broker that is away is no reason to start link anew
        assert trouble.over() == 0
        assert run.record["outcome"] == "done"
        assert not run.record["gaps"]
        eventually(lambda: recorder.bodies("doc/stop"), "the last document")
        quiet(recorder)
        record_property("events", came_once_and_in_order(run, recorder))
    repeats = [
        (body["boot"], body["seq"]) for topic, body, _ in recorder.bodies() if body and topic != "status"
    ]
    assert len(repeats) > len(set(repeats))  # there was something to drop
    assert [body for _, body, _ in recorder.bodies() if body and body.get("hist")]  # and something came late


def test_the_host_dies_and_the_next_run_delivers_what_it_left(
    world: World, tmp_path: Path, mosquitto: Mosquitto, recorder: Foreign
) -> None:
    """Its last will says lost; what was not delivered then is delivered by the next host, once."""
    station = station_with(world, mosquitto, tmp_path / "station.toml")
    path = one_scan(tmp_path / "scan.toml", passes=PASSES, pixels=PIXELS)
    with ending(Run.start(tmp_path / "run", path, "--station", str(station))) as run:
        trouble = Trouble(run)
        os.kill(run.pid("link"), signal.SIGSTOP)
        trouble.grows(20)
        said = len(states(recorder))
        for pid in [pid for role in HOST for pid in processes_of(run.folder, ROLES[role])]:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: "lost" in states(recorder)[said:], "the last will")
        assert run.ended() == 3
        left = backlog(run)
        assert left >= 20
    with ending(
        Run.start(
            tmp_path / "later", one_scan(tmp_path / "one.toml"), "--station", str(station), state=run.state
        )
    ) as later:
        assert later.ended() == 0
        eventually(lambda: len(recorder.bodies("doc/stop")) >= 1, "the last document")
        quiet(recorder)
        came_once_and_in_order(later, recorder)
    assert len({body["boot"] for _, body, _ in recorder.bodies() if body and body.get("boot")}) == 2
    assert states(recorder)[-1] == "disconnected"


def test_the_embedded_broker_dies_and_link_for_good(world: World, tmp_path: Path) -> None:
    """The line for people works before and after; a link that keeps dying is told as lost."""
    path = one_scan(tmp_path / "scan.toml", passes=PASSES, pixels=PIXELS)
    with ending(Run.start(tmp_path / "run", path, "--station", str(world.station))) as run:
        trouble = Trouble(run)
        line = (run.run_dir / "watch.txt").read_text().strip()
        assert (run.run_dir / "watch.txt").stat().st_mode & 0o077 == 0
        printed = watched(line, "operando/v1/bench/state/heater/temperature")
        assert '"q":"good"' in printed
        listener = Listener.of(run)
        trouble.until(lambda: listener.named("/status"), "a status")
        assert only_on_loopback(run, world) >= 4  # two detectors, I/O, broker
        users = json.loads((run.state / "broker" / "broker.json").read_text())["users"]
        assert not in_processes(users, [*processes_of(run.folder), run.process.pid])

        trouble.restarted("broker")
        came = len(listener.got)
        trouble.until(lambda: len(listener.got) > came + 20, "messages of the new broker")
        assert watched(line, "operando/v1/bench/status")

        while trouble.processes("link"):
            os.kill(run.pid("link"), signal.SIGKILL)
            trouble.until(
                lambda: trouble.processes("link") or "not started again" in supervisor_log(run),
                "link is started again, or given up",
            )
        assert "link keeps ending: not started again" in supervisor_log(run)
        trouble.until(lambda: listener.named("/status")[-1]["state"] == "lost", "the last will")
        waiting = backlog(run)
        trouble.grows(waiting + 20)
        assert trouble.over() == 0
        listener.stop()
        assert run.record["outcome"] == "done"
        private(run)
        assert not given_away({"host": users["host"]}, [run.folder], but=("broker.json",))
        assert not given_away(users, [run.folder], but=("broker.json", "watch.txt"))


def supervisor_log(run: Run) -> str:
    path = run.state / "supervisor.jsonl"
    return path.read_text() if path.is_file() else ""


def watched(line: str, topic: str) -> str:
    """Run the line as a shell would, and return the first line that it prints of a topic."""
    line = line.replace("mosquitto_sub", shlex.quote(find("mosquitto_sub")), 1)
    with subprocess.Popen(["/bin/sh", "-c", f"exec {line}"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            deadline = time.monotonic() + 20.0
            for text in process.stdout:
                if text.startswith(f"{topic} ") or time.monotonic() > deadline:
                    break
            return text
        finally:
            process.terminate()
