import asyncio
import json
import math
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from controller import journal_store
from controller.journal import AsyncJournal, Journal, JournalError, JournalReader, Record


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "journal.sqlite"


@pytest.fixture
def journal(path):
    with Journal.open(path, station="bench") as journal:
        journal.boot("test")
        yield journal


def outbox(path):
    db = sqlite3.connect(path)
    try:
        return db.execute(
            "SELECT seq, topic, qos, retain, payload, path, prev FROM outbox ORDER BY seq"
        ).fetchall()
    finally:
        db.close()


# -- the file ------------------------------------------------------------------------------------------------


def test_it_is_durable_and_private(journal, path):
    assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)  # 2 is FULL
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_another_stations_journal_is_refused(journal, path):
    with pytest.raises(JournalError, match="belongs to station 'bench', not 'other'"):
        Journal.open(path, station="other")


@pytest.mark.parametrize(
    ("schema", "words"),
    [("99", "schema 99, from a newer version"), ("0", "has schema 0, this program reads 1")],
)
def test_a_journal_of_another_schema_is_refused_untouched(journal, path, schema, words):
    journal._db.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (schema,))
    journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    before = path.read_bytes()
    with pytest.raises(JournalError, match=words):
        Journal.open(path, station="bench")
    with pytest.raises(JournalError, match=words):
        JournalReader.open(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_journal_is_refused_by_name(tmp_path):
    other = tmp_path / "journal.sqlite"
    other.write_bytes(b"not a database, " * 100)
    with pytest.raises(JournalError, match="not a database") as caught:
        Journal.open(other, station="bench")
    assert caught.value.path == other
    assert other.read_bytes() == b"not a database, " * 100


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal.open(tmp_path / "file" / "journal.sqlite", station="bench")


def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_no_half(journal, path):
    journal.record("a", "m", {})
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(JournalError, match="full") as caught:
        journal.record_many([Record("big", "m", {"text": "x" * 100_000}, topic="tele")])
    assert str(path) in str(caught.value)
    journal._db.execute("PRAGMA max_page_count = 100000")
    assert journal.record("b", "m", {}) == 3  # boot, a, b: the failed one left neither row nor gap
    assert outbox(path) == []
    assert journal.check() == []


# -- events and outbox ---------------------------------------------------------------------------------------


def test_sequence_numbers_are_gap_free_and_never_reused(path):
    with Journal.open(path, station="bench") as journal:
        journal.boot("one")
        assert [journal.record("a", "m", {}), journal.record("a", "m", {}, topic="t")] == [2, 3]
        with pytest.raises(JournalError):
            journal.start_run("r", experiment="e", directory="d") and journal.start_run(
                "r", experiment="e", directory="d"
            )
        journal._db.execute("DELETE FROM events")
    with Journal.open(path, station="bench") as journal:
        journal.boot("two")
        assert journal.last_seq() == 5


def test_nothing_is_recorded_without_a_boot(path):
    with Journal.open(path, station="bench") as journal, pytest.raises(JournalError, match="no boot"):
        journal.record("a", "m", {})


def test_an_event_comes_back_as_it_was(journal):
    seq = journal.record("step", "sequence", {"name": "Möller", "n": 2}, run="r1", lab_s=12.5)
    (event,) = journal.events(run="r1")
    assert (event.seq, event.boot, event.run, event.lab_s) == (seq, journal.boot_id, "r1", 12.5)
    assert (event.kind, event.module, event.body) == ("step", "sequence", {"name": "Möller", "n": 2})
    assert abs(event.wall_s - time.time()) < 5


def test_events_are_chosen_by_run_kind_and_number(journal):
    for n in range(6):
        journal.record("even" if n % 2 == 0 else "odd", "m", {"n": n}, run="r1" if n < 4 else "r2")
    assert [e.body["n"] for e in journal.events(kind="even")] == [0, 2, 4]
    assert [e.body["n"] for e in journal.events(run="r1", kind="odd")] == [1, 3]
    assert [e.body["n"] for e in journal.events(run="r2", after=6)] == [5]
    assert [e.body["n"] for e in journal.events(run="r1", limit=2)] == [0, 1]


def test_numbers_that_json_lacks_become_null(journal):
    journal.record("a", "m", {"v": math.nan, "list": [math.inf, 1.5, {"x": -math.inf}], "p": Path("/x")})
    assert journal.events(kind="a")[0].body == {"v": None, "list": [None, 1.5, {"x": None}], "p": "/x"}


def test_what_is_no_json_is_the_callers_mistake(journal):
    with pytest.raises(TypeError, match="object"):
        journal.record("a", "m", {"v": object()})
    assert journal.last_seq() == 1


def test_the_outbox_row_bears_the_events_number_and_the_one_before_on_its_topic(journal, path):
    first = journal.record("state", "heater", {"v": 1}, topic="state/heater/t", retain=True)
    other = journal.record("doc", "m", {"uid": "x"}, topic="doc/start", payload=b"{}")
    second = journal.record("state", "heater", {"v": 2}, topic="state/heater/t", retain=True)
    mapped = journal.record("product", "reduce", {}, topic="data/map/Li", path="/nowhere.cbor")
    assert outbox(path) == [
        (first, "state/heater/t", 1, 1, None, None, None),
        (other, "doc/start", 1, 0, b"{}", None, None),
        (second, "state/heater/t", 1, 1, None, None, first),
        (mapped, "data/map/Li", 1, 0, None, "/nowhere.cbor", None),
    ]


def test_a_cleared_topic_does_not_break_the_chain(journal, path):
    first = journal.latch("t", {"n": 1})
    journal.clear_latch("t", "me")
    journal.latch("t", {"n": 2})
    assert [(row[4], row[6]) for row in outbox(path)] == [(None, None), (b"", first), (None, first)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"topic": "t", "payload": b"", "path": "p"},
        {"topic": "t", "path": "p", "retain": True},
        {"payload": b"x"},
        {"retain": True},
        {"topic": "t", "qos": 2},
    ],
)
def test_contradictions_are_refused(wrong):
    with pytest.raises(ValueError, match=r"\w"):
        Record("k", "m", {}, **wrong)


