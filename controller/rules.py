"""The guard's rules from the files: the tightest limit of station, chemistry and sample always counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.config import effective_limits
from controller.config.instruments.labjack import LabJack
from controller.config.instruments.temperature import Heating
from controller.guard import Action, GuardRules, InterlockRow
from controller.guard_types import UNKNOWN_PLANT, Plant

if TYPE_CHECKING:
    from controller.config import Experiment, Station
    from controller.config.instruments import temperature


def guard_rules(station: Station, experiment: Experiment | None, floor_s: float) -> GuardRules:
    """Return hard limits and periods; ``floor_s`` is the shortest polling period, in lab seconds."""
    limits = effective_limits(station, experiment)
    names = {"heater": station.roles.heater, "io": station.io_name, "cell": station.roles.cell}
    heater, box = station.device("heater"), station.devices.get(station.io_name or "")
    table = heater.plant if isinstance(heater, Heating) else None
    return GuardRules(
        temperature_low_k=limits.temperature_low_k,
        temperature_high_k=limits.temperature_high_k,
        temperature_rate_k_per_s=limits.temperature_rate_k_per_s,
        voltage_low_v=limits.voltage_low_v,
        voltage_high_v=limits.voltage_high_v,
        current_a=limits.current_a,
        charge_coulomb=limits.charge_coulomb,
        period_s={role: max(station.devices[name].period_s, floor_s) for role, name in names.items() if name},
        plant=UNKNOWN_PLANT if table is None else _plant(table),
        heater_noise_k=None if table is None else table.noise_k,
        monitor_s={name: max(station.devices[name].period_s, floor_s) for name in station.monitors},
        stage=station.roles.stage or "",
        watch_shutter=isinstance(box, LabJack) and box.shutter is not None,
    )


def _plant(table: temperature.Plant) -> Plant:
    """Return the bands of an identified plant; messages name who identified it, and when."""
    return Plant.identified(
        power_w=table.power_w, capacity_j_per_k=table.capacity_j_per_k, loss_w_per_k=table.loss_w_per_k,
        ambient_k=table.ambient_k, ambient_within_k=table.ambient_within_k, tolerance=table.tolerance,
        lag_s=table.lag_s, source=f"identified by {table.identified_by} on {table.identified_on}",
    )  # fmt: skip


def interlock_rows(station: Station) -> list[InterlockRow]:
    """Return the interlock matrix of a station."""
    return [
        InterlockRow(
            row.name,
            str(condition),
            condition,
            row.grace_s,
            Action(row.action),
            row.latch,
            row.acknowledge or "",
        )
        for row, condition in zip(station.interlocks, station.conditions, strict=True)
    ]
