"""Several measurements of one sample as one: events found in each by itself, then put one after the other.

A trace has a background of its own, so traces are not joined before their events are known; afterwards the
particles of all of them count alike. The numbers of the samples go on from one measurement to the next, with
a gap between them that no event and no pair of lines can bridge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from edge.particles_baseline import Baseline
from edge.particles_events import TraceResult
from edge.particles_runs import EventRules, Events

GAP = 1000  # samples
PLACES = ("start", "stop", "peak")  # of Events: numbers of samples


def shifts(results: Sequence[TraceResult], gap: int = GAP) -> list[int]:
    """Return by how much the sample numbers of each measurement move; whole windows where there are any."""
    found, free = [], results[0].first
    for one in results:
        step = one.rules.window or 1
        found.append(-((one.first - free) // step) * step)
        free = one.last + found[-1] + 1 + gap
    return found


def pooled(results: Sequence[TraceResult], gap: int = GAP) -> TraceResult:
    """Return the events of all measurements as those of one trace; events and baselines are not changed.

    Args:
        results: of the same lines and rules, in the order that is wanted.
        gap: samples between two of them, more than any pair of lines may lie apart.

    Raises:
        ValueError: without results, or if lines or rules differ.
    """
    if not results:
        raise ValueError("no measurements")
    first = results[0]
    for one in results[1:]:
        if (one.lines, one.rules) != (first.lines, first.rules):
            raise ValueError(
                "only measurements of the same lines, reduced by the same rules, are put together"
            )
    moved = shifts(results, gap)
    size = first.rules.window
    baselines = tuple(
        tuple(
            (k if size is None else number + shift // size, baseline)
            for k, (one, shift) in enumerate(zip(results, moved, strict=True))
            for number, baseline in one.baselines[line]
        )
        for line in range(len(first.lines))
    )
    events = tuple(
        _joined([(one.events[line], shift) for one, shift in zip(results, moved, strict=True)])
        for line in range(len(first.lines))
    )
    spans = tuple((one.first + shift, one.last + shift) for one, shift in zip(results, moved, strict=True))
    return TraceResult(
        first.lines, first.rules, spans[0][0], spans[-1][1], sum(one.n_samples for one in results), baselines,
        events, spans,
    )  # fmt: skip


def state(result: TraceResult) -> dict[str, Any]:
    """Return a result as plain values and arrays, for ``restored``."""
    return {
        "lines": list(result.lines), "first": result.first, "last": result.last, "n": result.n_samples,
        "baselines": [[[number, asdict(one)] for number, one in line] for line in result.baselines],
        "events": [asdict(one) for one in result.events],
    }  # fmt: skip


def restored(given: Mapping[str, Any], rules: EventRules) -> TraceResult:
    """Return the result that ``state`` came from, which these rules made."""
    baselines = tuple(
        tuple((int(number), Baseline(**one)) for number, one in line) for line in given["baselines"]
    )
    events = tuple(Events(**one) for one in given["events"])
    return TraceResult(
        tuple(given["lines"]), rules, given["first"], given["last"], given["n"], baselines, events
    )


def _joined(parts: Sequence[tuple[Events, int]]) -> Events:
    columns: dict[str, Any] = {}
    for name in Events.__dataclass_fields__:
        columns[name] = np.concatenate(
            [getattr(one, name) + shift if name in PLACES else getattr(one, name) for one, shift in parts]
        )
    return Events(**columns)
