"""The live panel of a run, and of one status, drawn with rich. Fits 80 x 24, uses what is wider.

Draws only what the host says: what is not known is a dash, never the last value. Colour alone tells nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

Status = Mapping[str, Any]
WIDE = 100  # columns from which on everything is shown
NARROW = 60  # columns below which labels and bars go
MOST = {"steps": 3, "quantities": 4, "goals": 3, "alarms": 3, "questions": 2}  # lines, in 80 columns
STATES = {"ocv": "open circuit", "cc": "constant current", "cv": "constant voltage", "eis": "impedance"}
UNITS = {"1": ""}


def panel(status: Status, width: int = 80) -> Panel:
    """Return the panel of a run.

    Args:
        status: what the desk says, or ``display.unanswered`` of it.
        width: columns of the terminal.
    """
    rows: list[RenderableType] = []
    if "silent_s" in status:
        rows.append(Text(f"last heard at {clock(status.get('elapsed_s'))}, {_where(status)}", style="dim"))
    else:
        rows.append(_progress(status, width))
    rows.append(_readings(status, width))
    rows += [part for part in (_science(status, width), _scan(status), _health(status, width)) if part]
    rows += _calls(status)
    alarms, questions = status.get("alarms") or [], status.get("questions") or []
    colour = "red" if alarms else "yellow" if status.get("paused") or questions else "green"
    state = "asks" if questions else "paused" if status.get("paused") else status.get("state", "")
    state = "ALARM" if alarms else state
    state = "NO ANSWER" if "silent_s" in status else state
    speed = f"  at {status['speed']:.0f}x" if status.get("speed", 1.0) > 1.0 else ""
    ways = "operando pause | stop | abort | safe" if width >= NARROW else ""
    return Panel(
        Group(*rows), title=f"[bold]{escape(str(status.get('run', 'operando')))}[/]  {state}{speed}",
        border_style=colour, width=min(width, 120), title_align="left",
        subtitle=f"[dim]{ways}[/]" if ways else None,
        subtitle_align="right",
    )  # fmt: skip


def _where(status: Status) -> str:
    step = status.get("step") or {}
    return f"in step {step['number']} of {step['of']}: {step.get('title', '')}" if step else "between steps"


def _progress(status: Status, width: int) -> Table:
    """Return the bars: of the whole run, and of each step that runs."""
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True, width=4 if width >= NARROW else 0)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    if width >= NARROW:
        table.add_column(width=max(10, width // 6))
    table.add_column(justify="right", no_wrap=True)
    elapsed_s, left = status.get("elapsed_s"), status.get("left_s")
    if left is None and status.get("estimate_s") and elapsed_s is not None:
        left = max(0.0, status["estimate_s"] - elapsed_s)
    whole = None if left is None or elapsed_s is None else elapsed_s + left
    step = status.get("step") or {}
    of = f", step {step['number']} of {step['of']}" if step else ""
    _bar(table, width, "run", f"{clock(elapsed_s)} lab time{of}", elapsed_s, whole, left)
    running = status.get("running") or []
    if not running and step:
        _bar(table, width, "step", step.get("title", ""), None, None, None)
    for one in running[: MOST["steps"]]:
        spent = None if elapsed_s is None else one.get("spent_s")
        total = one.get("estimate_s")
        rest = None if spent is None or not total else max(0.0, total - spent)
        _bar(table, width, "step", one.get("title", ""), spent, total, rest)
    return table


def _bar(
    table: Table, width: int, label: str, text: str, done: float | None, total: float | None,
    left_s: float | None,
) -> None:  # fmt: skip
    known = done is not None and bool(total)
    bar: RenderableType = ""
    if known:
        bar = _of(float(done or 0.0), float(total or 1.0))
    share = f"{100.0 * min(1.0, float(done or 0.0) / float(total or 1.0)):3.0f} %  " if known else ""
    rest = f"{share}{clock(left_s)} left" if left_s is not None else ""
    style = "bold" if label == "step" else ""
    cells: list[RenderableType] = [Text(label, style="dim"), Text(text, style=style)]
    table.add_row(*cells, *([bar] if width >= NARROW else []), Text(rest))


def _of(done: float, total: float, width: int | None = None) -> ProgressBar:
    """Return a bar; a step that takes longer than estimated is a full one."""
    return ProgressBar(
        total=total, completed=min(done, total), width=width, complete_style="cyan", finished_style="green"
    )


def _readings(status: Status, width: int) -> Table:
    """Return what is measured: temperature, cell, beam."""
    target = status.get("target_k")
    state = str(status.get("cell_state") or "")
    temperature = value(status.get("temperature_k"), "K", 1)
    cells = [
        (
            "T",
            temperature,
            f"target {target:.1f} K" if target else "heater off" if "target_k" in status else "",
        ),
        ("E", value(status.get("voltage_v"), "V", 3), STATES.get(state, state)),
        ("I", value(status.get("current_a"), "uA", 2, 1e6), ""),
        ("Q", value(status.get("charge_coulomb"), "uAh", 3, 1 / 3.6e-3), ""),
        ("beam", value(status.get("beam_a"), "pA", 1, 1e12), _beam(status)),
    ]
    across = 5 if width >= WIDE + 10 else 3 if width >= NARROW else 1
    table = Table.grid(padding=(0, 3))
    drawn = [
        Text.assemble((f"{name} ", "dim"), (reading, "bold"), (f"  {more}" if more else "", ""))
        for name, reading, more in cells
    ]
    for start in range(0, len(drawn), across):
        table.add_row(*drawn[start : start + across])
    return table


def _beam(status: Status) -> str:
    blanked = status.get("blanked")
    return "" if blanked is None else "blanked" if blanked else "on the sample"


def _science(status: Status, width: int) -> RenderableType | None:
    """Return what the beam has found: state of charge twice, lithium, counts against their goals."""
    rows: list[RenderableType] = []
    soc = status.get("soc") or {}
    if any(soc.get(name) for name in ("beam", "charge")):
        parts = [f"{name} {_pm(*soc[name])}" for name in ("beam", "charge") if soc.get(name)]
        z = soc.get("z")
        apart = "" if z is None else f"   {abs(z):.1f} sigma apart" + (" (!)" if abs(z) > 3 else "")
        rows.append(Text.assemble(("SoC ", "dim"), ("   ".join(parts), "bold"), apart))
    for layer, one in (status.get("appeared") or {}).items():
        rows.append(Text.assemble((f"{layer} ", "dim"), (str(one["text"]), "bold yellow")))
    found = {name: one for name, one in (status.get("quantities") or {}).items() if "soc" not in name}
    if found:
        rows.append(quantities(found, width))
    goals = list(status.get("goals") or [])[: MOST["goals"]]
    if goals:
        table = Table.grid(padding=(0, 1))
        for goal in goals:
            table.add_row(*_goal(goal))
        rows.append(table)
    return Group(*rows) if rows else None


def quantities(found: Mapping[str, Mapping[str, Any]], width: int) -> Table:
    """Return what was found in each layer, with total errors; in two columns where there is room."""
    across = 2 if width >= WIDE else 1
    table = Table.grid(padding=(0, 3))
    cells = []
    for name, one in list(found.items())[: MOST["quantities"] * across]:
        cells += [Text(name.replace(".", " "), style="dim"), Text(measured(one), style="bold")]
    for start in range(0, len(cells), 2 * across):
        table.add_row(*cells[start : start + 2 * across])
    return table


def measured(quantity: Mapping[str, Any]) -> str:
    """Return a quantity with its total error and unit."""
    sigma = (quantity["sigma_stat"] ** 2 + quantity["sigma_sys"] ** 2) ** 0.5
    unit = UNITS.get(str(quantity.get("unit", "")), str(quantity.get("unit", "")))
    return f"{_pm(quantity['value'], sigma)} {unit}".rstrip()


def _goal(goal: Mapping[str, Any]) -> Sequence[RenderableType]:
    of = " ".join(str(goal[key]) for key in ("of", "layer") if goal.get(key))
    fraction = goal.get("fraction")
    bar = _of(fraction or 0.0, 1.0, width=16)
    digits = 3 if goal.get("kind") == "uncertainty" else 0
    now = "-" if goal.get("now") is None else f"{goal['now']:.{digits}f}"
    small = float(goal["goal"]) < 10 and digits
    text = f"{now} of {goal['goal']:.{digits if small else 0}f}"
    if float(goal["goal"]) >= 1e6:
        text = f"{'-' if goal.get('now') is None else format(goal['now'], '.2e')} of {goal['goal']:.2e}"
    return Text(f"{goal.get('kind', '')} {of}".strip(), style="dim"), bar, Text(text)


def _scan(status: Status) -> RenderableType | None:
    scan = status.get("scan")
    if not scan:
        return None
    line = f"   line {scan['line']}/{scan['lines']}" if scan["lines"] > 1 else ""
    bad = f"   {scan['quarantined']} quarantined" if scan.get("quarantined") else ""
    return Text.assemble(("scan ", "dim"), f"{scan['name']}   pass {scan['n']}{line}{bad}")


def _health(status: Status, width: int) -> RenderableType | None:
    """Return gaps, and the health of the lines: all of them where there is room, else what went wrong."""
    told = lines(status, errors_only=width < WIDE)
    total = len(status.get("lines") or {})
    gaps = int(status.get("gaps") or 0)
    parts = [f"{gaps} gap{'s' * (gaps != 1)} so far"] if gaps else []
    parts += told if told else [f"{total} lines well"] if total else []
    return Text.assemble(("health ", "dim"), "   ".join(parts)) if parts else None


def _calls(status: Status) -> list[RenderableType]:
    """Return what calls for a person: alarms and questions, each with what to do."""
    found: list[RenderableType] = []
    latched = list(status.get("latched") or [])
    alarms = list(status.get("alarms") or [])
    for n, alarm in enumerate(alarms[: MOST["alarms"]]):
        found.append(Text.assemble(("ALARM  ", "bold red"), (str(alarm), "bold")))
        if n < len(latched) and len(latched) == len(alarms):
            found.append(Text(f"       look at it; when its cause is gone: operando clear {latched[n]}"))
    if len(alarms) > MOST["alarms"]:
        found.append(Text(f"       and {len(alarms) - MOST['alarms']} more: operando status --json"))
    for asked in list(status.get("questions") or [])[: MOST["questions"]]:
        found += question(asked)
    return found


def question(asked: Mapping[str, Any]) -> list[RenderableType]:
    """Return a question, its answers, and what happens without one."""
    left = asked.get("left_s")
    late = f"   {clock(left)} left, then: {asked.get('default')}" if left is not None else ""
    choices = " | ".join(map(str, asked.get("choices") or ()))
    return [
        Text.assemble((f"QUESTION {asked.get('id')}  ", "bold yellow"), (str(asked.get("text", "")), "bold")),
        Text(f"       operando answer {asked.get('id')} {choices}{late}"),
    ]


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


def value(number: float | None, unit: str, digits: int, scale: float = 1.0) -> str:
    """Return a reading with its unit, a dash where it is not known."""
    return "-" if number is None else f"{number * scale:.{digits}f} {unit}"


def clock(seconds: float | None) -> str:
    """Return a duration as h:mm:ss."""
    if seconds is None:
        return "-:--:--"
    whole = int(max(seconds, 0.0))
    return f"{whole // 3600:d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _pm(number: float, sigma: float) -> str:
    return f"{number:.3f} ± {sigma:.3f}"
