"""The live page in the Chromium of this machine: found, or the test says how to install it; never downloaded.

``Browser`` opens pages and keeps what a user would never see and a test must: errors on the console, broken
rules of the content security policy, and every address that was asked for.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Page, sync_playwright

from hil_tests.harness import eventually

NAMES = ("chromium", "chromium-browser", "google-chrome")
APT_LINE = "sudo apt-get install chromium fonts-dejavu-core"
ARGUMENTS = ("--no-sandbox", "--disable-dev-shm-usage", "--enable-precise-memory-info")
SIZES = {"phone": (390, 844), "laptop": (1440, 900), "wall": (1920, 1080)}


def find() -> str:
    """Return the path of a Chromium; without one the test fails with the line to install it."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    raise AssertionError(f"no Chromium is installed; this test needs it: {APT_LINE}")


@dataclass
class Watched:
    """One page, with everything that went wrong on it."""

    page: Page
    errors: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def strangers(self, origin: str) -> list[str]:
        """Return what was asked of any other origin than ``origin``."""
        ours = urlsplit(origin).netloc
        return [url for url in self.asked if urlsplit(url).netloc != ours and urlsplit(url).scheme != "data"]

    def until(self, script: str, *, seconds: float = 60.0) -> Any:
        """Wait until an expression of the page is true; return what it is.

        Asked from here: the page's own security policy forbids what playwright would do inside it.
        """
        return eventually(
            lambda: self.page.evaluate(script), script, seconds=seconds, poll_s=0.1, tell=self.tell
        )

    def tell(self) -> str:
        """Say what the page shows, for whoever reads a failed test."""
        return f"{self.errors}\n{self.page.inner_text('body')[:3000]}"

    def text(self, selector: str) -> str:
        """Return what stands in an element, as it is seen."""
        return self.page.inner_text(selector).strip()


@dataclass
class Browser:
    """A running Chromium."""

    chromium: Chromium

    def open(
        self,
        url: str,
        size: str = "laptop",
        *,
        theme: str = "light",
        wait: str = "commit",
        scale: float = 1.0,
    ) -> Watched:
        """Open a page in a window of its own, with a profile of its own."""
        width, height = SIZES[size]
        phone = size == "phone"
        context = self.chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme, is_mobile=phone, has_touch=phone,
            device_scale_factor=scale, reduced_motion="reduce",
        )  # fmt: skip
        page = context.new_page()
        watched = Watched(page)
        page.on("console", lambda said: said.type == "error" and watched.errors.append(said.text))
        page.on("pageerror", lambda error: watched.errors.append(str(error)))
        page.on("request", lambda request: watched.asked.append(request.url))
        page.on("websocket", lambda socket: watched.asked.append(socket.url))
        page.goto(url, wait_until=wait)  # type: ignore[arg-type]
        return watched


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a Chromium without a window, and end it."""
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=find(), args=list(ARGUMENTS))
        try:
            yield Browser(chromium)
        finally:
            chromium.close()
