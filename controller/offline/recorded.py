"""Jobs for techniques that reduce one recording at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from controller.offline.technique import Job, Problems, Report
from drivers.files import any_file
from drivers.files.errors import FileError
from drivers.files.recordings import Recording


def one_each(files: Sequence[Path], reduce_one: Callable[[Recording], Report]) -> list[Job]:
    """Return a job per file. Raises Problems that names every file that cannot be read."""
    jobs, problems = [], []
    for path in files:
        try:
            recording = any_file.read(path)
        except FileError as error:
            problems.append(str(error))
            continue
        jobs.append(Job(path, (path,), lambda recording=recording: reduce_one(recording)))  # type: ignore[misc]
    if problems:
        raise Problems(problems)
    return jobs
