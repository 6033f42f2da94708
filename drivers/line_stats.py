"""Counters of one line, and how long its answers took: published as line health.

Latencies go into a histogram with a fixed number of buckets, so that a run of weeks costs no memory and a
percentile is known to 9 %. Pure: the line hands in the seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

FIRST_S = 1e-5  # upper edge of the first bucket
PER_OCTAVE = 8
BUCKETS = 24 * PER_OCTAVE  # the last one ends at 168 s


@dataclass
class Latencies:
    """Histogram of the time from a request to its whole reply; buckets grow by 2 ** (1/8)."""

    counts: list[int] = field(default_factory=lambda: [0] * BUCKETS)

    def add(self, seconds: float) -> None:
        """Count one reply."""
        steps = math.ceil(PER_OCTAVE * math.log2(seconds / FIRST_S)) if seconds > FIRST_S else 0
        self.counts[min(steps, BUCKETS - 1)] += 1

    def quantile_s(self, fraction: float) -> float | None:
        """Return the time within which this fraction of the replies came, s; None without any.

        It is the upper edge of a bucket, so at most 9 % too long, never too short.
        """
        wanted, seen = fraction * sum(self.counts), 0
        for bucket, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                return float(FIRST_S * 2.0 ** (bucket / PER_OCTAVE))
        return None

    def filled(self) -> list[tuple[float, int]]:
        """Return (upper edge in s, replies) of every bucket that has any."""
        return [(FIRST_S * 2.0 ** (n / PER_OCTAVE), count) for n, count in enumerate(self.counts) if count]


@dataclass
class LineStats:
    """Counters of one line since it was built."""

    requests: int = 0
    replies: int = 0
    timeouts: int = 0
    bad_replies: int = 0
    drained_bytes: int = 0
    interrupted: int = 0
    latency_max_s: float = 0.0
    latency_sum_s: float = 0.0
    last_reply_monotonic_s: float | None = field(default=None)
    openings: int = 0
    failed_openings: int = 0
    losses: int = 0  # of the open port: unplugged, reset, closed by the other end
    sent_bytes: int = 0
    received_bytes: int = 0
    latencies: Latencies = field(default_factory=Latencies)

    @property
    def reopenings(self) -> int:
        """How often the port was opened again."""
        return max(self.openings - 1, 0)

    @property
    def errors(self) -> int:
        """Replies that did not come or were bad, and ports that were lost or stayed shut."""
        return self.timeouts + self.bad_replies + self.losses + self.failed_openings

    def measured(self, seconds: float) -> None:
        """Count the latency of one good reply."""
        self.latency_sum_s += seconds
        self.latency_max_s = max(self.latency_max_s, seconds)
        self.latencies.add(seconds)

    def as_dict(self) -> dict[str, Any]:
        """Return what is published: counters, and latencies in ms (None while no reply was timed)."""
        timed = sum(self.latencies.counts)
        in_ms = {f"p{part}_ms": self.latencies.quantile_s(part / 100.0) for part in (50, 99)}
        worst_s = self.latency_max_s if timed else None
        for name, seconds in in_ms.items():  # no percentile is longer than the longest
            in_ms[name] = None if seconds is None or worst_s is None else 1e3 * min(seconds, worst_s)
        return {
            "requests": self.requests, "replies": self.replies, "timeouts": self.timeouts,
            "bad_replies": self.bad_replies, "interrupted": self.interrupted,
            "drained_bytes": self.drained_bytes, "openings": self.openings, "reopenings": self.reopenings,
            "failed_openings": self.failed_openings, "losses": self.losses, "sent_bytes": self.sent_bytes,
            "received_bytes": self.received_bytes, "errors": self.errors, "timed": timed,
            "mean_ms": 1e3 * self.latency_sum_s / timed if timed else None, **in_ms,
            "max_ms": None if worst_s is None else 1e3 * worst_s,
        }  # fmt: skip
