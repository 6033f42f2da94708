"""The line discipline: in scripted time, so that every wait can be asserted exactly."""

import asyncio

import pytest

from drivers.errors import BadReply, NoReply, Refused
from drivers.line import Interrupted, Line
from drivers.port import PortLost


def until_lf(buffer):
    return buffer if buffer.endswith(b"\n") else None


async def test_reply_in_pieces_and_statistics(line, port, clock):
    port.expect(b"a\n", (0.010, b"4"), (0.030, b"2\n"))
    port.expect(b"b\n", (0.005, b"7\n"))
    assert await line.ask(b"a\n", until_lf, timeout_s=0.5) == b"42\n"
    assert await line.ask(b"b\n", until_lf, timeout_s=0.5) == b"7\n"
    assert (line.stats.requests, line.stats.replies, line.stats.timeouts) == (2, 2, 0)
    assert line.stats.latency_max_s == pytest.approx(0.030)
    assert line.stats.latency_sum_s == pytest.approx(0.035)
    assert line.stats.last_reply_monotonic_s == pytest.approx(1000.035)


async def test_timeout_names_device_request_and_what_came(line, port, clock):
    port.expect(b"a\n", (0.010, b"4"))
    with pytest.raises(NoReply) as error:
        await line.ask(b"a\n", until_lf, timeout_s=0.5, device="heater")
    assert str(error.value).startswith("heater: no complete reply on line fake within 0.5 s")
    assert (error.value.request, error.value.reply) == (b"a\n", b"4")
    assert clock.time_s == pytest.approx(1000.5)
    assert line.stats.timeouts == 1


async def test_the_timeout_is_for_the_whole_reply_not_for_each_piece(line, port, clock):
    port.expect(b"a\n", *((0.04 * n, b".") for n in range(1, 30)))
    with pytest.raises(NoReply):
        await line.ask(b"a\n", until_lf, timeout_s=0.5)
    assert clock.time_s == pytest.approx(1000.5)


async def test_stale_bytes_are_thrown_away_before_the_request(line, port):
    port.arrive(b"old\n")
    port.expect(b"a\n", b"new\n")
    assert await line.ask(b"a\n", until_lf, timeout_s=0.5) == b"new\n"
    assert line.stats.drained_bytes == 4


async def test_after_a_timeout_the_line_must_be_silent_for_the_timeout_and_50_ms(line, port):
    port.expect(b"a\n")
    port.expect(b"b\n", b"B\n")
    with pytest.raises(NoReply):
        await line.ask(b"a\n", until_lf, timeout_s=0.5)
    assert await line.ask(b"b\n", until_lf, timeout_s=0.2) == b"B\n"
    (first_s, _), (second_s, _) = port.sent
    assert second_s - first_s == pytest.approx(0.5 + 0.5 + 0.05)


async def test_a_late_reply_ends_the_waiting_and_is_not_taken_for_the_next_one(line, port):
    port.expect(b"a\n", (0.6, b"A\n"))
    port.expect(b"b\n", b"B\n")
    with pytest.raises(NoReply):
        await line.ask(b"a\n", until_lf, timeout_s=0.5)
    assert await line.ask(b"b\n", until_lf, timeout_s=0.2) == b"B\n"
    assert port.sent[1][0] - port.sent[0][0] == pytest.approx(0.6)
    assert line.stats.drained_bytes == 2


async def test_the_rest_of_a_late_reply_is_recognised_too(line, port):
    port.expect(b"a\n", (0.4, b"A"), (0.6, b"\n"))
    port.expect(b"b\n", b"B\n")
    with pytest.raises(NoReply):
        await line.ask(b"a\n", lambda buffer: buffer if buffer == b"A\n" else None, timeout_s=0.5)
    assert await line.ask(b"b\n", until_lf, timeout_s=0.2) == b"B\n"
    assert port.sent[1][0] - port.sent[0][0] == pytest.approx(0.6)


