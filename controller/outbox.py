"""The outbox as link sees it: short reads, and which message goes next.

Nothing here writes. What was delivered is told to control, which drops it; until then it is remembered here,
so that it does not go out twice while this process lives.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from controller.journal_read import JournalReader

_COLUMNS = """
SELECT o.seq, e.boot, o.topic, o.qos, o.retain AND t.seq = o.seq, o.payload, o.path, o.prev,
  CASE WHEN o.payload IS NULL AND o.path IS NULL THEN e.body END, e.wall_s
FROM outbox o JOIN events e USING (seq) JOIN topics t USING (topic)
WHERE o.seq > ? AND o.seq <= ? ORDER BY o.seq LIMIT ?
"""
_END = 1 << 62


@dataclass(frozen=True, slots=True)
class Row:
    """One message that waits. ``retain`` only if nothing newer exists on its topic."""

    seq: int
    boot: str
    topic: str
    qos: int
    retain: bool
    body: bytes | None
    path: str | None
    prev: int | None
    wall_s: float


@dataclass(frozen=True, slots=True)
class Retained:
    """The latest retained value of a topic; ``fresh`` if it still waits in the outbox and is not late."""

    seq: int
    boot: str
    topic: str
    body: bytes
    prev: int | None
    fresh: bool


class OutboxReader(JournalReader):
    """Reads of the outbox; each is complete when it returns and takes at most a few milliseconds."""

    def rows(self, after: int, upto: int, limit: int) -> list[Row]:
        """Return waiting messages with ``after`` < number <= ``upto``, in order."""
        found = []
        for seq, boot, topic, qos, retain, payload, path, prev, body, wall_s in self._rows(
            _COLUMNS, (after, upto, limit)
        ):
            data = payload if body is None else str(body).encode()
            found.append(Row(seq, boot, topic, qos, bool(retain), data, path, prev, wall_s))
        return found

    def oldest(self) -> int | None:
        """Return the number of the oldest waiting message."""
        rows = self._rows("SELECT min(seq) FROM outbox")
        return None if rows[0][0] is None else int(rows[0][0])

    def last_before(self, after: int, wall_s: float) -> int:
        """Return the highest number above ``after`` of a message older than ``wall_s``, or ``after``."""
        rows = self._rows(
            "SELECT max(o.seq) FROM outbox o JOIN events e USING (seq) WHERE o.seq > ? AND e.wall_s < ?",
            (after, wall_s),
        )
        return after if rows[0][0] is None else int(rows[0][0])

    def retained(self, after: str, limit: int, wall_s: float) -> list[Retained]:
        """Return current retained values in the order of their topics, from behind topic ``after``.

        Args:
            after: the last topic of the page before.
            limit: the most to return.
            wall_s: what waits and is younger than this is fresh.
        """
        rows = self._rows(
            "SELECT t.seq, t.boot, t.topic, t.payload, t.prev, EXISTS (SELECT 1 FROM outbox o JOIN events e "
            "USING (seq) WHERE o.seq = t.seq AND e.wall_s >= ?) FROM topics t "
            "WHERE t.topic > ? AND length(t.payload) > 0 ORDER BY t.topic LIMIT ?",
            (wall_s, after, limit),
        )
        return [
            Retained(s, boot, topic, bytes(body), prev, bool(fresh))
            for s, boot, topic, body, prev, fresh in rows
        ]


class Lanes:
    """Decides what goes next: what is new before what has waited long, each in order.

    The live lane takes messages as they come. What is older than ``late_s`` when the live lane would reach it
    goes to the history lane, which is served only when the live lane is empty, and no faster than ``rate`` a
    second. One connection's lanes know nothing of another's: ``restart`` for each.
    """

    def __init__(
        self,
        reader: OutboxReader,
        *,
        late_s: float = 5.0,
        rate: float = 500.0,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader = reader
        self._late_s = late_s
        self._rate = rate
        self._wall = wall
        self._monotonic = monotonic
        self._done: set[int] = set()
        self._live = 0
        self._history: deque[list[int]] = deque()
        self._tokens = rate
        self._filled = monotonic()

    def use(self, reader: OutboxReader) -> None:
        """Go on with another connection to the same journal."""
        self._reader = reader

    def restart(self) -> None:
        """Begin a connection: everything that was not acknowledged is to be sent."""
        self._live = 0
        self._history.clear()

    def next(self, limit: int, history: int | None = None) -> tuple[list[Row], bool]:
        """Return the next messages and whether they are history; none if nothing may be sent now.

        Args:
            limit: the most to return.
            history: the most of history, if that is less: what is live meanwhile waits for all of them.
        """
        self._set_aside()
        while rows := self._reader.rows(self._live, _END, limit):
            fresh = [row for row in rows if row.seq not in self._done]
            if fresh:
                return fresh, False
            self._live = rows[-1].seq
        limit = min(limit if history is None else history, self._allowance())
        while limit and self._history:
            after, upto = self._history[0]
            rows = self._reader.rows(after, upto, limit)
            if not rows:
                self._history.popleft()
                continue
            fresh = [row for row in rows if row.seq not in self._done]
            if fresh:
                return fresh, True
            self._history[0][0] = rows[-1].seq
        return [], False

    def wait_s(self) -> float | None:
        """Return the seconds until history may go on; None if there is none."""
        if not self._history:
            return None
        return max(0.0, (1.0 - self._tokens) / self._rate)

    def advance(self, seqs: Iterable[int], *, history: bool) -> None:
        """Note that these messages of the last ``next`` are settled: delivered, or given up."""
        settled = list(seqs)
        if not settled:
            return
        self._done.update(settled)
        if history:
            self._history[0][0] = settled[-1]
            self._tokens -= len(settled)
            if settled[-1] >= self._history[0][1]:
                self._history.popleft()
        else:
            self._live = settled[-1]

    def to_be_born(self, after: str, limit: int) -> tuple[list[Retained], str]:
        """Return retained values to publish at the start of a connection, and the topic to go on behind.

        What the live lane is about to publish is left to it, so that everything keeps its order.
        """
        page = self._reader.retained(after, limit, self._wall() - self._late_s)
        wanted = [value for value in page if not value.fresh or value.seq in self._done]
        return wanted, page[-1].topic if page else ""

    def is_late(self, row: Row) -> bool:
        """Tell whether a message is being delivered late."""
        return self._wall() - row.wall_s > self._late_s

    def forget(self) -> list[tuple[int, int]]:
        """Forget what control has dropped; return what it has not, as closed ranges of numbers."""
        oldest = self._reader.oldest()
        self._done = set() if oldest is None else {seq for seq in self._done if seq >= oldest}
        return ranges(self._done)

    def _set_aside(self) -> None:
        """Move what the live lane has not reached in time to the history lane."""
        upto = self._reader.last_before(self._live, self._wall() - self._late_s)
        if upto > self._live:
            self._history.append([self._live, upto])
            self._live = upto

    def _allowance(self) -> int:
        """Return how many messages of history may go now."""
        now = self._monotonic()
        self._tokens = min(self._rate, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        return max(0, int(self._tokens))


def ranges(seqs: Iterable[int]) -> list[tuple[int, int]]:
    """Return numbers as closed ranges, in order."""
    found: list[list[int]] = []
    for seq in sorted(seqs):
        if found and seq == found[-1][1] + 1:
            found[-1][1] = seq
        else:
            found.append([seq, seq])
    return [(first, last) for first, last in found]
