"""Steps that talk to the operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.config.steps import Message
    from controller.steps.context import Context


async def message(context: Context, step: Message) -> str:
    """Tell the operator something; with ``wait``, hold until it is answered (``operando proceed``)."""
    context.recorder.line(f"MESSAGE: {step.text}")
    if not step.wait:
        return "told"
    question = {"text": step.text, "answer": "operando proceed"}
    await context.recorder.event("question", "sequence", question, topic="question/message", retain=True)
    context.hold()
    answered = await _answered(context, step.timeout_s)
    await context.recorder.event("answer", "sequence", {}, topic="question/message", retain=True, payload=b"")
    if answered:
        return "stopped early" if context.finishing else "answered"
    context.release()
    return context.host.sequence.timed_out(step, f"no answer after {step.timeout_s:g} s: {step.text}")


async def _answered(context: Context, timeout_s: float | None) -> bool:
    """Wait for the answer: the run is held meanwhile, but this time counts."""
    deadline_s = None if timeout_s is None else context.clock.now_s() + timeout_s
    while context.paused:
        if deadline_s is not None and context.clock.now_s() >= deadline_s:
            return False
        await context.clock.sleep(0.5)
    return True
