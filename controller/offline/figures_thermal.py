"""The figure of an identification: what was measured, what the plant says, and what it leaves."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.pyplot import rc_context

from controller.offline.plot_style import DATA, FIT, LINE, STYLE, grid_lines, new_figure
from edge.thermal import ThermalFit, ThermalRecord

MINUTE_S = 60.0


def plant_figure(record: ThermalRecord, fit: ThermalFit, at_k: float | None = None) -> Figure:
    """Return the figure: temperature with the free run of the plant, the residual, the power."""
    with rc_context(STYLE):
        figure = new_figure(7.2, 5.2)
        warm, rest, power = figure.subplots(3, 1, sharex=True, height_ratios=(3.0, 1.0, 1.2))
        minutes = record.time_s / MINUTE_S
        warm.plot(minutes, record.temperature_k, color=DATA, linewidth=2.2, label="measured")
        warm.plot(
            minutes, fit.predicted_k, color=FIT, linewidth=1.0, label=f"{fit.structure.value}, free run"
        )
        if at_k is not None:
            warm.axhline(at_k, color=LINE, linewidth=0.7, linestyle=(0, (4, 3)))
        warm.set_ylabel("temperature, K")
        warm.set_title(_title(fit))
        warm.legend(loc="lower center")
        rest.plot(minutes, 1e3 * (record.temperature_k - fit.predicted_k), color=DATA, linewidth=0.7)
        rest.axhline(0.0, color=FIT, linewidth=0.8)
        rest.set_ylabel("residual, mK")
        power.step(minutes, record.power, where="post", color=LINE, linewidth=0.9)
        power.set_ylabel("power, W")
        power.set_xlabel("time, min")
        for axes in (warm, rest, power):
            grid_lines(axes)
        figure.align_ylabels()
    return figure


def _title(fit: ThermalFit) -> str:
    lag = f", sensor {fit.lag_s:.1f} s" if fit.lag_s > 0.0 else ""
    dead = f", dead time {fit.dead_s:.1f} s" if fit.dead_s > 0.05 else ""
    return (
        f"{fit.total_capacity:.1f} ± {fit.total_capacity_sigma:.1g} J/K, "
        f"{1e3 * fit.loss:.1f} ± {1e3 * fit.sigma['loss']:.1g} mW/K{lag}{dead}"
    )
