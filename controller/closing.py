"""The end of a run, when everything is off: its record, its documents, its extract, its gaps.

A disk that is full keeps nobody from the next of these steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.journal import JournalError
from controller.offline.files_out import write_text
from controller.stamps import confirmed_by_person, energy_scales
from controller.verdict import exit_status

if TYPE_CHECKING:
    from controller.host import Host

DRAIN_S = 2.0  # for link, which has the last words of the run


async def close(host: Host, code: int, outcome: str, began_s: float, began_wall: float) -> None:
    """Everything is off: write the record of the run, end the documents, close."""
    record = {
        "run": host.run_id, "experiment": host.experiment.experiment.name, "exit_code": code,
        "station": host.station.station.name, "outcome": outcome, "speed": host.clock.speed,
        "lab_s": host.clock.now_s() - began_s, "wall_s": time.monotonic() - host.entered_s,
        "began": began_wall, "exposures": host.exposing.results,
        "steps": host.sequence.timeline, "gaps": host.recorder.gaps, "trips": host.recorder.trips,
        "counters": _counters(host), "instruments": host.notes, "charge": host.stamps.charge(),
        "roles": dict(host.station.roles.named()),
        "confirmed_by_person": confirmed_by_person(host.station),
        "energy_scales": energy_scales(host.station),
        "scheduling": host.scheduling.as_dict() if host.scheduling is not None else None,
    }  # fmt: skip
    await asyncio.gather(*host.publishing, return_exceptions=True)
    if host.products["result"] is not None:
        await leave(_write_json(host.run_dir / "result.json", host.products["result"]))
    taken_up = host.begun or not host.args.resume  # if not, the old run stays open for another attempt
    if taken_up:
        await leave(_write_json(host.run_dir / "record.json", record))
    host.local.broadcast({"event": "ended", "code": code, "text": outcome})
    host.recorder.settle()
    host.outlook.end()
    host.standing.tell(host.desk.status())
    await leave(host.health.end())
    ended = {"state": "ended", "code": code, "outcome": outcome}
    await leave(host.recorder.event("run", "host", ended))
    if taken_up:
        await leave(_end_run(host, code, outcome))
    await host.bench.close()
    await leave(asyncio.to_thread(host.scanning.close))
    await leave(host.reduction.stop())
    await host.link.drain(DRAIN_S)
    await host.tidy()
    await asyncio.gather(host.local.stop(), host.link.stop())
    await host.journal.close()


async def _end_run(host: Host, code: int, outcome: str) -> None:
    """Close documents and run in the journal, and give the run its extract."""
    with contextlib.suppress(JournalError):
        await host.recorder.documents.baseline(host.stamps.now())
        await host.recorder.documents.stop(exit_status(code), outcome)
        await host.journal.end_run(host.run_id, outcome=exit_status(code), exit_code=code, reason=outcome)
        await host.journal.extract(host.run_id, host.run_dir / "journal.sqlite")


def _counters(host: Host) -> dict[str, Any]:
    told = {} if host.trace is None else {"wire_trace_dropped": host.trace.dropped}
    return {
        **told,
        **host.recorder.counters, "unsent_chunks": host.reduction.unsent_chunks,
        "reduce_restarts": host.reduction.restarts, "lost_posts": host.journal.lost_posts,
        "lines": host.health.last(),
    }  # fmt: skip


def gaps(host: Host) -> list[str]:
    """Return the gaps that decide about the exit code, in words."""
    # A wait that ended by its time limit with "continue" is told in the report, but lost no data.
    return [g["text"] for g in host.recorder.gaps if not g["end"] and g["module"] != "sequence"]


async def leave(step: Awaitable[object]) -> None:
    """Do one of the last things of a run; a disk that is full keeps nobody from the others."""
    try:
        await step
    except (JournalError, OSError) as error:
        say(f"at the end of the run: {error}")


def say(text: str) -> None:
    """Write a line into the log of control, if there is room for it."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


async def _write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=1, default=str))
