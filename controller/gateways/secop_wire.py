"""SECoP on the wire: one message per line, ``action specifier data``. No I/O.

Source: SECoP specification V1.1 (https://github.com/SampleEnvironment/SECoP), chapter "Messages".
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

IDENTIFICATION = "ISSE&SINE2020,SECoP,V2019-09-16,v1.1"
LONGEST_LINE = 65536
LONGEST_NAME = 63
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_SPECIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}(:[A-Za-z_][A-Za-z0-9_]{0,62})?")


class SecopError(Exception):
    """A request that is answered with an error report. ``kind`` is the error class of the specification."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``specifier`` may be empty; ``data`` is the JSON value, None where there is none."""

    action: str
    specifier: str
    data: Any = None

    @property
    def module(self) -> str:
        """The part before the colon."""
        return self.specifier.partition(":")[0]

    @property
    def accessible(self) -> str:
        """The part behind the colon, empty without one."""
        return self.specifier.partition(":")[2]


def parse(line: bytes) -> Request:
    """Parse a line without its LF.

    Raises:
        SecopError: ProtocolError for what is no message, BadJSON for data that cannot be read. ``args[1]``
            is then a pair (action, specifier), as far as they could be made out.
    """
    try:
        text = line.rstrip(b"\r").decode("utf-8")
    except UnicodeDecodeError:
        raise _wrong("ProtocolError", "not UTF-8", "", "") from None
    action, _, rest = text.partition(" ")
    specifier, _, data = rest.partition(" ")
    if action == "*IDN?" and not rest:
        return Request(action, "")
    if not _NAME.fullmatch(action):
        raise _wrong("ProtocolError", "the action is no identifier", "", "")
    if action == "ping":  # its token is anything
        return Request(action, specifier[:LONGEST_NAME])
    if specifier in ("", "."):
        specifier = ""
    elif not _SPECIFIER.fullmatch(specifier):
        raise _wrong("ProtocolError", "the specifier is not module or module:accessible", action, "")
    if not data.strip():
        return Request(action, specifier)
    try:
        return Request(action, specifier, json.loads(data, parse_constant=_no_constant))
    except (ValueError, RecursionError):
        raise _wrong("BadJSON", "the data is no JSON", action, specifier) from None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _wrong(kind: str, text: str, action: str, specifier: str) -> SecopError:
    error = SecopError(kind, text)
    error.args = (text, (action, specifier))
    return error


def message(action: str, specifier: str = "", data: Any = None, *, has_data: bool = True) -> bytes:
    """Return one message as it goes over the wire, LF included."""
    parts = [action]
    if specifier or has_data:
        parts.append(specifier or ".")
    if has_data:
        parts.append(json.dumps(_finite(data), separators=(",", ":"), ensure_ascii=False, allow_nan=False))
    return " ".join(parts).encode() + b"\n"


def _finite(value: Any) -> Any:
    """Return a value that JSON can write: NaN and infinities are no numbers there."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


def identifier(name: str, taken: set[str]) -> str:
    """Return a name of the specification for one of ours, none of ``taken`` (in lower case), and take it."""
    text = re.sub(r"[^A-Za-z0-9_]", "_", name)[: LONGEST_NAME - 3] or "_"
    text = text if text[0].isalpha() or text[0] == "_" else f"_{text}"
    found, number = text, 1
    while found.lower() in taken:
        number += 1
        found = f"{text}_{number}"
    taken.add(found.lower())
    return found
