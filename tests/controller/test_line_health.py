"""Line health: published on change, slow where it changes always, described, shown, and in the summary."""

from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from controller.closing import _counters
from controller.display import lines, one_line
from controller.line_health import LineHealth, described
from controller.offline import report_lines
from controller.payload_schemas import payload_schemas
from controller.summary import SCHEMA
from drivers.line_stats import LineStats
from drivers.sharing import SharingStats

ENVELOPE = {"boot": "0" * 32, "seq": 1, "prev": None, "hist": False}


class Record:
    def __init__(self) -> None:
        self.posted: list[tuple[str, Any]] = []
        self.events: list[tuple[str, Any]] = []

    def post(self, kind: str, module: str, body: Any, *, topic: str, retain: bool) -> None:
        assert (kind, retain) == ("state", True)
        jsonschema.validate({**body, **ENVELOPE}, payload_schemas()["state"])
        self.posted.append((topic, body["v"]))

    async def event(self, kind: str, module: str, body: Any) -> None:
        self.events.append((kind, body))

    def taken(self) -> dict[str, Any]:
        posted, self.posted = dict(self.posted), []
        return posted


@pytest.fixture
def world() -> tuple[Record, LineStats, list[float], LineHealth]:
    record, stats, time_s = Record(), LineStats(), [1000.0]
    return record, stats, time_s, LineHealth(record, {"heater": stats}, lambda: time_s[0])  # type: ignore[arg-type]


async def test_errors_are_told_at_once_and_latencies_once_a_minute(
    world: tuple[Record, LineStats, list[float], LineHealth],
) -> None:
    record, stats, time_s, health = world
    health.tell()
    first = record.taken()
    assert first["state/line-heater/errors"] == 0
    assert first["state/line-heater/p99_ms"] is None
    for _ in range(20):  # busy, and without an error
        stats.requests += 1
        stats.replies += 1
        stats.measured(0.04)
        time_s[0] += 1.0
        health.tell()
    assert record.taken() == {}
    stats.timeouts += 1
    time_s[0] += 1.0
    health.tell()
    assert record.taken() == {"state/line-heater/errors": 1, "state/line-heater/timeouts": 1}
    time_s[0] += 60.0
    health.tell()
    told = record.taken()
    assert told["state/line-heater/requests"] == 20
    assert told["state/line-heater/p50_ms"] == pytest.approx(40.0)
    stats.bad_replies += 1
    await health.end()  # the last word is not a second old
    [(kind, body)] = record.events
    assert (kind, body["lines"]["heater"]["bad_replies"]) == ("line_health", 1)
    jsonschema.validate(body["lines"], SCHEMA["properties"]["lines"])


def test_what_is_published_is_described(world: tuple[Record, LineStats, list[float], LineHealth]) -> None:
    record, _, _, health = world
    health.tell()
    told = described({"heater": {"kind": "serial"}})
    names = {f"state/{module}/{name}" for module, body in told.items() for name in body["parameters"]}
    assert names == set(record.taken())
    schema = payload_schemas()["describe"]["properties"]["modules"]
    jsonschema.validate(told, schema)


def test_what_a_person_sees(world: tuple[Record, LineStats, list[float], LineHealth]) -> None:
    _, stats, time_s, health = world
    stats.requests = 7
    stats.measured(0.04)
    status = {"lines": health.now()}
    assert lines(status) == ["heater 40/40 ms"]
    assert "heater" not in one_line(status)  # a plain line is for what is wrong
    stats.timeouts, stats.losses = 2, 1
    time_s[0] += 1.0
    assert "heater 40/40 ms (2 timed out, 1 lost of 7)" in one_line({"lines": health.now()})


async def test_a_line_that_is_shared_tells_how() -> None:
    record, sharing = Record(), SharingStats(waits=3, left_alone=2, worst_late_s=0.0123)
    stats = {"bus": LineStats(), "cell": LineStats()}
    health = LineHealth(record, stats, sharing={"bus": sharing})  # type: ignore[arg-type]
    health.tell()
    told = record.taken()
    assert told["state/line-bus/waits"] == 3
    assert told["state/line-bus/left_alone"] == 2
    assert told["state/line-bus/worst_late_ms"] == 12.3
    assert not any(topic.startswith("state/line-cell/waits") for topic in told)
    await health.end()
    ((_, body),) = record.events
    assert body["lines"]["bus"]["left_alone"] == 2
    assert "waits" not in body["lines"]["cell"]
    tables = described({name: {"kind": "serial"} for name in stats}, ["bus"])
    assert set(told) == {
        f"state/{module}/{name}" for module, table in tables.items() for name in table["parameters"]
    }


async def test_every_counter_is_in_the_summary_with_its_meaning_and_unit() -> None:
    """Of a line that is shared also how: what kept a dead slave from delaying the heater."""
    sharing = {"bus": SharingStats(waits=3, worst_late_s=0.0123, polls=40)}
    health = LineHealth(Record(), {"bus": LineStats(), "cell": LineStats()}, sharing=sharing)  # type: ignore[arg-type]
    host: Any = SimpleNamespace(
        bench=None, health=health, trace=None, recorder=SimpleNamespace(counters={}),
        reduction=SimpleNamespace(unsent_chunks=0, restarts=0), journal=SimpleNamespace(lost_posts=0),
    )  # fmt: skip
    told = _counters(host)["lines"]
    assert (told["bus"]["waits"], told["bus"]["worst_late_ms"], told["bus"]["polls"]) == (3, 12.3, 40)
    assert "waits" not in told["cell"]
    known = SCHEMA["properties"]["lines"]["additionalProperties"]["properties"]
    assert set(told["bus"]) == set(known)
    for name, one in known.items():
        assert one["description"]
        assert one["unit"] == ("ms" if name.endswith("_ms") else "1"), name
    jsonschema.validate(told, SCHEMA["properties"]["lines"])


def test_the_report_shows_the_lines_and_how_one_was_shared() -> None:
    one = {**LineStats(requests=1200, timeouts=3).as_dict(), "p50_ms": 24.26, "reopenings": 2}
    shared = {"waits": 31, "cut": 4, "squeezed": 1, "left_alone": 17, "worst_late_ms": 12.34, "polls": 400}
    text = "".join(map(str, report_lines.lines({"cell": one, "bus": {**one, **shared}})))
    assert "3 not in time" in text
    assert "24.3" in text
    for expected in ("the longest that the first instrument waited for its line / ms", "12.3", "17", "400"):
        assert expected in text
    assert list(report_lines.lines({})) == []
    assert "share" not in "".join(map(str, report_lines.lines({"cell": one})))
