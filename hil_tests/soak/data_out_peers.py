"""What other people's programs say of our exports. Run by an interpreter that has them and nothing of ours.

``python data_out_peers.py definition|viewers|documents RUN``: a line per thing that was looked at, exit
code 1 with the reason when one of them is not as it should be.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Wrong(Exception):
    """Something is not as it should be."""


def must(true: object, why: object) -> None:
    """Raise Wrong with the reason unless it is so."""
    if not true:
        raise Wrong(str(why))


def definition(run: Path) -> str:
    """Validate the NeXus file: all of it with nexusformat, NXsensor_scan also with pynxtools."""
    from nexusformat.nexus.validate import validate_application, validate_file

    file = str(run / "run.nxs")
    told = []
    for name, counted in (
        ("base classes", validate_file(file)),
        ("NXsensor_scan", validate_application(file, path="/readings", application="NXsensor_scan")),
    ):
        must(counted, f"nexusformat, {name}: could not be validated")
        warnings, errors = counted
        told.append(f"nexusformat, {name}: {errors} errors, {warnings} warnings")
        must(errors == 0, told[-1])
    command = [str(Path(sys.executable).with_name("pynx")), "validate", file]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    words = said.stdout + said.stderr
    must("is valid according to the `NXsensor_scan` application definition" in words, words[-800:])
    return "\n".join([*told, "pynxtools: valid according to NXsensor_scan"])


def viewers(run: Path) -> str:
    """Open the file as silx does: the default plot, and every NXdata without an issue."""
    import silx.io
    from silx.io import nxdata

    seen = 0
    with silx.io.open(str(run / "run.nxs")) as file:
        first = nxdata.get_default(file)
        must(first.is_valid and first.is_image, (first.group.name, first.issues))
        must(first.errors is not None, f"{first.group.name} has no errors")
        groups = [file]
        while groups:
            for item in groups.pop().values():
                if not silx.io.is_group(item):
                    continue
                groups.append(item)
                if item.attrs.get("NX_class") == "NXdata":
                    seen += 1
                    found = nxdata.NXdata(item)
                    must(found.is_valid and not found.issues, (item.name, found.issues))
        name = first.group.name
    return f"silx: default {name} with errors; {seen} NXdata without an issue"


def documents(run: Path) -> str:
    """Write the documents into a Tiled server in this process and compare what its client gives back."""
    from bluesky.callbacks.tiled_writer import TiledWriter
    from tiled.catalog import in_memory
    from tiled.client import Context, from_context
    from tiled.server.app import build_app

    lines = [json.loads(line) for line in (run / "documents.jsonl").read_text().splitlines()]
    with tempfile.TemporaryDirectory() as place:
        storage = [place, f"duckdb:///{place}/tables.duckdb"]
        with Context.from_app(build_app(in_memory(writable_storage=storage))) as context:
            client = from_context(context)
            writer = TiledWriter(client)
            for line in lines:
                writer(line["name"], line["doc"])
            return "\n".join(compared(client, lines))


def compared(client: Any, lines: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line per stream whose numbers Tiled gives back as they are in the file."""
    of = {name: [x["doc"] for x in lines if x["name"] == name] for name in ("start", "descriptor", "event")}
    must(sorted(client) == sorted(start["uid"] for start in of["start"]), "the runs are not all there")
    for start in of["start"]:
        told = client[start["uid"]].metadata
        must(told["start"].get("resumed_from") == start.get("resumed_from"), "the chain is broken")
        must(told["stop"]["run_start"] == start["uid"], "there is no stop")
    for stream in of["descriptor"]:
        events = [event for event in of["event"] if event["descriptor"] == stream["uid"]]
        if not events:
            continue
        data = client[stream["run_start"]][stream["name"]].read()
        for name in (name for name, key in stream["data_keys"].items() if key["dtype"] == "number"):
            got = [float(value) for value in data[name].values]
            want = [float(event["data"][name]) for event in events]
            must(len(got) == len(want), (stream["name"], name, len(got), len(want)))
            same = (a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(got, want, strict=True))
            must(all(same), (stream["name"], name))
        yield f"Tiled: {stream['name']}, {len(events)} events, every number the same"


if __name__ == "__main__":
    look = {"definition": definition, "viewers": viewers, "documents": documents}[sys.argv[1]]
    try:
        print(look(Path(sys.argv[2])))
    except Wrong as reason:
        sys.exit(f"{sys.argv[1]}: {reason}")
