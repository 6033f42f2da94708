"""The page of ``operando web``: it follows the journal, outlives a run, shows its end until the next one."""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from controller import cli, payloads
from controller.config import load_station
from controller.config.web import Web
from controller.journal import AsyncJournal
from controller.mirror import Mirror
from controller.paths import StateDir
from controller.reduce.products import encode
from controller.web import address, standing
from controller.web.__main__ import Page
from controller.web.view import View, decoded
from tests.controller.web.page import browsing, until
from tests.controller.wire import ROOT

FIRST, SECOND = "20261122-000000-first", "20261122-010000-second"


class Host:
    """One life of a host after the other, in a real journal."""

    def __init__(self, folder):
        self.folder, self.run, self.n = folder, "", 0
        self.journal = None

    async def begin(self, run):
        self.journal = await AsyncJournal.open(self.folder / "journal.sqlite", station="bench")
        await self.journal.boot("test")
        self.run = run
        await self.state("run/id", run)
        await self.state("run/state", "running")
        await self.journal.start_run(run, experiment="e", directory=str(self.folder))

    async def record(self, kind, module, body, **more):
        return await self.journal.record(kind, module, body, run=self.run, **more)

    async def state(self, name, value, **more):
        module = name.split("/")[0]
        body = payloads.state(value, **more)
        await self.record("state", module, body, topic=f"state/{name}", retain=True)

    async def second(self, temperature_k):
        self.n += 1
        await self.state("heater/temperature", temperature_k, unit="K", stands_s=5.0)
        batch = payloads.tele({"heater/temperature": [(time.time(), temperature_k)]})
        await self.record("tele", "host", batch, topic="tele", qos=0)

    async def pass_and_map(self, n):
        body = {
            "scan": 1, "name": "first", "n": n, "good": True, "why": "", "charge_coulomb": 1e-9,
            "live_s": 7.0, "events": {"pige": 10 * n}, "lost": {"pige": 0}, "stamp": {"voltage_v": 3.7},
        }  # fmt: skip
        await self.record("pass", "scan", body)
        path = self.folder / f"map_{n}.cbor"
        fields = {"run": self.run, "scan": 1, "passes": [n], "partial": False, "shape": [2, 2]}
        path.write_bytes(encode({**fields, "values": np.full(4, n, "f4")}))
        told = {"stream": "map/Li", "path": str(path)}
        await self.record("product", "reduce", told, topic="data/map/Li", path=str(path))

    async def spectrum(self, scan, purpose):
        path = self.folder / f"spectrum_{scan}.cbor"
        fields = {"run": self.run, "scan": scan, "passes": [1], "partial": False, "purpose": purpose}
        path.write_bytes(encode({**fields, "values": np.full(4, scan, "f4")}))
        told = {"stream": "spectrum/pige", "path": str(path)}
        await self.record("product", "reduce", told, topic="data/spectrum/pige", path=str(path))

    async def end(self, outcome="success", code=0, text="done"):
        await self.state("run/state", "ended")
        await self.journal.end_run(self.run, outcome=outcome, exit_code=code, reason=text)
        await self.close()

    async def close(self):
        if self.journal is not None:
            await self.journal.close()
            self.journal = None


@pytest.fixture
async def host(tmp_path):
    """A host that leaves no thread behind when a test fails."""
    host = Host(tmp_path)
    yield host
    await host.close()


@contextlib.asynccontextmanager
async def standing_page(folder):
    page = Page(Web(port=0), "bench", "none", folder, None, folder, standing=True)
    end = asyncio.Event()
    running = asyncio.create_task(page.run(end))
    try:
        await until(lambda: page.address, "the page serves")
        yield page
    finally:
        end.set()
        await running


def temperature(browser):
    return browser.states.get("heater/temperature") or {"v": None, "q": ""}


