"""The Amptek driver against a scripted processor; its frames are built here, not by the code under test."""

from __future__ import annotations

import asyncio
import contextlib
import struct

import pytest

from drivers.amptek_dp5 import AmptekDp5
from drivers.clock import RealClock
from drivers.errors import BadReply, NoReply, OutOfRange, Refused
from drivers.line import Line
from drivers.roles import EventDetector

SETTINGS = {"detector": "sdd", "channels": 2048, "list_clock_s": 1e-6, "fifo_words": 8192, "period_s": 0.05}


def packet(pid1: int, pid2: int, data: bytes = b"") -> bytes:
    body = bytes([0xF5, 0xFA, pid1, pid2, len(data) >> 8, len(data) & 255]) + data
    return body + (-sum(body) % 65536).to_bytes(2, "big")


class FakePort:
    """A processor at the other end of a datagram port."""

    where = "fake dp5"
    character_s = 0.0

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.inbox: list[bytes] = []
        self.came = asyncio.Event()
        self.reopened = 0
        self.config: dict[str, str] = {"SYNC": "INT", "CLKL": "100"}
        self.hpge = False
        self.list_option = True
        self.sync = 3
        self.clock = 4
        self.running = False
        self.rebooted = False
        self.preset_reached = False
        self.real_ms = 0
        self.slow = 0
        self.fifo = b""
        self.overflow = False
        self.sharing = False
        self.bias_v = 0.0
        self.lose = 0  # replies that do not come
        self.drop: set[tuple[int, int]] = set()  # these requests get no reply
        self.drop_datagram: int | None = None  # this datagram of list data is lost
        self.refuse: dict[tuple[int, int], tuple[int, bytes]] = {}
        self.deaf: set[str] = set()  # these settings are acknowledged and ignored

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def reopen(self) -> None:
        self.reopened += 1
        self.inbox.clear()

    def discard(self) -> bytes:
        data = b"".join(self.inbox)
        self.inbox.clear()
        return data

    async def read(self, timeout_s: float) -> bytes:
        if not self.inbox and timeout_s > 0:
            self.came.clear()
            with contextlib.suppress(TimeoutError):  # no test waits for real
                await asyncio.wait_for(self.came.wait(), min(timeout_s, 0.001))
        return self.inbox.pop(0) if self.inbox else b""

    async def write(self, data: bytes) -> None:
        self.sent.append(data)
        pid = (data[2], data[3])
        if pid in self.drop:
            return
        if self.lose:
            self.lose -= 1
            return
        answer = self.answer(pid, data[6:-2])
        datagrams = [answer[i : i + 520] for i in range(0, len(answer), 520)]
        if pid == (0x03, 0x09) and self.drop_datagram is not None:
            del datagrams[self.drop_datagram]
        self.inbox += datagrams
        self.came.set()

    def answer(self, pid: tuple[int, int], data: bytes) -> bytes:
        if pid in self.refuse:
            code, text = self.refuse[pid]
            return packet(0xFF, code, text)
        if pid == (0x01, 0x01):
            return packet(0x80, 0x01, self.status())
        if pid == (0x03, 0x09):
            words, self.fifo = self.fifo, b""
            return packet(0x82, 0x0B if self.overflow else 0x0A, words)
        if pid == (0x20, 0x02):
            for item in data.decode().rstrip(";").split(";"):
                name, value = item.split("=")
                if name not in self.deaf:
                    self.config[name] = value
                if name == "SYNC" and "SYNC" not in self.deaf:
                    self.sync = 3
                if name == "CLKL":
                    self.clock = 4 if value == "1000" else 0
        if pid == (0x20, 0x03):
            names = [item.split("=")[0] for item in data.decode().rstrip(";").split(";")]
            text = "".join(f"{name}={self.config[name]};" for name in names if name in self.config)
            return packet(0x82, 0x07, text.encode())
        if pid == (0xF0, 0x02):
            self.running = True
        if pid == (0xF0, 0x03):
            self.running = False
        if pid == (0xF0, 0x01):
            self.real_ms = self.slow = 0
            self.preset_reached = False
        return packet(0xFF, 0x0C if self.sharing else 0x00)

    def status(self) -> bytes:
        data = bytearray(64)
        data[0:12] = struct.pack("<III", self.slow + 7, self.slow, 0)
        data[20:24] = struct.pack("<I", self.real_ms)
        data[24:26] = b"\x68\x61"
        data[26:30] = struct.pack("<I", 4711)
        data[30:32] = struct.pack(">h", round(2 * self.bias_v))
        data[35] = 0x20 * self.running | 0x80 * self.preset_reached
        data[36] = 0x20 * self.rebooted
        data[37] = 5
        data[39], data[42] = 1, 1 if self.hpge else 0
        data[43] = self.sync | self.clock | 8 * self.list_option
        self.rebooted = False
        return bytes(data)

    def requests(self) -> list[str]:
        return [f"{data[2]:02x}{data[3]:02x}" for data in self.sent]


