"""Soak item: a broker that dies twelve times in a run, and what a backlog and a frozen link cost."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from hil_tests.durability.network import commits_beside_a_frozen_link, live_beside_history, outages
from hil_tests.durability.runs import TooSlow
from hil_tests.harness import a_bench
from hil_tests.soak.runner import Failed, Workshop
from tests.controller.mosquitto import Mosquitto

SPEED = 2.0  # nothing here depends on it, and a busy machine is late for nothing that matters
KILLS, FREEZES = 12, 3
BACKLOG = 10_000
TRIES = 5
FREEZE_S = 10.0  # as in the host
LIVE_P99_S = 0.5


def store_and_forward(work: Workshop) -> str:
    """Kill the broker of a run twelve times, freeze it three times; then measure what waits for what."""
    place = work.folder / "place"
    try:
        told = [_in_a_run(work, place)]
        work.say(told[0])
        told += [_history(place / "history"), *(_frozen(place / where, where) for where in ("read", "idle"))]
    except AssertionError as error:
        raise Failed(f"{error}\n(the files are in {place})") from error
    shutil.rmtree(place)
    return "\n".join(told)


def _in_a_run(work: Workshop, place: Path) -> str:
    """Let the broker of a run die; once more when this machine was too busy for the run's guard."""
    for _ in range(TRIES):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        try:
            with a_bench(place / "bench", speed=SPEED, seed=23) as world:
                return outages(world, place, KILLS, FREEZES)
        except TooSlow as reason:
            work.say(f"once more, this machine was too busy: {reason}")
    raise Failed(f"this machine was too busy for a run, {TRIES} times: nothing is known of the broker")


def _history(folder: Path) -> str:
    broker = Mosquitto(folder / "mosquitto").start()
    try:
        alone, beside, took_s = asyncio.run(live_beside_history(folder, broker, BACKLOG))
    finally:
        broker.stop()
    said = f"live messages alone: {alone}; beside {BACKLOG} old ones, for {took_s:.0f} s: {beside}"
    if beside.p99_s > LIVE_P99_S:
        raise Failed(f"live messages waited for history\n{said}")
    return said


def _frozen(folder: Path, where: str) -> str:
    broker = Mosquitto(folder / "mosquitto").start()
    try:
        found = asyncio.run(commits_beside_a_frozen_link(folder, broker, where, FREEZE_S))
    finally:
        broker.stop()
    words = "inside a read" if where == "read" else "outside of any read"
    said = (
        f"link frozen {words} for {FREEZE_S:g} s: {found.commits} commits of control meanwhile, the slowest "
        f"{1e3 * found.slowest_s:.0f} ms; the log grew to {found.log_bytes / 1e6:.0f} MB (written: "
        f"{found.written_bytes / 1e6:.0f} MB), afterwards {found.log_after_bytes / 1e6:.0f} MB"
    )
    if found.slowest_s > 1.0 or found.log_after_bytes > 20 << 20:
        raise Failed(said)
    return said
