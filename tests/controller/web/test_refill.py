"""The whole process beside a real journal, link and broker: history is complete, whatever was away."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys

import aiohttp
import numpy as np
import pytest

from controller import payloads
from controller.config.web import Web
from controller.journal_read import JournalReader
from controller.paths import StateDir
from controller.reduce.products import encode
from controller.web import address
from controller.web.__main__ import Page
from tests.controller.test_link import Station
from tests.controller.web.page import browsing, until
from tests.controller.wire import ROOT, EmbeddedBroker

RUN = "20261122-000000-quick"


class Host:
    """Says what a host says, into a real journal."""

    def __init__(self, station):
        self.station, self.n = station, 0

    async def begin(self):
        await self.record("state", "run", payloads.state(RUN), topic="state/run/id", retain=True)

    async def record(self, kind, module, body, **more):
        return await self.station.journal.record(kind, module, body, run=RUN, **more)

    async def second(self):
        """One second of samples."""
        self.n += 1
        batch = payloads.tele({"cell/voltage": [(1000.0 + self.n, 3.0 + 0.01 * self.n)]})
        await self.record("tele", "host", batch, topic="tele", qos=0)

    async def ends_a_pass(self, n):
        body = {
            "scan": 1, "name": "later", "n": n, "good": True, "why": "", "charge_coulomb": 1e-9,
            "live_s": 7.0, "events": {"pige": 10 * n}, "lost": {"pige": 0}, "stamp": {"voltage_v": 3.7},
        }  # fmt: skip
        await self.record("pass", "scan", body)

    async def makes_a_map(self, folder, value):
        path = folder / f"map_{value}.cbor"
        fields = {
            "run": RUN, "scan": 1, "passes": [value], "partial": False, "shape": [2, 2],
            "values": np.full(4, value, "f4"),
        }  # fmt: skip
        path.write_bytes(encode(fields))
        body = {"stream": "map/Li", "path": str(path)}
        await self.record("product", "reduce", body, topic="data/map/Li", path=str(path))


@contextlib.asynccontextmanager
async def page_beside(folder, broker):
    """Run the whole page in this process."""
    page = Page(Web(port=0), "bench", json.dumps(broker.table), folder, folder, folder)
    end = asyncio.Event()
    running = asyncio.create_task(page.run(end))
    try:
        await until(lambda: page.address, "the page serves")
        yield page
    finally:
        end.set()
        await running


def rows_of(journal):
    """Return what the journal says of one series: the truth."""
    with JournalReader.open(journal) as reader:
        return [
            tuple(sample)
            for event in reader.events(RUN, "tele")
            for sample in event.body["series"]["cell/voltage"]
        ]


def shown(page):
    series = page.view.history.series.get("cell/voltage")
    if series is None:
        return []
    t, v, _, _ = series.columns()
    return list(zip(t, v, strict=True))


async def complete(page, journal):
    truth = rows_of(journal)
    await until(lambda: len(shown(page)) == len(truth), f"{len(truth)} samples are shown", 40.0)
    for (t, v), (told_t, told_v) in zip(shown(page), truth, strict=True):
        assert (t, v) == (told_t, pytest.approx(told_v, rel=1e-6))


async def test_history_is_complete_over_a_late_start_and_a_lost_broker(tmp_path):
    broker = EmbeddedBroker(tmp_path / "broker").start()
    try:
        async with Station(tmp_path, broker) as station:
            host = Host(station)
            await host.begin()
            for _ in range(30):
                await host.second()
            await host.ends_a_pass(1)
            await host.makes_a_map(tmp_path, 1)
            await station.drained()  # delivered, to nobody
            async with page_beside(tmp_path, broker) as page, browsing(page.address) as browser:
                await complete(page, station.journal.path)
                await until(lambda: browser.series["cell/voltage"][1]["v"].size == 30, "the browser has it")
                await until(
                    lambda: browser.passes and browser.passes[0]["events"] == {"pige": 10}, "the pass"
                )
                await until(lambda: browser.products["map/Li"][1]["values"][0, 0] == 1.0, "the map")

                broker.kill()
                await until(lambda: not page.mirror.connected, "the broker is gone")
                await until(lambda: browser.host["away"] == "no connection to the broker", "and it is said")
                for _ in range(20):
                    await host.second()
                await host.ends_a_pass(2)
                broker.start()
                await until(lambda: page.mirror.connected, "the broker is back", 40.0)
                for _ in range(5):
                    await host.second()
                await complete(page, station.journal.path)
                await until(lambda: [one["n"] for one in browser.passes] == [1, 2], "both passes")
                await until(lambda: browser.series["cell/voltage"][1]["v"].size >= 50, "the gap is filled")
    finally:
        broker.stop()


async def test_what_the_broker_has_swallowed_is_filled_in(tmp_path, monkeypatch):
    """As amqtt does with what a killed link had sent: acknowledged, and never delivered."""
    broker = EmbeddedBroker(tmp_path / "broker").start()
    try:
        async with Station(tmp_path, broker) as station:
            host = Host(station)
            await host.begin()
            await host.second()
            async with page_beside(tmp_path, broker) as page:
                await until(lambda: page.refill.filled, "the journal was read")
                await complete(page, station.journal.path)
                filled, take = page.refill.filled, page.mirror.take
                await host.second()
                await complete(page, station.journal.path)
                assert page.refill.filled == filled, "nothing was missing"

                swallowed = []
                with monkeypatch.context() as patch:
                    patch.setattr(
                        page.mirror, "take",
                        lambda said: swallowed.append(said) if said.topic.endswith("/tele") else take(said),
                    )  # fmt: skip
                    await host.second()
                    await host.second()
                    await until(lambda: len(swallowed) == 2, "two batches are gone")
                await host.second()
                await complete(page, station.journal.path)
    finally:
        broker.stop()


async def test_without_a_journal_on_this_machine_it_shows_what_it_hears(tmp_path):
    broker = EmbeddedBroker(tmp_path / "broker").start()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    try:
        async with Station(tmp_path, broker) as station, page_beside(elsewhere, broker) as page:
            host = Host(station)
            await host.begin()
            await until(lambda: page.view.run == RUN, "the run is known")
            await host.second()
            await until(lambda: len(shown(page)) == 1, "the sample")
    finally:
        broker.stop()


async def test_the_process_says_where_it_is_keeps_its_port_and_ends_with_its_owner(tmp_path):
    broker = EmbeddedBroker(tmp_path / "broker").start()
    state = StateDir(tmp_path / "state")
    command = [
        sys.executable, "-m", "controller.web", "--station", "bench", "--broker", json.dumps(broker.table),
        "--state", str(state.path), "--table", '{"port": 0}', "--beside", str(tmp_path),
    ]  # fmt: skip
    addresses = []
    try:
        for ending in (signal.SIGKILL, None):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT)
            where = await until(lambda: address.page_address(state), "the address", 40.0)
            addresses.append(where)
            assert os.stat(state.path / "web.json").st_mode & 0o077 == 0
            async with aiohttp.ClientSession() as session, session.get(where) as reply:
                assert reply.status == 200
            if ending is not None:
                process.send_signal(ending)
            process.stdin.close()  # whoever started it is gone
            assert await asyncio.to_thread(process.wait, 60.0) == (-ending if ending else 0)
            assert address.page_address(state) is None
        assert addresses[0] == addresses[1]
    finally:
        broker.stop()