async def test_it_outlives_a_run_shows_its_end_and_then_the_next_one(tmp_path, host):
    async with standing_page(tmp_path) as page, browsing(page.address) as browser:
        await until(lambda: "no journal" in browser.host["away"], "before the first run it says so")
        await host.begin(FIRST)
        await host.second(300.0)
        await host.pass_and_map(1)
        await until(lambda: browser.host["away"] == "", "the run is the present")
        await until(lambda: temperature(browser)["v"] == 300.0, "its temperature")
        assert temperature(browser)["q"] == "good"
        await host.second(310.0)
        await host.pass_and_map(2)
        await until(lambda: temperature(browser)["v"] == 310.0, "the next one")
        await until(lambda: [one["n"] for one in browser.passes] == [1, 2], "each pass once")
        await until(lambda: browser.products["map/Li"][1]["values"][0, 0] == 2.0, "the newest map")
        await host.journal.latch("over", {"id": "over", "text": "too hot", "t": 1.0, "action": "safe"})
        await host.end("abort", 4, "GUARD: too hot")
        await until(lambda: browser.host.get("ended"), "it is said that the run has ended")
        ended = browser.host["ended"]
        assert (ended["run"], ended["code"], ended["text"]) == (FIRST, 4, "GUARD: too hot")
        assert browser.host["away"] == "the host has ended"
        assert (temperature(browser)["v"], temperature(browser)["q"]) == (310.0, "stale")
        async with browsing(page.address) as later:  # somebody at home, afterwards
            await until(lambda: later.host.get("ended"), "the end")
            assert temperature(later)["v"] == 310.0
            assert [alarm["id"] for alarm in later.alarms] == ["over"]
            await until(lambda: "map/Li" in later.products, "the last map")

        await host.begin(SECOND)
        await host.second(295.0)
        await until(lambda: browser.states["run/id"]["v"] == SECOND, "the next run, without a restart")
        await until(lambda: temperature(browser)["q"] == "good", "is the present")
        assert not browser.host.get("ended")
        assert page.view.passes == {}, "nothing of the run before is left"
        await host.end()


async def test_a_page_that_begins_after_the_end_shows_the_last_rows(tmp_path, host):
    await host.begin(FIRST)
    for kelvin in (300.0, 301.0, 302.5):
        await host.second(kelvin)
    await host.pass_and_map(1)
    await host.end(text="done")
    async with standing_page(tmp_path) as page, browsing(page.address) as browser:
        await until(lambda: browser.host.get("ended"), "the end is known")
        assert temperature(browser)["v"] == 302.5
        await until(lambda: "heater/temperature" in browser.series, "the history")
        await until(lambda: browser.series["heater/temperature"][1]["v"].size >= 1, "is filled in")
        assert max(browser.series["heater/temperature"][1]["hi"]) == pytest.approx(302.5)
        await until(lambda: [one["n"] for one in browser.passes] == [1], "the passes")
        header, _ = browser.products["map/Li"]
        assert header["t"] == pytest.approx(time.time(), abs=60.0)


async def test_a_page_that_begins_after_a_background_shows_the_spectrum_of_the_sample(tmp_path, host):
    await host.begin(FIRST)
    await host.second(300.0)
    for scan, purpose in ((1, "reference"), (2, "after"), (3, "background"), (4, "background")):
        await host.spectrum(scan, purpose)
    async with standing_page(tmp_path) as page, browsing(page.address) as browser:
        await until(lambda: "spectrum/pige" in browser.products, "a spectrum")
        header, arrays = browser.products["spectrum/pige"]
        assert (header["purpose"], header["scan"], arrays["values"][0]) == ("after", 2, 2.0)
        await host.spectrum(5, "background")
        await host.spectrum(6, "after")
        await until(lambda: browser.products["spectrum/pige"][0]["scan"] == 6, "the next one with lines")
        await host.end()


async def test_a_start_of_the_host_that_begins_no_run_takes_nothing_away(tmp_path, host):
    async with standing_page(tmp_path) as page, browsing(page.address) as browser:
        await host.begin(FIRST)
        await host.second(300.0)
        await host.end()
        await until(lambda: browser.host.get("ended"), "the end")
        for _ in range(2):  # the first ages what is kept, the second clears it
            journal = await AsyncJournal.open(tmp_path / "journal.sqlite", station="bench")
            await journal.boot("an instrument did not answer")
            await journal.close()
            upto = page.mirror._upto
            await until(lambda upto=upto: page.mirror._upto > upto, "the page has seen it")
        beats = browser.kinds["beat"]
        await until(lambda: browser.kinds["beat"] > beats + 1, "every change has been told")
        assert temperature(browser)["v"] == 300.0
        assert browser.host["ended"]["run"] == FIRST


async def test_a_host_that_falls_silent_in_a_run_is_lost_not_ended(tmp_path, host, monkeypatch):
    monkeypatch.setattr("controller.web.from_journal.SILENCE_S", 1.0)
    await host.begin(FIRST)
    await host.second(300.0)
    async with standing_page(tmp_path) as page, browsing(page.address) as browser:
        await until(lambda: browser.host["away"] == "the host is lost", "it is lost")
        await until(lambda: temperature(browser)["q"] == "stale", "and what it said is old")
        assert not browser.host.get("ended")
        await host.second(301.0)
        await until(lambda: temperature(browser)["q"] == "good", "and back")
        assert page.mirror.malformed == 0
        await host.end()


