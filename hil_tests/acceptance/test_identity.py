"""Who is there, and how fast and how well it answers."""

from __future__ import annotations

import time

import pytest

from hil_tests.acceptance.subject import Measure, Subject

pytestmark = pytest.mark.asyncio(loop_scope="module")

READS = 20


async def test_identity(subject: Subject, measure: Measure) -> None:
    """Every instrument says who it is, and reaches its safe state."""
    for name in subject.station.devices:
        began_s = time.monotonic()
        try:
            await subject.device(name)
        except Exception as error:  # one that fails must not hide the others
            measure("answers", False, device=name, good=False, reason=str(error))
            continue
        identity = subject.identities[name]
        measure("model", f"{identity.manufacturer} {identity.model}", device=name, good=True)
        measure("serial number", identity.serial or "not told", device=name)
        measure("firmware", identity.firmware or "not told", device=name)
        measure(
            "identified and safe within",
            time.monotonic() - began_s,
            "s",
            high=subject.at_most(15.0),
            device=name,
        )


async def test_notes(subject: Subject, measure: Measure) -> None:
    """What each instrument cannot guard itself, and what a person has confirmed."""
    from controller.stamps import confirmed_by_person

    for name in subject.identities:
        for note in subject.notes[name]:
            measure("note", "see remark", device=name, reason=note.removeprefix(f"{name}: "))
    for entry in confirmed_by_person(subject.station):
        told = f"{entry['what']} = {entry['setting']}"
        measure("confirmed by a person", told, device=entry["device"], reason=f"{entry['by']}, {entry['on']}")


@pytest.mark.parametrize("role", ["heater", "io", "pixe", "pige", "stage"])
async def test_latency(subject: Subject, measure: Measure, role: str) -> None:
    """Readings come within the period of their instrument."""
    device, name = await subject.role(role), subject.name_of(role)
    read = device.status if role in ("pixe", "pige") else device.read
    took_s = []
    for _ in range(READS):
        began_s = time.monotonic()
        await read()
        took_s.append(time.monotonic() - began_s)
    took_s.sort()
    period_ms = 1e3 * max(subject.period_s(name), 0.1)
    measure(
        "reading, half within", 1e3 * took_s[READS // 2], "ms", high=subject.at_most(period_ms), device=name
    )
    measure(
        f"reading, slowest of {READS}",
        1e3 * took_s[-1],
        "ms",
        high=subject.at_most(3.0 * period_ms),
        device=name,
    )


async def test_lines(subject: Subject, measure: Measure) -> None:
    """No reply was lost or damaged."""
    for name, line in subject.bench.lines.items():
        told = line.stats.as_dict()
        if told["requests"]:
            measure("requests", told["requests"], low=1, device=f"line {name}")
            measure("errors", told["errors"], high=subject.at_most(0), device=f"line {name}")
            measure("bytes thrown away unread", told["drained_bytes"], device=f"line {name}")
