"""``operando reduce impedance``: sweeps to a verdict, R_s, circuit parameters, a series over charge."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from controller.offline.technique import Array, Axis, Job, Problems, Technique
from controller.offline.values import estimated, finite, pm, table
from drivers.files import impedance_sweeps
from drivers.files.errors import FileError
from drivers.files.impedance_sweeps import RecordedSweep
from edge.impedance import ImpedanceRules, SweepResult, reduce_sweep
from edge.impedance_circuits import parse
from edge.uncertainty import Estimate

DEFAULT_CIRCUIT = "R0-p(R1,CPE1)"
MISFIT = 3.0  # a fit that leaves so many times the Kramers-Kronig residual has the wrong circuit


class ImpedanceReport:
    """The sweeps of one file, or of several as a series."""

    def __init__(
        self,
        name: str,
        sweeps: Sequence[RecordedSweep],
        results: Sequence[SweepResult],
        rules: ImpedanceRules,
    ) -> None:
        self.name, self.sweeps, self.results, self.rules = name, sweeps, results, rules
        self.data: Mapping[str, Any] = {
            "file": name, "circuit": rules.circuit.text if rules.circuit else None, "weights": rules.weights,
            "sweeps": [_sweep(sweep, result) for sweep, result in zip(sweeps, results, strict=True)],
            "rejected": sum(not result.test.passed for result in results),
        }  # fmt: skip
        self.text = _text(self)

    def figures(self, fmt: str) -> Iterator[tuple[str, bytes]]:
        """Yield the pictures."""
        from controller.offline.figures_impedance import draw

        yield from draw(self, fmt)

    def arrays(self) -> Iterator[Array]:
        """Yield measured and fitted impedances and the residuals of the test."""
        for number, result in enumerate(self.results, 1):
            at = (Axis("frequency", result.frequency_hz, "Hz"),)
            used = (Axis("frequency", result.test.frequency_hz, "Hz"),)
            for part, value in (("real", result.z_ohm.real), ("imaginary", result.z_ohm.imag)):
                yield Array(
                    f"sweep_{number:03d}_{part}", value, "ohm", axes=at, title=f"measured, {part} part"
                )
            for part, value in (
                ("real", result.test.residual.real),
                ("imaginary", result.test.residual.imag),
            ):
                title = f"Kramers-Kronig residual / |Z|, {part} part"
                yield Array(f"sweep_{number:03d}_kk_{part}", value, "", axes=used, title=title)
            if result.fit is not None:
                fitted = result.fit.circuit.impedance(result.fit.values, result.frequency_hz)
                for part, value in (("real", fitted.real), ("imaginary", fitted.imag)):
                    title = f"fit of {result.fit.circuit.text}, {part} part"
                    yield Array(f"sweep_{number:03d}_fit_{part}", value, "ohm", axes=at, title=title)


def _sweep(sweep: RecordedSweep, result: SweepResult) -> dict[str, Any]:
    test, fit, crossing = result.test, result.fit, result.crossing
    return {
        "file": sweep.path.name, "number": sweep.number, "time_s": sweep.time_s, "soc": result.label,
        "points": int(result.frequency_hz.size), "points_used": int(np.count_nonzero(result.used)),
        "highest_hz": float(result.frequency_hz.max()), "lowest_hz": float(result.frequency_hz.min()),
        "kramers_kronig": {
            "passed": test.passed, "reason": test.reason, "elements": test.elements, "mu": test.mu,
            "rms": test.rms, "largest": test.largest, "neighbour_correlation": test.correlation,
        },
        "r_s": estimated(crossing.resistance) if crossing and test.passed else None,
        "crossing": estimated(crossing.frequency) if crossing else None,
        "parameters": {name: estimated(e) for name, e in fit.estimates().items()} if fit else None,
        "correlation": fit.correlation().tolist() if fit and np.isfinite(fit.correlation()).all() else None,
        "fit_rms": finite(float(fit.rms)) if fit else None,
        "wrong_circuit": _misfit(result),
        "converged": bool(fit.converged) if fit else None,
        "not_resolved": result.unresolved, "why_not": result.why_not,
    }  # fmt: skip


def _misfit(result: SweepResult) -> bool:
    """Return whether the circuit leaves much more than the data scatter."""
    return result.fit is not None and float(result.fit.rms) > MISFIT * result.test.rms


def _text(report: ImpedanceReport) -> str:
    parts = [
        _one(sweep, result, report.rules) for sweep, result in zip(report.sweeps, report.results, strict=True)
    ]
    if len(report.results) > 1:
        parts.append(_series(report))
    return "\n".join(parts)


def _one(sweep: RecordedSweep, result: SweepResult, rules: ImpedanceRules) -> str:
    test = result.test
    soc = f", state of charge {100 * result.label:g} %" if result.label is not None else ""
    number = f", sweep {sweep.number}" if sweep.number > 1 else ""
    lines = [
        f"{sweep.path.name}{number}{soc}: {result.frequency_hz.size} points, "
        f"{result.frequency_hz.max():.4g} Hz to "
        f"{result.frequency_hz.min():.4g} Hz",
        f"  Kramers-Kronig: {'passed' if test.passed else 'REJECTED'}, {test.reason} ({test.elements} "
        f"relaxations, "
        f"mu {test.mu:.2f})",
    ]
    if not test.passed and rules.circuit is not None and not rules.despite:
        lines.append("  no R_s and no circuit from a rejected sweep (--despite fits it all the same)")
    if test.passed:
        if result.crossing is None:
            lines.append("  R_s: the sweep does not cross the real axis at high frequency")
        else:
            r, at = result.crossing.resistance, result.crossing.frequency
            lines.append(
                f"  R_s at the real axis: {si(r, 'ohm')}, at {si(at, 'Hz')} (statistical ± interpolation)"
            )
    if result.fit is not None:
        fit = result.fit
        rows = [
            [name, si(e, e.unit), result.unresolved.get(name, "")] for name, e in fit.estimates().items()
        ]  # fmt: skip
        lines.append(
            f"  {fit.circuit.text}: {np.count_nonzero(result.used)} points, residual "
            f"{100 * float(fit.rms):.2g} % rms"
        )
        lines.append(_left(["parameter", "value", "not resolved"], rows))
        if _misfit(result):
            lines.append(
                f"  this circuit leaves {float(fit.rms) / test.rms:.0f} times what the Kramers-Kronig "
                f"chain leaves: "
                "it lacks a process, and the errors hold only if what is missing looks like noise"
            )
    return "\n".join(lines)


def _left(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned table whose last column is left as it is, and left out when it is empty."""
    if not any(row[-1] for row in rows):
        heads, rows = heads[:-1], [row[:-1] for row in rows]
        return table(heads, rows)
    text = table(heads[:-1], [row[:-1] for row in rows]).split("\n")
    return "\n".join(
        f"{line}  {last}".rstrip()
        for line, last in zip(text, [heads[-1], *(r[-1] for r in rows)], strict=True)
    )


