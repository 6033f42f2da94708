"""The Compton peak as a Gauss-Lorentz (pseudo-Voigt) line on a straight background, with Poisson errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
PARAMETERS = ("area", "centre", "fwhm", "lorentz", "level", "slope")
FLOOR_COUNTS = 1e-3  # of the model where it serves as a weight
ITERATIONS = 200
_LN2 = math.log(2.0)


@dataclass(frozen=True)
class GaussLorentz:
    """A fitted peak. ``values`` and ``covariance`` in the order of ``PARAMETERS``.

    area in counts (over all energies), centre and fwhm in keV, lorentz: the Lorentzian fraction of the area
    (not clipped to 0..1), level in counts per bin in the middle of the range, slope in counts per bin and
    keV.
    """

    values: Floats
    covariance: Floats
    model: Floats  # counts per bin
    chi2: float  # Pearson
    ndf: int
    converged: bool

    def sigma(self, name: str) -> float:
        """Return the one-sigma error of a parameter."""
        k = PARAMETERS.index(name)
        return math.sqrt(max(float(self.covariance[k, k]), 0.0))

    def value(self, name: str) -> float:
        """Return a parameter."""
        return float(self.values[PARAMETERS.index(name)])


def shape(energy_kev: Floats, width_kev: float, values: Floats, middle_kev: float) -> tuple[Floats, Floats]:
    """Return model and Jacobian: counts per bin of ``width_kev`` at bin middles.

    area width [(1 - m) G + m L] + level + slope (E - middle),
    G = (2/F) sqrt(ln2/pi) exp(-4 ln2 u^2), L = (2 / (pi F)) / (1 + 4 u^2), u = (E - centre) / F.

    Returns:
        (model (n,), jacobian (6, n)).

    Source: the usual pseudo-Voigt; Wertheim et al., Rev. Sci. Instrum. 45 (1974) 1369.
    """
    area, centre, fwhm, mix, level, slope = values
    u = (energy_kev - centre) / fwhm
    g = 2.0 / fwhm * math.sqrt(_LN2 / math.pi) * np.exp(-4.0 * _LN2 * u * u)
    lorentz = 2.0 / (math.pi * fwhm) / (1.0 + 4.0 * u * u)
    dg, dl = -8.0 * _LN2 * u * g, -8.0 * u / (1.0 + 4.0 * u * u) * lorentz  # by u, at fixed prefactor
    line = (1.0 - mix) * g + mix * lorentz
    by_u = (1.0 - mix) * dg + mix * dl
    jacobian = np.empty((6, energy_kev.size))
    jacobian[0] = width_kev * line
    jacobian[1] = area * width_kev * by_u * (-1.0 / fwhm)
    jacobian[2] = area * width_kev * (by_u * (-u / fwhm) - line / fwhm)
    jacobian[3] = area * width_kev * (lorentz - g)
    jacobian[4] = 1.0
    jacobian[5] = energy_kev - middle_kev
    return area * jacobian[0] + level + slope * jacobian[5], jacobian


def fit(counts: NDArray[np.int64], energy_kev: Floats, *, start_kev: float) -> GaussLorentz:
    """Fit by maximum Poisson likelihood (Fisher scoring, damped); errors from the Fisher information.

    Args:
        counts: integers, shape (n,), n > 6.
        energy_kev: middles of equal bins, shape (n,).
        start_kev: where the peak is expected.

    Returns:
        The peak; ``converged`` False if the steps did not become small, with errors all the same.

    Raises:
        ValueError: with too few bins, without counts, or if the information matrix is singular.

    Weights come from the model, never from the data: those would bias the area by about one sigma.
    """
    y = np.asarray(counts, np.float64)
    if y.size < 8 or y.sum() <= 0:
        raise ValueError("a peak fit needs at least 8 bins and some counts")
    width = float(energy_kev[1] - energy_kev[0])
    middle = float(energy_kev.mean())
    floor = max(float(np.sort(y)[: max(2, y.size // 8)].mean()), 0.1)
    area, span = max(float(y.sum()) - floor * y.size, 1.0), float(energy_kev[-1] - energy_kev[0])
    values = np.array([area, start_kev, span / 5, 0.3, floor, 0.0])
    damping, converged = 1e-2, False
    model, jacobian = shape(energy_kev, width, values, middle)
    merit = _deviance(y, model)
    for _ in range(ITERATIONS):
        weight = 1.0 / np.maximum(model, FLOOR_COUNTS)
        information = (jacobian * weight) @ jacobian.T
        gradient = jacobian @ ((y - model) * weight)
        size = np.sqrt(np.maximum(np.diag(information), 1e-300))
        scaled = information / np.outer(size, size)
        step = np.linalg.solve(scaled + damping * np.eye(6), gradient / size) / size
        trial = values + step
        if trial[2] > 0.5 * width and energy_kev[0] < trial[1] < energy_kev[-1]:
            new_model, new_jacobian = shape(energy_kev, width, trial, middle)
            new_merit = _deviance(y, new_model)
            if new_merit <= merit + 1e-9:
                small = float(np.abs(step * size).max()) < 1e-3
                values, model, jacobian, merit = trial, new_model, new_jacobian, new_merit
                damping = max(damping * 0.2, 1e-9)
                if small and damping < 10.0:
                    converged = True
                    break
                continue
        damping = damping * 6.0
        if damping > 1e8:
            break
    weight = 1.0 / np.maximum(model, FLOOR_COUNTS)
    try:
        covariance = np.linalg.inv((jacobian * weight) @ jacobian.T)
    except np.linalg.LinAlgError:
        raise ValueError("the peak fit has no unique answer") from None
    chi2 = float(((y - model) ** 2 * weight).sum())
    return GaussLorentz(values, np.asarray(covariance, np.float64), model, chi2, y.size - 6, converged)


def _deviance(y: Floats, model: Floats) -> float:
    """Return twice the negative log likelihood ratio; infinite for a model below zero where counts are."""
    if float(model.min()) <= 0.0:
        return math.inf
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(y > 0, y * np.log(y / model), 0.0)
    return float(2.0 * (model - y + logs).sum())
