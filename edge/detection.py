"""Is a line there? Decision threshold, detection limit and limits of the coverage interval.

ISO 11929-1:2019 (characteristic limits), which for pure counting is Currie's critical level and detection
limit (Anal. Chem. 40 (1968) 586). The error of everything subtracted, neighbouring lines included, is in the
threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import ndtr, ndtri


@dataclass(frozen=True)
class Decision:
    """The result of one test, all in the unit of the value (counts, say)."""

    value: float
    sigma_stat: float
    sigma_sys: float
    threshold: float  # a value above it is called a detection; false alarms happen at rate alpha
    detection_limit: float  # smallest true value that is missed at rate beta only; inf if there is none
    upper_limit: float  # of the (1 - gamma) coverage interval for a value known to be not negative
    lower_limit: float
    variance_at_zero: float  # of the value when the true one is zero
    alpha: float
    beta: float
    gamma: float

    @property
    def detected(self) -> bool:
        """Whether the effect is claimed."""
        return self.value > self.threshold

    @property
    def sigma(self) -> float:
        """Total standard uncertainty."""
        return math.hypot(self.sigma_stat, self.sigma_sys)


def decide(
    value: float,
    sigma_stat: float,
    sigma_sys: float,
    variance_at_zero: float,
    variance_slope: float,
    *,
    relative_sys: float = 0.0,
    alpha: float = 0.05,
    beta: float = 0.05,
    gamma: float = 0.05,
) -> Decision:
    """Decide whether a net value is a detection.

    The variance expected for a true value a is u^2(a) = variance_at_zero + variance_slope a + (relative_sys
    a)^2. Threshold a* = k(1 - alpha) u(0); detection limit a# solves a# = a* + k(1 - beta) u(a#); limits of
    the
    interval: with omega = Phi(value / sigma), lower = value - k(omega (1 - gamma / 2)) sigma and
    upper = value + k(1 - omega gamma / 2) sigma, k being the quantile of the standard normal distribution.

    Args:
        value: net value after every subtraction; may be negative.
        sigma_stat: statistical standard uncertainty of it.
        sigma_sys: systematic standard uncertainty of it.
        variance_at_zero: u^2(0), statistics and additive systematics.
        variance_slope: additional Poisson variance per unit of true value.
        relative_sys: relative systematic uncertainty of the scale.
        alpha: accepted rate of false alarms.
        beta: accepted rate of misses at the detection limit.
        gamma: 1 - coverage of the interval.

    Returns: the decision; detection_limit is inf when relative_sys is too large for one to exist.
    Raises: ValueError for a negative variance or a probability outside 0 to 0.5.
    Source: ISO 11929-1:2019, clauses 8 to 10.
    """
    if min(variance_at_zero, variance_slope, sigma_stat, sigma_sys, relative_sys) < 0:
        raise ValueError("variances and uncertainties must not be negative")
    if not all(0 < p < 0.5 for p in (alpha, beta, gamma)):
        raise ValueError("alpha, beta and gamma must lie between 0 and 0.5")
    threshold = float(ndtri(1 - alpha)) * math.sqrt(variance_at_zero)
    lower, upper = _interval(value, math.hypot(sigma_stat, sigma_sys), gamma)
    limit = _limit(threshold, float(ndtri(1 - beta)), variance_at_zero, variance_slope, relative_sys)
    return Decision(
        value=value, sigma_stat=sigma_stat, sigma_sys=sigma_sys, threshold=threshold, detection_limit=limit,
        upper_limit=upper, lower_limit=lower,
        variance_at_zero=variance_at_zero, alpha=alpha, beta=beta, gamma=gamma,
    )  # fmt: skip


def _limit(threshold: float, k: float, at_zero: float, slope: float, relative: float) -> float:
    """Return the larger root of (a - threshold)^2 = k^2 (at_zero + slope a + (relative a)^2)."""
    if k * relative >= 1:
        return math.inf
    square = 1.0 - (k * relative) ** 2
    half = threshold + 0.5 * k * k * slope
    constant = threshold**2 - k * k * at_zero
    return (half + math.sqrt(max(half * half - square * constant, 0.0))) / square


def _interval(value: float, sigma: float, gamma: float) -> tuple[float, float]:
    """Return the probabilistically symmetric interval of a Gaussian restricted to values >= 0."""
    if sigma == 0:
        return max(value, 0.0), max(value, 0.0)
    omega = float(ndtr(value / sigma))
    if omega < 1e-12:  # hopelessly negative: the exponential tail of the cut Gaussian
        scale = sigma * sigma / abs(value)
        return -scale * math.log1p(-gamma / 2), -scale * math.log(gamma / 2)
    lower = value - sigma * float(ndtri(omega * (1 - gamma / 2)))
    upper = value - sigma * float(ndtri(omega * gamma / 2))  # -ndtri(q) = ndtri(1 - q), exact for small q
    return max(lower, 0.0), max(upper, 0.0)
