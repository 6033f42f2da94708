"""The stage's driver, byte by byte: what leaves, what is believed, and when the position is unknown."""

import asyncio

import pytest

from drivers.errors import BadReply, NoReply, OutOfRange, Refused
from drivers.line import Interrupted
from drivers.roles import Role, Stage
from drivers.zaber_ascii import ZaberAscii

X = {"device": 1, "axis": 1, "microstep_um": 0.05, "low_um": 0.0, "high_um": 50_000.0, "resolution": 64}
Y = {**X, "axis": 2}
MAX = 1_010_000  # microsteps, 50.5 mm


def lrc(content):
    total = 0
    for byte in content.encode():
        total = (total + byte) & 0xFF
    return f"{(0x100 - total) & 0xFF:02X}"


class Script:
    """What the driver is expected to ask, in order; ids count up by themselves."""

    def __init__(self, port):
        self.port = port
        self.id = -1

    def _next(self):
        self.id = (self.id + 1) % 100
        return f"{self.id:02d}"

    def ask(self, address, words, data="0", *, flag="--", busy=False, ok=True, checked=True, silent=False):
        number = self._next()
        content = f"{address} {number}" + (f" {words}" if words else "")
        device, axis = address.split()
        answer = (
            f"0{device} {axis} {number} {'OK' if ok else 'RJ'} {'BUSY' if busy else 'IDLE'} {flag} {data}"
        )
        reply = f"@{answer}:{lrc(answer)}\r\n" if checked else f"@{answer}\r\n"
        replies = () if silent else (reply.encode(),)
        self.port.expect(f"/{content}:{lrc(content)}\n".encode(), *replies)
        return self

    def look(self, axis, pos, flag="--", listed=None, busy=False):
        self.ask(f"1 {axis}", "", flag=flag, busy=busy)
        if flag != "--":
            self.ask(f"1 {axis}", "warnings", listed or f"01 {flag}")
        return self.ask(f"1 {axis}", "get pos", str(pos))

    def status(self, axis, flag="--", busy=False, listed=None):
        self.ask(f"1 {axis}", "", flag=flag, busy=busy)
        if flag != "--":
            self.ask(f"1 {axis}", "warnings", listed or f"01 {flag}")
        return self

    def prepared(self, axes=(1, 2), flag="--", pos=500_000, limit=MAX):
        self.ask("1 0", "stop", checked=False).ask("1 0", "set comm.checksum 1", checked=False)
        for axis in axes:
            where = f"1 {axis}"
            self.ask(where, "get limit.min", "0").ask(where, "get limit.max", str(limit))
            self.ask(where, "get resolution", "64").ask(where, "get maxspeed", "655360")
        for axis in axes:
            self.look(axis, pos, flag)
        return self


@pytest.fixture
def script(port):
    return Script(port)


@pytest.fixture
def stage(line, clock):
    return ZaberAscii(line, name="stage", clock=clock, settings={"axes": {"x": X, "y": Y}})


@pytest.fixture
async def ready(script, stage):
    script.prepared()
    await stage.prepare()
    return stage


def test_it_plays_the_role(stage):
    assert stage.roles == {Role.STAGE}
    assert isinstance(stage, Stage)


async def test_identity(script, stage):
    for what, said in (("deviceid", "30222"), ("system.serial", "60001"), ("version", "7.38")):
        script.ask("1 0", f"get {what}", said, checked=False)
    who = await stage.identify()
    assert (who.manufacturer, who.serial, who.firmware) == ("Zaber", "60001", "7.38")


async def test_prepare_switches_checksums_on_and_tells_the_travel(script, stage):
    script.prepared()
    notes = await stage.prepare()
    assert "axis x (01 1): travel 0.000 to 50.500 mm, allowed 0 to 50 mm, at about 20 mm/s" in notes
    assert any("homing drives into the home sensor" in note for note in notes)
    script.ask("1 1", "", checked=False)  # from now on a reply without checksum is none ...
    script.ask("1 1", "", checked=False)  # ... the second time too
    with pytest.raises(BadReply, match="without the checksum"):
        await stage.read()


