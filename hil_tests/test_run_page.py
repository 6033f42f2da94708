"""The live page of a whole run: what its websocket says is what the journal holds, for every panel.

A client that shares no code with the page follows a run from its beginning to its end, while link is killed
once and another client never reads. Afterwards everything that it was told is looked up in the journal and
in the files of the run. Its counts are too few for layers: profiles and the state of charge by the beam are
tried in ``tests/controller/test_pictures.py`` and ``test_outlook.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import cbor2
import pytest

from controller.paths import StateDir
from controller.web.address import page_address
from hil_tests.harness import EXPERIMENTS, Run, a_bench, edited_station, ending, eventually

pytestmark = pytest.mark.soak  # a whole run and a browser, held against each other: needs a quiet machine

SPEED = 10.0
EMPTY = {"run/step", "run/title", "heater/target", "scan/now"}  # may be null at the end
SEEN = {
    "run/id", "run/state", "run/step", "run/title", "run/elapsed", "run/left", "run/speed", "run/plan",
    "run/counters", "run/gaps", "run/instruments", "heater/temperature", "heater/target", "heater/output",
    "heater/problems", "cell/voltage", "cell/current", "cell/charge", "cell/phase", "soc/charge",
    "beam/current", "beam/blanked", "beam/permit", "beam/relay", "beam/shutter", "beam/vacuum", "scan/now",
    "scan/last", "result/quantities", "result/counts", "result/goals", "pixe/rate", "pixe/events",
    "pixe/lost", "pixe/dead", "pige/rate", "guard/rules", "guard/inputs", "guard/latched", "line-io/errors",
}  # fmt: skip
STREAMS = {
    "map/Li", "map/Co", "map/charge", "map/dose", "map/live_pige", "spectrum/pige", "spectrum/pixe",
}  # fmt: skip


class Watcher(threading.Thread):
    """Follows the page and keeps everything; comes again when it is cut off."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.address = address
        self.states: dict[str, list[dict[str, Any]]] = {}
        self.tele: dict[str, dict[float, float | None]] = {}
        self.series: dict[str, tuple[dict[str, Any], dict[str, list[float]]]] = {}
        self.products: dict[str, list[tuple[dict[str, Any], bytes]]] = {}
        self.passes: dict[tuple[int, int], dict[str, Any]] = {}
        self.events: dict[int, dict[str, Any]] = {}
        self.away: list[str] = []
        self.alarms: list[Any] = []
        self.behind = 0
        self.ended = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._follow())
        except BaseException as error:  # told by the test
            self.error = error
        finally:
            self.ended.set()

    async def _follow(self) -> None:
        async with aiohttp.ClientSession() as session:
            origin = self.address.rstrip("/")
            async with session.ws_connect(self.address + "live", origin=origin, max_msg_size=0) as socket_:
                async for message in socket_:
                    if message.type == aiohttp.WSMsgType.TEXT:
                        self._told(json.loads(message.data))
                    elif message.type == aiohttp.WSMsgType.BINARY:
                        self._drawn(message.data)

    def _told(self, body: dict[str, Any]) -> None:
        for name, entry in (body.get("states") or {}).items():
            if entry is not None:
                self.states.setdefault(name, []).append(entry)
        for one in body.get("passes") or ():
            self.passes[one["scan"], one["n"]] = one
        for one in body.get("events") or ():
            self.events[one["seq"]] = one
        if "host" in body:
            self.away.append(body["host"]["away"])
        if body["k"] == "tele":
            for name, samples in body["series"].items():
                self.tele.setdefault(name, {}).update({sample[0]: sample[1] for sample in samples})
        if body["k"] == "beat":
            self.behind = body["behind"]

    def _drawn(self, data: bytes) -> None:
        (size,) = struct.unpack_from("<I", data)
        header, rest = json.loads(data[4 : 4 + size]), data[4 + size :]
        if header["k"] == "product":
            self.products.setdefault(header["stream"], []).append((header, rest))
            return
        columns = {}
        for name, told in header["arrays"].items():
            piece = rest[told["offset"] : told["offset"] + told["bytes"]]
            columns[name] = [
                one for (one,) in struct.iter_unpack("<d" if told["dtype"] == "f8" else "<f", piece)
            ]
        self.series[header["name"]] = (header, columns)


