"""The live view in the terminal: one compact panel that degrades to plain timed lines in a log file.

Draws only what the host says; a value that is not known is shown as a dash, never as the last one.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.live import Live

from controller.panel import clock, lines, panel, value

Status = dict[str, Any]
PLAIN_PERIOD_S = 10.0
SILENT_S = 3.0  # without a word (there are four a second) what was shown is no longer true


def follow(events: Iterable[Status | None], console: Console) -> Status:
    """Show the host's events until they end; return the last complete status."""
    with contextlib.suppress(AttributeError, ValueError, OSError):  # a terminal that has no ± shows a ?
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    draws = console.is_terminal and not console.is_dumb_terminal
    return _live(events, console) if draws else _plain(events, console)


def _live(events: Iterable[Status | None], console: Console) -> Status:
    last: Status = {}
    heard = time.monotonic()
    # The console measures its terminal anew at each drawing: a window that is resized is only drawn again.
    with Live(console=console, refresh_per_second=4, transient=True, vertical_overflow="crop") as live:
        for event in events:
            if event is None:
                if last and time.monotonic() - heard > SILENT_S:
                    live.update(panel(unanswered(last, time.monotonic() - heard), console.width))
                continue
            heard = time.monotonic()
            if event.get("event") == "status":
                last = event
                live.update(panel(last, console.width))
            elif event.get("event") == "line":
                live.console.print(_line(event), markup=False, highlight=False)
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
                _print(console, one_line(unanswered(last, silent_s)))
            continue
        heard = time.monotonic()
        if event.get("event") == "line":
            _print(console, _line(event))
        elif event.get("event") == "status":
            last = event
            if time.monotonic() - said >= PLAIN_PERIOD_S:
                said = time.monotonic()
                _print(console, one_line(last))
    return last


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


MEASURED = (
    "temperature_k", "voltage_v", "current_a", "cell_state", "charge_coulomb", "beam_a",
    "blanked", "scan", "left_s", "estimate_s",
)  # fmt: skip


def unanswered(last: Status, seconds: float) -> Status:
    """Return what is known while control does not answer: nothing of what it said last, and for how long."""
    text = f"the host has not answered for {seconds:.0f} s: nothing shown here is known (operando status)"
    gone: Status = {**dict.fromkeys(MEASURED), "quantities": {}, "goals": [], "soc": {}, "lines": {}}
    gone |= {"appeared": {}, "running": [], "questions": [], "gaps": 0, "silent_s": seconds}
    kept = {key: value for key, value in last.items() if key != "target_k"}
    return {**kept, **gone, "alarms": [text, *last.get("alarms", [])], "latched": []}


def one_line(status: Status) -> str:
    """Return the state of a run in one plain line."""
    step = status.get("step") or {}
    left = f" left {clock(status['left_s'])}" if status.get("left_s") is not None else ""
    parts = [
        f"[{clock(status.get('elapsed_s'))}]",
        f"step {step.get('number', '-')}/{step.get('of', '-')} {step.get('title', '')}{left}",
        f"T {value(status.get('temperature_k'), 'K', 1)}",
        f"E {value(status.get('voltage_v'), 'V', 3)}",
        f"I {value(status.get('current_a'), 'uA', 2, 1e6)}",
        f"Q {value(status.get('charge_coulomb'), 'uAh', 3, 1 / 3.6e-3)}",
    ]
    scan = status.get("scan")
    if scan:
        line = f" line {scan['line']}/{scan['lines']}" if scan["lines"] > 1 else ""
        parts.append(f"{scan['name']} pass {scan['n']}{line}")
    parts += ["PAUSED"] if status.get("paused") and not status.get("questions") else []
    parts += lines(status, errors_only=True)
    for asked in status.get("questions") or []:
        choices = "|".join(map(str, asked.get("choices") or ()))
        how = f"operando answer {asked.get('id')} {choices}"
        parts.append(f"QUESTION {asked.get('id')} {asked.get('text')} ({how})")
    parts += [f"ALARM {alarm}" for alarm in status.get("alarms") or []]
    return "  ".join(parts)


def _line(event: Status) -> str:
    return f"[{clock(event.get('elapsed_s'))}] {event.get('text', '')}"
