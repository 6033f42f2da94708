"""Control's end of the reduce socket, against a peer written here from the description of the frames."""

from __future__ import annotations

import asyncio
import struct
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
    def __init__(self, folder: Path) -> None:
        self.path = folder / "reduce.sock"
        self.heard: list[dict[str, Any]] = []
        self.reduction = Reduction(self.path, self.heard.append, folder / "raw")

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
