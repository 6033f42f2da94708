"""The guard's rules from the files: the tightest limit of station, chemistry and sample always counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.config import effective_limits
from controller.guard import Action, GuardRules, InterlockRow

if TYPE_CHECKING:
    from controller.config import Experiment, Station


def guard_rules(station: Station, experiment: Experiment, floor_s: float) -> GuardRules:
    """Return hard limits and periods; ``floor_s`` is the shortest polling period, in lab seconds."""
    limits = effective_limits(station, experiment)
    names = {"heater": station.roles.heater, "io": station.io_name, "cell": station.roles.cell}
    return GuardRules(
        temperature_low_k=limits.temperature_low_k,
        temperature_high_k=limits.temperature_high_k,
        temperature_rate_k_per_s=limits.temperature_rate_k_per_s,
        voltage_low_v=limits.voltage_low_v,
        voltage_high_v=limits.voltage_high_v,
        current_a=limits.current_a,
        charge_coulomb=limits.charge_coulomb,
        period_s={role: max(station.devices[name or ""].period_s, floor_s) for role, name in names.items()},
    )


def interlock_rows(station: Station) -> list[InterlockRow]:
    """Return the interlock matrix of a station."""
    return [
        InterlockRow(row.name, str(condition), condition, row.grace_s, Action(row.action), row.latch)
        for row, condition in zip(station.interlocks, station.conditions, strict=True)
    ]
