import asyncio
import hashlib
import hmac
import json
import sqlite3
import time

import pytest

from controller.command_keys import Key, KeyFileError, load_keys
from controller.command_refusals import BURST, MOST_REASONS, OTHER, Refusals
from controller.commands import Command, Gate, Refusal, RemoteCommands, canonical, sign
from controller.journal import AsyncJournal
from controller.link_server import RemoteMessage

KEY = bytes(range(32))
NOW = 1_800_000_000.0
PRESENT = {"run": "20270115-lfp", "state": "running", "step": 3}


@pytest.fixture
async def journal(tmp_path):
    async with await AsyncJournal.open(tmp_path / "journal.sqlite", station="bench") as journal:
        await journal.boot("test")
        yield journal


def gate(
    journal, *, allow=("pause", "safe"), embedded=False, now=NOW, role="operator", present=PRESENT
):  # fmt: skip
    async def what_is_so():
        return present

    keys = {"alice": Key(KEY, role)}
    return Gate("bench", keys, allow, journal, embedded=embedded, present=what_is_so, now=lambda: now)


def command(verb="pause", key=KEY, **more):
    expect = {} if verb == "safe" else {"run": PRESENT["run"], "state": "running"}
    usual = {"client": "alice", "station": "bench", "verb": verb, "now": NOW, "expect": expect}
    return sign(key, **{**usual, **more})


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
    found = await gate(journal).check(message(command(why="lunch")))
    assert (found.client, found.verb, found.args, found.why) == ("alice", "pause", {}, "lunch")


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
        (lambda: message(command(args={"do": "clear"})), "takes no arguments"),
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
        changed(command(), why=1),
        changed(command(), why="x" * 201),
        changed(command(), why="\x1b[2J"),
        changed(command(), expect=[]),
        changed(command(), expect={"mood": "good"}),
        changed(command(), expect={"run": ["20270115-lfp"]}),
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
    once = command(now=time.time())
    for attempt in range(2):
        async with await AsyncJournal.open(path, station="bench") as journal:
            await journal.boot("test")
            here = gate(journal, now=time.time())
            if attempt == 0:
                await here.check(message(once))
            with pytest.raises(Refusal, match="used before"):
                await here.check(message(once))


async def test_what_was_refused_once_is_never_carried_out_later(journal):
    """Its sender was told so; whoever kept it may not choose a better moment."""
    early = command(now=NOW + 100.0)
    with pytest.raises(Refusal, match="future"):
        await gate(journal).check(message(early))
    with pytest.raises(Refusal, match="used before"):
        await gate(journal, now=NOW + 100.0).check(message(early))
    another = command()
    with pytest.raises(Refusal, match="another verb"):
        await gate(journal).check(message(another, "safe"))
    with pytest.raises(Refusal, match="used before"):
        await gate(journal).check(message(another))


# -- what it expects --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "expect", "words"),
    [
        (
            "pause",
            {"run": "yesterday", "state": "running"},
            "expects run 'yesterday', which is '20270115-lfp'",
        ),
        ("pause", {"run": PRESENT["run"], "state": "paused"}, "expects state 'paused', which is 'running'"),
        ("pause", {"run": PRESENT["run"], "state": "running", "step": 2}, "expects step 2, which is 3"),
        ("pause", {"run": PRESENT["run"]}, "does not say which state"),
        ("proceed", {}, "does not say which run and state"),
        ("stop", {}, "does not say which run"),
        ("abort", {"run": "yesterday"}, "expects run 'yesterday'"),
        ("abort", {"run": PRESENT["run"], "state": "paused"}, "expects state 'paused'"),
    ],
)
async def test_a_command_for_another_state_is_refused(journal, verb, expect, words):
    here = gate(journal, allow=("pause", "proceed", "stop", "abort"))
    with pytest.raises(Refusal, match=words):
        await here.check(message(command(verb, expect=expect), verb))


async def test_who_stops_need_not_know_how_far_the_run_is(journal):
    here = gate(journal, allow=("stop", "abort"))
    for verb in ("stop", "abort"):
        assert await here.check(message(command(verb, expect={"run": PRESENT["run"]}), verb))
    assert await here.check(message(command("safe", expect={"run": "any"}), "safe"))


