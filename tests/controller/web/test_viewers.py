"""What viewers are told: many, slow, late; and what becomes stale. Through the real server and sockets."""

import asyncio
import contextlib
import json
import socket
import time

import numpy as np
import pytest

from controller.web.hub import QUEUE_BYTES, TELE_SAMPLES, Viewer
from controller.web.view import NEWEST
from tests.controller.web.page import browsing, serving, until

MB_SIDE = 512  # 1 MB of f4


async def test_a_viewer_gets_everything_that_is_known_and_then_every_change(tmp_path):
    async with serving(tmp_path) as page:
        page.state("run/id", "r")
        page.state("cell/voltage", 3.7, e=0.001, unit="V", stands_s=60.0)
        page.say("tele", {"series": {"cell/voltage": [[100.0, 3.6], [101.0, 3.7]]}})
        page.say("alarm/heater-stale", {"id": "heater-stale", "t": 5.0, "text": "late"}, retain=True)
        page.state("scan/last", {"scan": 1, "n": 1, "good": True})
        page.product(value=2.5)
        async with browsing(page.address) as browser:
            await until(lambda: browser.kinds["end"] and browser.products, "the snapshot")
            told = dict(browser.states["cell/voltage"])
            assert told.pop("t") == pytest.approx(time.time(), abs=20.0)
            assert told == {"v": 3.7, "e": 0.001, "q": "good", "unit": "V", "why": ""}
            assert browser.snapshot["alarms"][0]["text"] == "late"
            assert browser.passes == [{"scan": 1, "n": 1, "good": True}]
            assert browser.series["cell/voltage"][1]["v"].tolist() == pytest.approx([3.6, 3.7])
            assert browser.products["map/Li"][1]["values"].tolist() == np.full((16, 16), 2.5).tolist()

            page.state("cell/voltage", 3.8, stands_s=60.0)
            page.say("tele", {"series": {"cell/voltage": [[102.0, 3.8]]}})
            page.say("alarm/heater-stale", None, retain=True)
            page.state("scan/last", {"scan": 1, "n": 2, "good": False, "why": "lost"})
            page.product(value=3.5, passes=[1, 2])
            await until(lambda: browser.states["cell/voltage"]["v"] == 3.8, "the new value")
            await until(lambda: browser.tele == {"cell/voltage": [[102.0, 3.8]]}, "the new sample")
            await until(lambda: browser.alarms == [], "the alarm is gone")
            await until(lambda: len(browser.passes) == 2, "the pass")
            await until(lambda: browser.products["map/Li"][1]["values"][0, 0] == 3.5, "the new map")


async def test_what_is_not_renewed_and_what_a_lost_host_said_is_shown_as_stale(tmp_path):
    async with serving(tmp_path) as page, browsing(page.address) as browser:
        page.state("cell/voltage", 3.7, stands_s=3.0)
        page.state("run/state", "running")
        await until(lambda: browser.states["cell/voltage"]["q"] == "good", "good at first")
        await until(lambda: browser.states["cell/voltage"]["q"] == "stale", "not renewed")
        assert browser.states["cell/voltage"]["v"] == 3.7
        assert "not renewed" in browser.states["cell/voltage"]["why"]
        assert browser.states["run/state"]["q"] == "good"
        page.status("lost")
        await until(lambda: browser.states["run/state"]["q"] == "stale", "the host is lost")
        assert browser.host["away"] == "the host is lost"
        page.status("ready")
        page.state("cell/voltage", 3.9, stands_s=60.0)
        await until(lambda: browser.states["run/state"]["q"] == "good", "the host is back")
        await until(lambda: browser.states["cell/voltage"]["v"] == 3.9, "and measures")


async def test_late_messages_go_into_history_and_not_into_now(tmp_path):
    async with serving(tmp_path) as page, browsing(page.address) as browser:
        page.state("run/id", "r")
        page.say("tele", {"series": {"cell/voltage": [[200.0, 3.7]]}})
        page.product(value=9.0, scan=2)
        await until(lambda: browser.products, "the present map")
        page.say("tele", {"series": {"cell/voltage": [[100.0, 3.1]]}}, hist=True)
        page.product(value=1.0, scan=1)  # that of an earlier scan comes late
        await until(lambda: browser.host["hist"], "it is said that history arrives")
        assert browser.tele == {"cell/voltage": [[200.0, 3.7]]}
        assert browser.products["map/Li"][1]["values"][0, 0] == 9.0
        assert page.view.history.series["cell/voltage"].columns()[0].tolist() == [100.0, 200.0]
        await browser.socket.send_str(json.dumps({"k": "resend", "stream": "map/Li", "scan": 1, "pass": 1}))
        await until(lambda: browser.products["map/Li"][1]["values"][0, 0] == 1.0, "it can be asked for")


