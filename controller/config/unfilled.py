"""What a new file leaves to a person: values that say ``FILL IN`` are refused, each with what it is.

``operando init`` writes them where only a person can know the value. A guess in their place would look like
knowledge, and a limit that was guessed would protect nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from controller.config.files import Source
from controller.config.keys import key_at
from controller.config.problems import Path, Problem, problem

FILL_IN = "FILL IN"


def unfilled(source: Source, model: type[BaseModel]) -> list[Problem]:
    """Return one problem for each value that is not filled in; ``model`` is that of the whole file."""
    found = []
    for path in _places(source.data, ()):
        key = key_at(model, tuple(part for part in path), source.data)
        meant = f": {key.sentence}" if key is not None and key.sentence else ""
        found.append(problem(source, path, f"is not filled in{meant}"))
    return found


def besides(problems: list[Problem], left: list[Problem]) -> list[Problem]:
    """Return the problems that are not only another word for a value that is not filled in."""
    places = {one.path for one in left}
    return [
        one for one in problems if not any(one.path[: len(place)] == place for place in places if place)
    ] + left


def blank(value: object) -> bool:
    """Whether a value of a file is still to be filled in."""
    return isinstance(value, str) and value.strip().upper().startswith(FILL_IN)


def _places(value: object, path: Path) -> Iterator[Path]:
    if blank(value):
        yield path
    elif isinstance(value, Mapping):
        for name, inside in value.items():
            yield from _places(inside, (*path, str(name)))
    elif isinstance(value, list):
        if any(blank(item) for item in value):
            yield path
        for index, inside in enumerate(value):
            if not isinstance(inside, str):
                yield from _places(inside, (*path, index))
