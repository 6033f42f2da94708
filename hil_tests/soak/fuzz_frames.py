"""What cameras send: HEXITEC packets, images as ZeroMQ messages, files in a folder. And wire traces."""

from __future__ import annotations

import asyncio
import json
import shutil
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from hil_tests.soak.fuzz_codecs import scratch
from hil_tests.soak.fuzz_lines import MARK, must

One = Callable[[bytes], None]
LARGEST = 1 << 63  # what a column of the journal holds

# --- HEXITEC: packets --------------------------------------------------------------------------------------

_PACKET = struct.Struct("<BI")
_RELATIVE, _SECOND, _WRONG_FLAGS, _WRONG_SIZE, _FLUSH, _FAR = 1, 2, 4, 8, 16, 32


def seeds_hexitec_packets() -> list[bytes]:
    """Return frames in order, doubled, in reverse, with gaps and leaps, and a camera that begins anew."""

    def frames(*numbers: int, flags: int = 0) -> bytes:
        return b"".join(_PACKET.pack(flags | part, n) for n in numbers for part in (0, _SECOND))

    anew = frames(*range(70_000, 70_020)) + frames(*range(30))
    gap = frames(0, 1, 5, 200, 199, 5) + _PACKET.pack(_FLUSH, 0) + frames(198, 201)
    odd = _PACKET.pack(_WRONG_SIZE, 3) + _PACKET.pack(_WRONG_FLAGS, 3) + frames(3, flags=_FAR)
    return [b"\0" + frames(*range(6)), b"\1" + gap, b"\0" + anew, b"\1" + odd + frames(1, 1, flags=_RELATIVE)]


