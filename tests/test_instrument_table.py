"""The instrument table of the README and the page behind it: every command leads to something there."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from hil_tests.sim.rack import CHOICES
from hil_tests.soak.items import ITEMS

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "hil_tests" / "experiments"
TABLE = (ROOT / "README.md").read_text().split("## Instruments\n")[1].split("\n## ")[0]
ROWS = [line for line in TABLE.splitlines() if line.startswith("| ")][1:]
PAGE = (ROOT / "drivers" / "INSTRUMENTS.md").read_text()


def said(text: str) -> list[str]:
    """Return what stands between backticks."""
    return re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def wrong(command: str) -> str:
    """Return what a command names that is not there."""
    for word in command.split():
        if word.startswith(("tests/", "hil_tests/")) and not list(ROOT.glob(word)):
            return word
    for role, driver in re.findall(r"--with (\w+)=(\w+)", command):
        if driver not in CHOICES.get(role, {}) and driver != "none":
            return f"{role}={driver}"
    if "hil_tests.soak --only" in command:
        return " ".join(set(command.split("--only")[1].split()) - set(ITEMS))
    if command.endswith(".toml") and "/" not in command and not (EXPERIMENTS / command).is_file():
        return command
    return ""


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_every_line_is_shown_by_commands_that_exist(row: str) -> None:
    shown = said(row.split("|")[4])
    assert any(command.startswith(("pytest ", "python -m ")) for command in shown)
    assert [wrong(command) for command in shown if wrong(command)] == []


def test_commands_of_the_page_of_instruments_exist() -> None:
    """Files that tests are in; what stands in a form (``...``) is no command."""
    found = [
        command
        for command in said(PAGE)
        if command.startswith(("pytest ", "python -m hil_tests", "operando "))
    ]
    assert len(found) > 50
    assert [f"{command}: {wrong(command)}" for command in found if wrong(command)] == []


def test_every_driver_has_its_section_and_everything_in_the_rack_is_in_the_table() -> None:
    sections = set(re.findall(r"^## .*\(`(\w+)`\)", PAGE, re.MULTILINE))
    ours = {
        entry.name for entry in entry_points(group="operando.drivers") if entry.value.startswith("drivers.")
    }
    assert ours - sections == set()
    for row in ROWS[:-1]:
        for role, driver in re.findall(r"--with (\w+)=(\w+)", row):
            assert driver in CHOICES[role]


def test_a_command_that_names_nothing_is_seen() -> None:
    assert wrong("pytest tests/drivers/test_no_such.py") == "tests/drivers/test_no_such.py"
    assert wrong("--with cell=keithley_9999") == "cell=keithley_9999"
    assert wrong("python -m hil_tests.soak --only frames nothing") == "nothing"
    assert wrong("nothing.toml") == "nothing.toml"
