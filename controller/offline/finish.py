"""After every run, however it ended: summary.json, report.html, NeXus and CSV.

``python -m controller.offline.finish RUN [--only report|export] [--format ...] [--pdf]``. Each part is made
on its own: one that fails is named in the summary and hides none of the others. The summary is written
first, so that it is there even if making the rest is cut short, and once more at the end. Maps as pictures,
documents and the PDF are made when they are asked for: all of them can be made again at any time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import machine, python_version
from typing import Any

from controller.apart import program
from controller.offline.documents_out import write_documents
from controller.offline.export import write_bdf, write_impedance, write_profiles
from controller.offline.facts import facts_of
from controller.offline.files_out import write_json
from controller.offline.maps_out import write_maps
from controller.offline.nexus import write_nexus
from controller.offline.pdf import print_pdf
from controller.offline.recover import record_of, seeds_of
from controller.offline.run_files import RunFiles
from controller.offline.sweeps import reduced
from controller.progress import Steps
from controller.summary import summarise

EXIT_DONE, EXIT_FILES, EXIT_GAPS = 0, 2, 6
SUMMARY, REPORT, NEXUS = "summary.json", "report.html", "run.nxs"
CELL, PROFILES, IMPEDANCE = "cell.bdf.csv", "profiles.csv", "impedance.csv"
PDF, MAPS, DOCUMENTS = "report.pdf", "maps", "documents.jsonl"
FILES = {
    "summary": SUMMARY, "report": REPORT, "nexus": NEXUS, "cell": CELL, "profiles": PROFILES,
    "impedance": IMPEDANCE, "pdf": PDF, "documents": DOCUMENTS,
    "experiment": "experiment.toml", "record": "record.json", "result": "result.json",
    "journal": "journal.sqlite", "raw": "raw/index.jsonl", "log": "logs/control.log",
}  # fmt: skip
FORMATS = {
    "nexus": (NEXUS,), "bdf": (CELL, IMPEDANCE), "maps": (PROFILES, MAPS), "documents": (DOCUMENTS,),
}  # fmt: skip
AFTER_A_RUN = (NEXUS, CELL, PROFILES, IMPEDANCE)
MADE = {"report": (REPORT, PDF), "export": (*AFTER_A_RUN, MAPS, DOCUMENTS)}
PACKAGES = (
    "operando", "numpy", "numba", "scipy", "h5py", "matplotlib", "cbor2", "pydantic", "pint", "pymodbus",
    "pyserial", "pyserial-asyncio-fast", "aiomqtt", "amqtt", "event-model",
)  # fmt: skip
GIT_S = 5.0

Plain = dict[str, Any]


class Finish:
    """Makes what belongs into a run's folder when the run has ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = RunFiles(folder)
        self.problems: list[str] = []
        self._record: Plain = {}
        self._facts: Plain = {}
        self._sweeps: list[Plain] = []

    def all(self, only: str | None = None, names: Sequence[str] | None = None) -> list[str]:
        """Make everything, or one kind of it; return in words what could not be made.

        Args:
            only: ``report`` or ``export``; default both.
            names: the files to make, of ``MADE``; default what is made after every run.
        """
        wanted = (*AFTER_A_RUN, REPORT) if names is None else tuple(names)
        if only is not None:
            wanted = tuple(name for name in wanted if name in MADE[only])
            self.problems += self._problems_of_others(wanted)
        with Steps(f"making the {only or 'files'}", len(wanted) + 1) as shown:
            return self._made(wanted, shown)

    def _made(self, wanted: Sequence[str], shown: Steps) -> list[str]:
        """Make these files; return in words what could not be made."""
        shown.begin("reading the run")
        self._reduce()
        self._attempt("the record", self._read)
        if not self._record:
            return self.problems
        self._attempt("the reduction of the impedance sweeps", self._reduce_sweeps)
        self._attempt(SUMMARY, self._summary)
        if self.run.record is None and self.run.journal is None:
            return self.problems  # refused before anything was recorded
        parts = {
            NEXUS: self._nexus, CELL: self._cell, PROFILES: self._profiles, IMPEDANCE: self._impedance,
            MAPS: self._maps, DOCUMENTS: self._documents, REPORT: self._report, PDF: self._pdf,
        }  # fmt: skip
        for name, make in parts.items():
            if name in wanted:
                shown.begin(name)
                self._attempt(name, make)
        if REPORT in wanted:
            self._attempt("overview", self._overviews)
        self._attempt(SUMMARY, self._summary)
        return self.problems

    # --- the parts -------------------------------------------------------------------------------------

    def _read(self) -> None:
        self._record, notes = record_of(self.run)
        self.problems += [note for note in notes if note not in self.problems]
        try:
            self._facts = facts_of(self.run)
        except (ValueError, KeyError) as error:
            self.problems.append(f"the journal: {error}")

    def summary(self) -> Plain:
        """Return the summary as it stands now."""
        return summarise(
            self._record, self.run.result, facts=self._facts, files=self._files(), versions=versions(),
            seeds=seeds_of(self.run), problems=self.problems, impedance=self._sweeps,
        )  # fmt: skip

    def _summary(self) -> None:
        summary = self.summary()
        summary["files"] = {"summary": SUMMARY, **summary["files"]}
        write_json(self.folder / SUMMARY, summary)

    def _report(self) -> None:
        from controller.offline.report import write_report  # loads matplotlib: exports do without it

        missing = write_report(self.run, self.summary(), self.folder / REPORT)
        self.problems += [f"{REPORT}: {text}" for text in missing]

    def _pdf(self) -> None:
        print_pdf(self.folder / REPORT, self.folder / PDF)

    def _overviews(self) -> None:
        from controller.offline.figures_overview import draw_overviews

        draw_overviews(self.run, self.folder)

    def _nexus(self) -> None:
        missing = write_nexus(self.run, self.summary(), self.folder / NEXUS)
        self.problems += [f"{NEXUS}: {text}" for text in missing]

    def _cell(self) -> None:
        left_out = write_bdf(self.run, self._record["steps"], self.folder / CELL)
        if left_out:
            self._record["counters"] = {**self._record["counters"], "invalid_cell_readings": left_out}

    def _profiles(self) -> None:
        write_profiles(self.run, self.folder / PROFILES)

    def _impedance(self) -> None:
        write_impedance(self.run, self.folder / IMPEDANCE)

    def _maps(self) -> None:
        self.problems += [f"{MAPS}: {text}" for text in write_maps(self.run, self.folder / MAPS)]

    def _documents(self) -> None:
        write_documents(self.run, self.folder / DOCUMENTS)

    def _reduce_sweeps(self) -> None:
        self._sweeps = [one.told for one in reduced(self.run)]

    def _reduce(self) -> None:
        """Reduce the raw events again when there is no result, or one that passes are missing from."""
        ended = {(m["scan"], m["n"]) for m in self.run.index if m.get("k") == "pass_end"}
        before = self.run.result
        if not ended or (before is not None and ended <= _passes_in(before)):
            return
        try:
            from controller.offline.ion_beam import reduce_run

            again = reduce_run(self.folder, products=self.folder / "products")
            write_json(self.folder / "result.json", again)
        except Exception as error:
            self._failed("the reduction of the raw events", error)
            return
        self.run = RunFiles(self.folder)
        why = "the run ended without a result" if before is None else "passes were missing from the result"
        self.problems.append(f"{why}: the raw events were reduced again afterwards")

    # --- around them -----------------------------------------------------------------------------------

    def _attempt(self, what: str, make: Callable[[], None]) -> None:
        """Make one part; whatever goes wrong with it is told, logged, and stops nothing else."""
        try:
            make()
        except Exception as error:
            self._failed(what, error)

    def _failed(self, what: str, error: Exception) -> None:
        text = f"{what} could not be made: {error or type(error).__name__}"
        if text not in self.problems:
            self.problems.append(text)
        log = self.folder / "logs" / "finish.log"
        try:
            log.parent.mkdir(exist_ok=True)
            with log.open("a") as stream:
                stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
                traceback.print_exception(error, file=stream)
        except OSError:
            pass  # a full disk is what went wrong: it is told on the terminal

    def _files(self) -> dict[str, str]:
        return {what: name for what, name in FILES.items() if (self.folder / name).is_file()}

    def _problems_of_others(self, wanted: Sequence[str]) -> list[str]:
        """Return what an earlier summary told of the parts that are not made anew."""
        try:
            before = json.loads((self.folder / SUMMARY).read_text())
        except (OSError, ValueError):
            return []
        others = tuple(name for names in MADE.values() for name in names if name not in wanted)
        return [str(text) for text in before.get("problems", []) if str(text).startswith(others)]


