"""The one exception of the readers: a file that is not what it should be."""

from __future__ import annotations

from pathlib import Path

SHOWN_CHARACTERS = 60


class FileError(ValueError):
    """A recording cannot be used; says which file, where in it, what was expected and what stands there."""

    def __init__(self, path: Path | str, place: str, expected: str, found: object = None) -> None:
        text = f"{path}: {place}: expected {expected}" if place else f"{path}: expected {expected}"
        if found is not None:
            text += f", found {_shown(found)}"
        super().__init__(text)
        self.path = Path(path)
        self.place = place
        self.expected = expected


def _shown(found: object) -> str:
    """Show at most 60 printable characters of what was found."""
    text = repr(found) if isinstance(found, str | bytes) else str(found)
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
