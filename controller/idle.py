"""``operando status`` when control does not answer: what journal and supervisor know, nothing measured."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from controller.journal_read import JournalReader
from controller.journal_rows import JournalError, Run
from controller.paths import StateDir

ENDS = {
    0: "done", 2: "a wrong file", 3: "an instrument", 4: "stopped by the guard", 5: "aborted by a person",
    6: "finished, with gaps",
}  # fmt: skip
LOG_LINES = 3  # of what the supervisor did since control last ran


def idle(state: StateDir, error: str, supervisor: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known while control does not answer.

    Args:
        state: the state folder.
        error: why control did not answer.
        supervisor: its own answer, empty if it gave none either.
    """
    told: dict[str, Any] = {
        "ok": False, "host": "silent" if supervisor else "none", "error": error, "state_dir": str(state.path),
        "processes": supervisor.get("processes") or {}, "last_run": None, "open_runs": [], "latches": [],
        "questions": [], "supervisor": _supervisor(state.supervisor_log), "journal": "",
    }  # fmt: skip
    if not state.journal.is_file():
        told["journal"] = "no run has been made here yet"
        return told
    try:
        with JournalReader.open(state.journal) as journal:
            runs = journal.runs()
            told["open_runs"] = [_run(run) for run in runs if run.outcome is None]
            told["last_run"] = _run(runs[-1]) if runs else None
            told["latches"] = [
                {"id": latch.id, "text": latch.body.get("text", ""), "t": latch.wall_s,
                 "acknowledge": latch.body.get("acknowledge", "")}
                for latch in journal.latches()
            ]  # fmt: skip
    except JournalError as trouble:
        told["journal"] = str(trouble)
    return told


def _run(run: Run) -> dict[str, Any]:
    return {
        "run": run.run, "directory": run.directory, "experiment": run.experiment,
        "began": run.started_wall_s, "ended": run.ended_wall_s, "outcome": run.outcome,
        "exit_code": run.exit_code, "reason": run.reason, "there": Path(run.directory).is_dir(),
    }  # fmt: skip


def _supervisor(log: Path) -> list[dict[str, Any]]:
    """Return what the supervisor did since control last ran."""
    found = []
    try:
        for line in log.read_text().splitlines()[-LOG_LINES:]:
            body = json.loads(line)
            found.append({"t": body.get("t"), "what": body.get("what"), "results": body.get("results") or []})
    except (OSError, ValueError, AttributeError):
        return found
    return found


def idle_lines(told: Mapping[str, Any]) -> Iterator[str]:
    """Return the same in lines for people: what is so, and what to do about it."""
    if told["host"] == "silent":
        living = ", ".join(name for name, alive in told["processes"].items() if alive)
        yield f"control does not answer; what it measured is not known. Alive: {living or 'nothing'}"
        yield "  everything off, whatever it is doing: operando safe"
    else:
        yield "no host is running: nothing is driven from here, and nothing is measured"
    if told["journal"]:
        yield f"  {told['journal']}"
    last = told["last_run"]
    if last is not None and last["outcome"] is not None:
        how = ENDS.get(last["exit_code"], f"exit code {last['exit_code']}")
        yield f"last run   {last['run']}: {how}, {_when(last['ended'])}"
        yield f"           {last['reason']}"
        yield f"           {last['directory']}" + ("" if last["there"] else " (is no longer there)")
    for run in told["open_runs"]:
        yield f"open run   {run['run']}, begun {_when(run['began'])}, not ended"
        if told["host"] == "none":
            how = f"operando resume {run['directory']}" if run["there"] else "its folder is gone"
            yield f"           go on with it: {how}"
    for latch in told["latches"]:
        yield f"LATCHED    {latch['id']}: {latch['text']} ({_when(latch['t'])})"
        more = ' --acknowledge "what I found"' if latch["acknowledge"] else ""
        if latch["acknowledge"]:
            yield f"           {latch['acknowledge']}"
        yield f"           when its cause is gone: operando clear {latch['id']}{more}"
    for act in told["supervisor"]:
        off = ", ".join(
            f"{one.get('output')} {'off' if one.get('confirmed') else 'NOT CONFIRMED OFF'}"
            for one in act["results"]
        )
        yield f"supervisor {_when(act['t'])} {act['what']}" + (f": {off}" if off else "")


def _when(wall_s: float | None) -> str:
    return "-" if wall_s is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(wall_s))
