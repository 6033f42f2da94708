"""The station journal for asyncio: every write goes to one dedicated thread, in the order of the calls."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self, TypeVar

from controller.journal_prune import OUTBOX_BYTES
from controller.journal_read import JournalReader, extract
from controller.journal_rows import Checkpoint, Event, JournalError, Latch, Record, Run
from controller.journal_store import Journal

__all__ = [
    "AsyncJournal",
    "Checkpoint",
    "Event",
    "Journal",
    "JournalError",
    "JournalReader",
    "Latch",
    "Record",
    "Run",
    "extract",
]

T = TypeVar("T")

SHRINK_TO, SHRINK_STEP = 0.9, 0.05  # of the limit of the outbox, when there is too much


@dataclass(slots=True)
class _Job:
    """Work for the writer thread: a function of the journal, or records that may share a transaction."""

    call: Callable[[Journal], Any] | None
    records: list[Record]
    done: asyncio.Future[Any]


class AsyncJournal:
    """The journal as the control process uses it.

    ``await record(...)`` returns when the event is on disk: for transitions, decisions and everything that
    concerns safety. ``post(...)`` returns at once and is committed with others every ``group_s``: for
    telemetry. Calls take effect in the order in which they were made, whichever kind they are; what is
    waiting when the thread is free shares one commit. Cancelling a waiting call does not undo its write.
    """

    def __init__(
        self,
        *,
        group_s: float,
        max_posts: int,
        on_commit: Callable[[], None] | None,
        on_error: Callable[[JournalError], None] | None,
        clock: Callable[[], float] | None,
        outbox_bytes: int = OUTBOX_BYTES,
    ) -> None:
        self.boot_id = ""
        self.path = Path()
        self.lost_posts = 0  # posted events that were given up because the disk was too slow or failed
        self.commits = 0
        self.slowest_commit_s = 0.0
        self.on_commit = on_commit
        self.on_error = on_error
        self._group_s = group_s
        self._outbox_bytes = outbox_bytes
        self._shrink_above = outbox_bytes
        self._max_posts = max_posts
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._posts: deque[Record] = deque()
        self._posts_in_flight = 0
        self._flusher: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    @classmethod
    async def open(
        cls,
        path: Path | str,
        *,
        station: str,
        group_s: float = 0.2,
        max_posts: int = 20_000,
        on_commit: Callable[[], None] | None = None,
        on_error: Callable[[JournalError], None] | None = None,
        clock: Callable[[], float] | None = None,
        outbox_bytes: int = OUTBOX_BYTES,
    ) -> Self:
        """Open the journal in its writer thread.

        Args:
            path: the SQLite file.
            station: name of the station; another station's journal is refused.
            group_s: wall seconds between group commits of posted events.
            max_posts: posted events that may wait; beyond, the oldest is given up and counted.
            on_commit: called in the event loop after a commit that put something into the outbox.
            on_error: called in the event loop when a commit of posted events failed.
            clock: lab time for events that are recorded without one (``clock.now_s``).
            outbox_bytes: the most that may wait for the broker; beyond, the least important is given up.

        Raises:
            JournalError: it cannot be opened, or is another station's.
        """
        self = cls(
            group_s=group_s, max_posts=max_posts, on_commit=on_commit, on_error=on_error, clock=clock,
            outbox_bytes=outbox_bytes,
        )  # fmt: skip
        self.path = Path(path)
        ready: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._write, args=(self.path, station, ready), name="journal")
        self._thread.daemon = (
            True  # a disk that hangs must not keep a process alive that has been told to end
        )
        self._thread.start()
        await ready
        return self

    async def close(self) -> None:
        """Commit what is posted, close the file and end the thread."""
        if self._closed:
            return
        self._flush()
        self._closed = True
        self._jobs.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # -- writing ---------------------------------------------------------------------------------------------

    async def record(
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
        """Write one event; return its sequence number once it is on disk. Raises JournalError."""
        record = Record(kind, module, body, run, self._lab(lab_s), topic, qos, retain, payload, path)
        return (await self.record_many([record]))[0]

    async def record_many(self, records: Sequence[Record]) -> list[int]:
        """Write several events in one transaction; return their numbers once they are on disk."""
        seqs: list[int] = await self._submit(None, list(records))
        return seqs

    def post(
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
    ) -> None:
        """Queue one event for the next group commit; never waits and never raises JournalError."""
        self._posts.append(
            Record(kind, module, body, run, self._lab(lab_s), topic, qos, retain, payload, path)
        )
        if len(self._posts) + self._posts_in_flight > self._max_posts:
            self._posts.popleft()
            self.lost_posts += 1
        if self._flusher is None and not self._closed:
            self._flusher = self._loop.call_later(self._group_s, self._flush)

    async def boot(self, reason: str) -> str:
        """Begin a boot and return its id."""
        self.boot_id = await self._call(lambda journal: journal.boot(reason))
        return self.boot_id

    async def start_run(
        self,
        run: str,
        *,
        experiment: str,
        directory: str,
        body: dict[str, Any] | None = None,
        lab_s: float | None = None,
        resumed_from: str | None = None,
    ) -> int:
        """Open a run in the index."""
        lab = self._lab(lab_s)
        return await self._call(
            lambda journal: journal.start_run(
                run,
                experiment=experiment,
                directory=directory,
                body=body,
                lab_s=lab,
                resumed_from=resumed_from,
            )
        )

    async def end_run(
        self, run: str, *, outcome: str, exit_code: int, reason: str = "", lab_s: float | None = None
    ) -> int:
        """Close a run in the index."""
        lab = self._lab(lab_s)
        return await self._call(
            lambda journal: journal.end_run(
                run, outcome=outcome, exit_code=exit_code, reason=reason, lab_s=lab
            )
        )

    async def checkpoint(
        self, run: str, name: str, body: dict[str, Any], *, lab_s: float | None = None
    ) -> None:
        """Replace a checkpoint of a run; on disk on return."""
        lab = self._lab(lab_s)
        await self._call(lambda journal: journal.checkpoint(run, name, body, lab_s=lab))

    async def latch(
        self, id_: str, body: dict[str, Any], *, run: str | None = None, lab_s: float | None = None
    ) -> int:
        """Record, hold and publish a trip."""
        lab = self._lab(lab_s)
        return await self._call(lambda journal: journal.latch(id_, body, run=run, lab_s=lab))

    async def clear_latch(self, id_: str, by: str, *, lab_s: float | None = None) -> bool:
        """Clear a trip in the name of a local operator; False if it was not held."""
        lab = self._lab(lab_s)
        return await self._call(lambda journal: journal.clear_latch(id_, by, lab_s=lab))

    async def nonce_seen(self, nonce: str, expires: float) -> bool:
        """Remember a nonce; True if it was known already."""
        return await self._call(lambda journal: journal.nonce_seen(nonce, expires))

    async def acknowledge(self, ranges: Sequence[tuple[int, int]]) -> int:
        """Drop delivered outbox rows, given as closed ranges of sequence numbers."""
        return await self._call(lambda journal: journal.acknowledge(ranges))

    async def undeliverable(self, refused: Sequence[tuple[int, str]]) -> int:
        """Drop outbox rows that can never be sent, and say so."""
        return await self._call(lambda journal: journal.undeliverable(refused))

    async def prune(self, **limits: Any) -> dict[str, int]:
        """Keep the journal within its limits (arguments as ``Journal.prune``)."""
        return await self._call(lambda journal: journal.prune(**limits))

    async def tidy(self, budget_s: float, **limits: Any) -> dict[str, int]:
        """Prune once, and go on with old events until none is left or ``budget_s`` wall seconds are over.

        Returns:
            What went, as of ``Journal.prune``; what did not go in time goes the next time.
        """
        deadline = time.monotonic() + budget_s
        total = await self.prune(**limits)
        more = total.get("events", 0)
        waiting = {"outbox_bytes": 1 << 62, "outbox_age_s": math.inf}  # telemetry is thinned out only once
        while more and time.monotonic() < deadline:
            more = (await self.prune(**{**limits, **waiting})).get("events", 0)
            total["events"] += more
        return total

    async def extract(self, run: str, path: Path | str) -> Path:
        """Write a run's own rows to a file, read beside the writer thread so that no commit waits for it."""
        await self.flush()
        written = await asyncio.to_thread(extract, self.path, run, path)
        await self._call(lambda journal: journal.note_extract(run, written))
        return written

    async def flush(self) -> None:
        """Return when everything posted so far is on disk."""
        await self._call(lambda journal: None)

    # -- reading ---------------------------------------------------------------------------------------------

    async def read(self, ask: Callable[[Journal], T]) -> T:
        """Run a short query in the writer thread, after all that was recorded before it.

        For example ``await journal.read(lambda j: j.last_checkpoint(run, "scan"))``.
        """
        return await self._call(ask)

    async def latches(self) -> list[Latch]:
        """Return the trips that hold."""
        return await self._call(lambda journal: journal.latches())

    async def open_runs(self) -> list[Run]:
        """Return the runs that have not ended."""
        return await self._call(lambda journal: journal.open_runs())

    async def last_checkpoint(self, run: str, name: str) -> Checkpoint | None:
        """Return a checkpoint of a run, or None."""
        return await self._call(lambda journal: journal.last_checkpoint(run, name))

    # -- inside ----------------------------------------------------------------------------------------------

    def _lab(self, lab_s: float | None) -> float | None:
        return self._clock() if lab_s is None and self._clock is not None else lab_s

    async def _call(self, call: Callable[[Journal], T]) -> T:
        result: T = await self._submit(call, [])
        return result

    async def _submit(self, call: Callable[[Journal], Any] | None, records: list[Record]) -> Any:
        """Hand work to the thread, behind everything posted before, and wait for it."""
        self._flush()
        if self._closed:
            raise JournalError(self.path, "is closed")
        done: asyncio.Future[Any] = self._loop.create_future()
        done.add_done_callback(
            lambda future: future.cancelled() or future.exception()
        )  # also if nobody waits
        self._jobs.put(_Job(call, records, done))
        return await asyncio.shield(done)

    def _flush(self) -> None:
        """Hand the posted events to the thread."""
        if self._flusher is not None:
            self._flusher.cancel()
            self._flusher = None
        if not self._posts or self._closed:
            return
        records = list(self._posts)
        self._posts.clear()
        self._posts_in_flight += len(records)
        done: asyncio.Future[Any] = self._loop.create_future()
        done.add_done_callback(lambda future: self._posted(future, len(records)))
        self._jobs.put(_Job(None, records, done))

    def _posted(self, done: asyncio.Future[Any], count: int) -> None:
        """Account for a group of posted events."""
        self._posts_in_flight -= count
        error = done.exception()
        if error is not None:
            self.lost_posts += count
            if self.on_error is not None and isinstance(error, JournalError):
                self.on_error(error)

    def _write(self, path: Path, station: str, ready: asyncio.Future[None]) -> None:
        """Open the journal and do the jobs, one transaction for all records that are waiting (the thread)."""
        try:
            journal = Journal.open(path, station=station)
        except Exception as error:  # whatever it is belongs to the one who opened
            self._tell(ready, error=error)
            return
        self._tell(ready)
        stop = False
        while not stop:
            jobs = [self._jobs.get()]
            while not self._jobs.empty():
                jobs.append(self._jobs.get())
            stop = jobs[-1] is None  # nothing follows it: the queue is closed with it
            for has_call, group in groupby(
                (job for job in jobs if job), key=lambda job: job.call is not None
            ):
                if has_call:
                    for job in group:
                        self._settle(journal, [job])
                else:
                    self._settle(journal, list(group))
            if journal.outbox_bytes > self._shrink_above:
                self._shrink(journal)
        journal.close()

    def _shrink(self, journal: Journal) -> None:
        """Give up what waits beyond the limit: a bounded piece of work, after everybody has his answer."""
        with suppress(JournalError):
            journal.prune(
                outbox_bytes=int(SHRINK_TO * self._outbox_bytes), outbox_age_s=math.inf,
                telemetry_age_s=math.inf, runs_age_s=math.inf,
            )  # fmt: skip
        # What may never be dropped must not be looked through again and again.
        over = journal.outbox_bytes > self._outbox_bytes
        step = int(SHRINK_STEP * self._outbox_bytes)
        self._shrink_above = journal.outbox_bytes + step if over else self._outbox_bytes

    def _settle(self, journal: Journal, jobs: list[_Job]) -> None:
        """Do one call, or write the records of several jobs in one transaction, and answer (the thread)."""
        begin, before = time.monotonic(), journal.enqueued
        results: list[Any] = []
        try:
            if jobs[0].call is not None:
                results.append(jobs[0].call(journal))
            else:
                seqs = iter(journal.record_many([record for job in jobs for record in job.records]))
                results.extend(list(islice(seqs, len(job.records))) for job in jobs)
        except Exception as error:  # the thread must live; the caller gets the error
            if len(jobs) > 1:  # one bad record must not take the others with it
                for job in jobs:
                    self._settle(journal, [job])
            else:
                self._tell(jobs[0].done, error=error)
            return
        self.commits += 1
        self.slowest_commit_s = max(self.slowest_commit_s, time.monotonic() - begin)
        for job, result in zip(jobs, results, strict=True):
            self._tell(job.done, result)
        if journal.enqueued != before and self.on_commit is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self.on_commit)

    def _tell(self, done: asyncio.Future[Any], result: Any = None, *, error: Exception | None = None) -> None:
        """Answer in the event loop (the thread)."""

        def answer() -> None:
            if done.done():
                return
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)

        with suppress(RuntimeError):  # the loop has ended: nobody waits
            self._loop.call_soon_threadsafe(answer)
