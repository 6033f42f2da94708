"""What help and pages show as a command is one that the program takes."""

from __future__ import annotations

import argparse
import pkgutil
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.cli import command_line

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "controller").rglob("*.md")),
         *sorted((ROOT / "edge").glob("*.md")), *sorted((ROOT / "hil_tests").glob("*.md"))]  # fmt: skip
STOP = re.compile(r"(?:;|\s(?:#|\||&&|>|\s{2,})).*$")
OTHERS = re.compile(r"\.\.\.|[<\[]|\bURL\b|\bmakes\b|·|\(|…")  # an abbreviation, not a command to be typed


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield every command, and the kinds of those that have some."""
    waiting = [("operando", command_line())]
    while waiting:
        name, parser = waiting.pop()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                waiting += [(f"{name} {word}", one) for word, one in action.choices.items()]
        yield name, parser


def accepted(command: str) -> bool:
    words = shlex.split(command)[1:]
    if words[:1] == ["reduce"] or words in (["--help"], ["--version"]):
        return True
    try:
        command_line().parse_args(words)
    except SystemExit as end:
        return end.code == 0  # --help
    return True


def test_every_command_has_a_program() -> None:
    for name, parser in parsers():
        if not any(isinstance(action, argparse._SubParsersAction) for action in parser._actions):
            assert callable(pkgutil.resolve_name(f"controller.{parser.get_default('command')}")), name


@pytest.mark.parametrize("name", [name for name, _ in parsers() if name != "operando"])
def test_every_example_of_help_is_taken(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    epilog = next(parser.epilog or "" for one, parser in parsers() if one == name)
    examples = [line.strip() for line in epilog.partition("example:")[2].splitlines() if line.strip()]
    assert examples, f"{name} --help shows no example"
    for example in examples:
        assert example.startswith("operando ")
        assert accepted(example), f"{example}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_in_a_block_of_a_page_is_taken(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"(?ms)^```\w*[^\n]*\n(.*?)^```", page.read_text())
    whole = [re.sub(r"\\\n\s*", "", block) for block in blocks]  # lines that go on
    for line in (line for block in whole for line in block.splitlines()):
        command = STOP.sub("", line.strip().removeprefix("$ ").removeprefix(".venv/bin/"))
        if command.startswith("operando ") and not OTHERS.search(command):
            assert accepted(command), f"{page.name}: {command}\n{capsys.readouterr().err}"
