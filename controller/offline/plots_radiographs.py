"""Figures of the radiographs of a run: profiles along the cell by state, and what its regions hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from controller.offline import words
from controller.offline.plot_style import FIT, INK, LEVELS, LINE
from controller.offline.svg import GREEN, VIOLET, WIDTH, quiet_grid

State = Mapping[str, Any]
MOST_STATES = 12  # lines that can be told apart
OF_THE_PAGE = (INK, FIT, LINE, GREEN, VIOLET)  # colours that are others on a dark page
DEPTH = "optical depth, −ln T"


def profiles(states: Sequence[State]) -> Figure | None:
    """Draw lithium-6, else optical depth, along the rows; None when no state has a profile."""
    drawn = [one for one in states if one.get("profile")]
    if not drawn:
        return None
    if len(drawn) > MOST_STATES:  # the first, the last, and some between them
        drawn = [drawn[round(k)] for k in np.linspace(0, len(drawn) - 1, MOST_STATES)]
    lithium = all(one.get("lithium6") for one in drawn)
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    power, axis = (
        _scale(drawn[0]["lithium6"]["unit"], *(one["lithium6"]["values"] for one in drawn))
        if lithium
        else (0, DEPTH)
    )
    for one, colour in zip(drawn, _colours(len(drawn)), strict=True):
        told = one["lithium6"] if lithium else one["profile"]
        values, sigma = (
            _numbers(told[key]) / 10.0**power for key in ("values" if lithium else "depth", "sigma_stat")
        )
        row = _numbers(one["profile"]["row"])
        axes.plot(row, values, color=colour, lw=1.2, label=label(one))
        axes.fill_between(row, values - sigma, values + sigma, color=colour, alpha=0.25, lw=0)
    axes.set_xlabel("row of the image / pixels")
    axes.set_ylabel(axis)
    quiet_grid(axes)
    figure.legend(loc="outside lower center", ncols=min(len(drawn), 4))
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
    unit = drawn[0]["lithium6_of_regions"][0]["unit"] if lithium else ""
    all_values = [[q["value"] for q in one["lithium6_of_regions"]] for one in drawn] if lithium else []
    power, axis = _scale(unit, *all_values) if lithium else (0, DEPTH)
    x = [100.0 * one["soc"]["mean"] if known else sum(one["lab_s"]) / 120.0 for one in drawn]
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    axes = figure.subplots()
    for k, region in enumerate(drawn[0]["regions"]):
        found = [
            one["lithium6_of_regions"][k] if lithium else one["regions"][k]["optical_depth"] for one in drawn
        ]
        values, sigma = (_numbers([q[key] for q in found]) / 10.0**power for key in ("value", "sigma_stat"))
        colour = OF_THE_PAGE[(k + 2) % len(OF_THE_PAGE)]
        axes.errorbar(x, values, sigma, fmt="o", ms=5, lw=1.2, capsize=2, color=colour, label=region["name"])
    axes.set_xlabel("state of charge from the charge passed / %" if known else "time / min")
    axes.set_ylabel(axis)
    axes.margins(0.06, 0.12)
    quiet_grid(axes)
    figure.legend(loc="outside lower center", ncols=min(len(drawn[0]["regions"]), 4))
    return figure


def label(state: State) -> str:
    """Return the name of a state with its state of charge, where that is known."""
    soc = state.get("soc")
    return str(state["name"]) + (f", SoC {100.0 * soc['mean']:.1f} %" if soc else "")


def _colours(number: int) -> Sequence[Any]:
    """Return a colour for each state, to be seen on white and on black."""
    if number <= len(OF_THE_PAGE):
        return OF_THE_PAGE[:number]
    return list(colormaps[LEVELS](np.linspace(0.42, 0.8, number)))


def _scale(unit: str, *values: Sequence[float | None]) -> tuple[int, str]:
    """Return the power of ten that is taken out of amounts of lithium-6, and what their axis is called."""
    largest = max((abs(v) for some in values for v in some if v is not None and np.isfinite(v)), default=0.0)
    power = int(np.floor(np.log10(largest))) if largest >= 1e5 else 0
    printed = words.unit_of(unit)
    return power, f"lithium-6 / ({words.ten_to(power)} {printed})" if power else f"lithium-6 / ({printed})"


def _numbers(values: Sequence[float | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([np.nan if value is None else value for value in values], np.float64)
