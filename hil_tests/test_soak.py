"""The soak runner: what it remembers, what it kills, and the arithmetic that judges."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hil_tests.soak import fuzz
from hil_tests.soak.__main__ import main
from hil_tests.soak.items import ITEMS
from hil_tests.soak.long_run import Track, judge, slope_of
from hil_tests.soak.runner import ROOT, Book, Failed, Skip, Workshop, machine, tree_state
from hil_tests.soak.runs import Run, chi_square_bound
from hil_tests.soak.table import gather, page


@pytest.mark.parametrize(
    ("n", "z", "expected"),
    [(20, 3.0902, 45.315), (20, -3.0902, 5.921), (10, 1.6449, 18.307), (20, 0.0, 19.337)],
)
def test_chi_square_as_tabulated(n: int, z: float, expected: float) -> None:
    assert chi_square_bound(n, z) == pytest.approx(expected, rel=0.02)


def test_soc_is_derived_from_the_atoms_of_the_field() -> None:
    cathode = {"in_field_now": {"Li": 7.5e11}, "in_field_as_prepared": {"Li": 1e12}}
    run = Run({"layers": []}, {"sample": {"layers": {"cathode": cathode}}})
    assert run.true_soc() == pytest.approx(0.5)  # a quarter of the lithium is half of the way to x = 0.5


def test_outcomes_are_remembered_and_reasons_kept(tmp_path: Path) -> None:
    book = Book(tmp_path, "abc")

    def skip(work: Workshop) -> str:
        raise Skip("not here")

    def fail(work: Workshop) -> str:
        raise Failed("wrong")

    assert book.outcome("a") is None
    assert book.do("a", lambda work: "fine").state == "passed"
    assert book.do("b", skip).text == "not here"
    assert (book.do("c", fail).state, book.outcome("c").text) == ("failed", "wrong")
    again = Book(tmp_path, "abc").outcome("a")
    assert (again.state, again.text) == ("passed", "fine")
    assert Book(tmp_path, "other-commit").outcome("a") is None


def test_an_interrupted_item_is_not_remembered(tmp_path: Path) -> None:
    book = Book(tmp_path, "abc")

    def interrupt(work: Workshop) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        book.do("a", interrupt)
    assert book.outcome("a") is None


def test_a_command_that_does_not_end_is_ended_with_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    began = time.monotonic()
    with pytest.raises(Failed, match="did not end within 3 s"):
        Workshop(tmp_path).run([sys.executable, "-c", code], limit_s=3.0)
    assert time.monotonic() - began < 30.0
    child = Path("/proc") / (tmp_path / "pid").read_text() / "cmdline"
    deadline = time.monotonic() + 5.0
    while child.exists() and child.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not child.exists() or not child.read_bytes()  # gone, or dead and not yet collected


def test_output_and_exit_code_are_logged(tmp_path: Path) -> None:
    done = Workshop(tmp_path).run([sys.executable, "-c", "print('hello'); raise SystemExit(3)"])
    assert (done.returncode, done.stdout) == (3, "hello\n")
    log = (tmp_path / "log.txt").read_text()
    assert "hello" in log
    assert "(exit code 3)" in log


def test_the_state_of_a_tree_changes_with_its_files(tmp_path: Path) -> None:
    assert tree_state(tmp_path / "no-repository") == "no-git"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    work = Workshop(tmp_path)
    work.run([*git, "init", "--quiet"])
    (tmp_path / "file").write_text("1")
    (tmp_path / ".gitignore").write_text("log.txt\n")
    work.run([*git, "add", "."])
    work.run([*git, "commit", "--quiet", "-m", "one"])
    clean = tree_state(tmp_path)
    assert len(clean) == 12
    (tmp_path / "file").write_text("2")
    changed = tree_state(tmp_path)
    assert changed.startswith(clean + "-")
    (tmp_path / "file").write_text("1")
    assert tree_state(tmp_path) == clean


def test_fuzzing_counts_for_what_the_target_loads() -> None:
    code = "from hil_tests.soak import fuzz; print(*fuzz.loaded('cycler-log'))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    names = {Path(path).name for path in done.stdout.split()}
    assert {"cycler_log.py", "neware_csv.py", "bounded.py"} <= names
    assert not names & {"cycler_log.pyc", "imzml.py", "tiff_stack.py", "fuzz.py"}


def test_the_list_names_every_item(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(ITEMS)


def test_an_account_for_the_fresh_user_needs_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    outcome = Book(tmp_path, "abc").do("fresh-user", ITEMS["fresh-user"])
    assert outcome.state == "skipped"
    assert "only root" in outcome.text
    assert json.loads((tmp_path / "abc" / "fresh-user" / "outcome.json").read_text())["state"] == "skipped"


def test_a_slope_and_its_error() -> None:
    """Anscombe's first set: 0.5001 with a standard error of 0.1179 (The American Statistician 27, 17)."""
    x = [10.0, 8.0, 13.0, 9.0, 11.0, 14.0, 6.0, 4.0, 12.0, 7.0, 5.0]
    y = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68]
    assert slope_of(x, y) == (pytest.approx(0.5001, abs=1e-4), pytest.approx(0.1179, abs=1e-4))


