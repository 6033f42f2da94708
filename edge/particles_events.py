"""Particles in a time trace: samples in chunks, exact across chunk borders, to a table of events.

The trace is cut at absolute sample numbers into windows. A window's background and thresholds depend on its
own samples only, and a run of samples above the event edge is a sum, so parts join at chunk, window and file
borders without a trace: any cutting gives bit for bit the same events.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.particles_baseline import Baseline
from edge.particles_runs import EventRules, Events, Stretch, Window, events_of, filled, gap_free

Floats = NDArray[np.float64]

MAX_HELD_SAMPLES = 1 << 26  # of all lines together, waiting for their window to be whole


@dataclass(frozen=True)
class TraceResult:
    """What a trace holds: per line the baselines (window number first) and the events that it decided."""

    lines: tuple[str, ...]
    rules: EventRules
    first: int
    last: int
    n_samples: int
    baselines: tuple[tuple[tuple[int, Baseline], ...], ...]
    events: tuple[Events, ...]
    measurements: tuple[tuple[int, int], ...] = ()  # first and last sample of each, where several are pooled

    @property
    def n_missing(self) -> int:
        """Samples between the first and the last of a measurement that are not there."""
        spans = self.measurements or ((self.first, self.last),)
        return sum(last - first + 1 for first, last in spans) - self.n_samples if self.n_samples else 0

    def reach(self, number: int) -> tuple[int, int]:
        """Return the first sample and the one behind the last for which a baseline stands."""
        size = self.rules.window
        if size is not None:
            return number * size, (number + 1) * size
        first, last = self.measurements[number] if self.measurements else (self.first, self.last)
        return first, last + 1


class ParticleReducer:
    """Samples in, events out. ``add`` takes chunks in time order, ``merge`` any other part of the same trace.

    Peak memory: the samples of the windows that are not whole yet (with ``window=None`` the whole trace, at
    most ``MAX_HELD_SAMPLES``), and the events.
    """

    def __init__(self, lines: tuple[str, ...], rules: EventRules) -> None:
        if not lines or len(set(lines)) != len(lines):
            raise ValueError(f"lines must be different names, got {lines}")
        self.lines, self.rules = lines, rules
        self._held: dict[int, list[Stretch]] = {}
        self._whole: dict[int, Window] = {}
        self._parts: list[
            tuple[int, int]
        ] = []  # first and last sample of every part; the last one still grows
        self._n = 0

    def add(self, first: int, samples: NDArray[np.floating]) -> None:
        """Add a chunk.

        Args:
            first: number of its first sample in the trace (missing samples have numbers too).
            samples: counts, shape (lines, n) or (n,) for one line. NaN in any line: this sample is missing;
                it is a gap and never a zero.

        Raises:
            ValueError: the shape is wrong, a value is infinite, a sample came before, or too many wait.
        """
        block = np.atleast_2d(np.asarray(samples, np.float64))
        if block.ndim != 2 or block.shape[0] != len(self.lines):
            raise ValueError(f"samples of {len(self.lines)} lines have the shape {np.shape(samples)}")
        whole = bool(np.isfinite(block).all())
        if not whole and np.isinf(block).any():
            raise ValueError("a sample is infinite")
        if block.shape[1] == 0:
            return
        last = first + block.shape[1] - 1
        if self._parts and first <= self._parts[-1][1]:
            raise ValueError(
                f"sample {first} comes after sample {self._parts[-1][1]}: chunks must be in order"
            )
        if self._parts:
            self._parts[-1] = (self._parts[-1][0], last)
        else:
            self._parts = [(first, last)]
        for offset, stretch in [(0, block)] if whole else gap_free(block):
            self._hold(first + offset, stretch)
        if sum(block.size for stretches in self._held.values() for _, block in stretches) > MAX_HELD_SAMPLES:
            raise ValueError(f"more than {MAX_HELD_SAMPLES} samples wait for one baseline: give a window")
        self._close()

    def merge(self, other: ParticleReducer) -> None:
        """Take over another part of the same trace, before or after this one; parts may come in any order.

        Raises:
            ValueError: other lines, other rules, or parts that overlap.
        """
        if other.lines != self.lines or other.rules != self.rules:
            raise ValueError("two parts of a trace must have the same lines and rules")
        parts = sorted(self._parts + other._parts)
        for left, right in itertools.pairwise(parts):
            if right[0] <= left[1]:
                raise ValueError(f"samples {right[0]} to {right[1]} overlap samples {left[0]} to {left[1]}")
        joined: list[tuple[int, int]] = []
        for part in parts:
            if joined and part[0] == joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], part[1])
            else:
                joined.append(part)
        self._parts = joined
        for number, stretches in other._held.items():
            self._held[number] = [*self._held.get(number, []), *stretches]
        self._whole |= other._whole
        self._n += other._n
        self._close()

    def result(self) -> TraceResult:
        """Return baselines and events of what came so far; more may be added afterwards.

        Raises:
            ValueError: no samples, or no window of some line has enough background samples.
        """
        if self._n == 0:
            raise ValueError("the trace holds no samples")
        windows = self._whole | {
            number: Window.of(stretches, self.rules.threshold) for number, stretches in self._held.items()
        }
        numbers = sorted(windows)
        known = [
            filled([windows[n].baselines[k] for n in numbers], line) for k, line in enumerate(self.lines)
        ]
        return TraceResult(
            lines=self.lines, rules=self.rules, first=self._parts[0][0], last=self._parts[-1][1],
            n_samples=self._n, baselines=tuple(tuple(zip(numbers, line, strict=True)) for line in known),
            events=tuple(self._events(k, [windows[n] for n in numbers], known) for k in range(len(known))),
        )  # fmt: skip

    def _hold(self, first: int, stretch: Floats) -> None:
        size = self.rules.window
        at = 0
        while at < stretch.shape[1]:
            number = 0 if size is None else (first + at) // size
            end = stretch.shape[1] if size is None else min(stretch.shape[1], (number + 1) * size - first)
            self._held.setdefault(number, []).append((first + at, stretch[:, at:end].copy()))
            at = end
        self._n += stretch.shape[1]

    def _close(self) -> None:
        """Find the runs of every window that no other part can add to."""
        size = self.rules.window
        if size is None:
            return
        for number in list(self._held):
            low, high = number * size, (number + 1) * size - 1
            if any(first <= low and high <= last for first, last in self._parts):
                window = Window.of(self._held.pop(number), self.rules.threshold)
                self._whole[number] = window.reduced(self.rules)

    def _events(self, line: int, windows: list[Window], known: list[list[Baseline]]) -> Events:
        pieces = [
            (piece, [k[i] for k in known])
            for i, window in enumerate(windows)
            for piece in window.runs(line, known[line][i], self.rules)
        ]
        return events_of(pieces, line, self.rules)
