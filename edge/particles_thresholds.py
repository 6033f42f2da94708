"""Decision thresholds of single-particle traces: how high a sample must be before it is no background.

Counts per sample (dwell time) are few, so a threshold is a quantile of the counting distribution, never
mean + 3 sigma of a Gaussian. Every function takes the mean background per sample and returns a level on the
same scale; a sample is a claim when it lies **above** the level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammainc, ndtr, ndtri

Floats = NDArray[np.float64]
Kind = Literal["poisson", "currie", "currie-ld", "compound"]
KINDS: tuple[Kind, ...] = ("poisson", "currie", "currie-ld", "compound")

GRID_PER_ION = 256  # cells of the compound-Poisson grid per mean single-ion signal; error about 1e-6
MAX_GRID = 1 << 22
MANY_IONS = 5000.0
MIN_ALPHA = 1e-12  # below this the rounding of the Fourier transform is seen


def currie(
    mean_counts: ArrayLike, alpha: float = 0.05, beta: float = 0.05, epsilon: float = 0.5, eta: float = 2.0
) -> tuple[Floats, Floats]:
    """Return Currie's critical value and detection limit as net counts.

    S_C = z_a sqrt(eta (B + epsilon));
    S_D = S_C + z_b^2 / 2 + z_b sqrt(z_b^2 / 4 + S_C + eta B).

    Args:
        mean_counts: mean background B per sample, any shape, not negative.
        alpha: chance that background alone is claimed.
        beta: chance that a signal of S_D is missed.
        epsilon: continuity term of the few-count regime; 0 is the textbook formula, 0.5 is recommended.
        eta: 2 for paired observations (background and sample measured equally long), 1 when the background is
            well known, as it is from thousands of samples.

    Returns:
        (S_C, S_D), each the shape of ``mean_counts``; NaN in, NaN out.

    Raises:
        ValueError: a probability is not between 0 and 0.5, or a mean is negative.

    Source: Currie, Anal. Chem. 40 (1968) 586; epsilon: Currie, J. Radioanal. Nucl. Chem. 276 (2008) 285;
    S_D for any S_C: MARLAP (2004) eq. 20.54.
    """
    b = _mean(mean_counts)
    z_a, z_b = -float(ndtri(_probability(alpha))), -float(ndtri(_probability(beta)))
    critical = z_a * np.sqrt(eta * (b + epsilon))
    limit = critical + z_b**2 / 2 + z_b * np.sqrt(z_b**2 / 4 + critical + eta * b)
    return critical, limit


def poisson_level(mean_counts: ArrayLike, alpha: float) -> Floats:
    """Return the smallest whole number k with P(X > k | Poisson mean) <= alpha.

    P(X > k) = P(k + 1, mean), the regularised lower incomplete gamma function: exact, no approximation.

    Args:
        mean_counts: mean background per sample, any shape, not negative.
        alpha: accepted chance of a false claim per sample.

    Returns:
        k as floats, the shape of ``mean_counts``; NaN in, NaN out.

    Raises:
        ValueError: alpha is not between 0 and 0.5, or a mean is negative.

    Source: Currie 1968, section "extreme low-level"; Garwood, Biometrika 28 (1936) 437.
    """
    b = _mean(mean_counts)
    z = -float(ndtri(_probability(alpha)))
    k = np.floor(b + z * np.sqrt(b))  # the Gaussian value is never above the exact one by more than a step
    k = np.maximum(np.where(np.isfinite(k), k, 0.0) - 2, 0.0)
    for _ in range(400):
        above = gammainc(k + 1.0, np.where(np.isfinite(b), b, 0.0)) > alpha
        if not above.any():
            break
        k = k + above
    for _ in range(4):  # should the start have been too high
        k = k - ((k > 0) & (gammainc(np.maximum(k, 1.0), np.where(np.isfinite(b), b, 0.0)) <= alpha))
    level: Floats = np.where(np.isfinite(b), k, np.nan)
    return level


def compound_level(mean_ions: float, sigma_ion: float, alpha: float) -> float:
    """Return the level that a compound Poisson-lognormal background exceeds with chance alpha.

    Each of N ~ Poisson(lambda) ions gives a lognormal signal of mean 1 and log-deviation sigma (the
    single-ion area of a time-of-flight detector). With f the lognormal mass on a grid of step h (nearest
    point) and F its discrete Fourier transform, the mass of the sum is the inverse transform of exp(lambda
    (F - 1)); summed from the far end it gives P(S > s), interpolated in the logarithm. The grid reaches
    beyond every s that matters, so nothing wraps round; halving h changes a level by less than 1e-6.

    Args:
        mean_ions: lambda, ions per sample, above 0.
        sigma_ion: standard deviation of the logarithm, above 0 and at most 1.5.
        alpha: accepted chance of a false claim per sample, 1e-12 to 0.5.

    Returns:
        level in units of the mean single-ion signal; 0 when even one ion is rarer than alpha.

    Raises:
        ValueError: an argument is out of range, or the grid would exceed 4 million cells.

    Above 5000 ions per sample the Cornish-Fisher expansion of the same cumulants is used (it differs by less
    than 1e-4 there).

    Source: characteristic function of a compound Poisson sum (Feller, vol. II, XVII.2); the distribution in
    this field: Lockwood et al., J. Anal. At. Spectrom. 40 (2025), doi 10.1039/D5JA00230C.
    """
    if not MIN_ALPHA <= alpha < 0.5:
        raise ValueError(f"alpha {alpha} is not between {MIN_ALPHA} and 0.5")
    if not (0.0 < sigma_ion <= 1.5 and mean_ions > 0.0):
        raise ValueError(f"mean {mean_ions} must be positive and sigma {sigma_ion} between 0 and 1.5")
    if -math.expm1(-mean_ions) <= alpha:
        return 0.0
    if mean_ions > MANY_IONS:
        return _many_ions(mean_ions, sigma_ion, alpha)
    step, mass = _compound_mass(mean_ions, sigma_ion, alpha)
    above = np.append(np.cumsum(mass[::-1])[::-1][1:], 0.0)  # P(S > s_i + h/2)
    i = int(np.argmax(above <= alpha))
    if i == 0:
        return 0.0
    high, low = max(above[i - 1], 1e-300), max(above[i], 1e-300)
    part = math.log(high / alpha) / math.log(high / low) if high > low else 1.0
    return step * (i - 0.5 + part)


def _many_ions(mean_ions: float, sigma_ion: float, alpha: float) -> float:
    """Return the quantile from the first four cumulants, lambda exp(k (k-1) sigma^2 / 2) (Cornish-Fisher)."""
    sd = math.sqrt(mean_ions) * math.exp(sigma_ion**2 / 2)
    skew = mean_ions * math.exp(3 * sigma_ion**2) / sd**3
    kurtosis = mean_ions * math.exp(6 * sigma_ion**2) / sd**4
    z = -float(ndtri(alpha))
    shifted = z + skew * (z**2 - 1) / 6 + kurtosis * (z**3 - 3 * z) / 24 - skew**2 * (2 * z**3 - 5 * z) / 36
    return mean_ions + sd * shifted


def _compound_mass(mean_ions: float, sigma_ion: float, alpha: float) -> tuple[float, Floats]:
    """Return (step, mass on 0, step, 2 step, ...) of the sum."""
    spread = math.sqrt(mean_ions) * math.exp(sigma_ion**2 / 2)
    one = math.exp(-(sigma_ion**2) / 2 - sigma_ion * float(ndtri(alpha * 1e-3 / max(mean_ions, 1.0))))
    top = mean_ions + 14.0 * spread + one + 20.0  # a bulk far off, and one ion of a thousandth of alpha
    step = 1.0 / GRID_PER_ION
    while top / step > MAX_GRID:
        step *= 2.0
    if step > sigma_ion / 8.0:
        raise ValueError(f"a single-ion signal of log-deviation {sigma_ion} is too wide or too narrow here")
    n = 1 << math.ceil(math.log2(top / step))
    edges = step * (np.arange(n + 1) - 0.5)
    below = np.zeros(n + 1)
    below[1:] = ndtr((np.log(edges[1:]) + sigma_ion**2 / 2) / sigma_ion)
    transform = np.fft.rfft(np.diff(below))
    mass: Floats = np.fft.irfft(np.exp(mean_ions * (transform - 1.0)), n)
    return step, np.maximum(mass, 0.0)


def single_ion(samples: ArrayLike) -> tuple[float, float, float]:
    """Estimate (ions per sample, mean single-ion signal, sigma_ion) from background samples.

    A lognormal is never zero, so lambda = -ln(fraction of zeros); signal = mean / lambda; and, with variance
    lambda m^2 e^(sigma^2), sigma^2 = ln(variance lambda / mean^2). Particles left among the samples widen it.

    Raises:
        ValueError: no zeros or only zeros, or a spread narrower than counting allows.

    Source: moments of the compound Poisson distribution; zeros as in Lockwood et al. 2025.
    """
    x = np.asarray(samples, np.float64)
    zeros = np.count_nonzero(x == 0) / max(x.size, 1)
    if not 0.0 < zeros < 1.0:
        raise ValueError(f"{zeros:.3f} of the samples are zero: the single-ion signal cannot be told")
    ions, mean = -math.log(zeros), float(x.mean())
    excess = float(x.var(ddof=1)) * ions / mean**2
    if excess <= 1.0:
        raise ValueError("these samples scatter less than single ions would")
    return ions, mean / ions, math.sqrt(math.log(excess))


@dataclass(frozen=True)
class Threshold:
    """A rule that turns a mean background into a level.

    ``poisson``: exact quantile at ``alpha``. ``currie``: B + S_C with eta = 1 at ``alpha`` and ``epsilon``.
    ``currie-ld``: B + 3.29 sqrt(B) + 2.71, Currie's detection limit over a well-known background (alpha =
    beta = 5 %), used by much software as a threshold. ``compound``: compound Poisson-lognormal quantile at
    ``alpha`` with ``sigma_ion``; counts are in units of the mean single-ion signal.
    """

    kind: Kind = "poisson"
    alpha: float = 1e-6
    epsilon: float = 0.5
    sigma_ion: float = 0.45

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"threshold {self.kind!r} is not one of {', '.join(KINDS)}")
        if not MIN_ALPHA <= self.alpha < 0.5:
            raise ValueError(f"alpha {self.alpha} is not between {MIN_ALPHA} and 0.5")

    def level(self, mean_counts: float) -> float:
        """Return the level above which a sample is claimed."""
        b = mean_counts
        if self.kind == "currie-ld":
            return b + 3.29 * math.sqrt(b) + 2.71
        if self.kind == "currie":
            return b + float(currie(b, self.alpha, epsilon=self.epsilon, eta=1.0)[0])
        if self.kind == "poisson":
            return float(poisson_level(b, self.alpha))
        return compound_level(b, self.sigma_ion, self.alpha) if b > 0 else 0.0

    def false_rate(self, mean_counts: float) -> float:
        """Return the chance that one background sample of Poisson counts lies above the level."""
        if self.kind == "compound":
            return self.alpha
        level = math.floor(self.level(mean_counts))
        return float(gammainc(level + 1.0, mean_counts)) if mean_counts > 0 else 0.0


def _mean(values: ArrayLike) -> Floats:
    b = np.asarray(values, np.float64)
    if np.any(b < 0):
        raise ValueError(f"a mean background must not be negative, got {float(np.nanmin(b))}")
    return b


def _probability(p: float) -> float:
    if not 0.0 < p < 0.5:
        raise ValueError(f"probability {p} is not between 0 and 0.5")
    return p
