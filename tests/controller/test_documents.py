import itertools
import json

import pytest
from event_model import DocumentNames, DocumentRouter, schema_validators

from controller.documents import (
    STREAMS,
    DocumentError,
    DocumentWriter,
    RunDocuments,
    close_crashed,
    data_key,
)
from controller.journal import AsyncJournal, JournalReader

THERMAL = {
    "temperature": data_key(
        "operando/heater/pv", "K", precision=2, low=263.0, high=343.0, object_name="heater"
    ),
    "duty": data_key("operando/heater/output", "1", object_name="heater"),
}
ECHEM = {
    "voltage": data_key("operando/cell/voltage", "V"),
    "state": data_key("operando/cell", None, dtype="string"),
}


def valid(document):
    """Check a document against event-model's own schema, after a trip through JSON."""
    name, body = document
    schema_validators[DocumentNames[name]].validate(json.loads(json.dumps(body)))
    return body


def clock():
    ticks = itertools.count(1000)
    return lambda: float(next(ticks))


@pytest.fixture
def run():
    documents = RunDocuments(now=clock())
    documents.first = documents.start(
        run="r1", experiment="quickstart", station="bench", sample={"name": "LCO"}
    )
    return documents


def test_every_kind_of_document_is_valid_by_event_models_schemas(run):
    start = valid(run.first)
    assert (start["run"], start["plan_name"], start["beamline_id"]) == ("r1", "quickstart", "bench")
    configuration = {
        "heater": {"data": {"p": 12.0}, "timestamps": {"p": 1.0}, "data_keys": {"p": data_key("x", "%/K")}}
    }
    for stream in STREAMS:
        described = valid(run.descriptor(stream, THERMAL, configuration=configuration))
        assert described["run_start"] == start["uid"]
        event = valid(run.event(stream, {"temperature": 333.1, "duty": None}, time=5.0))
        assert (event["descriptor"], event["time"], event["timestamps"]["duty"]) == (
            described["uid"],
            5.0,
            5.0,
        )
    stop = valid(run.stop("success"))
    assert stop["num_events"] == dict.fromkeys(STREAMS, 1)
    assert stop["run_start"] == start["uid"]


def test_a_foreign_consumer_follows_the_run(run):
    """event-model's own router accepts the documents in the order in which they are made."""
    seen = []

    class Consumer(DocumentRouter):
        def event(self, doc):
            seen.append((doc["seq_num"], doc["data"]["voltage"]))
            return doc

    consumer = Consumer()
    documents = [run.first, run.descriptor("echem", ECHEM)]
    documents += [run.event("echem", {"voltage": v, "state": "cc"}) for v in (3.7, 3.8)]
    documents.append(run.stop("fail", "sensor"))
    for document in documents:
        consumer(*document)
    assert seen == [(1, 3.7), (2, 3.8)]


def test_a_stream_may_be_described_anew_and_goes_on_counting(run):
    run.descriptor("thermal", THERMAL)
    run.event("thermal", {"temperature": 1.0, "duty": 0.0})
    again = run.descriptor("thermal", {"temperature": THERMAL["temperature"]})[1]
    event = valid(run.event("thermal", {"temperature": 2.0}))
    assert (event["descriptor"], event["seq_num"]) == (again["uid"], 2)


def test_limits_and_units_stand_in_the_descriptor(run):
    described = run.descriptor("thermal", THERMAL)[1]
    assert described["data_keys"]["temperature"]["limits"] == {"control": {"low": 263.0, "high": 343.0}}
    assert described["data_keys"]["temperature"]["units"] == "K"
    assert described["object_keys"] == {"heater": ["temperature", "duty"]}


def test_what_is_out_of_order_is_refused(run):
    with pytest.raises(DocumentError, match="no start"):
        RunDocuments().descriptor("primary", {})
    with pytest.raises(DocumentError, match="has a start"):
        run.start(run="r1", experiment="e", station="s", sample="x")
    with pytest.raises(DocumentError, match="no descriptor"):
        run.event("primary", {})
    with pytest.raises(DocumentError, match="none of primary"):
        run.descriptor("other", {})
    run.descriptor("thermal", THERMAL)
    with pytest.raises(DocumentError, match="'duty'"):
        run.event("thermal", {"temperature": 1.0})
    with pytest.raises(DocumentError, match="timestamps"):
        run.event("thermal", {"temperature": 1.0, "duty": 0.0}, timestamps={"duty": 1.0})
    run.stop("abort", "a person")
    with pytest.raises(DocumentError, match="has its stop"):
        run.event("thermal", {"temperature": 1.0, "duty": 0.0})


@pytest.mark.parametrize("more", [{"a.b": 1}, {"seeds": {"x/y": 1}}])
def test_names_that_event_model_refuses_never_get_that_far(more):
    with pytest.raises(DocumentError, match="cannot be a name"):
        RunDocuments().start(run="r", experiment="e", station="s", sample={"free.form": 1}, **more)


@pytest.fixture
async def journal(tmp_path):
    async with await AsyncJournal.open(tmp_path / "journal.sqlite", station="bench") as journal:
        await journal.boot("test")
        yield journal


async def begin(journal, run, **more):
    writer = DocumentWriter(journal, run)
    await writer.start(experiment="quickstart", station="bench", sample="LCO", **more)
    await writer.descriptor("thermal", THERMAL)
    for n in range(3):
        await writer.event("thermal", {"temperature": 300.0 + n, "duty": 0.1}, wait=n == 0)
    return writer


async def test_documents_are_journalled_and_queued_under_their_names(journal):
    writer = await begin(journal, "r1")
    await writer.stop("success")
    with JournalReader.open(journal.path) as reader:
        events = reader.events("r1")
        topics = [row[0] for row in reader._rows("SELECT topic FROM outbox ORDER BY seq")]
    assert [e.kind for e in events] == ["doc/start", "doc/descriptor", *["doc/event"] * 3, "doc/stop"]
    assert topics == [e.kind for e in events]
    for event in events:
        valid((event.kind.removeprefix("doc/"), event.body))
    assert events[-1].body["num_events"] == {"thermal": 3}


async def test_a_crashed_run_gets_its_stop_and_goes_on_under_a_new_start(journal):
    crashed = await begin(journal, "r1")
    other = await begin(journal, "r2")
    before = await close_crashed(journal, "r1", "power loss")
    assert before == crashed.documents.start_uid
    with JournalReader.open(journal.path) as reader:
        (stop,) = [e.body for e in reader.events("r1", "doc/stop")]
        assert reader.events("r2", "doc/stop") == []
    assert valid(("stop", stop))["exit_status"] == "abort"
    assert (stop["run_start"], stop["reason"], stop["num_events"]) == (before, "power loss", {"thermal": 3})
    resumed = await begin(journal, "r1", resumed_from=before)
    with JournalReader.open(journal.path) as reader:
        starts = [e.body for e in reader.events("r1", "doc/start")]
    assert valid(("start", starts[1]))["resumed_from"] == before
    # A second crash closes only what is open, and a third time there is nothing left to close.
    assert await close_crashed(journal, "r1", "again") == resumed.documents.start_uid
    assert await close_crashed(journal, "r1", "again") == resumed.documents.start_uid
    with JournalReader.open(journal.path) as reader:
        assert [e.body["run_start"] for e in reader.events("r1", "doc/stop")] == [
            before,
            resumed.documents.start_uid,
        ]
    await other.stop("success")


async def test_a_run_that_never_wrote_a_document_has_nothing_to_close(journal):
    assert await close_crashed(journal, "r9", "power loss") is None
