"""The Amptek twin against the frames of the protocol sheet, typed in, and over a real socket."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil_tests.sim.amptek_dp5 import AmptekTwin
from hil_tests.sim.amptek_fw6 import Status, packet
from hil_tests.sim.amptek_list import FRAME, Fifo, ListTimer
from hil_tests.sim.clock import LabClock, ManualClock
from hil_tests.sim.physics.photons import Pulses
from hil_tests.sim.replay import Recording, Replay, read_spe

ACK_OK = "f5 fa ff 00 00 00 fd 12"
STATUS = "f5 fa 01 01 00 00 fe 0f"
LIST_DATA = "f5 fa 03 09 00 00 fe 05"
ENABLE, DISABLE = "f5 fa f0 02 00 00 fd 1f", "f5 fa f0 03 00 00 fd 1e"
CLEAR, CLEAR_TIMER = "f5 fa f0 01 00 00 fd 20", "f5 fa f0 16 00 00 fd 0b"
REFUSE_SHARING = "f5 fa f0 21 00 00 fd 00"
HOST, OTHER = ("127.0.0.1", 5000), ("10.0.0.7", 5000)
DATA = Path(__file__).parents[1] / "tests" / "data" / "gamma"


class Script:
    """A source of pulses that were written down."""

    def __init__(self) -> None:
        self.time_s: list[float] = []
        self.kev: list[float] = []
        self.edge_s: list[float] = []
        self.lost_s: list[float] = []
        self.gain = 1.0
        self._until_s = 0.0

    def until(self, now_s: float) -> Pulses:
        begin, self._until_s = self._until_s, now_s
        due = [i for i, t in enumerate(self.time_s) if begin < t <= now_s]
        time_s = np.array([self.time_s[i] for i in due])
        lost_s = [t for t in self.lost_s if begin < t <= now_s]
        return Pulses(
            now_s,
            time_s,
            np.array([self.kev[i] for i in due]) * self.gain,
            np.sort(np.concatenate((time_s, lost_s))),
            np.array([t for t in self.edge_s if begin < t <= now_s]),
        )


class Bench:
    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock()
        self.script = Script()
        self.twin = AmptekTwin(self.script, self.clock, {"full_scale_kev": 20.48, **settings})

    def ask(self, request: str | bytes, sender: tuple[str, int] = HOST) -> bytes:
        data = bytes.fromhex(request) if isinstance(request, str) else request
        return b"".join(self.twin._datagram(data, sender))

    def text(self, commands: str) -> str:
        return self.ask(packet((0x20, 0x02), commands.encode())).hex(" ")

    def at(self, lab_s: float) -> None:
        self.clock._now_s = lab_s
        self.twin.advance(lab_s)

    def words(self) -> list[str]:
        reply = self.ask(LIST_DATA)
        assert reply[2:4] in (b"\x82\x0a", b"\x82\x0b")
        return [reply[i : i + 4].hex(" ") for i in range(6, len(reply) - 2, 4)]

    def status(self) -> bytes:
        reply = self.ask(STATUS)
        assert reply[:6] == bytes.fromhex("f5 fa 80 01 00 40")
        assert sum(reply[:-2]) + int.from_bytes(reply[-2:], "big") & 0xFFFF == 0
        return reply[6:-2]


@pytest.fixture
def bench() -> Bench:
    return Bench()


# --- packets --------------------------------------------------------------------------------------------


def test_worked_status_packet_of_the_sheet() -> None:
    status = Status(
        fast=12345, slow=12000, accumulation_s=10.057, real_s=10.102, serial=0x1267,
        high_voltage_v=-500.0, detector_k=220.0, board_c=38, flags=0x20, device=1,
    )  # fmt: skip
    expected = (
        "f5 fa 80 01 00 40 39 30 00 00 e0 2e 00 00 00 00 00 00 39 64 00 00 00 00 00 00 76 27 00 00 68 61"
        " 67 12 00 00 fc 18 08 98 26 20 00 05 00 01" + " 00" * 24 + " f7 5d"
    )
    assert packet((0x80, 0x01), status.encode()).hex(" ") == expected


def test_acknowledges_of_the_sheet(bench: Bench) -> None:
    assert bench.ask(REFUSE_SHARING).hex(" ") == ACK_OK
    assert bench.ask(CLEAR).hex(" ") == ACK_OK
    assert bench.ask("f5 fa 01 01 00 00 fe 0e").hex(" ") == "f5 fa ff 04 00 00 fd 0e"  # checksum
    text = "f5 fa 20 02 00 14 4d 43 41 43 3d 31 30 32 34 3b 50 52 45 54 3d 31 30 2e 30 3b f9 16"
    assert bench.ask(text).hex(" ") == ACK_OK
    assert bench.text("ABCD=1;") == "f5 fa ff 07 00 07 41 42 43 44 3d 31 3b fb 51"
    assert bench.ask("de ad be ef")[:4].hex(" ") == "f5 fa ff 01"  # no sync
    assert bench.ask("f5 fa 77 77 00 00 fd 23")[:4].hex(" ") == "f5 fa ff 02"  # unknown PID
    assert bench.ask("f5 fa 01 01 00 05 fe 0a")[:4].hex(" ") == "f5 fa ff 03"  # length
    assert bench.ask("00 00 f5 fa 01 01 00 00 fe 0f")[:4].hex(" ") == "f5 fa 80 01"  # noise is skipped


def test_text_is_applied_up_to_the_first_error(bench: Bench) -> None:
    reply = bench.ask(packet((0x20, 0x02), b"MCAC=2048;TPEA=4.8;MCAC=999;THSL=1.0;"))
    assert reply[2:4] == b"\xff\x05"
    assert reply[6:-2] == b"MCAC=999;"
    back = bench.ask(packet((0x20, 0x03), b"MCAC=?;TPEA=;THSL=?;"))
    assert back[2:4] == b"\x82\x07"
    assert back[6:-2] == b"MCAC=2048;TPEA=4.8;THSL=0.500;"
    bench.text("RESC=Y;")
    assert bench.ask(packet((0x20, 0x03), b"MCAC=?;"))[6:-2] == b"MCAC=1024;"


def test_reboot_shows_once_and_forgets_the_configuration(bench: Bench) -> None:
    assert bench.status()[36] & 0x20
    assert not bench.status()[36] & 0x20
    bench.text("SYNC=FRAME;")
    assert bench.status()[43] == 0b1111  # frame, 1 us, list option
    bench.text("CLKL=100;")
    assert bench.status()[43] == 0b1011
    bench.twin.inject({"kind": "reset", "boot_s": 2.0})
    assert bench.ask(STATUS) == b""
    bench.at(2.1)
    status = bench.status()
    assert status[36] & 0x20
    assert status[43] == 0b1100
    assert not status[35] & 0x02  # not configured


def test_the_two_types_say_who_they_are() -> None:
    sdd = Bench().status()
    assert (sdd[39], sdd[42] & 0x0F) == (1, 0)
    hpge = Bench(detector="hpge").status()
    assert (hpge[39], hpge[42] & 0x0F) == (1, 1)


def test_one_client_at_a_time(bench: Bench) -> None:
    bench.ask(STATUS)
    assert bench.ask(STATUS, OTHER)[2:4] == b"\xff\x0d"
    assert bench.ask(CLEAR)[2:4] == b"\xff\x0c"  # the owner hears of it
    assert bench.ask(CLEAR)[2:4] == b"\xff\x00"
    bench.ask(REFUSE_SHARING)
    assert bench.ask(STATUS, OTHER)[2:4] == b"\xff\x0d"
    assert bench.ask(CLEAR)[2:4] == b"\xff\x00"
    assert bench.ask(STATUS, (HOST[0], 6000))[2:4] == b"\x80\x01"  # a fresh socket of the same host
    bench.at(20.0)
    assert bench.ask(STATUS, OTHER)[2:4] == b"\x80\x01"


# --- list mode ------------------------------------------------------------------------------------------


def test_words_of_the_sheet() -> None:
    timer = ListTimer(0.0)
    timer.sync = FRAME
    words = timer.words(np.array([4660e-6]), np.array([677]), np.array([]), 5000e-6)
    assert [f"{word:08x}" for word in words] == ["02a51234"]  # amplitude 677, time 4660
    words = timer.words(np.array([]), np.array([], dtype=np.int64), np.array([70_000e-6]), 71_000e-6)
    assert [f"{word:08x}" for word in words] == ["c0000001", "c0004001"]  # roll-over; frame 1, upper time 1
    internal = ListTimer(0.0)
    words = internal.words(np.array([]), np.array([], dtype=np.int64), np.array([]), 66_000e-6)
    assert [f"{word:08x}" for word in words] == ["80010000"]  # time tag 65536


def test_frames_and_times_wrap() -> None:
    timer = ListTimer(0.0)
    timer.sync = FRAME
    timer.skip(65_534, 1073.7)
    words = timer.words(
        np.array([]), np.array([], dtype=np.int64), np.array([1073.71, 1073.72, 1073.75]), 1074.0
    )
    assert [f"{word:08x}" for word in words] == [
        "ffffffff",  # frame 65535, upper time 16383
        "c0003fff",  # frame 0
        "c0000000",  # time wraps at 1073.741824 s
        "c0004000",  # frame 1
        "c0004001", "c0004002", "c0004003",  # roll-overs at 1073.807, 1073.873, 1073.938 s
    ]  # fmt: skip


def test_a_pass_over_pixels(bench: Bench) -> None:
    bench.text("SYNC=FRAME;MCAC=2048;")
    bench.ask(CLEAR_TIMER)
    bench.script.edge_s = [0.010, 0.020]
    bench.script.time_s = [0.005, 0.012, 0.015, 0.021, 0.050]
    bench.script.kev = [6.925, 6.925, 2.013, 7.649, 30.0]  # the last is above the range
    bench.ask(ENABLE)
    bench.at(0.06)
    assert bench.words() == [
        "c0 00 00 00",  # the timer was cleared
        "c0 00 00 00",  # counting begins
        "02 b4 13 88",  # channel 692 at 5000
        "c0 00 40 00",
        "02 b4 2e e0",
        "00 c9 3a 98",
        "c0 00 80 00",
        "02 fc 52 08",
    ]
    assert bench.words() == []
    bench.ask(DISABLE)
    bench.script.edge_s += [0.07]
    bench.script.time_s += [0.075]
    bench.script.kev += [5.0]
    bench.at(0.1)
    assert bench.words() == []
    bench.ask(ENABLE)
    assert bench.words() == ["c0 00 c0 01"]  # the counter went on; upper time 1 since 65.536 ms


def test_overflow_is_flagged_once() -> None:
    bench = Bench(fifo_words=4, reply_words=3)
    bench.script.time_s = [0.001 * i for i in range(1, 9)]
    bench.script.kev = [5.0] * 8
    bench.ask(ENABLE)
    bench.at(0.02)
    reply = bench.ask(LIST_DATA)
    assert reply[2:4] == b"\x82\x0b"
    assert len(reply) == 8 + 3 * 4
    assert bench.ask(LIST_DATA)[2:4] == b"\x82\x0a"
    assert bench.twin.counters()["words_lost"] == 5
    assert bench.twin.counters()["slow"] == 8  # counted, though not listed


def test_fifo_keeps_order_over_partial_reads() -> None:
    fifo = Fifo(100)
    fifo.push(np.arange(5, dtype=np.uint32))
    fifo.push(np.arange(5, 8, dtype=np.uint32))
    assert fifo.pop(3)[0] == np.arange(3).astype(">u4").tobytes()
    assert fifo.pop(4)[0] == np.arange(3, 7).astype(">u4").tobytes()
    assert len(fifo) == 1


# --- counters, presets, spectrum ------------------------------------------------------------------------


def test_counters_and_presets(bench: Bench) -> None:
    bench.script.time_s = [0.1 * i for i in range(1, 100)]
    bench.script.kev = [5.0] * 99
    bench.script.lost_s = [0.55]
    bench.text("PRER=3.0;")
    bench.ask(ENABLE)
    bench.at(2.05)
    status = bench.status()
    assert int.from_bytes(status[0:4], "little") == 21
    assert int.from_bytes(status[4:8], "little") == 20
    assert int.from_bytes(status[20:24], "little") == 2050
    assert status[12] + 100 * int.from_bytes(status[13:16], "little") == 2050
    assert status[35] & 0x20
    bench.at(5.0)
    status = bench.status()
    assert status[35] & 0xA0 == 0x80  # preset reached, no longer counting
    assert int.from_bytes(status[20:24], "little") == 3000
    assert int.from_bytes(status[4:8], "little") == 30
    bench.text("PRER=OFF;PREC=35;")
    bench.ask(ENABLE)
    bench.at(9.0)
    status = bench.status()
    assert status[35] & 0xB0 == 0x10
    assert int.from_bytes(status[4:8], "little") == 35


def test_spectrum_with_status_and_clear(bench: Bench) -> None:
    bench.script.time_s = [0.1, 0.2, 0.3]
    bench.script.kev = [6.925, 6.925, 2.013]
    bench.text("MCAC=2048;")
    bench.ask(ENABLE)
    bench.at(1.0)
    reply = bench.ask("f5 fa 02 03 00 00 fe 0c")
    assert reply[2:4] == b"\x81\x08"
    assert len(reply) == 6216
    assert reply[6 + 3 * 692 : 6 + 3 * 692 + 3] == b"\x02\0\0"
    assert reply[6 + 3 * 201 : 6 + 3 * 201 + 3] == b"\x01\0\0"
    assert len(bench.twin._datagram(bytes.fromhex("f5 fa 02 03 00 00 fe 0c"), HOST)) == 12
    bench.ask("f5 fa 02 04 00 00 fe 0b")
    assert int.from_bytes(bench.status()[4:8], "little") == 0


@pytest.mark.parametrize(
    ("channels", "size"), [(256, 840), (512, 1608), (1024, 3144), (2048, 6216), (4096, 12360), (8192, 24648)]
)
def test_packet_sizes_of_the_sheet(bench: Bench, channels: int, size: int) -> None:
    bench.text(f"MCAC={channels};")
    assert len(bench.ask("f5 fa 02 03 00 00 fe 0c")) == size


def test_gain_fault_moves_the_lines(bench: Bench) -> None:
    bench.text("MCAC=2048;SYNC=NOTIMETAG;")
    bench.script.time_s, bench.script.kev = [0.1], [6.925]
    bench.twin.inject({"kind": "gain", "factor": 1.01})
    bench.ask(ENABLE)
    bench.at(1.0)
    assert int(bench.words()[0][:5].replace(" ", ""), 16) == 699


# --- over the wire --------------------------------------------------------------------------------------


async def test_a_long_reply_comes_in_datagrams_of_520_bytes() -> None:
    twin = AmptekTwin(Script(), LabClock(speed=1.0), {"channels": 2048})
    await twin.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", twin.port))
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, bytes.fromhex("f5 fa 02 03 00 00 fe 0c"))
        parts = [await asyncio.wait_for(loop.sock_recv(client, 2048), 1.0) for _ in range(12)]
    await twin.stop()
    assert [len(part) for part in parts] == [520] * 11 + [496]
    assert parts[0][:2] == b"\xf5\xfa"
    whole = b"".join(parts)
    assert sum(whole[:-2]) + int.from_bytes(whole[-2:], "big") & 0xFFFF == 0


# --- replay ---------------------------------------------------------------------------------------------


def test_every_recorded_event_crosses_the_wire_once() -> None:
    recording = read_spe(DATA / "soil_be7_ucb009.Spe")
    assert (recording.live_s, recording.real_s) == (80_000.0, 80_048.0)
    assert recording.counts.size == 8192
    clock = ManualClock()
    twin = AmptekTwin(
        Replay(recording, np.random.default_rng(3), duration_s=100.0), clock, {"channels": 8192}
    )
    ask = twin._datagram
    ask(packet((0x20, 0x02), b"SYNC=FRAME;"), HOST)
    ask(bytes.fromhex(ENABLE), HOST)
    words = b""
    for second in np.arange(0.5, 101.0, 0.5):
        clock._now_s = float(second)
        while len(reply := b"".join(ask(bytes.fromhex(LIST_DATA), HOST))) > 8:
            assert reply[2:4] == b"\x82\x0a"
            words += reply[6:-2]
    word = np.frombuffer(words, dtype=">u4")
    channel = word[word < 0x8000_0000] >> 16
    assert (np.bincount(channel, minlength=8192) == recording.counts).all()
    order = np.diff(channel.astype(int))
    assert 0.4 < (order > 0).mean() < 0.6  # shuffled
    counters = twin.counters()
    assert counters["slow"] == recording.counts.sum()
    assert counters["fast"] / counters["slow"] == pytest.approx(80_048 / 80_000, abs=1e-5)


def test_a_broken_recording_is_refused(tmp_path: Path) -> None:
    good = "$SPEC_ID:\nx\n$MEAS_TIM:\n10 11\n$DATA:\n0 3\n1\n2\n3\n4\n$ENER_FIT:\n0 1\n"
    path = tmp_path / "a.spe"
    path.write_text(good)
    assert read_spe(path).counts.tolist() == [1, 2, 3, 4]
    for wrong in (
        good.replace("0 3", "0 9"),
        good.replace("$DATA:", "$DAT:"),
        good.replace("10 11", "11 10"),
    ):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=r"a\.spe"):
            read_spe(path)


def test_replay_does_not_repeat() -> None:
    replay = Replay(Recording(np.array([3, 0, 2]), 9.0, 10.0), np.random.default_rng(1), duration_s=1.0)
    assert sorted(replay.until(2.0).channel.tolist()) == [0, 0, 0, 2, 2]  # type: ignore[union-attr]
    assert replay.left == 0
    assert replay.until(3.0).time_s.size == 0
