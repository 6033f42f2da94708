import asyncio
import hashlib
import hmac
import json
import sqlite3
import time

import pytest

from controller.commands import (
    Command,
    Gate,
    KeyFileError,
    Refusal,
    RemoteCommands,
    canonical,
    load_keys,
    sign,
)
from controller.journal import AsyncJournal
from controller.link_server import RemoteMessage

KEY = bytes(range(32))
NOW = 1_800_000_000.0


@pytest.fixture
async def journal(tmp_path):
    async with await AsyncJournal.open(tmp_path / "journal.sqlite", station="bench") as journal:
        await journal.boot("test")
        yield journal


def gate(journal, *, allow=("pause", "safe"), embedded=False, now=NOW):
    return Gate("bench", {"alice": KEY}, allow, journal, embedded=embedded, now=lambda: now)


def command(verb="pause", key=KEY, **more):
    return sign(key, **{"client": "alice", "station": "bench", "verb": verb, "now": NOW, **more})


def changed(payload, **entries):
    """Sign anew with some entries replaced: the signature is right, the content is not."""
    body = {**json.loads(payload), **entries}
    body["sig"] = hmac.new(KEY, canonical(body), hashlib.sha256).hexdigest()
    return json.dumps(body).encode()


def message(payload, verb="pause", *, retain=False):
    return RemoteMessage(verb, payload, retain)


# -- the signature --------------------------------------------------------------------------


def test_the_signature_is_the_hmac_of_the_sorted_json():
    """Computed here by hand, from RFC 2104 and the rule in the schema."""
    body = {"verb": "pause", "id": "a", "args": {"z": 1, "ä": [1.5, None]}}
    text = '{"args":{"z":1,"ä":[1.5,null]},"id":"a","verb":"pause"}'
    assert canonical({**body, "sig": "x"}) == text.encode()
    inner = hashlib.sha256(bytes(k ^ 0x36 for k in KEY.ljust(64, b"\0")) + text.encode()).digest()
    outer = hashlib.sha256(bytes(k ^ 0x5C for k in KEY.ljust(64, b"\0")) + inner).hexdigest()
    assert hmac.new(KEY, canonical(body), hashlib.sha256).hexdigest() == outer


def test_every_command_has_its_own_nonce():
    assert len({json.loads(command())["nonce"] for _ in range(100)}) == 100


# -- the gate --------------------------------------------------------------------------


async def test_a_signed_command_passes(journal):
    found = await gate(journal).check(message(command(args={"why": "lunch"})))
    assert (found.client, found.verb, found.args) == ("alice", "pause", {"why": "lunch"})


async def test_safe_passes_even_if_nobody_listed_it(journal):
    assert (await gate(journal, allow=()).check(message(command("safe"), "safe"))).verb == "safe"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: message(command(), retain=True), "retained"),
        (lambda: message(command(key=bytes(32))), "signature is wrong"),
        (lambda: message(command().replace(b'"args": {}', b'"args": {"force": true}')), "signature is wrong"),
        (lambda: message(command(client="mallory")), "unknown client"),
        (lambda: message(command(station="other")), "meant for station 'other'"),
        (lambda: message(command("safe")), "another verb"),
        (lambda: message(command("abort"), "abort"), "not allowed"),
        (lambda: message(command("fly"), "fly"), "not allowed"),
        (lambda: message(command(now=NOW - 100.0)), "expired 70 s ago"),
        (lambda: message(command(now=NOW + 100.0)), "100 s in the future"),
        (lambda: message(command(ttl_s=1e6)), "more than 300 s"),
        (lambda: message(b"x" * 9000), "too many"),
    ],
)
async def test_what_is_wrong_is_refused_by_name(journal, wrong, words):
    with pytest.raises(Refusal, match=words):
        await gate(journal).check(wrong())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b'{"sig": "x"}',
        b"[" * 8000,
        changed(command(), nonce="short"),
        changed(command(), args=[]),
        changed(command(), issued="now"),
        changed(command(), issued=True),
        changed(command(), client="../alice"),
        changed(command(), id="a b"),
        changed(command(), more=1),
        command().replace(b'"issued": 1800000000.0', b'"issued": NaN'),
        command().replace(b'"expires": 1800000030.0', b'"expires": Infinity'),
    ],
)
async def test_rubbish_is_refused_and_nothing_breaks(journal, payload):
    with pytest.raises(Refusal, match="wrong shape") as caught:
        await gate(journal).check(message(payload))
    assert caught.value.client == ""


async def test_the_embedded_broker_carries_no_command_at_all(journal):
    with pytest.raises(Refusal, match="embedded"):
        await gate(journal, embedded=True).check(message(command("safe"), "safe"))


async def test_a_command_works_once_even_after_a_restart(tmp_path):
    path = tmp_path / "journal.sqlite"
    once = sign(KEY, client="alice", station="bench", verb="pause")
    for attempt in range(2):
        async with await AsyncJournal.open(path, station="bench") as journal:
            await journal.boot("test")
            here = gate(journal, now=time.time())
            if attempt == 0:
                await here.check(message(once))
            with pytest.raises(Refusal, match="used before"):
                await here.check(message(once))