def _series(report: ImpedanceReport) -> str:
    """Return the parameters of all accepted sweeps side by side."""
    circuit = report.rules.circuit
    names = circuit.names if circuit else ()
    rows = []
    for sweep, result in zip(report.sweeps, report.results, strict=True):
        label = (
            f"{100 * result.label:g} %" if result.label is not None else f"{sweep.path.stem} {sweep.number}"
        )
        if not result.test.passed or result.fit is None:
            rows.append([label, "-" if result.test.passed else "rejected", *["-"] * len(names)])
            continue
        r_s = si(result.crossing.resistance, "ohm") if result.crossing else "-"
        cells = [
            "not resolved" if name in result.unresolved else si(e, e.unit)
            for name, e in result.fit.estimates().items()
        ]  # fmt: skip
        rows.append([label, r_s, *cells])
    labelled = any(result.label is not None for result in report.results)
    heads = ["SoC" if labelled else "sweep", "R_s", *names]
    return "series\n" + table(heads, rows)


def si(e: Estimate, unit: str) -> str:
    """Return a value with its errors in a prefixed unit, such as "15.688 ± 0.013 mohm"."""
    if not math.isfinite(e.value) or e.value == 0 or unit == "":
        return pm(e.value, e.sigma_stat) + (f" {unit}" if unit else "")
    power = 3 * math.floor(math.log10(abs(e.value)) / 3)
    prefix = {-15: "f", -12: "p", -9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G"}.get(power)
    if prefix is None or "/" in unit or "^" in unit:
        power, prefix = 0, ""
    scale = 10.0**power
    errors = [e.sigma_stat / scale] + ([e.sigma_sys / scale] if e.sigma_sys > 0 else [])
    if power == 0 and (abs(e.value) < 0.01 or abs(e.value) >= 1e5):
        return f"{e.value:.4g} ± {e.sigma_stat:.2g} {prefix}{unit}"
    return f"{pm(e.value / scale, *errors)} {prefix}{unit}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this technique."""
    add = parser.add_argument
    add(
        "--circuit", default=DEFAULT_CIRCUIT, metavar="TEXT",
        help=f"R, C, L, CPE, W, Wo, Ws; - in series, p(a,b) in parallel; default {DEFAULT_CIRCUIT!r}; "
        "'none' only tests",
    )  # fmt: skip
    add("--kk-limit", default="1 %", metavar="P", help='largest accepted rms residual (default "1 %%")')
    add("--soc", metavar="LIST", help='states of charge of the sweeps in order, e.g. "0 %%, 50 %%, 100 %%"')
    add(
        "--start", metavar="LIST",
        help='starting values in the order of the parameters, in ohm, F, H, s without units; for the default '
        'circuit "29, 46, 1e-5, 1"; else found from the sweep',
    )  # fmt: skip
    add("--weights", choices=("model", "data"), default="model", help="modulus that weighs a point")
    add(
        "--inductive",
        action="store_true",
        help="also use points with Im Z >= 0 (then the circuit needs an L)",
    )
    add("--despite", action="store_true", help="fit sweeps that failed the Kramers-Kronig test all the same")


def _percent(text: str, option: str) -> float:
    words = text.replace("%", " % ").split()
    try:
        value = float(words[0])
        if words[1:] != ["%"] or not math.isfinite(value):
            raise ValueError  # noqa: TRY301
    except (ValueError, IndexError):
        raise ValueError(f'{option} {text!r} must be a number and %, such as "50 %"') from None
    return value / 100


def _rules(args: argparse.Namespace, wrong: list[str]) -> ImpedanceRules:
    circuit, limit, start = None, 0.01, None
    try:
        circuit = None if args.circuit.lower() == "none" else parse(args.circuit)
    except ValueError as error:
        wrong.append(f"--circuit: {error}")
    try:
        limit = _percent(args.kk_limit, "--kk-limit")
        if not 0 < limit < 1:
            wrong.append(f"--kk-limit {args.kk_limit!r} must lie between 0 % and 100 %")
    except ValueError as error:
        wrong.append(str(error))
    if args.start is not None:
        try:
            start = tuple(float(word) for word in args.start.split(","))
        except ValueError:
            names = f": {', '.join(circuit.names)}" if circuit is not None else ""
            wrong.append(
                f"--start {args.start!r} must be numbers separated by commas, in ohm, F, H, s{names}"
            )
        if circuit is not None and start is not None and len(start) != len(circuit.names):
            wrong.append(f"--start has {len(start)} values for {', '.join(circuit.names)}")
    return ImpedanceRules(circuit, limit, args.inductive, args.weights, start, args.despite)


def _jobs(args: argparse.Namespace) -> list[Job]:
    wrong: list[str] = []
    rules = _rules(args, wrong)
    counts = []
    for path in args.files:
        try:
            counts.append(len(impedance_sweeps.read(path)))
        except FileError as error:
            wrong.append(str(error))
    labels: list[float] | None = None
    if args.soc is not None:
        try:
            labels = [_percent(part, "--soc") for part in args.soc.split(",")]
        except ValueError as error:
            wrong.append(str(error))
        if labels is not None and len(counts) == len(args.files) and len(labels) != sum(counts):
            wrong.append(f"--soc has {len(labels)} values for {sum(counts)} sweeps")
    if wrong:
        raise Problems(wrong)
    starts = [sum(counts[:k]) for k in range(len(counts))]
    own = [
        tuple(labels[a : a + n]) if labels is not None else (None,) * n
        for a, n in zip(starts, counts, strict=True)
    ]
    if len(args.files) == 1 or labels is None:
        return [
            Job(path, (path,), partial(_reduce, path.name, (path,), (one,), rules))
            for path, one in zip(args.files, own, strict=True)
        ]
    name = Path(args.files[0]).with_name("series")
    files = tuple(args.files)
    return [Job(name, files, partial(_reduce, "series", files, tuple(own), rules))]


def _reduce(
    name: str, files: tuple[Path, ...], labels: tuple[tuple[float | None, ...], ...], rules: ImpedanceRules
) -> ImpedanceReport:
    sweeps, results = [], []
    for path, own in zip(files, labels, strict=True):
        for sweep, label in zip(impedance_sweeps.read(path), own, strict=True):
            sweeps.append(sweep)
            results.append(reduce_sweep(sweep.frequency_hz, sweep.z_ohm, rules, label))
    if all(result.label is not None for result in results):
        order = sorted(range(len(results)), key=lambda k: results[k].label or 0.0)
        sweeps, results = [sweeps[k] for k in order], [results[k] for k in order]
    return ImpedanceReport(name, sweeps, results, rules)


def _row(data: Mapping[str, Any]) -> dict[str, Any]:
    one = data["sweeps"][0]
    row: dict[str, Any] = {"sweeps": len(data["sweeps"]), "rejected": data["rejected"], "R_s": one["r_s"]}
    return row | dict(one["parameters"] or {})


TECHNIQUE = Technique(
    name="impedance",
    help="impedance sweeps: Kramers-Kronig test, R_s, R_ct, diffusion, series over state of charge",
    files="Gamry .DTA, ZPlot .z, CSV of frequency, Re Z, Im Z (also impedance.csv of a run)",
    example='operando reduce impedance soc0.csv soc50.csv --circuit "R0-p(R1,CPE1)-W2" --soc "0 %, 50 %"',
    add_arguments=add_arguments,
    jobs=_jobs,
    row=_row,
)