async def test_a_babbling_line_is_refused_after_a_limited_time_but_not_for_an_urgent_request(
    line, port, clock
):
    port.expect(b"a\n")
    port.expect(b"off\n", b"ok\n")
    with pytest.raises(NoReply):
        await line.ask(b"a\n", until_lf, timeout_s=0.5)
    for n in range(400):
        port.arrive(b"x", 0.01 * n)
    with pytest.raises(NoReply, match="does not fall silent"):
        await line.ask(b"b\n", until_lf, timeout_s=0.5)
    assert clock.time_s == pytest.approx(1000.5 + 0.55 + 1.0, abs=0.02)
    started_s = clock.time_s
    await line.ask(b"off\n", lambda buffer: buffer.endswith(b"ok\n") or None, timeout_s=0.5, urgent=True)
    assert port.sent[-1][0] - started_s == pytest.approx(0.1, abs=0.02)


async def test_matched_replies_need_no_silence_after_a_timeout_without_a_byte(line, port):
    port.expect(b"a\n")
    port.expect(b"b\n", b"B\n")
    with pytest.raises(NoReply):
        await line.ask(b"a\n", until_lf, timeout_s=0.5, matched=True)
    await line.ask(b"b\n", until_lf, timeout_s=0.5, matched=True)
    assert port.sent[1][0] - port.sent[0][0] == pytest.approx(0.5)


async def test_matched_replies_need_it_if_half_a_reply_came(line, port):
    port.expect(b"a\n", b"A")
    port.expect(b"b\n", b"B\n")
    with pytest.raises(NoReply):
        await line.ask(b"a\n", until_lf, timeout_s=0.5, matched=True)
    await line.ask(b"b\n", until_lf, timeout_s=0.5, matched=True)
    assert port.sent[1][0] - port.sent[0][0] == pytest.approx(1.05)


async def test_bad_reply_goes_to_the_caller_and_a_quiet_time_follows(line, port):
    def bad(buffer):
        raise BadReply("checksum", reply=buffer)

    port.expect(b"a\n", (0.01, b"A"), (0.04, b"rest"))
    port.expect(b"b\n", b"B\n")
    with pytest.raises(BadReply):
        await line.ask(b"a\n", bad, timeout_s=0.5)
    assert await line.ask(b"b\n", until_lf, timeout_s=0.5) == b"B\n"
    assert port.sent[1][0] - port.sent[0][0] == pytest.approx(0.04 + 0.05)
    assert (line.stats.bad_replies, line.stats.drained_bytes) == (1, 4)


async def test_a_refusal_is_a_reply_and_costs_no_waiting(line, port):
    def refuse(buffer):
        raise Refused("no", reply=buffer)

    port.expect(b"a\n", (0.01, b"no\n"))
    port.expect(b"b\n", b"B\n")
    with pytest.raises(Refused):
        await line.ask(b"a\n", refuse, timeout_s=0.5)
    await line.ask(b"b\n", until_lf, timeout_s=0.5)
    assert port.sent[1][0] - port.sent[0][0] == pytest.approx(0.01)
    assert (line.stats.replies, line.stats.bad_replies) == (2, 0)


async def test_silence_between_frames(line, port, clock):
    port.character_s = 0.001
    port.expect(b"12345678", (0.020, b"A\n"))
    port.expect(b"b\n", b"B\n")
    await line.ask(b"12345678", until_lf, timeout_s=0.5, silence_s=0.0035)
    await line.ask(b"b\n", until_lf, timeout_s=0.5, silence_s=0.0035)
    assert port.sent[1][0] - port.sent[0][0] == pytest.approx(0.0235)


async def test_silence_begins_when_the_last_character_has_left(line, port):
    port.character_s = 0.001
    port.expect(b"12345678")
    port.expect(b"b\n", b"B\n")
    await line.send(b"12345678")
    await line.ask(b"b\n", until_lf, timeout_s=0.5, silence_s=0.0035)
    assert port.sent[1][0] - port.sent[0][0] == pytest.approx(0.0115)