def test_acknowledged_rows_leave_the_outbox_and_only_they(journal, path):
    seqs = [journal.record("a", "m", {}, topic="tele") for _ in range(10)]
    assert journal.acknowledge([(seqs[0], seqs[2]), (seqs[5], seqs[5]), (1000, 2000)]) == 4
    assert [row[0] for row in outbox(path)] == [*seqs[3:5], *seqs[6:]]
    assert len(journal.events(kind="a")) == 10


def test_what_cannot_be_delivered_is_dropped_told_and_counted(journal, path):
    seq = journal.record("product", "reduce", {}, topic="data/map/Li", path="/nowhere.cbor")
    assert journal.undeliverable([(seq, "no such file"), (999, "never was")]) == 1
    assert journal.events(kind="undeliverable")[0].body == {
        "seq": seq,
        "topic": "data/map/Li",
        "why": "no such file",
    }
    ((_, topic, _, retain, *_),) = outbox(path)
    assert (topic, retain) == ("state/journal/dropped_undeliverable", 1)
    assert journal.events(kind="dropped")[0].body["v"] == 1


# -- boots ---------------------------------------------------------------------------------------------------


def test_a_new_boot_makes_old_states_stale_and_then_forgets_them(path):
    with Journal.open(path, station="bench") as journal:
        first = journal.boot("start")
        journal.record(
            "s", "heater", {"v": 3.0, "t": 1.0, "e": None, "q": "good"}, topic="state/heater/t", retain=True
        )
        journal.record("d", "m", {"modules": {}}, topic="describe", retain=True)
        journal.latch("permit", {"text": "opened"})
        journal.acknowledge([(1, 100)])
        second = journal.boot("after a crash")
        assert first != second
        ((_, topic, _, retain, payload, _, _),) = outbox(path)
        assert (topic, retain, payload) == ("state/heater/t", 1, None)
        assert journal.events(kind="stale")[0].body == {"v": 3.0, "t": 1.0, "e": None, "q": "stale"}
        journal.acknowledge([(1, 100)])
        journal.boot("again")
        assert [(row[1], row[4]) for row in outbox(path)] == [("state/heater/t", b"")]
        journal.acknowledge([(1, 100)])
        journal.boot("and again")
        assert outbox(path) == []
        assert [(n, reason) for _, n, _, reason in journal.boots()] == [
            (1, "start"),
            (2, "after a crash"),
            (3, "again"),
            (4, "and again"),
        ]


