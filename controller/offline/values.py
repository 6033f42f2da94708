"""How results are written: values with both errors and unit for machines, aligned tables for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edge.calibration import EnergyScale, ScaleFit
from edge.uncertainty import Estimate

KEV_PER_UNIT = {"eV": 1e-3, "keV": 1.0, "MeV": 1e3}


def quantity(value: float, sigma_stat: float, sigma_sys: float, unit: str) -> dict[str, Any]:
    """Return a value with its errors (one sigma) and unit, as JSON has it."""
    return {
        "value": finite(value), "sigma_stat": finite(sigma_stat), "sigma_sys": finite(sigma_sys), "unit": unit
    }  # fmt: skip


def estimated(one: Estimate | None) -> dict[str, Any] | None:
    """Return an estimate as `quantity` has it; None stays None."""
    return None if one is None else quantity(one.value, one.sigma_stat, one.sigma_sys, one.unit)


def finite(value: float) -> float | None:
    """Return the number, or None for what is not one: JSON has no NaN."""
    return float(value) if math.isfinite(value) else None


def scale_report(scale: EnergyScale) -> dict[str, Any]:
    """Return an energy scale with the covariance of its coefficients."""
    powers = scale.powers or tuple(float(k) for k in range(len(scale.coefficients)))
    covariance = None if scale.covariance is None else scale.covariance.tolist()
    return {
        "formula": "E_keV = sum(c * (channel + centre)**p)", "coefficients": list(scale.coefficients),
        "powers": list(powers), "centre": scale.centre, "covariance": covariance,
    }  # fmt: skip


def fit_report(fit: ScaleFit) -> dict[str, Any]:
    """Return a fitted scale with what it leaves over."""
    return scale_report(fit.scale) | {
        "excess_kev": fit.excess_kev, "chi2": fit.chi2, "ndf": fit.ndf,
        "residuals_kev": fit.residuals_kev.tolist(),
        "largest_residual_kev": float(abs(fit.residuals_kev).max()),
    }  # fmt: skip


def parse_energy(text: str) -> float:
    """Return keV from "12 eV" or "1.2 keV". Raises ValueError that names the unit if it is missing."""
    return parse_in(text, KEV_PER_UNIT, "an energy")


def parse_in(text: str, units: Mapping[str, float], what: str) -> float:
    """Return a number in the unit whose factor is 1 from "12 eV". Raises ValueError that names the units."""
    words = text.split()
    if len(words) != 2 or words[1] not in units:
        raise ValueError(f"{text!r} is not {what}: write a number and a unit ({', '.join(units)})")
    try:
        value = float(words[0])
    except ValueError:
        raise ValueError(f"{words[0]!r} in {text!r} is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite {what.split()[-1]}")
    return value * units[words[1]]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned table: the first column to the left, the others to the right."""
    widths = [max(len(row[k]) for row in [list(heads), *rows]) for k in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(["  " + first, *rest]).rstrip()

    return "\n".join([line(heads), *(line(row) for row in rows)])


def pm(value: float, *sigmas: float, digits: int | None = None) -> str:
    """Return "12.3 ± 0.4 ± 0.2"; digits after the point follow from the smallest error unless given."""
    if not math.isfinite(value):
        return "-"
    if digits is None:
        good = [s for s in sigmas if math.isfinite(s) and s > 0]
        digits = max(0, 1 - math.floor(math.log10(max(good)))) if good else 3
    return " ± ".join(f"{part:.{digits}f}" for part in (value, *sigmas))


def percent(one: Estimate | None) -> str:
    """Return "12.3 ± 0.4 ± 0.2 %" of an estimate (a systematic error of 0 left out); "-" for None."""
    if one is None:
        return "-"
    sigmas = (one.sigma_stat, one.sigma_sys) if one.sigma_sys else (one.sigma_stat,)
    return f"{pm(100 * one.value, *(100 * sigma for sigma in sigmas))} %"
