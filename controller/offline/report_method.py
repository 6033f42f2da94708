"""How a run was done, for the report: plan and steps, limits, calibrations, files, commands."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from controller.config.steps import CONTAINERS
from controller.offline import words
from controller.offline.headlines import cut_short
from controller.offline.markup import Content, Markup, join, table, tag
from controller.offline.show import FILES
from controller.offline.told import CHECKSUMS, File, Limit, Planned, Told

Plain = Mapping[str, Any]

RAW_SHOWN = 8  # raw files that are listed one by one
SHOWN_DIGITS = 16  # of a checksum; the whole of it is in the title of the cell
UNITS = ("bytes", "kB", "MB", "GB")
MEANINGS = {
    "pdf": "this page on paper", "documents": "event-model documents, one a line",
    "experiment": "the experiment as it was run", "record": "what control wrote at the end",
    "result": "the whole result of the reduction", "journal": "everything that happened (SQLite)",
    "raw": "index of the raw events", "log": "what control said",
}  # fmt: skip
OTHERS = {"start.json": "how it was started"}
ENDINGS = {
    ".words": "raw events, as the instrument sent them", ".bin": "raw data, as the instrument sent them",
    ".jsonl": "index of the raw data", ".json": "an exposure: its images, with times and checksums",
    ".csv": "a table", ".tif": "an image", ".tiff": "an image",
}  # fmt: skip


def steps(summary: Plain, plan: Sequence[Planned]) -> Markup:
    """Return the table of the steps: planned, done, why it ended, what was never reached."""
    begun = [step["begun_lab_s"] for step in summary["steps"]]
    zero = min(begun, default=0.0)
    rows: list[tuple[Content, ...]] = []
    listed = set()
    for one in plan:
        times = f", {one.times} times" if one.times > 1 else ""
        title = tag("span", f"{one.title}{times}", class_="inside" if one.depth else "")
        planned = words.seconds(one.expected_s) if one.expected_s else None
        at = words.fixed(one.begin_s / 60.0, 1) if one.begin_s is not None and one.expected_s else None
        if not one.reached:
            rows.append((title, at, planned, None, None, tag("span", "not reached", class_="warn")))
        for number, step in enumerate(one.done):
            listed.add(id(step))
            first = (title, at, planned) if number == 0 else (f"{one.title}, again", None, None)
            rows.append((*first, *_done(step, zero)))
    for step in summary["steps"]:
        if id(step) not in listed and step["do"] not in CONTAINERS:
            rows.append((step["title"], None, None, *_done(step, zero)))
    if not rows:
        return tag("p", "No step was begun.")
    return table(
        ("step", "planned at / min", "planned", "began / min", "took", "ended because"), rows,
        numbers=(1, 2, 3, 4), label="Steps as planned and as done",
    )  # fmt: skip


def limits(told: Sequence[Limit]) -> Markup:
    """Return what the guard kept."""
    if not told:
        return tag("p", "The host did not live to say which limits held.")
    rows = [(one.what, _end(one.low), _end(one.high), one.unit) for one in told]
    heads = ("quantity", "lowest", "highest", "unit")
    return table(heads, rows, numbers=(1, 2), label="Limits of the guard", wide=False)


def calibrations(told: Sequence[tuple[str, str, str]]) -> Markup:
    """Return the calibrations with their errors and where they are from."""
    if not told:
        return Markup("")
    return table(("calibration", "value, one sigma", "source"), told, label="Calibrations")


def again(told: Told) -> Markup:
    """Return the commands that do it again."""
    lines = [f"# {what}\n{command}" for command, what in told.commands]
    return tag("pre", "\n".join(lines), tabindex="0")


def files(summary: Plain, listed: Sequence[File]) -> Markup:
    """Return the files of the run with size and checksum, those that people want first."""
    meanings = {name: FILES.get(what, MEANINGS.get(what, what)) for what, name in summary["files"].items()}
    meanings |= {name: what for name, what in OTHERS.items() if name not in meanings}
    rows: list[tuple[Content, ...]] = []
    known = {one.name for one in listed}
    for name, what in meanings.items():
        if name not in known and name not in OTHERS:  # written after this page, or with it
            rows.append((tag("a", name, href=name), what, None, None))
    shown, raw = [one for one in listed if "/" not in one.name], [one for one in listed if "/" in one.name]
    for one in [*shown, *raw[:RAW_SHOWN]]:
        rows.append(
            (
                tag("a", one.name, href=one.name),
                meanings.get(one.name, _by_ending(one.name)),
                _size(one.size),
                _checksum(one),
            )
        )
    if len(raw) > RAW_SHOWN:
        rest = raw[RAW_SHOWN:]
        size = _size(sum(one.size for one in rest))
        rows.append((f"raw/ and {len(rest)} more", "raw events and images", size, None))
    note = f"Checksums show their first digits. All of them: sha256sum -c {CHECKSUMS}, in the run's folder."
    return join(
        [table(("file", "what it is", "size", "sha256"), rows, numbers=(2,), label="Files of the run"),
         tag("p", note, class_="meta")]
    )  # fmt: skip


# --- inside --------------------------------------------------------------------------------------------


def _done(step: Plain, zero: float) -> tuple[Content, ...]:
    ended = step["ended_lab_s"]
    took = None if ended is None else words.seconds(ended - step["begun_lab_s"])
    reason = str(step.get("reason", ""))
    if cut_short(step):
        why = f"cut short: {reason}" if step.get("failed") else "cut short"
        told: Content = tag("span", why, class_="warn")
    elif ended is None and reason == "interrupted":
        told = tag("span", "interrupted, gone on with later", class_="warn")
    elif ended is None:
        told = tag("span", "never ended", class_="bad")
    else:
        told = reason
    return words.fixed((step["begun_lab_s"] - zero) / 60.0, 1), took, told


def _end(value: float | None) -> str | None:
    if value is None:
        return None
    return words.powers(value) if abs(value) >= 1e5 else f"{value:g}".replace("-", "\u2212")


def _by_ending(name: str) -> str:
    return next((what for ending, what in ENDINGS.items() if name.endswith(ending)), "")


def _size(size: int) -> str:
    value, unit = float(size), 0
    while value >= 1000.0 and unit < len(UNITS) - 1:
        value, unit = value / 1000.0, unit + 1
    return f"{value:.3g} {UNITS[unit]}"


def _checksum(one: File) -> Content:
    if one.sha256 is None:
        return None
    whole = html.escape(one.sha256)
    return Markup(f'<code title="{whole}">{whole[:SHOWN_DIGITS]}</code>')
