"""Items ``fuzz-NAME``: ten minutes of coverage-guided fuzzing of each reader and codec, minute by minute.

The corpus of a target stays in ``.soak/fuzz/NAME/corpus`` over all states of the tree, its findings in
``.soak/fuzz/NAME/found``. How long it has been fuzzed stands beside them, for one state of the modules that
it loads: an item that was cut off goes on, and one that was finished is not repeated because something else
has changed. ``OPERANDO_FUZZ_S`` sets how much of the ten minutes is done at once: an item of which some is
left counts as skipped, not as passed.

The engine is atheris (Apache-2.0, libFuzzer), which has no wheels for ARM: it is installed beside the
environment, into ``.soak/fuzz/atheris``, not into it.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from hil_tests.soak.fuzz_codecs import in_memory
from hil_tests.soak.fuzz_targets import TARGETS, missing, one
from hil_tests.soak.runner import ROOT, Failed, Item, Skip, Workshop

WHOLE_S = 600
STRETCH_S = 60
START_S = 120.0  # for imports and the corpus
ENGINE = "atheris>=3.0,<4"
PLACE = ROOT / ".soak" / "fuzz"
FINDINGS = ROOT / "tests" / "data" / "fuzz"
PACKAGES = ("drivers", "controller", "edge", "hil_tests.sim")
_LOADED = "Modules loaded: "
_UNITS = re.compile(r"stat::number_of_executed_units: (\d+)")


def items() -> Iterator[tuple[str, Item]]:
    """Yield (name, item) of every target."""
    for name in TARGETS:
        yield f"fuzz-{name}", functools.partial(fuzz, name)


def fuzz(name: str, work: Workshop) -> str:
    """Fuzz one target until ten minutes are full, or something is found."""
    lacking = missing(name)
    if lacking:
        raise Skip(f"{lacking} is not installed")
    library = _engine(work)
    place = PLACE / name
    corpus, found = place / "corpus", place / "found"
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    _seed(name, corpus)
    spent = _Spent(place / f"spent-{_code(name, work)}.txt")
    begins_s = work.worked_s = spent.seconds
    ends_s = min(WHOLE_S, begins_s + int(os.environ.get("OPERANDO_FUZZ_S", WHOLE_S)))
    while spent.seconds < ends_s:
        stretch_s = min(STRETCH_S, ends_s - spent.seconds)
        spent.add(stretch_s, _stretch(name, work, library, corpus, found, stretch_s))
        work.worked_s = spent.seconds
    said = f"{spent.seconds} s, {spent.inputs} inputs, {len(list(corpus.iterdir()))} kept in the corpus"
    if begins_s >= WHOLE_S:
        said += f"; nothing was left to do, its code is the same as on {spent.date()}"
    if spent.seconds < WHOLE_S:
        raise Skip(f"nothing found so far in {said}; {WHOLE_S - spent.seconds} s are left")
    return f"nothing found in {said}"


def loaded(name: str) -> list[Path]:
    """Return the files of ours that a target has loaded once it has taken its seeds, in this process."""
    run = one(name)
    for data in TARGETS[name].seeds():
        run(data)
    files = {
        Path(module.__file__)
        for key, module in list(sys.modules.items())
        if f"{key}.".startswith(tuple(f"{one}." for one in PACKAGES)) and getattr(module, "__file__", None)
    }
    return sorted(files)


def _code(name: str, work: Workshop) -> str:
    """Return a name for the state of what is fuzzed: found in a process that has loaded nothing else."""
    code = f"from hil_tests.soak import fuzz; print({_LOADED!r}, *fuzz.loaded({name!r}), sep='\\n')"
    done = work.run([sys.executable, "-W", "ignore", "-c", code], limit_s=START_S)
    _, found, files = done.stdout.partition(_LOADED)
    if done.returncode or not found:
        raise Failed(f"a seed of the target is refused\n{_trace(done.stdout)}")
    digest = hashlib.sha256()
    for path in map(Path, files.split()):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


class _Spent:
    """How long and with how many inputs this state of the code has been fuzzed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        words = path.read_text().split() if path.is_file() else ["0", "0"]
        self.seconds, self.inputs = int(words[0]), int(words[1])

    def date(self) -> str:
        """Return when the last of it was done."""
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(self._path.stat().st_mtime))

    def add(self, seconds: int, inputs: int) -> None:
        self.seconds += seconds
        self.inputs += inputs
        scratch = self._path.with_suffix(".part")
        scratch.write_text(f"{self.seconds} {self.inputs}\n")
        scratch.replace(self._path)


def _stretch(name: str, work: Workshop, library: Path, corpus: Path, found: Path, stretch_s: int) -> int:
    """Fuzz for a while; return the number of inputs. Raises Failed with the finding."""
    before = set(found.iterdir())
    env = os.environ | {"PYTHONPATH": f"{library}{os.pathsep}{ROOT}", "OPENBLAS_NUM_THREADS": "1"}
    command: list[str | Path] = [sys.executable, "-m", "hil_tests.soak.fuzz_run", name]
    command += [corpus, found, str(stretch_s)]
    with tempfile.TemporaryDirectory(prefix="operando-fuzz-", dir=in_memory()) as scratch:
        # libFuzzer leaves without tidying up
        done = work.run(command, env=env | {"TMPDIR": scratch}, limit_s=stretch_s + START_S)
    if done.returncode:
        kept = ", ".join(str(path.relative_to(ROOT)) for path in set(found.iterdir()) - before)
        goal = FINDINGS.relative_to(ROOT) / name
        raise Failed(
            f"{kept or 'no input was kept'} (a test as soon as it is in {goal})\n{_trace(done.stdout)}"
        )
    units = _UNITS.search(done.stdout)
    return int(units[1]) if units else 0


def _trace(output: str) -> str:
    """Return the exception from what libFuzzer has printed."""
    lines = output.splitlines()
    start = next(
        (n for n, line in enumerate(lines) if "Uncaught Python exception" in line), max(len(lines) - 25, 0)
    )
    told = itertools.takewhile(lambda line: "libFuzzer" not in line, lines[start : start + 30])
    return "\n".join(line[:300] for line in told if line.strip())


def _engine(work: Workshop) -> Path:
    library = PLACE / "atheris"
    if (library / "atheris").is_dir():
        return library
    scratch = PLACE / "atheris.part"
    shutil.rmtree(scratch, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = work.run([*command, "--target", scratch, ENGINE])
    if done.returncode:
        raise Skip(f"{ENGINE} has no wheel for this machine: {done.stdout.strip().splitlines()[-1]}")
    scratch.rename(library)
    return library


def _seed(name: str, corpus: Path) -> None:
    """Put the seeds and what was found before into the corpus, under the names that libFuzzer gives.

    Inputs that hang a helper stay out: every change of one would cost seconds.
    """
    former = [path for path in sorted((FINDINGS / name).glob("*")) if not path.name.startswith("hang-")]
    for data in [*TARGETS[name].seeds(), *(path.read_bytes() for path in former)]:
        path = corpus / hashlib.sha1(data, usedforsecurity=False).hexdigest()
        if not path.exists():
            path.write_bytes(data)
