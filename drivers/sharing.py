"""Who may ask when on a line that several instruments share, so that the one that heats is never late. Pure.

One instrument (or two) is *first*: the heater, or what its loop measures with. All others are guests. Rules:

1. The first one goes before every guest that queues, and speaks over a line that does not fall silent.
2. A guest asks only when its whole exchange, time-out included, ends before the first one is due again. Its
   time-out is cut to the longest gap there is; once it has answered, to what is left of a gap, if that is
   well above what it usually takes.
3. A guest that found no gap for ``PATIENCE_PERIODS`` gets one with the shortest time-out: a line that is too
   slow for everybody makes the guests rare, and the first one late by that time-out at most.
4. A guest that did not answer ``SILENT_COUNT`` times is left alone, for twice as long each time, up to
   ``LONGEST_PAUSE_S``; whoever asks it meanwhile is told so at once. An answer makes it a usual guest again.

Without a first one nothing of this happens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from drivers.errors import NoReply

LINGER_S = 0.004  # the first one may go on with the next exchange of its poll
SPARE_S = 0.005  # between a guest's last moment and the first one's turn
CHARACTERS = 40  # of the shortest exchange worth trying, both ways
ANSWERS_S = 0.03  # what an instrument needs to answer, at least
USUAL = 1.5  # an answer that takes so much longer than usual counts as missing
PATIENCE_PERIODS = 4.0
SILENT_COUNT = 3
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 16.0
UNKNOWN_BUSY = 0.5  # of its period that a first one is taken to be busy before that is known
FORGOTTEN_PERIODS = 3.0  # a first one that has not asked for so long is not waited for


@dataclass
class _First:
    """When an instrument polls, learnt from its requests."""

    period_s: float
    poll_s: float | None = None  # when its last poll began
    end_s: float = 0.0  # when its last exchange ended
    busy_s: float = 0.0  # how long a poll takes, the longest of the last ones
    asking: int = 0


@dataclass
class SharingStats:
    """Counters of one shared line, for ``check`` and line health."""

    waits: int = 0  # a guest had to wait for a gap
    cut: int = 0  # with a shorter time-out than it wanted
    squeezed: int = 0  # rule 3
    left_alone: int = 0  # rule 4
    worst_late_s: float = 0.0  # of the first one: from asking to having the line
    polls: int = 0


@dataclass
class Sharing:
    """The rules for one line.

    Args:
        monotonic: source of time, s.
        quiet_s: silence after a guest that did not answer, s.
        character_s: time of one character, s.
    """

    monotonic: Callable[[], float]
    quiet_s: float
    character_s: float = 0.0
    stats: SharingStats = field(default_factory=SharingStats)
    _first: dict[str, _First] = field(default_factory=dict)
    _silent: dict[str, tuple[int, float]] = field(default_factory=dict)  # times, not before
    _takes_s: dict[str, float] = field(default_factory=dict)  # by guests that have answered

    @property
    def active(self) -> bool:
        """Whether anybody is first."""
        return bool(self._first)

    def first(self, device: str, period_s: float) -> None:
        """Let ``device``, which polls every ``period_s`` wall seconds, go before all others."""
        self._first[device] = _First(period_s, busy_s=UNKNOWN_BUSY * period_s)

    @property
    def first_ones(self) -> tuple[str, ...]:
        """Devices that go first."""
        return tuple(self._first)

    def is_first(self, device: str) -> bool:
        """Return whether ``device`` goes first."""
        return device in self._first

    # --- what the first one does ---------------------------------------------------------------------------

    def asks(self, device: str) -> float:
        """Note that the first one wants the line; return when."""
        one, now_s = self._first[device], self.monotonic()
        one.asking += 1
        if one.poll_s is None or now_s - one.poll_s > 0.5 * one.period_s:
            if one.poll_s is not None and one.end_s > one.poll_s:
                one.busy_s = max(0.9 * one.busy_s, min(one.end_s - one.poll_s, one.period_s))
            one.poll_s = now_s
            self.stats.polls += 1
        return now_s

    def has_line(self, asked_s: float) -> None:
        """Note that the first one, who asked at ``asked_s``, has the line now."""
        self.stats.worst_late_s = max(self.stats.worst_late_s, self.monotonic() - asked_s)

    def ends(self, device: str) -> None:
        """Note that an exchange of the first one is over."""
        one = self._first[device]
        one.asking -= 1
        one.end_s = self.monotonic()

    # --- what guests may do --------------------------------------------------------------------------------

    def check(self, device: str) -> None:
        """Refuse a guest that has not answered for long.

        Raises:
            NoReply: it is left alone for a while.
        """
        times, until_s = self._silent.get(device, (0, 0.0))
        wait_s = until_s - self.monotonic()
        if times >= SILENT_COUNT and wait_s > 0.0:
            self.stats.left_alone += 1
            raise NoReply(
                f"has not answered {times} times, and shares a line with the heater: asked again in "
                f"{wait_s:.1f} s",
                device=device,
            )

    def slot(
        self, device: str, timeout_s: float, *, since_s: float, ready_s: float = 0.0, costs: float = 1.0
    ) -> tuple[float, float]:
        """Return how long a guest must still wait, and the time-out it gets when it asks.

        Args:
            device: the guest.
            timeout_s: what it would like.
            since_s: since when it is the next of all guests.
            ready_s: how long the line must still be silent before anybody can ask.
            costs: time-outs that a request without an answer takes: 2 for a part of the unit that goes
                first, whose late answer must be waited for as long again.
        """
        now_s = self.monotonic()
        fits_s = min(timeout_s, max(self._longest_s() / costs, self._least_s()))
        enough_s = min(fits_s, USUAL * self._takes_s[device] + SPARE_S) if device in self._takes_s else fits_s
        wait_s = max(
            (self._wait_for(one, ready_s + costs * enough_s, now_s) for one in self._first.values()),
            default=0.0,
        )
        if wait_s <= 0.0:
            fits_s = max(min(fits_s, (self._left_s(now_s) - ready_s) / costs), enough_s)
            self.stats.cut += fits_s < timeout_s
            return 0.0, fits_s
        patience_s = PATIENCE_PERIODS * max(one.period_s for one in self._first.values())
        in_poll = any(one.asking or now_s - one.end_s < LINGER_S for one in self._first.values())
        if now_s - since_s > patience_s and not in_poll:
            self.stats.squeezed += 1
            return 0.0, min(timeout_s, self._least_s())
        self.stats.waits += 1
        return wait_s, fits_s

    def answered(self, device: str, took_s: float) -> None:
        """Note that a guest lives, and how long its answer took."""
        self._silent.pop(device, None)
        self._takes_s[device] = max(took_s, 0.9 * self._takes_s.get(device, 0.0))

    def silent(self, device: str) -> None:
        """Note that a guest did not answer."""
        times = self._silent.get(device, (0, 0.0))[0] + 1
        pause_s = min(FIRST_PAUSE_S * 2.0 ** (times - SILENT_COUNT), LONGEST_PAUSE_S)
        self._takes_s.pop(device, None)
        self._silent[device] = (times, self.monotonic() + (pause_s if times >= SILENT_COUNT else 0.0))

    # --- inside --------------------------------------------------------------------------------------------

    def _least_s(self) -> float:
        return CHARACTERS * self.character_s + ANSWERS_S

    def _longest_s(self) -> float:
        """Return the longest time-out that fits between two polls of every first one."""
        gaps = (one.period_s - one.busy_s - LINGER_S for one in self._first.values())
        return min(gaps, default=float("inf")) - self.quiet_s - 2 * SPARE_S

    def _left_s(self, now_s: float) -> float:
        """Return the time-out that still fits before the next poll of any first one."""
        left_s = float("inf")
        for one in self._first.values():
            if not self._forgotten(one, now_s) and one.poll_s is not None:
                left_s = min(left_s, one.poll_s + one.period_s - now_s - self.quiet_s - SPARE_S)
        return left_s

    def _forgotten(self, one: _First, now_s: float) -> bool:
        return one.poll_s is None or now_s - one.poll_s > FORGOTTEN_PERIODS * one.period_s

    def _wait_for(self, one: _First, timeout_s: float, now_s: float) -> float:
        """Return how long one of the first must be waited for."""
        if one.asking:
            return max(one.busy_s, LINGER_S)
        if now_s - one.end_s < LINGER_S:
            return LINGER_S - (now_s - one.end_s)
        if one.poll_s is None or self._forgotten(one, now_s):
            return 0.0
        due_s = one.poll_s + one.period_s
        if now_s + timeout_s + self.quiet_s + SPARE_S <= due_s:
            return 0.0
        return max(due_s + one.busy_s + LINGER_S - now_s, LINGER_S)
