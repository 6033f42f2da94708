"""The pictures of the live page in ``controller/web/pictures``: ``python -m hil_tests.page_pictures``.

They show the stage, not a run: every state, always the same data. For a run, open its page.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

from PIL import Image

from hil_tests.browser import SIZES, Browser, browser
from hil_tests.page_stage import served

FOLDER = Path(__file__).parent.parent / "controller" / "web" / "pictures"
KEPT = (  # of all combinations, what the documents show
    ("laptop", "running", "light"),
    ("laptop", "stale", "dark"),
    ("phone", "tripped", "light"),
    ("wall", "running", "dark"),
)
LARGEST = 300_000  # bytes of a picture


def take(chrome: Browser, address: str, size: str, theme: str, path: Path, *, whole: bool = False) -> None:
    """Take one picture when everything has been drawn."""
    watched = chrome.open(address, size, theme=theme)
    watched.until("globalThis.operando?.model.complete && document.querySelector('#trends canvas')")
    watched.page.wait_for_timeout(1500)
    path.parent.mkdir(parents=True, exist_ok=True)
    watched.page.screenshot(path=path, full_page=whole)
    watched.page.context.close()
    with Image.open(path) as image:  # 256 colours: a third of the bytes
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Take the pictures of the documents, or all of them into a folder."""
    parser = argparse.ArgumentParser(description="take pictures of the live page, from its stage")
    parser.add_argument("--all", type=Path, metavar="DIR", help="every size, scene and theme, whole pages")
    asked = parser.parse_args()
    scenes = ("running", "tripped", "stale", "early", "ended")
    wanted = list(itertools.product(SIZES, scenes, ("light", "dark"))) if asked.all else list(KEPT)
    folder = asked.all or FOLDER
    with browser() as chrome:
        for scene in sorted({scene for _, scene, _ in wanted}):
            with served(scene) as address:
                for size, of, theme in wanted:
                    if of != scene:
                        continue
                    path = folder / f"{size}-{scene}-{theme}.png"
                    take(chrome, address, size, theme, path, whole=bool(asked.all) and size != "wall")
                    print(f"{path}: {path.stat().st_size} bytes")
                    if not asked.all and path.stat().st_size > LARGEST:
                        raise SystemExit(f"{path} is larger than {LARGEST} bytes")


if __name__ == "__main__":
    main()
