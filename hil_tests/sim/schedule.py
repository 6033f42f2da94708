"""Fault files: what goes wrong, where, and when.

A list of ``[[fault]]`` tables. ``target`` is heater, cell, io, pixe or pige; ``kind`` and what belongs to it
are in the twin's ``inject``. When: ``at_s`` (lab time since the bench began), or, since a host never starts
at the same moment twice, ``at_pulses`` (pixel-clock pulses so far), ``at_temperature_k`` (of the cell, first
time above) or ``at_charge_coulomb`` (through the terminals). ``after_s`` adds lab time to any of them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRIGGERS = ("at_s", "at_pulses", "at_temperature_k", "at_charge_coulomb")


@dataclass
class _Entry:
    target: str
    fault: dict[str, Any]
    trigger: str
    level: float
    after_s: float
    due_s: float | None = None


class FaultSchedule:
    """Injects faults when their time has come.

    Args:
        inject: does it, by target.
        measures: present value of each trigger.
    """

    def __init__(
        self,
        inject: Callable[[str, Mapping[str, Any]], None],
        measures: Mapping[str, Callable[[], float]],
    ) -> None:
        self.done: list[dict[str, Any]] = []
        self._inject = inject
        self._measures = measures
        self._entries: list[_Entry] = []

    def load(self, path: Path, targets: Mapping[str, Any]) -> None:
        """Read a fault file. Raises ValueError when something in it cannot be."""
        file = tomllib.loads(path.read_text(encoding="utf-8"))
        if unknown := set(file) - {"fault"}:
            raise ValueError(f"{path}: unknown: {', '.join(sorted(unknown))}")
        for number, table in enumerate(file.get("fault", []), start=1):
            self._entries.append(_entry(f"{path}: fault {number}", dict(table), targets))

    def add(self, table: Mapping[str, Any], targets: Mapping[str, Any]) -> None:
        """Take one more fault. Raises ValueError when something in it cannot be."""
        self._entries.append(_entry("this fault", dict(table), targets))

    @property
    def waiting(self) -> int:
        """Faults that are still to come."""
        return len(self._entries)

    def check(self, now_s: float) -> None:
        """Inject what is due."""
        for entry in list(self._entries):
            if entry.due_s is None and self._measures[entry.trigger]() >= entry.level:
                entry.due_s = now_s + entry.after_s
            if entry.due_s is not None and now_s >= entry.due_s:
                self._entries.remove(entry)
                self._inject(entry.target, entry.fault)
                self.done.append({"lab_s": now_s, "target": entry.target, **entry.fault})


def _entry(where: str, table: dict[str, Any], targets: Mapping[str, Any]) -> _Entry:
    target = table.pop("target", None)
    if target not in targets:
        raise ValueError(f"{where}: target is {target!r}, not one of {', '.join(targets)}")
    given = [name for name in TRIGGERS if name in table]
    if len(given) != 1:
        raise ValueError(f"{where}: needs one of {', '.join(TRIGGERS)}")
    level = float(table.pop(given[0]))
    after_s = float(table.pop("after_s", 0.0))
    if "kind" not in table:
        raise ValueError(f"{where}: has no kind")
    return _Entry(str(target), table, given[0], level, after_s)
