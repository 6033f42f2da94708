import asyncio
import json
import math

import pytest

from controller.clock import BenchError, ScaledClock, Ticker, bench_clock


class FakeClock:
    """Lab time that moves only when somebody sleeps or says so."""

    def __init__(self, speed=1.0):
        self.speed = speed
        self.now = 100.0

    def now_s(self):
        return self.now

    async def sleep(self, lab_s):
        self.now += lab_s
        await asyncio.sleep(0)

    def wall_timeout_s(self, lab_deadline_s):
        return lab_deadline_s


async def take(ticker, busy_s, clock):
    """Return the dt of each tick while the consumer is busy for the given lab times."""
    found = []
    ticks = aiter(ticker)
    for busy in busy_s:
        found.append(await anext(ticks))
        clock.now += busy
    await ticks.aclose()
    return found


def test_lab_time_is_monotonic_minus_epoch_times_speed():
    assert ScaledClock(1000.0, 60.0, monotonic=lambda: 1002.5).now_s() == 150.0


@pytest.mark.parametrize(
    ("speed", "deadline", "wall"),
    [
        (1.0, 3.0, 3.0),
        (1.0, 0.1, 0.1),
        (60.0, 3.0, 0.5),
        (60.0, 60.0, 1.0),
        (60.0, 0.2, 0.2),
        (4.0, 3.0, 0.75),
    ],
)
def test_a_safety_deadline_is_never_squeezed_below_half_a_second(speed, deadline, wall):
    assert ScaledClock(0.0, speed).wall_timeout_s(deadline) == pytest.approx(wall)


@pytest.mark.parametrize(
    ("epoch", "speed"), [(0.0, 0.0), (0.0, 0.5), (0.0, math.nan), (0.0, math.inf), (math.nan, 2.0)]
)
def test_an_impossible_clock_is_refused(epoch, speed):
    with pytest.raises(ValueError, match="not a"):
        ScaledClock(epoch, speed)


async def test_sleep_is_divided_by_the_speed():
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await ScaledClock(0.0, 1000.0).sleep(10.0)
    assert 0.008 < loop.time() - begin < 1.0


async def test_ticks_of_an_idle_consumer_are_one_period_apart():
    clock = FakeClock()
    ticker = Ticker(clock, 0.1)
    assert await take(ticker, [0.0] * 50, clock) == pytest.approx([0.1] * 50)
    assert (ticker.ticks, ticker.missed) == (50, 0)


async def test_missed_ticks_are_skipped_counted_and_never_caught_up():
    clock = FakeClock()
    ticker = Ticker(clock, 1.0)
    # Tick at 101; busy for 3.4 s, so 102 and 103 pass unused and 104 is late; then back on the grid.
    assert await take(ticker, [3.4, 0.0, 0.0], clock) == pytest.approx([1.0, 3.4, 0.6])
    assert (ticker.ticks, ticker.missed) == (3, 2)
    assert ticker.worst_late_s == pytest.approx(2.4)


async def test_lateness_is_told_in_wall_seconds():
    clock = FakeClock(speed=10.0)
    ticker = Ticker(clock, 1.0)
    await take(ticker, [1.5, 0.0], clock)
    assert ticker.late_s == pytest.approx(0.05)


async def test_a_loop_that_wakes_early_never_ticks_early():
    class Early(FakeClock):
        async def sleep(self, lab_s):
            await super().sleep(lab_s * 0.6 if lab_s > 0.001 else lab_s)

    clock = Early()
    assert await take(Ticker(clock, 1.0), [0.0, 0.0], clock) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("period", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_period_is_refused(period):
    with pytest.raises(ValueError, match="period_s"):
        Ticker(FakeClock(), period)


@pytest.fixture
async def bench(tmp_path):
    """Start a bench's socket that answers with what the test puts into ``reply``."""
    heard, state = [], {"reply": b""}

    async def serve(reader, writer):
        heard.append(json.loads(await reader.readline()))
        if state["reply"] is None:
            await reader.read()
        else:
            writer.write(state["reply"])
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "bench.sock")
    table = {"socket": str(tmp_path / "bench.sock"), "nonce": "a1b2", "epoch": 12345.678, "speed": 60.0}
    yield table, state, heard
    server.close()


async def test_the_bench_gives_its_clock_for_its_own_nonce(bench):
    table, state, heard = bench
    state["reply"] = b'{"ok": true, "speed": 60.0, "epoch": 12345.678}\n'
    clock = await bench_clock(table)
    assert (clock.speed, clock.epoch) == (60.0, 12345.678)
    assert heard == [{"nonce": "a1b2"}]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b'{"ok": false}\n', "refused the nonce"),
        (b'{"ok": true}\n', "without speed"),
        (b'{"ok": true, "speed": 10.0, "epoch": 12345.678}\n', "speed 10"),
        (b'{"ok": true, "speed": 60.0, "epoch": 1.0}\n', "epoch 1.000"),
        (b"SSH-2.0\n", "JSON"),
        (b"[]\n", "JSON"),
        (b"", "JSON"),
    ],
)
async def test_a_bench_that_does_not_stand_behind_the_file_is_refused(bench, reply, words):
    table, state, _ = bench
    state["reply"] = reply
    with pytest.raises(BenchError, match=words):
        await bench_clock(table)


async def test_a_silent_bench_is_refused_in_time(bench):
    table, state, _ = bench
    state["reply"] = None
    with pytest.raises(BenchError, match="did not answer"):
        await bench_clock(table, timeout_s=0.02)


async def test_a_bench_that_is_gone_is_refused(tmp_path):
    with pytest.raises(BenchError, match="no bench answers"):
        await bench_clock({"socket": tmp_path / "none", "nonce": "", "epoch": 0.0, "speed": 1.0})
