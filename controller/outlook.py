"""What the host tells of itself for those who look on: plan, progress, guard, health (``state/...``).

Everything here is known to control already; it is only said, when it has changed, and no more often than
once in a while. What must be computed, reduce has computed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from controller.config.steps import CONTAINERS
from controller.estimate import estimate
from controller.guard_words import inputs_told, rules_told
from controller.payloads import parameter, state
from controller.plan import followed, goals, left_s, plan
from controller.rules import guard_rules, interlock_rows
from controller.shown import soc_by_beam

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from controller.host import Host

FAST_S = 1.0  # wall, between two looks at what changes with each line
SLOW_S = 2.0  # at clocks and counts
HEALTH_S = 10.0
ELAPSED_STANDS_S = 10.0
NEWEST = 50  # gaps
WHOLE = 6  # digits of what is told as a fraction

Parameters = dict[str, dict[str, Any]]


def described(detectors: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return the modules of ``describe`` for what is told here."""

    def module(description: str, parameters: Parameters) -> dict[str, Any]:
        return {"roles": [], "description": description, "parameters": parameters}

    return {
        "soc": module("state of charge", {
            "charge": parameter("by the coulomb count", unit="1"),
            "beam": parameter("by the beam, relative to the reference scan", unit="1"),
            "z": parameter("their difference over its error", unit="1"),
        }),
        "scan": module("the scan that runs", {
            "now": parameter("scan, pass, line, quarantined passes; null between scans", kind="struct"),
            "last": parameter("the last pass that ended", kind="struct"),
        }),
        "result": module("what the beam has found so far, in the newest scan of the sample", {
            "quantities": parameter("by layer.quantity: value, sigma_stat, sigma_sys, unit", kind="struct"),
            "counts": parameter("by layer and element: net counts and their error", kind="struct"),
            "appeared": parameter("by layer: lithium where there was none, how sure", kind="struct"),
            "goals": parameter("goals of the scan and how far they are reached", kind="struct"),
        }),
        "guard": module("what protects, in words", {
            "rules": parameter("the rules, each with its limits", kind="struct"),
            "inputs": parameter("the interlock rows, each with whether it is met", kind="struct"),
            "latched": parameter("ids of the trips that hold", kind="struct"),
        }),
        **{role: module(f"detector {role}", {
            "rate": parameter("events per second in the last pass", unit="1/s"),
            "dead": parameter("dead time in the last pass as a fraction", unit="1"),
            "events": parameter("events of the last pass", kind="integer"),
            "lost": parameter("events of the last pass that did not arrive", kind="integer"),
        }) for role in detectors},
    }  # fmt: skip


RUN: Parameters = {
    "title": parameter("what the run is doing", kind="string"),
    "elapsed": parameter("lab time since the run began", unit="s"),
    "left": parameter("estimated lab time to the end", unit="s"),
    "speed": parameter("lab seconds per second", unit="1"),
    "plan": parameter("every step with its estimate and what has become of it", kind="struct"),
    "gaps": parameter("stretches without data, the newest", kind="struct"),
    "counters": parameter("what was counted: missed ticks, lost events, errors of devices", kind="struct"),
    "instruments": parameter("what the instruments said of themselves", kind="struct"),
    "said": parameter("the newest line of the log", kind="struct"),
}  # fmt: skip


