import asyncio
import contextlib
import json
import os
import signal
import stat
import subprocess
import sys

import pytest

from controller.journal import AsyncJournal
from controller.link_control import ControlSide
from controller.link_server import LinkServer


async def until(condition, timeout_s=10.0):
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def journal(tmp_path):
    async with await AsyncJournal.open(tmp_path / "journal.sqlite", station="bench") as journal:
        await journal.boot("test")
        yield journal


@pytest.fixture
async def make(tmp_path, journal):
    """Make servers that are stopped at the end."""
    made = []

    async def server(**more):
        one = LinkServer(tmp_path / "link.sock", journal, **more)
        made.append(one)
        await one.start()
        return one

    yield server
    for one in made:
        await one.stop()


@pytest.fixture
async def dial(tmp_path):
    """Connect as link would, with nothing but a socket."""
    made = []

    async def connect():
        reader, writer = await asyncio.open_unix_connection(tmp_path / "link.sock")
        made.append(writer)

        async def say(told):
            writer.write(told if isinstance(told, bytes) else json.dumps(told).encode() + b"\n")
            await writer.drain()

        return reader, say

    yield connect
    for writer in made:
        writer.close()


async def outbox(journal):
    return (await journal.read(lambda j: j.backlog()))[0]


async def test_only_this_user_can_reach_the_socket(make, tmp_path):
    await make()
    assert stat.S_IMODE((tmp_path / "link.sock").stat().st_mode) == 0o600


async def test_every_commit_with_a_message_wakes_link(make, dial, journal):
    server = await make()
    reader, _ = await dial()
    assert await reader.readexactly(1) == b"!"
    await until(lambda: server.attached)
    await journal.record("a", "m", {})  # says nothing to anybody
    await journal.record("a", "m", {}, topic="tele")
    assert await asyncio.wait_for(reader.readexactly(1), 5.0) == b"!"


async def test_what_was_delivered_leaves_the_outbox(make, dial, journal):
    await make()
    seqs = [await journal.record("a", "m", {}, topic="tele") for _ in range(5)]
    _, say = await dial()
    await say({"ack": [[seqs[0], seqs[1]], [seqs[3], seqs[3]]]})
    await say({"refused": [[seqs[2], "too big"]]})
    for _ in range(500):
        if await journal.read(lambda j: j.events(kind="undeliverable")):
            break
        await asyncio.sleep(0.005)
    assert await outbox(journal) == 2  # the last one, and the count of what was given up


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\n",
        b"hello\n",
        b"[]\n",
        b"7\n",
        b'{"ack": 7}\n',
        b'{"ack": [["a", "b"]]}\n',
        b'{"refused": [[1]]}\n',
        b'{"beat": 3}\n',
        b'{"beat": {"backlog": "many"}}\n',
        b'{"command": {}}\n',
        b'{"command": {"verb": "x", "payload": "\\u20ac", "retain": false}}\n',
        b"\xff\xfe\n",
    ],
)
async def test_rubbish_harms_nobody(make, dial, rubbish):
    heard = []

    async def on_command(message):
        heard.append(message)

    server = await make(on_command=on_command)
    _, say = await dial()
    await say(rubbish)
    await say({"beat": {"connected": True, "echo": True, "backlog": 3, "protocol": "5"}})
    await until(lambda: server.health.connected)
    assert (server.health.echo, server.health.backlog, server.health.protocol) == (True, 3, "5")
    assert heard == []


async def test_a_line_without_an_end_is_cut_off(make, dial):
    server = await make()
    _, say = await dial()
    await until(lambda: server.attached)
    with contextlib.suppress(ConnectionError):
        for _ in range(100):
            await say(b"x" * 65536)
    await until(lambda: not server.attached)


async def test_commands_come_in_order_and_safe_before_all_others(make, dial):
    order, gate = [], asyncio.Event()

    async def on_command(message):
        if message.verb == "pause":
            await gate.wait()
        order.append((message.verb, message.payload, message.retain))

    await make(on_command=on_command)
    reader, say = await dial()
    assert await reader.readexactly(2) == b"c!"
    for verb in ("pause", "stop", "safe"):
        await say({"command": {"verb": verb, "payload": "\u00ff{}", "retain": verb == "stop"}})
    await until(lambda: order)
    assert order == [("safe", b"\xff{}", False)]
    gate.set()
    await until(lambda: len(order) == 3)
    assert order[1:] == [("pause", b"\xff{}", False), ("stop", b"\xff{}", True)]


