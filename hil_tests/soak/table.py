"""The table of the soak, in Markdown: the newest outcome of each item, from the books of some clones."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hil_tests.soak.runner import DATE, ROOT, Outcome, read

HEAD = """# The soak, as run

Made by `python -m hil_tests.soak --table`; do not edit. Each item with its newest outcome: commits differ
where an item was not run again since. A skipped item could not be tried, or has something left to do; it
never hides a failure. Load averages: over 1, 5 and 15 minutes at the begin; over 1 minute at the end. `+`
behind a commit: with changes that were not committed. Rows of the fault catalogue that were played one by
one, outside of their items, stand in [FAULTS.md](FAULTS.md).

"""
COLUMNS = ("item", "state", "ended", "commit", "took", "machine: load", "said")
TOLD_LINES, TOLD_CHARACTERS = 2, 160
FAILED_LINES, FAILED_CHARACTERS = 12, 240
_FUZZED = re.compile(r"\b(\d+) s, \d+ inputs")  # what an outcome said before worked_s was recorded


@dataclass(frozen=True)
class Entry:
    """An outcome, where it was found, and whether the item was skipped since."""

    outcome: Outcome
    tree: str
    since: Outcome | None = None

    @property
    def ended(self) -> datetime:
        """When the item ended."""
        return datetime.strptime(self.outcome.date, DATE)


def gather(folders: Iterable[Path]) -> dict[str, Entry]:
    """Return the newest outcome of each item in books, or in clones that have one.

    A failure stands until the item has passed or failed again, not until it is skipped.

    Raises:
        FileNotFoundError: there is no book.
    """
    found: dict[str, list[Entry]] = {}
    for folder in folders:
        book = folder if folder.name == ".soak" else folder / ".soak"
        if not book.is_dir():
            raise FileNotFoundError(f"no soak was run in {folder}")
        for path in book.glob("*/*/outcome.json"):
            outcome = read(path)
            if outcome is not None:
                text = _without(outcome.text, (str(book.resolve().parent), str(ROOT)))
                entry = Entry(Outcome(**{**vars(outcome), "text": text}), path.parent.parent.name)
                found.setdefault(outcome.name, []).append(entry)
    return {name: _newest(entries) for name, entries in found.items()}


def _newest(entries: Sequence[Entry]) -> Entry:
    newest = max(entries, key=lambda entry: entry.ended)
    tried = [entry for entry in entries if entry.outcome.state != "skipped"]
    if newest.outcome.state == "skipped" and tried:
        last = max(tried, key=lambda entry: entry.ended)
        if last.outcome.state == "failed":
            return Entry(last.outcome, last.tree, since=newest.outcome)
    return newest


def page(items: Sequence[str], found: Mapping[str, Entry]) -> str:
    """Return the page: sums, one row for each of ``items``, and at length what did not pass."""
    mine = {name: found[name] for name in items if name in found}
    known = (entry.outcome.conditions for entry in mine.values() if entry.outcome.conditions)
    machines = list(dict.fromkeys(map(_machine, known)))
    lines = [HEAD + _sums(items, mine), ""]
    lines += [f"- machine {number}: {machine}" for number, machine in enumerate(machines, 1)]
    lines += ["", f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for name in items:
        if name not in mine:
            lines.append(f"| {name} | never run |{' |' * (len(COLUMNS) - 2)}")
            continue
        entry, on = mine[name], mine[name].outcome.conditions
        cells = (
            name, _state(entry), f"{entry.ended:%Y-%m-%d %H:%M %z}", _commit(entry.tree), took(entry.outcome),
            f"{machines.index(_machine(on)) + 1}: {_load(on)}" if on else "not recorded",
            _told(entry.outcome.text),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_at_length(mine)])


def took(outcome: Outcome) -> str:
    """Return how long an item took over all its sittings, and the last one if that was shorter."""
    worked_s = outcome.worked_s
    fuzzed = _FUZZED.search(outcome.text)
    if worked_s is None and fuzzed and outcome.name.startswith("fuzz-"):
        worked_s = float(fuzzed[1])
    if worked_s is None or outcome.seconds >= 0.9 * worked_s:
        return _duration(outcome.seconds)
    return f"{_duration(worked_s)}, in the last sitting {_duration(outcome.seconds)}"


def _sums(items: Sequence[str], mine: Mapping[str, Entry]) -> str:
    states = Counter(entry.outcome.state for entry in mine.values())
    text = ", ".join(f"{states[state]} {state}" for state in ("passed", "failed", "skipped"))
    text = f"{len(items)} items: {text}, {len(items) - len(mine)} never run."
    if not mine:
        return text
    commits = Counter(_commit(entry.tree) for entry in mine.values())
    dates = sorted(entry.ended for entry in mine.values())
    named = ", ".join(f"{commit} ({count})" for commit, count in commits.most_common())
    return f"{text} {dates[0]:%Y-%m-%d %H:%M} to {dates[-1]:%Y-%m-%d %H:%M}; commits: {named}."


def _state(entry: Entry) -> str:
    state = entry.outcome.state if entry.outcome.state == "passed" else f"**{entry.outcome.state}**"
    return f"{state} (skipped since, {entry.since.date[:10]})" if entry.since else state


def _at_length(mine: Mapping[str, Entry]) -> Iterator[str]:
    yield "## Not passed\n"
    wrong = {name: entry for name, entry in mine.items() if entry.outcome.state != "passed"}
    if not wrong:
        yield "Nothing that was run.\n"
    for name, entry in wrong.items():
        lines = [line[:FAILED_CHARACTERS] for line in entry.outcome.text.splitlines() if line.strip()]
        more = [f"... ({len(lines) - FAILED_LINES} more lines)"] if len(lines) > FAILED_LINES else []
        told = "\n".join(f"    {line}" for line in lines[:FAILED_LINES] + more)
        yield f"{name}, {entry.outcome.state}:\n\n{told}\n"


def _told(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()][:TOLD_LINES]
    short = (line[:TOLD_CHARACTERS] + ("..." if len(line) > TOLD_CHARACTERS else "") for line in lines)
    return "<br>".join(line.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|") for line in short)


def _machine(conditions: Mapping[str, Any]) -> str:
    return (
        f"{conditions['cores']} cores, {conditions['processor']}, {conditions['memory_gb']:.0f} GB, "
        f"Python {conditions['python']}, kernel {conditions['kernel']}"
    )


def _load(conditions: Mapping[str, Any]) -> str:
    begin = " ".join(f"{value:.1f}" for value in conditions["load_begin"])
    return f"{begin}; {conditions['load_end'][0]:.1f}"


def _commit(tree: str) -> str:
    commit, _, changed = tree.partition("-")
    return tree if tree == "no-git" else commit[:7] + ("+" if changed else "")


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10.0 else f"{seconds:.0f} s"


def _without(text: str, folders: Iterable[str]) -> str:
    """Drop where somebody's clone stands."""
    for folder in folders:
        text = text.replace(f"{folder}/", "")
    return text
