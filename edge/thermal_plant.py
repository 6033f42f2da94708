"""A heated body as a chain of heat capacities, and the course that it takes: the model that is identified.

::

    C  dT/dt  = u - G (T - T_room) - J (T - T2)
    C2 dT2/dt = J (T - T2)                                (two bodies)
    tau dS/dt = T - S,   reading(t) = S(t - dead)

u is the power in W (or whatever unit the record has: then C and G are per that unit); the power of a sample
holds until the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.signal import detrend, lfilter

Floats = NDArray[np.float64]

FEWEST = 30  # samples from which a plant is identified at all
UNEVEN = 0.01  # of a step: what is more is no rounding of the times
FINER = 4
TURNS = 4  # an oscillation repeats as often in what is looked at


@dataclass(frozen=True)
class ThermalRecord:
    """A record in time order; ``power`` holds from its sample to the next. Ambient None: it is fitted."""

    time_s: Floats
    temperature_k: Floats
    power: Floats
    ambient_k: Floats | None = None
    at_rest: bool = True  # everything had the same temperature when it began
    room_k: tuple[float, float] | None = None  # what is known of an ambient that is fitted: value and sigma

    @classmethod
    def of(
        cls, time_s: ArrayLike, temperature_k: ArrayLike, power: ArrayLike,
        ambient_k: ArrayLike | None = None, *, at_rest: bool = True,
        room_k: tuple[float, float] | None = None,
    ) -> ThermalRecord:  # fmt: skip
        """Return a record from anything array-like; samples without a temperature are left out.

        Raises:
            ValueError: the lengths differ, times do not rise, a power is no number, or there are too few.
        """
        t, y, u = (np.asarray(one, np.float64) for one in (time_s, temperature_k, power))
        room = None if ambient_k is None else np.broadcast_to(np.asarray(ambient_k, np.float64), t.shape)
        if not t.ndim == y.ndim == u.ndim == 1 or not t.size == y.size == u.size:
            raise ValueError("time, temperature and power must be three columns of one length")
        if not (np.all(np.isfinite(t)) and np.all(np.diff(t) > 0.0)):
            raise ValueError("the times of the record do not rise")
        if not np.all(np.isfinite(u)) or (room is not None and not np.all(np.isfinite(room))):
            raise ValueError("a power or a room temperature of the record is no number")
        if room_k is not None and not (math.isfinite(room_k[0]) and room_k[1] > 0.0):
            raise ValueError("what is known of the room needs a value and an error above zero")
        if np.count_nonzero(np.isfinite(y)) < FEWEST:
            raise ValueError(f"a plant needs at least {FEWEST} samples with a temperature")
        return cls(t, y, u, room, at_rest, room_k)


def simulate(
    record: ThermalRecord, *, capacity: float, loss: float, ambient_k: float, lag_s: float = 0.0,
    dead_s: float = 0.0, second_capacity: float = 0.0, joint: float = 0.0, start_k: tuple[float, ...],
) -> Floats:  # fmt: skip
    """Return the reading that a plant would give at the times of a record, in K.

    Args:
        record: times and powers; its room temperature, if it has one, replaces ``ambient_k``.
        capacity: C in J/K.
        loss: G in W/K.
        ambient_k: T_room.
        lag_s: tau; 0: no sensor lag.
        dead_s: dead time.
        second_capacity: C2; 0: one body.
        joint: J in W/K.
        start_k: temperatures at the first sample: of the body, the second body, the sensor, as many as are.
    """
    grid, power, room = _gridded(record, ambient_k)
    matrix, inputs = _rates(capacity, loss, lag_s, second_capacity, joint)
    return _seen(matrix, inputs, grid, power, room, np.array(start_k), record.time_s - dead_s)


def _gridded(record: ThermalRecord, ambient_k: float) -> tuple[Floats, Floats, Floats]:
    """Return even times, the mean power of each interval (no energy is lost), and the room temperature.

    Uneven times get a finer grid: a power that begins inside an interval is smeared over it.
    """
    t = record.time_s
    gaps = np.diff(t)
    step_s = float(np.median(gaps))
    if float(np.max(np.abs(gaps - step_s))) > UNEVEN * step_s:
        step_s /= FINER
    count = math.ceil((t[-1] - t[0]) / step_s - 1e-9) + 1
    grid = t[0] + step_s * np.arange(count)
    energy = np.concatenate([[0.0], np.cumsum(record.power[:-1] * gaps)])
    ends = np.interp(np.append(grid, grid[-1] + step_s), t, energy)
    power = np.diff(ends) / step_s
    room = np.full(count, ambient_k) if record.ambient_k is None else np.interp(grid, t, record.ambient_k)
    return grid, power, room


def _rates(
    capacity: float, loss: float, lag_s: float, second_capacity: float, joint: float
) -> tuple[Floats, Floats]:
    """Return A and B of dx/dt = A x + B (power, room) for body, second body, sensor, as far as they are."""
    two, lagged = second_capacity > 0.0, lag_s > 0.0
    size = 1 + two + lagged
    matrix, inputs = np.zeros((size, size)), np.zeros((size, 2))
    matrix[0, 0] = -loss / capacity
    inputs[0] = 1.0 / capacity, loss / capacity
    if two:
        matrix[0, 0] -= joint / capacity
        matrix[0, 1] = joint / capacity
        matrix[1, 0], matrix[1, 1] = joint / second_capacity, -joint / second_capacity
    if lagged:
        matrix[-1, 0], matrix[-1, -1] = 1.0 / lag_s, -1.0 / lag_s
    elif two:  # the reading is the last state: without a lag it is the first body's
        matrix, inputs = matrix[::-1, ::-1].copy(), inputs[::-1].copy()
    return matrix, inputs


def _seen(
    rates: Floats, inputs: Floats, grid: Floats, power: Floats, room: Floats, start: Floats, at_s: Floats
) -> Floats:
    """Return the last component of dx/dt = A x + B (power, room) at any times, exactly; ``start`` before.

    By the modes of A, each of which is a filter of one pole: no matrix larger than 3 x 3 is ever multiplied.
    Between the times of the grid each mode goes on with the power that holds there.
    """
    values, vectors = np.linalg.eig(rates)
    if np.linalg.cond(vectors) > 1e9:  # two time constants that are equal: moved apart by a millionth
        rates = rates * (1.0 + 1e-6 * np.arange(rates.shape[0]))[:, None]
        values, vectors = np.linalg.eig(rates)
    inverse = np.linalg.inv(vectors)
    step_s = grid[1] - grid[0]
    driving, begin = inverse @ inputs, inverse @ start
    place = np.clip(np.floor((at_s - grid[0]) / step_s + 1e-9).astype(np.intp), 0, grid.size - 1)
    on_s = np.maximum(at_s - grid[place], 0.0)
    total = np.zeros(at_s.size, np.complex128)
    for index, value in enumerate(values):
        drive = driving[index, 0] * power + driving[index, 1] * room
        driven = np.empty(power.size, np.complex128)
        driven[0] = begin[index]
        driven[1:] = drive[:-1] * _held(value, np.array([step_s]))
        mode = lfilter([1.0], [1.0, -np.exp(value * step_s)], driven)
        here = mode[place] * np.exp(value * on_s) + drive[place] * _held(value, on_s)
        total += vectors[-1, index] * here
    result: Floats = total.real
    return result


def _held(value: complex, seconds: Floats) -> NDArray[np.complex128]:
    """Return the integral of exp(value t) over so many seconds; for a rate of nothing it is the seconds."""
    result: NDArray[np.complex128] = (
        seconds.astype(np.complex128) if abs(value) < 1e-12 else np.expm1(value * seconds) / value
    )
    return result


@dataclass(frozen=True)
class Oscillation:
    """The second half of a record: where it is and how it swings."""

    mean: float
    deviation: float  # standard deviation, population
    period_s: float  # of the largest peak of the Fourier transform


def oscillation(time_s: ArrayLike, values: ArrayLike) -> Oscillation:
    """Return mean, deviation and dominant period of the second half of an evenly sampled record.

    A straight line is taken away for the period; what does not fit in ``TURNS`` times is drift, too.

    Raises:
        ValueError: fewer than 8 samples.
    """
    t, y = np.asarray(time_s, np.float64), np.asarray(values, np.float64)
    half, half_t = y[y.size // 2 :], t[t.size // 2 :]
    if half.size < 8:
        raise ValueError("an oscillation needs at least 8 samples in its second half")
    power = np.abs(np.fft.rfft(detrend(half)))
    peak = TURNS + int(np.argmax(power[TURNS:]))
    step_s = float(np.median(np.diff(half_t)))
    return Oscillation(float(half.mean()), float(half.std()), half.size * step_s / peak)
