"""``operando reduce particles``: time traces of single particles to events, ratios, and lithium kept back."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.offline.particles_options import Options, add_arguments, open_trace, read_options
from controller.offline.technique import Array, Axis, Job, Merge, Problems, Technique
from drivers.files.errors import FileError
from drivers.files.time_traces import RecordedTrace, TraceBlock
from edge import particles_pool
from edge.particles_events import ParticleReducer, TraceResult
from edge.particles_lithium import Diverging, diverging, held_back, inactive
from edge.particles_pairs import Pairs, coincidences, event_ratio, null_sigma
from edge.particles_ratios import MIN_PARTICLES, Frame, GaussianFit, Line, fit_gaussian, fit_line
from edge.particles_runs import Events
from edge.uncertainty import Estimate

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ratios:
    """Ratios of one trace.

    Attributes:
        numerator, denominator: numbers of the lines; the denominator decided the events.
        events: whole events of the denominator (none at a gap or an end of the trace).
        values, sigma: per event.
        fit: Gaussian with an even background; None with too few events.
    """

    numerator: int
    denominator: int
    events: Events
    values: Floats
    sigma: Floats
    pairs: Pairs
    fit: GaussianFit | None


@dataclass(frozen=True)
class Calibration:
    """Frames of the calibration cells and the line through them; None with fewer than three cells."""

    frames: tuple[Frame, ...]
    lithiation: tuple[tuple[float, float], ...]
    particles: tuple[int, ...]
    line: Line | None
    frame: Frame


class ParticleReport:
    """A reduced trace."""

    def __init__(
        self, trace: RecordedTrace, options: Options, result: TraceResult | None = None, name: str = ""
    ) -> None:
        """Reduce a trace, or take what is ``result`` of it; ``name`` is for figures, if not the file's."""
        from controller.offline.particles_text import data_of, text_of

        self.trace, self.options, self.name = trace, options, name or trace.path.name
        self.dwell_s = options.dwell_s or trace.dwell_s
        self.result = result or reduce_trace(trace, options)
        self.ratios = ratios_of(self.result, options, self.dwell_s)
        self.calibration = calibrate(options) if options.cells else None
        self.areas = [self._areas(k) for k in range(len(self.result.lines))]
        self.diverging: Diverging | None = None
        self.held_back: Estimate | None = None
        if self.calibration is not None and self.ratios is not None and self.ratios.values.size > 1:
            frame, r = self.calibration.frame, self.ratios
            counting = null_sigma(r.events, r.numerator, r.denominator, frame.mean, self.result.rules.noise)
            self.diverging = diverging(r.values, frame, counting)
            if self.calibration.line is not None:
                self.held_back = held_back(
                    self.ratios.values, self.calibration.frame, self.calibration.line, options.capacity_mah_g
                )
        self.inactive: Estimate | None = None
        if options.active is not None and options.lithiation is not None:
            self.inactive = inactive(options.lithiation, options.active, options.capacity_mah_g)
        self.data: Mapping[str, Any] = data_of(self)
        self.text = text_of(self)

    def _areas(self, line: int) -> GaussianFit | None:
        events = self.result.events[line]
        values = events.area_counts[~events.cut, line]
        return fit_gaussian(values) if values.size >= MIN_PARTICLES and np.ptp(values) > 0 else None

    def _times(self, events: Events) -> Axis:
        when = np.asarray(events.peak * (self.dwell_s or 1.0), np.float64)
        return Axis("peak", when, "s" if self.dwell_s else "samples")

    def figures(self, fmt: str) -> Iterator[tuple[str, bytes]]:
        """Yield the pictures."""
        from controller.offline.figures_particles import draw

        yield from draw(self, fmt)

    def arrays(self) -> Iterator[Array]:
        """Yield the events of every line and the ratios."""
        for k, (name, events) in enumerate(zip(self.result.lines, self.result.events, strict=True)):
            if not len(events):
                continue
            clean = "".join(c if c.isalnum() else "_" for c in name)
            at = self._times(events)
            what = f"events of {name}"
            yield Array(
                f"area_{clean}", events.area_counts[:, k], "counts", events.sigma_counts[:, k], (at,), what
            )
            yield Array(
                f"height_{clean}", events.height_counts, "counts", None, (at,), f"{what}: highest sample"
            )
            yield Array(
                f"points_{clean}", events.points, "", None, (at,), f"{what}: samples above the threshold"
            )
            yield Array(f"cut_{clean}", events.cut.astype(np.uint8), "", None, (at,), f"{what}: cut by a gap")
        if self.ratios is not None and self.ratios.values.size:
            r = self.ratios
            at = self._times(r.events)
            names = f"{self.result.lines[r.numerator]} / {self.result.lines[r.denominator]}"
            yield Array("ratio", r.values, "", r.sigma, (at,), f"ratio {names} per particle")