# -- runs, checkpoints, latches, nonces ----------------------------------------------------------------------


def test_a_run_is_open_until_it_ends(journal):
    journal.start_run("r1", experiment="quickstart", directory="/d/r1", body={"seed": 3}, lab_s=1.0)
    journal.start_run("r2", experiment="quickstart", directory="/d/r2", resumed_from="r1")
    journal.end_run("r1", outcome="aborted", exit_code=5, reason="a person", lab_s=9.0)
    assert [run.run for run in journal.open_runs()] == ["r2"]
    run = journal.runs()[0]
    assert (run.run, run.outcome, run.exit_code, run.reason, run.ended_lab_s) == (
        "r1",
        "aborted",
        5,
        "a person",
        9.0,
    )
    assert run.body == {"seed": 3}
    assert journal.runs()[1].resumed_from == "r1"
    with pytest.raises(JournalError, match="'r1' is not open"):
        journal.end_run("r1", outcome="done", exit_code=0)
    with pytest.raises(JournalError, match="UNIQUE"):
        journal.start_run("r2", experiment="e", directory="/d")
    assert [e.kind for e in journal.events(run="r1")] == ["run_started", "run_ended"]


def test_a_checkpoint_is_replaced_and_knows_its_place(journal):
    journal.checkpoint("r1", "scan", {"line": 3})
    seq = journal.record("a", "m", {}, run="r1")
    journal.checkpoint("r1", "scan", {"line": 7}, lab_s=4.0)
    journal.checkpoint("r1", "step", {"n": 1})
    last = journal.last_checkpoint("r1", "scan")
    assert (last.body, last.lab_s, last.seq) == ({"line": 7}, 4.0, seq)
    assert set(journal.checkpoints("r1")) == {"scan", "step"}
    assert journal.last_checkpoint("r2", "scan") is None


def test_a_latch_holds_its_first_cause_over_boots_until_a_person_clears_it(path):
    with Journal.open(path, station="bench") as journal:
        journal.boot("start")
        journal.latch("over", {"value": 360.0})
        journal.latch("over", {"value": 361.0})
    with Journal.open(path, station="bench") as journal:
        journal.boot("again")
        (latch,) = journal.latches()
        assert (latch.id, latch.body) == ("over", {"value": 360.0})
        assert [e.body["value"] for e in journal.events(kind="trip")] == [360.0, 361.0]
        assert journal.clear_latch("over", "M. Curie")
        assert journal.latches() == []
        assert not journal.clear_latch("over", "M. Curie")
        assert journal.events(kind="trip_cleared")[0].body == {"id": "over", "by": "M. Curie"}
        assert [(row[1], row[3], row[4]) for row in outbox(path)] == [
            ("alarm/over", 1, None),
            ("alarm/over", 1, None),
            ("alarm/over", 1, b""),
        ]


def test_a_nonce_is_new_once_even_after_a_restart(path):
    with Journal.open(path, station="bench") as journal:
        assert not journal.nonce_seen("n1", time.time() + 60)
        assert journal.nonce_seen("n1", time.time() + 60)
    with Journal.open(path, station="bench") as journal:
        assert journal.nonce_seen("n1", time.time() + 60)
        assert not journal.nonce_seen("n2", time.time() - 7200)
        assert not journal.nonce_seen("n2", time.time() + 60)  # long expired, so forgotten


# -- pruning -------------------------------------------------------------------------------------------------


