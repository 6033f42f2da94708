"""``operando check``: validate the files, identify and read every instrument, energise nothing, estimate.

What it prints is what a scientist needs before leaving: who answered, what each instrument cannot protect by
itself, what a person confirmed, how long it will take, and what change can be seen at all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from controller import scheduling
from controller.abilities import lacking
from controller.advice import advise
from controller.clock import BenchError, bench_clock
from controller.config import ConfigErrors
from controller.devices import build, introduce
from controller.estimate import estimate
from controller.files_given import EXIT_FILES, load_files, refused
from controller.look_around import look_around
from controller.monitors import shown, values_of
from controller.progress import Steps
from controller.stamps import confirmed_by_person
from controller.tracing import traced
from drivers.clock import RealClock
from drivers.errors import DriverError, NoReply
from drivers.registry import driver_origin

if TYPE_CHECKING:
    from controller.config import Experiment, Station
    from controller.devices import Bench
    from drivers.clock import Clock
    from drivers.wire_trace import WireTrace

EXIT_DONE, EXIT_INSTRUMENT = 0, 3
DEVICE_TIMEOUT_S = 15.0


def main(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    try:
        station, experiment = load_files(args.station, args.experiment)
    except ConfigErrors as error:
        return _refuse(error, as_json=args.json)
    found: dict[str, Any] = {
        "station": station.name,
        "devices": [],
        "confirmed": confirmed_by_person(station),
        "machine": _machine(station),
    }
    if not args.files_only:
        try:
            with traced(args.trace_wire, station, args.station) as trace:
                found["devices"] = asyncio.run(_look(station, trace, experiment, around=args.look_around))
        except BenchError as error:
            print(error, file=sys.stderr)
            return EXIT_INSTRUMENT
        except OSError as error:
            print(f"--trace-wire {args.trace_wire}: {error.strerror or error}", file=sys.stderr)
            return EXIT_FILES
    if experiment is not None:
        found["estimate"] = estimate(station, experiment, _speed(station))
    if args.json:
        print(json.dumps({**found, "estimate": _plain(found.get("estimate"))}, default=str))
    else:
        _print(found)
        for device in found["devices"]:
            if not device["ok"]:  # whole, on one line: the column of a table folds it
                print(device["error"], file=sys.stderr)
    return EXIT_DONE if all(device["ok"] for device in found["devices"]) else EXIT_INSTRUMENT


def _speed(station: Station) -> float:
    return station.bench.speed if station.bench is not None else 1.0


def _refuse(error: ConfigErrors, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"problems": [asdict(problem) for problem in error.problems]}))
        return EXIT_FILES
    code, number = refused(error), len(error.problems)
    print(f"{number} problem{'s' if number > 1 else ''}; nothing was started", file=sys.stderr)
    return code


async def _look(
    station: Station,
    trace: WireTrace | None = None,
    experiment: Experiment | None = None,
    *,
    around: bool = False,
) -> list[dict[str, Any]]:
    """Identify, make safe and read every device; one that fails does not hide the others."""
    clock: Clock = RealClock()
    if station.bench is not None:
        clock = await bench_clock(station.bench.model_dump())
    bench = build(station, clock, trace=trace.of if trace is not None else None)
    try:
        rows = []
        with Steps("reading", len(bench.devices)) as shown:
            for name in bench.devices:
                shown.begin(name)
                rows.append(await _device(bench, station, name, experiment))
        _advise(rows, station, bench)
    finally:
        await bench.close()
    if around:
        await _look_around(rows, station, clock)
    return rows


async def _device(
    bench: Bench, station: Station, name: str, experiment: Experiment | None = None
) -> dict[str, Any]:
    device, lines = bench.devices[name], [bench.lines[line] for line in station.lines_of(name)]
    row: dict[str, Any] = {
        "name": name,
        "driver": station.devices[name].driver,
        "where": ", ".join(line.where for line in lines),
        "ok": False,
    }
    began = time.monotonic()
    try:
        async with asyncio.timeout(DEVICE_TIMEOUT_S):
            for line in lines:
                await line.open()
            identity, notes = await introduce(device)
            row["notes"] = [*notes, *(note for line in lines for note in line.notes)]
            row["identity"] = asdict(identity)
            row["driver_from"] = driver_origin(station.devices[name].driver)
            lack = await lacking(device, station, experiment)
            row["notes"] += lack.missing
            row["reading"] = await _reading(bench, station, name)
            row["ok"] = not lack.unmet
            if lack.unmet:
                row["error"] = f"{name}: " + "; ".join(lack.unmet)
    except TimeoutError:
        row["failure"] = NoReply("no complete answer", device=name)
        row["error"] = f"{name}: no complete answer within {DEVICE_TIMEOUT_S:g} s"
    except DriverError as error:  # a line that cannot be opened knows no device
        row["error"] = str(error) if error.device else f"{name}: {error}"
        row["failure"] = error
    stats = [line.stats for line in lines]
    timed = sum(sum(one.latencies.counts) for one in stats)
    row["requests"] = sum(one.requests for one in stats)
    row["errors"] = sum(one.errors for one in stats)
    row["latency_ms"] = 1e3 * sum(one.latency_sum_s for one in stats) / timed if timed else None
    row["lines"] = {line.name: line.stats.as_dict() for line in lines}
    row["seconds"] = time.monotonic() - began
    return row


def _advise(rows: list[dict[str, Any]], station: Station, bench: Bench) -> None:
    """Say of each device that failed what to look at."""
    good = {line for row in rows if row["ok"] for line in station.lines_of(row["name"])}
    for row in rows:
        failure = row.pop("failure", None)
        if failure is not None:
            line, device = station.lines_of(row["name"])[0], station.devices[row["name"]]
            row["advice"] = advise(
                failure, station.line_settings(line), bench.lines[line].stats, device.settings(),
                neighbours_answer=line in good,
            )  # fmt: skip


async def _look_around(rows: list[dict[str, Any]], station: Station, clock: Clock) -> None:
    """Try other units and speeds for Modbus devices that did not answer."""
    for row in rows:
        device = station.devices[row["name"]]
        if not row["ok"] and getattr(device, "modbus", False) and "identity" not in row:
            table = station.line_settings(station.lines_of(row["name"])[0])
            found = await look_around(row["name"], device.driver, table, device.settings(), clock)
            row["advice"] = [*row.get("advice", []), found]


async def _reading(bench: Bench, station: Station, name: str) -> str:
    device = bench.devices[name]
    if device is bench.heater:
        heater = await bench.heater.read()
        temperature = "invalid" if heater.temperature_k is None else f"{heater.temperature_k:.1f} K"
        return f"{temperature}, output {heater.output_fraction:.0%}"
    if device is bench.io:
        io = await bench.io.read()
        beam = "unknown" if io.beam_current_a is None else f"{io.beam_current_a * 1e12:.1f} pA"
        blanked = "blanked" if io.blanked else "NOT BLANKED"
        return f"beam {beam}, {blanked}, permit {'yes' if io.permit else 'NO'}"
    for camera in bench.frames.values():
        if device is camera:
            seen = await camera.status()
            return "; ".join(text for text in (seen.reading, *seen.problems) if text) or "ready"
    for detector in bench.detectors.values():
        if device is detector:
            status = await detector.status()
            return f"{status.slow_counts} counts in {status.real_s:.1f} s" + (
                f", {status.temperature_k:.0f} K" if status.temperature_k is not None else ""
            )
    if device is bench.cell:
        return f"{await bench.cell.read_ocv():.4f} V at open circuit"
    if name in station.monitors:
        channels = station.monitors[name]
        values, problems = await values_of(device, channels)
        return "; ".join([shown(values, channels), *problems])
    return "no reading for this role"


def _machine(station: Station) -> list[str]:
    """Return what is missing on this machine for control to be on time; more is in ``operando doctor``."""
    kind = scheduling.may(*scheduling.rights())
    if station.bench is not None or kind == "round robin":
        return []
    gets = "nice -5" if kind == "nice" else "no better scheduling class than any other program"
    return [f"control gets {gets}, and may be late when others are busy; operando doctor says what to do"]


def _plain(found: Any) -> Any:
    return found.as_dict() if found is not None else None


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if found["devices"]:
        table = Table(title=f"station {found['station']}", title_justify="left", header_style="bold")
        for column in ("device", "who answered", "on", "reads", "ms (half, 99 %)", "errors"):
            table.add_column(column, overflow="fold")
        for row in found["devices"]:
            table.add_row(*_row(row))
        console.print(table)
        for row in found["devices"]:
            for text in row.get("advice", []):
                console.print(f"  [red]what to do[/] {row['name']}: {escape(text)}", highlight=False)
            for note in row.get("notes", []):
                text = note.removeprefix(f"{row['name']}: ")
                console.print(f"  [yellow]note[/] {row['name']}: {text}", highlight=False)
    for entry in found["confirmed"]:
        console.print(
            f"  [yellow]confirmed by a person[/] {entry['device']}: {entry['what']} = {entry['setting']}, "
            f"by {entry['by']} on {entry['on']}",
            highlight=False,
        )
    for text in found["machine"]:
        console.print(f"  [yellow]note[/] this machine: {text}", highlight=False)
    if found.get("estimate") is not None:
        for line in found["estimate"].lines():
            console.print(line, highlight=False)


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    identity = row.get("identity") or {}
    who = " ".join(str(v) for v in (identity.get("manufacturer"), identity.get("model")) if v)
    if identity.get("serial"):
        who += f", serial {identity['serial']}"
    if identity.get("firmware"):
        who += f", firmware {identity['firmware']}"
    lines = row["lines"].values()
    worst = [one for one in lines if one["p99_ms"] is not None]
    latency = " ".join(f"{one['p50_ms']:.3g}/{one['p99_ms']:.3g}" for one in worst) or "-"
    reads = row.get("reading") or f"[red]{row.get('error', '')}[/]"
    errors = f"{row['errors']} of {row['requests']}"
    return row["name"], who or "[red]nobody[/]", row["where"], reads, latency, errors