def _track(rss: float = 0.0, descriptors: int = 20, later_s: float = 0.0) -> Track:
    """A process over one hour: what grows, from the middle on."""
    hours = [n / 100.0 for n in range(101)]
    return Track(
        at_s=[3600.0 * at for at in hours], rss_mb=[60.0 + rss * at for at in hours],
        descriptors=[20 if at < 0.5 else descriptors for at in hours], threads=[4] * 101,
        late_s=[0.01 + later_s * at for at in hours], pids={7},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("grows", "words"),
    [
        ({}, None),
        ({"rss": 10.0}, "grows by 10.0 MB an hour"),
        ({"descriptors": 25}, "descriptors 20 -> 25"),
        ({"later_s": 1.0}, "comes later"),
    ],
)
def test_what_grows_in_a_long_run_is_told(grows: dict[str, Any], words: str | None) -> None:
    table, problems = judge({"control": _track(**grows)})
    assert len(table) == 2
    assert (problems == []) if words is None else (words in problems[0])


def test_an_outcome_says_on_what_it_was_made_and_old_ones_are_read(tmp_path: Path) -> None:
    on = Book(tmp_path, "abc").do("a", lambda work: "fine").conditions
    assert on is not None
    assert on["cores"] >= 1
    assert on["memory_gb"] > 0.1
    assert len(on["load_begin"]) == len(on["load_end"]) == 3
    assert on["python"] == platform.python_version()
    old = {"name": "b", "state": "passed", "seconds": 1.0, "text": "", "date": "2026-11-21 13:12:00 +0000"}
    (tmp_path / "abc" / "b").mkdir()
    (tmp_path / "abc" / "b" / "outcome.json").write_text(json.dumps(old))
    assert Book(tmp_path, "abc").outcome("b").conditions is None


def _remember(clone: Path, tree: str, name: str, state: str, ended: str, **more: Any) -> None:
    """Write an outcome as a clone has it, an old one unless ``more`` says its conditions."""
    place = clone / ".soak" / tree / name
    place.mkdir(parents=True)
    date = f"2026-11-{ended} +0000"
    outcome = {"name": name, "state": state, "seconds": 30.0, "text": "fine", "date": date, **more}
    (place / "outcome.json").write_text(json.dumps(outcome))


def _rows(text: str) -> dict[str, list[str]]:
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {row[0]: row for row in rows}


def test_the_table_has_the_newest_outcome_of_each_item_of_several_clones(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    _remember(one, "aaaaaaaaaaaa", "stage", "passed", "20 10:00:00")
    _remember(
        two, "bbbbbbbbbbbb-12345678", "stage", "failed", "21 10:00:00", text=f"a | b {two}/.soak/x\n2\n3"
    )
    _remember(two, "cccccccccccc", "stage", "skipped", "22 10:00:00")
    _remember(one, "cccccccccccc", "wheels", "failed", "20 10:00:00")
    on = {**machine(), "processor": "P", "load_begin": [1.0, 2.0, 3.0], "load_end": [4.0, 5.0, 6.0]}
    _remember(two, "cccccccccccc", "wheels", "passed", "20 12:00:00", conditions=on)
    text = page(["wheels", "stage", "manual"], gather([one, two / ".soak"]))
    rows = _rows(text)
    assert rows["stage"][1:4] == [
        "**failed** (skipped since, 2026-11-22)",
        "2026-11-21 10:00 +0000",
        "bbbbbbb+",
    ]
    assert rows["stage"][5] == "not recorded"
    assert str(tmp_path) not in text  # where somebody's clone stands is nobody's business
    assert "    a | b .soak/x\n    2\n    3\n" in text.partition("## Not passed")[2]
    assert rows["wheels"][1:6] == [
        "passed",
        "2026-11-20 12:00 +0000",
        "ccccccc",
        "30 s",
        "1: 1.0 2.0 3.0; 4.0",
    ]
    assert rows["manual"][1] == "never run"
    assert "3 items: 1 passed, 1 failed, 0 skipped, 1 never run." in text
    assert "commits: ccccccc (1), bbbbbbb+ (1)." in text


@pytest.mark.parametrize("more", [{"worked_s": 600.0}, {}])
def test_the_table_has_the_time_of_all_sittings(tmp_path: Path, more: dict[str, float]) -> None:
    said = "nothing found in 600 s, 123 inputs, 4 kept in the corpus"
    _remember(tmp_path, "aaaaaaaaaaaa", "fuzz-zaber", "passed", "20 10:00:00", seconds=0.3, text=said, **more)
    row = _rows(page(["fuzz-zaber"], gather([tmp_path])))["fuzz-zaber"]
    assert row[4] == "600 s, in the last sitting 0.3 s"


def test_fuzzing_that_had_nothing_left_says_when_it_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "PLACE", tmp_path / "fuzz")
    monkeypatch.setattr(fuzz, "missing", lambda name: None)
    monkeypatch.setattr(fuzz, "_engine", lambda work: tmp_path)
    monkeypatch.setattr(fuzz, "_code", lambda name, work: "code")
    spent = tmp_path / "fuzz" / "zaber" / "spent-code.txt"
    spent.parent.mkdir(parents=True)
    spent.write_text("600 123\n")
    os.utime(spent, (1.7e9, 1.7e9))
    outcome = Book(tmp_path, "abc").do("fuzz-zaber", ITEMS["fuzz-zaber"])
    assert (outcome.state, outcome.worked_s) == ("passed", 600)
    assert time.strftime(
        "nothing was left to do, its code is the same as on %Y-%m-%d", time.localtime(1.7e9)
    ) in (outcome.text)


def test_a_table_of_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--table", str(tmp_path)]) == 2
    assert "no soak was run in" in capsys.readouterr().err
