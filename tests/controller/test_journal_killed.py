"""Killed on both sides of every commit: each writing method leaves all of its work, or none."""

import inspect
import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from controller.journal import Journal, JournalReader, Record

ROOT = Path(__file__).parents[2]
OLD = 1.0  # wall seconds, long ago

CALLS = {
    "boot": lambda j: j.boot("second"),
    "record": lambda j: j.record("a", "m", {"v": 1}, topic="state/m/v", retain=True),
    "record_many": lambda j: j.record_many([Record("a", "m", {"n": n}, topic="tele") for n in range(3)]),
    "start_run": lambda j: j.start_run("r2", experiment="e", directory="d"),
    "end_run": lambda j: j.end_run("r1", outcome="done", exit_code=0),
    "checkpoint": lambda j: j.checkpoint("r1", "sequence", {"done": 2}),
    "latch": lambda j: j.latch("hot", {"value": 360.0}),
    "clear_latch": lambda j: j.clear_latch("old", "M. Curie"),
    "nonce_seen": lambda j: j.nonce_seen("n2", time.time() + 60.0),
    "acknowledge": lambda j: j.acknowledge([(1, 3)]),
    "undeliverable": lambda j: j.undeliverable([(4, "too big")]),
    "prune": lambda j: j.prune(telemetry_age_s=10.0, outbox_age_s=10.0),
    "note_extract": lambda j: j.note_extract("r1", Path("extract.sqlite")),
    "extract": lambda j: j.extract("r1", j.path.with_name("extract.sqlite")),
}


def prepared(path):
    """Make a journal in which every method has something to do."""
    with Journal.open(path, station="bench") as journal:
        journal.boot("first")
        journal.start_run("r1", experiment="e", directory="d")
        journal.record_many([Record("tele", "m", {}, topic="tele", wall_s=OLD) for _ in range(4)])
        journal.record_many([Record("tele", "m", {}, wall_s=OLD)])
        journal.record("s", "m", {"v": 1, "q": "good"}, topic="state/m/old", retain=True)
        journal.checkpoint("r1", "sequence", {"done": 1})
        journal.latch("old", {"value": 350.0})
        journal.nonce_seen("n1", OLD)
    return path


def content(path):
    """Return every row of every table, without what differs from one call to the next: ids and times."""
    with closing(sqlite3.connect(path)) as base:
        assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        tables = [name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {name: base.execute(f"SELECT * FROM {name}").fetchall() for name in tables}
    rows["outbox"] = [row[:-1] for row in rows["outbox"]]  # the size of a message depends on the time in it
    text = json.dumps(rows, default=repr, indent=1)
    text = re.sub(r"\d{9,}\.\d+", "<time>", text)
    return re.sub(r"[0-9a-f]{32}", "<id>", text)


_VICTIMS = """
import json, os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from controller.journal import Journal
from tests.controller.test_journal_killed import CALLS
commit = Journal._transaction
def victim(name, when, path):
    @contextmanager
    def killing(self):
        with commit(self):
            yield
            if when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "open":
        Journal._transaction = killing
    journal = Journal.open(path, station="bench")
    journal.boot_id = journal.last_boot()
    Journal._transaction = killing
    CALLS[name](journal)
ends = []
for name, when, path in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        victim(name, when, Path(path))
        os._exit(0)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(ends))
"""


@pytest.fixture(scope="module")
def victims(tmp_path_factory):
    """Kill each method on each side, in processes that one process forks; return the journals."""
    folder = tmp_path_factory.mktemp("killed")
    cases = {
        (name, when): folder / f"{name}-{when}" / "journal.sqlite"
        for name in (*CALLS, "open") for when in ("before", "after")
    }  # fmt: skip
    for (name, _), path in cases.items():
        path.parent.mkdir()
        if name != "open":
            prepared(path)
    told = json.dumps([[name, when, str(path)] for (name, when), path in cases.items()])
    command = [sys.executable, "-c", _VICTIMS, told]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == [-signal.SIGKILL] * len(cases), done.stderr
    return cases


def test_no_writing_method_is_forgotten():
    writing = {
        name for name, method in inspect.getmembers(Journal, inspect.isfunction)
        if "self._transaction()" in inspect.getsource(method) and not name.startswith("_")
    }  # fmt: skip
    through = {"record", "extract"}  # these call others
    assert set(CALLS) == writing | through


@pytest.mark.parametrize("name", CALLS)
def test_a_kill_leaves_all_of_it_or_nothing(name, tmp_path, victims):
    path = prepared(tmp_path / "journal.sqlite")
    nothing = content(path)
    with Journal.open(path, station="bench") as journal:
        journal.boot_id = journal.last_boot()
        CALLS[name](journal)
    whole = content(path)
    assert whole != nothing
    for when, expected in (("before", nothing), ("after", whole)):
        left = victims[name, when]
        assert content(left).replace(str(left.parent), str(tmp_path)) == expected
        with Journal.open(left, station="bench") as journal:  # and it goes on from there
            last = journal.last_seq()
            journal.boot("after the kill")
            assert journal.events(kind="boot")[-1].seq == last + 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_while_the_journal_is_made_leaves_one_that_can_be_used(when, victims):
    path = victims["open", when]
    with Journal.open(path, station="bench") as journal:
        journal.boot("again")
        assert journal.record("a", "m", {}) == 2
    with JournalReader.open(path) as reader:
        assert reader.check() == []
    assert path.stat().st_mode & 0o077 == 0
