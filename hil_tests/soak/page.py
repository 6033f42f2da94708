"""Soak item: twenty pages and one that never reads, maps of 1 MB twice a second, and nothing grows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import statistics
import struct
import sys
import time
from pathlib import Path

import aiohttp
import numpy as np

from controller import payloads
from controller.paths import StateDir
from controller.reduce.products import encode
from controller.web.address import page_address
from hil_tests.soak.runner import ROOT, Failed, Workshop
from tests.controller.mosquitto import USERS, Mosquitto
from tests.controller.test_link import Station

LASTS_S = 600.0
VIEWERS = 20
PERIOD_S = 0.5
SIDE = 512  # of a map of 32-bit numbers: 1 MB
SETTLED_S = 60.0  # memory is compared from here on
GROWTH_MB = 16.0
MOST_MB = 260.0
RUN = "20261122-000000-page"


class Viewer:
    """Counts what comes, and how old it is."""

    def __init__(self) -> None:
        self.maps = 0
        self.newest = -1
        self.latency_s: list[float] = []
        self.behind = 0

    async def follow(self, session: aiohttp.ClientSession, address: str) -> None:
        """Read until the connection ends."""
        origin = address.rstrip("/")
        async with session.ws_connect(address + "live", origin=origin, max_msg_size=0) as ws:
            async for message in ws:
                if message.type == aiohttp.WSMsgType.BINARY:
                    (size,) = struct.unpack_from("<I", message.data)
                    header = json.loads(message.data[4 : 4 + size])
                    if header["k"] == "product":
                        self.maps += 1
                        self.newest = max(self.newest, header["passes"][0])
                        self.latency_s.append(time.time() - header["made"])
                elif message.type == aiohttp.WSMsgType.TEXT:
                    body = json.loads(message.data)
                    self.behind = body.get("behind", self.behind)


def page_viewers(work: Workshop, lasts_s: float = LASTS_S) -> str:
    """Twenty viewers for ten minutes; memory of the page, age of what they see, commits of the host."""
    place = work.folder / "place"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    broker = Mosquitto(place / "broker").start()
    try:
        said, wrong = asyncio.run(_watch(work, place, broker, lasts_s))
    finally:
        broker.stop()
    if wrong:
        raise Failed(f"{'; '.join(wrong)}\n{said}\n(the files are in {place})")
    shutil.rmtree(place)
    return said


async def _watch(work: Workshop, place: Path, broker: Mosquitto, lasts_s: float) -> tuple[str, list[str]]:
    credentials = place / "viewer"
    credentials.write_text(f"viewer\n{USERS['viewer']}\n")
    credentials.chmod(0o600)
    table = {**broker.table, "viewer_credentials": str(credentials)}
    state = StateDir(place)
    command = [
        sys.executable, "-m", "controller.web", "--station", "bench", "--broker", json.dumps(table),
        "--state", str(place), "--table", '{"port": 0}',
    ]  # fmt: skip
    async with contextlib.AsyncExitStack() as stack:
        station = await stack.enter_async_context(Station(place, broker))
        with (place / "web.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE, stderr=log, cwd=ROOT
            )
        try:
            while (address := page_address(state)) is None:
                await asyncio.sleep(0.1)
            return await _measure(work, place, station, address, process.pid, lasts_s)
        finally:
            process.terminate()
            if process.stdin is not None:
                process.stdin.close()
            await process.wait()


async def _measure(
    work: Workshop, place: Path, station: Station, address: str, pid: int, lasts_s: float
) -> tuple[str, list[str]]:
    viewers = [Viewer() for _ in range(VIEWERS)]
    await station.journal.record(
        "state", "run", payloads.state(RUN), run=RUN, topic="state/run/id", retain=True
    )  # fmt: skip
    _, deaf = await asyncio.open_connection("127.0.0.1", int(address.rstrip("/").rpartition(":")[2]))
    host = address.removeprefix("http://").rstrip("/")
    deaf.write(
        f"GET /live HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    deaf.transport.pause_reading()  # type: ignore[attr-defined]
    memory: list[tuple[float, float]] = []
    commits: list[float] = []
    began, n = time.monotonic(), 0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        following = [asyncio.create_task(viewer.follow(session, address)) for viewer in viewers]
        while (now_s := time.monotonic() - began) < lasts_s:
            n += 1
            commits.append(await _publish(place, station, n))
            memory.append((now_s, _resident_mb(pid)))
            if n % 120 == 0:
                work.say(f"{now_s:.0f} s: {memory[-1][1]:.0f} MB, {min(v.newest for v in viewers)} of {n}")
            await asyncio.sleep(max(0.0, began + n * PERIOD_S - time.monotonic()))
        await asyncio.sleep(5.0)
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
    deaf.transport.abort()  # type: ignore[attr-defined]
    return _verdict(viewers, memory, commits, n)


async def _publish(place: Path, station: Station, n: int) -> float:
    """Write a map and a state as reduce and control do; return how long the commits took."""
    path = place / f"map_{n % 20}.cbor"
    fields = {
        "run": RUN, "scan": 1, "passes": [n], "partial": True, "shape": [SIDE, SIDE], "made": time.time(),
        "values": np.full(SIDE * SIDE, n, "f4"),
    }  # fmt: skip
    part = path.with_suffix(f".{n}")
    part.write_bytes(encode(fields))
    part.replace(path)
    began = time.monotonic()
    body = {"stream": "map/Li", "path": str(path)}
    await station.journal.record("product", "reduce", body, run=RUN, topic="data/map/Li", path=str(path))
    await station.state(3.0 + n / 1000.0)
    return time.monotonic() - began


def _verdict(
    viewers: list[Viewer], memory: list[tuple[float, float]], commits: list[float], n: int
) -> tuple[str, list[str]]:
    settled = [mb for at, mb in memory if at >= min(SETTLED_S, memory[-1][0] / 2)]
    growth_mb = statistics.fmean(settled[-10:]) - statistics.fmean(settled[:10])
    latency = sorted(one for viewer in viewers for one in viewer.latency_s)
    least = min(viewer.maps for viewer in viewers)
    commits.sort()
    p50_s, p99_s = latency[len(latency) // 2], latency[int(0.99 * len(latency))]
    largest_mb, late_ms = max(mb for _, mb in memory), 1e3 * commits[int(0.99 * len(commits))]
    said = (
        f"{n} maps of {SIDE * SIDE * 4 / 1e6:.1f} MB to {VIEWERS} viewers: each got at least {least}, "
        f"p50 {p50_s:.2f} s and p99 {p99_s:.2f} s after they were made; page {settled[-1]:.0f} MB at the "
        f"end, largest {largest_mb:.0f} MB, growth {growth_mb:+.1f} MB; commits p99 {late_ms:.0f} ms"
    )
    wrong = []
    if growth_mb > GROWTH_MB or largest_mb > MOST_MB:
        wrong.append("the page grows")
    if min(viewer.newest for viewer in viewers) < n:
        wrong.append("a viewer did not get the newest map")
    return said, wrong


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024.0
    return 0.0
