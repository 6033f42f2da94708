"""Checks of cycling logs: signs against the voltage, times that jump, and the resolution of a converter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.cycling import Records, StepResult

Floats = NDArray[np.float64]
MIN_VOLTAGE_CHANGE_V = 5e-3  # less says nothing about a direction
CLOCK_JUMP_S = 5.0


@dataclass(frozen=True)
class SignCheck:
    """Whether charging raises the voltage and discharging lowers it."""

    agree: int  # steps
    disagree: int
    contradicting: tuple[int, ...]  # numbers of the steps that disagree
    state_against_current: int  # records whose state and current differ in sign

    @property
    def verdict(self) -> str:
        """In words."""
        if self.agree + self.disagree == 0:
            return "not decided: no step changes the voltage"
        if self.disagree > self.agree:
            return "REVERSED: charging lowers the voltage in most steps"
        if self.disagree or self.state_against_current:
            return f"{self.disagree} steps and {self.state_against_current} records contradict"
        return "agrees with the voltage in every step"


def check_signs(records: Records, steps: Sequence[StepResult]) -> SignCheck:
    """Compare the sign of every step with the direction of its voltage (steps that change it by over 5 mV).

    The last records of a step count, not the first: the jump at the start has the same sign in both
    readings of the current only if the sign is right, so a held voltage (CV) is left out.
    """
    agree, against = 0, []
    for number, one in enumerate(steps, 1):
        change = one.voltage_last_v - one.voltage_first_v
        if one.state == 0 or one.control == "CV" or abs(change) < MIN_VOLTAGE_CHANGE_V:
            continue
        if change * one.state > 0:
            agree += 1
        else:
            against.append(number)
    flowing = (records.state != 0) & (records.current_a != 0)
    wrong = int(np.count_nonzero(np.sign(records.current_a[flowing]) != records.state[flowing]))
    return SignCheck(agree, len(against), tuple(against), wrong)


@dataclass(frozen=True)
class TimeCheck:
    """What is wrong with the times of a log."""

    backward: tuple[int, ...]  # records before which the time ran backward
    repeated: int  # records with the time of the one before
    clock_jumps: tuple[tuple[int, float], ...]  # (record, seconds the wall clock gained over the test time)


def check_times(records: Records, clock_s: Floats | None = None) -> TimeCheck:
    """Look for times that run backward, repeat, or disagree with the wall clock by more than 5 s at once.

    A wall clock that gains is a pause of the test, or daylight saving; a test time that gains is wrong.
    """
    dt = np.diff(records.time_s)
    jumps: tuple[tuple[int, float], ...] = ()
    if clock_s is not None and clock_s.size > 1:
        gained = np.diff(clock_s) - dt
        jumps = tuple((int(k) + 1, float(gained[k])) for k in np.flatnonzero(np.abs(gained) > CLOCK_JUMP_S))
    return TimeCheck(tuple(int(k) + 1 for k in np.flatnonzero(dt < 0)), int(np.count_nonzero(dt == 0)), jumps)


def converter_step(values: Floats, printed: float) -> float:
    """Return the step of the converter behind printed numbers, never less than the printed resolution.

    The smallest distance between neighbouring distinct values that is common (at least a fifth as frequent
    as the most frequent one), distances rounded to the printed resolution.

    Args:
        values: readings, shape (n,).
        printed: one unit of the last printed place, above 0.
    """
    if printed <= 0:
        return 0.0
    distinct = np.unique(np.rint(values / printed).astype(np.int64))
    if distinct.size < 20:
        return printed
    distances, counts = np.unique(np.diff(distinct), return_counts=True)
    common = distances[counts >= 0.2 * counts.max()]
    return max(printed, float(common.min()) * printed)


def sensors_checked(
    sensors: Mapping[str, Floats], low: float = -273.15, high: float = 1500.0
) -> dict[str, str]:
    """Return what is wrong with temperature channels: a value below absolute zero is no value.

    Args:
        sensors: name to readings, degC.
        low: the least that exists.
        high: more than this is an open or broken input too.

    Returns:
        Name to "not connected" or "n of m readings impossible"; good channels are left out.
    """
    wrong = {}
    for name, values in sensors.items():
        bad = ~((values > low) & (values < high))
        if np.all(bad):
            wrong[name] = "not connected"
        elif np.any(bad):
            wrong[name] = f"{np.count_nonzero(bad)} of {values.size} readings impossible"
    return wrong
