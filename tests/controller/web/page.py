"""A page in this process: the real server, hub and view on a real socket, fed by hand instead of a broker."""

import asyncio
import contextlib
import json
import struct
import time
from contextlib import asynccontextmanager

import aiohttp
import cbor2
import numpy as np
from aiohttp import web

from controller import payloads
from controller.config.web import Web
from controller.mirror import Mirror
from controller.mqtt import Received
from controller.reduce.products import encode
from controller.web.access import Access
from controller.web.hub import Hub
from controller.web.server import SUBPROTOCOL, Server
from controller.web.view import View

BOOT = "a" * 32
PREFIX = "operando/v1/bench"


def nowhere():
    raise AssertionError("nobody connects here")


class Page:
    """What is served, and what the station says."""

    def __init__(self, table, beside):
        self.seq = 0
        self.mirror = Mirror(nowhere, "bench", lambda heard: self.view.take(heard))
        self.mirror.connected, self.mirror.session = True, 1
        self.mirror._live_s = time.monotonic()
        self.view = View(self.mirror)
        self.hub = Hub(self.view)
        self.access = Access(table, beside)
        self.server = Server(self.access, self.hub, viewers=table.viewers)
        self.address = self.origin = ""
        self.status("ready")

    def say(self, topic, body, *, retain=False, hist=False):
        self.seq += 1
        envelope = {"boot": BOOT, "seq": self.seq, "prev": None, "hist": hist}
        data = topic.startswith("data/")
        payload = b"" if not body else payloads.wrap(
            topic, body if data else json.dumps(body).encode(), payloads.Envelope(**envelope)
        )  # fmt: skip
        self.mirror.take(Received(f"{PREFIX}/{topic}", payload, 1, retain))

    def status(self, state):
        body = payloads.status(state, boot=BOOT, link="c" * 16, version="1")
        self.mirror.take(Received(f"{PREFIX}/status", json.dumps(body).encode(), 1, True))

    def state(self, name, value, **more):
        self.say(f"state/{name}", payloads.state(value, **more), retain=True)

    def product(self, stream="map/Li", side=16, value=1.0, **more):
        fields = {
            "run": "r", "scan": 1, "passes": [1], "partial": False, "shape": [side, side],
            "values": np.full(side * side, value, "f4"), **more,
        }  # fmt: skip
        self.say(f"data/{stream}", encode(fields))


@asynccontextmanager
async def serving(tmp_path, **table):
    """Serve a page; at the end everything is closed."""
    page = Page(Web(port=0, **table), tmp_path)
    runner = web.AppRunner(page.server.application(), access_log=None, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=page.access.tls)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    page.origin = f"{page.access.scheme}://127.0.0.1:{port}"
    page.address = page.origin + "/"
    page.port = port
    turning = asyncio.create_task(page.hub.run())
    try:
        yield page
    finally:
        await page.server.close()
        turning.cancel()
        await asyncio.gather(turning, return_exceptions=True)
        await runner.cleanup()


class Browser:
    """A page as the README describes it: keeps what it is told."""

    def __init__(self, socket):
        self.socket = socket
        self.frames, self.states, self.passes, self.series, self.products = [], {}, [], {}, {}
        self.kinds = {}
        self.ended = None

    async def read(self):
        async for message in self.socket:
            if message.type == aiohttp.WSMsgType.TEXT:
                self.take(json.loads(message.data))
            else:
                (size,) = struct.unpack_from("<I", message.data)
                header = json.loads(message.data[4 : 4 + size])
                self.take(header, message.data[4 + size :])
        self.ended = self.socket.close_code

    def take(self, body, data=b""):
        kind = body["k"]
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if kind == "snapshot":
            if body["run"] != getattr(self, "snapshot", {}).get("run"):
                self.products.clear()  # as the page does: whatever came before it was of another run
            self.states, self.passes = dict(body["states"]), list(body["passes"])
            self.host, self.alarms, self.questions = body["host"], body["alarms"], body["questions"]
            self.snapshot = body
        elif kind == "states":
            self.states.update(body["states"])
        elif kind == "passes":
            self.passes += body["passes"]
        elif kind in ("series", "product"):
            arrays = {
                name: np.frombuffer(
                    data[told["offset"] : told["offset"] + told["bytes"]], "<" + told["dtype"]
                ).reshape(told["shape"])
                for name, told in body["arrays"].items()
            }  # fmt: skip
            (self.series if kind == "series" else self.products)[body.get("stream") or body["name"]] = (
                body, arrays,
            )  # fmt: skip
        elif kind == "tele":
            self.tele = body["series"]
        elif kind == "beat":
            self.beat = body
        elif kind == "host":
            self.host = body["host"]
        elif kind in ("alarms", "questions"):
            setattr(self, kind, body[kind])


@asynccontextmanager
async def browsing(address, *, session=None, **more):
    """Open the websocket as the page does, and read."""
    more.setdefault("origin", address.rstrip("/"))
    async with contextlib.AsyncExitStack() as stack:
        own = session or await stack.enter_async_context(aiohttp.ClientSession())
        socket = await own.ws_connect(address + "live", protocols=(SUBPROTOCOL,), max_msg_size=0, **more)
        browser = Browser(socket)
        reading = asyncio.create_task(browser.read())
        try:
            yield browser
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await socket.close()


async def until(condition, what, timeout_s=20.0):
    """Poll, leaving the event loop free, until something is so; fail when it never is."""
    end_s = asyncio.get_running_loop().time() + timeout_s
    while asyncio.get_running_loop().time() < end_s:
        try:
            if value := condition():
                return value
        except (AttributeError, KeyError):
            pass
        await asyncio.sleep(0.02)
    raise AssertionError(f"{what}: not within {timeout_s} s")


def tagged(values):
    return cbor2.CBORTag(85, np.asarray(values, "<f4").tobytes())
