"""The report in a real Chromium: nothing cut on a phone, readable for everybody, on paper rows stay together.

Its numbers are tested in ``tests/controller/offline/test_report.py``; this is what only a browser knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

from controller.offline.finish import Finish
from controller.offline.report import write_report
from controller.offline.run_files import RunFiles
from hil_tests.browser import SIZES, Browser, Watched, browser
from tests.controller.offline.make_run import make_run

pytestmark = pytest.mark.slow
CUT = """[...document.querySelectorAll('td, th, .tile, p, li, pre, h1, h2, h3, .tile .value')]
.filter(one => !one.closest('thead') && one.getClientRects().length)
.filter(one => one.getBoundingClientRect().right > innerWidth + 1 || one.scrollWidth > one.clientWidth + 1)
.map(one => one.innerText.slice(0, 60))"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = make_run(tmp_path_factory.mktemp("seen"))
    finish = Finish(folder)
    finish._read()
    write_report(RunFiles(folder), finish.summary(), folder / "report.html")
    return (folder / "report.html").as_uri()


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as chromium:
        yield chromium


def opened(chrome: Browser, address: str, size: str, theme: str = "light") -> Watched:
    return chrome.open(address, size, theme=theme, wait="load")


@pytest.mark.parametrize("size", ["phone", "laptop"])
def test_no_number_is_out_of_sight(chrome: Browser, address: str, size: str) -> None:
    seen = opened(chrome, address, size)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    assert seen.page.evaluate(CUT) == []
    assert seen.errors == []
    seen.page.context.close()


def test_on_a_phone_every_number_says_what_it_is(chrome: Browser, address: str) -> None:
    """The row of the headers is not seen there: each number has its own."""
    seen = opened(chrome, address, "phone")
    row = seen.page.locator("tr", has_text="x in LiₓCoO₂").first
    told = row.locator("td").evaluate_all(
        "cells => cells.filter(one => one.offsetWidth).map(one => "
        "[getComputedStyle(one, '::before').content, one.innerText])"
    )
    assert [head.strip('"') for head, _ in told] == ["none", "value", "± stat", "± sys", "± total"]
    assert [number for _, number in told[1:]] == ["0.739", "0.013", "0.012", "0.018"]
    seen.page.context.close()


def test_figures_can_be_read_on_a_phone(chrome: Browser, address: str) -> None:
    """Letters keep their size, and what is too wide is moved sidewards, also with keys."""
    seen = opened(chrome, address, "phone")
    smallest = seen.page.evaluate(
        "Math.min(...[...document.querySelectorAll('figure svg text')]"
        ".map(one => [parseFloat(getComputedStyle(one).fontSize), one.getScreenCTM()])"
        ".map(([size, turned]) => size * Math.hypot(turned.a, turned.b)))"
    )
    assert smallest >= 8.0
    frame = seen.page.locator("figure:has(svg[aria-label^='State of charge']) .scroll")
    frame.focus()
    for _ in range(30):
        seen.page.keyboard.press("ArrowRight")
    seen.page.wait_for_function(
        "document.activeElement.scrollLeft + document.activeElement.clientWidth"
        " >= document.activeElement.scrollWidth - 2"
    )
    seen.page.context.close()


@pytest.mark.parametrize(("size", "theme"), [("phone", "light"), ("laptop", "dark"), ("laptop", "light")])
def test_everybody_can_read_it(chrome: Browser, address: str, size: str, theme: str) -> None:
    """axe-core: names, roles, order of headings, contrast of text, what can be reached with the keyboard."""
    seen = opened(chrome, address, size, theme)
    found = Axe().run(seen.page).response["violations"]
    told = [(one["id"], one["help"], [node["html"][:150] for node in one["nodes"]][:4]) for one in found]
    assert told == []
    seen.page.context.close()


def test_on_paper_it_is_dark_ink_and_nothing_is_cut(chrome: Browser, address: str) -> None:
    """Printed from a dark browser: white paper, tables as tables, figures whole, short tables on one page."""
    seen = opened(chrome, address, "laptop", "dark")
    seen.page.set_viewport_size({"width": 680, "height": 990})  # A4 less the margins
    seen.page.emulate_media(media="print", color_scheme="dark")
    ink, paper = seen.page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert (ink, paper) == ("rgb(27, 31, 36)", "rgb(255, 255, 255)")
    assert seen.page.evaluate(CUT) == []
    wide = seen.page.evaluate(
        "[...document.querySelectorAll('figure svg')].map(one => one.getBoundingClientRect().right)"
    )
    assert max(wide) <= 680
    assert seen.page.evaluate("getComputedStyle(document.querySelector('table thead')).display") == (
        "table-header-group"
    )
    tops = seen.page.evaluate(
        "[...document.querySelectorAll('.tile')].map(one => one.getBoundingClientRect().top)"
    )
    assert len(set(tops)) == 1  # four of them side by side
    broken = seen.page.evaluate(
        "[...document.querySelectorAll('tbody')].filter(one => one.rows.length <= 12)"
        ".filter(one => getComputedStyle(one.parentElement).breakInside !== 'avoid').length"
    )
    assert broken == 0
    seen.page.context.close()
