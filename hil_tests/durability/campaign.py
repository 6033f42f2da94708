"""Kills at random moments and at every call site, one journey after the other, and a table of them."""
# ruff: noqa: S101  # tests only: an assert is what this file is for

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hil_tests.durability.runs import SPEED, Account, Journey, settle, station_of, wait_running
from hil_tests.durability.sites import sites
from hil_tests.harness import World, a_bench

if TYPE_CHECKING:
    from tests.controller.mosquitto import Mosquitto
    from tests.controller.wire import Foreign

STARTING_SHARE = 0.2  # of the kills strike while the host starts
STARTING_S = 8.0  # wall
STEPS_S = 10.0  # wall seconds that the steps take, and a little more: the end is killed, too

# Sites that a light run does not come to; the methods they call are killed in ``test_journal_killed.py``.
KINDS = {"host": Journey.kill_host, "control": Journey.kill_control, "power": Journey.cut_power}
OF_FAULTS = ("fault", "unknown")  # verbs of instruments that fail
ELSEWHERE = {
    "commands.py": "remote commands",
    "desk.py": "commands of people",
    "talk.py": "a latch cleared without a host",
    "steps/talk.py": "messages",
    "questions.py": "questions: test_run_questions",
    "sequence.py:Sequencer.run:recorder.line": "a run that was interrupted warm",
    "steps/manual.py": "commands of local programs: test_run_manual",
    "sequence.py:Sequencer.pause": "a person",
    "sequence.py:Sequencer.proceed": "a person",
    "sequence.py:Sequencer.finish_early": "a person",
    "sequence.py:Sequencer.timed_out": "a time limit",
    "steps/beam.py:one_scan": "a quarantined pass",
    "steps/beam.py:_mosaic": "a stage: test_run_stage",
    "staging.py": "a stage: test_run_stage",
    "exposing.py": "a frame detector: the soak item frame-faults",
    "steps/frames.py": "a frame detector: the soak item frame-faults",
    "monitors.py": "further devices: test_third_party",
    "tune.py": "operando tune",
    "tune_host.py": "operando tune",
    "host.py:Host._act": "a trip",
    "host.py:Host._sequence:recorder.gap": "reduce is too slow",
    "scanning.py:Scanning._wait_for_beam": "a lost beam",
    "link_server.py:LinkServer._heard:journal.undeliverable": "a message that cannot be sent",
    "host.py:Host._run:recorder.line": "a run that fails",
    "host.py:Host._resume:recorder.line": "killed before its first checkpoint",
    "host.py:Host._sequence:recorder.scan_pass": "killed between a pass on disk and its row",
    "sequence.py:Sequencer.step:recorder.line": "a step that is not repeated",
    "host.py:Host._sequence:recorder.line": "the end of the steps",
}


@dataclass(frozen=True)
class Line:
    """One journey in the table."""

    name: str
    kills: list[str]  # how, and when in wall seconds after the start of that attempt
    attempts: int
    seconds: float
    account: Account

    def __str__(self) -> str:
        return f"{self.name}: {', '.join(self.kills) or 'not killed'}; {self.account}; {self.seconds:.0f} s"


@contextlib.contextmanager
def bench_and_broker(folder: Path) -> Iterator[tuple[World, Path, Mosquitto]]:
    """Start what outlives the kills: the virtual bench and a mosquitto."""
    from tests.controller.mosquitto import Mosquitto

    broker = Mosquitto(folder / "mosquitto").start()
    try:
        with a_bench(folder / "bench", speed=SPEED, seed=17) as world:
            yield world, station_of(world, folder / "station.toml", broker.table), broker
    finally:
        broker.stop()


def random_journey(
    world: World,
    station: Path,
    folder: Path,
    seed: str,
    kinds: Sequence[str],
    *,
    starting_share: float = STARTING_SHARE,
    steps_s: float = STEPS_S,
) -> Line:
    """Kill a run as often as there are ``kinds``, each time at a random moment, and take it up each time.

    ``starting_share`` of the kills strike while the host starts, the others within ``steps_s`` wall seconds
    after the steps have begun.
    """
    rng, began, kills = random.Random(seed), time.monotonic(), []  # noqa: S311 - moments, not secrets
    journey = Journey(world, folder, station)
    for kind in kinds:
        run, started = journey.go(taped=kind == "power"), time.monotonic()
        if rng.random() < starting_share:
            time.sleep(rng.uniform(0.0, STARTING_S))
        elif wait_running(journey, 60.0):
            time.sleep(rng.uniform(0.0, steps_s))
        if run.process.poll() is not None:
            journey.check(journey.finished())
            break
        at_s = time.monotonic() - started
        lost = KINDS[kind](journey)
        told = [f"{kind} {at_s:.1f} s", *([] if journey.open() else ["not open"]), *([lost] if lost else [])]
        kills.append(", ".join(told))
        if journey.ended():
            break
    if not journey.ended():
        journey.finish()
    return Line(folder.name, kills, journey.attempts, time.monotonic() - began, settle(journey))


def site_journey(world: World, station: Path, folder: Path, site: str, when: str) -> Line | None:
    """Kill control at one call site, and take the run up; None if the run came to its end without it.

    A site that only a resumed run has is looked for in a run whose first attempt was killed.
    """
    began = time.monotonic()
    journey = Journey(world, folder, station)
    resumed = site.startswith(
        ("host.py:Host._resume", "host.py:Host.take_over", "resumption.py", "resume_policy.py")
    )
    if resumed:
        journey.go()
        wait_running(journey, 60.0)
        journey.kill_control()
    journey.go(site=site, when=when, hit=1)
    code = journey.finished()
    if not any(note.get("killed") == site for note in journey.notes_of(folder)):
        if code == 4 and not journey.open():
            journey.check(code)
        return None  # killed or not, a run that was not begun in the journal is not open
    kills = [f"{when} {site}"]
    if not journey.ended():
        journey.finish()
    return Line(folder.name, kills, journey.attempts, time.monotonic() - began, settle(journey))


def expected_sites() -> list[str]:
    """Return the sites that a light run, killed once and taken up, must come to."""
    return [
        site.name for site in sites()
        if site.verb not in OF_FAULTS and not any(_is(site.name, name) for name in ELSEWHERE)
    ]  # fmt: skip


def _is(site: str, name: str) -> bool:
    return site == name or site.startswith((f"{name}:", f"{name}."))


class Table:
    """The lines of a campaign, one JSON object each: an item that is cut off goes on behind the last one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lines(self) -> list[dict[str, Any]]:
        """Return what has been done."""
        if not self._path.is_file():
            return []
        return [json.loads(line) for line in self._path.read_text().splitlines() if line.endswith("}")]

    def kills(self) -> int:
        """Return how many kills have been survived."""
        return sum(len(line["kills"]) for line in self.lines())

    def add(self, line: Line) -> None:
        """Write one line."""
        with self._path.open("a") as table:
            table.write(json.dumps({**asdict(line), "text": str(line)}) + "\n")


def told_only_what_is_on_disk(journal: Path, foreign: Foreign) -> int:
    """Assert that every message that the broker delivered stands in the journal; return how many."""
    with contextlib.closing(sqlite3.connect(journal)) as base:
        known = set(base.execute("SELECT boot, seq FROM events"))
        boots = {boot for boot, _ in known}
    got = {
        (b["boot"], b["seq"]) for _, b, _ in foreign.bodies() if b and b.get("boot") in boots and "seq" in b
    }
    assert got <= known, sorted(got - known)
    return len(got)
