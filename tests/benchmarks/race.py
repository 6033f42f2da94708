"""Contenders against each other, interleaved round by round: a busy machine slows all of them alike.

Work that is done in one thread and waits for nothing is timed by the processor time of that thread: what the
clock shows beyond it, others had. They still take cache and memory, so the table says how much of the clock
was ours, and that numbers from a busy machine are to be taken with care.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Contender:
    """One way to do some work; ``target`` is the least ratio to the peer that is asked for."""

    name: str
    call: Callable[[], Any]
    target: float | None = None
    note: str = ""
    seconds: list[float] = field(default_factory=list)
    clock_s: list[float] = field(default_factory=list)


BUSY = 0.9  # of the clock that was ours: below, the table says so


def race(contenders: Sequence[Contender], rounds: int, *, waits: bool = False) -> None:
    """Call every contender once to warm up, then once per round, each round beginning with another one.

    Args:
        contenders: their ``seconds`` get the time of each call.
        rounds: how often.
        waits: the work waits for a disk or other processes, or is done by them: the clock counts, not the
            processor time of this thread.
    """
    own = time.perf_counter if waits else time.thread_time
    for contender in contenders:
        contender.call()
    gc.disable()
    try:
        for number in range(rounds):
            shift = number % len(contenders)
            for contender in [*contenders[shift:], *contenders[:shift]]:
                began, at = own(), time.perf_counter()
                contender.call()
                contender.seconds.append(own() - began)
                contender.clock_s.append(time.perf_counter() - at)
    finally:
        gc.enable()


def table(title: str, contenders: Sequence[Contender], *, work: float, unit: str, peer: str) -> str:
    """Return the medians as a table.

    Args:
        title: what was raced.
        contenders: after the race.
        work: items that one call does.
        unit: of the rate, such as ``"M events/s"``; a leading ``k`` or ``M`` scales it.
        peer: the contender that the ratios refer to.
    """
    scale = {"k": 1e3, "M": 1e6}.get(unit.partition(" ")[0], 1.0)
    (reference,) = (one for one in contenders if one.name == peer)
    rows = [(title, unit, f"ratio to {peer}", "asked", "")]
    for one in contenders:
        pairs = zip(reference.seconds, one.seconds, strict=True)
        ratio = statistics.median(theirs / ours for theirs, ours in pairs)
        asked = "-" if one.target is None else f">= {one.target:g}"
        verdict = "" if one.target is None else ("ok" if ratio >= one.target else "MISSED")
        rate = work / statistics.median(one.seconds) / scale
        rows.append((one.name, f"{rate:.4g}", f"{ratio:.2f}", asked, f"{verdict} {one.note}".strip()))
    share = sum(map(sum, (c.seconds for c in contenders))) / sum(map(sum, (c.clock_s for c in contenders)))
    busy = f"others had the processor for {1 - share:.0%} of the time: take with care\n"
    return grid(rows) + (busy if share < BUSY else "")


def demand(contenders: Sequence[Contender], name: str, peer: str, least: float) -> str:
    """Return a line with the ratio of one contender to another one than the peer of the table."""
    (ours,), (theirs,) = ([one for one in contenders if one.name == wanted] for wanted in (name, peer))
    ratio = statistics.median(b / a for a, b in zip(ours.seconds, theirs.seconds, strict=True))
    return f"{name} / {peer}: {ratio:.2f}, asked >= {least:g} {'ok' if ratio >= least else 'MISSED'}\n"


def grid(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned text, the first one underlined."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], ""])
