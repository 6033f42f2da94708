import json
import subprocess
import sys

import cbor2
import jsonschema
import pytest

from controller import payloads
from controller.asyncapi import asyncapi
from controller.commands import sign
from controller.documents import STREAMS, RunDocuments, data_key
from controller.payload_schemas import message_name, payload_schemas
from controller.payloads import Envelope, PayloadError, wrap
from controller.topics import PUBLISHED, prefix
from tests.controller.wire import ROOT

BOOT = "0123456789abcdef0123456789abcdef"
ENVELOPE = Envelope(BOOT, 7, 3, hist=False)


def check(topic, payload):
    """Validate what goes over the wire; return it decoded."""
    decoded = cbor2.loads(payload) if topic.startswith("data/") else json.loads(payload)
    schema = payload_schemas()[message_name(topic)]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(decoded, schema)
    return decoded


def wire(topic, body):
    return wrap(topic, json.dumps(body).encode(), ENVELOPE)


ALARM = payloads.alarm(
    "over",
    channel="heater.temperature",
    value=351.0,
    limit=343.0,
    unit="K",
    action="safe",
    text="too hot",
    lab_s=3.0,
)
DESCRIBE = payloads.describe(
    "bench",
    {
        "heater": {
            "driver": "eurotherm_3200",
            "roles": ["heater"],
            "description": "holder",
            "parameters": {"temperature": payloads.parameter("Pt100", unit="K", low=263.0, high=343.0)},
        }
    },
    limits={"current_a": 4e-5},
    streams=["map/Li"],
    speed=60.0,
)


# -- builders and schemas --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "body"),
    [
        ("state/heater/temperature", payloads.state(333.1, e=0.5, unit="K")),
        ("state/heater/temperature", payloads.state(None)),
        ("state/beam/blanked", payloads.state(True, q="uncertain", t=5.0)),
        ("state/run/phase", payloads.state("scan", stands_s=5.0)),
        ("state/run/plan", payloads.state({"steps": [{"title": "heat"}]})),
        ("state/guard/latched", payloads.state([])),
        ("tele", payloads.tele({"heater/temperature": [(1.0, 300.0), (1.1, None)]})),
        ("tele", payloads.tele({})),
        ("describe", DESCRIBE),
        ("alarm/over", ALARM),
        (
            "question/q1",
            payloads.question("q1", text="Go on?", choices=["yes", "no"], default="no", expires=9.0),
        ),
        ("question/message", {"text": "Close the valve", "answer": "operando proceed"}),
        ("ack/alice", payloads.ack("c1", verb="pause", result="rejected", reason="not now")),
    ],
)
def test_what_is_built_goes_over_the_wire_valid(topic, body):
    decoded = check(topic, wire(topic, body))
    assert {key: decoded[key] for key in payloads.ENVELOPE} == {
        "boot": BOOT,
        "seq": 7,
        "prev": 3,
        "hist": False,
    }
    assert {key: value for key, value in decoded.items() if key not in payloads.ENVELOPE} == json.loads(
        json.dumps(body)
    )


def test_every_document_goes_over_the_wire_valid():
    run = RunDocuments()
    documents = [run.start(run="r", experiment="e", station="bench", sample={"name": "x"})]
    documents += [run.descriptor(stream, {"v": data_key("s", "V")}) for stream in STREAMS]
    documents += [run.event("echem", {"v": 3.7}), run.stop("success")]
    for name, document in documents:
        decoded = check(f"doc/{name}", wire(f"doc/{name}", document))
        assert decoded["doc"] == document


def test_status_and_command_are_valid_too():
    status = payloads.status("ready", boot=BOOT, link="0" * 16, version="0.1", backlog=3)
    check("status", json.dumps(status).encode())
    check("cmd", sign(bytes(32), client="alice", station="bench", verb="pause"))


@pytest.mark.parametrize(
    ("topic", "body"),
    [
        ("state/a/b", {"v": 1.0, "t": 1.0, "e": None, "q": "fine"}),
        ("state/a/b", {"v": 1.0, "t": 1.0, "e": [0.1], "q": "good"}),
        ("state/a/b", {**payloads.state(1.0), "stands_s": 0}),
        ("state/a/b", {"v": 1.0, "t": "now", "e": None, "q": "good"}),
        ("state/a/b", {"v": 1.0, "e": None, "q": "good"}),
        ("state/a/b", {**payloads.state(1.0), "surprise": 1}),
        ("tele", {"series": {"a/b": [[1.0]]}}),
        ("tele", {"series": {"a": []}}),
        ("alarm/over", {**ALARM, "latch": "yes"}),
        ("ack/alice", {**payloads.ack("c", verb="stop", result="done"), "result": "maybe"}),
        ("doc/start", {"uid": "x"}),
        (
            "doc/event",
            {"uid": "x", "descriptor": "d", "seq_num": 1, "time": 1.0, "data": {}, "timestamps": {}, "k": 1},
        ),
    ],
)
def test_the_schemas_refuse_what_is_wrong(topic, body):
    with pytest.raises(jsonschema.ValidationError):
        check(topic, wire(topic, body))