async def test_limits_of_the_file_must_lie_within_the_travel(script, stage):
    script.ask("1 0", "stop", checked=False).ask("1 0", "set comm.checksum 1", checked=False)
    script.ask("1 1", "get limit.min", "0").ask("1 1", "get limit.max", "900000")
    with pytest.raises(Refused, match=r"stage: axis x \(01 1\) goes from 0.000 to 45.000 mm"):
        await stage.prepare()


async def test_a_microstep_of_another_length_is_found(script, stage):
    script.ask("1 0", "stop", checked=False).ask("1 0", "set comm.checksum 1", checked=False)
    script.ask("1 1", "get limit.min", "0").ask("1 1", "get limit.max", str(MAX))
    script.ask("1 1", "get resolution", "128")
    with pytest.raises(Refused, match="128 microsteps per step"):
        await stage.prepare()


async def test_a_move_is_over_when_every_axis_is_idle_and_there(script, ready, clock):
    script.look(1, 500_000).look(2, 500_000)
    script.ask("1 1", "move abs 250000", busy=True).ask("1 2", "move abs 60000", busy=True)
    script.status(1, busy=True).ask("1 1", "get pos", "400000")
    script.status(2, busy=True).ask("1 2", "get pos", "300000")
    script.status(1).status(2, busy=True).ask("1 2", "get pos", "100000").status(2)
    script.ask("1 1", "get pos", "250001").ask("1 2", "get pos", "60000")
    await ready.move_to_um((12_500.0, 3_000.0))
    script.look(1, 250_001).look(2, 60_000)
    assert (await ready.read()).position_um == pytest.approx((12_500.05, 3_000.0))


@pytest.mark.parametrize("target", [(-0.1, 0.0), (0.0, 50_000.1), (float("nan"), 0.0), (1.0,)])
async def test_a_target_outside_is_refused_and_nothing_is_sent(ready, port, target):
    sent = len(port.sent)
    with pytest.raises(OutOfRange):
        await ready.move_to_um(target)
    assert len(port.sent) == sent


@pytest.mark.parametrize("flag", ["WR", "WH", "FS", "WM"])
async def test_without_a_reference_nothing_moves(script, ready, flag):
    script.look(1, 0, flag)
    with pytest.raises(Refused, match=flag):
        await ready.move_to_um((1.0, 1.0))


async def test_the_instrument_may_refuse_too(script, ready):
    script.look(1, 500_000).look(2, 500_000)
    script.ask("1 1", "move abs 20", "BADDATA", ok=False).ask("1 0", "stop")
    with pytest.raises(Refused, match="stage: refused the command: BADDATA"):
        await ready.move_to_um((1.0, 1.0))


def begun(script):
    script.look(1, 500_000).look(2, 500_000)
    script.ask("1 1", "move abs 20", busy=True).ask("1 2", "move abs 20", busy=True)


async def test_a_stall_stops_all_and_the_position_is_unknown_until_it_is_homed(script, ready):
    begun(script)
    script.status(1, "FS", listed="01 FS").ask("1 0", "stop")
    with pytest.raises(Refused, match="FS: stalled and stopped"):
        await ready.move_to_um((1.0, 1.0))
    script.look(1, 333_333).look(2, 20)  # the flag is cleared, by a client on the other port
    reading = await ready.read()
    assert reading.position_um is None
    assert "stalled" in reading.problems[0]
    script.ask("1 1", "warnings clear").ask("1 1", "home", busy=True).status(1).ask("1 1", "")
    script.ask("1 2", "warnings clear").ask("1 2", "home", busy=True).status(2).ask("1 2", "")
    await ready.home()
    script.look(1, 0).look(2, 0)
    assert (await ready.read()).position_um == (0.0, 0.0)


async def test_busy_and_still_is_stuck(script, ready, clock):
    begun(script)
    for _ in range(20):  # 0.1 s and four exchanges each
        script.status(1, busy=True).ask("1 1", "get pos", "400000")
        script.status(2, busy=True).ask("1 2", "get pos", "400000")
    script.status(1, busy=True).ask("1 1", "get pos", "400000").ask("1 0", "stop")
    before_s = clock.now_s()
    with pytest.raises(BadReply, match=r"moves and has stood still for 2 s; its position is unknown"):
        await ready.move_to_um((1.0, 1.0))
    assert clock.now_s() - before_s < 4.0


