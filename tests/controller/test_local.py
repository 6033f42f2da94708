"""The local socket, driven as a shell user would: with plain bytes."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from controller.local import LocalError, LocalServer, ask


async def echo(request: dict[str, Any]) -> dict[str, Any]:
    return {"ok": True, "did": request["do"]}


async def raw(path: Path, data: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(data)
    line = await asyncio.wait_for(reader.readline(), 2.0)
    writer.close()
    return line


async def test_one_line_is_answered_by_one_line(tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = LocalServer(path, echo)
    await server.start()
    assert json.loads(await raw(path, b'{"do": "status"}\n')) == {"ok": True, "did": "status"}
    assert (path.stat().st_mode & 0o777) == 0o600
    await server.stop()


@pytest.mark.parametrize("line", [b"not json\n", b"{}\n", b"[1]\n", b"\xff\xfe\n"])
async def test_rubbish_is_refused_and_the_server_goes_on(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "s"
    server = LocalServer(path, echo)
    await server.start()
    assert json.loads(await raw(path, line))["ok"] is False
    assert json.loads(await raw(path, b'{"do": "status"}\n'))["ok"] is True
    await server.stop()


async def test_a_watcher_gets_every_event_in_order(tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = LocalServer(path, echo)
    await server.start()
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b'{"do": "watch"}\n')
    assert json.loads(await reader.readline())["ok"]
    for number in range(100):
        server.broadcast({"n": number})
    assert [json.loads(await reader.readline())["n"] for _ in range(100)] == list(range(100))
    writer.close()
    await server.stop()


async def test_a_watcher_that_never_reads_is_hung_up_on(tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = LocalServer(path, echo)
    await server.start()
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b'{"do": "watch"}\n')
    await reader.readline()
    for _ in range(400):
        server.broadcast({"text": "x" * 10_000})
    assert not server._watchers
    writer.close()
    await server.stop()


def test_a_host_that_dies_while_it_is_asked_is_said_plainly(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def die() -> None:
            peer, _ = listener.accept()
            peer.close()  # with the request unread: the kernel resets the connection

        thread = threading.Thread(target=die)
        thread.start()
        with pytest.raises(LocalError, match="hung up"):
            ask(path, {"do": "status"})
        thread.join()


def test_nobody_there_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="no host is running here"):
        ask(tmp_path / "none", {"do": "status"})


def test_a_process_that_ends_cuts_its_callers_off_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "host.sock"
    with socket.socket(socket.AF_UNIX) as caller:

        async def host() -> None:
            server = LocalServer(path, echo)
            await server.start()
            caller.connect(str(path))
            caller.sendall(b'{"do": "status"}\n')
            await asyncio.sleep(0.05)  # it is being served
            await server.stop()

        asyncio.run(host())
        assert [record.getMessage() for record in caplog.records] == []
