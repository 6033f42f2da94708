"""``hil_tests/FAULTS.md`` from the rows and the newest results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hil_tests.fault_results import digest
from hil_tests.fault_rows import CLAIMED_SPEED, CONDITIONS, Row, load

PAGE = Path(__file__).parent / "FAULTS.md"
HEAD = """# The fault catalogue, as measured

Made by `python -m hil_tests.fault_results table` from `hil_tests/faults/`; do not edit. Every row was played
against the whole system on the virtual bench, {speeds}. A time is wall seconds from the strike until the
*bench* saw the state of the row (what is truly off, not what the host believes); behind it what is allowed,
without the 1.5 s for a busy machine.

| condition | who is left to act |
|---|---|
| guard | everybody |
| control blocked | control stands still for 10 s from the strike on: supervisor and watchdog of the I/O box |
| control stopped | control stands still for good: the same |
| host killed | every process of the host is dead: the watchdog of the I/O box alone, for heater and beam |

{sums}
"""
TITLES = {
    "temperature": "Heater and thermometer", "cell": "Cell and potentiostat",
    "host_pid": "RTD module and supply, the loop in the host",
    "modbus_pid": "A controller that the station file describes",
    "keithley": "Cell on a Keithley 2400 or 2450",
    "beam": "Beam, scanner, shutter, vacuum, permit", "lines": "Lines and ports", "detectors": "Detectors",
    "broker": "Broker", "processes": "Processes", "machine": "Machine",
}  # fmt: skip


def page(rows: Sequence[Row], results: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """Return the page; a result of a row that said something else does not count."""
    now = {row.name: digest(row) for row in rows}
    mine = {key: result for key, result in results.items() if result["row"] == now.get(key[0])}
    parts = [HEAD.format(speeds=_speeds(mine), sums=_sums(rows, mine))]
    for group in dict.fromkeys(row.group for row in rows):
        of_group = [row for row in rows if row.group == group]
        parts.append(f"## {TITLES.get(group, group)}\n")
        parts.append(_table(of_group, mine))
    parts.append("## Not met\n")
    parts.append(_not_met(rows, mine))
    return "\n".join(parts)


def write(results: Mapping[tuple[str, str], Mapping[str, Any]], path: Path = PAGE) -> Path:
    """Write the page; return where it is."""
    path.write_text(page(load(), results), encoding="utf-8")
    return path


def _speeds(results: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    speeds = sorted({result["speed"] for result in results.values()}) or [CLAIMED_SPEED]
    return f"at {' or '.join(f'{speed:g}' for speed in speeds)} lab seconds a second"


def _sums(rows: Sequence[Row], results: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """Say how much was played, on what, when and of which state of the tree."""
    asked = [(row.name, condition) for row in rows for condition in row.conditions]
    played = [results[key] for key in asked if key in results]
    if not played:
        return f"{len(rows)} rows; none has been played."
    met = sum(result["met"] for result in played)
    dates = sorted(result["date"] for result in played)
    trees = ", ".join(sorted({result["tree"] for result in played}))
    loads = [result["load"] for result in played]
    machines = "; ".join(sorted({result["machine"] for result in played}))
    return (
        f"{len(rows)} rows, {len(asked)} plays asked for; {len(played)} played, {met} met, "
        f"{len(played) - met} not met.\n{dates[0]} to {dates[-1]}, {machines}, "
        f"load average {min(loads):g} to {max(loads):g}; state of the tree {trees}."
    )


def _table(rows: Sequence[Row], results: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    lines = [
        f"| fault | strikes | must reach | {' | '.join(CONDITIONS)} | trip, exit code |",
        f"|---|---|---|{'---|' * len(CONDITIONS)}---|",
    ]
    for row in rows:
        cells = [_cell(row, condition, results.get((row.name, condition))) for condition in CONDITIONS]
        guard = results.get((row.name, "guard"), {})
        trips = ", ".join(guard.get("trips") or ())
        ended = "; ".join(part for part in (trips, str(guard.get("exit", ""))) if part)
        lines.append(f"| {row.name} | {row.when} | {row.reach} | {' | '.join(cells)} | {ended} |")
    return "\n".join(lines) + "\n"


def _cell(row: Row, condition: str, result: Mapping[str, Any] | None) -> str:
    if condition not in row.conditions:
        return ""
    if result is None:
        return "not played"
    if not result["met"]:
        return "**not met**"
    return f"{result['reached_wall_s']:.2f} of {result['allowed_wall_s']:g} s"


def _not_met(rows: Sequence[Row], results: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    lines = []
    for row in rows:
        failed = [
            condition for condition in row.conditions
            if (row.name, condition) in results and not results[row.name, condition]["met"]
        ]  # fmt: skip
        if not failed and not row.open:
            continue
        why = row.open or results[row.name, failed[0]]["error"].splitlines()[0]
        lines.append(f"- {row.name} ({', '.join(failed) or 'open'}): {why}")
    return "\n".join(lines or ["Nothing."]) + "\n"
