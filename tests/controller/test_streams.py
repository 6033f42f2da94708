"""Connections between our processes leave nothing behind that asyncio would complain about."""

from __future__ import annotations

import asyncio
import gc
import socket
from pathlib import Path

import pytest

from controller.streams import hang_up, peer_pid


def unseen() -> list[BaseException]:
    """Return the errors for which asyncio will write a traceback when it throws their futures away."""
    gc.collect()
    futures = [one for one in gc.get_objects() if isinstance(one, asyncio.Future)]
    return [error for one in futures if one._log_traceback and (error := one._exception) is not None]


@pytest.mark.asyncio
async def test_a_peer_that_is_gone_while_it_is_written_to_leaves_no_traceback(tmp_path: Path):
    """As when the supervisor is gone: control wrote to a process that had ended with it."""
    before = unseen()
    ended = asyncio.Event()
    told: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.append(writer)
        assert peer_pid(writer) > 0
        try:
            await reader.read()
        except ConnectionError:
            pass
        finally:
            await hang_up(writer)
            ended.set()

    path = str(tmp_path / "s")
    server = await asyncio.start_unix_server(serve, path)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.setblocking(False)
        await asyncio.get_running_loop().sock_connect(peer, path)
        while not told:
            await asyncio.sleep(0)
        peer.close()
        told[0].write(b"to nobody")  # a broken pipe, at once
        async with asyncio.timeout(5.0):
            await ended.wait()
    server.close()
    assert [error for error in unseen() if error not in before] == []
