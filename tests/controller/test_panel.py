"""The live view as a person sees it: what fits, what is said, and what is never shown."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from controller.display import follow, unanswered
from controller.panel import panel

HEALTH = {
    "requests": 500, "timeouts": 0, "bad_replies": 0, "losses": 0, "failed_openings": 0, "p50_ms": 2.1,
    "p99_ms": 4.0,
}  # fmt: skip
NAMES = ("x", "relative", "soc_beam")
LITHIUM = {"of": "Li", "layer": "cathode"}
QUESTION = {
    "id": "q1", "text": "heat to 333.0 K: not done after 1800 s. Go on with the next step?",
    "choices": ["continue", "stop", "abort"], "default": "abort", "left_s": 1512.0,
}  # fmt: skip


def status(**more: Any) -> dict[str, Any]:
    """Return a status in which everything is said at once."""
    layers = ("anode", "separator", "cathode")
    quantity = {"value": 0.853, "sigma_stat": 0.02, "sigma_sys": 0.01, "unit": "1"}
    return {
        "event": "status", "run": "20261122-011500-quickstart", "state": "running", "paused": False,
        "speed": 30.0, "elapsed_s": 1432.0, "left_s": 2210.0,
        "step": {"number": 4, "of": 6, "title": 'charge 26.0 uA to 4.00 V | scan "charging"'},
        "running": [
            {"title": "charge 26.0 uA to 4.00 V", "estimate_s": 1800.0, "spent_s": 700.0},
            {"title": 'scan "charging"', "estimate_s": 600.0, "spent_s": 700.0},
        ],
        "temperature_k": 333.07, "target_k": 333.0, "voltage_v": 3.9123, "current_a": 26e-6,
        "cell_state": "cc", "charge_coulomb": 0.0443, "beam_a": 26.1e-12, "blanked": False,
        "scan": {"name": "charging", "n": 4, "line": 12, "lines": 24, "quarantined": 1},
        "soc": {"beam": [0.312, 0.051], "charge": [0.301, 0.012], "z": -3.21},
        "quantities": {f"{layer}.{name}": quantity for layer in layers for name in NAMES},
        "goals": [
            {"kind": "counts", **LITHIUM, "now": 812.0, "goal": 1000.0, "fraction": 0.812},
            {"kind": "uncertainty", "of": "x", "layer": "a", "now": None, "goal": 0.02, "fraction": None},
            {"kind": "dose", "of": "", "layer": "", "now": 1e14, "goal": 1e15, "fraction": 0.1},
        ],
        "gaps": 2, "alarms": [], "latched": [], "questions": [],
        "lines": {"heater": HEALTH, "cell": {**HEALTH, "timeouts": 2}},
        **more,
    }  # fmt: skip


def drawn(now: dict[str, Any], width: int = 80, **how: Any) -> str:
    """Return the panel as it stands on a terminal of that width."""
    out = io.StringIO()
    Console(file=out, width=width, height=24, force_terminal=True, **how).print(panel(now, width))
    return out.getvalue()


@pytest.mark.parametrize("width", [48, 80, 120, 200])
def test_everything_at_once_fits(width: int) -> None:
    now = status(
        questions=[QUESTION], alarms=["cell.voltage 4.412 V is above 4.35 V"], latched=["cell-voltage"]
    )
    rows = drawn(now, width, no_color=True, color_system=None).splitlines()
    assert max(map(len, rows)) <= min(width, 120)
    if width >= 80:
        assert len(rows) <= 23, "24 lines, one of them for the cursor"


def test_what_is_said() -> None:
    shown = " ".join(drawn(status(), no_color=True, color_system=None).split())
    for words in (
        "running at 30x", "step 4 of 6", "39 % 0:36:50 left", "39 % 0:18:20 left", "100 % 0:00:00 left",
        "T 333.1 K target 333.0 K", "E 3.912 V constant current", "I 26.00 uA", "Q 12.306 uAh",
        "beam 26.1 pA on the sample", "beam 0.312 ± 0.051 charge 0.301 ± 0.012 3.2 sigma apart (!)",
        "812 of 1000", "- of 0.020", "1.00e+14 of 1.00e+15", "pass 4 line 12/24 1 quarantined",
        "2 gaps so far", "cell 2.1/4 ms (2 timed out of 500)", "operando pause | stop | abort | safe",
    ):  # fmt: skip
        assert words in shown, shown
    assert "heater 2.1/4 ms" not in shown  # at 80 columns only what went wrong
    assert "heater 2.1/4 ms" in drawn(status(), 120, no_color=True, color_system=None)


def test_lithium_where_there_was_none_is_said_before_any_other_number() -> None:
    text = "lithium appeared: 1474 ± 66 counts, none in the reference; 24.4 sigma"
    now = status(appeared={"separator": {"text": text}})
    shown = " ".join(drawn(now, no_color=True, color_system=None).replace("│", " ").split())
    assert f"separator {text}" in shown
    assert shown.index(text) < shown.index("anode x")
    assert len(drawn(now, no_color=True, color_system=None).splitlines()) <= 23
    gone = drawn(unanswered(now, 7.0), no_color=True, color_system=None)
    assert "1474" not in gone


def test_what_calls_for_a_person_says_what_to_do() -> None:
    now = status(
        questions=[QUESTION], alarms=["cell.voltage 4.412 V is above 4.35 V"], latched=["cell-voltage"]
    )
    shown = " ".join(drawn(now, no_color=True, color_system=None).replace("│", " ").split())
    assert "ALARM cell.voltage 4.412 V is above 4.35 V" in shown
    assert "operando clear cell-voltage" in shown
    assert "operando answer q1 continue | stop | abort 0:25:12 left, then: abort" in shown


def test_a_silent_host_leaves_no_number_on_the_screen() -> None:
    shown = drawn(unanswered(status(questions=[QUESTION]), 7.0), no_color=True, color_system=None)
    assert "NO ANSWER" in shown
    assert "has not answered for 7 s" in shown
    assert "last heard at 0:23:52" in shown
    for stale in (
        "333.1",
        "3.912",
        "26.0 pA",
        "26.1",
        "0.312",
        "812",
        "0.853",
        "heater off",
        "left",
        "2 gaps",
    ):
        assert stale not in shown


def test_without_colour_the_words_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    shown = drawn(status(alarms=["x"]))
    assert "\x1b[31m" not in shown
    assert "\x1b[1;31m" not in shown
    assert "ALARM" in shown


def test_a_text_from_an_instrument_is_no_markup() -> None:
    shown = drawn(status(run="[red]a", alarms=["[/] [bold]odd[/bold]"]), no_color=True, color_system=None)
    assert "[/] [bold]odd[/bold]" in shown
    assert "[red]a" in shown


@pytest.mark.parametrize("terminal", ["log", "dumb"])
def test_a_log_gets_plain_timed_lines(terminal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    if terminal == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    console = Console(file=out, width=60, force_terminal=terminal == "dumb", no_color=True)
    said = {"event": "line", "text": "scan [1] begins", "elapsed_s": 5.0}
    last = follow([said, status(questions=[QUESTION]), None], console)
    rows = out.getvalue().splitlines()
    assert rows[0] == "[0:00:05] scan [1] begins"
    assert rows[1].startswith("[0:23:52] step 4/6 ") or rows[1].startswith("[0:23:52]  step 4/6 ")
    assert rows[1].endswith("(operando answer q1 continue|stop|abort)")
    assert len(rows) == 2
    assert last["run"] == "20261122-011500-quickstart"


def test_a_window_that_is_resized_is_drawn_anew() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    console = Console(file=out, width=120, height=24, force_terminal=True, color_system=None)

    def events() -> Any:
        yield status()
        console.width = 60
        yield status()

    follow(events(), console)
    assert "╮" in out.getvalue()
    last = out.getvalue().rpartition("╭")[2]
    assert max(len(row) for row in last.splitlines()[1:4]) <= 60 + 8  # and what moves the cursor
