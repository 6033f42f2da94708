"""Runs of samples above the background, and how they become events: parts that join at borders.

Areas reach down to the background mean b and include the sample that ends them and one more on either side.
The number of background samples in an event is then a stopping time plus one, so by Wald's identity the
expectation of the sum of (x - b) over them is zero: adding up only what lies above b would be biased
upwards, cutting off what lies below the threshold downwards. The one more sample catches feet that fall
below b by chance.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge.particles_baseline import Baseline, baseline
from edge.particles_kernels import ABOVE, HEIGHT, PEAK, RUN_INTEGERS, START, STOP, SUMS, count_runs, find_runs
from edge.particles_thresholds import Threshold

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Edge = Literal["background", "threshold"]
FEET = 2  # samples beside a run that belong to its event: the one that ends it, and one more
Stretch = tuple[int, Floats]  # number of the first sample, samples of shape (lines, n) without a gap


@dataclass(frozen=True)
class EventRules:
    """What an event is.

    Attributes:
        threshold: rule of the decision level.
        edge: how far an event reaches: down to the ``background`` mean (accumulation limit; the first sample
            at or below it and one more on either side belong to the event) or only while above the
            ``threshold``.
        min_points: least number of samples above the threshold.
        window: samples per baseline window; None takes one baseline for the whole trace.
        noise: variance per count: 1 for counted pulses, exp(sigma_ion^2) for a time-of-flight detector.
    """

    threshold: Threshold = field(default_factory=Threshold)
    edge: Edge = "background"
    min_points: int = 3
    window: int | None = None
    noise: float = 1.0

    def __post_init__(self) -> None:
        if self.edge not in ("background", "threshold"):
            raise ValueError(f"event edge {self.edge!r} is neither background nor threshold")
        if self.min_points < 1 or (self.window is not None and self.window < 1000) or not self.noise > 0:
            raise ValueError("min_points must be at least 1, a window 1000 samples, the noise above 0")


@dataclass(frozen=True)
class Events:
    """Events that one line decided, ordered in time. Area and height are different things: both are here.

    Attributes:
        start, stop: first sample and the one behind the last, int64, shape (n,).
        peak: number of the highest sample.
        points: samples above the threshold.
        height_counts: the highest sample minus the background, shape (n,).
        area_counts: sum over the event minus the background, of every line, shape (n, lines): the counts of
            the particle. The other lines are summed over the same samples, whether they show an event or not.
        sigma_counts: one sigma of the areas, shape (n, lines): counting (noise x gross counts, at least
            those of the background) and the error of the background.
        gross_counts, background_counts: the two terms, shape (n, lines).
        cut: the event touches a gap or an end of the trace, so its area is too small.
    """

    start: Ints
    stop: Ints
    peak: Ints
    points: Ints
    height_counts: Floats
    area_counts: Floats
    sigma_counts: Floats
    gross_counts: Floats
    background_counts: Floats
    cut: NDArray[np.bool_]

    def __len__(self) -> int:
        return int(self.start.size)

    def where(self, chosen: NDArray[np.bool_] | Ints) -> Events:
        """Return some of the events."""
        return Events(**{name: getattr(self, name)[chosen] for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Piece:
    """The runs that one line shows in one gap-free stretch of one window."""

    start: int
    stop: int
    integers: Ints
    floats: Floats
    head: Floats  # first and last two samples of all lines, shape (lines, 2)
    tail: Floats
    before: Floats  # of every run: the two samples before it, (runs, lines, 2), NaN outside this stretch
    after: Floats


@dataclass(frozen=True)
class Window:
    """One window: its baselines, and either its samples or what was found in them."""

    baselines: tuple[Baseline | None, ...]
    stretches: tuple[Stretch, ...]
    pieces: tuple[tuple[Piece, ...], ...] | None = None

    @classmethod
    def of(cls, stretches: list[Stretch], threshold: Threshold) -> Window:
        """Join the stretches of a window and find its baselines."""
        joined: list[list[Stretch]] = []
        for stretch in sorted(stretches, key=lambda s: s[0]):
            if joined and joined[-1][-1][0] + joined[-1][-1][1].shape[1] == stretch[0]:
                joined[-1].append(stretch)
            else:
                joined.append([stretch])
        whole = tuple(
            (group[0][0], np.ascontiguousarray(np.concatenate([block for _, block in group], axis=1)))
            for group in joined
        )
        lines = whole[0][1].shape[0]
        return cls(tuple(baseline([block[k] for _, block in whole], threshold) for k in range(lines)), whole)

    def reduced(self, rules: EventRules) -> Window:
        """Find the runs and let the samples go; as it is when a baseline has to be borrowed first."""
        pieces = []
        for k, line in enumerate(self.baselines):
            if line is None:
                return self
            pieces.append(tuple(self.runs(k, line, rules)))
        return Window(self.baselines, (), tuple(pieces))

    def runs(self, line: int, background: Baseline, rules: EventRules) -> list[Piece]:
        """Return the runs of one line in time order."""
        if self.pieces is not None:
            return list(self.pieces[line])
        level = background.mean_counts if rules.edge == "background" else background.threshold
        return [
            _piece(first, block, line, min(level, background.threshold), background.threshold)
            for first, block in self.stretches
        ]


def _piece(first: int, block: Floats, line: int, level: float, threshold: float) -> Piece:
    lines, n = block.shape
    most = count_runs(block, line, level, threshold)
    integers = np.empty((most, RUN_INTEGERS), np.int64)
    floats = np.empty((most, SUMS + lines))
    find_runs(block, line, first, level, threshold, integers, floats)
    feet = np.arange(FEET)
    return Piece(
        first, first + n, integers, floats, head=_samples(block, feet), tail=_samples(block, feet + n - FEET),
        before=_samples(block, integers[:, START, None] - first - FEET + feet).swapaxes(0, 1),
        after=_samples(block, integers[:, STOP, None] - first + feet).swapaxes(0, 1),
    )  # fmt: skip


def _samples(block: Floats, at: Ints) -> Floats:
    """Return the samples of all lines at these numbers, NaN outside the block."""
    inside = (at >= 0) & (at < block.shape[1])
    out: Floats = np.where(inside, block[:, np.where(inside, at, 0)], np.nan)
    return out


def gap_free(block: Floats) -> list[tuple[int, Floats]]:
    """Return (offset, stretch) of everything between samples that are NaN in some line."""
    missing = np.flatnonzero(np.isnan(block).any(axis=0))
    if missing.size == 0:
        return [(0, block)]
    cuts = np.concatenate([[-1], missing, [block.shape[1]]])
    return [(int(a) + 1, block[:, a + 1 : b]) for a, b in itertools.pairwise(cuts) if b - a > 1]


def filled(found: list[Baseline | None], line: str) -> list[Baseline]:
    """Return a baseline for every window: its own, else that of the window before, else of the next one."""
    good = [b for b in found if b is not None]
    if not good:
        raise ValueError(f"line {line}: no window has enough background samples for a baseline")
    previous, out = good[0], []
    for b in found:
        out.append(replace(previous, borrowed=True) if b is None else b)
        previous = out[-1] if b is None else b
    return out


def events_of(pieces: list[tuple[Piece, list[Baseline]]], line: int, rules: EventRules) -> Events:
    """Join the runs of one line across borders and return those that are events.

    Args:
        pieces: in time order, each with the baselines of all lines in its window.
        line: the one that decided.
        rules: what an event is.
    """
    before, after = _neighbours([piece for piece, _ in pieces])
    if before.shape[0] == 0:
        return _none(len(pieces[0][0].head))
    integers = np.concatenate([piece.integers for piece, _ in pieces])
    floats = np.concatenate([piece.floats for piece, _ in pieces])
    runs = [len(piece.integers) for piece, _ in pieces]
    mean = np.repeat([[b.mean_counts for b in backgrounds] for _, backgrounds in pieces], runs, axis=0)
    sigma = np.repeat([[b.sigma_counts for b in backgrounds] for _, backgrounds in pieces], runs, axis=0)
    joined = np.concatenate([[False], integers[1:, START] == integers[:-1, STOP]])
    head = np.flatnonzero(~joined)
    tail = np.append(head[1:], joined.size) - 1
    length = (integers[:, STOP] - integers[:, START])[:, None].astype(np.float64)
    gross = floats[:, SUMS:].copy()
    cut = np.isnan(before[head, 0, -1]) | np.isnan(after[tail, 0, 0])
    if rules.edge == "background":
        for rows, samples in ((head, before[head]), (tail, after[tail])):
            np.add.at(gross, rows, np.nansum(samples, axis=-1))
            np.add.at(length, rows, np.count_nonzero(~np.isnan(samples[:, :1]), axis=-1))
    height = floats[:, HEIGHT] - mean[:, line]
    best = head.copy()
    for k in np.flatnonzero(tail > head):  # joined at a border: the highest of the parts
        best[k] += int(np.argmax(floats[head[k] : tail[k] + 1, HEIGHT]))
    total, background = np.add.reduceat(gross, head), np.add.reduceat(length * mean, head)
    variance = rules.noise * np.maximum(total, background) + np.add.reduceat((length * sigma) ** 2, head)
    events = Events(
        start=integers[head, START], stop=integers[tail, STOP], peak=integers[best, PEAK],
        points=np.add.reduceat(integers[:, ABOVE], head), height_counts=height[best],
        area_counts=total - background, sigma_counts=np.sqrt(variance), gross_counts=total,
        background_counts=background, cut=cut,
    )  # fmt: skip
    return events.where(events.points >= rules.min_points)


def _neighbours(pieces: list[Piece]) -> tuple[Floats, Floats]:
    """Return the samples before and after every run; at a border they come from the pieces that touch it."""
    before, after = [piece.before.copy() for piece in pieces], [piece.after.copy() for piece in pieces]
    context = np.full_like(pieces[0].head, np.nan)
    for i, piece in enumerate(pieces):
        touches = i > 0 and pieces[i - 1].stop == piece.start
        context = _last(context, pieces[i - 1].tail) if touches else np.full_like(context, np.nan)
        for k in range(FEET):  # only the first run can lie so close to the start
            if len(before[i]) and (own := int(piece.integers[0, START]) - FEET + k) < piece.start:
                before[i][0, :, k] = context[:, own - piece.start + FEET]
    context = np.full_like(context, np.nan)
    for i in range(len(pieces) - 1, -1, -1):
        piece = pieces[i]
        touches = i + 1 < len(pieces) and pieces[i + 1].start == piece.stop
        context = _first(pieces[i + 1].head, context) if touches else np.full_like(context, np.nan)
        for k in range(FEET):
            if len(after[i]) and (own := int(piece.integers[-1, STOP]) + k) >= piece.stop:
                after[i][-1, :, k] = context[:, own - piece.stop]
    return np.concatenate(before), np.concatenate(after)


def _last(left: Floats, right: Floats) -> Floats:
    """Return the last two samples of left followed by right, where right may hold fewer than two."""
    both = np.concatenate([left, right], axis=1)
    there = np.flatnonzero(~np.isnan(right[0]))
    keep = [*range(left.shape[1]), *(left.shape[1] + there).tolist()]
    return both[:, keep[-FEET:]]


def _first(left: Floats, right: Floats) -> Floats:
    """Return the first two samples of left followed by right, where left may hold fewer than two."""
    both = np.concatenate([left, right], axis=1)
    there = np.flatnonzero(~np.isnan(left[0])).tolist()
    keep = [*there, *range(left.shape[1], both.shape[1])]
    return both[:, keep[:FEET]]


def _none(lines: int) -> Events:
    ints, floats, table = np.zeros(0, np.int64), np.zeros(0), np.zeros((0, lines))
    return Events(ints, ints, ints, ints, floats, table, table, table, table, np.zeros(0, bool))
