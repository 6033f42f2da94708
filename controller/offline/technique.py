"""What a technique of ``operando reduce`` is: its options, its jobs, and what a job gives back."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]


class Problems(ValueError):
    """Options or files that cannot be used, all of them at once; nothing has been written."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Axis:
    """One axis of an array: as many values as the array is long there (or one more: edges)."""

    name: str
    values: NDArray[np.float64]
    unit: str


@dataclass(frozen=True)
class Array:
    """A map, profile or spectrum for ``result.h5``.

    Attributes:
        name: of its group; letters, digits, underscores.
        values: any shape.
        unit: of the values; "" where they have none.
        sigma: one sigma, the shape of ``values``.
        axes: slowest first; may be shorter than the array has dimensions.
        title: in words.
    """

    name: str
    values: Values
    unit: str
    sigma: Values | None = None
    axes: tuple[Axis, ...] = ()
    title: str = ""


class Report(Protocol):
    """A reduced recording: for machines, for people, and what the figures need."""

    @property
    def data(self) -> Mapping[str, Any]:
        """Plain values, never NaN; every quantity is {value, sigma_stat, sigma_sys, unit}."""

    @property
    def text(self) -> str:
        """Tables for people."""

    def figures(self, fmt: str) -> Iterator[tuple[str, bytes]]:
        """Yield (name, picture); ``fmt`` is png or svg. Import matplotlib here, not above."""

    def arrays(self) -> Iterator[Array]:
        """Yield what goes into result.h5."""


@dataclass(frozen=True)
class Job:
    """One result to be made.

    Attributes:
        file: what the result is named after.
        inputs: all files that go in; each is named with its sha256 in result.json.
        run: makes the report; ValueError when these data cannot be reduced.
        own: options that stand for those of the command line when this job's files are given alone (one of
            several values, say), so that a worker of a campaign need not see the others.
    """

    file: Path
    inputs: tuple[Path, ...]
    run: Callable[[], Report]
    own: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Merge:
    """How several FILES become one result (``--merge``): sums of each file, added exactly, then finished.

    Attributes:
        part: reduces one of FILES to its sums: plain numbers, text, lists and arrays in a dict. ValueError
            when it cannot be read.
        finish: adds the sums up, in the order of FILES, and makes the report. ValueError when they do not
            belong together.
        also: the files besides FILES that go in: named in result.json too.
        alone: ``part`` reads nothing but its file; else a worker of a campaign gets ``also`` with every part.
    """

    part: Callable[[argparse.Namespace, Path], Mapping[str, Any]]
    finish: Callable[[argparse.Namespace, Sequence[Mapping[str, Any]]], Report]
    also: Callable[[argparse.Namespace], Sequence[Path]] = lambda args: ()
    alone: bool = False


@dataclass(frozen=True)
class Technique:
    """One technique as ``operando reduce`` needs it.

    Attributes:
        name: as typed.
        help: one line.
        files: what FILES may be.
        example: a command line.
        add_arguments: adds the options of this technique.
        jobs: checks options and files and returns the jobs; raises Problems.
        merge: where several files can be one measurement; adds the option ``--merge``.
        each: a job depends on the options and on those of FILES that are among its inputs, not on which other
            files are given or in which place; then a worker of a campaign need only see these.
        row: from ``Report.data`` the few quantities of a line of the summary, by name; without it those that
            stand at the top of ``data``.
    """

    name: str
    help: str
    files: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    jobs: Callable[[argparse.Namespace], list[Job]]
    merge: Merge | None = None
    row: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    each: bool = False