class Outlook:
    """Tells; owns nothing and decides nothing."""

    def __init__(self, host: Host, floor_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Make the plan; nothing is told before ``tell``.

        Args:
            host: whose.
            floor_s: the shortest polling period, lab seconds.
            monotonic: clock, for tests.
        """
        self._host = host
        self._monotonic = monotonic
        found = estimate(host.station, host.experiment, host.clock.speed)
        self._estimate_s = found.expected_s
        self._plan = plan(host.experiment, [step.expected_s for step in found.steps])
        roles = {role for role, _ in host.station.roles.named()} | ({"io"} if host.station.io_name else set())
        rules = guard_rules(host.station, host.experiment, floor_s)
        self._rules = rules_told(rules, roles)
        self._rows = interlock_rows(host.station)
        self._told: dict[tuple[str, str], Any] = {}
        self._due_s: dict[str, float] = {}

    def tell(self) -> None:
        """Tell what has changed; called a few times a second."""
        host = self._host
        self._say("run", "title", (host.sequence.where() or {}).get("title"))
        self._say("guard", "latched", sorted(host.guard.latched))
        self._say("guard", "inputs", inputs_told(self._rows, host.guard.values))
        if self._due("fast", FAST_S):
            self._scan()
        if self._due("slow", SLOW_S):
            self._clocks()
        if self._due("health", HEALTH_S):
            self._health()

    def end(self) -> None:
        """Tell what has become of everything: the last look may be two seconds old."""
        self._due_s.clear()
        self.tell()

    def progress(self, message: Mapping[str, Any]) -> None:
        """Tell what reduce has found in a scan."""
        self._say("result", "quantities", message.get("quantities", {}))
        self._say("result", "counts", message.get("counts", {}))
        self._say("result", "appeared", message.get("appeared", {}))
        found = soc_by_beam(message.get("quantities", {}))
        if found is not None:
            self._say("soc", "beam", found[0], e=found[1], unit="1", kind="soc")
        z = next((one for one in (message.get("z") or {}).values() if one is not None), None)
        if z is not None:
            self._say("soc", "z", z, unit="1", kind="soc")
        self._goals()

    def checked(self, message: Mapping[str, Any]) -> None:
        """Tell what reduce has found in the events of a pass."""
        for role, fraction in (message.get("dead_fraction") or {}).items():
            self._say(role, "dead", fraction, unit="1")

    def passed(self, told: Mapping[str, Any]) -> None:
        """Tell a pass that has ended, as ``shown.pass_told`` has it."""
        self._say("scan", "last", dict(told))
        live_s = told["live_s"]
        for role, events in told["events"].items():
            self._say(role, "events", events)
            self._say(role, "lost", told["lost"].get(role, 0))
            self._say(role, "rate", events / live_s if live_s > 0 else None, unit="1/s")
        self._goals()

    def now(self) -> dict[str, Any]:
        """Return what the terminal shows of the future: what is left, the steps that run, goals, both SoC."""
        host = self._host
        now_s, steps = host.clock.now_s(), self._steps()
        running = [one for one in steps if one["state"] == "running"]
        progress = host.products.get("progress") or {}
        charge, sigma = host.stamps.soc()
        beam = soc_by_beam(progress.get("quantities", {}))
        return {
            "left_s": left_s(steps, now_s),
            "running": [
                {key: one[key] for key in ("title", "estimate_s")} | {"spent_s": now_s - one["begun_lab_s"]}
                for one in running
                if one["do"] not in CONTAINERS
            ],
            "goals": self._told.get(("result", "goals"), []) if host.sequence.scan_status() else [],
            "soc": {
                "charge": None if charge is None or sigma is None else [charge, sigma],
                "beam": None if beam is None else list(beam),
                "z": next((one for one in (progress.get("z") or {}).values() if one is not None), None),
            },
            "gaps": len(host.recorder.gaps),
        }  # fmt: skip

    # --- inside ----------------------------------------------------------------------------------------

    def _scan(self) -> None:
        now = self._host.sequence.scan_status()
        if now is None:
            self._say("scan", "now", None, q="good")
            return
        self._say("scan", "now", now)

    def _clocks(self) -> None:
        host = self._host
        now_s = host.clock.now_s()
        steps = self._steps()
        told = {
            "steps": steps, "estimate_s": self._estimate_s, "began_lab_s": host.began_s,
            "title": host.experiment.experiment.title,
        }  # fmt: skip
        self._say("run", "plan", told)
        self._say("run", "speed", host.clock.speed)
        self._say("run", "elapsed", round(now_s - host.began_s, 1), unit="s", stands_s=ELAPSED_STANDS_S)
        self._say("run", "left", round(left_s(steps, now_s), 0), unit="s", stands_s=ELAPSED_STANDS_S)
        soc, sigma = host.stamps.soc()
        if soc is not None and sigma is not None:
            host.recorder.sample("soc/charge", soc)
            self._say("soc", "charge", round(soc, WHOLE), e=round(sigma, WHOLE), unit="1", kind="soc")

    def _health(self) -> None:
        host = self._host
        self._say("guard", "rules", self._rules)
        counters = {name: value for name, value in host.recorder.counters.items() if name != "ticks"}
        self._say("run", "counters", counters)
        self._say("run", "gaps", host.recorder.gaps[-NEWEST:])
        role_of = {name: role for role, name in host.station.roles.named()}
        self._say("run", "instruments", {
            name: {"driver": host.station.devices[name].driver, "role": role_of.get(name, ""), **notes}
            for name, notes in host.notes.items()
        })  # fmt: skip

    def _goals(self) -> None:
        """Tell how far the scan that runs is from its goals."""
        scan = self._host.sequence.scan_status()
        running = [step for step in self._steps() if step["state"] == "running" and step["goals"]]
        if scan is None or not running or "scan" not in scan:
            return
        progress = self._host.products.get("progress") or {}
        of_this = progress if progress.get("scan") == scan["scan"] else {}
        told = goals(running[-1], of_this, passes=scan["good"], dose_per_cm2=scan["dose_per_cm2"])
        self._say("result", "goals", [{"scan": scan["scan"], **one} for one in told])

    def _steps(self) -> list[dict[str, Any]]:
        sequence = self._host.sequence
        return followed(self._plan, sequence.timeline, done=sequence.done, ended=sequence.state == "ended")

    def _say(
        self, module: str, name: str, value: Any, *, e: float | None = None, unit: str | None = None,
        q: Any = None, kind: str = "state", stands_s: float | None = None,
    ) -> None:  # fmt: skip
        if (module, name) in self._told and self._told[module, name] == value:
            return
        self._told[module, name] = value
        body = state(value, e=e, q=q, unit=unit, stands_s=stands_s)
        owner = name if kind == "soc" else module
        self._host.recorder.post(kind, owner, body, topic=f"state/{module}/{name}", retain=True)

    def _due(self, what: str, period_s: float) -> bool:
        now_s = self._monotonic()
        if now_s - self._due_s.get(what, -period_s) < period_s:
            return False
        self._due_s[what] = now_s
        return True
