"""The three kinds of port against real pseudo-terminals and sockets of this machine."""

import asyncio
import gc
import os
import pty
import tty
from pathlib import Path

import pytest

from drivers.errors import NoReply
from drivers.line import Line
from drivers.port import MAX_UNREAD_BYTES, Inbox, PortLost
from drivers.port_serial import SerialPort
from drivers.port_tcp import TcpPort
from drivers.port_udp import UdpPort
from drivers.ports import open_line


def until_lf(buffer):
    return buffer if buffer.endswith(b"\n") else None


class Toy:
    """A pseudo-terminal with an instrument behind it that answers in capital letters."""

    def __init__(self):
        self.master, self.slave = pty.openpty()
        tty.setraw(self.slave)
        os.set_blocking(self.master, False)
        self.path = os.ttyname(self.slave)
        asyncio.get_running_loop().add_reader(self.master, self._answer)

    def _answer(self):
        os.write(self.master, os.read(self.master, 4096).upper())

    def unplug(self):
        asyncio.get_running_loop().remove_reader(self.master)
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
async def tcp_toy():
    writers = []

    async def serve(reader, writer):
        writers.append(writer)
        while data := await reader.read(100):
            if data == b"bye\n":
                break
            writer.write(data.upper())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for writer in writers:
        writer.close()


class UdpToy(asyncio.DatagramProtocol):
    """Answers a request with the datagrams that the test has put into ``answers``."""

    def __init__(self):
        self.answers = []
        self.asked_from = []

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.asked_from.append(addr[1])
        for answer in self.answers:
            self.transport.sendto(answer, addr)


@pytest.fixture
async def udp_toy():
    loop = asyncio.get_running_loop()
    transport, toy = await loop.create_datagram_endpoint(UdpToy, local_addr=("127.0.0.1", 0))
    toy.number = transport.get_extra_info("sockname")[1]
    yield toy
    transport.close()
    await asyncio.sleep(0)


# Serial


async def test_serial_round_trip():
    toy = Toy()
    line = open_line("heater", {"kind": "serial", "port": toy.path, "baud": 9600})
    await line.open()
    assert await line.ask(b"hello\n", until_lf, timeout_s=1.0) == b"HELLO\n"
    assert line.where == toy.path
    await line.close()
    toy.unplug()


async def test_serial_hang_up_is_link_lost_and_replugging_is_found():
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    toy = Toy()
    port = SerialPort(toy.path)
    line = Line("heater", port, reopen_every_s=0.0)
    await line.open()
    toy.unplug()
    with pytest.raises(NoReply, match=f"heater: (link lost|cannot open).*{toy.path}"):
        await line.ask(b"a\n", until_lf, timeout_s=0.05, device="heater")
    with pytest.raises(NoReply, match="cannot open line heater"):
        await line.ask(b"a\n", until_lf, timeout_s=0.05)
    again = Toy()  # a new terminal, as after plugging in again
    port._path = again.path
    assert await line.ask(b"a\n", until_lf, timeout_s=1.0) == b"A\n"
    await line.close()
    again.unplug()
    gc.collect()  # a forgotten task would complain now; the library itself reports the failed write
    assert {context["message"] for context in complaints} <= {"Fatal write error on serial transport"}


async def test_serial_port_that_does_not_exist():
    line = open_line("heater", {"kind": "serial", "port": "/dev/serial/by-id/none"})
    with pytest.raises(NoReply, match="cannot open line heater: /dev/serial/by-id/none"):
        await line.open()


async def test_serial_port_is_exclusive():
    toy = Toy()
    first, second = SerialPort(toy.path), SerialPort(toy.path)
    await first.open()
    with pytest.raises(PortLost, match="lock"):
        await second.open()
    await first.close()
    await second.open()
    await second.close()
    toy.unplug()


async def test_writing_to_a_closed_serial_port():
    with pytest.raises(PortLost, match="not open"):
        await SerialPort("/dev/none").write(b"a")


