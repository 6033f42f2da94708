"""``report.pdf`` from ``report.html``, printed by this machine's Chromium: no window, no network.

The page is made for a browser (its figures are SVG that take their colours from the page), so a browser
prints it. Chromium is a package of Raspberry Pi OS and Debian; nothing is downloaded here.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from controller.offline.files_out import replacing

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
INSTALL = "sudo apt-get install --no-install-recommends chromium"
LIMIT_S = 180.0  # a Raspberry Pi 4 takes a tenth of it
OPTIONS = (
    "--headless", "--disable-gpu", "--no-first-run", "--no-pdf-header-footer", "--disable-extensions",
    "--disable-background-networking", "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip
TAIL = 300  # characters of what Chromium said that are worth telling


class PdfError(Exception):
    """There is no report.pdf, and why."""


def find() -> str:
    """Return the path of a Chromium.

    Raises:
        PdfError: there is none; the message holds the command that installs it.
    """
    for name in NAMES:
        found = shutil.which(name)
        if found is not None:
            return found
    raise PdfError(
        f"printing a PDF needs Chromium, and there is none on this machine: {INSTALL}; "
        "or open report.html in any browser and print it to a file"
    )


def print_pdf(page: Path, target: Path, *, limit_s: float = LIMIT_S) -> None:
    """Print a page to a PDF file, which appears whole or not at all.

    Args:
        page: an HTML file that needs nothing from elsewhere.
        target: where the PDF goes.
        limit_s: after so many seconds Chromium is ended.

    Raises:
        PdfError: no Chromium, or it failed, took too long or wrote no PDF.
    """
    browser = find()
    with replacing(target) as scratch, tempfile.TemporaryDirectory(prefix="operando-pdf-") as profile:
        command = [
            browser, *OPTIONS, *(["--no-sandbox"] if os.geteuid() == 0 else []),  # root has no sandbox
            f"--user-data-dir={profile}", f"--print-to-pdf={scratch.resolve()}", page.resolve().as_uri(),
        ]  # fmt: skip
        said = _run(command, limit_s)
        try:
            written = scratch.read_bytes()
        except OSError:
            written = b""
        if not written.startswith(b"%PDF-") or b"%%EOF" not in written[-1024:]:
            raise PdfError(f"{Path(browser).name} wrote no PDF: {said[-TAIL:].strip() or 'it said nothing'}")


def _run(command: list[str], limit_s: float) -> str:
    """Run Chromium with its children; return what it said."""
    try:
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise PdfError(f"{command[0]} cannot be started: {error}") from error
    try:
        said, _ = started.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired as late:
        os.killpg(started.pid, signal.SIGKILL)
        started.communicate()
        raise PdfError(f"{command[0]} did not end within {limit_s:g} s") from late
    return said.decode(errors="replace")