async def test_without_a_handler_commands_go_nowhere(make, dial):
    server = await make()
    reader, say = await dial()
    assert await reader.readexactly(1) == b"!"  # and no "c"
    await say({"command": {"verb": "safe", "payload": "", "retain": False}})
    await say({"beat": {"connected": True}})
    await until(lambda: server.health.connected)


async def test_a_newer_link_takes_the_place_of_the_old_one(make, dial):
    server = await make()
    old, _ = await dial()
    await until(lambda: server.attached)
    new, say = await dial()
    assert await asyncio.wait_for(old.read(), 5.0) in (b"!", b"")
    await say({"beat": {"connected": True}})
    await until(lambda: server.health.connected)
    assert await new.readexactly(1) == b"!"
    assert server.attached


async def test_waking_a_link_that_does_not_read_costs_nothing(make, dial, journal):
    server = await make()
    await dial()
    await until(lambda: server.attached)
    for _ in range(200_000):
        server.notify()
    assert server._writer.transport.get_write_buffer_size() <= 64


async def test_health_is_gone_with_the_link(make, dial):
    server = await make()
    _, say = await dial()
    await say({"beat": {"connected": True, "echo": True}})
    await until(lambda: server.health.connected)
    await say(b"")
    server._writer.close()
    await until(lambda: not server.attached)
    assert not server.health.connected


async def test_goodbye_is_said_and_the_socket_taken_away(make, dial, tmp_path):
    server = await make()
    reader, _ = await dial()
    await until(lambda: server.attached)
    await server.stop()
    assert (await reader.read()).endswith(b".")
    assert not (tmp_path / "link.sock").exists()


async def test_a_silent_link_is_killed_and_a_talking_one_is_not(make, tmp_path):
    killed = []
    server = await make(freeze_s=0.3, on_frozen=killed.append)
    code = (
        "import socket, sys, time\n"
        "link = socket.socket(socket.AF_UNIX)\n"
        "link.connect(sys.argv[1])\n"
        "for _ in range(int(sys.argv[2])):\n"
        "    link.sendall(b'{\"beat\": {}}\\n')\n"
        "    time.sleep(0.05)\n"
        "time.sleep(0 if int(sys.argv[2]) else 60)\n"
    )
    for beats, expected in ((16, 0), (0, -signal.SIGKILL)):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "link.sock"), str(beats)])
        await until(lambda process=process: process.poll() is not None)
        assert process.returncode == expected
    await until(lambda: killed == [process.pid])
    assert os.getpid() not in killed
    assert not server.attached


async def test_links_side_finds_control_again(make, tmp_path):
    side = ControlSide(tmp_path / "link.sock")
    running = asyncio.ensure_future(side.run())
    side.beat(connected=True)  # to nobody
    assert side.left_s is None
    for _ in range(2):
        server = await make()
        await until(lambda: side.attached)
        side.acknowledge([3, 1, 2])
        side.beat(connected=True)
        await until(lambda server=server: server.health.connected)
        assert not side.ended
        await server.stop()
        await until(lambda: not side.attached)
        assert side.ended
        assert side.left_s >= 0
    running.cancel()


async def test_what_link_did_not_hand_over_is_told_once(make, dial):
    told, ended = [], []

    async def end():
        ended.append(True)

    server = await make(on_dropped=told.append, on_end=end)
    _, say = await dial()
    for counts in ({"too many": 5}, {"too many": 5}, {"too many": 7, "too large": 1}, {}):
        await say({"beat": {"dropped": counts}})
    await until(lambda: len(told) == 2)
    assert told == [{"too many": 5}, {"too many": 2, "too large": 1}]
    _, say = await dial()  # a link that starts anew counts from the beginning
    await say({"beat": {"dropped": {"too many": 3}}})
    await until(lambda: len(told) == 3)
    assert told[-1] == {"too many": 3}
    for rubbish in ({"dropped": 7}, {"dropped": {"x": "y"}}, {"dropped": {"x": -5}}):
        await say({"beat": rubbish})
    await say({"beat": {"backlog": 77}})
    await until(lambda: server.health.backlog == 77)
    assert len(told) == 3
    await server.stop()
    assert ended == [True]