def test_when_there_is_too_much_maps_go_first_then_telemetry_then_replaced_states(journal, path, tmp_path):
    product = tmp_path / "map.cbor"
    product.write_bytes(bytes(1000))
    wide = {"x": "y" * 988}  # 996 bytes of JSON
    for n in range(4):
        journal.record("p", "reduce", {}, topic=f"data/map/{n}", path=str(product))
    for _ in range(4):
        journal.record("tele", "io", wide, topic="tele")
    for _ in range(3):
        journal.record("s", "h", wide, topic="state/h/t", retain=True)
    journal.record("doc", "m", wide, topic="doc/event")
    journal.latch("trip", wide)

    def waiting():
        return [row[1] for row in outbox(path) if not row[1].startswith("state/journal")]

    assert journal.prune(outbox_bytes=11_100) == {"data": 2}
    assert waiting()[:2] == ["data/map/2", "data/map/3"]
    assert journal.prune(outbox_bytes=8100) == {"data": 2, "tele": 1}
    assert journal.prune(outbox_bytes=1000) == {
        "tele": 1,
        "state": 3,
    }  # two values, and one count of dropped data
    assert waiting() == ["tele", "tele", "state/h/t", "doc/event", "alarm/trip"]
    journal.prune(outbox_bytes=0)
    journal.prune(outbox_bytes=0)
    assert waiting()[-3:] == ["state/h/t", "doc/event", "alarm/trip"]
    assert product.exists()
    assert journal.meta()["dropped_data"] == "4"


def test_old_messages_are_given_up_but_not_documents(journal, path):
    old = time.time() - 1000.0
    journal.record_many(
        [
            Record("x", "m", {}, topic=topic, wall_s=old)
            for topic in ("data/a", "tele", "doc/event", "tele", "tele")
        ]
    )
    journal.record("x", "m", {}, topic="data/b")
    assert journal.prune(outbox_age_s=500.0) == {"data": 1, "tele": 1}
    assert {row[1] for row in outbox(path)} >= {"doc/event", "data/b"}


def test_only_delivered_telemetry_and_extracted_runs_leave_the_journal(journal, tmp_path):
    old = time.time() - 1000.0
    journal.record_many(
        [Record("tele", "m", {}, wall_s=old), Record("tele", "m", {}, topic="tele", wall_s=old)]
    )
    for run in ("kept", "gone"):
        journal.start_run(run, experiment="e", directory="d")
        journal.record("a", "m", {}, run=run)
        journal.end_run(run, outcome="done", exit_code=0)
    journal._db.execute("UPDATE runs SET ended_wall_s = ?", (old,))
    journal.extract("gone", tmp_path / "gone.sqlite")
    journal.prune(telemetry_age_s=500.0, runs_age_s=500.0)
    assert len(journal.events(kind="tele")) == 1
    assert len(journal.events(run="kept")) == 3
    assert journal.events(run="gone") == []
    assert [run.run for run in journal.runs()] == ["kept", "gone"]


def old_telemetry(run=None, count=1):
    return [Record("tele", "m", {"n": n}, run, wall_s=time.time() - 1000.0) for n in range(count)]


def test_what_belongs_to_a_run_that_has_not_ended_stays_and_is_not_in_the_way_of_the_rest(journal):
    for run in ("open", "ended"):
        journal.start_run(run, experiment="e", directory="d")
        journal.record_many(old_telemetry(run, 5))
    journal.end_run("ended", outcome="done", exit_code=0)
    journal.record("tele", "m", {}, run="ended")
    assert journal.prune(telemetry_age_s=500.0, chunk=3) == {"events": 3}
    assert journal.prune(telemetry_age_s=500.0, chunk=3) == {"events": 2}
    assert journal.prune(telemetry_age_s=500.0, chunk=3) == {}
    assert [event.run for event in journal.events(kind="tele")] == ["open"] * 5 + ["ended"]


async def test_tidy_goes_on_until_nothing_old_is_left_but_thins_telemetry_that_waits_only_once(tmp_path):
    async with await AsyncJournal.open(tmp_path / "j.sqlite", station="bench") as journal:
        await journal.boot("test")
        await journal.record_many(old_telemetry(count=10))
        waiting = [Record("tele", "m", {}, topic="tele", wall_s=time.time() - 1000.0) for _ in range(8)]
        seqs = await journal.record_many(waiting)
        limits = {"telemetry_age_s": 500.0, "outbox_age_s": 500.0, "chunk": 4}
        # Every second one of the first four by its chunk leaves the outbox; then it is old and not waiting.
        gone = await journal.tidy(10.0, **limits)
        assert gone["tele"] == 4
        assert gone["events"] == 10 + 4
        left = await journal.read(lambda j: [event.seq for event in j.events(kind="tele")])
        assert left == seqs[::2]
        assert await journal.tidy(0.0) == {}  # without time: one piece, here of nothing


