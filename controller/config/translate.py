"""From pydantic's findings to sentences: paths as in the file, plain words instead of error codes."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag

from controller.config.problems import NEEDED_FOR, Fault, Path, Problem, did_you_mean, problem, value_at

if TYPE_CHECKING:
    from pydantic import ValidationError

    from controller.config.files import Source

_TYPES = {
    "string_type": "must be text in quotes",
    "bool_type": "must be true or false (without quotes)",
    "int_type": "must be a whole number (without quotes)",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number (without quotes)",
    "list_type": "must be a list, in square brackets",
    "tuple_type": "must be a list, in square brackets",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "date_type": "must be a date such as 2026-01-31 (without quotes)",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "must be at least"),
    "less_than_equal": ("le", "must be at most"),
    "greater_than": ("gt", "must be more than"),
    "less_than": ("lt", "must be less than"),
}


def from_pydantic(error: ValidationError, source: Source, model: type[BaseModel]) -> list[Problem]:
    """Return one problem for each finding; ``model`` is the one that validated the whole file."""
    problems: list[Problem] = []
    for found in error.errors(include_url=False):
        location: Path = tuple(found["loc"])
        path = _file_path(location, source.data)
        context: Mapping[str, Any] = found.get("ctx", {})
        if found["type"] == "rules":
            faults: Iterable[Fault] = context["faults"]
            problems += [
                problem(source, (*path, *_parts(fault.key)), fault.complaint, fault.limit) for fault in faults
            ]
            continue
        if found["type"] == "too_short" and _is_long_enough(value_at(source.data, path), context):
            continue  # only entries that are wrong themselves are missing, and they are reported
        if found["type"] == "extra_forbidden":
            complaint = "is not a known key" + did_you_mean(str(path[-1]), keys_at(model, location[:-1]))
        else:
            complaint, path = _sentence(found["type"], str(found["msg"]), context, path)
        problems.append(problem(source, path, complaint, str(context.get("limit", ""))))
    return problems


def keys_at(model: type[BaseModel], location: Path) -> list[str]:
    """Return the keys that the table at pydantic's ``location`` may have; empty when that is not known."""
    here: Any = model
    for part in location:
        here = _inside(here, part)
        if here is None:
            return []
    here = _bare(here)
    if not (isinstance(here, type) and issubclass(here, BaseModel)):
        return []
    return [field.alias or name for name, field in here.model_fields.items()]


def _inside(here: Any, part: str | int) -> Any:
    """Return the type one step further along a location, or None."""
    here = _bare(here)
    if isinstance(here, type) and issubclass(here, BaseModel):
        fields = here.model_fields.items()
        return next((field.annotation for name, field in fields if part in (field.alias, name)), None)
    origin, arguments = get_origin(here), get_args(here)
    if origin in (Union, types.UnionType):
        return next((member for member in arguments if part in _tags(member)), None)
    if origin is dict:
        return arguments[1]
    return arguments[0] if origin in (list, tuple) else None


def _bare(here: Any) -> Any:
    """Take off ``Annotated`` and ``| None``."""
    while True:
        if get_origin(here) is Annotated:
            here = get_args(here)[0]
        elif get_origin(here) in (Union, types.UnionType) and type(None) in get_args(here):
            rest = [member for member in get_args(here) if member is not type(None)]
            if len(rest) != 1:
                return here
            here = rest[0]
        else:
            return here


def _tags(member: Any) -> list[str]:
    """Return the values of the key that chooses this member of a union."""
    if get_origin(member) is Annotated:
        return [note.tag for note in get_args(member)[1:] if isinstance(note, Tag)]
    if not (isinstance(member, type) and issubclass(member, BaseModel)):
        return []
    found = [member.model_fields[key].annotation for key in ("do", "kind") if key in member.model_fields]
    return [str(tag) for literal in found if get_origin(literal) is Literal for tag in get_args(literal)]


def _is_long_enough(value: object, context: Mapping[str, Any]) -> bool:
    return isinstance(value, list) and len(value) >= int(context.get("min_length", 0))


def _parts(key: str) -> Path:
    return tuple(int(part) if part.isdigit() else part for part in key.split(".")) if key else ()


def _file_path(location: Path, raw: object) -> Path:
    """Drop what pydantic adds to a location: the tag of a union, which is no key of the file."""
    path: list[str | int] = []
    here = raw
    for index, part in enumerate(location):
        absent = isinstance(part, str) and isinstance(here, Mapping) and part not in here
        if absent and isinstance(here, Mapping):
            tags = [here.get("do"), here.get("kind"), here.get("driver")]
            if part in tags or index < len(location) - 1:
                continue
        path.append(part)
        here = value_at(here, (part,))
    return tuple(path)


def _sentence(kind: str, message: str, context: Mapping[str, Any], path: Path) -> tuple[str, Path]:
    """Return the complaint for one finding of pydantic, and the path it belongs to."""
    if kind == "rule":
        return str(context["complaint"]), path
    if kind == "missing":
        why = NEEDED_FOR.get(str(path[-1]), "") if path else ""
        return ("is missing: " + why if why else "is missing"), path
    if kind == "union_tag_not_found":
        key = str(context["discriminator"]).strip("'")
        return "is missing: " + NEEDED_FOR.get(key, "it says what this table is"), (*path, key)
    if kind == "union_tag_invalid":
        known = [name.strip(" '") for name in str(context["expected_tags"]).split(",")]
        key = str(context["discriminator"]).strip("'")
        return "is not known" + did_you_mean(str(context["tag"]), known), (*path, key)
    if kind == "literal_error":
        choice = str(context["expected"]).replace("'", '"')
        return f"must be {'one of ' if ' or ' in choice else ''}{choice}", path
    if kind == "string_pattern_mismatch":
        return "must be a short name: letters, digits, - and _ (at most 40)", path
    if kind == "string_too_short":
        return "must not be empty" if context[
            "min_length"
        ] == 1 else f"is shorter than {context['min_length']} characters", path
    if kind in ("too_short", "too_long"):
        bound = context.get("min_length", context.get("max_length"))
        word = "at least" if kind == "too_short" else "at most"
        return f"needs {word} {bound} entr{'y' if bound == 1 else 'ies'}", path
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"{words} {context[name]:g}", path
    return _TYPES.get(kind, f"is not accepted: {message}"), path
