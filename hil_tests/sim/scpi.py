"""SCPI on the instrument's end: which command is meant, with which arguments.

Written from SCPI-99 volume 1 and the two Keithley manuals: short and long forms in any case, optional nodes
and numeric suffixes, a leading colon or not, ``;`` chains with the memory of the path, single or double
quotes. Numbers come without units, switches as 0, 1, ON or OFF.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

UNDEFINED, MISSING, DATA_TYPE, ILLEGAL, OUT_OF_RANGE = -113, -109, -104, -224, -222
WORDS = {
    UNDEFINED: "Undefined header", MISSING: "Missing parameter", DATA_TYPE: "Data type error",
    ILLEGAL: "Illegal parameter value", OUT_OF_RANGE: "Parameter data out of range",
    -221: "Settings conflict", -350: "Queue overflow", -363: "Input buffer overrun",
}  # fmt: skip

Handler = Callable[[list[str]], str | None]


class ScpiError(Exception):
    """A command is refused: its code goes into the error queue."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


class Commands:
    """A table of commands.

    Args:
        table: canonical header (``[:SENSe[1]]:VOLTage[:DC]:RANGe[:UPPer]``, with ``?`` at the end if it is a
            query) -> what to do with the arguments; a query returns its answer.
    """

    def __init__(self, table: Mapping[str, Handler]) -> None:
        self._entries = [(_pattern(header), handler) for header, handler in table.items()]
        self._found: dict[str, Handler | None] = {}

    def run(self, message: str) -> Iterator[str]:
        """Do what a message says; yield the answers of its queries. Raises ScpiError; the rest is dropped."""
        path = ""
        for text in split(message, ";"):
            unit = text.strip()
            if not unit:
                continue
            header, _, rest = unit.partition(" ")
            handler, path = self._resolve(header.lstrip(":") if header.startswith(":*") else header, path)
            arguments = [part.strip() for part in split(rest, ",")] if rest.strip() else []
            answer = handler(arguments)
            if answer is not None:
                yield answer

    def _resolve(self, header: str, path: str) -> tuple[Handler, str]:
        if header.startswith("*"):
            full = header
        else:
            full = header if header.startswith(":") else f"{path}:{header}"
            path = full.rstrip("?").rpartition(":")[0]
        handler = self._lookup(full.upper())
        if handler is None:
            raise ScpiError(UNDEFINED)
        return handler, path

    def _lookup(self, header: str) -> Handler | None:
        if header not in self._found:
            matches = (handler for pattern, handler in self._entries if pattern.fullmatch(header))
            self._found[header] = next(matches, None)
        return self._found[header]


def split(text: str, mark: str) -> list[str]:
    """Split at ``mark``, but not between quotes."""
    parts, quote, begin = [], "", 0
    for i, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == mark:
            parts.append(text[begin:i])
            begin = i + 1
    return [*parts, text[begin:]]


def unquoted(text: str) -> str:
    """Return what stands between quotes, or the text itself."""
    return text[1:-1] if len(text) >= 2 and text[0] in "\"'" and text[-1] == text[0] else text


def one_number(arguments: list[str], low: float = -1e38, high: float = 1e38) -> float:
    """Return the only argument as a number. Raises ScpiError."""
    if not arguments:
        raise ScpiError(MISSING)
    try:
        value = float(arguments[0])
    except ValueError:
        raise ScpiError(DATA_TYPE) from None
    if not low <= value <= high:
        raise ScpiError(OUT_OF_RANGE)
    return value


def one_switch(arguments: list[str]) -> bool:
    """Return the only argument as on or off. Raises ScpiError."""
    if not arguments:
        raise ScpiError(MISSING)
    word = arguments[0].upper()
    if word not in ("0", "1", "ON", "OFF"):
        raise ScpiError(ILLEGAL)
    return word in ("1", "ON")


def one_word(arguments: list[str], *known: str) -> str:
    """Return the short form of the only argument, one of ``known`` (``VOLTage``). Raises ScpiError."""
    if not arguments:
        raise ScpiError(MISSING)
    word = unquoted(arguments[0]).upper()
    for name in known:
        short = "".join(letter for letter in name if not letter.islower())
        if word in (short, name.upper()):
            return short
    raise ScpiError(ILLEGAL)


def _pattern(header: str) -> re.Pattern[str]:
    """``[:SENSe[1]]:CURRent?`` -> an expression for every way of writing it."""
    query = header.endswith("?")
    text = header.removesuffix("?")
    made = ""
    for piece in re.findall(r"\[|\]|:|\*?[A-Za-z]+|\d+", text):
        if piece == "[":
            made += "(?:"
        elif piece == "]":
            made += ")?"
        elif piece[0] in ":0123456789":
            made += piece
        else:
            short = "".join(letter for letter in piece if not letter.islower())
            made += f"(?:{re.escape(piece.upper())}|{re.escape(short)})"
    return re.compile(made + (r"\?" if query else ""))
