"""How the lines are: published while a run goes on, in ``status``, and in the journal at its end.

Topics ``state/line-<name>/<parameter>``, retained. What counts errors is told within a second of a change,
the rest once a minute: health must not fill the journal that it is published through.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from controller.payloads import parameter, state

if TYPE_CHECKING:
    from controller.record import Recorder
    from drivers.line_stats import LineStats
    from drivers.sharing import SharingStats

LOOK_PERIOD_S = 1.0  # wall
SLOW_PERIOD_S = 60.0
PROMPT = "errors", "timeouts", "bad_replies", "losses", "reopenings"
SLOW = "requests", "p50_ms", "p99_ms", "max_ms"
PARAMETERS = {
    "requests": parameter("requests sent since the host began", kind="integer"),
    "errors": parameter("timeouts, bad replies, lost connections and failed openings", kind="integer"),
    "timeouts": parameter("replies that did not come in time", kind="integer"),
    "bad_replies": parameter("replies that were damaged or not to what was asked", kind="integer"),
    "losses": parameter("times that the open port was lost", kind="integer"),
    "reopenings": parameter("times that the port was opened again", kind="integer"),
    "p50_ms": parameter("half of the replies came within", unit="ms"),
    "p99_ms": parameter("99 of 100 replies came within", unit="ms"),
    "max_ms": parameter("the slowest reply", unit="ms"),
}


UNITS = {"p50_ms": "ms", "p99_ms": "ms", "max_ms": "ms", "worst_late_ms": "ms"}
SHARED = {  # of a line that several instruments share, once a minute
    "waits": parameter("times that an instrument waited for a gap", kind="integer"),
    "cut": parameter("requests with less time than they wanted: the first comes first", kind="integer"),
    "squeezed": parameter("requests between two polls for which there was no gap", kind="integer"),
    "left_alone": parameter("requests not sent, because the instrument had been silent", kind="integer"),
    "worst_late_ms": parameter("the longest that the first instrument waited for its line", unit="ms"),
}


MORE = {  # not published, in ``summary.json`` alone
    "replies": parameter("replies that were whole and to what was asked", kind="integer"),
    "interrupted": parameter("requests that something urgent ended", kind="integer"),
    "drained_bytes": parameter("bytes that nobody had asked for, thrown away", kind="integer"),
    "openings": parameter("times that the port was opened", kind="integer"),
    "failed_openings": parameter("times that the port could not be opened", kind="integer"),
    "sent_bytes": parameter("bytes sent", kind="integer"),
    "received_bytes": parameter("bytes received", kind="integer"),
    "timed": parameter("replies whose time was measured", kind="integer"),
    "mean_ms": parameter("mean time of a reply", unit="ms"),
    "polls": parameter("polls of the first instrument of a shared line", kind="integer"),
}
EVERY: Mapping[str, Mapping[str, Any]] = {**PARAMETERS, **MORE, **SHARED}


def line_schema() -> dict[str, Any]:
    """Return the JSON Schema of one line in ``summary.json``: each counter with its meaning and unit."""
    return {
        "type": "object",
        "additionalProperties": {"type": ["number", "null"]},
        "properties": {
            name: {
                "type": ["integer" if told["type"] == "integer" else "number", "null"],
                "description": told["description"],
                "unit": told.get("unit") or "1",
            }
            for name, told in EVERY.items()
        },
    }


def module(line: str) -> str:
    """Return the name of a line as a module of ``state`` and ``describe``."""
    return f"line-{line}"


def described(lines: Mapping[str, Mapping[str, Any]], shared: Collection[str] = ()) -> dict[str, Any]:
    """Return what ``describe`` says of the lines: by name, their tables in the station file."""
    return {
        module(name): {
            "roles": [], "description": f"{table['kind']} line {name}",
            "parameters": {**PARAMETERS, **(SHARED if name in shared else {})},
        }
        for name, table in lines.items()
    }  # fmt: skip


class LineHealth:
    """Looks at the counters of the lines once a second.

    Args:
        recorder: where it is published and journalled.
        stats: of the lines, by name.
        monotonic: wall seconds, for tests.
        sharing: of the lines that several instruments share, by name.
    """

    def __init__(
        self,
        recorder: Recorder,
        stats: Mapping[str, LineStats],
        monotonic: Callable[[], float] = time.monotonic,
        sharing: Mapping[str, SharingStats] | None = None,
    ) -> None:
        self._recorder = recorder
        self._stats = stats
        self._sharing = sharing or {}
        self._monotonic = monotonic
        self._looked_s = self._slow_s = -float("inf")
        self._now: dict[str, dict[str, Any]] = {}
        self._told: dict[tuple[str, str], Any] = {}

    def now(self) -> dict[str, dict[str, Any]]:
        """Return the counters by line, at most a second old."""
        now_s = self._monotonic()
        if now_s - self._looked_s >= LOOK_PERIOD_S:
            self._looked_s = now_s
            self._now = {
                name: {**stats.as_dict(), **_shared(self._sharing.get(name))}
                for name, stats in self._stats.items()
            }
        return self._now

    def tell(self) -> None:
        """Publish what is different from what was last told."""
        slow = self._monotonic() - self._slow_s >= SLOW_PERIOD_S
        if slow:
            self._slow_s = self._monotonic()
        for line, counters in self.now().items():
            for name in (*PROMPT, *((*SLOW, *(SHARED if line in self._sharing else ())) if slow else ())):
                if self._told.get((line, name), "") != counters[name]:
                    self._told[line, name] = counters[name]
                    body = state(counters[name], q="good", unit=UNITS.get(name))
                    topic = f"state/{module(line)}/{name}"
                    self._recorder.post("state", module(line), body, topic=topic, retain=True)

    def last(self) -> dict[str, dict[str, Any]]:
        """Return the counters of the whole run, as they are this very moment."""
        self._looked_s = -float("inf")
        return self.now()

    async def end(self) -> None:
        """Commit the counters of the whole run."""
        await self._recorder.event("line_health", "host", {"lines": self.last()})


def _shared(stats: SharingStats | None) -> dict[str, float]:
    """Return the counters of how a line is shared; of a line of one instrument there are none."""
    if stats is None:
        return {}
    return {
        "waits": stats.waits, "cut": stats.cut, "squeezed": stats.squeezed, "left_alone": stats.left_alone,
        "worst_late_ms": round(1e3 * stats.worst_late_s, 1), "polls": stats.polls,
    }  # fmt: skip