async def test_commands_that_come_in_another_order_are_refused_unless_they_stop(journal):
    here = gate(journal, allow=("pause", "stop"))
    first, second = command(now=NOW - 2.0), command(now=NOW - 1.0)
    stop = command("stop", now=NOW - 3.0)
    assert await here.check(message(second))
    with pytest.raises(Refusal, match="a later command"):
        await here.check(message(first))
    assert await here.check(message(stop, "stop"))


@pytest.mark.parametrize("verb", ["pause", "proceed", "answer", "stop", "abort", "safe"])
async def test_a_viewer_may_only_stop(journal, verb):
    here = gate(journal, role="viewer", allow=("pause", "proceed", "answer", "stop", "abort"))
    if verb in ("stop", "abort", "safe"):
        assert await here.check(message(command(verb), verb))
    else:
        with pytest.raises(Refusal, match="not allowed to a viewer"):
            await here.check(message(command(verb), verb))


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
    path = key_file(tmp_path, f"# who may\nalice operator {KEY.hex()}  # phone\n\nbob viewer {'ab' * 16}\n")
    assert load_keys(path) == {"alice": Key(KEY, "operator"), "bob": Key(bytes([0xAB] * 16), "viewer")}
    assert KEY.hex() not in repr(load_keys(path))
    assert repr(KEY) not in repr(load_keys(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no key"),
        ("alice", "line 1"),
        (f"alice {'00' * 16}", "viewer or operator"),
        (f"alice owner {'00' * 16}", "viewer or operator"),
        ("alice operator 0011", "at least 16 bytes"),
        (f"alice operator {'zz' * 16}", "not hexadecimal"),
        (f"a/b operator {'00' * 16}", "line 1"),
        (f"alice viewer {'00' * 16}\nalice viewer {'11' * 16}", "line 2"),
    ],
)
def test_a_wrong_file_of_keys_is_refused(tmp_path, text, words):
    with pytest.raises(KeyFileError, match=words):
        load_keys(key_file(tmp_path, text))


def test_keys_that_others_can_read_are_refused(tmp_path):
    with pytest.raises(KeyFileError, match="chmod"):
        load_keys(key_file(tmp_path, f"alice operator {KEY.hex()}", 0o640))
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

    payload = command(why="the cell is to rest")
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
    assert noted.body["why"] == "the cell is to rest"


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


# -- a flood of refusals --------------------------------------------------------------------------


async def test_a_flood_is_counted_in_one_row_and_not_answered(journal):
    async def execute(command):
        return "done"

    handler = remote(journal, execute)
    forged, known = message(command(key=bytes(32))), message(command("abort"), "abort")
    await handler(known)  # answered, for its signature is right
    for _ in range(500):
        await handler(forged)
    for _ in range(100):
        await handler(known)
    handler.dropped({"too many at once": 12345})
    await handler(message(command()))  # what is in order is still carried out
    await handler.close()
    refused = [e.body for e in await journal.read(lambda j: j.events(kind="remote_refused"))]
    assert [body["reason"] for body in refused[:-1]] == ["abort is not allowed here"] + [
        "the signature is wrong"
    ] * (BURST - 1)
    counts = refused[-1]["counts"]
    assert counts == {
        "the signature is wrong": 500 - (BURST - 1),
        "the nonce was used before": 100,
        "too many at once": 12345,
    }
    assert [body["result"] for _, _, body in answers(journal.path)] == ["rejected", "accepted", "done"]


async def test_rows_come_again_when_the_flood_is_over_and_reasons_are_bounded():
    written, clock = [], [0.0]

    async def write(body):
        written.append(body)

    refusals = Refusals(write, now=lambda: clock[0])
    for n in range(1000):
        await refusals.take({"reason": f"reason {n}"})
    assert len(written) == BURST
    clock[0] += 3.0
    assert await refusals.take({"reason": "later"})
    assert not await refusals.take({"reason": "too soon"})
    await refusals.close()
    counts = written[-1]["counts"]
    assert len(counts) == MOST_REASONS + 1
    assert counts[OTHER] == 1001 - BURST - MOST_REASONS
    assert sum(counts.values()) == 1001 - BURST
