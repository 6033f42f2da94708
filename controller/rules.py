"""The guard's rules from a station file, tightened by the sample: the narrower limit always counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.guard import Action, GuardRules, InterlockRow

if TYPE_CHECKING:
    from controller.config import Experiment, Station


def guard_rules(station: Station, experiment: Experiment, floor_s: float) -> GuardRules:
    """Return hard limits and periods.

    Args:
        station: a validated station file.
        experiment: a validated experiment file; its sample can only narrow the limits.
        floor_s: the shortest polling period in lab seconds at the present speed of time.
    """
    limits, sample = station.limits, experiment.sample.limits
    periods = {
        "heater": station.devices[station.roles.heater or ""].period_s,
        "io": station.devices[station.io_name or ""].period_s,
        "cell": station.devices[station.roles.cell or ""].period_s,
    }
    return GuardRules(
        temperature_low_k=_highest(limits.temperature.low_k, sample.temperature.low_k),
        temperature_high_k=_lowest(limits.temperature.high_k, sample.temperature.high_k),
        temperature_rate_k_per_s=limits.temperature_rate_k_per_s,
        voltage_low_v=_highest(limits.voltage.low_v, sample.voltage.low_v),
        voltage_high_v=_lowest(limits.voltage.high_v, sample.voltage.high_v),
        current_a=_lowest(limits.current_a, sample.current_a),
        charge_coulomb=_lowest(limits.charge_coulomb, sample.charge_coulomb),
        period_s={name: max(period, floor_s) for name, period in periods.items()},
    )


def interlock_rows(station: Station) -> list[InterlockRow]:
    """Return the interlock matrix of a station."""
    return [
        InterlockRow(row.name, str(condition), condition, row.grace_s, Action(row.action), row.latch)
        for row, condition in zip(station.interlocks, station.conditions, strict=True)
    ]


def _lowest(limit: float, narrower: float | None) -> float:
    return limit if narrower is None else min(limit, narrower)


def _highest(limit: float, narrower: float | None) -> float:
    return limit if narrower is None else max(limit, narrower)
