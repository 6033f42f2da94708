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
    await context.running()
    await context.recorder.event("answer", "sequence", {}, topic="question/message", retain=True, payload=b"")
    return "answered"
