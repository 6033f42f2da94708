"""A campaign: many recordings reduced on an existing Dask cluster, to the same bytes as in one process.

The client reads the headers, hashes every input and sends one task per job (``campaign_work.Task``): the
options, the paths, the hashes, and with ``--send`` the files themselves. What comes back is put in the order
of the command line, so neither the number of workers nor their order nor their deaths change the result. Dask
gives the task of a dead worker to another one. Finished products are kept beside the results until all are
written, so a campaign that was cut off goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import hashlib
import importlib
import json
import logging
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from controller.offline.campaign_work import (
    Answer,
    Task,
    about,
    absolute,
    differences,
    known_paths,
    relocated,
    sha256,
    work,
)
from controller.offline.files_out import replacing
from controller.offline.technique import Job, Problems

SEND_LIMIT_BYTES = 256 << 20
TASKS_PER_WORKER = 2
TICK_S = 0.5
KEPT = ".campaign"
_CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)
NOT_OPTIONS = {"files", "chosen", "technique", "out", "json", "dask", "send", "wait"}


class ClusterError(Exception):
    """There is no cluster, it was lost, or it cannot be trusted with the work; says why."""


@dataclass(frozen=True)
class Cluster:
    """Where the work goes.

    Attributes:
        address: of the scheduler, for example ``tcp://10.0.0.1:8786``.
        send: send the files with the work.
        wait_s: for how long a cluster without scheduler or without workers is waited for.
    """

    address: str
    send: bool = False
    wait_s: float = 30.0


def plan(args: argparse.Namespace, module: str, jobs: Sequence[Job], *, send: bool) -> list[Task]:
    """Return a task per job; raises Problems when an input cannot be read or is too large to be sent."""
    tasks, problems = [], []
    made: dict[tuple[Path, ...], int] = {}
    everything = tuple(absolute(path) for path in args.files)
    for job in jobs:
        inputs = tuple(absolute(path) for path in job.inputs)
        files = everything
        if args.chosen.each:
            files = tuple(path for path in everything if _is_part(path, inputs)) or everything
        try:
            alone = argparse.Namespace(**(vars(args) | dict(job.own))) if args.chosen.each else args
            tasks.append(_task(alone, module, files, inputs, made.get(files, 0), send=send))
        except (OSError, ValueError) as error:
            problems.append(f"{job.file}: {error}")
        made[files] = made.get(files, 0) + 1
    if problems:
        raise Problems(problems)
    return tasks


def plan_parts(args: argparse.Namespace, module: str, *, send: bool) -> list[Task]:
    """Return a task per file, for ``--merge``; raises Problems."""
    tasks, problems = [], []
    merge = args.chosen.merge
    also = () if merge is None or merge.alone else tuple(absolute(path) for path in merge.also(args))
    for file in args.files:
        path = absolute(file)
        try:
            tasks.append(_task(args, module, (path,), tuple(dict.fromkeys((path, *also))), -1, send=send))
        except (OSError, ValueError) as error:
            problems.append(f"{file}: {error}")
    if problems:
        raise Problems(problems)
    return tasks


def spread(tasks: Sequence[Task], cluster: Cluster, keep: Path | None) -> list[Answer]:
    """Have the tasks carried out; return the answers in their order.

    Args:
        tasks: what is to be done.
        cluster: by whom.
        keep: folder where finished products stay until ``forget`` is called; None keeps nothing.

    Raises:
        ClusterError: see there. What was finished is kept.
        ImportError: Dask is not installed.
    """
    answers: list[Answer | None] = [_kept(keep, task) for task in tasks]
    missing = [number for number, answer in enumerate(answers) if answer is None]
    if missing:
        with _Connected(cluster) as client:
            for number, answer in _answers(client, tasks, missing, cluster):
                answers[number] = answer
                if keep is not None and answer.product is not None:
                    _keep(keep, tasks[number], answer.product)
                _progress(sum(one is not None for one in answers), len(tasks), tasks[number])
    return [answer for answer in answers if answer is not None]


def parse_wait_s(text: str) -> float:
    """Return seconds from "30 s" or "5 min", as argparse wants it."""
    from controller.config.quantities import parse  # pint, only when the option is used

    try:
        return parse(text, "s")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def forget(keep: Path) -> None:
    """Remove what was kept: the results are written."""
    shutil.rmtree(keep, ignore_errors=True)


def _task(
    args: argparse.Namespace, module: str, files: tuple[Path, ...], inputs: tuple[Path, ...], which: int,
    *, send: bool,
) -> Task:  # fmt: skip
    inputs = (*inputs, *(path for path in files if path not in inputs and path.is_file()))
    known = known_paths(files, inputs)
    options = {
        name: relocated(value, lambda path: path, known)
        for name, value in vars(args).items() if name not in NOT_OPTIONS
    }  # fmt: skip
    size = sum(path.stat().st_size for path in inputs)
    if send and size > SEND_LIMIT_BYTES:
        raise ValueError(f"{size} bytes are too many to be sent (limit {SEND_LIMIT_BYTES})")
    return Task(
        module, options, files, tuple((path, sha256(path)) for path in inputs), which,
        args.figures if args.out else None, about(),
    )  # fmt: skip


def _is_part(file: Path, inputs: Sequence[Path]) -> bool:
    return any(file == path or file in path.parents for path in inputs)


def _dask() -> Any:
    """Return Dask's module, whose functions carry no types."""
    try:
        return importlib.import_module("distributed")
    except ImportError as error:
        raise ImportError("--dask needs the extra dask: pip install operando[dask]") from error


