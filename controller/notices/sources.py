"""Where the notifications know from: the journal, read-only in short reads, and the supervisor's log."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.journal_read import JournalReader
from controller.journal_rows import Event, JournalError
from controller.notices.notice import KINDS

PAGE = 200  # rows of a kind in one read
LOG_BYTES = 1 << 20  # of the supervisor's log that are looked at
START_S = 60.0  # the host may have started so long before
REMEMBERED = 200  # lines of it that were told: control journals the same lines again


@dataclass
class Cursor:
    """How far everything has been told; kept on disk with what is not delivered yet."""

    journal: str = ""  # which journal the number belongs to
    seq: int = 0
    lines: list[str] = field(default_factory=list)  # what of the supervisor's log was told


@dataclass(frozen=True)
class Pulse:
    """Signs of life in the journal: they must grow while a run is under way."""

    seq: int
    checkpoint_s: float  # wall time of the latest checkpoint, 0 before the first of this boot
    boot: str


class Sources:
    """Reads what is new since the cursor.

    Args:
        journal: the station's.
        log: of the supervisor.
        cursor: where to go on; moved by ``read``.
    """

    def __init__(self, journal: Path, log: Path, cursor: Cursor) -> None:
        self._journal = journal
        self._log = log
        self._since_s = time.time()
        self.cursor = cursor

    def read(self) -> tuple[list[Event], Pulse | None]:
        """Return the rows that came since the last time, oldest first, and the signs of life.

        Nothing and None when there is no journal yet, or it cannot be read just now.
        """
        try:
            with JournalReader.open(self._journal) as reader:
                found, pulse = self._rows(reader)
        except (JournalError, ValueError):  # its writer is at the start, or the disk is slow: the next time
            found, pulse = [], None
        fresh = [event for event in found if not self._told(event)]
        return [*fresh, *self._lines()], pulse

    def _rows(self, reader: JournalReader) -> tuple[list[Event], Pulse]:
        upto, boot = reader.last_seq(), reader.last_boot()
        name = reader.meta().get("created", "")
        if self.cursor.journal != name or upto < self.cursor.seq:  # another journal, or the first time
            boots = reader.events(kind="boot", limit=100_000)
            recent = bool(boots) and boots[-1].wall_s > self._since_s - START_S
            began = boots[-1].seq if recent else upto + 1  # what was before nobody has asked for
            self.cursor.journal, self.cursor.seq = name, began - 1
        rows: list[Event] = []
        for kind in KINDS:
            page = reader.events(kind=kind, after=self.cursor.seq, limit=PAGE)
            if len(page) == PAGE:  # the rest of all kinds comes with the next read
                upto = min(upto, page[-1].seq)
            rows += page
        rows = sorted((row for row in rows if row.seq <= upto), key=lambda row: row.seq)
        self.cursor.seq = max(self.cursor.seq, upto)
        wall_s = [mark.wall_s for run in reader.open_runs() for mark in reader.checkpoints(run.run).values()]
        began_s = next((t for id_, _, t, _ in reversed(reader.boots()) if id_ == boot), 0.0)
        newest = max((t for t in wall_s if t >= began_s), default=0.0)
        return rows, Pulse(reader.last_seq(), newest, boot)

    def _told(self, event: Event) -> bool:
        """Tell whether a row is a line of the supervisor that was told from its log."""
        return event.kind == "supervisor" and not self._is_new(event.body)

    def _lines(self) -> list[Event]:
        """Return the new lines of the supervisor's log; control deletes the file when it has them."""
        try:
            with self._log.open("rb") as file:
                text = file.read(LOG_BYTES)
        except OSError:
            return []
        found = []
        for line in text.splitlines(keepends=True):
            try:
                body = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                continue
            if isinstance(body, dict) and self._is_new(body):
                at = body.get("t")
                wall_s = float(at) if isinstance(at, int | float) else 0.0
                found.append(Event(0, "", None, wall_s, None, "supervisor", "supervisor", body))
        return found

    def _is_new(self, body: dict[str, Any]) -> bool:
        """Tell whether a line was not told yet, and take it as told."""
        name = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
        if name in self.cursor.lines:
            return False
        self.cursor.lines = [*self.cursor.lines, name][-REMEMBERED:]
        return True


def result_line(run_dir: Path) -> str:
    """Return the result of a run in one line, from its summary; empty if there is none yet."""
    try:
        summary = json.loads((run_dir / "summary.json").read_text())
        found = [_layer(name, layer) for name, layer in _named(summary.get("layers"))]
        charge = (summary.get("charge") or {}).get("coulomb")
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return ""
    found += [f"charge {float(charge) / 3.6e-3:.4g} uAh"] if isinstance(charge, int | float) else []
    return "; ".join(part for part in found if part)


def _named(layers: Any) -> Sequence[tuple[str, dict[str, Any]]]:
    rows = layers if isinstance(layers, list) else []
    return [(str(row["name"]), row) for row in rows if isinstance(row, dict)]


def _layer(name: str, layer: dict[str, Any]) -> str:
    """Return what was found in a layer: SoC from the beam, or else the lithium content."""
    for quantity, label in (("soc_beam", "SoC"), ("x", "x"), ("relative", "Li relative")):
        told = (layer.get("quantities") or {}).get(quantity)
        if isinstance(told, dict) and isinstance(told.get("value"), int | float):
            sigma = (float(told["sigma_stat"]) ** 2 + float(told["sigma_sys"]) ** 2) ** 0.5
            return f"{name}: {label} {told['value']:.3f} ± {sigma:.3f}"
    return ""
