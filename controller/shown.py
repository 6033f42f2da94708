"""What is told of a run besides measured values: passes, state of charge by the beam, goals. Pure functions.

Host and page use the same ones, so that a row of the journal and a message are told alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def pass_told(body: Mapping[str, Any], t: float) -> dict[str, Any]:
    """Return what is told of a pass that has ended.

    Args:
        body: the row of the journal (kind ``pass``).
        t: wall seconds at which it ended.
    """
    stamp = body.get("stamp") or {}
    return {
        "scan": body["scan"], "name": body.get("name", ""), "n": body["n"], "good": body["good"],
        "why": body["why"], "t": t, "charge_coulomb": body["charge_coulomb"], "live_s": body["live_s"],
        "events": dict(body["events"]), "lost": dict(body["lost"]),
        "temperature_k": stamp.get("temperature_k"), "voltage_v": stamp.get("voltage_v"),
        "soc": stamp.get("soc"), "soc_sigma": stamp.get("soc_sigma"),
    }  # fmt: skip


def soc_by_beam(quantities: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the state of charge that the beam sees, and its one-sigma error (statistical and systematic).

    Of the first layer that has one; None while no layer has.
    """
    for name, found in quantities.items():
        if name.endswith(".soc_beam"):
            value = float(found["value"])
            sigma = math.hypot(float(found["sigma_stat"]), float(found.get("sigma_sys") or 0.0))
            return value, sigma
    return None
