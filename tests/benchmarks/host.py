"""What control does ten times a second and more, guard and journal; and how fast the command starts."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from controller.config import load_experiment, load_station
from controller.guard import Guard, Trip
from controller.journal import AsyncJournal, Journal, Record
from controller.rules import guard_rules, interlock_rows
from drivers.clock import RealClock
from drivers.roles import HeaterReading
from tests.benchmarks.race import Contender, grid, race, table

ROOT = Path(__file__).parent.parent.parent
STATION = ROOT / "tests" / "controller" / "config" / "station.toml"
EXPERIMENT = ROOT / "hil_tests" / "experiments" / "quickstart.toml"
TICK_S = 0.1
CALLS = 20_000
ROWS = 1_000
BODY = {"temperature_k": 333.01, "target_k": 333.15, "setpoint_k": 333.15, "output": 0.4312, "problems": []}
HELP_TARGET_S = 0.5


def guard() -> str:
    """Time the guard's own tick and one sample."""
    station, experiment = load_station(STATION), load_experiment(EXPERIMENT)

    def unexpected(trip: Trip) -> None:
        raise AssertionError(trip.text)

    made = Guard(
        guard_rules(station, experiment, 0.02), RealClock(), unexpected, interlocks=interlock_rows(station)
    )
    tick_s = _each(made.tick)
    reading = HeaterReading(time.monotonic(), 333.0, 333.0, 0.4, sensor_ok=True, status_word=0)
    sample_s = _each(lambda: made.heater(reading))
    empty_s = _each(lambda: None)
    rows = [("guard", "us a call", "of a 10 Hz tick")]
    for name, seconds in (("an empty call", empty_s), ("tick", tick_s), ("one sample", sample_s)):
        rows.append((name, f"{seconds * 1e6:.2f}", f"{seconds / TICK_S:.4%}"))
    return grid(rows)


def _each(call) -> float:
    """Return the median time of one call, from nine batches, before anything has time to go stale."""
    batches = []
    for _ in range(9):
        began = time.perf_counter()
        for _ in range(CALLS // 100):
            call()
        batches.append((time.perf_counter() - began) / (CALLS // 100))
    return statistics.median(batches)


def journal(rounds: int) -> str:
    """Race one-commit-per-event writing against bare SQLite with the same durability."""
    with tempfile.TemporaryDirectory(prefix="operando-benchmark-") as name:
        folder = Path(name)
        bare = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
        bare.execute("PRAGMA journal_mode=WAL")
        bare.execute("PRAGMA synchronous=FULL")
        bare.execute("CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT)")
        store = Journal.open(folder / "journal.sqlite", station="bench")
        store.boot("benchmark")
        record = Record("sample", "heater", BODY, None, 1.0, "state/heater/temperature", 1, True, b"{}", None)
        text = "x" * 200

        def plain() -> None:
            for _ in range(ROWS // 10):
                bare.execute("INSERT INTO events (body) VALUES (?)", (text,))

        def ours() -> None:
            for _ in range(ROWS // 10):
                store.record_many([record])

        def grouped() -> None:
            store.record_many([record] * (ROWS // 10))

        peer = "bare sqlite3, WAL, FULL"
        contenders = [
            Contender(peer, plain, note="one row a commit"),
            Contender("journal, one event a commit", ours, note="event and outbox row"),
            Contender("journal, 100 events a commit", grouped, note="event and outbox row, as samples are"),
        ]
        race(contenders, rounds, waits=True)
        store.close()
        bare.close()
        slowest = asyncio.run(_through_the_thread(folder))
        free = shutil.disk_usage(folder).free
    return (
        table("journal", contenders, work=ROWS / 10, unit="k events/s", peer=peer)
        + f"from the event loop and back, one by one: {slowest}\n"
        + f"folder {tempfile.gettempdir()}, {free / 1e9:.0f} GB free\n"
    )


async def _through_the_thread(folder: Path) -> str:
    took = []
    async with await AsyncJournal.open(folder / "async.sqlite", station="bench") as made:
        await made.boot("benchmark")
        for _ in range(ROWS // 2):
            began = time.perf_counter()
            await made.record("event", "host", BODY)
            took.append(time.perf_counter() - began)
    took.sort()
    p50, p99 = took[len(took) // 2], took[int(len(took) * 0.99)]
    return f"p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms, worst {took[-1] * 1e3:.2f} ms"


def start_up(rounds: int) -> str:
    """Time ``operando --help`` against an interpreter that does nothing."""
    script = Path(sys.executable).parent / "operando"
    command = [str(script)] if script.is_file() else [sys.executable, "-m", "controller"]

    def call(words: list[str]) -> None:
        done = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip().splitlines()[-1]}")

    contenders = [
        Contender("python -c pass", lambda: call([sys.executable, "-c", "pass"])),
        Contender("operando --help", lambda: call([*command, "--help"])),
        Contender("python -m controller schema station", lambda: call(
            [sys.executable, "-m", "controller", "schema", "station"]
        )),
    ]  # fmt: skip
    race(contenders, rounds, waits=True)
    rows = [("start-up", "s, median", "asked")]
    for one in contenders:
        asked = f"< {HELP_TARGET_S} s" if one.name == "operando --help" else ""
        seconds = statistics.median(one.seconds)
        verdict = "" if not asked else (" ok" if seconds < HELP_TARGET_S else " MISSED")
        rows.append((one.name, f"{seconds:.3f}", asked + verdict))
    return grid(rows)