@pytest.fixture
def port() -> FakePort:
    return FakePort()


def driver_on(port: FakePort, **settings: object) -> AmptekDp5:
    line = Line("pixe", port)
    return AmptekDp5(line, name="pixe", clock=RealClock(), settings={**SETTINGS, **settings})


async def ready(port: FakePort, **settings: object) -> AmptekDp5:
    driver = driver_on(port, **settings)
    await driver.prepare()
    port.sent.clear()
    return driver


async def test_identity(port):
    driver = driver_on(port)
    identity = await driver.identify()
    assert (identity.manufacturer, identity.model, identity.serial) == ("Amptek", "PX5", "4711")
    assert identity.firmware == "6.8.5 (FPGA 6.1)"
    assert port.sent == [bytes.fromhex("f5 fa 01 01 00 00 fe 0f")]
    assert isinstance(driver, EventDetector)


async def test_the_other_kind_of_detector_gets_nothing(port):
    port.hpge = True
    driver = driver_on(port, commands={"HVSE": "-110"})
    with pytest.raises(BadReply, match="PX5-HPGe; the settings say sdd"):
        await driver.prepare()
    assert port.requests() == ["0101"]
    assert await driver_on(port, detector="hpge").identify()


async def test_bias_is_checked_against_the_processor_at_this_moment(port):
    driver = await ready(port)
    port.hpge = True  # the cables were exchanged since
    with pytest.raises(BadReply, match="Nothing was sent"):
        await driver.configure({"TPEA": "4.8", "HVSE": "-110"})
    assert port.requests() == ["0101"]
    port.hpge = False
    await driver.configure({"HVSE": "-110"})
    assert port.config["HVSE"] == "-110"


async def test_prepare(port):
    port.running = True
    driver = driver_on(port, commands={"TPEA": "4.8"}, lifetime_s=600.0)
    notes = await driver.prepare()
    assert port.requests() == [
        "0101", "f021", "f003", "0101", "2002", "2003", "0101", "0309", "f001", "f016", "2002", "2003",
        "0101",
    ]  # fmt: skip
    assert port.sent[1] == bytes.fromhex("f5 fa f0 21 00 00 fd 00")
    assert port.sent[4] == packet(0x20, 0x02, b"MCAC=2048;TPEA=4.8;")
    assert port.sent[5] == packet(0x20, 0x03, b"MCAC=?;TPEA=?;")
    assert port.sent[10] == packet(0x20, 0x02, b"PRER=600.0;")
    assert not port.running
    assert "no watchdog" in notes[0]
    assert "600 s" in notes[0]


async def test_list_mode_is_set_only_where_the_status_says_otherwise(port):
    port.sync, port.clock = 0, 0
    await driver_on(port).prepare()
    assert packet(0x20, 0x02, b"SYNC=FRAME;CLKL=1000;") in port.sent
    port.sync, port.deaf = 1, {"SYNC"}
    with pytest.raises(Refused, match="stays at no time tags synchronisation"):
        await driver_on(port).prepare()
    port.list_option = False
    with pytest.raises(Refused, match="is a PX5 without the list-mode option: it sends whole spectra only"):
        await driver_on(port).prepare()


async def test_a_setting_that_does_not_read_back_is_not_accepted(port):
    port.deaf = {"TPEA"}
    port.config["TPEA"] = "2.000"
    with pytest.raises(BadReply, match=r"TPEA was set to 4.8 and reads back as 2.000"):
        await driver_on(port, commands={"TPEA": "4.8"}).prepare()
    port.deaf = {"GAIN"}
    with pytest.raises(BadReply, match="GAIN was set to 10 and reads back as None"):
        await driver_on(port).configure({"GAIN": "10"})


