"""How long `safe` takes, from the command to the last output that is truly off, while the machine is busy.

Each round starts a run on the virtual bench, waits until plate, cell and beam are on, keeps as many processes
busy as there are cores, and asks for `safe` as the command line does. The bench is asked every few
milliseconds what is truly on; what the host says is not used. Two conditions: control answers, and control
frozen (SIGSTOP), so that the supervisor must act.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from controller.paths import StateDir
from controller.talk import _safe
from hil_tests.harness import World, ending, start_energised, warm_scenario
from tests.benchmarks.race import grid
from tests.benchmarks.system import load

SPEED = 1.0  # as on real instruments: deadlines in wall time are those of the files
POLL_S = 0.002
OFF_WITHIN_S = 15.0
ASKED_S = {"control answers": 0.1, "control frozen": 0.5}  # p99, beyond the instruments' own answer time


@dataclass(frozen=True)
class Round:
    """One `safe`: seconds of the wall."""

    off_s: float  # until the last output is truly off
    beam_and_heat_s: float  # until those of the I/O box are
    instruments_s: float  # what the slowest off command took by itself
    by: str


def measure(args: argparse.Namespace) -> str:
    """Run all rounds of both conditions; return the table."""
    rows = [
        ("safe, ms of the wall", "rounds", "p50", "p99", "largest", "beam+heat p99", "slowest command p50",
         "asked p99"),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="operando-safe-") as scratch:
        folder = Path(scratch)
        world = World.start(folder / "bench", speed=SPEED, scenario=warm_scenario(folder / "warm.toml"))
        try:
            for condition, asked_s in ASKED_S.items():
                rounds = [
                    _round(
                        world, folder / f"{condition[-1]}{number}", args.safe_burners, frozen=asked_s > 0.1
                    )
                    for number in range(args.safe_rounds)
                ]
                rows.append(_row(condition, rounds, asked_s))
        finally:
            world.stop()
    return grid(rows)


def _round(world: World, folder: Path, burners: int, *, frozen: bool) -> Round:
    with ending(start_energised(world, folder)) as run, load(burners):
        time.sleep(0.5)  # the busy processes are under way
        if frozen:
            run.signal("control", signal.SIGSTOP)
        seen: dict[str, float] = {}
        asked_s = time.monotonic()
        watcher = threading.Thread(target=_watch, args=(world, seen))
        watcher.start()
        reply = _safe(StateDir(run.state), {"do": "safe", "by": "the benchmark"})
        watcher.join()
        slowest = max((result["seconds"] for result in reply.get("results") or []), default=0.0)
        off_s, beam_s = seen["off"] - asked_s, seen["beam and heat"] - asked_s
        return Round(off_s, beam_s, slowest, str(reply.get("by", "control")))


def _watch(world: World, seen: dict[str, float]) -> None:
    deadline = time.monotonic() + OFF_WITHIN_S
    while "off" not in seen:
        now = world.outputs()
        if now.beam_and_heat_off:
            seen.setdefault("beam and heat", now.wall_s)
        if now.off:
            seen["off"] = now.wall_s
        elif time.monotonic() > deadline:
            seen["off"] = math.inf
            seen.setdefault("beam and heat", math.inf)
        time.sleep(POLL_S)


def _row(condition: str, rounds: list[Round], asked_s: float) -> tuple[str, ...]:
    off_ms = sorted(1e3 * one.off_s for one in rounds)
    beam_ms = sorted(1e3 * one.beam_and_heat_s for one in rounds)
    instruments_ms = statistics.median(1e3 * one.instruments_s for one in rounds)
    return (
        f"{condition}, by {'/'.join(sorted({one.by for one in rounds}))}", str(len(rounds)),
        f"{statistics.median(off_ms):.0f}", f"{_p99(off_ms):.0f}", f"{off_ms[-1]:.0f}",
        f"{_p99(beam_ms):.0f}", f"{instruments_ms:.0f}", f"{1e3 * asked_s:.0f} + instruments",
    )  # fmt: skip


def _p99(ordered: list[float]) -> float:
    """Return the 99th percentile; with fewer than a hundred rounds that is the largest."""
    return ordered[min(len(ordered) - 1, math.ceil(0.99 * len(ordered)) - 1)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this benchmark."""
    parser.add_argument("--safe-rounds", type=int, default=30, help="rounds of `safe` in each condition")
    cores = os.cpu_count() or 1
    parser.add_argument("--safe-burners", type=int, default=cores, help="busy processes (default: all cores)")
