"""What every table of the two files has in common: unknown keys refused, several broken rules at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

from controller.config.problems import Fault


class Table(BaseModel):
    """A table of a file. Keys are checked strictly: no unknown key, no number where text is meant."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Rules:
    """Collects what is wrong with one table."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def broken(self, key: str, complaint: str, limit: str = "") -> None:
        """Note a broken rule; ``key`` is relative to the table (``raster.dwell``), empty for itself."""
        self.faults.append(Fault(key, complaint, limit))


@contextmanager
def rules() -> Iterator[Rules]:
    """Raise everything noted inside the block as one pydantic error. Use in a model validator."""
    found = Rules()
    yield found
    if found.faults:
        raise PydanticCustomError("rules", "several rules are broken", {"faults": tuple(found.faults)})


def refuse(complaint: str, limit: str = "") -> PydanticCustomError:
    """Return the error for a single field validator; ``complaint`` begins with a verb."""
    return PydanticCustomError("rule", "{complaint}", {"complaint": complaint, "limit": limit})
