"""Store and forward, measured: live messages beside a backlog, a frozen reader, a dying broker."""
# ruff: noqa: S101  # tests only: an assert is what this file is for

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.journal import AsyncJournal, Record
from controller.link_server import LinkServer
from hil_tests.delivered import came_once_and_in_order, quiet
from hil_tests.durability.runs import LATE, SITE, TooSlow, station_of
from hil_tests.harness import REPOSITORY, Run, World, ending, eventually, one_scan
from tests.controller.mosquitto import USERS, Mosquitto
from tests.controller.wire import Foreign, LinkProcess

LATE_S = 5.0  # as in link: what is delivered later than this is flagged
PATIENCE_S = 60.0
LIVE_PERIOD_S = 0.05
OLD_S = 3600.0


@dataclass(frozen=True)
class Latency:
    """Wall seconds from a message's commit to its arrival at a subscriber."""

    median_s: float
    p99_s: float
    longest_s: float
    count: int

    @classmethod
    def of(cls, seconds: list[float]) -> Latency:
        """Summarise."""
        ordered = sorted(seconds)
        return cls(
            statistics.median(ordered), ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], ordered[-1],
            len(ordered),
        )  # fmt: skip

    def __str__(self) -> str:
        return (
            f"median {1e3 * self.median_s:.1f} ms, p99 {1e3 * self.p99_s:.1f} ms, "
            f"longest {1e3 * self.longest_s:.1f} ms of {self.count}"
        )


async def live_beside_history(
    folder: Path, broker: Mosquitto, backlog: int
) -> tuple[Latency, Latency, float]:
    """Return the latency of live messages without and with a backlog, and how long the backlog took.

    Everything of the backlog arrives, once, in order and flagged as late; what is live is not.
    """
    async with await AsyncJournal.open(folder / "journal.sqlite", station="bench") as journal:
        await journal.boot("a test")
        server = LinkServer(folder / "link.sock", journal)
        await server.start()
        link = LinkProcess(folder / "journal.sqlite", folder / "link.sock", broker.table)
        listener = Foreign(broker.port, "viewer", USERS["viewer"])
        try:
            assert await asyncio.to_thread(listener.subscribed.wait, PATIENCE_S)
            link.start()
            await _until(lambda: server.health.connected and server.health.echo)
            alone = await _live(journal, listener, "alone", lambda spent: spent > 2.0)
            old = time.time() - OLD_S
            rows = [Record("a", "m", {"n": n}, topic="doc/event", wall_s=old) for n in range(backlog)]
            began, seqs = time.monotonic(), await journal.record_many(rows)
            beside = await _live(journal, listener, "beside", lambda _: _came(listener, seqs))
            took_s = time.monotonic() - began
        finally:
            listener.close()
            link.end()
            await server.stop()
    bodies = [body for topic, body, _ in listener.bodies("doc/event") if body["seq"] in set(seqs)]
    assert [body["seq"] for body in bodies] == seqs  # in order, each once
    assert all(body["hist"] for body in bodies)
    return alone, beside, took_s


def _came(listener: Foreign, seqs: list[int]) -> bool:
    for message in reversed(listener.messages):
        if message.topic.endswith("doc/event"):
            return bool(json.loads(message.payload)["seq"] == seqs[-1])
    return False


async def _live(journal: AsyncJournal, listener: Foreign, name: str, over: Any) -> Latency:
    """Record live messages, 20 a second, until it is over; return how long they took."""
    began, sent = time.monotonic(), {}
    while not over(time.monotonic() - began):
        assert time.monotonic() - began < 600.0, f"{name}: not over within ten minutes"
        seq = await journal.record("a", "m", {"n": name}, topic=f"doc/{name}")
        sent[seq] = time.monotonic()
        await asyncio.sleep(LIVE_PERIOD_S)
    await _until(lambda: len(listener.bodies(f"doc/{name}")) == len(sent))
    found = listener.bodies(f"doc/{name}")
    assert [body["seq"] for _, body, _ in found] == list(sent)
    assert not any(body["hist"] for _, body, _ in found)
    return Latency.of([max(message.timestamp - sent[body["seq"]], 0.0) for _, body, message in found])


async def _until(probe: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not probe():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.01)


@contextlib.contextmanager
def frozen_link(where: str) -> Iterator[None]:
    """Links that are started meanwhile stop themselves (SIGSTOP), inside a read of the journal or outside."""
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "OPERANDO_TEST_SWITCH")}
    os.environ["PYTHONPATH"] = os.pathsep.join((str(REPOSITORY), str(SITE)))
    os.environ["OPERANDO_TEST_SWITCH"] = json.dumps({"role": "controller.link", "freeze": where})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@dataclass(frozen=True)
class Frozen:
    """What control noticed of a link that froze."""

    commits: int
    slowest_s: float
    log_bytes: int  # the write-ahead log at its largest, while link was frozen
    log_after_bytes: int  # and when it had been killed, and control had gone on
    written_bytes: int  # by control, while link was frozen


PAD_BYTES = 30_000  # of one event


