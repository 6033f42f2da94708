"""Limits of the outbox and of the journal: what goes first when there is too much, and what never goes."""

from __future__ import annotations

import math
import sqlite3

OUTBOX_BYTES = 256 << 20  # the most that may wait for the broker

# In this order. Data products first: their files stay on disk. Then every second batch of telemetry. Then
# values that a newer one has replaced. Documents, alarms, questions and answers are never dropped.
_VICTIMS = {
    "data": "SELECT seq, bytes FROM outbox WHERE topic GLOB 'data/*' ORDER BY seq LIMIT :chunk",
    "tele": "SELECT seq, bytes FROM (SELECT seq, bytes, row_number() OVER (ORDER BY seq) AS n FROM "
    "(SELECT seq, bytes FROM outbox WHERE topic = 'tele' ORDER BY seq LIMIT 2 * :chunk)) WHERE n % 2 = 0 "
    "ORDER BY seq",
    "state": "SELECT o.seq, o.bytes FROM outbox o JOIN topics t USING (topic) "
    "WHERE o.topic GLOB 'state/*' AND o.seq < t.seq ORDER BY o.seq LIMIT :chunk",
}


def drop_outbox(
    db: sqlite3.Connection, excess_bytes: int, cutoff_wall_s: float, chunk: int
) -> tuple[dict[str, int], int]:
    """Delete outbox rows until the rest is within its limits; return how many of each class went, and bytes.

    Args:
        db: the journal, inside a transaction.
        excess_bytes: by how much too much waits, files counted with their size; negative if not.
        cutoff_wall_s: rows older than this are over age.
        chunk: the most rows of a class to delete in one call.
    """
    dropped: dict[str, int] = {}
    freed, aged = 0, 0
    if math.isfinite(cutoff_wall_s):  # the look at all ages takes longest
        aged = db.execute(
            "SELECT coalesce(max(o.seq), 0) FROM outbox o JOIN events e USING (seq) WHERE e.wall_s < ?",
            (cutoff_wall_s,),
        ).fetchone()[0]
    for name, victims in _VICTIMS.items():
        if freed >= excess_bytes and not aged:
            break
        going = []
        for seq, size in db.execute(victims, {"chunk": chunk}).fetchall():
            if freed >= excess_bytes and seq > aged:
                break
            going.append((seq,))
            freed += size
        if going:
            db.executemany("DELETE FROM outbox WHERE seq = ?", going)
            dropped[name] = len(going)
    return dropped, freed


def drop_events(db: sqlite3.Connection, telemetry_wall_s: float, runs_wall_s: float, chunk: int) -> int:
    """Delete delivered telemetry and the events of extracted runs from before the given wall times.

    What waits in the outbox stays, and so does everything of a run that has not ended.
    """
    young = db.execute(
        "SELECT seq FROM events WHERE kind = 'tele' AND wall_s >= ? ORDER BY seq LIMIT 1", (telemetry_wall_s,)
    ).fetchone()
    gone = db.execute(
        "DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE kind = 'tele' AND seq < ? "
        "AND seq NOT IN (SELECT seq FROM outbox) "
        "AND (run IS NULL OR run NOT IN (SELECT run FROM runs WHERE outcome IS NULL)) ORDER BY seq LIMIT ?)",
        (young[0] if young else 1 << 62, chunk),
    ).rowcount
    gone += db.execute(
        "DELETE FROM events WHERE seq IN (SELECT e.seq FROM runs r JOIN events e USING (run) "
        "WHERE r.ended_wall_s < ? AND r.extract IS NOT NULL "
        "AND e.seq NOT IN (SELECT seq FROM outbox) LIMIT ?)",
        (runs_wall_s, chunk),
    ).rowcount
    return int(gone)