@pytest.mark.parametrize(
    ("settings", "character_ms"),  # sheet: 1.04 ms for 10 bits, 1.15 ms for 11 bits at 9600
    [((9600,), 1.0417), ((9600, "even"), 1.1458), ((9600, "none", 2), 1.1458), ((921600,), 0.01085)],
)
def test_character_time(settings, character_ms):
    assert SerialPort("/dev/x", *settings).character_s * 1e3 == pytest.approx(character_ms, rel=1e-3)


# TCP


async def test_tcp_round_trip_loss_and_return(tcp_toy):
    line = Line("io", TcpPort("127.0.0.1", tcp_toy), reopen_every_s=0.0)
    await line.open()
    assert await line.ask(b"hello\n", until_lf, timeout_s=1.0) == b"HELLO\n"
    with pytest.raises(NoReply, match=f"link lost: 127.0.0.1:{tcp_toy}: closed by the other end"):
        await line.ask(b"bye\n", until_lf, timeout_s=1.0)
    assert await line.ask(b"again\n", until_lf, timeout_s=1.0) == b"AGAIN\n"
    assert line.openings == 2
    await line.close()


async def test_tcp_refused(unused_tcp_port):
    line = open_line("io", {"kind": "tcp", "host": "127.0.0.1", "port": unused_tcp_port})
    with pytest.raises(NoReply, match=f"cannot open line io: 127.0.0.1:{unused_tcp_port}"):
        await line.open()


async def test_tcp_connection_that_does_not_come(monkeypatch):
    async def never(*_, **__):
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", never)
    with pytest.raises(PortLost, match="no connection in time"):
        await TcpPort("192.0.2.1", 502, connect_timeout_s=0.01).open()


async def test_writing_to_a_tcp_port_that_is_not_connected():
    with pytest.raises(PortLost, match="not connected"):
        await TcpPort("127.0.0.1", 1).write(b"a")


# UDP


async def test_udp_datagrams_come_one_by_one_and_from_one_socket(udp_toy):
    line = open_line("pixe", {"kind": "udp", "host": "127.0.0.1", "port": udp_toy.number})
    await line.open()
    udp_toy.answers = [b"\xf5\xfahead" + bytes(514), b"tail"]
    parse = lambda chunks: [len(chunk) for chunk in chunks] if len(chunks) == 2 else None  # noqa: E731
    assert await line.ask_datagrams(b"?", parse, timeout_s=1.0) == [520, 4]
    joined = await line.ask(b"?", lambda buffer: buffer if len(buffer) == 524 else None, timeout_s=1.0)
    assert joined == b"".join(udp_toy.answers)
    assert len(set(udp_toy.asked_from)) == 1
    await line.close()


async def test_udp_datagrams_that_wait_together_are_still_apart(udp_toy):
    port = UdpPort("127.0.0.1", udp_toy.number)
    await port.open()
    udp_toy.answers = [b"head", b"tail"]
    await port.write(b"?")
    while len(port._inbox._chunks) < 2:
        await asyncio.sleep(0.001)
    assert [await port.read(0.0), await port.read(0.0), await port.read(0.0)] == [b"head", b"tail", b""]
    await port.close()


async def test_udp_port_tells_of_a_kernel_that_gives_it_less_than_it_asks_for(udp_toy, monkeypatch):
    line = Line("pixe", UdpPort("127.0.0.1", udp_toy.number))
    await line.open()
    plenty = line.notes
    await line.close()
    monkeypatch.setattr("drivers.port_udp.RECEIVE_BUFFER_BYTES", 1 << 30)
    await line.open()
    (note,) = line.notes
    assert note.startswith(f"the kernel gives udp 127.0.0.1:{udp_toy.number} ")
    assert note.endswith("sysctl -w net.core.rmem_max=1073741824")
    await line.close()
    most = int(Path("/proc/sys/net/core/rmem_max").read_text())
    assert bool(plenty) == (most < 1 << 20)


