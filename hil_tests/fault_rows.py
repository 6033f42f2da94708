"""The fault catalogue as data: reads ``hil_tests/faults/*.toml`` and refuses what is not a row.

A row says what goes wrong, when, which state must be reached within which time, and what must be found
afterwards. ``fault_run`` carries it out, ``test_faults`` claims it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "faults"
REACHES = (
    "all off",
    "beam and heat off",
    "cell open",
    "beam blanked",
    "shutter closed",
    "goes on",
    "refused",
    "no heat, the rest off",
    "beam blanked, heat and cell off",
)
CONDITIONS = ("guard", "control blocked", "control stopped", "host killed")
STRIKES = ("target", "set", "process", "do")  # one of these keys says what kind of strike a table is
CLAIMED_SPEED = 10.0  # the fastest at which trip times are claimed


@dataclass(frozen=True)
class Row:
    """One fault. Allowed from the strike to the state: ``wall_s`` plus ``lab_s``, at the row's speed."""

    group: str
    name: str
    strike: tuple[Mapping[str, Any], ...]
    reach: str
    wall_s: float
    when: str = "everything on"
    lab_s: float = 0.0
    trips: tuple[str, ...] = ()  # one of them must be latched and journalled
    journal: tuple[str, ...] = ()  # kinds of rows that must be there
    told: str = ""  # regular expression
    exit: tuple[int, ...] = (4,)
    stay_s: float = 0.0  # lab seconds that the beam may stay on one place, from the strike to the end; 0: any
    unreachable: str = ""  # this output cannot confirm that it is off
    speed: float = CLAIMED_SPEED
    setting: str = ""  # what is other than usual at this station: a key of fault_settings.SETTINGS
    alone: bool = False  # not in one run with others that it must go on with
    after: tuple[str, ...] = ()  # what must be found when it is over: keys of fault_going_on.AFTER
    conditions: tuple[str, ...] = ("guard",)
    fast: bool = True  # part of make test, in condition "guard"
    open: str = ""  # why it is not met yet: a strict expected failure

    @property
    def id(self) -> str:
        """Return the name as a test has it."""
        return f"{self.group}-{self.name}"


class RowError(ValueError):
    """A row that is not one; says which and why."""


def load(folder: Path = FOLDER) -> list[Row]:
    """Return every row of every file, in their order. Raises RowError."""
    rows = []
    for path in sorted(folder.glob("*.toml")):
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("fault", [])
        rows += [_row(path.stem, table) for table in tables]
    names = [row.name for row in rows]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise RowError(f"more than one row of this name: {', '.join(sorted(twice))}")
    return rows


def _row(group: str, table: Mapping[str, Any]) -> Row:
    where = f"{group}.toml, {table.get('name', 'a row without a name')!r}"
    known = {field.name for field in fields(Row)} - {"group"}
    unknown = set(table) - known
    if unknown:
        raise RowError(f"{where}: no such key: {', '.join(sorted(unknown))}")
    missing = {"name", "strike", "reach", "wall_s"} - set(table)
    if missing:
        raise RowError(f"{where}: missing: {', '.join(sorted(missing))}")
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in table.items()
    }
    strike = values["strike"]
    values["strike"] = strike if isinstance(strike, tuple) else (strike,)
    row = Row(group=group, **values)
    for wrong, text in (
        (row.reach not in REACHES, f"reach is one of {', '.join(REACHES)}"),
        (bool(set(row.conditions) - set(CONDITIONS)), f"conditions are of {', '.join(CONDITIONS)}"),
        (not row.wall_s > 0 or not row.lab_s >= 0, "wall_s is above 0, lab_s not below"),
        (
            any(sum(key in part for key in STRIKES) != 1 for part in row.strike),
            f"a strike has one of {', '.join(STRIKES)}",
        ),
    ):
        if wrong:
            raise RowError(f"{where}: {text}")
    try:
        re.compile(row.told)
    except re.error as error:
        raise RowError(f"{where}: told: {error}") from None
    return row