def make_hexitec_packets() -> One:
    """Packets of 5 bytes each: what is odd about it, and its number. The first byte chooses the header."""
    from drivers.hexitec_packets import END_OF_FRAME, START_OF_FRAME, Assembler, Layout

    flags = (START_OF_FRAME, END_OF_FRAME)

    def run(data: bytes) -> None:
        short = not (data[0] if data else 0) & 1
        layout = Layout(4, 4, 20, "short" if short else "extended")
        whole: list[int] = []

        def deliver(frame: int, samples: memoryview) -> None:
            whole.append(frame)
            tag = frame & 0xFF
            must(samples == bytes([tag]) * 20 + bytes([tag ^ 0xFF]) * 12, f"frame {frame} is mixed")

        assembler = Assembler(layout, deliver)
        number = used = 0
        for odd, word in _PACKET.iter_unpack(data[1 : 1 + len(data[1:]) // 5 * 5]):
            if odd & _FLUSH:
                assembler.flush()
                continue
            step = ((word & 0xFF) ^ 0x80) - 0x80
            number = (number + step if odd & _RELATIVE else word) % (1 << 32)
            frame = number << 20 if odd & _FAR and not short else number
            part = int(bool(odd & _SECOND))
            told = flags[part ^ bool(odd & _WRONG_FLAGS)]
            if short:
                head = struct.pack("<II", frame, part | told)
            else:
                head = struct.pack("<QII", frame, part, told).ljust(64, b"\0")
            body = bytes([(frame & 0xFF) ^ 0xFF * part]) * layout.sizes[part]
            packet = head + body + b"\0" * bool(odd & _WRONG_SIZE)
            assembler.packet[: len(packet)] = packet
            assembler.take(len(packet))
            used += 1
        assembler.flush()
        _fates(assembler, whole, used)

    return run


def _fates(assembler: Any, whole: list[int], packets: int) -> None:
    """Every number has one fate, and every packet is counted once."""
    counts = assembler.counts
    must(counts.packets == packets and counts.frames == len(whole), f"{counts}")
    not_used = counts.bad + counts.doubled + counts.late + counts.leaps
    must(not counts.leaps or not_used <= packets, f"{counts}")
    if counts.leaps:
        return  # a number that is believed in the end was a leap, and is used
    must(len(set(whole)) == len(whole), "a frame came twice")
    must(
        counts.frames + counts.incomplete + counts.missing == assembler.base, f"{counts} of {assembler.base}"
    )
    must(packets - not_used + counts.lost_packets == 2 * assembler.base, f"{counts} of {assembler.base}")


# --- ZeroMQ ------------------------------------------------------------------------------------------------


def _message(header: dict[str, Any], pixels: bytes) -> bytes:
    return b"\0" + json.dumps(header).encode() + b"\0" + pixels


def seeds_zmq_images() -> list[bytes]:
    """Return messages of both kinds of headers, and some that are none."""
    new = {"htype": "array-1.0", "type": "uint16", "shape": [2, 3], "frame": 7, "timeStamp": 1.5e9}
    old = {**new, "htype": ["array-1.0"], "shape": [3, 2], "frame": 8, "encoding": "", "ndattr": {"a": 1}}
    messages = [
        _message(new, bytes(12)), _message(old, bytes(range(12))), _message({**new, "encoding": "lz4"}, b""),
        _message({**new, "type": "int8", "timeStamp": 7}, bytes(6)),
    ]  # fmt: skip
    return [MARK.join(messages), *messages]


def make_zmq_images() -> One:
    """Messages with ``MARK`` between them: an odd first byte adds a part, then header, zero byte, pixels."""
    import zmq

    from drivers.frame_stream import Stream

    told = {"host": "127.0.0.1", "port": 1, "socket": "sub", "hold_s": 0.0}

    class Socket:
        def __init__(self, messages: list[list[bytes]]) -> None:
            self.messages = messages

        def recv_multipart(self, flags: int) -> list[bytes]:
            if not self.messages:
                raise zmq.Again
            return self.messages.pop(0)

    stream = Stream(told, (2, 3))
    stream._socket.close()

    def run(data: bytes) -> None:
        messages = []
        for piece in data.split(MARK)[:64]:
            header, _, pixels = piece[1:].partition(b"\0")
            messages.append([header, pixels, b""][: 3 if piece[:1] and piece[0] & 1 else 2])
        stream._socket = Socket([])
        stream.tally = type(stream.tally)()
        stream._socket.messages = messages
        while messages:
            _taken(stream.tally, list(stream.look(1.0)), (2, 3))

    return run


def _taken(tally: Any, found: list[Any], shape: tuple[int, int]) -> None:
    """Look at images and counters as the process tells them, and write the images."""
    from drivers.frame_worker import put

    folder = scratch() / "taken"
    folder.mkdir(exist_ok=True)
    for taken in found:
        must(taken.image.shape == shape and taken.image.dtype.kind in "iu", f"{taken}")
        must(0 <= taken.number < LARGEST, f"number {taken.number}")
        must(put(folder, taken).parent == folder, f"{taken.number} goes elsewhere")
        json.dumps([taken.number, taken.origin, taken.time_s, taken.nbytes], allow_nan=False)
    counted = tally.as_dict()
    must(all(0 <= counted[name] < LARGEST for name in ("frames", "lost", "repeated", "held")), f"{counted}")
    must(len(json.dumps(counted)) < 1 << 16, "more than a line of the process takes")
    shutil.rmtree(folder)


# --- a watched folder --------------------------------------------------------------------------------------


def seeds_camera_files() -> list[bytes]:
    """Return names with pages of TIFF and FITS behind them."""
    from hil_tests.soak.fuzz_seeds import fits, tiff

    names = [b"scan_%04d.tif" % n for n in range(5)]
    files = [name + b"\n" + page for name, page in zip(names, tiff(), strict=True)]
    return [files[0], MARK.join(files), b"7.fits\n" + fits()[0], b"x.tif\n", files[0] + MARK + files[0]]


def make_camera_files() -> One:
    """Files with ``MARK`` between them, each a name, a line end, and what is in it."""
    from drivers.frame_worker import source_of

    folder = scratch() / "camera"
    told = {
        "kind": "folder", "folder": str(folder), "files": "*", "shape": [2, 2], "settle_s": 1.0,
        "patience_s": 5.0, "hold_s": 0.0,
    }  # fmt: skip

    def run(data: bytes) -> None:
        folder.mkdir(exist_ok=True)
        source = source_of(told)
        source.start(0.0)
        for piece in data.split(MARK)[:8]:
            name, _, content = piece.partition(b"\n")
            name = name.replace(b"/", b"").replace(b"\0", b"")[:200]
            if name not in (b"", b".", b".."):
                (folder / name.decode("utf-8", "surrogateescape")).write_bytes(content)
        for now_s in (1.0, 3.0, 20.0):
            _taken(source.tally, list(source.look(now_s)), (2, 2))
        shutil.rmtree(folder)

    return run


def seeds_camera_hdf5() -> list[bytes]:
    """Return what the two datasets are, and their numbers."""
    return [b"\0\0\0\1\2\3", b"\0\1\0", b"\1\2\5\6", b"\2\3\0\1", b"\3\4", b"\0\5\0\1", b"\0\6\0\1", b"\0\7"]


def make_camera_hdf5() -> One:
    """A file whose images and numbers are what the first two bytes say; the others are the numbers.

    The bytes of the file itself are not fuzzed: HDF5 is read in a process of its own that may hang or die.
    """
    import h5py

    from drivers.frame_worker import source_of

    folder = scratch() / "growing"
    path = folder / "scan.h5"
    told = {
        "kind": "folder", "folder": str(folder), "files": "*.h5", "shape": [2, 2], "settle_s": 1.0,
        "patience_s": 5.0, "hold_s": 0.0, "dataset": "/entry/data", "numbers": "/entry/numbers",
    }  # fmt: skip

    def images(file: Any, kind: int, count: int) -> None:
        shape = {2: (count,), 3: (), 4: (count, 3, 3), 5: (0, 2, 2), 6: (count, 2, 2, 1)}.get(
            kind, (count, 2, 2)
        )
        dtype: Any = {7: "f4", 8: "S3", 9: [("a", "i2")], 10: "i8", 11: "u8", 12: bool}.get(kind, "u2")
        if kind == 1:
            file.create_group("entry/data")
        elif kind == 13:
            file["entry/data"] = h5py.SoftLink("/entry/data")
        elif kind == 14:
            file["entry/data"] = h5py.ExternalLink("other.h5", "/data")
        elif kind == 15:
            file["entry/data"] = h5py.Empty("u2")
        else:
            values = np.arange(max(int(np.prod(shape)), 1)).reshape(-1)[: int(np.prod(shape))]
            made = file.create_dataset("entry/data", shape, dtype)
            if dtype in ("u2", "i8", "u8"):
                made[...] = values.reshape(shape)

    def numbers(file: Any, kind: int, told: bytes) -> None:
        values: Any = list(told)
        made: dict[int, Any] = {
            0: np.array(values, "u4"), 1: np.array(values, "f8") / 3.0 if told else np.zeros(0),
            2: np.array([str(v) for v in values], "S4"), 3: np.array(7), 4: np.array(values, "i8") - 100,
            5: np.array(values, "u8") << np.uint64(57), 6: np.full(len(values), np.nan),
            7: np.array(values, "u4")[: len(values) // 2], 8: np.array([values], "u4"),
            9: np.full(len(values), np.inf), 10: np.array(values, bool), 11: np.array(values, "c16"),
        }  # fmt: skip
        if kind in made:
            file["entry/numbers"] = made[kind]
        elif kind == 12:
            file.create_group("entry/numbers")
        elif kind == 13:
            file["entry/numbers"] = h5py.SoftLink("/nowhere")
        elif kind == 14:
            file["entry/numbers"] = h5py.Empty("u4")

    def run(data: bytes) -> None:
        folder.mkdir(exist_ok=True)
        source = source_of(told)
        source.start(0.0)
        choice = data[:2].ljust(2, b"\0")
        with h5py.File(path, "w") as file:
            images(file, choice[0] % 16, len(data[2:32]))
            numbers(file, choice[1] % 16, data[2:32])
        for now_s in (1.0, 3.0, 5.0, 20.0, 30.0):
            _taken(source.tally, list(source.look(now_s)), (2, 2))
        shutil.rmtree(folder)

    return run


# --- wire traces -------------------------------------------------------------------------------------------


def seeds_wire_traces() -> list[bytes]:
    """Return a trace with two lines, a lost port and dropped records."""
    about = {
        "wall_s": 1.8e9, "lines": {"heater": {"kind": "serial"}, "adc": {"kind": "tcp"}},
        "station_toml": '[line.heater]\nkind = "serial"\n[device.a]\nline = "heater"\n',
    }  # fmt: skip
    head = b"# operando-wire-trace 1\n# " + json.dumps(about).encode() + b"\n"
    lines = (
        b"0.000001 heater ! opened /dev/ttyUSB0", b"0.01 heater > 0103", b"0.02 heater < 010304",
        b"0.03 heater ~ ff", b"1.0 - ! dropped 12", b"2.0 heater ! lost gone", b"3.0 heater ! opened x",
        b"4.0 adc > 000100000006010300000002", b"4.1 adc < 00010000000701030400000001",
    )  # fmt: skip
    return [head + b"\n".join(lines) + b"\n", head]


def make_wire_traces() -> One:
    """Read, made into instruments, which are asked all that was recorded; nothing is opened."""
    from drivers.wire_trace import playable
    from hil_tests.sim.replay_trace import Replay, read

    path = scratch() / "wire.trace"

    async def play(replay: Any) -> None:
        for name, line in replay.lines.items():
            line.player._wire = Deaf()
            for exchange in replay.recording.lines.get(name, [])[:50]:
                line.player.receive(exchange.request)
            await asyncio.sleep(0)
            line.player.stop()

    def run(data: bytes) -> None:
        path.write_bytes(data)
        playable(data.decode("utf-8", "replace"))
        replay = Replay(read(path))
        asyncio.run(play(replay))
        json.dumps(replay.counters())
        replay.station_file()

    return run


class Deaf:
    """A wire that takes everything."""

    def send(self, data: bytes) -> None:
        """Take it."""
        must(isinstance(data, bytes), "no bytes")

    def lose(self) -> None:
        """Do nothing."""

    def restore(self) -> None:
        """Do nothing."""
