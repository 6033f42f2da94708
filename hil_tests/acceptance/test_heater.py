"""The heater: plausible and quiet, off in time, and a step of less than 2 K."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

import pytest

from drivers.errors import NoReply
from hil_tests.acceptance.subject import Measure, Subject

pytestmark = pytest.mark.asyncio(loop_scope="module")

READS = 10
PLAUSIBLE_K = 253.0, 343.0  # of a holder at rest in a hall
NOISE_K = 0.2
STEP_K, WARMER_K, OVERSHOOT_K = 1.5, 0.5, 2.0
STEP_LAB_S = 300.0
FEED_WALL_S = 0.1
MISSED = 3  # replies in a row


async def test_reading(subject: Subject, measure: Measure) -> None:
    """The temperature is plausible and quiet, and nothing heats."""
    heater, name = await subject.role("heater"), subject.name_of("heater")
    readings = []
    for _ in range(READS):
        readings.append(await heater.read())
        await subject.clock.sleep(subject.period_s(name))
    known = [r.temperature_k for r in readings if r.temperature_k is not None]
    measure("valid readings", len(known), low=READS, device=name)
    if len(known) > 1:
        low, high = PLAUSIBLE_K
        measure("temperature", statistics.fmean(known), "K", low=low, high=high, device=name)
        measure("noise, one sigma", statistics.stdev(known), "K", high=NOISE_K, device=name)
    output = max(abs(r.output_fraction) for r in readings)
    measure("output at rest", 100.0 * output, "%", high=0.05, device=name)
    for problem in {word for r in readings for word in r.problems}:
        measure("reports", problem, device=name)


async def test_off(subject: Subject, measure: Measure) -> None:
    """Off is confirmed in time."""
    heater, name = await subject.role("heater"), subject.name_of("heater")
    began_s = time.monotonic()
    await heater.off()
    measure("off, confirmed, after", time.monotonic() - began_s, "s", high=subject.at_most(2.0), device=name)


async def test_small_step(subject: Subject, measure: Measure) -> None:
    """A step of 1.5 K warms, does not run away, and ends when it is told to."""
    name = subject.name_of("heater")
    subject.energising("the heater, by 1.5 K")
    heater, io = await subject.role("heater"), await subject.role("io")
    before = (await heater.read()).temperature_k
    if before is None:
        pytest.fail("no valid temperature to begin with", pytrace=False)
    high_k = subject.station.limits.temperature.high_k
    if before + OVERSHOOT_K > high_k:
        pytest.skip(f"at {before:.1f} K a step would come near the station's limit of {high_k:g} K")
    feeding = asyncio.create_task(_feed(io))
    try:
        await io.set_relay(closed=True)
        await heater.set_target_k(before)  # a ramp begins where the set-point was: far below, at rest
        await heater.set_ramp_k_per_min(60.0 * min(subject.station.limits.temperature_rate_k_per_s, 0.1))
        await heater.set_target_k(before + STEP_K)
        highest_k, took_s = await _follow(subject, heater, before)
    finally:
        feeding.cancel()  # first: from here on the watchdog opens the relay, whatever fails
        await asyncio.gather(heater.off(), io.off())
        await asyncio.gather(feeding, return_exceptions=True)
    rose_k = highest_k - before
    measure("warmer by", rose_k, "K", low=WARMER_K, high=OVERSHOOT_K, device=name,
            reason=f"asked for {STEP_K} K, followed for {took_s:.0f} s")  # fmt: skip
    after = await heater.read()
    measure("output after off", 100.0 * abs(after.output_fraction), "%", high=0.05, device=name)
    measure("relay open after off", not (await io.read()).relay_closed, device=subject.name_of("io"),
            good=not (await io.read()).relay_closed)  # fmt: skip


async def _feed(io: Any) -> None:
    while True:
        await io.feed_watchdog()
        await asyncio.sleep(FEED_WALL_S)


async def _follow(subject: Subject, heater: Any, before: float) -> tuple[float, float]:
    """Watch until it is clearly warmer, or too late; return the highest temperature and lab seconds."""
    began_s, highest_k, missed = subject.clock.now_s(), before, 0
    while subject.clock.now_s() - began_s < STEP_LAB_S:
        try:
            now_k = (await heater.read()).temperature_k
        except NoReply:  # one lost reply is the line's affair; its error counters tell of it
            missed += 1
            if missed > MISSED:
                raise
            continue
        missed = 0
        if now_k is None:
            pytest.fail("the sensor was lost while heating", pytrace=False)
        highest_k = max(highest_k, now_k)
        if highest_k - before > WARMER_K:
            break
        await asyncio.sleep(FEED_WALL_S)
    return highest_k, subject.clock.now_s() - began_s
