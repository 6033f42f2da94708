"""The page of ``operando web`` over two whole runs: it outlives the first, keeps its end, shows the next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controller.paths import StateDir
from controller.web.address import page_address
from hil_tests.harness import (
    EXPERIMENTS,
    ROLES,
    Run,
    a_bench,
    edited_station,
    ending,
    eventually,
    processes_of,
)
from hil_tests.page_real import standing
from hil_tests.test_run_page import Watcher

pytestmark = pytest.mark.soak  # whole runs under a page: needs a quiet machine

SPEED = 20.0


class Screen(Watcher):
    """A screen on a wall: connected once, for everything that comes."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.host: dict[str, Any] = {}

    def _told(self, body: dict[str, Any]) -> None:
        super()._told(body)
        self.host = body.get("host", self.host)

    def last(self, name: str) -> Any:
        entries = self.states.get(name)
        return entries[-1]["v"] if entries else None


def kept(run: Run) -> dict[str, Any]:
    """Return what the journal holds of every state: the truth."""
    rows = run.rows("SELECT topic, payload FROM topics WHERE topic GLOB 'state/*' AND length(payload) > 0")
    return {str(topic).removeprefix("state/"): json.loads(payload)["v"] for topic, payload in rows}


def test_it_outlives_a_run_keeps_its_end_and_shows_the_next(tmp_path: Path) -> None:
    state, short = tmp_path / "state", EXPERIMENTS / "short.toml"
    with a_bench(tmp_path / "bench", warm=False, speed=SPEED, seed=5) as bench:
        station = edited_station(bench, tmp_path / "station.toml", lambda text: text + "\n[web]\nport = 0\n")
        with standing(station, state, tmp_path / "page.log") as address:
            screen = Screen(address)
            screen.start()
            with ending(Run.start(tmp_path / "first", short, "--station", str(station), state=state)) as run:
                eventually(lambda: screen.host.get("away") == "", "the run is live", tell=run.tell)
                assert processes_of(tmp_path / "first", ROLES["web"]) == [], "no page of its own beside it"
                code = run.ended(seconds=300.0)
                assert code == 0, run.tell()
                ended = eventually(lambda: screen.host.get("ended"), "the end is told")
                assert (ended["run"], ended["code"]) == (run.run_dir.name, 0)
                truth = kept(run)
                eventually(lambda: screen.last("run/state") == "ended", "the last states")
                strange = {
                    name: (screen.last(name), v)
                    for name, v in truth.items() if name != "run/said" and screen.last(name) != v
                }  # fmt: skip
                assert strange == {}
                assert len(truth) > 30
                assert {step["state"] for step in screen.last("run/plan")["steps"]} == {"done"}
                off = ("beam/blanked", "beam/relay", "beam/shutter", "cell/phase")
                assert [screen.last(name) for name in off] == [True, False, False, "open circuit"]
                passes = {(row["body"]["scan"], row["body"]["n"]) for row in run.events("pass")}
                assert set(screen.passes) == passes
                assert not screen.ended.is_set(), "the screen was never cut off"
            with ending(Run.start(tmp_path / "second", short, "--station", str(station), state=state)) as run:
                eventually(lambda: screen.last("run/id") == run.run_dir.name, "the next run", tell=run.tell)
                eventually(lambda: screen.host.get("away") == "", "it is live", tell=run.tell)
                assert not screen.host.get("ended")
                run.operando("abort")
                assert run.ended(seconds=120.0) == 5
                eventually(lambda: (screen.host.get("ended") or {}).get("code") == 5, "aborted")
                assert screen.last("beam/blanked") is True
                assert page_address(StateDir(state)) == address
    assert screen.ended.wait(20.0), "the page did not say goodbye"
    assert screen.error is None
