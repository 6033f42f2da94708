"""What a station says, read from its journal instead of heard from a broker: for the page that outlives runs.

The embedded broker ends with its run, and so do its passwords. The journal stays: the newest message of every
retained topic is one of its rows; everything else that a page shows is read by ``refill.py``.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller import payloads
from controller.journal_read import JournalReader
from controller.journal_rows import JournalError, Run
from controller.mirror import SILENCE_S, Heard, Mirror
from controller.mqtt import Received
from controller.topics import prefix

LOOK_S = 0.5  # between two looks
NOT_YET = "this station has no journal on this machine yet"
_TOPICS = """
SELECT t.topic, t.seq, t.boot, t.prev, t.retain, t.payload, CASE WHEN t.payload IS NULL THEN e.body END
FROM topics t LEFT JOIN events e ON e.seq = t.seq AND t.payload IS NULL
WHERE t.seq > ? AND t.topic <> 'state/run/said' AND (t.topic = 'describe' OR t.topic GLOB 'state/*'
  OR t.topic GLOB 'alarm/*' OR t.topic GLOB 'question/*') ORDER BY t.seq
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """The newest message of a topic; the body is empty where the topic was cleared."""

    topic: str
    body: bytes
    envelope: payloads.Envelope
    retained: bool


@dataclass(frozen=True, slots=True)
class Look:
    """What one look into the journal has found."""

    upto: int
    age_s: float  # of the newest row
    boot: str
    shown: Run | None  # the run that is told of in ``state/run/id``
    kept: list[Kept]


class TopicsReader(JournalReader):
    """Reads the newest message of each topic."""

    def look(self, after: int) -> Look:
        """Return what is newer than a row, and how station and run stand."""
        upto = self.last_seq()
        rows = self._rows(_TOPICS, (after,)) if upto > after else []
        kept = [
            Kept(topic, bytes(payload) if payload is not None else str(body or "").encode(),
                 payloads.Envelope(boot, seq, prev, hist=False), bool(retain))
            for topic, seq, boot, prev, retain, payload, body in rows
        ]  # fmt: skip
        newest = self.events(after=upto - 1, limit=1)
        age_s = max(0.0, time.time() - newest[0].wall_s) if newest else 1e9
        told = self._rows("SELECT payload FROM topics WHERE topic = 'state/run/id' AND length(payload) > 0")
        run = json.loads(told[0][0]).get("v") if told else None
        return Look(upto, age_s, self.last_boot(), self.run(run) if run else self.last_run(), kept)


class JournalMirror(Mirror):
    """A mirror that looks into the journal twice a second."""

    def __init__(
        self,
        journal: Path,
        station: str,
        listener: Callable[[Heard], None],
        *,
        on_connection: Callable[[bool], None],
        on_rows: Callable[[], None],
    ) -> None:
        """Make a mirror; ``run`` follows the journal.

        Args:
            journal: of the station; it need not be there yet.
            station: its name.
            listener: as of ``Mirror``.
            on_connection: told when the journal can be read, and when it cannot.
            on_rows: told when there are new rows.
        """
        super().__init__(_nowhere, station, listener, on_connection=on_connection)
        self._path = journal
        self._station_prefix = prefix(station) + "/"
        self._on_rows = on_rows
        self._upto = 0
        self._why = NOT_YET
        self._grew_s: float | None = None  # monotonic, when the journal last became longer

    @property
    def last_error(self) -> str:
        """Why the journal cannot be read; empty while it can."""
        return "" if self.connected else self._why

    def away(self) -> str:
        """As ``Mirror.away``, of a journal."""
        return super().away() if self.connected else self._why

    async def run(self) -> None:
        """Look for ever; ends only by cancellation."""
        while True:
            try:
                look = await asyncio.to_thread(self._read)
            except (JournalError, ValueError) as error:
                self._gone(str(error) if self._path.exists() else NOT_YET)
            else:
                self._take_look(look)
            await asyncio.sleep(LOOK_S)

    def _read(self) -> Look:
        with TopicsReader.open(self._path) as reader:
            return reader.look(self._upto)

    def _gone(self, why: str) -> None:
        self._why = why
        if self.connected:
            self.connected = False
            self._on_connection(False)

    def _take_look(self, look: Look) -> None:
        if look.upto < self._upto:  # another journal, as after a restore: begin anew
            self._upto, self._grew_s = 0, None
            self.states.clear()
            self._gone("the journal was exchanged")
            return
        first, grew = not self.connected, look.upto > self._upto
        now_s = self._monotonic()
        if first:
            self.session += 1
            self.connected = True
            self._grew_s = now_s - look.age_s
        elif grew:
            self._grew_s = now_s
        self._upto = look.upto
        self._live_s = self._grew_s
        self._say("status", self._status(look))
        for kept in look.kept:
            self._take_kept(kept, first=first)
        if first:
            self._on_connection(True)
        if grew:
            self._on_rows()

    def _take_kept(self, kept: Kept, *, first: bool) -> None:
        """Take what a topic holds. An ended run stays what it was, until another begins."""
        if not kept.retained and first:
            return  # held once, before we looked
        if kept.topic.startswith("state/") and not kept.body:
            return  # a start of the host that began no run has aged it
        body = payloads.wrap(kept.topic, kept.body, kept.envelope)
        before = self.states.get(("run", "id"))
        self.take(Received(self._station_prefix + kept.topic, body, 1, first))
        run = self.states.get(("run", "id"))
        if before is not None and run is not None and run.v != before.v:
            old = [key for key, one in self.states.items() if one.q == "stale" or one.boot != run.boot]
            for key in old:
                del self.states[key]

    def _status(self, look: Look) -> dict[str, Any]:
        """Return the status that link would tell."""
        fresh = self._monotonic() - (self._grew_s or 0.0) < SILENCE_S
        stood = self.states.get(("run", "state"))
        anew = stood is not None and stood.q == "stale"  # a start of the host has aged it
        if look.shown is not None and look.shown.outcome is not None:
            state = "init" if anew and fresh else "disconnected"
        elif look.shown is None and not fresh:
            state = "disconnected" if look.boot else ""
        else:
            state = "ready" if fresh else "lost"
        return {"state": state, "boot": look.boot, "t": time.time()}

    def _say(self, topic: str, body: dict[str, Any]) -> None:
        if {**body, "t": 0} != {**self.status, "t": 0}:
            self.take(Received(self._station_prefix + topic, json.dumps(body).encode(), 1, True))


def _nowhere() -> Any:
    raise AssertionError("a journal has no address")