def station_file(folder, port):
    text = (ROOT / "tests" / "controller" / "config" / "station.toml").read_text()
    path = folder / "station.toml"
    path.write_text(f"{text}\n[web]\nport = {port}\n")
    return path


def start(folder, *more):
    command = [
        sys.executable,
        "-m",
        "controller",
        "web",
        str(station_file(folder, 0)),
        "--state",
        str(folder),
    ]
    return subprocess.Popen([*command, *more], cwd=ROOT, stderr=subprocess.PIPE, text=True)


async def test_the_command_serves_alone_and_a_run_beside_it_starts_no_page_of_its_own(tmp_path, capsys):
    state = StateDir(tmp_path)
    serving = start(tmp_path)
    try:
        await until(lambda: address.standing(tmp_path), "the page is on", 30.0)
        assert address.page_address(state) == address.standing(tmp_path)
        again = ["web", str(station_file(tmp_path, 0)), "--state", str(tmp_path)]
        assert await asyncio.to_thread(cli.main, again) == 2
        assert "already" in capsys.readouterr().err
        around = Around(tmp_path)
        assert address.arguments(around) is None
    finally:
        serving.terminate()
        await asyncio.to_thread(serving.communicate, timeout=30.0)
    assert serving.returncode == 0
    assert address.standing(tmp_path) == ""
    assert address.arguments(around) is not None


async def test_it_waits_for_the_port_that_the_page_of_a_run_still_has(tmp_path, capsys, monkeypatch):
    end = asyncio.Event()
    monkeypatch.setattr(standing, "told_to_end", lambda: end)
    monkeypatch.setattr(standing, "AGAIN_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        args = argparse.Namespace(station=station_file(tmp_path, port))
        state = StateDir(tmp_path)
        station = load_station(args.station)
        # Whoever has the port is not the page of a run of this station: somebody must change one of the two.
        assert await standing._serve(args, station, state) == 2
        assert f"cannot listen on 127.0.0.1 port {port}" in capsys.readouterr().err

        address.write(tmp_path, f"http://127.0.0.1:{port}/", port)
        waiting = asyncio.create_task(standing._serve(args, station, state))
        await until(
            lambda: "this one follows when it ends" in capsys.readouterr().out, "it says that it waits"
        )
        await asyncio.sleep(0)
        assert not waiting.done()
    try:
        await until(lambda: address.standing(tmp_path) == f"http://127.0.0.1:{port}/", "it follows", 30.0)
        assert "follows" not in capsys.readouterr().out, "said once"
    finally:
        end.set()
    assert await waiting == 0


class Around:
    """What the supervisor tells an onlooker."""

    def __init__(self, folder):
        from controller.config import load_station

        self.path = station_file(folder, 0)
        self.station = load_station(self.path)
        self.state, self.run_dir = StateDir(folder), folder
        self.broker = json.dumps({"kind": "embedded", "credentials": "x"})


def test_a_background_does_not_take_the_place_of_a_spectrum():
    view = View(Mirror(lambda: None, "bench"))

    def spectrum(scan, purpose):
        fields = {"run": FIRST, "scan": scan, "passes": [1], "partial": False, "purpose": purpose}
        view.take_product("spectrum/pige", decoded(encode({**fields, "counts": np.full(8, scan, "f4")})))
        return b'"purpose":"%s"' % purpose.encode() in view.products["spectrum/pige"].replace(b" ", b"")

    assert spectrum(0, "background"), "better than nothing"
    assert spectrum(1, "reference")
    assert not spectrum(2, "background"), "who opens the page now sees lines"
    assert spectrum(3, "charging")


def test_lines_take_the_place_of_a_background_that_came_first():
    """As they are read back from the journal: the newest first."""
    view = View(Mirror(lambda: None, "bench"))
    for scan, purpose in ((4, "background"), (3, "after")):
        fields = {"run": FIRST, "scan": scan, "passes": [1], "partial": False, "purpose": purpose}
        view.take_product("spectrum/pige", decoded(encode({**fields, "counts": np.full(8, scan, "f4")})))
    assert b'"after"' in view.products["spectrum/pige"]


def test_a_number_that_another_process_bears_now_is_no_page(tmp_path):
    address.write(tmp_path, "http://127.0.0.1:1/", 1, standing=True)
    known = json.loads((tmp_path / address.NAME).read_text())
    assert address.standing(tmp_path)
    (tmp_path / address.NAME).write_text(json.dumps({**known, "since": "1"}))  # as after a restart
    assert address.standing(tmp_path) == ""
    (tmp_path / address.NAME).write_text(json.dumps({**known, "pid": 4_000_000}))
    assert address.standing(tmp_path) == ""
    assert os.getpid() == known["pid"]
