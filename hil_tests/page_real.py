"""The live page of real runs on the bench, moment by moment: for its pictures, and for whoever looks at it.

A page that stays (``operando web``) and three runs under it: one that the emergency stop ends, one that loses
its power, one that ends in order. Nothing is played: every value comes from the twins.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from controller.web import address
from hil_tests.harness import (
    EXPERIMENTS,
    OPERANDO,
    REPOSITORY,
    Run,
    World,
    a_bench,
    edited_station,
    ending,
    eventually,
)

SPEED = 25.0
MOMENTS = ("running", "tripped", "next", "stale", "ended")


@contextlib.contextmanager
def standing(station: Path, state: Path, log: Path) -> Iterator[str]:
    """Type ``operando web`` and yield the address of the page."""
    state.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*OPERANDO, "web", str(station), "--state", str(state)], stdout=said, stderr=said, cwd=REPOSITORY
        )
    try:
        yield eventually(lambda: address.standing(state), "the page", tell=log.read_text)
    finally:
        process.terminate()
        process.wait(20.0)


def moments(folder: Path, *, speed: float = SPEED) -> Iterator[tuple[str, str]]:
    """Yield the address of the page at each of the ``MOMENTS``, with its name."""
    with contextlib.ExitStack() as stack:
        world = stack.enter_context(a_bench(folder / "bench", warm=False, speed=speed, seed=2))
        station = edited_station(world, folder / "station.toml", lambda text: text + "\n[web]\nport = 0\n")
        state = folder / "state"
        page = stack.enter_context(standing(station, state, folder / "page.log"))
        yield from ((name, page) for name in _first(world, station, state, folder))
        yield from ((name, page) for name in _second(station, state, folder))
        yield from ((name, page) for name in _third(station, state, folder))


def _first(world: World, station: Path, state: Path, folder: Path) -> Iterator[str]:
    """The quickstart, until lithium has moved; then somebody presses the emergency stop."""
    whole = EXPERIMENTS / "quickstart.toml"
    with ending(Run.start(folder / "first", whole, "--station", str(station), state=state)) as run:
        run.until(lambda status: _passes(run, "charging") >= 4, "passes while charging", seconds=300.0)
        yield "running"
        world.fault("io", "permit", given=False)
        run.ended(seconds=120.0)
        yield "tripped"
        world.mend()
        for (latched,) in run.rows("SELECT id FROM latches"):
            run.operando("clear", str(latched), "--acknowledge", "somebody leaned on it")


def _second(station: Path, state: Path, folder: Path) -> Iterator[str]:
    """A run whose computer loses its power, all at once."""
    short = EXPERIMENTS / "short.toml"
    with ending(Run.start(folder / "second", short, "--station", str(station), state=state)) as run:
        run.until(lambda status: (status["step"] or {}).get("number", 0) >= 3, "the reference scan is done")
        yield "next"
        run.kill_all()
        yield "stale"


def _third(station: Path, state: Path, folder: Path) -> Iterator[str]:
    """A run to its end."""
    short = EXPERIMENTS / "short.toml"
    with ending(Run.start(folder / "third", short, "--station", str(station), state=state)) as run:
        run.ended(seconds=200.0)
        yield "ended"


def _passes(run: Run, scan: str) -> int:
    """Return how many passes of a scan have ended; asked often, so not through every row of the journal."""
    rows = run.rows("SELECT run, body FROM events WHERE kind = 'pass'")
    return sum(of == run.run_dir.name and f'"name":"{scan}"' in body for of, body in rows)
