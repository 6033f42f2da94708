"""What the guard watches, in plain words with its limits, for those who look on. It decides nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from controller.guard_types import GuardRules, InterlockRow

STALE_PERIODS = 3
SAFE = "everything off"
WORDS = {
    "safe": SAFE, "open_circuit": "cell to open circuit", "heater_off": "heater off",
    "hold": "the run is held, beam blanked", "blank": "beam blanked",
    "shutter": "beam blanked, shutter closed",
}  # fmt: skip
TOPIC_OF = {
    "io.beam_current": "beam/current"
}  # the guard's name of a reading -> its state, where they differ


def rules_told(rules: GuardRules, roles: Collection[str]) -> list[dict[str, Any]]:
    """Return the guard's rules with limits.

    Args:
        rules: its own.
        roles: of the station: a rule about what is not there is not told.
    """
    found = []
    if "heater" in roles:
        low_k, high_k = rules.temperature_low_k, rules.temperature_high_k
        rate = rules.temperature_rate_k_per_s
        found += [
            _rule("heater-temperature", f"the holder stays between {low_k:.1f} K and {high_k:.1f} K",
                  "heater/temperature", low_k, high_k, "K"),
            _rule("heater-rate", f"it changes by no more than {rate:g} K/s", "", None, rate, "K/s"),
            _rule("heater-power", "its temperature is what the power given explains", "", None, None, "K"),
            _rule("heater-stalled", "it warms when power is given", "", None, None, "K"),
            _rule("heater-sensor", "its sensor gives valid values that move", "", None, None, "K"),
        ]  # fmt: skip
    if "cell" in roles:
        low_v, high_v, most_a = rules.voltage_low_v, rules.voltage_high_v, rules.current_a
        most_c = rules.charge_coulomb
        found += [
            _rule("cell-voltage", f"the cell stays between {low_v:g} V and {high_v:g} V",
                  "cell/voltage", low_v, high_v, "V", "open_circuit"),
            _rule("cell-current", f"its current stays within {most_a:.4g} A",
                  "cell/current", -most_a, most_a, "A", "open_circuit"),
            _rule("cell-charge", f"no more than {most_c:.4g} C pass through it",
                  "cell/charge", -most_c, most_c, "C", "open_circuit"),
            _rule("cell-short", "its voltage does not collapse", "", None, None, "V"),
        ]  # fmt: skip
    for name, period_s in rules.period_s.items():
        limit_s = STALE_PERIODS * period_s
        action = "open_circuit" if name == "cell" else "safe"
        found.append(
            _rule(f"{name}-stale", f"the {name} is read every {limit_s:g} s", "", None, limit_s, "s", action)
        )
    if "io" in roles:
        found.append(_rule("permit", "the emergency stop is not pressed", "beam/permit", None, None, ""))
    if rules.watch_shutter:
        found.append(
            _rule("shutter-stuck", "the shutter is where it was sent", "", None, None, "", "shutter")
        )
    if rules.stage:
        within_um = rules.stage_within_um
        text = "the stage stays where it was left"
        found.append(_rule("stage-displaced", text, "", None, within_um, "um", "shutter"))
    return found


def inputs_told(
    rows: Sequence[InterlockRow], values: Mapping[str, float | bool | None]
) -> list[dict[str, Any]]:
    """Return the interlock rows and whether each is met now; None where an input is not known."""
    return [
        {
            "name": row.name, "text": row.text, "action": WORDS[row.action.value], "latch": row.latch,
            "grace_s": row.grace_s, "met": row.condition.holds(values),
            "channels": [_state_of(channel) for channel in sorted(row.condition.channels)],
            "acknowledge": row.acknowledge,
        }
        for row in rows
    ]  # fmt: skip


def _state_of(channel: str) -> str:
    """Return the state that shows a reading of the guard."""
    known = TOPIC_OF.get(channel)
    if known is not None:
        return known
    module, _, name = channel.partition(".")
    return f"{'beam' if module == 'io' else module}/{name}"


def _rule(
    id_: str, text: str, channel: str, low: float | None, high: float | None, unit: str, action: str = "safe"
) -> dict[str, Any]:
    return {
        "id": id_, "text": text, "channel": channel, "low": low, "high": high, "unit": unit,
        "action": WORDS[action],
    }  # fmt: skip