class Followed:
    """A run with those who looked on."""

    def __init__(self, run: Run, first: Watcher, late: Watcher, code: int, lasted_s: float) -> None:
        self.run, self.first, self.late, self.code, self.lasted_s = run, first, late, code, lasted_s


def deaf(address: str) -> socket.socket:
    """Open the websocket and never read."""
    host, port = address.removeprefix("http://").rstrip("/").split(":")
    client = socket.create_connection((host, int(port)))
    client.sendall(
        f"GET /live HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: {address.rstrip('/')}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    return client


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    """A short run; link is killed in it, the page is killed, one client never reads, one comes late."""
    folder = tmp_path_factory.mktemp("page")
    with a_bench(tmp_path_factory.mktemp("page-bench"), warm=False, speed=SPEED, seed=5) as bench:
        station = edited_station(bench, folder / "station.toml", lambda text: text + "\n[web]\nport = 0\n")
        run = Run.start(folder, EXPERIMENTS / "short.toml", "--station", str(station))
        with ending(run), contextlib.ExitStack() as stack:
            state = StateDir(run.state)
            address = eventually(lambda: page_address(state), "the page", tell=run.tell)
            first = Watcher(address)
            first.start()
            stack.enter_context(contextlib.closing(deaf(address)))
            run.until(lambda status: (status["scan"] or {}).get("n", 0) >= 1, "the first pass")
            run.signal("link", signal.SIGKILL)
            eventually(lambda: any("lost" in text for text in first.away), "it is seen that link is gone")
            eventually(lambda: first.away[-1] == "", "and that it is back", tell=run.tell)
            run.until(lambda status: (status["step"] or {}).get("number", 0) >= 3, "a later step")
            eventually(lambda: "cell/voltage" in first.tele, "a voltage is told", tell=run.tell)
            late = Watcher(address)
            late.start()
            began = time.monotonic()
            code = run.ended(seconds=240.0)
            for watcher in (first, late):
                assert watcher.ended.wait(20.0), "the page did not say goodbye"
                assert watcher.error is None, watcher.error
            yield Followed(run, first, late, code, time.monotonic() - began)


def test_the_run_is_as_without_a_page(followed: Followed) -> None:
    assert followed.code == 0, followed.run.tell()
    assert followed.first.behind == 0, "a client that reads is never behind, whatever another does"
    assert page_address(StateDir(followed.run.state)) is None


def test_every_state_of_every_panel_is_a_row_of_the_journal(followed: Followed) -> None:
    rows: dict[tuple[str, float], Any] = {}
    modules: dict[str, set[str]] = {}
    for row in followed.run.events(run_only=False):
        body = row["body"]
        if row["kind"] in ("state", "soc", "log") and isinstance(body, dict):
            modules.setdefault(row["module"], set()).add(json.dumps(body.get("v"), sort_keys=True))
            rows[row["module"], body.get("t", 0.0)] = body
    missing = SEEN - set(followed.first.states)
    assert not missing, f"never told: {sorted(missing)}"
    compared = 0
    for name, entries in followed.first.states.items():
        module, _, parameter = name.partition("/")
        owner = parameter if module == "soc" else module
        if name in ("run/said",) or module == "journal":
            continue
        known = modules.get(owner, set())
        for entry in entries:
            assert json.dumps(entry["v"], sort_keys=True) in known, (name, entry)
            compared += 1
        if name in SEEN - EMPTY:
            assert any(entry["v"] is not None for entry in entries), f"{name} was never known"
            assert any(entry["q"] in ("good", "uncertain") for entry in entries), f"{name} was never good"
    assert compared > 300


def test_every_sample_is_in_the_journal_and_none_is_missing(followed: Followed) -> None:
    truth: dict[str, dict[float, float | None]] = {}
    for row in followed.run.events("tele"):
        for name, samples in row["body"]["series"].items():
            truth.setdefault(name, {}).update(dict(samples))
    needed = {"heater/temperature", "heater/target", "cell/voltage", "cell/current", "cell/charge"}
    assert needed | {"beam/current", "soc/charge"} <= set(truth)
    for name, samples in followed.first.tele.items():
        strange = {t: v for t, v in samples.items() if name != "soc/charge" and truth[name].get(t, "no") != v}
        assert not strange, (name, list(strange.items())[:3])
    # Who comes late gets the whole history, smallest and largest values included.
    for name in ("heater/temperature", "cell/voltage", "beam/current"):
        _, columns = followed.late.series[name]
        last = columns["t"][-1]
        before = {t: v for t, v in truth[name].items() if t <= last and v is not None}
        assert columns["t"][0] == pytest.approx(min(truth[name]), abs=1.0)  # maybe not known yet then
        assert max(v for v in columns["hi"] if v == v) == pytest.approx(max(before.values()), rel=1e-6)
        assert min(v for v in columns["lo"] if v == v) == pytest.approx(min(before.values()), rel=1e-6)


def test_every_pass_and_every_line_is_told_as_it_is_in_the_journal(followed: Followed) -> None:
    rows = {(row["body"]["scan"], row["body"]["n"]): row["body"] for row in followed.run.events("pass")}
    for watcher in (followed.first, followed.late):
        assert set(watcher.passes) == set(rows)
        for key, told in watcher.passes.items():
            for name in ("good", "why", "events", "lost", "charge_coulomb", "live_s", "name"):
                assert told[name] == rows[key][name], (key, name)
            assert told["voltage_v"] == rows[key]["stamp"]["voltage_v"]
    lines = {row["seq"]: row["body"]["text"] for row in followed.run.events("log")}
    for watcher in (followed.first, followed.late):
        assert {seq: one["text"] for seq, one in watcher.events.items()}.items() <= lines.items()
        assert len(watcher.events) > 8


def test_every_map_spectrum_and_profile_is_a_file_of_the_run_to_the_last_bit(followed: Followed) -> None:
    files: dict[str, list[Path]] = {}
    for row in followed.run.events("product"):
        files.setdefault(row["body"]["stream"], []).append(Path(row["body"]["path"]))
    for watcher in (followed.first, followed.late):
        assert set(watcher.products) >= STREAMS, sorted(watcher.products)
        for stream, told in watcher.products.items():
            header, rest = told[-1]
            bodies = [cbor2.loads(path.read_bytes()) for path in files[stream]]
            (body,) = [
                one for one in bodies
                if (one.get("scan"), one.get("passes"), one.get("partial")) == (
                    header.get("scan"), header.get("passes"), header.get("partial")
                )
            ][-1:]  # fmt: skip
            for name, entry in header["arrays"].items():
                piece = rest[entry["offset"] : entry["offset"] + entry["bytes"]]
                assert piece == body[name].value, (stream, name)
    header, _ = followed.first.products["spectrum/pige"][-1]
    assert [one["element"] for one in header["windows"]] == ["Li"]
    assert {"fit", "continuum", "beam_off"} <= set(header["arrays"])


def test_the_plan_is_followed_to_its_end(followed: Followed) -> None:
    plans = [entry["v"]["steps"] for entry in followed.first.states["run/plan"]]
    seen = [{step["state"] for step in steps} for steps in plans]
    assert "waiting" in seen[0]
    assert any("running" in states for states in seen)
    rows = [row["body"] for row in followed.run.events("step") if row["body"]["state"] == "ended"]
    ended = {".".join(map(str, body["path"])) for body in rows}
    done = {step["path"] for step in plans[-1] if step["state"] == "done"}
    assert done == ended == {step["path"] for step in plans[-1]}, "the last plan is that of the end"
    left = [entry["v"] for entry in followed.first.states["run/left"]]
    assert left[0] > left[-1] >= 0.0
