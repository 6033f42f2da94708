"""Steps of the heater: heat, cool, hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.config.steps import Cool, Heat, Hold
    from controller.steps.context import Context

POLL_S = 0.5  # lab seconds between two looks at the temperature
RETURN_BAND_K = 0.5


async def heat(context: Context, step: Heat) -> str:
    """Heat at a limited ramp and wait until every reading of ``stable`` was inside the band."""
    await context.heating.heat(step.to_k, ramp_k_per_s=step.ramp_k_per_s)
    while not context.heating.stable(step.to_k, step.within_k, step.stable_s):
        if context.finishing:
            return "stopped early"
        await context.sleep(POLL_S)
    return f"stable at {context.heating.temperature_k():.1f} K"


async def cool(context: Context, step: Cool) -> str:
    """Cool passively with the heater off, or along a falling set-point; ends once inside the band."""
    if step.ramp_k_per_s is None:
        await context.heating.off()
    else:
        await context.heating.heat(step.to_k, ramp_k_per_s=step.ramp_k_per_s)
    while True:
        now_k = context.heating.temperature_k()
        if now_k is not None and now_k <= step.to_k + step.within_k:
            return f"cooled to {now_k:.1f} K"
        if context.finishing:
            return "stopped early"
        await context.sleep(POLL_S)


async def hold(context: Context, step: Hold) -> str:
    """Keep everything as it is for a while."""
    await context.sleep(step.duration_s)
    return "duration"
