"""The record of a run as event-model documents, and their way into the journal.

``RunDocuments`` builds the documents as plain dictionaries and does no I/O; ``DocumentWriter`` journals each
one as it is made, to be published on ``doc/<name>``. A run that crashed has a start without a stop:
``close_crashed`` writes the missing stop (exit_status ``abort``), and the run goes on under a new start whose
``resumed_from`` names the old one.
"""

from __future__ import annotations

import asyncio
import time as _time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from controller.journal import AsyncJournal, JournalReader
from controller.journal_read import Reads

Document = tuple[str, dict[str, Any]]
ExitStatus = Literal["success", "abort", "fail"]
STREAMS = ("primary", "echem", "thermal", "interlock", "baseline", "monitors", "impedance")


class DocumentError(Exception):
    """A document out of order, or one that its descriptor does not describe."""


def data_key(
    source: str,
    units: str | None = None,
    *,
    dtype: Literal["number", "integer", "string", "boolean", "array"] = "number",
    shape: Sequence[int | None] = (),
    precision: int | None = None,
    low: float | None = None,
    high: float | None = None,
    object_name: str = "",
) -> dict[str, Any]:
    """Return one entry of a descriptor's ``data_keys``.

    Args:
        source: where the number comes from (``operando/heater/process_value``).
        units: its unit; None for what has none.
        dtype: the kind of value; a number may also be None, which says "invalid".
        shape: of an array, None for a dimension of varying length.
        precision: digits after the decimal point worth showing.
        low: lowest value that the station allows.
        high: highest value that the station allows.
        object_name: the device.
    """
    key: dict[str, Any] = {"dtype": dtype, "shape": list(shape), "source": source, "units": units}
    if precision is not None:
        key["precision"] = precision
    if low is not None or high is not None:
        key["limits"] = {"control": {"low": low, "high": high}}
    if object_name:
        key["object_name"] = object_name
    return key


