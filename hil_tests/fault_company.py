"""Rows that must not end a run, one after the other in one run: faults seldom come alone.

Each is struck when the one before is well again, and timed by itself; what must be found afterwards is looked
for when the run has ended. ``fault_run`` plays the rows that end a run.
"""
# ruff: noqa: S101  # tests only: an assert is what this file is for

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from hil_tests.fault_going_on import AFTER, ended, only_late, start_charging, start_scanning, well_again
from hil_tests.fault_rows import Row
from hil_tests.fault_run import LOADED_S, Measured, Scene, allowed_s, strike, told
from hil_tests.fault_settings import SETTINGS
from hil_tests.harness import Run, World

START: dict[str, Callable[[World, Path, int], Run]] = {
    "scanning": start_scanning,
    "charging": start_charging,
}
Note = Callable[[Row, Measured], None]


def companies(rows: Iterable[Row]) -> list[list[Row]]:
    """Return the rows that go on, those together that can share a run."""
    shared: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row.reach == "goes on" and row.when in START:
            key = (row.group, row.setting, row.when, row.speed, row.fast, row.name if row.alone else "")
            shared.setdefault(key, []).append(row)
    return list(shared.values())


def play_together(
    rows: Iterable[Row], world_at: Callable[[float], World], folder: Path, *, ends: float = math.inf
) -> Iterator[tuple[Row, Measured]]:
    """Yield what was measured of rows that went on together; nothing of those that did not."""
    for number, company in enumerate(companies(rows)):
        if time.monotonic() > ends:
            return
        measured: list[tuple[Row, Measured]] = []

        def note(row: Row, one: Measured, into: list[tuple[Row, Measured]] = measured) -> None:
            into.append((row, one))

        try:
            play_company(company, world_at(company[0].speed), folder / f"company{number}", note)
        except Exception as error:  # what is not noted is played by itself then
            names = ", ".join(row.name for row in company)
            print(f"together: {names}: {str(error)[:2000]}", file=sys.stderr, flush=True)
        yield from measured


def play_company(rows: list[Row], world: World, folder: Path, note: Note) -> None:
    """Play rows to the end of their run; ``note`` is told of each that was well again in its time.

    Raises AssertionError with the name of the row.
    """
    first = rows[0]
    later: list[Callable[[], None]] = []
    things: dict[str, Any] = {}
    run: Run | None = None
    try:
        if first.setting:
            world = SETTINGS[first.setting](world, folder, things, later)
        run = START[first.when](world, folder, len(rows))
        played = []
        for row in rows:
            scene = Scene(row, world, run, folder, later, things)
            played.append((scene, _one(scene)))
        code = ended(run, report=any("a result" in row.after for row in rows))
        failed = []
        for scene, reached_s in played:
            try:
                _check(scene, code)
            except AssertionError as error:
                failed.append(error)
            else:
                note(scene.row, Measured(reached_s, allowed_s(scene.row, "guard"), code, ()))
        if failed:
            raise failed[0]
    finally:
        for undo in reversed(later):
            undo()
        if run is not None:
            run.kill_all()


def _one(scene: Scene) -> float:
    """Strike, wait until it is well again; return the wall seconds that took."""
    row, since_s = scene.row, time.monotonic()
    signs = [sign for part in row.strike if (sign := strike(scene, part)) is not None]
    reached_s = well_again(scene, signs, since_s)
    allowed = allowed_s(row, "guard")
    assert reached_s <= allowed + LOADED_S, f"{row.name}: well again after {reached_s:.2f} s, not {allowed:g}"
    return reached_s


def _check(scene: Scene, code: int) -> None:
    row, run = scene.row, scene.run
    assert code in row.exit or (code == 6 and only_late(run)), (row.name, code, run.tell())
    assert not run.events("trip"), (row.name, run.lines())
    kinds = {event["kind"] for event in run.events()}
    assert set(row.journal) <= kinds, (row.name, row.journal, kinds)
    assert re.search(row.told, told(run)), (row.name, row.told, run.lines())
    for name in row.after:
        AFTER[name](scene)
