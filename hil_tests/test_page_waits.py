"""What the page that stays shows before a host was ever there: no alarm, nothing claimed, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

from hil_tests.browser import Browser, browser
from hil_tests.page_real import standing

pytestmark = pytest.mark.slow
STATION = Path(__file__).parent.parent / "tests" / "controller" / "config" / "station.toml"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place = tmp_path_factory.mktemp("waits")
    station = place / "station.toml"
    station.write_text(STATION.read_text() + "\n[web]\nport = 0\n")
    with standing(station, place / "state", place / "page.log") as found:
        yield found


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as chromium:
        yield chromium


@pytest.mark.parametrize(("size", "theme"), [("phone", "light"), ("laptop", "dark"), ("wall", "light")])
def test_before_a_first_run_it_waits_and_claims_nothing(
    chrome: Browser, address: str, size: str, theme: str
) -> None:
    seen = chrome.open(address, size, theme=theme)
    seen.until("document.querySelector('#lost')?.hidden === false")
    assert seen.page.evaluate("document.documentElement.dataset.link") == "waiting"
    assert "No run has been begun at this station yet." in seen.text("#lost")
    assert "operando run EXPERIMENT --station STATION" in seen.text("#lost")
    assert seen.text("#link") == "waiting for a first run"
    assert seen.text("#safe-word") == "Not known"  # nobody measures: never green, and not red either
    assert seen.text("#running-word") == "No run yet"
    assert "OLD" not in seen.text("main")  # there is nothing that could be old
    assert seen.page.title() == "Not known · No run yet · bench"
    width = seen.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    found = Axe().run(seen.page).response["violations"]
    told = [(one["id"], one["help"], [node["html"][:150] for node in one["nodes"]][:4]) for one in found]
    assert told == []
    assert seen.errors == []
    seen.page.context.close()