def _quiet() -> None:
    """Keep Dask's own messages and traces away: what matters is said by us."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


class _Connected:
    """A client of the cluster that has a fit worker; closed within seconds whatever has happened."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def __enter__(self) -> Any:
        distributed = _dask()
        _quiet()
        warnings.filterwarnings("ignore", module="distributed")
        c = self._cluster
        try:
            self._client = distributed.Client(c.address, timeout=c.wait_s)
        except (OSError, ValueError, TypeError) as error:
            why = str(error) or type(error).__name__
            raise ClusterError(f"no Dask scheduler at {c.address} within {c.wait_s:g} s: {why}") from None
        try:
            self._check()
        except BaseException:
            self.__exit__()
            raise
        return self._client

    def __exit__(self, *_: object) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._client.close(timeout=5)

    def _check(self) -> None:
        c = self._cluster
        try:
            self._client.wait_for_workers(1, timeout=c.wait_s)
        except TimeoutError:
            raise ClusterError(f"the cluster at {c.address} has no worker ({c.wait_s:g} s waited)") from None
        found = self._client.run(about, on_error="return")
        problems = []
        for worker, theirs in found.items():
            if isinstance(theirs, BaseException):
                problems.append(f"worker {worker} has no operando like this one: {theirs}")
            elif unlike := differences(theirs, about()):
                problems.append(f"worker {worker}: {unlike}")
        if problems:
            raise ClusterError("; ".join(problems))


def _answers(
    client: Any, tasks: Sequence[Task], missing: Sequence[int], cluster: Cluster
) -> Iterator[tuple[int, Answer]]:
    """Yield the answers as they come; never more tasks under way than the workers need."""
    wait = _dask().wait
    waiting, under_way = list(reversed(missing)), dict[Any, int]()
    alive_s = time.monotonic()
    while waiting or under_way:
        workers = _workers(client)
        if workers:
            alive_s = time.monotonic()
        elif time.monotonic() - alive_s > cluster.wait_s:
            raise ClusterError(f"the cluster was lost: no scheduler or no worker for {cluster.wait_s:g} s")
        while waiting and len(under_way) < TASKS_PER_WORKER * workers:
            number = waiting.pop()
            key = f"operando-{_name(tasks[number])}"
            task = _with_content(tasks[number]) if cluster.send else tasks[number]
            under_way[client.submit(work, task, key=key, pure=False)] = number
        if not under_way:
            time.sleep(TICK_S)
            continue
        try:
            finished = wait(list(under_way), timeout=TICK_S, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            continue
        except _CANCELLED:
            raise ClusterError("the cluster was lost: the connection to its scheduler broke") from None
        for future in finished:
            yield under_way.pop(future), _answer(future)


def _with_content(task: Task) -> Task:
    """Return a task with its files; a file that has changed since it was hashed is noticed by the worker."""
    return replace(task, content={path: path.read_bytes() for path, _ in task.inputs})


def _workers(client: Any) -> int:
    """Return how many workers there are, 0 when the scheduler does not answer."""
    if client.status != "running":
        return 0
    try:
        return len(client.nthreads() or {})
    except (OSError, RuntimeError, TimeoutError):
        return 0


def _answer(future: Any) -> Answer:
    if future.status in ("cancelled", "lost"):
        raise ClusterError("the cluster was lost: the scheduler forgot the work")
    try:
        answer: Answer = future.result(timeout=60)
    except _dask().KilledWorker as error:
        return Answer(why=f"every worker that tried it died ({error.allowed_failures + 1} of them)")
    except (ModuleNotFoundError, AttributeError) as error:
        raise ClusterError(f"a worker has no operando like this one: {error}") from error
    if answer.unfit:
        raise ClusterError(f"a worker cannot do it: {answer.unfit}")
    return answer


def _name(task: Task) -> str:
    """Return a name for what comes of a task: the same only when nothing that counts has changed."""
    counts: list[Any] = [
        task.module, sorted((k, repr(v)) for k, v in task.options.items()), [str(p) for p in task.files],
        [[str(path), digest] for path, digest in task.inputs], task.which, task.figures, dict(task.same),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(counts).encode()).hexdigest()[:32]


def _kept(keep: Path | None, task: Task) -> Answer | None:
    path = keep / _name(task) if keep is not None else None
    return Answer(path.read_bytes()) if path is not None and path.is_file() else None


def _keep(keep: Path, task: Task, product: bytes) -> None:
    keep.mkdir(parents=True, exist_ok=True)
    with replacing(keep / _name(task)) as scratch:
        scratch.write_bytes(product)


def _progress(done: int, total: int, task: Task) -> None:
    if sys.stderr.isatty():
        print(f"reduced {done} of {total}: {task.files[0].name}", file=sys.stderr)