def reduce_trace(trace: RecordedTrace, options: Options) -> TraceResult:
    """Find the events of every line of a trace. ValueError when it holds too little."""
    chosen, names = columns_of(trace, options)
    reducer = ParticleReducer(names, options.rules(options.dwell_s or trace.dwell_s))
    for block in trace.blocks():
        reducer.add(block.first, block.samples[chosen])
    return reducer.result()


def columns_of(trace: RecordedTrace, options: Options) -> tuple[list[int], tuple[str, ...]]:
    """Return which columns are used and what they are called."""
    if options.lines is None:
        return list(range(len(trace.lines))), trace.lines
    if set(options.lines) <= set(trace.lines):
        return [trace.lines.index(name) for name in options.lines], options.lines
    if len(options.lines) == len(trace.lines):
        return list(range(len(trace.lines))), options.lines
    raise ValueError(f"--lines {', '.join(options.lines)}: the file has {', '.join(trace.lines)}")


def ratios_of(result: TraceResult, options: Options, dwell_s: float | None) -> Ratios | None:
    """Return the ratios of two lines, None with one. ValueError when a named line is not there."""
    if len(result.lines) < 2 and options.ratio is None:
        return None
    names = options.ratio or result.lines[:2]
    if not set(names) <= set(result.lines):
        raise ValueError(f"--ratio {'/'.join(names)}: the lines are {', '.join(result.lines)}")
    a, b = (result.lines.index(name) for name in names)
    whole = result.events[b].where(~result.events[b].cut)
    values, sigma = event_ratio(whole, a, b)
    window = 2
    if options.coincidence_s is not None:
        if dwell_s is None:
            raise ValueError('--coincidence needs the dwell time: give --dwell "0.1 ms"')
        window = round(options.coincidence_s / dwell_s)
    pairs = coincidences(result.events[a], result.events[b], window, result.n_samples)
    good = np.isfinite(values)
    fit = None
    if np.count_nonzero(good) >= MIN_PARTICLES and np.ptp(values[good]) > 0:
        fit = fit_gaussian(values[good])
    return Ratios(a, b, whole.where(good), values[good], sigma[good], pairs, fit)


@cache
def calibrate(options: Options) -> Calibration:
    """Return frames and calibration line of the cells. ValueError when a cell gives no Gaussian."""
    frames, particles = [], []
    for cell in options.cells:
        trace = open_trace(cell.path)
        ratios = ratios_of(reduce_trace(trace, options), options, options.dwell_s or trace.dwell_s)
        if ratios is None or ratios.fit is None or not np.isfinite(ratios.fit.sigma).all():
            raise ValueError(f"calibration cell {cell.name}: too few particles of two lines for a Gaussian")
        noise = options.rules(1.0).noise
        mean = float(ratios.fit.mean)
        counting = null_sigma(ratios.events, ratios.numerator, ratios.denominator, mean, noise)
        frames.append(Frame.of(cell.name, ratios.fit, float(np.nanmedian(counting))))
        particles.append(int(ratios.values.size))
    x = np.array([cell.lithiation for cell in options.cells])
    line = None
    if len(frames) >= 3:
        line = fit_line(
            x,
            [cell.sigma for cell in options.cells],
            [f.mean for f in frames],
            [f.sigma_mean for f in frames],
        )
    wanted = options.frame or options.cells[int(np.argmin(x))].name
    frame = next(f for f in frames if f.name == wanted)
    lithiation = tuple((cell.lithiation, cell.sigma) for cell in options.cells)
    return Calibration(tuple(frames), lithiation, tuple(particles), line, frame)


