"""The codecs as functions of bytes: what a device, a socket or a sender elsewhere may send us."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

One = Callable[[bytes], None]
FIELDS = (
    b"id", b"client", b"station", b"verb", b"args", b"expect", b"why", b"issued", b"expires", b"nonce",
    b"sig",
)  # fmt: skip
KEY = bytes(range(32))
NOW_S = 1_800_000_000.0


def in_memory() -> str | None:
    """Return a folder in memory, None where there is none."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108


@functools.cache
def scratch() -> Path:
    """Return a folder of this process, in memory where TMPDIR does not say otherwise; it goes with it."""
    folder = tempfile.mkdtemp(prefix="operando-fuzz-", dir=None if "TMPDIR" in os.environ else in_memory())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _amptek(pid: tuple[int, int], data: bytes) -> bytes:
    body = bytes([0xF5, 0xFA, *pid]) + len(data).to_bytes(2, "big") + data
    return body + (-sum(body) & 0xFFFF).to_bytes(2, "big")


def seeds_amptek_packets() -> list[bytes]:
    """A status, acknowledges, list data, a configuration, a spectrum with status."""
    status = _amptek((0x80, 1), bytes(64))
    packets = [
        status, _amptek((0xFF, 0), b""), status, _amptek((0x82, 1), bytes(16)),
        _amptek((0x82, 7), b"MCAC=1024;"), _amptek((0x81, 2), bytes(3 * 256 + 64)),
    ]  # fmt: skip
    return [bytes([kind]) + packet for kind, packet in enumerate(packets)]


def make_amptek_packets() -> One:
    """The first byte chooses the parser; the checksum is put right half of the time."""
    from drivers import amptek_packets as packets

    parsers: tuple[Callable[[bytes], Any], ...] = (
        packets.parse_packet, packets.parse_acknowledge, packets.parse_status, packets.parse_list_data,
        packets.parse_configuration, packets.parse_spectrum,
    )  # fmt: skip

    def run(data: bytes) -> None:
        if not data:
            return
        body = data[1:]
        if data[0] & 0x80 and len(body) >= 8:  # so that what lies behind the checksum is reached
            body = body[:4] + (len(body) - 8).to_bytes(2, "big") + body[6:-2]
            body += (-sum(body) & 0xFFFF).to_bytes(2, "big")
        parsers[(data[0] & 0x7F) % len(parsers)](body)

    return run


def seeds_amptek_listmode() -> list[bytes]:
    """Frame words, tags and events, in three chunks."""
    words = (0xC0010000, 0x00640005, 0x80010000, 0x00650006, 0xC0014001, 0x00660007)
    return [bytes([n]) + struct.pack(">6I", *words) for n in (1, 5, 24)]


def make_amptek_listmode() -> One:
    """The first byte is the size of the chunks in which the decoder is fed."""
    from drivers.amptek_listmode import ListModeDecoder, first_frame

    def run(data: bytes) -> None:
        decoder, size, body = ListModeDecoder(), 1 + (data[0] if data else 0), data[1:]
        first_frame(body)
        for start in range(0, len(body), size):
            events = decoder.feed(body[start : start + size])
            if not len(events.channel) == len(events.time_ticks) == len(events.frame):
                raise AssertionError("columns of different lengths")

    return run


def seeds_modbus() -> list[bytes]:
    """Replies to reads and writes, on the serial line and over TCP."""
    from drivers.modbus import crc16

    replies = [bytes([1, 3, 4, 0, 1, 0, 2]), bytes([1, 6, 0, 5, 0, 7]), bytes([1, 16, 0, 5, 0, 2])]
    replies += [bytes([1, 0x83, 2])]
    rtu = [bytes([k]) + reply + crc16(reply) for k, reply in enumerate(replies)]
    tcp = [bytes([0x40 | k, 0, 7, 0, 0, 0, len(r)]) + r for k, r in enumerate(replies)]
    return rtu + tcp


def make_modbus() -> One:
    """The first byte chooses the request and the wire; bit 7 puts the checksum right."""
    from drivers import modbus

    def pdus() -> list[Any]:
        return [
            modbus.read_request(5, 2), modbus.write_request(5, [7], modbus.WRITE_ONE),
            modbus.write_request(5, [7, 8]), modbus.read_request(5, 2, modbus.READ_INPUT),
        ]  # fmt: skip

    def run(data: bytes) -> None:
        if not data:
            return
        pdu, body = pdus()[data[0] % 4], data[1:]
        if data[0] & 0x40:
            modbus.parse_tcp(body, modbus.tcp_request(pdu, 1, 7))
            return
        if data[0] & 0x80 and len(body) > 2:
            body = body[:-2] + modbus.crc16(body[:-2])
        modbus.parse_rtu(body, modbus.rtu_request(pdu, 1))

    return run


