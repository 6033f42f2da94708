"""The end of a run on paper: summary, report and exports get a time limit; what is missing then is told."""

from __future__ import annotations

import json
from pathlib import Path

FINISH_S = 900.0  # wall; the largest run of the tests needs 20 s
MADE = ("summary.json", "run.nxs", "report.html")


def missing(run_dir: Path, limit_s: float) -> str:
    """Return in words what was not made in time, and how to make it; note it in the summary, too."""
    lacking = [name for name in MADE if not (run_dir / name).is_file()]
    what = ", ".join(lacking) if lacking else "some of the files"
    text = (
        f"{what} not made or not complete: writing them took longer than {limit_s:g} s and was ended; "
        f"operando export {run_dir} and operando report {run_dir} make them"
    )
    summary = run_dir / "summary.json"
    if summary.is_file():
        _note(summary, text)
    return text


def _note(summary: Path, text: str) -> None:
    """Add a problem to the summary; one that cannot be read stays as it is."""
    try:
        content = json.loads(summary.read_text())
        content["problems"] = [*content.get("problems", []), text]
        scratch = summary.with_suffix(".tmp")
        scratch.write_text(json.dumps(content, indent=1))
        scratch.replace(summary)
    except (OSError, ValueError, TypeError):
        return
