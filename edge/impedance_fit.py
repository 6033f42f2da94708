"""Complex non-linear least squares of circuits, many sweeps at once, with a covariance that is true."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge.impedance_circuits import Circuit, Parallel, elements_of
from edge.impedance_starts import start_values
from edge.uncertainty import Estimate

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
Weights = Literal["model", "data"]

ROUNDS = 150
SMALL_GAIN = 1e-8  # relative decrease of chi2 that no longer counts
STEP_LIMIT = 2.0  # largest change of a logarithm in one step
RESOLVED_ERROR = 0.5  # a parameter with a larger relative error is not resolved
RESOLVED_CORRELATION = 0.995


@dataclass(frozen=True)
class CircuitFit:
    """A fitted circuit; arrays carry a leading axis when several sweeps were fitted at once.

    Attributes:
        values: parameters, shape (..., p).
        sigma: one sigma of each, shape (..., p); of a logarithmically fitted one value x sigma of the
        logarithm.
        covariance: of q = ln(value) or value, shape (..., p, p): scale^2 (J^T W J)^-1.
        scale: relative error of a point that the residuals show, sqrt(chi2 / (2 n - p)).
        rms: sqrt(mean |Z - fit|^2 / |Z|^2).
        residual: (Z - fit) / |Z|, shape (..., n).
        converged: the last steps no longer changed chi2.
    """

    circuit: Circuit
    frequency_hz: Floats
    values: Floats
    sigma: Floats
    covariance: Floats
    scale: Floats
    rms: Floats
    residual: Complexes
    converged: NDArray[np.bool_]

    def correlation(self) -> Floats:
        """Return the correlation matrix of the parameters, shape (..., p, p)."""
        deviation = np.sqrt(np.diagonal(self.covariance, axis1=-2, axis2=-1))
        matrix: Floats = self.covariance / (deviation[..., :, None] * deviation[..., None, :])
        return matrix

    def estimates(self) -> dict[str, Estimate]:
        """Return the parameters of a single fit by name."""
        return {
            name: Estimate(float(v), float(s), 0.0, unit)
            for name, unit, v, s in zip(
                self.circuit.names, self.circuit.units, self.values, self.sigma, strict=True
            )
        }


def fit_circuit(
    circuit: Circuit, frequency_hz: Floats, z_ohm: Complexes, *, start: Floats | None = None,
    weights: Weights = "model",
) -> CircuitFit:  # fmt: skip
    """Fit a circuit by Levenberg-Marquardt with closed-form derivatives.

    chi2 = sum |Z_i - Z(f_i)|^2 / m_i^2 over real and imaginary parts, m the modulus: of the fitted model
    (the fit is repeated with it once), or of the ``data``, as most software has it, which pulls the fit
    towards the points that noise made small. The errors come from the residuals: scale^2 = chi2 / (2 n - p),
    no assumed noise level.

    Args:
        circuit: with p parameters.
        frequency_hz: shape (n,), 2 n > p.
        z_ohm: shape (n,), or (m, n) for m sweeps at the same frequencies.
        start: parameters, shape (p,); found from the data when not given (from the first sweep if there are
        several).
        weights: which modulus.

    Raises:
        ValueError: too few points, values that are not finite, a start that is not positive where it must be.
    """
    f = np.asarray(frequency_hz, np.float64)
    z = np.atleast_2d(np.asarray(z_ohm, np.complex128))
    p = len(circuit.names)
    if 2 * f.size <= p or z.shape[-1] != f.size:
        raise ValueError(f"{f.size} points cannot determine {p} parameters of {circuit.text}")
    if not (np.isfinite(z).all() and np.all(f > 0)):
        raise ValueError("impedances must be finite and frequencies positive")
    if start is None:
        q = _to_q(circuit, start_values(circuit, f, z[0]))
    else:
        given = np.asarray(start, np.float64)
        if given.shape != (p,) or np.any(given[circuit.logarithmic] <= 0):
            raise ValueError(
                f"a start for {circuit.text} needs {p} values, positive ones: {', '.join(circuit.names)}"
            )
        q = _to_q(circuit, given)[None]
    modulus = np.abs(z)
    if len(q) > 1:  # several starts: the best one of the first sweep
        tried, chi2, _ = _minimise(
            circuit, f, np.repeat(z[:1], len(q), axis=0), np.repeat(modulus[:1], len(q), 0), q
        )
        q = tried[[int(np.nanargmin(chi2))]]
    q, _, good = _minimise(circuit, f, z, modulus, np.repeat(q, len(z), axis=0))
    if weights == "model":
        modulus = np.abs(circuit.impedance(_to_values(circuit, q), f))
        q, _, good = _minimise(circuit, f, z, modulus, q)
    return _finish(circuit, f, z, modulus, q, good, single=np.ndim(z_ohm) == 1)


def _minimise(
    circuit: Circuit, f: Floats, z: Complexes, modulus: Floats, q: Floats
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return (q, chi2, converged) of every row; each row has its own damping and stops when it stands."""
    q, chi2, done = q.copy(), np.full(len(q), np.inf), np.zeros(len(q), bool)
    rows = np.arange(len(q))
    damping, still = np.full(len(q), 1e-3), np.zeros(len(q), int)
    a, g, now = _normal(circuit, f, z, modulus, q)
    for _ in range(ROUNDS):
        diagonal = np.einsum("...ii->...i", a)
        damped = a.copy()
        floor = 1e-12 * diagonal.max(axis=1, keepdims=True)
        np.einsum("...ii->...i", damped)[...] += damping[:, None] * diagonal + floor
        step = -np.linalg.solve(damped, g[..., None])[..., 0]
        step *= np.minimum(1.0, STEP_LIMIT / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))
        trial = q[rows] + step
        a2, g2, after = _normal(circuit, f, z[rows], modulus[rows], trial)
        better = after <= now
        gain = np.where(better, (now - after) / np.maximum(now, 1e-300), 1.0)
        still = np.where(better, np.where(gain < SMALL_GAIN, still + 1, 0), still)
        q[rows[better]] = trial[better]
        a, g = np.where(better[:, None, None], a2, a), np.where(better[:, None], g2, g)
        now = np.where(better, after, now)
        damping = np.clip(np.where(better, damping / 10, damping * 5), 1e-12, 1e12)
        finished = (still >= 1) | (damping >= 1e12)
        chi2[rows], done[rows] = now, finished
        rows, still = rows[~finished], still[~finished]
        a, g, now, damping = a[~finished], g[~finished], now[~finished], damping[~finished]
        if rows.size == 0:
            break
    return q, chi2, done


