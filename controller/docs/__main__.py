"""``python -m controller.docs`` writes the reference anew; ``--check`` says what is out of date (exit 1)."""

from __future__ import annotations

import sys
from pathlib import Path

from controller.docs.reference import pages

HERE = Path(__file__).parent


def main(argv: list[str]) -> int:
    """Write the pages, or compare them."""
    stale = []
    for name, text in pages().items():
        path = HERE / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in argv:
                path.write_text(text, encoding="utf-8")
    print(("out of date: " if "--check" in argv else "written: ") + (", ".join(stale) or "none"))
    return 1 if stale and "--check" in argv else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
