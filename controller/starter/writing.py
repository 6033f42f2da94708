"""Tables of a new file, written from the models: every key with its meaning, unit, range and usual value.

A key stands in the file when it is needed. What only a person can know says ``FILL IN`` and is refused until
somebody has filled it in; what has a usual value stands behind a comment mark, ready to be changed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args, get_origin

from pydantic import BaseModel

from controller.config.keys import Key, keys_of
from controller.config.unfilled import FILL_IN

WIDTH = 108
BLANK = f'"{FILL_IN}"'
DEEPEST = 3  # tables inside tables that are shown behind comment marks


@dataclass(frozen=True)
class Filling:
    """What is known beforehand about a table, by dotted key relative to it."""

    given: Mapping[str, str] = field(default_factory=dict)  # values as TOML
    begin: tuple[str, ...] = ()  # optional keys that are needed
    leave: tuple[str, ...] = ()  # keys that are not shown at all
    shows: bool = False  # nothing of it is in force: required keys have an example instead of a blank

    def inside(self, name: str) -> Filling:
        """Return what is known about a table inside."""
        dot = f"{name}."
        return Filling(
            {key.removeprefix(dot): value for key, value in self.given.items() if key.startswith(dot)},
            tuple(key.removeprefix(dot) for key in self.begin if key.startswith(dot)),
            tuple(key.removeprefix(dot) for key in self.leave if key.startswith(dot)),
            self.shows,
        )

    def names(self, name: str) -> bool:
        """Whether a key, or something inside it, is needed."""
        return any(key == name or key.startswith(f"{name}.") for key in (*self.begin, *self.given))


SHOWN = Filling(shows=True)


def comment(text: str, mark: str = "# ") -> Iterator[str]:
    """Yield a text as lines of comment."""
    yield from textwrap.wrap(text, WIDTH, initial_indent=mark, subsequent_indent=mark)


def table(
    header: str, model: type[BaseModel], filling: Filling | None = None, *, several: bool = False
) -> list[str]:
    """Return the lines of a table and of those inside it.

    Args:
        header: its dotted name in the file.
        model: what may stand in it.
        filling: what is known beforehand.
        several: it is one of a list.
    """
    filling = filling or Filling()
    lines = [f"[[{header}]]" if several else f"[{header}]"]
    inside: list[str] = []
    for key in keys_of(model):
        if key.name in filling.leave:
            continue
        if key.is_table and key.name not in filling.given:
            inside += _inner(header, key, filling)
        else:
            lines += _value(key, filling)
    return [*lines, *inside]


def _value(key: Key, filling: Filling) -> Iterator[str]:
    given = filling.given.get(key.name) or key.put
    alone = _only(key)
    yield from comment(_explained(key)) if alone is None else ()
    if given is not None or alone is not None:
        yield f"{key.name} = {given or alone}"
    elif key.required or key.name in filling.begin:
        yield f"{key.name} = {key.sample if filling.shows else BLANK}"
    else:
        yield f"#{key.name} = {key.sample}"


def _explained(key: Key) -> str:
    """Return a comment: what it is, what is allowed, and what it is without being given."""
    shown = key.put is not None or key.default is not None
    usual = f"{key.default} unless given" if key.default not in (None, '""') else ""
    more = [part for part in ("" if shown else key.kind, key.allowed, usual) if part]
    text = sentence(key.text)
    return f"{text} ({'; '.join(more)})" if more else text


def sentence(text: str) -> str:
    """Return a text with a capital and a full stop, unless it begins with the name of something."""
    first = text.split(" ", 1)[0]
    capital = text[:1].upper() + text[1:] if first.isalpha() and first.islower() else text
    return capital if capital.endswith((".", ")")) else capital + "."


def _only(key: Key) -> str | None:
    """Return the one value that a key can have, such as that of driver; None where there is a choice."""
    if get_origin(key.annotation) is Literal and len(choices := get_args(key.annotation)) == 1:
        return f'"{choices[0]}"' if isinstance(choices[0], str) else str(choices[0])
    return None


def _inner(header: str, key: Key, filling: Filling) -> list[str]:
    """Return the tables at a key: those that are needed as they stand, others behind comment marks."""
    name, model = f"{header}.{key.name}", key.tables[0]
    if key.several == "map":
        return _named_tables(name, key, filling)
    needed = key.required or filling.names(key.name)
    title = list(comment(sentence(key.text)))
    several = key.several == "list"
    if needed:
        return ["", *title, *table(name, model, filling.inside(key.name), several=several)]
    return ["", *title, *off(table(name, model, SHOWN, several=several), name)]


def _named_tables(name: str, key: Key, filling: Filling) -> list[str]:
    """Return tables under names: those asked for, then one as an example."""
    model, inside = key.tables[0], filling.inside(key.name)
    asked = dict.fromkeys(part.partition(".")[0] for part in (*inside.begin, *inside.given))
    head = list(comment(sentence(key.text)))
    if not asked:
        return ["", *head, f"#[{name}]", *([f"#{key.example}"] if key.example else [])]
    lines: list[str] = []
    for number, one in enumerate(asked):
        lines += ["", *(head if number == 0 else ()), *table(f"{name}.{one}", model, inside.inside(one))]
    return lines


def off(lines: Iterable[str], root: str) -> list[str]:
    """Put comment marks before a whole table; tables deep inside it are left out."""
    kept, skip = [], False
    for line in lines:
        bare = line.lstrip("#").strip("[]")
        if line.lstrip("#").startswith("["):
            skip = bare.count(".") - root.count(".") >= DEEPEST
        if not skip:
            kept.append(line if line.startswith("#") or not line else f"#{line}")
    while kept and not kept[-1]:
        kept.pop()
    return kept


def title(text: str) -> list[str]:
    """Return a heading between the parts of a file."""
    return ["", "", f"# ---- {text} ".ljust(WIDTH, "-")]
