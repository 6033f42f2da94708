"""The station journal on disk: one SQLite file, written by one thread of the control process and nobody else.

An event and its outbox row are one transaction, committed and synced before anyone is told. The outbox row
bears the event's own sequence number (AUTOINCREMENT, never reused), so that a reader that remembers the last
number it saw can neither miss a row nor meet another one under the same number.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from controller.journal_prune import OUTBOX_BYTES, drop_events, drop_outbox
from controller.journal_read import Reads
from controller.journal_read import extract as _extract
from controller.journal_rows import (
    MIGRATIONS,
    SCHEMA,
    SCHEMA_VERSION,
    JournalError,
    Record,
    dump,
    foreign_schema,
)


class Journal(Reads):
    """The writer. Use it from the thread that opened it, or through ``AsyncJournal``."""

    def __init__(self, db: sqlite3.Connection, path: Path, station: str) -> None:
        super().__init__(db, path)
        self.station = station
        self.boot_id = ""
        self.enqueued = 0  # messages put into the outbox since the journal was opened
        self.outbox_bytes = 0  # that wait for the broker, files counted with their size

    @classmethod
    def open(cls, path: Path | str, *, station: str) -> Self:
        """Open the journal of a station, creating it (mode 0600) if there is none.

        Raises:
            JournalError: it cannot be opened, is damaged, of another schema, or another station's.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600, exist_ok=True)
            db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        except (OSError, sqlite3.Error) as error:
            raise JournalError(path, f"cannot be opened: {error}") from error
        journal = cls(db, path, station)
        try:
            journal._prepare()
        except BaseException:
            db.close()
            raise
        return journal

    def _prepare(self) -> None:
        """Set durability, create the tables of a new file, and check that an old one is ours."""
        with self._errors():
            if self._db.execute("SELECT count(*) FROM sqlite_master WHERE name='meta'").fetchone()[0]:
                self._check_schema()  # before anything of a newer file is touched
            self._db.execute("PRAGMA journal_mode=WAL").fetchall()
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA journal_size_limit=16777216")
            with self._transaction():
                if not self._db.execute("SELECT count(*) FROM sqlite_master WHERE name='meta'").fetchone()[0]:
                    for statement in SCHEMA.split(";\n"):
                        self._db.execute(statement)
                    rows = {
                        "schema": str(SCHEMA_VERSION),
                        "station": self.station,
                        "created": repr(time.time()),
                    }
                    self._db.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())
        station = self.meta().get("station")
        if station != self.station:
            raise JournalError(self.path, f"belongs to station {station!r}, not {self.station!r}")
        self._migrate()
        self.outbox_bytes = self.backlog()[1]

    def _check_schema(self) -> None:
        """Refuse a schema that is not ours and that no migration leads on from."""
        found = self.meta().get("schema")
        if found not in {str(number) for number in (SCHEMA_VERSION, *MIGRATIONS)}:
            raise JournalError(self.path, foreign_schema(found))

    def _migrate(self) -> None:
        """Bring an older file to the present schema, version after version, each whole or not at all."""
        while (version := int(self.meta()["schema"])) < SCHEMA_VERSION:
            with self._transaction():
                for statement in MIGRATIONS[version].split(";\n"):
                    self._db.execute(statement)
                self._db.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (str(version + 1),))

    def close(self) -> None:
        """Fold the write-ahead log into the file and close it."""
        try:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error:
            pass  # a reader is in the way, or the disk is full: the log stays beside the file and is valid
        finally:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit everything inside, or nothing."""
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            before = self.outbox_bytes
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self.outbox_bytes = before
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    # -- events ----------------------------------------------------------------------------------------------

    def boot(self, reason: str) -> str:
        """Begin a boot: a new id under which all that follows is recorded.

        Retained values of an earlier boot go out once more with ``q = "stale"``; those that a whole boot
        did not renew are cleared.
        """
        boot, now = uuid.uuid4().hex, time.time()
        before, self.boot_id = self.boot_id, boot
        try:
            with self._transaction():
                n = self._db.execute("SELECT coalesce(max(n), 0) + 1 FROM boots").fetchone()[0]
                self._db.execute("INSERT INTO boots VALUES (?, ?, ?, ?)", (boot, n, now, reason))
                self._insert(Record("boot", "journal", {"reason": reason, "n": n, "station": self.station}))
                self._age_retained()
        except BaseException:
            self.boot_id = before
            raise
        return boot

    def _age_retained(self) -> None:
        """Publish what was true before this boot as stale, once; then clear it."""
        old = self._db.execute(
            "SELECT topic, payload FROM topics WHERE topic GLOB 'state/*' AND length(payload) > 0"
        ).fetchall()
        for topic, payload in old:
            body = json.loads(payload)
            if body.get("q", "stale") == "stale":
                record = Record("stale", "journal", {}, topic=topic, retain=True, payload=b"")
            else:
                record = Record("stale", "journal", {**body, "q": "stale"}, topic=topic, retain=True)
            self._insert(record)

    def record(
        self,
        kind: str,
        module: str,
        body: dict[str, Any],
        *,
        run: str | None = None,
        lab_s: float | None = None,
        topic: str | None = None,
        qos: int = 1,
        retain: bool = False,
        payload: bytes | None = None,
        path: str | None = None,
    ) -> int:
        """Write one event (and its outbox row) and return its sequence number, durable on return."""
        return self.record_many([Record(kind, module, body, run, lab_s, topic, qos, retain, payload, path)])[
            0
        ]

    def record_many(self, records: Iterable[Record]) -> list[int]:
        """Write several events in one transaction; either all are durable on return or none exists."""
        with self._transaction():
            return [self._insert(record) for record in records]

    def _insert(self, record: Record) -> int:
        """Insert one event and what belongs to it, inside the caller's transaction."""
        if not self.boot_id:
            raise JournalError(self.path, "no boot has begun")
        body = dump(record.body)
        values = (self.boot_id, record.run, record.wall_s, record.lab_s, record.kind, record.module, body)
        seq = self._db.execute(
            "INSERT INTO events (boot, run, wall_s, lab_s, kind, module, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
            values,
        ).lastrowid
        if seq is None:
            raise JournalError(self.path, "an insert returned no row")
        if record.topic is not None:
            self._enqueue(seq, record, body)
        return seq

    def _enqueue(self, seq: int, record: Record, body: str) -> None:
        """Add the outbox row, chained to the message before it on the same topic."""
        before = self._db.execute("SELECT chain FROM topics WHERE topic = ?", (record.topic,)).fetchone()
        prev = before[0] if before else None
        chain = prev if record.payload == b"" else seq  # an empty payload bears no number: skip it
        if record.path is not None:
            size = _file_size(record.path)
        else:
            size = len(body) if record.payload is None else len(record.payload)
        self._db.execute(
            "INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (seq, record.topic, record.qos, record.retain, record.payload, record.path, prev, size),
        )
        kept = (body.encode() if record.payload is None else record.payload) if record.retain else None
        self._db.execute(
            "INSERT OR REPLACE INTO topics VALUES (?, ?, ?, ?, ?, ?, ?)",
            (record.topic, seq, self.boot_id, record.retain, prev, chain, kept),
        )
        self.enqueued += 1
        self.outbox_bytes += size

    # -- runs, checkpoints, latches, nonces ------------------------------------------------------------------

    def start_run(
        self,
        run: str,
        *,
        experiment: str,
        directory: str,
        body: dict[str, Any] | None = None,
        lab_s: float | None = None,
        resumed_from: str | None = None,
    ) -> int:
        """Open a run in the index and record it; JournalError if the id was used before."""
        body = body or {}
        told = {**body, "experiment": experiment, "directory": directory, "resumed_from": resumed_from}
        record = Record("run_started", "journal", told, run, lab_s)
        with self._transaction():
            seq = self._insert(record)
            self._db.execute(
                "INSERT INTO runs (run, experiment, directory, resumed_from, started_wall_s, started_lab_s, "
                "started_seq, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (run, experiment, directory, resumed_from, record.wall_s, lab_s, seq, dump(body)),
            )
        return seq

    def end_run(
        self, run: str, *, outcome: str, exit_code: int, reason: str = "", lab_s: float | None = None
    ) -> int:
        """Close a run in the index and record it; JournalError if no such run is open."""
        body = {"outcome": outcome, "exit_code": exit_code, "reason": reason}
        record = Record("run_ended", "journal", body, run, lab_s)
        with self._transaction():
            seq = self._insert(record)
            changed = self._db.execute(
                "UPDATE runs SET ended_wall_s = ?, ended_lab_s = ?, outcome = ?, exit_code = ?, reason = ? "
                "WHERE run = ? AND outcome IS NULL",
                (record.wall_s, lab_s, outcome, exit_code, reason, run),
            ).rowcount
            if changed != 1:
                raise JournalError(self.path, f"run {run!r} is not open")
        return seq

    def checkpoint(self, run: str, name: str, body: dict[str, Any], *, lab_s: float | None = None) -> None:
        """Replace the checkpoint ``name`` of a run."""
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO checkpoints VALUES "
                "(?, ?, (SELECT coalesce(max(seq), 0) FROM events), ?, ?, ?)",
                (run, name, time.time(), lab_s, dump(body)),
            )

    def latch(
        self, id_: str, body: dict[str, Any], *, run: str | None = None, lab_s: float | None = None
    ) -> int:
        """Record a trip, hold it, and publish it retained on ``alarm/<id>``; the first cause is kept."""
        record = Record("trip", "guard", body, run, lab_s, f"alarm/{id_}", retain=True)
        with self._transaction():
            seq = self._insert(record)
            self._db.execute(
                "INSERT OR IGNORE INTO latches VALUES (?, ?, ?, ?)", (id_, seq, record.wall_s, dump(body))
            )
        return seq

    def clear_latch(self, id_: str, by: str, *, lab_s: float | None = None) -> bool:
        """Clear a trip and its retained alarm in the name of a local operator; False if it was not held."""
        told = {"id": id_, "by": by}
        asked = f"question/{id_}"
        with self._transaction():
            if not self._db.execute("DELETE FROM latches WHERE id = ?", (id_,)).rowcount:
                return False
            self._insert(
                Record("trip_cleared", "guard", told, None, lab_s, f"alarm/{id_}", retain=True, payload=b"")
            )
            if asked in self.retained_topics("question/*"):  # what a person was to look at has been answered
                self._insert(Record("answer", "guard", told, None, lab_s, asked, retain=True, payload=b""))
        return True

    def nonce_seen(self, nonce: str, expires: float) -> bool:
        """Remember a nonce until ``expires`` (wall seconds) has passed; True if it was known already."""
        with self._transaction():
            self._db.execute("DELETE FROM nonces WHERE expires < ?", (time.time() - 3600.0,))
            sql = "INSERT OR IGNORE INTO nonces VALUES (?, ?)"
            return self._db.execute(sql, (nonce, expires)).rowcount == 0

    # -- outbox ----------------------------------------------------------------------------------------------

    def acknowledge(self, ranges: Sequence[tuple[int, int]]) -> int:
        """Drop the outbox rows in the closed ranges of sequence numbers; return how many there were."""
        with self._transaction():
            sql = "DELETE FROM outbox WHERE seq BETWEEN ? AND ? RETURNING bytes"
            sizes = [row[0] for pair in ranges for row in self._db.execute(sql, pair).fetchall()]
            self.outbox_bytes -= sum(sizes)
            return len(sizes)

    def undeliverable(self, refused: Sequence[tuple[int, str]]) -> int:
        """Drop outbox rows that can never be sent, record which and why, and publish the count."""
        gone = 0
        with self._transaction():
            for seq, why in refused:
                sql = "DELETE FROM outbox WHERE seq = ? RETURNING topic, bytes"
                row = self._db.execute(sql, (seq,)).fetchone()
                if row is not None:
                    self.outbox_bytes -= row[1]
                    self._insert(
                        Record("undeliverable", "journal", {"seq": seq, "topic": row[0], "why": why})
                    )
                    gone += 1
            if gone:
                self._count_dropped({"undeliverable": gone}, "they can never be delivered: see the journal")
        return gone

    def prune(
        self,
        *,
        outbox_bytes: int = OUTBOX_BYTES,
        outbox_age_s: float = 14 * 86400.0,
        telemetry_age_s: float = 7 * 86400.0,
        runs_age_s: float = 365 * 86400.0,
        chunk: int = 2000,
    ) -> dict[str, int]:
        """Keep outbox and journal within their limits, a bounded piece of work per call.

        What leaves the outbox unsent is counted, and the counts are published as ``state/journal/dropped_*``.
        Delivered telemetry and the events of extracted runs leave the journal when they are old enough.

        Returns:
            How many outbox rows were dropped, by class, and how many ``events`` left the journal; empty when
            there was nothing to do.
        """
        now = time.time()
        with self._transaction():
            excess = self.outbox_bytes - outbox_bytes
            dropped, freed = drop_outbox(self._db, excess, now - outbox_age_s, chunk)
            self.outbox_bytes -= freed
            if dropped:
                days = f"{outbox_age_s / 86400.0:g} days and " if math.isfinite(outbox_age_s) else ""
                self._count_dropped(dropped, f"no more than {days}{outbox_bytes / 1e6:.3g} MB may wait")
            events = drop_events(self._db, now - telemetry_age_s, now - runs_age_s, chunk)
        return {**dropped, "events": events} if events else dropped

    def _count_dropped(self, dropped: dict[str, int], why: str) -> None:
        """Add to the counters of dropped messages and publish them, with the reason."""
        for name, count in dropped.items():
            key = f"dropped_{name}"
            total = int(self.meta().get(key, "0")) + count
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, str(total)))
            body = {"v": total, "t": time.time(), "e": None, "q": "good", "why": why}
            self._insert(Record("dropped", "journal", body, topic=f"state/journal/{key}", retain=True))

    def extract(self, run: str, path: Path | str) -> Path:
        """Write the run's own rows to ``path`` (see ``journal_read.extract``) and note where."""
        written = _extract(self.path, run, path)
        self.note_extract(run, written)
        return written

    def note_extract(self, run: str, path: Path) -> None:
        """Note where a run's extract is; only then may its events ever leave the journal."""
        with self._transaction():
            self._db.execute("UPDATE runs SET extract = ? WHERE run = ?", (str(path), run))


def _file_size(path: str) -> int:
    """Return the size of a file that is to be published; 0 if it is not there (link will say so)."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0
