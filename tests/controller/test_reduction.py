"""Control's end of the reduce socket, against a peer written here from the description of the frames."""

from __future__ import annotations

import asyncio
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import cbor2
import pytest

from controller.reduction import Reduction


async def receive(reader: asyncio.StreamReader) -> dict[str, Any]:
    (size,) = struct.unpack(">I", await asyncio.wait_for(reader.readexactly(4), 2.0))
    message: dict[str, Any] = cbor2.loads(await asyncio.wait_for(reader.readexactly(size), 2.0))
    return message


def frame(message: dict[str, Any]) -> bytes:
    body = cbor2.dumps(message)
    return struct.pack(">I", len(body)) + body


class Setup:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.path = folder / "reduce.sock"
        self.heard: list[dict[str, Any]] = []
        self.reduction = Reduction(self.path, self.heard.append, folder / "raw", **settings)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.path))


@pytest.fixture
async def setup(tmp_path: Path) -> Any:
    made = Setup(tmp_path)
    await made.reduction.start()
    yield made
    await made.reduction.stop()


async def test_messages_arrive_in_order(setup: Setup) -> None:
    reader, writer = await setup.connect()
    writer.write(frame({"k": "ready"}))
    await asyncio.wait_for(setup.reduction.ready.wait(), 2.0)
    setup.reduction.send({"k": "run", "run": "r"})
    assert setup.reduction.send_events({"k": "events", "i": 0, "words": b"\x00\x01\x02\x03"})
    assert (await receive(reader))["run"] == "r"
    assert (await receive(reader))["words"] == b"\x00\x01\x02\x03"
    writer.close()


async def test_one_that_comes_late_or_again_gets_everything_but_the_events(setup: Setup) -> None:
    setup.reduction.send({"k": "run", "run": "r"})
    setup.reduction.send({"k": "scan", "scan": 1})
    assert not setup.reduction.send_events({"k": "events", "i": 0, "words": b"1234"})
    assert setup.reduction.unsent_chunks == 1
    for _ in range(2):
        reader, writer = await setup.connect()
        assert [(await receive(reader))["k"] for _ in range(2)] == ["run", "scan"]
        writer.close()
        await asyncio.sleep(0.01)


async def test_a_reader_that_does_not_read_never_blocks_and_is_counted(setup: Setup) -> None:
    _, writer = await setup.connect()
    writer.write(frame({"k": "ready"}))
    await asyncio.wait_for(setup.reduction.ready.wait(), 2.0)
    for number in range(700):  # 700 x 16 kB is more than the backlog and the socket together
        setup.reduction.send_events({"k": "events", "i": number, "words": bytes(16384)})
    assert setup.reduction.unsent_chunks > 100
    writer.close()


@pytest.mark.parametrize("rubbish", [b"\xff\xff\xff\xff", frame([1, 2])])  # type: ignore[arg-type]
async def test_rubbish_does_not_reach_the_host(setup: Setup, rubbish: bytes) -> None:
    _, writer = await setup.connect()
    writer.write(rubbish)
    await asyncio.sleep(0.02)
    writer.close()
    _, writer = await setup.connect()
    writer.write(frame({"k": "progress", "scan": 1}))
    for _ in range(100):
        if setup.heard:
            break
        await asyncio.sleep(0.01)
    assert setup.heard == [{"k": "progress", "scan": 1}]
    writer.close()


# --- a reduce that hangs -----------------------------------------------------------------------------------

HANGING = """
import socket, struct, sys, time
import cbor2
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[1])
body = cbor2.dumps({"k": "ready"})
link.sendall(struct.pack(">I", len(body)) + body)
time.sleep(60)
"""


class Hanging:
    """A reduce process that says ready, and nothing more."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", HANGING, str(path)])

    async def ended(self) -> int:
        return await asyncio.wait_for(asyncio.to_thread(self.process.wait), 20.0)


@pytest.fixture
async def impatient(tmp_path: Path) -> Any:
    told: list[str] = []
    made = Setup(tmp_path, hangs_s=0.2, on_hang=told.append)
    made.told = told  # type: ignore[attr-defined]
    await made.reduction.start()
    yield made
    await made.reduction.stop()


async def test_one_that_answers_nothing_is_killed(impatient: Any) -> None:
    hanging = Hanging(impatient.path)
    await asyncio.wait_for(impatient.reduction.ready.wait(), 20.0)
    await asyncio.sleep(0.5)
    assert hanging.process.poll() is None  # it owes nothing
    impatient.reduction.send({"k": "pass_end", "scan": 1, "n": 1})
    assert await hanging.ended() == -signal.SIGKILL
    assert impatient.told == ["reduce is started again: it answers nothing"]
    assert not impatient.reduction.ready.is_set() or impatient.reduction.restarts


async def test_one_that_answers_is_left_alone(impatient: Any) -> None:
    reader, writer = await impatient.connect()
    writer.write(frame({"k": "ready"}))
    await asyncio.wait_for(impatient.reduction.ready.wait(), 2.0)
    impatient.reduction.send({"k": "pass_end", "scan": 1, "n": 1})
    writer.write(frame({"k": "pass_checked", "scan": 1, "n": 1}))
    await asyncio.sleep(0.5)
    assert impatient.told == []
    assert impatient.reduction.restarts == 0
    writer.close()
    del reader


async def test_the_final_result_comes_from_a_successor(impatient: Any) -> None:
    hanging = Hanging(impatient.path)
    await asyncio.wait_for(impatient.reduction.ready.wait(), 20.0)
    finishing = asyncio.create_task(impatient.reduction.finish(1.5))
    assert await hanging.ended() == -signal.SIGKILL
    reader, writer = await impatient.connect()
    writer.write(frame({"k": "ready"}))
    while (await receive(reader))["k"] != "finish":
        pass
    for _ in range(3):  # it takes longer than the patience, but it says something
        await asyncio.sleep(0.7)
        writer.write(frame({"k": "progress"}))
    writer.write(frame({"k": "result", "result": 7}))
    assert await finishing
    assert impatient.heard[-1] == {"k": "result", "result": 7}
    assert impatient.reduction.restarts == 1
    writer.close()


async def test_without_anyone_there_is_no_final_result(impatient: Any) -> None:
    assert not await impatient.reduction.finish(0.05)
