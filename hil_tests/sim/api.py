"""What a bench can be asked over its socket: version 1. The page for users is hil_tests/BENCH.md.

A command gets the request as a mapping and returns what is added to ``{"ok": true}``; a ``Refusal`` becomes
``{"ok": false, "code": ..., "error": ...}`` whose words say what to do. Within a version commands and keys
are only ever added.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from hil_tests.sim.schedule import TRIGGERS, FaultSchedule
from hil_tests.sim.settable import SETTABLE
from hil_tests.sim.wire import faults as wire

API = 1
OWN_KEYS = ("nonce", "do", "api", "id")
KINDS = Path(__file__).parent / "fault_kinds.json"  # written by python -m hil_tests.bench_page
COMMANDS = {
    "hello": "proves that the bench lives; its speed, epoch, lab time and the version of this protocol",
    "describe": "everything that can be asked of this bench: targets with their faults, values, triggers",
    "truth": "everything that is true: atoms, coulombs, photons, counters; also written to --truth",
    "counters": "what the twins counted and which outputs are on; cheap, for polling",
    "get": "the value `what`, or all of them",
    "set": "the value `what` to `value`; null: as at the start",
    "fault": "makes `kind` go wrong at `target`, now or at a trigger",
    "faults": "those that struck, and how many are still to come",
    "stop": "ends the bench",
}


class Refusal(ValueError):
    """A request that cannot be done; ``code`` is for programs, the words are for people."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


class BenchLike(Protocol):
    """What the commands need of a bench."""

    world: Any
    clock: Any
    twins: dict[str, Any]
    faults: FaultSchedule

    def inject(self, target: str, fault: Mapping[str, Any]) -> None:
        """Make something go wrong."""
        ...

    def counters(self) -> dict[str, Any]:
        """Return what every twin counted."""
        ...


class Api:
    """The commands of one bench.

    Args:
        bench: the bench.
        epoch: its zero of lab time on CLOCK_MONOTONIC.
        truth: returns the truth, and writes it where the owner wants it.
        stop: ends the bench.
    """

    def __init__(
        self, bench: BenchLike, *, epoch: float, truth: Callable[[], dict[str, Any]], stop: Callable[[], None]
    ) -> None:
        self._bench = bench
        self._epoch = epoch
        self._truth = truth
        self._stop = stop
        self._at_start = {name: self._value(name) for name in SETTABLE}

    def commands(self) -> dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]:
        """Return the commands by name."""
        return {
            "hello": self._hello,
            "describe": self._describe,
            "truth": lambda _request: {"truth": self._truth()},
            "counters": self._counters,
            "get": self._get,
            "set": self._set,
            "fault": self._fault,
            "faults": lambda _r: {"done": self._bench.faults.done, "waiting": self._bench.faults.waiting},
            "stop": self._end,
        }

    def _hello(self, _request: Mapping[str, Any]) -> dict[str, Any]:
        clock = self._bench.clock
        return {"api": API, "speed": float(clock.speed), "epoch": self._epoch, "lab_s": clock.now_s()}

    def _describe(self, _request: Mapping[str, Any]) -> dict[str, Any]:
        kinds = json.loads(KINDS.read_text(encoding="utf-8"))
        targets = {}
        for name, twin in self._bench.twins.items():
            known = type(twin).__name__
            about = " ".join((type(twin).inject.__doc__ or "").split())
            targets[name] = {"twin": known, "faults": kinds.get(known, []), "about": about}
        values = {
            name: {"unit": one.unit, "about": one.about, "value": self._shown(name)}
            for name, one in SETTABLE.items()
        }
        return {
            "api": API, "commands": COMMANDS, "targets": targets, "settable": values,
            "triggers": [*TRIGGERS, "after_s"], "wire_faults": " ".join((wire.__doc__ or "").split()),
        }  # fmt: skip

    def _counters(self, _request: Mapping[str, Any]) -> dict[str, Any]:
        return {"lab_s": self._bench.clock.now_s(), "twins": self._bench.counters()}

    def _get(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if "what" not in request:
            return {"values": {name: self._shown(name) for name in SETTABLE}}
        name = _settable(request)
        return {"value": self._shown(name), "unit": SETTABLE[name].unit}

    def _set(self, request: Mapping[str, Any]) -> dict[str, Any]:
        name = _settable(request)
        if "value" not in request:
            raise Refusal("value", 'give "value": a number, or null for what it was at the start')
        self._put(name, request["value"])
        return {}

    def _put(self, name: str, value: Any) -> None:
        one, usual = SETTABLE[name], self._at_start[name]
        if value is None:
            number = usual
        elif isinstance(value, bool | int | float) and math.isfinite(value):
            number = type(usual)(value)
        else:
            raise Refusal("value", f"{value!r} is no number{f' in {one.unit}' if one.unit else ''}")
        setattr(getattr(self._bench.world, one.part), one.attribute, number)

    def _fault(self, request: Mapping[str, Any]) -> dict[str, Any]:
        bench = self._bench
        table = {key: value for key, value in request.items() if key not in OWN_KEYS}
        target = table.get("target")
        if target not in bench.twins:
            known = ", ".join(bench.twins)
            raise Refusal("target", f'no such target: {target!r}; give "target": one of {known}')
        if "kind" not in table:
            raise Refusal("kind", f'give "kind": what goes wrong; describe lists what there is for {target}')
        if any(key in table for key in (*TRIGGERS, "after_s")):
            if not any(key in table for key in TRIGGERS):
                table["at_s"] = bench.clock.now_s()
            bench.faults.add(table, bench.twins)
            return {"waiting": bench.faults.waiting}
        del table["target"]
        try:
            bench.inject(str(target), table)
        except ValueError as error:
            raise Refusal("kind", f"{error}; describe lists what there is for {target}") from error
        except (KeyError, TypeError) as error:
            raise Refusal("value", f"{type(error).__name__}: {error}; see describe for its keys") from error
        return {}

    def _end(self, _request: Mapping[str, Any]) -> dict[str, Any]:
        self._stop()
        return {}

    def _value(self, name: str) -> Any:
        one = SETTABLE[name]
        return getattr(getattr(self._bench.world, one.part), one.attribute)

    def _shown(self, name: str) -> Any:
        """The value as JSON knows it: null for an infinite one."""
        value = self._value(name)
        return value if math.isfinite(value) else None


def _settable(request: Mapping[str, Any]) -> str:
    name = request.get("what")
    if name not in SETTABLE:
        raise Refusal("what", f'no such value: {name!r}; give "what": one of the known {", ".join(SETTABLE)}')
    return str(name)
