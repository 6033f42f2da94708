"""Tables and rows of the station journal."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
READABLE = frozenset({1})  # schemas whose rows the readers understand as they are
MIGRATIONS: dict[
    int, str
] = {}  # by schema: the SQL that makes the next one of it, statements parted by ";\n"

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE boots (boot TEXT PRIMARY KEY, n INTEGER NOT NULL, wall_s REAL NOT NULL, reason TEXT NOT NULL);
CREATE TABLE events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, boot TEXT NOT NULL, run TEXT, wall_s REAL NOT NULL, lab_s REAL,
  kind TEXT NOT NULL, module TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX events_run ON events (run, kind, seq) WHERE run IS NOT NULL;
CREATE INDEX events_kind ON events (kind, seq);
CREATE TABLE outbox (
  seq INTEGER PRIMARY KEY, topic TEXT NOT NULL, qos INTEGER NOT NULL, retain INTEGER NOT NULL,
  payload BLOB, path TEXT, prev INTEGER, bytes INTEGER NOT NULL);
CREATE TABLE topics (
  topic TEXT PRIMARY KEY, seq INTEGER NOT NULL, boot TEXT NOT NULL, retain INTEGER NOT NULL, prev INTEGER,
  chain INTEGER, payload BLOB) WITHOUT ROWID;
CREATE TABLE runs (
  run TEXT PRIMARY KEY, experiment TEXT NOT NULL, directory TEXT NOT NULL, resumed_from TEXT,
  started_wall_s REAL NOT NULL, started_lab_s REAL, started_seq INTEGER NOT NULL,
  ended_wall_s REAL, ended_lab_s REAL, outcome TEXT, exit_code INTEGER, reason TEXT, extract TEXT,
  body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE checkpoints (
  run TEXT NOT NULL, name TEXT NOT NULL, seq INTEGER NOT NULL, wall_s REAL NOT NULL, lab_s REAL,
  body TEXT NOT NULL, PRIMARY KEY (run, name)) WITHOUT ROWID;
CREATE TABLE latches (
  id TEXT PRIMARY KEY, seq INTEGER NOT NULL, wall_s REAL NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE nonces (nonce TEXT PRIMARY KEY, expires REAL NOT NULL) WITHOUT ROWID
"""


class JournalError(Exception):
    """The journal cannot be read or written. ``path`` names the file; nothing of the call took effect."""

    def __init__(self, path: Path | str, message: str) -> None:
        super().__init__(f"journal {path}: {message}")
        self.path = Path(path)


def foreign_schema(found: str | None) -> str:
    """Return what to say about a journal of a schema that this program does not know."""
    if found is not None and found.isdecimal() and int(found) > SCHEMA_VERSION:
        return (
            f"has schema {found}, from a newer version of this program, which writes {SCHEMA_VERSION}: "
            "use that version, or another state directory; nothing was changed"
        )
    return f"has schema {found}, this program reads {', '.join(map(str, sorted(READABLE)))}"


@dataclass(frozen=True, slots=True)
class Record:
    """One event to be written, and what of it goes out by MQTT.

    Without ``topic`` the event stays on disk. With it, the payload is ``payload``, or the file at ``path``,
    or else the body itself; link adds boot, seq, prev and hist to it. An empty retained payload clears
    the topic. ``topic`` is relative to the station's prefix (``state/heater/temperature``).
    """

    kind: str
    module: str
    body: dict[str, Any]
    run: str | None = None
    lab_s: float | None = None
    topic: str | None = None
    qos: int = 1
    retain: bool = False
    payload: bytes | None = None
    path: str | None = None
    wall_s: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        if self.payload is not None and self.path is not None:
            raise ValueError(f"{self.topic}: a payload and a file at once")
        if self.path is not None and self.retain:
            raise ValueError(f"{self.topic}: a file is never retained")
        if self.topic is None and (self.payload is not None or self.path is not None or self.retain):
            raise ValueError(f"{self.kind}: a payload without a topic")
        if self.qos not in (0, 1):
            raise ValueError(f"{self.topic}: qos = {self.qos} is not 0 or 1")


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the journal as it is read back."""

    seq: int
    boot: str
    run: str | None
    wall_s: float
    lab_s: float | None
    kind: str
    module: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The last state of something that a resumed run continues from; ``seq`` is the last event before it."""

    seq: int
    wall_s: float
    lab_s: float | None
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Latch:
    """A trip that holds until a local operator clears it, with the body of its first cause."""

    id: str
    seq: int
    wall_s: float
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One row of the run index. ``outcome`` is None while the run is open."""

    run: str
    experiment: str
    directory: str
    resumed_from: str | None
    started_wall_s: float
    started_lab_s: float | None
    started_seq: int
    ended_wall_s: float | None
    ended_lab_s: float | None
    outcome: str | None
    exit_code: int | None
    reason: str | None
    extract: str | None
    body: dict[str, Any]


def dump(body: dict[str, Any]) -> str:
    """Return compact JSON; numbers that JSON does not have (nan, inf) become null."""
    try:
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError:
        return json.dumps(_finite(body), separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """Return a numpy scalar as a number, a path as text; anything else is a mistake of the caller."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON: {value!r}")


def _finite(value: Any) -> Any:
    """Copy plain data with every number that is not finite replaced by None."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    number = value if isinstance(value, float) else _plain(value)
    return None if isinstance(number, float) and not math.isfinite(number) else number
