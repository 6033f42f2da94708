"""Items ``fault-catalogue-GROUP``: every row of a group of the fault catalogue, in every condition it names.

Each play becomes a line in ``results.jsonl`` of the item as soon as it has ended, so that an item which was
cut off goes on with what is left: it counts as skipped until nothing is. What is known to be open
does not fail an item, and a row that was open and is met does: it must be marked as met.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from hil_tests.fault_results import digest, play_all, read, to_play, told
from hil_tests.fault_rows import CONDITIONS, Row, load
from hil_tests.soak.runner import Failed, Item, Skip, Workshop

MARGIN_S = 240.0  # the longest play must still fit into the hour


def items() -> Iterator[tuple[str, Item]]:
    """Yield (name, item) of every group."""
    for group in dict.fromkeys(row.group for row in load()):
        yield f"fault-catalogue-{group}", functools.partial(catalogue, group)


def catalogue(group: str, work: Workshop) -> str:
    """Play what is left of a group."""
    rows = [row for row in load() if row.group == group]
    path = work.folder / "results.jsonl"
    play_all(rows, CONDITIONS, path, ends=work.ends - MARGIN_S)
    results = read(path)
    work.worked_s = sum(result["took_s"] for result in results.values())
    text = "\n".join(told(result) for result in results.values())
    wrong = unexpected(rows, list(results.values()))
    if wrong:
        raise Failed("\n".join([*wrong, text]))
    left = list(to_play(rows, CONDITIONS, results))
    if left:
        raise Skip(f"{len(left)} plays are left\n{text}")
    worst_s = max((result.get("reached_wall_s", 0.0) for result in results.values()), default=0.0)
    return f"{len(rows)} rows, {len(results)} plays, the slowest state after {worst_s:.1f} s\n{text}"


def unexpected(rows: list[Row], results: list[dict[str, Any]]) -> list[str]:
    """Return what was not met though nothing says so, and what was met everywhere though it is open."""
    found = []
    for row in rows:
        mine = [r for r in results if r["name"] == row.name and r["row"] == digest(row)]
        failed = [result["condition"] for result in mine if not result["met"]]
        if failed and not row.open:
            found.append(f"not met: {row.name} ({', '.join(failed)})")
        if row.open and not failed and len(mine) == len(row.conditions):
            found.append(f"met, although it is marked open: {row.name}")
    return found
