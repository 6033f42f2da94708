"""A backup is what was committed at one moment, also while the host writes; damage to it is found."""

import json
import shutil
import threading
import time
from pathlib import Path

import pytest

from controller import cli
from controller.backup import BackupError, make, verify
from controller.journal_read import JournalReader
from controller.journal_store import Journal
from controller.paths import StateDir


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    """A station with a run that has ended and one that goes on."""
    state = StateDir(tmp_path / "state")
    with Journal.open(state.journal, station="lab") as journal:
        journal.boot("run")
        for name in ("first", "second"):
            folder = tmp_path / "runs" / name / "raw"
            folder.mkdir(parents=True)
            (folder / "pige.lst").write_bytes(name.encode() * 1000)
            journal.start_run(name, experiment="e", directory=str(folder.parent), body={})
        journal.end_run("first", outcome="success", exit_code=0, reason="")
    return state


def test_a_backup_opens_and_lists_the_runs(state: StateDir, tmp_path: Path) -> None:
    told = make(state, tmp_path / "backup")
    with JournalReader.open(tmp_path / "backup" / "journal.sqlite") as journal:
        assert [run.run for run in journal.runs()] == ["first", "second"]
    assert json.loads((tmp_path / "backup" / "backup.json").read_text()) == told
    first, second = told["runs"]
    assert [file["name"] for file in first["files"]] == ["raw/pige.lst"]
    assert (second["ended"], second["files"]) == (False, [])
    assert sorted(p.name for p in (tmp_path / "backup").iterdir()) == ["backup.json", "journal.sqlite"]
    assert all(p.stat().st_mode & 0o077 == 0 for p in (tmp_path / "backup").iterdir())
    assert verify(tmp_path / "backup") == []


def test_nothing_is_overwritten_and_nothing_left_behind(state: StateDir, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(BackupError, match="nothing is overwritten"):
        make(state, tmp_path / "there")
    with pytest.raises(BackupError, match="no journal"):
        make(StateDir(tmp_path / "empty"), tmp_path / "backup")
    state.journal.write_bytes(b"no journal at all" * 1000)
    with pytest.raises(BackupError):
        make(state, tmp_path / "backup")
    assert not list(tmp_path.glob("backup*"))


def test_it_is_whole_while_the_host_writes(state: StateDir, tmp_path: Path) -> None:
    stop = threading.Event()
    written = []

    def write() -> None:
        with Journal.open(state.journal, station="lab") as journal:
            journal.boot("again")
            while not stop.is_set():
                for name in ("third", "fourth"):
                    journal.start_run(
                        f"{name}{len(written)}", experiment="e", directory=str(tmp_path), body={}
                    )
                written.append(time.monotonic())

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not written:
            time.sleep(0.001)
        sizes = []
        for number in range(5):
            before = len(written)
            make(state, tmp_path / f"backup{number}")
            while len(written) == before:  # the writer was not stopped by it
                time.sleep(0.001)
            assert verify(tmp_path / f"backup{number}") == []
            with JournalReader.open(tmp_path / f"backup{number}" / "journal.sqlite") as journal:
                sizes.append(len(journal.runs()))
                assert sizes[-1] >= 2 + 2 * before  # everything that was acknowledged before
    finally:
        stop.set()
        writer.join()
    assert sizes == sorted(sizes)


def test_damage_is_found(state: StateDir, tmp_path: Path) -> None:
    make(state, tmp_path / "backup")
    raw = tmp_path / "runs" / "first" / "raw" / "pige.lst"
    raw.write_bytes(raw.read_bytes().replace(b"f", b"g", 1))
    assert any("pige.lst has changed" in problem for problem in verify(tmp_path / "backup"))
    raw.unlink()
    assert any("pige.lst is missing" in problem for problem in verify(tmp_path / "backup"))
    copy = tmp_path / "backup" / "journal.sqlite"
    content = bytearray(copy.read_bytes())
    content[5000] ^= 0xFF
    copy.write_bytes(content)
    assert any("journal.sqlite has changed" in problem for problem in verify(tmp_path / "backup"))
    copy.unlink()
    assert any("missing" in problem for problem in verify(tmp_path / "backup"))
    assert verify(tmp_path / "nowhere")


def test_copies_of_the_runs_are_verified_where_they_are(state: StateDir, tmp_path: Path) -> None:
    make(state, tmp_path / "backup")
    shutil.copytree(tmp_path / "runs", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "runs")
    assert verify(tmp_path / "backup")
    assert verify(tmp_path / "backup", tmp_path / "elsewhere") == []


def test_a_restored_journal_is_gone_on_with(state: StateDir, tmp_path: Path) -> None:
    make(state, tmp_path / "backup")
    new = StateDir(tmp_path / "new board")
    shutil.copy(tmp_path / "backup" / "journal.sqlite", new.journal)
    with Journal.open(new.journal, station="lab") as journal:
        journal.boot("restored")
        journal.end_run("second", outcome="abort", exit_code=5, reason="the old board died")
        assert journal.open_runs() == []


def test_the_command(state: StateDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["backup", str(tmp_path / "b"), "--station-name", "lab", "--state", str(state.path)]
    assert cli.main(words) == 0
    assert "second goes on" in capsys.readouterr().out
    assert cli.main(words) == 2
    assert cli.main([*words, "--verify"]) == 0
    (tmp_path / "b" / "journal.sqlite").write_bytes(b"")
    assert cli.main([*words, "--verify"]) == 3