def seeds_methodscript() -> list[bytes]:
    """Packages with metadata, NaN, and error lines."""
    return [
        b"Pab7F85E3Fu,14,28B;ba8000000 ,10,20B",
        b"Pab     nan;ja8000001m",
        b"e!4001: Line 3, Col 7",
        b"!0032",
    ]


def make_methodscript() -> One:
    """A line as the driver decodes it."""
    from drivers.methodscript import decode_error, decode_package

    def run(data: bytes) -> None:
        line = data.decode("ascii", errors="backslashreplace")
        found = decode_error(line)
        if found is not None:
            str(found.words)
            return
        for value in decode_package(line):
            str(value.problems)

    return run


def seeds_labjack_stream() -> list[bytes]:
    """A reply with four samples, one with a status, and pulses of a line."""
    return [
        struct.pack(">8H", 4, 0, 0, 0, 100, 1, 200, 0), struct.pack(">6H", 2, 0, 2941, 5, 0xFFFF, 0xFFFF),
        struct.pack(">4H", 0, 0, 2942, 0),
    ]  # fmt: skip


def make_labjack_stream() -> One:
    """Registers of one read: always the four of the header, as Modbus has checked."""
    from drivers.labjack_stream import HEADER_WORDS, parse_stream

    def run(data: bytes) -> None:
        words = list(struct.unpack(f">{len(data) // 2}H", data[: len(data) // 2 * 2]))
        if len(words) >= HEADER_WORDS:
            reply = parse_stream(words)
            str((reply.skipped_scans, len(reply.samples)))

    return run


def seeds_reduce_frames() -> list[bytes]:
    """Bodies of frames."""
    import cbor2

    return [
        cbor2.dumps({"k": "pass", "n": 3, "raw": b"1234"}),
        cbor2.dumps({"k": "finish"}),
        cbor2.dumps([1]),
    ]


def make_reduce_frames() -> One:
    """A body as it comes from the socket."""
    from controller.reduce.frames import unpack

    def run(data: bytes) -> None:
        assert isinstance(unpack(data)["k"], str), "a message without a kind"  # noqa: S101  # a finding

    return run


def seeds_commands() -> list[bytes]:
    """Signed commands."""
    from controller.commands import sign

    seeds = [
        sign(
            KEY,
            client="desk",
            station="lab",
            verb=verb,
            args=args,
            why="lunch",
            now=NOW_S,
            expect={"run": "r", "state": "running", "step": 1},
        )
        for verb, args in (("safe", {}), ("answer", {"id": "q", "value": 1.5}))
    ]
    return [bytes([k]) + seed for k, seed in enumerate(seeds)]


def make_commands() -> One:
    """A message on ``cmd/safe``; an odd first byte has it signed anew, as an authorised client could."""
    import hashlib
    import hmac

    from controller.command_keys import Key
    from controller.commands import Gate, canonical
    from controller.link_server import RemoteMessage

    class Journal:
        async def nonce_seen(self, nonce: str, expires: float) -> bool:
            return False

    async def present() -> dict[str, Any]:
        return {"run": "r", "state": "running", "step": 1}

    gate = Gate(
        "lab", {"desk": Key(KEY)}, ("safe", "pause"), Journal(), embedded=False,  # type: ignore[arg-type]
        present=present, now=lambda: NOW_S,
    )  # fmt: skip

    def run(data: bytes) -> None:
        payload = data[1:]
        if data[:1] and data[0] & 1:
            try:
                body = json.loads(payload)
                body["sig"] = hmac.new(KEY, canonical(body), hashlib.sha256).hexdigest()
                payload = json.dumps(body).encode()
            except (ValueError, TypeError, AttributeError, RecursionError, IndexError):
                payload = data[1:]
        _finish(gate.check(RemoteMessage("safe", payload, False)))

    return run


def _finish(coroutine: Any) -> None:
    """Carry a coroutine out that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


def seeds_command_keys() -> list[bytes]:
    """A file of keys."""
    key = KEY.hex().encode()
    return [b"# keys\ndesk operator " + key + b"\nphone viewer " + key + b" # x\n"]


def make_command_keys() -> One:
    """The file of keys of a station."""
    from controller.command_keys import load_keys

    path = scratch() / "keys"
    path.touch(0o600)

    def run(data: bytes) -> None:
        path.write_bytes(data)
        load_keys(path)

    return run


def seeds_link_lines() -> list[bytes]:
    """Lines that link sends to control."""
    lines: list[dict[str, Any]] = [
        {"ack": [[1, 3], [5, 5]]}, {"refused": [[4, "why"]]},
        {"beat": {"connected": True, "echo": False, "backlog": 3, "protocol": "5", "error": ""}},
        {"command": {"verb": "safe", "payload": "{}", "retain": False}}, {"hello": {"pid": 7}},
    ]  # fmt: skip
    return [json.dumps(line).encode() for line in lines]


def make_link_lines() -> One:
    """A line from link; what is queued is carried out against a journal that keeps nothing."""
    from controller.link_server import LinkServer, RemoteMessage

    class Journal:
        on_commit: Any = None

        async def acknowledge(self, ranges: list[tuple[int, int]]) -> None:
            pass

        async def undeliverable(self, refused: list[tuple[int, str]]) -> None:
            pass

    async def command(message: RemoteMessage) -> None:
        str(message)

    server = LinkServer("/nowhere", Journal(), on_command=command)  # type: ignore[arg-type]

    async def one(line: bytes) -> None:
        for name in ("journal", "command"):
            server._work[name] = asyncio.Queue(8)
        server._heard(line)
        for queue in server._work.values():
            while not queue.empty():
                await queue.get_nowait()()
        await asyncio.sleep(0)

    def run(data: bytes) -> None:
        asyncio.run(one(data))

    return run


def seeds_payloads() -> list[bytes]:
    """Bodies of JSON and CBOR topics."""
    import cbor2

    return [b'\x00{"a": 1}', b"\x00{}", b"\x01" + cbor2.dumps({"a": 1}), b"\x01\xd9\xd9\xf7\xbf\x61a\x01\xff"]


def make_payloads() -> One:
    """A body from the outbox, wrapped for the wire; what was a CBOR map must be one afterwards."""
    import cbor2

    from controller.payloads import Envelope, wrap

    envelope = Envelope(**{name: _filler(kind) for name, kind in Envelope.__annotations__.items()})

    def run(data: bytes) -> None:
        topic, body = ("data/x" if data[:1] == b"\x01" else "tele/x"), data[1:]
        wrapped = wrap(topic, body, envelope)
        if not topic.startswith("data/") or not body:
            return
        try:
            before = cbor2.loads(body)
        except Exception:  # the body was no CBOR; wrap does not decode it
            return
        if isinstance(before, dict) and len(cbor2.loads(wrapped)) < len(before):
            raise AssertionError("entries were lost")

    return run


def _filler(kind: Any) -> Any:
    text = str(kind)
    return next((value for name, value in (("int", 1), ("float", 1.0), ("bool", True)) if name in text), "x")


def seeds_raw_index() -> list[bytes]:
    """An index of a run with the words of one pass; what follows the zero byte is the file of words."""
    entry = {"path": "pixe.words", "offset": 4, "words": 1}
    end = {"k": "pass_end", "scan": 1, "n": 0, "raw": {"pixe": entry}}
    lines = [{"k": "run", "settings": {"base64": "oWFh9w=="}}, end, {"k": "scan_end", "scan": 1}]
    return [b"".join(json.dumps(line).encode() + b"\n" for line in lines) + b"\0\0\0\0\1\0\0\0\2"]


def make_raw_index() -> One:
    """Every message of an index, and every range of words that it names."""
    from controller.rawfile import INDEX_NAME, read_index, read_words

    folder = scratch()

    def run(data: bytes) -> None:
        index, _, words = data.partition(b"\0")
        (folder / INDEX_NAME).write_bytes(index)
        (folder / "pixe.words").write_bytes(words)
        for message in read_index(folder):
            raw = message.get("raw")
            for entry in raw.values() if isinstance(raw, dict) else ():
                with contextlib.suppress(ValueError, OSError):
                    read_words(folder, entry, verify=True)

    return run


def seeds_quantities() -> list[bytes]:
    """Quantities with units; the first byte says what is expected."""
    from controller.config.quantities import KINDS

    texts = {"A": "26 uA", "K": "60 degC", "V": "1.5e-3 V", "s": "5 µs"}
    return [bytes([list(KINDS).index(kind)]) + text.encode() for kind, text in texts.items() if kind in KINDS]


def make_quantities() -> One:
    """A quantity of every kind, and a current as a C rate."""
    from controller.config.quantities import KINDS, parse, parse_current

    kinds = list(KINDS)

    def run(data: bytes) -> None:
        text, kind = data[1:].decode("utf-8", "replace"), data[0] if data else 0
        if kind == 255:
            parse_current(text, 3.6)
        else:
            parse(text, kinds[kind % len(kinds)])

    return run
