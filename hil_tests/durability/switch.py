"""A switch inside a process of the host: notes what the journal has promised, and kills at a chosen moment.

It is put in by ``site/sitecustomize.py``, which only the tests' ``PYTHONPATH`` finds; nothing of it is in the
host. Configured by JSON in ``OPERANDO_TEST_SWITCH``:

``freeze``   instead of the rest: stop at the first look at the outbox, inside a ``read`` or ``idle``
``role``     the module that it is for (``controller.host``); other processes stay as they are
``notes``    a file: every number that the journal returned, before the caller gets it, and every site reached
``site``     name of a call site (``sites.py``), or none
``when``     ``before`` the commit of what that site asked for, or ``after`` it and before anyone is told
``hit``      at which visit of the site, from 1
``tape``     a file for ``power.py``: everything that SQLite writes and syncs, and every sync of our own files

A note is written with one ``write``, which outlives SIGKILL: the kernel has it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from hil_tests.durability.sites import PLUMBING, Site, sites
from hil_tests.harness import REPOSITORY

OPENING = "opening"  # the writer thread makes the tables of a new journal
PASSED_ON = "leave"  # a function that awaits for others what they have called


def install(config: str, arguments: Sequence[str]) -> None:
    """Put the switch into this process if it is the one that it is meant for."""
    told = json.loads(config)
    if told["role"] not in arguments:
        return
    os.environ.pop("OPERANDO_TEST_SWITCH")  # not for the processes that this one starts
    if "freeze" in told:
        _freeze(told["freeze"])
    else:
        Switch(told).install()


def _freeze(where: str) -> None:
    """Stop this process for good at its first look at the outbox: inside a ``read``, or behind it."""
    from controller.outbox import OutboxReader

    rows = OutboxReader.rows

    def frozen(reader: Any, *arguments: int) -> Any:
        found = rows(reader, *arguments)
        cursor = reader._db.execute("SELECT seq FROM events") if where == "read" else None
        if cursor is not None:
            cursor.fetchone()  # a row is out and others follow: SQLite holds the read open
        os.kill(os.getpid(), signal.SIGSTOP)
        return found

    OutboxReader.rows = frozen  # type: ignore[method-assign]


class Switch:
    """Knows which site has asked for what the journal is about to commit."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._site = told.get("site")
        self._when = told.get("when", "before")
        self._hits_left = int(told.get("hit", 1))
        self._notes = os.open(told["notes"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._tape = told.get("tape")
        self._tape_recorder: Any = None
        self._posted: dict[int, str] = {}  # by id of the record, while it waits
        self._asked: dict[int, tuple[Any, set[str]]] = {}  # by id of the job, kept alive here
        self._active: set[str] | None = None  # of the job that the writer thread is doing
        self._reached: set[str] = set()
        self._plumbing = {str(REPOSITORY / "controller" / name) for name in PLUMBING}
        self._by_file: dict[str, list[Site]] = {}
        for site in sites():
            self._by_file.setdefault(str(REPOSITORY / site.file), []).append(site)

    def install(self) -> None:
        """Replace the few functions of the journal through which everything goes."""
        from controller import journal as front
        from controller import journal_store as store

        self._watch_jobs(front)
        self._watch_commits(store.Journal)
        if self._tape:
            from hil_tests.durability.tape import record

            self._tape_recorder = record(Path(self._tape))

    def _watch_jobs(self, front: Any) -> None:
        """Follow each request from its call site to the writer thread."""
        job_class, post, settle, tell = (
            front._Job, front.AsyncJournal.post, front.AsyncJournal._settle, front.AsyncJournal._tell,
        )  # fmt: skip

        def job(call: Any, records: list[Any], done: Any) -> Any:
            made = job_class(call, records, done)
            names = {self._posted.pop(id(record), "") for record in records}
            if sys._getframe(1).f_code.co_name == "_submit":
                names.add(self._caller())
            self._asked[id(made)] = (made, names - {""})
            return made

        def posting(journal: Any, *args: Any, **more: Any) -> None:
            post(journal, *args, **more)
            if journal._posts:
                self._posted[id(journal._posts[-1])] = self._caller()

        def settling(journal: Any, writer: Any, jobs: list[Any]) -> None:
            self._active = set().union(*(self._asked[id(one)][1] for one in jobs))
            try:
                settle(journal, writer, jobs)
            finally:
                self._active = None
                for one in jobs:
                    self._asked.pop(id(one), None)

        def telling(journal: Any, done: Any, result: Any = None, *, error: Any = None) -> None:
            if error is None and isinstance(result, list) and all(type(seq) is int for seq in result):
                self.note({"seqs": result})
                if self._tape_recorder is not None:
                    self._tape_recorder.put("ack", "", seqs=result)
            tell(journal, done, result, error=error)

        front._Job = job
        front.AsyncJournal.post = posting
        front.AsyncJournal._settle = settling
        front.AsyncJournal._tell = telling

    def _watch_commits(self, journal: Any) -> None:
        """Stand on both sides of every COMMIT."""
        transaction = journal._transaction

        @contextmanager
        def committing(self_: Any) -> Iterator[None]:
            with transaction(self_):
                yield
                self._stand("before")
            self._stand("after")

        journal._transaction = committing

    def _stand(self, when: str) -> None:
        """Note the sites of what is being committed; kill when it is the one."""
        names = self._active if self._active is not None else {self._caller()}
        for name in names - self._reached:
            self._reached.add(name)
            self.note({"site": name})
        if when == self._when and self._site in names:
            self._hits_left -= 1
            if self._hits_left == 0:
                self.note({"killed": self._site, "when": when})
                os.kill(os.getpid(), signal.SIGKILL)

    def _caller(self) -> str:
        """Return the name of the site that the present call came from."""
        verb, frame = "", sys._getframe(1)
        while frame is not None:
            path = frame.f_code.co_filename
            if path in self._plumbing:
                verb = frame.f_code.co_name
            elif frame.f_code.co_name == PASSED_ON:
                pass
            elif path in self._by_file:
                if name := self._at(path, frame, verb):
                    return name
            elif verb and "/controller/" in path:
                break
            frame = frame.f_back  # type: ignore[assignment]
        if verb in ("_write", "_prepare"):
            return OPENING
        known = [site.name for site in sites() if site.verb == verb]  # begun as a task, or by a lambda
        return known[0] if len(known) == 1 else f"unknown: {verb}"

    def _at(self, path: str, frame: FrameType, verb: str) -> str:
        """Return the site of a file that a frame stands at; else the only one with its verb."""
        here = [site for site in self._by_file[path] if site.line <= frame.f_lineno <= site.end_line]
        if here:
            return min(here, key=lambda site: site.end_line - site.line).name
        same = [site for site in self._by_file[path] if site.verb == verb]
        return same[0].name if len(same) == 1 else ""

    def note(self, told: dict[str, Any]) -> None:
        """Write one line that survives this process."""
        os.write(self._notes, json.dumps(told).encode() + b"\n")