async def test_silence_starts_again_with_every_byte(line, port, clock):
    clock.time_s += 1.0
    port.arrive(b"x")
    port.arrive(b"y", 0.003)
    port.expect(b"a\n", b"A\n")
    await line.ask(b"a\n", until_lf, timeout_s=0.5, silence_s=0.004)
    assert port.sent[0][0] == pytest.approx(1001.007)
    assert line.stats.drained_bytes == 2


async def test_one_exchange_at_a_time_in_order_of_asking(line, port):
    for name in (b"a", b"b", b"c"):
        port.expect(name, (0.01, name.upper() + b"\n"))
    answers = await asyncio.gather(*(line.ask(name, until_lf, timeout_s=0.5) for name in (b"a", b"b", b"c")))
    assert answers == [b"A\n", b"B\n", b"C\n"]
    assert [round(at_s - 1000.0, 6) for at_s, _ in port.sent] == [0.0, 0.01, 0.02]


async def test_urgent_goes_before_those_who_queue(line, port):
    for name in (b"a", b"off", b"safe", b"b"):
        port.expect(name, (0.01, name.upper() + b"\n"))
    await asyncio.gather(
        line.ask(b"a", until_lf, timeout_s=0.5),
        line.ask(b"b", until_lf, timeout_s=0.5),
        line.ask(b"off", until_lf, timeout_s=0.5, urgent=True),
        line.ask(b"safe", until_lf, timeout_s=0.5, urgent=True),
    )


async def test_interrupt_ends_the_exchange_in_flight_and_the_urgent_one_goes_next(line, port):
    port.stuck = True
    port.expect(b"slow\n")
    port.expect(b"off\n", (0.01, b"ok\n"))
    port.expect(b"queued\n", (0.01, b"Q\n"))
    slow = asyncio.create_task(line.ask(b"slow\n", until_lf, timeout_s=60.0, device="heater"))
    queued = asyncio.create_task(line.ask(b"queued\n", until_lf, timeout_s=1.0))
    for _ in range(10):
        await asyncio.sleep(0)
    port.stuck = False
    line.interrupt()
    line.interrupt()  # once more does no harm
    async with asyncio.timeout(1.0):
        assert await line.ask(b"off\n", until_lf, timeout_s=0.5, urgent=True) == b"ok\n"
        with pytest.raises(Interrupted, match="heater: line fake interrupted after sending") as error:
            await slow
        assert await queued == b"Q\n"
    assert error.value.request == b"slow\n"
    assert port.sent[1][0] - port.sent[0][0] == pytest.approx(0.05)  # the quiet time, nothing longer
    assert line.stats.interrupted == 1
    assert line.stats.timeouts == 0


async def test_after_an_interrupt_the_reply_in_flight_is_drained_and_shortens_the_wait(line, port):
    port.stuck = True
    port.expect(b"slow\n")
    port.expect(b"off\n", (0.01, b"ok\n"))
    slow = asyncio.create_task(line.ask(b"slow\n", until_lf, timeout_s=60.0))
    for _ in range(10):
        await asyncio.sleep(0)
    line.interrupt()
    port.arrive(b"SLOW\n", 0.02)
    assert await line.ask(b"off\n", until_lf, timeout_s=0.5, urgent=True) == b"ok\n"
    with pytest.raises(Interrupted):
        await slow
    assert port.sent[1][0] - port.sent[0][0] == pytest.approx(0.02)
    assert line.stats.drained_bytes == 5


async def test_an_urgent_exchange_is_not_interrupted(line, port):
    port.expect(b"off 1\n", (0.02, b"ok\n"))
    port.expect(b"off 2\n", (0.02, b"ok\n"))
    first = asyncio.create_task(line.ask(b"off 1\n", until_lf, timeout_s=0.5, urgent=True))
    await asyncio.sleep(0)
    line.interrupt()
    assert await line.ask(b"off 2\n", until_lf, timeout_s=0.5, urgent=True) == b"ok\n"
    assert await first == b"ok\n"
    assert line.stats.interrupted == 0


