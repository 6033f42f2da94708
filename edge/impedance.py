"""Impedance sweeps to R_s, R_ct and diffusion, with a verdict on the sweep before anything is believed.

Streaming shape: ``SweepSeries`` takes points as they come (``add``), parts of a series merge exactly, and
``result`` gives one entry per sweep in order of its label.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BarycentricInterpolator, PchipInterpolator

from edge.impedance_circuits import Circuit
from edge.impedance_fit import CircuitFit, Weights, fit_circuit, not_resolved
from edge.impedance_kk import RMS_LIMIT, KramersKronig, kramers_kronig
from edge.uncertainty import Estimate

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

NEIGHBOURS = 3  # points on either side of the crossing that the curved interpolation uses


@dataclass(frozen=True)
class Crossing:
    """Where the sweep crosses the real axis, inductive above, capacitive below: R_s and its frequency."""

    resistance: Estimate  # ohm
    frequency: Estimate  # Hz


@dataclass(frozen=True)
class SweepResult:
    """What one sweep says.

    Attributes:
        label: state of charge or another number that orders the series; None without.
        crossing: None when no point is inductive, or the sweep begins below the crossing.
        test: the Kramers-Kronig test; nothing but it is given of a sweep that failed.
        fit: None when the sweep was rejected, or without a circuit.
        unresolved: parameters that these data do not determine, with reasons.
        used: which points went into test and fit, shape (n,).
        why_not: why there is no fit, "" when there is one.
    """

    frequency_hz: Floats
    z_ohm: Complexes
    label: float | None
    crossing: Crossing | None
    test: KramersKronig
    fit: CircuitFit | None
    unresolved: dict[str, str]
    used: NDArray[np.bool_]
    why_not: str = ""


@dataclass(frozen=True)
class ImpedanceRules:
    """How a sweep is reduced.

    Attributes:
        circuit: what is fitted; None only tests.
        limit_rms: of the Kramers-Kronig test.
        inductive: also use points with Im Z >= 0 (give the circuit an L then).
        weights: modulus of the fitted model, or of the data.
        start: starting values; found from the sweep when not given.
        despite: fit a sweep that failed the test all the same (the result says so).
    """

    circuit: Circuit | None = None
    limit_rms: float = RMS_LIMIT
    inductive: bool = False
    weights: Weights = "model"
    start: tuple[float, ...] | None = None
    despite: bool = False


def real_axis_crossing(frequency_hz: Floats, z_ohm: Complexes, scale: float = 0.0) -> Crossing | None:
    """Interpolate Re Z where Im Z changes from positive to negative, coming from high frequencies.

    Linear between the two points, in Im Z for Re Z and for ln f. Statistical error: that of the two points,
    ``scale`` |Z| each in Re and Im. Systematic error: what a monotone cubic through the three points on
    either side gives instead (the nearer point when Im Z does not fall steadily).

    Args:
        frequency_hz: shape (n,), any order.
        z_ohm: complex, same shape.
        scale: relative error of a point, as the residuals of the Kramers-Kronig test show.

    Returns:
        None when the highest frequency is not inductive (noise at the other end is no crossing) or nothing
        crosses.
    """
    order = np.argsort(-np.asarray(frequency_hz))
    f, z = np.asarray(frequency_hz)[order], np.asarray(z_ohm)[order]
    where = np.flatnonzero((z.imag[:-1] > 0) & (z.imag[1:] <= 0))
    if where.size == 0 or z.imag[0] <= 0:
        return None
    i = int(where[0])
    part = z.imag[i] / (z.imag[i] - z.imag[i + 1])
    resistance = z.real[i] + part * (z.real[i + 1] - z.real[i])
    frequency = math.exp(math.log(f[i]) + part * math.log(f[i + 1] / f[i]))
    drop = z.imag[i + 1] - z.imag[i]
    error = float(np.hypot(*(scale * np.abs(z[i : i + 2]) * np.array([1 - part, part]))))
    stat = math.hypot(1.0, (z.real[i + 1] - z.real[i]) / drop) * error
    stat_hz = frequency * abs(math.log(f[i + 1] / f[i]) / drop) * error
    near = slice(max(i + 1 - NEIGHBOURS, 0), i + 1 + NEIGHBOURS)
    imaginary, real, rising = -z.imag[near], z.real[near], bool(np.all(np.diff(-z.imag[near]) > 0))
    curved = float(PchipInterpolator(imaginary, real)(0.0)) if rising else float(z.real[i])
    four = slice(max(i - 1, 0), i + 3)  # ln f is smooth: the cubic through two points on either side
    log_f = float(BarycentricInterpolator(-z.imag[four], np.log(f[four]))(0.0)) if rising else math.log(f[i])
    sys, sys_hz = abs(curved - resistance), abs(math.exp(log_f) - frequency)
    return Crossing(
        Estimate(float(resistance), stat, float(sys), "ohm"), Estimate(frequency, stat_hz, sys_hz, "Hz")
    )


def reduce_sweep(
    frequency_hz: Floats, z_ohm: Complexes, rules: ImpedanceRules, label: float | None = None
) -> SweepResult:
    """Test a sweep, and if it passes find R_s and fit the circuit.

    Args:
        frequency_hz: shape (n,), positive.
        z_ohm: complex, same shape; Im Z negative for a capacitance.
        rules: how.
        label: state of charge or another number.

    Raises:
        ValueError: fewer than 5 usable points, or a circuit with more parameters than they determine.
    """
    f, z = np.asarray(frequency_hz, np.float64), np.asarray(z_ohm, np.complex128)
    used = np.ones(f.size, bool) if rules.inductive else z.imag < 0
    if np.count_nonzero(used) < 5:
        raise ValueError(
            f"only {np.count_nonzero(used)} of {f.size} points have Im Z < 0: is its sign turned round?"
        )
    test = kramers_kronig(f[used], z[used], rules.limit_rms)
    crossing = real_axis_crossing(f, z, test.rms / math.sqrt(2))
    fit, unresolved, why = None, {}, "no circuit was asked for"
    if not test.passed:
        why = f"rejected by the Kramers-Kronig test: {test.reason}"
    if rules.circuit is not None and (test.passed or rules.despite):
        start = None if rules.start is None else np.asarray(rules.start)
        fit = fit_circuit(rules.circuit, f[used], z[used], start=start, weights=rules.weights)
        unresolved, why = not_resolved(fit), why if not test.passed else ""
    return SweepResult(f, z, label, crossing, test, fit, unresolved, used, why)


@dataclass
class SweepSeries:
    """Sweeps of one cell at several states of charge; points may come one by one and in parts."""

    rules: ImpedanceRules
    _points: dict[tuple[float, int], list[tuple[float, complex]]] = field(default_factory=dict)

    def add(self, label: float, number: int, frequency_hz: Floats, z_ohm: Complexes) -> None:
        """Add points of sweep ``number`` at ``label`` (state of charge)."""
        f, z = np.atleast_1d(frequency_hz), np.atleast_1d(z_ohm)
        if f.shape != z.shape:
            raise ValueError(f"{f.size} frequencies and {z.size} impedances")
        self._points.setdefault((float(label), number), []).extend(zip(f.tolist(), z.tolist(), strict=True))

    def merge(self, other: SweepSeries) -> None:
        """Take over the points of another part, in any order."""
        if other.rules != self.rules:
            raise ValueError("two parts of a series must be reduced alike")
        for key, points in other._points.items():
            self._points.setdefault(key, []).extend(points)

    def result(self) -> list[SweepResult]:
        """Return every sweep in order of label and number; the order in which points came does not matter."""
        out = []
        for (label, _), points in sorted(self._points.items()):
            ordered = sorted(points, key=lambda p: (-p[0], p[1].real, p[1].imag))
            f, z = np.array([p[0] for p in ordered]), np.array([p[1] for p in ordered])
            out.append(reduce_sweep(f, z, self.rules, label))
        return out
