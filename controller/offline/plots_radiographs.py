"""Figures of the radiographs of a run: profiles along the cell by state, and what its regions hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from controller.offline.svg import WIDTH

State = Mapping[str, Any]
MOST_STATES = 12  # lines that can be told apart


def profiles(states: Sequence[State]) -> Figure | None:
    """Draw lithium-6, else optical depth, along the rows; None when no state has a profile."""
    drawn = [one for one in states if one.get("profile")]
    if not drawn:
        return None
    if len(drawn) > MOST_STATES:  # the first, the last, and some between them
        drawn = [drawn[round(k)] for k in np.linspace(0, len(drawn) - 1, MOST_STATES)]
    lithium = all(one.get("lithium6") for one in drawn)
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    axes = figure.subplots()
    colours = colormaps["viridis"](np.linspace(0.0, 0.9, len(drawn)))
    for one, colour in zip(drawn, colours, strict=True):
        told = one["lithium6"] if lithium else one["profile"]
        values, sigma = _numbers(told["values" if lithium else "depth"]), _numbers(told["sigma_stat"])
        row = _numbers(one["profile"]["row"])
        axes.plot(row, values, color=colour, lw=1.2, label=label(one))
        axes.fill_between(row, values - sigma, values + sigma, color=colour, alpha=0.25, lw=0)
    axes.set_xlabel("row of the image (pixels)")
    axes.set_ylabel(f"lithium-6 ({drawn[0]['lithium6']['unit']})" if lithium else "optical depth, -ln T")
    axes.legend(fontsize="small", frameon=False, ncols=2)
    return figure


def regions(states: Sequence[State]) -> Figure | None:
    """Draw what each region holds against the state of charge, else against time; None without regions."""
    drawn = [one for one in states if one.get("regions")]
    if len(drawn) < 2:
        return None
    known = all("soc" in one for one in drawn)
    if not known and not all("lab_s" in one for one in drawn):
        return None
    lithium = all(one.get("lithium6_of_regions") for one in drawn)
    x = [100.0 * one["soc"]["mean"] if known else sum(one["lab_s"]) / 120.0 for one in drawn]
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    axes = figure.subplots()
    for k, region in enumerate(drawn[0]["regions"]):
        found = [
            one["lithium6_of_regions"][k] if lithium else one["regions"][k]["optical_depth"] for one in drawn
        ]
        values, sigma = _numbers([q["value"] for q in found]), _numbers([q["sigma_stat"] for q in found])
        axes.errorbar(x, values, sigma, fmt="o", ms=4, lw=1, capsize=2, label=region["name"])
    axes.set_xlabel("state of charge by the coulomb count (%)" if known else "time (min)")
    unit = drawn[0]["lithium6_of_regions"][0]["unit"] if lithium else ""
    axes.set_ylabel(f"lithium-6 ({unit})" if lithium else "optical depth, -ln T")
    axes.legend(fontsize="small", frameon=False)
    return figure


def label(state: State) -> str:
    """Return the name of a state with its state of charge, where that is known."""
    soc = state.get("soc")
    return str(state["name"]) + (f", SoC {100.0 * soc['mean']:.1f} %" if soc else "")


def _numbers(values: Sequence[float | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([np.nan if value is None else value for value in values], np.float64)
