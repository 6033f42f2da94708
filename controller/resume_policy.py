"""Whether an interrupted run goes on by itself or a person is asked first; and its temperature again.

``[resume]`` of the experiment file says how long the interruption may have been and how far voltage and
temperature may have gone meanwhile. Within that it goes on; beyond it, or when the cell cannot be read, it
asks, and what nobody answers in time is left as it is: everything stays off, the run can be resumed later.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from controller.config.steps import Parallel, Repeat
from controller.questions import ABORT, CONTINUE
from controller.verdict import EXIT_ABORTED, Stopped
from drivers.errors import DriverError

if TYPE_CHECKING:
    from controller.config.resume import Resume
    from controller.config.steps import Step
    from controller.host import Host
    from controller.journal_read import Reads

LEAVE = "leave"  # the run stays interrupted: nothing is on, and it can be resumed later
WARM_UP_S = 5.0  # lab seconds to wait for a first reading of the temperature


@dataclass(frozen=True)
class Before:
    """What was known last before an interruption; None for what was not."""

    wall_s: float
    upto: int  # number of the last event before it
    voltage_v: float | None
    temperature_k: float | None


async def agree(host: Host) -> None:
    """Return when the run may go on. Raises Stopped when it is not to."""
    before = await host.journal.read(lambda reads: _before(reads, host.run_id))
    if before is None:
        return
    told = {"since": before.wall_s, "upto": before.upto}
    await host.recorder.event("interrupted", "host", told)
    reasons = await _reasons(host, before)
    if not reasons:
        return
    policy = host.experiment.resume
    asked = await host.questions.ask(
        f"The run was interrupted: {'; '.join(reasons)}. Go on with it?", (CONTINUE, LEAVE, ABORT),
        default=policy.otherwise, timeout_s=policy.answer_within_s,
    )  # fmt: skip
    if asked.choice == CONTINUE or host.sequence.context.finishing:
        return
    if asked.choice != ABORT:
        host.begun = False  # it is not taken up: it stays open in the index of runs
    text = "aborted" if asked.choice == ABORT else "left as it is, to be resumed later"
    raise Stopped(EXIT_ABORTED, f"after an interruption: {text} ({asked.by}); {'; '.join(reasons)}")


async def _reasons(host: Host, before: Before) -> list[str]:
    """Return why somebody should be asked, in words; nothing if the run may go on."""
    now_v: float | None = None
    trouble = ""
    if host.bench.cell is not None:
        try:
            now_v = await host.bench.cell.read_ocv()
        except DriverError as error:
            trouble = f"the cell's voltage cannot be read ({error})"
    until_s = host.clock.now_s() + WARM_UP_S
    while host.bench.heater is not None and host.heating.temperature_k() is None:
        if host.clock.now_s() > until_s:
            break
        await host.clock.sleep(0.1 * host.clock.speed)
    age_s = (time.time() - before.wall_s) * host.clock.speed
    found = beyond(host.experiment.resume, before, age_s, now_v, host.heating.temperature_k())
    return [*([trouble] if trouble else []), *found]


def beyond(
    policy: Resume, before: Before, age_s: float, voltage_v: float | None, temperature_k: float | None
) -> list[str]:
    """Return in words what is beyond the policy.

    Args:
        policy: of the experiment file.
        before: what was known last.
        age_s: of the interruption, lab seconds.
        voltage_v: of the open circuit, now.
        temperature_k: now.
    """
    found = []
    if age_s > policy.age_s:
        found.append(f"for {_span(age_s)}, more than {_span(policy.age_s)}")
    changes = (
        ("voltage", policy.voltage_change_v, before.voltage_v, voltage_v, "V", 3),
        ("temperature", policy.temperature_change_k, before.temperature_k, temperature_k, "K", 1),
    )
    for name, most, was, now, unit, digits in changes:
        if most is None or was is None:
            continue
        if now is None:
            found.append(f"the {name} is not known, which was {was:.{digits}f} {unit}")
        elif abs(now - was) > most:
            span = f"{was:.{digits}f} to {now:.{digits}f} {unit}"
            found.append(f"the {name} went from {span}, more than {most:g} {unit}")
    return found


def _before(reads: Reads, run: str) -> Before | None:
    """Return what the journal knows of a run from before this start of the host."""
    boots = list(reads.all_events(kind="boot"))
    if not boots:
        return None
    upto = boots[-1].seq
    waiting = reads.latest(run, "interrupted", "host", upto, 1)
    steps = reads.latest(run, "step", "sequence", upto, 1)
    if waiting and (not steps or waiting[0].seq > steps[0].seq):  # it was asked about, and left
        since, upto = float(waiting[0].body["since"]), int(waiting[0].body["upto"])
    else:
        last = reads.last_of(run, upto)
        if last is None:
            return None
        since = last.wall_s
    return Before(
        since, upto, _latest(reads, run, "cell", "voltage_v", upto),
        _latest(reads, run, "heater", "temperature_k", upto),
    )  # fmt: skip


def _latest(reads: Reads, run: str, module: str, name: str, upto: int) -> float | None:
    rows = reads.latest(run, "sample", module, upto, 1)
    value: Any = rows[0].body.get(name) if rows else None
    return None if value is None else float(value)


def warm_again(steps: Sequence[Step], done: int) -> tuple[int, Step] | None:
    """Return the step that had set the temperature in which an interrupted run goes on, None if none had.

    After an interruption the heater is off. Steps that heat inside an unfinished one are done again with it;
    this is about the finished steps before: the last of them that heated or cooled. What was off stays off.

    Args:
        steps: of the experiment.
        done: how many of them are finished.
    """
    if done >= len(steps) or steps[done].do in ("heat", "cool"):
        return None
    for index in reversed(range(done)):
        for step in reversed(list(_leaves(steps[index]))):
            if step.do == "heat" or (step.do == "cool" and step.ramp_k_per_s is not None):
                return index, step
            if step.do == "cool":
                return None
    return None


def _leaves(step: Step) -> list[Step]:
    if isinstance(step, Repeat | Parallel):
        return [leaf for inner in step.steps for leaf in _leaves(inner)]
    return [step]


def _span(seconds: float) -> str:
    """Return a time in words that people use."""
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"
