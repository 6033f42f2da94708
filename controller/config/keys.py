"""What a person is told about every key: its meaning, its unit, what is allowed, and what it is without them.

Limits, units, defaults and choices are read from the models; the words are in ``keys.toml``, or in the model
itself (``Field(description=...)``). Schemas, new files, the reference and messages are made of this.
"""

from __future__ import annotations

import datetime
import json
import tomllib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from controller.config.quantities import KINDS, Quantity, show

WORDS = Path(__file__).with_name("keys.toml")
TAGS = ("do", "kind", "driver")  # keys that say which table this is


@dataclass(frozen=True)
class Key:
    """One key of a table, as a person meets it."""

    name: str
    text: str
    kind: str  # what its value looks like: "a temperature, such as ..."; "" for plain text and tables
    allowed: str  # in words; "" where there is no limit
    required: bool
    default: str | None  # as TOML, None where there is none
    put: str | None  # what a new file may begin with: it protects nobody
    example: str | None
    annotation: Any
    several: Literal["", "list", "map"] = ""  # tables in a list, or under names
    tables: tuple[type[BaseModel], ...] = ()  # what can stand inside

    @property
    def is_table(self) -> bool:
        """Whether other keys stand inside."""
        return bool(self.tables)

    @property
    def sentence(self) -> str:
        """What it is, what it looks like and what is allowed, for a message."""
        return "; ".join(part for part in (self.text, self.kind, self.allowed) if part)

    @property
    def sample(self) -> str:
        """A value as it may look, as TOML."""
        return self.put or self.default or self.example or _example(self.annotation) or '"..."'


@cache
def words() -> Mapping[str, Mapping[str, Any]]:
    """Return the file of words: table -> key -> text, or a table with text, put and example."""
    return tomllib.loads(WORDS.read_text(encoding="utf-8"))


@cache
def keys_of(model: type[BaseModel]) -> tuple[Key, ...]:
    """Return the keys of a table in the order of its model: those of its base first."""
    return tuple(_key(model, name, field) for name, field in model.model_fields.items())


def all_models(root: type[BaseModel]) -> list[type[BaseModel]]:
    """Return a model and everything that can stand inside, each once, in order of appearance."""
    found: list[type[BaseModel]] = []
    waiting = [root]
    while waiting:
        model = waiting.pop(0)
        if model not in found:
            found.append(model)
            waiting += [inside for key in keys_of(model) for inside in key.tables]
    return found


def key_at(model: type[BaseModel], path: tuple[str | int, ...], raw: object) -> Key | None:
    """Return the key at a path of a file, None where no model knows it.

    Args:
        model: of the whole file.
        path: as in messages; places of lists are numbers.
        raw: the file as it was read: it says which of several tables stands at a place.
    """
    here: list[type[BaseModel]] = [model]
    found, named = None, False
    for part in path:
        raw = _inside(raw, part)
        if isinstance(part, int) or named:  # a place in a list, or a name that a person gave
            named = False
        else:
            found = next((key for one in here for key in keys_of(one) if key.name == part), None)
            if found is None:
                return None
            here, named = list(found.tables), found.several == "map"
        here = _fitting(here, raw)
    return found


def tag_of(model: type[BaseModel]) -> tuple[str, tuple[str, ...]]:
    """Return the key that says which table this is, and its values; ("", ()) where there is none."""
    for name in TAGS:
        field = model.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is Literal:
            return name, tuple(str(value) for value in get_args(field.annotation))
    return "", ()


def _fitting(models: list[type[BaseModel]], raw: object) -> list[type[BaseModel]]:
    """Keep the models whose tag is that of the table, all if none says so."""
    if not isinstance(raw, Mapping) or len(models) < 2:
        return models
    fits = [one for one in models if raw.get(tag_of(one)[0]) in tag_of(one)[1]]
    return fits or models


def _inside(raw: object, part: str | int) -> object:
    if isinstance(raw, Mapping):
        return raw.get(part)
    if isinstance(raw, list) and isinstance(part, int) and 0 <= part < len(raw):
        return raw[part]
    return None


def _key(model: type[BaseModel], name: str, field: FieldInfo) -> Key:
    alias = field.alias or name
    said = _said(model, alias)
    annotation: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    tables, several = _tables(annotation)
    kind, allowed = ("", "") if tables else _kind(annotation, said.get("example"))
    default = None if field.default_factory is not None else _toml(field.default, annotation)
    return Key(
        name=alias,
        text=field.description or said.get("text", ""),
        kind=kind,
        allowed=allowed,
        required=field.is_required(),
        default=default,
        put=said.get("put"),
        example=said.get("example"),
        annotation=annotation,
        several=several,
        tables=tables,
    )


def _said(model: type[BaseModel], alias: str) -> Mapping[str, str]:
    """Return the words for a key: of the model, or of the one that it inherits the key from."""
    for one in model.__mro__:
        module = one.__module__.rpartition(".")[2]
        for table in (f"{module}.{one.__name__}", one.__name__):
            said = words().get(table, {}).get(alias)
            if said is not None:
                return {"text": said} if isinstance(said, str) else said
    return {}


