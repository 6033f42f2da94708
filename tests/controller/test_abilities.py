"""What the instrument itself lacks: told before a run, refused where a step needs it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from controller import abilities
from controller.config.steps import Charge, Impedance
from drivers.errors import Refused
from drivers.methodscript_models import CAPABILITIES

HR = CAPABILITIES["es4_hr"].abilities
NO_GEIS = "no galvanostatic impedance (GEIS) on this instrument: not licensed"
NO_EIS = "no impedance (EIS) on this instrument: unknown script command"
WINDOW = SimpleNamespace(voltage_low_v=2.5, voltage_high_v=4.05, current_a=40e-6)
SWEEP = {"do": "eis", "start": "10 kHz", "stop": "1 Hz", "points": 9, "timeout": "10 min"}
GEIS = Impedance.model_validate({**SWEEP, "mode": "galvanostatic", "current_amplitude": "2 uA"})
EIS = Impedance.model_validate(SWEEP)
CHARGE = Charge.model_validate(
    {"do": "charge", "current": "10 uA", "until": {"duration": "1 min"}, "timeout": "2 min"}
)


class Probed:
    name = "cell"

    def __init__(self, able: Any, *missing: str) -> None:
        self.found = able, list(missing)
        self.asked = 0

    async def probe(self) -> tuple[Any, list[str]]:
        self.asked += 1
        return self.found


@pytest.fixture(autouse=True)
def window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abilities, "effective_limits", lambda station, experiment: WINDOW)


def experiment(*steps: Any) -> Any:
    return SimpleNamespace(
        walk=lambda: [SimpleNamespace(key=f"step[{k}]", step=s) for k, s in enumerate(steps)]
    )


async def test_what_is_missing_is_told_without_an_experiment() -> None:
    lack = await abilities.lacking(Probed(replace(HR, geis=None), NO_GEIS), None, None)  # type: ignore[arg-type]
    assert lack == abilities.Lack((NO_GEIS,), ())


async def test_a_step_that_needs_what_is_missing_is_named() -> None:
    device = Probed(replace(HR, geis=None), NO_GEIS)
    with pytest.raises(
        Refused, match=r"step\[1\] \(eis\) needs galvanostatic impedance .* not licensed"
    ) as told:
        await abilities.require(device, None, experiment(EIS, GEIS))  # type: ignore[arg-type]
    assert told.value.device == "cell"
    assert await abilities.require(device, None, experiment(EIS)) == [NO_GEIS]  # type: ignore[arg-type]


async def test_a_lost_galvanostat_concerns_charges_too() -> None:
    device = Probed(replace(HR, galvanostat=False, geis=None), "no galvanostat")
    lack = await abilities.lacking(device, None, experiment(EIS, CHARGE))  # type: ignore[arg-type]
    assert lack.unmet == ("step[1] (charge) needs a galvanostat, and EmStat4 HR has none",)


async def test_nobody_is_asked_without_a_sweep_and_who_cannot_be_asked_lacks_nothing() -> None:
    device = Probed(replace(HR, eis=None), NO_EIS)
    assert await abilities.require(device, None, experiment(CHARGE)) == []  # type: ignore[arg-type]
    assert device.asked == 0
    assert await abilities.lacking(object(), None, experiment(EIS)) == abilities.Lack()  # type: ignore[arg-type]
