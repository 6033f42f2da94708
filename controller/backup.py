"""``operando backup``: a copy of the journal, safe during a run, and a list of the runs with sha256.

The journal is copied through SQLite in one read, so the copy is what was committed at one moment; whoever
copies ``journal.sqlite`` with ``cp`` while a host runs gets a file that may not open. The folder of a run
does not change once the run has ended: any program may copy it, and ``--verify`` says whether it did.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from controller.journal_read import JournalReader
from controller.journal_rows import JournalError, Run
from controller.paths import StateDir

EXIT_DONE, EXIT_FILES, EXIT_WRONG = 0, 2, 3
LIST = "backup.json"
PIECE_BYTES = 1 << 20


class BackupError(Exception):
    """Nothing was written; says why."""


def make(state: StateDir, destination: Path) -> dict[str, Any]:
    """Write a backup into a new folder, complete and synced before it bears its name; return its list.

    Raises:
        BackupError: the destination exists, there is no journal, or the copy does not open.
        OSError: the disk.
    """
    destination = destination.absolute()
    if destination.exists():
        raise BackupError(f"{destination} exists already: nothing is overwritten")
    if not state.journal.is_file():
        raise BackupError(f"{state.path} holds no journal to back up")
    part = destination.with_name(destination.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True, mode=0o700)
    try:
        journal = part / "journal.sqlite"
        _copy(state.journal, journal)
        problems, runs = _opened(journal)
        _must_be_sound(problems)
        told = {
            "made": time.time(), "journal": {"sha256": sha256(journal), "bytes": journal.stat().st_size},
            "runs": [_listed(run) for run in runs],
        }  # fmt: skip
        (part / LIST).touch(mode=0o600)
        (part / LIST).write_text(json.dumps(told, indent=1))
        _sync(part / LIST, part)
        part.rename(destination)
        _sync(destination.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return told


def _must_be_sound(problems: list[str]) -> None:
    if problems:
        raise BackupError(f"the copy of the journal is not sound: {'; '.join(problems)}")


def _copy(source: Path, target: Path) -> None:
    """Copy a journal while others use it. In one step: with several, each commit would start it anew."""
    target.touch(mode=0o600)
    reading = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=10.0)
    writing = sqlite3.connect(target)
    try:
        reading.backup(writing, pages=-1)
        writing.execute("PRAGMA journal_mode=DELETE")  # one file, which opens on a read-only disk, too
    except sqlite3.Error as error:
        raise BackupError(f"{source}: {error}") from error
    finally:
        writing.close()
        reading.close()
    _sync(target)


def _opened(journal: Path) -> tuple[list[str], list[Run]]:
    """Open a copy as the host would; return (what is wrong with it, its runs)."""
    try:
        with JournalReader.open(journal) as reader:
            runs = reader.runs()
        check = sqlite3.connect(f"{journal.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            said = [str(row[0]) for row in check.execute("PRAGMA integrity_check(3)")]
        finally:
            check.close()
    except (JournalError, sqlite3.Error) as error:
        return [str(error)], []
    return ([] if said == ["ok"] else said), runs


def _listed(run: Run) -> dict[str, Any]:
    """Return a run for the list. The files of one that goes on are still changing, and are not listed."""
    folder = Path(run.directory)
    ended = run.outcome is not None
    files = list(_files(folder)) if ended else []
    return {"run": run.run, "folder": str(folder), "ended": ended, "there": folder.is_dir(), "files": files}


def _files(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            name = str(path.relative_to(folder))
            yield {"name": name, "bytes": path.stat().st_size, "sha256": sha256(path)}


def verify(backup: Path, runs: Path | None = None) -> list[str]:
    """Return what is wrong with a backup, nothing if all is well.

    Args:
        backup: the folder.
        runs: where copies of the runs are; default: where they were.
    """
    try:
        told = json.loads((backup / LIST).read_text())
        listed = told["journal"]["sha256"]
        entries = [(str(r["run"]), Path(r["folder"]), bool(r["there"]), r["files"]) for r in told["runs"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{backup / LIST} cannot be read: {error}"]
    journal = backup / "journal.sqlite"
    if not journal.is_file():
        return [f"{journal} is missing"]
    problems = [] if sha256(journal) == listed else [f"{journal} has changed"]
    problems += [f"{journal}: {problem}" for problem in _opened(journal)[0]]
    for run, folder, there, files in entries:
        if there:
            problems += _changed(folder if runs is None else runs / folder.name, run, files)
    return problems


def _changed(folder: Path, run: str, files: list[dict[str, Any]]) -> Iterator[str]:
    for file in files:
        path = folder / file["name"]
        if not path.is_file():
            yield f"{run}: {path} is missing"
        elif path.stat().st_size != file["bytes"] or sha256(path) != file["sha256"]:
            yield f"{run}: {path} has changed"


def sha256(path: Path) -> str:
    """Return a file's sha256, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while piece := source.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _sync(*paths: Path) -> None:
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def main(args: argparse.Namespace) -> int:
    """Run the command; 2 when nothing was written, 3 when a backup is not sound."""
    if args.verify:
        problems = verify(args.destination, args.runs)
        print(
            "\n".join(problems) or f"{args.destination}: sound", file=sys.stderr if problems else sys.stdout
        )
        return EXIT_WRONG if problems else EXIT_DONE
    try:
        told = make(StateDir.of(args.station_name, args.state), args.destination)
    except (BackupError, OSError) as error:
        print(error, file=sys.stderr)
        return EXIT_FILES
    megabytes = told["journal"]["bytes"] / 1e6
    print(f"{args.destination}: journal of {megabytes:.1f} MB, {len(told['runs'])} runs listed")
    for run in told["runs"]:
        if not run["ended"]:
            print(f"  {run['run']} goes on: copy its folder when it has ended")
        elif not run["there"]:
            print(f"  {run['run']}: its folder {run['folder']} is gone")
    return EXIT_DONE