def _normal(
    circuit: Circuit, f: Floats, z: Complexes, modulus: Floats, q: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return J^T W J, J^T W r and chi2; infinite chi2 where the model has no finite value."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        model, derivatives = circuit.with_derivatives(_to_values(circuit, q), f)
        r = (model - z) / modulus
        j = derivatives / modulus[..., None]
        chi2 = np.sum(r.real**2 + r.imag**2, axis=-1)
    good = np.isfinite(chi2) & np.isfinite(j).all(axis=(-2, -1))
    j, r = np.where(good[:, None, None], j, 1.0), np.where(good[:, None], r, 0.0)
    stacked = np.concatenate([j.real, j.imag], axis=-2)
    rest = np.concatenate([r.real, r.imag], axis=-1)
    a = np.swapaxes(stacked, -1, -2) @ stacked
    g = (np.swapaxes(stacked, -1, -2) @ rest[..., None])[..., 0]
    return a, g, np.where(good, chi2, np.inf)


def _finish(
    circuit: Circuit,
    f: Floats,
    z: Complexes,
    modulus: Floats,
    q: Floats,
    good: NDArray[np.bool_],
    *,
    single: bool,
) -> CircuitFit:
    a, _, chi2 = _normal(circuit, f, z, modulus, q)
    free = 2 * f.size - len(circuit.names)
    scale = np.sqrt(chi2 / free)
    size = np.sqrt(np.maximum(np.einsum("...ii->...i", a), 1e-300))
    inverse = np.linalg.pinv(a / (size[..., :, None] * size[..., None, :]), rcond=1e-13, hermitian=True)
    covariance = scale[:, None, None] ** 2 * inverse / (size[..., :, None] * size[..., None, :])
    values = _to_values(circuit, q)
    deviation = np.sqrt(np.maximum(np.einsum("...ii->...i", covariance), 0.0))
    sigma = np.where(circuit.logarithmic, values * deviation, deviation)
    residual = (z - circuit.impedance(values, f)) / np.abs(z)
    rms = np.sqrt(np.mean(np.abs(residual) ** 2, axis=-1))
    i: Any = 0 if single else slice(None)
    return CircuitFit(
        circuit, f, values[i], sigma[i], covariance[i], scale[i], rms[i], residual[i], np.asarray(good[i])
    )


def _to_values(circuit: Circuit, q: Floats) -> Floats:
    return np.where(circuit.logarithmic, np.exp(np.clip(np.where(circuit.logarithmic, q, 0.0), -300, 300)), q)


def _to_q(circuit: Circuit, values: Floats) -> Floats:
    return np.where(circuit.logarithmic, np.log(np.where(circuit.logarithmic, values, 1.0)), values)


def not_resolved(fit: CircuitFit) -> dict[str, str]:
    """Return the parameters of a single fit that these data do not determine, each with the reason.

    A parameter is not resolved when its relative error is above 50 %, when it is tied to another one by more
    than 0.995, or when the corner frequency of its p(R, C) lies outside the measured range.
    """
    out: dict[str, str] = {}
    correlation = fit.correlation()
    for k, name in enumerate(fit.circuit.names):
        relative = fit.sigma[k] / abs(fit.values[k])
        partner = int(np.argmax(np.where(np.arange(len(correlation)) == k, 0, np.abs(correlation[k]))))
        if not relative < RESOLVED_ERROR:
            out[name] = f"its error is {100 * relative:.0f} % of it"
        elif abs(correlation[k, partner]) > RESOLVED_CORRELATION:
            out[name] = f"tied to {fit.circuit.names[partner]} (correlation {correlation[k, partner]:.4f})"
    for part in fit.circuit.root.parts:
        if isinstance(part, Parallel):
            _corner(fit, part, out)
    return out


def _corner(fit: CircuitFit, part: Parallel, out: dict[str, str]) -> None:
    inside = elements_of(part)
    r = sum(float(fit.values[e.at]) for e in inside if e.kind == "R")
    for e in inside:
        if e.kind == "C":
            tau = r * float(fit.values[e.at])
        elif e.kind == "CPE":
            tau = (r * float(fit.values[e.at])) ** (1 / max(float(fit.values[e.at + 1]), 0.05))
        else:
            continue
        corner = 1 / (2 * math.pi * tau) if tau > 0 else math.inf
        if not fit.frequency_hz.min() <= corner <= fit.frequency_hz.max():
            for one in inside:
                for k in range(len(fit.circuit.names)):
                    if fit.circuit.names[k].startswith(one.name):
                        out.setdefault(fit.circuit.names[k], f"its corner, {corner:.3g} Hz, was not measured")
