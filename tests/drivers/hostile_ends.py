"""Instruments that mean harm, on real ports: what they send, they send for ever.

``python tests/drivers/hostile_ends.py`` opens every end, prints where they are as one JSON line, and goes on
until its standard input closes. Knows nothing of the drivers.
"""

import asyncio
import contextlib
import json
import os
import pty
import sys
import tty

TICK_S = 0.005
BLOCK = 16384  # bytes a tick: 3 MB/s, more than any of these lines can carry
LONGEST_DATAGRAM = 65507

# name: (port, sent on each request, sent every tick from the first request on)
ENDS = {
    "eurotherm: no end": ("serial", b"", b"A" * BLOCK),
    "eurotherm: no text": ("serial", b"", b"\xff\x00" * (BLOCK // 2)),
    "eurotherm: 255 bytes announced, one at a time": ("serial", b"\x01\x03\xff", b"\x00"),
    "eurotherm: exception reply for ever": ("serial", b"", b"\x01\x83\x02\xc0\xf1" * 1000),
    "emstat: a line without end": ("serial", b"", b"t" * BLOCK),
    "emstat: lines without end": ("serial", b"", b"thello\n" * 2000),
    "emstat: packages without end": ("serial", b"", b"Pda7F85E3Fu;ba4BA99F0p,10,288\n" * 500),
    "emstat: no text": ("serial", b"", b"\xff\xfe\n\x00" * (BLOCK // 4)),
    "emstat: errors without end": ("serial", b"", b"e!4001: Line 3, Col 7\n" * 500),
    "emstat: one letter at a time": ("serial", b"t", b"t"),
    "t7: no end": ("tcp", b"", b"A" * BLOCK),
    "t7: 65535 bytes announced, one at a time": ("tcp", b"\x00\x01\x00\x00\xff\xff\x01\x03", b"\x00"),
    "t7: no bytes announced": ("tcp", b"\x00\x01\x00\x00\x00\x00", b"\x00\x01\x00\x00\x00\x00" * 2000),
    "t7: replies to what nobody asked": ("tcp", b"", b"\x77\x77\x00\x00\x00\x05\x01\x03\x02\x00\x07" * 1000),
    "t7: takes and is silent": ("tcp", b"", b""),
    "amptek: no packets": ("udp", b"A" * 520, b"A" * 520),
    "amptek: empty datagrams": ("udp", b"", b""),
    "amptek: the largest datagrams": ("udp", b"\xf5\xfa" * (LONGEST_DATAGRAM // 2), b"\xf5\xfa" * 20000),
    "amptek: 65535 bytes announced": ("udp", b"\xf5\xfa\x80\x01\xff\xff" + bytes(514), bytes(520)),
    "amptek: a packet that never ends": ("udp", b"\xf5\xfa\x80\x01\x7f\xff" + bytes(514), bytes(520)),
}


class Stream:
    """One stream end; ``put`` drops what the other side does not take."""

    def __init__(self, reply, tick, put):
        self.reply, self.tick, self.put = reply, tick, put
        self.asked = False

    def heard(self):
        self.asked = True
        self.put(self.reply)

    def beat(self):
        if self.asked:
            self.put(self.tick)


def serial(loop, reply, tick, ends):
    """Return the path of a pseudo-terminal with a hostile end."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)

    def put(data):
        with contextlib.suppress(BlockingIOError):
            os.write(master, data)

    def readable():
        try:
            os.read(master, 4096)
        except OSError:
            return
        end.heard()

    end = Stream(reply, tick, put)
    ends.append(end)
    loop.add_reader(master, readable)
    return os.ttyname(slave)


async def tcp(reply, tick, ends):
    """Return the port number of a hostile server."""

    async def serve(reader, writer):
        def put(data):
            if writer.transport.get_write_buffer_size() < 1 << 20:
                writer.write(data)

        end = Stream(reply, tick, put)
        ends.append(end)
        try:
            while await reader.read(4096):
                end.heard()
        except ConnectionError:
            pass
        ends.remove(end)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


class Datagrams(asyncio.DatagramProtocol):
    """Answers each request, and then goes on by itself."""

    def __init__(self, reply, tick):
        self.reply, self.tick = reply, tick
        self.peer = None

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.peer = address
        self.transport.sendto(self.reply, address)

    def error_received(self, error):
        self.peer = None  # that socket is closed

    def beat(self):
        if self.peer is not None:
            for _ in range(max(1, min(30, BLOCK // max(len(self.tick), 1)))):
                self.transport.sendto(self.tick, self.peer)


async def main():
    loop = asyncio.get_running_loop()
    ends, places, keep = [], {}, []
    for name, (port, reply, tick) in ENDS.items():
        if port == "serial":
            places[name] = {"kind": "serial", "port": serial(loop, reply, tick, ends), "baud": 921600}
        elif port == "tcp":
            server, number = await tcp(reply, tick, ends)
            keep.append(server)
            places[name] = {"kind": "tcp", "host": "127.0.0.1", "port": number}
        else:
            transport, end = await loop.create_datagram_endpoint(
                lambda reply=reply, tick=tick: Datagrams(reply, tick), local_addr=("127.0.0.1", 0)
            )
            ends.append(end)
            places[name] = {
                "kind": "udp",
                "host": "127.0.0.1",
                "port": transport.get_extra_info("sockname")[1],
            }
    print(json.dumps(places), flush=True)
    over = asyncio.Event()
    loop.add_reader(sys.stdin, over.set)
    while not over.is_set():
        await asyncio.sleep(TICK_S)
        for end in list(ends):
            end.beat()


if __name__ == "__main__":
    asyncio.run(main())
