"""What is wrong with a file, in words for a tired person: file, key, value, limit, sentence, line number.

A message reads ``experiment.toml: step[3].voltage = "4.6 V" is above the station limit 4.05 V (line 57)``.
Lists count from 0, as in JSON paths; the line number says which one is meant. Everything that is wrong is
reported at once, in the order of the file.
"""

from __future__ import annotations

import datetime
import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.config.files import Source

Path = tuple[str | int, ...]

MISSING = object()  # a value that is not in the file
LONGEST_VALUE = 80  # characters of a value that a message repeats

# What a missing key was for. Keyed by the last part of its path.
NEEDED_FOR = {
    "timeout": 'every wait needs one, such as "30 min"',
    "limits": "a station without limits is refused; there is no unlimited default",
    "reference": "the name of the scan step that the other scans are compared with",
    "sensor_break": (
        "no register of this controller tells what it does when the Pt100 breaks: a person must confirm it, "
        '{ setting = "latching", safe_output = "0 %", confirmed_by = "...", confirmed_on = 2026-01-31 }'
    ),
    "confirmed_by": "the name of the person who looked at the instrument",
    "confirmed_on": "the date on which that person looked, such as 2026-01-31 (without quotes)",
    "watchdog": 'the strict watchdog opens the heater relay when the host dies, such as { timeout = "3 s" }',
    "capacity": 'C-rates and the state of charge need it, such as "0.95 mAh"',
    "capacity_error": 'the state of charge from charge carries it, such as "5 %"',
    "chemistry": "it sets limits that no experiment can widen",
    "raster": '{ pixels = [128, 128], size = ["50 um", "300 um"], dwell = "20 ms" }',
    "until": 'what ends this step, such as { duration = "2 h" }',
    "do": "what this step does, such as do = \"scan\"",
    "driver": 'which instrument it is, such as driver = "eurotherm_3200"',
    "line": "the name of the [line.X] table it is connected to",
    "period": 'how often it is read, such as "1 s"',
    "duration": 'how long, such as "60 s"',
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. ``message`` is complete; the other fields are its parts, for machines."""

    file: str
    key: str
    value: str
    limit: str
    message: str
    line: int | None = None
    path: Path = field(default=(), compare=False)

    def __str__(self) -> str:
        return self.message

    def as_dict(self) -> dict[str, str | int | None]:
        """Return what ``--json`` prints."""
        return {
            "file": self.file,
            "key": self.key,
            "value": self.value,
            "limit": self.limit,
            "line": self.line,
            "message": self.message,
        }


class ConfigErrors(Exception):
    """A file was refused; ``problems`` holds every reason found, in the order of the file.

    ``partial`` is an experiment whose faulty steps were replaced by rests, when the rest of it could be read:
    good enough to be checked against a station for more problems, never to be run.
    """

    def __init__(self, problems: Sequence[Problem], partial: object = None) -> None:
        super().__init__("\n".join(problem.message for problem in problems))
        self.problems = list(problems)
        self.partial = partial


@dataclass(frozen=True)
class Fault:
    """A broken rule inside a table: the key it concerns (empty for the table itself) and the complaint."""

    key: str
    complaint: str
    limit: str = ""


def key_of(path: Path) -> str:
    """Write a path as a person reads it: ``step[3].raster.pixels[0]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = part.replace("_", "").replace("-", "").isalnum()
            text += ("." if text else "") + (part if plain else json.dumps(part, ensure_ascii=False))
    return text


def shown(value: object) -> str:
    """Write a value as it stands in TOML, shortened; an absent one as nothing."""
    if value is MISSING:
        return ""
    text = _toml(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


def value_at(raw: object, path: Path) -> object:
    """Return what the file holds at ``path``, or ``MISSING``."""
    here = raw
    for part in path:
        if isinstance(here, Mapping) and part in here:
            here = here[part]
        elif isinstance(here, Sequence) and not isinstance(here, str) and isinstance(part, int):
            if not 0 <= part < len(here):
                return MISSING
            here = here[part]
        else:
            return MISSING
    return here


def problem(source: Source, path: Path, complaint: str, limit: str = "") -> Problem:
    """Put file, key and value in front of a complaint, and the line number behind it."""
    value = value_at(source.data, path)
    key = key_of(path)
    line = source.line_of(path)
    plain = value is MISSING or isinstance(value, Mapping) or _is_tables(value)
    stated = key if plain else f"{key} = {shown(value)}"
    message = f"{source.name}: {stated} {complaint}" if key else f"{source.name}: {complaint}"
    if line is not None:
        message += f" (line {line})"
    return Problem(source.name, key, "" if plain else shown(value), limit, message, line, path)


def in_file_order(problems: Iterable[Problem]) -> list[Problem]:
    """Sort by line, keep one of identical messages."""
    unique = {found.message: found for found in problems}
    return sorted(unique.values(), key=lambda found: found.line if found.line is not None else 0)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean "x"?`` for a near miss, else the list of what is known."""
    names = sorted(known)
    near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    if near:
        return f'; did you mean "{near[0]}"?'
    return f"; known are {', '.join(names)}" if names else ""


def listed(names: Iterable[str]) -> str:
    """Write names for a message: ``"a", "b"``; "none" when there are none."""
    return ", ".join(f'"{name}"' for name in names) or "none"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_toml(item)}" for name, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)