@pytest.mark.parametrize("missing", payloads.ENVELOPE)
def test_the_envelope_is_required(missing):
    body = {**payloads.state(1.0), **ENVELOPE.as_dict()}
    del body[missing]
    with pytest.raises(jsonschema.ValidationError, match=missing):
        check("state/a/b", json.dumps(body).encode())


# -- the envelope --------------------------------------------------------------------------


def test_an_empty_payload_stays_empty_and_an_empty_object_does_not():
    assert wrap("alarm/x", b"", ENVELOPE) == b""
    assert json.loads(wrap("tele", b"{}", ENVELOPE)) == ENVELOPE.as_dict()


@pytest.mark.parametrize("body", [b"[]", b"1", b"text", b"{"])
def test_what_is_no_object_is_refused(body):
    with pytest.raises(PayloadError, match="not a JSON object"):
        wrap("state/a/b", body, ENVELOPE)


@pytest.mark.parametrize("count", [0, 1, 19, 20, 23, 24, 251, 252, 255, 256, 65_531, 65_532, 65_536])
def test_the_envelope_is_added_to_a_cbor_map_of_any_size(count):
    product = {f"k{n}": n for n in range(count)}
    decoded = cbor2.loads(wrap("data/map/Li", cbor2.dumps(product), ENVELOPE))
    assert decoded == {**product, **ENVELOPE.as_dict()}


def test_indefinite_maps_and_the_cbor_tag_are_understood():
    product = bytes.fromhex(
        "BF 63 46756E F5 63 416D74 21 FF"
    )  # RFC 8949, appendix A: {_ "Fun": true, "Amt": -2}
    assert cbor2.loads(wrap("data/x", product, ENVELOPE)) == {"Fun": True, "Amt": -2, **ENVELOPE.as_dict()}
    tagged = bytes.fromhex("D9D9F7 A1 61 61 01")
    wrapped = wrap("data/x", tagged, ENVELOPE)
    assert wrapped.startswith(bytes.fromhex("D9D9F7"))
    assert cbor2.loads(wrapped) == {"a": 1, **ENVELOPE.as_dict()}


def test_typed_arrays_pass_untouched():
    values = cbor2.CBORTag(85, bytes(range(16)))  # RFC 8746: float32, little endian
    body = {"schema": "operando/map/1", "run": "r", "unit": "1", "shape": [2, 2], "values": values}
    wrapped = wrap("data/map/Li", cbor2.dumps(body), ENVELOPE)
    assert cbor2.dumps(values) in wrapped
    decoded = check("data/map/Li", cbor2.dumps({**cbor2.loads(wrapped), "values": []}))
    assert decoded["shape"] == [2, 2]


@pytest.mark.parametrize("body", [b"\x80", b"\x01", b"{}", b"\xb9\x00", b"\xd9\xd9\xf7", b"\xbb" + bytes(8)])
def test_a_file_that_is_no_cbor_map_is_refused(body):
    with pytest.raises(PayloadError):
        wrap("data/map/Li", body, ENVELOPE)


# -- AsyncAPI --------------------------------------------------------------------------


def follow(document, reference):
    found = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def references(node):
    """Yield every reference outside the payload schemas (those have their own)."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            elif key != "schema":
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_the_description_is_whole():
    document = json.loads(json.dumps(asyncapi()))
    assert document["asyncapi"] == "3.0.0"
    for reference in references(document):
        assert follow(document, reference)
    assert set(document["components"]["messages"]) == set(payload_schemas())
    used = {name for channel in document["channels"].values() for name in channel["messages"]}
    assert used == set(payload_schemas())


def test_the_description_covers_every_topic_and_no_other():
    channels = asyncapi()["channels"]
    base = "operando/v1/{station}/"
    assert prefix("x") == base.replace("{station}", "x")[:-1]
    firsts = {channel["address"].removeprefix(base).split("/")[0] for channel in channels.values()}
    assert firsts == {pattern.split("/")[0] for pattern in PUBLISHED} | {"cmd"}
    for channel in channels.values():
        assert {f"{{{name}}}" for name in channel["parameters"]} == {
            part for part in channel["address"].split("/") if part.startswith("{")
        }


def test_only_what_is_retained_says_so_and_maps_never_are():
    operations = asyncapi()["operations"]
    retained = {name for name, operation in operations.items() if operation["bindings"]["mqtt"]["retain"]}
    assert retained == {"status", "describe", "state", "alarm", "question"}
    assert operations["cmd"]["action"] == "receive"


def test_building_payloads_needs_no_numerical_library():
    code = "import sys, controller.payloads, controller.commands; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"numpy", "numba", "scipy", "event_model", "aiomqtt", "amqtt"}