@pytest.mark.parametrize(
    ("wanted", "got", "same"),
    [
        ("4.8", "4.800", True),
        ("10.52", "10.5", True),
        ("10.6", "10.5", False),
        ("1024", "1025", False),
        ("OFF", "off", True),
        ("OFF", "10.0", False),
        ("-110", "-110V", False),
    ],
)
async def test_how_values_are_compared(port, wanted, got, same):
    driver = driver_on(port)
    port.deaf, port.config["NAME"] = {"NAME"}, got
    if same:
        await driver.configure({"NAME": wanted})
    else:
        with pytest.raises(BadReply, match="reads back"):
            await driver.configure({"NAME": wanted})


async def test_an_unknown_command_is_refused_with_its_text(port):
    port.refuse[0x20, 0x02] = (0x07, b"ABCD=1;")
    with pytest.raises(Refused, match=r"pixe: text command not recognised: 'ABCD=1;'"):
        await driver_on(port).configure({"ABCD": "1"})


async def test_counting(port):
    driver = await ready(port)
    await driver.start()
    assert port.requests() == ["0101", "f002", "0101"]
    port.slow, port.real_ms = 12000, 10102
    status = await driver.status()
    assert (status.slow_counts, status.fast_counts, status.real_s) == (12000, 12007, 10.102)
    assert (status.mca_enabled, status.list_mode, status.configured, status.rebooted) == (
        True,
        True,
        True,
        False,
    )
    assert status.problems == ()
    assert (status.temperature_k, status.high_voltage_v) == (None, 0.0)  # no sensor, no bias
    await driver.stop()
    assert not (await driver.status()).mca_enabled
    await driver.clear()
    assert port.requests()[-2:] == ["f001", "f016"]
    assert (await driver.status()).problems == ()  # time going back to zero was our own doing


async def test_every_start_renews_the_lifetime(port):
    driver = await ready(port, lifetime_s=100.0)
    port.real_ms = 49_000  # 51 s are left: enough of a lifetime
    await driver.start()
    assert "2002" not in port.requests()
    port.real_ms = 70_000
    await driver.start()
    assert packet(0x20, 0x02, b"PRER=170.0;") in port.sent
    await driver.clear()  # now 170 s would be left, more than one lifetime
    await driver.start()
    assert port.config["PRER"] == "100.0"


async def test_the_end_of_the_lifetime_is_told(port):
    driver = await ready(port, lifetime_s=100.0)
    await driver.start()
    port.running, port.preset_reached = False, True
    assert (await driver.status()).problems == ("counting was ended by its preset of 100 s real time",)
    port.preset_reached = False
    assert (await driver.status()).problems == ("counting has stopped by itself",)


async def test_a_start_that_has_no_effect_is_noticed(port):
    driver = await ready(port)
    port.refuse[0xF0, 0x02] = (0x00, b"")  # acknowledged, not done
    with pytest.raises(BadReply, match="does not"):
        await driver.start()
    port.running = True
    port.refuse[0xF0, 0x03] = (0x00, b"")
    with pytest.raises(BadReply, match="still counts"):
        await driver.stop()


async def test_a_reboot_is_remembered_until_it_is_prepared_again(port):
    driver = await ready(port)
    await driver.start()
    port.rebooted, port.running = True, False
    first, second = await driver.status(), await driver.status()  # the device tells it once
    for status in (first, second):
        assert status.rebooted
        assert not status.configured
        assert "the processor has rebooted: its configuration is gone" in status.problems
    with pytest.raises(Refused, match="rebooted"):
        await driver.start()
    assert not port.running
    await driver.prepare()
    await driver.start()
    assert not (await driver.status()).rebooted


async def test_after_a_reboot_no_bias_is_switched_on(port):
    port.config["HVSE"] = "-110"
    driver = await ready(port, commands={"HVSE": "-110"})
    port.rebooted = True
    assert (await driver.status()).rebooted
    port.sent.clear()
    with pytest.raises(Refused, match="only a person switches its bias on again"):
        await driver.prepare()
    assert port.requests() == ["0101"]
    with pytest.raises(Refused, match="does not start"):
        await driver.start()


async def test_after_a_reboot_the_bias_must_be_what_it_was(port):
    port.bias_v = -500.0
    driver = await ready(port)
    port.rebooted = True
    await driver.status()
    port.bias_v = -0.5
    with pytest.raises(Refused, match=r"its bias is -0\.5 V instead of -500 V"):
        await driver.prepare()
    with pytest.raises(Refused, match="does not start"):
        await driver.start()
    port.bias_v = -495.0
    await driver.prepare()
    await driver.start()


