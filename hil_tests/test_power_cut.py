"""Power cuts at the level of files: what the journal promised is there, whatever of the rest was lost."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from controller.journal import Journal, JournalReader
from controller.offline.files_out import write_text
from hil_tests.durability.power import Disk, Entry, cut, read_tape
from hil_tests.harness import REPOSITORY

CUTS = 100

_WRITER = """
import asyncio, sys
from pathlib import Path
from hil_tests.durability.tape import record
tape = record(Path(sys.argv[1]))
from controller.journal import AsyncJournal
from controller.journal_rows import Record
async def main():
    async with await AsyncJournal.open(Path(sys.argv[2]), station="bench", group_s=0.001) as journal:
        await journal.boot("taped")
        await journal.start_run("r1", experiment="e", directory="d")
        for n in range(120):
            for m in range(3):
                journal.post("tele", "io", {"n": n, "pad": "x" * 9000}, run="r1", topic="tele")
            seqs = await journal.record_many([Record("a", "m", {"n": n}, "r1", topic="doc/event")] * 2)
            tape.put("ack", "", seqs=seqs)
            await journal.checkpoint("r1", "sequence", {"n": n})
            tape.put("ack", "", seqs=[-n - 1])
            if n % 40 == 20:
                await journal.acknowledge([(1, seqs[-1])])
        await journal.end_run("r1", outcome="done", exit_code=0)
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    """Everything that SQLite did to the disk while a journal of some megabytes was written."""
    folder = tmp_path_factory.mktemp("tape")
    command = [sys.executable, "-c", _WRITER, str(folder / "tape"), str(folder / "journal.sqlite")]
    subprocess.run(command, cwd=REPOSITORY, check=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    return read_tape(folder / "tape")


def test_the_tape_has_the_log_the_file_and_their_syncs(tape: list[Entry]) -> None:
    """If SQLite were not really listened to, none of what follows would mean anything."""
    files = {Path(entry.file).name for entry in tape if entry.op == "w"}
    assert files >= {"journal.sqlite", "journal.sqlite-wal"}
    syncs = [entry for entry in tape if entry.op == "s"]
    assert len(syncs) > 240  # one for each of the commits that were waited for, at least
    assert any(Path(entry.file).name == "journal.sqlite" for entry in syncs)  # the log was folded in, too


def test_what_was_promised_survives_a_power_cut_at_any_moment(tape: list[Entry], tmp_path: Path) -> None:
    """Cut anywhere; of the writes under way each is lost, whole or torn, in any order."""
    rng = random.Random(20260101)
    moments = sorted(rng.sample(range(len(tape)), CUTS))
    disk, at, lost = Disk(), 0, 0
    for number, moment in enumerate(moments):
        for entry in tape[at:moment]:
            disk.take(entry)
        at = moment
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, content in disk.files(rng):
            (folder / Path(name).name).write_bytes(content)
        path = folder / "journal.sqlite"
        with Journal.open(path, station="bench") as journal:  # which checks nothing by itself
            assert journal._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            seqs = [event.seq for event in journal.all_events()]
            assert seqs == list(range(1, len(seqs) + 1))
            promised = {seq for seq in disk.acknowledged if seq > 0}
            assert promised <= set(seqs)
            lost += len(seqs) - max(promised, default=0)
            last = max((-seq - 1 for seq in disk.acknowledged if seq < 0), default=-1)
            checkpoint = journal.last_checkpoint("r1", "sequence")
            assert (checkpoint.body["n"] if checkpoint else -1) >= last
            journal.boot("after the cut")
            assert journal.record("a", "m", {}) == len(seqs) + 2
    assert lost > 0  # the cuts fell into the middle of transactions, too


def test_a_journal_that_is_not_synced_would_be_found_out(tape: list[Entry], tmp_path: Path) -> None:
    """The same writes, as if no sync had ever been: rows go missing, or the file is broken."""
    rng = random.Random(7)
    broken = 0
    for number, moment in enumerate(rng.sample(range(len(tape) // 2, len(tape) - 20), 10)):
        disk = Disk.after([entry for entry in tape[:moment] if entry.op != "s"])
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, content in disk.files(rng):
            (folder / Path(name).name).write_bytes(content)
        try:
            with Journal.open(folder / "journal.sqlite", station="bench") as journal:
                seqs = {event.seq for event in journal.all_events()}
                broken += not {seq for seq in disk.acknowledged if seq > 0} <= seqs
        except Exception:
            broken += 1
    assert broken == 10


def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    """``write_text`` syncs the content, renames, and syncs the folder, in this order."""
    code = (
        "import sys; from pathlib import Path; from hil_tests.durability.tape import record\n"
        "record(Path(sys.argv[1])); from controller.offline.files_out import write_text\n"
        "write_text(Path(sys.argv[2]), 'whole')\n"
    )
    target = tmp_path / "run" / "start.json"
    target.parent.mkdir()
    command = [sys.executable, "-c", code, str(tmp_path / "tape"), str(target)]
    subprocess.run(command, cwd=REPOSITORY, check=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    assert [entry.op for entry in read_tape(tmp_path / "tape")] == ["fs", "mv", "ds"]
    assert cut(tmp_path / "tape", tmp_path, "any") == "nothing was on its way"
    assert target.read_text() == "whole"


def test_a_file_that_was_renamed_unsynced_is_lost(tmp_path: Path) -> None:
    """What the simulation would do to a program that forgets to sync."""
    write_text(tmp_path / "record.json", "{}")
    entry = {"op": "mv", "f": str(tmp_path / ".record"), "to": str(tmp_path / "record.json")}
    (tmp_path / "tape").write_text(json.dumps(entry) + "\n")
    told = {cut(tmp_path / "tape", tmp_path, str(seed)) for seed in range(4)}
    assert "record.json: empty" in told or "record.json: not renamed" in told


def test_a_reader_opens_what_a_power_cut_left(tape: list[Entry], tmp_path: Path) -> None:
    """Log and file, without the index of the log in shared memory."""
    disk = Disk.after(tape[: len(tape) * 3 // 4])
    for name, content in disk.files(random.Random(1)):
        (tmp_path / Path(name).name).write_bytes(content)
    with JournalReader.open(tmp_path / "journal.sqlite") as reader:
        assert reader.last_seq() >= max(disk.acknowledged)
