"""The tutorial is a test: its files are written, its commands run in order, what they print is compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "controller" / "docs"
BLOCK = re.compile(r"^```(\w+)[ ]?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LONGEST_S = 240.0  # of one command, on a loaded machine; alone the whole page takes less than a minute


def blocks(page):
    return BLOCK.findall((DOCS / page).read_text())


def commands(text):
    """Yield (command, lines that it prints) of a console block."""
    for part in re.split(r"(?m)^\$ ", text)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown.splitlines()


def matches(shown, printed):
    """Whether lines are printed in this order; ``...`` is any text in a line, alone any lines."""
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "..." else ".*".join(map(re.escape, line.split("..."))) + r"\n"
        for line in shown
    )
    return (
        re.fullmatch(pattern, printed if printed.endswith("\n") or not printed else printed + "\n")
        is not None
    )


def test_the_comparison_can_fail():
    assert matches(["a ... c", "...", "z"], "a b c\nx\ny\nz\n")
    assert not matches(["a ... c", "z"], "a b c\nx\nz\n")
    assert not matches(["a"], "a\nb\n")


def test_every_command_of_the_tutorial_does_what_the_page_says(tmp_path):
    environment = {
        **os.environ, "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state"), "COLUMNS": "200",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]), "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    work = tmp_path / "work"
    work.mkdir()
    ran = 0
    for kind, name, text in blocks("tutorial.md"):
        if kind == "toml" and name:
            (work / name).write_text(text)
        for command, shown in commands(text) if kind == "console" else ():
            done = subprocess.run(
                ["bash", "-c", command], cwd=work, env=environment, check=False, capture_output=True,
                text=True, stdin=subprocess.DEVNULL, timeout=LONGEST_S,
            )  # fmt: skip
            printed = done.stderr + done.stdout if "exit code" in command else done.stdout + done.stderr
            assert matches(shown, printed), f"$ {command}\n{printed}\n--- the page says:\n" + "\n".join(shown)
            ran += 1
    assert ran >= 8


def test_links_of_the_pages_lead_somewhere():
    for page in DOCS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_reference_is_that_of_the_code():
    from controller.docs.reference import pages

    for name, text in pages().items():
        assert (DOCS / name).read_text() == text, f"{name} is out of date: python -m controller.docs"
