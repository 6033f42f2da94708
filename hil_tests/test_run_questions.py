"""A run that asks: everybody who looks on is told, one answers, the rest is decided by a time limit.

The people are a subscriber of the broker, a webhook and the command line; they learn of it by their own ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hil_tests.harness import (
    Listener,
    Run,
    a_bench,
    edited_station,
    ending,
    eventually,
    experiment,
    scan_step,
)
from tests.controller.notices.receivers import Hook

STEPS = f"""[[step]]
do = "message"
text = "Which sample is in the holder?"
wait = true
choices = ["left", "right one"]
timeout = "2 h"

[[step]]
do = "message"
text = "Is the hutch closed?"
wait = true
timeout = "20 s"
on_timeout = "continue"

{scan_step("as prepared", (8, 12), 10.0, "until = { passes = 1 }")}"""


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.close()


def test_a_question_is_told_answered_and_journalled(hook: Hook, tmp_path: Path) -> None:
    table = f'\n[notify]\nquiet = "0 s"\n[[notify.webhook]]\nurl = "{hook.url}"\n'
    with a_bench(tmp_path / "bench", speed=10.0, seed=4) as bench:
        station = edited_station(bench, bench.station.with_name("notified.toml"), lambda text: text + table)
        path = experiment(tmp_path / "asks.toml", STEPS)
        with ending(Run.start(tmp_path / "run", path, "--station", str(station))) as run:
            answered(run, hook)


def answered(run: Run, hook: Hook) -> None:
    now = run.until(lambda now: now["questions"], "a question")
    assert now["paused"]
    assert [asked["text"] for asked in now["questions"]] == ["Which sample is in the holder?"]
    shown = run.operando("status")
    assert "operando answer q1 left|right one" in shown.stdout

    listener = Listener.of(run)
    (told,) = eventually(lambda: listener.named("question/q1"), "the retained question on the broker")
    assert (told["choices"], told["default"]) == (["left", "right one"], "abort")
    eventually(
        lambda: "a question" in [one["title"] for one in hook.notices()], "the question at the webhook"
    )

    wrong = run.operando("answer", "q1", "neither")
    assert wrong.returncode == 3
    assert "answers: left, right one" in wrong.stderr
    right = run.operando("answer", "right", "one")
    assert (right.returncode, right.stdout) == (0, "q1: right one\n"), right.stderr
    gone = ("operando/v1/bench/question/q1", b"")
    eventually(
        lambda: gone in [(topic, body) for topic, body, _ in listener.got], "the question is taken back"
    )

    assert run.ended() == 0, run.tell()  # what nobody answered said continue
    rows = [row["body"] for row in run.events("answer")]
    assert [(row["id"], row["choice"]) for row in rows] == [("q1", "right one"), ("q2", "continue")]
    assert rows[0]["by"].endswith(" at this machine")
    assert rows[1]["by"] == "nobody: the time limit"
    reasons = [step["reason"] for step in run.record["steps"]]
    assert reasons[0] == f'answered "right one" by {rows[0]["by"]}'
    assert reasons[1].startswith("no answer after 20 s")
    listener.stop()
    eventually(lambda: "run done" in [one["title"] for one in hook.notices()], "the end at the webhook")
    ids = [one["id"] for one in hook.notices()]
    assert len(ids) == len(set(ids)), "told once"
