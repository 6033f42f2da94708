"""The event-model documents of a run as JSON lines, as bluesky's own JSONLinesWriter writes them.

One line per document, ``{"name": "event", "doc": {...}}``, in the order in which control made them. A run
that was resumed has several start documents; each names under ``resumed_from`` the one that it continues.

A number that was invalid is null in the journal and ``NaN`` here. bluesky writes it so, and a column of
nothing but nulls would have no type: Tiled makes text of it.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from controller.documents import missing_stops
from controller.journal_read import JournalReader
from controller.journal_rows import JournalError
from controller.offline.files_out import replacing
from controller.offline.run_files import RunFiles

KINDS = ("doc/start", "doc/descriptor", "doc/event", "doc/stop")
NO_STOP = "the run ended without a stop document"

Document = tuple[str, dict[str, Any]]


def write_documents(run: RunFiles, path: Path) -> int:
    """Write every document of a run; return how many. Without documents there is no file.

    Raises:
        ValueError: the journal is there and cannot be read.
    """
    number = 0
    found = documents(run)
    first = next(found, None)
    if first is None:
        return 0
    with replacing(path) as scratch, scratch.open("w") as stream:
        for name, body in (first, *found):
            stream.write(json.dumps({"name": name, "doc": body}, ensure_ascii=False, allow_nan=True) + "\n")
            number += 1
    return number


def documents(run: RunFiles) -> Iterator[Document]:
    """Yield (name, document) in order; the stop that a crash left out comes last, made from what is there.

    Raises:
        ValueError: the journal is there and cannot be read.
    """
    if run.journal is None:
        return
    last = 0.0
    numbers: dict[str, list[str]] = {}  # of each descriptor: the keys that hold numbers
    try:
        with JournalReader.open(run.journal) as reader:
            rows = [event for kind in KINDS for event in reader.all_events(run.run, kind)]
            for event in sorted(rows, key=lambda row: row.seq):
                last = max(last, float(event.body["time"]))
                body = dict(event.body)
                if event.kind == "doc/descriptor":
                    keys = body["data_keys"].items()
                    numbers[body["uid"]] = [name for name, key in keys if key["dtype"] == "number"]
                elif event.kind == "doc/event":
                    body["data"] = _with_nan(body["data"], numbers.get(body["descriptor"], ()))
                yield event.kind.removeprefix("doc/"), body
            for stop in missing_stops(reader, run.run, NO_STOP, now=last):
                yield "stop", {**stop, "uid": str(uuid.uuid5(uuid.UUID(stop["run_start"]), "stop"))}
    except JournalError as error:
        raise ValueError(str(error)) from error


def _with_nan(data: Mapping[str, Any], numbers: Sequence[str]) -> dict[str, Any]:
    """Return the data of an event with NaN where a number was invalid."""
    return {**data, **{name: math.nan for name in numbers if data.get(name) is None}}
