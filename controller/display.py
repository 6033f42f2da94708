"""The live view in the terminal: one compact panel that degrades to plain lines in a log file.

Draws only what the host says; a value that is not known is shown as a dash, never as the last one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

Status = dict[str, Any]
PLAIN_PERIOD_S = 10.0
SILENT_S = 3.0  # without a word (there are four a second) what was shown is no longer true


def follow(events: Iterable[Status | None], console: Console) -> Status:
    """Show the host's events until they end; return the last complete status."""
    return _live(events, console) if console.is_terminal else _plain(events, console)


def _live(events: Iterable[Status | None], console: Console) -> Status:
    last: Status = {}
    heard = time.monotonic()
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        for event in events:
            if event is None:
                if last and time.monotonic() - heard > SILENT_S:
                    live.update(panel(unanswered(last, time.monotonic() - heard)))
                continue
            heard = time.monotonic()
            if event.get("event") == "status":
                last = event
                live.update(panel(last))
            elif event.get("event") == "line":
                live.console.print(_line(event))
    return last


def _plain(events: Iterable[Status | None], console: Console) -> Status:
    last: Status = {}
    said = 0.0
    heard = time.monotonic()
    for event in events:
        if event is None:
            silent_s = time.monotonic() - heard
            if last and silent_s > SILENT_S and time.monotonic() - said >= PLAIN_PERIOD_S:
                said = time.monotonic()
                console.print(one_line(unanswered(last, silent_s)), highlight=False, soft_wrap=True)
            continue
        heard = time.monotonic()
        if event.get("event") == "line":
            console.print(_line(event), highlight=False)
        elif event.get("event") == "status":
            last = event
            if time.monotonic() - said >= PLAIN_PERIOD_S:
                said = time.monotonic()
                console.print(one_line(last), highlight=False, soft_wrap=True)
    return last


def unanswered(last: Status, seconds: float) -> Status:
    """Return what is known while control does not answer: nothing of what it said last, and for how long."""
    measured = dict.fromkeys(("temperature_k", "voltage_v", "current_a", "beam_a", "blanked", "scan"))
    text = f"the host has not answered for {seconds:.0f} s: nothing shown here is known"
    return {**last, **measured, "quantities": {}, "alarms": [text, *last.get("alarms", [])]}


def one_line(status: Status) -> str:
    """Return the state of a run in one plain line."""
    step = status.get("step") or {}
    parts = [
        f"[{_clock(status.get('elapsed_s'))}]",
        f"step {step.get('number', '-')}/{step.get('of', '-')} {step.get('title', '')}",
        f"T {_value(status.get('temperature_k'), 'K', 1)}",
        f"E {_value(status.get('voltage_v'), 'V', 3)}",
        f"I {_value(status.get('current_a'), 'uA', 2, 1e6)}",
        f"Q {_value(status.get('charge_coulomb'), 'uAh', 3, 1 / 3.6e-3)}",
    ]
    scan = status.get("scan")
    if scan:
        line = f" line {scan['line']}/{scan['lines']}" if scan["lines"] > 1 else ""
        parts.append(f"{scan['name']} pass {scan['n']}{line}")
    parts += lines(status, errors_only=True)
    alarms = status.get("alarms") or []
    parts += [f"ALARM {alarm}" for alarm in alarms]
    return "  ".join(parts)


def panel(status: Status) -> Panel:
    """Return the live panel of a run."""
    step = status.get("step") or {}
    head = Table.grid(expand=True)
    head.add_column()
    head.add_column(justify="right")
    speed = f"  {status['speed']:.0f}x" if status.get("speed", 1.0) > 1.0 else ""
    head.add_row(
        Text.assemble(
            (f"step {step.get('number', '-')} of {step.get('of', '-')}  ", "dim"),
            (step.get("title", ""), "bold"),
        ),
        Text(f"lab time {_clock(status.get('elapsed_s'))}{speed}", style="dim"),
    )
    rows: list[Any] = [head]
    total = status.get("estimate_s") or 0.0
    if total > 0:
        rows.append(ProgressBar(total=total, completed=min(status.get("elapsed_s", 0.0), total)))
    rows.append(_readings(status))
    scan = status.get("scan")
    if scan:
        line = f"scan {scan['name']}   pass {scan['n']}"
        line += f"   line {scan['line']}/{scan['lines']}" if scan["lines"] > 1 else ""
        rows.append(Text(line + (f"   quarantined {scan['quarantined']}" if scan.get("quarantined") else "")))
    if status.get("quantities"):
        rows.append(_quantities(status["quantities"]))
    if status.get("lines"):
        rows.append(Text("   ".join(lines(status)), style="dim"))
    alarms = status.get("alarms") or []
    rows += [Text(f"ALARM  {alarm}", style="bold red") for alarm in alarms]
    colour = "red" if alarms else "yellow" if status.get("paused") else "green"
    state = "paused" if status.get("paused") else status.get("state", "")
    return Panel(
        Group(*rows), title=f"[bold]{status.get('run', 'operando')}[/]  {state}", border_style=colour
    )


def lines(status: Status, *, errors_only: bool = False) -> list[str]:
    """Return the health of each line in few words: half and 99 of 100 replies within, what went wrong."""
    told = []
    for name, health in (status.get("lines") or {}).items():
        wrong = ", ".join(
            f"{health[key]} {word}"
            for key, word in (
                ("timeouts", "timed out"), ("bad_replies", "bad"), ("losses", "lost"),
                ("failed_openings", "not opened"),
            )
            if health[key]
        )  # fmt: skip
        if wrong or not errors_only:
            fast = "" if health["p50_ms"] is None else f" {health['p50_ms']:.3g}/{health['p99_ms']:.3g} ms"
            told.append(f"{name}{fast}" + (f" ({wrong} of {health['requests']})" if wrong else ""))
    return told


def _readings(status: Status) -> Table:
    table = Table.grid(padding=(0, 3))
    for _ in range(5):
        table.add_column()
    target = status.get("target_k")
    table.add_row(
        f"T [bold]{_value(status.get('temperature_k'), 'K', 1)}[/]"
        + (f" -> {target:.0f} K" if target else ""),
        f"E [bold]{_value(status.get('voltage_v'), 'V', 3)}[/]",
        f"I [bold]{_value(status.get('current_a'), 'uA', 2, 1e6)}[/]  {status.get('cell_state', '')}",
        f"Q [bold]{_value(status.get('charge_coulomb'), 'uAh', 3, 1 / 3.6e-3)}[/]",
        f"beam [bold]{_value(status.get('beam_a'), 'pA', 1, 1e12)}[/]"
        + ("  blanked" if status.get("blanked") else ""),
    )
    return table


def _quantities(quantities: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 3))
    for name, q in quantities.items():
        sigma = (q["sigma_stat"] ** 2 + q["sigma_sys"] ** 2) ** 0.5
        table.add_row(name, f"[bold]{q['value']:.3f} ± {sigma:.3f}[/] {q.get('unit', '')}".replace(" 1", ""))
    return table


def _line(event: Status) -> str:
    return f"[{_clock(event.get('elapsed_s'))}] {event.get('text', '')}"


def _value(value: float | None, unit: str, digits: int, scale: float = 1.0) -> str:
    return "-" if value is None else f"{value * scale:.{digits}f} {unit}"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "--:--:--"
    whole = int(max(seconds, 0.0))
    return f"{whole // 3600:d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
