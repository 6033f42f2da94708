"""Energy calibration: channel to keV by a smooth curve through known lines, with its covariance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EnergyScale:
    """Channel to energy: E = sum_k c_k u^p_k in keV, with u = channel + centre and by default p_k = k.

    ``centre`` 0.5 means that the polynomial holds for bin edges and channel i spans i to i + 1; 0 that it
    holds for the channel number itself. ``covariance`` of the coefficients is None for an exact scale.
    """

    coefficients: tuple[float, ...]
    centre: float = 0.0
    covariance: Floats | None = field(default=None, compare=False)
    powers: tuple[float, ...] = ()

    def _basis(self, channel: ArrayLike) -> Floats:
        return _powers(np.asarray(channel, np.float64) + self.centre, self._exponents())

    def _exponents(self) -> tuple[float, ...]:
        return self.powers or tuple(float(k) for k in range(len(self.coefficients)))

    def energy_kev(self, channel: ArrayLike) -> Floats:
        """Return energies in keV, the shape of ``channel`` (channels may be fractional)."""
        return np.asarray(self._basis(channel) @ np.array(self.coefficients), np.float64)

    def gain_kev(self, channel: ArrayLike) -> Floats:
        """Return dE/dchannel in keV per channel, the shape of ``channel``."""
        c, p = np.array(self.coefficients), np.array(self._exponents())
        u = np.maximum(np.asarray(channel, np.float64) + self.centre, 1e-9)
        return np.asarray(_powers(u, tuple(np.where(p > 0, p - 1, 0.0))) @ (c * p), np.float64)

    def sigma_kev(self, channel: ArrayLike) -> Floats:
        """Return the one-sigma error of the energy that the coefficients' covariance causes, in keV."""
        basis = self._basis(channel)
        if self.covariance is None:
            return np.zeros(basis.shape[:-1])
        variance = np.einsum("...i,ij,...j->...", basis, self.covariance, basis)
        return np.asarray(np.sqrt(np.maximum(variance, 0.0)), np.float64)

    def channel(self, energy_kev: float, n_channels: int = 1 << 16) -> float:
        """Return the (fractional) channel of an energy. Raises ValueError outside channels 0..n_channels."""

        def miss(channel: float) -> float:
            return float(self.energy_kev(channel)) - energy_kev

        if miss(-1.0) > 0 or miss(float(n_channels)) < 0:
            raise ValueError(f"{energy_kev} keV lies outside channels 0 to {n_channels}")
        return float(brentq(miss, -1.0, float(n_channels), xtol=1e-9))

    def range_kev(self, n_channels: int) -> tuple[float, float]:
        """Return the energies of the first and the last channel in keV."""
        first, last = self.energy_kev([0, n_channels - 1])
        return float(first), float(last)


@dataclass(frozen=True)
class ScaleFit:
    """A fitted scale and how well the lines lie on it (all arrays in the order of the lines)."""

    scale: EnergyScale
    energies_kev: Floats
    residuals_kev: Floats  # fitted minus known
    sigma_kev: Floats  # of each residual: centroid and known energy, without the excess
    excess_kev: float  # scatter beyond those errors that the lines show (non-linearity of the ADC)
    chi2: float  # with the excess included; equals ndf when excess_kev > 0
    ndf: int