class RunDocuments:
    """Builds the documents of one run from start to stop."""

    def __init__(self, *, now: Callable[[], float] = _time.time) -> None:
        self._now = now
        self.start_uid = ""
        self.stopped = False
        self._descriptors: dict[str, tuple[str, frozenset[str]]] = {}
        self._counts: dict[str, int] = {}

    def start(
        self,
        *,
        run: str,
        experiment: str,
        station: str,
        sample: Mapping[str, Any] | str,
        resumed_from: str | None = None,
        **more: Any,
    ) -> Document:
        """Return the start document.

        Args:
            run: the run's id, also the name of its folder.
            experiment: name of the experiment.
            station: name of the station.
            sample: what the experiment file says of it.
            resumed_from: uid of the start document that this one continues.
            more: further entries; names of nested entries hold neither ``.`` nor ``/``.
        """
        if self.start_uid:
            raise DocumentError("this run has a start document")
        self.start_uid = str(uuid.uuid4())
        document = {
            **more,
            "uid": self.start_uid,
            "time": self._now(),
            "run": run,
            "plan_name": experiment,
            "plan_type": "operando",
            "beamline_id": station,
            "sample": sample if isinstance(sample, str) else dict(sample),
        }
        if resumed_from is not None:
            document["resumed_from"] = resumed_from
        _check_names(document, skip=("sample",))
        return "start", document

    def descriptor(
        self,
        stream: str,
        data_keys: Mapping[str, Mapping[str, Any]],
        *,
        configuration: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Document:
        """Return the descriptor of a stream; a second one of the same name replaces the first from here on.

        Args:
            stream: one of STREAMS.
            data_keys: by name of the value, each made by ``data_key``.
            configuration: by device, ``{"data", "timestamps", "data_keys"}`` as event-model has it.
        """
        self._require_open()
        if stream not in STREAMS:
            raise DocumentError(f"stream {stream!r} is none of {', '.join(STREAMS)}")
        uid = str(uuid.uuid4())
        self._descriptors[stream] = (uid, frozenset(data_keys))
        self._counts.setdefault(stream, 0)
        objects: dict[str, list[str]] = {}
        for name, key in data_keys.items():
            objects.setdefault(str(key.get("object_name") or stream), []).append(name)
        return "descriptor", {
            "uid": uid,
            "time": self._now(),
            "run_start": self.start_uid,
            "name": stream,
            "data_keys": {name: dict(key) for name, key in data_keys.items()},
            "object_keys": objects,
            "hints": {name: {"fields": fields} for name, fields in objects.items()},
            "configuration": {name: dict(entry) for name, entry in (configuration or {}).items()},
        }

    def event(
        self,
        stream: str,
        data: Mapping[str, Any],
        *,
        timestamps: Mapping[str, float] | None = None,
        time: float | None = None,
    ) -> Document:
        """Return one event of a stream.

        Args:
            stream: one that has a descriptor.
            data: a value for each of the descriptor's keys; None where there is no valid one.
            timestamps: wall seconds at which each value was obtained; default the event's time.
            time: wall seconds of the event; default now.
        """
        self._require_open()
        if stream not in self._descriptors:
            raise DocumentError(f"stream {stream!r} has no descriptor")
        uid, keys = self._descriptors[stream]
        if keys != set(data):
            raise DocumentError(f"stream {stream!r}: keys {sorted(keys ^ set(data))} are not those described")
        self._counts[stream] += 1
        moment = self._now() if time is None else time
        stamps = dict.fromkeys(data, moment) if timestamps is None else dict(timestamps)
        if set(stamps) != keys:
            raise DocumentError(f"stream {stream!r}: timestamps {sorted(keys ^ set(stamps))} do not fit")
        return "event", {
            "uid": str(uuid.uuid4()),
            "descriptor": uid,
            "seq_num": self._counts[stream],
            "time": moment,
            "data": dict(data),
            "timestamps": stamps,
            "filled": {},
        }

    def stop(self, exit_status: ExitStatus, reason: str = "") -> Document:
        """Return the stop document; nothing may follow it."""
        self._require_open()
        self.stopped = True
        return _stop(self.start_uid, exit_status, reason, self._counts, self._now())

    def _require_open(self) -> None:
        if not self.start_uid:
            raise DocumentError("this run has no start document yet")
        if self.stopped:
            raise DocumentError("this run has its stop document")


class DocumentWriter:
    """Journals the documents of one run as they are made.

    start, descriptor and stop are on disk on return, and so is an event unless it is posted (``wait=False``),
    which suits the fast streams.
    """

    def __init__(self, journal: AsyncJournal, run: str, *, now: Callable[[], float] = _time.time) -> None:
        self._journal = journal
        self.run = run
        self.documents = RunDocuments(now=now)

    async def start(self, **fields: Any) -> str:
        """Journal the start document (fields as ``RunDocuments.start``) and return its uid."""
        await self._write(self.documents.start(run=self.run, **fields))
        return self.documents.start_uid

    async def descriptor(
        self,
        stream: str,
        data_keys: Mapping[str, Mapping[str, Any]],
        *,
        configuration: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Journal the descriptor of a stream."""
        await self._write(self.documents.descriptor(stream, data_keys, configuration=configuration))

    async def event(
        self,
        stream: str,
        data: Mapping[str, Any],
        *,
        timestamps: Mapping[str, float] | None = None,
        time: float | None = None,
        lab_s: float | None = None,
        wait: bool = True,
    ) -> None:
        """Journal one event; with ``wait=False`` in the next group commit."""
        if not wait:
            self.post(stream, data, timestamps=timestamps, time=time, lab_s=lab_s)
            return
        await self._write(self.documents.event(stream, data, timestamps=timestamps, time=time), lab_s)

    def post(
        self,
        stream: str,
        data: Mapping[str, Any],
        *,
        timestamps: Mapping[str, float] | None = None,
        time: float | None = None,
        lab_s: float | None = None,
    ) -> None:
        """Queue one event for the next group commit: for the fast streams; never waits."""
        name, document = self.documents.event(stream, data, timestamps=timestamps, time=time)
        self._journal.post(
            f"doc/{name}", "documents", document, run=self.run, lab_s=lab_s, topic=f"doc/{name}"
        )

    async def stop(self, exit_status: ExitStatus, reason: str = "") -> None:
        """Journal the stop document."""
        await self._write(self.documents.stop(exit_status, reason))

    async def _write(self, document: Document, lab_s: float | None = None) -> None:
        name, body = document
        await self._journal.record(
            f"doc/{name}", "documents", body, run=self.run, lab_s=lab_s, topic=f"doc/{name}"
        )


def missing_stops(journal: Reads, run: str, reason: str, *, now: float) -> list[dict[str, Any]]:
    """Return the stop documents that a run's journal lacks, oldest start first, with the events counted.

    Args:
        journal: an open journal.
        run: the run's id.
        reason: why there was none (``"power loss"``).
        now: wall seconds for the documents.
    """
    stopped = {event.body["run_start"] for event in journal.all_events(run, "doc/stop")}
    starts = [event.body["uid"] for event in journal.all_events(run, "doc/start")]
    streams = {event.body["uid"]: event.body for event in journal.all_events(run, "doc/descriptor")}
    counts: dict[str, dict[str, int]] = {uid: {} for uid in starts if uid not in stopped}
    for body in streams.values():
        if body["run_start"] in counts:
            counts[body["run_start"]].setdefault(body["name"], 0)
    if counts:
        for event in journal.all_events(run, "doc/event"):
            stream = streams[event.body["descriptor"]]
            if stream["run_start"] in counts:
                counts[stream["run_start"]][stream["name"]] += 1
    return [_stop(uid, "abort", reason, counts[uid], now)[1] for uid in starts if uid in counts]


async def close_crashed(journal: AsyncJournal, run: str, reason: str) -> str | None:
    """Write the stop documents that a crash left out; return the uid of the run's last start document.

    That uid is what the next start document gives as ``resumed_from``; None if the run never had one.
    """
    await journal.flush()

    def look() -> tuple[list[dict[str, Any]], list[str]]:
        with JournalReader.open(journal.path) as reader:
            starts = [event.body["uid"] for event in reader.all_events(run, "doc/start")]
            return missing_stops(reader, run, reason, now=_time.time()), starts

    stops, starts = await asyncio.to_thread(look)
    for stop in stops:
        await journal.record("doc/stop", "documents", stop, run=run, topic="doc/stop")
    return starts[-1] if starts else None


def _stop(start: str, status: ExitStatus, reason: str, counts: Mapping[str, int], now: float) -> Document:
    """Return a stop document."""
    return "stop", {
        "uid": str(uuid.uuid4()),
        "run_start": start,
        "time": now,
        "exit_status": status,
        "reason": reason,
        "num_events": dict(counts),
    }


def _check_names(document: Mapping[str, Any], skip: Sequence[str] = ()) -> None:
    """Refuse names that event-model does not allow below a start document."""
    for name, value in document.items():
        if "." in name or "/" in name or not name:
            raise DocumentError(f"{name!r} cannot be a name in a start document")
        if isinstance(value, Mapping) and name not in skip:
            _check_names(value)
