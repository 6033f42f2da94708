"""``operando status`` when nobody measures: what the journal knows, and what can be done about it."""

from __future__ import annotations

from pathlib import Path

from controller.idle import idle, idle_lines
from controller.journal_store import Journal
from controller.paths import StateDir


def told(state: StateDir, supervisor: dict[str, object] | None = None) -> str:
    return "\n".join(idle_lines(idle(state, "no host is running here", supervisor or {})))


def test_nothing_yet(tmp_path: Path) -> None:
    assert "no run has been made here yet" in told(StateDir(tmp_path / "state"))


def test_the_last_run_what_is_open_and_what_is_latched(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    folder = tmp_path / "runs" / "b"
    folder.mkdir(parents=True)
    with Journal.open(state.journal, station="bench") as journal:
        journal.boot("run")
        journal.start_run("b", experiment="x", directory=str(folder))
        journal.start_run("c", experiment="x", directory=str(tmp_path / "runs" / "c"))
        journal.end_run("c", outcome="abort", exit_code=4, reason="cell.voltage 4.4 V is above 4.35 V")
        journal.latch("cell-voltage", {"id": "cell-voltage", "text": "cell.voltage 4.4 V"})
        journal.latch("smoke", {"id": "smoke", "text": "io.smoke", "acknowledge": "Look at the cell."})
    state.supervisor_log.write_text(
        '{"t": 1.0, "what": "control was silent", "results": [{"output": "cell", "confirmed": false}]}\n'
    )
    shown = told(state)
    for words in (
        "no host is running", "c: stopped by the guard", "cell.voltage 4.4 V is above 4.35 V",
        "(is no longer there)", "open run   b", f"operando resume {folder}", "operando clear cell-voltage",
        'operando clear smoke --acknowledge "what I found"', "Look at the cell.",
        "control was silent: cell NOT CONFIRMED OFF",
    ):  # fmt: skip
        assert words in shown, shown


def test_a_control_that_does_not_answer_shows_no_reading(tmp_path: Path) -> None:
    shown = told(StateDir(tmp_path / "state"), {"processes": {"control": True, "link": False}})
    assert "control does not answer; what it measured is not known. Alive: control" in shown
    assert "operando safe" in shown
    assert "operando resume" not in shown
