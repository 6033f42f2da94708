"""The process that reads EPICS PVs for ``epics_pv``: ``python -m drivers.epics_worker CONFIG`` (JSON).

Polls every PV in its period and prints one line of JSON for each round: by channel value, alarm severity and
time stamp, or why there is none. A poll that is not answered in time is a value that is not known: a monitor
would be silent for half a minute when its server hangs. Control meets EPICS libraries only in this process.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

INVALID = 3  # alarm severity of both protocols: the value means nothing
LONGEST_S = 1.0  # for the answer of one PV

Answer = tuple[Any, int, float]  # value, severity, time stamp (Unix seconds)
Read = Callable[[str], Awaitable[Answer]]


def plain(value: Any) -> float | str | None:
    """Return what a PV gave as a number or a text; None for what is neither, and for no number at all."""
    if isinstance(value, bytes):
        value = value.decode("latin-1").rstrip("\0")
    if isinstance(value, str):
        return value[:200]
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


async def look(read: Read, pv: str) -> dict[str, Any]:
    """Poll one PV; whatever goes wrong is told in words."""
    try:
        async with asyncio.timeout(LONGEST_S):
            value, severity, stamp = await read(pv)
    except TimeoutError:
        return {"why": f"{pv} did not answer within {LONGEST_S:g} s"}
    except Exception as error:  # a library of others may let out anything
        return {"why": f"{pv}: {type(error).__name__}: {error}"[:300]}
    if severity >= INVALID:
        return {"why": f"{pv} has the alarm severity INVALID", "stamp": stamp}
    told = plain(value)
    if told is None:
        return {"why": f"{pv} gives no finite number", "stamp": stamp}
    return {"v": told, "severity": severity, "stamp": stamp}


async def channel_access(config: Mapping[str, Any]) -> Read:
    """Return how a PV is read over Channel Access, by caproto."""
    from caproto.asyncio.client import Context

    context = Context()
    pvs = dict(zip(config["pvs"], await context.get_pvs(*config["pvs"]), strict=True))

    async def read(name: str) -> Answer:
        pv = pvs[name]
        if not pv.connected:
            raise ConnectionError("not connected")
        got = await pv.read(data_type="time", timeout=LONGEST_S)
        told = got.metadata
        stamp = told.timestamp.timestamp if hasattr(told.timestamp, "timestamp") else float(told.timestamp)
        return got.data[0], int(told.severity), float(stamp)

    return read


async def pv_access(config: Mapping[str, Any]) -> Read:
    """Return how a PV is read over PVAccess, by p4p."""
    from p4p.client.asyncio import Context

    context = Context(
        "pva",
        conf={
            "EPICS_PVA_ADDR_LIST": config["host"], "EPICS_PVA_AUTO_ADDR_LIST": "NO",
            "EPICS_PVA_BROADCAST_PORT": str(config["port"]),
        },
        useenv=False,
    )  # fmt: skip

    async def read(name: str) -> Answer:
        got = await context.get(name)
        return got, int(got.severity), float(got.timestamp)

    return read


async def serve(config: Mapping[str, Any], read: Read, tell: Callable[[str], None]) -> None:
    """Poll in the given period, for ever; a round that took too long is not caught up."""
    channels: Mapping[str, str] = config["channels"]
    while True:
        began = time.monotonic()
        found = await asyncio.gather(*(look(read, pv) for pv in channels.values()))
        tell(json.dumps(dict(zip(channels, found, strict=True))))
        await asyncio.sleep(max(0.02, config["period_s"] - (time.monotonic() - began)))


async def _parent_gone() -> None:
    """Return when whoever started us has closed our standard input."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


async def _main(config: Mapping[str, Any]) -> None:
    gone = asyncio.create_task(_parent_gone())
    connect = channel_access if config["protocol"] == "ca" else pv_access
    read = await connect(config)

    def tell(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    work = asyncio.create_task(serve(config, read, tell))
    await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    told["pvs"] = list(dict.fromkeys(told["channels"].values()))
    asyncio.run(_main(told))