def _flat(annotation: Any) -> Iterator[tuple[Any, list[Any]]]:
    """Yield (type, notes) of each alternative of an annotation, None apart; notes are what annotates it."""
    notes: list[Any] = []
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        notes += more
    if get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            if member is not type(None):
                for one, own in _flat(member):
                    yield one, own + notes
    else:
        yield annotation, notes


def _tables(annotation: Any) -> tuple[tuple[type[BaseModel], ...], Literal["", "list", "map"]]:
    """Return the tables that can stand at a key, and whether they stand in a list or under names."""
    found: list[type[BaseModel]] = []
    several: Literal["", "list", "map"] = ""
    for one, _ in _flat(annotation):
        if isinstance(one, type) and issubclass(one, BaseModel):
            found.append(one)
        elif get_origin(one) in (tuple, list, dict):
            inner = get_args(one)[-1 if get_origin(one) is dict else 0]
            tables, _several = _tables(inner)
            if tables:
                found += tables
                several = "map" if get_origin(one) is dict else "list"
    return tuple(dict.fromkeys(found)), several


def _kind(annotation: Any, example: str | None = None) -> tuple[str, str]:
    """Return what a value is, and what is allowed, in words."""
    members = list(_flat(annotation))
    if len(members) != 1:
        return "a value", ""
    one, notes = members[0]
    quantity = next((note for note in notes if isinstance(note, Quantity)), None)
    if quantity is not None:
        return _quantity_kind(quantity, example), _quantity_bounds(quantity)
    if get_origin(one) is Literal:
        choices = [_toml(value, None) or "" for value in get_args(one)]
        return ("", f"always {choices[0]}") if len(choices) == 1 else ("", "one of " + ", ".join(choices))
    if get_origin(one) in (tuple, list):
        inner, allowed = _kind(get_args(one)[0])
        return f"a list; each {inner}" if inner else "a list", allowed
    if one in (str, datetime.date):
        return "", ""
    plain = {bool: "true or false", int: "a whole number", float: "a number"}
    bounds = _number_bounds(notes)
    return "" if bounds else plain.get(one, "a table of your own names"), bounds


def _quantity_kind(quantity: Quantity, example: str | None) -> str:
    kind = KINDS[quantity.unit]
    examples = [f'"{one}"' for one in kind.examples] + (['"C/20"'] if quantity.c_rate else [])
    return f"{kind.word}, such as {example or ' or '.join(examples)}"


def _quantity_bounds(quantity: Quantity) -> str:
    low, high = (
        "" if bound is None else show(bound, quantity.unit) for bound in (quantity.low, quantity.high)
    )
    if quantity.above is not None:
        more = f"more than {show(quantity.above, quantity.unit)}"
        return more + (f", at most {high}" if high else "")
    if low and high:
        return f"{low} to {high}"
    return f"at least {low}" if low else f"at most {high}" if high else ""


def _number_bounds(notes: list[Any]) -> str:
    flat = [inner for note in notes for inner in (note.metadata if isinstance(note, FieldInfo) else [note])]
    said = {Ge: "at least {}", Gt: "more than {}", Le: "at most {}", Lt: "less than {}"}
    bounds = {
        kind: f"{getattr(note, kind.__name__.lower()):.10g}"
        for note in flat
        for kind in said
        if isinstance(note, kind)
    }
    if Ge in bounds and Le in bounds:
        return f"{bounds[Ge]} to {bounds[Le]}"
    return ", ".join(text.format(bounds[kind]) for kind, text in said.items() if kind in bounds)


def _example(annotation: Any) -> str | None:
    """Return a value that a key may have, as TOML: the first example of its kind."""
    for one, notes in _flat(annotation):
        quantity = next((note for note in notes if isinstance(note, Quantity)), None)
        if quantity is not None:
            return json.dumps(KINDS[quantity.unit].examples[0])
        if get_origin(one) is Literal:
            return _toml(get_args(one)[0], None)
        if get_origin(one) in (tuple, list):
            inner = _example(get_args(one)[0]) or '"..."'
            return f"[{inner}]"
    return None


def _toml(value: object, annotation: Any) -> str | None:
    """Write a default as it would stand in a file; None for a table, or nothing."""
    if value is PydanticUndefined or value is None or isinstance(value, BaseModel):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple | list):
        inner = get_args(next(_flat(annotation))[0])[0] if value else None
        return "[" + ", ".join(_toml(item, inner) or "" for item in value) + "]"
    for _, notes in _flat(annotation) if annotation is not None else ():
        quantity = next((note for note in notes if isinstance(note, Quantity)), None)
        if quantity is not None and isinstance(value, int | float):
            return json.dumps(show(float(value), quantity.unit))
    return f"{value:g}" if isinstance(value, float) else str(value)
