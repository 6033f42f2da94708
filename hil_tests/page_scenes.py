"""What a played host says of itself: snapshots for the stage of the live page."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from hil_tests.page_arrays import RUN, SPAN_S, STALE_S, Arrays

SCENES = ("running", "tripped", "stale", "early", "ended", "flood")
Body = dict[str, Any]


class Scene:
    """One scene: the first frames for a viewer, and what comes then."""

    def __init__(self, name: str, *, seed: int = 1, pixels: int = 64) -> None:
        self.name = name
        self.random = np.random.default_rng(seed)
        self.began = time.time() - (300.0 if name == "early" else SPAN_S)
        self._arrays = Arrays(name, self.began, pixels, self.random)

    def series(self) -> list[bytes]:
        """Return the history of every quantity."""
        return self._arrays.series()

    def products(self, n: int = 9) -> list[bytes]:
        """Return maps, profiles and spectra of pass ``n``, and those of the reference scan."""
        return self._arrays.products(n)

    def one_map(self, n: int) -> bytes:
        """Return a single map."""
        return self._arrays.one_map(n)

    def snapshot(self) -> Body:
        """Return the snapshot of the scene."""
        now = time.time()
        return {
            "k": "snapshot",
            "protocol": 1,
            "station": "bench",
            "t": now,
            "version": "0.1.0",
            "host": self.host(),
            "describe": _describe(),
            "states": self.states(),
            "alarms": self.alarms(),
            "questions": [],
            "passes": self.passes(),
            "events": self.events(),
            "series": [],
            "streams": [],
        }

    def host(self) -> Body:
        """Return what is known of the host itself."""
        now = time.time()
        lost = self.name == "stale"
        return {
            "broker": True,
            "state": "lost" if lost else "ready",
            "away": "the host is lost" if lost else "",
            "since": now - (STALE_S if lost else SPAN_S),
            "version": "0.1.0",
            "backlog": 0,
            "boot": "b",
            "hist": False,
        }

    def states(self) -> Body:
        """Return every state of the scene."""
        t, scene = time.time(), self.name
        off, old = scene in ("tripped", "ended"), scene == "stale"
        t = t - STALE_S if old else t - 0.3

        def one(v: Any, unit: str = "", e: float | None = None, q: str = "good", why: str = "") -> Body:
            if old:
                q, why = "stale", "the host is lost"
            return {"v": v, "t": t, "e": e, "q": q, "unit": unit, "why": why}

        early = scene == "early"
        elapsed = 300.0 if early else SPAN_S
        tripped = scene == "tripped"
        states = {
            "run/id": one(RUN),
            "run/state": one("ended" if off else "running"),
            "run/step": one(None if off else 1 if early else 5),
            "run/title": one("charge 18 uA to 4.000 V | scan charging"),
            "run/elapsed": one(elapsed, "s"),
            "run/left": one(0.0 if off else 6500.0 - (0 if early else 2620.0), "s"),
            "run/speed": one(1.0),
            "run/plan": one(_plan(scene, elapsed)),
            "run/gaps": one([]),
            "run/counters": one({"missed_ticks": 3, "quarantined_passes": 1}),
            "run/instruments": one(
                {
                    "oven": {
                        "driver": "eurotherm_3200",
                        "role": "heater",
                        "identity": {"serial": "10482"},
                        "notes": [],
                    }
                }
            ),
            "heater/temperature": one(353.9 if tripped else 298.4 if early else 333.06, "K", 1.0),
            "heater/target": one(None if early or off else 333.0, "K"),
            "heater/output": one(0.0 if off or early else 0.34, "1"),
            "heater/problems": one(""),
            "cell/voltage": one(3.958 if not early else 3.61, "V"),
            "cell/current": one(0.0 if off or early else 1.634e-5, "A"),
            "cell/charge": one(0.0 if early else 0.02214, "C", 2e-5),
            "cell/phase": one("open circuit" if off or early else "cc"),
            "soc/charge": one(0.0 if early else 0.3075, "1", 0.0155),
            "beam/current": one(2.41e-11, "A"),
            "beam/blanked": one(bool(off)),
            "beam/permit": one(True),
            "beam/relay": one(not off and not early),
            "beam/shutter": one(not off),
            "guard/latched": one(["heater-over"] if tripped else []),
            "guard/inputs": one(
                [
                    {
                        "name": "vacuum",
                        "text": "vacuum above 1e-5 mbar",
                        "action": "beam",
                        "latch": False,
                        "grace_s": 1.0,
                        "met": False,
                        "held": False,
                    }
                ]
            ),
            "guard/rules": one(
                [
                    {
                        "id": "heater-over",
                        "text": "too warm",
                        "channel": "heater/temperature",
                        "low": 278.15,
                        "high": 353.15,
                        "unit": "K",
                        "action": "safe",
                        "latched": tripped,
                    },
                    {
                        "id": "cell-voltage",
                        "text": "cell voltage",
                        "channel": "cell/voltage",
                        "low": 2.5,
                        "high": 4.1,
                        "unit": "V",
                        "action": "cell",
                        "latched": False,
                    },
                ]
            ),
            "scan/now": one(
                None
                if off
                else {
                    "scan": 1 if early else 2,
                    "name": "as prepared" if early else "charging",
                    "n": 2 if early else 9,
                    "line": 41,
                    "lines": 64,
                    "quarantined": 0 if early else 1,
                    "good": 1 if early else 7,
                }
            ),
            "line-heater/requests": one(54011),
            "line-heater/timeouts": one(0),
            "line-heater/errors": one(0),
            "line-heater/p50_ms": one(6.1),
            "line-heater/p99_ms": one(11.4),
            "line-cell/requests": one(10423),
            "line-cell/timeouts": one(2),
            "line-cell/errors": one(2),
            "line-cell/p50_ms": one(1.8),
            "line-cell/p99_ms": one(9.0),
            "line-io/requests": one(204113),
            "line-io/timeouts": one(0),
            "line-io/errors": one(0),
            "line-io/p50_ms": one(0.6),
            "line-io/p99_ms": one(2.2),
        }
        if not early:
            states |= {
                "soc/beam": one(0.342, "1", 0.061),
                "soc/z": one(0.55),
                "result/quantities": one(
                    {
                        "cathode.li_relative": _estimate(0.842, 0.024, 0.018),
                        "cathode.x": _estimate(0.829, 0.026, 0.016),
                        "cathode.soc_beam": _estimate(0.342, 0.052, 0.032),
                        "cathode.soc_charge": _estimate(0.3075, 0.0004, 0.0155),
                        "anode.li_relative_charge": _estimate(1.11, 0.03, 0.04),
                    }
                ),
                "result/counts": one(
                    {
                        "anode": {"Li": [6612.0, 92.1], "Co": [21.0, 12.0]},
                        "separator": {"Li": [812.0, 44.0], "P": [4120.0, 71.0]},
                        "cathode": {"Li": [2210.4, 60.2], "Co": [31455.0, 190.0], "P": [640.0, 40.0]},
                    }
                ),
                "result/goals": one(
                    [
                        {
                            "kind": "passes",
                            "scan": "charging",
                            "layer": None,
                            "of": "",
                            "now": 7,
                            "goal": 12,
                            "unit": "1",
                            "fraction": 0.583,
                        },
                        {
                            "kind": "uncertainty",
                            "scan": "charging",
                            "layer": "cathode",
                            "of": "soc_beam",
                            "now": 0.061,
                            "goal": 0.05,
                            "unit": "1",
                            "fraction": 0.67,
                        },
                        {
                            "kind": "counts",
                            "scan": "charging",
                            "layer": "cathode",
                            "of": "Li",
                            "now": 2210.4,
                            "goal": 2000.0,
                            "unit": "counts",
                            "fraction": 1.105,
                        },
                    ]
                ),
            }
        return states

    def alarms(self) -> list[Body]:
        """Return what has tripped."""
        if self.name != "tripped":
            return []
        return [
            {
                "id": "heater-over",
                "text": "temperature 353.9 K is above the limit of 353.2 K, 2 readings in a row",
                "channel": "heater/temperature",
                "value": 353.9,
                "limit": 353.15,
                "unit": "K",
                "action": "heater off, cell open, beam blanked, shutter closed",
                "t": time.time() - 42.0,
                "latch": True,
                "asks": None,
            }
        ]

    def passes(self) -> list[Body]:
        """Return the passes so far."""
        if self.name == "early":
            return []
        made = []
        for n in range(1, 13):
            good = n != 8
            made.append(
                {
                    "scan": 1 if n < 5 else 2,
                    "name": "as prepared" if n < 5 else "charging",
                    "n": n if n < 5 else n - 4,
                    "good": good,
                    "why": "" if good else "pige: 3 events lost",
                    "t": self.began + 440.0 * n,
                    "charge_coulomb": 5.4e-9,
                    "events": {"pixe": 133_201 + 17 * n, "pige": 101_411 - 31 * n},
                    "temperature_k": 333.0,
                    "voltage_v": 3.9,
                    "soc": 0.02 * n,
                }
            )
        return made

    def events(self) -> list[Body]:
        """Return what happened so far."""
        told = [
            (5.0, "log", "host", "scan as prepared"),
            (1810.0, "step", "sequence", "heat to 333.0 K"),
            (2100.0, "cell", "cell", "cell: started"),
            (2700.0, "command", "local", "pause by a person: refill"),
            (3300.0, "gap", "link", "the broker was away for 34 s; nothing is lost, the journal had it"),
            (3960.0, "log", "scan", "scan pass 8 is quarantined: pige: 3 events lost"),
            (4600.0, "cell", "cell", "cell: phase cv"),
        ]
        if self.name == "tripped":
            told.append(
                (SPAN_S - 42.0, "trip", "guard", "temperature 353.9 K is above the limit of 353.2 K -> safe")
            )
        if self.name == "early":
            told = told[:1]
        return [
            {"seq": i, "t": self.began + at, "kind": kind, "module": module, "text": text}
            for i, (at, kind, module, text) in enumerate(told)
        ]


def _plan(scene: str, elapsed: float) -> Body:
    titles = [
        ("scan", "scan as prepared", 960.0),
        ("ocv", "ocv 30 s", 30.0),
        ("heat", "heat to 333.0 K", 300.0),
        ("ocv", "ocv 30 s", 30.0),
        ("parallel", "", 3600.0),
        ("parallel", "", 1000.0),
        ("background", "background", 60.0),
    ]
    inside = {
        5: ["charge 18 uA to 4.000 V", "scan charging"],
        6: ["cool to 313.0 K", "ocv 15 min", "scan after"],
    }
    steps: list[Body] = []
    at = 0.0
    running = {"early": 1}.get(scene, 5)
    for number, (do, title, estimate) in enumerate(titles, 1):
        state = "done" if number < running else "running" if number == running else "waiting"
        if scene == "tripped" and number == running:
            state = "cut short"
        if scene == "ended":
            state = "done"
        begun = at if state != "waiting" else None
        took = estimate * (2.2 if number in (1, 3) else 1.0)
        ended = at + took if state == "done" else elapsed if state == "cut short" else None
        step = {
            "path": str(number - 1),
            "number": number,
            "depth": 0,
            "do": do,
            "title": title,
            "estimate_s": estimate,
            "state": state,
            "begun_lab_s": begun,
            "ended_lab_s": ended,
            "reason": "",
            "goals": [],
        }
        steps.append(step)
        steps += [
            {**step, "path": f"{number - 1}.{i}", "depth": 1, "do": t.split()[0], "title": t}
            for i, t in enumerate(inside.get(number, []))
        ]
        at += took
    return {
        "steps": steps,
        "estimate_s": sum(t[2] for t in titles),
        "began_lab_s": 0.0,
        "title": "A 20 µAh lithium | MEEP | LiCoO2 cell, charged to one half under the beam",
    }


def _describe() -> Body:
    def module(driver: str, *names: str) -> Body:
        return {
            "driver": driver,
            "roles": ["x"],
            "description": "",
            "parameters": {name: {} for name in names},
        }

    return {
        "modules": {
            "heater": module("eurotherm_3200", "temperature", "output"),
            "cell": module("palmsens_emstat4", "voltage", "current"),
            "beam": module("labjack_t7", "current", "blanked"),
        },
        "limits": {},
        "streams": [],
    }


def _estimate(value: float, stat: float, sys: float) -> Body:
    return {"value": value, "sigma_stat": stat, "sigma_sys": sys, "unit": "1"}