async def commits_beside_a_frozen_link(
    folder: Path, broker: Mosquitto, where: str, freeze_s: float
) -> Frozen:
    """Write as fast as can be while link is frozen, until it is killed; and a little after."""
    killed = asyncio.Event()
    async with await AsyncJournal.open(folder / "journal.sqlite", station="bench") as journal:
        await journal.boot("a test")
        server = LinkServer(
            folder / "link.sock", journal, freeze_s=freeze_s, on_frozen=lambda _: killed.set()
        )
        await server.start()
        link = LinkProcess(folder / "journal.sqlite", folder / "link.sock", broker.table)
        log = folder / "journal.sqlite-wal"
        try:
            with frozen_link(where):
                link.start()
            await _until(lambda: _stopped(link))
            waits: list[float] = []
            largest = 0
            while not killed.is_set():
                waits.append(await _commit(journal))
                largest = max(largest, log.stat().st_size)
            frozen = len(waits)
            for _ in range(400):
                waits.append(await _commit(journal))
            return Frozen(frozen, max(waits), largest, log.stat().st_size, frozen * PAD_BYTES)
        finally:
            link.end()
            await server.stop()


async def _commit(journal: AsyncJournal) -> float:
    began = time.monotonic()
    await journal.record("a", "m", {"pad": "x" * PAD_BYTES})
    return time.monotonic() - began


def _stopped(link: LinkProcess) -> bool:
    stat = Path(f"/proc/{link.process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


def outages(world: World, folder: Path, kills: int, freezes: int, *, away_s: float = 6.0) -> str:
    """Kill and freeze the broker of a run as often as told; assert that everything came once, in order.

    The broker is killed without a warning, every other time for longer than what makes a message late, and
    comes back with what it had stored. Returns in words what was delivered.
    """
    broker = Mosquitto(folder / "mosquitto").start()
    recorder = Foreign(
        broker.port, "viewer", USERS["viewer"], name="recorder", persistent=True,
        subscribe=["operando/v1/bench/#"],
    )  # fmt: skip
    try:
        assert recorder.subscribed.wait(PATIENCE_S)
        station = station_of(world, folder / "station.toml", broker.table)
        path = one_scan(folder / "scan.toml", passes=10_000, pixels=(16, 24))
        path.write_text(path.read_text().replace('timeout = "5 min"', 'timeout = "40 h"'))
        with ending(Run.start(folder / "run", path, "--station", str(station))) as run:
            run.until(lambda status: status["scan"] and status["scan"]["n"] >= 1, "a scan")
            for number in range(kills + freezes):
                _strike(run, broker, recorder, freeze=number % 5 == 4 and number // 5 < freezes, away_s=(
                    away_s if number % 2 else 1.0
                ))  # fmt: skip
            if run.status() is None:
                _gone(run)
            run.ask("stop")
            assert run.ended(seconds=PATIENCE_S * 2) in (0, 6)
            gaps = [gap for gap in run.record["gaps"] if gap["module"] != "beam"]  # late readings
            assert not gaps, gaps
            eventually(lambda: recorder.bodies("doc/stop"), "the last document")
            quiet(recorder)
            events = came_once_and_in_order(run, recorder)
            late = _late_ones_are_flagged(run, recorder)
    finally:
        recorder.close()
        broker.stop()
    numbers = [(b["boot"], b["seq"]) for topic, b, _ in recorder.bodies() if b and topic != "status"]
    return (
        f"broker killed {kills} and frozen {freezes} times: {events} events came once and in order, "
        f"{late} of them late and flagged; {len(numbers) - len(set(numbers))} repeats dropped"
    )


def _strike(run: Run, broker: Mosquitto, recorder: Foreign, *, freeze: bool, away_s: float) -> None:
    """Take the broker away for a while, and wait until everything that waited has gone."""
    if freeze:
        broker.freeze()
        time.sleep(away_s)
        broker.thaw()
    else:
        broker.kill()
        time.sleep(away_s)
        broker.start()

    def delivered() -> bool:
        if run.process.poll() is not None:
            _gone(run)
        return int(run.rows("SELECT count(*) FROM outbox")[0][0]) < 20

    eventually(delivered, "everything that waited has gone", tell=run.tell, poll_s=0.1)
    assert recorder.subscribed.wait(PATIENCE_S)


def _gone(run: Run) -> None:
    """Say why a run has ended that should not: TooSlow when this machine was late for the guard."""
    if any(text in run.lines() for text in LATE):
        raise TooSlow(run.lines().splitlines()[-1])
    raise AssertionError(f"the run has ended\n{run.tell()}")


def _late_ones_are_flagged(run: Run, recorder: Foreign) -> int:
    """Assert that what arrived much later than it was written says so; return how many did."""
    written = {seq: wall_s for seq, wall_s in run.rows("SELECT seq, wall_s FROM events")}  # noqa: C416
    offset_s = time.time() - time.monotonic()
    seen: set[int] = set()
    late = 0
    for topic, body, message in recorder.bodies():
        if not body or topic.startswith(("status", "state/", "describe", "alarm/")) or body["seq"] in seen:
            continue  # retained values come again with every connection
        seen.add(body["seq"])
        late += bool(body["hist"])
        if message.timestamp + offset_s - written[body["seq"]] > LATE_S + 3.0:
            assert body["hist"], (topic, body["seq"])
    assert late
    return late
