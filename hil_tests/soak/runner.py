"""Items, their outcomes, and the book in ``.soak/`` that remembers them for one state of the tree."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.conditions import cores, cpu, memory_gb

ROOT = Path(__file__).parent.parent.parent
LIMIT_S = 3600.0
GRACE_S = 20.0
DATE = "%Y-%m-%d %H:%M:%S %z"


class Skip(Exception):
    """An item cannot be tried here; says why."""


class Failed(Exception):
    """An item was tried and something is wrong; says what."""


@dataclass(frozen=True)
class Outcome:
    """How an item ended."""

    name: str
    state: str  # passed, failed, skipped
    seconds: float
    text: str
    date: str
    worked_s: float | None = None  # over all sittings, of an item that goes on where it was cut off
    conditions: dict[str, Any] | None = None  # on what; None: not recorded


class Workshop:
    """Where one item works: its folder, its log, and how much of its hour is left.

    An item that goes on where it was cut off sets ``worked_s`` to what all its sittings took.
    """

    def __init__(self, folder: Path, limit_s: float = LIMIT_S) -> None:
        self.folder = folder
        self.ends = time.monotonic() + limit_s
        self.worked_s: float | None = None
        self._log = folder / "log.txt"

    def run(
        self,
        command: Sequence[str | Path],
        *,
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
        limit_s: float = LIMIT_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and return it with its output; everything goes into the log.

        Raises:
            Failed: it did not end in time; it and all it had started in its group were killed.
        """
        words = [str(word) for word in command]
        allowed_s = min(limit_s, max(self.ends - time.monotonic(), 1.0))
        self.say(f"$ {' '.join(words)}")
        process = subprocess.Popen(
            words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            out, _ = process.communicate(timeout=allowed_s)
        except subprocess.TimeoutExpired:
            out = _end(process)
            self.say(out)
            raise Failed(f"{' '.join(words[:6])} ... did not end within {allowed_s:.0f} s") from None
        except KeyboardInterrupt:
            _end(process)
            raise
        self.say(f"{out}(exit code {process.returncode})")
        return subprocess.CompletedProcess(words, process.returncode, out, "")

    def say(self, text: str) -> None:
        """Write a line into the log of the item."""
        with self._log.open("a") as log:
            log.write(text + "\n")

    def operando(self, *words: str | Path, limit_s: float = LIMIT_S) -> subprocess.CompletedProcess[str]:
        """Run a command as a user would, from this environment."""
        script = Path(sys.executable).parent / "operando"
        command = [str(script)] if script.is_file() else [sys.executable, "-m", "controller"]
        return self.run([*command, *words], limit_s=limit_s)


def _end(process: subprocess.Popen[str]) -> str:
    """End a command: asked first, so that a host can make its outputs safe; then killed with its group."""
    for number in (signal.SIGTERM, signal.SIGKILL):  # SIGINT may be ignored since birth, below a script
        try:
            os.killpg(process.pid, number)
            out, _ = process.communicate(timeout=GRACE_S)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
        else:
            return out or ""
    return ""


Item = Callable[[Workshop], str]


class Book:
    """Remembers outcomes below ``.soak/<state of the tree>/``."""

    def __init__(self, folder: Path, tree: str) -> None:
        self.folder = folder / tree
        self.folder.mkdir(parents=True, exist_ok=True)

    def outcome(self, name: str) -> Outcome | None:
        """Return how an item ended last time, None if it has not."""
        return read(self.folder / name / "outcome.json")

    def do(self, name: str, item: Item) -> Outcome:
        """Carry out an item and remember its outcome; an interrupted one is not remembered."""
        place = self.folder / name
        place.mkdir(exist_ok=True)
        began, load = time.monotonic(), os.getloadavg()
        work = Workshop(place)
        try:
            state, text = "passed", item(work)
        except Skip as reason:
            state, text = "skipped", str(reason)
        except Failed as reason:
            state, text = "failed", str(reason)
        outcome = Outcome(
            name, state, round(time.monotonic() - began, 1), text, time.strftime(DATE),
            work.worked_s, {**machine(), "load_begin": load, "load_end": os.getloadavg()},
        )  # fmt: skip
        scratch = place / "outcome.tmp"
        scratch.write_text(json.dumps(asdict(outcome), indent=1))
        scratch.replace(place / "outcome.json")
        return outcome


def read(path: Path) -> Outcome | None:
    """Return the outcome in a file, None if there is none."""
    try:
        return Outcome(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def machine() -> dict[str, Any]:
    """Return what an item is tried on."""
    return {
        "cores": cores(), "processor": cpu(), "memory_gb": round(memory_gb(), 1),
        "python": platform.python_version(), "kernel": platform.release(),
    }  # fmt: skip


def tree_state(root: Path = ROOT) -> str:
    """Return a name for the state of the tree: the commit, and a digest of what is not committed."""
    git = shutil.which("git")
    if git is None:
        return "no-git"

    def ask(*words: str) -> str:
        command = [git, "-C", str(root), *words]
        return subprocess.run(command, check=False, capture_output=True, text=True).stdout

    commit = ask("rev-parse", "--short=12", "HEAD").strip()
    if not commit:
        return "no-git"
    changes = ask("diff", "HEAD") + ask("ls-files", "--others", "--exclude-standard")
    return f"{commit}-{hashlib.sha256(changes.encode()).hexdigest()[:8]}" if changes else commit