async def test_a_move_is_bounded_in_time(script, line, clock):
    stage = ZaberAscii(line, name="s", clock=clock, settings={"axes": {"x": X}, "move_timeout_s": 0.15})
    script.prepared(axes=(1,))
    await stage.prepare()
    script.look(1, 500_000).ask("1 1", "move abs 20", busy=True)
    script.status(1, busy=True).ask("1 1", "get pos", "400000")
    script.status(1, busy=True).ask("1 1", "get pos", "300000").ask("1 0", "stop")
    with pytest.raises(BadReply, match=r"still moves after 0.15 s"):
        await stage.move_to_um((1.0,))


async def test_at_rest_elsewhere_is_an_error(script, ready):
    begun(script)
    script.status(1).status(2).ask("1 1", "get pos", "23").ask("1 0", "stop")
    with pytest.raises(BadReply, match=r"came to rest at 0.0011 mm instead of 0.0010 mm"):
        await ready.move_to_um((1.0, 1.0))
    script.look(1, 23).look(2, 20)
    assert (await ready.read()).position_um is None


async def test_a_hand_at_the_knob_ends_the_move(script, ready):
    begun(script)
    script.status(1, "NI").ask("1 0", "stop")
    with pytest.raises(Refused, match="NI: a movement was interrupted"):
        await ready.move_to_um((1.0, 1.0))
    script.look(1, 400_000, "NI").look(2, 20)  # the motor made that movement, so it is counted
    assert (await ready.read()).position_um == pytest.approx((20_000.0, 1.0))


async def test_a_move_without_its_reply_is_not_sent_again(script, ready):
    script.look(1, 500_000).look(2, 500_000)
    script.ask("1 1", "move abs 20", silent=True).ask("1 0", "stop")
    with pytest.raises(NoReply):
        await ready.move_to_um((1.0, 1.0))


async def test_a_question_without_its_reply_is_asked_again(script, ready):
    script.ask("1 1", "", silent=True).look(1, 500_000).look(2, 500_000)
    assert (await ready.read()).position_um == (25_000.0, 25_000.0)


async def test_while_it_moves_the_position_goes_along(script, ready):
    script.look(1, 40, busy=True).look(2, 500_000)
    reading = await ready.read()
    assert reading.moving
    assert reading.position_um == (2.0, 25_000.0)


async def test_a_relative_move_is_absolute_on_the_wire(script, ready):
    script.look(1, 500_000).look(2, 500_000).look(1, 500_000).look(2, 500_000)
    script.ask("1 1", "move abs 500020", busy=True).ask("1 2", "move abs 499980", busy=True)
    script.status(1).status(2).ask("1 1", "get pos", "500020").ask("1 2", "get pos", "499980")
    await ready.move_by_um((1.0, -1.0))


async def test_stop_goes_before_what_is_in_flight(script, ready, port):
    script.ask("1 1", "", silent=True).ask("1 0", "stop")
    port.stuck = True
    reading = asyncio.create_task(ready.read())
    while len(port.sent) < 11 + 5:
        await asyncio.sleep(0)
        if port.talks and len(port.talks) == 1:
            break
    port.stuck = False
    await ready.stop()
    with pytest.raises(Interrupted):
        await reading


async def test_a_line_that_was_lost_is_prepared_again_before_a_move(script, ready, line):
    line.openings += 1
    script.ask("1 0", "stop", checked=False)
    script.ask("1 0", "set comm.checksum 1", checked=False)
    for axis in (1, 2):
        where = f"1 {axis}"
        script.ask(where, "get limit.min", "0").ask(where, "get limit.max", str(MAX))
        script.ask(where, "get resolution", "64").ask(where, "get maxspeed", "655360")
    script.look(1, 0, "WR").look(2, 0, "WR").look(1, 0, "WR")
    with pytest.raises(Refused, match="no reference position: home it"):
        await ready.move_to_um((1.0, 1.0))


@pytest.mark.parametrize(
    "axes",
    [{}, {"x": X, "y": X}, {"x": {**X, "high_um": 0.0}}, {"x": {**X, "microstep_um": 0.0}}],
)
def test_impossible_axes_are_refused(line, clock, axes):
    with pytest.raises(OutOfRange):
        ZaberAscii(line, name="s", clock=clock, settings={"axes": axes})
