"""The guard's rules for the stage: never the beam on a sample that moves, or is not where it was left."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from controller.guard_types import Action, Finding

AXES = ("x", "y", "z")
DISPLACED_COUNT = 2  # readings in a row away from where it was left
UNKNOWN_COUNT = 3  # readings in a row without a position


class StageCheck:
    """Follows one stage; knows nothing of who moves it, except when it is said to leave and to stay.

    Args:
        name: of the device, "" where there is none.
        within_um: how far a reading may be from where it was left.
    """

    def __init__(self, name: str, within_um: float) -> None:
        self._name = name
        self._within_um = within_um
        self._left_um: tuple[float, ...] | None = None  # None: nobody has moved it yet, or it is on its way
        self._on_its_way = False
        self._moving = False  # by its own word
        self._displaced = self._unknown = 0
        self._arrived_s = -math.inf

    def leaves(self) -> None:
        """It is about to move."""
        self._on_its_way, self._left_um = True, None

    def stays(self, position_um: Sequence[float], now_s: float) -> None:
        """It has arrived and stays; ``now_s`` is monotonic, as ``begun_s`` of a reading."""
        self._on_its_way, self._left_um = False, tuple(position_um)
        self._arrived_s = now_s
        self._displaced = self._unknown = 0
        self._moving = False

    def beam(self, blanked: bool) -> Iterator[Finding]:
        """Judge a reading of the beam's state."""
        if not blanked and (self._on_its_way or self._moving):
            yield self._finding("stage-beam", "moving", None, "the beam is on while the stage moves")

    def reading(
        self, values: Mapping[str, float | bool | None], blanked: float | bool | None, begun_s: float
    ) -> Iterator[Finding]:
        """Judge a reading of the stage; ``blanked`` is the newest of the beam, None if not known.

        A reading that was begun before the stage had arrived tells of its way, not of where it stays.
        """
        if begun_s < self._arrived_s:
            return
        if (moving := values.get("moving")) is not None:
            self._moving = bool(moving)
        if blanked is False:
            yield from self.beam(False)
        if self._left_um is None or self._on_its_way:
            return
        at = [values.get(axis) for axis in AXES[: len(self._left_um)]]
        if any(value is None for value in at):
            self._unknown += 1
            if self._unknown >= UNKNOWN_COUNT:
                yield self._finding("stage-unknown", "position", None, "nobody knows where the stage stands")
            return
        self._unknown = 0
        off_um = max(abs(float(a or 0.0) - b) for a, b in zip(at, self._left_um, strict=True))
        self._displaced = self._displaced + 1 if off_um > self._within_um else 0
        if self._displaced >= DISPLACED_COUNT:
            text = f"the stage is {off_um:.1f} um away from where it was left"
            yield self._finding("stage-displaced", "position", off_um, text)

    def _finding(self, trip: str, channel: str, value: float | None, text: str) -> Finding:
        limit = self._within_um if value is not None else None
        return Finding(trip, f"{self._name}.{channel}", value, limit, "um", Action.SHUTTER, text)
