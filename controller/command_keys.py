"""Who may send signed commands: the file of keys, and what each role may ask for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from controller.topics import VERBS

MIN_KEY_BYTES = 16
# Whoever has a key may stop; only an operator may let go on. Nobody may clear a trip from elsewhere.
ROLE_VERBS: dict[str, frozenset[str]] = {
    "viewer": frozenset(("stop", "abort", "safe")),
    "operator": frozenset(VERBS),
}
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class KeyFileError(Exception):
    """The file of keys cannot be used; says why."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a client signs with, and as what."""

    secret: bytes = field(repr=False)
    role: str = "operator"


def load_keys(path: Path | str) -> dict[str, Key]:
    """Return the key of each client: lines ``name role hexadecimal-key``, ``#`` begins a comment.

    Raises:
        KeyFileError: the file cannot be read, can be read by others, or holds something else. The message
            never repeats what stands in the file.
    """
    path = Path(path)
    try:
        if path.stat().st_mode & 0o077:
            raise KeyFileError(f"{path} can be read by others: chmod go-rwx {path}")
        lines = path.read_text().splitlines()
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise KeyFileError(f"{path}: not a text file (byte {error.start})") from None
    keys: dict[str, Key] = {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        where = f"{path}, line {number}"
        if len(words) < 3 or words[1] not in ROLE_VERBS:
            raise KeyFileError(f"{where}: expected a name, {' or '.join(ROLE_VERBS)}, and a key")
        try:
            name, secret = words[0], bytes.fromhex("".join(words[2:]))
        except ValueError:
            raise KeyFileError(f"{where}: the key is not hexadecimal") from None
        if not NAME.fullmatch(name) or name in keys or len(secret) < MIN_KEY_BYTES:
            expected = f"expected a new name and at least {MIN_KEY_BYTES} bytes in hexadecimal"
            raise KeyFileError(f"{where}: {expected}")
        keys[name] = Key(secret, words[1])
    if not keys:
        raise KeyFileError(f"{path} holds no key")
    return keys