async def test_udp_late_datagram_is_left_behind_on_the_old_socket(udp_toy):
    line = open_line("pixe", {"kind": "udp", "host": "127.0.0.1", "port": udp_toy.number})
    await line.open()
    with pytest.raises(NoReply):
        await line.ask(b"a", until_lf, timeout_s=0.02)
    udp_toy.transport.sendto(b"late\n", ("127.0.0.1", udp_toy.asked_from[0]))
    udp_toy.answers = [b"B\n"]
    assert await line.ask(b"b", until_lf, timeout_s=1.0) == b"B\n"
    assert udp_toy.asked_from[0] != udp_toy.asked_from[1]
    await line.close()


async def test_udp_nobody_there(unused_udp_port):
    line = open_line("pixe", {"kind": "udp", "host": "127.0.0.1", "port": unused_udp_port})
    await line.open()
    with pytest.raises(NoReply, match=f"link lost: udp 127.0.0.1:{unused_udp_port}: .*refused"):
        await line.ask(b"a", until_lf, timeout_s=1.0)
    await line.close()


async def test_udp_stranger_is_not_heard(udp_toy):
    port = UdpPort("127.0.0.1", udp_toy.number)
    await port.open()
    loop = asyncio.get_running_loop()
    stranger, _ = await loop.create_datagram_endpoint(UdpToy, local_addr=("127.0.0.1", 0))
    stranger.sendto(b"hello", ("127.0.0.1", port.local_port))
    assert await port.read(0.02) == b""
    stranger.close()
    await port.close()
    assert port.local_port is None
    with pytest.raises(PortLost):
        await port.write(b"a")


async def test_udp_host_that_does_not_resolve(monkeypatch):
    async def fail(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_datagram_endpoint", fail)
    with pytest.raises(PortLost, match="Name or service not known"):
        await UdpPort("nowhere", 1).open()


# What all have in common


async def test_inbox_delivers_what_came_before_the_loss_first():
    inbox = Inbox("x")
    inbox.data_received(b"last words")
    inbox.connection_lost(None)
    assert await inbox.read(0.0) == b"last words"
    with pytest.raises(PortLost, match="x: closed by the other end"):
        await inbox.read(1.0)


async def test_inbox_loses_nothing_when_reading_is_cancelled():
    inbox = Inbox("x")
    reading = asyncio.create_task(inbox.read(60.0))
    await asyncio.sleep(0)
    inbox.data_received(b"a")
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await inbox.read(0.0) == b"a"


async def test_inbox_waits_its_own_time_after_an_earlier_wait_ended_early():
    inbox = Inbox("x")
    loop = asyncio.get_running_loop()
    loop.call_later(0.005, inbox.data_received, b"a")
    assert await inbox.read(0.02) == b"a"
    started_s = loop.time()
    assert await inbox.read(0.04) == b""
    assert loop.time() - started_s >= 0.039


async def test_flood_that_nobody_reads_ends_the_link():
    inbox = Inbox("x")
    for _ in range(MAX_UNREAD_BYTES // 65536 + 1):
        inbox.data_received(bytes(65536))
    inbox.discard()
    with pytest.raises(PortLost, match="nobody read"):
        await inbox.read(0.0)


# The table of the station file


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "usb"}, "line x: kind = 'usb' is none of serial, tcp, udp"),
        ({}, "line x: kind = None is none of"),
        ({"kind": "serial"}, "line x: serial line missing 1 required keyword-only argument: 'port'"),
        ({"kind": "tcp", "host": "h", "port": 1, "baud": 9600}, "unexpected keyword argument 'baud'"),
        ({"kind": "serial", "port": "/dev/x", "parity": "N"}, "no such setting: 9600 baud, parity 'N'"),
        ({"kind": "serial", "port": "/dev/x", "stop_bits": 3}, "3 stop bits"),
    ],
)
def test_table_that_makes_no_line(table, message):
    with pytest.raises(ValueError, match=message):
        open_line("x", table)
