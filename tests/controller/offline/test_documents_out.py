"""Documents of a run as JSON lines: valid, complete, in order, and the chain of a resumed run is whole."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from event_model import DocumentNames, RunRouter, schema_validators

from controller.documents import RunDocuments, data_key
from controller.journal_rows import Record
from controller.journal_store import Journal
from controller.offline.documents_out import NO_STOP, write_documents
from controller.offline.run_files import RunFiles
from tests.controller.offline.make_run import LAB, WALL, make_run

KEYS = {
    "temperature": data_key("operando/heater/process_value", "K"),
    "phase": data_key("operando/cell/phase", dtype="string"),
}


def part(documents: RunDocuments, run: str, resumed_from: str | None, *, stop: bool) -> list[tuple[str, Any]]:
    """One part of a run: start, descriptor, three events of which the second is invalid, perhaps a stop."""
    found = [
        documents.start(
            run=run, experiment="quickstart", station="bench", sample={"name": "x"}, resumed_from=resumed_from
        ),
        documents.descriptor("thermal", KEYS),
        *(
            documents.event("thermal", {"temperature": value, "phase": phase})
            for value, phase in ((298.0, "ocv"), (None, None), (299.0, "cc"))
        ),
    ]
    return [*found, documents.stop("success", "done")] if stop else found


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """A run that was killed, its stop written when it was resumed, and then killed again."""
    folder = make_run(tmp_path, until_s=3.0, record=False, reduced=False)
    clock = iter(WALL + 0.5 * n for n in range(100))
    first, second = (RunDocuments(now=lambda: next(clock)) for _ in range(2))
    rows = part(first, folder.name, None, stop=False)
    rows.append(first.stop("abort", "killed"))
    rows += part(second, folder.name, first.start_uid, stop=False)
    with Journal.open(folder / "state" / "journal.sqlite", station="bench") as journal:
        journal.boot("more")
        journal.record_many(
            [
                Record(f"doc/{name}", "documents", body, run=folder.name, lab_s=LAB, wall_s=WALL)
                for name, body in rows
            ]
        )
    return folder


def read(path: Path) -> list[tuple[str, dict[str, Any]]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(set(line) == {"name", "doc"} for line in lines)
    return [(line["name"], line["doc"]) for line in lines]


def test_every_document_is_valid_and_in_order(crashed: Path) -> None:
    path = crashed / "documents.jsonl"
    number = write_documents(RunFiles(crashed), path)
    found = read(path)
    assert len(found) == number == 12
    for name, body in found:
        schema_validators[DocumentNames[name]].validate(body)
    assert [name for name, _ in found] == ["start", "descriptor", *["event"] * 3, "stop"] * 2


def test_the_chain_of_a_resumed_run_is_whole(crashed: Path) -> None:
    write_documents(RunFiles(crashed), crashed / "documents.jsonl")
    found = read(crashed / "documents.jsonl")
    starts = [body for name, body in found if name == "start"]
    stops = [body for name, body in found if name == "stop"]
    assert "resumed_from" not in starts[0]
    assert starts[1]["resumed_from"] == starts[0]["uid"]
    assert [stop["run_start"] for stop in stops] == [start["uid"] for start in starts]
    assert (stops[1]["exit_status"], stops[1]["reason"]) == ("abort", NO_STOP)
    assert stops[1]["num_events"] == {"thermal": 3}


def test_they_can_be_replayed(crashed: Path) -> None:
    write_documents(RunFiles(crashed), crashed / "documents.jsonl")
    seen: dict[str, list[str]] = {}

    def factory(name: str, start: dict[str, Any]) -> tuple[list[Any], list[Any]]:
        mine = seen.setdefault(start["uid"], [])
        return [lambda name, doc: mine.append(name)], []

    router = RunRouter([factory])
    for name, body in read(crashed / "documents.jsonl"):
        router(name, body)
    assert [len(names) for names in seen.values()] == [6, 6]


def test_an_invalid_number_is_nan_and_other_things_stay_null(crashed: Path) -> None:
    write_documents(RunFiles(crashed), crashed / "documents.jsonl")
    event = [body for name, body in read(crashed / "documents.jsonl") if name == "event"][1]
    assert math.isnan(event["data"]["temperature"])
    assert event["data"]["phase"] is None


def test_it_is_the_same_each_time(crashed: Path) -> None:
    for name in ("one.jsonl", "two.jsonl"):
        write_documents(RunFiles(crashed), crashed / name)
    assert (crashed / "one.jsonl").read_bytes() == (crashed / "two.jsonl").read_bytes()


def test_without_documents_there_is_no_file(tmp_path: Path) -> None:
    folder = make_run(tmp_path, until_s=3.0)
    assert write_documents(RunFiles(folder), folder / "documents.jsonl") == 0
    assert not (folder / "documents.jsonl").exists()
