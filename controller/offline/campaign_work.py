"""One file of a campaign, reduced on a worker; and what a worker must have in common with the client.

A worker does what one process would do: ``Technique.jobs`` with the options of the command line and the FILES
of one job. Before that it compares its software, its arithmetic and the sha256 of every input with what the
client has: where one of them differs the result could differ, so nothing is reduced.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib
import os
import platform
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from controller.offline import one_thread  # noqa: F401  # before numpy
from controller.offline.product import pack, pack_product, produce
from controller.offline.technique import Technique

import numpy as np  # isort: skip

ROOT = Path(__file__).parent.parent.parent
CODE = ("controller/offline", "controller/reduce", "controller/config", "drivers", "edge")
PACKAGES = ("operando", "numpy", "scipy", "numba", "llvmlite", "matplotlib", "h5py")
_ONE_AT_A_TIME = threading.Lock()  # matplotlib and warning filters are not for threads


@dataclass(frozen=True)
class Task:
    """One piece of work. Paths are absolute, as the client sees them.

    Attributes:
        module: of the technique.
        options: of the command line, without FILES.
        files: the FILES that this job is made of.
        inputs: (path, sha256) of everything that is read, FILES of other jobs included when they count.
        which: the place of the job among those that these FILES make; -1: the sums of one file, for merging.
        figures: their format, None when nothing is written.
        same: what ``about()`` says where the client runs.
        content: of each input, for workers that do not share the file system.
    """

    module: str
    options: Mapping[str, Any]
    files: tuple[Path, ...]
    inputs: tuple[tuple[Path, str], ...]
    which: int
    figures: str | None
    same: Mapping[str, str]
    content: Mapping[Path, bytes] | None = None


@dataclass(frozen=True)
class Answer:
    """What came of a task: exactly one of the three is there."""

    product: bytes | None = None
    why: str = ""  # the data cannot be reduced: it would be the same anywhere
    unfit: str = ""  # this worker cannot be trusted with it


@functools.cache
def about() -> dict[str, str]:
    """Return what two computers must have in common for the same result in every bit."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2]), "machine": platform.machine()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found | {"code of operando": _code(), "arithmetic": _arithmetic()}


def differences(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """Return in words how two computers differ, "" when they do not. ``ours`` is where the client runs."""
    said = []
    for name in sorted(ours.keys() | theirs.keys()):
        there, here = theirs.get(name, "nothing"), ours.get(name, "nothing")
        if there != here:
            hint = " (another processor, or OPENBLAS_NUM_THREADS is not 1)" if name == "arithmetic" else ""
            said.append(f"{name} is {there} there, {here} here{hint}")
    return "; ".join(said)


def work(task: Task) -> Answer:
    """Carry out a task. What is wrong with the data or the worker is an answer, a defect is an exception."""
    unfit = differences(about(), task.same)
    if unfit:
        return Answer(unfit=unfit)
    with _ONE_AT_A_TIME:
        if task.content is None:
            return _in_place(task, lambda path: path)
        with tempfile.TemporaryDirectory(prefix="operando-") as folder:
            moved = functools.partial(_below, Path(folder))
            for path, content in task.content.items():
                moved(path).parent.mkdir(parents=True, exist_ok=True)
                moved(path).write_bytes(content)
            return _in_place(task, moved)


def relocated(value: Any, moved: Callable[[Path], Path], known: frozenset[Path]) -> Any:
    """Return an option with each path that is among ``known`` (absolute) put where it is on this computer."""
    if isinstance(value, str | Path):
        path = absolute(value)
        if path in known:
            return type(value)(moved(path))
        return path if isinstance(value, Path) else value
    if type(value) in (list, tuple):
        return type(value)(relocated(one, moved, known) for one in value)
    return value


def absolute(path: str | Path) -> Path:
    """Return a path from the root, without dots; the disk is not asked."""
    return Path(os.path.abspath(path))


def known_paths(task_files: Sequence[Path], inputs: Sequence[Path]) -> frozenset[Path]:
    """Return FILES, inputs and the folders that hold inputs."""
    return frozenset(task_files) | {p for path in inputs for p in (path, *path.parents) if p != Path("/")}


def sha256(path: Path) -> str:
    """Return the sha256 of a file; it is read again only when it has changed."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(4096)
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _below(folder: Path, path: Path) -> Path:
    return folder / path.relative_to(path.anchor)


def _in_place(task: Task, moved: Callable[[Path], Path]) -> Answer:
    for path, expected in task.inputs:
        try:
            found = sha256(moved(path))
        except OSError as error:
            hint = "" if task.content else " (--send sends the files with the work)"
            return Answer(unfit=f"{path}: {error.strerror} there{hint}")
        if found != expected:
            return Answer(unfit=f"{path} is another file there: sha256 {found[:12]}, here {expected[:12]}")
    known = known_paths(task.files, [path for path, _ in task.inputs])
    options = {name: relocated(value, moved, known) for name, value in task.options.items()}
    args = argparse.Namespace(**options, files=[moved(path) for path in task.files])
    technique: Technique = importlib.import_module(task.module).TECHNIQUE
    try:
        return Answer(_reduced(technique, args, task, moved))
    except (OSError, ValueError) as error:
        root = str(moved(Path("/")))
        return Answer(why=str(error).replace(root.rstrip("/") + "/", "/") if root != "/" else str(error))


def _reduced(
    technique: Technique, args: argparse.Namespace, task: Task, moved: Callable[[Path], Path]
) -> bytes:
    if task.which < 0:
        if technique.merge is None:
            raise ValueError(f"{technique.name} does not merge files")
        return pack(technique.merge.part(args, args.files[0]))
    job = technique.jobs(args)[task.which]
    if not {absolute(path) for path in job.inputs} <= {moved(path) for path, _ in task.inputs}:
        raise RuntimeError(f"{technique.name}: a job depends on which other files were given with it")
    return pack_product(produce(job.run(), task.figures))


def _code() -> str:
    digest = hashlib.sha256()
    for folder in CODE:
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _arithmetic() -> str:
    """Return a digest of results whose last bits depend on the processor and on the number of threads."""
    numbers = np.random.default_rng(1).normal(size=(300, 300))
    rows = numbers.ravel()
    results = (
        numbers @ numbers, numbers @ numbers[0], rows @ rows, np.exp(rows), np.sin(rows), rows.sum(),
        np.linalg.inv(numbers), np.linalg.eigh(numbers @ numbers.T)[0],
    )  # fmt: skip
    digest = hashlib.sha256()
    for result in results:
        digest.update(np.asarray(result).tobytes())
    return digest.hexdigest()[:12]