async def test_closing_ends_an_urgent_exchange_too(line, port):
    port.stuck = True
    port.expect(b"off\n")
    first = asyncio.create_task(line.ask(b"off\n", until_lf, timeout_s=60.0, urgent=True))
    for _ in range(10):
        await asyncio.sleep(0)
    await line.close()
    with pytest.raises(NoReply):
        await first


async def test_nobody_gets_between_the_requests_of_a_reserved_line(line, port, clock):
    """A silent neighbour on the same pair would cost its time-out after each of them."""
    for request in (b"1\n", b"2\n", b"3\n"):
        port.expect(request, b"ok\n")
    port.expect(b"neighbour\n")
    neighbour = asyncio.create_task(line.ask(b"neighbour\n", until_lf, timeout_s=0.3))
    async with line.reserved():
        began_s = clock.time_s
        for request in (b"1\n", b"2\n", b"3\n"):
            await line.ask(request, until_lf, timeout_s=0.3, urgent=True)
            await asyncio.sleep(0)  # here it would go
        assert clock.time_s - began_s < 0.1
    with pytest.raises(NoReply):
        await neighbour
    assert [sent for _, sent in port.sent] == [b"1\n", b"2\n", b"3\n", b"neighbour\n"]


async def test_one_that_queued_before_the_line_was_reserved_waits_too(line, port):
    port.expect(b"first\n", (0.05, b"ok\n"))
    port.expect(b"urgent\n", b"ok\n")
    port.expect(b"second\n", b"ok\n")
    first = asyncio.create_task(line.ask(b"first\n", until_lf, timeout_s=0.3))
    await asyncio.sleep(0)
    second = asyncio.create_task(line.ask(b"second\n", until_lf, timeout_s=0.3))
    await asyncio.sleep(0)
    async with line.reserved():
        await first
        for _ in range(5):
            await asyncio.sleep(0)
        assert await line.ask(b"urgent\n", until_lf, timeout_s=0.3, urgent=True) == b"ok\n"
        assert not second.done()
    assert await second == b"ok\n"
    assert [sent for _, sent in port.sent] == [b"first\n", b"urgent\n", b"second\n"]


async def test_interrupt_before_sending_says_so(line, port, clock):
    port.expect(b"a\n")
    port.expect(b"off\n", b"ok\n")
    with pytest.raises(NoReply):
        await line.ask(b"a\n", until_lf, timeout_s=0.5)
    port.stuck = True
    waiting = asyncio.create_task(line.ask(b"b\n", until_lf, timeout_s=0.5))
    for _ in range(10):
        await asyncio.sleep(0)
    line.interrupt()
    with pytest.raises(Interrupted, match="interrupted before sending"):
        await waiting
    port.stuck = False
    assert await line.ask(b"off\n", until_lf, timeout_s=0.5, urgent=True) == b"ok\n"


async def test_interrupt_of_an_idle_line_does_nothing(line, port):
    port.expect(b"a\n", b"A\n")
    line.interrupt()
    assert await line.ask(b"a\n", until_lf, timeout_s=0.5) == b"A\n"
    assert line.stats.interrupted == 0


async def test_a_cancelled_caller_leaves_the_line_in_order(line, port):
    port.stuck = True
    port.expect(b"a\n")
    port.expect(b"b\n", b"B\n")
    task = asyncio.create_task(line.ask(b"a\n", until_lf, timeout_s=0.5))
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    port.stuck = False
    port.arrive(b"A\n", 0.1)
    assert await line.ask(b"b\n", until_lf, timeout_s=0.5) == b"B\n"
    assert port.sent[1][0] - port.sent[0][0] == pytest.approx(0.1)


async def test_cancelled_while_queueing_does_not_block_the_others(line, port):
    port.expect(b"a\n", b"A\n")
    port.expect(b"c\n", b"C\n")
    first = asyncio.create_task(line.ask(b"a\n", until_lf, timeout_s=0.5))
    second = asyncio.create_task(line.ask(b"b\n", until_lf, timeout_s=0.5))
    third = asyncio.create_task(line.ask(b"c\n", until_lf, timeout_s=0.5))
    await asyncio.sleep(0)
    second.cancel()
    assert await first == b"A\n"
    assert await third == b"C\n"