async def test_what_waits_stays_within_its_limit_while_the_run_goes_on(path, tmp_path):
    """A broker that is away for weeks: every trip and document is kept, and the counts are told."""
    wide = {"x": "y" * 988}
    async with await AsyncJournal.open(path, station="bench", outbox_bytes=100_000) as journal:
        await journal.boot("test")
        for n in range(300):
            journal.post("tele", "io", wide, topic="tele")
            journal.post("doc/event", "documents", {"n": n}, topic="doc/event")
            await journal.flush()
        await journal.latch("hot", wide)
        waiting = await journal.read(lambda j: j.outbox_bytes)
        assert waiting == (await journal.read(lambda j: j.backlog()))[1]
        assert waiting <= 102_000
        told = await journal.read(lambda j: j.events(kind="dropped"))
        assert told[-1].body["why"] == "no more than 0.09 MB may wait"
        counts = await journal.read(lambda j: j.meta())
        left = outbox(path)
        assert int(counts["dropped_tele"]) == 300 - sum(row[1] == "tele" for row in left) > 150
        assert sum(row[1] == "doc/event" for row in left) == 300
        assert sum(row[1] == "alarm/hot" for row in left) == 1
        assert ("state/journal/dropped_tele", 1) in {(row[1], row[3]) for row in left}


async def test_what_may_never_be_dropped_is_not_looked_through_at_every_commit(path, monkeypatch):
    async with await AsyncJournal.open(path, station="bench", outbox_bytes=10_000) as journal:
        await journal.boot("test")
        looked = []
        prune = Journal.prune
        monkeypatch.setattr(Journal, "prune", lambda self, **more: looked.append(1) or prune(self, **more))
        for n in range(200):
            await journal.record("doc/event", "documents", {"n": n, "x": "y" * 90}, topic="doc/event")
        assert len(await journal.read(lambda j: outbox(path))) == 200
        assert 5 < len(looked) < 40


def test_an_older_journal_is_brought_up_to_date_in_one_step_or_not_at_all(journal, path, monkeypatch):
    journal.record("a", "m", {"v": 1})
    monkeypatch.setattr(journal_store, "SCHEMA_VERSION", 3)
    steps = {1: "ALTER TABLE events ADD COLUMN more TEXT;\nCREATE INDEX i ON events (more)", 2: "nonsense"}
    monkeypatch.setattr(journal_store, "MIGRATIONS", steps)
    with pytest.raises(JournalError, match="nonsense"):
        Journal.open(path, station="bench")
    assert journal.meta()["schema"] == "2"  # the first step is whole, of the second nothing is left
    steps[2] = "ALTER TABLE runs ADD COLUMN more TEXT"
    with Journal.open(path, station="bench") as newer:
        assert newer.meta()["schema"] == "3"
        assert newer.events(kind="a")[0].body == {"v": 1}


# -- reading beside the writer, extract ----------------------------------------------------------------------


def test_a_run_takes_its_own_rows_along(journal, path, tmp_path):
    journal.start_run("r1", experiment="quickstart", directory="/d/r1")
    seqs = [journal.record("a", "m", {"n": n}, run="r1" if n % 2 else None) for n in range(6)]
    journal.checkpoint("r1", "scan", {"line": 3})
    target = tmp_path / "runs" / "r1" / "journal.sqlite"
    assert journal.extract("r1", target) == target
    with JournalReader.open(target) as extract:
        assert [e.seq for e in extract.events(kind="a")] == [seqs[1], seqs[3], seqs[5]]
        assert extract.runs()[0].experiment == "quickstart"
        assert extract.last_checkpoint("r1", "scan").body == {"line": 3}
        assert extract.last_boot() == journal.boot_id
    assert [file.name for file in target.parent.iterdir()] == ["journal.sqlite"]
    assert journal.runs()[0].extract == str(target)


