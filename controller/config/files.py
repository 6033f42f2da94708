"""Reading a TOML file: syntax errors in words, and the line on which a key stands.

Python's TOML reader gives no positions, so a small scan finds them again. It only serves messages: where it
is not sure it says nothing.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.config.problems import ConfigErrors, Problem
from controller.config.problems import Path as KeyPath

LARGEST_BYTES = 1 << 20

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*("[^"]*"|'[^']*'|[A-Za-z0-9_-]+)((?:\s*\.\s*(?:"[^"]*"|[A-Za-z0-9_-]+))*)\s*=""")
_PART = re.compile(r"""\s*("[^"]*"|'[^']*'|[^."'\s]+)\s*\.?""")
_TRIPLE = re.compile(r'"""|\'\'\'')


@dataclass(frozen=True)
class Source:
    """A file as read: its name for messages, what it holds, and where each key stands."""

    name: str
    data: Mapping[str, Any]
    path: Path | None = None
    lines: Mapping[KeyPath, int] = field(default_factory=dict, repr=False)

    def line_of(self, path: KeyPath) -> int | None:
        """Return the line of ``path``, or of the nearest table around it; None when unknown."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return None


def read(path: Path | str) -> Source:
    """Read a TOML file. Raises ConfigErrors when it cannot be read or is not TOML."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > LARGEST_BYTES:
            raise _refused(path.name, f"is too large for a settings file ({size} bytes)")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused(path.name, f"is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise _refused(str(path), f"cannot be read: {error.strerror or error}{_what_to_do(path)}") from None
    return from_text(text, path.name, path)


def _what_to_do(path: Path) -> str:
    """Return what helps where a file cannot be read: others nearby, or a command that writes one."""
    if path.is_dir():
        return f"; is it {path / 'station.toml'}?" if (path / "station.toml").is_file() else ""
    if path.exists():
        return f"; it belongs to another user (you are in {Path.cwd()})"
    there = sorted(str(one) for one in path.parent.glob("*.toml"))[:5] if path.parent.is_dir() else []
    if there:
        return f"; there are {', '.join(there)}"
    return f" (looked in {path.parent.absolute()}); operando init station, operando init experiment write one"


def from_text(text: str, name: str, path: Path | None = None) -> Source:
    """Parse TOML text; the message of a syntax error names the line and shows it."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigErrors([_syntax(text, name, str(error))]) from None
    return Source(name, data, path, locate(text))


def locate(text: str) -> dict[KeyPath, int]:
    """Return the line number of every table header and every key that begins a line."""
    lines: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    inside = ""
    for number, line in enumerate(text.splitlines(), 1):
        skip, inside = bool(inside), _still_inside(line, inside)
        if skip:
            continue
        header = _HEADER.match(line)
        if header:
            table = _header_path(_split(header[2]), header[1] == "[[", counts)
            lines.setdefault(table, number)
            continue
        key = _KEY.match(line)
        if key:
            lines.setdefault((*table, *_split(key[1] + key[2])), number)
    return lines


def _header_path(parts: tuple[str, ...], is_list: bool, counts: dict[KeyPath, int]) -> KeyPath:
    """Turn ``step.step`` into ``("step", 3, "step", 0)``, counting the tables of each list."""
    path: KeyPath = ()
    for index, part in enumerate(parts):
        path = (*path, part)
        if is_list and index == len(parts) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _split(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))


def _still_inside(line: str, inside: str) -> str:
    """Follow multi-line strings, so that text inside them is not taken for keys."""
    for mark in _TRIPLE.findall(line):
        if not inside:
            inside = mark
        elif mark == inside:
            inside = ""
    return inside


def _syntax(text: str, name: str, message: str) -> Problem:
    found = re.search(r"\(at line (\d+), column (\d+)\)", message)
    lines = text.splitlines()
    if found:
        line, column = int(found[1]), int(found[2])
        where = f"line {line}, column {column}"
    else:
        line, column = max(len(lines), 1), 0
        where = "end of the file"
    reason = re.sub(r"\s*\(at .*\)$", "", message)
    reason = reason[:1].lower() + reason[1:]
    content = lines[line - 1].strip()[:80] if line <= len(lines) else ""
    text = f"{name}: {where}: not valid TOML: {reason}" + (f": {content}" if content else "")
    return Problem(name, "", content, "", text, line)


def _refused(name: str, complaint: str) -> ConfigErrors:
    return ConfigErrors([Problem(name, "", "", "", f"{name}: {complaint}")])
