"""Plays the fault catalogue outside pytest and keeps what was measured.

    python -m hil_tests.fault_results play --groups temperature,cell      every row in every condition
    python -m hil_tests.fault_results play --row "Pt100 open" --conditions guard
    python -m hil_tests.fault_results table                               makes hil_tests/FAULTS.md

Every row in every condition becomes one line of JSON as soon as it has ended, so that what was interrupted
goes on where it was: a row that has a result, and has not been changed since, is not played again.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from hil_tests.fault_company import play_together
from hil_tests.fault_rows import CLAIMED_SPEED, CONDITIONS, FOLDER, Row, load
from hil_tests.fault_run import Measured, NotStruck, play
from hil_tests.harness import World, warm_scenario
from hil_tests.soak.runner import tree_state

RESULTS = FOLDER / "results.jsonl"
ELSEWHERE = ("open", "fast", "conditions")  # keys that change nothing of a play
ATTEMPTS = 3  # to come to the strike
LONGEST_ERROR = 600  # characters of a failure that are kept


class Benches:
    """One bench that rows share as long as it lives; each speed has its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._world: World | None = None
        self._made = 0

    def at(self, speed: float) -> World:
        """Return a bench with nothing wrong with it."""
        world = self._world
        alive = world is not None and world.process is not None and world.process.poll() is None
        if world is None or not alive or world.spent or world.speed != speed:
            self.stop()
            self._made += 1
            folder = self._folder / f"bench{self._made}"
            scenario = warm_scenario(folder / "warm.toml")
            world = self._world = World.start(folder, speed=speed, seed=11, scenario=scenario)
        world.mend()
        return world

    def stop(self) -> None:
        """End the bench, if there is one."""
        if self._world is not None:
            self._world.stop()
            self._world = None


