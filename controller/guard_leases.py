"""Leases: whoever has switched an output on renews its right to be on; nothing stays on by itself.

An output that is seen to be on without a lease (left on, switched on by another program, or not gone off when
it was told to) is as wrong as one whose lease has run out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from controller.guard_types import Action, Finding
from drivers.clock import Clock

GRACE_S = 2.0  # lab seconds between the end of a lease and the reading that shows the output off
GRACE_WALL_S = 1.0  # and never less of the wall: the instruments answer no faster when lab time runs fast
WORDS = {
    "heater": "the relay of the heater is closed", "beam": "the beam is not blanked",
    "shutter": "the shutter is open", "cell": "the cell is driven",
}  # fmt: skip
ENDED_BY = {
    Action.SAFE: tuple(WORDS), Action.HEATER_OFF: ("heater",), Action.OPEN_CIRCUIT: ("cell",),
    Action.BLANK: ("beam",), Action.SHUTTER: ("beam", "shutter"), Action.HOLD: (),
}  # fmt: skip


class Leases:
    """Which outputs may be on, until when, and since when one is on that may not."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[str, tuple[float, Action]] = {}
        self._wrong_since: dict[str, float] = {}
        self._open_since: float | None = None

    def give(self, output: str, now: float, lifetime_s: float, action: Action) -> None:
        """Give or renew a lease of ``lifetime_s`` lab seconds; ``action`` follows when it runs out."""
        self._until[output] = (now + self._clock.wall_timeout_s(lifetime_s), action)

    def held(self, output: str) -> bool:
        """Return whether an output has a lease."""
        return output in self._until

    def end(self, output: str) -> None:
        """Give a lease back."""
        self._until.pop(output, None)

    def revoke(self, action: Action) -> None:
        """A trip switches these off: from now on they must be seen to be off."""
        for output in ENDED_BY[action]:
            self.end(output)

    def expired(self, now: float) -> Iterator[Finding]:
        """Yield every lease that has run out."""
        for output, (until, action) in list(self._until.items()):
            if now > until:
                del self._until[output]
                yield Finding(
                    f"{output}-lease", output, None, None, "s", action,
                    f"the lease of {output} ran out: whoever had switched it on stopped renewing it",
                )  # fmt: skip

    def seen(self, now: float, on: Mapping[str, bool]) -> Iterator[Finding]:
        """Take what the instruments say is on; yield what is on without a lease for longer than the grace."""
        for output, state in on.items():
            if not state or output in self._until:
                self._wrong_since.pop(output, None)
                continue
            since = self._wrong_since.setdefault(output, now)
            allowed_s = self._grace_s()
            if now - since > allowed_s:
                yield Finding(
                    f"{output}-unleased", output, None, None, "s", Action.SAFE,
                    f"{WORDS[output]} although nobody holds a lease for it, for {now - since:.1f} s "
                    f"(allowed {allowed_s:.1f} s)",
                )  # fmt: skip

    def _grace_s(self) -> float:
        return max(self._clock.wall_timeout_s(GRACE_S), GRACE_WALL_S)

    def relay(self, now: float, closed: bool) -> Iterator[Finding]:
        """Take the state of the heater's relay; yield when it is open although the heater is to be on."""
        if closed or "heater" not in self._until:
            self._open_since = None
            return
        if self._open_since is None:
            self._open_since = now
        allowed_s = self._grace_s()
        if now - self._open_since > allowed_s:
            yield Finding(
                "relay-open", "io.relay", "open", "closed", "", Action.SAFE,
                f"the relay of the heater is open for {now - self._open_since:.1f} s although the heater is "
                f"on (allowed {allowed_s:.1f} s): the watchdog has acted, or the box has restarted",
            )  # fmt: skip