async def test_a_refused_command_does_not_use_up_its_nonce(journal):
    early = command(now=NOW + 100.0)
    with pytest.raises(Refusal, match="future"):
        await gate(journal).check(message(early))
    assert await gate(journal, now=NOW + 100.0).check(message(early))


async def test_a_journal_that_fails_keeps_nobody_from_safe(journal):
    await journal.read(lambda j: j._db.execute("PRAGMA query_only = 1"))
    assert await gate(journal).check(message(command("safe"), "safe"))
    with pytest.raises(Refusal, match="journal"):
        await gate(journal).check(message(command()))


# -- the file of keys --------------------------------------------------------------------------


def key_file(tmp_path, text, mode=0o600):
    path = tmp_path / "keys"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_keys_are_read_by_name(tmp_path):
    path = key_file(tmp_path, f"# who may\nalice {KEY.hex()}  # phone\n\nbob {'ab' * 16}\n")
    assert load_keys(path) == {"alice": KEY, "bob": bytes([0xAB] * 16)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no key"),
        ("alice", "line 1"),
        ("alice 0011", "at least 16 bytes"),
        (f"alice {'zz' * 16}", "not hexadecimal"),
        (f"a/b {'00' * 16}", "line 1"),
        (f"alice {'00' * 16}\nalice {'11' * 16}", "line 2"),
    ],
)
def test_a_wrong_file_of_keys_is_refused(tmp_path, text, words):
    with pytest.raises(KeyFileError, match=words):
        load_keys(key_file(tmp_path, text))


def test_keys_that_others_can_read_are_refused(tmp_path):
    with pytest.raises(KeyFileError, match="chmod"):
        load_keys(key_file(tmp_path, f"alice {KEY.hex()}", 0o640))
    with pytest.raises(KeyFileError, match="No such file"):
        load_keys(tmp_path / "none")


# -- carrying out --------------------------------------------------------------------------


def answers(path):
    db = sqlite3.connect(path)
    rows = db.execute(
        "SELECT o.topic, o.retain, e.body FROM outbox o JOIN events e USING (seq) ORDER BY seq"
    ).fetchall()
    db.close()
    return [(topic, retain, json.loads(body)) for topic, retain, body in rows]


def remote(journal, execute, **more):
    return RemoteCommands(gate(journal, **more), journal, execute)


async def test_a_command_is_journalled_carried_out_and_answered(journal):
    done = []

    async def execute(command: Command) -> str:
        done.append(command.verb)
        return "paused at line 3"

    payload = command()
    await remote(journal, execute)(message(payload))
    assert done == ["pause"]
    told = answers(journal.path)
    assert [(topic, retain) for topic, retain, _ in told] == [("ack/alice", 0), ("ack/alice", 0)]
    assert [(b["id"], b["result"], b["reason"]) for _, _, b in told] == [
        (json.loads(payload)["id"], "accepted", ""),
        (json.loads(payload)["id"], "done", "paused at line 3"),
    ]
    (noted,) = await journal.read(lambda j: j.events(kind="remote_command"))
    assert (noted.body["client"], noted.body["verb"]) == ("alice", "pause")


async def test_a_refusal_is_journalled_and_told_only_to_who_signed(journal):
    async def execute(command):
        raise AssertionError("must not be carried out")

    handler = remote(journal, execute)
    await handler(message(command(key=bytes(32))))
    await handler(message(command("abort"), "abort"))
    assert [(topic, body["result"], body["reason"]) for topic, _, body in answers(journal.path)] == [
        ("ack/alice", "rejected", "abort is not allowed here")
    ]
    refused = await journal.read(lambda j: j.events(kind="remote_refused"))
    assert [event.body["reason"] for event in refused] == [
        "the signature is wrong",
        "abort is not allowed here",
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(Refusal("no run is active"), "no run is active"), (RuntimeError("boom"), "failed: boom")],
)
async def test_what_cannot_be_done_is_answered_and_the_next_is_heard(journal, error, reason):
    async def execute(command):
        raise error

    handler = remote(journal, execute)
    await handler(message(command()))
    await handler(message(command()))
    assert [body["reason"] for _, _, body in answers(journal.path) if body["result"] == "rejected"] == [
        reason
    ] * 2


async def test_safe_acts_before_anything_is_written(journal):
    order = []

    async def execute(command):
        order.append(("acted", len(await journal.read(lambda j: j.events(kind="remote_command")))))
        return "everything is off"

    await remote(journal, execute)(message(command("safe"), "safe"))
    assert order == [("acted", 0)]
    assert [body["result"] for _, _, body in answers(journal.path)] == ["accepted", "done"]


async def test_safe_works_with_a_journal_that_fails(journal):
    acted = asyncio.Event()

    async def execute(command):
        acted.set()
        return "off"

    await journal.read(lambda j: j._db.execute("PRAGMA query_only = 1"))
    await remote(journal, execute)(message(command("safe"), "safe"))
    assert acted.is_set()
