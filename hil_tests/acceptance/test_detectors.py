"""Detectors and stage: counters that count, clocks that run, positions that hold."""

from __future__ import annotations

import pytest

from hil_tests.acceptance.subject import Measure, Subject

pytestmark = pytest.mark.asyncio(loop_scope="module")

COUNTING_LAB_S = 5.0


@pytest.mark.parametrize("role", ["pixe", "pige"])
async def test_counters(subject: Subject, measure: Measure, role: str) -> None:
    """List mode is on, counting starts and stops, and its clock agrees with ours."""
    detector, name = await subject.role(role), subject.name_of(role)
    await detector.clear()
    began_s = subject.clock.now_s()
    await detector.start()
    try:
        await subject.clock.sleep(COUNTING_LAB_S)
        status = await detector.status()
        words = await detector.read_words()
    finally:
        await detector.off()
    took_s = subject.clock.now_s() - began_s
    measure("list mode", status.list_mode, device=name, good=status.list_mode)
    measure("counts while it is on", status.mca_enabled, device=name, good=status.mca_enabled)
    measure("its time", status.real_s, "s", low=0.7 * took_s, high=1.02 * took_s, device=name,
            reason=f"{took_s:.2f} s by this computer, start and stop included")  # fmt: skip
    measure("counts in the spectrum", status.slow_counts, device=name)
    measure("counts in the fast channel, not fewer", status.fast_counts, low=status.slow_counts, device=name)
    measure("words in the list", len(words.words) // 4, device=name)
    measure("the list kept up", not words.overflow, device=name, good=not words.overflow)
    measure("counts after it was stopped", (await detector.status()).mca_enabled, device=name,
            good=not (await detector.status()).mca_enabled)  # fmt: skip
    if status.temperature_k is not None:
        measure("detector temperature", status.temperature_k, "K", device=name)
    if status.high_voltage_v is not None:
        measure("high voltage", status.high_voltage_v, "V", device=name)
    for problem in status.problems:
        measure("reports", problem, device=name)


@pytest.mark.parametrize("role", ["compton", "radiography"])
async def test_frames(subject: Subject, measure: Measure, role: str) -> None:
    """A frame detector answers and does not count at rest."""
    detector, name = await subject.role(role), subject.name_of(role)
    status = await detector.status()
    for problem in status.problems:
        measure("reports", problem, device=name)
    measure("answers", True, device=name, good=True)


async def test_stage(subject: Subject, measure: Measure) -> None:
    """The stage stands still at rest, and stops when it is told to."""
    stage, name = await subject.role("stage"), subject.name_of("stage")
    await stage.stop()
    first = await stage.read()
    await subject.clock.sleep(0.5)
    second = await stage.read()
    measure("moves at rest", second.moving, device=name, good=not second.moving)
    if first.position_um is None or second.position_um is None:
        pytest.skip(f"{name} is not homed: its position is not known, and homing moves it")
    drift_um = max(abs(a - b) for a, b in zip(first.position_um, second.position_um, strict=True))
    measure("drift in half a second", drift_um, "um", high=1.0, device=name)