def _reduce(path: Path, options: Options) -> ParticleReport:
    return ParticleReport(open_trace(path), options)


def _jobs(args: argparse.Namespace) -> list[Job]:
    options = read_options(args)
    wrong = []
    for path in [*args.files, *(cell.path for cell in options.cells)]:
        try:
            open_trace(path)
        except FileError as error:
            wrong.append(str(error))
    if wrong:
        raise Problems(wrong)
    extra = _extra(args, options)
    return [Job(path, (path, *extra), partial(_reduce, path, options)) for path in args.files]


def _extra(args: argparse.Namespace, options: Options) -> tuple[Path, ...]:
    """Return the files of the calibration."""
    return (*([args.cells] if args.cells else []), *(cell.path for cell in options.cells))


def _part(args: argparse.Namespace, file: Path) -> dict[str, Any]:
    """Return the events of one of several measurements of a sample."""
    options, trace = read_options(args), open_trace(file)
    dwell_s = options.dwell_s or trace.dwell_s
    return particles_pool.state(reduce_trace(trace, options)) | {"file": file.name, "dwell_s": dwell_s}


def _pool(args: argparse.Namespace, parts: Sequence[Mapping[str, Any]]) -> ParticleReport:
    """Put the events of several measurements together."""
    options = read_options(args)
    dwell_s = parts[0]["dwell_s"]
    for part in parts[1:]:
        for name, what in (("dwell_s", "times per sample"), ("lines", "lines")):
            if part[name] != parts[0][name]:
                raise ValueError(f"{part['file']} and {parts[0]['file']} have different {what}")
    rules = options.rules(dwell_s)
    results = [particles_pool.restored(part, rules) for part in parts]
    gap = particles_pool.GAP
    if options.coincidence_s is not None and dwell_s:
        gap += round(options.coincidence_s / dwell_s)
    trace = _one_after_another(args.files, options, particles_pool.shifts(results, gap))
    pooled = particles_pool.pooled(results, gap)
    return ParticleReport(trace, options, pooled, f"{len(args.files)} files")


def _one_after_another(files: Sequence[Path], options: Options, shifts: Sequence[int]) -> RecordedTrace:
    """Return several traces as one, for the figure."""
    traces = [open_trace(file) for file in files]
    names = columns_of(traces[0], options)[1]

    def blocks() -> Iterator[TraceBlock]:
        for trace, shift in zip(traces, shifts, strict=True):
            chosen, _ = columns_of(trace, options)
            for block in trace.blocks():
                yield TraceBlock(block.first + shift, block.samples[chosen])

    notes = [note for trace in traces for note in trace.notes]
    said = f"{len(files)} measurements: " + ", ".join(file.name for file in files)
    return RecordedTrace(files[0], names, traces[0].dwell_s, blocks, (*dict.fromkeys(notes), said))


def _row(data: Mapping[str, Any]) -> dict[str, Any]:
    row = {f"{line['name']} events": line["events"] for line in data["lines"]}
    if data["ratio"] is not None:
        row["ratio"] = data["ratio"]["mean"]
    if data["diverging"] is not None:
        row["diverging"] = data["diverging"]["fraction"]
    return row


TECHNIQUE = Technique(
    name="particles",
    help="single-particle ICP: events of one or two lines, ratios, diverging particles, inactive lithium",
    files="time traces: CSV of Agilent, Tofwerk or with a column per line, .npz",
    example="operando reduce particles cell.csv --lines Li,Mn --cells cells.csv --out results",
    add_arguments=add_arguments,
    jobs=_jobs,
    merge=Merge(_part, _pool, lambda args: _extra(args, read_options(args))),
    each=True,
    row=_row,
)
