"""Steps that talk to the operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.questions import USUAL

if TYPE_CHECKING:
    from controller.config.steps import Message
    from controller.steps.context import Context


async def message(context: Context, step: Message) -> str:
    """Tell the operator something; with ``wait``, hold until it is answered (``operando answer``)."""
    context.recorder.line(f"MESSAGE: {step.text}")
    if not step.wait or step.timeout_s is None:
        return "told"
    default = step.default or step.on_timeout
    asked = await context.host.questions.ask(
        step.text, step.choices or USUAL, default=default, timeout_s=step.timeout_s
    )
    if context.finishing:
        return "stopped early"
    if asked.late and step.default is None:
        text = f"no answer after {step.timeout_s:g} s: {step.text}"
        return await context.host.sequence.timed_out(step, text)
    told = f'answered "{asked.choice}" by {asked.by}'
    context.host.sequence.follow(asked.choice, f"{step.text}: {told}")
    return told
