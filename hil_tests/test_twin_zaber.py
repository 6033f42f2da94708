"""The stage's twin: driven by our driver over a pty, and by the vendor's own library if that is installed.

The vendor's library (``pip install zaber-motion``, MIT, 28 MB with its binary) is not among our dependencies.
"""

import asyncio
import contextlib
import importlib.util
import itertools

import pytest

from drivers.errors import BadReply, NoReply, Refused
from drivers.ports import open_line
from drivers.zaber_ascii import ZaberAscii
from hil_tests.sim.clock import LabClock, ManualClock
from hil_tests.sim.zaber_ascii import ZaberTwin

STEP_UM = 0.047625
AXIS = {"device": 1, "microstep_um": STEP_UM, "low_um": 0.0, "high_um": 49_000.0, "resolution": 64}
SETTINGS = {"axes": {"x": {**AXIS, "axis": 1}, "y": {**AXIS, "axis": 2}}}
SPEED = 20.0


@contextlib.asynccontextmanager
async def twin_on_a_line(settings=None, *, tcp=False):
    clock = LabClock(speed=SPEED)
    twin = ZaberTwin(clock, settings, tcp=tcp)
    where = await twin.start()
    ticking = asyncio.create_task(tick(twin, clock))
    if tcp:
        host, _, port = where.partition(":")
        line = open_line("stage", {"kind": "tcp", "host": host, "port": int(port)})
    else:
        line = open_line("stage", {"kind": "serial", "port": where, "baud": 115_200})
    try:
        yield twin, ZaberAscii(line, name="stage", clock=clock, settings=SETTINGS), where
    finally:
        await line.close()
        ticking.cancel()
        await twin.stop()


async def tick(twin, clock):
    while True:
        twin.advance(clock.now_s())
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("tcp", [False, True], ids=["serial", "serial-server"])
async def test_a_move_ends_where_the_carriage_really_is(tcp):
    async with twin_on_a_line(tcp=tcp) as (twin, stage, _):
        await stage.prepare()
        await stage.move_to_um((12_500.0, 3_000.0))
        assert twin.position_um == pytest.approx((12_500.0, 3_000.0), abs=STEP_UM)
        assert (await stage.read()).position_um == pytest.approx(twin.position_um, abs=1e-6)


async def test_after_power_was_lost_nothing_moves_until_it_is_homed():
    async with twin_on_a_line({"homed": False, "at_um": (4_000.0, 2_000.0)}) as (twin, stage, _):
        notes = await stage.prepare()
        assert any("WR: has no reference position" in note for note in notes)
        assert (await stage.read()).position_um is None
        with pytest.raises(Refused, match="home it"):
            await stage.move_to_um((1_000.0, 1_000.0))
        assert twin.counters()["moves"] == 0
        await stage.home()
        assert twin.position_um == (0.0, 0.0)
        await stage.move_to_um((1_000.0, 1_000.0))
        assert twin.position_um == pytest.approx((1_000.0, 1_000.0), abs=STEP_UM)


@pytest.mark.parametrize(
    ("fault", "error", "told"),
    [
        ({"kind": "stall", "at_um": 26_000.0}, Refused, "FS: stalled and stopped"),
        ({"kind": "jammed"}, BadReply, "stood still for 2 s"),
        ({"kind": "flag", "flag": "WL"}, Refused, "WL: an unexpected limit"),
    ],
)
async def test_a_move_that_went_wrong_leaves_no_position(fault, error, told):
    async with twin_on_a_line() as (twin, stage, _):
        await stage.prepare()
        moving = asyncio.create_task(stage.move_to_um((40_000.0, 25_000.0)))
        while not twin.moving:
            await asyncio.sleep(0)
        twin.inject(fault)
        with pytest.raises(error, match=told):
            await moving
        assert not twin.moving or fault["kind"] == "jammed"
        twin.inject({"kind": "jammed", "given": False})
        assert (await stage.read()).position_um is None
        await stage.home()
        assert (await stage.read()).position_um == (0.0, 0.0)


