"""The table of the impedance sweeps in the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.offline import words
from controller.offline.markup import Content, Markup, join, table, tag

QUANTITIES = ("r_s", "r_ct", "warburg")


def sweeps(summary: Mapping[str, Any]) -> Markup:
    """Return every sweep with the state of the cell, the verdict of the test, and what was fitted."""
    rows: list[tuple[Content, ...]] = []
    for one in summary["impedance"]:
        soc = "" if one["soc"] is None else f"{words.fixed(100 * one['soc'], 1)} %"
        kelvin = "" if one["temperature_k"] is None else f"{words.fixed(one['temperature_k'], 1)} K"
        volt = "" if one["voltage_v"] is None else f"{words.fixed(one['voltage_v'], 4)} V"
        title = f"{one['number']}: {one['step']} ({one['mode']})"
        values = [words.cells(name, one["quantities"].get(name, {})).short for name in QUANTITIES]
        rows.append((title, volt, soc, kelvin, _verdict(one), *values))
    heads = ("sweep", "voltage", "SoC", "temperature", "Kramers-Kronig", "R_s", "R_ct", "Warburg")
    circuits = sorted({str(one["circuit"]) for one in summary["impedance"]})
    notes = [f"{one['number']}: {one['why_not']}" for one in summary["impedance"] if one["why_not"]] + [
        f"{one['number']}: {one['points_left_out']} overloaded points left out"
        for one in summary["impedance"]
        if one["points_left_out"]
    ]
    told = tag("p", f"Circuit {', '.join(circuits)}; errors are one sigma, from the residuals of the fit.")
    return join([told, table(heads, rows, numbers=(1, 2, 3)), *(tag("p", note) for note in notes)])


def _verdict(one: Mapping[str, Any]) -> str:
    test = one["kramers_kronig"]
    if test is None:
        return "not tested"
    return f"{'passed' if test['passed'] else 'REJECTED'}, {words.fixed(100 * test['rms'], 2)} % rms"
