"""The trace of a wire: what is in it, what is not, and that nobody ever waits for it."""

import json
import threading
import time

import pytest

from drivers import wire_trace
from drivers.wire_trace import WireTrace, playable


def records(path):
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


@pytest.fixture
def held(monkeypatch):
    """A writer that does nothing until the trace is closed."""
    monkeypatch.setattr(wire_trace, "WRITE_EVERY_S", 3600.0)


def test_what_a_line_says_is_in_the_file(tmp_path, held):
    trace = WireTrace(tmp_path / "wire", {"station": "lab"}, monotonic=lambda: 100.0)
    heater, cell = trace.of("heater"), trace.of("cell")
    heater("opened", b"/dev/ttyUSB0", 100.0)
    heater("sent", b"\x01\x03", 100.5)
    cell("received", b"tespico\n", 100.625)
    heater("drained", b"\xff", 101.0)
    trace.close()
    head, about, *lines = (tmp_path / "wire").read_text().splitlines()
    assert head == "# operando-wire-trace 1"
    assert json.loads(about.removeprefix("# "))["station"] == "lab"
    assert lines == [
        "0.000000 heater ! opened /dev/ttyUSB0",
        "0.500000 heater > 0103",
        f"0.625000 cell < {b'tespico'.hex()}0a",
        "1.000000 heater ~ ff",
    ]


def test_a_full_queue_drops_counts_and_says_so(tmp_path, held):
    trace = WireTrace(tmp_path / "wire", {}, longest_queue=3)
    put = trace.of("x")
    for n in range(10):
        put("sent", bytes([n]), 0.0)
    assert trace.dropped == 7
    trace.close()
    assert [line.split()[-1] for line in records(tmp_path / "wire")] == ["00", "01", "02", "7"]


def test_a_caller_does_not_wait_for_a_disk_that_does(tmp_path, monkeypatch):
    monkeypatch.setattr(wire_trace, "WRITE_EVERY_S", 0.001)
    trace = WireTrace(tmp_path / "wire", {}, longest_queue=50)
    hangs, goes_on = threading.Event(), threading.Event()
    write = trace._file.write

    def slow(text):
        hangs.set()
        goes_on.wait(10.0)
        return write(text)

    trace._file.write = slow
    put = trace.of("x")
    put("sent", b"a", 0.0)
    assert hangs.wait(5.0)
    began_s = time.perf_counter()
    for _ in range(1000):
        put("sent", b"a", 0.0)
    took_s = time.perf_counter() - began_s
    goes_on.set()
    trace.close()
    assert trace.dropped == 950
    assert took_s < 0.5  # the disk would have taken 10 s
    assert records(tmp_path / "wire")[-1].endswith("dropped 950")


def test_only_so_much_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(wire_trace, "WRITE_EVERY_S", 3600.0)
    trace = WireTrace(tmp_path / "wire", {"note": "n"}, file_bytes=200, files=3)
    put = trace.of("x")
    for n in range(12):
        put("sent", n.to_bytes(40, "big"), 0.0)
        trace._flush()
    trace.close()
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["wire", "wire.1", "wire.2"]
    for name in kept:
        assert (tmp_path / name).stat().st_size < 400
        assert (tmp_path / name).read_text().startswith("# operando-wire-trace 1\n")
    newest = [int(line.split()[-1], 16) for line in records(tmp_path / "wire")]
    before = [int(line.split()[-1], 16) for line in records(tmp_path / "wire.1")]
    assert newest[-1] == 11
    assert before[-1] + 1 == newest[0]


def test_a_full_disk_is_told_and_ends_nothing(tmp_path, held):
    trace = WireTrace(tmp_path / "wire", {})
    trace._file.close()
    trace._file = (tmp_path / "wire").open("r")  # writing to it is refused, as by a disk that is full
    put = trace.of("x")
    put("sent", b"a", 0.0)
    trace._flush()
    assert "wire" in trace.problem
    put("sent", b"b", 0.0)
    trace.close()
    assert trace.dropped == 1
    assert [line.split(maxsplit=3)[-1] for line in records(tmp_path / "wire")] == ["62", "dropped 1"]


def test_no_secret_of_the_station_file_goes_into_a_trace():
    text = """
# password: hunter2
broker.url = "mqtts://me:hunter2@broker"
[station]
name = "lab"
[ "broker" ]
credentials = "/etc/hunter2"
[remote.more]
keys = "hunter2"
[bench]
nonce = "hunter2"
[[interlock]]
name = "permit"
[line.heater]
port = "/dev/ttyUSB0"
"""
    kept = playable(text)
    assert "hunter2" not in kept
    assert all(word in kept for word in ("[station]", "[[interlock]]", "/dev/ttyUSB0"))