async def test_cancelled_in_the_moment_of_its_turn_hands_it_over(line, port):
    port.expect(b"a\n", b"A\n")
    port.expect(b"c\n", b"C\n")
    second = None

    def parse(buffer):
        asyncio.get_running_loop().call_soon(second.cancel)  # after the turn has been handed to it
        return buffer

    first = asyncio.create_task(line.ask(b"a\n", parse, timeout_s=0.5))
    second = asyncio.create_task(line.ask(b"b\n", until_lf, timeout_s=0.5))
    third = asyncio.create_task(line.ask(b"c\n", until_lf, timeout_s=0.5))
    assert await first == b"A\n"
    assert await third == b"C\n"
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_trace_tells_direction_bytes_and_time(clock, port):
    seen = []
    line = Line("fake", port, monotonic=clock, trace=lambda *what: seen.append(what))
    await line.open()
    port.arrive(b"old")
    port.expect(b"a\n", (0.01, b"A"), (0.02, b"\n"))
    await line.ask(b"a\n", until_lf, timeout_s=0.5)
    assert seen == [
        ("opened", b"/dev/fake", 1000.0),
        ("drained", b"old", 1000.0),
        ("sent", b"a\n", 1000.0),
        ("received", b"A", pytest.approx(1000.01)),
        ("received", b"\n", pytest.approx(1000.02)),
    ]


async def test_datagrams_keep_their_boundaries(line, port):
    port.expect(b"?", (0.01, b"head"), (0.01, b"tail"))
    parse = lambda chunks: list(chunks) if len(chunks) == 2 else None  # noqa: E731
    assert await line.ask_datagrams(b"?", parse, timeout_s=0.5) == [b"head", b"tail"]


async def test_datagram_port_takes_a_fresh_socket_after_a_timeout_and_waits_for_nothing(clock, port):
    reopened = []

    async def reopen():
        reopened.append(clock.time_s)
        port.coming.clear()

    port.reopen = reopen
    line = Line("udp", port, monotonic=clock)
    await line.open()
    port.expect(b"a", (0.7, b"late\n"))
    port.expect(b"b", b"B\n")
    with pytest.raises(NoReply):
        await line.ask(b"a", until_lf, timeout_s=0.5)
    assert await line.ask(b"b", until_lf, timeout_s=0.5) == b"B\n"
    assert reopened == [1000.5]
    assert port.sent[1][0] == pytest.approx(1000.5)


# Lost ports


async def test_a_lost_port_is_no_reply_and_named(line, port):
    port.expect(b"a\n", PortLost("/dev/fake: Input/output error"))
    with pytest.raises(NoReply, match="heater: link lost: /dev/fake: Input/output error"):
        await line.ask(b"a\n", until_lf, timeout_s=0.5, device="heater")


async def test_the_next_request_after_a_loss_opens_the_port_once_and_is_sent(line, port, clock):
    clock.time_s += 10.0
    port.expect(b"a\n", PortLost("gone"))
    port.expect(b"b\n", b"B\n")
    with pytest.raises(NoReply, match="link lost"):
        await line.ask(b"a\n", until_lf, timeout_s=0.5)
    assert await line.ask(b"b\n", until_lf, timeout_s=0.5) == b"B\n"
    assert port.openings == 2
    assert line.openings == 2  # the driver sees that it must prepare again


async def test_a_loss_nobody_noticed_is_repaired_before_sending(line, port, clock):
    clock.time_s += 10.0
    port.lost = "reset"
    port.expect(b"a\n", b"A\n")
    assert await line.ask(b"a\n", until_lf, timeout_s=0.5) == b"A\n"
    assert port.openings == 2


