"""The one exception of the readers: a file that is not what it should be."""

from __future__ import annotations

from pathlib import Path

SHOWN_CHARACTERS = 60


class FileError(ValueError):
    """A recording cannot be used; says which file, where in it, what was expected and what stands there.

    ``found`` describes it in words; ``token`` is what the file holds, shown in quotes and cut short.
    """

    def __init__(
        self,
        path: Path | str,
        place: str,
        expected: str,
        found: object = None,
        *,
        token: str | bytes | None = None,
    ) -> None:
        text = f"{path}: {place}: expected {expected}" if place else f"{path}: expected {expected}"
        if token is not None:
            text += f", found {_shown(repr(token))}"
        elif found is not None:
            text += f", found {_shown(str(found))}"
        super().__init__(text)
        self.path = Path(path)
        self.place = place
        self.expected = expected


def _shown(text: str) -> str:
    """Show at most 60 characters, all of them printable."""
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
