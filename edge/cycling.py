"""Cycling logs: capacity and energy of every step with errors, CC and CV parts, half cycles and efficiencies.

Current is positive when it charges the cell, everywhere. Capacities and energies of a step are amounts (not
signed); the state of the step says which way. They are integrated from the samples, and compared with the
cycler's own counter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.cycling_control import Crossing, classify, crossing, current_noise
from edge.uncertainty import Estimate

Floats = NDArray[np.float64]
S_PER_H = 3600.0
GAP_FACTOR = 10.0  # times the usual interval of a step is a gap
GAP_S = 60.0  # and at least this


@dataclass(frozen=True)
class Records:
    """Some records of a log, in time order; arrays of equal length."""

    time_s: Floats
    current_a: Floats  # charge positive
    voltage_v: Floats
    cycle: NDArray[np.int64]
    step: NDArray[np.int64]
    state: NDArray[np.int8]  # 0 rest, 1 charge, -1 discharge
    step_time_s: Floats | None = None
    counter_ah: Floats | None = None  # from 0 in each step, not negative
    counter_wh: Floats | None = None

    def __post_init__(self) -> None:
        sizes = {
            one.name: getattr(self, one.name).size
            for one in fields(self)
            if getattr(self, one.name) is not None
        }
        if len(set(sizes.values())) > 1:
            raise ValueError(f"columns of different length: {sizes}")


@dataclass(frozen=True)
class Accuracy:
    """What is known of the cycler. Zero means: not stated, and then not in the error."""

    current_gain: float = 0.0  # one sigma, relative, common to the whole log
    current_offset_a: float = 0.0  # one sigma, common to the whole log
    voltage_offset_v: float = 0.0
    current_resolution_a: float = 0.0
    voltage_resolution_v: float = 0.0
    time_resolution_s: float = 0.0
    counter_resolution_ah: float = 0.0


@dataclass(frozen=True)
class Amount:
    """An integral over a step with the parts of its error (one sigma each)."""

    value: float
    stat: float  # noise and rounding of current and time
    sampling: float  # what happens between samples
    gain: float  # common to the whole log: cancels in efficiencies
    offset: float  # the same current for the whole log: adds in efficiencies
    gap: float  # time without samples while current flowed

    def estimate(self, unit: str) -> Estimate:
        """Return value, stat and all systematic parts in quadrature."""
        return Estimate(
            self.value, self.stat, math.hypot(self.sampling, self.gain, self.offset, self.gap), unit
        )


def total(parts: Sequence[Amount]) -> Amount:
    """Return the sum of amounts of one direction: gain and offset add linearly, the rest in quadrature."""

    def root(name: str) -> float:
        return math.hypot(*(getattr(one, name) for one in parts))

    def plain(name: str) -> float:
        return math.fsum(getattr(one, name) for one in parts)

    return Amount(plain("value"), root("stat"), root("sampling"), plain("gain"), plain("offset"), root("gap"))


@dataclass(frozen=True)
class Switch:
    """The change from constant current to constant voltage inside a step, or at its start."""

    record: int  # first record at constant voltage, counted in the step
    time: Estimate  # of the log, s
    voltage_v: float
    before: Amount  # Ah passed before
    after: Amount  # Ah passed after it


@dataclass(frozen=True)
class StepResult:
    """One step: a run of records with the same cycle, program step and state."""

    first: int  # record of the log
    last: int  # one past the last record
    cycle: int
    step: int
    state: int
    start_s: float
    duration_s: float
    current_a: float  # median
    voltage_first_v: float
    voltage_last_v: float
    control: str  # "CC", "CV", "CC-CV", "rest", "other": as found in the samples
    capacity: Amount  # Ah
    energy: Amount  # Wh
    trapezoid_ah: float  # between the samples alone, without the time before the first
    counter_ah: float | None
    counter_wh: float | None
    counter_sigma_ah: float  # of capacity - counter, without gain and offset (both share them)
    switch: Switch | None
    gaps: tuple[float, ...] = ()  # seconds of each
    n: int = 0

    @property
    def cc(self) -> Amount:
        """The part at constant current."""
        if self.switch is not None:
            return self.switch.before
        return self.capacity if self.control != "CV" else total([])

    @property
    def cv(self) -> Amount:
        """The part at constant voltage."""
        if self.switch is not None:
            return self.switch.after
        return self.capacity if self.control == "CV" else total([])


class CyclingReducer:
    """Collect the chunks of a log; ``result`` is the same however it was cut and in whatever order it came.

    Memory: the records themselves, 64 bytes each (a log of a million records is 64 MB).
    """

    def __init__(self) -> None:
        """Start empty."""
        self.chunks: dict[int, Records] = {}

    def add(self, number: int, chunk: Records) -> None:
        """Add chunk ``number``. Raises ValueError if that number is there already."""
        if number in self.chunks:
            raise ValueError(f"chunk {number} was added twice")
        self.chunks[number] = chunk

    def merge(self, other: CyclingReducer) -> None:
        """Add the chunks of another reducer. Raises ValueError if both hold the same number."""
        for number, chunk in other.chunks.items():
            self.add(number, chunk)

    def result(self, accuracy: Accuracy | None = None) -> tuple[Records, list[StepResult]]:
        """Return all records in order and their steps. Raises ValueError without records."""
        ordered = [self.chunks[number] for number in sorted(self.chunks)]
        if not ordered:
            raise ValueError("no records")
        joined: dict[str, Any] = {}
        for one in fields(Records):
            parts = [getattr(chunk, one.name) for chunk in ordered]
            joined[one.name] = None if any(part is None for part in parts) else np.concatenate(parts)
        records = Records(**joined)
        return records, split_steps(records, accuracy or Accuracy())


def split_steps(records: Records, accuracy: Accuracy) -> list[StepResult]:
    """Reduce every step of a log.

    Raises:
        ValueError: if a value is not finite.
    """
    for name in ("time_s", "current_a", "voltage_v"):
        if not np.all(np.isfinite(getattr(records, name))):
            raise ValueError(f"{name} holds values that are not numbers")
    keys = np.stack([records.cycle, records.step, records.state.astype(np.int64)])
    borders = np.flatnonzero(np.any(np.diff(keys, axis=1) != 0, axis=0)) + 1
    edges = [0, *borders.tolist(), records.time_s.size]
    steps = []
    for first, last in pairwise(edges):
        cut = slice(first, last)
        part: dict[str, Any] = {
            one.name: (value[cut] if (value := getattr(records, one.name)) is not None else None)
            for one in fields(Records)
        }
        steps.append(replace(reduce_step(Records(**part), accuracy), first=first, last=last))
    return steps


def reduce_step(part: Records, accuracy: Accuracy) -> StepResult:
    """Reduce the records of one step.

    Q = sum of I dt by trapezoids / 3600, and the time before the first sample (its step time) at the first
    current. Errors: noise of the current (second differences, never below its rounding) and rounding of
    the times, through the weights of the trapezoids; sampling |Q(h) - Q(2h)| / 3 (Richardson); stated gain
    and offset of the current; half of what may have flowed in a gap.
    """
    state = int(part.state[0])
    sign = state if state else 1
    t, current = part.time_s, sign * part.current_a
    head = 0.0
    if part.step_time_s is not None and state:
        head = float(np.clip(part.step_time_s[0], 0.0, GAP_S))
    duration = float(t[-1] - t[0]) + head
    capacity, trapezoid, gaps = _integral(t, current, head, current, accuracy)
    energy, _, _ = _integral(t, current * part.voltage_v, head, current, accuracy, part.voltage_v)
    control, switch = "rest", None
    if state:
        resolution_v = accuracy.voltage_resolution_v
        driven = classify(part.voltage_v, current, resolution_v, accuracy.current_resolution_a)
        control = driven.control
        if control == "CC-CV":
            at = crossing(t, part.voltage_v, driven, resolution_v)
            switch = _switch(part, current, head, at, accuracy)
    counter = None if part.counter_ah is None else float(part.counter_ah[-1])
    counter_wh = None if part.counter_wh is None else float(part.counter_wh[-1])
    unit = accuracy.counter_resolution_ah / math.sqrt(12.0)
    return StepResult(
        first=0, last=t.size, cycle=int(part.cycle[0]), step=int(part.step[0]), state=state,
        start_s=float(t[0]),
        duration_s=duration, current_a=float(np.median(part.current_a)),
        voltage_first_v=float(part.voltage_v[0]), voltage_last_v=float(part.voltage_v[-1]), control=control,
        capacity=capacity, energy=energy, trapezoid_ah=trapezoid, counter_ah=counter, counter_wh=counter_wh,
        counter_sigma_ah=math.hypot(capacity.stat, capacity.sampling, capacity.gap, unit), switch=switch,
        gaps=gaps, n=t.size,
    )  # fmt: skip


def _integral(
    t: Floats, y: Floats, head_s: float, current: Floats, accuracy: Accuracy, voltage: Floats | None = None
) -> tuple[Amount, float, tuple[float, ...]]:
    """Return the integral of y over time in hours, that between samples alone, and the gaps in seconds."""
    dt = np.diff(t)
    weights = np.zeros(t.size)
    weights[:-1] += dt / 2.0
    weights[1:] += dt / 2.0
    trapezoid = float(weights @ y) / S_PER_H
    weights[0] += head_s
    value = float(weights @ y) / S_PER_H
    scale = np.ones(t.size) if voltage is None else np.abs(voltage)
    sigma_i = current_noise(current, accuracy.current_resolution_a)
    slope = np.zeros(t.size)  # d(integral) / d(time of a sample)
    if t.size > 1:
        slope[1:-1] = (y[:-2] - y[2:]) / 2.0
        slope[0], slope[-1] = y[0] - (y[0] + y[1]) / 2.0, (y[-1] + y[-2]) / 2.0
    sigma_t = accuracy.time_resolution_s / math.sqrt(12.0)
    start = abs(float(y[0])) * sigma_t
    stat = math.hypot(
        sigma_i * float(np.linalg.norm(weights * scale)), sigma_t * float(np.linalg.norm(slope)), start
    )
    if voltage is not None:
        sigma_v = accuracy.voltage_resolution_v / math.sqrt(12.0)
        stat = math.hypot(stat, sigma_v * float(np.linalg.norm(weights * current)))
    span = float(weights @ scale)
    gain = accuracy.current_gain * abs(value)
    offset = accuracy.current_offset_a * span / S_PER_H
    if voltage is not None:
        offset = math.hypot(offset, accuracy.voltage_offset_v * abs(float(weights @ current)) / S_PER_H)
    usual = float(np.median(dt)) if dt.size else 0.0
    wide = dt > max(GAP_FACTOR * usual, GAP_S)
    gap = (
        float(np.sum(dt[wide] * (np.abs(y[:-1]) + np.abs(y[1:]))[wide])) / 4.0 / S_PER_H
        if np.any(wide)
        else 0.0
    )
    parts = (value, stat / S_PER_H, _sampling(t, y), gain, offset, gap if np.any(y != 0) else 0.0)
    return Amount(*parts), trapezoid, tuple(float(d) for d in dt[wide])


def _sampling(t: Floats, y: Floats) -> float:
    """Return |Q(h) - Q(2h)| / 3 of trapezoids in hours, over pairs of intervals (Richardson)."""
    n = (t.size - 1) // 2 * 2 + 1
    if n < 3:
        return 0.0
    fine = np.trapezoid(y[:n], t[:n])
    coarse = np.trapezoid(y[:n:2], t[:n:2])
    return abs(float(fine - coarse)) / 3.0 / S_PER_H


def _switch(part: Records, current: Floats, head: float, at: Crossing, accuracy: Accuracy) -> Switch:
    """Return the switch at a time between two samples, with the charge on both sides of it."""
    record = max(1, int(np.searchsorted(part.time_s, at.time_s)))
    before, _, _ = _integral(part.time_s[:record], current[:record], head, current[:record], accuracy)
    after, _, _ = _integral(part.time_s[record:], current[record:], 0.0, current[record:], accuracy)
    level = float(current[record - 1])
    early, late = at.time_s - float(part.time_s[record - 1]), float(part.time_s[record]) - at.time_s
    return Switch(
        record,
        Estimate(at.time_s, at.stat_s, at.sampling_s, "s"),
        float(part.voltage_v[record]),
        _with(before, level, early, at, accuracy),
        _with(after, (level + float(current[record])) / 2.0, late, at, accuracy),
    )


def _with(part: Amount, current_a: float, seconds: float, at: Crossing, accuracy: Accuracy) -> Amount:
    """Return an amount with what flowed between it and the switch, whose time is in its errors."""
    more = current_a * seconds / S_PER_H
    return replace(
        part,
        value=part.value + more,
        stat=math.hypot(part.stat, current_a * at.stat_s / S_PER_H),
        sampling=math.hypot(part.sampling, current_a * at.sampling_s / S_PER_H),
        gain=part.gain + accuracy.current_gain * abs(more),
        offset=part.offset + accuracy.current_offset_a * seconds / S_PER_H,
    )