async def test_what_an_earlier_host_left_in_the_list_is_read_before_the_timer_is_cleared(port):
    """In a full list is no room for the record of the clear: the frames would seem to go on."""
    port.fifo = bytes(4 * 8192)
    driver = await ready(port)
    assert (await driver.read_words()).words == b""


async def test_a_lost_reply_to_stop_or_status_is_asked_for_again(port):
    driver = await ready(port)
    await driver.start()
    port.lose = 2
    await driver.stop()
    assert not port.running
    port.lose = 3
    with pytest.raises(NoReply):
        await driver.status()


async def test_a_reboot_is_seen_even_if_its_flag_was_lost(port):
    driver = await ready(port)
    port.real_ms = 5000
    await driver.status()
    port.real_ms = 10
    assert (await driver.status()).rebooted


async def test_start_without_prepare_is_refused(port):
    with pytest.raises(Refused, match="not prepared"):
        await driver_on(port).start()
    assert "f002" not in port.requests()


async def test_words(port):
    driver = await ready(port)
    assert await driver.read_words() == await driver.read_words()
    port.fifo = bytes(range(256)) * 8  # 2048 bytes: four datagrams
    chunk = await driver.read_words()
    assert chunk.words == bytes(range(256)) * 8
    assert not chunk.overflow
    assert port.sent[-1] == bytes.fromhex("f5 fa 03 09 00 00 fe 05")
    port.overflow = True
    assert (await driver.read_words()).overflow


class Stopwatch:
    """Monotonic time that jumps past every timeout as soon as nothing comes."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.11
        return self.now


@pytest.mark.parametrize("lost", [0, 1, 3])
async def test_a_lost_datagram_is_lost_words_and_a_fresh_socket(port, lost):
    driver = AmptekDp5(
        Line("pixe", port, monotonic=Stopwatch()), name="pixe", clock=RealClock(), settings=SETTINGS
    )
    port.fifo = bytes(range(256)) * 8
    port.drop_datagram = lost
    with pytest.raises((NoReply, BadReply), match="list-mode words may be lost"):
        await driver.read_words()
    asked = port.requests()
    assert asked == ["0309"]  # not asked again: the words are gone from the FIFO
    port.drop_datagram = None
    port.fifo = b"\x02\xa5\x12\x34"
    assert (await driver.read_words()).words == b"\x02\xa5\x12\x34"
    assert port.reopened == 1


async def test_off_repeats_only_the_harmless(port):
    driver = AmptekDp5(
        Line("pixe", port, monotonic=Stopwatch()), name="pixe", clock=RealClock(), settings=SETTINGS
    )
    port.running = True
    await driver.off()
    assert not port.running
    assert port.requests() == ["f003"]
    port.drop = {(0xF0, 0x03)}
    with pytest.raises(NoReply):
        await driver.off()
    assert port.requests() == ["f003"] * 4


async def test_another_computer_is_told(port):
    driver = await ready(port)
    port.sharing = True
    await driver.clear()
    assert "another computer asks to share the interface" in (await driver.status()).problems


async def test_spectrum_is_read_without_clearing(port):
    driver = driver_on(port, channels=256)
    port.slow, port.real_ms = 4711, 2500
    port.answer = lambda pid, data: packet(0x81, 0x02, b"\x01\x02\x03" + bytes(765) + port.status())
    counts, status = await driver.spectrum()
    assert (len(counts), counts[:2]) == (256, [0x030201, 0])
    assert (status.slow_counts, status.fast_counts, status.real_s) == (4711, 4718, 2.5)
    assert port.sent == [bytes.fromhex("f5 fa 02 03 00 00 fe 0c")]


async def test_a_spectrum_of_another_length_or_without_status_is_not_taken(port):
    port.answer = lambda pid, data: packet(0x81, 0x02, bytes(768) + port.status())
    with pytest.raises(BadReply, match="sent 256 channels, 2048 were configured"):
        await driver_on(port).spectrum()
    port.answer = lambda pid, data: packet(0x81, 0x01, bytes(768))
    with pytest.raises(BadReply, match="without the status"):
        await driver_on(port, channels=256).spectrum()


@pytest.mark.parametrize(
    "settings", [{"detector": "cdte"}, {"list_clock_s": 1e-3}, {"lifetime_s": 0.1}, {"lifetime_s": 3e6}]
)
def test_impossible_settings(settings):
    with pytest.raises(OutOfRange):
        driver_on(FakePort(), **settings)
