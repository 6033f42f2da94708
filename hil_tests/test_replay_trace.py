"""Recorded wires as twins: what a user's instruments said, said again to the drivers of today.

``traces/heater_bad_pair.trace`` is ``operando check --trace-wire`` while the heater's pair was bad: noise in
front of a reply, a bit flipped in the function of another, and a reply that came 0.25 s late, after its
request had been repeated, so that the same write was confirmed twice and the second time in the middle of the
next exchange.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from controller.config import load_station
from controller.devices import build, introduce
from drivers.clock import RealClock
from drivers.errors import NoReply
from drivers.ports import open_line
from drivers.wire_trace import WireTrace
from hil_tests.harness import World, as_at_a_terminal, operando
from hil_tests.sim.replay_trace import Exchange, Player, Replay, read

TRACES = Path(__file__).parent / "traces"


async def test_a_late_reply_of_the_heater_is_not_taken_for_the_next(tmp_path: Path) -> None:
    replay = Replay(read(TRACES / "heater_bad_pair.trace"))
    await replay.start()
    (tmp_path / "station.toml").write_text(replay.station_file())
    bench = build(load_station(tmp_path / "station.toml"), RealClock(), only=["heater"])
    assert bench.heater is not None
    try:
        identity, _ = await introduce(bench.heater)
        reading = await bench.heater.read()
    finally:
        await bench.close()
        await replay.stop()
    assert identity.model == "3200 series"
    assert reading.temperature_k == pytest.approx(298.15, abs=0.05)  # what the recorded controller showed
    assert reading.output_fraction == 0.0
    stats = bench.lines["heater"].stats
    assert (stats.timeouts, stats.bad_replies) == (1, 2)  # as in the recording
    counters = replay.counters()["heater"]
    assert (counters["unknown"], counters["unplayed"]) == (0, 0)


def test_what_was_recorded_here_is_played_back_by_the_command_line(tmp_path: Path) -> None:
    """A real check of the bench, through ``operando bench --replay-trace``, read by ``operando check``."""
    trace, again = tmp_path / "first.trace", tmp_path / "again.trace"
    world = World.start(tmp_path / "bench", speed=1.0)
    try:
        first = _devices(operando("check", str(world.station), "--json", "--trace-wire", str(trace)))
    finally:
        world.stop()
    command = [sys.executable, "-m", "controller", "bench", "--replay-trace", str(trace), "--dir"]
    as_at_a_terminal()
    process = subprocess.Popen(
        [*command, str(tmp_path / "replay")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    station = process.stdout.readline().strip()
    found = _devices(operando("check", station, "--json", "--trace-wire", str(again)))
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=20.0)
    for key in ("identity", "reading", "notes"):
        assert {name: row[key] for name, row in found.items()} == {
            name: row[key] for name, row in first.items()
        }
    assert all(line["unknown"] == 0 for line in json.loads(told)["lines"].values())
    requests = {name: [e.request for e in line] for name, line in read(again).lines.items()}
    recorded = {name: [e.request for e in line] for name, line in read(trace).lines.items()}
    assert {name: requests[name] for name in ("heater", "cell")} == {
        name: recorded[name] for name in ("heater", "cell")
    }
    assert len(requests["io"]) == len(recorded["io"])  # past a watchdog key that is another one today


def _devices(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    assert done.returncode == 0, done.stdout + done.stderr
    return {row["name"]: row for row in json.loads(done.stdout)["devices"]}


class Ear:
    """Takes what a player sends."""

    def __init__(self) -> None:
        self.heard: list[bytes | str] = []

    def send(self, data: bytes) -> None:
        self.heard.append(data)

    def lose(self) -> None:
        self.heard.append("lost")

    def restore(self) -> None:
        self.heard.append("back")


async def test_requests_in_pieces_together_and_unknown() -> None:
    ear = Ear()
    known = [Exchange(b"t\n", [(0.0, b"tes\n")]), Exchange(b"i\n", [(0.0, b"i1\n")]), Exchange(b"Z\n")]
    player = Player(known, ear)
    for piece in (b"t", b"\ni", b"\n", b"what?"):
        player.receive(piece)
    await asyncio.sleep(0.3)
    player.receive(b"t\n")  # once more, from the recording's beginning
    await asyncio.sleep(0.05)
    assert ear.heard == [b"tes\n", b"i1\n", b"tes\n"]
    assert (player.answered, player.unknown, player.unplayed) == (3, 1, 1)


async def test_transaction_numbers_and_keys_are_those_of_today() -> None:
    ear = Ear()
    write, ask, done = "0010f0aa000204", "0003f0aa0002", "0010f0aa0002"
    known = [
        Exchange(bytes.fromhex(f"00070000000b{write}aabbccdd"), [(0, bytes.fromhex(f"000700000006{done}"))]),
        Exchange(bytes.fromhex(f"000800000006{ask}"), [(0.0, bytes.fromhex("000800000007000304aabbccdd"))]),
    ]  # fmt: skip
    player = Player(known, ear, tcp=True)
    player.receive(bytes.fromhex(f"01010000000b{write}11223344"))
    player.receive(bytes.fromhex(f"010200000006{ask}"))
    await asyncio.sleep(0.05)
    assert ear.heard == [
        bytes.fromhex("0101000000060010f0aa0002"),
        bytes.fromhex("01020000000700030411223344"),
    ]
    player.receive(bytes.fromhex("0103000000060003ffff0001"))
    assert player.unknown == 1


async def test_a_cable_that_was_pulled_is_pulled_again(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_text(
        '# operando-wire-trace 1\n# {"lines": {"x": {"kind": "serial", "port": "/dev/gone", "baud": 9600}}}\n'
        "0.0 x ! opened /dev/gone\n0.1 x > 610a\n0.11 x < 410a\n0.2 x > 620a\n0.25 x ! lost /dev/gone\n"
        "0.6 x ! opened /dev/gone\n0.7 x > 630a\n0.71 x < 430a\n1.0 - ! dropped 3\n"
    )
    recording = read(trace)
    assert recording.dropped == 3
    replay = Replay(recording)
    await replay.start()
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the library reports the failed write
    record = WireTrace(tmp_path / "again", {"lines": {}})
    line = open_line("x", replay.places["x"], trace=record.of("x"))
    whole = lambda buffer: buffer if buffer.endswith(b"\n") else None  # noqa: E731
    try:
        assert await line.ask(b"a\n", whole, timeout_s=1.0) == b"A\n"
        with pytest.raises(NoReply, match="link lost"):
            await line.ask(b"b\n", whole, timeout_s=1.0)
        async with asyncio.timeout(10.0):
            while True:
                try:
                    assert await line.ask(b"c\n", whole, timeout_s=1.0) == b"C\n"
                except NoReply:
                    await asyncio.sleep(0.05)
                    continue
                break
    finally:
        await line.close()
        await replay.stop()
        record.close()
    assert line.stats.reopenings == 1
    [first, second, third] = [e for e in read(tmp_path / "again").lines["x"] if e.request]
    assert (first.answers[0][1], second.lost_s is not None, third.answers[0][1]) == (b"A\n", True, b"C\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hello\n", "does not begin with"),
        ("# operando-wire-trace 1\n# {}\n0.1 x > 0g\n", "line 3: non-hexadecimal"),
        ("# operando-wire-trace 1\n# {}\n0.1 x\n", "line 3"),
        ("# operando-wire-trace 1\n# {}\n0.1 x > 00\n0.2 x ? 00\n", "line 4: unknown sign"),
        ("# operando-wire-trace 1\n# {}\nnan x > 00\n", "line 3: no time"),
        ("# operando-wire-trace 1\n# nothing\n", "line 2: "),
        ("# operando-wire-trace 1\n# [1]\n", "line 2: no object"),
        ('# operando-wire-trace 1\n# {"lines": 3}\n', "line 2: no object"),
        (
            '# operando-wire-trace 1\n# {"lines": {"x": {"kind": "gpib"}}}\n',
            "'x' is none of serial",
        ),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "trace").write_text(text)
    with pytest.raises(ValueError, match=says):
        read(tmp_path / "trace")