async def test_a_carriage_that_was_pushed_is_noticed():
    async with twin_on_a_line() as (twin, stage, _):
        await stage.prepare()
        twin.inject({"kind": "displaced", "axis": 1, "um": 300.0})
        reading = await stage.read()
        assert reading.position_um is None
        assert reading.problems == ("axis y (01 2) WM: displaced while it stood still",)


async def test_lost_and_damaged_replies_cost_a_repetition_and_no_position():
    async with twin_on_a_line() as (twin, stage, _):
        await stage.prepare()
        for kind in ("flipped", "lost", "doubled", "noise", "previous"):
            twin.inject({"kind": kind, "hex": "00ff"})
            assert (await stage.read()).position_um == pytest.approx(twin.position_um)


async def test_stop_ends_a_move_on_its_way():
    async with twin_on_a_line() as (twin, stage, _):
        await stage.prepare()
        moving = asyncio.create_task(stage.move_to_um((45_000.0, 25_000.0)))
        while not twin.moving:
            await asyncio.sleep(0)
        await stage.stop()
        with pytest.raises((Refused, NoReply)):  # by the flag NI, or because its question was interrupted
            await moving
        while twin.moving:
            await asyncio.sleep(0.01)
        assert twin.position_um[0] < 44_000.0
        assert (await stage.read()).position_um == pytest.approx(twin.position_um, abs=STEP_UM)


def test_motion_takes_the_time_of_its_speed_and_acceleration():
    clock = ManualClock()
    twin = ZaberTwin(clock, {"at_um": (0.0, 0.0), "max_speed_um_s": 1_000.0, "acceleration_um_s2": 2_000.0})
    twin._do(1, 1, [twin.axes[1, 1]], ["move", "abs", str(round(10_000 / STEP_UM))])
    times = [0.01 * n for n in range(1, 1_200)]
    seen = []
    for now_s in times:
        twin.advance(now_s)
        seen.append(twin.position_um[0])
    arrived_s = next(t for t, at in zip(times, seen, strict=True) if at >= 9_999.9)
    assert arrived_s == pytest.approx(10.0 + 0.5, abs=0.1)  # 10 mm at 1 mm/s, and v/a for both ramps
    assert max(seen) <= 10_000.0 + STEP_UM
    assert all(b >= a for a, b in itertools.pairwise(seen))


@pytest.mark.skipif(importlib.util.find_spec("zaber_motion") is None, reason="zaber-motion is not installed")
@pytest.mark.parametrize("tcp", [False, True], ids=["serial", "serial-server"])
async def test_the_vendors_own_library_drives_the_twin(tcp):
    from zaber_motion import exceptions
    from zaber_motion.ascii import Connection

    loop = asyncio.get_running_loop()

    def drive(twin, where):
        def inject(fault):
            loop.call_soon_threadsafe(twin.inject, fault)

        host, _, port = where.rpartition(":")
        opened = Connection.open_tcp(host, int(port)) if tcp else Connection.open_serial_port(where)
        with opened as connection:
            connection.enable_alerts()
            device = connection.detect_devices(identify_devices=False)[0]
            axis = device.get_axis(1)
            axis.move_absolute(100_000)
            assert axis.get_position() == 100_000
            axis.move_relative(-500)
            assert axis.get_position() == 99_500
            assert axis.warnings.get_flags() == set()
            assert axis.settings.get("limit.max") == round(50_000.0 / STEP_UM)
            with pytest.raises(exceptions.BadDataException):
                axis.move_absolute(10_000_000)
            inject({"kind": "flag", "flag": "WR"})
            assert axis.warnings.get_flags() == {"WR"}
            axis.home()
            assert (axis.get_position(), axis.warnings.get_flags()) == (0, set())
            inject({"kind": "stall", "at_um": 1_000.0})
            with pytest.raises(exceptions.MovementFailedException, match="FS"):
                axis.move_absolute(100_000)

    async with twin_on_a_line(tcp=tcp) as (twin, _, where):
        await asyncio.to_thread(drive, twin, where)
        assert twin.position_um[0] == pytest.approx(1_000.0, abs=200.0)
        assert twin.counters()["ignored"] == 0
