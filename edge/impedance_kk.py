"""Linear Kramers-Kronig test: can this sweep belong to a linear, stable, causal system at all?

Every such impedance is a sum of relaxations, so a chain of many fixed ones must fit; what it cannot fit is
drift, non-linearity or a bad contact. With the time constants fixed the fit is one linear least squares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

MU_LIMIT = 0.5  # the chain is long enough when negative resistances make up half of the positive ones
MAX_ELEMENTS = 50
PER_DECADE = 3.0  # fewer relaxations than that leave per cents of a single sharp arc
RMS_LIMIT = 0.01


@dataclass(frozen=True)
class KramersKronig:
    """The test of one sweep.

    Attributes:
        frequency_hz: of the points used, shape (n,).
        residual: (Z - fit) / |Z|, complex, shape (n,).
        elements: number of relaxations.
        mu: 1 - sum |negative R| / sum |positive R|; the chain grows until it falls below 0.5.
        rms: sqrt(mean |residual|^2).
        largest: largest real or imaginary residual.
        correlation: of neighbouring residuals: near 0 for noise, near 1 for drift or a wrong shape.
        passed: rms is not above the limit.
        reason: in words, why it failed, or what was seen.
    """

    frequency_hz: Floats
    residual: Complexes
    elements: int
    mu: float
    rms: float
    largest: float
    correlation: float
    passed: bool
    reason: str


def kramers_kronig(
    frequency_hz: Floats, z_ohm: Complexes, limit_rms: float = RMS_LIMIT, mu_limit: float = MU_LIMIT
) -> KramersKronig:
    """Fit R0 + j w L + 1 / (j w C) + sum R_k / (1 + j w tau_k) and judge what is left.

    tau_k: M of them, spaced evenly in the logarithm from 1 / w_max to 1 / w_min; weights 1 / |Z| on real and
    imaginary parts alike; M is the smallest number for which mu < ``mu_limit``, at least 3 per decade (below
    that mu may fall by chance while per cents of a sharp arc are left) and at most 50.

    Args:
        frequency_hz: any order, positive, shape (n,), n >= 5.
        z_ohm: complex, same shape.
        limit_rms: largest accepted root mean square residual.
        mu_limit: where the chain stops growing.

    Raises:
        ValueError: fewer than 5 points, or values that are not finite.

    Source: Schoenleber, Klotz and Ivers-Tiffee, Electrochim. Acta 131 (2014) 20; Boukamp, J. Electrochem.
    Soc. 142 (1995) 1885.
    """
    f, z = np.asarray(frequency_hz, np.float64), np.asarray(z_ohm, np.complex128)
    if f.size < 5 or f.shape != z.shape or not (np.isfinite(f).all() and np.isfinite(z).all()):
        raise ValueError(f"a Kramers-Kronig test needs at least 5 finite points, got {f.size}")
    elements, mu, residual = 2, 1.0, np.zeros_like(z)
    most = min(MAX_ELEMENTS, 2 * f.size - 4)
    least = min(max(2, math.ceil(PER_DECADE * math.log10(f.max() / f.min()))), most)
    for elements in range(least, most + 1):
        mu, residual = chain_fit(f, z, elements)
        if mu < mu_limit:
            break
    rms = math.sqrt(float(np.mean(np.abs(residual) ** 2)))
    largest = float(max(np.abs(residual.real).max(), np.abs(residual.imag).max()))
    correlation = _neighbour_correlation(residual[np.argsort(f)])
    passed = rms <= limit_rms
    return KramersKronig(
        f,
        residual,
        elements,
        mu,
        rms,
        largest,
        correlation,
        passed,
        _reason(f, residual, rms, limit_rms, correlation),
    )


def chain_fit(f: Floats, z: Complexes, elements: int) -> tuple[float, Complexes]:
    """Return (mu, relative residuals) of a chain of so many relaxations."""
    w = 2 * np.pi * f
    tau = np.geomspace(1 / w.max(), 1 / w.min(), elements)
    design = np.column_stack([
        np.ones_like(w), 1 / (1 + 1j * np.outer(w, tau)), 1j * w, 1 / (1j * w)
    ])  # fmt: skip
    scaled = design / np.abs(z)[:, None]
    target = z / np.abs(z)
    solution = np.linalg.pinv(np.concatenate([scaled.real, scaled.imag])) @ np.concatenate(
        [target.real, target.imag]
    )
    r = solution[1 : elements + 1]
    positive = float(r[r >= 0].sum())
    mu = 1 - float(-r[r < 0].sum()) / positive if positive > 0 else 0.0
    return mu, target - scaled @ solution


def _neighbour_correlation(residual: Complexes) -> float:
    total = float(np.sum(np.abs(residual) ** 2))
    if total == 0:
        return 0.0
    return float(np.sum((residual[1:] * residual[:-1].conj()).real)) / total


def _reason(f: Floats, residual: Complexes, rms: float, limit: float, correlation: float) -> str:
    if rms <= limit:
        return f"consistent: {100 * rms:.2g} % rms, limit {100 * limit:g} %"
    size = np.abs(residual)
    worst = int(np.argmax(size))
    border = min(3 * limit, 0.999 * float(size[worst]))
    bad = f[size > border]
    cause = "neighbours deviate alike: drift or a non-linear cell" if correlation > 0.5 else "noise or jumps"
    return (
        f"{100 * rms:.2g} % rms, limit {100 * limit:g} %; "
        f"worst {100 * size[worst]:.2g} % at {f[worst]:.3g} Hz; "
        f"above {100 * border:.2g} % between {bad.min():.3g} and {bad.max():.3g} Hz; {cause}"
    )