async def test_reopening_is_rate_limited_and_an_urgent_request_is_not(line, port, clock):
    clock.time_s += 10.0
    port.lost = "unplugged"
    port.open_errors.extend([PortLost("no such device")] * 3)
    with pytest.raises(NoReply, match="cannot open line fake: no such device"):
        await line.ask(b"a\n", until_lf, timeout_s=0.5)
    clock.time_s += 0.4
    with pytest.raises(NoReply, match=r"link lost: no such device; next attempt in 0\.6 s"):
        await line.ask(b"a\n", until_lf, timeout_s=0.5)
    assert len(port.open_errors) == 2
    with pytest.raises(NoReply, match="cannot open"):
        await line.ask(b"a\n", until_lf, timeout_s=0.5, urgent=True)
    assert len(port.open_errors) == 1
    clock.time_s += 1.0
    with pytest.raises(NoReply, match="cannot open"):
        await line.ask(b"a\n", until_lf, timeout_s=0.5)
    clock.time_s += 1.0
    port.expect(b"a\n", b"A\n")
    assert await line.ask(b"a\n", until_lf, timeout_s=0.5) == b"A\n"


async def test_a_connection_that_says_nothing_is_left_for_a_new_one(line, port, clock):
    """Half-open TCP: the other end has forgotten us, and no packet tells."""
    port.may_be_half_open = True
    clock.time_s += 10.0
    for _ in range(3):
        port.expect(b"a\n")
    port.expect(b"a\n", b"A\n")
    with pytest.raises(NoReply, match="no reply on line fake"):
        await line.ask(b"a\n", until_lf, timeout_s=0.5, matched=True)
    assert (port.openings, line.openings) == (1, 1)
    for _ in range(2):  # a device that is silent is not connected to more often than once a second
        with pytest.raises(NoReply, match="no reply on line fake"):
            await line.ask(b"a\n", until_lf, timeout_s=0.5, matched=True)
        assert line.openings == 2
    assert await line.ask(b"a\n", until_lf, timeout_s=0.5, matched=True) == b"A\n"
    assert line.openings == 3


async def test_a_serial_line_that_says_nothing_is_not_opened_again(line, port, clock):
    clock.time_s += 10.0
    port.expect(b"a\n")
    port.expect(b"a\n", b"A\n")
    with pytest.raises(NoReply):
        await line.ask(b"a\n", until_lf, timeout_s=0.5)
    assert await line.ask(b"a\n", until_lf, timeout_s=0.5) == b"A\n"
    assert line.openings == 1


async def test_open_that_hangs_is_bounded(clock, port):
    async def hang():
        await asyncio.Event().wait()

    port.open = hang
    line = Line("fake", port, monotonic=clock)
    with pytest.raises(NoReply, match="not open in time"):
        await line.ask(b"a\n", until_lf, timeout_s=0.01)


async def test_a_closed_line_says_so_and_ends_the_exchange_in_flight(line, port):
    port.stuck = True
    port.expect(b"a\n")
    task = asyncio.create_task(line.ask(b"a\n", until_lf, timeout_s=60.0))
    for _ in range(10):
        await asyncio.sleep(0)
    await line.close()
    with pytest.raises(NoReply):
        await task
    with pytest.raises(NoReply, match="line fake is closed"):
        await line.ask(b"a\n", until_lf, timeout_s=0.5)
    assert port.openings == 1


async def test_a_line_opens_itself_when_first_asked(clock, port):
    port.expect(b"a\n", b"A\n")
    assert await Line("fake", port, monotonic=clock).ask(b"a\n", until_lf, timeout_s=0.5) == b"A\n"


# Push protocols


async def test_read_line_splits_and_keeps_the_rest(line, port):
    port.arrive(b"e\nM0007\nPda")
    port.arrive(b"8000000 \n\n", 0.02)
    lines = [await line.read_line(0.1) for _ in range(4)]
    assert lines == [b"e\n", b"M0007\n", b"Pda8000000 \n", b"\n"]
    assert line.stats.replies == 4


async def test_the_beginning_of_a_line_survives_a_timeout(line, port):
    port.arrive(b"Pda")
    port.arrive(b"8\n", 0.2)
    with pytest.raises(NoReply) as error:
        await line.read_line(0.1)
    assert error.value.reply == b"Pda"
    assert await line.read_line(0.2) == b"Pda8\n"