def test_an_extract_of_nothing_leaves_nothing(journal, tmp_path):
    with pytest.raises(JournalError, match="no run 'x'"):
        journal.extract("x", tmp_path / "x.sqlite")
    assert not list(tmp_path.glob("x*"))


def test_a_reader_sees_every_commit_and_cannot_write(journal, path):
    with JournalReader.open(path) as reader:
        for n in range(3):
            seq = journal.record("a", "m", {"n": n})
            assert reader.events(after=seq - 1)[0].body == {"n": n}
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._db.execute("DELETE FROM events")
        assert [e.body["n"] for e in reader.all_events(kind="a")] == [0, 1, 2]


def test_reading_what_is_not_there_is_an_error(tmp_path):
    with pytest.raises(JournalError, match="unable to open"):
        JournalReader.open(tmp_path / "none.sqlite")


# -- the asyncio front ---------------------------------------------------------------------------------------


async def test_awaited_records_are_on_disk_and_posted_ones_keep_their_place(path):
    told = []
    async with await AsyncJournal.open(path, station="bench", on_commit=lambda: told.append(1)) as journal:
        assert await journal.boot("test") == journal.boot_id
        journal.post("tele", "io", {"n": 0}, topic="tele")
        journal.post("tele", "io", {"n": 1}, topic="tele")
        seq = await journal.record("trip", "guard", {"n": 2})
        assert seq == 4  # boot, two posts, then this one
        with JournalReader.open(path) as reader:
            assert [e.body.get("n") for e in reader.events(after=1)] == [0, 1, 2]
        await journal.flush()
        assert told == [1]


async def test_posts_are_committed_in_groups_without_being_asked(path):
    async with await AsyncJournal.open(path, station="bench", group_s=0.02) as journal:
        await journal.boot("test")
        before = journal.commits
        for n in range(500):
            journal.post("tele", "io", {"n": n})
        deadline = time.monotonic() + 5.0
        with JournalReader.open(path) as reader:
            while reader.last_seq() < 501 and time.monotonic() < deadline:
                await asyncio.sleep(0.005)
            assert reader.last_seq() == 501
        assert journal.commits - before == 1


async def test_records_waiting_together_share_a_commit(path):
    async with await AsyncJournal.open(path, station="bench") as journal:
        await journal.boot("test")
        gate = threading.Event()
        blocked = asyncio.ensure_future(journal.read(lambda j: gate.wait(5.0)))
        await asyncio.sleep(0)
        waiting = [asyncio.ensure_future(journal.record("a", "m", {"n": n})) for n in range(50)]
        await asyncio.sleep(0)
        before = journal.commits
        gate.set()
        assert await asyncio.gather(*waiting) == list(range(2, 52))
        assert await blocked
        assert journal.commits - before <= 3


async def test_one_bad_record_does_not_take_the_others_with_it(path):
    async with await AsyncJournal.open(path, station="bench") as journal:
        await journal.boot("test")
        results = await asyncio.gather(
            journal.record("a", "m", {}),
            journal.record("a", "m", {"bad": object()}),
            journal.record("a", "m", {}),
            return_exceptions=True,
        )
        assert isinstance(results[1], TypeError)
        assert (results[0], results[2]) == (2, 3)


async def test_a_cancelled_wait_does_not_undo_the_write(path):
    async with await AsyncJournal.open(path, station="bench") as journal:
        await journal.boot("test")
        waiting = asyncio.ensure_future(journal.record("a", "m", {}))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert len(await journal.read(lambda j: j.events(kind="a"))) == 1


async def test_errors_reach_the_caller_and_for_posts_the_callback(path):
    errors = []
    async with await AsyncJournal.open(
        path, station="bench", group_s=0.01, on_error=errors.append
    ) as journal:
        await journal.boot("test")
        await journal.read(
            lambda j: j._db.execute("PRAGMA query_only = 1")
        )  # as a disk that turned read-only
        with pytest.raises(JournalError, match=str(path)):
            await journal.record("a", "m", {})
        journal.post("tele", "io", {})
        with pytest.raises(JournalError):
            await journal.latch("x", {})
        assert len(errors) == 1
        assert journal.lost_posts == 1


