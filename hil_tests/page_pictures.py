"""The pictures of the live page in ``controller/web/pictures``: ``python -m hil_tests.page_pictures``.

Those of the documents show real runs on the bench (``page_real.py``, about five minutes). ``--all DIR`` shows
the stage: every state, always the same data.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from hil_tests.browser import SIZES, Browser, browser
from hil_tests.page_real import moments
from hil_tests.page_stage import served

FOLDER = Path(__file__).parent.parent / "controller" / "web" / "pictures"
KEPT = (  # of all combinations, what the documents show
    ("laptop", "running", "light"),
    ("wall", "running", "dark"),
    ("phone", "tripped", "light"),
    ("laptop", "stale", "dark"),
    ("phone", "ended", "dark"),
)
SHOWN = {
    "tripped": "operando.model.ended()",
    "stale": "operando.model.lost()",
    "ended": "operando.model.ended()?.code === 0",
}
LARGEST = 300_000  # bytes of a picture


def take(
    chrome: Browser,
    address: str,
    size: str,
    theme: str,
    path: Path,
    *,
    whole: bool = False,
    until: str = "true",
) -> None:
    """Take one picture when everything has been drawn, and an expression of the page is true."""
    watched = chrome.open(address, size, theme=theme)
    watched.until("globalThis.operando?.model.complete && document.querySelector('#trends canvas')")
    watched.until(until)
    watched.page.wait_for_timeout(1500)
    path.parent.mkdir(parents=True, exist_ok=True)
    watched.page.screenshot(path=path, full_page=whole)
    watched.page.context.close()
    with Image.open(path) as image:  # 256 colours: a third of the bytes
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def of_runs(chrome: Browser, folder: Path) -> None:
    """Take the pictures of the documents. Raises SystemExit when one is too large."""
    with TemporaryDirectory(prefix="operando-page-") as scratch:
        for moment, address in moments(Path(scratch)):
            for size, scene, theme in KEPT:
                if scene == moment:
                    path = folder / f"{size}-{scene}-{theme}.png"
                    take(chrome, address, size, theme, path, until=SHOWN.get(scene, "true"))
                    print(f"{path}: {path.stat().st_size} bytes")
                    if path.stat().st_size > LARGEST:
                        raise SystemExit(f"{path} is larger than {LARGEST} bytes")


def of_the_stage(chrome: Browser, folder: Path) -> None:
    """Take every size, scene and theme."""
    scenes = ("running", "tripped", "stale", "early", "ended")
    for scene in scenes:
        with served(scene) as address:
            for size, theme in itertools.product(SIZES, ("light", "dark")):
                path = folder / f"{size}-{scene}-{theme}.png"
                take(chrome, address, size, theme, path, whole=size != "wall")
                print(f"{path}: {path.stat().st_size} bytes")


def main() -> None:
    """Take the pictures of the documents, or all of them into a folder."""
    parser = argparse.ArgumentParser(
        description="take pictures of the live page: of real runs, or of its stage"
    )
    parser.add_argument("--all", type=Path, metavar="DIR", help="the stage: every size, scene and theme")
    asked = parser.parse_args()
    with browser() as chrome:
        if asked.all:
            of_the_stage(chrome, asked.all)
        else:
            of_runs(chrome, FOLDER)


if __name__ == "__main__":
    main()
