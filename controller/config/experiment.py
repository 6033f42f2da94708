"""The experiment file: the sample, what to look for in it, and the steps in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, TypeAdapter, ValidationError

from controller.config import experiment_rules, files
from controller.config.base import Table
from controller.config.calibrations import Calibration, find_calibration
from controller.config.files import Source
from controller.config.problems import ConfigErrors, Problem, in_file_order, key_of
from controller.config.problems import Path as KeyPath
from controller.config.quantities import QuantityError, parse
from controller.config.radiography import Radiography
from controller.config.resume import Resume
from controller.config.sample import Analysis, Sample
from controller.config.scans import Scan
from controller.config.steps import Parallel, Repeat, Step
from controller.config.translate import from_pydantic
from controller.config.unfilled import besides, unfilled


class ExperimentInfo(Table):
    """``[experiment]``."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]
    title: Annotated[str, Field(max_length=200)] = ""
    notes: Annotated[str, Field(max_length=4000)] = ""


class Scenario(Table):
    """``[bench]``: what a virtual bench is to simulate; real hardware ignores it."""

    scenario: Annotated[str, Field(min_length=1, max_length=200)]


@dataclass(frozen=True)
class Placed:
    """A step with its place in the file."""

    path: KeyPath  # ("step", 3, "step", 0)
    step: Step
    parents: tuple[Repeat | Parallel, ...] = ()

    @property
    def key(self) -> str:
        """The place as messages write it: ``step[3].step[0]``."""
        return key_of(self.path)

    @property
    def repeats(self) -> int:
        """How often the step runs because of ``repeat`` around it."""
        times = 1
        for parent in self.parents:
            times *= parent.times if isinstance(parent, Repeat) else 1
        return times

    @property
    def companions(self) -> tuple[Step, ...]:
        """The other steps of the nearest ``parallel``."""
        around = next((parent for parent in reversed(self.parents) if isinstance(parent, Parallel)), None)
        return tuple(step for step in around.steps if step is not self.step) if around is not None else ()


def walk(
    steps: tuple[Step, ...], path: KeyPath = (), parents: tuple[Repeat | Parallel, ...] = ()
) -> Iterator[Placed]:
    """Yield every step in order, containers before what they hold."""
    for index, step in enumerate(steps):
        here = (*path, "step", index)
        yield Placed(here, step, parents)
        if isinstance(step, Repeat | Parallel):
            yield from walk(step.steps, here, (*parents, step))


class Experiment(Table):
    """A whole experiment file."""

    experiment: ExperimentInfo
    bench: Scenario | None = None
    sample: Sample
    analysis: Analysis | None = None  # required with a scan
    radiography: Radiography | None = None  # required with images of a camera
    resume: Resume = Resume()
    steps: Annotated[tuple[Step, ...], Field(alias="step", min_length=1, strict=False)]

    _source: Source | None = PrivateAttr(default=None)
    _calibration: Calibration | None = PrivateAttr(default=None)

    @property
    def name(self) -> str:
        """Name of the experiment, fit for a folder."""
        return self.experiment.name

    @property
    def source(self) -> Source:
        """The file it was read from."""
        return self._source or Source("experiment.toml", {})

    @property
    def calibration(self) -> Calibration | None:
        """The calibration table, None when no layer hosts lithium."""
        return self._calibration

    def walk(self) -> Iterator[Placed]:
        """Yield every step in order with its place."""
        return walk(self.steps)

    def purpose(self, placed: Placed) -> str:
        """Say what a scan is for: as the file says, else by its place among the other steps."""
        step = placed.step
        if not isinstance(step, Scan):
            return step.do
        if step.mosaic is not None:
            return "overview"
        if step.purpose is not None:
            return step.purpose
        reference = self.analysis.reference if self.analysis is not None else None
        if reference is not None and step.name == reference:
            return "reference"
        together = {companion.do for companion in placed.companions}
        for kind, purpose in (("charge", "charging"), ("pulse", "charging"), ("discharge", "discharging")):
            if kind in together:
                return purpose
        order = [other.path for other in self.walk() if getattr(other.step, "name", "") == reference]
        return "overview" if order and placed.path < order[0] else "after"


@dataclass(frozen=True)
class Partial:
    """What could be read of a faulty experiment: enough to look for more problems, never to be run."""

    source: Source
    sample: Sample | None
    analysis: Analysis | None
    steps: tuple[Step, ...]


def load_experiment(path: Path | str) -> Experiment:
    """Read and validate an experiment file. Raises ConfigErrors with every problem found."""
    return experiment_from(files.read(path))


def experiment_from(source: Source) -> Experiment:
    """Validate an experiment that has been read. Raises ConfigErrors with every problem found."""
    problems = experiment_rules.check(source)
    calibration, table_problems = _calibration(source)
    problems += table_problems
    context = _context(source.data)
    experiment = None
    try:
        experiment = Experiment.model_validate(source.data, context=context)
    except ValidationError as error:
        faults = from_pydantic(error, source, Experiment)
        problems += faults
        partial = _partial(source, context, [fault.path for fault in faults])
    problems = besides(problems, unfilled(source, Experiment))
    if experiment is None:
        raise ConfigErrors(in_file_order(problems), partial)
    if problems:
        whole = Partial(source, experiment.sample, experiment.analysis, experiment.steps)
        raise ConfigErrors(in_file_order(problems), whole)
    experiment._source = source
    experiment._calibration = calibration
    return experiment


def _context(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return what steps must know of the sample while they are read: its capacity, and that of C-rates."""
    sample = raw.get("sample")
    found: dict[str, Any] = {}
    for key in ("capacity", "theoretical_capacity"):
        try:
            value = parse(sample.get(key), "C") if isinstance(sample, Mapping) else 0.0
        except QuantityError:
            value = 0.0
        found[f"{key}_coulomb"] = value if value > 0.0 else None
    given = isinstance(sample, Mapping) and "theoretical_capacity" in sample
    found["c_rate_coulomb"] = found["theoretical_capacity_coulomb" if given else "capacity_coulomb"]
    return found


def _calibration(source: Source) -> tuple[Calibration | None, list[Problem]]:
    """Find the calibration table and compare it with the host layers; return problems instead of raising."""
    analysis = source.data.get("analysis")
    name = analysis.get("calibration") if isinstance(analysis, Mapping) else None
    if not isinstance(name, str):
        return None, []
    try:
        table = find_calibration(name, source)
    except ConfigErrors as error:
        return None, error.problems
    return table, experiment_rules.check_calibration(source, name, table)


def _partial(source: Source, context: dict[str, Any], faulty: list[KeyPath]) -> Partial:
    """Read what can be read: faulty steps become rests, faulty tables are left out."""

    def table(model: type[Any], key: str) -> Any:
        try:
            return model.model_validate(source.data.get(key), context=context)
        except ValidationError:
            return None

    raw = experiment_rules.with_rests(source.data.get("step"), faulty)
    try:
        steps = TypeAdapter(tuple[Step, ...]).validate_python(raw, context=context, strict=False)
    except ValidationError:
        steps = ()
    return Partial(source, table(Sample, "sample"), table(Analysis, "analysis"), steps)
