"""Reading the station journal, from any process: short reads that never hold the writer up."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from controller.journal_rows import (
    READABLE,
    SCHEMA,
    Checkpoint,
    Event,
    JournalError,
    Latch,
    Run,
    foreign_schema,
)

_EVENT = "seq, boot, run, wall_s, lab_s, kind, module, body"
_RUN = (
    "run, experiment, directory, resumed_from, started_wall_s, started_lab_s, started_seq, ended_wall_s, "
    "ended_lab_s, outcome, exit_code, reason, extract, body"
)


def _named(columns: str, row: tuple[Any, ...]) -> dict[str, Any]:
    """Return a row by column names, its body decoded."""
    named = dict(zip(columns.split(", "), row, strict=True))
    return {**named, "body": json.loads(named["body"])}


class Reads:
    """What can be asked of an open journal. Every answer is complete before it is returned."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self.path = path

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what SQLite raises into JournalError."""
        try:
            yield
        except sqlite3.Error as error:
            raise JournalError(self.path, str(error)) from error

    def _rows(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run one query to its end."""
        with self._errors():
            return self._db.execute(sql, values).fetchall()

    def meta(self) -> dict[str, str]:
        """Return schema version, station and the counters of dropped messages."""
        return dict(self._rows("SELECT key, value FROM meta"))

    def boots(self) -> list[tuple[str, int, float, str]]:
        """Return every boot as (id, number, wall time, reason), oldest first."""
        return [(str(b), int(n), float(t), str(r)) for b, n, t, r in self._rows(
            "SELECT boot, n, wall_s, reason FROM boots ORDER BY n")]  # fmt: skip

    def last_boot(self) -> str:
        """Return the id of the latest boot, empty if there was none."""
        rows = self._rows("SELECT boot FROM boots ORDER BY n DESC LIMIT 1")
        return str(rows[0][0]) if rows else ""

    def last_seq(self) -> int:
        """Return the number of the latest event, 0 if there is none."""
        return int(self._rows("SELECT coalesce(max(seq), 0) FROM events")[0][0])

    def events(
        self, run: str | None = None, kind: str | None = None, after: int = 0, limit: int = 10_000
    ) -> list[Event]:
        """Return events with a number above ``after``, in order, of one run and kind if given.

        At most ``limit`` at a time: continue with the last one's ``seq``.
        """
        sql, values = f"SELECT {_EVENT} FROM events WHERE seq > ?", [after]  # noqa: S608
        arguments: list[Any] = list(values)
        for column, value in (("run", run), ("kind", kind)):
            if value is not None:
                sql += f" AND {column} = ?"
                arguments.append(value)
        rows = self._rows(sql + " ORDER BY seq LIMIT ?", (*arguments, limit))
        return [Event(**_named(_EVENT, row)) for row in rows]

    def all_events(self, run: str | None = None, kind: str | None = None, after: int = 0) -> Iterator[Event]:
        """Yield every event like ``events``, page by page, no read staying open between them."""
        while page := self.events(run, kind, after):
            yield from page
            after = page[-1].seq

    def latest(self, run: str, kind: str, module: str, upto: int, limit: int) -> list[Event]:
        """Return the last events of a run, kind and module with numbers up to ``upto``, oldest first."""
        rows = self._rows(
            f"SELECT {_EVENT} FROM events WHERE run = ? AND kind = ? AND module = ? AND seq <= ? "  # noqa: S608
            "ORDER BY seq DESC LIMIT ?",
            (run, kind, module, upto, limit),
        )
        return [Event(**_named(_EVENT, row)) for row in reversed(rows)]

    def last_of(self, run: str, upto: int) -> Event | None:
        """Return the last event of a run with a number up to ``upto``, None if there is none."""
        sql = f"SELECT {_EVENT} FROM events WHERE run = ? AND seq <= ? ORDER BY seq DESC LIMIT 1"  # noqa: S608
        rows = self._rows(sql, (run, upto))
        return Event(**_named(_EVENT, rows[0])) if rows else None

    def last_checkpoint(self, run: str, name: str) -> Checkpoint | None:
        """Return the checkpoint ``name`` of a run, or None."""
        return self.checkpoints(run).get(name)

    def checkpoints(self, run: str) -> dict[str, Checkpoint]:
        """Return every checkpoint of a run by name."""
        rows = self._rows("SELECT name, seq, wall_s, lab_s, body FROM checkpoints WHERE run = ?", (run,))
        return {
            str(name): Checkpoint(seq, wall_s, lab_s, json.loads(body))
            for name, seq, wall_s, lab_s, body in rows
        }

    def latches(self) -> list[Latch]:
        """Return the trips that hold, oldest first."""
        rows = self._rows("SELECT id, seq, wall_s, body FROM latches ORDER BY seq")
        return [Latch(id_, seq, wall_s, json.loads(body)) for id_, seq, wall_s, body in rows]

    def runs(self, *, only_open: bool = False) -> list[Run]:
        """Return the run index, oldest first."""
        where = "WHERE outcome IS NULL" if only_open else ""
        rows = self._rows(f"SELECT {_RUN} FROM runs {where} ORDER BY started_seq")  # noqa: S608
        return [Run(**_named(_RUN, row)) for row in rows]

    def run(self, run: str) -> Run | None:
        """Return one run of the index, None if there is no such run."""
        rows = self._rows(f"SELECT {_RUN} FROM runs WHERE run = ?", (run,))  # noqa: S608
        return Run(**_named(_RUN, rows[0])) if rows else None

    def last_run(self) -> Run | None:
        """Return the run that was begun last, None before the first."""
        rows = self._rows(f"SELECT {_RUN} FROM runs ORDER BY started_seq DESC LIMIT 1")  # noqa: S608
        return Run(**_named(_RUN, rows[0])) if rows else None

    def open_runs(self) -> list[Run]:
        """Return the runs that have not ended: after a crash, those to be resumed or closed."""
        return self.runs(only_open=True)

    def retained_topics(self, pattern: str) -> list[str]:
        """Return the topics that hold a retained message, by a GLOB pattern such as ``question/*``."""
        sql = "SELECT topic FROM topics WHERE topic GLOB ? AND length(payload) > 0 ORDER BY topic"
        return [str(row[0]) for row in self._rows(sql, (pattern,))]

    def backlog(self) -> tuple[int, int]:
        """Return how many messages wait for the broker, and their bytes."""
        rows, size = self._rows("SELECT count(*), coalesce(sum(bytes), 0) FROM outbox")[0]
        return int(rows), int(size)

    def check(self) -> list[str]:
        """Let SQLite check the file's structure; return what is wrong (slow on a large file)."""
        return [str(row[0]) for row in self._rows("PRAGMA quick_check") if row[0] != "ok"]


