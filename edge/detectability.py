"""How small a change of the state of charge a number of counts can show, and how long that takes to count."""

from __future__ import annotations

import math

from edge.calibration_tables import X_EMPTY, X_FULL, CalibrationTable


def relative_error(
    lithium_reference: float,
    lithium_now: float,
    normaliser_reference: float | None = None,
    normaliser_now: float | None = None,
    background_per_count: float = 0.0,
) -> float:
    """Return the relative statistical error of the double ratio (Li/N now) / (Li/N reference).

    sigma^2 = (1 + 2 b) (1/L_r + 1/L_n) + 1/N_r + 1/N_n, where b is the background under the lithium line per
    net count, counted twice because it is subtracted from a band of equal width.

    Args:
        lithium_reference: net lithium counts of the reference scan.
        lithium_now: of the scan compared with it.
        normaliser_reference: net counts of the normalising element; None means as many as lithium.
        normaliser_now: likewise.
        background_per_count: b.

    Raises:
        ValueError: if a number of counts is not positive.
    """
    lithium = (lithium_reference, lithium_now)
    given = (normaliser_reference, normaliser_now)
    normaliser = [own if own is not None else li for own, li in zip(given, lithium, strict=True)]
    if min(*lithium, *normaliser) <= 0:
        raise ValueError(f"counts must be positive, got {lithium} and {tuple(normaliser)}")
    share = 1.0 + 2.0 * background_per_count
    return math.sqrt(share * sum(1.0 / n for n in lithium) + sum(1.0 / n for n in normaliser))


def smallest_detectable_delta_soc(
    counts_reference: float,
    counts_now: float,
    table: CalibrationTable,
    sigma_level: float = 3.0,
    *,
    normaliser_reference: float | None = None,
    normaliser_now: float | None = None,
    background_per_count: float = 0.0,
    sigma_sys: float = 0.0,
) -> float:
    """Return the smallest change of SoC, from the full state, that is seen at ``sigma_level``.

    delta_soc = sigma_level sigma / (|ds/dx| 0.5), with sigma the error of the double ratio and ds/dx the mean
    slope of the table. Counts are per element and scan.

    Args:
        counts_reference: net lithium counts in the layer, reference scan.
        counts_now: in the scan compared with it.
        table: signal against x.
        sigma_level: how many sigma.
        normaliser_reference: as in ``relative_error``.
        normaliser_now: as in ``relative_error``.
        background_per_count: as in ``relative_error``.
        sigma_sys: relative systematic error of the double ratio, 0 for statistics alone.
    """
    sigma = relative_error(
        counts_reference, counts_now, normaliser_reference, normaliser_now, background_per_count
    )
    return sigma_level * math.hypot(sigma, sigma_sys) / (mean_slope(table) * (X_FULL - X_EMPTY))


def counts_needed(
    delta_soc: float, table: CalibrationTable, sigma_level: float = 3.0, *, background_per_count: float = 0.0
) -> float:
    """Return the counts per element and scan with which a change of SoC is seen at ``sigma_level``.

    N = (4 + 4 b) [sigma_level / (delta_soc 0.5 |ds/dx|)]^2, the inverse of ``smallest_detectable_delta_soc``
    with equal counts everywhere.

    Raises:
        ValueError: if the change is zero.
    """
    if delta_soc == 0.0:
        raise ValueError("no number of counts shows a change of zero")
    signal = abs(delta_soc) * (X_FULL - X_EMPTY) * mean_slope(table)
    return (4.0 + 4.0 * background_per_count) * (sigma_level / signal) ** 2


def hours_needed(
    delta_soc: float,
    table: CalibrationTable,
    lithium_rate_hz: float,
    sigma_level: float = 3.0,
    *,
    background_per_count: float = 0.0,
) -> float:
    """Return the beam-on hours per scan for that, at a rate of net lithium counts in the layer.

    Raises:
        ValueError: if the rate is not positive.
    """
    if lithium_rate_hz <= 0.0:
        raise ValueError(f"lithium rate must be positive, got {lithium_rate_hz} /s")
    needed = counts_needed(delta_soc, table, sigma_level, background_per_count=background_per_count)
    return needed / lithium_rate_hz / 3600.0


def mean_slope(table: CalibrationTable) -> float:
    """Return |ds/dx| between the ends of a table."""
    return float((table.signal[0] - table.signal[-1]) / (table.x[0] - table.x[-1]))