async def test_another_run_begins_with_an_empty_page(tmp_path):
    async with serving(tmp_path) as page, browsing(page.address) as browser:
        page.state("run/id", "r")
        page.say("tele", {"series": {"cell/voltage": [[100.0, 3.6]]}})
        page.state("scan/last", {"scan": 1, "n": 1, "good": True})
        page.product()
        await until(lambda: browser.products and browser.passes, "the first run")
        page.state("run/id", "another")
        await until(lambda: browser.kinds["snapshot"] == 2, "a new snapshot")
        assert (browser.snapshot["run"], browser.passes, browser.snapshot["streams"]) == ("another", [], [])


async def test_twenty_viewers_get_the_same_and_leave_nothing(tmp_path):
    async with serving(tmp_path) as page, contextlib.AsyncExitStack() as stack:
        page.state("run/id", "r")
        browsers = [await stack.enter_async_context(browsing(page.address)) for _ in range(20)]
        for n in range(4):
            page.product(side=MB_SIDE // 2, value=float(n), passes=[n + 1])
            page.state("cell/voltage", 3.0 + n)
            await asyncio.sleep(0.3)
        for browser in browsers:
            await until(lambda b=browser: b.states["cell/voltage"]["v"] == 6.0, "the value")
            await until(lambda b=browser: b.products["map/Li"][1]["values"][0, 0] == 3.0, "the map")
        assert page.hub.most == 20
        await stack.aclose()
        await until(lambda: not page.hub.viewers, "they are forgotten")


async def deaf(page):
    """Open the websocket by hand and never read another byte."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", page.port))
    request = (
        f"GET /live HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\nOrigin: {page.origin}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    await loop.sock_sendall(sock, request.encode())
    return sock


async def test_a_viewer_that_does_not_read_costs_a_bounded_amount_and_slows_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr("controller.web.hub.SEND_TIMEOUT_S", 4.0)
    async with serving(tmp_path) as page, browsing(page.address) as reader:
        page.state("run/id", "r")
        sock = await deaf(page)
        await until(lambda: len(page.hub.viewers) == 2, "both are there")
        began = time.monotonic()
        most = 0
        turn = 0
        while len(page.hub.viewers) == 2 and time.monotonic() - began < 20.0:
            turn += 1
            for stream in ("Li", "Co", "P"):
                page.product(f"map/{stream}", side=MB_SIDE, value=float(turn), passes=[turn])
            page.state("cell/voltage", float(turn))
            page.say("tele", {"series": {"cell/voltage": [[float(turn) + i / 600, 1.0] for i in range(300)]}})
            await until(
                lambda n=turn: reader.states["cell/voltage"]["v"] == n, "the reader is up to date", 5.0
            )
            biggest = max(page.hub.viewers, key=lambda viewer: viewer.waiting_bytes)
            most = max(most, biggest.waiting_bytes)
            assert biggest.waiting_bytes <= QUEUE_BYTES
            assert all(len(viewer) < 40 for viewer in page.hub.viewers)
        assert len(page.hub.viewers) == 1, "the deaf one was never closed"
        assert most >= 1 << 20, "it never was behind"
        assert turn > 4
        await until(lambda: reader.products["map/P"][1]["values"][0, 0] == turn, "the newest map")
        sock.close()


class Still:
    """A socket that takes frames only when it is let."""

    def __init__(self):
        self.gate, self.frames = asyncio.Event(), []

    async def send_str(self, data):
        await self.gate.wait()
        self.frames.append(json.loads(data))

    async def send_bytes(self, data):
        await self.gate.wait()
        self.frames.append(data)


async def test_what_waits_is_joined_so_that_a_late_reader_ends_with_the_present(tmp_path):
    async with serving(tmp_path) as page:
        page.state("run/id", "r")
        viewer, still = Viewer(page.view), Still()
        still.gate.set()
        sending = asyncio.create_task(viewer.send_to(still))
        await until(lambda: still.frames and still.frames[-1]["k"] == "end", "the snapshot")
        still.gate.clear()
        still.frames.clear()
        viewer.tell("beat", {"k": "beat"})
        await asyncio.sleep(0.05)
        for n in range(1000):
            viewer.tell("states", {f"m/{n % 7}": {"v": n}})
            viewer.tell("passes", [{"n": n}])
            viewer.tell("tele", {"m/x": [[float(n), 1.0]]})
            page.view.add_sample("m/x", float(n), 1.0, None, "", live=False)
        assert len(viewer) <= 5
        assert viewer.behind >= 2990
        still.gate.set()
        await until(lambda: len(still.frames) >= 4, "everything that waited")
        told = {body["k"]: body for body in still.frames if isinstance(body, dict)}
        assert told["states"]["states"] == {f"m/{n % 7}": {"v": n} for n in range(993, 1000)}
        assert [one["n"] for one in told["passes"]["passes"]] == list(range(1000 - NEWEST, 1000))
        assert any(isinstance(frame, bytes) for frame in still.frames)  # the whole series, not pieces of it
        assert TELE_SAMPLES < 1000
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