def fit_scale(
    channels: ArrayLike,
    sigma_channels: ArrayLike,
    energies_kev: ArrayLike,
    sigma_energies_kev: ArrayLike = 0.0,
    *,
    powers: Sequence[float] = (0, 1),
    centre: float = 0.0,
) -> ScaleFit:
    """Fit a calibration curve through known lines.

    Least squares of E_known - E(channel) with variance (gain sigma_channel)^2 + sigma_E^2 + excess^2. The
    excess is zero when the lines agree within their errors; otherwise it is the value that makes chi2 equal
    the degrees of freedom (Mandel-Paule), so that the covariance tells the scatter that is really there and a
    few strong lines do not dictate the scale.

    Args:
        channels: fitted centroids, shape (n,).
        sigma_channels: their one-sigma errors, shape (n,) or scalar.
        energies_kev: known energies in keV, shape (n,).
        sigma_energies_kev: their one-sigma errors, shape (n,) or scalar.
        powers: of the channel that the curve is made of, the first two being 0 and 1. (0, 1, 2, 0.5) adds the
            smooth low-amplitude bend of an ADC, which powers of 2 and 3 do not follow.
        centre: see EnergyScale.

    Returns: the fit with the covariance of its coefficients (keV per channel^k).
    Raises: ValueError for fewer lines than powers, shapes that differ, or values that are not finite.
    Source: Mandel and Paule, Anal. Chem. 42 (1970) 1194 for the excess.
    """
    u = np.atleast_1d(np.asarray(channels, np.float64)) + centre
    energy = np.atleast_1d(np.asarray(energies_kev, np.float64))
    if u.shape != energy.shape or u.ndim != 1:
        raise ValueError(f"{u.shape} channels do not match {energy.shape} energies")
    exponents = tuple(float(p) for p in powers)
    if u.size < len(exponents) or exponents[:2] != (0.0, 1.0):
        raise ValueError(f"{u.size} lines do not determine a curve of the powers {exponents}")
    sigma_u = np.broadcast_to(np.asarray(sigma_channels, np.float64), u.shape)
    sigma_e = np.broadcast_to(np.asarray(sigma_energies_kev, np.float64), u.shape)
    if not all(np.isfinite(a).all() for a in (u, energy, sigma_u, sigma_e)):
        raise ValueError("channels, energies and their errors must be finite")
    slope = float(np.polyfit(u, energy, 1)[0])
    own = np.maximum((slope * sigma_u) ** 2 + sigma_e**2, (1e-6 * slope) ** 2)
    ndf = u.size - len(exponents)
    excess2 = _excess(u, energy, own, exponents, ndf)
    beta, covariance, chi2 = _weighted(u, energy, own + excess2, exponents)
    scale = EnergyScale(tuple(float(b) for b in beta), centre, covariance, exponents)
    return ScaleFit(
        scale=scale,
        energies_kev=energy,
        residuals_kev=scale.energy_kev(u - centre) - energy,
        sigma_kev=np.sqrt(own),
        excess_kev=float(np.sqrt(excess2)),
        chi2=chi2,
        ndf=ndf,
    )


def _powers(u: Floats, exponents: tuple[float, ...]) -> Floats:
    """Return u^p, shape (..., n_powers); a fractional power of a negative channel number counts as zero."""
    return np.stack([np.maximum(u, 0.0) ** p if p % 1 else u ** int(p) for p in exponents], axis=-1)


def _weighted(
    u: Floats, energy: Floats, variance: Floats, exponents: tuple[float, ...]
) -> tuple[Floats, Floats, float]:
    """Return coefficients, covariance and chi2; channels are scaled inside so that powers stay near 1."""
    span = float(np.max(np.abs(u))) or 1.0
    design = _powers(u / span, exponents)
    root = np.sqrt(variance)
    inverse = np.linalg.pinv(design / root[:, None])
    back = span ** -np.array(exponents)
    beta = inverse @ (energy / root)
    chi2 = float(np.sum(((energy - design @ beta) / root) ** 2))
    covariance = inverse @ inverse.T
    return beta * back, covariance * np.outer(back, back), chi2


def _excess(u: Floats, energy: Floats, own: Floats, exponents: tuple[float, ...], ndf: int) -> float:
    """Return the extra variance (keV^2) that brings chi2 down to ndf; zero if it already is."""
    if ndf < 1 or _weighted(u, energy, own, exponents)[2] <= ndf:
        return 0.0

    def miss(log_variance: float) -> float:
        return _weighted(u, energy, own + np.exp(log_variance), exponents)[2] - ndf

    low = float(np.log(own.min())) - 20.0
    high = float(np.log(np.var(energy) + own.max())) + 5.0
    return float(np.exp(brentq(miss, low, high))) if miss(low) > 0 > miss(high) else 0.0