async def test_posts_are_bounded_when_the_disk_hangs(path):
    gate = threading.Event()
    async with await AsyncJournal.open(path, station="bench", group_s=0.0, max_posts=100) as journal:
        await journal.boot("test")
        hang = asyncio.ensure_future(journal.read(lambda j: gate.wait(5.0)))
        await asyncio.sleep(0)
        for n in range(250):
            journal.post("tele", "io", {"n": n})
        assert journal.lost_posts == 150
        gate.set()
        await hang
        kept = [e.body["n"] for e in await journal.read(lambda j: j.events(kind="tele"))]
        assert kept == list(range(150, 250))


async def test_it_opens_or_says_why_and_a_closed_one_refuses(path):
    async with await AsyncJournal.open(path, station="bench") as journal:
        await journal.boot("test")
        with pytest.raises(JournalError, match="not 'other'"):
            await AsyncJournal.open(path, station="other")
        journal.post("tele", "io", {})
    await journal.close()
    with JournalReader.open(path) as reader:
        assert len(reader.events(kind="tele")) == 1  # closing commits what was posted
    with pytest.raises(JournalError, match="closed"):
        await journal.record("a", "m", {})
    assert not [thread for thread in threading.enumerate() if thread.name == "journal"]


async def test_lab_time_is_stamped_when_nobody_says_otherwise(path):
    async with await AsyncJournal.open(path, station="bench", clock=lambda: 77.0) as journal:
        await journal.boot("test")
        await journal.record("a", "m", {})
        await journal.record("a", "m", {}, lab_s=5.0)
        assert [e.lab_s for e in await journal.read(lambda j: j.events(kind="a"))] == [77.0, 5.0]


async def test_everything_the_host_uses_goes_through(path, tmp_path):
    async with await AsyncJournal.open(path, station="bench") as journal:
        await journal.boot("test")
        await journal.start_run("r1", experiment="e", directory="d")
        await journal.checkpoint("r1", "scan", {"line": 1})
        assert (await journal.last_checkpoint("r1", "scan")).body == {"line": 1}
        assert [run.run for run in await journal.open_runs()] == ["r1"]
        seq = await journal.latch("t", {"text": "x"}, run="r1")
        assert [latch.id for latch in await journal.latches()] == ["t"]
        assert await journal.clear_latch("t", "me")
        assert await journal.acknowledge([(1, seq)]) == 1
        assert not await journal.nonce_seen("n", time.time() + 10)
        assert await journal.nonce_seen("n", time.time() + 10)
        assert await journal.undeliverable([(seq + 1, "x")]) == 1
        assert await journal.prune() == {}
        await journal.end_run("r1", outcome="done", exit_code=0)
        extract = await journal.extract("r1", tmp_path / "x.sqlite")
        with JournalReader.open(extract) as reader:
            assert [e.kind for e in reader.events()] == ["run_started", "trip", "run_ended"]


# -- killed --------------------------------------------------------------------------------------------------

_WRITER = """
import sys
from controller.journal import Journal
journal = Journal.open(sys.argv[1], station="bench")
journal.boot("victim")
while True:
    print(journal.record("a", "m", {"pad": "x" * 200}, topic="tele"), flush=True)
"""


def test_what_was_told_survives_a_kill_in_mid_write(path):
    told = set()
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE) as victim:
            for _ in range(20):
                told.add(int(victim.stdout.readline()))
            os.kill(victim.pid, signal.SIGKILL)
            told.update(int(line) for line in victim.stdout.read().split(b"\n")[:-1])
    with JournalReader.open(path) as reader:
        seqs = [event.seq for event in reader.all_events()]
        assert seqs == list(range(1, len(seqs) + 1))
        assert told <= set(seqs)
        assert reader.backlog()[0] == len(seqs) - 4  # every event but the four boots has its outbox row
        assert reader.check() == []


def test_bodies_are_plain_json_for_anyone_with_sqlite(journal, path):
    journal.record("a", "m", {"v": 1})
    db = sqlite3.connect(path)
    assert json.loads(db.execute("SELECT body FROM events WHERE kind = 'a'").fetchone()[0]) == {"v": 1}
    db.close()