def _passes_in(result: Mapping[str, Any]) -> set[tuple[int, int]]:
    """Return scan and number of every pass that a result knows, good or refused."""
    return {
        (scan["scan"], int(n))
        for scan in result.get("scans", [])
        for n in (*scan.get("passes", ()), *scan.get("refused", ()))
    }


@cache
def versions() -> Mapping[str, str]:
    """Return the versions of everything that made the numbers."""
    found = {"python": python_version(), "machine": machine()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    commit = _commit(Path(__file__).parents[2])
    return found if commit is None else {**found, "commit": commit}


def _commit(root: Path) -> str | None:
    """Return what git says of the source tree; None for an installed package."""
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--tags"],  # noqa: S607 - whatever git is
            capture_output=True, text=True, timeout=GIT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a run."""
    return any((folder / name).exists() for name in ("experiment.toml", "record.json", "journal.sqlite"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="controller.offline.finish", description="write summary, report and exports of a run"
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="the folder of the run")
    parser.add_argument("--only", choices=tuple(MADE), help="make only the report, or only the exports")
    parser.add_argument(
        "--format", action="append", choices=(*FORMATS, "all"), default=[],
        help="with --only export: what to write; may be repeated (default: nexus, bdf and profiles)",
    )  # fmt: skip
    parser.add_argument(
        "--pdf", action="store_true", help="with the report: also report.pdf, through Chromium"
    )
    args = parser.parse_args(argv)
    folder: Path = args.run_dir
    if not is_run(folder):
        print(f"{folder} is not the folder of a run", file=sys.stderr)
        return EXIT_FILES
    names = _names(args)
    problems = Finish(folder).all(args.only, names)
    for name in (SUMMARY, *(name for part in MADE for name in MADE[part] if name in names)):
        if (folder / name).exists():
            print(folder / name)
    for problem in problems:
        print(problem, file=sys.stderr)
    failed = any("could not be made" in problem for problem in problems)
    return EXIT_GAPS if failed else EXIT_DONE


def _names(args: argparse.Namespace) -> list[str]:
    """Return the files that were asked for."""
    names = [REPORT, *([PDF] if args.pdf else [])] if args.only in (None, "report") else []
    if args.only == "report":
        return names
    formats = tuple(FORMATS) if "all" in args.format else tuple(args.format)
    return [*names, *([name for one in formats for name in FORMATS[one]] or AFTER_A_RUN)]


if __name__ == "__main__":
    sys.exit(program(main))
