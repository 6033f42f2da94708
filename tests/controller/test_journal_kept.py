"""Journals that earlier versions wrote: whatever reads a journal still reads these."""

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path

import event_model
import pytest

from controller.documents import close_crashed, missing_stops
from controller.journal import AsyncJournal, Journal, JournalReader, extract
from controller.offline.facts import facts_of
from controller.offline.recover import record_of
from controller.offline.run_files import RunFiles
from controller.outbox import OutboxReader
from controller.resumption import take_up

KEPT = Path(__file__).parents[1] / "data" / "journal"
RUN = "20261121-184438-short"


@pytest.fixture
def kept(tmp_path):
    """Unpack a kept journal as the one of a run's folder."""

    def unpack(name):
        path = tmp_path / RUN / "journal.sqlite"
        path.parent.mkdir()
        path.write_bytes(gzip.decompress((KEPT / f"{name}.sqlite.gz").read_bytes()))
        return path

    return unpack


def asked(path, query):
    with closing(sqlite3.connect(path)) as base:
        return base.execute(query).fetchall()


@pytest.mark.parametrize(("name", "events", "open_runs"), [("interrupted", 356, 1), ("extract", 813, 0)])
def test_the_reader_reads_every_row(kept, name, events, open_runs):
    path = kept(name)
    with JournalReader.open(path) as reader:
        assert reader.check() == []
        assert reader.meta()["station"] == "bench"
        assert len(list(reader.all_events())) == events
        assert [run.run for run in reader.runs()] == [RUN]
        assert len(reader.open_runs()) == open_runs
        assert reader.last_checkpoint(RUN, "sequence").body["scans"] in (1, 3)
        assert reader.boots()
        assert reader.latches() == []
        assert reader.latest(RUN, "sample", "cell", 1 << 62, 1)[0].body["charge_coulomb"] > 0.0


def test_the_writer_goes_on_with_it(kept, tmp_path):
    path = kept("interrupted")
    before = asked(path, "SELECT * FROM events ORDER BY seq")
    with Journal.open(path, station="bench") as journal:
        journal.boot("a later version")
        assert journal.record("a", "m", {}, run=RUN) > len(before)
        journal.end_run(RUN, outcome="abort", exit_code=5)
        journal.prune()
        journal.extract(RUN, tmp_path / "extract.sqlite")
    assert asked(path, "SELECT * FROM events ORDER BY seq")[: len(before)] == before
    with JournalReader.open(tmp_path / "extract.sqlite") as reader:
        assert reader.runs()[0].outcome == "abort"


async def test_a_run_in_it_is_taken_up(kept):
    """From the last reading of the cell on, as SQL finds it; nobody saw its circuit open."""
    path = kept("interrupted")
    ((charge, phase),) = asked(
        path,
        "SELECT json_extract(body, '$.charge_coulomb'), json_extract(body, '$.phase') FROM events "
        "WHERE kind = 'sample' AND module = 'cell' ORDER BY seq DESC LIMIT 1",
    )
    assert phase == "cc"

    async with await AsyncJournal.open(path, station="bench") as journal:
        await journal.boot("resume")
        carried = await take_up(journal, RUN, 2.0, "emstat")
        assert carried.body["charge_coulomb"] == pytest.approx(charge, rel=1e-9)
        assert carried.body["done"] == 1
        uid = await close_crashed(journal, RUN, "a test")
    with JournalReader.open(path) as reader:
        assert missing_stops(reader, RUN, "", now=0.0) == []
        (stop,) = [event.body for event in reader.all_events(RUN, "doc/stop")]
        assert (stop["run_start"], stop["exit_status"]) == (uid, "abort")


def test_link_reads_its_outbox_and_what_is_retained(kept):
    with OutboxReader.open(kept("interrupted")) as reader:
        assert reader.rows(0, 1 << 62, 10) == []
        assert reader.oldest() is None
        topics = [value.topic for value in reader.retained("", 100, 0.0)]
    assert {"describe", "state/cell/charge", "state/heater/temperature"} <= set(topics)


def test_the_offline_commands_read_it(kept):
    """Record rebuilt from the events alone, passes and documents as they were."""
    path = kept("extract")
    run = RunFiles(path.parent)
    record, _ = record_of(run)
    assert (record["exit_code"], record["station"]) == (6, "bench")
    assert [step["do"] for step in record["steps"]].count("scan") >= 3
    facts = facts_of(run)
    assert len(facts["scans"]) == 3
    assert facts["quarantined"] == []
    with JournalReader.open(path) as reader:
        documents = [event for event in reader.all_events(RUN) if event.kind.startswith("doc/")]
    assert len(documents) == 179
    for event in documents:
        name = event_model.DocumentNames[event.kind.removeprefix("doc/")]
        event_model.schema_validators[name].validate(event.body)


def test_an_extract_is_made_of_a_kept_journal(kept, tmp_path):
    path = kept("interrupted")
    extract(path, RUN, tmp_path / "again.sqlite")
    with JournalReader.open(tmp_path / "again.sqlite") as reader:
        assert [run.run for run in reader.open_runs()] == [RUN]
