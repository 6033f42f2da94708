"""One line of what ``operando doctor`` says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Verdict = Literal["good", "look", "wrong"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, what is so, and what to do about it.

    ``look`` does not keep an experiment from running well; ``wrong`` can cost data, or nobody would be told.
    """

    check: str
    verdict: Verdict
    what: str
    do: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return it for ``--json``."""
        return asdict(self)


def good(check: str, what: str) -> Finding:
    """As it should be."""
    return Finding(check, "good", what)


def look(check: str, what: str, do: str = "") -> Finding:
    """Worth a look."""
    return Finding(check, "look", what, do)


def wrong(check: str, what: str, do: str) -> Finding:
    """To be put right first."""
    return Finding(check, "wrong", what, do)