class JournalReader(Reads):
    """A read-only connection for another process or thread: report, status, export."""

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open an existing journal or extract for reading; JournalError if that cannot be done."""
        path = Path(path)
        try:
            db = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=1.0
            )
        except sqlite3.Error as error:
            raise JournalError(path, f"cannot be opened: {error}") from error
        reader = cls(db, path)
        try:
            version = reader.meta().get("schema")
        except JournalError:
            db.close()
            raise
        if version not in {str(number) for number in READABLE}:
            db.close()
            raise JournalError(path, foreign_schema(version))
        return reader

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def extract(journal: Path | str, run: str, target: Path | str) -> Path:
    """Write the rows of one run into a file of its own, complete and synced before it bears its name.

    The extract has the tables of a journal (events under their own numbers) and opens with ``JournalReader``.

    Raises:
        JournalError: the journal cannot be read, has no such run, or the target cannot be written.
    """
    target = Path(target)
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy_run(Path(journal), run, part)
        part.replace(target)
        _sync_folder(target.parent)
    except (sqlite3.Error, OSError) as error:
        part.unlink(missing_ok=True)
        raise JournalError(target, f"extract of run {run!r} failed: {error}") from error
    except JournalError:
        part.unlink(missing_ok=True)
        raise
    return target


def _copy_run(journal: Path, run: str, part: Path) -> None:
    """Copy one run's rows from the journal into a new file."""
    db = sqlite3.connect(part, isolation_level=None, uri=True)
    try:
        db.execute("PRAGMA synchronous=FULL")
        db.execute("ATTACH ? AS source", (f"{journal.absolute().as_uri()}?mode=ro",))
        db.execute("BEGIN")
        for statement in SCHEMA.split(";\n"):
            db.execute(statement)
        db.execute("INSERT INTO main.runs SELECT * FROM source.runs WHERE run = ?", (run,))
        if not db.execute("SELECT count(*) FROM main.runs").fetchone()[0]:
            raise JournalError(journal, f"there is no run {run!r}")
        db.execute(
            "INSERT INTO main.meta SELECT * FROM source.meta WHERE key IN ('schema', 'station', 'created')"
        )
        db.execute("INSERT INTO main.events SELECT * FROM source.events WHERE run = ? ORDER BY seq", (run,))
        db.execute("INSERT INTO main.checkpoints SELECT * FROM source.checkpoints WHERE run = ?", (run,))
        db.execute(
            "INSERT INTO main.boots SELECT * FROM source.boots WHERE boot IN (SELECT boot FROM main.events)"
        )
        db.execute("COMMIT")
    finally:
        db.close()


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