async def test_send_while_somebody_listens(line, port):
    port.expect(b"Z\n", (0.01, b"Z\n"))
    port.stuck = True
    listening = asyncio.create_task(line.read_line(60.0))
    await asyncio.sleep(0)
    await line.send(b"Z\n")
    port.stuck = False
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
    assert await line.read_line(0.1) == b"Z\n"
    assert line.stats.requests == 1


async def test_interrupt_ends_listening(line, port):
    port.stuck = True
    listening = asyncio.create_task(line.read_line(60.0, device="cell"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    line.interrupt()
    with pytest.raises(Interrupted, match=r"cell: line fake interrupted$"):
        await listening


async def test_drain_counts_what_it_throws_away(line, port):
    port.arrive(b"a\nrest")
    assert await line.read_line(0.1) == b"a\n"
    port.arrive(b"more")
    assert line.drain() == 8
    assert line.drain() == 0
    assert line.stats.drained_bytes == 8


async def test_ask_throws_away_the_rest_of_a_text_line(line, port):
    port.arrive(b"a\nrest")
    await line.read_line(0.1)
    port.expect(b"t\n", b"tespico\n")
    assert await line.ask(b"t\n", until_lf, timeout_s=0.5) == b"tespico\n"
    assert line.stats.drained_bytes == 4


async def test_endless_line_is_a_bad_reply(line, port):
    port.arrive(b"x" * 70000)
    with pytest.raises(BadReply, match="without LF"):
        await line.read_line(0.1)
    assert line.stats.bad_replies == 1


async def test_listening_on_a_lost_link_and_sending_that_repairs_it(line, port, clock):
    clock.time_s += 10.0
    port.arrive(b"half")
    port.coming.append((clock.time_s, PortLost("hang-up")))
    with pytest.raises(NoReply, match="link lost: hang-up"):
        await line.read_line(0.1)
    with pytest.raises(NoReply, match="link lost: hang-up"):
        await line.read_line(0.1)
    port.expect(b"\n", b"Z\n")
    await line.send(b"\n")
    assert await line.read_line(0.1) == b"Z\n"
    assert port.openings == 2


async def test_sending_into_a_lost_link(line, port):
    port.lost = "hang-up"
    with pytest.raises(NoReply, match="cell: link lost: hang-up"):
        await line.send(b"\n", device="cell")


async def test_what_is_lost_and_opened_again_is_counted_and_traced(clock, port):
    seen = []
    line = Line("fake", port, monotonic=clock, trace=lambda *what: seen.append(what[:2]), reopen_every_s=0.0)
    await line.open()
    port.expect(b"a\n", (0.01, PortLost("/dev/fake: unplugged")))
    port.expect(b"b\n", (0.02, b"B\n"))
    with pytest.raises(NoReply, match="unplugged"):
        await line.ask(b"a\n", until_lf, timeout_s=0.5)
    await line.ask(b"b\n", until_lf, timeout_s=0.5)
    told = line.stats.as_dict()
    assert (told["openings"], told["reopenings"], told["losses"], told["errors"]) == (2, 1, 1, 1)
    assert (told["sent_bytes"], told["received_bytes"]) == (4, 2)
    assert [what for what in seen if what[0] in ("opened", "lost")] == [
        ("opened", b"/dev/fake"),
        ("lost", b"/dev/fake: unplugged"),
        ("opened", b"/dev/fake"),
    ]


async def test_a_command_that_is_answered_by_a_line_of_text_is_timed_and_a_missing_one_counted(
    line, port, clock
):
    port.expect(b"t\n", (0.02, b"tespico1\n"))
    await line.send(b"t\n")
    await line.read_line(0.5)
    assert line.stats.latency_max_s == pytest.approx(0.02)
    port.expect(b"i\n")
    await line.send(b"i\n")
    for expected in (1, 1):  # the second time nothing is owed any more: a quiet script is no error
        with pytest.raises(NoReply):
            await line.read_line(0.1)
        assert line.stats.timeouts == expected