def digest(row: Row) -> str:
    """Return a short name for what a play of a row is: made from the keys that it gives."""
    usual = {field.name: field.default for field in fields(row)}
    said = {key: value for key, value in asdict(row).items() if value != usual[key] and key not in ELSEWHERE}
    text = json.dumps(said, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def machine() -> str:
    """Return what the times were measured on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    return f"{len(names) or '?'} x {processor}, Python {platform.python_version()}"


def read(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the newest result of each row and condition."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    if path.is_file():
        for line in path.read_text().splitlines():
            result = json.loads(line)
            found[result["name"], result["condition"]] = result
    return found


def to_play(
    rows: Iterable[Row], conditions: Sequence[str], known: Mapping[tuple[str, str], Mapping[str, Any]]
) -> Iterator[tuple[Row, str]]:
    """Yield what has no result yet, or one of a row that was different."""
    for row in rows:
        for condition in row.conditions:
            result = known.get((row.name, condition))
            if condition in conditions and (result is None or result["row"] != digest(row)):
                yield row, condition


def measure(
    row: Row, condition: str, benches: Benches, folder: Path, tree: str, speed: float = CLAIMED_SPEED
) -> dict[str, Any]:
    """Play a row, no faster than ``speed`` if times are claimed; return its result, also when it failed.

    Raises:
        NotStruck: the machine did not let the run come to the strike: there is no result.
    """
    began, name = time.monotonic(), digest(row)
    if row.speed <= CLAIMED_SPEED:
        row = replace(row, speed=min(row.speed, speed))
    try:
        measured: Measured | str = _played(row, condition, benches, folder)
    except NotStruck:
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {str(error) or where.line}"
        print(said, file=sys.stderr, flush=True)
        measured = shortened(said)
    return stamped(row, name, condition, measured, began, tree)


def stamped(
    row: Row, name: str, condition: str, measured: Measured | str, began: float, tree: str
) -> dict[str, Any]:
    """Return a result with what it was measured on; ``measured`` in words is why it was not met."""
    result: dict[str, Any] = {"group": row.group, "name": row.name, "condition": condition}
    if isinstance(measured, str):
        result |= {"met": False, "error": measured}
    else:
        result |= {
            "met": True, "reached_wall_s": round(measured.reached_wall_s, 2),
            "allowed_wall_s": round(measured.allowed_wall_s, 2), "exit": measured.exit,
            "trips": list(measured.trips),
        }  # fmt: skip
    return {
        **result, "took_s": round(time.monotonic() - began, 1), "row": name, "tree": tree,
        "speed": row.speed,
        "machine": machine(), "load": round(os.getloadavg()[0], 1), "date": time.strftime("%Y-%m-%d %H:%M"),
    }  # fmt: skip


def _played(row: Row, condition: str, benches: Benches, folder: Path) -> Measured:
    """Play a row; once more, and again, when a busy machine did not let the run come to the strike."""
    for attempt in range(1, ATTEMPTS):
        try:
            return play(row, condition, benches.at(row.speed), folder / f"{attempt}")
        except NotStruck as error:
            print(f"{row.name}: not struck: {error}", file=sys.stderr, flush=True)
            benches.stop()
    return play(row, condition, benches.at(row.speed), folder / f"{ATTEMPTS}")


def shortened(said: str) -> str:
    """Return what failed and the last lines that the run itself had for people."""
    said = said.replace("\\n", "\n")  # of a text inside a tuple
    head = said.partition("\n")[0]
    lines = said.partition("--- lines\n")[2].partition("--- left over")[0].strip().splitlines()
    return " / ".join([head, *lines[-3:]])[:LONGEST_ERROR]


@contextmanager
def _benches(folder: Path | None) -> Iterator[tuple[Benches, Path]]:
    with tempfile.TemporaryDirectory(prefix="faults-", dir=folder) as scratch:
        benches = Benches(Path(scratch))
        try:
            yield benches, Path(scratch)
        finally:
            benches.stop()


def play_all(
    rows: Sequence[Row],
    conditions: Sequence[str],
    results: Path,
    *,
    again: bool = False,
    scratch: Path | None = None,
    ends: float = float("inf"),
    speed: float = CLAIMED_SPEED,
) -> list[dict[str, Any]]:
    """Play what has no result yet and append it; stop before ``ends`` (monotonic). Return the new results."""
    new: list[dict[str, Any]] = []
    tree = tree_state()
    results.parent.mkdir(parents=True, exist_ok=True)
    with _benches(scratch) as (benches, folder):
        pending = list(to_play(rows, conditions, {} if again else read(results)))
        together = in_company(pending, benches, folder, tree, ends)
        alone = one_by_one(pending, new, benches, folder, tree, speed)
        for result in itertools.chain(together, alone):
            with results.open("a") as stream:
                stream.write(json.dumps(result) + "\n")
            new.append(result)
            print(told(result), flush=True)
            if time.monotonic() > ends:
                break
    return new


def in_company(
    pending: Iterable[tuple[Row, str]], benches: Benches, folder: Path, tree: str, ends: float
) -> Iterator[dict[str, Any]]:
    """Yield results of rows that went on together in one run; what is left out is to be played alone."""
    rows = [row for row, condition in pending if condition == "guard" and not row.open]
    began = time.monotonic()
    for row, measured in play_together(rows, benches.at, folder, ends=ends):
        yield stamped(row, digest(row), "guard", measured, began, tree)
        began = time.monotonic()


def one_by_one(
    pending: Iterable[tuple[Row, str]], known: Sequence[Mapping[str, Any]], benches: Benches, folder: Path,
    tree: str, speed: float,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yield the result of each row that ``known`` has not got meanwhile; what was not struck has none."""
    for number, (row, condition) in enumerate(pending):
        if (row.name, condition) in {(result["name"], result["condition"]) for result in known}:
            continue
        try:
            yield measure(row, condition, benches, folder / f"row{number}", tree, speed)
        except NotStruck as error:
            print(f"{row.name} ({condition}): not struck: {shortened(str(error))}", flush=True)


def told(result: Mapping[str, Any]) -> str:
    """Return a result as a line for people."""
    head = f"{result['group']}: {result['name']} ({result['condition']})"
    if not result["met"]:
        return f"{head}: NOT MET\n    {result['error']}"
    return f"{head}: {result['reached_wall_s']} s of {result['allowed_wall_s']:g} s allowed"


def chosen(groups: str, names: Sequence[str]) -> list[Row]:
    """Return the rows of some groups, or of some names. Raises ValueError for a name that no row has."""
    rows = load()
    unknown = set(filter(None, groups.split(","))) - {row.group for row in rows}
    unknown |= set(names) - {row.name for row in rows}
    if unknown:
        raise ValueError(f"no such group or row: {', '.join(sorted(unknown))}")
    wanted = groups.split(",") if groups else [row.group for row in rows]
    return [row for row in rows if (row.name in names if names else row.group in wanted)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit code 1 when a row was not met that is not known to be open."""
    from hil_tests.fault_table import write

    parser = argparse.ArgumentParser(prog="python -m hil_tests.fault_results", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("what", choices=("play", "table"))
    parser.add_argument("--groups", default="", help="names of files in hil_tests/faults, with commas")
    parser.add_argument("--row", action="append", default=[], help="name of a row; may be repeated")
    parser.add_argument("--conditions", default=",".join(CONDITIONS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--speed", type=float, default=CLAIMED_SPEED, help="no faster, on a busy machine")
    parser.add_argument("--again", action="store_true", help="also what has a result")
    args = parser.parse_args(arguments)
    if args.what == "table":
        print(write(read(args.results)))
        return 0
    try:
        rows = chosen(args.groups, args.row)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    known_open = {row.name for row in rows if row.open}
    new = play_all(rows, args.conditions.split(","), args.results, again=args.again, speed=args.speed)
    return int(any(not result["met"] and result["name"] not in known_open for result in new))


if __name__ == "__main__":
    sys.exit(main())
