"""What a subscriber has got from a run: everything once, in order, nothing lost."""
# ruff: noqa: S101  # tests only: an assert is what this file is for

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hil_tests.harness import Run
    from tests.controller.wire import Foreign


def backlog(run: Run) -> int:
    """Return how many messages wait in the journal."""
    return int(run.rows("SELECT count(*) FROM outbox")[0][0])


def quiet(foreign: Foreign) -> None:
    """Wait until nothing has arrived for a while."""
    count, since = -1, time.monotonic()
    while time.monotonic() - since < 0.3:
        time.sleep(0.02)
        if len(foreign.messages) != count:
            count, since = len(foreign.messages), time.monotonic()


def came_once_and_in_order(run: Run, foreign: Foreign) -> int:
    """Assert it for every topic, up to the last message that the journal knows; return how many came.

    ``prev`` names the message before on the same topic: an unbroken chain from the first to the last is
    everything. Telemetry is left out: with quality of service 0 no broker keeps it for a subscriber who is
    away. Retained values come again with each new connection, so only the others have an order of arrival.
    """
    seen: dict[tuple[str, int], tuple[str, dict[str, Any]]] = {}
    for topic, body, _ in foreign.bodies():
        if body and topic not in ("status", "tele"):
            seen.setdefault((body["boot"], body["seq"]), (topic, body))
    for late in (False, True):
        arrived = [
            seq for (_, seq), (topic, body) in seen.items()
            if not topic.startswith("state/") and body["hist"] is late
        ]  # fmt: skip
        assert arrived == sorted(arrived)
    for topic, last in run.rows("SELECT topic, chain FROM topics WHERE chain IS NOT NULL"):
        if topic == "tele":
            continue
        chain = sorted((seq, body["prev"]) for (_, seq), (name, body) in seen.items() if name == topic)
        assert chain, f"nothing came on {topic}"
        assert chain[-1][0] == last, topic
        assert [prev for _, prev in chain] == [None, *(seq for seq, _ in chain[:-1])], topic
    return len(seen)
